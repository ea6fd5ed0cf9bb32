"""Two runs beside each other as a person reads it, as Markdown and as JSON. Pure. Called by command."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mailrig.checkers import GateResult
from mailrig.checkers.measurement import quantity
from mailrig.comparing.facts import Fact
from mailrig.comparing.figures import LESS, MORE, NOISE, SAME, UNKNOWN, WITHIN, Change, Row, Side

_HEAD: Final = ("figure", "A", "B", "B / A", "interval", "")
_WORDS: Final = {
    SAME: "",
    WITHIN: "within what runs of the same code differ by",
    MORE: "more",
    LESS: "less",
    UNKNOWN: "not known",
}


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that is known of the difference of two runs."""

    a: Side
    b: Side
    rows: Sequence[Row]
    gates: Sequence[Change]
    facts: Sequence[Fact]
    lines: dict[str, list[str]]
    #: By which runs of the same code may differ; None for what is usual for each kind of figure.
    noise: float | None

    @property
    def differs(self) -> bool:
        """Whether a gate changed, or a figure beyond noise."""
        return bool(self.gates) or any(row.difference in {MORE, LESS} for row in self.rows)


def as_text(found: Report) -> str:
    """For a terminal."""
    rows = [_HEAD, *map(_cells, found.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*_title(found), "", *table, "", *_gates(found), *_facts(found), "", _sentence(found)])


def as_markdown(found: Report) -> str:
    """For a step summary."""
    rows = [_HEAD, tuple("---" for _ in _HEAD), *map(_cells, found.rows)]
    table = ["| " + " | ".join(cell or " " for cell in row) + " |" for row in rows]
    lists = [f"- {line.strip()}" for line in (*_title(found), *_gates(found), *_facts(found))]
    return "\n".join([f"**{_sentence(found)}**", "", *table, "", *lists])


def as_json(found: Report) -> str:
    """For machines."""
    data: dict[str, Any] = {
        "schema_version": 1,
        "differs": found.differs,
        "noise": found.noise,
        "runs": {name: _run(side) for name, side in (("a", found.a), ("b", found.b))},
        "figures": [asdict(row) for row in found.rows],
        "gates": [asdict(change) for change in found.gates],
        "facts": [asdict(fact) for fact in found.facts],
        "lines": found.lines,
    }
    return json.dumps(data, indent=2)


def _run(side: Side) -> dict[str, Any]:
    return {"run": side.name, "scenario": side.scenario.name, "verdict": side.verdict.verdict}


def _title(found: Report) -> list[str]:
    sides = (("A", found.a), ("B", found.b))
    return [f"{letter}: {side.scenario.name} {side.name}, {side.verdict.verdict}" for letter, side in sides]


def _cells(row: Row) -> tuple[str, ...]:
    a, b = ("-" if value is None else quantity(value, row.kind) for value in (row.a, row.b))
    ratio = row.ratio.estimate if row.ratio else row.b / row.a if row.a and row.b else None
    interval = f"{row.ratio.low:.2f} to {row.ratio.high:.2f}" if row.ratio else "-"
    return row.name, a, b, "-" if ratio is None else f"{ratio:.2f}", interval, _WORDS[row.difference]


def _gates(found: Report) -> Iterator[str]:
    for change in found.gates:
        yield f"gate {change.id}: {_gate(change.a)} -> {_gate(change.b)}"


def _gate(gate: GateResult | None) -> str:
    return "absent" if gate is None else f"{gate.verdict} ({gate.observed_text}, {gate.check})"


def _facts(found: Report) -> Iterator[str]:
    for fact in found.facts:
        yield f"{fact.name}: {fact.a} -> {fact.b}"
    for file, lines in found.lines.items():
        yield f"{file}:"
        yield from (f"  {line}" for line in lines)


def _noise(found: Report) -> str:
    factors = NOISE.items() if found.noise is None else [("all", found.noise)]
    return "runs of the same code differ by a factor of up to " + ", ".join(f"{f:g} ({name})" for name, f in factors)


def _sentence(found: Report) -> str:
    beyond = [f"{row.name} is {_WORDS[row.difference]}" for row in found.rows if row.difference in {MORE, LESS}]
    said = [*(f"gate {change.id} changed" for change in found.gates), *beyond]
    weak = [
        letter for letter, side in (("A", found.a), ("B", found.b)) if side.verdict.verdict in {"invalid", "unknown"}
    ]
    told = "; ".join(said) if said else f"no difference beyond noise ({_noise(found)})"
    return told + "".join(f"; {letter} can't be believed, it is no valid run" for letter in weak)
