"""Turn a mailbox into rows: incremental by UID and UIDVALIDITY, rows and token in one commit per batch.

Rule 1: a message's identity is (folder, UIDVALIDITY, UID), so reading it twice changes nothing.
Rule 2: the token is committed with the rows that it speaks for: whatever kills a sync, the next goes on from there.
Rule 3: one execution at a time holds a client; a second one says so and does nothing.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from email_service import imap, jobs, message
from email_service.models import EmailAttachment, EmailClient, EmailFolder, EmailMessage
from email_service.service.work import Settled, Tools, Work, check_host, owned_client, password_of
from email_service.tenancy import SYSTEM, Scope

#: Messages that are fetched, parsed and committed together.
BATCH: int = 100


@dataclass(frozen=True, kw_only=True)
class DueClient:
    """A client whose interval has passed."""

    id: uuid.UUID
    scope: Scope


def due_clients(tools: Tools) -> list[DueClient]:
    """Enabled clients that are due and that no unsettled job synchronises; read as the system principal."""
    query = text(
        """
        SELECT c.id, c.tenant_id, c.user_id FROM email_clients c
        WHERE c.enabled AND (c.last_sync_at IS NULL
              OR c.last_sync_at + make_interval(secs => c.sync_interval_s * :scale) <= now())
          AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.client_id = c.id AND j.name = :name
                          AND j.state IN ('queued', 'waiting', 'running'))
        ORDER BY c.last_sync_at NULLS FIRST, c.id
        """
    )
    values = {"scale": tools.settings.time_scale, "name": "email_service.tasks.sync_emails"}
    with tools.system.session(SYSTEM) as session:
        return [
            DueClient(id=row.id, scope=Scope(tenant_id=row.tenant_id, user_id=row.user_id))
            for row in session.execute(query, values)
        ]


def sync_mailbox(work: Work) -> Settled:
    """Bring all folders of the client up to date.

    Raises:
        MailServiceError: its ``transient`` says whether a retry may help; what was read so far is kept.
    """
    endpoint = _begin(work)
    if endpoint is None:
        return _finish(work, outcome="already-syncing", folders=0, messages=0)
    count = 0
    with imap.open_session(endpoint, timeout_s=work.tools.settings.mail_timeout_s) as session:
        folders = session.folders()
        for remote in folders:
            count += _sync_folder(work, session, remote)
    return _finish(work, outcome="synced", folders=len(folders), messages=count)


def _begin(work: Work) -> imap.ImapEndpoint | None:
    """Hold the client; None when a living execution already does."""
    lease, tools = work.lease, work.tools
    with tools.database.session(lease.scope) as session:
        client = owned_client(session, lease.scope, lease.client_id)
        check_host(tools.settings, client.imap_host, client.imap_port)
        taken = session.execute(
            text(
                "UPDATE email_clients SET sync_execution_id = :execution, "
                "sync_lease_until = clock_timestamp() + make_interval(secs => :lease_s) "
                "WHERE id = :client AND tenant_id = :tenant AND (sync_lease_until IS NULL "
                "OR sync_lease_until < clock_timestamp() OR NOT EXISTS (SELECT 1 FROM executions e "
                "WHERE e.id = sync_execution_id AND e.outcome IS NULL)) RETURNING id"
            ),
            {
                "execution": lease.execution_id,
                "lease_s": tools.settings.lease_s,
                "client": client.id,
                "tenant": lease.scope.tenant_id,
            },
        ).one_or_none()
        password = password_of(session, tools.vault, client)
        session.commit()
    if taken is None:
        return None
    return imap.ImapEndpoint(
        host=client.imap_host,
        port=client.imap_port,
        encryption=client.imap_encryption,
        username=client.username,
        password=password,
    )


def _sync_folder(work: Work, session: imap.ImapSession, remote: imap.RemoteFolder) -> int:
    folder_id, token = _folder(work, remote)
    count = 0
    for batch in session.changes_since(remote.name, token, lambda _first, _last: {}, batch=BATCH):
        _store(work, folder_id, remote, batch)
        count += len(batch.messages)
    return count


def _folder(work: Work, remote: imap.RemoteFolder) -> tuple[uuid.UUID, imap.SyncToken | None]:
    """The row of a remote folder; the sent folder that was made before the first sync takes the server's name."""
    scope = work.lease.scope
    with work.tools.database.session(scope) as session:
        rows = session.scalars(select(EmailFolder).where(EmailFolder.client_id == work.lease.client_id)).all()
        row = next((r for r in rows if r.name == remote.name), None)
        if row is None and remote.type == "sent":
            row = next((r for r in rows if r.type == "sent" and r.sync_token is None), None)
        if row is None:
            row = EmailFolder(
                id=uuid.uuid4(),
                tenant_id=scope.tenant_id,
                user_id=scope.user_id,
                client_id=work.lease.client_id,
                name=remote.name,
                type=remote.type,
            )
            session.add(row)
        row.name = remote.name
        session.commit()
        return row.id, imap.SyncToken.from_json(row.sync_token) if row.sync_token else None


def _store(work: Work, folder_id: uuid.UUID, remote: imap.RemoteFolder, batch: imap.Batch) -> None:
    """Rows and token in one commit, fenced by the lease."""
    parsed = [(m, message.parse(m.raw)) for m in batch.messages]
    scope = work.lease.scope
    with work.tools.database.session(scope) as session:
        jobs.hold(session, work.lease)
        if batch.reset:
            # UIDs of another UIDVALIDITY name nothing any more (RFC 3501 section 2.3.1.1).
            session.execute(
                delete(EmailMessage).where(
                    EmailMessage.folder_id == folder_id,
                    EmailMessage.uid.is_not(None),
                    EmailMessage.uidvalidity != batch.uidvalidity,
                )
            )
        if remote.type == "sent":
            _merge_sent(session, folder_id, batch, parsed)
        rows = [_message_row(work, folder_id, batch.uidvalidity, m, p) for m, p in parsed]
        _insert(session, work, rows, parsed)
        session.execute(
            update(EmailFolder)
            .where(EmailFolder.id == folder_id)
            .values(
                sync_token=batch.token.to_json(),
                message_count=select(func.count()).where(EmailMessage.folder_id == folder_id).scalar_subquery(),
            )
            .execution_options(synchronize_session=False)
        )
        session.commit()


def _message_row(
    work: Work, folder_id: uuid.UUID, uidvalidity: int, remote: imap.RemoteMessage, parsed: message.ParsedMessage
) -> dict[str, Any]:
    scope = work.lease.scope
    return {
        "id": uuid.uuid4(),
        "tenant_id": scope.tenant_id,
        "user_id": scope.user_id,
        "client_id": work.lease.client_id,
        "folder_id": folder_id,
        "uidvalidity": uidvalidity,
        "uid": remote.uid,
        "message_id": parsed.message_id,
        "sender": parsed.from_,
        "recipients_to": list(parsed.to),
        "recipients_cc": list(parsed.cc),
        "subject": parsed.subject,
        "body_text": parsed.text,
        "body_html": parsed.html,
        "headers": [list(pair) for pair in parsed.headers],
        "flags": list(remote.flags),
        "size_bytes": remote.size_bytes,
        "sha256": hashlib.sha256(remote.raw).digest(),
        "raw": remote.raw,
        "internal_date": remote.internal_date,
        "is_broken": parsed.broken,
        "is_sent": False,
    }


def _insert(
    session: Session,
    work: Work,
    rows: list[dict[str, Any]],
    parsed: Iterable[tuple[imap.RemoteMessage, message.ParsedMessage]],
) -> None:
    if not rows:
        return
    new = set(
        session.scalars(
            insert(EmailMessage)
            .on_conflict_do_nothing(index_elements=["folder_id", "uidvalidity", "uid"])
            .returning(EmailMessage.id),
            rows,
        )
    )
    attachments = [
        _attachment_row(work, row["id"], attachment)
        for row, (_, mail) in zip(rows, parsed, strict=True)
        if row["id"] in new
        for attachment in mail.attachments
    ]
    if attachments:
        session.execute(insert(EmailAttachment), attachments)


def _attachment_row(work: Work, message_id: uuid.UUID, attachment: message.ParsedAttachment) -> dict[str, Any]:
    scope = work.lease.scope
    ref = work.tools.blobs.put(scope.tenant_id, attachment.data)
    return {
        "id": uuid.uuid4(),
        "tenant_id": scope.tenant_id,
        "user_id": scope.user_id,
        "message_id": message_id,
        "blob_key": ref.key,
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "content_id": attachment.content_id,
        "inline": attachment.inline,
        "size_bytes": ref.size_bytes,
        "sha256": bytes.fromhex(ref.sha256),
    }


def _merge_sent(
    session: Session,
    folder_id: uuid.UUID,
    batch: imap.Batch,
    parsed: Iterable[tuple[imap.RemoteMessage, message.ParsedMessage]],
) -> None:
    """A message that we sent shows up with a UID: its local row takes it, and what was unknown is known to be sent."""
    for remote, mail in parsed:
        if mail.message_id is None:
            continue
        session.execute(
            update(EmailMessage)
            .where(
                EmailMessage.folder_id == folder_id,
                EmailMessage.message_id == mail.message_id,
                EmailMessage.uid.is_(None),
            )
            .values(uid=remote.uid, uidvalidity=batch.uidvalidity, flags=list(remote.flags))
            .execution_options(synchronize_session=False)
        )
        session.execute(
            text(
                "UPDATE recipients SET state = 'sent', updated_at = clock_timestamp() WHERE state = 'unknown' "
                "AND job_id IN (SELECT id FROM jobs WHERE message_id = :message_id)"
            ),
            {"message_id": mail.message_id},
        )


def _finish(work: Work, *, outcome: str, folders: int, messages: int) -> Settled:
    with work.tools.database.session(work.lease.scope) as session:
        if outcome == "synced":
            session.execute(
                update(EmailClient)
                .where(EmailClient.id == work.lease.client_id)
                .values(last_sync_at=func.clock_timestamp(), sync_lease_until=None, sync_execution_id=None)
                .execution_options(synchronize_session=False)
            )
        jobs.finish(session, work.lease, work.ending("succeeded"), state="succeeded", outcome=outcome)
        session.commit()
    return Settled(
        state="succeeded", outcome=outcome, result={"outcome": outcome, "folders": folders, "messages": messages}
    )
