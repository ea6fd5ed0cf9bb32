"""An experiment as data: scenarios, the contract and the mutants, read from TOML and validated.

Owns the rig's tree of errors and the file formats. Never starts anything, never judges. Everybody calls it.

    RigError                    the rig can't do what was asked (exit code 2)
        ScenarioError           a file is wrong: says file, line, what is wrong and what is allowed
        UnknownNameError        no scenario or mutant has that name: says which do
        MutantError             a patch does not apply to the source any more
        EvidenceError           a run's files are torn (evidence)
        VerdictError            a stored verdict can't be read (checkers)
        RunError                no such run, or it can't be written (store)
"""

from __future__ import annotations

from mailrig.scenario.errors import MutantError, RigError, ScenarioError, UnknownNameError
from mailrig.scenario.files import (
    full_lengths,
    load_contract,
    load_scenario,
    parse_scenario,
    scenario_names,
    with_overrides,
)
from mailrig.scenario.model import (
    ARRIVALS,
    FOR_S,
    NEMESIS,
    NEMESIS_ACTIONS,
    OPS,
    PARTS,
    SEVERITIES,
    Contract,
    Gate,
    Load,
    LoadOp,
    Mutant,
    Nemesis,
    Patch,
    Population,
    Scenario,
    Stage,
    System,
)
from mailrig.scenario.mutant import apply_patches, check_patches, load_mutant, mutant_names

__all__ = [
    "ARRIVALS",
    "FOR_S",
    "NEMESIS",
    "NEMESIS_ACTIONS",
    "OPS",
    "PARTS",
    "SEVERITIES",
    "Contract",
    "Gate",
    "Load",
    "LoadOp",
    "Mutant",
    "MutantError",
    "Nemesis",
    "Patch",
    "Population",
    "RigError",
    "Scenario",
    "ScenarioError",
    "Stage",
    "System",
    "UnknownNameError",
    "apply_patches",
    "check_patches",
    "full_lengths",
    "load_contract",
    "load_mutant",
    "load_scenario",
    "mutant_names",
    "parse_scenario",
    "scenario_names",
    "with_overrides",
]
