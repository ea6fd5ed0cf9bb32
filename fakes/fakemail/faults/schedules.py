"""When a fault happens, as a function of counts, a seed or a clock.

Owns: the schedules, the form of their arguments, and the state that a count has. Never does: reading a clock or a
random source of its own: both are given. Called by: parse (``read_when``), plan (``When.fires``), table.

Rule: a new schedule is a row of ``SCHEDULES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fakemail.faults import checks
from fakemail.faults.errors import FaultError

_NS: Final = 1_000_000_000


@dataclass(slots=True)
class Tally:
    """What a fault remembers of the events of one scope."""

    #: The events so far, the one at hand included.
    seen: int = 0
    #: Of a bucket: when it is full again, nanoseconds since the fault was put.
    full_ns: int = 0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """One kind of ``when``."""

    #: The argument, for people.
    form: str
    #: Which events are hit, for people.
    words: str
    #: Reads (value, where).
    read: Callable[[object, str], Any]
    #: Says (value, tally, nanoseconds since the fault was put, a number drawn from 0 to 1) whether the event is hit.
    fires: Callable[[Any, Tally, Callable[[], int], Callable[[], float]], bool]
    #: Turns the value into what was read.
    write: Callable[[Any], object] = lambda value: value


def _count(value: object, where: str) -> int:
    return checks.count(value, where=where, least=1)


def _always(value: object, where: str) -> bool:
    return checks.yes(value, where=where)


def _window(value: object, where: str) -> tuple[int, int]:
    first, last = checks.pair(value, where=where)
    start = checks.count(first, where=f"{where}[0]", least=1)
    return start, checks.count(last, where=f"{where}[1]", least=start)


def _window_s(value: object, where: str) -> tuple[float, float]:
    first, last = checks.pair(value, where=where)
    start = checks.number(first, where=f"{where}[0]", least=0)
    return start, checks.number(last, where=f"{where}[1]", least=start, above=True)


def _probability(value: object, where: str) -> float:
    return checks.number(value, where=where, least=0, most=1)


def _bucket(value: object, where: str) -> tuple[int, float]:
    given = checks.table(value, where=where, required=("capacity", "per_s"))
    capacity = checks.count(given["capacity"], where=f"{where}.capacity", least=1)
    return capacity, checks.number(given["per_s"], where=f"{where}.per_s", least=0, above=True)


def _finds_no_token(value: tuple[int, float], tally: Tally, elapsed_ns: Callable[[], int], _: object) -> bool:
    """Keep the moment at which the bucket is full again; each token that is taken puts it off by one refill.

    Whole nanoseconds: fractions of tokens would drift with the number of events.
    """
    capacity, per_s = value
    token_ns, now = max(1, round(_NS / per_s)), elapsed_ns()
    full_ns = max(tally.full_ns, now)
    if full_ns - now > (capacity - 1) * token_ns:
        return True
    tally.full_ns = full_ns + token_ns
    return False


#: Every schedule; the counts begin at 1.
SCHEDULES: Final[Mapping[str, Schedule]] = {
    "every": Schedule(
        form="`n`", words="event n, 2n, 3n, ...", read=_count, fires=lambda n, tally, _, __: tally.seen % n == 0
    ),
    "first": Schedule(
        form="`n`", words="the first n events, then none", read=_count, fires=lambda n, tally, _, __: tally.seen <= n
    ),
    "nth": Schedule(form="`n`", words="event n alone", read=_count, fires=lambda n, tally, _, __: tally.seen == n),
    "after": Schedule(
        form="`n`", words="every event after the first n", read=_count, fires=lambda n, tally, _, __: tally.seen > n
    ),
    "always": Schedule(form="`true`", words="every event", read=_always, fires=lambda *_: True),
    "window": Schedule(
        form="`[from, to]`", words="events number `from` to `to`, both included", read=_window, write=list,
        fires=lambda span, tally, _, __: span[0] <= tally.seen <= span[1],
    ),
    "window_s": Schedule(
        form="`[from, to]`", words="events from second `from` until before second `to` since the fault was put",
        read=_window_s, write=list,
        fires=lambda span, _, elapsed_ns, __: span[0] * _NS <= elapsed_ns() < span[1] * _NS,
    ),
    "probability": Schedule(
        form="`p` from 0 to 1", words="each event with this chance, drawn from seed, fault, scope and count",
        read=_probability, fires=lambda p, _, __, drawn: drawn() < p,
    ),
    "bucket": Schedule(
        form="`{capacity = n, per_s = x}`",
        words="a rate limiter: n tokens, x more per second; an event takes one, and one that finds none is hit",
        read=_bucket, fires=_finds_no_token, write=lambda value: {"capacity": value[0], "per_s": value[1]},
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class When:
    """At which of the matching events a fault fires."""

    #: A key of ``SCHEDULES``.
    kind: str
    #: What that schedule's ``read`` made of its argument.
    value: Any

    def fires(self, tally: Tally, elapsed_ns: Callable[[], int], drawn: Callable[[], float]) -> bool:
        """Whether the event that was just counted is hit; time and chance are asked for only by those who need them."""
        return SCHEDULES[self.kind].fires(self.value, tally, elapsed_ns, drawn)

    def as_dict(self) -> dict[str, object]:
        """The form that ``read_when`` reads."""
        return {self.kind: SCHEDULES[self.kind].write(self.value)}


def read_when(value: object, *, where: str) -> When:
    """The schedule of a fault; raises FaultError."""
    if isinstance(value, dict) and not value:
        raise FaultError(where=where, problem="no schedule given", allowed=f"one of {', '.join(SCHEDULES)}")
    kind, argument = checks.only_entry(value, where=where, known=tuple(SCHEDULES))
    return When(kind=kind, value=SCHEDULES[kind].read(argument, f"{where}.{kind}"))
