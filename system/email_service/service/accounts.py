"""Clients and uploads: what a tenant has before it sends or reads. Called by the API; sending takes its uploads here.

A client that goes takes its rows with it, and its credential. Its work that waits is settled as failed; work that runs
now may be in the middle of a delivery, so it is waited for: the deletion is refused until it has ended.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from email_service import jobs
from email_service.blobs import Blobs
from email_service.config import Settings
from email_service.errors import InUseError, InvalidRequestError, NotFoundError
from email_service.models import Credential, EmailAttachment, EmailClient, EmailFolder
from email_service.service.work import check_host
from email_service.tenancy import Scope
from email_service.vault import Secret, Vault


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A mail server as a client names it."""

    host: str
    port: int
    #: none, starttls or tls.
    encryption: str


@dataclass(frozen=True, kw_only=True)
class NewClient:
    """A mailbox to be added."""

    address: str
    imap: Endpoint
    smtp: Endpoint
    username: str
    #: With ``xoauth2`` it is an access token.
    password: Secret
    auth: str = "password"
    enabled: bool = True
    sync_interval_s: int = 300
    spam_check: bool = True


@dataclass(frozen=True, kw_only=True)
class ClientChange:
    """What is to change of a client; None leaves it."""

    imap: Endpoint | None = None
    smtp: Endpoint | None = None
    password: Secret | None = None
    #: Columns: username, auth, enabled, sync_interval_s, spam_check.
    plain: Mapping[str, Any]


def create_client(session: Session, scope: Scope, vault: Vault, settings: Settings, new: NewClient) -> EmailClient:
    """Write the client, its sealed password and its sent folder; the caller commits.

    Raises:
        HostNotAllowedError: one of the hosts is not on the operator's list, or not public.
        ConnectError: one of them has no address.
    """
    _check_hosts(settings, new.imap, new.smtp)
    credential_id = uuid.uuid4()
    owner = {"tenant_id": scope.tenant_id, "user_id": scope.user_id}
    session.add(Credential(id=credential_id, **_sealed(vault, scope, credential_id, new.password), **owner))
    session.flush()
    client = EmailClient(
        id=uuid.uuid4(),
        address=new.address,
        username=new.username,
        auth=new.auth,
        credential_id=credential_id,
        enabled=new.enabled,
        sync_interval_s=new.sync_interval_s,
        spam_check=new.spam_check,
        **_endpoint("imap", new.imap),
        **_endpoint("smtp", new.smtp),
        **owner,
    )
    session.add(client)
    session.flush()
    session.add(EmailFolder(id=uuid.uuid4(), client_id=client.id, name="Sent", type="sent", **owner))
    session.flush()
    session.refresh(client)
    return client


def update_client(  # noqa: PLR0917  # as create_client, and what changes
    session: Session, scope: Scope, vault: Vault, settings: Settings, client: EmailClient, change: ClientChange
) -> None:
    """Change the client; the caller commits.

    The messages stay: whether another IMAP server holds the same folders is told by its UIDVALIDITY (RFC 9051 section
    2.3.1.1), which each synchronisation looks at.

    Raises:
        HostNotAllowedError: one of the hosts is not on the operator's list, or not public.
        ConnectError: one of them has no address.
    """
    _check_hosts(settings, change.imap, change.smtp)
    values = dict(change.plain)
    for kind, endpoint in (("imap", change.imap), ("smtp", change.smtp)):
        values |= _endpoint(kind, endpoint) if endpoint is not None else {}
    for name, value in values.items():
        setattr(client, name, value)
    if change.password is not None:
        row = session.get_one(Credential, client.credential_id)
        for name, value in _sealed(vault, scope, row.id, change.password).items():
            setattr(row, name, value)
    session.flush()


def delete_client(session: Session, scope: Scope, client: EmailClient) -> None:
    """Remove the client, its folders, messages, attachments and credential, and settle its work; the caller commits.

    The bytes of its attachments are left to the hourly cleanup, as other rows may hold the same.

    Raises:
        InUseError: a task of the client runs now.
    """
    if running := jobs.abandon(session, scope, client.id, error_type="client-deleted"):
        raise InUseError(f"task {running} of this client runs now; it can be deleted once that has ended")
    session.execute(delete(EmailClient).where(EmailClient.id == client.id, EmailClient.tenant_id == scope.tenant_id))
    session.execute(
        delete(Credential).where(Credential.id == client.credential_id, Credential.tenant_id == scope.tenant_id)
    )


def store_attachment(
    session: Session, scope: Scope, blobs: Blobs, *, filename: str, content_type: str, data: bytes
) -> EmailAttachment:
    """Keep an upload until a message names it; the bytes are stored before the row, so a row never lacks them."""
    ref = blobs.put(scope.tenant_id, data)
    row = EmailAttachment(
        id=uuid.uuid4(),
        tenant_id=scope.tenant_id,
        user_id=scope.user_id,
        blob_key=ref.key,
        filename=filename,
        content_type=content_type,
        size_bytes=ref.size_bytes,
        sha256=bytes.fromhex(ref.sha256),
    )
    session.add(row)
    session.flush()
    return row


def delete_attachment(session: Session, scope: Scope, attachment_id: uuid.UUID) -> None:
    """Remove an upload; its bytes are left to the hourly cleanup. The caller commits.

    Raises:
        NotFoundError: there is no such upload; what belongs to a message goes with the message.
        InUseError: a send that is not settled takes it along.
    """
    if task := session.execute(_TAKEN, {"id": str(attachment_id), **_owner(scope)}).scalar_one_or_none():
        raise InUseError(f"task {task} sends it")
    gone = session.execute(
        delete(EmailAttachment)
        .where(
            EmailAttachment.id == attachment_id,
            EmailAttachment.tenant_id == scope.tenant_id,
            EmailAttachment.user_id == scope.user_id,
            EmailAttachment.message_id.is_(None),
        )
        .returning(EmailAttachment.id)
    ).all()
    if not gone:
        raise NotFoundError(f"upload {attachment_id}")


# By way of the clients, as jobs are indexed by client and state.
_TAKEN = text(
    "SELECT j.id FROM email_clients c JOIN jobs j ON j.client_id = c.id "
    "WHERE c.tenant_id = :tenant AND c.user_id = :user AND j.state IN ('queued', 'waiting', 'running') "
    "AND (j.args -> 'attachment_ids' @> to_jsonb(CAST(:id AS text)) "
    "OR j.args -> 'inline' @> jsonb_build_array(jsonb_build_object('attachment_id', CAST(:id AS text)))) LIMIT 1"
)


def owned_attachments(session: Session, scope: Scope, ids: Sequence[uuid.UUID]) -> list[EmailAttachment]:
    """The uploads with these ids, in their order.

    Raises:
        InvalidRequestError: names the first that this scope does not have.
    """
    if not ids:
        return []
    found: dict[Any, EmailAttachment] = {
        row.id: row
        for row in session.scalars(
            select(EmailAttachment).where(
                EmailAttachment.id.in_(ids),
                EmailAttachment.tenant_id == scope.tenant_id,
                EmailAttachment.user_id == scope.user_id,
                EmailAttachment.message_id.is_(None),
            )
        )
    }
    for attachment_id in ids:
        if attachment_id not in found:
            raise InvalidRequestError(f"attachment_ids: there is no upload {attachment_id}")
    return [found[attachment_id] for attachment_id in ids]


def _owner(scope: Scope) -> dict[str, str]:
    return {"tenant": scope.tenant_id, "user": scope.user_id}


def _check_hosts(settings: Settings, *endpoints: Endpoint | None) -> None:
    for host, port in dict.fromkeys((e.host, e.port) for e in endpoints if e is not None):
        check_host(settings, host, port)


def _sealed(vault: Vault, scope: Scope, credential_id: uuid.UUID, secret: Secret) -> dict[str, Any]:
    sealed = vault.seal(secret, tenant_id=scope.tenant_id, credential_id=str(credential_id))
    return {"key_id": sealed.key_id, "salt": sealed.salt, "nonce": sealed.nonce, "ciphertext": sealed.ciphertext}


def _endpoint(kind: str, endpoint: Endpoint) -> dict[str, Any]:
    return {
        f"{kind}_host": endpoint.host,
        f"{kind}_port": endpoint.port,
        f"{kind}_encryption": endpoint.encryption,
    }
