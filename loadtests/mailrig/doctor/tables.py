"""The doctor's answer, for people and for machines. Never prints a URL with its login. Called by cli."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Final

from mailrig.doctor.facts import App
from mailrig.doctor.findings import OK, TRAP, UNKNOWN, Finding
from mailrig.doctor.machine import Finding as Part

_MARKS: Final = {OK: "ok  ", TRAP: "TRAP", UNKNOWN: "?   "}
_INDENT: Final = " " * 6


def machine_lines(parts: Sequence[Part]) -> Iterator[str]:
    """A line for each thing that a run needs."""
    for name, right, text in parts:
        yield f"{'ok  ' if right else 'LACK'}  {name:14} {text}"


def finding_lines(findings: Sequence[Finding], *, width: int) -> Iterator[str]:
    """A line for each trap; for one that is found, also what it costs and what would be right."""
    wide = max((len(f.id) for f in findings), default=0)
    for finding in findings:
        yield f"{_MARKS[finding.finding]}  {finding.id:{wide}}  {finding.found}"
        if finding.finding == TRAP:
            issue = f" ({finding.issue})" if finding.issue else ""
            yield from _wrapped("costs", finding.consequence + issue, width)
            yield from _wrapped("right", finding.right, width)


def _wrapped(label: str, text: str, width: int) -> list[str]:
    first = f"{_INDENT}{label}: "
    return textwrap.wrap(text, width=max(width, 60), initial_indent=first, subsequent_indent=" " * len(first))


def title(app: App) -> str:
    """What was looked at."""
    versions = ", ".join(f"{name} {version}" for name, version in app.versions.items())
    count = f"{len(app.tasks)} task{'' if len(app.tasks) == 1 else 's'}"
    return f"{app.name}: {count}, broker {app.transport} ({versions})"


def summary(findings: Sequence[Finding]) -> str:
    """The last line."""
    count = {kind: sum(f.finding == kind for f in findings) for kind in (TRAP, UNKNOWN, OK)}
    traps = f"{count[TRAP]} trap{'' if count[TRAP] == 1 else 's'}" if count[TRAP] else "no trap"
    return f"{traps}, {count[UNKNOWN]} unknown, {count[OK]} ok"


def to_json(app: App, findings: Sequence[Finding], machine: Sequence[Part], away: str | None) -> str:
    """All of it; ``broker`` says why the server was not asked."""
    facts: dict[str, Any] = {
        "application": {"name": app.name, "transport": app.transport, "versions": dict(app.versions)},
        "broker": away,
        "findings": [finding.to_dict() for finding in findings],
        "machine": [{"name": name, "ok": right, "found": text} for name, right, text in machine],
    }
    return json.dumps(facts, indent=2)
