"""Remove what is no longer needed: the hourly cleanup, under the system principal.

Rule 1: nothing that is unsettled is touched, and nothing that a row or an unsettled job names.
Rule 2: each step works in batches, a commit each: what was cut off goes on in the next hour.
Rule 3: what the exporter has counted of removed executions is kept as numbers, in the transaction that removes them.
Rule 4: a row is never without its blob: blobs go last, are looked up in the rows, and only after a grace within which
whoever stored one has long committed its row (``blobs``, rule 4).
Called by the task; counts alone leave this module.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from email_service import jobs
from email_service.counting import APART, EXECUTIONS, Counts
from email_service.service.work import Settled, Tools, Work
from email_service.tenancy import SYSTEM, Scope

#: An upload that no message took, a blob that no row names, and a credential that no client uses live this long.
GRACE: Final = timedelta(hours=24)
#: Rows, or blobs, of one transaction.
BATCH: Final = 500
#: Of the soft time limit; the rest is for what is under way.
BUDGET: Final = 0.8


@dataclass(frozen=True, kw_only=True)
class _Sweep:
    """What the steps share."""

    tools: Tools
    grace: timedelta
    batch: int
    #: Of time.monotonic: no further batch begins after it.
    until_s: float
    #: Shard of the blobs that comes first: if time runs out, it does not always do so at the same place.
    first: str

    @property
    def late(self) -> bool:
        """Whether the rest is the next hour's."""
        return time.monotonic() >= self.until_s

    def before(self, age: timedelta) -> datetime:
        """The moment this long ago."""
        return self.tools.clock() - age


def clean_up(work: Work) -> Settled:
    """Remove what is no longer needed, and tell how much that was."""
    budget_s = work.tools.settings.limits_s[1] * BUDGET
    counts = clean(work.tools, budget_s=budget_s, first=work.lease.job_id.hex[:2])
    result: dict[str, object] = {"outcome": "cleaned", **counts}
    with work.tools.system.session(SYSTEM) as session:
        ending = work.ending("succeeded")
        jobs.finish(session, work.lease, ending, state="succeeded", outcome="cleaned", result=result)
        session.commit()
    return Settled(state="succeeded", outcome="cleaned", result=result)


def clean(
    tools: Tools, *, budget_s: float, grace: timedelta = GRACE, batch: int = BATCH, first: str = ""
) -> dict[str, object]:
    """Everything, as far as the time reaches; doing it again changes nothing more."""
    sweep = _Sweep(tools=tools, grace=grace, batch=batch, until_s=time.monotonic() + budget_s, first=first)
    counts: Counter[str] = Counter()
    for step in (_leases, _jobs, _uploads, _credentials, _blobs):
        step(sweep, counts)
    return {**{name: counts[name] for name in _COUNTS}, "complete": not sweep.late}


#: What a cleanup tells.
_COUNTS: Final = (
    "client_leases", "overdue_leases", "jobs", "executions", "uploads", "credentials", "blobs", "temporaries",
)  # fmt: skip


def _repeat(sweep: _Sweep, counts: Counter[str], step: Callable[[Session], dict[str, int]]) -> None:
    """A batch a transaction, until one finds less than it may take."""
    while not sweep.late:
        with sweep.tools.system.session(SYSTEM) as session:
            found = step(session)
            session.commit()
        counts.update(found)
        if max(found.values()) < sweep.batch:
            return


# --- leases ---------------------------------------------------------------------------------------------------------

_FREE_CLIENTS: Final = text(
    """
    UPDATE email_clients SET sync_execution_id = NULL, sync_lease_until = NULL
    WHERE id IN (
        SELECT c.id FROM email_clients c
        WHERE c.sync_lease_until IS NOT NULL AND (c.sync_lease_until < clock_timestamp() OR NOT EXISTS (
            SELECT 1 FROM executions e WHERE e.id = c.sync_execution_id AND e.outcome IS NULL))
        LIMIT :limit FOR UPDATE SKIP LOCKED
    )
    RETURNING id
    """
)
#: They end by themselves, and the dispatcher publishes their jobs: many of them mean that it doesn't.
_OVERDUE_LEASES: Final = text("SELECT count(*) FROM jobs WHERE state = 'running' AND lease_until < clock_timestamp()")


def _leases(sweep: _Sweep, counts: Counter[str]) -> None:
    with sweep.tools.system.session(SYSTEM) as session:
        counts["overdue_leases"] = session.execute(_OVERDUE_LEASES).scalar_one()

    def free(session: Session) -> dict[str, int]:
        return {"client_leases": len(session.execute(_FREE_CLIENTS, {"limit": sweep.batch}).all())}

    _repeat(sweep, counts, free)


# --- jobs -----------------------------------------------------------------------------------------------------------

_OLD_JOBS: Final = text(
    """
    SELECT id FROM jobs
    WHERE finished_at < :before AND next_publish_at IS NULL AND state IN ('succeeded', 'failed', 'unknown')
    ORDER BY finished_at LIMIT :limit FOR UPDATE SKIP LOCKED
    """
)
_COUNTED: Final = (
    text(EXECUTIONS + "WHERE e.job_id = ANY(:ids) AND e.ended_xid IS NOT NULL"),
    text(APART + "WHERE j.id = ANY(:ids) AND j.apart_xid IS NOT NULL"),
)
_KEEP: Final = text(
    """
    INSERT INTO metric_totals AS m (sample, labels, value, last_xid, folded_xid)
    SELECT s, l, v, CAST(:last_xid AS xid8), pg_current_xact_id()
    FROM unnest(CAST(:samples AS text[]), CAST(:labels AS jsonb[]), CAST(:values AS float8[])) AS t(s, l, v)
    ON CONFLICT (sample, labels) DO UPDATE
    SET value = m.value + excluded.value, last_xid = greatest(m.last_xid, excluded.last_xid),
        folded_xid = excluded.folded_xid
    """
).bindparams(bindparam("labels", type_=ARRAY(JSONB)))
#: One removal after another, and before it has a transaction id: the last one has the highest (see exporter).
_ONE_AT_A_TIME: Final = text("SELECT pg_advisory_xact_lock(hashtextextended('metric_totals', 0))")


def _jobs(sweep: _Sweep, counts: Counter[str]) -> None:
    before = sweep.before(timedelta(days=sweep.tools.settings.retention_days))

    def remove(session: Session) -> dict[str, int]:
        session.execute(_ONE_AT_A_TIME)
        ids = session.execute(_OLD_JOBS, {"before": before, "limit": sweep.batch}).scalars().all()
        executions = _keep_counts(session, ids)
        # Their executions and recipients go with them.
        session.execute(text("DELETE FROM jobs WHERE id = ANY(:ids)"), {"ids": list(ids)})
        counts["executions"] += executions
        return {"jobs": len(ids)}

    _repeat(sweep, counts, remove)


def _keep_counts(session: Session, job_ids: Sequence[uuid.UUID]) -> int:
    """Add what these jobs and their executions come to; answers how many executions they are."""
    found = [session.execute(statement, {"ids": list(job_ids)}).mappings().all() for statement in _COUNTED]
    rows = [dict(row) for rows in found for row in rows]
    if not rows:
        return 0
    fresh = Counts()
    for row in rows:
        fresh.count(row)
    samples = fresh.samples()
    values = {
        "last_xid": str(max(int(row["xid"]) for row in rows)),
        "samples": [name for name, _ in samples],
        "labels": [dict(labels) for _, labels in samples],
        "values": list(samples.values()),
    }
    session.execute(_KEEP, values)
    return len(found[0])


# --- uploads and credentials ----------------------------------------------------------------------------------------

_OLD_UPLOADS: Final = text(
    """
    DELETE FROM email_attachments WHERE id IN (
        SELECT a.id FROM email_attachments a
        WHERE a.message_id IS NULL AND a.created_at < :before AND a.id::text NOT IN (
            SELECT w.id FROM wanted_uploads w WHERE w.id IS NOT NULL)
        ORDER BY a.created_at LIMIT :limit
    )
    RETURNING id
    """
)
#: A send that was accepted while the removal waited for its lock on the upload.
_WANTED: Final = text("SELECT 1 FROM wanted_uploads WHERE id = ANY(:ids) LIMIT 1")
_UNUSED_CREDENTIALS: Final = text(
    """
    DELETE FROM credentials c
    WHERE c.tenant_id = :tenant AND c.created_at < :before
      AND NOT EXISTS (SELECT 1 FROM email_clients WHERE credential_id = c.id)
    RETURNING id
    """
)


def _uploads(sweep: _Sweep, counts: Counter[str]) -> None:
    values = {"before": sweep.before(sweep.grace), "limit": sweep.batch}

    def remove(session: Session) -> dict[str, int]:
        ids = [str(i) for i in session.execute(_OLD_UPLOADS, values).scalars()]
        if session.execute(_WANTED, {"ids": ids}).one_or_none() is not None:
            session.rollback()
            return {"uploads": 0}
        return {"uploads": len(ids)}

    _repeat(sweep, counts, remove)


def _credentials(sweep: _Sweep, counts: Counter[str]) -> None:
    """As each tenant in turn: the system principal can't see them."""
    with sweep.tools.system.session(SYSTEM) as session:
        tenants = session.execute(text("SELECT id FROM tenants ORDER BY id")).scalars().all()
    for tenant in tenants:
        if sweep.late:
            return
        with sweep.tools.database.session(Scope(tenant_id=tenant, user_id=SYSTEM.user_id)) as session:
            values: dict[str, Any] = {"tenant": tenant, "before": sweep.before(sweep.grace)}
            counts["credentials"] += len(session.execute(_UNUSED_CREDENTIALS, values).all())
            session.commit()


# --- blobs ----------------------------------------------------------------------------------------------------------

_NAMED: Final = text("SELECT DISTINCT blob_key FROM email_attachments WHERE blob_key = ANY(:keys)")


def _blobs(sweep: _Sweep, counts: Counter[str]) -> None:
    blobs, before = sweep.tools.blobs, sweep.before(sweep.grace)
    for tenant in blobs.tenants():
        counts["temporaries"] += blobs.sweep(tenant, older_than=before)
        some: list[str] = []
        for blob in blobs.list(tenant, older_than=before, first=sweep.first):
            some.append(blob.key)
            if len(some) == sweep.batch:
                counts["blobs"] += _discard(sweep, tenant, some, before)
                some = []
            if sweep.late:
                return
        counts["blobs"] += _discard(sweep, tenant, some, before)


def _discard(sweep: _Sweep, tenant: str, keys: Sequence[str], before: datetime) -> int:
    """Remove those that no row names; one that is put again meanwhile is kept by the store."""
    with sweep.tools.system.session(SYSTEM) as session:
        named = set(session.execute(_NAMED, {"keys": list(keys)}).scalars())
    orphans = [key for key in keys if key not in named]
    return sweep.tools.blobs.discard(tenant, orphans, older_than=before) if orphans else 0
