"""junit.xml and report.md: the verdict for machines that know JUnit, and for people who read a pull request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from xml.etree import ElementTree as ET

from mailrig.report import figures, words
from mailrig.report.slowest import Shown
from mailrig.report.tables import details, ordered
from mailrig.report.view import DAMAGE, View

#: What becomes of a testcase; a pass has no child. A warning is no failure, and must not look like a pass either.
_ELEMENTS: Final = {"fail": "failure", "warn": "skipped", "invalid": "error", "unknown": "error"}
_SLOWEST_MAX: Final = 5
_COUNTS: Final = {"failure": "failures", "error": "errors", "skipped": "skipped"}
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]<>|#~!&])")


# --- JUnit ------------------------------------------------------------------------------------------------------------


def junit(verdict: Mapping[str, Any]) -> str:
    """A test suite for validity and one for the gates, with a test case per gate.

    A run without gates is one error: an empty suite would read as a success.
    """
    listed = ordered(verdict) or [_NOT_JUDGED]
    name = words.clean(verdict.get("scenario", "run"))
    root = ET.Element("testsuites", {"name": f"mailrig {name}", **_totals(listed), "time": _seconds(verdict)})
    for kind in ("validity", "gate"):
        own = [gate for gate in listed if (gate.get("kind") == "validity") == (kind == "validity")]
        if own:
            root.append(_suite(f"{name}.{kind}", own, verdict))
    ET.indent(root)
    return f"{ET.tostring(root, encoding='unicode', xml_declaration=False)}\n".join(
        ('<?xml version="1.0" encoding="utf-8"?>\n', "")
    )


_NOT_JUDGED: Final[Mapping[str, Any]] = {
    "id": "verdict",
    "kind": "gate",
    "metric": "verdict.json",
    "check": "exists",
    "verdict": "unknown",
    "detail": ["the run was never judged, or its verdict names no gate"],
}


def _totals(listed: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    elements = [_ELEMENTS.get(str(gate.get("verdict")), "error") for gate in listed if gate.get("verdict") != "pass"]
    return {"tests": str(len(listed))} | {attribute: str(elements.count(name)) for name, attribute in _COUNTS.items()}


def _seconds(verdict: Mapping[str, Any]) -> str:
    value = verdict.get("duration_s")
    return f"{value:.3f}" if isinstance(value, int | float) else "0"


def _suite(name: str, listed: Sequence[Mapping[str, Any]], verdict: Mapping[str, Any]) -> ET.Element:
    suite = ET.Element("testsuite", {"name": name, **_totals(listed), "time": _seconds(verdict)})
    properties = ET.SubElement(suite, "properties")
    for key in ("verdict", "seed", "mutant"):
        ET.SubElement(properties, "property", {"name": key, "value": words.clean(verdict.get(key))})
    for gate in listed:
        suite.append(_case(name, gate))
    return suite


def _case(suite: str, gate: Mapping[str, Any]) -> ET.Element:
    case = ET.Element(
        "testcase", {"classname": f"mailrig.{suite}", "name": words.clean(gate.get("id", "?")), "time": "0"}
    )
    verdict = words.clean(gate.get("verdict", "unknown"))
    message = (
        f"{words.clean(gate.get('metric', ''))}: {words.observed(gate)}, allowed: {words.clean(gate.get('check', ''))}"
    )
    text = "\n".join([message, *details(gate)])
    if verdict == "pass":
        ET.SubElement(case, "system-out").text = text
    else:
        child = ET.SubElement(
            case, _ELEMENTS.get(verdict, "error"), {"message": f"{verdict}: {message}", "type": verdict}
        )
        child.text = text
    return case


# --- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(run: View) -> str:
    """The verdict, its gates, what was wrong with them, and what became of the work."""
    verdict = run.folder.verdict
    word = words.clean(verdict.get("verdict", "not judged")).upper()
    parts = [
        [f"# {_cell(word)}: {_cell(verdict.get('scenario') or run.folder.run.get('scenario', 'run'))}", ""],
        *(_guarded(part, run) for part in (_facts, _gates, _cases, _slowest, _tasks, _tenants, _nemesis, _problems)),
        ["Charts, worker lanes and waterfalls are in [report.html](report.html).", ""],
    ]
    return "\n".join(line for part in parts for line in part)


def _guarded(part: Callable[[View], list[str]], run: View) -> list[str]:
    try:
        return part(run)
    except DAMAGE as err:
        return [f"{part.__name__[1:]} can't be made out: {_cell(type(err).__name__)}: {_cell(err)}", ""]


def _cell(text: object) -> str:
    """Text as it is, in a table or anywhere else: no Markdown, no HTML, no line end."""
    return _MARKDOWN.sub(r"\\\1", words.one_line(text))


def _table(head: Sequence[str], align: str, rows: Iterable[Sequence[object]]) -> list[str]:
    """``align`` has an ``l`` or an ``r`` for each column."""
    rule = ["---:" if side == "r" else "---" for side in align]
    return [_line(head), _line(rule, raw=True), *(_line([str(cell) for cell in row]) for row in rows), ""]


def _line(cells: Sequence[str], *, raw: bool = False) -> str:
    return f"| {' | '.join(cells if raw else [_cell(cell) for cell in cells])} |"


def _facts(view: View) -> list[str]:
    verdict, run = view.folder.verdict, view.folder.run
    started, took = verdict.get("started_ns") or run.get("started_ns"), verdict.get("duration_s")
    facts = {
        "seed": verdict.get("seed", run.get("seed", words.NOTHING)),
        "commit": words.commit(run),
        "mutant": verdict.get("mutant") or run.get("mutant") or "none",
        "began": words.moment(started if isinstance(started, int) else None),
        "judged time": words.duration(took * 1e9 if isinstance(took, int | float) else None),
    }
    return [*(f"- {key}: {_cell(value)}" for key, value in facts.items()), ""]


def _gates(run: View) -> list[str]:
    listed = ordered(run.folder.verdict)
    if not listed:
        return ["No gates: the run was never judged.", ""]
    rows = [
        (
            gate.get("id", "?"),
            f"{gate.get('metric', '')} {gate.get('check', '')}",
            words.observed(gate),
            f"{words.MARKS.get(str(gate.get('verdict')), '?')} {gate.get('verdict')}",
        )
        for gate in listed
    ]
    return _table(("gate", "allowed", "observed", "verdict"), "llrl", rows)


def _cases(run: View) -> list[str]:
    bad = [gate for gate in ordered(run.folder.verdict) if gate.get("verdict") != "pass"]
    found = [f"- {_cell(gate.get('id'))}: {_cell(line)}" for gate in bad for line in details(gate)]
    return ["## Cases", "", *found, ""] if found else []


def _slowest(run: View) -> list[str]:
    """The slowest executions, with where their time went; a trace is a link where the run's spans went to a Jaeger."""
    ranked = sorted(run.shown, key=lambda shown: -shown.spent.total_ns)[:_SLOWEST_MAX]
    rows = [(*map(_cell, _told(one)), _trace(run, one.execution.trace_id)) for one in ranked]
    head = _line(("task", "outcome", "total", "where the time went", "trace"))
    rule = _line(("---", "---", "---:", "---", "---"), raw=True)
    return ["## Slowest executions", "", head, rule, *(_line(row, raw=True) for row in rows), ""] if rows else []


def _told(one: Shown) -> tuple[str, ...]:
    return one.execution.task, one.execution.outcome, words.duration(one.spent.total_ns), one.spent.text


def _trace(run: View, trace_id: str) -> str:
    url = run.links.address(trace_id)
    return f"[{_cell(trace_id)}]({url})" if url else _cell(trace_id or words.NOTHING)


def _tasks(run: View) -> list[str]:
    rows = [(t.name, *t.counts, *words.pair(t.queue_ns), *words.pair(t.run_ns)) for t in figures.tasks(run.folder)]
    numbers = (*figures.COUNTS, *figures.TIMES)
    return ["## Outcomes", "", *_table(("task", *numbers), "l" + "r" * len(numbers), rows)] if rows else []


def _tenants(run: View) -> list[str]:
    rows = [
        (t.name, t.requests, t.accepted, t.settled, *words.pair(t.e2e_ns))
        for t in figures.tenants(run.folder, run.asked)
    ]
    head = ("tenant", "requests", "accepted", "settled", "settle p50", "settle p95")
    return ["## Tenants", "", *_table(head, "lrrrrr", rows)] if rows else []


def _nemesis(run: View) -> list[str]:
    rows = [
        (injury.action, injury.at, injury.detail, injury.healed) for injury in figures.injuries(run.folder, run.axis)
    ]
    return ["## Nemesis", "", *_table(("action", "when", "what", "healed"), "lrll", rows)] if rows else []


def _problems(run: View) -> list[str]:
    listed = [f"- {_cell(problem)}" for problem in run.problems]
    return ["## Problems with the run's files", "", *listed, ""] if listed else []
