"""A logged-in session with a server: connected in clear or under TLS, greeted, and who it is for.

Before MAIL nothing is at stake: whatever fails here is a ``ConnectError`` or an ``AuthenticationError``. An address
that can't be reached now is followed by the next one; a certificate that does not fit ends it.
Called by connections and delivery.
"""

from __future__ import annotations

import functools
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Final

from email_service.errors import ConnectError, MailServerError
from email_service.signals import SPAN_SMTP_CONNECT, SPAN_SMTP_STARTTLS
from email_service.smtp.auth import authenticate
from email_service.smtp.endpoint import SmtpEndpoint
from email_service.smtp.replies import READY, Reply
from email_service.smtp.tracing import client_span
from email_service.smtp.wire import Wire

#: More addresses of one host are not tried: each may take the whole timeout.
ADDRESSES_MAX: Final = 4
#: The message is delivered or refused by then: nothing depends on the answer to QUIT.
_QUIT_TIMEOUT_S: Final = 2.0


class Session:
    """A session that MAIL may be said in."""

    def __init__(self, wire: Wire, extensions: Mapping[str, str], *, address: str, endpoint: SmtpEndpoint) -> None:
        self.wire = wire
        #: What EHLO announced: keyword in capitals -> its parameters.
        self.extensions = extensions
        #: What was connected to.
        self.address = address
        #: Whose session it is.
        self.fingerprint = endpoint.fingerprint()
        #: Messages that the server has taken in it.
        self.messages = 0
        #: Whether a final dot was written whose reply was not a refusal.
        self.dot_written = False

    def command(self, line: str) -> Reply:
        """Say a line, and read the reply."""
        self.wire.send(f"{line}\r\n".encode())
        return self.wire.reply()

    def quit(self) -> None:
        """Part in peace; the outcome stands already, so a server that breaks off here has broken nothing."""
        with suppress(OSError):
            self.wire.send(b"QUIT\r\n")
            self.wire.reply(_QUIT_TIMEOUT_S)
        self.close()

    def close(self) -> None:
        """Let go, without a word."""
        self.wire.close()


def open_session(endpoint: SmtpEndpoint, *, timeout_s: float, tls: ssl.SSLContext | None) -> Session:
    """Connect, encrypt as the endpoint demands, and log in.

    Raises:
        ConnectError: no session, or no encryption where it is demanded; transient unless a retry can't help.
        AuthenticationError: the account was refused.
    """
    wire, address, extensions = _connected(endpoint, timeout_s, tls)
    try:
        if endpoint.encryption == "starttls":
            extensions = _start_tls(wire, endpoint, extensions, tls)
        if endpoint.username:
            with _session_errors(endpoint, "AUTH"):
                authenticate(wire, endpoint, extensions.get("AUTH", "").upper().split())
        return Session(wire, extensions, address=address, endpoint=endpoint)
    except BaseException:
        wire.close()
        raise


def _connected(
    endpoint: SmtpEndpoint, timeout_s: float, tls: ssl.SSLContext | None
) -> tuple[Wire, str, Mapping[str, str]]:
    """The first address that answers as an SMTP server; with what it offers."""
    *others, last = (endpoint.addresses or (endpoint.host,))[:ADDRESSES_MAX]
    for address in others:
        try:
            return _greeted(endpoint, address, timeout_s, tls)
        except ConnectError as err:
            if not err.transient:
                raise
    return _greeted(endpoint, last, timeout_s, tls)


def _greeted(
    endpoint: SmtpEndpoint, address: str, timeout_s: float, tls: ssl.SSLContext | None
) -> tuple[Wire, str, Mapping[str, str]]:
    with client_span(SPAN_SMTP_CONNECT, endpoint), _session_errors(endpoint, "connect"):
        wire = Wire(socket.create_connection((address, endpoint.port), timeout=timeout_s), timeout_s=timeout_s)
        try:
            if endpoint.encryption == "tls":
                wire.encrypt(tls or _trust(), endpoint.host)
            _expect(endpoint, "connect", wire.reply(), READY)
            return wire, address, _hello(wire, endpoint)
        except BaseException:
            wire.close()
            raise


def _start_tls(
    wire: Wire, endpoint: SmtpEndpoint, extensions: Mapping[str, str], tls: ssl.SSLContext | None
) -> Mapping[str, str]:
    with client_span(SPAN_SMTP_STARTTLS, endpoint), _session_errors(endpoint, "STARTTLS"):
        if "STARTTLS" not in extensions:
            # An attacker can strip the offer (RFC 3207 section 6): never go on in clear.
            raise ConnectError(f"{endpoint.name} does not offer STARTTLS, which this client demands", transient=False)
        wire.send(b"STARTTLS\r\n")
        _expect(endpoint, "STARTTLS", wire.reply(), READY)
        wire.encrypt(tls or _trust(), endpoint.host)
        # What was offered in clear counts for nothing (RFC 3207 section 4.2).
        return _hello(wire, endpoint)


def _hello(wire: Wire, endpoint: SmtpEndpoint) -> Mapping[str, str]:
    """EHLO, or HELO to a server that knows no better; what it offers."""
    name = _address_literal(wire.own_address)
    wire.send(f"EHLO {name}\r\n".encode("ascii"))
    reply = wire.reply()
    if reply.success:
        return _extensions(reply)
    if not reply.transient:
        wire.send(f"HELO {name}\r\n".encode("ascii"))
        reply = wire.reply()
    _expect(endpoint, "EHLO", reply, None)
    return {}


def _extensions(reply: Reply) -> dict[str, str]:
    offered: dict[str, str] = {}
    for line in reply.lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        # "AUTH=LOGIN" is how servers said it before RFC 2554.
        keyword, equals, first = keyword.upper().partition("=")
        offered[keyword] = f"{offered.get(keyword, '')} {first if equals else ''} {parameters}".strip()
    return offered


def _address_literal(address: str) -> str:
    """Our side of the connection, as EHLO wants it of a client without a name (RFC 5321 section 4.1.3)."""
    address = address.partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _expect(endpoint: SmtpEndpoint, verb: str, reply: Reply, wanted: int | None) -> None:
    if reply.code == wanted or (wanted is None and reply.success):
        return
    raise ConnectError(f"{endpoint.name} answered {verb} with {reply.code} {reply.text}", transient=reply.transient)


@contextmanager
def _session_errors(endpoint: SmtpEndpoint, verb: str) -> Iterator[None]:
    """Whatever breaks before MAIL is a ``ConnectError``."""
    try:
        yield
    except MailServerError:
        raise
    except ssl.SSLCertVerificationError as err:
        detail = f"{endpoint.name}: its certificate is not accepted: {err.verify_message}"
        raise ConnectError(detail, transient=False) from err
    except UnicodeError as err:
        raise ConnectError(f"{endpoint.host!r} is not a host name", transient=False) from err
    except OSError as err:
        raise ConnectError(f"{endpoint.name}, {verb}: {err}") from err


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, read once a process: it takes tens of milliseconds."""
    return ssl.create_default_context()
