"""A gate may end a run only when nothing that could still come would make it hold; and such a run has failed."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrig.checkers import GateResult, validate
from mailrig.checkers.expression import parse_check
from mailrig.checkers.hopeless import can_abort, hopeless
from mailrig.checkers.verdict import conclude
from mailrig.clients import Timing
from mailrig.live import LiveGates, require_visible
from mailrig.runner import experiment
from mailrig.scenario import ScenarioError, load_contract, load_scenario, parse_scenario

CONTRACT, SMOKE = load_contract(), load_scenario("smoke")
CHECKS = st.sampled_from(
    [
        "max <= 5",
        "max < 5",
        "min >= 5",
        "min > 5",
        "count <= 6",
        "p95 < 5",
        "p50 <= 5",
        "p50 >= 5",
        "p100 < 5",
        "p10 > 5",
    ]
)
VALUES = st.lists(st.integers(0, 10).map(float), max_size=12)


@given(CHECKS, VALUES, VALUES)
def test_what_is_hopeless_does_not_hold_whatever_comes(text, seen, still_to_come):
    check, total = parse_check(text, CONTRACT), len(seen) + len(still_to_come)
    if seen and hopeless(check, seen, total):
        assert not check.holds(check.observe([*seen, *still_to_come], ""))


@given(CHECKS, VALUES.filter(bool))
def test_what_does_not_hold_at_the_end_is_hopeless_by_then(text, seen):
    check = parse_check(text, CONTRACT)
    assert hopeless(check, seen, len(seen)) is not check.holds(check.observe(seen, ""))


def test_without_a_known_number_of_samples_a_percentile_is_never_hopeless():
    check = parse_check("p95 < 5", CONTRACT)
    assert not hopeless(check, [9.0] * 1000, None)
    assert hopeless(parse_check("max < 5", CONTRACT), [9.0], None)


@pytest.mark.parametrize(
    "text", ["mean < 5", "sum < 5", "last < 5", "== 0", "max >= 4", "count >= 4", "min <= 4", "p95 == 5"]
)
def test_what_may_hold_after_all_can_not_abort(text):
    check = parse_check(text, CONTRACT)
    assert not can_abort(check)
    assert not hopeless(check, [9.0] * 50, 50)


# --- in a scenario ---


def scenario_of(*, metric="http.accept{f=send}", check="p95 < 500ms", more=""):
    text = SMOKE.text.partition("[validity]")[0]
    text += f'\n[[gate]]\nid = "fast"\nmetric = "{metric}"\ncheck = "{check}"\nabort = true\n{more}\n'
    return parse_scenario(text, Path("abort.toml"))


def plan(scenario):
    """What is asked of a scenario before it is run."""
    validate(scenario, CONTRACT)
    require_visible(scenario)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"check": "mean < 500ms"}, "abort goes with max or count under a bound"),
        ({"more": 'for = "10s"'}, "abort goes with max or count under a bound"),
        (
            {"metric": "memory.total", "check": "max < 5MiB"},
            "abort does not go with memory.total, which is known after",
        ),
    ],
)
def test_a_gate_that_can_not_abort_is_refused_at_its_line(wrong, told):
    scenario = scenario_of(**wrong)
    with pytest.raises(ScenarioError, match=rf"abort.toml:\d+: gate fast: {re.escape(told)}"):
        plan(scenario)


def test_abort_is_true_or_false():
    text = scenario_of().text.replace("abort = true", 'abort = "yes"')
    with pytest.raises(
        ScenarioError, match=r"abort.toml:\d+: gate.abort = 'yes' is not allowed; allowed: true or false"
    ):
        parse_scenario(text, Path("abort.toml"))


def accepted(live, count, *, ms):
    live.time([Timing(kind="API", name="accept send", duration_ns=ms * 1_000_000)] * count)


def test_five_of_a_hundred_may_be_late_and_the_sixth_is_too_many():
    live = LiveGates(scenario_of(), CONTRACT)
    accepted(live, 5, ms=900)
    assert live.hopeless(100) is None
    accepted(live, 1, ms=900)
    assert live.hopeless(100).id == "fast"
    assert live.hopeless(1000) is None


def test_a_gate_that_is_not_to_abort_does_not():
    text = scenario_of().text.replace("abort = true", "")
    live = LiveGates(parse_scenario(text, Path("abort.toml")), CONTRACT)
    accepted(live, 100, ms=900)
    assert live.hopeless(100) is None


def test_the_load_is_ended_once_and_the_gate_is_known():
    live, stops, phases = LiveGates(scenario_of(), CONTRACT), [], []
    accepted(live, 100, ms=900)
    course = experiment.Experiment.__new__(experiment.Experiment)
    course._live, course._wish, course._cut, course.aborted_by = live, experiment.Wish(), False, None
    course._phase = lambda name, text: phases.append((name, text))
    load = SimpleNamespace(tail=SimpleNamespace(start_ns=1), stop=lambda: stops.append(1))
    course._give_up(load, 100)
    assert (course.aborted_by, stops, course._cut) == ("fast", [1], True)
    assert phases == [("aborted", "gate fast 900 ms can't hold any more (p95 < 500ms): no more load")]
    assert course.interrupted_ns is not None


def test_a_load_that_has_not_begun_is_not_given_up():
    live = LiveGates(scenario_of(), CONTRACT)
    accepted(live, 100, ms=900)
    course = experiment.Experiment.__new__(experiment.Experiment)
    course._live, course.aborted_by = live, None
    course._give_up(SimpleNamespace(tail=SimpleNamespace(start_ns=None)), 100)
    assert course.aborted_by is None


# --- judged ---


def result(name, verdict, *, kind="gate"):
    return GateResult(id=name, kind=kind, metric="m", check="< 1", observed=1.0, unit="", verdict=verdict)


def test_a_run_that_a_gate_ended_has_failed_although_the_load_was_not_whole():
    gates = [result("achieved_ratio", "invalid", kind="validity"), result("fast", "fail"), result("other", "pass")]
    assert conclude(gates) == "invalid"
    assert conclude(gates, aborted_by="fast") == "fail"


def test_a_run_that_was_ended_for_a_gate_that_holds_after_all_is_invalid():
    gates = [result("achieved_ratio", "invalid", kind="validity"), result("fast", "pass")]
    assert conclude(gates, aborted_by="fast") == "invalid"
