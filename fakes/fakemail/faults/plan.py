"""The faults in force, and the counts that decide when each happens.

Owns: counting and deciding. Never does: I/O, sleeping, randomness of its own; the clock is given, and asked only by the
schedules that speak of seconds. Chance is a hash of seed, fault, scope and count, so the same seed and the same order
of events give the same faults.
Called by: imap_server and smtp_server (``decide``, ``active``, ``forget``), control and serving (what is in force).
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from fakemail.faults.actions import Action
from fakemail.faults.model import Fault
from fakemail.faults.points import POINTS
from fakemail.faults.schedules import Tally
from fakemail.faults.scopes import SCOPES, Context, Key

#: A fault counts at most so many users, recipients or folders apart: the one longest unseen is forgotten first.
KEYS_MAX: Final = 65_536


class Plan:
    """The faults in force and their counts.

    Rule 1: every fault counts each event that it matches, whether or not another fault fires there.
    Rule 2: the first in the list that fires wins.
    Rule 3: putting or removing one fault leaves the counts of the others as they are.
    """

    def __init__(
        self, seed: int, faults: Iterable[Fault] = (), *, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._seed, self._clock = seed, clock
        self._armed: dict[str, _Armed] = {}
        self._at: dict[str, tuple[_Armed, ...]] = {}
        self._by_connection: tuple[_Armed, ...] = ()
        self.replace(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force, in order."""
        return tuple(each.fault for each in self._armed.values())

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """By fault id: how many events it saw and how often it fired; ``forgotten``: counts that made room."""
        return {name: each.counters for name, each in self._armed.items()}

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put other faults in force; all counting starts anew."""
        self._armed = {fault.id: _Armed(fault, seed=self._seed, clock=self._clock) for fault in faults}
        self._sort()

    def put(self, fault: Fault) -> None:
        """Add a fault at the end, or replace the one of this id in its place."""
        self._armed[fault.id] = _Armed(fault, seed=self._seed, clock=self._clock)
        self._sort()

    def remove(self, fault_id: str) -> bool:
        """Take a fault out of force; says whether it was there."""
        found = self._armed.pop(fault_id, None)
        self._sort()
        return found is not None

    def _sort(self) -> None:
        armed = self._armed.values()
        self._at = {point: tuple(each for each in armed if each.fault.point == point) for point in POINTS}
        self._by_connection = tuple(each for each in armed if each.fault.scope == "connection")

    def active(self, point: str) -> bool:
        """Whether any fault is set at the point: a cheap question for hot loops."""
        return bool(self._at[point])

    def decide(
        self, point: str, *, connection: int = 0, user: str = "", **context: str | Sequence[str] | int
    ) -> Action | None:
        """Count the event and say what shall go wrong, if anything."""
        armed = self._at[point]
        if not armed:
            return None
        context["user"] = user
        action = None
        for each in armed:
            found = each.meet(connection, context)
            if found is not None and action is None:
                action = found
                each.fired += 1
        return action

    def forget(self, connection: int) -> None:
        """A connection has ended: its counts go."""
        for each in self._by_connection:
            each.tallies.pop(connection, None)


class _Armed:
    """A fault in force: its patterns made ready, and its counts."""

    def __init__(self, fault: Fault, *, seed: int, clock: Callable[[], int]) -> None:
        self.fault = fault
        self.seen = self.fired = self.forgotten = 0
        #: By scope key, the longest unseen first.
        self.tallies: dict[Key, Tally] = {}
        self._seed, self._clock, self._put_ns = seed, clock, clock()
        self._key = SCOPES[fault.scope].key
        self._patterns = tuple((key, _fits(pattern)) for key, pattern in fault.match.items())

    @property
    def counters(self) -> dict[str, int]:
        counts = {"seen": self.seen, "fired": self.fired}
        return counts | ({"forgotten": self.forgotten} if self.forgotten else {})

    def meet(self, connection: int, context: Context) -> Action | None:
        """Count the event if it matches; answers the action if it is hit."""
        for key, fits in self._patterns:
            if not fits(context.get(key, "")):
                return None
        self.seen += 1
        name = self._key(connection, context)
        tally = self._tally(name)
        tally.seen += 1
        if not self.fault.when.fires(tally, self._elapsed_ns, lambda: self._drawn("chance", name, tally.seen)):
            return None
        return self._action(name, tally.seen)

    def _tally(self, name: Key) -> Tally:
        """The count under this name, which is the one last seen from now on."""
        tally = self.tallies.pop(name, None) or Tally()
        self.tallies[name] = tally
        if len(self.tallies) > KEYS_MAX:
            del self.tallies[next(iter(self.tallies))]
            self.forgotten += 1
        return tally

    def _elapsed_ns(self) -> int:
        return self._clock() - self._put_ns

    def _drawn(self, what: str, name: Key, count: int) -> float:
        """A number in [0, 1) that depends on nothing but seed, fault, scope and count."""
        # ascii(): a name may hold what a client sent that was no UTF-8.
        text = ascii((self._seed, self.fault.id, what, name, count))
        return int.from_bytes(hashlib.blake2b(text.encode("ascii"), digest_size=8).digest()) / 2**64

    def _action(self, name: Key, count: int) -> Action:
        action = self.fault.action
        if not action.jitter_ms:
            return action
        span = 2 * action.jitter_ms + 1
        delay_ms = action.delay_ms - action.jitter_ms + int(self._drawn("jitter", name, count) * span)
        return replace(action, delay_ms=delay_ms, jitter_ms=0)


def _fits(pattern: str) -> Callable[[str | Sequence[str] | int], bool]:
    """The question whether a value fits a pattern: ``*`` wants something, and an empty pattern wants nothing."""
    fits = re.compile(fnmatch.translate(pattern.lower())).match

    def question(value: str | Sequence[str] | int) -> bool:
        if isinstance(value, str):
            return bool(fits(value.lower())) if value else not pattern
        if isinstance(value, int):
            return bool(fits(str(value)))
        return any(fits(each.lower()) if each else not pattern for each in value) if value else not pattern

    return question
