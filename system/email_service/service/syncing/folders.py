"""The folders of a mailbox and their rows: paired by name, kind, UIDVALIDITY. Called by ``mailbox``, ``deleting``.

Rule 1: a row goes only after a list that names INBOX: an empty list is a server's bad day.
Rule 2: there is always one row of the kind ``sent``: what is sent from here needs a place.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from email_service import imap
from email_service.jobs import Lease
from email_service.models import EmailFolder, EmailMessage

#: What a user waits for comes first.
_ORDER: Final = ("inbox", "sent", "drafts", "archive", "custom", "spam", "trash")
#: The name of a sent folder that the server does not have (yet).
SENT: Final = "Sent"
#: The name is a key of an index; a server that gives longer ones has no user who could read them.
_NAME_BYTES_MAX: Final = 1000


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder on the server and its row."""

    id: uuid.UUID
    remote: imap.RemoteFolder
    #: None before the first synchronisation.
    token: imap.SyncToken | None


def reconcile(session: Session, lease: Lease, remotes: Sequence[imap.RemoteFolder]) -> list[Folder]:
    """Bring the rows in line with the server's list; in the order in which they are to be read. The caller commits."""
    remotes = [remote for remote in remotes if len(remote.name.encode()) <= _NAME_BYTES_MAX]
    query = select(EmailFolder).where(EmailFolder.client_id == lease.client_id, EmailFolder.tenant_id == _tenant(lease))
    rows = list(session.scalars(query.order_by(EmailFolder.id).with_for_update()))
    pairs = _pairs(rows, remotes)
    for remote in remotes:
        if remote.name not in pairs:
            pairs[remote.name] = new_row(session, lease, remote.name, remote.type)
    left = [row for row in rows if row not in pairs.values()]
    before = [row for row in rows if row.type == "sent"]
    for remote in remotes:
        pairs[remote.name].name, pairs[remote.name].type = remote.name, remote.type
    session.flush()
    sent = _keep_sent(session, lease, before, [*pairs.values(), *left])
    if any(remote.type == "inbox" for remote in remotes):
        _drop(session, left, sent)
    ordered = sorted(remotes, key=lambda remote: _ORDER.index(remote.type))
    return [Folder(id=pairs[r.name].id, remote=r, token=_token(pairs[r.name])) for r in ordered]


def new_row(session: Session, lease: Lease, name: str, kind: str) -> EmailFolder:
    """A row for a folder; the caller commits."""
    row = EmailFolder(
        id=uuid.uuid4(),
        tenant_id=lease.scope.tenant_id,
        user_id=lease.scope.user_id,
        client_id=lease.client_id,
        name=name,
        type=kind,
    )
    session.add(row)
    return row


_RECOUNT: Final = text(
    """
    UPDATE email_folders f SET message_count = c.messages, unseen_count = c.unseen, broken_count = c.broken
    FROM unnest(CAST(:ids AS uuid[])) AS wanted(id), LATERAL (
        SELECT count(*) AS messages, count(*) FILTER (WHERE NOT flags @> '["\\\\Seen"]') AS unseen,
               count(*) FILTER (WHERE is_broken) AS broken
        FROM email_messages m WHERE m.folder_id = wanted.id
    ) c
    WHERE f.id = wanted.id
    """
)


def recount(session: Session, folder_ids: Iterable[uuid.UUID]) -> None:
    """Make the folders' counts true: counted, not added up, so that no mistake lasts."""
    session.execute(_RECOUNT, {"ids": list(folder_ids)})


def _tenant(lease: Lease) -> str:
    return lease.scope.tenant_id


def _token(row: EmailFolder) -> imap.SyncToken | None:
    return imap.SyncToken.from_json(row.sync_token) if row.sync_token else None


def _pairs(rows: Sequence[EmailFolder], remotes: Sequence[imap.RemoteFolder]) -> dict[str, EmailFolder]:
    """Rows by the name of their remote folder."""
    by_name = {row.name: row for row in rows}
    pairs = {remote.name: by_name[remote.name] for remote in remotes if remote.name in by_name}
    left = [row for row in rows if row not in pairs.values()]
    for remote in remotes:
        if remote.name not in pairs and (row := _other_name(remote, left) or _renamed(remote, left, rows, remotes)):
            pairs[remote.name] = row
            left.remove(row)
    return pairs


def _other_name(remote: imap.RemoteFolder, left: Iterable[EmailFolder]) -> EmailFolder | None:
    """The sent folder that was made before the first synchronisation takes the server's name for it."""
    if remote.type != "sent":
        return None
    return next((row for row in left if row.type == "sent" and row.sync_token is None), None)


def _renamed(
    remote: imap.RemoteFolder,
    left: Iterable[EmailFolder],
    rows: Iterable[EmailFolder],
    remotes: Iterable[imap.RemoteFolder],
) -> EmailFolder | None:
    """The row whose folder now bears this name: its messages need not come again.

    UIDVALIDITY goes with a renamed folder (RFC 3501 section 6.3.5), but is not unique in a mailbox: it proves
    something only where no other folder has it, here or there, and no UID has been lost.
    """
    value = _uidvalidity(remote)
    ours, theirs = Counter(t.uidvalidity for t in map(_token, rows) if t), Counter(map(_uidvalidity, remotes))
    if value is None or ours[value] != 1 or theirs[value] != 1 or remote.status is None:
        return None
    uidnext = remote.status.uidnext or 0
    return next((r for r in left if (t := _token(r)) and t.uidvalidity == value and t.last_uid < uidnext), None)


def _uidvalidity(remote: imap.RemoteFolder) -> int | None:
    return remote.status.uidvalidity if remote.status else None


def _keep_sent(
    session: Session, lease: Lease, before: Iterable[EmailFolder], after: Sequence[EmailFolder]
) -> EmailFolder:
    """The row of the sent folder; what has no UID yet is in it."""
    row = next((row for row in after if row.type == "sent"), None)
    if row is None:
        taken = {row.name for row in after}
        row = new_row(session, lease, SENT if SENT not in taken else f"{SENT} (here)", "sent")
        session.flush()
    elsewhere = [other.id for other in before if other.id != row.id]
    if elsewhere:
        session.execute(
            text(
                "UPDATE email_messages SET folder_id = :sent WHERE folder_id = ANY(:elsewhere) AND uid IS NULL "
                "AND message_id NOT IN (SELECT message_id FROM email_messages WHERE folder_id = :sent AND uid IS NULL)"
            ),
            {"sent": row.id, "elsewhere": elsewhere},
        )
    return row


def _drop(session: Session, left: Iterable[EmailFolder], sent: EmailFolder) -> None:
    """Folders that the server has no more; the sent folder stays, without what was synchronised."""
    for row in left:
        if row is not sent:
            session.delete(row)
        elif row.sync_token is not None:
            session.execute(delete(EmailMessage).where(EmailMessage.folder_id == row.id, EmailMessage.uid.is_not(None)))
            row.sync_token = None
    session.flush()
