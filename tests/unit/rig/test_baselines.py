"""A run held against an earlier one, as folders."""

import json
import shutil

import pytest

from mailrig import runner
from mailrig.evidence import load_evidence
from mailrig.runner.beside import BaselineError, keep_baseline
from mailrig.store import Run, RunError

GATE = """
[[gate]]
id = "vs-base"
metric = "http.accept{f=send}"
check = "p50 ratio baseline <= 1.15"
min_effect = "5ms"
"""


def widened(folder, *, times, stretch=1.0):
    """As many requests again as a ratio needs, in the history alone."""
    file = folder / "history.jsonl"
    ops = [json.loads(line) for line in file.read_text().splitlines()]
    more = []
    for turn in range(times):
        for op in ops:
            value = dict(op["value"])
            if op["f"] != "send" or "arrival" not in value or value.get("warmup"):
                continue
            value["arrival"] += 1000 * (turn + 1)
            value["intended_ns"] += turn * 10**8
            late = int((op["time_ns"] - op["value"]["intended_ns"]) * (stretch if op["type"] == "ok" else 1))
            more.append({**op, "value": value, "time_ns": value["intended_ns"] + late})
    ops = sorted([*ops, *more], key=lambda op: op["time_ns"])
    file.write_text("".join(json.dumps({**op, "index": i}) + "\n" for i, op in enumerate(ops)))


@pytest.fixture
def pair(tiny, tmp_path):
    scenario = tiny / "scenario.toml"
    scenario.write_text(scenario.read_text() + GATE)
    before = tmp_path / "before"
    shutil.copytree(tiny, before)
    runner.check(Run(path=before))
    return Run(path=tiny), Run(path=before)


def verdict_of(folder, baseline=None):
    found = runner.check(folder, baseline=baseline)
    return next(gate for gate in found.gates if gate.id == "vs-base")


def test_a_run_is_judged_beside_another_and_later_again_without_it(pair):
    now, before = pair
    widened(before.path, times=10)
    widened(now.path, times=10, stretch=3.0)
    assert "no baseline" in verdict_of(now).detail[0]
    first = verdict_of(now, baseline=before)
    assert first.verdict == "fail"
    assert first.observed > 1.15
    assert f"of run {before.path.name}" in first.detail[0]
    shutil.rmtree(before.path)
    assert verdict_of(now) == first


def test_the_same_run_passes_beside_itself(pair):
    now, before = pair
    for run in pair:
        widened(run.path, times=10)
    assert verdict_of(now, baseline=before).verdict == "pass"


def test_what_is_kept_of_a_baseline_is_what_gates_compare(pair):
    now, before = pair
    keep_baseline(now, before)
    assert list(load_evidence(now.path).baseline["metrics"]) == ["http.accept{f=send}"]


def test_the_first_run_of_all_has_no_baseline_and_may_be_one(pair):
    now, before = pair
    assert before.read_verdict()["verdict"] == "unknown"
    keep_baseline(now, before)


@pytest.mark.parametrize("emptied", ["queues", "executions"])
def test_a_baseline_that_can_not_be_believed_is_refused(pair, emptied):
    now, before = pair
    (before.evidence / f"{emptied}.jsonl").write_text("")
    runner.check(before)
    with pytest.raises(BaselineError, match="can't be believed itself \\("):
        keep_baseline(now, before)


def test_a_baseline_that_was_never_judged_is_refused(pair):
    now, before = pair
    (before.path / "verdict.json").unlink()
    with pytest.raises(RunError, match="has no verdict yet: mailrig check"):
        keep_baseline(now, before)


def test_a_baseline_of_another_scenario_is_refused(pair):
    now, before = pair
    file = before.path / "scenario.toml"
    file.write_text(file.read_text().replace('name = "', 'name = "other-', 1))
    with pytest.raises(BaselineError, match="is a run of other-"):
        keep_baseline(now, before)


def test_a_baseline_that_no_gate_asks_for_is_refused(pair):
    now, before = pair
    file = now.path / "scenario.toml"
    file.write_text(file.read_text().replace(GATE, ""))
    with pytest.raises(BaselineError, match=r"no gate of .* has a ratio to a baseline"):
        keep_baseline(now, before)
