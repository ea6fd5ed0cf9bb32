"""How fast a series grows, and how sure that is: Theil-Sen's slope with a bootstrap interval. Pure, and seeded.

Theil-Sen is the median of the slopes between all pairs of points: a third of the points may be outliers (a task's peak,
a collection of garbage) before it moves. Samples that follow one another resemble one another, so the interval comes
from residuals that are drawn again in blocks, never one by one: that would call noise certain.
Callers: memory, watch, budget.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

#: Points of a fit: more are gathered into this many medians. All pairs of them are looked at.
POINTS_MAX: Final = 48
#: Fewer say nothing about an interval.
POINTS_MIN: Final = 8
_DRAWS: Final = 300
_SEED: Final = 7
#: Both sides of the interval together leave out 5 %.
_OUTSIDE: Final = 0.05

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A slope per second, between the bounds that hold it in 95 of 100 cases."""

    low: float
    middle: float
    high: float

    def times(self, factor: float) -> Trend:
        """The same in another unit."""
        return Trend(low=self.low * factor, middle=self.middle * factor, high=self.high * factor)


def trend(points: Sequence[Point]) -> Trend | None:
    """The slope of (seconds, value) in the order of time; None when there are too few of them."""
    gathered = _gathered(points)
    if len(gathered) < POINTS_MIN:
        return None
    times = [at_s for at_s, _ in gathered]
    slope = theil_sen(gathered)
    level = median(value - slope * at_s for at_s, value in gathered)
    residuals = [value - slope * at_s - level for at_s, value in gathered]
    draws = sorted(slope + theil_sen(list(zip(times, drawn, strict=True))) for drawn in _drawn_again(residuals))
    cut = int(len(draws) * _OUTSIDE / 2)
    return Trend(low=min(draws[cut], slope), middle=slope, high=max(draws[-cut - 1], slope))


def theil_sen(points: Sequence[Point]) -> float:
    """The median of the slopes between all pairs of points; 0 when they are all of one moment."""
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for i, earlier in enumerate(points)
        for later in points[i + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0


def _gathered(points: Sequence[Point]) -> list[Point]:
    """At most ``POINTS_MAX`` points: the medians of neighbours."""
    size = math.ceil(len(points) / POINTS_MAX)
    if size <= 1:
        return list(points)
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(median(at_s for at_s, _ in group), median(value for _, value in group)) for group in groups]


def _drawn_again(residuals: Sequence[float]) -> list[list[float]]:
    """The residuals in other orders that could have been, in blocks that keep what neighbours have in common."""
    chance, count = random.Random(_SEED), len(residuals)  # noqa: S311  # a bootstrap, not a secret
    block = math.isqrt(count)
    drawn = []
    for _ in range(_DRAWS):
        starts = [chance.randrange(count - block + 1) for _ in range(math.ceil(count / block))]
        drawn.append([residuals[start + i] for start in starts for i in range(block)][:count])
    return drawn
