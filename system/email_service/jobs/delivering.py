"""What is to be published now, and when the next is due. Called by dispatcher."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import policy
from email_service.jobs.shapes import Message

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
        (SELECT '00-' || e.trace_id || '-' || e.span_id
                || '-' || coalesce(nullif(split_part(jobs.traceparent, '-', 4), ''), '01') FROM executions e
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
