"""OpenTelemetry and logging per process kind, and our own instrumentation of Celery.

Rule 1: where spans go is set up in the process that makes them, at the first; a child leaves its parent's file alone.
Rule 2: every finished span is on disk before the next line of code runs, so a SIGKILL loses the open ones only, and
those of executions are made again from their rows, by whoever ends them.
Rule 3: what an exception says never leaves the process: spans carry ``error.type``, not messages.

provider    this process's tracer, and where its spans go: configure, shutdown
spans       what is recorded of a span, and whether
lines       a span as a line of OTLP JSON
spanfile    those lines on disk
collector   spans on their way to a collector
context     ids, traceparents, sampling
messaging   send, process and settle spans; a worker's signals
statements  SQL
requests    HTTP
borrowed    Redis, and silence
logs        JSON or text on stderr and in files
tasklines   the life of a task, in the document's words
logfile     a file that several processes write to
redaction   what must not be read
memory      PSS
"""

from email_service.telemetry.borrowed import instrument_redis, quiet
from email_service.telemetry.context import (
    current_traceparent,
    new_span_id,
    parse_traceparent,
    tenant_hash,
    trace_id_of,
    traceparent,
)
from email_service.telemetry.logs import configure_logging, log_context, take_over, take_over_pool
from email_service.telemetry.memory import pss_bytes
from email_service.telemetry.messaging import (
    connect_worker_signals,
    dead_span,
    fail,
    process_span,
    publish_span,
    received,
    set_outcome,
    settle_span,
    wrote,
)
from email_service.telemetry.provider import configure, shutdown, tracer, tracing
from email_service.telemetry.requests import instrument_flask
from email_service.telemetry.spanfile import SpanFile
from email_service.telemetry.statements import begin_statement, end_statement, instrument_sqlalchemy
from email_service.telemetry.tasklines import task_completed, task_retries, task_starting

__all__ = [
    "SpanFile",
    "begin_statement",
    "configure",
    "configure_logging",
    "connect_worker_signals",
    "current_traceparent",
    "dead_span",
    "end_statement",
    "fail",
    "instrument_flask",
    "instrument_redis",
    "instrument_sqlalchemy",
    "log_context",
    "new_span_id",
    "parse_traceparent",
    "process_span",
    "pss_bytes",
    "publish_span",
    "quiet",
    "received",
    "set_outcome",
    "settle_span",
    "shutdown",
    "take_over",
    "take_over_pool",
    "task_completed",
    "task_retries",
    "task_starting",
    "tenant_hash",
    "trace_id_of",
    "traceparent",
    "tracer",
    "tracing",
    "wrote",
]
