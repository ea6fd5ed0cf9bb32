"""The tables of the page: gates, outcomes, latencies, what was done, tenants, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mailrig.report import figures, words
from mailrig.report.folder import RunFolder
from mailrig.report.markup import Child, Markup, element, join
from mailrig.report.timeline import Axis, Mark, Request, answers
from mailrig.report.traces import Candidate, Candidates

#: The report's own files, and what is not worth a link.
_NOT_RAW: Final = frozenset({"report.html"})
_FILES_MAX: Final = 200


def table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[Child]], *, class_: str = "") -> Markup:
    """A table; each column has a title and a class, such as ``number``. The first cell of a row is its header."""
    body = [
        element(
            "tr",
            [
                element("td" if index else "th", cell, scope=None if index else "row", class_=head[index][1] or None)
                for index, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    titles = [element("th", title, scope="col", class_=kind or None) for title, kind in head]
    whole = element("table", element("thead", element("tr", titles)), element("tbody", body), class_=class_ or None)
    return element("div", whole, class_="scroll")


# --- gates ------------------------------------------------------------------------------------------------------------


def badge(verdict: object) -> Markup:
    """A verdict with its mark."""
    text = words.clean(verdict)
    mark = element("span", words.MARKS.get(text, "?"), aria_hidden="true")
    return element("span", mark, " ", text, class_=f"badge v-{text if text in words.MARKS else 'unknown'}")


def gates(verdict: Mapping[str, Any]) -> Markup | None:
    """All gates, validity first."""
    listed = ordered(verdict)
    if not listed:
        return None
    head = (("gate", ""), ("metric", "metric"), ("allowed", "check"), ("observed", "number"), ("verdict", "judged"))
    return element(
        "div",
        element(
            "table",
            element("thead", element("tr", [element("th", title, scope="col", class_=kind) for title, kind in head])),
            [
                _gate_group(kind, title, listed)
                for kind, title in (
                    ("validity", "validity: was it a good measurement?"),
                    ("gate", "gates: was the system right?"),
                )
            ],
            class_="gates",
        ),
        class_="scroll",
    )


def ordered(verdict: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The gates of a verdict, validity first; anything that is no gate is left out."""
    listed = verdict.get("gates")
    found = [gate for gate in listed if isinstance(gate, dict)] if isinstance(listed, list) else []
    return sorted(found, key=lambda gate: gate.get("kind") != "validity")


def details(gate: Mapping[str, Any]) -> list[str]:
    """The concrete cases of a gate."""
    listed = gate.get("detail")
    return [words.clean(line) for line in listed] if isinstance(listed, list | tuple) else []


def _gate_group(kind: str, title: str, listed: Sequence[Mapping[str, Any]]) -> Markup | None:
    own = [gate for gate in listed if (gate.get("kind") == "validity") == (kind == "validity")]
    if not own:
        return None
    passed = sum(gate.get("verdict") == "pass" for gate in own)
    heading = element(
        "th",
        title,
        " ",
        element("span", f"{passed} of {len(own)} pass", class_="chart-note"),
        colspan=5,
        scope="rowgroup",
    )
    return element("tbody", element("tr", heading, class_="group"), [_gate(gate) for gate in own])


def _gate(gate: Mapping[str, Any]) -> Markup:
    verdict, cases = gate.get("verdict", "unknown"), details(gate)
    row = element(
        "tr",
        element("th", words.clean(gate.get("id", "?")), scope="row"),
        element("td", element("code", words.clean(gate.get("metric", ""))), class_="metric"),
        element("td", element("code", words.clean(gate.get("check", ""))), class_="check"),
        element("td", words.observed(gate), class_="number"),
        element("td", badge(verdict), class_="judged"),
        class_=f"gate is-{words.clean(verdict)}",
    )
    if not cases:
        return row
    summary = element(
        "summary", words.count(len(cases), "case") if verdict != "pass" else words.count(len(cases), "note")
    )
    lines = element("ul", [element("li", line) for line in cases])
    folded = element("details", summary, lines, open=verdict != "pass")
    return join([row, element("tr", element("td", folded, colspan=5), class_="cases")])


# --- what became of the work ------------------------------------------------------------------------------------------


def outcomes(folder: RunFolder) -> Markup | None:
    """A row per task."""
    found = figures.tasks(folder)
    if not found:
        return None
    numbers = (
        "jobs",
        "succeeded",
        "failed",
        "unknown",
        "unfinished",
        "executions",
        "retries",
        "killed",
        "most per job",
    )
    times = ("queue p50", "queue p95", "run p50", "run p95")
    head = [("task", ""), *((title, "number") for title in (*numbers, *times)), ("errors of executions", "")]
    rows = [
        [
            task.name,
            f"{task.jobs:,}",
            *(
                _notable(task.states.get(state, 0), "succeeded" not in state)
                for state in ("succeeded", "failed", "unknown", "unfinished")
            ),
            f"{task.executions:,}",
            _notable(task.retries, bad=False),
            _notable(task.killed, bad=True),
            f"{task.executions_max}",
            *_pair(task.queue_ns),
            *_pair(task.run_ns),
            ", ".join(f"{name} × {number}" for name, number in task.errors) or words.NOTHING,  # noqa: RUF001  # the sign for times
        ]
        for task in found
    ]
    return table(head, rows, class_="compact")


def _notable(number: int, bad: bool) -> Markup:  # noqa: FBT001  # one private flag
    return element("span", f"{number:,}", class_="zero" if not number else "bad" if bad else None)


def _pair(values: tuple[float, float] | None) -> tuple[str, str]:
    return (words.duration(values[0]), words.duration(values[1])) if values else (words.NOTHING, words.NOTHING)


def requests(folder: RunFolder, asked: Sequence[Request]) -> Markup | None:
    """Answers by kind of request, and recipients by state."""
    counted: Counter[tuple[str, str]] = answers(asked)
    if not counted and not folder.recipients:
        return None
    words_for = {"ok": "accepted (202)", "fail": "refused", "info": "not known", "none": "no answer"}
    kinds = sorted({f for f, _ in counted})
    rows = [[f, *(_notable(counted[f, answer], bad=answer != "ok") for answer in words_for)] for f in kinds]
    answered = table([("request", ""), *((title, "number") for title in words_for.values())], rows, class_="compact")
    states = figures.recipients(folder)
    listed = table(
        [("recipients", ""), ("number", "number")],
        [[state, _notable(number, bad=state != "sent")] for state, number in sorted(states.items())],
        class_="compact",
    )
    return element("div", answered if rows else None, listed if states else None, class_="side-by-side")


def nemesis(folder: RunFolder, axis: Axis | None) -> Markup | None:
    """What was done, when, and when it was healed."""
    found = figures.injuries(folder, axis)
    if not found:
        return None
    rows = [[injury.action, injury.at, injury.detail, injury.healed] for injury in found]
    listed = table([("action", ""), ("when", "number"), ("what", ""), ("healed", "")], rows)
    return join([element("h3", "Nemesis"), listed])


def faults(folder: RunFolder, marks: Sequence[Mark], axis: Axis | None) -> Markup | None:
    """Faults of the mail servers."""
    found = figures.faults(folder, marks, axis)
    rows = [[fault.name, f"{fault.fired:,}", fault.when, fault.rule] for fault in found]
    if not rows:
        return None
    listed = table([("fault", ""), ("fired", "number"), ("when", "number"), ("rule", "")], rows, class_="compact")
    return join([element("h3", "Faults of the mail servers"), listed])


def tenants(folder: RunFolder, asked: Sequence[Request]) -> Markup | None:
    """A row per tenant."""
    found = figures.tenants(folder, asked)
    titles = ("mailboxes", "requests", "accepted", "settled", "settle p50", "settle p95", "message rows")
    rows = [
        [
            t.name,
            *(f"{n:,}" for n in (t.mailboxes, t.requests, t.accepted, t.settled)),
            *_pair(t.e2e_ns),
            f"{t.messages:,}",
        ]
        for t in found
    ]
    return table([("tenant", ""), *((title, "number") for title in titles)], rows, class_="compact") if rows else None


def slowest(found: Candidates) -> Markup | None:
    """Traces that are worth a look, with their ids for ``mailrig trace``."""
    rows = [
        [
            _what(candidate, index, killed=killed),
            words.duration(candidate.took_ns),
            element("code", words.clean(candidate.trace_id)),
            element("code", words.clean(candidate.task_id)),
        ]
        for group, killed in ((found.send, False), (found.sync, False), (found.killed[:10], True))
        for index, candidate in enumerate(group, start=1)
    ]
    if not rows:
        return None
    note = element("span", "mailrig trace RUN ID draws one in the terminal", class_="chart-note")
    listed = table([("trace", ""), ("took", "number"), ("trace id", ""), ("task id", "")], rows)
    return join([element("h3", "Worth a look ", note), listed])


def _what(candidate: Candidate, index: int, *, killed: bool) -> str:
    if killed:
        return f"killed: {candidate.what}"
    return f"{candidate.what}, slowest {index}" + " (warm-up)" * candidate.warmup


# --- files ------------------------------------------------------------------------------------------------------------


def files(path: Path) -> Markup:
    """Links to everything in the folder, relative to the page."""
    found = sorted(file for file in path.rglob("*") if file.is_file() and not _hidden(file.relative_to(path)))
    items = [
        element(
            "li",
            element("a", words.clean(name), href=quote(name, errors="replace")),
            " ",
            element("span", words.size(file.stat().st_size), class_="chart-note"),
        )
        for file in found[:_FILES_MAX]
        if (name := file.relative_to(path).as_posix()) not in _NOT_RAW
    ]
    left = len(found) - _FILES_MAX
    return element("ul", items, element("li", words.count(left, "more file")) if left > 0 else None, class_="files")


def _hidden(name: Path) -> bool:
    return any(part.startswith(".") for part in name.parts)
