"""What goes into the rows of jobs and executions, and what comes out of them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from email_service.tenancy import Scope

#: PostgreSQL channel that wakes the dispatcher.
CHANNEL: Final = "mail_due"


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """What a caller asks for."""

    id: uuid.UUID
    #: Full task name (policy.TASKS).
    name: str
    args: Mapping[str, Any]
    client_id: uuid.UUID | None = None
    parent_job_id: uuid.UUID | None = None
    message_id: str | None = None
    idempotency_key: str | None = None
    #: The request in a canonical form: the same key with another one is refused.
    request: bytes | None = None
    #: W3C trace context of the creation.
    traceparent: str | None = None


@dataclass(frozen=True, kw_only=True)
class Enqueued:
    """The job that stands for a request."""

    id: uuid.UUID
    message_id: str | None
    #: False when an earlier request with the same idempotency key made it.
    created: bool


@dataclass(frozen=True, kw_only=True)
class Message:
    """What the broker is told of a job: ids only, never content."""

    id: uuid.UUID
    tenant_id: str
    user_id: str
    name: str
    queue: str
    client_id: uuid.UUID | None
    #: Failed executions so far; Celery calls it retries.
    failures: int
    #: Messages sent for this job, this one included.
    publishes: int
    traceparent: str | None
    #: The execution that asked for this retry: where its span is linked to.
    cause: str | None


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that can own a lease; start time tells it from a later one with the same pid."""

    node: str
    host: str
    pid: int
    process_start_ns: int


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One copy of a message in a worker process, before it is known whether it may run."""

    job_id: uuid.UUID
    execution_id: uuid.UUID
    span_id: str
    received_at: datetime
    started_at: datetime
    pss_before_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Dead:
    """An execution that its process could not end, as whoever ended its row tells it: what its span is made of."""

    execution_id: uuid.UUID
    job_id: uuid.UUID
    tenant_id: str
    name: str
    queue: str
    ordinal: int
    node: str
    pid: int
    span_id: str
    #: W3C trace context of the job's creation.
    traceparent: str | None
    outcome: str
    error_type: str | None
    received_at: datetime
    started_at: datetime
    #: The later of the job's creation and the time when this execution was due.
    due_at: datetime
    #: When its row was ended for it, by the database's clock, or by itself.
    ended_at: datetime
    pss_before_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right to run a job, and the execution that does."""

    job_id: uuid.UUID
    execution_id: uuid.UUID
    scope: Scope
    name: str
    queue: str
    args: Mapping[str, Any]
    client_id: uuid.UUID | None
    message_id: str | None
    traceparent: str | None
    ordinal: int
    #: Failed executions before this one: the attempt that ``policy.decide`` asks for.
    failures: int
    #: Executions of this job that vanished; those that a stopping worker cut off are not the job's fault.
    lost: int
    created_at: datetime
    due_at: datetime
    started_at: datetime
    pss_before_bytes: int | None
    #: What earlier executions told by ``progress``.
    so_far: Mapping[str, Any] | None = None
    #: Earlier executions that this lease found dead and ended: their spans are to be written once it is committed.
    vanished: Sequence[Dead] = ()


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How an execution ended."""

    #: signals.EXECUTION_OUTCOMES.
    outcome: str
    ended_at: datetime
    error_type: str | None = None
    #: What the error said, for the tenant who owns the job; kept on the job row, cut.
    error_detail: str | None = None
    pss_peak_bytes: int | None = None
    #: Seconds by step of SMTP and IMAP.
    steps: Mapping[str, float] = field(default_factory=dict)
