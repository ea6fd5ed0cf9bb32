"""The language of gates: what it reads, what it refuses, and that it never guesses."""

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrig.checkers import validate
from mailrig.checkers.expression import (
    AGGREGATES,
    OPERATORS,
    TIMES,
    UNITS,
    Check,
    CheckError,
    parse_check,
    parse_metric,
    parse_quantity,
    parse_window,
)
from mailrig.scenario import ScenarioError, load_contract, load_scenario, parse_scenario
from mailrig.statistics import percentile

CONTRACT = load_contract()
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
SURE = st.none() | st.floats(min_value=0.5, max_value=0.999).map(lambda value: round(value, 4))
BOUNDS = st.sampled_from(["<", "<=", ">", ">="])
CHECKS = st.one_of(
    st.builds(
        Check,
        aggregate=st.sampled_from(["", *AGGREGATES, "p50", "p99", "p99.9", "p100"]),
        operator=st.sampled_from(sorted(OPERATORS)),
        number=NUMBERS,
        unit=st.sampled_from(sorted(UNITS)),
    ),
    st.builds(
        Check,
        aggregate=st.just("rate"),
        operator=st.sampled_from(sorted(OPERATORS)),
        number=NUMBERS,
        unit=st.just(""),
        per=st.sampled_from(sorted(TIMES)),
    ),
    st.builds(
        Check,
        aggregate=st.just("slope"),
        operator=BOUNDS,
        number=NUMBERS,
        unit=st.sampled_from(sorted(UNITS)),
        per=st.sampled_from(sorted(TIMES)),
        confidence=SURE,
    ),
    st.builds(
        Check,
        aggregate=st.sampled_from(["mean", "p50", "p99.9"]),
        operator=BOUNDS,
        number=NUMBERS,
        unit=st.just(""),
        baseline=st.just(value=True),
        confidence=SURE,
    ),
)
VALUES = st.lists(st.floats(min_value=-1e9, max_value=1e9), min_size=1)


@given(CHECKS)
def test_a_check_reads_back_what_it_prints(check):
    assert parse_check(str(check), CONTRACT) == check


@given(st.text())
def test_any_other_text_is_a_check_or_an_error_that_says_so(text):
    with suppress(CheckError, ScenarioError):
        assert isinstance(parse_check(text, CONTRACT), Check)


@given(VALUES, st.floats(min_value=0, max_value=100))
def test_a_percentile_is_a_value_that_was_seen(values, rank):
    assert percentile(values, rank) in values
    assert percentile(values, 100) == max(values)


@given(VALUES, st.floats(min_value=0, max_value=100), st.floats(min_value=0, max_value=100))
def test_percentiles_never_fall(values, one, other):
    low, high = sorted((one, other))
    assert percentile(values, low) <= percentile(values, high)


@pytest.mark.parametrize(
    ("text", "values", "kind", "observed", "holds"),
    [
        ("== 0", [0], "", 0, True),
        ("== 0", [1], "", 1, False),
        ("<= 4", [4], "", 4, True),
        ("max <= {contract.worker.held_max}", [3, 5, 4], "", 5, False),
        ("max >= 4", [3, 4], "", 4, True),
        ("p99 < 20ms", [0.001] * 99 + [0.5], "s", 0.001, True),
        ("p99.9 < 20ms", [0.001] * 99 + [0.5], "s", 0.5, False),
        (">= 0.99", [0.99], "", 0.99, True),
        ("max <= {contract.memory.process_mib}MiB", [150 * 2**20], "B", 150 * 2**20, True),
        ("max <= 150MiB", [150 * 2**20 + 1], "B", 150 * 2**20 + 1, False),
        ("max <= {contract.retry.tolerance_ms}ms", [0.051], "s", 0.051, False),
        ("count >= 2", [0.1, 0.1], "s", 2, True),
        ("last == 0", [5, 0], "", 0, True),
        ("mean < 2min", [60, 61], "s", 60.5, True),
    ],
)
def test_a_check_holds_or_does_not(text, values, kind, observed, holds):
    check = parse_check(text, CONTRACT)
    assert check.observe(values, kind) == observed
    assert check.holds(check.observe(values, kind)) is holds


@pytest.mark.parametrize(
    "text", ["", "4", "<= ", "p95 20ms", "p95 < 20 parsecs", "= 4", "p101 < 1", "< 1 2", "{x} < 1"]
)
def test_a_malformed_check_is_refused(text):
    with pytest.raises(CheckError):
        parse_check(text, CONTRACT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("slope < 1MiB", "a slope is by a time: write NUMBER/s|min|h"),
        ("rate > 10", "a rate is by a time"),
        ("rate > 10ms/s", "a rate counts"),
        ("p95 < 20ms/s", "only a rate and a slope are by a time"),
        ("p95 ratio baseline <= 1.15ms", "a ratio is a plain number"),
        ("max ratio baseline <= 1.15", "a ratio is that of mean or pN"),
        ("ratio baseline <= 1.15", "a ratio is that of mean or pN"),
        ("p95 ratio baseline == 1", "what is not exact has a bound, allowed: <, <=, >=, >"),
        ("slope != 0/s", "what is not exact has a bound"),
        ("p95 < 20ms confidence 0.95", "only a slope and a ratio have a confidence"),
        ("slope < 1/s confidence 0.2", "a confidence is from 0.5 to 0.999"),
        ("p95 ratio base <= 1", "malformed; allowed: .*ratio baseline"),
    ],
)
def test_what_can_not_be_meant_is_refused_with_what_can(text, told):
    with pytest.raises(CheckError, match=re.escape(told).replace(r"\.\*", ".*")):
        parse_check(text, CONTRACT)


def test_quantities_have_units_and_a_window_is_a_time():
    assert parse_quantity("5ms") == (0.005, "s")
    assert parse_quantity("2MiB") == (2 * 2.0**20, "B")
    assert parse_window("1.5min") == 90
    for text in ("10", "0s", "5MiB", "x", "-3s"):
        with pytest.raises(CheckError, match="allowed"):
            parse_window(text)


def test_a_bound_without_its_unit_is_refused_rather_than_guessed():
    with pytest.raises(CheckError, match="use ms, s, min"):
        parse_check("p95 < 20", CONTRACT).observe([0.1], "s")
    with pytest.raises(CheckError, match="use a plain number"):
        parse_check("max < 20ms", CONTRACT).observe([1], "")


def test_a_check_without_an_aggregate_does_not_pick_one_of_many_samples():
    with pytest.raises(CheckError, match="3 samples, say max"):
        parse_check("== 0", CONTRACT).observe([0, 0, 0], "")


def test_a_promise_that_is_not_in_the_contract_names_those_that_are():
    with pytest.raises(ScenarioError, match=r"worker\.held is not in the contract; allowed: .*worker\.held_max"):
        parse_check("<= {contract.worker.held}", CONTRACT)


def test_labels_select():
    assert parse_metric("task.e2e{queue=send, outcome=ok}") == ("task.e2e", {"queue": "send", "outcome": "ok"})
    assert parse_metric("task.e2e") == ("task.e2e", {})
    for text in ("Task", "task{queue}", "task{queue=a}b", "{a=b}", "task{a=b,}"):
        with pytest.raises(CheckError):
            parse_metric(text)


def test_the_shipped_scenarios_have_gates_that_can_be_judged():
    validate(load_scenario("smoke"), CONTRACT)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"worker.running"', '"worker.runing"', r"smoke.toml:\d+: gate running: metric 'worker.runing' is not known"),
        (
            'check = "p95 < 5s"',
            'check = "p95 < 5s"\nfor = "10"',
            r"smoke.toml:\d+: gate send-e2e-p95: for '10' is not allowed",
        ),
        ('check = "p95 < 5s"', 'check = "p95 < 5s"\nmin_effect = "5ms"', r"smoke.toml:\d+: .*goes with a ratio"),
        (
            'check = "p95 < 5s"',
            'check = "p95 < 5s"\nfor = "1s"\nwithin = "2s"',
            r"smoke.toml:\d+: .*within is not known",
        ),
        ('check = "p95 < 5s"', 'check = "p95 < 5 seconds"', r"smoke.toml:\d+: gate send-e2e-p95: .* malformed"),
    ],
)
def test_a_gate_that_could_never_be_judged_is_refused_at_its_line(old, new, message):
    smoke = load_scenario("smoke")
    with pytest.raises(ScenarioError, match=message):
        validate(parse_scenario(smoke.text.replace(old, new), smoke.file), CONTRACT)
