"""Deliver one message: the send promise.

Per recipient: ``queued`` -> ``transmitting`` (committed right before DATA) -> ``sent``, ``failed`` or ``unknown``.
Rule 1: only ``queued`` recipients are ever offered to the server. Rule 2: who is ``transmitting`` when an execution
begins was left so by one that died between DATA and its reply: ``unknown``, and never sent again. Rule 3: an error that
is definite (errors.py) puts ``transmitting`` back; only an indefinite one leaves ``unknown``. Rule 4: rows are written
only while the lease is ours: a process that was frozen past it changes nothing when it thaws. Rule 5: what the server
said is known to this process alone, so it is not given up because the database is away for a moment.
Rows are read and written by ``send_rows``. Called by the API (``add_recipients``) and by tasks.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from sqlalchemy.exc import StatementError
from sqlalchemy.orm import Session

from email_service import jobs, message, smtp
from email_service.errors import (
    BlobError,
    DeliveryUnknownError,
    InvalidRequestError,
    LeaseLostError,
    PermissionDeniedError,
    SmtpError,
)
from email_service.service import send_rows
from email_service.service.accounts import owned_attachments
from email_service.service.send_rows import File, Order, Outcome, add_recipients
from email_service.service.work import Settled, Work, check_host, insist
from email_service.vault import SealedCredential

__all__ = ["add_recipients", "give_up_send", "send_message"]

_log = logging.getLogger(__name__)
#: What a job's row says of its error type, by the state that the job ends in.
_ERROR_TYPES: Final = {"failed": "smtp", "unknown": "delivery-unknown"}


def send_message(work: Work) -> Settled:
    """Offer the message to whoever still waits for it, and settle the job when nobody does.

    Raises:
        SmtpError: some recipients were refused for now.
        MailServiceError: nothing was sent; its ``transient`` says whether a retry may help.
    """
    order = _load(work)
    if not order.with_state("queued"):
        return _settle(work, order, {})
    outgoing = _outgoing(work, order)
    endpoint = _endpoint(work, order)
    data = message.build(outgoing)
    while True:
        outcomes = _attempt(work, order, endpoint, outgoing, data)
        if not _has_more(outcomes):
            return _settle(work, order, outcomes, data=data)
        # RFC 5321 section 4.5.3.1.10: who did not fit into this transaction is offered the next one at once.
        changed = order.after(outcomes)
        insist(work, lambda order=order, outcomes=outcomes: _keep(work, order, outcomes, data))  # type: ignore[misc]
        order = changed


def give_up_send(work: Work, error_type: str, error_detail: str | None = None) -> Settled:
    """Settle a send that will not be tried again: who was not reached has failed."""

    def change() -> Settled:
        with work.tools.database.session(work.lease.scope) as session:
            send_rows.give_up(session, work.lease)
            states = send_rows.states(session, work.lease.job_id)
            settled = _finish(session, work, states, error_type=error_type, error_detail=error_detail)
            session.commit()
        return settled

    return insist(work, change)


# --- before -----------------------------------------------------------------------------------------------------------


def _load(work: Work) -> Order:
    lease = work.lease
    with work.tools.database.session(lease.scope) as session:
        order = send_rows.load(session, lease)
        if order is None:
            raise PermissionDeniedError(f"e-mail client {lease.client_id}")
        if not order.enabled:
            raise InvalidRequestError(f"e-mail client {lease.client_id} is disabled")
        if order.with_state("transmitting"):
            send_rows.lose_transmitting(session, lease)
            session.commit()
            order = order.after({a: Outcome(state="unknown") for a in order.with_state("transmitting")})
        ids = [uuid.UUID(each) for each in lease.args["attachment_ids"]]
        shown = {uuid.UUID(each["attachment_id"]): each["content_id"] for each in lease.args.get("inline") or ()}
        rows = owned_attachments(session, lease.scope, [*ids, *shown])
        # Nothing was written; but see ``Database.session`` for what a rollback costs.
        session.commit()
    return replace(order, files=tuple(File.of(row, content_id=shown.get(row.id)) for row in rows))


def _endpoint(work: Work, order: Order) -> smtp.SmtpEndpoint:
    sealed = SealedCredential(key_id=order.key_id, salt=order.salt, nonce=order.nonce, ciphertext=order.ciphertext)
    tenant_id = work.lease.scope.tenant_id
    return smtp.SmtpEndpoint(
        host=order.host,
        port=order.port,
        encryption=order.encryption,
        username=order.username,
        password=work.tools.vault.unseal(sealed, tenant_id=tenant_id, credential_id=str(order.credential_id)),
        auth=order.auth,
        addresses=check_host(work.tools.settings, order.host, order.port),
    )


def _outgoing(work: Work, order: Order) -> message.OutgoingMessage:
    args = work.lease.args
    contents = [(file, _content(work, file)) for file in order.files]
    return message.OutgoingMessage(
        message_id=work.lease.message_id or "",
        date=work.lease.created_at,
        mail_from=order.mail_from,
        from_name=args.get("from_name"),
        reply_to=tuple(args.get("reply_to") or ()),
        to=order.with_role("to"),
        cc=order.with_role("cc"),
        bcc=order.with_role("bcc"),
        in_reply_to=args.get("in_reply_to"),
        references=tuple(args.get("references") or ()),
        subject=args["subject"],
        text=args["text"],
        html=args["html"],
        inline=tuple(
            message.InlinePart(
                content_id=file.content_id, filename=file.filename, content_type=file.content_type, data=data
            )
            for file, data in contents
            if file.content_id is not None
        ),
        attachments=tuple(
            (file.filename, file.content_type, data) for file, data in contents if file.content_id is None
        ),
    )


def _content(work: Work, file: File) -> bytes:
    try:
        return work.tools.blobs.get(file.blob_key, work.lease.scope.tenant_id)
    except BlobError as err:
        detail = f"attachment {file.upload_id} ({file.filename!r}): {err.detail}"
        raise BlobError(detail, transient=err.transient) from err


def _in_ascii(outgoing: message.OutgoingMessage) -> bytes:
    """The message without the addresses that can't be written without SMTPUTF8: such a server can't reach them."""
    return message.build(
        replace(
            outgoing,
            to=tuple(filter(str.isascii, outgoing.to)),
            cc=tuple(filter(str.isascii, outgoing.cc)),
            reply_to=tuple(filter(str.isascii, outgoing.reply_to)),
        )
    )


# --- the server -------------------------------------------------------------------------------------------------------


def _attempt(
    work: Work, order: Order, endpoint: smtp.SmtpEndpoint, outgoing: message.OutgoingMessage, data: bytes
) -> dict[str, Outcome]:
    """One transaction with the server: what became of whom; who is not named still waits."""
    tools = work.tools
    transmitting: list[str] = []

    def before_data(accepted: tuple[str, ...]) -> None:
        transmitting.extend(accepted)
        with tools.database.session(work.lease.scope) as session:
            send_rows.begin_transmission(session, work.lease, accepted)
            session.commit()

    try:
        receipt = smtp.deliver(
            endpoint,
            mail_from=order.mail_from,
            recipients=order.with_state("queued"),
            data=data,
            ascii_data=lambda: _in_ascii(outgoing),
            before_data=before_data,
            timeout_s=tools.settings.mail_timeout_s,
            tls=tools.tls,
            connections=tools.smtp,
        )
    except DeliveryUnknownError as err:
        return {address: Outcome(state="unknown", reply_text=err.detail) for address in transmitting}
    except Exception as err:
        # Whatever it is: deliver says that the server does not have the message.
        outcome = _taken_back(err)
        insist(work, lambda: _take_back(work, outcome))
        raise
    return _outcomes(receipt)


def _outcomes(receipt: smtp.Receipt) -> dict[str, Outcome]:
    sent = Outcome(state="sent", reply_code=receipt.reply_code, reply_text=receipt.reply_text)
    return dict.fromkeys(receipt.accepted, sent) | {
        address: Outcome(
            state="queued" if refusal.transient else "failed",
            reply_code=refusal.reply_code,
            reply_text=refusal.reply_text,
            too_many=refusal.too_many,
        )
        for address, refusal in receipt.refused.items()
    }


def _has_more(outcomes: Mapping[str, Outcome]) -> bool:
    """Whether another transaction may reach somebody now: each one has reached somebody, so there is an end."""
    states = {outcome.state for outcome in outcomes.values()}
    return "sent" in states and any(outcome.too_many for outcome in outcomes.values())


def _taken_back(err: Exception) -> Outcome:
    """The server surely does not have the message: back to the queue, or failed if it never will."""
    if not isinstance(err, SmtpError):
        return Outcome(state="queued")
    return Outcome(state="queued" if err.transient else "failed", reply_code=err.reply_code, reply_text=err.detail)


def _take_back(work: Work, outcome: Outcome) -> None:
    with work.tools.database.session(work.lease.scope) as session:
        send_rows.take_back(session, work.lease, outcome)
        session.commit()


# --- after ------------------------------------------------------------------------------------------------------------


def _keep(work: Work, order: Order, outcomes: Mapping[str, Outcome], data: bytes) -> None:
    """Commit what is known so far."""
    with work.tools.database.session(work.lease.scope) as session:
        jobs.hold(session, work.lease)
        send_rows.record(session, work, order, outcomes, data=data)
        session.commit()


def _settle(work: Work, order: Order, outcomes: Mapping[str, Outcome], *, data: bytes | None = None) -> Settled:
    """Record what became of whom and, if no recipient waits after it, finish the job: in one commit.

    Raises:
        SmtpError: some recipients wait: a retry is theirs. What is known is kept.
    """
    after = order.after(outcomes)
    waiting = [r for r in after.recipients if r.state == "queued"]
    if waiting:
        insist(work, lambda: _keep(work, order, outcomes, data or b""))
        first = waiting[0]
        detail = f"{len(waiting)} of {len(after.recipients)} recipients refused for now: {first.reply_text or ''}"
        raise SmtpError(detail, reply_code=first.reply_code)

    states = [r.state for r in after.recipients]

    def finish(copy: bytes | None) -> Settled:
        with work.tools.database.session(work.lease.scope) as session:
            send_rows.record(session, work, order, outcomes, data=copy)
            settled = _finish(session, work, states, error_detail=_detail(outcomes))
            session.commit()
        return settled

    try:
        return insist(work, lambda: finish(data))
    except LeaseLostError:
        return _settled_before(work, states)
    except (StatementError, ValueError):
        # The mail is out: that it is known counts for more than its copy.
        _log.exception("the copy of a sent message can't be written")
        return insist(work, lambda: finish(None))


def _settled_before(work: Work, states: list[str]) -> Settled:
    """The answer to a commit can get lost: then the job is settled, by us.

    Raises:
        LeaseLostError: it was not us.
    """
    settled = _settled(work, states)
    with work.tools.database.session(work.lease.scope) as session:
        if send_rows.ending(session, work.lease) != settled.state:
            raise LeaseLostError(f"job {work.lease.job_id}, execution {work.lease.ordinal}")
    return settled


def _detail(outcomes: Mapping[str, Outcome]) -> str | None:
    """What the server said to those who were not reached, for the job's row."""
    said = [f"{o.reply_code or ''} {o.reply_text or ''}".strip() for o in outcomes.values() if o.state != "sent"]
    return said[0] if said else None


def _finish(
    session: Session, work: Work, states: list[str], *, error_type: str | None = None, error_detail: str | None
) -> Settled:
    settled = _settled(work, states)
    ending = work.ending(settled.state, error_type or _ERROR_TYPES.get(settled.state), error_detail=error_detail)
    jobs.finish(session, work.lease, ending, state=settled.state, outcome=settled.outcome, result=settled.result)
    return settled


def _settled(work: Work, states: list[str]) -> Settled:
    state, outcome = _verdict(states)
    sent = states.count("sent")
    result: dict[str, object] = {"message_id": work.lease.message_id, "recipients_sent": sent, "outcome": outcome}
    return Settled(state=state, outcome=outcome, result=result)


def _verdict(states: list[str]) -> tuple[str, str]:
    if "unknown" in states:
        return "unknown", "unknown"
    if "sent" not in states:
        return "failed", "failed"
    return "succeeded", "partial" if "failed" in states else "sent"
