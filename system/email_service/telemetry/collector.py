"""Spans on their way to a collector: OTLP over HTTP, in batches, by the SDK's processor and exporter.

Rule 1: work never waits for a collector. The queue is bounded, what does not fit is counted as lost, and one line says
when a collector goes away and one when it is back.
Rule 2: a process that ends gives what waits ``FLUSH_S``; a collector that swallows everything can't hold up a stop.
Rule 3: a collector is sent no more than the span file holds.

Called by ``provider``.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Status

from email_service.telemetry.lines import clean, schema_of
from email_service.telemetry.spans import Span

_log: Final = logging.getLogger(__name__)

#: Spans that wait for a collector; about 4 MB.
QUEUE_MAX: Final = 4096
#: One request, its retries included.
_REQUEST_S: Final = 5.0
#: How long a process that ends waits for what has not been sent.
FLUSH_S: Final = 2.0
#: What these say of a collector that is away, at each batch, is said once by us; and never with an address.
_NOISY: Final = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")


class Collector:
    """Hands finished spans to a batch processor, and knows how many never arrived."""

    def __init__(self, exporter: SpanExporter, resource: Resource, *, flush_s: float = FLUSH_S) -> None:
        self._resource, self._flush_s = resource, flush_s
        self._scopes: dict[str, InstrumentationScope] = {}
        self._counted = _Counted(exporter)
        # Threads share the counts.
        self._lock = threading.Lock()
        self._taken = self._refused = 0
        # 5 s between two batches, or OTEL_BSP_SCHEDULE_DELAY: a request costs some milliseconds in each process, and at
        # one a second that was more than the spans themselves.
        self._batches = BatchSpanProcessor(self._counted, max_queue_size=QUEUE_MAX)

    @property
    def lost(self) -> int:
        """Spans that no collector has got, and that no longer wait."""
        return self._refused + self._counted.failed

    def write(self, span: Span) -> None:
        """Let it wait for the next batch, if there is room."""
        with self._lock:
            if self._taken - self._counted.done >= QUEUE_MAX:
                self._refused += 1
                return
            self._taken += 1
        self._batches.on_end(self._readable(span))

    def close(self) -> None:
        """Send what waits, as far as the time allows, and say what was lost."""
        # The processor's own shutdown takes no deadline, and waits 30 s.
        ending = threading.Thread(target=self._batches.shutdown, name="spans-flush", daemon=True)
        ending.start()
        ending.join(self._flush_s)
        if lost := self._refused + self._taken - self._counted.sent:
            _log.warning("%d spans of %d did not reach the collector", lost, self._refused + self._taken)

    def _readable(self, span: Span) -> ReadableSpan:
        scope = self._scopes.get(span.scope)
        if scope is None:
            scope = self._scopes[span.scope] = InstrumentationScope(span.scope, schema_url=schema_of(span.scope))
        return ReadableSpan(
            name=span.name,
            context=span.context,
            parent=span.parent,
            resource=self._resource,
            attributes=clean(span.attributes),
            events=(),
            links=span.links,
            kind=span.kind,
            status=Status(span.status_code),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=scope,
        )


class _Counted(SpanExporter):
    """Counts what an exporter sends and what it gives up, and says once that it does."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.sent = self.failed = 0

    @property
    def done(self) -> int:
        """Spans that wait no longer."""
        return self.sent + self.failed

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Handed on."""
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001  # whatever it was, the spans are lost, and what it says may name the address
            result = SpanExportResult.FAILURE
        (self._arrived if result is SpanExportResult.SUCCESS else self._given_up)(len(spans))
        return result

    def _arrived(self, count: int) -> None:
        if self._away:
            _log.warning("the collector takes spans again")
        self._away = False
        self.sent += count

    def _given_up(self, count: int) -> None:
        if not self._away:
            _log.warning("the collector takes no spans: they are lost until it does")
        self._away = True
        self.failed += count

    #: Whether the last batch was lost.
    _away = False

    def shutdown(self) -> None:
        """Handed on."""
        self._inner.shutdown()


def otlp_exporter(endpoint: str, headers: Mapping[str, str] | None) -> SpanExporter:
    """The SDK's exporter for an endpoint without its path; headers may hold a key, so nobody logs them."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # heavy

    for noisy in _NOISY:
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    url = endpoint.rstrip("/") + "/v1/traces"
    options: dict[str, Any] = {"headers": dict(headers)} if headers else {}
    return OTLPSpanExporter(endpoint=url, timeout=_REQUEST_S, **options)
