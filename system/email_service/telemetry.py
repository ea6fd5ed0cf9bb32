"""OpenTelemetry and logging per process kind, and our own instrumentation of Celery.

Rule 1: providers are built after the fork; a child never writes to its parent's file.
Rule 2: every finished span is on disk before the next line of code runs, so a SIGKILL loses the open ones only, and
those are made again from their execution rows.
Rule 3: what an exception says never leaves the process: spans carry ``error.type``, not messages.
"""

from __future__ import annotations

import contextvars
import functools
import hashlib
import json
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from celery.signals import task_received, worker_process_init
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from email_service import signals

#: A span file is closed and the next one begun beyond this size.
ROTATE_BYTES: Final = 64 * 1024 * 1024
_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_next_span_id: contextvars.ContextVar[int | None] = contextvars.ContextVar("next_span_id", default=None)
_log_fields: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("log_fields", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id was chosen before its process began."""

    def generate_span_id(self) -> int:
        chosen = _next_span_id.get()
        if chosen is None:
            return super().generate_span_id()
        _next_span_id.set(None)
        return chosen


class SpanFile(SpanProcessor):
    """Appends each finished span as one line of OTLP JSON, with one write: no line is torn, none is lost."""

    def __init__(self, directory: Path, service: str) -> None:
        self._directory, self._service = directory, service
        directory.mkdir(parents=True, exist_ok=True)
        self._head: dict[tuple[int, str], str] = {}
        self._open()

    def _open(self) -> None:
        name = f"{self._service}-{os.getpid()}-{time.time_ns()}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd, self._size = os.open(self._directory / name, flags, 0o600), 0

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Nothing: an open span is not written."""

    def on_end(self, span: ReadableSpan) -> None:
        """Write the line."""
        line = (self._prefix(span) + json.dumps(_otlp(span), separators=(",", ":")) + "]}]}]}\n").encode()
        os.write(self._fd, line)
        self._size += len(line)
        if self._size > ROTATE_BYTES:
            os.close(self._fd)
            self._open()

    def _prefix(self, span: ReadableSpan) -> str:
        scope = span.instrumentation_scope.name if span.instrumentation_scope else ""
        key = (id(span.resource), scope)
        if key not in self._head:
            resource = json.dumps({"attributes": _attributes(span.resource.attributes)}, separators=(",", ":"))
            named = json.dumps({"name": scope})
            self._head[key] = f'{{"resourceSpans":[{{"resource":{resource},"scopeSpans":[{{"scope":{named},"spans":['
        return self._head[key]

    def shutdown(self) -> None:
        """Close the file."""
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


#: What an exception said stays here (OpenTelemetry records it as event attributes).
_RAW: Final = frozenset({"exception.message", "exception.stacktrace"})


def _attributes(attributes: Any) -> list[dict[str, Any]]:
    return [{"key": k, "value": _value(v)} for k, v in (attributes or {}).items() if k not in _RAW]


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


class _Redacted(SpanProcessor):
    """Hands spans on to OTLP without what an exception said."""

    def __init__(self, inner: SpanProcessor) -> None:
        self._inner = inner

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        self._inner.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        clean = ReadableSpan(
            name=span.name,
            context=span.get_span_context(),
            parent=span.parent,
            resource=span.resource,
            attributes=span.attributes,
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
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class _State:
    """This process's provider; a child finds its parent's and replaces it."""

    pid: int = 0
    provider: TracerProvider | None = None
    arguments: dict[str, Any] | None = None


def configure(
    kind: str, *, span_dir: Path | None, otlp_endpoint: str | None, log_format: str = "json", node: str | None = None
) -> None:
    """Set up tracing and logging for this process; once per process, again in each child."""
    if _State.pid == os.getpid():
        return
    _State.pid = os.getpid()
    _State.arguments = {
        "kind": kind, "span_dir": span_dir, "otlp_endpoint": otlp_endpoint, "log_format": log_format, "node": node,
    }  # fmt: skip
    service = signals.SERVICE_NAMES[kind]
    attributes: dict[str, Any] = {"service.name": service, "process.pid": os.getpid()}
    if node:
        attributes[signals.WORKER_NODE] = node
    provider = TracerProvider(resource=Resource(attributes), id_generator=_Ids(), shutdown_on_exit=False)
    if span_dir is not None:
        provider.add_span_processor(SpanFile(span_dir, service))
    if otlp_endpoint:
        provider.add_span_processor(_Redacted(BatchSpanProcessor(_otlp_exporter(otlp_endpoint))))
    _State.provider = provider
    if not isinstance(trace.get_tracer_provider(), _Current):
        trace.set_tracer_provider(_Current())
    _configure_logging(log_format)


class _Current(trace.TracerProvider):
    """The global provider: always this process's own, which the API alone would let us set only once."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _CurrentTracer(args, kwargs)


class _CurrentTracer(trace.Tracer):
    """A tracer that looks its provider up when a span starts: one made before a fork works after it."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs
        self._pid = 0
        self._tracer: trace.Tracer = trace.NoOpTracer()

    def _real(self) -> trace.Tracer:
        if self._pid != _State.pid and _State.provider is not None:
            self._pid, self._tracer = _State.pid, _State.provider.get_tracer(*self._args, **self._kwargs)
        return self._tracer

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self._real().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._real().start_as_current_span(*args, **kwargs)


def _otlp_exporter(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # heavy

    return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")


def shutdown() -> None:
    """Send what still waits, and close."""
    if _State.provider is not None and _State.pid == os.getpid():
        _State.provider.shutdown()
        _State.provider, _State.pid = None, 0


# --- instrumentations of others ---


def instrument_flask(app: Any) -> None:
    """SERVER spans named by method and route."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415  # only the API has Flask

    FlaskInstrumentor().instrument_app(app, tracer_provider=trace.get_tracer_provider(), excluded_urls="/health")


def instrument_sqlalchemy(engines: list[Any]) -> None:
    """CLIENT spans of all statements of these engines, and of no others; values are never in them, as all are bound.

    Once per process, with all of its engines: the instrumentor takes no second call, and a child inherits the first.
    """
    from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor  # noqa: PLC0415  # not for beat

    instrumentor = SQLAlchemyInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()
    instrumentor.instrument(engines=engines, tracer_provider=trace.get_tracer_provider())


# --- trace context ---


def tracer(name: str) -> trace.Tracer:
    """A tracer of this process."""
    return trace.get_tracer(name)


def new_span_id() -> str:
    """Sixteen random hexadecimal digits, not all zero."""
    return f"{secrets.randbits(64) or 1:016x}"


def new_trace_id() -> str:
    """Thirty-two random hexadecimal digits, not all zero."""
    return f"{secrets.randbits(128) or 1:032x}"


def parse_traceparent(value: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a W3C traceparent; None if it is none."""
    match = _TRACEPARENT.fullmatch(value or "")
    return (match[1], match[2]) if match else None


def traceparent(span: trace.Span) -> str | None:
    """The W3C traceparent that names a span; None without a valid one."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-01" if context.is_valid else None


def current_traceparent() -> str | None:
    """That of the current span."""
    return traceparent(trace.get_current_span())


def _remote(value: str | None) -> SpanContext | None:
    ids = parse_traceparent(value)
    if ids is None:
        return None
    return SpanContext(int(ids[0], 16), int(ids[1], 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _under(value: str | None) -> otel_context.Context | None:
    remote = _remote(value)
    return None if remote is None else trace.set_span_in_context(NonRecordingSpan(remote), otel_context.Context())


@functools.lru_cache(maxsize=4096)
def tenant_hash(tenant_id: str) -> str:
    """What spans and logs say instead of a tenant's name."""
    return hashlib.sha256(tenant_id.encode()).hexdigest()[:16]


# --- Celery ---


def _messaging(operation: str, kind: str, queue: str, task_id: str, task_name: str, tenant_id: str) -> dict[str, Any]:  # noqa: PLR0917
    return {
        signals.MESSAGING_SYSTEM: signals.SYSTEM_REDIS,
        signals.MESSAGING_OPERATION_NAME: operation,
        signals.MESSAGING_OPERATION_TYPE: kind,
        signals.MESSAGING_DESTINATION: queue,
        signals.MESSAGING_MESSAGE_ID: task_id,
        signals.TASK_NAME: task_name,
        signals.TENANT_HASH: tenant_hash(tenant_id),
    }


@contextmanager
def _span(name: str, **options: Any) -> Iterator[trace.Span]:
    """A current span that records the type of an exception, and is ended whatever happens."""
    with tracer("email_service").start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **options
    ) as span:
        try:
            yield span
        except BaseException as err:
            fail(span, err)
            raise


def fail(span: trace.Span, err: BaseException) -> None:
    """Mark a span as failed, by the error's type alone."""
    span.set_status(Status(StatusCode.ERROR))
    span.set_attribute(signals.ERROR_TYPE, getattr(err, "code", None) or type(err).__name__)


@contextmanager
def publish_span(
    queue: str,
    task_id: str,
    task_name: str,
    *,
    tenant_id: str,
    kind: str,
    parent: str | None,
    link: str | None,
    root_kind: str | None,
) -> Iterator[trace.Span]:
    """``send {queue}``: PRODUCER where a message is created, CLIENT where one is sent again; ended on any error."""
    remote = _remote(link)
    attributes = _messaging("send", "send", queue, task_id, task_name, tenant_id)
    if root_kind:
        attributes[signals.ROOT_KIND] = root_kind
    with _span(
        signals.SPAN_SEND.format(queue=queue),
        context=otel_context.Context() if root_kind else _under(parent),
        kind=SpanKind.PRODUCER if kind == "producer" else SpanKind.CLIENT,
        links=[Link(remote)] if remote else [],
        attributes=attributes,
    ) as span:
        yield span


@contextmanager
def settle_span(
    queue: str, task_id: str, task_name: str, *, tenant_id: str, creation: str | None
) -> Iterator[trace.Span]:
    """``settle {queue}``: a copy of a message that had nothing to do."""
    with _span(
        signals.SPAN_SETTLE.format(queue=queue),
        context=_under(creation),
        kind=SpanKind.CLIENT,
        attributes=_messaging("settle", "settle", queue, task_id, task_name, tenant_id),
    ) as span:
        yield span


@contextmanager
def process_span(
    *,
    queue: str,
    task_id: str,
    task_name: str,
    tenant_id: str,
    creation: str | None,
    span_id: str,
    execution_id: str,
    ordinal: int,
    node: str,
    received_ns: int,
    enqueued_or_due_ns: int,
    started_ns: int,
) -> Iterator[trace.Span]:
    """``process {queue}``: one per execution row, with the id that was chosen when the message was received.

    Its parent is the creation context, so the attempts of one job are siblings; a link says the same to readers that
    follow links only.
    """
    remote = _remote(creation)
    attributes = _messaging("process", "process", queue, task_id, task_name, tenant_id) | {
        signals.EXECUTION_ID: execution_id,
        signals.EXECUTION_ORDINAL: ordinal,
        signals.WORKER_NODE: node,
        signals.QUEUE_TIME_S: max(0.0, (started_ns - enqueued_or_due_ns) / 1e9),
        signals.PREFETCH_WAIT_S: max(0.0, (started_ns - received_ns) / 1e9),
    }
    _next_span_id.set(int(span_id, 16))
    with _span(
        signals.SPAN_PROCESS.format(queue=queue),
        context=_under(creation) or otel_context.Context(),
        kind=SpanKind.CONSUMER,
        links=[Link(remote)] if remote else [],
        attributes=attributes,
        start_time=started_ns,
    ) as span:
        yield span


def set_outcome(
    span: trace.Span, outcome: str, error_type: str | None, pss_before: int | None, pss_peak: int | None
) -> None:
    """Say on the process span how its execution ended."""
    span.set_attribute(signals.EXECUTION_OUTCOME, outcome)
    for name, value in ((signals.PSS_BEFORE_BYTES, pss_before), (signals.PSS_PEAK_BYTES, pss_peak)):
        if value is not None:
            span.set_attribute(name, value)
    if error_type is not None:
        span.set_attribute(signals.ERROR_TYPE, error_type)
        span.set_status(Status(StatusCode.ERROR))


def connect_worker_signals(node: str) -> None:
    """In the worker's main process: stamp each message as it is received; in each child: tracing of its own.

    ``request_dict`` is the very object that celery/worker/request.py (5.7, execute_using_pool) hands to the child,
    whose request context takes its keys as attributes.
    """

    def stamp(request: Any, **_: Any) -> None:
        request.request_dict["mail_received_ns"] = time.time_ns()
        request.request_dict["mail_span_id"] = new_span_id()

    def child(**_: Any) -> None:
        configure(**(_State.arguments or {"kind": "worker", "span_dir": None, "otlp_endpoint": None, "node": node}))

    task_received.connect(stamp, weak=False)
    worker_process_init.connect(child, weak=False)


def received(request: Any) -> tuple[int, str]:
    """When the main process received the message, in nanoseconds, and the span id that it chose."""
    moment, span_id = getattr(request, "mail_received_ns", None), getattr(request, "mail_span_id", None)
    return moment or time.time_ns(), span_id or new_span_id()


# --- memory ---


def pss_bytes(pid: int | None = None) -> int | None:
    """Proportional set size of a process: shared pages counted once for all who share them. None where unknown."""
    try:
        with Path(f"/proc/{pid or 'self'}/smaps_rollup").open("rb") as file:
            for line in file:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


# --- logging ---


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add fields to the log lines inside; a tenant is shown hashed."""
    if "tenant_id" in fields:
        fields["tenant"] = tenant_hash(str(fields.pop("tenant_id")))
    token = _log_fields.set({**(_log_fields.get() or {}), **fields})
    try:
        yield
    finally:
        _log_fields.reset(token)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = trace.get_current_span().get_span_context()
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_log_fields.get() or {}),
        }
        if context.is_valid:
            line |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _configure_logging(log_format: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("[%(asctime)s] %(levelname)s [%(name)s] %(message)s")
    handler.setFormatter(_JsonLines() if log_format == "json" else text)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in (
        "kombu",
        "amqp",
        "urllib3",
        "alembic",
        "celery.redirected",
        "celery.app.trace",
        "celery.worker.strategy",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
