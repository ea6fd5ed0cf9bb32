"""The README says what is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from email_service.config import markdown
from mailrig.cli import _parser
from mailrig.scenario import load_scenario, mutant_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_pasted_verdict_names_every_gate_of_the_scenario_and_no_other():
    block = re.search(r"```text\n(.*?)```", README, re.DOTALL)[1]
    shown = [line.split()[0] for line in block.splitlines() if line.rstrip().endswith("pass")]
    scenario = load_scenario("smoke")
    assert [name for name in shown if name != "✓"] == [gate.id for gate in scenario.gates]
    assert f"{len(scenario.gates)} of {len(scenario.gates)} gates pass" in block


def test_the_table_of_settings_is_the_code():
    assert markdown() in README


@pytest.mark.parametrize("line", re.findall(r"^\$ mailrig ([^#\n]*)", README, re.MULTILINE))
def test_each_command_of_the_readme_is_one(line):
    arguments = _parser().parse_args(line.split())
    assert getattr(arguments, "mutate", None) in {None, *mutant_names()}


def test_the_makefile_has_each_goal_that_is_promised():
    goals = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "test-peers", "bench", "fuzz", "up"} <= goals
