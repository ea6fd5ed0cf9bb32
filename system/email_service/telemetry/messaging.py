"""Our own instrumentation of Celery: send, process and settle, and what travels between a worker's processes.

The stock one loses spans of recycled workers, leaves a span open when the broker is dead, and nests retries.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from celery.signals import task_received, worker_process_init, worker_process_shutdown
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from email_service import signals
from email_service.errors import MailServiceError
from email_service.telemetry.context import new_span_id, remote_context, tenant_hash, trace_id_of, under
from email_service.telemetry.provider import configure, configured, next_span_id, next_trace_id, shutdown, tracer

#: How much of the end of a dead process's file may hold its last span: more than one execution's inner spans.
_TAIL_BYTES: Final = 256 * 1024


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
    """Mark a span as failed, by the error's type alone; what ``set_outcome`` said before stands."""
    span.set_status(Status(StatusCode.ERROR))
    if not _has_outcome(span):
        code = err.code if isinstance(err, MailServiceError) else type(err).__name__
        span.set_attribute(signals.ERROR_TYPE, code)


@contextmanager
def publish_span(
    queue: str,
    task_id: str,
    task_name: str,
    *,
    tenant_id: str,
    kind: str = "producer",
    parent: str | None = None,
    link: str | None = None,
    root_kind: str | None = None,
) -> Iterator[trace.Span]:
    """``send {queue}``: PRODUCER where a message is created, CLIENT where one is sent again; ended on any error.

    Below ``parent``, else below the current span; ``root_kind`` begins a trace of its own.
    """
    remote = remote_context(link)
    attributes = _messaging("send", "send", queue, task_id, task_name, tenant_id)
    if root_kind:
        attributes[signals.ROOT_KIND] = root_kind
    with _span(
        signals.SPAN_SEND.format(queue=queue),
        context=otel_context.Context() if root_kind else under(parent),
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
        context=under(creation),
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
    follow links only. An error before ``set_outcome`` means that the row was not ended here: whoever ends it writes the
    span (``dead_span``), and this one is never ended, so that an execution has one span whatever became of it.
    """
    span = _begun(
        queue,
        creation,
        span_id,
        started_ns,
        _messaging("process", "process", queue, task_id, task_name, tenant_id)
        | _execution(
            execution_id,
            ordinal,
            node,
            received_ns=received_ns,
            enqueued_or_due_ns=enqueued_or_due_ns,
            started_ns=started_ns,
        ),
    )
    with trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False):
        try:
            yield span
        except BaseException as err:
            if _has_outcome(span):
                fail(span, err)
                span.end()
            raise
    span.end()


def dead_span(
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
    ended_ns: int,
    outcome: str,
    error_type: str | None,
    pss_before: int | None,
) -> None:
    """``process {queue}`` of an execution whose process did not live to write it, told from its row by another one."""
    span = _begun(
        queue,
        creation,
        span_id,
        started_ns,
        _messaging("process", "process", queue, task_id, task_name, tenant_id)
        | _execution(
            execution_id,
            ordinal,
            node,
            received_ns=received_ns,
            enqueued_or_due_ns=enqueued_or_due_ns,
            started_ns=started_ns,
        )
        | {signals.SYNTHESISED: True},
    )
    set_outcome(span, outcome, error_type, pss_before, None)
    span.end(end_time=ended_ns)


def _begun(
    queue: str, creation: str | None, span_id: str, started_ns: int, attributes: Mapping[str, Any]
) -> trace.Span:
    remote, chosen = remote_context(creation), next_span_id.set(int(span_id, 16))
    # Without a creation that is traced it is the job's own trace, which its row names as well.
    own_trace = next_trace_id.set(int(trace_id_of(attributes[signals.MESSAGING_MESSAGE_ID]), 16))
    try:
        return tracer("email_service").start_span(
            signals.SPAN_PROCESS.format(queue=queue),
            context=under(creation) or otel_context.Context(),
            kind=SpanKind.CONSUMER,
            links=[Link(remote)] if remote else [],
            attributes=attributes,
            start_time=started_ns,
        )
    finally:
        # Used by now; if tracing is off it was not, and no later span may have it.
        next_span_id.reset(chosen)
        next_trace_id.reset(own_trace)


def _execution(
    execution_id: str, ordinal: int, node: str, *, received_ns: int, enqueued_or_due_ns: int, started_ns: int
) -> dict[str, Any]:
    return {
        signals.EXECUTION_ID: execution_id,
        signals.EXECUTION_ORDINAL: ordinal,
        signals.WORKER_NODE: node,
        signals.QUEUE_TIME_S: max(0.0, (started_ns - enqueued_or_due_ns) / 1e9),
        signals.PREFETCH_WAIT_S: max(0.0, (started_ns - received_ns) / 1e9),
    }


def _has_outcome(span: trace.Span) -> bool:
    return signals.EXECUTION_OUTCOME in (getattr(span, "attributes", None) or {})


def wrote(pid: int, span_id: str) -> bool:
    """Whether that process, which is dead, lived to write this span: the end of its file tells. No file, no span."""
    span_dir = (configured() or {}).get("span_dir")
    files = [] if span_dir is None else Path(span_dir).glob(f"*-{pid}-*.jsonl")
    return any(span_id.encode() in _tail(file) for file in files)


def _tail(file: Path) -> bytes:
    with file.open("rb") as lines:
        lines.seek(max(0, file.stat().st_size - _TAIL_BYTES))
        return lines.read()


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

    Read in Celery 5.7: strategy.py sends ``task_received`` before it hands the request on; ``execute_using_pool`` of
    worker/request.py passes ``request_dict`` itself to the pool, which pickles it then (also for a message with an ETA,
    minutes later); both ``trace_task_ret`` and ``fast_trace_task`` of app/trace.py make the child's task.request from
    it, ``Context(request)``, whose update puts every key into its ``__dict__``: our two keys are its attributes. The
    message keeps its headers, so a copy that comes back from the broker is stamped anew.
    """

    def stamp(request: Any, **_: Any) -> None:
        request.request_dict["mail_received_ns"] = time.time_ns()
        request.request_dict["mail_span_id"] = new_span_id()

    def begin(**_: Any) -> None:
        configure(**(configured() or {"kind": "worker", "span_dir": None, "otlp_endpoint": None, "node": node}))

    def end(**_: Any) -> None:
        # Children leave by os._exit, which runs no atexit (billiard/pool.py): what waits is sent here or never.
        shutdown()

    task_received.connect(stamp, weak=False, dispatch_uid="mail-stamp")
    worker_process_init.connect(begin, weak=False, dispatch_uid="mail-telemetry")
    worker_process_shutdown.connect(end, weak=False, dispatch_uid="mail-telemetry")


def received(request: Any) -> tuple[int, str]:
    """When the main process received the message, in nanoseconds, and the span id that it chose."""
    moment, span_id = getattr(request, "mail_received_ns", None), getattr(request, "mail_span_id", None)
    return moment or time.time_ns(), span_id or new_span_id()
