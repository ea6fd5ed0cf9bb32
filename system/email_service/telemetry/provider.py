"""Whose tracer this is: a process's provider, built at its first span, and again in each child.

OpenTelemetry lets the global provider be set once; ours stands there for good and looks the process's own up.
"""

from __future__ import annotations

import contextvars
import os
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from email_service import signals
from email_service.telemetry.logs import configure_logging
from email_service.telemetry.spanfile import Redacted, SpanFile

#: The id that the next span of this context gets.
next_span_id: Final[contextvars.ContextVar[int | None]] = contextvars.ContextVar("next_span_id", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, but for a span whose id was chosen before its process began."""

    def generate_span_id(self) -> int:
        chosen = next_span_id.get()
        return super().generate_span_id() if chosen is None else chosen


class _State:
    """What this process traces with. A child of a fork inherits the arguments alone and builds its own."""

    arguments: dict[str, Any] | None = None
    provider: TracerProvider | None = None
    #: Process that set up its logging.
    pid: int = 0
    #: Counts the providers, so that a tracer sees that its own is no longer the one.
    generation: int = 0
    lock = threading.Lock()

    @classmethod
    def forget(cls) -> None:
        """In a child, right after the fork: the parent's file and threads are not ours, nor is a lock that it held."""
        cls.provider, cls.lock = None, threading.Lock()
        cls.generation += 1


os.register_at_fork(after_in_child=_State.forget)


def configure(
    kind: str, *, span_dir: Path | None, otlp_endpoint: str | None, log_format: str = "json", node: str | None = None
) -> None:
    """Set up tracing and logging for this process; the first call in a process decides.

    A child that was forked afterwards traces into a file of its own whether it calls this again or not.
    """
    if _State.pid == os.getpid():
        return
    _State.pid = os.getpid()
    _State.arguments = {
        "kind": kind, "span_dir": span_dir, "otlp_endpoint": otlp_endpoint, "log_format": log_format, "node": node,
    }  # fmt: skip
    if not isinstance(trace.get_tracer_provider(), _Current):
        trace.set_tracer_provider(_Current())
    configure_logging(log_format)


def configured() -> dict[str, Any] | None:
    """The arguments that this process, or the one that forked it, was configured with."""
    return _State.arguments


def _provider() -> TracerProvider | None:
    """This process's provider, made when its first span begins; None before ``configure`` and after ``shutdown``."""
    with _State.lock:
        if _State.provider is None and _State.arguments is not None:
            _State.provider = _build(**_State.arguments)
            _State.generation += 1
        return _State.provider


def _build(
    *, kind: str, span_dir: Path | None, otlp_endpoint: str | None, node: str | None, log_format: str
) -> TracerProvider:
    del log_format  # for logging alone
    service = signals.SERVICE_NAMES[kind]
    attributes: dict[str, Any] = {
        "service.name": service,
        "service.version": _version(),
        "process.pid": os.getpid(),
        **({signals.WORKER_NODE: node} if node else {}),
    }
    provider = TracerProvider(resource=Resource(attributes), id_generator=_Ids(), shutdown_on_exit=False)
    if span_dir is not None:
        provider.add_span_processor(SpanFile(span_dir, service))
    if otlp_endpoint:
        provider.add_span_processor(Redacted(BatchSpanProcessor(_otlp_exporter(otlp_endpoint))))
    return provider


def _version() -> str:
    try:
        return metadata.version("mailrig")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Current(trace.TracerProvider):
    """The global provider: always this process's own, which the API alone would let us set only once."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return _CurrentTracer(args, kwargs)


class _CurrentTracer(trace.Tracer):
    """A tracer that looks its provider up when a span starts: one made before a fork works after it."""

    def __init__(self, args: Any, kwargs: Any) -> None:
        self._args, self._kwargs = args, kwargs
        self._generation = -1
        self._tracer: trace.Tracer = trace.NoOpTracer()

    def _real(self) -> trace.Tracer:
        if self._generation != _State.generation or _State.provider is None:
            provider = _provider()
            self._tracer = trace.NoOpTracer() if provider is None else provider.get_tracer(*self._args, **self._kwargs)
            self._generation = _State.generation
        return self._tracer

    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        return self._real().start_span(*args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._real().start_as_current_span(*args, **kwargs)


def _otlp_exporter(endpoint: str) -> Any:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # heavy

    return OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces")


def shutdown() -> None:
    """Send what still waits, and close: this process traces no more, unless it is configured again."""
    with _State.lock:
        provider, _State.provider = _State.provider, None
        _State.arguments, _State.pid = None, 0
        _State.generation += 1
    if provider is not None:
        provider.shutdown()


def tracer(name: str) -> trace.Tracer:
    """A tracer of this process."""
    return trace.get_tracer(name)
