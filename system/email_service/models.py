"""The tables, as SQLAlchemy sees them. The migrations create them; a test holds the two against each other.

Row-level security, roles and the audit views live in the migrations. Nothing here opens a connection.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, DateTime, Double, ForeignKey, Index, Integer, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType


class Xid8(UserDefinedType[str]):
    """PostgreSQL's 64-bit transaction id, which makes cursors without gaps (see ``jobs``)."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """The column's type."""
        return "xid8"


class Base(DeclarativeBase):
    """All tables: UUID keys, text, aware timestamps."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text,
        datetime: DateTime(timezone=True),
        bytes: LargeBinary,
        float: Double,
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
    }


def _now() -> Any:
    return mapped_column(server_default=text("now()"))


class Tenant(Base):
    """A customer; its name is in every row that belongs to it."""

    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = _now()


class Credential(Base):
    """A sealed mailbox password (see ``vault``)."""

    __tablename__ = "credentials"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    key_id: Mapped[str]
    salt: Mapped[bytes]
    nonce: Mapped[bytes]
    ciphertext: Mapped[bytes]
    created_at: Mapped[datetime] = _now()


class EmailClient(Base):
    """A user's mailbox: where its mail is read and through whom it is sent."""

    __tablename__ = "email_clients"
    __table_args__ = (Index("email_clients_due", "enabled", "last_sync_at"),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    address: Mapped[str]
    imap_host: Mapped[str]
    imap_port: Mapped[int]
    #: none, starttls or tls.
    imap_encryption: Mapped[str]
    smtp_host: Mapped[str]
    smtp_port: Mapped[int]
    smtp_encryption: Mapped[str]
    username: Mapped[str]
    #: password or xoauth2: what the credential is, and how it logs in.
    auth: Mapped[str] = mapped_column(server_default=text("'password'"))
    credential_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("credentials.id"))
    enabled: Mapped[bool] = mapped_column(server_default=text("true"))
    sync_interval_s: Mapped[int] = mapped_column(server_default=text("300"))
    #: Whether a synchronisation asks for a spam check of what it brought into the inbox.
    spam_check: Mapped[bool] = mapped_column(server_default=text("true"))
    last_sync_at: Mapped[datetime | None]
    #: The execution that synchronises this mailbox now, if it is alive.
    sync_execution_id: Mapped[uuid.UUID | None]
    sync_lease_until: Mapped[datetime | None]
    created_at: Mapped[datetime] = _now()


class EmailFolder(Base):
    """A folder of a mailbox, with the token of the last synchronisation."""

    __tablename__ = "email_folders"
    __table_args__ = (Index("email_folders_name", "client_id", "name", unique=True),)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    client_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("email_clients.id", ondelete="CASCADE"))
    name: Mapped[str]
    #: inbox, sent, drafts, trash, spam, archive or custom.
    type: Mapped[str]
    #: {uidvalidity, last_uid, highestmodseq, ...}; null before the first synchronisation.
    sync_token: Mapped[dict[str, Any] | None]
    message_count: Mapped[int] = mapped_column(server_default=text("0"))
    #: Without the flag \\Seen.
    unseen_count: Mapped[int] = mapped_column(server_default=text("0"))
    #: Messages whose MIME is not what it claims to be, or that the server could not hand out.
    broken_count: Mapped[int] = mapped_column(server_default=text("0"))
    synced_at: Mapped[datetime | None]


class EmailMessage(Base):
    """A message: its identity is folder, UIDVALIDITY and UID; one sent from here has no UID until it is synced."""

    __tablename__ = "email_messages"
    __table_args__ = (
        Index("email_messages_identity", "folder_id", "uidvalidity", "uid", unique=True),
        Index("email_messages_local", "folder_id", "message_id", unique=True, postgresql_where=text("uid IS NULL")),
        Index("email_messages_page", "folder_id", text("internal_date DESC NULLS LAST"), text("id DESC")),
        Index("email_messages_owner", "tenant_id", "user_id", text("internal_date DESC NULLS LAST"), text("id DESC")),
        Index("email_messages_message_id", "tenant_id", "message_id"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    client_id: Mapped[uuid.UUID]
    folder_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("email_folders.id", ondelete="CASCADE"))
    uidvalidity: Mapped[int | None] = mapped_column(BigInteger)
    uid: Mapped[int | None] = mapped_column(BigInteger)
    message_id: Mapped[str | None]
    sender: Mapped[str]
    recipients_to: Mapped[list[Any]]
    recipients_cc: Mapped[list[Any]]
    #: Of what was sent from here alone: nobody else's Bcc is ever seen.
    recipients_bcc: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    subject: Mapped[str]
    body_text: Mapped[str]
    body_html: Mapped[str | None]
    headers: Mapped[list[Any]]
    flags: Mapped[list[Any]]
    size_bytes: Mapped[int]
    #: SHA-256 of the raw bytes.
    sha256: Mapped[bytes | None]
    #: The message as it came, of broken ones (and of all with MAIL_KEEP_RAW=all); text columns are cleaned
    #: (PostgreSQL refuses NUL), this is not.
    raw: Mapped[bytes | None]
    internal_date: Mapped[datetime | None]
    #: The Date header.
    sent_at: Mapped[datetime | None]
    attachment_count: Mapped[int] = mapped_column(server_default=text("0"))
    is_sent: Mapped[bool] = mapped_column(server_default=text("false"))
    is_spam: Mapped[bool] = mapped_column(server_default=text("false"))
    #: Null until a check; then the score, and why: a list of {name, points, detail}.
    spam_score: Mapped[float | None]
    spam_indicators: Mapped[list[Any] | None]
    spam_checked_at: Mapped[datetime | None]
    #: Its MIME could not be parsed as it says it is.
    is_broken: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = _now()


class EmailAttachment(Base):
    """An attachment of a message, or an upload that waits for one."""

    __tablename__ = "email_attachments"
    __table_args__ = (
        Index("email_attachments_message", "message_id"),
        Index("email_attachments_blob", "blob_key"),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    message_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("email_messages.id", ondelete="CASCADE"))
    blob_key: Mapped[str]
    filename: Mapped[str]
    content_type: Mapped[str]
    content_id: Mapped[str | None]
    inline: Mapped[bool] = mapped_column(server_default=text("false"))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes]
    created_at: Mapped[datetime] = _now()


class Job(Base):
    """One piece of work, and the truth about it (see ``jobs``)."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index(
            "jobs_idempotency",
            "tenant_id",
            "user_id",
            "idempotency_key",
            unique=True,
            postgresql_where=text("idempotency_key IS NOT NULL"),
        ),
        Index("jobs_publish", "next_publish_at", postgresql_where=text("next_publish_at IS NOT NULL")),
        Index(
            "jobs_feed", "tenant_id", "user_id", "settled_xid", "id", postgresql_where=text("settled_xid IS NOT NULL")
        ),
        Index("jobs_client", "client_id", "state"),
        Index("jobs_finished", "finished_at", postgresql_where=text("finished_at IS NOT NULL")),
        Index("jobs_apart", "apart_xid", "id", postgresql_where=text("apart_xid IS NOT NULL")),
    )
    #: Also Celery's task id.
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    user_id: Mapped[str]
    name: Mapped[str]
    queue: Mapped[str]
    args: Mapped[dict[str, Any]]
    #: signals.JOB_STATES.
    state: Mapped[str]
    outcome: Mapped[str | None]
    error_type: Mapped[str | None]
    #: What the last error said, for the tenant's eyes: no secret, no other tenant's data.
    error_detail: Mapped[str | None]
    #: Counts and ids that the task answered; Redis forgets its own copy after result_expires.
    result: Mapped[dict[str, Any] | None]
    client_id: Mapped[uuid.UUID | None]
    parent_job_id: Mapped[uuid.UUID | None]
    message_id: Mapped[str | None]
    idempotency_key: Mapped[str | None]
    #: SHA-256 of the request that used the key.
    request_sha256: Mapped[bytes | None]
    #: W3C trace context of the creation; retries keep it.
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime] = _now()
    due_at: Mapped[datetime] = _now()
    #: When the dispatcher publishes (again) unless something happens before; null once settled.
    next_publish_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    #: The execution that owns the job while the lease lasts.
    lease_execution_id: Mapped[uuid.UUID | None]
    #: Start of the newest execution.
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    #: Messages sent to the broker for this job, copies that found it leased or settled, executions, failed ones.
    publishes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    refusals: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    executions: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    failures: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    settled_xid: Mapped[str | None] = mapped_column(Xid8)
    #: Set when no execution's end settled it: its client was deleted, or what was unknown is proven.
    apart_xid: Mapped[str | None] = mapped_column(Xid8)
    #: What such a proof has overwritten: who counted it as unknown must find it so again.
    unknown_xid: Mapped[str | None] = mapped_column(Xid8)
    unknown_error_type: Mapped[str | None]


class Execution(Base):
    """One run of a job."""

    __tablename__ = "executions"
    __table_args__ = (
        Index("executions_ordinal", "job_id", "ordinal", unique=True),
        Index("executions_ended", "ended_xid", "id", postgresql_where=text("ended_xid IS NOT NULL")),
        Index("executions_open", "host", postgresql_where=text("outcome IS NULL")),
    )
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    name: Mapped[str]
    queue: Mapped[str]
    ordinal: Mapped[int]
    node: Mapped[str]
    #: With pid and start, names the process that runs it: a dead holder can be told from a slow one.
    host: Mapped[str]
    pid: Mapped[int]
    process_start_ns: Mapped[int] = mapped_column(BigInteger)
    due_at: Mapped[datetime]
    received_at: Mapped[datetime]
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    #: signals.EXECUTION_OUTCOMES; null while it runs.
    outcome: Mapped[str | None]
    error_type: Mapped[str | None]
    trace_id: Mapped[str]
    span_id: Mapped[str]
    parent_span_id: Mapped[str | None]
    pss_before_bytes: Mapped[int | None] = mapped_column(BigInteger)
    pss_peak_bytes: Mapped[int | None] = mapped_column(BigInteger)
    #: Seconds by step of SMTP and IMAP (see ``steps``); null when it was killed.
    steps: Mapped[dict[str, Any] | None]
    ended_xid: Mapped[str | None] = mapped_column(Xid8)


class Recipient(Base):
    """One recipient of one message, and what is known of it."""

    __tablename__ = "recipients"
    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    address: Mapped[str] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"))
    #: to, cc or bcc.
    role: Mapped[str]
    #: signals.RECIPIENT_STATES.
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    reply_code: Mapped[int | None]
    #: What the server said, on one line.
    reply_text: Mapped[str | None]
    #: It was unknown when its job was settled, and proven later.
    was_unknown: Mapped[bool] = mapped_column(server_default=text("false"))
    updated_at: Mapped[datetime] = _now()


class MetricTotal(Base):
    """A sample of the exporter's, summed over executions that were removed (see ``counting``)."""

    __tablename__ = "metric_totals"
    sample: Mapped[str] = mapped_column(primary_key=True)
    labels: Mapped[dict[str, Any]] = mapped_column(primary_key=True)
    value: Mapped[float]
    #: The last transaction that ended one of the executions, and the one that removed them.
    last_xid: Mapped[str] = mapped_column(Xid8)
    folded_xid: Mapped[str] = mapped_column(Xid8)
