"""A batch into rows: its changes and the token that speaks for them in one commit, fenced by the lease.

Rule 1: each step can be done twice with the same end (``imap.Batch`` says in which order).
Rule 2: whoever changes which messages a folder has, holds the folder's row first: synchronising and deleting do not
cross. Rule 3: a message that PostgreSQL refuses is kept as it came, marked and counted; it never stops a mailbox.
Called by ``mailbox``.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias

from sqlalchemy import CursorResult, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import TextClause

from email_service import imap, jobs, policy, telemetry
from email_service.errors import NotFoundError
from email_service.jobs import NewJob
from email_service.service.syncing import folders
from email_service.service.syncing.columns import (
    ATTACHMENT_COLUMNS,
    MESSAGE_COLUMNS,
    Columns,
    Prepared,
    flags_json,
    flags_of,
)
from email_service.service.syncing.folders import Folder
from email_service.service.work import Work

_log: Final = logging.getLogger(__name__)

#: Classes of SQLSTATE that are about the values: data, integrity, and what exceeds a limit of the server.
_REFUSALS: Final = ("22", "23", "54")


#: Ids of new rows, and whether each is broken.
_New: TypeAlias = dict[uuid.UUID, bool]


class _RefusedError(Exception):
    """PostgreSQL refused the values of a batch."""

    def __init__(self, sqlstate: str) -> None:
        super().__init__(sqlstate)
        self.sqlstate = sqlstate


def _arrays(columns: Mapping[str, str]) -> str:
    """``unnest`` of one parameter a column; JSON travels as text."""
    return ", ".join(f"CAST(:{name} AS {'text' if kind == 'jsonb' else kind}[])" for name, kind in columns.items())


def _values(columns: Mapping[str, str]) -> str:
    return ", ".join(f"u.{name}::jsonb" if kind == "jsonb" else f"u.{name}" for name, kind in columns.items())


_INSERT_MESSAGES: Final = text(
    f"""
    INSERT INTO email_messages (tenant_id, user_id, client_id, folder_id, uidvalidity, {", ".join(MESSAGE_COLUMNS)})
    SELECT :tenant, :user, CAST(:client AS uuid), CAST(:folder AS uuid), CAST(:uidvalidity AS bigint),
           {_values(MESSAGE_COLUMNS)}
    FROM unnest({_arrays(MESSAGE_COLUMNS)}) AS u({", ".join(MESSAGE_COLUMNS)})
    ON CONFLICT (folder_id, uidvalidity, uid) DO UPDATE SET flags = excluded.flags
    WHERE email_messages.flags IS DISTINCT FROM excluded.flags
    RETURNING id, is_broken
    """  # noqa: S608  # made of the constants above
)
_INSERT_ATTACHMENTS: Final = text(
    f"""
    INSERT INTO email_attachments (tenant_id, user_id, {", ".join(ATTACHMENT_COLUMNS)})
    SELECT :tenant, :user, {_values(ATTACHMENT_COLUMNS)}
    FROM unnest({_arrays(ATTACHMENT_COLUMNS)}) AS u({", ".join(ATTACHMENT_COLUMNS)})
    WHERE EXISTS (SELECT 1 FROM email_messages m WHERE m.id = u.message_id)
    """  # noqa: S608  # as above
)
_UPDATE_FLAGS: Final = text(
    """
    UPDATE email_messages m SET flags = u.flags::jsonb
    FROM unnest(CAST(:uids AS bigint[]), CAST(:flags AS text[])) AS u(uid, flags)
    WHERE m.folder_id = :folder AND m.uidvalidity = :uidvalidity AND m.uid = u.uid
      AND m.flags IS DISTINCT FROM u.flags::jsonb
    """
)
_DELETE_VANISHED: Final = text(
    """
    DELETE FROM email_messages m USING unnest(CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])) AS gone(first, last)
    WHERE m.folder_id = :folder AND m.uidvalidity = :uidvalidity AND m.uid BETWEEN gone.first AND gone.last
    """
)
_DELETE_ALL: Final = text("DELETE FROM email_messages WHERE folder_id = :folder AND uid IS NOT NULL")
_TOKEN: Final = text("UPDATE email_folders SET sync_token = :token WHERE id = :folder RETURNING 1").bindparams(
    bindparam("token", type_=JSONB)
)
_GROW: Final = text("UPDATE email_folders SET message_count = message_count + :new WHERE id = :folder")
_KNOWN: Final = text(
    """
    SELECT uid, flags::text AS flags FROM email_messages
    WHERE folder_id = :folder AND uidvalidity = :uidvalidity AND uid BETWEEN :first AND :last
    """
)


def known(work: Work, folder: Folder) -> imap.Known:
    """What the rows say, for the engine to compare with; asked for only where the server can't tell what changed."""

    def flags_between(first: int, last: int) -> dict[int, imap.Flags]:
        assert folder.token is not None, "a folder without a token has nothing to compare"  # noqa: S101
        values = {"folder": folder.id, "uidvalidity": folder.token.uidvalidity, "first": first, "last": last}
        with work.tools.database.session(work.lease.scope) as session:
            return {uid: flags_of(flags) for uid, flags in session.execute(_KNOWN, values)}

    return flags_between


def commit(work: Work, prepared: Prepared, counts: Counter[str], *, spam_check: bool) -> None:
    """Write the batch, and add to ``counts`` what it changed.

    Raises:
        LeaseLostError: this execution no longer owns its job: nothing was written.
        NotFoundError: the folder's row is gone: somebody removed the client.
        BlobError: the attachments can't be stored.
    """
    # Before the transaction: a row never lacks its blob, and no lock is held meanwhile.
    prepared = prepared.stored(functools.partial(work.tools.blobs.put_many, work.lease.scope.tenant_id))
    try:
        changes = _commit(work, prepared, counts, spam_check=spam_check, insert=_insert)
    except _RefusedError as err:
        _log.warning("PostgreSQL refused a batch of %d (%s): one by one", len(prepared.uids), err.sqlstate)
        changes = _commit(work, prepared, counts, spam_check=spam_check, insert=_insert_one_by_one)
    counts.update(changes)


def _commit(
    work: Work,
    prepared: Prepared,
    counts: Counter[str],
    *,
    spam_check: bool,
    insert: Callable[[Session, Work, Prepared], _New],
) -> Counter[str]:
    folder = prepared.folder
    with work.tools.database.session(work.lease.scope) as session:
        _take(session, prepared)
        changes = _change(session, prepared)
        new = insert(session, work, prepared)
        changes.update(messages=len(new), broken=sum(new.values()), unreadable=prepared.raws.count(None))
        if new and spam_check and folder.remote.type == "inbox":
            _ask_for_spam_check(session, work, prepared, new)
        if prepared.batch.more:
            session.execute(_GROW, {"folder": folder.id, "new": len(new)})
        else:
            folders.recount(session, [folder.id])
        jobs.progress(session, work.lease, counts + changes)
        session.commit()
    return changes


def _take(session: Session, prepared: Prepared) -> None:
    """Hold the folder's row, and give it the token."""
    values = {"folder": prepared.folder.id, "token": prepared.batch.token.to_json()}
    if session.execute(_TOKEN, values).one_or_none() is None:
        raise NotFoundError(f"folder {prepared.folder.id}")


def _change(session: Session, prepared: Prepared) -> Counter[str]:
    """What became of older messages: none of them is left, some are gone, some have other flags."""
    batch = prepared.batch
    place = {"folder": prepared.folder.id, "uidvalidity": batch.uidvalidity}
    changes: Counter[str] = Counter()
    if batch.reset:
        changes["deleted"] += _count(session, _DELETE_ALL, {"folder": prepared.folder.id})
    if batch.vanished:
        ends = {"firsts": [gone.start for gone in batch.vanished], "lasts": [gone.stop - 1 for gone in batch.vanished]}
        changes["deleted"] += _count(session, _DELETE_VANISHED, place | ends)
    if batch.flags:
        flags = {"uids": list(batch.flags), "flags": [flags_json(value) for value in batch.flags.values()]}
        changes["flags"] += _count(session, _UPDATE_FLAGS, place | flags)
    return changes


def _count(session: Session, statement: TextClause, values: Mapping[str, Any]) -> int:
    result = session.execute(statement, values)
    assert isinstance(result, CursorResult)  # noqa: S101  # for the type checker: text always gives one
    return result.rowcount


def _insert(session: Session, work: Work, prepared: Prepared) -> _New:
    """All new messages and their attachments; answers which were not there yet.

    Raises:
        _RefusedError: PostgreSQL takes one of them as an affront, and does not say which.
    """
    try:
        new = _insert_messages(session, work, prepared, prepared.messages)
        if prepared.attachments["id"]:
            owner = {"tenant": work.lease.scope.tenant_id, "user": work.lease.scope.user_id}
            session.execute(_INSERT_ATTACHMENTS, {**owner, **prepared.attachments})
    except DBAPIError as err:
        sqlstate = getattr(err.orig, "sqlstate", None) or ""
        # Without a state it was refused before it was sent: a text with a NUL.
        if sqlstate[:2] in _REFUSALS or (isinstance(err, DataError) and not sqlstate):
            raise _RefusedError(sqlstate) from err
        raise
    return new


def _insert_messages(session: Session, work: Work, prepared: Prepared, columns: Columns) -> _New:
    if not columns["id"]:
        return {}
    scope = work.lease.scope
    owner = {
        "tenant": scope.tenant_id,
        "user": scope.user_id,
        "client": work.lease.client_id,
        "folder": prepared.folder.id,
        "uidvalidity": prepared.batch.uidvalidity,
    }
    ours = set(columns["id"])
    # A row that was there and got other flags comes back too, under its own id.
    return {
        row_id: broken for row_id, broken in session.execute(_INSERT_MESSAGES, {**owner, **columns}) if row_id in ours
    }


def _insert_one_by_one(session: Session, work: Work, prepared: Prepared) -> _New:
    """Each message by itself; one that is refused is kept as it came."""
    new: _New = {}
    for one in prepared.singles():
        try:
            with session.begin_nested():
                new |= _insert(session, work, one)
        except _RefusedError as err:
            _log.warning("message %d can't be stored as it says it is (%s)", one.uids[0], err.sqlstate)
            new |= _insert_messages(session, work, one, one.bare())
    return new


def _ask_for_spam_check(session: Session, work: Work, prepared: Prepared, new: _New) -> None:
    """A job for what came into the inbox, born with its rows."""
    lease, batch = work.lease, prepared.batch
    ids = [str(row_id) for row_id in prepared.messages["id"] if row_id in new]
    place = f"{prepared.folder.id}:{batch.uidvalidity}:{prepared.uids[0]}-{prepared.uids[-1]}"
    job = NewJob(
        id=uuid.uuid4(),
        name="email_service.tasks.check_spam",
        args={"message_ids": ids},
        client_id=lease.client_id,
        parent_job_id=lease.job_id,
        idempotency_key=f"spam:{place}",
        request=b"",
    )
    queue = policy.TASKS[job.name].queue
    with telemetry.publish_span(queue, str(job.id), job.name, tenant_id=lease.scope.tenant_id) as span:
        job = replace(job, traceparent=telemetry.traceparent(span))
        jobs.enqueue(session, lease.scope, job, time_scale=work.tools.settings.time_scale, publish=False)
