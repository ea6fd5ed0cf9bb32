"""What a run will be: recorded arrivals, variables of a scenario's own, its full length; before anything is started."""

from __future__ import annotations

import pytest

from mailrig.history import HistoryWriter
from mailrig.runner import RunOptions
from mailrig.runner.plan import PlanError, make_plan

S = 10**9


@pytest.fixture
def history(tmp_path):
    """A run whose warm-up began at 100 s: three requests of its load, and a sync behind the drain."""
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, "load") as writer:
        writer.append("info", "phase", {"name": "warmup", "scheduled": 3}, time_ns=100 * S)
        for arrival, f, at_s in ((0, "send", 100.5), (1, "sync", 101.25), (2, "send", 104), (-1, "sync", 130)):
            value = {"arrival": arrival, "intended_ns": int(at_s * S)}
            # Late by a second: what counts is when it was due.
            writer.append("invoke", f, value, time_ns=int((at_s + 1) * S))
            writer.append("ok", f, value)
    return path


def test_the_arrivals_of_a_run_are_those_of_its_schedule(history):
    plan = make_plan(RunOptions(scenario="smoke", replay=history))
    assert plan.scenario.load.arrivals == "replay"
    assert {op.f: op.at_s for op in plan.scenario.load.ops} == {"send": (0.5, 4), "sync": (1.25,)}
    # What the run's folder keeps says so too.
    assert "at_s = [0.500000, 4.000000]" in plan.scenario.text


def test_a_history_without_a_load_or_none_at_all_can_not_be_repeated(tmp_path):
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PlanError, match=r"--replay: .*empty\.jsonl has no load in it"):
        make_plan(RunOptions(scenario="smoke", replay=tmp_path / "empty.jsonl"))
    with pytest.raises(PlanError, match=r"--replay: .*No such file"):
        make_plan(RunOptions(scenario="smoke", replay=tmp_path / "nowhere.jsonl"))


SCENARIO = """name = "own"
description = "Ours."
extends = "common"
seed = 1
[load]
arrivals = "poisson"
duration_s = 10
[[load.op]]
f = "send"
rate_per_s = 1
[population]
tenants = 1
mailboxes = 1
messages_per_mailbox = 1
[system]
environment = { WORKER_MAX_TASKS_PER_CHILD = "15" }
[full.load]
duration_s = 600
"""


@pytest.fixture
def own(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(SCENARIO)
    return str(file)


def test_a_scenario_has_variables_of_its_own_and_a_setting_counts_more(own):
    assert make_plan(RunOptions(scenario=own)).environment()["WORKER_MAX_TASKS_PER_CHILD"] == "15"
    plan = make_plan(RunOptions(scenario=own, settings={"WORKER_MAX_TASKS_PER_CHILD": "20"}))
    assert plan.environment()["WORKER_MAX_TASKS_PER_CHILD"] == "20"


def test_a_run_says_which_length_it_had(own):
    for full, duration_s in ((False, 10), (True, 600)):
        plan = make_plan(RunOptions(scenario=own, full=full))
        assert (plan.facts.get("full", False), plan.scenario.load.duration_s) == (full, duration_s)
