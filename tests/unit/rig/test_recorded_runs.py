"""Every gate has a recorded run that it fails, one that it passes, and an empty one of which it knows nothing."""

import pytest
from literal import RUNS as LITERAL
from recorded import EDITS, apply_edit, judge_folder
from scraped import scrape_again

from mailrig.checkers import METRICS, judge
from mailrig.checkers.expression import parse_metric
from mailrig.evidence import LINE_FILES, Evidence
from mailrig.scenario import load_contract, load_scenario, scenario_names

METRICS_FILE = "evidence/metrics.jsonl"
#: Nothing is judged by the folders' rows alone: they are for the report. Of Jaeger there is a gate when one was asked.
UNJUDGED = {"folders", "jaeger"}


def verdicts(verdict):
    return {gate.id: gate.verdict for gate in verdict.gates}


def test_the_recorded_run_passes_every_gate(tiny):
    verdict = judge_folder(tiny)
    assert set(verdicts(verdict).values()) == {"pass"}
    assert verdict.verdict == "pass"
    assert verdict.exit_code(strict=True) == 0


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_run_breaks_just_the_gates_that_it_should(tiny, name):
    edit = EDITS[name]
    for change in edit["edit"]:
        apply_edit(tiny, change)
    if all(change["file"] != METRICS_FILE for change in edit["edit"]):
        # The exporter would have counted the rows as they are now.
        scrape_again(tiny)
    verdict = judge_folder(tiny)
    explained = "\n".join(f"{g.id}: {g.observed_text} {g.detail}" for g in verdict.gates if g.verdict != "pass")
    found = verdicts(verdict)
    assert {gate for gate, result in found.items() if result in {"fail", "invalid"}} == set(edit.get("fails", ())), (
        explained
    )
    assert {gate for gate, result in found.items() if result == "warn"} == set(edit.get("warns", ())), explained
    assert {gate for gate, result in found.items() if result == "unknown"} == set(edit.get("unknown", ())), explained
    assert verdict.verdict == edit["verdict"], explained
    assert all(1 <= len(g.detail) <= 10 for g in verdict.gates if g.verdict != "pass"), explained


def test_every_gate_of_the_shipped_scenarios_has_a_recorded_run_that_it_fails():
    """By metric: a gate of another id or with another number is the same checker."""
    ids = {gate for edit in EDITS.values() for gate in (*edit.get("fails", ()), *edit.get("warns", ()))}
    recorded = {parse_metric(gate.metric)[0] for gate in load_scenario("smoke").gates if gate.id in ids}
    for name in scenario_names():
        metrics = {gate.id: parse_metric(gate.metric)[0] for gate in load_scenario(name).gates}
        assert {gate for gate, metric in metrics.items() if metric not in recorded | set(LITERAL)} == set(), name


def test_the_recorded_run_has_the_gates_of_smoke(tiny):
    recorded, smoke = load_scenario(tiny / "scenario.toml"), load_scenario("smoke")
    assert {(g.id, g.metric) for g in recorded.gates} == {(g.id, g.metric) for g in smoke.gates}
    assert load_contract(tiny / "contract.toml").values == load_contract().values


def test_an_empty_run_is_unknown_and_no_gate_passes():
    scenario = load_scenario("smoke")
    verdict = judge(scenario, load_contract(), Evidence())
    assert set(verdicts(verdict).values()) == {"unknown"}
    assert verdict.verdict == "unknown"
    assert verdict.exit_code(strict=False) == 4
    assert all(gate.detail for gate in verdict.gates)


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_of_nothing_has_no_samples_and_says_why(metric):
    measurement = METRICS[metric](Evidence(), load_contract(), load_scenario("smoke"))
    assert measurement.samples == ()
    assert measurement.reason


@pytest.mark.parametrize("name", sorted(set(LINE_FILES) - UNJUDGED))
def test_a_run_that_lost_a_file_does_not_pass(tiny, name):
    (tiny / "evidence" / f"{name}.jsonl").unlink()
    assert judge_folder(tiny).verdict != "pass"


@pytest.mark.parametrize("name", ["history.jsonl", "evidence/broker.json"])
def test_a_run_without_history_or_broker_does_not_pass(tiny, name):
    (tiny / name).unlink()
    assert judge_folder(tiny).verdict != "pass"


def test_a_crashed_checker_is_unknown_and_names_its_error(tiny):
    apply_edit(tiny, {"file": "evidence/messages.jsonl", "replace": ['"sha256"', '"sha"']})
    verdict = judge_folder(tiny)
    gate = next(gate for gate in verdict.gates if gate.id == "seeded-rows")
    assert (gate.verdict, gate.detail) == ("unknown", ("KeyError: 'sha256'",))
    assert verdict.verdict == "unknown"
