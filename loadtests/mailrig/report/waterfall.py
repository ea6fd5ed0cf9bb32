"""A trace as a waterfall in HTML: a table whose rows are spans and whose widest column is time.

At most ``SPANS_MAX`` spans are drawn: those that say something and the longest, with their ancestors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mailrig.report import words
from mailrig.report.markup import Markup, element
from mailrig.report.traces import PARTS, SpanRow, thin

SPANS_MAX: Final = 150
_TICKS: Final = 5
_S: Final = 1_000_000_000
_INDENT_PX: Final = 13
_ATTRIBUTES_MAX: Final = 24
_BAD: Final = frozenset({"killed", "failed", "error", "parent missing"})


def waterfall(rows: Sequence[SpanRow]) -> Markup:
    """The table, with the number of spans that it leaves out."""
    drawn = thin(rows, SPANS_MAX)
    start = min(row.start_ns - row.wait_ns for row in rows)
    length = max(max(row.end_ns for row in rows) - start, 1)
    step = _step(length)
    head = element(
        "tr",
        element("th", "span", scope="col"),
        element("th", "service", scope="col"),
        element("th", _ruler(length, step), scope="col", class_="time"),
        element("th", "took", scope="col", class_="number"),
        element("th", "began at", scope="col", class_="number"),
    )
    body = [_row(row, start, length) for row in drawn]
    left = len(rows) - len(drawn)
    return element(
        "div",
        element(
            "table",
            element("thead", head),
            element("tbody", body),
            class_="waterfall",
            style=f"--tick:{100 * step / length:.3f}%",
        ),
        element("p", f"{words.count(left, 'more span')} not drawn.", class_="note") if left else None,
        class_="scroll",
    )


def _step(length_ns: int) -> float:
    rough = length_ns / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)


def _ruler(length: int, step: float) -> Markup:
    ticks = [
        element("span", _tick(index * step, length), style=f"left:{100 * index * step / length:.2f}%")
        for index in range(int(length / step) + 1)
        if index * step <= length * 0.94  # the last one would hang over the edge
    ]
    return element("div", ticks, class_="ruler")


def _tick(nanoseconds: float, length_ns: int) -> str:
    """All ticks of a ruler have one unit, that of its length."""
    if nanoseconds == 0:
        return "0"
    return f"{nanoseconds / _S:g} s" if length_ns >= _S else f"{nanoseconds / 1e6:g} ms"


def _row(row: SpanRow, start: int, length: int) -> Markup:
    name = element("span", row.name, class_="span-name")
    label = element("div", name, [_note(note) for note in row.notes], style=f"padding-left:{row.depth * _INDENT_PX}px")
    return element(
        "tr",
        element("th", label, scope="row"),
        element("td", row.service.removeprefix("mail-"), class_="service"),
        element("td", _bars(row, start, length), class_="time"),
        element("td", words.duration(row.duration_ns), class_="number"),
        element("td", words.duration(row.start_ns - start), class_="number"),
        class_="is-error" if row.error else None,
        data_tip=_tip(row),
    )


def _note(note: str) -> Markup:
    return element("span", note, class_=f"tag{' tag-bad' if note in _BAD else ''}")


def _bars(row: SpanRow, start: int, length: int) -> Markup:
    def place(begin: int, took: int) -> str:
        return f"left:{100 * (begin - start) / length:.3f}%;width:{100 * took / length:.3f}%"

    wait = element("i", class_="wait", style=place(row.start_ns - row.wait_ns, row.wait_ns)) if row.wait_ns else None
    state = " is-error" * row.error + " is-synthesised" * row.synthesised
    bar = element("b", class_=f"span p-{row.part}{state}", style=place(row.start_ns, row.duration_ns))
    return element("div", wait, bar, class_="track")


def _tip(row: SpanRow) -> str:
    lines = [f"{row.name} ({row.service})", f"{words.duration(row.duration_ns)}{' · ERROR' * row.error}"]
    if row.wait_ns:
        lines.append(f"waited {words.duration(row.wait_ns)} in the queue before")
    lines += [f"{words.clean(key)} = {_value(value)}" for key, value in _first(row.attributes)]
    return "\n".join(lines)


def _first(attributes: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(attributes.items())[:_ATTRIBUTES_MAX]


def _value(value: object) -> str:
    return words.one_line(value, limit=160)


def legend(rows: Sequence[SpanRow]) -> Markup:
    """The colours of the parts that appear."""
    used = {row.part for row in rows}
    parts = [
        element("span", element("i", class_=f"chip p-{part}"), part, class_="legend-item")
        for part in PARTS
        if part in used
    ]
    waits = [element("span", element("i", class_="chip wait"), "waiting in the queue", class_="legend-item")]
    made = [
        element(
            "span",
            element("i", class_="chip is-synthesised"),
            "synthesised: its process was killed",
            class_="legend-item",
        )
    ]
    return element(
        "div",
        parts,
        waits if any(row.wait_ns for row in rows) else None,
        made if any(row.synthesised for row in rows) else None,
        class_="legend",
    )
