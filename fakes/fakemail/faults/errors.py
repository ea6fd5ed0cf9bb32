"""The error of whoever describes a fault, a configuration or a request wrongly.

Owns: how such a mistake is told: where it is, what was given, what would be right. Never does: reading the values.
Called by: checks (nearly always), config and control.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from fakemail import FakemailError


class FaultError(FakemailError):
    """A description can't be understood."""

    def __init__(self, *, where: str, problem: str, allowed: str, key: str = "") -> None:
        super().__init__(f"{where}: {problem}; allowed: {allowed}")
        #: Path of the offending value, such as ``faults[1].when``.
        self.where = where
        #: What is wrong with it.
        self.problem = problem
        #: What would be right.
        self.allowed = allowed
        #: The key below ``where`` that nobody knows; empty when the value itself is wrong.
        self.key = key


def suggestion(given: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for what looks like a slip of the keyboard; else nothing."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(given.lower(), by_lower, n=1, cutoff=0.7)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
