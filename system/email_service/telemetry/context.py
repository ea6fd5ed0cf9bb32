"""Trace ids, span ids and W3C traceparents; and the hash that stands for a tenant."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def new_span_id() -> str:
    """Sixteen random hexadecimal digits, not all zero."""
    return f"{secrets.randbits(64) or 1:016x}"


def trace_id_of(job_id: str) -> str:
    """The trace of a job that was made where nothing is traced: all its executions are in one, and its rows name it.

    Hashed, because whether a trace is kept follows from its id, and a UUID's bits are not all random.
    """
    return hashlib.sha256(f"trace of job {job_id}".encode()).hexdigest()[:32]


def parse_traceparent(value: str | None) -> tuple[str, str] | None:
    """Trace id and span id of a W3C traceparent; None if it is none."""
    match = _TRACEPARENT.fullmatch(value or "")
    # Ids of zeros alone are invalid (W3C Trace Context, sections 3.2.2.3 and 3.2.2.4).
    return (match[1], match[2]) if match and match[1].strip("0") and match[2].strip("0") else None


def traceparent(span: trace.Span) -> str | None:
    """The W3C traceparent that names a span; None without a valid one."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    sampled = context.trace_flags & TraceFlags.SAMPLED
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{sampled:02x}"


def current_traceparent() -> str | None:
    """That of the current span."""
    return traceparent(trace.get_current_span())


def remote_context(value: str | None) -> SpanContext | None:
    """The span that a traceparent names; None if it names none."""
    ids = parse_traceparent(value)
    if ids is None or value is None:
        return None
    flags = TraceFlags(int(value[-2:], 16))
    return SpanContext(int(ids[0], 16), int(ids[1], 16), is_remote=True, trace_flags=flags)


def under(value: str | None) -> otel_context.Context | None:
    """A context whose current span is the one that a traceparent names."""
    remote = remote_context(value)
    return None if remote is None else trace.set_span_in_context(NonRecordingSpan(remote), otel_context.Context())


def sampled(trace_id: int, ratio: float) -> bool:
    """Whether a trace is kept at this ratio: OpenTelemetry's TraceIdRatioBased rule, on the low 64 bits of its id."""
    return trace_id & _LOW_64 < round(ratio * (_LOW_64 + 1))


_LOW_64: Final = 2**64 - 1


@functools.lru_cache(maxsize=4096)
def tenant_hash(tenant_id: str) -> str:
    """What spans and logs say instead of a tenant's name."""
    return hashlib.sha256(tenant_id.encode()).hexdigest()[:16]
