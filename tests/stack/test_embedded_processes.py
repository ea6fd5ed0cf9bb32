"""No process outlives its rig: not on a stop, not on a SIGKILL of the rig, and what does is ended by the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mailrig.stack import StackError, end
from mailrig.stack.leftovers import StateFile
from mailrig.stack.processes import Command, Identity, Spawner, birth, wait_until

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
GONE_S = 10.0

#: A rig that starts both servers, and a part whose own child outlives it, says so and waits to be killed.
RIG = """
import json, os, signal, sys, threading
from pathlib import Path
from mailrig.stack import parts
from mailrig.stack.leftovers import StateFile
from mailrig.stack.processes import Command, Spawner, wait_until

base = Path(sys.argv[1])
state = StateFile(base / "state")
spawner = Spawner(state.add, mark=state.mark)
folder = Path(parts.data_folder())
state.add_folder(folder)
valkey, _ = parts.start_valkey(spawner, folder / "valkey", base / "logs", 0)
postgres, _ = parts.start_postgres(spawner, folder / "postgres", base / "logs", 0)
argv = ["/bin/sh", "-c", "sleep 600 & echo $! > " + str(base / "grandchild") + "; wait"]
family = spawner.start(Command(kind="family", argv=argv, env=os.environ, log=base / "logs" / "family.log"))
named = base / "grandchild"
wait_until(lambda: named.exists() and named.read_text().strip(), family, deadline_s=10, cancel=threading.Event())
pids = [valkey.identity.pid, postgres.identity.pid, family.identity.pid]
print(json.dumps({"pids": pids, "grandchild": int(named.read_text()), "folder": str(folder)}), flush=True)
signal.pause()
"""


def gone(pids, deadline_s=GONE_S) -> set[int]:
    """Those of them that are not there any more, or are dead and only not collected yet."""
    deadline, tick = time.monotonic() + deadline_s, threading.Event()

    def dead(pid):
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    while not all(dead(pid) for pid in pids) and time.monotonic() < deadline:
        tick.wait(0.02)
    return {pid for pid in pids if dead(pid)}


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


def command(tmp_path: Path, *argv: str, **options) -> Command:
    return Command(kind="part", argv=argv, env={"PATH": os.environ["PATH"]}, log=tmp_path / "part.log", **options)


@pytest.fixture
def killed_rig(tmp_path):
    """The facts of a rig that has been killed."""
    rig = subprocess.Popen([sys.executable, "-c", RIG, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        facts = json.loads(rig.stdout.readline())
    finally:
        rig.kill()
        rig.wait()
        rig.stdout.close()
    yield facts
    StateFile(tmp_path / "state").end_leftovers()


@LINUX
def test_nothing_that_was_started_is_left_after_a_sigkill_of_the_rig(killed_rig):
    assert gone(killed_rig["pids"]) == set(killed_rig["pids"])


@LINUX
def test_the_next_rig_ends_what_a_killed_one_left_and_removes_its_folder(tmp_path, killed_rig):
    gone(killed_rig["pids"])
    assert gone([killed_rig["grandchild"]], 0) == set(), "the test needs something that is left"
    assert Path(killed_rig["folder"]).is_dir()
    found = StateFile(tmp_path / "state").end_leftovers()
    assert gone([killed_rig["grandchild"]]) == {killed_rig["grandchild"]}
    assert not Path(killed_rig["folder"]).exists()
    assert [line.split(" (")[0] for line in found.told] == ["ended family"]
    assert list((tmp_path / "state").iterdir()) == []


@LINUX
def test_a_part_that_outlived_a_killed_rig_is_ended_with_its_family(tmp_path, monkeypatch):
    # As on macOS, where nothing tells a child that its parent died: this process plays the dead rig.
    monkeypatch.setattr("mailrig.stack.processes._PRCTL", None)
    state = StateFile(tmp_path / "state")
    spawner = Spawner(state.add, mark=state.mark)
    part = spawner.start(command(tmp_path, "/bin/sh", "-c", "sleep 600 & sleep 600 & wait"))
    spawner.close()
    (path,) = (tmp_path / "state").iterdir()
    wait_until(
        lambda: len(psutil.Process(part.popen.pid).children()) == 2, part, deadline_s=5, cancel=threading.Event()
    )
    family = [p.pid for p in psutil.Process(part.popen.pid).children()]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rig": {"pid": os.getpid(), "born": 0}}))
    path.chmod(0o600)
    found = StateFile(tmp_path / "state").end_leftovers()
    assert len(found.told) == 1
    assert part.popen.wait(GONE_S) == -signal.SIGKILL
    assert gone(family) == set(family)


def test_a_stranger_with_the_number_of_a_part_is_left_alone(tmp_path):
    stranger = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        born = birth(stranger.pid)
        state = StateFile(tmp_path)
        state.add_database("mailrig_1")  # so that there is a file
        (path,) = tmp_path.iterdir()
        rows = [{"pid": stranger.pid, "born": born - 1, "kind": "worker"}]
        text = json.dumps(json.loads(path.read_text()) | {"rig": {"pid": os.getpid(), "born": 0}, "parts": rows})
        path.write_text(text)
        assert StateFile(tmp_path).end_leftovers().told == ()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_part_that_was_started_is_written_down(tmp_path):
    state = StateFile(tmp_path / "state")
    spawner = Spawner(state.add, mark=state.mark)
    part = spawner.start(command(tmp_path, "sleep", "600"))
    (path,) = (tmp_path / "state").iterdir()
    row = {"pid": part.popen.pid, "born": birth(part.popen.pid), "kind": "part"}
    assert json.loads(path.read_text())["parts"] == [row]
    end([part], reason="stop", grace_s=5)
    spawner.close()


def test_a_part_that_can_t_be_written_down_is_ended_again(tmp_path):
    started = []

    def full(part):
        started.append(part)
        raise OSError(28, "No space left on device")

    spawner = Spawner(full)
    with pytest.raises(StackError, match=r"part can't be started: .*No space left"):
        spawner.start(command(tmp_path, "sleep", "600"))
    assert started[0].popen.returncode is not None
    spawner.close()


def test_a_stop_ends_a_part_and_its_children(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "/bin/sh", "-c", "trap '' TERM; sleep 600 & sleep 600 & wait"))
    process = psutil.Process(part.popen.pid)
    wait_until(lambda: len(process.children()) == 2, part, deadline_s=5, cancel=threading.Event())
    family = [child.pid for child in process.children()]
    end([part], reason="stop", grace_s=0.1)
    assert gone(family, 0) == set(family)
    record = part.record()
    assert (record["reason"], record["exit_code"]) == ("stop", -signal.SIGKILL)
    assert record["started_ns"] < record["ended_ns"]


def test_a_paused_part_can_be_stopped(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "sleep", "600"))
    part.popen.send_signal(signal.SIGSTOP)
    end([part], reason="stop", grace_s=10)
    assert part.popen.returncode == -signal.SIGTERM


def test_a_program_that_is_not_there_is_a_stack_error_and_the_next_one_starts(tmp_path, spawner):
    with pytest.raises(StackError, match=r"part can't be started: .*No such file"):
        spawner.start(command(tmp_path, "/no/such/program"))
    code, out, _ = spawner.run(
        command(tmp_path, "/bin/echo", "here", capture=True), timeout_s=10, cancel=threading.Event()
    )
    assert (code, out) == (0, "here\n")


def test_what_a_captured_program_prints_is_in_no_log(tmp_path, spawner):
    argv = ["/bin/sh", "-c", "echo token; echo error >&2; exit 3"]
    answer = spawner.run(command(tmp_path, *argv, capture=True), timeout_s=10, cancel=threading.Event())
    assert answer == (3, "token\n", "error\n")
    assert not (tmp_path / "part.log").exists()


def test_a_program_that_takes_too_long_is_ended(tmp_path, spawner):
    with pytest.raises(StackError, match="part did not end in time"):
        spawner.run(command(tmp_path, "sleep", "600", capture=True), timeout_s=0.1, cancel=threading.Event())


def test_a_program_that_is_not_wanted_any_more_is_ended(tmp_path, spawner):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(StackError, match="part was given up"):
        spawner.run(command(tmp_path, "sleep", "600"), timeout_s=60, cancel=cancel)


def test_a_part_that_dies_while_it_is_waited_for_is_named_with_its_last_lines(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "/bin/sh", "-c", "seq 100; echo the reason; exit 7"))
    with pytest.raises(StackError, match=r"^part ended with exit code 7:[\s\S]*the reason$") as caught:
        wait_until(lambda: False, part, deadline_s=10, cancel=threading.Event())
    assert len(str(caught.value).splitlines()) <= 9
    end([part], reason="stop", grace_s=0)


def test_a_part_that_is_killed_while_it_is_waited_for_says_by_what(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "/bin/sh", "-c", "kill -9 $$"))
    with pytest.raises(StackError, match=r"^part was ended by signal 9: it wrote nothing$"):
        wait_until(lambda: False, part, deadline_s=10, cancel=threading.Event())
    end([part], reason="stop", grace_s=0)


def test_a_part_that_is_never_ready_is_named(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "sleep", "600"))
    with pytest.raises(StackError, match=r"^part was not ready after 0\.1 s"):
        wait_until(lambda: False, part, deadline_s=0.1, cancel=threading.Event())
    end([part], reason="stop", grace_s=5)


def test_a_session_s_number_that_is_free_belongs_to_nobody(tmp_path, spawner):
    part = spawner.start(command(tmp_path, "true"))
    part.popen.wait()
    assert not Identity(pid=part.popen.pid, born=part.identity.born).alive()
    end([part], reason="stop", grace_s=0)
    assert part.record()["exit_code"] == 0
