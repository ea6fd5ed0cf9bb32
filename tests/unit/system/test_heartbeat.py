"""A worker's entry in the registry: when it is written, and what a broker that is away costs."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import fakeredis
import pytest
import redis

from email_service import heartbeat, registry, signals


class Broker(fakeredis.FakeRedis):
    """One that can be away, and that counts how often it is asked."""

    away = False
    asked = 0

    def execute_command(self, *args, **options):
        type(self).asked += 1
        if self.away:
            raise redis.ConnectionError
        return super().execute_command(*args, **options)


@pytest.fixture
def broker(monkeypatch):
    monkeypatch.setattr(Broker, "away", False)
    monkeypatch.setattr(Broker, "asked", 0)
    made = Broker()
    monkeypatch.setattr(heartbeat.redis.Redis, "from_url", lambda *_, **__: made)
    return made


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(monotonic_s=1000.0)
    monkeypatch.setattr(
        heartbeat,
        "time",
        SimpleNamespace(monotonic=lambda: now.monotonic_s, time_ns=lambda: int(now.monotonic_s * 1e9)),
    )
    return now


@pytest.fixture
def worker(broker, clock):
    settings = SimpleNamespace(broker_url="redis://here/0", host="here", node="mail@here")
    return heartbeat.Registration(settings, concurrency=4, queues=["send", "sync"])


def consumer(prefetch=4, children=()):
    pool = SimpleNamespace(_pool=[SimpleNamespace(pid=pid) for pid in children])
    return SimpleNamespace(qos=SimpleNamespace(value=prefetch), pool=SimpleNamespace(_pool=pool))


def entry(broker):
    stored = broker.hget(signals.KEY_WORKERS, "mail@here")
    return None if stored is None else json.loads(stored)


def test_nothing_is_told_before_the_worker_is_ready(worker, broker):
    worker.tell(consumer())
    assert entry(broker) is None


def test_a_ready_worker_tells_what_it_is_and_how_it_is(worker, broker):
    worker.ready(consumer(prefetch=3, children=[os.getpid()]))
    told = entry(broker)
    assert (told["concurrency"], told["queues"], told["pid"]) == (4, ["send", "sync"], os.getpid())
    assert (told["prefetch"], told["capacity"], told["children"]) == (3, 1, [os.getpid()])
    assert told["seen_ns"] == told["ready_ns"]


def test_each_beat_is_later_than_the_one_before_and_the_start_stays(worker, broker, clock):
    worker.ready(consumer())
    clock.monotonic_s += registry.EVERY_S
    worker.tell(consumer())
    told = entry(broker)
    assert told["seen_ns"] - told["ready_ns"] == registry.EVERY_S * 1e9


def test_a_broker_that_is_away_is_asked_once_and_then_left_alone_for_a_while(worker, broker, clock, caplog):
    """Each try may hold the worker's loop up for half a second."""
    worker.ready(consumer())
    Broker.away, Broker.asked = True, 0
    for _ in range(6):
        worker.tell(consumer())
        clock.monotonic_s += registry.EVERY_S
    assert Broker.asked == 1
    assert caplog.text.count("can't be written") == 1
    Broker.away = False
    clock.monotonic_s += heartbeat.PAUSE_S
    worker.tell(consumer())
    assert entry(broker)["seen_ns"] == int(clock.monotonic_s * 1e9)


def test_a_worker_that_has_stopped_leaves_no_entry_even_if_the_broker_was_just_away(worker, broker):
    worker.ready(consumer())
    Broker.away = True
    worker.tell(consumer())
    Broker.away = False
    worker.remove()
    assert entry(broker) is None


def test_a_worker_that_starts_clears_away_who_is_long_gone(worker, broker, clock):
    clock.monotonic_s = registry.FORGET_S * 2
    for node, seen_s in (("old", 1.0), ("young", clock.monotonic_s - 60)):
        broker.hset(signals.KEY_WORKERS, node, json.dumps({"seen_ns": int(seen_s * 1e9), "ready_ns": 1}))
    worker.ready(consumer())
    assert sorted(broker.hkeys(signals.KEY_WORKERS)) == [b"mail@here", b"young"]


def test_each_consumer_tells_at_once_and_by_a_timer_of_its_own(worker, broker):
    """Celery throws the timers away with the connection, and makes a new consumer's steps start again."""
    app = SimpleNamespace(steps={"consumer": set()})
    heartbeat.install(app, worker)
    (step,) = app.steps["consumer"]
    worker.ready(consumer())
    made = []

    def call_repeatedly(every_s, function, arguments):
        made.append((every_s, function, arguments))
        return SimpleNamespace(cancel=lambda: made.append("cancelled"))

    broker.flushall()
    active = consumer()
    active.timer = SimpleNamespace(call_repeatedly=call_repeatedly)
    beats = step(active)
    beats.start(active)
    assert entry(broker) is not None
    assert made == [(registry.EVERY_S, worker.tell, (active,))]
    beats.stop(active)
    beats.stop(active)
    assert made[1:] == ["cancelled"]
