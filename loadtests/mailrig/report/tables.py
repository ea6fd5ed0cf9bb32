"""The tables of the page: gates, outcomes, latencies, what was done, tenants, files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from mailrig.report import figures, words
from mailrig.report.folder import RunFolder
from mailrig.report.links import Links
from mailrig.report.markup import Child, Markup, element, join
from mailrig.report.timeline import Axis, Mark, Request, answers

#: The report's own files, and what is not worth a link.
_NOT_RAW: Final = frozenset({"report.html"})
_FILES_MAX: Final = 200
_HITS_MAX: Final = 5


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


def gates(verdict: Mapping[str, Any], links: Links) -> Markup | None:
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
                _gate_group(kind, title, listed, links)
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


def _gate_group(kind: str, title: str, listed: Sequence[Mapping[str, Any]], links: Links) -> Markup | None:
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
    return element("tbody", element("tr", heading, class_="group"), [_gate(gate, links) for gate in own])


def _gate(gate: Mapping[str, Any], links: Links) -> Markup:
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
    lines = element("ul", [element("li", links.text(line)) for line in cases])
    folded = element("details", summary, lines, open=verdict != "pass")
    return join([row, element("tr", element("td", folded, colspan=5), class_="cases")])


# --- what became of the work ------------------------------------------------------------------------------------------


def outcomes(folder: RunFolder) -> Markup | None:
    """A row per task."""
    found = figures.tasks(folder)
    if not found:
        return None
    numbers = (*figures.COUNTS, "most per job", *figures.TIMES)
    head = [("task", ""), *((title, "number") for title in numbers), ("errors of executions", "")]
    rows = [
        [
            task.name,
            *(
                _notable(number, bad=name in figures.COUNTS_BAD)
                for name, number in zip(figures.COUNTS, task.counts, strict=True)
            ),
            f"{task.executions_max}",
            *words.pair(task.queue_ns),
            *words.pair(task.run_ns),
            ", ".join(f"{name} × {number}" for name, number in task.errors) or words.NOTHING,  # noqa: RUF001  # the sign for times
        ]
        for task in found
    ]
    return table(head, rows, class_="compact")


def _notable(number: int, bad: bool) -> Markup:  # noqa: FBT001  # one private flag
    return element("span", f"{number:,}", class_="zero" if not number else "bad" if bad else None)


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


def nemesis(folder: RunFolder, axis: Axis | None, links: Links) -> Markup | None:
    """What was done, when, and when it was healed."""
    found = figures.injuries(folder, axis)
    if not found:
        return None
    rows = [[injury.action, injury.at, links.text(injury.detail), injury.healed] for injury in found]
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
            *words.pair(t.e2e_ns),
            f"{t.messages:,}",
        ]
        for t in found
    ]
    return table([("tenant", ""), *((title, "number") for title in titles)], rows, class_="compact") if rows else None


def leaks(folder: RunFolder) -> Markup | None:
    """Where secrets were looked for, and what was found."""
    rows = [
        [
            words.clean(row["sink"]),
            words.size(row.get("bytes")) if isinstance(row.get("bytes"), int) else words.NOTHING,
            *(words.clean(row.get(key, words.NOTHING)) for key in ("places", "secrets_searched")),
            _hits(row),
            words.clean(row.get("error") or row.get("unseen") or ""),
        ]
        for row in folder.leaks
    ]
    numbers = ("searched", "places", "secrets looked for")
    head = [("sink", ""), *((title, "number") for title in numbers), ("found", ""), ("not seen", "")]
    return table(head, rows, class_="compact") if rows else None


def _hits(row: Mapping[str, Any]) -> Markup:
    """Hits as the search tells them: whose secret and where, never the secret."""
    hits = row.get("hits")
    listed = [_hit(hit) for hit in hits] if isinstance(hits, list) else []
    total = row.get("hits_total")
    left = (total if isinstance(total, int) else len(listed)) - len(listed[:_HITS_MAX])
    shown = "; ".join([*listed[:_HITS_MAX], *([f"and {left} more"] if left > 0 else [])])
    return element("span", shown or "nothing", class_="bad" if shown else "zero")


def _hit(hit: object) -> str:
    told = f"{hit.get('secret')} in {hit.get('where')}" if isinstance(hit, dict) else hit
    return words.one_line(told, limit=160)


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
