"""The matrix as a person reads it in a terminal and in Markdown, and as a machine does. Pure. Called by cli."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mailrig.mutation.matrix import ELSEWHERE, STATUSES, SURVIVED, UNJUDGED, Matrix, Row
from mailrig.scenario import Mutant

#: A cell: turned as it must; turned besides; must turn and did not; must turn and nobody knows; neither.
_MARKS: Final = {"killed": "✗", "besides": "+", "missed": "!", "unknown": "?", "": "·"}
_KEY: Final = "✗ turned red, as it must; + turned red besides; ! had to turn red and did not; ? nobody knows"
_NONE: Final = "none"


def as_text(matrix: Matrix) -> str:
    """The grid, what each column is and which mutants it saw, and what follows."""
    return "\n".join([*_grid(matrix), "", _KEY, "", *_columns(matrix), "", *_conclusion(matrix)])


def as_markdown(matrix: Matrix) -> str:
    """The same for a step summary."""
    numbers = [str(number) for number, _ in enumerate(matrix.gates, start=1)]
    grid = [
        [f"`{row.mutant.name}`", row.mutant.scenario, row.status, *(_mark(row, gate) for gate in matrix.gates)]
        for row in matrix.rows
    ]
    columns = [
        [str(number), f"`{gate}`", ", ".join(f"`{name}`" for name in matrix.killers(gate)) or _NONE]
        for number, gate in enumerate(matrix.gates, start=1)
    ]
    lines = [*_markdown_table(["mutant", "scenario", "", *numbers], grid), "", _KEY, ""]
    lines += [*_markdown_table(["", "gate", "mutants that it saw"], columns), ""]
    return "\n".join([*lines, *(f"- {line}" for line in _conclusion(matrix))])


def as_json(matrix: Matrix) -> str:
    """Everything, in one object."""
    document = {
        "exit_code": matrix.exit_code,
        "mutants": [_object(row) for row in matrix.rows],
        "gates": {gate: list(matrix.killers(gate)) for gate in matrix.gates},
        "gates_without_mutant": list(matrix.unguarded),
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def listing(mutants: Sequence[Mutant], bare: Sequence[str], *, as_json: bool) -> str:
    """What there is to run."""
    if as_json:
        objects = [
            {"name": m.name, "scenario": m.scenario, "gates": list(m.expected_gates), "description": m.description}
            for m in mutants
        ]
        return json.dumps({"mutants": objects, "gates_without_mutant": list(bare)}, indent=2, ensure_ascii=False)
    lines = []
    for mutant in mutants:
        lines += [
            f"{mutant.name}  ({mutant.scenario}: {', '.join(mutant.expected_gates)})",
            f"    {mutant.description}",
        ]
    return "\n".join([*lines, "", _bare(bare)])


def _object(row: Row) -> dict[str, object]:
    return {
        "name": row.mutant.name,
        "scenario": row.mutant.scenario,
        "status": row.status,
        "expected": list(row.mutant.expected_gates),
        "red": sorted(row.red),
        "missed": list(row.missed),
        "why": row.why,
        "duration_s": row.duration_s,
        "folder": row.folder,
    }


def _grid(matrix: Matrix) -> Iterator[str]:
    """Numbers stand upright above their columns, two rows of digits: thirty gates fit a terminal."""
    name_chars = max([len(row.mutant.name) for row in matrix.rows], default=0)
    scenario_chars = max([len(row.mutant.scenario) for row in matrix.rows], default=0)
    numbers = [f"{number:2}" for number, _ in enumerate(matrix.gates, start=1)]
    for digit in (0, 1):
        yield f"{'':{name_chars + scenario_chars + 4}}{' '.join(number[digit] for number in numbers)}".rstrip()
    for row in matrix.rows:
        cells = " ".join(_mark(row, gate) for gate in matrix.gates)
        yield f"{row.mutant.name:{name_chars}}  {row.mutant.scenario:{scenario_chars}}  {cells}  {row.status}"


def _mark(row: Row, gate: str) -> str:
    if gate in row.mutant.expected_gates:
        if row.status == UNJUDGED and gate not in row.red:
            return _MARKS["unknown"]
        return _MARKS["killed" if gate in row.red else "missed"]
    return _MARKS["besides" if gate in row.red else ""]


def _columns(matrix: Matrix) -> Iterator[str]:
    chars = max(map(len, matrix.gates), default=0)
    for number, gate in enumerate(matrix.gates, start=1):
        yield f"{number:2} {gate:{chars}}  {', '.join(matrix.killers(gate)) or _NONE}"


def _conclusion(matrix: Matrix) -> Iterator[str]:
    counts = [f"{len(rows)} {status}" for status in STATUSES if (rows := matrix.with_status(status))]
    yield f"{len(matrix.rows)} mutant{'s' if len(matrix.rows) > 1 else ''}: {', '.join(counts) or _NONE}"
    for status in (SURVIVED, ELSEWHERE, UNJUDGED):
        for row in matrix.with_status(status):
            others = f"; red: {', '.join(sorted(row.besides))}" if row.besides else ""
            yield f"{row.mutant.name} {status if status != ELSEWHERE else 'was seen elsewhere'}: {row.why}{others}"
    yield _bare(matrix.unguarded)


def _bare(gates: Sequence[str]) -> str:
    return f"gates without a mutant: {', '.join(gates) or _NONE}"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
