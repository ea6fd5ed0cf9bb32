"""A job is asked for, found by its key, given up with its client, or adopted from beat. Called by api and tasks."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from email_service import policy
from email_service.errors import ConflictError
from email_service.jobs.shapes import CHANNEL, Enqueued, NewJob
from email_service.tenancy import Scope, run

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
    rows = run(
        session,
        _ENQUEUE,
        {
            "id": job.id, "tenant": scope.tenant_id, "user": scope.user_id, "name": job.name,
            "queue": policy.TASKS[job.name].queue, "args": dict(job.args), "client": job.client_id,
            "parent": job.parent_job_id, "message_id": job.message_id, "key": job.idempotency_key,
            "request_sha256": request_sha256, "traceparent": job.traceparent,
            "grace": policy.publish_grace_s(1) * time_scale if publish else 0.0, "publishes": int(publish),
        },
    )  # fmt: skip
    if rows:
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
           apart_xid = pg_current_xact_id(),
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
