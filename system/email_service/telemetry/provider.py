"""Whose tracer this is: where a process's spans go, made at its first span, and again in each child.

OpenTelemetry lets the global provider be set once; ours stands there for good and looks the process's own outlet up.
A process that was told neither a directory nor a collector has no outlet, and its spans cost next to nothing.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind

from email_service import signals
from email_service.telemetry.spanfile import SpanFile
from email_service.telemetry.spans import Current, Span, begin, next_span_id, next_trace_id, silent

if TYPE_CHECKING:
    from email_service.telemetry.collector import Collector

__all__ = ["configure", "configured", "next_span_id", "next_trace_id", "shutdown", "tracer", "tracing"]


@dataclass(frozen=True, kw_only=True)
class _Arguments:
    """What a process was configured with; a child of a fork inherits it."""

    kind: str
    span_dir: Path | None
    #: May hold a login.
    otlp_endpoint: str | None = field(repr=False)
    node: str | None
    #: Share of the traces begun here that are kept.
    ratio: float
    #: Of all files in ``span_dir``; 0 for no limit.
    span_bytes_max: int
    otlp_headers: Mapping[str, str] | None = field(repr=False)


class Outlet:
    """Where the finished spans of this process go."""

    def __init__(self, file: SpanFile | None, collector: Collector | None, ratio: float) -> None:
        self.file, self.collector, self.ratio = file, collector, ratio
        # Most have one way out; it is called as it is.
        ways = [way.write for way in (file, collector) if way is not None]
        self.write = ways[0] if len(ways) == 1 else self._write_all

    def _write_all(self, span: Span) -> None:
        for way in (self.file, self.collector):
            if way is not None:
                way.write(span)

    def close(self) -> None:
        """Send what waits, and let go of the file."""
        for way in (self.file, self.collector):
            if way is not None:
                way.close()


class _State:
    """What this process traces with. A child of a fork inherits the arguments alone and makes its own outlet."""

    arguments: _Arguments | None = None
    outlet: Outlet | None = None
    #: Whether the outlet, or that there is none, is known.
    made = False
    #: Process that was configured.
    pid: int = 0
    lock = threading.Lock()

    @classmethod
    def forget(cls) -> None:
        """In a child, right after the fork: the parent's file and threads are not ours, nor is a lock that it held."""
        if cls.outlet is not None and cls.outlet.file is not None:
            cls.outlet.file.abandon()
        cls.outlet, cls.made, cls.lock = None, False, threading.Lock()


os.register_at_fork(after_in_child=_State.forget)


def configure(
    kind: str,
    *,
    span_dir: Path | None,
    otlp_endpoint: str | None,
    node: str | None = None,
    ratio: float = 1.0,
    span_bytes_max: int = 0,
    otlp_headers: Mapping[str, str] | None = None,
) -> None:
    """Set up tracing for this process; the first call in a process decides.

    A child that was forked afterwards traces into a file of its own whether it calls this again or not.
    """
    if _State.pid == os.getpid():
        return
    _State.pid = os.getpid()
    # What a span of this process has already made stays.
    _State.made = _State.outlet is not None
    _State.arguments = _Arguments(
        kind=kind,
        span_dir=span_dir,
        otlp_endpoint=otlp_endpoint,
        node=node,
        ratio=ratio,
        span_bytes_max=span_bytes_max,
        otlp_headers=otlp_headers,
    )
    if not isinstance(trace.get_tracer_provider(), _Current):
        trace.set_tracer_provider(_Current())


def configured() -> dict[str, Any] | None:
    """The arguments that this process, or the one that forked it, was configured with."""
    return None if _State.arguments is None else dict(_State.arguments.__dict__)


def tracing() -> bool:
    """Whether this process's spans go anywhere; where they don't, nothing needs to be instrumented."""
    arguments = _State.arguments
    return arguments is not None and (arguments.span_dir is not None or arguments.otlp_endpoint is not None)


def _outlet() -> Outlet | None:
    """Made when this process's first span begins; None before ``configure`` and after ``shutdown``."""
    with _State.lock:
        if not _State.made:
            _State.outlet = _build(_State.arguments) if _State.arguments is not None and tracing() else None
            _State.made = True
        return _State.outlet


def _build(arguments: _Arguments) -> Outlet:
    service = signals.SERVICE_NAMES[arguments.kind]
    resource: dict[str, Any] = {
        "service.name": service,
        "service.version": _version(),
        "process.pid": os.getpid(),
        **({signals.WORKER_NODE: arguments.node} if arguments.node else {}),
    }
    file = None
    if arguments.span_dir is not None:
        file = SpanFile(arguments.span_dir, service, resource, bytes_max=arguments.span_bytes_max)
    return Outlet(file, _collector(arguments, resource), arguments.ratio)


def _collector(arguments: _Arguments, resource: Mapping[str, Any]) -> Collector | None:
    if not arguments.otlp_endpoint:
        return None
    # 10 MB in each process; only those with a collector need it.
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # as said

    from email_service.telemetry.collector import Collector, otlp_exporter  # noqa: PLC0415  # as said

    return Collector(otlp_exporter(arguments.otlp_endpoint, arguments.otlp_headers), Resource(resource))


def _version() -> str:
    try:
        return metadata.version("mailrig")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Current(trace.TracerProvider):
    """The global provider: always this process's own, which the API alone would let us set only once."""

    def get_tracer(self, instrumenting_module_name: str, *_: Any, **__: Any) -> trace.Tracer:
        return Tracer(instrumenting_module_name)


class Tracer(trace.Tracer):
    """A tracer that looks its process's outlet up when a span starts: one made before a fork works after it."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    def start_span(  # noqa: PLR0917  # the API's signature
        self,
        name: str,
        context: otel_context.Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Link] | None = None,
        start_time: int | None = None,
        record_exception: bool = True,  # noqa: FBT001, FBT002  # as above
        set_status_on_exception: bool = True,  # noqa: FBT001, FBT002  # as above
    ) -> trace.Span:
        outlet = _State.outlet if _State.made else _outlet()
        if outlet is None:
            return silent(context)
        span = begin(name, context, kind, attributes, links, start_time, self._scope, outlet.ratio, outlet.write)
        if type(span) is Span:
            span.tells_exception, span.fails_by_exception = record_exception, set_status_on_exception
        return span

    def start_as_current_span(self, *args: Any, end_on_exit: bool = True, **kwargs: Any) -> Any:
        return Current(self.start_span(*args, **kwargs), ends=end_on_exit)


def shutdown() -> None:
    """Send what still waits, and close: this process traces no more, unless it is configured again."""
    with _State.lock:
        outlet, _State.outlet = _State.outlet, None
        _State.arguments, _State.pid, _State.made = None, 0, False
    if outlet is not None:
        outlet.close()


def tracer(name: str) -> trace.Tracer:
    """A tracer of this process."""
    return trace.get_tracer(name)
