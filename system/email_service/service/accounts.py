"""Clients and uploads: what a tenant has before it sends or reads. Called by the API."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from email_service.blobs import DirectoryBlobs
from email_service.config import Settings
from email_service.errors import InvalidRequestError
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
    password: Secret
    sync_interval_s: int


def create_client(session: Session, scope: Scope, vault: Vault, settings: Settings, new: NewClient) -> EmailClient:
    """Write the client, its sealed password and its sent folder; the caller commits.

    Raises:
        HostNotAllowedError: one of the hosts is not on the operator's list.
    """
    for endpoint in (new.imap, new.smtp):
        check_host(settings, endpoint.host, endpoint.port)
    credential_id = uuid.uuid4()
    sealed = vault.seal(new.password.reveal(), tenant_id=scope.tenant_id, credential_id=str(credential_id))
    owner = {"tenant_id": scope.tenant_id, "user_id": scope.user_id}
    session.add(
        Credential(
            id=credential_id,
            key_id=sealed.key_id,
            salt=sealed.salt,
            nonce=sealed.nonce,
            ciphertext=sealed.ciphertext,
            **owner,
        )
    )
    session.flush()
    client = EmailClient(
        id=uuid.uuid4(),
        address=new.address,
        imap_host=new.imap.host,
        imap_port=new.imap.port,
        imap_encryption=new.imap.encryption,
        smtp_host=new.smtp.host,
        smtp_port=new.smtp.port,
        smtp_encryption=new.smtp.encryption,
        username=new.username,
        credential_id=credential_id,
        enabled=True,
        sync_interval_s=new.sync_interval_s,
        **owner,
    )
    session.add(client)
    session.flush()
    session.add(EmailFolder(id=uuid.uuid4(), client_id=client.id, name="Sent", type="sent", **owner))
    return client


def store_attachment(
    session: Session, scope: Scope, blobs: DirectoryBlobs, *, filename: str, content_type: str, data: bytes
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
    return row


def owned_attachments(session: Session, scope: Scope, ids: list[uuid.UUID]) -> list[EmailAttachment]:
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
