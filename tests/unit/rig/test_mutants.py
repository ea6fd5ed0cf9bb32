"""The mutants that ship: each is one defect, and names the scenario and the gates that must see it."""

from pathlib import Path

import pytest

from mailrig.scenario import ScenarioError, load_mutant, load_scenario, mutant, mutant_names

GOOD = """\
name = "mine"
description = "Something is wrong."
scenario = "smoke"
expected_gates = ["held"]
environment = { WORKER_PREFETCH_MULTIPLIER = "4" }
"""


@pytest.fixture
def write(monkeypatch, tmp_path):
    monkeypatch.setattr(mutant, "_MUTANTS", tmp_path)

    def write_(text) -> Path:
        file = tmp_path / "mine.toml"
        file.write_text(text)
        return file

    return write_


@pytest.mark.parametrize("name", mutant_names())
def test_every_mutant_names_gates_that_its_scenario_has(name):
    found = load_mutant(name)
    assert set(found.expected_gates) <= {gate.id for gate in load_scenario(found.scenario).gates}


def test_no_two_mutants_are_the_same_defect():
    changes = [(m.environment, m.without, m.patches) for m in map(load_mutant, mutant_names())]
    assert all(changes.count(change) == 1 for change in changes)


def test_a_mutant_is_read_with_all_that_it_changes(write):
    write(GOOD)
    found = load_mutant("mine")
    assert (found.scenario, found.expected_gates) == ("smoke", ("held",))
    assert found.environment == {"WORKER_PREFETCH_MULTIPLIER": "4"}


@pytest.mark.parametrize(
    ("change", "wrong"),
    {
        ('["held"]', "[]"): r":4: expected_gates = \[\] is not allowed; allowed: a list of one or more different texts",
        ('["held"]', '"held"'): r":4: expected_gates = 'held' is not allowed",
        ('["held"]', '["held", "held"]'): r":4: expected_gates = \['held', 'held'\] is not allowed",
        ('["held"]', '[""]'): r":4: expected_gates = \[''\] is not allowed",
        ('scenario = "smoke"\n', ""): "scenario is missing",
        ("expected_gates", "expected_gate"): "expected_gates is missing",
        ('name = "mine"', 'name = "other"'): ":1: name = 'other' is not allowed; allowed: mine",
    }.items(),
)
def test_what_is_wrong_in_a_mutant_is_named_with_its_line(write, change, wrong):
    write(GOOD.replace(*change))
    with pytest.raises(ScenarioError, match=wrong):
        load_mutant("mine")


def test_a_mutant_that_changes_nothing_is_refused(write):
    write(GOOD.replace('environment = { WORKER_PREFETCH_MULTIPLIER = "4" }\n', ""))
    with pytest.raises(ScenarioError, match="changes nothing; allowed:"):
        load_mutant("mine")
