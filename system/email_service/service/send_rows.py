"""The rows of a send: few statements, each within the lease. Called by sending, which decides what they are to say.

A send costs four statements in three transactions besides the lease; a test counts them. So all that a delivery needs
is read by one statement, and all that it leaves is written by one.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service.errors import LeaseLostError
from email_service.jobs import Lease, hold
from email_service.models import EmailAttachment
from email_service.service.work import Work
from email_service.tenancy import Scope, run

#: Name of the folder that is made for a client that has none of the kind ``sent``.
_SENT_FOLDER: Final = "Sent"
_REPLY_CHARACTERS_MAX: Final = 500
_FOLD: Final = re.compile(r"\r\n(?=[ \t])")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is known of one recipient after a try."""

    #: signals.RECIPIENT_STATES.
    state: str
    reply_code: int | None = None
    reply_text: str | None = None
    #: Refused only because the transaction had too many recipients already.
    too_many: bool = False


@dataclass(frozen=True, kw_only=True)
class Addressee:
    """A recipient's row."""

    address: str
    #: to, cc or bcc.
    role: str
    state: str
    reply_code: int | None
    reply_text: str | None


@dataclass(frozen=True, kw_only=True)
class File:
    """An upload that the message carries."""

    upload_id: uuid.UUID
    blob_key: str
    filename: str
    content_type: str
    #: Set for what the HTML shows.
    content_id: str | None
    size_bytes: int
    sha256: bytes

    @classmethod
    def of(cls, row: EmailAttachment, *, content_id: str | None) -> Self:
        """What the message needs of an upload's row."""
        return cls(
            upload_id=row.id,
            blob_key=row.blob_key,
            filename=row.filename,
            content_type=row.content_type,
            content_id=content_id,
            size_bytes=row.size_bytes,
            sha256=row.sha256,
        )


@dataclass(frozen=True, kw_only=True)
class Order:
    """All that a delivery needs."""

    enabled: bool
    mail_from: str
    host: str
    port: int
    encryption: str
    username: str
    auth: str
    credential_id: uuid.UUID
    key_id: str
    salt: bytes
    nonce: bytes
    ciphertext: bytes = field(repr=False)
    #: Always in the same order, so that a message that is built again is the same message.
    recipients: tuple[Addressee, ...]
    files: tuple[File, ...] = ()

    def with_role(self, role: str) -> tuple[str, ...]:
        """Addresses with a role, whatever became of them: headers name all."""
        return tuple(r.address for r in self.recipients if r.role == role)

    def with_state(self, state: str) -> tuple[str, ...]:
        """Addresses in a state."""
        return tuple(r.address for r in self.recipients if r.state == state)

    def after(self, outcomes: Mapping[str, Outcome]) -> Order:
        """The same once the outcomes are known."""
        return replace(self, recipients=tuple(_told(r, outcomes.get(r.address)) for r in self.recipients))


def _told(before: Addressee, outcome: Outcome | None) -> Addressee:
    if outcome is None:
        return before
    return replace(before, state=outcome.state, reply_code=outcome.reply_code, reply_text=outcome.reply_text)


_ADD: Final = text(
    "INSERT INTO recipients (job_id, address, tenant_id, role) SELECT :job, r.address, :tenant, r.role "
    "FROM unnest(CAST(:addresses AS text[]), CAST(:roles AS text[])) AS r(address, role)"
)


def add_recipients(session: Session, scope: Scope, job_id: uuid.UUID, roles: Iterable[tuple[str, list[str]]]) -> None:
    """Write a recipient row per address; one that is named twice keeps its first role.

    As arrays: the request that makes them is waited for, and a statement for many rows costs it a third.
    """
    rows: dict[str, str] = {}
    for role, addresses in roles:
        for address in addresses:
            rows.setdefault(address, role)
    values = {"job": job_id, "tenant": scope.tenant_id, "addresses": list(rows), "roles": list(rows.values())}
    run(session, _ADD, values)


_LOAD: Final = text(
    """
    SELECT c.enabled, c.address, c.smtp_host, c.smtp_port, c.smtp_encryption, c.username, c.auth, c.credential_id,
           k.key_id, k.salt, k.nonce, k.ciphertext,
           (SELECT json_agg(json_build_array(r.address, r.role, r.state, r.reply_code, r.reply_text)
                            ORDER BY array_position(ARRAY['to', 'cc', 'bcc'], r.role), r.address)
            FROM recipients r WHERE r.job_id = :job) AS recipients
    FROM email_clients c JOIN credentials k ON k.id = c.credential_id
    WHERE c.id = :client AND c.tenant_id = :tenant AND c.user_id = :user
    """
)


def load(session: Session, lease: Lease) -> Order | None:
    """The order of a job, without its files; None where its client is not the scope's."""
    scope = lease.scope
    values = {"job": lease.job_id, "client": lease.client_id, "tenant": scope.tenant_id, "user": scope.user_id}
    rows = run(session, _LOAD, values)
    if not rows:
        return None
    (row,) = rows
    return Order(
        enabled=row.enabled,
        mail_from=row.address,
        host=row.smtp_host,
        port=row.smtp_port,
        encryption=row.smtp_encryption,
        username=row.username,
        auth=row.auth,
        credential_id=row.credential_id,
        key_id=row.key_id,
        salt=row.salt,
        nonce=row.nonce,
        ciphertext=row.ciphertext,
        recipients=tuple(
            Addressee(address=address, role=role, state=state, reply_code=code, reply_text=said)
            for address, role, state, code, said in row.recipients or ()
        ),
    )


#: The fence of jobs.hold, within the statement that it guards.
_HELD: Final = """
    WITH held AS MATERIALIZED (
        SELECT id FROM jobs
        WHERE id = :job AND lease_execution_id = :execution AND lease_until > clock_timestamp() FOR UPDATE
    )
"""
_TRANSMIT: Final = text(
    _HELD  # noqa: S608  # both halves are constants
    + """
    UPDATE recipients r SET state = 'transmitting', updated_at = clock_timestamp()
    FROM held WHERE r.job_id = held.id AND r.address = ANY(CAST(:addresses AS text[])) AND r.state = 'queued'
    RETURNING 1
    """
)
_TAKE_BACK: Final = text(
    _HELD  # noqa: S608  # both halves are constants
    + """
    UPDATE recipients r SET state = :state, updated_at = clock_timestamp(),
           reply_code = coalesce(:code, r.reply_code), reply_text = coalesce(:said, r.reply_text)
    FROM held WHERE r.job_id = held.id AND r.state IN ('queued', 'transmitting')
    """
)


def begin_transmission(session: Session, lease: Lease, addresses: tuple[str, ...]) -> None:
    """Write down that DATA comes next for these; the caller commits.

    Raises:
        LeaseLostError: another execution has the job, or may have it by now.
    """
    values = {"job": lease.job_id, "execution": lease.execution_id, "addresses": list(addresses)}
    if len(run(session, _TRANSMIT, values)) != len(addresses):
        raise LeaseLostError(f"job {lease.job_id}, execution {lease.ordinal}")


def take_back(session: Session, lease: Lease, outcome: Outcome) -> None:
    """Give everybody who is not settled this outcome, if the lease is still ours."""
    said = outcome.reply_text and outcome.reply_text[:_REPLY_CHARACTERS_MAX]
    values = {"job": lease.job_id, "execution": lease.execution_id, "state": outcome.state}
    session.execute(_TAKE_BACK, values | {"code": outcome.reply_code, "said": said})


def lose_transmitting(session: Session, lease: Lease) -> None:
    """Nobody knows what became of those whom an earlier execution left between DATA and its reply.

    Raises:
        LeaseLostError: the lease is another one's by now.
    """
    hold(session, lease)
    session.execute(_LOSE, {"job": lease.job_id})


def give_up(session: Session, lease: Lease) -> None:
    """Nobody waits any longer; the caller finishes the job in the same commit, which fences this."""
    session.execute(_LOSE, {"job": lease.job_id})
    session.execute(_FAIL, {"job": lease.job_id})


_LOSE: Final = text(
    "UPDATE recipients SET state = 'unknown', updated_at = clock_timestamp() "
    "WHERE job_id = :job AND state = 'transmitting'"
)
_FAIL: Final = text(
    "UPDATE recipients SET state = 'failed', updated_at = clock_timestamp() WHERE job_id = :job AND state = 'queued'"
)


def ending(session: Session, lease: Lease) -> str | None:
    """The outcome of this execution, if it has one already."""
    query = text("SELECT outcome FROM executions WHERE id = :execution")
    outcome: str | None = session.execute(query, {"execution": lease.execution_id}).scalar_one_or_none()
    return outcome


def states(session: Session, job_id: uuid.UUID) -> list[str]:
    """Of all recipients."""
    return list(session.scalars(text("SELECT state FROM recipients WHERE job_id = :job"), {"job": job_id}))


# --- what a delivery leaves -------------------------------------------------------------------------------------------

_OUTCOMES: Final = """
    WITH told AS (
        UPDATE recipients r
        SET state = o.state, reply_code = o.code, reply_text = o.said, updated_at = clock_timestamp()
        FROM unnest(CAST(:addresses AS text[]), CAST(:states AS text[]), CAST(:codes AS int[]), CAST(:said AS text[]))
             AS o(address, state, code, said)
        WHERE r.job_id = :job AND r.address = o.address
    )
"""
_RECORD: Final = text(_OUTCOMES + "SELECT 1")
#: The folder is locked against its removal by a synchronisation; a second copy of the message changes nothing.
_RECORD_SENT: Final = text(
    _OUTCOMES  # noqa: S608  # as above
    + """
    , folder AS MATERIALIZED (
        SELECT id FROM email_folders WHERE client_id = :client AND type = 'sent' ORDER BY id LIMIT 1 FOR NO KEY UPDATE
    ), copy AS (
        INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, message_id, sender, recipients_to,
                                    recipients_cc, recipients_bcc, subject, body_text, body_html, headers, flags,
                                    size_bytes, sha256, internal_date, sent_at, attachment_count, is_sent)
        SELECT :id, :tenant, :user, :client, folder.id, :message_id, :sender, CAST(:to AS jsonb),
               CAST(:cc AS jsonb), CAST(:bcc AS jsonb), :subject, :body_text, :body_html, CAST(:headers AS jsonb),
               '["\\\\Seen"]', :size_bytes, :sha256, :now, :date, :attachment_count, true
        FROM folder
        ON CONFLICT (folder_id, message_id) WHERE uid IS NULL DO NOTHING
        RETURNING id, folder_id
    ), counted AS (
        UPDATE email_folders f SET message_count = message_count + 1 FROM copy WHERE f.id = copy.folder_id
    ), files AS (
        INSERT INTO email_attachments (id, tenant_id, user_id, message_id, blob_key, filename, content_type, content_id,
                                       inline, size_bytes, sha256)
        SELECT gen_random_uuid(), :tenant, :user, copy.id, u.blob_key, u.filename, u.content_type, o.content_id,
               o.content_id IS NOT NULL, u.size_bytes, u.sha256
        FROM copy, unnest(CAST(:file_ids AS uuid[]), CAST(:content_ids AS text[])) AS o(id, content_id)
             JOIN email_attachments u ON u.id = o.id
    )
    SELECT count(*) FROM folder
    """
)
_MAKE_FOLDER: Final = text(
    """
    INSERT INTO email_folders (id, tenant_id, user_id, client_id, name, type)
    SELECT :id, tenant_id, user_id, id, :name, 'sent' FROM email_clients WHERE id = :client FOR KEY SHARE
    ON CONFLICT (client_id, name) DO UPDATE SET type = 'sent'
    """
)


def record(session: Session, work: Work, order: Order, outcomes: Mapping[str, Outcome], *, data: bytes | None) -> None:
    """Write the outcomes and, once the server has taken the message for anybody, its copy in the sent folder.

    The caller fences and commits: by ``jobs.finish`` or ``jobs.hold`` in the same transaction.
    """
    values = _outcome_values(work.lease, outcomes)
    if data is None or all(outcome.state != "sent" for outcome in outcomes.values()):
        if outcomes:
            run(session, _RECORD, values)
        return
    values |= _copy_values(work, order, data)
    if run(session, _RECORD_SENT, values)[0].count == 0:
        session.execute(_MAKE_FOLDER, {"id": uuid.uuid4(), "name": _SENT_FOLDER, "client": work.lease.client_id})
        run(session, _RECORD_SENT, values)


def _outcome_values(lease: Lease, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    return {
        "job": lease.job_id,
        "addresses": list(outcomes),
        "states": [outcome.state for outcome in outcomes.values()],
        "codes": [outcome.reply_code for outcome in outcomes.values()],
        "said": [o.reply_text and o.reply_text[:_REPLY_CHARACTERS_MAX] for o in outcomes.values()],
    }


def _copy_values(work: Work, order: Order, data: bytes) -> dict[str, Any]:
    lease = work.lease
    return {
        "id": uuid.uuid4(),
        "tenant": lease.scope.tenant_id,
        "user": lease.scope.user_id,
        "client": lease.client_id,
        "message_id": lease.message_id,
        "sender": order.mail_from,
        "to": json.dumps(order.with_role("to")),
        "cc": json.dumps(order.with_role("cc")),
        "bcc": json.dumps(order.with_role("bcc")),
        "subject": lease.args["subject"],
        "body_text": lease.args["text"],
        "body_html": lease.args["html"],
        "headers": json.dumps(_headers(data)),
        "size_bytes": len(data),
        "sha256": hashlib.sha256(data).digest(),
        "now": work.tools.clock(),
        "date": lease.created_at,
        "attachment_count": len(order.files),
        "file_ids": [file.upload_id for file in order.files],
        "content_ids": [file.content_id for file in order.files],
    }


def _headers(data: bytes) -> list[list[str]]:
    """Name and value of each, unfolded, as a synchronisation keeps them."""
    text_ = _FOLD.sub("", data.partition(b"\r\n\r\n")[0].decode("utf-8", "replace"))
    pairs = (line.partition(":") for line in text_.split("\r\n"))
    return [[name, value.strip()] for name, _, value in pairs]
