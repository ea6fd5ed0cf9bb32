"""What the exporter reads in Redis."""

from __future__ import annotations

import json
import time

import fakeredis
import pytest

from email_service import policy, signals
from email_service.exporter import broker


@pytest.fixture
def client():
    return fakeredis.FakeRedis()


def test_a_queue_is_as_deep_as_its_lists_of_all_priorities_together(client):
    client.rpush("send", "m")
    for step, count in ((2, 3), (5, 1), (7, 2)):
        client.rpush(policy.priority_key("send", step), *["m"] * count)
    client.rpush(policy.priority_key("sync", 0), "m")
    depth = broker.read_depth(client)
    assert {q: n for q, n in depth.ready.items() if n} == {"send": 7, "sync": 1}


def test_a_message_that_a_worker_holds_is_counted_by_its_queue(client):
    message = {"body": "W10=", "headers": {"id": "1"}, "properties": {"delivery_info": {"routing_key": "send"}}}
    for tag, queue in (("a", "send"), ("b", "send"), ("c", "sync")):
        client.hset("unacked", tag, json.dumps([message, "", queue]))
    client.hset("unacked", "d", "not json")
    assert broker.read_depth(client).unacked == {"send": 2, "sync": 1, "": 1}


def test_an_empty_broker_is_empty(client):
    depth = broker.read_depth(client)
    assert (sum(depth.ready.values()), depth.unacked) == (0, {})
    assert broker.read_workers(client, "here") == []
    assert broker.read_ages(client) == broker.Ages(dispatchers_s={})


def ago(seconds):
    return time.time_ns() - int(seconds * 1e9)


def silent(client, **seconds):
    for host, value in seconds.items():
        client.set(signals.KEY_DISPATCHER_ROUND.format(host=host), ago(value))


def test_beat_and_the_dispatchers_are_as_old_as_their_last_sign_of_life(client):
    client.set(signals.KEY_BEAT_TICK, ago(7))
    silent(client, one=3, two=5)
    ages = broker.read_ages(client)
    assert ages.beat_s == pytest.approx(7, abs=2)
    assert ages.dispatchers_s == {"one": pytest.approx(3, abs=2), "two": pytest.approx(5, abs=2)}


def test_a_dispatcher_whose_host_was_taken_away_is_forgotten_while_another_works(client):
    silent(client, now=1, gone=broker.FORGET_S + 10)
    assert list(broker.read_ages(client).dispatchers_s) == ["now"]


def test_the_last_dispatcher_is_never_forgotten(client):
    """Its age is the alarm."""
    silent(client, last=3 * broker.FORGET_S, before=9 * broker.FORGET_S)
    assert list(broker.read_ages(client).dispatchers_s) == ["last"]


def test_a_clock_that_is_ahead_makes_no_negative_age(client):
    silent(client, ahead=-60)
    assert broker.read_ages(client).dispatchers_s == {"ahead": 0}
