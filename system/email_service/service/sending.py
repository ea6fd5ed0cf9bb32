"""Deliver one message: the send promise.

Per recipient: ``queued`` -> ``transmitting`` (committed right before DATA) -> ``sent``, ``failed`` or ``unknown``.
Rule 1: only ``queued`` recipients are ever offered to the server. Rule 2: who is ``transmitting`` when an execution
begins was left so by one that died between DATA and its reply: ``unknown``, and never sent again. Rule 3: an error that
is definite (errors.py) puts ``transmitting`` back; only an indefinite one leaves ``unknown``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from email_service import jobs, message, smtp
from email_service.errors import DeliveryUnknownError, MailServerError, SmtpError
from email_service.models import EmailFolder, EmailMessage, Recipient
from email_service.service.accounts import owned_attachments
from email_service.service.work import Settled, Work, check_host, owned_client, password_of
from email_service.tenancy import Scope
from email_service.vault import Secret


@dataclass(frozen=True, kw_only=True)
class _Order:
    """All that a delivery needs, read in one transaction."""

    client_id: uuid.UUID
    mail_from: str
    host: str
    port: int
    encryption: str
    username: str
    password: Secret
    recipients: list[Recipient]
    attachments: list[tuple[str, str, str]]

    def with_role(self, role: str) -> tuple[str, ...]:
        """Addresses with a role, whatever became of them: headers name all."""
        return tuple(r.address for r in self.recipients if r.role == role)


def add_recipients(session: Session, scope: Scope, job_id: uuid.UUID, roles: Iterable[tuple[str, list[str]]]) -> None:
    """Write a recipient row per address; one that is named twice keeps its first role."""
    rows: dict[str, dict[str, Any]] = {}
    for role, addresses in roles:
        for address in addresses:
            rows.setdefault(address, {"job_id": job_id, "address": address, "tenant_id": scope.tenant_id, "role": role})
    session.execute(insert(Recipient), list(rows.values()))


def send_message(work: Work) -> Settled:
    """Offer the message to whoever still waits for it, and settle the job when nobody does.

    Raises:
        SmtpError: some recipients were refused for now.
        MailServiceError: nothing was sent; its ``transient`` says whether a retry may help.
    """
    order = _load(work)
    pending = [r.address for r in order.recipients if r.state == "queued"]
    if not pending:
        return _settle(work)
    data = message.build(_outgoing(work, order))
    endpoint = smtp.SmtpEndpoint(
        host=order.host,
        port=order.port,
        encryption=order.encryption,
        username=order.username,
        password=order.password,
    )
    try:
        receipt = smtp.deliver(
            endpoint,
            mail_from=order.mail_from,
            recipients=tuple(pending),
            data=data,
            before_data=_transmitting(work),
            timeout_s=work.tools.settings.mail_timeout_s,
        )
    except DeliveryUnknownError:
        return _settle(work, lambda session: _move(session, work, "transmitting", "unknown", None))
    except MailServerError as err:
        _take_back(work, err)
        raise
    return _settle(work, lambda session: _record(session, work, order, receipt, size_bytes=len(data)))


def give_up_send(work: Work, error_type: str) -> Settled:
    """Settle a send that will not be tried again: who was not reached has failed."""

    def change(session: Session) -> None:
        _move(session, work, "transmitting", "unknown", None)
        _move(session, work, "queued", "failed", None)

    return _settle(work, change, error_type=error_type)


def _load(work: Work) -> _Order:
    lease, tools = work.lease, work.tools
    with tools.database.session(lease.scope) as session:
        left = update(Recipient).where(Recipient.job_id == lease.job_id, Recipient.state == "transmitting")
        session.execute(left.values(state="unknown", updated_at=func.clock_timestamp()))
        client = owned_client(session, lease.scope, lease.client_id)
        check_host(tools.settings, client.smtp_host, client.smtp_port)
        ids = [uuid.UUID(i) for i in lease.args["attachment_ids"]]
        order = _Order(
            client_id=client.id,
            mail_from=client.address,
            host=client.smtp_host,
            port=client.smtp_port,
            encryption=client.smtp_encryption,
            username=client.username,
            password=password_of(session, tools.vault, client),
            recipients=list(_recipients(session, lease.job_id)),
            attachments=[
                (a.filename, a.content_type, a.blob_key) for a in owned_attachments(session, lease.scope, ids)
            ],
        )
        session.commit()
        return order


def _recipients(session: Session, job_id: uuid.UUID) -> Iterable[Recipient]:
    # In the order of the request, so that a rebuilt message is the same message.
    order = text("array_position(ARRAY['to', 'cc', 'bcc'], role), address")
    return session.scalars(select(Recipient).where(Recipient.job_id == job_id).order_by(order))


def _outgoing(work: Work, order: _Order) -> message.OutgoingMessage:
    args = work.lease.args
    return message.OutgoingMessage(
        message_id=work.lease.message_id or "",
        date=work.lease.created_at,
        mail_from=order.mail_from,
        to=order.with_role("to"),
        cc=order.with_role("cc"),
        bcc=order.with_role("bcc"),
        subject=args["subject"],
        text=args["text"],
        html=args["html"],
        attachments=tuple(
            (name, content_type, work.tools.blobs.get(key, work.lease.scope.tenant_id))
            for name, content_type, key in order.attachments
        ),
    )


def _transmitting(work: Work) -> Callable[[tuple[str, ...]], None]:
    def before_data(accepted: tuple[str, ...]) -> None:
        with work.tools.database.session(work.lease.scope) as session:
            jobs.hold(session, work.lease)
            session.execute(_change(work, accepted, "transmitting", None))
            session.commit()

    return before_data


def _change(work: Work, addresses: Iterable[str], state: str, reply_code: int | None) -> Any:
    return (
        update(Recipient)
        .where(Recipient.job_id == work.lease.job_id, Recipient.address.in_(list(addresses)))
        .values(state=state, reply_code=reply_code, updated_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _move(session: Session, work: Work, before: str, after: str, reply_code: int | None) -> None:
    session.execute(
        update(Recipient)
        .where(Recipient.job_id == work.lease.job_id, Recipient.state == before)
        .values(state=after, reply_code=reply_code, updated_at=func.clock_timestamp())
        .execution_options(synchronize_session=False)
    )


def _take_back(work: Work, err: MailServerError) -> None:
    """The server surely does not have the message: back to the queue, or failed if it never will."""
    code = err.reply_code if isinstance(err, SmtpError) else None
    refused = isinstance(err, SmtpError) and not err.transient
    with work.tools.database.session(work.lease.scope) as session:
        _move(session, work, "transmitting", "failed" if refused else "queued", code)
        session.commit()


def _record(session: Session, work: Work, order: _Order, receipt: smtp.Receipt, *, size_bytes: int) -> None:
    if receipt.accepted:
        session.execute(_change(work, receipt.accepted, "sent", 250))
        _write_sent_row(session, work, order, size_bytes)
    for address, (code, _reply, transient) in receipt.refused.items():
        session.execute(_change(work, [address], "queued" if transient else "failed", code))


def _write_sent_row(session: Session, work: Work, order: _Order, size_bytes: int) -> None:
    lease = work.lease
    folder_id = session.scalars(
        select(EmailFolder.id).where(EmailFolder.client_id == order.client_id, EmailFolder.type == "sent")
    ).one()
    moment: datetime = work.tools.clock()
    row = insert(EmailMessage).values(
        id=uuid.uuid4(),
        tenant_id=lease.scope.tenant_id,
        user_id=lease.scope.user_id,
        client_id=order.client_id,
        folder_id=folder_id,
        message_id=lease.message_id,
        sender=order.mail_from,
        recipients_to=list(order.with_role("to")),
        recipients_cc=list(order.with_role("cc")),
        subject=lease.args["subject"],
        body_text=lease.args["text"],
        body_html=lease.args["html"],
        headers=[],
        flags=["\\Seen"],
        size_bytes=size_bytes,
        internal_date=moment,
        is_sent=True,
    )
    session.execute(
        row.on_conflict_do_nothing(index_elements=["folder_id", "message_id"], index_where=EmailMessage.uid.is_(None))
    )


def _settle(work: Work, change: Callable[[Session], None] | None = None, *, error_type: str | None = None) -> Settled:
    """Make the change and, if no recipient waits after it, finish the job: in one commit.

    Raises:
        SmtpError: some recipients wait: a retry is theirs. The change is kept.
    """
    with work.tools.database.session(work.lease.scope) as session:
        if change is not None:
            change(session)
        kinds = [(r.state, r.reply_code) for r in _recipients(session, work.lease.job_id)]
        waiting = [code for state, code in kinds if state == "queued"]
        if waiting:
            session.commit()
            raise SmtpError(f"{len(waiting)} of {len(kinds)} recipients refused for now", reply_code=waiting[0])
        states = [state for state, _ in kinds]
        state, outcome = _verdict(states)
        error_type = error_type or {"failed": "smtp", "unknown": "delivery-unknown"}.get(state)
        jobs.finish(session, work.lease, work.ending(state, error_type), state=state, outcome=outcome)
        session.commit()
    return Settled(
        state=state,
        outcome=outcome,
        result={"message_id": work.lease.message_id, "recipients_sent": states.count("sent"), "outcome": outcome},
    )


def _verdict(kinds: list[str]) -> tuple[str, str]:
    if "unknown" in kinds:
        return "unknown", "unknown"
    if "sent" not in kinds:
        return "failed", "failed"
    return "succeeded", "partial" if "failed" in kinds else "sent"
