"""An execution: takes the lease, proves that it has it, tells how far it is, and ends. Called by tasks and service."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from email_service.errors import LeaseLostError
from email_service.jobs.dying import ended_here
from email_service.jobs.shapes import CHANNEL, Delivery, Ending, Holder, Lease
from email_service.tenancy import SYSTEM, Scope, run

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
    SELECT claimed.*, (SELECT count(*) FROM vanished) AS vanished, (SELECT count(*) FROM vanished)
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

    Executions of the job that are still open are then known to be dead (their lease has run out) and marked killed;
    the caller writes their spans when it has committed.
    """
    rows = run(
        session,
        _LEASE_SYSTEM if scope == SYSTEM else _LEASE,
        {
            "job": delivery.job_id, "tenant": scope.tenant_id, "execution": delivery.execution_id,
            "lease_s": lease_s, "started": delivery.started_at, "received": delivery.received_at,
            "node": holder.node, "host": holder.host, "pid": holder.pid, "process_start_ns": holder.process_start_ns,
            "trace_id": trace_id, "span_id": delivery.span_id, "pss": delivery.pss_before_bytes,
        },
    )  # fmt: skip
    if not rows:
        return None
    (row,) = rows
    return Lease(
        job_id=row.id, execution_id=delivery.execution_id, scope=Scope(tenant_id=row.tenant_id, user_id=row.user_id),
        name=row.name, queue=row.queue, args=row.args, client_id=row.client_id, message_id=row.message_id,
        traceparent=row.traceparent, ordinal=row.executions, failures=row.failures, lost=row.lost,
        created_at=row.created_at, due_at=row.due_at, started_at=delivery.started_at,
        pss_before_bytes=delivery.pss_before_bytes, so_far=row.result,
        vanished=ended_here(session) if row.vanished else (),
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
               pss_peak_bytes = :pss, steps = :steps, ended_xid = pg_current_xact_id()
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
).bindparams(bindparam("result", type_=JSONB(none_as_null=True)), bindparam("steps", type_=JSONB(none_as_null=True)))
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
).bindparams(bindparam("steps", type_=JSONB(none_as_null=True)))


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
        "pss": ending.pss_peak_bytes, "steps": dict(ending.steps),
    }  # fmt: skip
    if run(session, statement, values)[0].count != 1:
        raise LeaseLostError(f"job {lease.job_id}, execution {lease.ordinal}")
