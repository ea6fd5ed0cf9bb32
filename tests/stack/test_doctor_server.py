"""The doctor asks a real server: one that is right, and the same one mistreated."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from mailrig import cli
from mailrig.doctor import AwayError, ask_server, server_findings
from mailrig.doctor.findings import OK, TRAP, UNKNOWN
from mailrig.stack import end, parts
from mailrig.stack.processes import Spawner


@pytest.fixture(scope="module")
def valkey(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """URL and pid of a broker as the rig starts it."""
    folder, spawner = Path(parts.data_folder()), Spawner()
    part, url = parts.start_valkey(spawner, folder / "valkey", tmp_path_factory.mktemp("logs"), 0)
    yield url, part.identity.pid
    end([part], reason="stop", grace_s=5)
    spawner.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(valkey) -> Iterator[redis.Redis]:
    """The server, given back as it was."""
    with redis.Redis.from_url(valkey[0], decode_responses=True) as client:
        names = ("maxmemory", "maxmemory-policy", "appendonly", "appendfsync", "requirepass")
        before = {name: client.config_get(name)[name] for name in names}
        yield client
        for name, value in before.items():
            client.config_set(name, value)
        client.flushall()


def found(url: str, results: str = "") -> dict[str, str]:
    return {f.id: f.finding for f in server_findings(ask_server(url, results))}


def traps(url: str, results: str = "") -> set[str]:
    return {name for name, kind in found(url, results).items() if kind == TRAP}


def test_the_rig_s_own_broker_has_no_trap(valkey):
    assert {name: kind for name, kind in found(f"{valkey[0]}/0").items() if kind != OK} == {"redis-result-ttl": UNKNOWN}


def test_what_kombu_makes_of_an_url_without_a_database_is_understood(valkey):
    assert ask_server(f"{valkey[0]}//").place == valkey[0]


@pytest.mark.parametrize(
    ("name", "value", "trap"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis-eviction"),
        ("appendonly", "no", "redis-appendonly"),
        ("appendfsync", "no", "redis-appendfsync"),
        ("maxmemory", "1mb", "redis-memory"),
    ],
)
def test_a_setting_of_the_server_that_loses_messages_is_found(valkey, client, name, value, trap):
    client.config_set(name, value)
    assert traps(valkey[0]) == {trap}


def test_results_are_looked_at_where_they_are(valkey, client):
    results = redis.Redis.from_url(f"{valkey[0]}/1")
    with results:
        results.set("celery-task-meta-a", "{}", ex=1000)
        results.set("something-else", "x")
        seen = ask_server(f"{valkey[0]}/0", f"{valkey[0]}/1")
        assert (seen.results_seen, seen.results_endless) == (1, 0)
        assert 990 < (seen.result_ttl_s_min or 0) <= 1000
        results.set("celery-task-meta-b", "{}")
        assert traps(f"{valkey[0]}/0", f"{valkey[0]}/1") == {"redis-result-ttl"}


def test_where_config_is_forbidden_info_is_enough_but_for_one_row(valkey, client):
    client.acl_setuser("doctor", enabled=True, passwords=["+s3cret"], categories=["+@all"], commands=["-config"])
    url = valkey[0].replace("redis://", "redis://doctor:s3cret@")
    asked = ask_server(url)
    client.acl_deluser("doctor")
    assert asked.appendfsync is None
    assert replace(asked, appendfsync="everysec", used_bytes=0) == replace(ask_server(valkey[0]), used_bytes=0)
    assert "s3cret" not in repr(asked)


def test_a_password_that_is_refused_is_not_repeated(valkey, client):
    client.config_set("requirepass", "right")
    try:
        with pytest.raises(AwayError, match="refuses the password") as caught:
            ask_server(valkey[0].replace("redis://", "redis://:s3cret@"))
    finally:
        client.execute_command("AUTH", "right")
        client.config_set("requirepass", "")
    assert "s3cret" not in str(caught.value)


def test_a_server_that_is_frozen_is_given_up(valkey):
    os.kill(valkey[1], signal.SIGSTOP)
    try:
        with pytest.raises(AwayError, match=r"no answer within 0\.2 s"):
            ask_server(valkey[0], timeout_s=0.2)
    finally:
        os.kill(valkey[1], signal.SIGCONT)


def test_the_command_joins_both_and_ends_with_one(valkey, client, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(f"from celery import Celery\napp = Celery('shop', broker='{valkey[0]}/0')\n")
    client.config_set("maxmemory-policy", "allkeys-lru")
    assert cli.main(["doctor", "--app", "shop"]) == 1
    told = capsys.readouterr().out
    assert "TRAP  redis-eviction" in told
    assert "TRAP  prefetch-multiplier" in told
    assert f"broker: {valkey[0]}/0" in told
