"""The traces that a page carries, as data that its script draws: compact, and bounded in spans and bytes.

A span is a row of numbers; every text (names, attributes, notes) stands once, in a list of its own. Times are
microseconds from the beginning of what is drawn. ``traces.js`` reads what ``Bundle.data`` has, and nothing else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mailrig.report import breakdown, words
from mailrig.report.loglines import Lines, LogLine
from mailrig.report.traces import PARTS, SpanRow, thin

#: A trace is drawn with at most this many spans: those that say something and the longest, with their ancestors.
SPANS_MAX: Final = 150
#: All traces together; the first ones are those most worth it.
BYTES_MAX: Final = 1_200_000
TRACES_MAX: Final = 500
_EXECUTIONS_MAX: Final = 12
_ATTRIBUTES_MAX: Final = 24
_US: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a page carries of the run's traces."""

    #: Where each trace stands in ``data["list"]``.
    index: Mapping[str, int] = field(default_factory=dict)
    #: For the script.
    data: Mapping[str, Any] = field(default_factory=lambda: {"strings": [], "sets": [], "parts": PARTS, "list": []})


@dataclass(kw_only=True)
class _Texts:
    """Texts that stand once, however often they are used."""

    strings: dict[str, int] = field(default_factory=dict)
    sets: dict[tuple[int, ...], int] = field(default_factory=dict)
    size: int = 0

    def text(self, text: str) -> int:
        if text not in self.strings:
            self.size += len(text.encode()) + 3
        return self.strings.setdefault(text, len(self.strings))

    def texts(self, texts: Iterable[str]) -> int:
        own = tuple(self.text(text) for text in texts)
        if own not in self.sets:
            self.size += 5 * len(own) + 3
        return self.sets.setdefault(own, len(self.sets))


def bundle(traces: Iterable[tuple[str, Sequence[SpanRow]]], logs: Mapping[str, Lines]) -> Bundle:
    """As many of the traces, in their order, as there is room for."""
    texts, listed, index, size = _Texts(), list[Mapping[str, Any]](), dict[str, int](), 0
    for trace_id, rows in traces:
        if not rows or trace_id in index:
            continue
        if len(listed) == TRACES_MAX or size + texts.size > BYTES_MAX:
            break
        index[trace_id] = len(listed)
        listed.append(_trace(trace_id, rows, logs.get(trace_id, Lines()), texts))
        size += len(json.dumps(listed[-1], separators=(",", ":")))
    data = {"strings": list(texts.strings), "sets": list(texts.sets), "parts": PARTS, "list": listed}
    return Bundle(index=index, data=data)


def _trace(trace_id: str, rows: Sequence[SpanRow], logs: Lines, texts: _Texts) -> Mapping[str, Any]:
    start = min(row.start_ns - row.wait_ns for row in rows)
    drawn, own = thin(rows, SPANS_MAX), list(breakdown.executions(rows))
    return {
        "id": words.clean(trace_id),
        "took": (max(row.end_ns for row in rows) - start) // _US,
        "spans": len(rows),
        "runs": [
            [breakdown.title(row), found.text, words.clean(row.execution_id)] for row, found in own[:_EXECUTIONS_MAX]
        ],
        "more": max(len(own) - _EXECUTIONS_MAX, 0),
        "rows": [_row(row, start, texts) for row in drawn],
        "logs": [_log(line, start, texts) for line in logs.lines],
        "unshown": logs.left,
    }


def _row(row: SpanRow, start: int, texts: _Texts) -> list[Any]:
    return [
        row.depth,
        texts.text(row.name),
        texts.text(row.service.removeprefix("mail-")),
        PARTS.index(row.part),
        (row.start_ns - start) // _US,
        row.duration_ns // _US,
        row.wait_ns // _US,
        row.held_ns // _US,
        row.error + 2 * row.synthesised,
        texts.texts(row.notes),
        texts.texts(_attributes(row.attributes)),
        row.span_id,
    ]


def _attributes(attributes: Mapping[str, Any]) -> list[str]:
    listed = sorted(attributes.items())[:_ATTRIBUTES_MAX]
    return [f"{words.clean(key)} = {words.one_line(value, limit=160)}" for key, value in listed]


def _log(line: LogLine, start: int, texts: _Texts) -> list[Any]:
    who = " · ".join(part for part in (line.logger, f"pid {line.pid}" if line.pid else "") if part)
    return [
        (line.time_ns - start) // _US,
        texts.text(line.level),
        texts.text(line.file),
        texts.text(who),
        texts.text(line.message),
        line.span_id,
        texts.text(line.exception) if line.exception else -1,
    ]
