"""Figures of samples, and how far they can be believed: percentiles, slopes, bootstrap intervals, error rates.

Pure: numbers and a seed in, numbers out. Knows neither runs nor gates. Callers: checkers, comparing, ab.

Rule 1: what is resampled is what is independent. Latencies of one run follow one another through a queue, so blocks of
time are drawn and not single samples; runs of an A/B comparison are drawn as whole ABBA blocks.
Rule 2: few blocks make a percentile interval too narrow, so it is widened to what Student's t would be
(Hesterberg 2015, "What Teachers Should Know About the Bootstrap", section 4.3).
"""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

#: Draws of a bootstrap: the 5 % point then varies by half a percent point, which is less than what it tells of.
RESAMPLES: Final = 1000
#: With up to so many values each outcome of a draw is counted instead of drawn: 462 of six.
EXACT_MAX: Final = 6
#: A slope is that of so many medians at most: its cost is the square of it.
SLOPE_POINTS_MAX: Final = 60
#: What neighbours in time share is drawn together.
SLOPE_BLOCK: Final = 4
#: Draws of a slope, each of up to 1,770 pairs of points.
_SLOPE_RESAMPLES: Final = 300
_NORMAL: Final = NormalDist()
_T_MAX: Final = 1e4


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure and its bounds."""

    estimate: float
    low: float
    high: float

    def beyond(self, bound: float) -> bool:
        """Whether all of it lies on one side of ``bound``."""
        return self.low > bound or self.high < bound


def percentile(values: Sequence[float], rank: float) -> float:
    """The nearest-rank percentile of raw samples: always a value that was seen."""
    ordered = sorted(values)
    # The product is rounded first: 99.9 % of 1,000 are 999, and not one more by the last bit of a float.
    return ordered[max(math.ceil(round(rank / 100 * len(ordered), 9)), 1) - 1]


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return math.fsum(values) / len(values)


# --- draws of blocks --------------------------------------------------------------------------------------------------


def draws(count: int, *, resamples: int, seed: int) -> list[list[int]]:
    """Indices of ``count`` blocks, drawn with replacement; two runs under one schedule share them."""
    rng = random.Random(seed)  # noqa: S311  # a seed must repeat it; nothing is secret
    return [rng.choices(range(count), k=count) for _ in range(resamples)]


def redrawn(
    blocks: Sequence[Sequence[float]], indices: Sequence[Sequence[int]], statistic: Callable[[Sequence[float]], float]
) -> list[float]:
    """The statistic of each draw; of a draw in which all blocks are empty it is not a number."""
    ordered = [sorted(block) for block in blocks]
    found = []
    for draw in indices:
        values = [value for index in draw for value in ordered[index]]
        found.append(statistic(values) if values else math.nan)
    return found


def slices(
    times: Sequence[float], values: Sequence[float], *, start: float, end: float, count: int
) -> list[list[float]]:
    """The values by equal slices of [start, end]; what lies outside belongs to the first or the last."""
    found: list[list[float]] = [[] for _ in range(count)]
    width = (end - start) / count or 1.0
    for time, value in zip(times, values, strict=True):
        found[min(max(int((time - start) / width), 0), count - 1)].append(value)
    return found


def bounds(distribution: Sequence[float], *, confidence: float) -> tuple[float, float]:
    """The middle part of what a bootstrap found, as much of it as ``confidence``."""
    tail = (1 - confidence) / 2 * 100
    known = [value for value in distribution if not math.isnan(value)]
    if not known:
        return -math.inf, math.inf
    return percentile(known, tail), percentile(known, 100 - tail)


# --- few values: the mean of blocks -----------------------------------------------------------------------------------


def lower_bound(values: Sequence[float], *, confidence: float, seed: int) -> float:
    """What the mean of the values is above, with one-sided ``confidence``; minus infinity for a single value."""
    if len(values) < 2:  # noqa: PLR2004  # one value says nothing of how it varies
        return -math.inf
    means, tail = _means(values, seed=seed), _tail(confidence, len(values))
    reached = 0.0
    for found, weight in means:
        reached += weight
        if reached >= tail:
            return found
    return means[-1][0]


def _means(values: Sequence[float], *, seed: int) -> list[tuple[float, float]]:
    """The bootstrap distribution of the mean, ascending: means and their probabilities."""
    count = len(values)
    if count <= EXACT_MAX:
        return sorted(
            (sum(map(float.__mul__, shares, map(float, values))), weight) for shares, weight in _compositions(count)
        )
    rng = random.Random(seed)  # noqa: S311  # as above
    found = sorted(mean(rng.choices(values, k=count)) for _ in range(RESAMPLES))
    return [(value, 1 / RESAMPLES) for value in found]


@functools.cache
def _compositions(count: int) -> tuple[tuple[tuple[float, ...], float], ...]:
    """All ways to draw ``count`` of ``count`` values: the share of each value, and how probable that is."""
    found = []
    for drawn in itertools.combinations_with_replacement(range(count), count):
        times = [drawn.count(index) for index in range(count)]
        ways = math.factorial(count) / math.prod(math.factorial(n) for n in times)
        found.append((tuple(n / count for n in times), ways / count**count))
    return tuple(found)


@functools.cache
def _tail(confidence: float, count: int) -> float:
    """The share of a bootstrap distribution that is cut off, so that few values are not believed too much."""
    return _NORMAL.cdf(-math.sqrt(count / (count - 1)) * student_t(confidence, count - 1))


def student_t(confidence: float, freedom: int) -> float:
    """The quantile of Student's t distribution, by bisection of its distribution function."""
    low, high = 0.0, _T_MAX
    while high - low > 1e-6 * max(low, 1.0):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_below(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _t_below(t: float, freedom: int) -> float:
    """P(T <= t), t >= 0, by the finite sums for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 1.0)
    if odd and freedom > 1:
        total = cosine
    for step in range(3 if odd else 2, freedom, 2):
        term *= cosine * cosine * (step - 1) / step
        total += term
    inner = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inner / 2


# --- slopes -----------------------------------------------------------------------------------------------------------


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Theil and Sen's slope: the median over all pairs, which outliers don't move."""
    steeps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in itertools.combinations(points, 2) if b[0] != a[0]]
    return _median(steeps) if steeps else math.nan


def slope_interval(points: Sequence[tuple[float, float]], *, confidence: float, seed: int) -> Interval:
    """The slope of a series over time, and its interval: residuals are drawn in blocks of neighbours."""
    thin = thinned(sorted(points))
    steep = slope(thin)
    if math.isnan(steep):
        return Interval(estimate=steep, low=-math.inf, high=math.inf)
    level = _median([y - steep * x for x, y in thin])
    residuals = [y - steep * x - level for x, y in thin]
    rng = random.Random(seed)  # noqa: S311  # as above
    found = []
    for _ in range(_SLOPE_RESAMPLES):
        noise = _neighbours(residuals, rng)
        found.append(slope([(x, level + steep * x + e) for (x, _), e in zip(thin, noise, strict=True)]))
    low, high = bounds(found, confidence=confidence)
    return Interval(estimate=steep, low=low, high=high)


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most ``SLOPE_POINTS_MAX`` medians of neighbours."""
    size = -(-len(points) // SLOPE_POINTS_MAX)
    groups = [points[at : at + size] for at in range(0, len(points), size)] if points else []
    return [(_median([x for x, _ in group]), _median([y for _, y in group])) for group in groups]


def _neighbours(values: Sequence[float], rng: random.Random) -> list[float]:
    """As many values, drawn in blocks of neighbours from a circle."""
    count = len(values)
    starts = (rng.randrange(count) for _ in range(-(-count // SLOPE_BLOCK)))
    return [values[(start + step) % count] for start in starts for step in range(SLOPE_BLOCK)][:count]


def _median(values: Sequence[float]) -> float:
    ordered, half = sorted(values), len(values) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


# --- shares -----------------------------------------------------------------------------------------------------------


def share_interval(hits: int, count: int, *, confidence: float) -> Interval:
    """A share of independent trials, and Wilson's interval for it: of use at 0 and at 1 too."""
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share, wide = hits / count, 1 + z * z / count
    middle = (share + z * z / (2 * count)) / wide
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / wide
    # Beside its bounds by the last bit at 0 and 1 only.
    return Interval(estimate=share, low=min(max(middle - reach, 0.0), share), high=max(min(middle + reach, 1.0), share))
