"""What went wrong, made ours: refusals by response code and text, broken lines, certificates.

Rule 1: no error holds a secret; where a server may have repeated one, its text is cleaned and the cause is dropped.
Rule 2: whether a later try may succeed is decided here alone: by response code, then by well-known texts, then by
what is usual for the command.
Called by wire, login, session, changes, reading and moving.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from email_service.errors import ConnectError, ImapError, MailServerError
from email_service.imap.replies import readable
from email_service.signals import ERROR_TYPE
from email_service.steps import measured

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


class RefusedError(Exception):
    """The server answered NO or BAD; the session can go on."""

    def __init__(self, kind: bytes, text: bytes) -> None:
        # Not among the arguments: whoever shows the context of an error would show what a server repeated.
        super().__init__()
        self.kind = kind
        self.text = text


class BrokenError(Exception):
    """The connection is of no use any more."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text


@contextmanager
def errors(
    verb: str,
    *,
    broken: type[MailServerError] = ImapError,
    refused: type[MailServerError] = ImapError,
    hidden: Sequence[str] = (),
) -> Iterator[None]:
    """Errors of the wire and of the socket as ours: ``broken`` if the connection ended, ``refused`` on NO and BAD."""
    try:
        yield
    except RefusedError as err:
        text = readable(err.text, hidden=hidden)
        transient = is_transient(text, otherwise=refused is ImapError and err.kind == b"NO")
        raise _refusal(refused, f"{verb}: {text}", transient=transient) from None
    except BrokenError as err:
        text = readable(err.text, hidden=hidden)
        raise broken(f"{verb}: {text}", transient=is_transient(text, otherwise=True)) from None
    except ssl.SSLCertVerificationError as err:
        raise broken(f"{verb}: {err.verify_message}", transient=False) from err
    except OSError as err:
        raise broken(f"{verb}: {err}", transient=True) from err
    except ValueError as err:
        # Without its cause and text: a UnicodeError holds what it could not encode.
        raise broken(f"{verb}: a name or a reply that can't be read ({type(err).__name__})", transient=False) from None


def _refusal(kind: type[MailServerError], detail: str, *, transient: bool) -> MailServerError:
    if issubclass(kind, ImapError):
        return kind(detail, refused=True, transient=transient)
    return kind(detail, transient=transient)


def is_transient(text: str, *, otherwise: bool) -> bool:
    """Whether a later try may succeed, by what the server said."""
    code = next((code for code in _RESPONSE_CODE.findall(text) if code in _CODES_TRANSIENT | _CODES_PERMANENT), None)
    if code is not None:
        return code in _CODES_TRANSIENT
    return otherwise or _SOON.search(text) is not None


def is_about_the_server(err: ImapError) -> bool:
    """Whether a refusal speaks of the server's state and not of the message that was asked for.

    SERVERBUG is not counted: Dovecot says it of a single damaged message.
    """
    if not err.refused or isinstance(err, ConnectError):
        return True
    return "[SERVERBUG]" not in err.detail and is_transient(err.detail, otherwise=False)


@contextmanager
def span(name: str, attributes: Mapping[str, str | int]) -> Iterator[Span]:
    """A CLIENT span; an error is told by its kind, as texts of servers name addresses.

    Never around a ``yield`` of ours: a generator may go on in another context.
    """
    with (
        measured(name),
        _TRACER.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span,
    ):
        try:
            yield span
        except Exception as err:
            span.set_attribute(ERROR_TYPE, getattr(err, "code", type(err).__name__))
            span.set_status(StatusCode.ERROR)
            raise
