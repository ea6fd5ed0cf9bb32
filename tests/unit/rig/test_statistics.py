"""Figures and how far they can be believed: against known values, and by simulation of what they promise."""

import math
import random
import statistics as stdlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrig.statistics import (
    Interval,
    bounds,
    draws,
    lower_bound,
    mean,
    percentile,
    redrawn,
    share_interval,
    slices,
    slope,
    slope_interval,
    student_t,
    thinned,
)

FINITE = st.floats(min_value=-1e6, max_value=1e6)


@pytest.mark.parametrize(
    ("confidence", "freedom", "wanted"),
    [
        (0.95, 1, 6.3138),
        (0.95, 2, 2.9200),
        (0.95, 4, 2.1318),
        (0.975, 9, 2.2622),
        (0.99, 19, 2.5395),
        (0.95, 120, 1.6577),
    ],
)
def test_students_t_is_that_of_the_tables(confidence, freedom, wanted):
    assert student_t(confidence, freedom) == pytest.approx(wanted, abs=2e-4)


def test_a_percentile_does_not_go_one_rank_too_far_by_rounding():
    assert percentile(range(1, 1001), 99.9) == 999
    assert percentile(range(1, 101), 95) == 95


@given(st.lists(FINITE, min_size=2, max_size=9), st.integers())
def test_a_lower_bound_is_no_higher_than_the_mean_and_no_lower_than_the_least(values, seed):
    low = lower_bound(values, confidence=0.95, seed=seed)
    slack = 1e-9 * max(map(abs, values), default=0) + 1e-12
    assert min(values) - slack <= low <= mean(values) + slack


def test_one_block_proves_nothing():
    assert lower_bound([5.0], confidence=0.95, seed=1) == -math.inf


@pytest.mark.parametrize("count", [3, 5, 8])
def test_a_lower_bound_is_above_the_truth_as_seldom_as_it_promises(count):
    """With few values a plain percentile bootstrap errs two to three times as often as it promises."""
    rng, trials = random.Random(20240607), 600
    above = sum(
        lower_bound([rng.gauss(0, 1) for _ in range(count)], confidence=0.95, seed=trial) > 0 for trial in range(trials)
    )
    found = share_interval(above, trials, confidence=0.99)
    told = (
        f"{count} values, confidence 0.95: above the truth in {found.estimate:.1%} [{found.low:.1%}, {found.high:.1%}]"
    )
    assert found.low <= 0.08, told


def test_a_share_has_an_interval_where_nothing_was_hit_and_where_all_was():
    none, all_ = share_interval(0, 20, confidence=0.95), share_interval(20, 20, confidence=0.95)
    assert (none.low, all_.high) == (0, 1)
    assert none.high == pytest.approx(0.1611, abs=1e-3)
    assert all_.low == pytest.approx(1 - none.high)


def test_a_slope_is_not_moved_by_an_outlier():
    assert slope([(float(x), 3.0 * x + (1e6 if x == 7 else 0)) for x in range(40)]) == pytest.approx(3.0, abs=0.2)


def test_a_slope_of_one_instant_is_not_known():
    assert math.isnan(slope([(1.0, 2.0), (1.0, 3.0)]))
    found = slope_interval([(1.0, 2.0)], confidence=0.95, seed=1)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_a_leak_is_told_from_noise_that_lasts():
    """Noise whose neighbours are alike looks like a slope to who draws single points."""
    rng, noise, level = random.Random(5), [], 0.0
    for _ in range(300):
        level = 0.7 * level + rng.gauss(0, 1)
        noise.append(level)
    flat = slope_interval(list(enumerate(noise)), confidence=0.95, seed=1)
    leak = slope_interval([(x, y + 0.05 * x) for x, y in enumerate(noise)], confidence=0.95, seed=1)
    assert not flat.beyond(0)
    assert leak.low > 0
    assert leak.estimate == pytest.approx(flat.estimate + 0.05, rel=0.02)


@given(st.lists(st.tuples(FINITE, FINITE), max_size=400))
def test_thinning_keeps_within_the_values_and_the_bound(points):
    thin = thinned(points)
    assert len(thin) <= 60
    assert bool(thin) == bool(points)
    if points:
        assert min(y for _, y in points) <= min(y for _, y in thin) <= max(y for _, y in points)


@given(st.lists(st.tuples(st.floats(min_value=-5, max_value=15), FINITE), max_size=50), st.integers(1, 9))
def test_slices_lose_nothing(pairs, count):
    times, values = [t for t, _ in pairs], [v for _, v in pairs]
    found = slices(times, values, start=0.0, end=10.0, count=count)
    assert len(found) == count
    assert sorted(v for part in found for v in part) == sorted(values)


def test_a_bootstrap_of_blocks_covers_the_median():
    rng, covered = random.Random(11), 0
    for trial in range(60):
        blocks = [[rng.lognormvariate(0, 1) for _ in range(15)] for _ in range(20)]
        found = redrawn(blocks, draws(20, resamples=200, seed=trial), lambda values: percentile(values, 50))
        low, high = bounds(found, confidence=0.95)
        covered += low <= 1.0 <= high
    share = share_interval(covered, 60, confidence=0.99)
    told = f"95 % intervals of a median hold it in {share.estimate:.0%} [{share.low:.0%}, {share.high:.0%}]"
    assert share.high >= 0.95, told
    assert share.estimate >= 0.85, told


def test_draws_repeat_by_their_seed_and_a_draw_of_nothing_is_not_a_number():
    assert draws(5, resamples=9, seed=3) == draws(5, resamples=9, seed=3)
    assert math.isnan(redrawn([[], [1.0]], [[0, 0]], stdlib.mean)[0])
    assert bounds([math.nan], confidence=0.95) == (-math.inf, math.inf)


def test_an_interval_is_beyond_what_all_of_it_is_on_one_side_of():
    assert Interval(estimate=2, low=1, high=3).beyond(0.5)
    assert Interval(estimate=2, low=1, high=3).beyond(4)
    assert not Interval(estimate=2, low=1, high=3).beyond(1)
