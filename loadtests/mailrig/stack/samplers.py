"""What is measured while a run goes on: the broker's queues every 20 ms, the workers' memory every 500 ms.

Each sampler is a thread with a deadline of its own; what it can't read it says in a line and goes on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TextIO

import psutil
import redis

#: Queues, and the steps that kombu splits them into (celery-redis: a bare LLEN sees a third of the messages).
QUEUES: Final = ("sync", "send", "delete", "spam", "periodic")
STEPS: Final = ("", "\x06\x162", "\x06\x165", "\x06\x167")
#: An idle broker is written down this often, a change always.
IDLE_EVERY_S: Final = 0.05

_SCRIPT: Final = """
local now = redis.call('TIME')
local ready = {}
for i, queue in ipairs(ARGV) do
  local n = 0
  for j, step in ipairs(KEYS) do
    n = n + redis.call('LLEN', queue .. string.sub(step, 2))
  end
  ready[i] = n
end
local held = redis.call('ZRANGE', 'unacked_index', 0, -1, 'WITHSCORES')
local unacked = {}
for i = 1, #held, 2 do
  local body = redis.call('HGET', 'unacked', held[i])
  if body then
    local message = cjson.decode(body)[1]
    unacked[#unacked + 1] = message['headers']['id']
    unacked[#unacked + 1] = held[i + 1]
  end
end
return {now, ready, unacked}
"""


class _Sampler:
    """A thread that calls ``_sample`` at an interval and writes what it answers."""

    interval_s: float

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after one last sample."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._path.open("a") as file:
            due = time.monotonic()
            while not self._stop.is_set():
                self._write(file)
                due = max(due + self.interval_s, time.monotonic())
                self._stop.wait(due - time.monotonic())
            self._write(file)

    def _write(self, file: TextIO) -> None:
        line = self._sample()
        if line is not None:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()

    def _sample(self) -> dict[str, Any] | None:
        raise NotImplementedError


class QueueSampler(_Sampler):
    """Ready and unacknowledged messages: one Lua call a sample, so that all figures are of one instant."""

    interval_s = 0.02

    def __init__(self, redis_url: str, path: Path) -> None:
        super().__init__(path)
        self._client = redis.Redis.from_url(redis_url + "/0", socket_timeout=2, socket_connect_timeout=2)
        self._script = self._client.register_script(_SCRIPT)
        self._last: Any = None
        self._last_s = 0.0
        #: The newest sample, for the display of progress.
        self.ready: dict[str, int] = dict.fromkeys(QUEUES, 0)
        self.unacked = 0

    def sample(self) -> dict[str, Any]:
        """One reading, now.

        Raises:
            redis.RedisError: the broker is away.
        """
        # Lua drops what follows a NUL-free prefix nowhere, but an empty key is refused by clusters: hence the dot.
        (seconds, micros), ready, unacked = self._script(keys=["." + step for step in STEPS], args=list(QUEUES))
        pairs = zip(unacked[::2], unacked[1::2], strict=True)
        return {
            "time_ns": (int(seconds) * 1_000_000 + int(micros)) * 1000,
            "ready": dict(zip(QUEUES, ready, strict=True)),
            "unacked": [{"task_id": task.decode(), "received_ns": int(float(at) * 1e9)} for task, at in pairs],
        }

    def _sample(self) -> dict[str, Any] | None:
        try:
            line = self.sample()
        except redis.RedisError as err:
            return {"time_ns": time.time_ns(), "error": type(err).__name__}
        self.ready, self.unacked = line["ready"], len(line["unacked"])
        facts, now = (line["ready"], line["unacked"]), time.monotonic()
        if facts == self._last and now - self._last_s < IDLE_EVERY_S:
            return None
        self._last, self._last_s = facts, now
        return line


class MemorySampler(_Sampler):
    """PSS, RSS and USS of each worker process; PSS counts a shared page once for all who share it."""

    interval_s = 0.5

    def __init__(self, processes: Callable[[], Iterable[tuple[int, str]]], path: Path) -> None:
        super().__init__(path)
        self._processes = processes

    def _sample(self) -> dict[str, Any]:
        rows = [row for pid, kind in self._processes() if (row := memory_of(pid, kind)) is not None]
        return {"time_ns": time.time_ns(), "processes": rows}


def memory_of(pid: int, kind: str) -> dict[str, Any] | None:
    """One process's memory in bytes; None when it is gone. Without /proc, PSS is null."""
    try:
        info = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return None
    return {
        "pid": pid,
        "kind": kind,
        "pss_bytes": getattr(info, "pss", None),
        "rss_bytes": info.rss,
        "uss_bytes": getattr(info, "uss", None),
    }
