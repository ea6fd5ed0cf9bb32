"""A foreign broker on Redis: what waits and what is not acknowledged, by one Lua call for all figures of an instant.

Reads only. The messages themselves are decoded by the server, once each, and only their ids and times come back. For 20
lists and 4 held messages a call takes 35 us of the server, with 1,000 held 0.8 ms (Valkey 9, two cores).
Called by watching. A sample has the shape of a line of ``evidence/queues.jsonl``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Self

import redis

from mailrig.doctor.facts import App
from mailrig.doctor.server import TIMEOUT_S, connect, place, reason
from mailrig.scenario import RigError

#: Of what is not acknowledged so many are looked at, the newest; all are counted.
HELD_MAX: Final = 1000
#: The server does nothing else while it decodes: 20 us a message of 2 kB, so 2 ms at most at once.
_LOOK_MAX: Final = 100
#: A message that is longer is not decoded for its id.
_BODY_BYTES_MAX: Final = 1_000_000
#: What kombu puts between a queue's name and a step of priority.
_SEPARATOR: Final = "\x06\x16"
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss", "redis+socket": "unix"}

#: KEYS: the lists, queue by queue, then the index of what is not acknowledged. ARGV: lists per queue, how many entries.
_COUNT: Final = """
local per_queue, lists = tonumber(ARGV[1]), #KEYS - 1
local ready = {}
for i = 1, lists do
  local queue = math.floor((i - 1) / per_queue) + 1
  ready[queue] = (ready[queue] or 0) + redis.call('LLEN', KEYS[i])
end
local index = KEYS[lists + 1]
local held = redis.call('ZREVRANGE', index, 0, tonumber(ARGV[2]) - 1, 'WITHSCORES')
return {redis.call('TIME'), ready, redis.call('ZCARD', index), held}
"""
#: KEYS: the messages that are not acknowledged. ARGV: the longest that is decoded, then delivery tags.
_LOOK: Final = """
local found = {}
for i = 2, #ARGV do
  local seen = {}
  if redis.call('HSTRLEN', KEYS[1], ARGV[i]) <= tonumber(ARGV[1]) then
    local body = redis.call('HGET', KEYS[1], ARGV[i])
    local known, message = pcall(cjson.decode, body or '')
    if known and type(message) == 'table' and type(message[1]) == 'table' then
      local headers, properties = message[1]['headers'] or {}, message[1]['properties'] or {}
      local where = properties['delivery_info'] or {}
      for name, value in pairs({id=headers['id'], task=headers['task'], eta=headers['eta'],
                                retries=headers['retries'], queue=where['routing_key']}) do
        if type(value) == 'string' or type(value) == 'number' then seen[name] = value end
      end
    end
  end
  seen['tag'] = ARGV[i]
  found[#found + 1] = cjson.encode(seen)
end
return found
"""


class BrokerError(RigError):
    """The broker can't be asked: exit code 2."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Where kombu keeps an application's messages."""

    queues: tuple[str, ...]
    lists_per_queue: int
    lists: tuple[str, ...]
    index: str
    messages: str

    @classmethod
    def of(cls, app: App) -> Self:
        """By the application's own options of the transport."""
        options = app.transport_options
        prefix, separator = str(options.get("global_keyprefix") or ""), str(options.get("sep") or _SEPARATOR)
        queues = tuple(sorted({str(queue["name"]) for queue in app.queues}))
        # Priority 0 has the queue's own name (kombu/transport/redis.py, _q_for_pri).
        steps = ["", *(f"{separator}{step}" for step in app.priority_steps if step)]
        return cls(
            queues=queues,
            lists_per_queue=len(steps),
            lists=tuple(f"{prefix}{queue}{step}" for queue in queues for step in steps),
            index=prefix + str(options.get("unacked_index_key") or "unacked_index"),
            messages=prefix + str(options.get("unacked_key") or "unacked"),
        )


class Broker:
    """One Redis, looked at."""

    def __init__(self, url: str, keys: Keys) -> None:
        """Raises BrokerError: it is no Redis."""
        self.place = place(url)
        self._client = _client(url)
        self._keys = keys
        self._count = self._client.register_script(_COUNT)
        self._look = self._client.register_script(_LOOK)
        #: By delivery tag, what is known of a message.
        self._known: dict[str, dict[str, Any]] = {}

    def sample(self) -> dict[str, Any]:
        """One reading; an error is a line too."""
        asked_ns, begun_s = time.time_ns(), time.monotonic()
        try:
            line = self._read()
        except (redis.RedisError, OSError) as err:
            line = {"time_ns": time.time_ns(), "error": reason(err, TIMEOUT_S)}
        return line | {"asked_ns": asked_ns, "read_ns": int((time.monotonic() - begun_s) * 1e9)}

    def _read(self) -> dict[str, Any]:
        keys = self._keys
        (seconds, micros), ready, count, held = self._count(
            keys=[*keys.lists, keys.index], args=[keys.lists_per_queue, HELD_MAX]
        )
        entries = dict(zip(held[::2], held[1::2], strict=True))
        self._learn(entries)
        return {
            "time_ns": (int(seconds) * 1_000_000 + int(micros)) * 1000,
            "ready": dict(zip(keys.queues, ready, strict=True)),
            "unacked_count": count,
            "unacked": [{**self._known[tag], "received_ns": _nanoseconds(score)} for tag, score in entries.items()],
        }

    def _learn(self, entries: Mapping[str, str]) -> None:
        """Look at the messages that are new; forget those that are gone."""
        self._known = {tag: facts for tag, facts in self._known.items() if tag in entries}
        new = [tag for tag in entries if tag not in self._known]
        for first in range(0, len(new), _LOOK_MAX):
            some = new[first : first + _LOOK_MAX]
            answers: Sequence[str] = self._look(keys=[self._keys.messages], args=[_BODY_BYTES_MAX, *some])
            self._known |= dict(map(_facts, answers))

    def close(self) -> None:
        """Ask no more."""
        self._client.close()


def check(url: str) -> None:
    """Whether there is somebody to ask.

    Raises:
        BrokerError: it is no Redis, or does not answer.
    """
    with _client(url) as client:
        try:
            client.ping()
        except (redis.RedisError, OSError) as err:
            raise BrokerError(f"{place(url)} can't be asked: {reason(err, TIMEOUT_S)}") from err


def _client(url: str) -> redis.Redis:
    scheme, _, rest = url.partition("://")
    try:
        return connect(f"{_SCHEMES.get(scheme, scheme)}://{rest}", TIMEOUT_S)
    except ValueError as err:
        raise BrokerError(f"{place(url)} can't be watched: held and waiting messages are read on Redis") from err


def _facts(answer: str) -> tuple[str, dict[str, Any]]:
    """A message without an id that can be read still counts, under its delivery tag."""
    seen = json.loads(answer)
    facts = {
        "task_id": str(seen.get("id") or seen["tag"]),
        "name": seen.get("task"),
        "queue": seen.get("queue"),
        "retries": seen.get("retries"),
        "eta_ns": _moment(seen.get("eta")),
    }
    return seen["tag"], {name: value for name, value in facts.items() if value is not None}


def _moment(text: Any) -> int | None:
    try:
        at = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000_000) * 1000


def _nanoseconds(score: str) -> int:
    """A float of seconds loses the nanoseconds that its text still has."""
    return int(Decimal(score) * 10**9)


def ready_in_all(line: Mapping[str, Any]) -> int:
    """Messages that wait, of all queues."""
    counts: Iterable[int] = line.get("ready", {}).values()
    return sum(counts)
