"""What is to be published now, and what dead processes have left behind. Called by dispatcher and worker."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import policy
from email_service.jobs.shapes import CHANNEL, Message

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
