"""Finished spans on disk: one line of OTLP JSON each, written at once, without what must not leave the process.

``Redacted`` takes the same away from spans that go to a collector. Called by ``provider``.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from pathlib import Path
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.trace import Status

_log: Final = logging.getLogger(__name__)

#: A span file is closed and the next one begun beyond this size.
ROTATE_BYTES: Final = 64 * 1024 * 1024


class SpanFile(SpanProcessor):
    """Appends each finished span as one line of OTLP JSON, with one write: no line is torn, none is lost.

    A disk that is full or gone costs spans and one line in the log; it never fails the work that the span is about.
    """

    def __init__(self, directory: Path, service: str) -> None:
        self._directory, self._service = directory, service
        directory.mkdir(parents=True, exist_ok=True)
        self._head: dict[tuple[int, str], str] = {}
        # Threads share the file: one must not write to a descriptor that another has just closed to rotate.
        self._lock = threading.Lock()
        #: Spans that could not be written.
        self.lost = 0
        self._fd, self._size = self._open(), 0

    def _open(self) -> int:
        name = f"{self._service}-{os.getpid()}-{time.time_ns()}.jsonl"
        return os.open(self._directory / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Nothing: an open span is not written."""

    def on_end(self, span: ReadableSpan) -> None:
        """Write the line."""
        line = (self._prefix(span) + _encode(_otlp(span)) + "]}]}]}\n").encode()
        with self._lock:
            try:
                self._write(line)
            except OSError as err:
                self.lost += 1
                if self.lost == 1:
                    _log.warning("spans can't be written (%s)", type(err).__name__)

    def _write(self, line: bytes) -> None:
        if self._fd < 0:
            return
        os.write(self._fd, line)
        self._size += len(line)
        if self._size > ROTATE_BYTES:
            full, self._fd, self._size = self._fd, self._open(), 0
            os.close(full)

    def _prefix(self, span: ReadableSpan) -> str:
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        key = (id(span.resource), scope)
        if key not in self._head:
            resource = _encode({"attributes": _attributes(span.resource.attributes)})
            named = _encode({"name": scope})
            self._head[key] = f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"scope":{named},"spans":['
        return self._head[key]

    def shutdown(self) -> None:
        """Close the file; spans that end later are dropped."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing waits in memory."""
        return timeout_millis >= 0


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(v) for v in value]}}
    return {"stringValue": str(value)}


#: What never leaves the process: what an exception said, and the address of a request, which names its tenant
#: (``http.route`` says where it went).
_RAW: Final = frozenset({
    "exception.message", "exception.stacktrace", "http.target", "http.url", "url.path", "url.query", "url.full",
})  # fmt: skip
#: Attributes in their order, without spaces: an encoder that is made once.
_encode: Final = json.JSONEncoder(separators=(",", ":"), default=str).encode


def _clean(attributes: Any) -> dict[str, Any]:
    return {k: v for k, v in (attributes or {}).items() if k not in _RAW}


def _attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": k, "value": _value(v)} for k, v in _clean(attributes).items()]


def _otlp(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    assert context is not None  # noqa: S101  # a span that has ended has a context
    kind = {"INTERNAL": 1, "SERVER": 2, "CLIENT": 3, "PRODUCER": 4, "CONSUMER": 5}[span.kind.name]
    return {
        "traceId": f"{context.trace_id:032x}",
        "spanId": f"{context.span_id:016x}",
        "parentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "name": span.name,
        "kind": kind,
        "startTimeUnixNano": str(span.start_time),
        "endTimeUnixNano": str(span.end_time),
        "attributes": _attributes(span.attributes),
        "status": {"code": span.status.status_code.value},
        "events": [
            {"timeUnixNano": str(e.timestamp), "name": e.name, "attributes": _attributes(e.attributes)}
            for e in span.events
        ],
        "links": [
            {"traceId": f"{link.context.trace_id:032x}", "spanId": f"{link.context.span_id:016x}"}
            for link in span.links
        ],
    }


class Redacted(SpanProcessor):
    """Hands spans on to OTLP without what must not leave."""

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Handed on."""
        self._inner.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        """Handed on, as a copy without what an exception said."""
        clean = ReadableSpan(
            name=span.name,
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes=_clean(span.attributes),
            events=(),
            links=span.links,
            kind=span.kind,
            status=Status(span.status.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )
        self._inner.on_end(clean)

    def shutdown(self) -> None:
        """Handed on."""
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Handed on."""
        return self._inner.force_flush(timeout_millis)
