"""What the exporter asks PostgreSQL, as mail_system: what has ended, what was removed, what runs, waits and is late.

Rule 1: no gaps. Rows are ordered by the transaction that ended them, and cut off at the oldest one that still runs.
Rule 2: no query looks at what is settled but by its cursor: each has an index (a test asks for the plans).
Called by sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import telemetry
from email_service.counting import APART, EXECUTIONS, Row, SampleKey
from email_service.exporter import collecting
from email_service.exporter.collecting import Cursor, Place
from email_service.tenancy import SYSTEM, Database

#: How long a statement may take before its source counts as away.
STATEMENT_MS_MAX: Final = 5000
#: Behind all rows of a transaction.
_LAST_ID: Final = "ffffffff-ffff-ffff-ffff-ffffffffffff"

#: All transactions before this one have ended.
_HORIZON: Final = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text"
#: Of what is behind the cursor and before the horizon.
_WINDOW: Final = """
    WHERE {xid} IS NOT NULL AND ({xid}, {id}) > (CAST(:xid AS xid8), CAST(:id AS uuid))
      AND {xid} < CAST(:horizon AS xid8)
    ORDER BY {xid}, {id} LIMIT :limit
"""
ENDED: Final = EXECUTIONS + _WINDOW.format(xid="e.ended_xid", id="e.id")
SETTLED_APART: Final = APART + _WINDOW.format(xid="j.apart_xid", id="j.id")
REMOVED: Final = """
    SELECT coalesce((SELECT folded_xid::text FROM metric_totals ORDER BY folded_xid DESC LIMIT 1), '0') AS removal,
           coalesce((SELECT last_xid::text FROM metric_totals ORDER BY last_xid DESC LIMIT 1), '0') AS last_xid
"""
#: An execution whose lease has run out is dead, whatever its row says so far.
RUNNING: Final = """
    SELECT e.node, e.name, count(*) AS count FROM executions e JOIN jobs j ON j.id = e.job_id
    WHERE e.outcome IS NULL AND j.lease_execution_id = e.id AND j.lease_until > clock_timestamp() GROUP BY 1, 2
"""
#: Every unsettled job has a next_publish_at (jobs, rule 3), and an index on it: settled ones are not looked at.
OVERDUE: Final = """
    SELECT queue, max(extract(epoch FROM clock_timestamp() - greatest(due_at, lease_until)))::float AS oldest_s
    FROM jobs
    WHERE next_publish_at IS NOT NULL AND due_at <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until <= clock_timestamp())
    GROUP BY queue
"""
WAITING: Final = """
    SELECT queue, count(*) AS count FROM jobs WHERE next_publish_at IS NOT NULL AND state = 'waiting' GROUP BY queue
"""
LAG: Final = """
    SELECT coalesce(extract(epoch FROM clock_timestamp() - min(next_publish_at)), 0)::float AS lag_s
    FROM jobs WHERE next_publish_at IS NOT NULL
"""


class Rows:
    """The questions, each in a transaction of its own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(self, statement: str) -> list[Row]:
        """The rows of a statement without parameters."""
        # Quiet: a scrape is not part of anybody's trace.
        with telemetry.quiet(), self._database.session(SYSTEM, read_only=True) as session:
            return _ask(session, statement)

    def ended(self, after: Cursor) -> tuple[Sequence[Row], Cursor]:
        """What has ended behind the cursor, and the cursor behind that."""
        with telemetry.quiet(), self._database.session(SYSTEM, read_only=True) as session:
            # Before the rows: what had ended then is seen by the statements that follow.
            horizon = str(session.execute(text(_HORIZON)).scalar_one())
            executions, behind = _page(session, ENDED, after.executions, horizon)
            apart, behind_apart = _page(session, SETTLED_APART, after.apart, horizon)
        return [*executions, *apart], Cursor(executions=behind, apart=behind_apart)

    def removed(self) -> tuple[str, str]:
        """The name of the last removal, and the last transaction among all that was removed."""
        (row,) = self.ask(REMOVED)
        return row["removal"], row["last_xid"]

    def kept(self) -> dict[SampleKey, float]:
        """What was removed, as samples."""
        found = self.ask("SELECT sample, labels, value FROM metric_totals")
        return {(row["sample"], tuple(sorted(row["labels"].items()))): row["value"] for row in found}

    def lag_s(self) -> float:
        """By how much the most overdue publish is late; negative when none is due."""
        (row,) = self.ask(LAG)
        return float(row["lag_s"])


def _page(session: Session, statement: str, after: Place, horizon: str) -> tuple[list[Row], Place]:
    limit = collecting.PAGE
    rows = _ask(session, statement, xid=after[0], id=after[1], horizon=horizon, limit=limit)
    if len(rows) == limit:
        return rows, (rows[-1]["xid"], rows[-1]["id"])
    # All of it: whatever is removed later from before the horizon has been counted.
    return rows, max(after, (str(int(horizon) - 1), _LAST_ID), key=lambda place: (int(place[0]), place[1]))


def _ask(session: Session, statement: str, **values: Any) -> list[Row]:
    session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_MS_MAX}"))
    return [dict(row._mapping) for row in session.execute(text(statement), values)]  # noqa: SLF001
