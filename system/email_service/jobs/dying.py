"""Executions whose process is gone: their leases are voided, their rows are ended, and what is known of them is told.

Called by losses and worker (a main process knows of its children's deaths at once), by dispatcher and tasks (they find
the dead of their host), and by ``running``, whose next lease ends what nobody else has ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import telemetry
from email_service.jobs.shapes import CHANNEL, Dead

#: An instant from which nanoseconds are counted.
_EPOCH: Final = datetime.fromtimestamp(0, UTC)

_TOLD: Final = """
    SELECT e.id AS execution_id, e.job_id, e.tenant_id, e.name, e.queue, e.ordinal, e.node, e.pid, e.span_id,
           j.traceparent, e.outcome, e.error_type, e.received_at, e.started_at, e.pss_before_bytes,
           greatest(j.created_at, e.due_at) AS due_at,
           greatest(coalesce(e.ended_at, clock_timestamp()), e.started_at) AS ended_at
    FROM executions e JOIN jobs j ON j.id = e.job_id
"""
_ENDED_HERE: Final = text(
    _TOLD + " WHERE e.ended_xid = pg_current_xact_id() AND e.outcome = 'killed' ORDER BY e.job_id, e.ordinal"
)
_LAST: Final = text(
    _TOLD + " WHERE e.job_id = :job AND e.host = :host AND e.node = :node AND e.pid = :pid "
    "AND e.outcome <> 'killed' ORDER BY e.ordinal DESC LIMIT 1"
)


def ended_here(session: Session) -> Sequence[Dead]:
    """The executions that this transaction has ended as killed."""
    return [Dead(**row._mapping) for row in session.execute(_ENDED_HERE)]  # noqa: SLF001  # SQLAlchemy's documented name


def last_of(session: Session, job_id: uuid.UUID, *, host: str, node: str, pid: int) -> Dead | None:
    """The execution of a job that this process, which is dead, had ended by itself before it died.

    One that was ended as killed is somebody else's to tell: another process of this host may have been faster.
    """
    row = session.execute(_LAST, {"job": job_id, "host": host, "node": node, "pid": pid}).one_or_none()
    return None if row is None else Dead(**row._mapping)  # noqa: SLF001  # as above


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
    SELECT count(*) FROM cut
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
) -> Sequence[Dead]:
    """End the executions of these processes, which are dead, and free their jobs; answers the executions.

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
    if not rows.scalar_one():
        return ()
    session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": CHANNEL})
    return ended_here(session)


def tell(dead: Iterable[Dead]) -> None:
    """Write the spans of executions that could not write their own; called once their end is committed.

    A row is ended once, so its span is written once; a teller that dies between its commit and here leaves none.
    """
    for one in dead:
        telemetry.dead_span(
            queue=one.queue,
            task_id=str(one.job_id),
            task_name=one.name,
            tenant_id=one.tenant_id,
            creation=one.traceparent,
            span_id=one.span_id,
            execution_id=str(one.execution_id),
            ordinal=one.ordinal,
            node=one.node,
            received_ns=_ns(one.received_at),
            enqueued_or_due_ns=_ns(one.due_at),
            started_ns=_ns(one.started_at),
            ended_ns=_ns(one.ended_at),
            outcome=one.outcome,
            error_type=one.error_type,
            pss_before=one.pss_before_bytes,
        )


def _ns(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
