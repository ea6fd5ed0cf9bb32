"""What a front end reads: clients, folders, messages and attachments of one scope, as plain values.

Rule 1: every query filters by tenant and user; row-level security is the net below. Rule 2: lists are read page by page
from where the last one ended (never by counting rows), so that a page costs the same at any depth.
Secrets are in no column that is read here. Called by the API.
"""

from __future__ import annotations

import base64
import binascii
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, func, not_, or_, select, tuple_
from sqlalchemy.orm import Session

from email_service.errors import InvalidRequestError, NotFoundError
from email_service.models import EmailAttachment, EmailClient, EmailFolder, EmailMessage
from email_service.tenancy import Scope

#: Characters of the text that a list shows.
PREVIEW_CHARACTERS: Final = 200
#: Folders in the order in which people look for them.
_FOLDER_ORDER: Final = ("inbox", "drafts", "sent", "archive", "spam", "trash", "custom")


@dataclass(frozen=True, kw_only=True)
class MessageFilter:
    """Which messages; None asks for no difference."""

    client_id: uuid.UUID | None = None
    folder_id: uuid.UUID | None = None
    #: Part of subject or sender, without case.
    q: str | None = None
    unseen: bool | None = None
    spam: bool | None = None
    has_attachments: bool | None = None


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """Where the bytes of an attachment are."""

    blob_key: str
    filename: str
    content_type: str
    size_bytes: int
    sha256: bytes


def client(row: EmailClient, *, now: datetime) -> dict[str, Any]:
    """A client as its owner sees it."""
    return {
        "id": str(row.id),
        "address": row.address,
        "username": row.username,
        "auth": row.auth,
        "imap": {"host": row.imap_host, "port": row.imap_port, "encryption": row.imap_encryption},
        "smtp": {"host": row.smtp_host, "port": row.smtp_port, "encryption": row.smtp_encryption},
        "enabled": row.enabled,
        "sync_interval_s": row.sync_interval_s,
        "spam_check": row.spam_check,
        "syncing": row.sync_lease_until is not None and row.sync_lease_until > now,
        "last_sync_at": _time(row.last_sync_at),
        "created_at": _time(row.created_at),
    }


def clients(session: Session, scope: Scope, *, limit: int, cursor: str | None, now: datetime) -> dict[str, Any]:
    """A page of clients, the oldest first.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    query = select(EmailClient).where(EmailClient.tenant_id == scope.tenant_id, EmailClient.user_id == scope.user_id)
    if cursor is not None:
        moment, last = _position(cursor)
        query = query.where(tuple_(EmailClient.created_at, EmailClient.id) > (moment, last))
    rows = session.scalars(query.order_by(EmailClient.created_at, EmailClient.id).limit(limit + 1)).all()
    return {
        "clients": [client(row, now=now) for row in rows[:limit]],
        "cursor": _cursor(rows[limit - 1].created_at, rows[limit - 1].id) if len(rows) > limit else None,
    }


def folders(session: Session, scope: Scope, client_id: uuid.UUID) -> list[dict[str, Any]]:
    """All folders of a client, the inbox first."""
    rows = session.scalars(
        select(EmailFolder).where(
            EmailFolder.client_id == client_id,
            EmailFolder.tenant_id == scope.tenant_id,
            EmailFolder.user_id == scope.user_id,
        )
    )
    return [
        {
            "id": str(row.id),
            "client_id": str(row.client_id),
            "name": row.name,
            "type": row.type,
            "message_count": row.message_count,
            "unseen_count": row.unseen_count,
            "broken_count": row.broken_count,
            "synced_at": _time(row.synced_at),
        }
        for row in sorted(rows, key=lambda row: (_FOLDER_ORDER.index(row.type), row.name))
    ]


_SUMMARY: Final = (
    EmailMessage.id, EmailMessage.client_id, EmailMessage.folder_id, EmailMessage.message_id, EmailMessage.sender,
    EmailMessage.recipients_to, EmailMessage.recipients_cc, EmailMessage.subject, EmailMessage.flags,
    EmailMessage.size_bytes, EmailMessage.internal_date, EmailMessage.sent_at, EmailMessage.attachment_count,
    EmailMessage.is_sent, EmailMessage.is_spam, EmailMessage.spam_score, EmailMessage.is_broken,
)  # fmt: skip
_PREVIEW: Final = func.left(EmailMessage.body_text, PREVIEW_CHARACTERS).label("preview")


def messages(
    session: Session, scope: Scope, wanted: MessageFilter, *, limit: int, cursor: str | None
) -> dict[str, Any]:
    """A page of messages, the newest first; those without a date come last.

    Raises:
        InvalidRequestError: the cursor is not one of ours.
    """
    date, key = EmailMessage.internal_date, EmailMessage.id
    moment, last = _position(cursor) if cursor is not None else (None, None)
    base = select(*_SUMMARY, _PREVIEW).where(*_conditions(scope, wanted))
    rows: list[Any] = []
    # Two ranges of one index instead of an OR, which would read it from its beginning.
    if cursor is None or moment is not None:
        dated = base.where(date.is_not(None))
        if moment is not None:
            dated = dated.where(tuple_(date, key) < (moment, last))
        rows += session.execute(dated.order_by(date.desc().nulls_last(), key.desc()).limit(limit + 1))
    if len(rows) <= limit:
        undated = base.where(date.is_(None))
        if moment is None and last is not None:
            undated = undated.where(key < last)
        rows += session.execute(undated.order_by(key.desc()).limit(limit + 1 - len(rows)))
    more = len(rows) > limit
    return {
        "messages": [_summary(row) | {"preview": row.preview} for row in rows[:limit]],
        "cursor": _cursor(rows[limit - 1].internal_date, rows[limit - 1].id) if more else None,
    }


def _conditions(scope: Scope, wanted: MessageFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [
        EmailMessage.tenant_id == scope.tenant_id,
        EmailMessage.user_id == scope.user_id,
    ]
    if wanted.client_id is not None:
        found.append(EmailMessage.client_id == wanted.client_id)
    if wanted.folder_id is not None:
        found.append(EmailMessage.folder_id == wanted.folder_id)
    if wanted.q:
        part = "%" + wanted.q.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%"
        found.append(or_(EmailMessage.subject.ilike(part, escape="\\"), EmailMessage.sender.ilike(part, escape="\\")))
    if wanted.unseen is not None:
        seen = EmailMessage.flags.contains(["\\Seen"])
        found.append(not_(seen) if wanted.unseen else seen)
    if wanted.spam is not None:
        found.append(EmailMessage.is_spam.is_(wanted.spam))
    if wanted.has_attachments is not None:
        has = EmailMessage.attachment_count > 0
        found.append(has if wanted.has_attachments else not_(has))
    return found


def _summary(row: Any) -> dict[str, Any]:
    return {
        "id": str(row.id),
        "client_id": str(row.client_id),
        "folder_id": str(row.folder_id),
        "message_id": row.message_id,
        "from": row.sender,
        "to": row.recipients_to,
        "cc": row.recipients_cc,
        "subject": row.subject,
        "flags": row.flags,
        "unseen": "\\Seen" not in row.flags,
        "size_bytes": row.size_bytes,
        "internal_date": _time(row.internal_date),
        "sent_at": _time(row.sent_at),
        "attachment_count": row.attachment_count,
        "is_sent": row.is_sent,
        "is_spam": row.is_spam,
        "spam_score": row.spam_score,
        "is_broken": row.is_broken,
    }


def message(session: Session, scope: Scope, message_id: uuid.UUID) -> dict[str, Any]:
    """A message with its bodies, headers and attachments. Its HTML is what somebody wrote: data, never to be trusted.

    Raises:
        NotFoundError: there is none in this scope.
    """
    row = session.execute(
        select(
            *_SUMMARY, EmailMessage.recipients_bcc, EmailMessage.body_text, EmailMessage.body_html,
            EmailMessage.headers, EmailMessage.spam_indicators, EmailMessage.spam_checked_at,
            EmailMessage.raw.is_not(None).label("has_raw"),
        ).where(*_owned(scope, message_id))
    ).one_or_none()  # fmt: skip
    if row is None:
        raise NotFoundError(f"message {message_id}")
    return _summary(row) | {
        "bcc": row.recipients_bcc,
        "text": row.body_text,
        "html": row.body_html,
        "headers": [[str(name), str(value)] for name, value in row.headers],
        "spam_indicators": row.spam_indicators,
        "spam_checked_at": _time(row.spam_checked_at),
        "has_raw": row.has_raw,
        "attachments": _attachments(session, scope, EmailAttachment.message_id == message_id),
    }


def raw_message(session: Session, scope: Scope, message_id: uuid.UUID) -> bytes:
    """The bytes as they came.

    Raises:
        NotFoundError: there is no such message, or its bytes were not kept (MAIL_KEEP_RAW).
    """
    row = session.execute(select(EmailMessage.raw).where(*_owned(scope, message_id))).one_or_none()
    if row is None:
        raise NotFoundError(f"message {message_id}")
    if row.raw is None:
        raise NotFoundError(f"the bytes of message {message_id} were not kept; MAIL_KEEP_RAW=all keeps all")
    return bytes(row.raw)


def message_clients(
    session: Session, scope: Scope, message_ids: Sequence[uuid.UUID]
) -> dict[uuid.UUID, list[uuid.UUID]]:
    """The messages by client, each once and in their order.

    Raises:
        NotFoundError: names the first that is not there.
    """
    rows = session.execute(
        select(EmailMessage.id, EmailMessage.client_id).where(
            EmailMessage.id.in_(message_ids),
            EmailMessage.tenant_id == scope.tenant_id,
            EmailMessage.user_id == scope.user_id,
        )
    )
    owners = {row.id: row.client_id for row in rows}
    found: dict[uuid.UUID, list[uuid.UUID]] = {}
    for message_id in dict.fromkeys(message_ids):
        if message_id not in owners:
            raise NotFoundError(f"message {message_id}")
        found.setdefault(owners[message_id], []).append(message_id)
    return dict(sorted(found.items()))


def attachments(session: Session, scope: Scope, message_id: uuid.UUID) -> list[dict[str, Any]]:
    """The attachments of a message.

    Raises:
        NotFoundError: there is no such message in this scope.
    """
    if session.execute(select(EmailMessage.id).where(*_owned(scope, message_id))).one_or_none() is None:
        raise NotFoundError(f"message {message_id}")
    return _attachments(session, scope, EmailAttachment.message_id == message_id)


def attachment(session: Session, scope: Scope, attachment_id: uuid.UUID) -> dict[str, Any]:
    """One attachment, or an upload.

    Raises:
        NotFoundError: there is none in this scope.
    """
    found = _attachments(session, scope, EmailAttachment.id == attachment_id)
    if not found:
        raise NotFoundError(f"attachment {attachment_id}")
    return found[0]


def stored_file(session: Session, scope: Scope, attachment_id: uuid.UUID) -> StoredFile:
    """Where the bytes of an attachment are.

    Raises:
        NotFoundError: there is none in this scope.
    """
    row = session.scalars(
        select(EmailAttachment).where(
            EmailAttachment.id == attachment_id,
            EmailAttachment.tenant_id == scope.tenant_id,
            EmailAttachment.user_id == scope.user_id,
        )
    ).one_or_none()
    if row is None:
        raise NotFoundError(f"attachment {attachment_id}")
    return StoredFile(
        blob_key=row.blob_key,
        filename=row.filename,
        content_type=row.content_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
    )


def _attachments(session: Session, scope: Scope, which: ColumnElement[bool]) -> list[dict[str, Any]]:
    rows = session.scalars(
        select(EmailAttachment)
        .where(which, EmailAttachment.tenant_id == scope.tenant_id, EmailAttachment.user_id == scope.user_id)
        .order_by(EmailAttachment.created_at, EmailAttachment.id)
    )
    return [attachment_values(row) for row in rows]


def attachment_values(row: EmailAttachment) -> dict[str, Any]:
    """An attachment without its bytes."""
    return {
        "id": str(row.id),
        "message_id": str(row.message_id) if row.message_id else None,
        "filename": row.filename,
        "content_type": row.content_type,
        "content_id": row.content_id,
        "inline": bool(row.inline),
        "size_bytes": row.size_bytes,
        "sha256": row.sha256.hex(),
    }


def _owned(scope: Scope, message_id: uuid.UUID) -> tuple[ColumnElement[bool], ...]:
    return (
        and_(EmailMessage.id == message_id, EmailMessage.tenant_id == scope.tenant_id),
        EmailMessage.user_id == scope.user_id,
    )


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _cursor(moment: datetime | None, last: uuid.UUID) -> str:
    place = [None if moment is None else moment.astimezone(UTC).isoformat(), str(last)]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _position(cursor: str) -> tuple[datetime | None, uuid.UUID]:
    try:
        moment, last = json.loads(base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True))
        found = None if moment is None else datetime.fromisoformat(moment).astimezone(UTC)
        return found, uuid.UUID(last)
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error) as err:
        raise InvalidRequestError("cursor: use that of the last answer, or leave it out") from err
