"""Checks in windows, as rates, as slopes and beside a baseline: on literal samples, each with one that it fails."""

import random

import pytest

from mailrig.checkers import judge_gates
from mailrig.checkers.applying import baseline_row, read_baseline
from mailrig.checkers.measurement import Sample, series
from mailrig.scenario import Gate, load_contract

CONTRACT = load_contract()
S = 1_000_000_000


def samples(values, *, every_s=1.0, **labels):
    return [Sample(value=v, labels=labels, at_ns=int(i * every_s * S)) for i, v in enumerate(values)]


def judged(check, found, *, kind="", beside=None, **more):
    gate = Gate(id="g", kind="gate", metric="m", check=check, **more)
    (result,) = judge_gates([gate], CONTRACT, lambda _: series(found, kind=kind, of="samples"), beside=lambda _: beside)
    return result


def baseline(found, *, kind="s", same=False):
    return read_baseline(baseline_row(found, kind), same_schedule=same, name="run before")


def noisy(seed, *, count=400, factor=1.0):
    rng = random.Random(seed)
    return samples([factor * rng.lognormvariate(-3, 0.3) for _ in range(count)], every_s=0.1)


# --- windows ---


def test_each_window_must_hold_and_the_worst_is_told():
    """A stall of five seconds in a hundred is under the p95 of the whole run, and over that of its window."""
    stalled = samples([0.1] * 40 + [2.0] * 4 + [0.1] * 56)
    assert judged("p95 < 500ms", stalled, kind="s").verdict == "pass"
    found = judged("p95 < 500ms", stalled, kind="s", window="10s")
    assert (found.verdict, found.observed, found.unit) == ("fail", 2000, "ms")
    assert found.detail == ("40 s to 50 s: 2000 ms",)
    assert found.check == "p95 < 500ms, for 10s"


def test_a_window_without_samples_is_not_known_to_hold():
    gap = [*samples([0.1] * 10), Sample(value=0.1, at_ns=35 * S)]
    found = judged("max < 500ms", gap, kind="s", window="10s")
    assert found.verdict == "unknown"
    assert "no sample from 10 s to 20 s" in found.detail[0]


def test_a_short_rest_belongs_to_the_last_window():
    found = judged("count >= 9", samples([0.0] * 23), window="10s")
    assert (found.verdict, found.observed) == ("pass", 10)
    assert judged("count >= 9", samples([0.0] * 28), window="10s").verdict == "fail"


def test_samples_without_times_have_no_windows():
    found = judged("max < 5", [Sample(value=1.0)], window="10s")
    assert found.verdict == "unknown"
    assert "have no times" in found.detail[0]


# --- rates ---


def test_a_rate_counts_samples_by_the_second_or_the_minute():
    ten = samples([0.0] * 101, every_s=0.1)
    assert judged("rate >= 10/s", ten).observed == pytest.approx(10)
    assert judged("rate >= 10/s", ten).verdict == "pass"
    found = judged("rate >= 601/min", ten)
    assert (found.verdict, found.unit) == ("fail", "/min")
    assert found.observed == pytest.approx(600)


def test_a_rate_in_windows_sees_a_pause():
    paused = samples([0.0] * 20) + [Sample(value=0.0, at_ns=(40 + i) * S) for i in range(20)]
    assert judged("rate >= 0.4/s", paused).verdict == "pass"
    found = judged("rate >= 0.4/s", paused, window="10s")
    assert (found.verdict, found.observed) == ("fail", 0)
    assert judged("rate >= 1/s", samples([0.0])).verdict == "unknown"


# --- slopes ---


def grown(mib_per_min, *, seed=1, pid="1"):
    rng = random.Random(seed)
    return samples([50 * 2**20 + i * mib_per_min * 2**20 / 60 + rng.gauss(0, 2e5) for i in range(120)], pid=pid)


def test_a_leak_breaks_its_slope_and_a_flat_line_does_not():
    assert judged("slope < 1MiB/min", grown(0.0), kind="B").verdict == "pass"
    found = judged("slope < 1MiB/min", grown(3.0), kind="B")
    assert (found.verdict, found.unit) == ("fail", "MiB/min")
    assert 2.5 < found.observed < 3.0
    assert found.detail[0].startswith("pid=1: 2.9")
    assert "with confidence 0.95" in found.detail[0]


def test_one_process_that_leaks_among_many_is_the_one_that_is_told():
    found = judged("slope < 1MiB/min", [*grown(0, pid="1"), *grown(4, pid="2"), *grown(0, pid="3")], kind="B")
    assert found.verdict == "fail"
    assert [note.split(":")[0] for note in found.detail] == ["pid=2"]


def test_what_is_not_sure_does_not_break_a_slope():
    """Eight samples of much noise, whose slope is over the bound by chance."""
    rng = random.Random(8)
    few = samples([rng.gauss(0, 1e6) + i * 3e4 for i in range(8)])
    assert judged("slope < 1MiB/min confidence 0.95", few, kind="B").verdict == "pass"


@pytest.mark.parametrize("found", [samples([1.0] * 7), [Sample(value=1.0, at_ns=S)] * 9, []])
def test_too_little_for_a_slope_is_unknown(found):
    assert judged("slope < 1/s", found).verdict == "unknown"


# --- beside a baseline ---


def test_the_same_again_is_within_its_ratio_and_half_as_slow_again_is_not():
    check = "p95 ratio baseline <= 1.15 confidence 0.95"
    same = judged(check, noisy(1), kind="s", beside=baseline(noisy(2)))
    slow = judged(check, noisy(1, factor=1.5), kind="s", beside=baseline(noisy(2)))
    assert (same.verdict, slow.verdict) == ("pass", "fail")
    assert 1.15 < slow.observed < 1.5
    assert "of run before, at least" in slow.detail[0]


def test_a_difference_below_the_least_effect_does_not_break_a_ratio():
    check = "p50 ratio baseline <= 1.15"
    slow = noisy(1, factor=1.5)
    assert judged(check, slow, kind="s", beside=baseline(noisy(2)), min_effect="5ms").verdict == "fail"
    assert judged(check, slow, kind="s", beside=baseline(noisy(2)), min_effect="40ms").verdict == "pass"
    found = judged(check, slow, kind="s", beside=baseline(noisy(2)), min_effect="5MiB")
    assert found.verdict == "unknown"
    assert "min_effect '5MiB': the unit does not fit" in found.detail[0]


def test_a_floor_of_a_ratio_is_broken_from_above():
    check = "mean ratio baseline >= 0.8"
    assert judged(check, noisy(1, factor=0.5), kind="s", beside=baseline(noisy(2))).verdict == "fail"
    assert judged(check, noisy(1, factor=0.95), kind="s", beside=baseline(noisy(2))).verdict == "pass"


def test_the_same_schedule_shows_a_smaller_difference():
    """What made a slice slow made it slow in both runs: drawn together it cancels out."""
    rng = random.Random(3)
    waves = [rng.choice((1, 6)) for _ in range(20)]

    def run(factor):
        return samples([factor * waves[i // 20] * rng.uniform(0.9, 1.1) for i in range(400)], every_s=0.1)

    before, after = run(0.01), run(0.0125)
    apart = judged("mean ratio baseline <= 1.15", after, kind="s", beside=baseline(before))
    together = judged("mean ratio baseline <= 1.15", after, kind="s", beside=baseline(before, same=True))
    assert (apart.verdict, together.verdict) == ("pass", "fail")
    assert apart.observed < together.observed


@pytest.mark.parametrize(
    ("found", "beside", "told"),
    [
        (noisy(1), None, "no baseline: judge it beside one"),
        (noisy(1, count=19), baseline(noisy(2)), "19 samples beside 400, a ratio needs 20"),
        (noisy(1), baseline(noisy(2, count=3)), "400 samples beside 3"),
        (noisy(1), baseline(samples([0.0] * 30)), "is 0, there is no ratio to it"),
        ([], baseline(noisy(2)), "no samples"),
    ],
)
def test_a_ratio_to_what_is_not_there_is_unknown(found, beside, told):
    result = judged("p95 ratio baseline <= 1.15", found, kind="s", beside=beside)
    assert result.verdict == "unknown"
    assert told in result.detail[0]
