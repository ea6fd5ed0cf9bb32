"""The section that leads from a slow execution to its trace and its log lines: a table, and where a trace is drawn.

The table is whole without a script; ``traces.js`` adds the filter, the order and the drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.report import words
from mailrig.report.breakdown import REST, Breakdown, Piece, steps_text
from mailrig.report.executions import Execution
from mailrig.report.links import Links, anchor
from mailrig.report.markup import Child, Markup, element
from mailrig.report.traces import PARTS

#: The table has at most this many rows.
ROWS_MAX: Final = 300
#: Steps shorter than this share of the whole are not named beside the bar; its tip has all.
_NAMED_SHARE: Final = 0.02
_QUEUE, _HELD = "wait", "held"
_COLUMNS: Final = (
    ("execution", "", "text"),
    ("total", "number", "number"),
    ("queue", "number detail", "number"),
    ("held", "number detail", "number"),
    ("run", "number detail", "number"),
    ("where the time went", "spent", ""),
    ("outcome", "", "text"),
    ("tenant", "minor", "text"),
    ("pid", "minor number", "number"),
)
_NOTE: Final = (
    "Queue is from due to the worker, held from there to the start (its prefetch wait), then the run. A row opens its "
    "trace with the log lines beside it."
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A row of the table."""

    execution: Execution
    spent: Breakdown
    #: Why it is listed; empty when there simply was room.
    why: str


def section(listed: Sequence[Shown], total: int, wholeness: str, links: Links) -> Child:
    """Table and viewer; None without an execution."""
    if not listed:
        return None
    rows = [_row(shown, links) for shown in sorted(listed[:ROWS_MAX], key=lambda shown: -shown.spent.total_ns)]
    return [
        element("p", _NOTE, class_="note"),
        element("p", wholeness, class_="note"),
        element("p", _left(listed[:ROWS_MAX], total, links), class_="note", id="executions-note"),
        _legend(listed),
        element(
            "div",
            element("table", _head(), element("tbody", rows), class_="executions", id="executions"),
            class_="scroll tall",
            tabindex=0,
            role="region",
            aria_label="executions",
        ),
        element(
            "div",
            element(
                "p", "Drawing traces takes this page's script. In a terminal: mailrig trace RUN ID", class_="nothing"
            ),
            id="viewer",
            class_="viewer",
            role="region",
            aria_label="trace",
        ),
    ]


def _left(rows: Sequence[Shown], total: int, links: Links) -> str:
    traces = words.count(len(links.carried), "trace")
    which = "All" if len(rows) == total else f"{len(rows):,} of"
    what = "what failed gates name, what went wrong, the slowest, some typical ones, and others while there is room"
    told = [f"{which} {words.count(total, 'execution')}, {traces} on this page: {what}."]
    if untraced := sum(row.execution.trace_id not in links.carried for row in rows):
        told.append(f"{words.count(untraced, 'row')} without a trace here: not sampled, lost, or no room.")
    if untraced or len(rows) < total:
        told.append("All others: mailrig trace RUN ID, with the id of a trace, a task or an execution.")
    return " ".join(told)


def _head() -> Markup:
    titles = [
        element("th", title, scope="col", class_=class_ or None, data_sort=kind or None)
        for title, class_, kind in _COLUMNS
    ]
    return element("thead", element("tr", titles))


def _row(shown: Shown, links: Links) -> Markup:
    execution, spent, why = shown.execution, shown.spent, shown.why
    number = f" #{execution.ordinal}" if execution.ordinal and execution.ordinal > 1 else ""
    text = f"{execution.task}{number}"
    here = execution.trace_id in links.carried
    link: Child = element("a", text, href=anchor(execution.trace_id)) if here else text
    tag = element("span", why, class_="tag") if why and why != execution.outcome else None
    ids = element("code", execution.task_id, class_="id")
    return element(
        "tr",
        element("th", link, links.elsewhere(execution.trace_id), tag, ids, scope="row", data_value=text),
        _time(spent.total_ns, "number"),
        [_time(value, "number detail") for value in (spent.queue_ns, spent.held_ns, spent.run_ns)],
        element("td", _bar(spent), element("span", _named(spent), class_="steps"), class_="spent"),
        element("td", _outcome(execution), data_value=execution.outcome),
        element("td", element("code", execution.tenant_hash), class_="minor"),
        element("td", execution.pid, class_="minor number", data_value=execution.pid, data_tip=execution.node or None),
        data_t=links.carried.get(execution.trace_id),
        data_x=execution.execution_id,
        data_ids=f"{execution.execution_id} {execution.trace_id}",
    )


def _time(value: int | None, class_: str) -> Markup:
    return element("td", words.duration(value), class_=class_, data_value=-1 if value is None else value // 1000)


def _outcome(execution: Execution) -> Markup:
    bad = execution.outcome not in {"succeeded", "retry"}
    error = element("span", execution.error_type, class_="steps") if execution.error_type else None
    return element("span", element("span", execution.outcome, class_="bad" if bad else None), error)


def _bar(spent: Breakdown) -> Markup:
    """The whole of an execution as one bar: what part of it was which step."""
    pieces = _all(spent)
    whole = sum(piece.took_ns for piece in pieces) or 1
    parts = [
        element(
            "b",
            class_=f"p-{piece.part}",
            style=f"width:{100 * piece.took_ns / whole:.2f}%",
        )
        for piece in pieces
        if piece.took_ns
    ]
    return element("div", parts, class_="stack", data_tip=spent.text, role="img", aria_label=spent.text)


def _all(spent: Breakdown) -> list[Piece]:
    waits = [
        Piece(step="queue", part=_QUEUE, took_ns=spent.queue_ns),
        Piece(step="held", part=_HELD, took_ns=spent.held_ns),
    ]
    run = spent.pieces or ((Piece(step="run", part="other", took_ns=spent.run_ns),) if spent.run_ns else ())
    return [*waits, *run]


def _named(spent: Breakdown) -> str:
    """The steps that took a noticeable part of the run."""
    least = (spent.run_ns or 0) * _NAMED_SHARE
    return steps_text([piece for piece in spent.pieces if piece.took_ns > least])


def _legend(listed: Sequence[Shown]) -> Markup:
    used = {piece.part for shown in listed for piece in _all(shown.spent)}
    names = {
        _QUEUE: "in the queue",
        _HELD: "held by the worker",
        "queue": "publish",
        "database": "SQL",
        "broker": "Redis",
        REST: "rest of the run",
    }
    parts = [part for part in (_QUEUE, _HELD, *PARTS, REST) if part in used]
    return element(
        "div",
        [
            element("span", element("i", class_=f"chip p-{part}"), names.get(part, part), class_="legend-item")
            for part in parts
        ],
        class_="legend left",
    )
