"""The connection to an IMAP server: sockets, TLS, login, and every error made ours.

Rule 1: no error and no span holds the password.
Rule 2: lines and literals are bounded, so that no server decides how much memory a worker takes.
``imaplib`` tags commands and collects replies; the socket is our own. Called by session.
"""

from __future__ import annotations

import base64
import functools
import imaplib
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedReader
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from email_service.errors import AuthenticationError, ConnectError, ImapError, MailServerError
from email_service.imap.replies import NOT_QUOTABLE, quoted, readable
from email_service.imap.values import ImapEndpoint
from email_service.signals import ERROR_TYPE

#: A SEARCH reply of two million UIDs; a message, where no provider takes more than 50 MB in.
_LINE_BYTES_MAX: Final = 16 * 1024 * 1024
_LITERAL_BYTES_MAX: Final = 64 * 1024 * 1024
#: Response codes (RFC 5530 section 3; THROTTLED is Exchange's) that say whether a later try may succeed.
_CODES_TRANSIENT: Final = frozenset({"INUSE", "LIMIT", "OVERQUOTA", "SERVERBUG", "THROTTLED", "UNAVAILABLE"})
_CODES_PERMANENT: Final = frozenset(
    {
        "AUTHENTICATIONFAILED",
        "AUTHORIZATIONFAILED",
        "CANNOT",
        "CLIENTBUG",
        "CONTACTADMIN",
        "EXPIRED",
        "NONEXISTENT",
        "NOPERM",
        "PRIVACYREQUIRED",
    }
)
#: Gmail's "[ALERT] Too many simultaneous connections", Exchange Online's BAD when it is busy.
_SOON: Final = re.compile(r"too many|try again|temporar|unavailable|authenticated but not connected", re.IGNORECASE)
_RESPONSE_CODE: Final = re.compile(r"\[([A-Z-]+)[\] ]")

_TRACER: Final = trace.get_tracer("email_service.imap")


class Wire(imaplib.IMAP4):
    """imaplib over a socket of our own: no Nagle delay, TLS checked, sizes bounded."""

    def __init__(self, endpoint: ImapEndpoint, timeout_s: float, tls: ssl.SSLContext | None) -> None:
        self._endpoint = endpoint
        self._context = tls
        super().__init__(endpoint.host, endpoint.port, timeout=timeout_s)
        # At a level above 3 imaplib prints the password, and every body.
        self.debug = 0
        if endpoint.encryption == "starttls":
            try:
                self._start_tls()
            except BaseException:
                self.shutdown()
                raise

    def open(self, host: str = "", port: int = 143, timeout: float | None = None) -> None:
        """Connect, and encrypt if that comes first."""
        self.host, self.port = host, port
        self.sock = socket.create_connection((host, port), timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._endpoint.encryption == "tls":
            self._encrypt()
        self._reader: BufferedReader = self.sock.makefile("rb")

    def read(self, size: int) -> bytes:
        """The whole of a literal."""
        if size > _LITERAL_BYTES_MAX:
            raise ImapError(f"a literal of {size} bytes; at most {_LITERAL_BYTES_MAX} are read", transient=False)
        data = self._reader.read(size)
        if len(data) < size:
            raise self.abort("the connection ended within a literal")
        return data

    def readline(self) -> bytes:
        """A line with its end."""
        line = self._reader.readline(_LINE_BYTES_MAX + 1)
        if len(line) > _LINE_BYTES_MAX:
            raise ImapError(f"a line of more than {_LINE_BYTES_MAX} bytes", transient=False)
        return line

    def send(self, data: Any) -> None:
        """All of the bytes."""
        self.sock.sendall(data)

    def shutdown(self) -> None:
        """Close, in whatever state."""
        for closable in (self._reader, self.sock):
            # A reset by the other side shows up here again; there is nothing left to lose.
            with suppress(OSError):
                closable.close()

    def log_in(self, user: str, password: str) -> tuple[str, list[Any]]:
        """LOGIN; AUTHENTICATE PLAIN for what LOGIN can't say."""
        plain = "AUTH=PLAIN" in self.capabilities
        if "LOGINDISABLED" in self.capabilities and not plain:
            raise AuthenticationError("the server allows no login on this connection")
        both = f"{user}{password}"
        if plain and ("LOGINDISABLED" in self.capabilities or not both.isascii() or not both.isprintable()):
            authenticate: Any = self.authenticate
            kind, data = authenticate("PLAIN", lambda _: _plain(user, password))
            return kind, data
        if NOT_QUOTABLE.search(_utf8(both)):
            raise AuthenticationError("the name or the password holds a line break, which LOGIN can't say")
        answer = self._raw_command("LOGIN", quoted(_utf8(user)), quoted(_utf8(password)))
        if answer[0] == "OK":
            self.state = "AUTH"
        return answer

    def examine(self, name: bytes) -> tuple[str, list[Any]]:
        """EXAMINE, with the replies of an earlier one forgotten."""
        select: Callable[..., tuple[str, list[Any]]] = self.select
        return select(quoted(name), readonly=True)

    def number(self, code: str) -> int | None:
        """The number in a response code of the last EXAMINE, such as [UIDVALIDITY 3]."""
        values: list[Any] = self.untagged_responses.get(code) or [b""]
        found = re.match(rb"\d+", values[-1])
        return int(found[0]) if found else None

    def _start_tls(self) -> None:
        if "STARTTLS" not in self.capabilities:
            # An attacker can strip the offer: never go on in clear.
            raise ConnectError("the server does not offer STARTTLS, which this client demands", transient=False)
        accepted("STARTTLS", self._raw_command("STARTTLS"))
        # What came with the reply came in clear and may be forged: the reader is dropped with its buffer.
        self._reader.close()
        self._encrypt()
        self._reader = self.sock.makefile("rb")
        self._get_capabilities()

    def _encrypt(self) -> None:
        self.sock = (self._context or _trust()).wrap_socket(self.sock, server_hostname=self.host)

    def _raw_command(self, name: str, *arguments: bytes) -> tuple[str, list[Any]]:
        command: Callable[..., tuple[str, list[Any]]] = self._simple_command
        return command(name, *arguments)


def log_in(wire: Wire, endpoint: ImapEndpoint) -> None:
    """Say who we are, unless the server knows.

    Raises:
        AuthenticationError: it refuses; permanent unless it says why it might not tomorrow.
        ConnectError: it broke off.
    """
    if wire.state == "AUTH":
        # PREAUTH: the server knows us by other means (RFC 3501 section 7.1.4).
        return
    user, password = endpoint.username, endpoint.password.reveal()
    hidden = tuple(
        text.decode("utf-8", "replace")
        for text in (base64.b64encode(_plain(user, password)), quoted(_utf8(password)), _utf8(password))
    )
    with errors("LOGIN", broken=ConnectError, refused=AuthenticationError, hidden=hidden):
        answer, said = wire.log_in(user, password)
    if answer != "OK":
        text = readable(said[-1], hidden=hidden)
        raise AuthenticationError(text, transient=_is_transient(text, otherwise=False))


def accepted(verb: str, answer: tuple[str, list[Any]]) -> list[Any]:
    """The data of an OK.

    Raises:
        ImapError: the server said NO.
    """
    kind, data = answer
    if kind == "OK":
        return data
    text = readable(data[-1])
    raise ImapError(f"{verb}: {text}", transient=_is_transient(text, otherwise=True))


@contextmanager
def errors(
    verb: str,
    *,
    broken: type[MailServerError] = ImapError,
    refused: type[MailServerError] = ImapError,
    hidden: Sequence[str] = (),
) -> Iterator[None]:
    """Errors of imaplib and of the socket as ours: ``broken`` if the connection ended, ``refused`` on BAD."""
    try:
        yield
    except MailServerError:
        raise
    except imaplib.IMAP4.abort as err:
        raise broken(f"{verb}: {_told(err, hidden)}", transient=True) from (None if hidden else err)
    except imaplib.IMAP4.error as err:
        text = _told(err, hidden)
        # A greeting of BYE ends up here as well: too many connections.
        transient = _is_transient(text, otherwise=refused is ConnectError)
        raise refused(f"{verb}: {text}", transient=transient) from (None if hidden else err)
    except ssl.SSLCertVerificationError as err:
        raise broken(f"{verb}: {err.verify_message}", transient=False) from err
    except OSError as err:
        raise broken(f"{verb}: {err}", transient=True) from err
    except ValueError as err:
        # Without its cause and text: a UnicodeError holds what it could not encode.
        raise broken(f"{verb}: a name or a reply that can't be read ({type(err).__name__})", transient=False) from None


def _told(err: imaplib.IMAP4.error, hidden: Sequence[str]) -> str:
    """What imaplib says; it quotes replies in Python's way, where a secret can't be found: those are left out."""
    text = str(err)
    if hidden and ("b'" in text or 'b"' in text):
        return "the server answered with BAD, or with what is no reply"
    return readable(text, hidden=hidden)


def _is_transient(text: str, *, otherwise: bool) -> bool:
    code = next((code for code in _RESPONSE_CODE.findall(text) if code in _CODES_TRANSIENT | _CODES_PERMANENT), None)
    if code is not None:
        return code in _CODES_TRANSIENT
    return otherwise or _SOON.search(text) is not None


@contextmanager
def span(name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """A CLIENT span; an error is told by its kind, as texts of servers name addresses."""
    with _TRACER.start_as_current_span(
        name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except Exception as err:
            span.set_attribute(ERROR_TYPE, getattr(err, "code", type(err).__name__))
            span.set_status(StatusCode.ERROR)
            raise


@functools.cache
def _trust() -> ssl.SSLContext:
    """The system's certificates, read once a process: it takes tens of milliseconds."""
    return ssl.create_default_context()


def _plain(user: str, password: str) -> bytes:
    """The one message of SASL PLAIN (RFC 4616)."""
    return b"\0" + _utf8(user) + b"\0" + _utf8(password)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
