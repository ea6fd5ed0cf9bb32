"""The verdict of the health checks, from what processes tell."""

from __future__ import annotations

import time
from types import SimpleNamespace

import fakeredis
import pytest
import redis

from email_service import health, policy, signals

SETTINGS = SimpleNamespace(node="mail@here", host="here", concurrency=4, broker_url="redis://nowhere/0")


@pytest.fixture
def broker(monkeypatch):
    client = fakeredis.FakeRedis()
    monkeypatch.setattr(health, "_redis", lambda _settings: client)
    return client


@pytest.fixture
def worker(broker, monkeypatch):
    """Judges a worker that answers these in turn, the last one for ever."""

    def judge(*answers, waiting=0):
        left = [dict(zip(("begun", "active", "held"), answer, strict=True)) if answer else None for answer in answers]
        monkeypatch.setattr(health, "_progress", lambda *_, **__: left.pop(0) if len(left) > 1 else left[0])
        monkeypatch.setattr(health, "_POLL_S", 0.001)
        for _ in range(waiting):
            broker.lpush(policy.priority_key("spam", 7), "{}")
        return health.worker(SETTINGS, timeout_s=0.05)

    return judge


def test_a_worker_with_nothing_to_do_is_healthy(worker):
    assert worker((5, 0, 0)).healthy


def test_a_worker_whose_processes_are_all_busy_may_let_others_wait(worker):
    assert worker((9, 4, 0), waiting=3).healthy


def test_a_worker_that_begins_a_task_meanwhile_is_healthy(worker):
    assert worker((5, 0, 0), (5, 1, 0), (6, 1, 0), waiting=3).healthy


def test_a_worker_that_begins_none_although_it_could_is_wedged(worker):
    found = worker((5, 1, 0), waiting=3)
    assert not found.healthy
    assert "3 tasks wait and 3 of its 4 processes are free" in found.reason


def test_what_a_worker_holds_without_running_waits_too(worker):
    assert not worker((5, 0, 4)).healthy


def test_a_worker_that_does_not_answer_is_unhealthy(worker):
    assert "mail@here does not answer" in worker(None).reason


def test_messages_of_queues_that_it_is_not_there_for_are_not_its_fault(worker, broker):
    broker.hset(signals.KEY_WORKERS, "mail@here", '{"concurrency": 2, "queues": ["send"]}')
    assert worker((5, 0, 0), waiting=3).healthy


ROUND = signals.KEY_DISPATCHER_ROUND.format(host="here")


@pytest.mark.parametrize(("kind", "key"), [(health.beat, signals.KEY_BEAT_TICK), (health.dispatcher, ROUND)])
@pytest.mark.parametrize(
    ("age_s", "healthy"), [(None, False), (1.0, True), (19.0, True), (21.0, False), (3600.0, False)]
)
def test_a_sign_of_life_counts_for_a_while(broker, kind, key, age_s, healthy):
    if age_s is not None:
        broker.set(key, time.time_ns() - int(age_s * 1e9))
    assert kind(SETTINGS, age_s_max=20.0).healthy is healthy


def test_a_broker_that_is_away_is_told_by_its_kind_of_error_alone(monkeypatch):
    def away(_settings):
        raise redis.ConnectionError("redis://:canary@host")

    monkeypatch.setattr(health, "_redis", away)
    for found in (health.worker(SETTINGS, timeout_s=0.05), health.beat(SETTINGS, age_s_max=1)):
        assert (found.healthy, found.reason) == (False, "the broker does not answer (ConnectionError)")
