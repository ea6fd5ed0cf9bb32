"""Arrivals: seeded, open loop, independent of everything but the scenario."""

from dataclasses import replace
from itertools import pairwise
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrig.scenario import Load, LoadOp, Stage, load_scenario, with_overrides
from mailrig.schedule import OUTSIDERS, arrivals, for_worker

SMOKE = load_scenario("smoke")
BOXES = SMOKE.population.addresses()
SEEDS = st.integers(min_value=0, max_value=2**63)


def scenario(**load):
    values = {"arrivals": "constant", "warmup_s": 1, "duration_s": 9, "ops": (LoadOp(f="sync", rate_per_s=2),)}
    return replace(SMOKE, load=Load(**(values | load)))


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_the_same_seed_gives_the_same_schedule_and_another_one_another(seed):
    one = replace(SMOKE, seed=seed)
    assert arrivals(one, BOXES) == arrivals(replace(one, name="other"), BOXES)
    assert arrivals(one, BOXES) != arrivals(replace(SMOKE, seed=seed + 1), BOXES)


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_a_mail_has_one_to_four_different_recipients_of_its_tenant_or_outside(seed):
    for arrival in arrivals(replace(SMOKE, seed=seed), BOXES):
        sender = BOXES[arrival.tenant][arrival.client]
        recipients = [*arrival.to, *arrival.cc, *arrival.bcc]
        if arrival.f == "sync":
            assert not recipients
            continue
        assert arrival.to
        assert len(recipients) == len(set(recipients)) <= 4
        assert set(recipients) <= {*BOXES[arrival.tenant], *OUTSIDERS} - {sender}
        assert arrival.subject.isprintable()


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_every_mailbox_is_synced_whatever_the_seed(seed):
    synced = {(a.tenant, a.client) for a in arrivals(replace(SMOKE, seed=seed), BOXES) if a.f == "sync"}
    assert len(synced) == SMOKE.population.mailboxes


def test_the_shipped_schedule_never_changes_unseen():
    """A changed schedule makes old runs incomparable: it is a decision, not a side effect."""
    first = arrivals(replace(SMOKE, seed=1), BOXES)[:3]
    assert [(a.f, round(a.at_s, 6), a.tenant, a.client, a.to, a.bcc, a.subject) for a in first] == [
        ("send", 0.011868, 0, 1, ("user0@acme.example",), ("user2@acme.example",), "vault birch 0"),
        ("sync", 0.085276, 1, 0, (), (), ""),
        ("send", 0.171631, 1, 0, ("user44@outside.example",), (), "grove upper 1"),
    ]


def test_arrivals_are_in_order_and_the_warm_up_is_marked():
    schedule = arrivals(SMOKE, BOXES)
    assert [a.index for a in schedule] == list(range(len(schedule)))
    assert [a.at_s for a in schedule] == sorted(a.at_s for a in schedule)
    assert schedule[0].at_s > 0
    assert schedule[-1].at_s < SMOKE.load.total_s
    assert all(a.warmup is (a.at_s < 3) for a in schedule)


def test_smoke_has_the_mix_that_it_describes():
    sends = [a for a in arrivals(SMOKE, BOXES) if a.f == "send"]
    assert 12 * 25 * 0.8 < len(sends) < 12 * 25 * 1.2
    assert 0.1 < fmean(a.attachment for a in sends) < 0.3
    assert 0.25 < fmean(bool(a.cc) for a in sends) < 0.55
    assert 0.25 < fmean(bool(a.bcc) for a in sends) < 0.55
    assert {len(a.to) + len(a.cc) + len(a.bcc) for a in sends} == {1, 2, 3, 4}


def test_constant_arrivals_are_evenly_spaced():
    times = [a.at_s for a in arrivals(scenario(), BOXES)]
    assert times == [0.25 + k / 2 for k in range(20)]


def test_poisson_gaps_have_the_mean_and_the_spread_of_their_rate():
    schedule = arrivals(scenario(arrivals="poisson", duration_s=999, ops=(LoadOp(f="sync", rate_per_s=5),)), BOXES)
    gaps = [b.at_s - a.at_s for a, b in pairwise(schedule)]
    mean = fmean(gaps)
    assert abs(mean - 0.2) < 0.01
    assert abs(fmean((g - mean) ** 2 for g in gaps) ** 0.5 - mean) < 0.02


def test_stages_bend_time_and_nothing_else():
    stages = (Stage(duration_s=2, factor=1), Stage(duration_s=2, factor=3), Stage(duration_s=2, factor=0))
    times = [a.at_s for a in arrivals(scenario(stages=stages), BOXES)]
    counts = [sum(low <= t < high for t in times) for low, high in ((0, 2), (2, 4), (4, 6), (6, 8), (8, 10))]
    assert counts == [4, 12, 0, 4, 4]


def test_shares_and_other_streams_move_no_arrival():
    more = tuple(replace(op, cc_share=1.0, recipients_max=2) if op.f == "send" else op for op in SMOKE.load.ops)
    changed = arrivals(replace(SMOKE, load=replace(SMOKE.load, ops=more)), BOXES)
    assert [a.at_s for a in changed] == [a.at_s for a in arrivals(SMOKE, BOXES)]


def test_workers_share_the_schedule_without_overlap():
    schedule = arrivals(SMOKE, BOXES)
    parts = [for_worker(schedule, worker=k, workers=3) for k in range(3)]
    assert sorted((a for part in parts for a in part), key=lambda a: a.index) == schedule


def test_a_stream_of_rate_zero_is_empty():
    assert arrivals(scenario(ops=(LoadOp(f="sync", rate_per_s=0),)), BOXES) == []


def shares(zipf, f="send"):
    population = [["a@x", "b@x"], ["a@y", "b@y"], ["a@z", "b@z"]]
    made = arrivals(scenario(ops=(LoadOp(f=f, rate_per_s=300, zipf=zipf),)), population)
    return [sum(a.tenant == tenant for a in made) / len(made) for tenant in range(3)]


@pytest.mark.parametrize("f", ["send", "sync"])
def test_tenants_are_as_uneven_as_zipf_says(f):
    harmonic = 1 + 1 / 2 + 1 / 3
    assert shares(1, f) == pytest.approx([1 / harmonic, 1 / 2 / harmonic, 1 / 3 / harmonic], abs=0.03)
    assert shares(0, f) == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_skew_moves_no_arrival():
    even, uneven = (scenario(ops=(LoadOp(f="send", rate_per_s=20, zipf=zipf),)) for zipf in (0, 2))
    assert [a.at_s for a in arrivals(even, BOXES)] == [a.at_s for a in arrivals(uneven, BOXES)]


def test_what_is_repeated_comes_when_it_came_as_far_as_the_load_lasts():
    ops = (LoadOp(f="send", rate_per_s=5, at_s=(0.25, 0.125, 9.5, 10.5)), LoadOp(f="sync", rate_per_s=5, at_s=(3.0,)))
    made = arrivals(scenario(arrivals="replay", ops=ops), BOXES)
    assert [(a.f, a.at_s, a.warmup) for a in made] == [
        ("send", 0.125, True),
        ("send", 0.25, True),
        ("sync", 3.0, False),
        ("send", 9.5, False),
    ]


def test_a_schedule_that_was_repeated_is_the_schedule():
    """With the same seed and mix not only the times are the same."""
    first = arrivals(SMOKE, BOXES)
    times = {f: [a.at_s for a in first if a.f == f] for f in ("send", "sync")}
    again = arrivals(with_overrides(SMOKE, replay=times), BOXES)
    assert [replace(a, at_s=0) for a in again] == [replace(a, at_s=0) for a in first]
    assert [a.at_s for a in again] == pytest.approx([a.at_s for a in first], abs=1e-6)
