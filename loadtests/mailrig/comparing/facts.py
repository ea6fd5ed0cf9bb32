"""What was not the same in how two runs were made: scenario, promises, seed, code, settings, machine. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mailrig.comparing.figures import Side

#: Differ in any two runs, and say nothing.
_TIMES: Final = frozenset({"started_ns", "ended_ns"})
_ABSENT: Final = "-"
_LINES_MAX: Final = 20


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One thing that was not the same."""

    name: str
    a: str
    b: str


def differing(a: Side, b: Side) -> list[Fact]:
    """What run.json of the two tells apart, by dotted name."""
    one, other = dict(_flat(a.evidence.run)), dict(_flat(b.evidence.run))
    names = [name for name in {**one, **other} if one.get(name, _ABSENT) != other.get(name, _ABSENT)]
    return [Fact(name=name, a=one.get(name, _ABSENT), b=other.get(name, _ABSENT)) for name in names]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif f"{prefix}{key}" not in _TIMES:
            yield f"{prefix}{key}", _ABSENT if value is None else str(value)


def changed_lines(a: Side, b: Side) -> dict[str, list[str]]:
    """The lines of the scenario and of the contract that differ, as ``-`` and ``+``; the first of them."""
    texts = {
        "scenario.toml": (a.scenario.text, b.scenario.text),
        "contract.toml": (a.contract.text, b.contract.text),
    }
    found = {name: list(_changed(*pair)) for name, pair in texts.items()}
    return {name: lines for name, lines in found.items() if lines}


def _changed(one: str, other: str) -> Iterator[str]:
    lines = difflib.unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[0] in "+-" and line[:3] not in {"---", "+++"}]
    yield from changed[:_LINES_MAX]
    if len(changed) > _LINES_MAX:
        yield f"... and {len(changed) - _LINES_MAX} lines more"
