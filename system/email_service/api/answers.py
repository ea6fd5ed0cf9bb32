"""What comes out: the shape of every answer, told in the OpenAPI document and held by its tests.

Handlers answer plain values, which spares each request a second validation. Times are RFC 3339 in UTC, or nanoseconds
since 1970 where the name says so.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from email_service.api.schemas import Model
from email_service.signals import EXECUTION_OUTCOMES, JOB_STATES, RECIPIENT_STATES

_State = Annotated[str, Field(json_schema_extra={"enum": list(JOB_STATES)})]


class FieldProblem(Model):
    """A field that is wrong: where it is, and what would be right."""

    detail: str
    pointer: Annotated[str, Field(description="JSON pointer into the body, as a URI fragment")] = ""
    parameter: Annotated[str, Field(description="Name of a parameter of the query")] = ""
    header: Annotated[str, Field(description="Name of a header")] = ""


class Problem(Model):
    """Why not (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(default=[])


class Server(Model):
    """A mail server of a client."""

    host: str
    port: int
    encryption: Literal["none", "starttls", "tls"]


class Client(Model):
    """A mailbox. Its secret is never shown."""

    id: uuid.UUID
    address: str
    username: str
    auth: Literal["password", "xoauth2"]
    imap: Server
    smtp: Server
    enabled: bool
    sync_interval_s: int
    spam_check: bool
    syncing: bool
    last_sync_at: datetime | None
    created_at: datetime


class Clients(Model):
    """A page of clients; no cursor means that it is the last."""

    clients: list[Client]
    cursor: str | None


class Folder(Model):
    """A folder of a mailbox, as of its last synchronisation."""

    id: uuid.UUID
    client_id: uuid.UUID
    name: str
    type: Literal["inbox", "sent", "drafts", "trash", "spam", "archive", "custom"]
    message_count: int
    unseen_count: int
    broken_count: int
    synced_at: datetime | None


class Folders(Model):
    """All folders of a client."""

    folders: list[Folder]


class _Summary(Model):
    id: uuid.UUID
    client_id: uuid.UUID
    folder_id: uuid.UUID
    message_id: str | None
    from_: Annotated[str, Field(alias="from")]
    to: list[str]
    cc: list[str]
    subject: str
    flags: list[str]
    unseen: bool
    size_bytes: int
    internal_date: datetime | None
    sent_at: Annotated[datetime | None, Field(description="The Date header")]
    attachment_count: int
    is_sent: bool
    is_spam: bool
    spam_score: float | None
    is_broken: Annotated[bool, Field(description="Its MIME is not what it claims to be")]


class MessageSummary(_Summary):
    """A message in a list."""

    preview: Annotated[str, Field(description="The first characters of its text")]


class Messages(Model):
    """A page of messages, the newest first; no cursor means that it is the last."""

    messages: list[MessageSummary]
    cursor: str | None


class Attachment(Model):
    """An attachment of a message, or an upload that waits for one."""

    id: uuid.UUID
    message_id: uuid.UUID | None
    filename: str
    content_type: str
    content_id: str | None
    inline: bool
    size_bytes: int
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Attachments(Model):
    """The attachments of a message."""

    attachments: list[Attachment]


class SpamIndicator(Model):
    """One reason for a score."""

    name: str
    points: float
    detail: str


class Message(_Summary):
    """A message. ``html`` is what its author wrote: data that a front end must clean before it shows it."""

    bcc: Annotated[list[str], Field(description="Of what was sent from here alone")]
    text: str
    html: str | None
    headers: list[list[str]]
    spam_indicators: list[SpamIndicator] | None
    spam_checked_at: datetime | None
    has_raw: bool
    attachments: list[Attachment]


class Accepted(Model):
    """Work that will be done; its state is at ``status_url``."""

    task_id: uuid.UUID
    status_url: str


class AcceptedMail(Accepted):
    """A message that will be sent."""

    message_id: str


class AcceptedForClient(Accepted):
    """Work for one of the clients whose messages were named."""

    client_id: uuid.UUID


class AcceptedBatch(Model):
    """One task per client."""

    tasks: list[AcceptedForClient]


class TaskSummary(Model):
    """A task in the feed."""

    task_id: uuid.UUID
    name: str
    queue: str
    state: _State
    outcome: str | None
    error_type: str | None
    trace_id: str | None
    enqueued_ns: int | None
    due_ns: int | None
    started_ns: int | None
    ended_ns: int | None
    executions: int


class Execution(Model):
    """One run of a task."""

    id: uuid.UUID
    ordinal: int
    node: str
    pid: int
    outcome: Annotated[str | None, Field(json_schema_extra={"enum": [*EXECUTION_OUTCOMES, None]})]
    error_type: str | None
    received_at: datetime
    started_at: datetime
    ended_at: datetime | None
    trace_id: str
    span_id: str


class TaskRecipient(Model):
    """What became of one recipient."""

    address: str
    role: Literal["to", "cc", "bcc"]
    state: Annotated[str, Field(json_schema_extra={"enum": list(RECIPIENT_STATES)})]
    reply_code: int | None
    reply_text: str | None


class Task(Model):
    """A task, its runs and its recipients."""

    task_id: uuid.UUID
    name: str
    queue: str
    state: _State
    outcome: str | None
    error_type: str | None
    trace_id: str | None
    enqueued_ns: int | None
    due_ns: int | None
    started_ns: int | None
    ended_ns: int | None
    message_id: str | None
    error_detail: str | None
    result: dict[str, Any] | None
    publishes: int
    executions: list[Execution]
    recipients: list[TaskRecipient]


class Tasks(Model):
    """A page of tasks in the order in which they were settled; ask again with its cursor for what comes later."""

    tasks: list[TaskSummary]
    cursor: str | None
