"""Is B slower than A? From blocks of runs to a verdict, and how often such a verdict errs. Pure; seeds are arguments.

A block is runs of both sides side by side in time. Its effect is the mean logarithm of B's values less that of A's, so
that whatever slowed the machine during a block cancels out. B is slower only if the lower bound of the mean effect
passes the margin, and that of the mean difference the floor: with ``confidence`` shared out among the figures, so that
it holds for all of them together.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.ab.figures import FLOORS, Figure
from mailrig.statistics import Interval, bounds, lower_bound, mean

CONFIDENCE: Final = 0.95
#: Fewer say nothing.
BLOCKS_MIN: Final = 2
#: The error rates are those of comparisons of so many blocks, if there are as many.
USUAL_BLOCKS: Final = 5
#: Slow-downs that are tried, and the share of comparisons that must find one.
SLOWDOWNS: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0)
FOUND_SHARE: Final = 0.9
#: Comparisons that are made up from the blocks, and of how many pools of drawn blocks.
_TRIALS: Final = 200
_POOLS: Final = 40


@dataclass(frozen=True, kw_only=True)
class Block:
    """What the runs of one block say of one figure."""

    base: tuple[float, ...]
    head: tuple[float, ...]

    @property
    def effect(self) -> float:
        """By how much B is above A, as a logarithm; not a number where either has no positive value."""
        if min(*self.base, *self.head) <= 0:
            return math.nan
        return mean([math.log(v) for v in self.head]) - mean([math.log(v) for v in self.base])

    @property
    def difference(self) -> float:
        """The same in the figure's unit."""
        return mean(self.head) - mean(self.base)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One figure, compared."""

    figure: Figure
    kind: str
    #: Means over all runs of a side.
    base: float
    head: float
    #: B over A, and what that is at least; None where a value of 0 leaves no ratio.
    ratio: float | None
    ratio_low: float | None
    difference_low: float
    slower: bool
    blocks: int


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How often a comparison of so many blocks errs, resampled from the blocks at hand with their difference taken out.

    The interval comes from pools that are drawn from the blocks: few blocks leave it wide.
    """

    blocks: int
    #: Any figure is called slower where nothing is.
    false_alarms: Interval
    #: By figure: the least of ``SLOWDOWNS`` that is found in nine of ten; None if even the greatest is not.
    finds: Mapping[str, float | None]
    #: By figure and slow-down: the share of comparisons that find it.
    power: Mapping[str, Mapping[float, float]]


def share_of(confidence: float, figures: int) -> float:
    """The confidence of one figure, so that all of them together have theirs (Bonferroni)."""
    return 1 - (1 - confidence) / figures


def decide(
    figure: Figure, kind: str, blocks: Sequence[Block], *, confidence: float = CONFIDENCE, seed: int = 1
) -> Decision:
    """Compare by one figure."""
    effects = [block.effect for block in blocks]
    known = not any(map(math.isnan, effects))
    effect_low = lower_bound(effects, confidence=confidence, seed=seed) if known else -math.inf
    difference_low = lower_bound([block.difference for block in blocks], confidence=confidence, seed=seed)
    return Decision(
        figure=figure,
        kind=kind,
        base=mean([value for block in blocks for value in block.base]),
        head=mean([value for block in blocks for value in block.head]),
        ratio=math.exp(mean(effects)) if known else None,
        ratio_low=math.exp(effect_low) if known else None,
        difference_low=difference_low,
        # From nothing to something is more than any margin: there the floor alone decides.
        slower=difference_low > _floor(figure, kind) and (not known or effect_low > math.log1p(figure.margin)),
        blocks=len(blocks),
    )


def _floor(figure: Figure, kind: str) -> float:
    return FLOORS[kind] if figure.floor is None else figure.floor


# --- how often it errs ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """The blocks of one figure with the difference of their sides taken out."""

    figure: Figure
    floor: float
    effects: Sequence[float]
    levels: Sequence[float]

    def finds(self, drawn: Sequence[tuple[int, int]], slowdown: float, confidence: float, seed: int) -> bool:
        """Whether a comparison of these blocks, each with a sign, calls B slower that is so by ``slowdown``."""
        effects = [sign * self.effects[index] + math.log1p(slowdown) for index, sign in drawn]
        if lower_bound(effects, confidence=confidence, seed=seed) <= math.log1p(self.figure.margin):
            return False
        rises = [self.levels[index] * math.expm1(e) for (index, _), e in zip(drawn, effects, strict=True)]
        return lower_bound(rises, confidence=confidence, seed=seed) > self.floor


def error_rates(
    found: Sequence[tuple[Figure, str, Sequence[Block]]], *, confidence: float = CONFIDENCE, seed: int = 1
) -> Errors | None:
    """How often comparisons like this one err; None where there are too few blocks to say.

    Without a difference the names A and B mean nothing, so each drawn block may have them the other way round.
    """
    pools = [pool for figure, kind, blocks in found if (pool := _pool(figure, kind, blocks)) is not None]
    count = min((len(pool.effects) for pool in pools), default=0)
    if count <= BLOCKS_MIN:
        return None
    rng = random.Random(seed)  # noqa: S311  # a seed must repeat it
    size, each = min(count, USUAL_BLOCKS), share_of(confidence, len(pools))
    trials = [_drawn(rng, range(count), size) for _ in range(_TRIALS)]

    def alarms(drawn: Sequence[tuple[int, int]]) -> bool:
        return any(pool.finds(drawn, 0.0, each, seed) for pool in pools)

    shares = []
    for _ in range(_POOLS):
        chosen = rng.choices(range(count), k=count)
        shares.append(mean([alarms(_drawn(rng, chosen, size)) for _ in range(_POOLS)]))
    low, high = bounds(shares, confidence=CONFIDENCE)
    rate = mean([alarms(drawn) for drawn in trials])
    power = {
        str(pool.figure): {s: mean([pool.finds(drawn, s, each, seed) for drawn in trials]) for s in SLOWDOWNS}
        for pool in pools
    }
    return Errors(
        blocks=size,
        # Among so many trials none says no more than this (the rule of three).
        false_alarms=Interval(estimate=rate, low=min(low, rate), high=max(high, rate, 3 / _TRIALS)),
        finds={name: next((s for s, share in by.items() if share >= FOUND_SHARE), None) for name, by in power.items()},
        power=power,
    )


def _pool(figure: Figure, kind: str, blocks: Sequence[Block]) -> _Pool | None:
    effects = [block.effect for block in blocks]
    if len(effects) <= BLOCKS_MIN or any(map(math.isnan, effects)):
        return None
    middle = mean(effects)
    # Taking their own mean out makes few blocks look steadier than they are.
    widen = math.sqrt(len(effects) / (len(effects) - 1))
    return _Pool(
        figure=figure,
        floor=_floor(figure, kind),
        effects=[(effect - middle) * widen for effect in effects],
        levels=[mean(block.base) for block in blocks],
    )


def _drawn(rng: random.Random, indices: Sequence[int], size: int) -> list[tuple[int, int]]:
    return [(index, rng.choice((-1, 1))) for index in rng.choices(indices, k=size)]
