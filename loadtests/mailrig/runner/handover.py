"""A run's spans and Jaeger: what it lacks is sent, and then all of it is read back.

Rule 1: the span files are the truth: batches die with a process that is killed, and a full queue drops spans.
Rule 2: nothing is judged here; ``jaeger.jsonl`` says per trace what was found, and no file means that nobody knows.
Called by runner, when ``spans.jsonl`` is whole.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from email_service import signals
from mailrig.collect import write_lines
from mailrig.jaeger import Jaeger, Otlp

#: So many traces are read back; of more, those with a killed execution and every nth of the others.
TRACES_MAX: Final = 2000
#: How long what was sent may take to be found, seconds.
SEEN_WITHIN_S: Final = 15.0
_AGAIN_S: Final = 0.2
_READERS: Final = 4
_TRACE_ID: Final = re.compile(r'"traceId":\s*"([0-9a-f]{32})"')


@dataclass(kw_only=True)
class _Trace:
    """A trace of the span files, and what Jaeger lacks of it."""

    trace_id: str
    #: By span id, each as an export request of its own.
    spans: dict[str, str] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    uploaded: int = 0

    def row(self) -> dict[str, Any]:
        return {
            "trace_id": self.trace_id,
            "spans": len(self.spans),
            "uploaded": self.uploaded,
            "missing": sorted(self.missing),
        }


def hand_over(evidence: Path, jaeger: Jaeger, otlp: Otlp, *, within_s: float = SEEN_WITHIN_S) -> tuple[int, int]:
    """Send what Jaeger lacks and read back; answers how many spans were looked for and how many were sent.

    Raises:
        JaegerError: it went away; then there is no ``jaeger.jsonl``.
    """
    traces = _traces(evidence / "spans.jsonl")
    with ThreadPoolExecutor(max_workers=_READERS) as pool:

        def look(wanted: Sequence[_Trace]) -> None:
            for trace, found in zip(wanted, pool.map(lambda t: _found(jaeger, t.trace_id), wanted), strict=True):
                trace.missing = trace.spans.keys() - found

        look(traces)
        for trace in traces:
            trace.uploaded = len(trace.missing)
        otlp.send(trace.spans[span_id] for trace in traces for span_id in sorted(trace.missing))
        _until_seen(traces, look, within_s)
    write_lines(evidence / "jaeger.jsonl", (trace.row() for trace in traces))
    return sum(len(trace.spans) for trace in traces), sum(trace.uploaded for trace in traces)


def _found(jaeger: Jaeger, trace_id: str) -> set[str]:
    return {row["span_id"] for row in jaeger.trace(trace_id)}


def _until_seen(traces: Sequence[_Trace], look: Callable[[Sequence[_Trace]], None], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while (lacking := [trace for trace in traces if trace.missing]) and time.monotonic() < deadline:
        look(lacking)
        if any(trace.missing for trace in lacking):
            time.sleep(_AGAIN_S)


def _traces(path: Path) -> list[_Trace]:
    chosen = {trace_id: _Trace(trace_id=trace_id) for trace_id in _chosen(path)}
    for line in _lines(path):
        # Most lines have one span, and most of a long run's traces are not looked at.
        if not chosen.keys().isdisjoint(_TRACE_ID.findall(line)):
            for trace_id, span_id, request in single_spans(json.loads(line)):
                if trace_id in chosen:
                    chosen[trace_id].spans[span_id] = request
    return list(chosen.values())


def _chosen(path: Path) -> list[str]:
    """Ids of the traces that are read back: all when they are few."""
    seen: dict[str, bool] = {}
    for line in _lines(path):
        made = f'"{signals.SYNTHESISED}"' in line
        for trace_id in _TRACE_ID.findall(line):
            seen[trace_id] = seen.get(trace_id, False) or made
    if len(seen) <= TRACES_MAX:
        return list(seen)
    first = [trace_id for trace_id, made in seen.items() if made][:TRACES_MAX]
    others = [trace_id for trace_id, made in seen.items() if not made]
    room = TRACES_MAX - len(first)
    return first + [others[position * len(others) // room] for position in range(room)]


def single_spans(request: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Trace id, span id and an export request of its own for each span of a request."""
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                alone = {**resource, "scopeSpans": [{**scope, "spans": [span]}]}
                line = json.dumps({"resourceSpans": [alone]}, separators=(",", ":"))
                yield span["traceId"], span["spanId"], line


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        with path.open(encoding="utf-8") as lines:
            yield from lines
