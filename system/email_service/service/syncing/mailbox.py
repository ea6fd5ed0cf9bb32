"""Bring one mailbox up to date: the use case behind ``sync_emails``."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import imap, jobs
from email_service.errors import ImapError
from email_service.service.syncing import folders, sent, store
from email_service.service.syncing.access import endpoint_of, time_limit
from email_service.service.syncing.ahead import Ahead
from email_service.service.syncing.columns import Prepared, prepare
from email_service.service.syncing.folders import Folder
from email_service.service.work import Settled, Work, owned_client

_log: Final = logging.getLogger(__name__)

#: Messages that are fetched, parsed and committed together.
BATCH: Final = 200
#: Beyond this a batch is stored before the next is read: a process has 50 MiB for a task, and a byte of mail is there
#: up to five times, as it came, as text, decoded and on its way to PostgreSQL.
HEAVY_BYTES: Final = 5 * 1024 * 1024

_HOLD: Final = text(
    """
    UPDATE email_clients SET sync_execution_id = :execution,
           sync_lease_until = clock_timestamp() + make_interval(secs => :lease_s)
    WHERE id = :client AND tenant_id = :tenant AND (
        sync_lease_until IS NULL OR sync_lease_until < clock_timestamp() OR NOT EXISTS (
            SELECT 1 FROM executions e WHERE e.id = sync_execution_id AND e.outcome IS NULL))
    RETURNING id
    """
)
_RELEASE: Final = text(
    """
    UPDATE email_clients SET last_sync_at = clock_timestamp(), sync_lease_until = NULL, sync_execution_id = NULL
    WHERE id = :client AND tenant_id = :tenant
    """
)
_SYNCED: Final = text(
    "UPDATE email_folders SET synced_at = clock_timestamp() WHERE client_id = :client AND tenant_id = :tenant "
    "AND sync_token IS NOT NULL"
)


@dataclass(frozen=True, kw_only=True)
class _Mailbox:
    """What is needed to read it."""

    endpoint: imap.ImapEndpoint
    #: Whether new mail in the inbox is to be checked.
    spam_check: bool


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What reading it came to."""

    listed: list[Folder]
    #: Folders that the server would not open; and why a later try may change that, if it may.
    refused: int
    again: ImapError | None


def sync_mailbox(work: Work) -> Settled:
    """Bring all folders of the client up to date.

    Raises:
        MailServiceError: its ``transient`` says whether a retry may help; what was read so far is kept.
    """
    mailbox = _begin(work)
    if isinstance(mailbox, str):
        return _settle(work, {"outcome": mailbox, "folders": 0, "messages": 0})
    counts = Counter({name: int(n) for name, n in (work.lease.so_far or {}).items()})
    with time_limit(work, counts):
        seen = _read(work, mailbox, counts)
    if seen.again is not None:
        raise seen.again
    result: dict[str, object] = {
        "outcome": "synced",
        "folders": len(seen.listed),
        "refused": seen.refused,
        **_told(counts),
    }
    return _settle(work, result, seen.listed)


def _begin(work: Work) -> _Mailbox | str:
    """Hold the client; or why not."""
    lease, tools = work.lease, work.tools
    with tools.database.session(lease.scope) as session:
        client = owned_client(session, lease.scope, lease.client_id)
        if not client.enabled:
            return "disabled"
        endpoint = endpoint_of(session, work, client)
        values = {"execution": lease.execution_id, "lease_s": tools.settings.lease_s}
        if session.execute(_HOLD, values | _owner(work)).one_or_none() is None:
            return "already-syncing"
        session.commit()
    return _Mailbox(endpoint=endpoint, spam_check=client.spam_check)


def _read(work: Work, mailbox: _Mailbox, counts: Counter[str]) -> _Seen:
    """All changes of all folders into rows."""
    tools = work.tools
    # The order of the two: the connection ends first, and with it whatever the thread waits for.
    with (
        Ahead[Prepared | ImapError]() as ahead,
        imap.open_session(mailbox.endpoint, tools.settings.mail_timeout_s, tls=tools.tls) as session,
    ):
        remotes = session.folders()
        with tools.database.session(work.lease.scope) as rows:
            jobs.hold(rows, work.lease)
            listed = folders.reconcile(rows, work.lease, remotes)
            rows.commit()
        refused: list[ImapError] = []
        for item in ahead.over(_changes(work, session, listed), is_heavy=_is_heavy):
            if isinstance(item, ImapError):
                refused.append(item)
            else:
                store.commit(work, item, counts, spam_check=mailbox.spam_check)
            del item
    return _Seen(listed=listed, refused=len(refused), again=next((err for err in refused if err.transient), None))


def _is_heavy(item: Prepared | ImapError) -> bool:
    return isinstance(item, Prepared) and item.size_bytes > HEAVY_BYTES


def _changes(work: Work, session: imap.ImapSession, listed: list[Folder]) -> Iterator[Prepared | ImapError]:
    """What is to be written, in order; runs in the thread that reads ahead.

    A folder that the server refuses costs the others nothing; but without its inbox a mailbox is not synchronised.
    """
    for folder in listed:
        if folder.token is not None and folder.token.is_current(folder.remote.status):
            continue
        try:
            yield from _folder_changes(work, session, folder)
        except ImapError as err:
            if not err.refused or folder.remote.type == "inbox":
                raise
            _log.warning("a folder of the kind %s was refused (%s)", folder.remote.type, err.detail)
            yield err


def _folder_changes(work: Work, session: imap.ImapSession, folder: Folder) -> Iterator[Prepared]:
    token, known = folder.token, store.known(work, folder)
    # A batch that was too much for the time limit is halved, and halved again.
    size = max(1, BATCH >> work.lease.failures)
    for batch in session.changes_since(folder.remote.name, folder.token, known, batch=size):
        if batch.reset or batch.messages or batch.flags or batch.vanished or batch.unreadable or batch.token != token:
            token = batch.token
            prepared = prepare(folder, batch, keep_raw=work.tools.settings.keep_raw == "all")
            # Megabytes, which would live on here until the next batch has been read.
            del batch
            yield prepared
            del prepared


def _settle(work: Work, result: dict[str, object], listed: list[Folder] | None = None) -> Settled:
    outcome = str(result["outcome"])
    with work.tools.database.session(work.lease.scope) as session:
        if listed is not None:
            result["settled"] = _finish_folders(session, work, listed)
        ending = work.ending("succeeded")
        jobs.finish(session, work.lease, ending, state="succeeded", outcome=outcome, result=result)
        session.commit()
    return Settled(state="succeeded", outcome=outcome, result=result)


def _finish_folders(session: Session, work: Work, listed: list[Folder]) -> int:
    session.execute(_RELEASE, _owner(work))
    session.execute(_SYNCED, _owner(work))
    found = next((folder.id for folder in listed if folder.remote.type == "sent"), None)
    return sent.meet(session, work.lease, found) if found is not None else 0


def _owner(work: Work) -> dict[str, object]:
    return {"client": work.lease.client_id, "tenant": work.lease.scope.tenant_id}


def _told(counts: Counter[str]) -> dict[str, int]:
    names = ("messages", "flags", "deleted", "broken", "unreadable")
    return {name: counts[name] for name in names}
