"""The gate of Jaeger: it is part of a run that asked one, and of no other."""

from __future__ import annotations

import json

import pytest
from recorded import judge_folder

from mailrig.checkers import METRICS
from mailrig.evidence import load_evidence
from mailrig.runner.plan import JAEGER_GATE
from mailrig.scenario import load_contract, load_scenario, with_overrides

WHOLE = {"trace_id": "a" * 32, "spans": 3, "uploaded": 1, "missing": []}
TORN = {"trace_id": "b" * 32, "spans": 2, "uploaded": 1, "missing": ["c" * 16]}


def judged(tiny, rows):
    scenario = tiny / "scenario.toml"
    if "jaeger-complete" not in scenario.read_text():
        scenario.write_text(scenario.read_text() + JAEGER_GATE)
    if rows is not None:
        (tiny / "evidence" / "jaeger.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return next(gate for gate in judge_folder(tiny).gates if gate.id == "jaeger-complete")


def test_all_spans_were_given_back(tiny):
    gate = judged(tiny, [WHOLE])
    assert (gate.verdict, gate.observed) == ("pass", 0)


def test_a_span_that_was_not_given_back_is_named_with_its_trace(tiny):
    gate = judged(tiny, [WHOLE, TORN])
    assert gate.verdict == "fail"
    assert gate.detail == (f"span {'c' * 16} of trace {'b' * 32} is not in Jaeger",)


@pytest.mark.parametrize(
    ("rows", "told"), [(None, "no Jaeger was asked: mailrig run --jaeger URL"), ([], "no spans to judge")]
)
def test_what_was_not_looked_for_is_not_known(tiny, rows, told):
    gate = judged(tiny, rows)
    assert (gate.verdict, gate.detail) == ("unknown", (told,))


def test_the_gate_is_part_of_the_scenario_that_is_kept():
    scenario = with_overrides(load_scenario("smoke"), gates=JAEGER_GATE)
    assert scenario.gates[-1].id == "jaeger-complete"
    assert scenario.text.endswith(JAEGER_GATE)


@pytest.mark.parametrize("name", ["trace.incomplete", "trace.edges_missing", "trace.loss_percent"])
def test_a_run_without_spans_is_not_judged_by_them(tiny, name):
    (tiny / "evidence" / "spans.jsonl").unlink()
    measurement = METRICS[name](load_evidence(tiny), load_contract(), load_scenario("smoke"))
    assert (measurement.samples, measurement.reason) == ((), "no spans were collected")
