"""The judge of an A/B comparison: what it calls slower, and how often it errs, by simulation."""

import math
import random

import pytest

from mailrig.ab.decision import Block, decide, error_rates, share_of
from mailrig.ab.figures import FIGURES, Figure
from mailrig.statistics import share_interval

CPU = Figure(metric="worker.cpu_per_execution", aggregate="", margin=0.05, floor=0.0002)
EACH = share_of(0.95, len(FIGURES))


def blocks_of(rng, *, count=5, noise=0.03, drift=0.3, slowdown=0.0, level=0.020):
    """Blocks on a machine whose speed differs from block to block far more than within one."""
    found = []
    for _ in range(count):
        machine = level * math.exp(rng.gauss(0, drift))
        value = [machine * math.exp(rng.gauss(0, noise)) for _ in range(4)]
        found.append(
            Block(base=(value[0], value[3]), head=tuple(each * (1 + slowdown) for each in (value[1], value[2])))
        )
    return found


def slower(rng, **options):
    return decide(CPU, "s", blocks_of(rng, **options), confidence=EACH).slower


def share_of_slower(trials, **options):
    rng = random.Random(20240607)
    return share_interval(sum(slower(rng, **options) for _ in range(trials)), trials, confidence=0.95)


@pytest.mark.parametrize("noise", [0.01, 0.03, 0.1, 0.3])
def test_what_is_the_same_is_seldom_called_slower(noise):
    """Whatever the noise: four figures share 5 %, so that each may err in 1.25 % of comparisons."""
    found = share_of_slower(400, noise=noise)
    assert found.low <= 0.0125, f"noise {noise:.0%}: {found.estimate:.2%} [{found.low:.2%}, {found.high:.2%}]"


@pytest.mark.parametrize(("slowdown", "least"), [(0.15, 0.9), (0.3, 0.99)])
def test_a_slow_down_is_found(slowdown, least):
    found = share_of_slower(200, slowdown=slowdown)
    assert found.estimate >= least, f"{slowdown:.0%}: {found.estimate:.1%} [{found.low:.1%}, {found.high:.1%}]"


def test_what_is_within_the_margin_is_not_called_slower():
    assert share_of_slower(200, slowdown=0.04, noise=0.001).estimate == 0


def test_what_is_within_the_floor_is_not_called_slower_however_large_its_share():
    steady = [Block(base=(0.001, 0.001), head=(0.0011, 0.0011))] * 5
    assert decide(Figure(metric="task.run_time", aggregate="p50", floor=0.0), "s", steady).slower
    assert not decide(Figure(metric="task.run_time", aggregate="p50"), "s", steady).slower


def test_a_drift_of_the_machine_is_no_slow_down():
    """Each run takes a tenth longer than the one before: ABBA sees the same mean on both sides."""
    drifting = [Block(base=(1.1**n, 1.1 ** (n + 3)), head=(1.1 ** (n + 1), 1.1 ** (n + 2))) for n in range(0, 20, 4)]
    found = decide(CPU, "s", drifting)
    assert found.ratio == pytest.approx(1.0)
    assert not found.slower


def test_from_nothing_to_something_has_no_ratio_and_is_judged_by_the_floor():
    found = decide(Figure(metric="x", aggregate=""), "", [Block(base=(0.0, 0.0), head=(3.0, 3.0))] * 3)
    assert (found.ratio, found.slower) == (None, True)
    assert not decide(Figure(metric="x", aggregate=""), "", [Block(base=(0.0, 0.0), head=(0.0, 0.0))] * 3).slower


def test_one_block_is_never_enough():
    assert not decide(CPU, "s", [Block(base=(1.0, 1.0), head=(9.0, 9.0))]).slower


def test_error_rates_are_estimated_from_the_blocks_whatever_their_difference():
    rng = random.Random(3)
    for slowdown in (0.0, 0.5):
        found = error_rates([(CPU, "s", blocks_of(rng, count=20, slowdown=slowdown))], seed=1)
        rate = found.false_alarms
        told = f"{found.blocks} blocks: {rate.estimate:.1%} [{rate.low:.1%}, {rate.high:.1%}]; finds {found.finds}"
        assert found.blocks == 5
        assert rate.low <= rate.estimate <= rate.high, told
        assert rate.estimate <= 0.05, told
        assert found.finds[str(CPU)] in {0.1, 0.15, 0.2}, told
        shares = list(found.power[str(CPU)].values())
        assert shares == sorted(shares), told


def test_the_noisier_the_blocks_the_greater_what_they_find():
    rng = random.Random(4)
    found = {
        noise: error_rates([(CPU, "s", blocks_of(rng, count=8, noise=noise))]).finds[str(CPU)] for noise in (0.01, 0.2)
    }
    assert found[0.01] < (found[0.2] or math.inf)


def test_two_blocks_say_nothing_of_errors():
    assert error_rates([(CPU, "s", blocks_of(random.Random(1), count=2))]) is None
