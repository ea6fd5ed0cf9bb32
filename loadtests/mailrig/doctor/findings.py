"""A trap is a row: what it looks at, what it costs, what would be right. A finding is what came of looking.

The families ``holding``, ``order``, ``waiting``, ``keeping``, ``spelling`` and ``server_traps`` make the rows; each
grows by a function. Looking is pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Generic, TypeVar

OK: Final = "ok"
TRAP: Final = "trap"
UNKNOWN: Final = "unknown"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a look came to."""

    finding: str
    found: str


def ok(found: str) -> Seen:
    """As it should be."""
    return Seen(finding=OK, found=found)


def trap(found: str) -> Seen:
    """It will hurt."""
    return Seen(finding=TRAP, found=found)


def unknown(found: str) -> Seen:
    """It can't be told from here."""
    return Seen(finding=UNKNOWN, found=found)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the answer."""

    id: str
    #: ``ok``, ``trap`` or ``unknown``.
    finding: str
    found: str
    #: What was measured, or read in the source, of who walks into it.
    consequence: str
    right: str
    #: Upstream's number, where there is one.
    issue: str | None

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Trap(Generic[T]):
    """One thing to look at."""

    id: str
    look: Callable[[T], Seen]
    consequence: str
    right: str
    issue: str | None = None

    def find(self, facts: T) -> Finding:
        """Look."""
        seen = self.look(facts)
        return Finding(
            id=self.id,
            finding=seen.finding,
            found=seen.found,
            consequence=self.consequence,
            right=self.right,
            issue=self.issue,
        )


class Family(Generic[T]):
    """Traps of one theme, in the order in which they are written."""

    def __init__(self) -> None:
        self.traps: list[Trap[T]] = []

    def row(
        self, name: str, *, consequence: str, right: str, issue: str | None = None
    ) -> Callable[[Callable[[T], Seen]], Callable[[T], Seen]]:
        """Make a function the look of a trap."""

        def add(look: Callable[[T], Seen]) -> Callable[[T], Seen]:
            self.traps.append(Trap(id=name, look=look, consequence=consequence, right=right, issue=issue))
            return look

        return add


def look_at(facts: T, families: Iterable[Family[T]]) -> list[Finding]:
    """One finding for each trap."""
    return [one.find(facts) for family in families for one in family.traps]
