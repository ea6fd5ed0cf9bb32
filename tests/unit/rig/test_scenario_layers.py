"""A scenario that extends another, and its two lengths: what comes of it stands alone, and knows where it came from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from mailrig.catalogue import AROUND_S, as_json, as_text, entries
from mailrig.checkers import validate
from mailrig.scenario import (
    ScenarioError,
    full_lengths,
    load_contract,
    load_scenario,
    parse_scenario,
    scenario_names,
    with_overrides,
)

BASE = """# Not ours.
[drain]
timeout_s = 7

[validity]
unfinished = "== 0"
schedule_lag = "p99 < 1s"

# Kept.
[[gate]]
id = "kept"
metric = "jobs.missing"
check = "== 0"

[[gate]]
id = "held"
metric = "worker.held"
check = "max <= 4"
"""

OWN = """name = "own"
description = "Ours."
extends = "base"
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
time_scale = 0.1          # of ours

[[nemesis]]
at_s = 3
action = "kill-child"

[[nemesis]]
at_s = 4
action = "kill-parent"

[validity]
schedule_lag = "p99 < 2s"

[[gate]]
id = "held"
metric = "worker.held"
check = "max <= 3"
"""

FULL = """
[full.load]
duration_s = 600

[full.system]
time_scale = 1

[[full.nemesis]]
at_s = 60
action = "pause-redis"

[[full.gate]]
id = "kept"
metric = "jobs.missing"
check = "<= 1"
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "base.toml").write_text(BASE)
    return tmp_path


def own(folder, text=OWN, *, full=False):
    file = folder / "own.toml"
    file.write_text(text)
    return load_scenario(file, full=full)


def checks(scenario):
    return {gate.id: gate.check for gate in scenario.gates}


def test_tables_are_merged_key_by_key_and_the_scenario_has_the_last_word(folder):
    scenario = own(folder)
    assert scenario.drain_timeout_s == 7
    assert checks(scenario) == {"unfinished": "== 0", "schedule_lag": "p99 < 2s", "kept": "== 0", "held": "max <= 3"}


def test_what_comes_of_it_stands_alone_with_the_comments_of_what_is_kept(folder):
    scenario = own(folder)
    assert "extends" not in scenario.text
    assert "# Kept.\n[[gate]]" in scenario.text
    alone = parse_scenario(scenario.text, Path("elsewhere.toml"))
    assert (checks(alone), alone.load, alone.nemesis) == (checks(scenario), scenario.load, scenario.nemesis)
    assert with_overrides(scenario, seed=5).seed == 5


def test_a_gate_may_be_left_out_and_an_unknown_one_is_named(folder):
    assert "kept" not in checks(own(folder, OWN.replace("seed = 1", 'seed = 1\nwithout = ["kept"]')))
    with pytest.raises(ScenarioError, match=r"own\.toml:5: without names 'kapt'; allowed: gates of 'base': kept, held"):
        own(folder, OWN.replace("seed = 1", 'seed = 1\nwithout = ["kapt"]'))


MISTAKES = {
    'extends = "basis"': ("own", OWN.replace('"base"', '"basis"'), "= 'basis' is not there; allowed: base, common"),
    "at_s = -4": ("own", OWN.replace("at_s = 4", "at_s = -4"), "nemesis.at_s = -4 is not allowed"),
    "time = 1": ("own", OWN.replace("[system]", "[system]\ntime = 1"), "system.time is not known"),
    "[load]": ("base", BASE + "[load]\nwarmup_s = 1\n", "load can't be inherited; allowed: system, population, drain"),
    "[[gate]": ("base", BASE.replace("[[gate]]", "[[gate]", 1), "broken TOML"),
    "check = 0": ("base", BASE.replace('check = "== 0"', "check = 0"), "gate.check = 0 is not allowed"),
    "severity": ("base", BASE + 'severity = "bad"\n', "gate.severity = 'bad' is not allowed; allowed: fail, warn"),
}


@pytest.mark.parametrize("part", MISTAKES)
def test_a_mistake_is_named_in_the_file_and_at_the_line_where_it_was_made(folder, part):
    name, text, wrong = MISTAKES[part]
    # What is overridden is not looked at, so our own gate of that id is left out.
    mine = text if name == "own" else OWN.partition("[[gate]]")[0]
    (folder / "parts" / "base.toml").write_text(BASE if name == "own" else text)
    line = next(n for n, line in enumerate(text.splitlines(), start=1) if line.startswith(part))
    with pytest.raises(ScenarioError) as caught:
        own(folder, mine)
    assert f"{name}.toml:{line}: " in str(caught.value)
    assert wrong in str(caught.value)


def test_a_gate_that_can_never_be_judged_is_named_in_the_file_that_has_it(folder):
    (folder / "parts" / "base.toml").write_text(BASE.replace("jobs.missing", "jobs.mising"))
    with pytest.raises(ScenarioError, match=r"base\.toml:11: gate kept: metric 'jobs\.mising' is not known"):
        validate(own(folder), load_contract())


# --- two lengths ------------------------------------------------------------------------------------------------------


def test_the_full_length_changes_keys_and_replaces_lists(folder):
    scenario = own(folder, OWN + FULL, full=True)
    assert (scenario.load.duration_s, scenario.system.time_scale, scenario.full) == (600, 1, True)
    assert [(n.at_s, n.action) for n in scenario.nemesis] == [(60, "pause-redis")]
    assert checks(scenario)["kept"] == "<= 1"
    assert checks(scenario)["held"] == "max <= 3"
    assert len(scenario.load.ops) == 1
    assert "full" not in tomllib.loads(scenario.text)


def test_the_usual_length_knows_nothing_of_the_full_one(folder):
    scenario = own(folder, OWN + FULL)
    assert (scenario.load.duration_s, scenario.full, len(scenario.nemesis)) == (10, False, 2)
    assert scenario.text == own(folder).text


def test_a_mistake_in_the_full_length_is_said_before_anybody_waits_for_it(folder):
    wrong = OWN + FULL.replace("time_scale = 1", "time_scale = 2")
    line = wrong.splitlines().index("time_scale = 2") + 1
    with pytest.raises(ScenarioError, match=rf"own\.toml:{line}: system\.time_scale = 2 is not allowed"):
        own(folder, wrong)


def test_a_scenario_with_one_length_has_no_full_one(folder):
    with pytest.raises(ScenarioError, match=r"has one length only; allowed: \[full\.load\]"):
        own(folder, full=True)
    assert full_lengths(folder / "own.toml") is None


# --- what ships -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", scenario_names())
def test_a_shipped_scenario_can_be_judged_at_each_of_its_lengths_and_takes_a_minute_at_most(name):
    contract = load_contract()
    for scenario in (load_scenario(name), full_lengths(name)):
        if scenario is not None:
            validate(scenario, contract)
            assert scenario.name == name
            assert any(gate.kind == "validity" for gate in scenario.gates)
    assert load_scenario(name).load.total_s <= 65
    assert max((action.at_s for action in load_scenario(name).nemesis), default=0) < load_scenario(name).load.total_s


@pytest.mark.parametrize("name", ["redis-loss", "postgres-restart", "worker-kill"])
def test_the_send_promise_is_held_over_two_thousand_sends_at_full_length(name):
    full = full_lengths(name)
    assert next(gate.check for gate in full.gates if gate.id == "load.accepted{f=send}") == ">= 2000"
    assert sum(op.rate_per_s for op in full.load.ops if op.f == "send") * full.load.total_s >= 2200


def test_the_list_says_what_each_proves_how_long_it_takes_and_by_which_gates():
    found = entries()
    text = as_text(found, width=120)
    assert all(len(line) <= 120 for line in text.splitlines())
    for entry in found:
        assert entry.scenario.name in text
        assert entry.scenario.description.split()[0] in text
    (row,) = [row for row in json.loads(as_json(found)) if row["name"] == "redis-loss"]
    assert row["nemesis"] == ["lose-redis"]
    assert row["seconds"] == row["load_s"] + AROUND_S
    assert {"send-promise", "conservation"} <= set(row["gates"])
    assert row["full_load_s"] > 300
