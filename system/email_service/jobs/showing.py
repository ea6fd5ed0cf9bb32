"""A job with all that is known of it, and the feed of what has settled. Called by the API."""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service.errors import InvalidRequestError, NotFoundError
from email_service.tenancy import Scope

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
