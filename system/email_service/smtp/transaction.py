"""One message over one session: MAIL and RCPT in one round trip where the server allows it, DATA, the final dot.

The package's rules 1 to 3 are kept here. Never connects, never decides about a second session. Called by delivery.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from email_service.errors import DeliveryUnknownError, MailServerError, SmtpError
from email_service.signals import MAIL_SIZE_BYTES, SMTP_RECIPIENTS, SMTP_REPLY_CODE, SMTP_REUSED, SPAN_SMTP_SEND
from email_service.smtp import replies
from email_service.smtp.replies import Reply
from email_service.smtp.session import Session
from email_service.smtp.tracing import client_span

#: How long the reply to the final dot may take: RFC 5321 section 4.5.3.2.6 says ten minutes, a task has 280 s.
FINAL_REPLY_TIMEOUT_S: Final = 120.0
#: Commands under way at once: their replies fit into any socket's buffer, so neither side waits for the other.
_WINDOW: Final = 100
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
#: RFC 6531 section 3.5: what a server says that has no SMTPUTF8.
_NEEDS_UTF8: Final = "5.6.7 the server does not offer SMTPUTF8, which this address needs"


class StaleSessionError(ConnectionError):
    """A kept session was found dead at MAIL: the message can go over another one."""


class Refusal(NamedTuple):
    """Why a recipient was refused."""

    reply_code: int
    reply_text: str
    #: Is a later try worth it?
    transient: bool

    @property
    def enhanced_code(self) -> str | None:
        """Such as 5.1.1, if the server says one (RFC 3463)."""
        return replies.enhanced_code(self.reply_text)

    @property
    def too_many(self) -> bool:
        """Whether the message only had too many recipients already: another transaction may follow at once."""
        return replies.too_many(self.reply_code, self.reply_text)


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of each recipient."""

    #: The server took the message for these.
    accepted: tuple[str, ...]
    refused: Mapping[str, Refusal]
    #: To the final dot; None when nobody was accepted, as then nothing is sent.
    reply_code: int | None
    reply_text: str


@dataclass(frozen=True, kw_only=True)
class Mail:
    """What is to be sent."""

    mail_from: str
    recipients: tuple[str, ...]
    data: bytes = field(repr=False)
    #: Makes the message for a server that can't take the addresses in ``data``'s header; None: there is no other.
    ascii_data: Callable[[], bytes] | None = field(default=None, repr=False)


class _Plan(NamedTuple):
    """What is said to this server."""

    command: str
    recipients: tuple[str, ...]
    refused: dict[str, Refusal]
    data: bytes


def transact(
    session: Session, mail: Mail, before_data: Callable[[tuple[str, ...]], None], *, final_reply_timeout_s: float
) -> Receipt:
    """Send the message to whom the server accepts; if that is nobody, send nothing.

    Raises:
        SmtpError: the message was refused or not sent; surely not delivered.
        DeliveryUnknownError: the connection ended between the final dot and its reply.
        StaleSessionError: the session had ended before it began.
    """
    session.dot_written = False
    attributes = {SMTP_RECIPIENTS: len(mail.recipients), SMTP_REUSED: session.messages > 0}
    with client_span(SPAN_SMTP_SEND, attributes=attributes) as span:
        plan = _plan(session.extensions, mail)
        span.set_attribute(MAIL_SIZE_BYTES, len(plan.data))
        accepted = _envelope(session, plan) if plan.recipients else ()
        if not accepted:
            return Receipt(accepted=(), refused=plan.refused, reply_code=None, reply_text="")
        # Not among our errors: what it raises is the caller's, and is raised as it is.
        before_data(accepted)
        with _definite_errors("DATA"):
            _expect(session.command("DATA"), wanted=replies.START_INPUT)
            session.wire.send(_stuffed(plan.data))
            _still_listening(session)
        reply = _final_dot(session, final_reply_timeout_s)
        span.set_attribute(SMTP_REPLY_CODE, reply.code)
        return Receipt(accepted=accepted, refused=plan.refused, reply_code=reply.code, reply_text=reply.text)


# --- before anything is said ------------------------------------------------------------------------------------------


def _plan(offered: Mapping[str, str], mail: Mail) -> _Plan:
    """What of the message this server can take.

    Raises:
        SmtpError: nothing, ever; says what is missing.
    """
    if not mail.mail_from.isascii() and "SMTPUTF8" not in offered:
        raise SmtpError("the server does not offer SMTPUTF8, which the sender's address needs", transient=False)
    refusal = Refusal(reply_code=replies.NAME_NOT_ALLOWED, reply_text=_NEEDS_UTF8, transient=False)
    refused = {r: refusal for r in mail.recipients if not r.isascii() and "SMTPUTF8" not in offered}
    recipients = tuple(r for r in mail.recipients if r not in refused)
    data = _with_crlf(_data(offered, mail))
    options = _options(offered, (mail.mail_from, *recipients), data)
    return _Plan(" ".join([f"MAIL FROM:<{mail.mail_from}>", *options]), recipients, refused, data)


def _data(offered: Mapping[str, str], mail: Mail) -> bytes:
    if "SMTPUTF8" in offered or mail.ascii_data is None or _header(mail.data).isascii():
        return mail.data
    return mail.ascii_data()


def _options(offered: Mapping[str, str], addresses: Sequence[str], data: bytes) -> Iterator[str]:
    if "SIZE" in offered:
        # RFC 1870: a server that will find the message too large says so before it has it; some say the limit at once.
        limit = int(offered["SIZE"]) if offered["SIZE"].isdecimal() else 0
        if 0 < limit < len(data):
            raise SmtpError(f"the message has {len(data)} bytes, the server takes at most {limit}", transient=False)
        yield f"SIZE={len(data)}"
    if not _header(data).isascii() or not "".join(addresses).isascii():
        yield _extension(offered, "SMTPUTF8", "SMTPUTF8")
    if not data.isascii():
        yield _extension(offered, "8BITMIME", "BODY=8BITMIME")


def _extension(offered: Mapping[str, str], name: str, option: str) -> str:
    """The option, if the server offers what the message can't go without.

    Raises:
        SmtpError: it does not, and will not.
    """
    if name not in offered:
        raise SmtpError(f"the server does not offer {name}, which this message needs", transient=False)
    return option


def _header(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[0]


# --- the conversation -------------------------------------------------------------------------------------------------


def _envelope(session: Session, plan: _Plan) -> tuple[str, ...]:
    """Say MAIL and RCPT; who was accepted. Who was not is added to the plan's refused."""
    answers = _ask(session, [plan.command, *(f"RCPT TO:<{address}>" for address in plan.recipients)])
    with _definite_errors("MAIL"):
        _expect(_first(session, answers))
    with _definite_errors("RCPT"):
        return _sorted_out(plan, answers)


def _ask(session: Session, commands: Sequence[str]) -> Iterator[Reply]:
    """The reply to each; all that are under way at once are one write (RFC 2920 section 3.1)."""
    step = _WINDOW if "PIPELINING" in session.extensions else 1
    for start in range(0, len(commands), step):
        batch = commands[start : start + step]
        session.wire.send("".join(f"{command}\r\n" for command in batch).encode())
        for _ in batch:
            yield session.wire.reply()


def _first(session: Session, answers: Iterator[Reply]) -> Reply:
    """The reply to MAIL.

    Raises:
        StaleSessionError: a kept session has ended meanwhile; some servers say so with a 421.
    """
    try:
        reply = next(answers)
    except OSError as err:
        if session.messages:
            raise StaleSessionError(str(err)) from err
        raise
    if session.messages and reply.code == replies.SERVICE_CLOSING:
        raise StaleSessionError(reply.text)
    return reply


def _sorted_out(plan: _Plan, answers: Iterator[Reply]) -> tuple[str, ...]:
    accepted = []
    for address, reply in zip(plan.recipients, answers, strict=True):
        if reply.success:
            accepted.append(address)
        elif reply.code == replies.SERVICE_CLOSING:
            _expect(reply)
        else:
            plan.refused[address] = Refusal(reply.code, reply.text, replies.waits(reply))
    return tuple(accepted)


def _still_listening(session: Session) -> None:
    """A server that has gone, or has answered already, can't take the message: that is definite still.

    Raises:
        SmtpError: what it said.
        OSError: it has gone.
    """
    if not session.wire.silent:
        reply = session.wire.reply()
        raise SmtpError(f"{reply.code} {reply.text}", reply_code=reply.code, transient=not reply.permanent)


def _final_dot(session: Session, timeout_s: float) -> Reply:
    """Write the final dot and read its reply: the one place where nobody may know what happened."""
    session.dot_written = True
    try:
        session.wire.send(b".\r\n")
        reply = session.wire.reply(timeout_s)
    except Exception as err:
        # All exceptions: also a soft time limit that strikes here leaves the outcome unknown.
        raise DeliveryUnknownError(f"no reply to the final dot ({type(err).__name__})") from err
    if not reply.success:
        session.dot_written = False
        _expect(reply)
    session.messages += 1
    return reply


def _expect(reply: Reply, *, wanted: int | None = None) -> None:
    """Raise unless the reply is the wanted one, or any success."""
    if reply.code == wanted or (wanted is None and reply.success):
        return
    raise SmtpError(f"{reply.code} {reply.text}", reply_code=reply.code, transient=reply.transient)


def _with_crlf(data: bytes) -> bytes:
    """Every line ends with CRLF: a bare CR or LF before a dot would smuggle a second message."""
    if not data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r"):
        data = _LINE_END.sub(b"\r\n", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def _stuffed(data: bytes) -> bytes:
    """RFC 5321 section 4.5.2: a dot at the beginning of a line is doubled."""
    data = data.replace(b"\r\n.", b"\r\n..")
    return b"." + data if data.startswith(b".") else data


@contextmanager
def _definite_errors(verb: str) -> Iterator[None]:
    """Up to the final dot a broken connection is a definite failure, worth a retry."""
    try:
        yield
    except (MailServerError, StaleSessionError):
        raise
    except OSError as err:
        raise SmtpError(f"the connection broke at {verb}: {err}") from err
