"""When which request is due: seeded, open loop, and the same everywhere.

Rule 1: a pure function of the scenario and the mailboxes; no clock. An arrival never waits for an earlier answer.
Rule 2: only ``Random.random`` is used, the one method whose sequence Python promises to keep between versions.
Rule 3: times and contents draw from streams of their own, so that a changed share moves no arrival.
Callers: clients (the load), checkers (what should have arrived), the twin.
"""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from mailrig.scenario import Load, LoadOp, Scenario

#: Recipients outside of every tenant: user0@outside.example ...
OUTSIDERS: Final = tuple(f"user{k}@outside.example" for k in range(50))
_WORDS: Final = (
    "amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "knoll", "ledge", "maple",
    "north", "ocean", "pearl", "quill", "ridge", "shore", "tower", "upper", "vault", "willow", "yield", "zephyr",
)  # fmt: skip
_WORDS_MIN: Final = 40
_WORDS_MAX: Final = 400
_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request that is due."""

    #: Position in the schedule, over all streams.
    index: int
    #: Seconds after the start of the warm-up.
    at_s: float
    #: ``send``, ``sync`` or ``delete``.
    f: str
    #: Index of the tenant in the population.
    tenant: int
    #: Index of the mailbox among its tenant's.
    client: int
    to: tuple[str, ...] = ()
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = ""
    text: str = ""
    attachment: bool = False
    #: Left out of validity and latency, never out of safety.
    warmup: bool = False


def arrivals(scenario: Scenario, population: Sequence[Sequence[str]]) -> list[Arrival]:
    """Every arrival in the order of its time; ``population`` holds the mailbox addresses of each tenant."""
    streams = (
        _stream(scenario, op, number, population) for number, op in enumerate(scenario.load.ops)
    )  # fmt: skip
    merged = sorted((arrival for stream in streams for arrival in stream), key=lambda arrival: arrival.at_s)
    return [replace(arrival, index=index) for index, arrival in enumerate(merged)]


def for_worker(schedule: Sequence[Arrival], *, worker: int, workers: int) -> list[Arrival]:
    """The part of one of several load generators: arrivals k with k mod ``workers`` == ``worker``."""
    return [arrival for arrival in schedule if arrival.index % workers == worker]


def _stream(scenario: Scenario, op: LoadOp, number: int, population: Sequence[Sequence[str]]) -> Iterator[Arrival]:
    key = f"{scenario.seed}/{number}/{op.f}"
    content = random.Random(f"{key}/content")  # noqa: S311  # reproducible on purpose
    mailboxes = _shuffled([(t, c) for t, boxes in enumerate(population) for c in range(len(boxes))], content)
    shares = _shares(len(population), op.zipf)
    for turn, at_s in enumerate(_times(scenario.load, op, f"{key}/times")):
        # Syncs and deletions take turns, so that every mailbox is visited whatever the seed; senders are drawn.
        in_turn = op.f != "send" and op.zipf == 0
        tenant, client = mailboxes[turn % len(mailboxes)] if in_turn else _draw(mailboxes, shares, content)
        arrival = Arrival(
            index=0, at_s=at_s, f=op.f, tenant=tenant, client=client, warmup=at_s < scenario.load.warmup_s
        )
        yield arrival if op.f != "send" else _mail(arrival, op, turn, population[tenant], content)


def _times(load: Load, op: LoadOp, key: str) -> Iterator[float]:
    """Arrivals at unit rate, mapped through the inverse of the cumulated rate: stages bend time, nothing else.

    What is repeated comes at the times that are given, as far as the load lasts.
    """
    if load.arrivals == "replay":
        yield from (at_s for at_s in sorted(op.at_s) if at_s < load.total_s)
        return
    times = random.Random(key)  # noqa: S311  # reproducible on purpose
    unit = 0.0
    while op.rate_per_s > 0:
        # A constant stream starts half a gap in, so that streams of one rate don't all begin with the same instant.
        step = -math.log(1.0 - times.random()) if load.arrivals == "poisson" else (1.0 if unit else 0.5)
        unit += step
        at_s = _when(load, unit / op.rate_per_s)
        if at_s is None:
            return
        yield at_s


def _when(load: Load, factored_s: float) -> float | None:
    """The time at which the integral of the stages' factor reaches ``factored_s``; None after the load's end."""
    start_s = 0.0
    for stage in load.stages:
        if stage.factor > 0 and factored_s < stage.duration_s * stage.factor:
            start_s += factored_s / stage.factor
            return start_s if start_s < load.total_s else None
        factored_s -= stage.duration_s * stage.factor
        start_s += stage.duration_s
    at_s = start_s + factored_s
    return at_s if at_s < load.total_s else None


def _mail(arrival: Arrival, op: LoadOp, turn: int, colleagues: Sequence[str], content: random.Random) -> Arrival:
    sender = colleagues[arrival.client]
    # The tenant's own mailboxes are always in the pool: their mail comes back by sync.
    pool = _shuffled([address for address in colleagues if address != sender], content)
    pool = _shuffled([*pool, *_shuffled(list(OUTSIDERS), content)[: max(len(pool), op.recipients_max)]], content)
    room = op.recipients_max - 1
    bcc = 1 if content.random() < op.bcc_share and room > 0 else 0
    cc = 1 if content.random() < op.cc_share and room - bcc > 0 else 0
    to = 1 + int(content.random() * (room - bcc - cc + 1))
    words = _WORDS_MIN + int(content.random() * (_WORDS_MAX - _WORDS_MIN))
    return replace(
        arrival,
        to=tuple(pool[:to]),
        cc=tuple(pool[to : to + cc]),
        bcc=tuple(pool[to + cc : to + cc + bcc]),
        subject=f"{_pick(_WORDS, content)} {_pick(_WORDS, content)} {turn}",
        text=" ".join(_pick(_WORDS, content) for _ in range(words)) + "\n",
        attachment=content.random() < op.attachment_share,
    )


def _shares(tenants: int, zipf: float) -> list[float]:
    """Up to which number between 0 and 1 each tenant's part goes; none where all mailboxes are alike."""
    if zipf == 0:
        return []
    weights = [(tenant + 1) ** -zipf for tenant in range(tenants)]
    return [part / math.fsum(weights) for part in itertools.accumulate(weights)]


def _draw(mailboxes: Sequence[tuple[int, int]], shares: Sequence[float], content: random.Random) -> tuple[int, int]:
    """A mailbox: any, or any of the tenant that was drawn first."""
    if not shares:
        return _pick(mailboxes, content)
    tenant = min(bisect.bisect_right(shares, content.random()), len(shares) - 1)
    return _pick([mailbox for mailbox in mailboxes if mailbox[0] == tenant], content)


def _pick(items: Sequence[_T], source: random.Random) -> _T:
    return items[int(source.random() * len(items))]


def _shuffled(items: list[_T], source: random.Random) -> list[_T]:
    keyed = [(source.random(), position) for position in range(len(items))]
    return [items[position] for _, position in sorted(keyed)]
