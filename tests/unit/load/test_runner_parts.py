"""The runner's small parts: signals, screen, scratch folder, the tail of a history, run.json."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from mailrig.history import HistoryWriter
from mailrig.runner.facts import commit_of, facts_of, patched_service
from mailrig.runner.interrupts import SIGNALS, Stopped, deferred, listening, stop_on_signals
from mailrig.runner.load import HistoryTail, locustfile
from mailrig.runner.scratch import scratch_folder
from mailrig.runner.screen import Glance, Screen, time_left
from mailrig.scenario import load_mutant, load_scenario, mutant_names

# --- signals ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def signals_():
    before = [signal.getsignal(number) for number in SIGNALS]
    stop_on_signals()
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGHUP, 129), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_becomes_the_exit_code_that_shells_expect(number, code):
    with pytest.raises(Stopped) as stopped:
        signal.raise_signal(number)
    assert stopped.value.exit_code == code


@pytest.mark.usefixtures("signals_")
def test_the_second_signal_changes_nothing():
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)


def clean_up(done):
    with deferred():
        with deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("inner")
        signal.raise_signal(signal.SIGINT)
        done.append("outer")


@pytest.mark.usefixtures("signals_")
def test_cleaning_up_is_finished_before_a_signal_is_heard():
    done = []
    with pytest.raises(Stopped) as stopped:
        clean_up(done)
    assert (done, stopped.value.exit_code) == (["inner", "outer"], 143)


@pytest.mark.usefixtures("signals_")
def test_a_signal_while_another_one_is_heard_is_not_told():
    done = []
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)
    clean_up(done)
    assert done == ["inner", "outer"]


def end_early(*numbers):
    """What is raised when these signals come while somebody listens, and whether the wish was heard."""
    wishes = []
    try:
        with listening() as wish:
            wishes.append(wish)
            for number in numbers:
                signal.raise_signal(number)
    except Stopped as stopped:
        return stopped.exit_code, wishes[0].asked
    return None, wishes[0].asked


@pytest.mark.usefixtures("signals_")
@pytest.mark.parametrize(
    ("numbers", "raised", "asked"),
    [
        ([], None, False),
        ([signal.SIGINT], None, True),
        ([signal.SIGINT, signal.SIGINT], 130, True),
        ([signal.SIGINT, signal.SIGTERM], 143, True),
        ([signal.SIGTERM], 143, False),
    ],
)
def test_who_listens_is_asked_once_by_ctrl_c_and_stopped_by_all_else(numbers, raised, asked):
    assert end_early(*numbers) == (raised, asked)


@pytest.mark.usefixtures("signals_")
def test_after_the_listening_a_signal_raises_as_ever():
    assert end_early(signal.SIGINT) == (None, True)
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGINT)


# --- screen -----------------------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_of_progress_every_five_seconds():
    out, now = io.StringIO(), [0.0]
    screen = Screen(out, clock=lambda: now[0])
    screen.step("load")
    for tenth in range(121):
        now[0] = tenth / 10
        screen.progress(f"asked {tenth}")
    assert out.getvalue().splitlines() == ["[  0.0 s] load", "[  5.0 s] asked 50", "[ 10.0 s] asked 100"]


def test_a_terminal_gets_one_line_that_changes_and_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    out = Terminal()
    screen = Screen(out, clock=lambda: 1.0)
    screen.progress("asked " + "9" * 100)
    screen.step("healing")
    line, _, step = out.getvalue().rpartition("\r\x1b[K")
    assert len(line.removeprefix("\r\x1b[K")) == 29
    assert step == "[  0.0 s] healing\n"


def test_a_quiet_screen_says_nothing():
    out = Terminal()
    screen = Screen(out, clock=lambda: 9.0, quiet=True)
    screen.step("load")
    screen.progress("asked 1")
    assert out.getvalue() == ""


@pytest.mark.parametrize(
    ("gone_s", "told"),
    [
        (None, ""),
        (0.0, "warm-up, 3 s left, then 22 s of load"),
        (2.6, "warm-up, 0 s left, then 22 s of load"),
        (3.0, "load, 22 s left"),
        (25.0, "drain, 20 s left at most"),
        (99.0, "drain, 0 s left at most"),
    ],
)
def test_a_phase_says_how_long_it_lasts(gone_s, told):
    assert time_left(load_scenario("smoke").load, drain_s=20, gone_s=gone_s) == told


def test_what_costs_something_is_looked_at_once_a_second():
    now, made = [0.0], []
    glance = Glance(lambda: made.append(now[0]) or f"look {len(made)}", clock=lambda: now[0])
    shown = []
    for tenth in range(25):
        now[0] = tenth / 10
        shown.append(str(glance))
    assert (shown[0], shown[9], shown[10], shown[-1]) == ("look 1", "look 1", "look 2", "look 3")


# --- scratch ----------------------------------------------------------------------------------------------------------


def test_a_scratch_folder_is_its_owner_s_only_and_goes_with_its_block(tmp_path):
    with scratch_folder(tmp_path / "state") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "state").iterdir()) == []


def test_what_a_killed_rig_has_left_is_removed_and_a_living_one_s_is_not(tmp_path):
    code = (
        "import sys, signal, os, pathlib\nfrom mailrig.runner.scratch import scratch_folder\n"
        "with scratch_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'tokens').write_text('x')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with scratch_folder(tmp_path) as living:
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
        assert len(list(tmp_path.iterdir())) == 2
        with scratch_folder(tmp_path) as mine:
            assert set(tmp_path.iterdir()) == {living, mine}


# --- tail -------------------------------------------------------------------------------------------------------------


def test_a_history_is_counted_while_it_is_written(tmp_path):
    path = tmp_path / "history.jsonl"
    tail = HistoryTail(path)
    tail.read()
    assert (tail.start_ns, str(tail)) == (None, "starting the load")
    with HistoryWriter(path, "load") as history:
        history.append("info", "phase", {"name": "warmup", "scheduled": 9}, time_ns=77)
        history.append("invoke", "send", {})
        tail.read()
        for kind in ("ok", "ok", "fail", "info"):
            history.append(kind, "send", {})
        history.append("ok", "complete", {"state": "succeeded"})
        history.append("ok", "complete", {"state": "failed"})
    tail.read()
    assert tail.start_ns == 77
    assert str(tail) == "asked 1 of 9, accepted 2, settled 1, failed 1, refused 1, unclear 1"


def test_a_line_that_is_not_whole_yet_waits(tmp_path):
    path, whole = tmp_path / "history.jsonl", tmp_path / "whole.jsonl"
    with HistoryWriter(whole, "load") as history:
        history.append("info", "phase", {"name": "warmup", "scheduled": 1}, time_ns=77)
    text, tail = whole.read_text(), HistoryTail(path)
    path.write_text(text[:20])
    tail.read()
    assert tail.start_ns is None
    path.write_text(text)
    tail.read()
    assert tail.start_ns == 77


def test_the_locustfile_is_found():
    assert locustfile().name == "locustfile.py"


# --- facts ------------------------------------------------------------------------------------------------------------


def test_run_json_says_what_was_run_and_names_no_host_and_no_path():
    facts = facts_of(load_scenario("smoke"), None, datetime.fromtimestamp(5, UTC))
    assert (facts["scenario"], facts["started_ns"], facts["ended_ns"], facts["mutant"]) == (
        "smoke",
        5 * 10**9,
        None,
        None,
    )
    assert {"celery", "locust"} <= set(facts["versions"])
    assert "/" not in json.dumps(facts["host"])


def test_a_folder_that_is_in_no_repository_has_no_commit(tmp_path):
    assert commit_of(tmp_path) is None


def test_a_mutant_without_patches_needs_no_copy(tmp_path):
    assert patched_service(load_mutant("no-dispatcher"), tmp_path / "patched") is None
    assert not (tmp_path / "patched").exists()


@pytest.mark.parametrize("name", mutant_names())
def test_every_mutant_applies_to_the_service_as_it_is(tmp_path, name):
    folder = patched_service(load_mutant(name), tmp_path / "patched")
    for patch in load_mutant(name).patches:
        text = (folder / "email_service" / patch.file).read_text()
        assert patch.new in text
