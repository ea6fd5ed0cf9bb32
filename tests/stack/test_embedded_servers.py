"""Valkey and PostgreSQL from their wheels, for real: what they promise, and what is said when they can't serve."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from mailrig.doctor import check_machine
from mailrig.stack import Part, QueueSampler, StackError, end, parts
from mailrig.stack.processes import Spawner

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root needs another user for PostgreSQL")


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A place to start servers in."""

    spawner: Spawner
    folder: Path
    logs: Path
    started: list

    def valkey(self, port: int = 0):
        part, url = parts.start_valkey(self.spawner, self.folder / "valkey", self.logs, port)
        self.started.append(part)
        return part, url

    def postgres(self, port: int = 0):
        part, url = parts.start_postgres(self.spawner, self.folder / "postgres", self.logs, port)
        self.started.append(part)
        return part, url


@contextmanager
def place_to_start() -> Iterator[Bench]:
    """Where every path has a space in it."""
    with tempfile.TemporaryDirectory(prefix="a space ", dir="/tmp") as spaced, pytest.MonkeyPatch.context() as patch:
        Path(spaced).chmod(0o711)
        patch.setattr(tempfile, "tempdir", spaced)
        folder = Path(parts.data_folder())
        assert " " in str(folder)
        spawner = Spawner()
        started: list = []
        yield Bench(spawner=spawner, folder=folder, logs=Path(spaced) / "the logs", started=started)
        end(started, reason="stop", grace_s=5, first=signal.SIGINT)
        spawner.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    with place_to_start() as bench:
        yield bench


@dataclass(frozen=True, kw_only=True)
class Served:
    """A database server that tests leave as it is: a cluster takes a second to make."""

    bench: Bench
    part: Part
    url: str


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with place_to_start() as bench:
        part, url = bench.postgres()
        yield Served(bench=bench, part=part, url=url)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else serves."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        yield stranger.getsockname()[1]


def log_of(bench: Bench) -> str:
    return "".join(path.read_text() for path in bench.logs.iterdir())


def test_the_broker_is_persistent_and_never_evicts(bench):
    _, url = bench.valkey()
    with redis.Redis.from_url(url, decode_responses=True) as client:
        wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction", "save": ""}
        assert {name: client.config_get(name)[name] for name in wanted} == wanted
        assert client.config_get("bind")["bind"] == "127.0.0.1"
        assert client.config_get("dir")["dir"] == str(bench.folder / "valkey")


def test_the_broker_keeps_its_queues_over_a_sigkill(bench):
    part, url = bench.valkey()
    with redis.Redis.from_url(url) as client:
        client.rpush("send", *range(100))
    part.popen.kill()
    part.popen.wait()
    _, again = bench.valkey()
    with redis.Redis.from_url(again) as client:
        assert client.llen("send") == 100


def test_the_queues_are_read_from_a_real_broker(bench, tmp_path):
    _, url = bench.valkey()
    with redis.Redis.from_url(url) as client:
        client.rpush("send\x06\x162", "m", "m")
    sampler = QueueSampler(url, tmp_path / "queues.jsonl")
    sampler.start()
    sampler.stop()
    assert sampler.ready["send"] == 2
    assert '"send":2' in (tmp_path / "queues.jsonl").read_text().splitlines()[0]


def test_the_database_is_postgresql_18_and_its_commits_are_durable(served):
    with psycopg.connect(served.url) as connection:
        shown = {
            name: connection.execute(f"SHOW {name}").fetchone()[0]
            for name in ("server_version_num", "synchronous_commit", "server_encoding", "listen_addresses")
        }
    assert shown.pop("server_version_num").startswith("18")
    assert shown == {"synchronous_commit": "on", "server_encoding": "UTF8", "listen_addresses": "127.0.0.1"}


def test_a_killed_database_loses_no_commit(bench):
    part, url = bench.postgres()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t AS SELECT generate_series(1, 500) AS n")
        part.popen.kill()
    part.popen.wait()
    command = parts.Command(
        kind="postgres",
        argv=[*part.popen.args],
        env=parts.plain_environment(),
        log=part.log,
        death_signal=signal.SIGINT,
        user=parts.server_user(),
        cwd=bench.folder / "postgres",
    )
    again = bench.spawner.start(command)
    bench.started.append(again)
    parts.wait_until(lambda: parts._postgres_answers(url), again, deadline_s=20, cancel=threading.Event())
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM t").fetchone() == (500,)


def test_the_database_lets_nobody_in_without_the_password(served):
    password = urlsplit(served.url).password
    for wrong in (served.url.replace(f":{password}", ""), served.url.replace(password, "guess")):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong, connect_timeout=2)


def test_no_password_is_on_a_command_line_or_in_a_file(served):
    password = urlsplit(served.url).password
    assert password not in " ".join(psutil.Process(served.part.identity.pid).cmdline())
    assert password not in log_of(served.bench)
    assert not (served.bench.folder / "postgres" / "password").exists()


@NEEDS_ROOT
def test_as_root_the_database_runs_as_nobody_with_no_group_of_root_s(served):
    process = psutil.Process(served.part.identity.pid)
    assert process.username() == "nobody"
    assert 0 not in process.gids()
    groups = next(
        line
        for line in Path(f"/proc/{served.part.identity.pid}/status").read_text().splitlines()
        if line.startswith("Groups:")
    )
    assert groups.split() == ["Groups:"]
    data = (served.bench.folder / "postgres" / "data").stat()
    assert stat.S_IMODE(data.st_mode) == 0o700
    assert stat.S_IMODE((served.bench.folder / "postgres").stat().st_mode) == 0o700


@NEEDS_ROOT
def test_programs_below_a_closed_home_are_run_from_a_copy(bench, tmp_path, monkeypatch):
    package = parts.postgres_bin().parent.parent
    closed = tmp_path / "home"
    closed.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        shutil.copytree(package.parent / name, closed / name, symlinks=True)
    (closed / package.name / "pginstall18" / "bin" / "postgres").chmod(0o700)
    monkeypatch.setattr(parts, "postgres_bin", lambda: closed / package.name / "pginstall18" / "bin")
    part, url = bench.postgres()
    assert part.popen.args[0].startswith(str(bench.folder / "programs"))
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@NEEDS_ROOT
def test_a_temporary_directory_that_nobody_can_pass_is_not_used(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(closed))
    folder = Path(parts.data_folder())
    assert closed not in folder.parents
    assert list(closed.iterdir()) == []
    folder.rmdir()


def test_a_port_that_was_asked_for_and_is_taken_is_named(taken):
    with pytest.raises(StackError, match=rf"^port {taken} is taken \(api\); choose another with --api-port or leave"):
        parts.check_port(taken, "api")


def test_a_port_that_can_t_be_is_named():
    with pytest.raises(StackError, match=r"^port 70000 can't be used: .*\(api\); choose another with --api-port"):
        parts.check_port(70000, "api")


@pytest.mark.parametrize("start", ["valkey", "postgres"])
def test_a_server_that_can_t_have_its_port_says_so_and_is_gone(bench, taken, start):
    with pytest.raises(StackError, match=rf"^{start} ended with exit code 1:[\s\S]*in use"):
        getattr(bench, start)(taken)


@pytest.mark.parametrize("start", ["valkey", "postgres"])
def test_a_free_port_that_somebody_takes_first_is_replaced(bench, taken, start, monkeypatch):
    free = parts.free_port
    offered = iter([taken])
    monkeypatch.setattr(parts, "free_port", lambda: next(offered, None) or free())
    part, url = getattr(bench, start)()
    assert urlsplit(url).port != taken
    assert part.identity.alive()


def test_another_broker_on_our_port_is_not_taken_for_ours(bench, monkeypatch):
    _, stranger = bench.valkey()
    port = urlsplit(stranger).port
    with pytest.raises(StackError, match="valkey ended with exit code 1"):
        parts.start_valkey(bench.spawner, bench.folder / "second", bench.logs, port)


def test_a_redis_url_that_nobody_answers_is_one_clear_line_within_seconds():
    url = f"redis://me:s3cret@127.0.0.1:{parts.free_port()}"
    begun = time.monotonic()
    with pytest.raises(
        StackError, match=r"^REDIS_URL \(redis://me:\*\*\*@127\.0\.0\.1:\d+\) does not answer"
    ) as caught:
        parts.external_redis(url)
    assert time.monotonic() - begun < 5
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_redis_url_that_is_silent_is_given_up_within_seconds(taken):
    begun = time.monotonic()
    with pytest.raises(StackError, match="does not answer: Timeout"):
        parts.external_redis(f"redis://127.0.0.1:{taken}")
    assert time.monotonic() - begun < parts.EXTERNAL_TIMEOUT_S + 2


def test_a_redis_url_with_a_wrong_password_says_why(bench):
    _, url = bench.valkey()
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", "right")
    with pytest.raises(StackError, match=r"refuses us: .*(WRONGPASS|invalid|password)"):
        parts.external_redis(url.replace("redis://", "redis://:wrong@"))
    assert parts.external_redis(url.replace("redis://", "redis://:right@")).endswith(url.removeprefix("redis://"))


def test_a_server_of_the_user_s_gets_a_database_that_goes_again(served):
    owner = served.url
    url, name = parts.own_database(owner)
    with closing(psycopg.connect(url)) as connection:
        assert connection.execute("SELECT current_database()").fetchone() == (name,)
        parts.drop_database(owner, name)  # although somebody is connected
    with psycopg.connect(owner) as connection:
        assert connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None


def test_a_database_url_that_nobody_answers_is_one_clear_line():
    url = f"postgresql://boss:s3cret@127.0.0.1:{parts.free_port()}/postgres"
    with pytest.raises(StackError, match=r"^DATABASE_URL \(postgresql://boss:\*\*\*@.*does not work") as caught:
        parts.own_database(url)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_doctor_finds_everything_here():
    findings = check_machine()
    assert [(name, text) for name, ok, text in findings if not ok] == []
    assert {"python", "platform", "broker", "database", "database user", "ports", "memory"} <= {f[0] for f in findings}
