"""What is measured while a run goes on: the broker's queues every 20 ms, the workers' memory every 500 ms.

Each sampler is a thread with a deadline of its own; what it can't read it says in a line and goes on. Called by runner,
and by collect for the last look at the broker.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailrig.stack.cgroup import cgroup_of
from mailrig.stack.processes import StackError

#: Queues, and what kombu appends to a queue's name for each step of priority: a bare LLEN sees a third of the messages.
QUEUES: Final = ("sync", "send", "delete", "spam", "periodic")
STEPS: Final = ("", "\x06\x162", "\x06\x165", "\x06\x167")
#: What has not changed is written down this often, a change always: a longer hold would look like a gap.
IDLE_EVERY_S: Final = 0.05
_QUEUE_EVERY_S: Final = 0.02
#: Between two readings of our own workers' memory, seconds.
MEMORY_EVERY_S: Final = 0.5
_BROKER_TIMEOUT_S: Final = 2.0

#: KEYS: the lists, queue by queue, then the two of what is delivered and not acknowledged. ARGV: lists per queue.
#: A body that can't be read still counts as held, under its delivery tag.
_SCRIPT: Final = """
local per_queue, lists = tonumber(ARGV[1]), #KEYS - 2
local ready = {}
for i = 1, lists do
  local queue = math.floor((i - 1) / per_queue) + 1
  ready[queue] = (ready[queue] or 0) + redis.call('LLEN', KEYS[i])
end
local held = redis.call('ZRANGE', KEYS[lists + 1], 0, -1, 'WITHSCORES')
local unacked = {}
for i = 1, #held, 2 do
  local body = redis.call('HGET', KEYS[lists + 2], held[i])
  if body then
    local known, id = pcall(function() return cjson.decode(body)[1]['headers']['id'] end)
    unacked[#unacked + 1] = known and type(id) == 'string' and id or held[i]
    unacked[#unacked + 1] = held[i + 1]
  end
end
return {redis.call('TIME'), ready, unacked}
"""
_KEYS: Final = [*(queue + step for queue in QUEUES for step in STEPS), "unacked_index", "unacked"]


class Sampler:
    """A thread that samples at an interval and writes down what it sees."""

    def __init__(self, path: Path, *, every_s: float, idle_s: float) -> None:
        self._path = path
        self._every_s = every_s
        #: How long a line that says nothing new is held back.
        self._idle_s = idle_s
        self._last: tuple[Any, float] = (None, 0.0)
        self._stop = threading.Event()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after one last sample; safe to call twice.

        Raises:
            StackError: it could not go on to the end, so that what it wrote is not whole.
        """
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._failed is not None:
            raise StackError(f"{type(self).__name__} failed: {self._failed}") from self._failed

    def _run(self) -> None:
        try:
            with self._path.open("a") as file:
                for line in self._lines():
                    file.write(json.dumps(line, separators=(",", ":")) + "\n")
                    file.flush()
        except Exception as err:  # noqa: BLE001  # told by stop: a thread has nobody else to tell
            self._failed = err

    def _lines(self) -> Iterable[dict[str, Any]]:
        due = time.monotonic()
        while not self._stop.is_set():
            yield from self._news()
            # A late sample does not make the next ones come in a burst.
            due = max(due + self._every_s, time.monotonic())
            self._stop.wait(due - time.monotonic())
        yield from self._final()

    def _final(self) -> Iterable[dict[str, Any]]:
        """One more after the end; others may have more to say."""
        yield from self._news()

    def _news(self) -> Iterable[dict[str, Any]]:
        """The line of this moment, unless it says what the last one said a short time ago."""
        line = self._sample()
        facts, now = {k: v for k, v in line.items() if k != "time_ns"}, time.monotonic()
        if facts != self._last[0] or now - self._last[1] >= self._idle_s:
            self._last = (facts, now)
            yield line

    def _sample(self) -> dict[str, Any]:
        raise NotImplementedError


class QueueSampler(Sampler):
    """Ready and unacknowledged messages: one Lua call a sample, so that all figures are of one instant."""

    def __init__(self, redis_url: str, path: Path) -> None:
        super().__init__(path, every_s=_QUEUE_EVERY_S, idle_s=IDLE_EVERY_S)
        # Without the client's own retries: the next sample is one.
        self._client = redis.Redis.from_url(
            redis_url + "/0",
            socket_timeout=_BROKER_TIMEOUT_S,
            socket_connect_timeout=_BROKER_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
        )
        self._script = self._client.register_script(_SCRIPT)
        #: The newest sample, for the display of progress.
        self.ready: dict[str, int] = dict.fromkeys(QUEUES, 0)
        self.unacked = 0
        self._held: list[dict[str, Any]] = []

    def held_since(self, time_ns: int) -> int:
        """Of what is not acknowledged in the newest sample, what was received after a time."""
        return sum(entry["received_ns"] >= time_ns for entry in self._held)

    def sample(self) -> dict[str, Any]:
        """One reading, now.

        Raises:
            redis.RedisError: the broker is away.
        """
        (seconds, micros), ready, unacked = self._script(keys=_KEYS, args=[len(STEPS)])
        pairs = zip(unacked[::2], unacked[1::2], strict=True)
        return {
            "time_ns": (int(seconds) * 1_000_000 + int(micros)) * 1000,
            "ready": dict(zip(QUEUES, ready, strict=True)),
            "unacked": [{"task_id": task.decode(), "received_ns": _nanoseconds(at)} for task, at in pairs],
        }

    def waiting(self) -> dict[str, list[str]]:
        """Ids of the ready messages, by queue; one that can't be read has none, and counts.

        Raises:
            redis.RedisError: the broker is away.
        """
        found: dict[str, list[str]] = {}
        for queue in QUEUES:
            bodies = [body for step in STEPS for body in self._client.lrange(queue + step, 0, -1)]
            found[queue] = [_id_of(body) for body in bodies]
        return found

    def _sample(self) -> dict[str, Any]:
        try:
            line = self.sample()
        except redis.RedisError as err:
            return {"time_ns": time.time_ns(), "error": type(err).__name__}
        self.ready, self.unacked, self._held = line["ready"], len(line["unacked"]), line["unacked"]
        return line

    def _run(self) -> None:
        super()._run()
        self._client.close()


def _id_of(body: bytes | str) -> str:
    try:
        return str(json.loads(body)["headers"]["id"])
    except (ValueError, KeyError, TypeError):
        return ""


def _nanoseconds(score: bytes) -> int:
    """A float of seconds loses the nanoseconds that its text still has."""
    return int(Decimal(score.decode()) * 10**9)


class MemorySampler(Sampler):
    """PSS, RSS and USS of each worker process; PSS counts a shared page once for all who share it.

    The kernel walks all pages for it: 1 to 4 ms of CPU for a process of 30 to 80 MiB, so that five of them twice a
    second are 1 to 3 % of a core. Each line says what it took.
    """

    def __init__(
        self, read: Callable[[], Iterable[dict[str, Any]]], path: Path, *, every_s: float = MEMORY_EVERY_S
    ) -> None:
        super().__init__(path, every_s=every_s, idle_s=0.0)
        self._read = read

    def _sample(self) -> dict[str, Any]:
        time_ns, begun_ns = time.time_ns(), time.thread_time_ns()
        processes = list(self._read())
        # What looking costs is part of what was seen; the kernel's share is charged to who looks.
        return {"time_ns": time_ns, "processes": processes, "read_cpu_ns": time.thread_time_ns() - begun_ns}


def memory_of(pid: int, kind: str) -> dict[str, Any] | None:
    """One process's memory in bytes, and the CPU time that it has had so far; None when it is gone.

    Of a worker's main process also what their control group is charged (``cgroup``).
    """
    sizes, cpu_s = _from_smaps(pid) if sys.platform == "linux" else _from_psutil(pid), _cpu_s(pid)
    if sizes is None or cpu_s is None:
        return None
    group = cgroup_of(pid) if kind == "worker-main" else {}
    return {"pid": pid, "kind": kind, **sizes, "cpu_s": cpu_s, **group}


def _cpu_s(pid: int) -> float | None:
    """Of all its threads, in steps of a clock tick (10 ms on Linux)."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return round(times.user + times.system, 6)


def _from_smaps(pid: int) -> dict[str, Any] | None:
    """All three from one read, so that they are of one moment (proc_pid_smaps_rollup(5))."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return None
    kilobytes: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        name, _, rest = line.partition(":")
        kilobytes[name] = int(rest.split()[0])
    if "Pss" not in kilobytes:  # a zombie has no memory
        return None
    return {
        "pss_bytes": kilobytes["Pss"] * 1024,
        "rss_bytes": kilobytes["Rss"] * 1024,
        "uss_bytes": (kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]) * 1024,
    }


def _from_psutil(pid: int) -> dict[str, Any] | None:
    """Without PSS, which macOS does not know."""
    try:
        info = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return None
    return {"pss_bytes": None, "rss_bytes": info.rss, "uss_bytes": info.uss}
