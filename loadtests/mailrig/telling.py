"""How a command tells its result: a table for a person, a line for a log, JSON for a machine.

Pure but for the look at the terminal's width. Called by cli.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailrig import report
from mailrig.checkers import INTERRUPTED, GateResult, Verdict
from mailrig.runner import Entry
from mailrig.store import Run

#: Of gates that did not pass, so many are named in a table's row.
_NAMED_MAX: Final = 3
_EXIT_INTERRUPTED: Final = 130


def width() -> int:
    """Of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns


def exit_code(verdict: Verdict, *, strict: bool) -> int:
    """Of a run: the verdict's, but what a shell expects of a program that ctrl-C has ended, if it was ended so."""
    return _EXIT_INTERRUPTED if INTERRUPTED in verdict.failed else verdict.exit_code(strict=strict)


def verdict_text(folder: Run, verdict: Verdict) -> str:
    """For a person."""
    page = folder.path / "report.html"
    return report.terminal_verdict(verdict.to_dict(), width=width(), color=sys.stdout.isatty(), report=page)


def verdict_lines(folder: Run, verdict: Verdict) -> str:
    """For a log: one line, and one for each gate that did not pass."""
    passed = sum(gate.verdict == "pass" for gate in verdict.gates)
    head = f"{verdict.verdict.upper()} {verdict.scenario}, seed {verdict.seed}, {verdict.duration_s:.1f} s: "
    return "\n".join([f"{head}{passed} of {len(verdict.gates)} gates pass: {folder.path}", *map(_line, bad(verdict))])


def _line(gate: GateResult) -> str:
    return f"  {gate.verdict} {gate.id}: {gate.metric} {gate.observed_text}, allowed: {gate.check}"


def verdict_json(folder: Run, verdict: Verdict, *, code: int) -> str:
    """For a machine: verdict.json, with where the run is and the exit code."""
    return json.dumps({"run": str(folder.path), "exit_code": code, **verdict.to_dict()}, indent=2)


def bad(verdict: Verdict) -> list[GateResult]:
    """The gates that did not pass."""
    return [gate for gate in verdict.gates if gate.verdict != "pass"]


# --- several runs -----------------------------------------------------------------------------------------------------


def series_json(entries: Sequence[Entry], *, code: int) -> str:
    """For a machine."""
    return json.dumps(
        {"schema_version": 1, "exit_code": code, "runs": [entry.to_dict() for entry in entries]}, indent=2
    )


def series_lines(entries: Sequence[Entry]) -> str:
    """For a log: a line for each run."""
    return "\n".join(f"{e.verdict.upper()} {e.scenario}, {e.duration_s:.1f} s: {_told(e)}: {e.run}" for e in entries)


def series_table(entries: Sequence[Entry], *, color: bool) -> str:
    """For a person."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, padding=(0, 1))
    table.add_column("scenario", no_wrap=True)
    table.add_column("verdict", width=8, no_wrap=True)
    table.add_column("seconds", justify="right", width=8)
    table.add_column("gates", ratio=4, overflow="fold")
    table.add_column("run", ratio=4, overflow="fold")
    for cells in _rows(entries):
        table.add_row(*map(Text, cells))
    console = Console(width=width(), force_terminal=color, color_system="standard" if color else None, markup=False)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def _rows(entries: Sequence[Entry]) -> Iterator[tuple[str, ...]]:
    for entry in entries:
        yield entry.scenario, entry.verdict, f"{entry.duration_s:.1f}", _told(entry), entry.run


def _told(entry: Entry) -> str:
    if entry.error:
        return entry.error
    more = len(entry.bad) - _NAMED_MAX
    named = ", ".join(entry.bad[:_NAMED_MAX]) + (f" and {more} more" if more > 0 else "")
    return f"{entry.passed} of {entry.gates} gates pass" + (f"; not {named}" if named else "")
