"""The stack on real servers, with a service and fakes of a few lines: order, upkeep, ends, and what failures say.

The real service's start is tested elsewhere; here each part can be told to misbehave. Most tests share a broker and a
database server, as a user's own: a cluster takes a second to make.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from mailrig.stack import Stack, StackError, StackOptions, end, parts
from mailrig.stack.processes import Spawner
from mailrig.stack.stack import RESTARTS_MAX, SERVICES

DEADLINE_S = 20.0

#: A service that writes down its environment, and does as STUB_<KIND> says: "crash", "hang" or "crash-later".
SERVICE = """
import json, os, pathlib, signal, socket, subprocess, sys, time

kind, arguments = sys.argv[1], sys.argv[2:]
notes = pathlib.Path(os.environ["STUB_NOTES"])
with (notes / (kind + ".jsonl")).open("a") as file:
    file.write(json.dumps({"env": dict(os.environ), "argv": sys.argv, "file": __file__, "cwd": os.getcwd()}) + "\\n")
order = os.environ.get("STUB_" + kind.upper(), "")
if order == "crash":
    print("cause of death", file=sys.stderr)
    sys.exit(7)
if kind == "token":
    print("token-of-" + arguments[-1])
if kind in {"migrate", "tenant", "token"}:
    sys.exit(0)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
answer = {"pid": os.getpid(), "kind": kind}
listener = socket.socket()
if "--port" in arguments:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(arguments[arguments.index("--port") + 1])))
    answer["url"] = "http://127.0.0.1:%d" % listener.getsockname()[1]
if kind == "worker":
    for _ in range(2):
        subprocess.Popen(["sleep", "600"])
    if order == "crash-again" and len((notes / "worker.jsonl").read_text().splitlines()) > 1:
        print("cause of death", flush=True)
        sys.exit(7)
ready = pathlib.Path(arguments[arguments.index("--ready-file") + 1])
if order != "hang":
    ready.with_suffix(".new").write_text(json.dumps(answer))
    ready.with_suffix(".new").replace(ready)
signal.pause()
"""

FAKES = """
import json, os, pathlib, signal, sys

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
if os.environ.get("STUB_FAKEMAIL") == "crash":
    sys.exit("no fakes today")
ready = pathlib.Path(sys.argv[sys.argv.index("--ready-file") + 1])
place = {"host": "127.0.0.1", "port": 3025}
facts = {"pid": os.getpid(), "smtp": place, "imap": place | {"port": 3143}, "control": "http://127.0.0.1:3080"}
ready.with_suffix(".new").write_text(json.dumps(facts))
ready.with_suffix(".new").replace(ready)
signal.pause()
"""

#: A rig that is up, says what it started, and waits to be killed.
RIG = """
import json, os, signal, sys
from pathlib import Path
from mailrig.stack import Stack, StackOptions

base = Path(sys.argv[1])
os.environ["PYTHONPATH"] = sys.argv[2]
stack = Stack(StackOptions(log_dir=base / "logs", span_dir=base / "spans", state_dir=base / "state"))
stack.start()
print(json.dumps({"pids": stack.pids, "children": stack.worker_children()}), flush=True)
signal.pause()
"""


def write_package(root: Path, name: str, main: str) -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "__init__.py").touch()
    (root / name / "__main__.py").write_text(main)
    return root


def until(condition, deadline_s=DEADLINE_S):
    deadline, tick = time.monotonic() + deadline_s, threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        tick.wait(0.01)
    return answer


def dead(pid) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def yours(tmp_path_factory) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of a database server that are the user's own."""
    spawner, folder, logs = Spawner(), Path(parts.data_folder()), tmp_path_factory.mktemp("logs")
    broker, redis_url = parts.start_valkey(spawner, folder / "valkey", logs, 0)
    database, owner_url = parts.start_postgres(spawner, folder / "postgres", logs, 0)
    yield redis_url, owner_url
    end([broker, database], reason="stop", grace_s=10, first=signal.SIGINT)
    spawner.close()
    shutil.rmtree(folder)


@pytest.fixture
def embedded(stubs, monkeypatch) -> None:
    """The stack brings its own servers."""
    for name in ("REDIS_URL", "DATABASE_URL"):
        monkeypatch.delenv(name)


@pytest.fixture
def stubs(tmp_path, monkeypatch, yours) -> Path:
    """The service and the fakes are stubs, for every process that is started."""
    monkeypatch.setenv("REDIS_URL", yours[0])
    monkeypatch.setenv("DATABASE_URL", yours[1])
    root = write_package(tmp_path / "stubs", "email_service", SERVICE)
    write_package(root, "fakemail", FAKES)
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("STUB_NOTES", str(tmp_path / "notes"))
    return root


@pytest.fixture
def notes(tmp_path):
    def read(kind):
        return [json.loads(line) for line in (tmp_path / "notes" / f"{kind}.jsonl").read_text().splitlines()]

    return read


@pytest.fixture
def options(tmp_path, stubs):
    def build(**changes) -> StackOptions:
        places = {"log_dir": tmp_path / "logs", "span_dir": tmp_path / "spans", "state_dir": tmp_path / "state"}
        return StackOptions(**places | changes)

    return build


@contextmanager
def up(options: StackOptions) -> Iterator[Stack]:
    with Stack(options) as stack:
        yield stack


def test_all_parts_come_up_and_nothing_is_left_when_they_go(options, embedded, tmp_path):
    with up(options()) as stack:
        pids = dict(stack.pids)
        family = stack.worker_children()
        assert set(pids) == {"valkey", "postgres", "fakemail", *SERVICES}
        assert len(family) == 2
        assert stack.worker_processes() == [(pids["worker"], "worker-main"), *((c, "worker-child") for c in family)]
        assert (stack.smtp, stack.imap) == (("127.0.0.1", 3025), ("127.0.0.1", 3143))
        folder = stack._home
        assert folder.is_dir()
        (state,) = (tmp_path / "state").iterdir()
        assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert all(dead(pid) for pid in [*pids.values(), *family])
    assert not folder.exists()
    assert list((tmp_path / "state").iterdir()) == []
    records = stack.records
    assert {r["kind"]: r["pid"] for r in records} == pids
    assert {r["reason"] for r in records} == {"stop"}
    assert {r["exit_code"] for r in records} == {0}
    assert all(r["started_ns"] < r["ended_ns"] for r in records)


def test_the_service_is_told_what_it_needs_and_nothing_of_the_user_s(options, embedded, notes, monkeypatch, tmp_path):
    monkeypatch.setenv("MAIL_RETRY_MODE", "eta")
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://elsewhere")
    monkeypatch.setenv("TASK_TIME_LIMIT", "7")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector")
    with up(options(time_scale=0.05, environment={"MAIL_MUTANT": "yes"})) as stack:
        stack.create_tenant("acme")
        assert stack.token("acme", "alice") == "token-of-alice"
        (worker,) = notes("worker")
        env = worker["env"]
        assert env["REDIS_URL"] == stack.redis_url
        assert env["DATABASE_AUDIT_URL"] == stack.audit_url
        assert env["MAIL_ALLOWED_HOSTS"] == "127.0.0.1:3025,127.0.0.1:3143"
        assert (env["MAIL_TIME_SCALE"], env["MAIL_MUTANT"]) == ("0.05", "yes")
        assert env["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://collector"
        assert not {"MAIL_RETRY_MODE", "CELERY_BROKER_URL", "TASK_TIME_LIMIT", "DATABASE_OWNER_URL"} & set(env)
        assert "DATABASE_OWNER_URL" in notes("migrate")[0]["env"]
        assert worker["argv"][-4:] == ["--concurrency", "4", "--node", "mail@rig"]
        with psycopg.connect(notes("migrate")[0]["env"]["DATABASE_OWNER_URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        secrets = [env[name] for name in ("MAIL_TOKEN_SECRET", "CREDENTIAL_ENCRYPTION_KEY")]
        secrets += [urlsplit(env[name]).password for name in parts.ROLES]
        lines = " ".join(" ".join(psutil.Process(pid).cmdline()) for pid in stack.pids.values())
        written = "".join(path.read_text() for path in tmp_path.glob("logs/*"))
        written += "".join(path.read_text() for path in tmp_path.glob("state/*"))
        assert not [secret for secret in [*secrets, "token-of-alice"] if secret in lines + written + repr(stack)]


def test_two_stacks_share_no_secret(options, embedded, notes):
    for _ in range(2):
        with up(options(without=frozenset(SERVICES) - {"beat"})):
            pass
    first, second = (note["env"] for note in notes("beat"))
    for name in ("MAIL_TOKEN_SECRET", "CREDENTIAL_ENCRYPTION_KEY", "DATABASE_URL"):
        assert first[name] != second[name]


def test_a_patched_service_comes_first_even_where_another_lies_in_the_working_directory(
    options, notes, tmp_path, monkeypatch
):
    patched = write_package(tmp_path / "patched", "email_service", SERVICE)
    decoy = write_package(tmp_path / "decoy", "email_service", "raise SystemExit('the wrong one')")
    monkeypatch.chdir(decoy)
    with up(options(python_path=patched, without=frozenset({"beat", "dispatcher"}))) as stack:
        assert "beat" not in stack.pids
        assert notes("api")[0]["file"] == str(patched / "email_service" / "__main__.py")
        assert str(patched) not in psutil.Process(stack.pids["fakemail"]).environ()["PYTHONPATH"]


def test_a_killed_worker_is_started_again_and_its_family_is_gone(options):
    with up(options()) as stack:
        first, family = stack.worker_pid, stack.worker_children()
        assert stack.kill_worker_parent() == first
        second = until(lambda: stack.worker_pid not in {None, first} and stack.worker_pid)
        until(lambda: len(stack.worker_children()) == 2)
        assert all(dead(pid) for pid in family)
        assert stack.broken is None
    workers = [r for r in stack.records if r["kind"] == "worker"]
    assert [(r["pid"], r["reason"], r["exit_code"]) for r in workers] == [(first, "killed", -9), (second, "stop", 0)]
    assert workers[0]["ended_ns"] <= workers[1]["started_ns"]


def test_an_api_that_ends_comes_back_where_its_clients_look_for_it(options, notes):
    with up(options()) as stack:
        url, pid = stack.api_url, stack.pids["api"]
        os.kill(pid, signal.SIGTERM)
        until(lambda: len(notes("api")) == 2)
        assert notes("api")[1]["argv"][-1] == str(urlsplit(url).port)
        assert stack.api_url == url
    assert [r["reason"] for r in stack.records if r["kind"] == "api"] == ["restart", "stop"]


def test_a_part_that_does_not_stay_up_is_given_up_with_its_last_words(options):
    with up(options(environment={"STUB_WORKER": "crash-again"})) as stack:
        stack.kill_worker_parent()
        broken = until(lambda: stack.broken)
        assert f"gave up after {RESTARTS_MAX} restarts: worker ended with exit code 7:" in str(broken)
        assert "cause of death" in str(broken)
        assert stack.worker_pid is None
    assert len([r for r in stack.records if r["kind"] == "worker"]) == RESTARTS_MAX + 1


def test_a_server_that_dies_is_not_started_again(options, embedded):
    with up(options()) as stack:
        os.kill(stack.pids["valkey"], signal.SIGKILL)
        assert "valkey was ended by signal 9" in str(until(lambda: stack.broken))


def test_a_retired_part_is_not_started_again(options, notes):
    with up(options()) as stack:
        stack.retire("beat")
        assert "beat" not in stack.pids
        stack.retire("beat")
    assert len(notes("beat")) == 1
    assert [r["reason"] for r in stack.records if r["kind"] == "beat"] == ["stop"]


def test_the_worker_can_be_paused_and_a_paused_one_can_be_stopped(options):
    with up(options()) as stack:
        worker = psutil.Process(stack.worker_pid)
        stack.pause_worker()
        until(lambda: worker.status() == psutil.STATUS_STOPPED)
        stack.resume_worker()
        until(lambda: worker.status() != psutil.STATUS_STOPPED)
        stack.pause_worker()
    assert [r["exit_code"] for r in stack.records if r["kind"] == "worker"] == [0]


def test_only_a_process_of_the_worker_can_be_killed_as_one(options):
    with up(options()) as stack:
        child, other = stack.worker_children()
        stack.kill_worker_child(child)
        until(lambda: dead(child))
        assert not dead(other)
        with pytest.raises(StackError, match="runs no tasks"):
            stack.kill_worker_child(stack.pids["api"])
        assert not dead(stack.pids["api"])


def test_a_tool_ends_with_the_rig_and_is_no_part(options):
    with up(options()) as stack:
        tool = stack.run_tool("locust", ["sleep", "600"], os.environ)
        assert "locust" not in stack.pids
    until(lambda: dead(tool.identity.pid))


@pytest.mark.parametrize("kind", ["fakemail", "api", "worker", "migrate"])
def test_a_part_that_dies_while_the_stack_comes_up_is_named_and_all_is_down(options, kind, monkeypatch, tmp_path):
    monkeypatch.setenv(f"STUB_{kind.upper()}", "crash")
    stack = Stack(options())
    says = {
        "fakemail": r"fakemail ended with exit code 1:\n    no fakes today",
        "migrate": "python -m email_service migrate ended with exit code 7: cause of death",
    }
    begun = time.monotonic()
    with pytest.raises(StackError, match=says.get(kind, rf"{kind} ended with exit code 7:\n    cause of death")), stack:
        pytest.fail("it is not up")
    assert time.monotonic() - begun < DEADLINE_S
    assert stack.records
    assert all(dead(record["pid"]) for record in stack.records)
    assert list((tmp_path / "state").iterdir()) == []


def test_a_part_that_is_never_ready_is_named(options, monkeypatch):
    monkeypatch.setattr("mailrig.stack.stack.READY_TIMEOUT_S", 2.0)
    with (
        pytest.raises(StackError, match=r"^dispatcher was not ready after 2 s"),
        up(options(environment={"STUB_DISPATCHER": "hang"})),
    ):
        pytest.fail("it is not up")


def test_a_port_that_is_taken_is_said_before_anything_is_started(options, yours):
    port = urlsplit(yours[0]).port
    stack = Stack(options(ports={"api": port}))
    with pytest.raises(StackError, match=rf"^port {port} is taken \(api\); choose another with --api-port"), stack:
        pytest.fail("it is not up")
    assert stack.records == []


def test_a_redis_url_that_does_not_answer_brings_all_down(options, monkeypatch):
    monkeypatch.setenv("REDIS_URL", f"redis://:s3cret@127.0.0.1:{parts.free_port()}")
    stack = Stack(options())
    with pytest.raises(StackError, match=r"^REDIS_URL .* does not answer") as caught, stack:
        pytest.fail("it is not up")
    assert "s3cret" not in str(caught.value)
    assert all(dead(record["pid"]) for record in stack.records)


def test_servers_of_the_user_s_are_used_and_keep_what_is_theirs(options, yours, notes, monkeypatch):
    redis_url, owner_url = yours
    with redis.Redis.from_url(redis_url) as client:
        client.set("theirs", "kept")
    monkeypatch.setenv("DATABASE_URL", owner_url.replace("postgresql://", "postgresql+psycopg://"))
    with up(options(without=frozenset(SERVICES) - {"beat"})) as stack:
        assert not {"valkey", "postgres"} & set(stack.pids)
        assert stack.redis_url == redis_url
        name = urlsplit(notes("beat")[0]["env"]["DATABASE_URL"]).path[1:]
        assert name.startswith("mailrig_")
        assert databases(owner_url) >= {name}
    assert name not in databases(owner_url)
    with redis.Redis.from_url(redis_url) as client:
        assert client.get("theirs") == b"kept"


def test_a_database_that_can_t_be_dropped_is_said_and_dropped_by_the_next_rig(
    options, yours, monkeypatch, tmp_path, notes
):
    _, owner_url = yours
    stack = Stack(options(without=frozenset(SERVICES) - {"beat"}))
    stack.start()
    with monkeypatch.context() as patch:
        patch.setattr(stack, "_own_database", ("postgresql://nobody@127.0.0.1:1/x", stack._own_database[1]))
        with pytest.raises(StackError, match=r"DATABASE_URL .* does not work"):
            stack.stop()
    assert all(dead(record["pid"]) for record in stack.records)
    name = urlsplit(notes("beat")[0]["env"]["DATABASE_URL"]).path[1:]
    assert name in databases(owner_url)
    for path in tmp_path.glob("state/rig-*.json"):  # this process plays a rig that is gone
        state = json.loads(path.read_text())
        if state["databases"]:
            path.write_text(json.dumps(state | {"rig": {"pid": os.getpid(), "born": 0}}))
    with up(options(without=frozenset(SERVICES))) as second:
        assert second.leftovers == [f"dropped database {name}, left by a rig that was killed"]
    assert name not in databases(owner_url)


def databases(owner_url: str) -> set[str]:
    with psycopg.connect(owner_url) as connection:
        return {row[0] for row in connection.execute("SELECT datname FROM pg_database")}


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_rig_that_is_killed_leaves_nothing_once_the_next_one_has_started(options, embedded, tmp_path, monkeypatch):
    stubs = os.environ["PYTHONPATH"]
    monkeypatch.delenv("PYTHONPATH")
    rig = subprocess.Popen([sys.executable, "-c", RIG, str(tmp_path), stubs], stdout=subprocess.PIPE, text=True)
    facts = json.loads(rig.stdout.readline())
    rig.kill()
    rig.wait()
    rig.stdout.close()
    until(lambda: all(dead(pid) for pid in facts["pids"].values()))
    # A stub's children do not look after themselves, as a pool's do.
    assert not any(dead(pid) for pid in facts["children"])
    monkeypatch.setenv("PYTHONPATH", stubs)
    with up(options(without=frozenset(SERVICES))) as stack:
        assert [line.split(" (")[0] for line in stack.leftovers] == ["ended worker"]
        assert all(dead(pid) for pid in facts["children"])
