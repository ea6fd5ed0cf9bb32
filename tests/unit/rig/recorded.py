"""Recorded runs and their edits (tests/runs/README.md)."""

import json
import tomllib
from pathlib import Path

from mailrig.checkers import Verdict, judge
from mailrig.evidence import load_evidence
from mailrig.scenario import load_contract, load_scenario

RUNS = Path(__file__).parents[2] / "runs"
EDITS = {file.stem: tomllib.loads(file.read_text()) for file in sorted((RUNS / "edits").glob("*.toml"))}


def judge_folder(folder: Path) -> Verdict:
    """Judge a run's folder as it lies there."""
    scenario, contract = load_scenario(folder / "scenario.toml"), load_contract(folder / "contract.toml")
    return judge(scenario, contract, load_evidence(folder))


def apply_edit(folder: Path, edit: dict) -> None:
    """Apply one edit; one that touches nothing is a mistake in the recording."""
    file = folder / edit["file"]
    lines, touched = [], 0
    for line in file.read_text().splitlines():
        if not all(text in line for text in edit.get("containing", ())):
            lines.append(line)
            continue
        touched += 1
        if edit.get("copy"):
            lines.append(line)
        if not edit.get("remove"):
            lines.append(_edited(line, edit))
    assert touched, f"{edit} touches no line"
    file.write_text("".join(line + "\n" for line in lines))


def _edited(line: str, edit: dict) -> str:
    texts = edit.get("replace", [])
    for old, new in zip(texts[::2], texts[1::2], strict=True):
        assert old in line, f"{old} is not in {line}"
        line = line.replace(old, new)
    row = json.loads(line)
    _merge(row, edit.get("set", {}))
    for dotted in edit.get("null", ()):
        *path, key = dotted.split(".")
        place = row
        for part in path:
            place = place[part]
        place[key] = None
    return json.dumps(row, separators=(",", ":"))


def _merge(into: dict, values: dict) -> None:
    for key, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
