"""Sets of UIDs or message numbers as intervals: a million of them take no memory while they are dense.

Owns: set algebra, positions, the text form of a sequence set. Never changes a set: every operation makes a new one, so
that a session can keep what it was told while the folder moves on. Pure.
Called by: folder (what it holds), imap_protocol (what a session sees, what a command names), control.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import accumulate
from typing import Final

#: UIDs and message numbers have 32 bits (RFC 3501 section 2.3.1.1).
UID_MAX: Final = 0xFFFF_FFFF
Range = tuple[int, int]


class UidSet:
    """Ascending numbers from 1 up, kept as closed intervals that neither touch nor overlap."""

    __slots__ = ("_before", "_first", "_last")

    def __init__(self, first: array[int], last: array[int]) -> None:
        self._first, self._last = first, last
        #: How many numbers come before each interval, and the count of all; made when a position is asked for.
        self._before: list[int] | None = None

    @classmethod
    def of(cls, ranges: Iterable[Range]) -> UidSet:
        """The union of closed intervals in any order."""
        return cls.joined(sorted(ranges))

    @classmethod
    def joined(cls, ranges: Iterable[Range]) -> UidSet:
        """The union of closed intervals whose beginnings ascend; they are not kept meanwhile."""
        first, last = array("I"), array("I")
        for low, high in ranges:
            if last and low <= last[-1] + 1:
                last[-1] = max(last[-1], high)
            else:
                first.append(low)
                last.append(high)
        return cls(first, last)

    @classmethod
    def single(cls, numbers: Iterable[int]) -> UidSet:
        """The set of these numbers."""
        return cls.of((number, number) for number in numbers)

    @classmethod
    def ascending(cls, numbers: Iterable[int]) -> UidSet:
        """The set of numbers that come in ascending order, without keeping more of them than the set does."""
        first, last = array("I"), array("I")
        for number in numbers:
            if last and number == last[-1] + 1:
                last[-1] = number
            else:
                first.append(number)
                last.append(number)
        return cls(first, last)

    # --- questions ---

    def _positions(self) -> list[int]:
        if self._before is None:
            sizes = (high - low + 1 for low, high in zip(self._first, self._last, strict=True))
            self._before = [0, *accumulate(sizes)]
        return self._before

    def __len__(self) -> int:
        return self._positions()[-1]

    def __bool__(self) -> bool:
        return bool(self._first)

    def __iter__(self) -> Iterator[int]:
        for low, high in self.ranges():
            yield from range(low, high + 1)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._first, number) - 1
        return at >= 0 and number <= self._last[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UidSet) and self._first == other._first and self._last == other._last

    __hash__ = None  # type: ignore[assignment]  # compared by value, and never a key

    def __str__(self) -> str:
        """As a sequence set (RFC 3501 section 9): ``1:3,7``."""
        return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in self.ranges())

    def __repr__(self) -> str:
        return f"UidSet({self})"

    def ranges(self) -> Iterator[Range]:
        """The closed intervals, ascending."""
        return zip(self._first, self._last, strict=True)

    @property
    def smallest(self) -> int:
        """The first number; 0 if there is none."""
        return self._first[0] if self._first else 0

    @property
    def largest(self) -> int:
        """The last number; 0 if there is none."""
        return self._last[-1] if self._last else 0

    def nth(self, position: int) -> int:
        """The number at a position from 1 up; IndexError beyond the end."""
        before = self._positions()
        if not 1 <= position <= before[-1]:
            raise IndexError(position)
        at = bisect_left(before, position) - 1
        return self._first[at] + position - before[at] - 1

    def position(self, number: int) -> int:
        """Where a number stands, from 1 up; 0 if it isn't in the set."""
        at = bisect_right(self._first, number) - 1
        if at < 0 or number > self._last[at]:
            return 0
        return self._positions()[at] + number - self._first[at] + 1

    def runs(self, chosen: UidSet | None = None) -> Iterator[tuple[int, int, int]]:
        """(position of the first, first, last) of each dense run, or of those parts of it that ``chosen`` holds."""
        source = self if chosen is None else self & chosen
        for low, high in source.ranges():
            yield self.position(low), low, high

    # --- new sets ---

    def with_range(self, low: int, high: int) -> UidSet:
        """This set and a closed interval, usually behind its end."""
        if self._last and low <= self._last[-1]:
            return self | UidSet.of([(low, high)])
        first, last = self._first[:], self._last[:]
        if last and low == last[-1] + 1:
            last[-1] = high
        else:
            first.append(low)
            last.append(high)
        return UidSet(first, last)

    def between(self, low: int, high: int) -> UidSet:
        """Those from ``low`` to ``high``."""
        if low > high:
            return NONE
        start, end = bisect_left(self._last, low), bisect_right(self._first, high)
        first, last = self._first[start:end], self._last[start:end]
        if first:
            first[0], last[-1] = max(first[0], low), min(last[-1], high)
        return UidSet(first, last)

    def at_positions(self, wanted: UidSet) -> UidSet:
        """Those at these positions; positions beyond the end name nothing."""
        count = len(self)
        ranges: list[Range] = []
        for low, high in wanted.ranges():
            if low > count:
                break
            ranges += self.between(self.nth(low), self.nth(min(high, count))).ranges()
        return UidSet.of(ranges)

    def __or__(self, other: UidSet) -> UidSet:
        return UidSet.joined(merge(self.ranges(), other.ranges()))

    def __and__(self, other: UidSet) -> UidSet:
        few, many = (self, other) if len(self._first) <= len(other._first) else (other, self)
        first, last = array("I"), array("I")
        for low, high in few.ranges():
            part = many.between(low, high)
            first.extend(part._first)
            last.extend(part._last)
        return UidSet(first, last)

    def __sub__(self, other: UidSet) -> UidSet:
        if not other:
            return self
        first, last = array("I"), array("I")
        at = 0
        for low, high in self.ranges():
            at = bisect_left(other._last, low, at)
            here, start = at, low
            while here < len(other._first) and other._first[here] <= high:
                if other._first[here] > start:
                    first.append(start)
                    last.append(other._first[here] - 1)
                start = other._last[here] + 1
                here += 1
            if start <= high:
                first.append(start)
                last.append(high)
        return UidSet(first, last)


NONE: Final = UidSet(array("I"), array("I"))


def batches(uids: UidSet, *, length: int = 4096) -> Iterator[list[Range]]:
    """The intervals of a set in groups that hold about ``length`` numbers each: work that is worth a pause."""
    batch: list[Range] = []
    count = 0
    for low, high in pieces(uids, length=length):
        batch.append((low, high))
        count += high - low + 1
        if count >= length:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def pieces(uids: UidSet, *, length: int = 4096) -> Iterator[Range]:
    """The intervals of a set, none longer than ``length``."""
    for low, high in uids.ranges():
        for start in range(low, high + 1, length):
            yield start, min(start + length - 1, high)
