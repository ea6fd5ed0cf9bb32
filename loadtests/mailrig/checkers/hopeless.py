"""Whether a check can still hold, whatever comes: what a run may be ended for early.

Rule 1: it is never said of a check that might hold after all. Rule 2: what may fall again (mean, sum, last, a rate, a
slope, a ratio) is never hopeless, so a gate on it can't abort. Pure. Called by the package and by live.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mailrig.checkers.expression import Check


def can_abort(check: Check) -> bool:
    """Whether there are samples after which this check can't hold any more."""
    if check.baseline or check.per:
        return False
    if check.aggregate in {"max", "count"}:
        return check.upper
    return check.operator.startswith(">") if check.aggregate == "min" else _rank(check) is not None


def hopeless(check: Check, values: Sequence[float], total: int | None) -> bool:
    """Whether it can't hold any more, of at most ``total`` samples in all; None where nobody knows how many."""
    if not can_abort(check):
        return False
    if check.aggregate == "count":
        return not check.holds(len(values))
    outside = sum(not check.holds(value) for value in values)
    rank = _rank(check)
    return outside > (0 if rank is None else math.inf if total is None else _spared(check, rank, total))


def _rank(check: Check) -> float | None:
    """N of a pN with a bound."""
    if check.operator in {"==", "!="} or not check.aggregate.startswith("p"):
        return None
    return float(check.aggregate[1:])


def _spared(check: Check, rank: float, total: int) -> int:
    """How many of ``total`` samples may be out of bounds: by nearest rank, those above it, or those below."""
    place = max(math.ceil(round(rank / 100 * total, 9)), 1)
    return total - place if check.upper else place - 1
