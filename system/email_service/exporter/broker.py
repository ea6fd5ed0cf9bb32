"""What the exporter asks Redis 0: the depth of queues, which workers run, how long beat and dispatchers are silent.

Called by sources.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from email_service import policy, registry, signals

#: A dispatcher that has been silent for so long was taken away for good, if another one works: hosts come and go.
FORGET_S: Final = 3600.0

#: In one call, so that no message moves between two of its answers. An unacknowledged one is kept as a JSON list of
#: message, exchange and routing key, which is the queue's name (kombu/transport/redis.py, QoS.append).
_DEPTH: Final = """
    local lengths, queues = {}, {}
    for i = 2, #KEYS do lengths[i - 1] = redis.call('LLEN', KEYS[i]) end
    for i, raw in ipairs(redis.call('HVALS', KEYS[1])) do
        local whole, entry = pcall(cjson.decode, raw)
        queues[i] = whole and type(entry) == 'table' and tostring(entry[3]) or ''
    end
    return {lengths, queues}
"""


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Messages in the broker, by queue."""

    #: Over all priority lists.
    ready: Mapping[str, int]
    #: Held by workers: taken and not yet acknowledged. A killed worker's stay here until they are given back.
    unacked: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Ages:
    """How long the processes are silent that tell of each of their rounds."""

    #: None before beat's first tick.
    beat_s: float | None = None
    #: By host.
    dispatchers_s: Mapping[str, float]


def read_depth(client: Any) -> Depth:
    """Messages per queue: ready ones summed over the lists that kombu keeps for its priorities, and held ones."""
    keys = [(queue, policy.priority_key(queue, step)) for queue in policy.QUEUES for step in policy.PRIORITY_STEPS]
    lengths, held = client.eval(_DEPTH, len(keys) + 1, "unacked", *(key for _, key in keys))
    ready: Tally[str] = Tally()
    for (queue, _), length in zip(keys, lengths, strict=True):
        ready[queue] += int(length)
    return Depth(ready=ready, unacked=Tally(queue.decode() for queue in held))


def read_workers(client: Any, host: str) -> list[registry.Worker]:
    """The registered workers that run, as far as can be known from this host."""
    return registry.workers(client.hgetall(signals.KEY_WORKERS), host, now_ns=time.time_ns())


def read_ages(client: Any) -> Ages:
    """How long beat and the dispatchers are silent; of dispatchers that are gone only the last is told."""
    prefix, _, _ = signals.KEY_DISPATCHER_ROUND.partition("{")
    keys = [key.decode() for key in client.scan_iter(match=f"{prefix}*", count=1000)]
    beat, *rounds = client.mget(signals.KEY_BEAT_TICK, *keys)
    now_ns = time.time_ns()
    told = {key.removeprefix(prefix): _age_s(at, now_ns) for key, at in zip(keys, rounds, strict=True) if at}
    last_s = min(told.values(), default=0.0)
    return Ages(
        beat_s=None if beat is None else _age_s(beat, now_ns),
        dispatchers_s={host: age_s for host, age_s in sorted(told.items()) if age_s <= max(last_s, FORGET_S)},
    )


def _age_s(at: bytes, now_ns: int) -> float:
    return max((now_ns - int(at)) / 1e9, 0.0)
