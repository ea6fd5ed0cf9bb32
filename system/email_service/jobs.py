"""The truth about work: job and execution rows.

Rule 1: a job is written before its message is published; the broker is a hint, the row is the truth.
Rule 2: an execution starts by taking the lease, committed before work begins, and ends in the commit that holds its
outcome. Who can't take the lease does nothing: a second copy of a message is harmless.
Rule 3: ``next_publish_at`` alone says when the dispatcher acts: the grace after a publish, the due time of a retry, the
end of a lease, or never again.

Every function takes a session and leaves the commit to its caller, unless it says otherwise. Callers: api, service,
tasks, dispatcher. Times that two clocks could disagree on (the start, the end, the due time of a retry) come from the
caller, so that differences between them are exact; leases come from the database's clock.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from email_service import policy
from email_service.errors import ConflictError, InvalidRequestError, LeaseLostError, NotFoundError
from email_service.tenancy import SYSTEM, Scope

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


_ENQUEUE: Final = text(
    """
    INSERT INTO jobs (id, tenant_id, user_id, name, queue, args, state, client_id, parent_job_id, message_id,
                      idempotency_key, request_sha256, traceparent, created_at, due_at, next_publish_at, publishes)
    VALUES (:id, :tenant, :user, :name, :queue, :args, 'queued', :client, :parent, :message_id,
            :key, :request_sha256, :traceparent, clock_timestamp(), clock_timestamp(),
            clock_timestamp() + make_interval(secs => :grace), :publishes)
    ON CONFLICT (tenant_id, user_id, idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING
    RETURNING id
    """
).bindparams(bindparam("args", type_=JSONB))


def enqueue(session: Session, scope: Scope, job: NewJob, *, time_scale: float, publish: bool = True) -> Enqueued:
    """Write the job; the caller commits and publishes. A known idempotency key answers the job that it made.

    With ``publish`` False the dispatcher publishes as soon as the caller has committed: for a job that is born in the
    transaction of another one's work.

    Raises:
        ConflictError: the key was used with another request.
    """
    request_sha256 = hashlib.sha256(job.request).digest() if job.request is not None else None
    row = session.execute(
        _ENQUEUE,
        {
            "id": job.id, "tenant": scope.tenant_id, "user": scope.user_id, "name": job.name,
            "queue": policy.TASKS[job.name].queue, "args": dict(job.args), "client": job.client_id,
            "parent": job.parent_job_id, "message_id": job.message_id, "key": job.idempotency_key,
            "request_sha256": request_sha256, "traceparent": job.traceparent,
            "grace": policy.publish_grace_s(1) * time_scale if publish else 0.0, "publishes": int(publish),
        },
    ).one_or_none()  # fmt: skip
    if row is not None:
        if not publish:
            session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
        return Enqueued(id=job.id, message_id=job.message_id, created=True)
    return _earlier(session, scope, job, request_sha256)


def _earlier(session: Session, scope: Scope, job: NewJob, request_sha256: bytes | None) -> Enqueued:
    row = session.execute(
        text(
            "SELECT id, message_id, request_sha256 FROM jobs "
            "WHERE tenant_id = :tenant AND user_id = :user AND idempotency_key = :key"
        ),
        {"tenant": scope.tenant_id, "user": scope.user_id, "key": job.idempotency_key},
    ).one()
    if row.request_sha256 is None or bytes(row.request_sha256) != request_sha256:
        raise ConflictError(f"Idempotency-Key {job.idempotency_key!r} belongs to task {row.id}")
    return Enqueued(id=row.id, message_id=row.message_id, created=False)


def keyed(session: Session, scope: Scope, keys: Sequence[str]) -> list[tuple[uuid.UUID, uuid.UUID | None]]:
    """Id and client of the jobs that these idempotency keys made, in the keys' order."""
    rows = session.execute(
        text(
            "SELECT id, client_id FROM jobs WHERE tenant_id = :tenant AND user_id = :user "
            "AND idempotency_key = ANY(:keys) ORDER BY array_position(:keys, idempotency_key)"
        ),
        {"tenant": scope.tenant_id, "user": scope.user_id, "keys": list(keys)},
    )
    return [(row.id, row.client_id) for row in rows]


_ABANDON: Final = text(
    """
    WITH dropped AS (
        UPDATE recipients SET state = 'failed', updated_at = clock_timestamp()
        WHERE job_id = ANY(:ids) AND state = 'queued'
    )
    UPDATE jobs SET error_type = :error_type, finished_at = clock_timestamp(), next_publish_at = NULL,
           lease_until = NULL, lease_execution_id = NULL, settled_xid = pg_current_xact_id(),
           state = CASE WHEN reached THEN 'succeeded' ELSE 'failed' END,
           outcome = CASE WHEN reached THEN 'partial' ELSE 'failed' END
    FROM (
        SELECT i.id, EXISTS (SELECT 1 FROM recipients r WHERE r.job_id = i.id AND r.state = 'sent') AS reached
        FROM unnest(CAST(:ids AS uuid[])) AS i(id)
    ) AS waiting
    WHERE jobs.id = waiting.id
    """
)


def abandon(session: Session, scope: Scope, client_id: uuid.UUID, *, error_type: str) -> uuid.UUID | None:
    """Settle all work of a client that waits; if some of it runs now, settle none and answer one that does.

    What waits has nobody between DATA and its reply: an execution that ends takes ``transmitting`` back or settles it.
    """
    rows = session.execute(
        text(
            "SELECT id, state FROM jobs WHERE client_id = :client AND tenant_id = :tenant AND user_id = :user "
            "AND state IN ('queued', 'waiting', 'running') FOR UPDATE"
        ),
        {"client": client_id, "tenant": scope.tenant_id, "user": scope.user_id},
    ).all()
    if running := [row.id for row in rows if row.state == "running"]:
        found: uuid.UUID = running[0]
        return found
    if rows:
        session.execute(_ABANDON, {"ids": [row.id for row in rows], "error_type": error_type})
    return None


def adopt(session: Session, scope: Scope, job: NewJob, *, time_scale: float) -> None:
    """Write the row of a task that beat published without one; a second copy of its message changes nothing."""
    session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:id, 0))"), {"id": str(job.id)})
    if session.execute(text("SELECT 1 FROM jobs WHERE id = :id"), {"id": job.id}).one_or_none() is None:
        enqueue(session, scope, job, time_scale=time_scale)


_LEASE_SQL: Final = """
    WITH claimed AS (
        UPDATE jobs
        SET state = 'running', lease_until = clock_timestamp() + make_interval(secs => :lease_s),
            next_publish_at = clock_timestamp() + make_interval(secs => :lease_s),
            lease_execution_id = :execution, executions = executions + 1, started_at = :started
        WHERE id = :job AND tenant_id = :tenant AND state IN ('queued', 'waiting', 'running')
          AND due_at <= clock_timestamp() AND (lease_until IS NULL OR lease_until < clock_timestamp())
        RETURNING id, tenant_id, user_id, name, queue, client_id, message_id, traceparent, created_at, due_at,
                  executions, failures, result, {args}
    ), vanished AS (
        UPDATE executions SET outcome = 'killed', error_type = 'worker-lost', ended_xid = pg_current_xact_id()
        WHERE job_id = :job AND outcome IS NULL AND EXISTS (SELECT 1 FROM claimed)
        RETURNING id
    ), started AS (
        INSERT INTO executions (id, job_id, tenant_id, name, queue, ordinal, node, host, pid, process_start_ns, due_at,
                                received_at, started_at, trace_id, span_id, parent_span_id, pss_before_bytes)
        SELECT :execution, id, tenant_id, name, queue, executions, :node, :host, :pid, :process_start_ns, due_at,
               :received, :started, coalesce(nullif(split_part(traceparent, '-', 2), ''), :trace_id), :span_id,
               nullif(split_part(traceparent, '-', 3), ''), :pss
        FROM claimed
        RETURNING id
    )
    SELECT claimed.*, (SELECT count(*) FROM vanished)
           + (SELECT count(*) FROM executions e WHERE e.job_id = claimed.id AND e.outcome = 'killed'
              AND e.error_type IS DISTINCT FROM 'shutdown') AS lost
    FROM claimed
"""
_LEASE: Final = text(_LEASE_SQL.format(args="args"))
#: mail_system may not read arguments; those of its own jobs are empty (see ``adopt``).
_LEASE_SYSTEM: Final = text(_LEASE_SQL.format(args="CAST('{}' AS jsonb) AS args"))


def lease(
    session: Session, scope: Scope, delivery: Delivery, holder: Holder, *, trace_id: str, lease_s: float
) -> Lease | None:
    """Take the job for ``lease_s`` seconds if it is due, unsettled and unleased; None otherwise.

    Executions of the job that are still open are then known to be dead (their lease has run out) and marked killed.
    """
    row = session.execute(
        _LEASE_SYSTEM if scope == SYSTEM else _LEASE,
        {
            "job": delivery.job_id, "tenant": scope.tenant_id, "execution": delivery.execution_id,
            "lease_s": lease_s, "started": delivery.started_at, "received": delivery.received_at,
            "node": holder.node, "host": holder.host, "pid": holder.pid, "process_start_ns": holder.process_start_ns,
            "trace_id": trace_id, "span_id": delivery.span_id, "pss": delivery.pss_before_bytes,
        },
    ).one_or_none()  # fmt: skip
    if row is None:
        return None
    return Lease(
        job_id=row.id, execution_id=delivery.execution_id, scope=Scope(tenant_id=row.tenant_id, user_id=row.user_id),
        name=row.name, queue=row.queue, args=row.args, client_id=row.client_id, message_id=row.message_id,
        traceparent=row.traceparent, ordinal=row.executions, failures=row.failures, lost=row.lost,
        created_at=row.created_at, due_at=row.due_at, started_at=delivery.started_at,
        pss_before_bytes=delivery.pss_before_bytes, so_far=row.result,
    )  # fmt: skip


def refuse(session: Session, job_id: uuid.UUID) -> None:
    """Count a copy of a message that found nothing to do."""
    session.execute(text("UPDATE jobs SET refusals = refusals + 1 WHERE id = :job"), {"job": job_id})


def hold(session: Session, lease: Lease) -> None:
    """Fence: go on only while the lease is ours. Called in the transaction that precedes an effect outside.

    Raises:
        LeaseLostError: it ran out, or another execution has it.
    """
    held = session.execute(
        text(
            "SELECT 1 FROM jobs WHERE id = :job AND lease_execution_id = :execution "
            "AND lease_until > clock_timestamp() FOR UPDATE"
        ),
        {"job": lease.job_id, "execution": lease.execution_id},
    ).one_or_none()
    if held is None:
        raise LeaseLostError(f"job {lease.job_id}, execution {lease.ordinal}")


_PROGRESS: Final = text(
    """
    UPDATE jobs SET result = :result, args = coalesce(:args, args)
    WHERE id = :job AND lease_execution_id = :execution AND lease_until > clock_timestamp()
    RETURNING 1
    """
).bindparams(bindparam("result", type_=JSONB), bindparam("args", type_=JSONB(none_as_null=True)))


def progress(
    session: Session, lease: Lease, result: Mapping[str, Any], *, args: Mapping[str, Any] | None = None
) -> None:
    """Fence as ``hold``, and tell how far the job is; ``args`` replaces its arguments by what is left to do.

    For work that is committed in steps: the next execution goes on from the last of them.

    Raises:
        LeaseLostError: it ran out, or another execution has it.
    """
    values = {
        "result": dict(result), "args": None if args is None else dict(args),
        "job": lease.job_id, "execution": lease.execution_id,
    }  # fmt: skip
    if session.execute(_PROGRESS, values).one_or_none() is None:
        raise LeaseLostError(f"job {lease.job_id}, execution {lease.ordinal}")


_END: Final = """
    , ended AS (
        UPDATE executions SET ended_at = :ended, outcome = :execution_outcome, error_type = :error_type,
               pss_peak_bytes = :pss, ended_xid = pg_current_xact_id()
        WHERE id = :execution AND EXISTS (SELECT 1 FROM freed)
        RETURNING id
    )
    SELECT count(*) FROM ended
"""
_FINISH: Final = text(
    """
    WITH freed AS (
        UPDATE jobs SET state = :state, outcome = :outcome, error_type = :error_type, finished_at = :ended,
               error_detail = coalesce(:error_detail, error_detail), result = :result,
               lease_until = NULL, lease_execution_id = NULL, next_publish_at = NULL,
               settled_xid = pg_current_xact_id()
        WHERE id = :job AND lease_execution_id = :execution
        RETURNING id
    )
    """  # noqa: S608  # both halves are constants
    + _END
).bindparams(bindparam("result", type_=JSONB(none_as_null=True)))
_RESCHEDULE: Final = text(
    """
    WITH freed AS (
        UPDATE jobs SET state = 'waiting', due_at = :due, next_publish_at = :publish, failures = failures + :failed,
               error_detail = coalesce(:error_detail, error_detail),
               lease_until = NULL, lease_execution_id = NULL
        WHERE id = :job AND lease_execution_id = :execution
        RETURNING id
    )
    """  # noqa: S608  # both halves are constants
    + _END
)


def finish(
    session: Session,
    lease: Lease,
    ending: Ending,
    *,
    state: str,
    outcome: str,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Settle the job and end its execution; ``result`` is what the task answers: counts and ids, never content.

    Raises:
        LeaseLostError: another execution owns the job by now; nothing was changed.
    """
    values = {"state": state, "outcome": outcome, "result": None if result is None else dict(result)}
    _end(session, _FINISH, lease, ending, values)


def reschedule(
    session: Session, lease: Lease, ending: Ending, *, delay_s: float, failed: bool, grace_s: float = 0.0
) -> datetime:
    """End the execution and let the job wait; answers when it is due. ``failed`` False continues without a failure.

    ``grace_s`` is for a caller that publishes by itself: the dispatcher steps in only so long after the due time.

    Raises:
        LeaseLostError: another execution owns the job by now; nothing was changed.
    """
    due = ending.ended_at + timedelta(seconds=delay_s)
    publish = due + timedelta(seconds=grace_s)
    _end(session, _RESCHEDULE, lease, ending, {"due": due, "publish": publish, "failed": int(failed)})
    session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
    return due


def _end(session: Session, statement: Any, lease: Lease, ending: Ending, values: dict[str, Any]) -> None:
    values |= {
        "job": lease.job_id, "execution": lease.execution_id, "ended": ending.ended_at,
        "execution_outcome": ending.outcome, "error_type": ending.error_type, "error_detail": ending.error_detail,
        "pss": ending.pss_peak_bytes,
    }  # fmt: skip
    if session.execute(statement, values).scalar_one() != 1:
        raise LeaseLostError(f"job {lease.job_id}, execution {lease.ordinal}")


_DUE: Final = text(
    """
    UPDATE jobs SET publishes = publishes + 1, state = CASE state WHEN 'waiting' THEN 'queued' ELSE state END,
           next_publish_at = clock_timestamp()
               + make_interval(secs => least(:grace * power(2, least(publishes, 30)), :grace_cap))
    WHERE id IN (
        SELECT id FROM jobs WHERE next_publish_at <= clock_timestamp()
        ORDER BY next_publish_at LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    RETURNING id, tenant_id, user_id, name, queue, client_id, failures, publishes, traceparent,
        (SELECT '00-' || e.trace_id || '-' || e.span_id || '-01' FROM executions e
         WHERE e.job_id = jobs.id ORDER BY e.ordinal DESC LIMIT 1) AS cause
    """
)


def due(session: Session, *, limit: int, time_scale: float) -> Sequence[Message]:
    """Jobs whose message is to be published now: retries that are due, and what is overdue.

    The caller commits first and publishes then: a crash between the two costs one grace, never a job. A copy that was
    still on its way does nothing; the grace doubles each time, so that a long backlog is not published over and over.
    """
    rows = session.execute(
        _DUE,
        {
            "limit": limit,
            "grace": policy.PUBLISH_GRACE_S * time_scale,
            "grace_cap": policy.PUBLISH_GRACE_CAP_S * time_scale,
        },
    )
    return [Message(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's documented name


def hasten(session: Session, job_ids: Sequence[uuid.UUID], *, after_s: float) -> None:
    """The broker did not take these: publish them again soon instead of after the grace."""
    session.execute(
        text(
            "UPDATE jobs SET next_publish_at = clock_timestamp() + make_interval(secs => :after) "
            "WHERE id = ANY(:ids) AND state = 'queued'"
        ),
        {"ids": list(job_ids), "after": after_s},
    )


def next_due_in_s(session: Session) -> float | None:
    """Seconds until the dispatcher is next needed; None when nothing waits."""
    value = session.execute(
        text("SELECT extract(epoch FROM min(next_publish_at) - clock_timestamp()) FROM jobs")
    ).scalar_one()
    return None if value is None else float(value)


def release_dead(
    session: Session, host: str, alive: Callable[[int, int], bool], *, only: uuid.UUID | None = None
) -> int:
    """Void the leases of this host's processes that are gone; answers how many. Their jobs are due at once.

    ``alive`` is asked with a pid and its process's start in nanoseconds; ``only`` looks at one job.

    Leases would run out by themselves; this spares the wait wherever the dead can be told from the slow.
    """
    rows = session.execute(
        text(
            "SELECT e.id, e.job_id, e.pid, e.process_start_ns FROM executions e "
            "JOIN jobs j ON j.lease_execution_id = e.id "
            "WHERE e.outcome IS NULL AND e.host = :host AND j.lease_until > clock_timestamp() "
            "AND (CAST(:only AS uuid) IS NULL OR j.id = :only)"
        ),
        {"host": host, "only": only},
    ).all()
    dead = [row for row in rows if not alive(row.pid, row.process_start_ns)]
    for row in dead:
        session.execute(
            text(
                "UPDATE jobs SET lease_until = clock_timestamp(), next_publish_at = clock_timestamp() "
                "WHERE id = :job AND lease_execution_id = :execution"
            ),
            {"job": row.job_id, "execution": row.id},
        )
    return len(dead)


_CUT_OFF: Final = text(
    """
    WITH cut AS (
        UPDATE executions SET outcome = 'killed', error_type = :error_type, ended_xid = pg_current_xact_id()
        WHERE outcome IS NULL AND host = :host AND node = :node AND pid = ANY(:pids)
          AND (CAST(:only AS uuid) IS NULL OR job_id = :only)
        RETURNING id, job_id
    ), freed AS (
        UPDATE jobs SET state = 'queued', lease_until = NULL, lease_execution_id = NULL,
               next_publish_at = clock_timestamp() + make_interval(secs => :publish)
        FROM cut WHERE jobs.id = cut.job_id AND jobs.lease_execution_id = cut.id
        RETURNING jobs.id
    )
    SELECT cut.job_id FROM cut
    """
)


def cut_off(
    session: Session,
    *,
    host: str,
    node: str,
    pids: Sequence[int],
    error_type: str,
    publish_s: float,
    only: uuid.UUID | None = None,
) -> Sequence[uuid.UUID]:
    """End the executions of these processes, which are dead, and free their jobs; answers the jobs.

    Their worker calls it, who knows at once; whoever is not told finds out by ``release_dead`` or by the lease's end.
    ``publish_s`` is how long the dispatcher leaves the job alone: a message that goes back to the queue by itself needs
    no second one. What follows (another try, or none) is the next execution's to decide, with all that it needs for it.
    """
    rows = session.execute(
        _CUT_OFF,
        {
            "host": host, "node": node, "pids": list(pids), "error_type": error_type, "publish": publish_s,
            "only": only,
        },
    )  # fmt: skip
    freed = rows.scalars().all()
    if freed:
        session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
    return freed


_ROW: Final = (
    "SELECT id, name, queue, state, outcome, error_type, error_detail, result, message_id, "
    "split_part(traceparent, '-', 2) AS trace_id, "
    "created_at, due_at, started_at, finished_at, executions, publishes, settled_xid::text AS xid FROM jobs "
)


def status(session: Session, scope: Scope, job_id: uuid.UUID) -> dict[str, Any]:
    """A job with its executions and recipients, as the API shows it.

    Raises:
        NotFoundError: there is none in this scope.
    """
    owner = {"tenant": scope.tenant_id, "user": scope.user_id, "job": job_id}
    row = session.execute(
        text(_ROW + "WHERE id = :job AND tenant_id = :tenant AND user_id = :user"), owner
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"task {job_id}")
    executions = session.execute(
        text(
            "SELECT id, ordinal, node, pid, outcome, error_type, received_at, started_at, ended_at, trace_id, span_id "
            "FROM executions WHERE job_id = :job AND tenant_id = :tenant ORDER BY ordinal"
        ),
        owner,
    )
    recipients = session.execute(
        text(
            "SELECT address, role, state, reply_code, reply_text FROM recipients "
            "WHERE job_id = :job AND tenant_id = :tenant ORDER BY role DESC, address"
        ),
        owner,
    )
    return _public(row) | {
        "message_id": row.message_id,
        "error_detail": row.error_detail,
        "result": row.result,
        "publishes": row.publishes,
        "executions": [
            {k: _plain(v) for k, v in e._mapping.items()}  # noqa: SLF001
            for e in executions
        ],
        "recipients": [dict(r._mapping) for r in recipients],  # noqa: SLF001
    }


def feed(session: Session, scope: Scope, *, after: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Settled jobs in the order of their settling, and the cursor behind the last one.

    No gaps: a row is shown only once every transaction that could still settle an earlier one has ended, because rows
    are ordered by transaction id and cut off at the oldest running one (PostgreSQL's pg_snapshot_xmin).

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    xid, last = _cursor(after)
    rows = session.execute(
        text(
            _ROW + "WHERE tenant_id = :tenant AND user_id = :user AND settled_xid IS NOT NULL "
            "AND (settled_xid, id) > (CAST(:xid AS xid8), :last) "
            "AND settled_xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY jobs.settled_xid, id LIMIT :limit"
        ),
        {"tenant": scope.tenant_id, "user": scope.user_id, "xid": xid, "last": last, "limit": limit},
    ).all()
    if not rows:
        return [], after
    token = json.dumps([rows[-1].xid, str(rows[-1].id)]).encode()
    return [_public(row) for row in rows], base64.urlsafe_b64encode(token).decode()


def _cursor(after: str | None) -> tuple[str, uuid.UUID]:
    if not after:
        return "0", uuid.UUID(int=0)
    try:
        token, last = json.loads(base64.urlsafe_b64decode(after.encode()))
        xid = int(token)
        xid.to_bytes(8, "big")  # raises where PostgreSQL's xid8 would
        return str(xid), uuid.UUID(last)
    except (ValueError, TypeError, ArithmeticError, binascii.Error, AttributeError, RecursionError) as err:
        raise InvalidRequestError("after: use the cursor of the last answer, or leave it out") from err


def _public(row: Any) -> dict[str, Any]:
    return {
        "task_id": str(row.id), "name": row.name, "queue": row.queue, "state": row.state, "outcome": row.outcome,
        "error_type": row.error_type, "trace_id": row.trace_id or None, "enqueued_ns": _ns(row.created_at),
        "due_ns": _ns(row.due_at), "started_ns": _ns(row.started_at), "ended_ns": _ns(row.finished_at),
        "executions": row.executions,
    }  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, uuid.UUID) else value


def _ns(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000
