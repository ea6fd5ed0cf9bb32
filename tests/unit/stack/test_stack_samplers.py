"""What the samplers write, from a broker in memory and from /proc."""

import json
import os
import sys
import threading

import fakeredis
import pytest
import redis

from mailrig.stack import MemorySampler, QueueSampler, StackError
from mailrig.stack.samplers import _KEYS, QUEUES, STEPS, Sampler, memory_of


def message(task_id):
    return json.dumps([{"body": "", "headers": {"id": task_id}, "properties": {}}, "", "send"])


@pytest.fixture
def broker():
    with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as client:
        yield client


@pytest.fixture
def sampler(tmp_path, broker):
    sampler = QueueSampler("redis://127.0.0.1:1", tmp_path / "queues.jsonl")
    sampler._client.close()
    sampler._client = broker
    sampler._script = broker.register_script(sampler._script.script)
    return sampler


class Scripted(Sampler):
    """Says what it was given, then waits to be stopped."""

    def __init__(self, path, samples, *, idle_s):
        super().__init__(path, every_s=0.0, idle_s=idle_s)
        self._samples = iter(samples)
        self.done = threading.Event()

    def _sample(self):
        try:
            return next(self._samples)
        except StopIteration:
            self.done.set()
            return {"time_ns": 0, "n": "end"}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_list_of_every_queue_is_counted(sampler, broker):
    for k, queue in enumerate(QUEUES):
        for step in STEPS:
            broker.rpush(queue + step, *(["m"] * (k + 1)))
    sample = sampler.sample()
    assert sample["ready"] == {queue: (k + 1) * len(STEPS) for k, queue in enumerate(QUEUES)}
    assert sample["unacked"] == []


def test_a_held_message_is_known_by_its_task_and_when_it_was_received(sampler, broker):
    broker.zadd("unacked_index", {"tag": 1732442400.25})
    broker.hset("unacked", "tag", message("task-1"))
    assert sampler.sample()["unacked"] == [{"task_id": "task-1", "received_ns": 1732442400250000000}]


def test_a_message_that_is_gone_between_index_and_hash_is_not_held(sampler, broker):
    broker.zadd("unacked_index", {"tag": 1.0})
    assert sampler.sample()["unacked"] == []


@pytest.mark.parametrize("body", ["no json", "[]", "[{}]", '[{"headers": {"id": 7}}]', '"x"'])
def test_a_held_message_that_can_t_be_read_still_counts(sampler, broker, body):
    broker.zadd("unacked_index", {"tag": 1.0})
    broker.hset("unacked", "tag", body)
    assert [held["task_id"] for held in sampler.sample()["unacked"]] == ["tag"]


def test_the_time_is_the_broker_s(sampler, broker):
    seconds, micros = broker.time()
    assert abs(sampler.sample()["time_ns"] - (seconds * 10**9 + micros * 1000)) < 60 * 10**9


def test_a_broker_that_is_away_is_a_line_and_not_the_end(sampler, monkeypatch):
    def away(*_, **__):
        raise redis.ConnectionError("s3cret")

    with monkeypatch.context() as patch:
        patch.setattr(sampler, "_script", away)
        line = sampler._sample()
    assert line["error"] == "ConnectionError"
    assert "s3cret" not in json.dumps(line)
    assert sampler._sample()["ready"]["send"] == 0


def test_the_script_asks_for_each_key_by_name():
    assert len(_KEYS) == len(QUEUES) * len(STEPS) + 2
    assert "send\x06\x162" in _KEYS


def test_what_says_nothing_new_is_held_back(tmp_path):
    samples = [{"time_ns": t, "n": n} for t, n in enumerate([1, 1, 1, 2, 2, 1])]
    sampler = Scripted(tmp_path / "s.jsonl", samples, idle_s=3600.0)
    sampler.start()
    assert sampler.done.wait(10)
    sampler.stop()
    assert [line["n"] for line in lines(tmp_path / "s.jsonl")] == [1, 2, 1, "end"]


def test_without_a_hold_every_sample_is_written(tmp_path):
    samples = [{"time_ns": t, "n": 1} for t in range(4)]
    sampler = Scripted(tmp_path / "s.jsonl", samples, idle_s=0.0)
    sampler.start()
    assert sampler.done.wait(10)
    sampler.stop()
    assert [line["n"] for line in lines(tmp_path / "s.jsonl")][:4] == [1, 1, 1, 1]


def test_a_sampler_that_fails_says_so_when_it_is_stopped(tmp_path):
    def gone():
        raise ValueError("no such thing")

    sampler = MemorySampler(gone, tmp_path / "m.jsonl")
    sampler.start()
    sampler._thread.join(10)
    with pytest.raises(StackError, match="MemorySampler failed: no such thing"):
        sampler.stop()


def test_a_sampler_that_never_began_can_be_stopped(tmp_path):
    MemorySampler(list, tmp_path / "m.jsonl").stop()
    assert not (tmp_path / "m.jsonl").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is Linux's")
def test_a_process_has_pss_between_uss_and_rss(tmp_path):
    sampler = MemorySampler(lambda: [memory_of(os.getpid(), "worker-main")], tmp_path / "m.jsonl")
    sampler.start()
    sampler.stop()
    (row,) = lines(tmp_path / "m.jsonl")[0]["processes"]
    assert (row["pid"], row["kind"]) == (os.getpid(), "worker-main")
    assert 0 < row["uss_bytes"] <= row["pss_bytes"] <= row["rss_bytes"]
    assert 0 < row["cpu_s"] < 600


def test_a_process_that_is_gone_has_no_row():
    assert memory_of(2**22 + 1, "worker-child") is None
