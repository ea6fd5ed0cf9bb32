"""Hand one message to an SMTP server, and say for each recipient what became of it (RFC 5321).

Rule 1: until the final dot is written the server can't have the message: every failure before it is definite.
Rule 2: from that write on, only a reply tells; anything else is ``DeliveryUnknownError`` and is never tried again.
Rule 3: ``before_data`` runs after the recipients are accepted and before DATA, so its commit precedes any effect.
Rule 4: no error holds the password, no span a password or an address.
Drives ``smtplib`` verb by verb, as its ``sendmail`` hides where it failed. Called by service.
"""

from __future__ import annotations

import base64
import functools
import re
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from email_service.errors import (
    AuthenticationError,
    ConnectError,
    DeliveryUnknownError,
    InvalidRequestError,
    MailServerError,
    SmtpError,
)
from email_service.signals import (
    ERROR_TYPE,
    MAIL_SIZE_BYTES,
    SERVER_ADDRESS,
    SERVER_PORT,
    SMTP_RECIPIENTS,
    SMTP_REPLY_CODE,
    SPAN_SMTP_AUTH,
    SPAN_SMTP_CONNECT,
    SPAN_SMTP_SEND,
    SPAN_SMTP_STARTTLS,
)
from email_service.vault import Secret

#: How long the reply to the final dot may take: RFC 5321 section 4.5.3.2.6 says ten minutes, a task has 280 s.
FINAL_REPLY_TIMEOUT_S: Final = 120.0
#: The message is delivered or refused by then: nothing depends on the answer to QUIT.
_QUIT_TIMEOUT_S: Final = 2.0
_ENCRYPTIONS: Final = ("none", "starttls", "tls")
_REPLY_CHARACTERS_MAX: Final = 300
#: Reply codes by name (RFC 5321 section 4.2.3, RFC 4954 section 6).
_SERVICE_CLOSING: Final = 421
_READY: Final = 220
_AUTHENTICATED: Final = 235
_CONTINUE: Final = 334
_START_INPUT: Final = 354
_TOO_MANY_RECIPIENTS: Final = 552

_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]+")
_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_TRACER: Final = trace.get_tracer("email_service.smtp")


@dataclass(frozen=True, kw_only=True)
class SmtpEndpoint:
    """A server and an account on it."""

    host: str
    port: int
    #: none, starttls or tls.
    encryption: str
    #: Empty to send without AUTH.
    username: str
    password: Secret


class Refusal(NamedTuple):
    """Why a recipient was refused."""

    reply_code: int
    reply_text: str
    #: Is a later try worth it?
    transient: bool


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What became of each recipient."""

    #: The server took the message for these.
    accepted: tuple[str, ...]
    refused: Mapping[str, Refusal]
    #: To the final dot; None when nobody was accepted, as then nothing is sent.
    reply_code: int | None
    reply_text: str


def deliver(
    endpoint: SmtpEndpoint,
    *,
    mail_from: str,
    recipients: Sequence[str],
    data: bytes,
    before_data: Callable[[tuple[str, ...]], None],
    timeout_s: float,
    final_reply_timeout_s: float = FINAL_REPLY_TIMEOUT_S,
    tls: ssl.SSLContext | None = None,
) -> Receipt:
    """Send the message to whom the server accepts; if that is nobody, send nothing.

    ``timeout_s`` bounds each wait, ``before_data`` gets the accepted recipients, ``tls`` replaces the system's trust.

    Raises:
        ConnectError: no session, or no encryption where it is demanded.
        AuthenticationError: the account was refused; transient on a 4xx.
        SmtpError: the message was refused or not sent; surely not delivered.
        DeliveryUnknownError: the connection ended between the final dot and its reply.
    """
    if _CONTROL.search("".join((mail_from, *recipients))):
        raise InvalidRequestError("an envelope address holds a space or a control character")
    with _session(endpoint, timeout_s, tls) as server:
        return _send(
            server,
            mail_from=mail_from,
            recipients=recipients,
            data=_with_crlf(data),
            before_data=before_data,
            final_reply_timeout_s=final_reply_timeout_s,
        )


# --- the session ----------------------------------------------------------------------------------------------------


@contextmanager
def _session(endpoint: SmtpEndpoint, timeout_s: float, tls: ssl.SSLContext | None) -> Iterator[smtplib.SMTP]:
    """A logged-in session; says QUIT unless the conversation broke off."""
    if endpoint.encryption not in _ENCRYPTIONS:
        raise InvalidRequestError(
            f"encryption is {endpoint.encryption!r}; it must be one of: {', '.join(_ENCRYPTIONS)}"
        )
    server = _connect(endpoint, timeout_s, tls)
    try:
        if endpoint.encryption == "starttls":
            _start_tls(server, endpoint, tls)
        if endpoint.username:
            _authenticate(server, endpoint)
        yield server
        _quit(server)
    except SmtpError as err:
        if err.reply_code is not None:
            _quit(server)
        raise
    finally:
        server.close()


def _connect(endpoint: SmtpEndpoint, timeout_s: float, tls: ssl.SSLContext | None) -> smtplib.SMTP:
    with _span(SPAN_SMTP_CONNECT, endpoint), _session_errors(endpoint, "connect"):
        server = _open(endpoint, timeout_s, tls)
        try:
            _socket(server).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.local_hostname = _address_literal(_socket(server))
            server.ehlo_or_helo_if_needed()
        except BaseException:
            server.close()
            raise
        return server


def _open(endpoint: SmtpEndpoint, timeout_s: float, tls: ssl.SSLContext | None) -> smtplib.SMTP:
    host, port = endpoint.host, endpoint.port
    # A local_hostname spares smtplib a look-up of our own name, which can take seconds.
    if endpoint.encryption == "tls":
        context = tls or _trust()
        return smtplib.SMTP_SSL(host, port, local_hostname="localhost", timeout=timeout_s, context=context)
    return smtplib.SMTP(host, port, local_hostname="localhost", timeout=timeout_s)


def _start_tls(server: smtplib.SMTP, endpoint: SmtpEndpoint, tls: ssl.SSLContext | None) -> None:
    with _span(SPAN_SMTP_STARTTLS, endpoint), _session_errors(endpoint, "STARTTLS"):
        if not server.has_extn("starttls"):
            # An attacker can strip the offer (RFC 3207 section 6): never go on in clear.
            raise ConnectError(f"{_name(endpoint)} does not offer STARTTLS, which this client demands", transient=False)
        server.starttls(context=tls or _trust())
        server.ehlo_or_helo_if_needed()


def _authenticate(server: smtplib.SMTP, endpoint: SmtpEndpoint) -> None:
    """AUTH by our own hands: smtplib's can't say UTF-8, and its UnicodeEncodeError holds the password."""
    user, password = endpoint.username, endpoint.password.reveal()
    both = _base64(f"\0{user}\0{password}")
    with _span(SPAN_SMTP_AUTH, endpoint) as span, _session_errors(endpoint, "AUTH"):
        offered = server.esmtp_features.get("auth", "").upper().split()
        if "PLAIN" in offered:
            code, text = server.docmd("AUTH", f"PLAIN {both}")
        elif "LOGIN" in offered:
            code, text = server.docmd("AUTH", f"LOGIN {_base64(user)}")
            if code == _CONTINUE:
                code, text = server.docmd(_base64(password))
        else:
            raise AuthenticationError(f"{_name(endpoint)} offers neither AUTH PLAIN nor AUTH LOGIN")
        span.set_attribute(SMTP_REPLY_CODE, code)
    if code != _AUTHENTICATED:
        said = _readable(text, hidden=(both, _base64(password), password))
        raise AuthenticationError(f"{_name(endpoint)} answered {code} {said}", transient=_is_transient(code))


def _quit(server: smtplib.SMTP) -> None:
    """Part in peace; the outcome stands already, so a server that breaks off here has broken nothing."""
    with suppress(OSError):
        _socket(server).settimeout(_QUIT_TIMEOUT_S)
        server.docmd("QUIT")


# --- the message ----------------------------------------------------------------------------------------------------


def _send(
    server: smtplib.SMTP,
    *,
    mail_from: str,
    recipients: Sequence[str],
    data: bytes,
    before_data: Callable[[tuple[str, ...]], None],
    final_reply_timeout_s: float,
) -> Receipt:
    attributes = {SMTP_RECIPIENTS: len(recipients), MAIL_SIZE_BYTES: len(data)}
    with _span(SPAN_SMTP_SEND, attributes=attributes) as span:
        with _definite_errors("MAIL"):
            _say_mail(server, mail_from, recipients, data)
        with _definite_errors("RCPT"):
            accepted, refused = _say_rcpt(server, recipients)
        if not accepted:
            return Receipt(accepted=(), refused=refused, reply_code=None, reply_text="")
        # Not among our errors: what it raises is the caller's, and is raised as it is.
        before_data(accepted)
        with _definite_errors("DATA"):
            _expect(*server.docmd("DATA"), wanted=_START_INPUT)
            server.send(_stuffed(data))
        code, text = _final_dot(server, final_reply_timeout_s)
        span.set_attribute(SMTP_REPLY_CODE, code)
        return Receipt(accepted=accepted, refused=refused, reply_code=code, reply_text=text)


def _say_mail(server: smtplib.SMTP, mail_from: str, recipients: Sequence[str], data: bytes) -> None:
    options = []
    if server.has_extn("size"):
        # RFC 1870: a server that will find the message too large says so before it has it.
        options.append(f"SIZE={len(data)}")
    header = data.partition(b"\r\n\r\n")[0]
    if not header.isascii() or not "".join((mail_from, *recipients)).isascii():
        options.append(_extension(server, "SMTPUTF8", "SMTPUTF8"))
    if not data.isascii():
        options.append(_extension(server, "8BITMIME", "BODY=8BITMIME"))
    _expect(*server.mail(mail_from, options))


def _extension(server: smtplib.SMTP, name: str, option: str) -> str:
    """The option, if the server offers what the message can't go without.

    Raises:
        SmtpError: it does not, and will not.
    """
    if not server.has_extn(name):
        raise SmtpError(f"the server does not offer {name}, which this message needs", transient=False)
    return option


def _say_rcpt(server: smtplib.SMTP, recipients: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Refusal]]:
    accepted, refused = [], {}
    for address in recipients:
        code, text = server.rcpt(address)
        if _is_success(code):
            accepted.append(address)
        elif code == _SERVICE_CLOSING or code < 0:
            _expect(code, text)
        else:
            # RFC 5321 section 4.5.3.1.10: an old server's 552 to RCPT means "too many recipients", which is a 452.
            transient = _is_transient(code) or code == _TOO_MANY_RECIPIENTS
            refused[address] = Refusal(reply_code=code, reply_text=_readable(text), transient=transient)
    return tuple(accepted), refused


def _final_dot(server: smtplib.SMTP, timeout_s: float) -> tuple[int, str]:
    """Write the final dot and read its reply: the one place where nobody may know what happened."""
    try:
        _socket(server).settimeout(timeout_s)
        server.send(b".\r\n")
        code, text = server.getreply()
    except Exception as err:
        # All exceptions: also a soft time limit that strikes here leaves the outcome unknown.
        raise DeliveryUnknownError(f"no reply to the final dot ({type(err).__name__})") from err
    if code < 0:
        raise DeliveryUnknownError("the reply to the final dot can't be read")
    _expect(code, text)
    return code, _readable(text)


def _expect(code: int, text: bytes, *, wanted: int | None = None) -> None:
    """Raise unless the reply is the wanted one, or any success."""
    if code == wanted or (wanted is None and _is_success(code)):
        return
    if code < 0:
        raise SmtpError(f"the reply can't be read: {_readable(text)}")
    raise SmtpError(f"{code} {_readable(text)}", reply_code=code, transient=_is_transient(code))


def _with_crlf(data: bytes) -> bytes:
    """Every line ends with CRLF: a bare CR or LF before a dot would smuggle a second message."""
    if not data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r"):
        data = _LINE_END.sub(b"\r\n", data)
    return data if data.endswith(b"\r\n") else data + b"\r\n"


def _stuffed(data: bytes) -> bytes:
    """RFC 5321 section 4.5.2: a dot at the beginning of a line is doubled."""
    data = data.replace(b"\r\n.", b"\r\n..")
    return b"." + data if data.startswith(b".") else data


# --- errors and spans -----------------------------------------------------------------------------------------------


@contextmanager
def _session_errors(endpoint: SmtpEndpoint, verb: str) -> Iterator[None]:
    """Before MAIL nothing is at stake: all failures are ``ConnectError``."""
    try:
        yield
    except MailServerError:
        raise
    except smtplib.SMTPResponseException as err:
        said = _readable(err.smtp_error)
        # Below zero: not a reply at all.
        transient = _is_transient(err.smtp_code) or err.smtp_code < 0
        raise ConnectError(
            f"{_name(endpoint)} answered {verb} with {err.smtp_code} {said}", transient=transient
        ) from err
    except ssl.SSLCertVerificationError as err:
        raise ConnectError(f"{_name(endpoint)}: {err.verify_message}", transient=False) from err
    except UnicodeError as err:
        raise ConnectError(f"{endpoint.host!r} is not a host name", transient=False) from err
    except OSError as err:
        raise ConnectError(f"{_name(endpoint)}, {verb}: {err}") from err


@contextmanager
def _definite_errors(verb: str) -> Iterator[None]:
    """Up to the final dot a broken connection is a definite failure, worth a retry."""
    try:
        yield
    except MailServerError:
        raise
    except OSError as err:
        # smtplib's own exceptions are OSErrors too.
        raise SmtpError(f"the connection broke at {verb}: {err}") from err


@contextmanager
def _span(
    name: str, endpoint: SmtpEndpoint | None = None, *, attributes: Mapping[str, str | int] | None = None
) -> Iterator[Span]:
    """A CLIENT span; an error is told by its kind, as texts of servers name addresses."""
    peer: dict[str, str | int] = {SERVER_ADDRESS: endpoint.host, SERVER_PORT: endpoint.port} if endpoint else {}
    with _TRACER.start_as_current_span(
        name,
        kind=SpanKind.CLIENT,
        attributes={**peer, **(attributes or {})},
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            yield span
        except Exception as err:
            span.set_attribute(ERROR_TYPE, getattr(err, "code", type(err).__name__))
            if isinstance(err, SmtpError) and err.reply_code is not None:
                span.set_attribute(SMTP_REPLY_CODE, err.reply_code)
            span.set_status(StatusCode.ERROR)
            raise


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, read once a process: it takes tens of milliseconds."""
    return ssl.create_default_context()


def _socket(server: smtplib.SMTP) -> socket.socket:
    if server.sock is None:
        raise smtplib.SMTPServerDisconnected("the connection is closed")
    return server.sock


def _address_literal(connected: socket.socket) -> str:
    """Our side of the connection, as EHLO wants it of a client without a name (RFC 5321 section 4.1.3)."""
    address = str(connected.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _name(endpoint: SmtpEndpoint) -> str:
    return f"{endpoint.host}:{endpoint.port}"


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


def _readable(text: bytes | str, *, hidden: Sequence[str] = ()) -> str:
    """A reply on one line, cut, without what must not be repeated."""
    said = text if isinstance(text, str) else text.decode("utf-8", "replace")
    for secret in filter(None, hidden):
        said = said.replace(secret, "***")
    return _CONTROL.sub(" ", said).strip()[:_REPLY_CHARACTERS_MAX]


def _is_success(code: int) -> bool:
    return code // 100 == 2  # noqa: PLR2004  # RFC 5321 section 4.2.1: the first digit


def _is_transient(code: int) -> bool:
    return code // 100 == 4  # noqa: PLR2004  # as above
