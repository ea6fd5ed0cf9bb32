"""Addresses and Message-IDs as a user may give them: checked, and in the form that goes over the wire.

Rule: what passes here holds no control character, space or angle bracket, so it can begin no header and end no command.
Callers: api checks what it is given, ``composer`` checks it again.
"""

from __future__ import annotations

import re
import uuid
from typing import Final

from email_service.errors import InvalidRequestError
from email_service.message.mail import OutgoingMessage

# RFC 5321 section 4.5.3.1, in octets.
_LOCAL_BYTES_MAX: Final = 64
_ADDRESS_BYTES_MAX: Final = 254
#: A line of References with it keeps to RFC 5322 section 2.1.1.
_MESSAGE_ID_BYTES_MAX: Final = 900

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_LOCAL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
#: Wider than RFC 5322, as what is answered was made by others.
_BARE_ID: Final = re.compile(r"[!-;=?-~]+")


def parse_address(text: str) -> str:
    """A bare address, its domain in ASCII (IDNA).

    Raises:
        InvalidRequestError: it is not ``local@domain``; says what is wrong.
    """
    shown = repr(text[:80])
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or not local.isprintable():
        raise InvalidRequestError(
            f"{shown} is not an address like name@example.org: no name, quotes or spaces around it"
        )
    if len(text) > _ADDRESS_BYTES_MAX or len(local.encode()) > _LOCAL_BYTES_MAX:
        raise InvalidRequestError(
            f"{shown}... is too long: {_LOCAL_BYTES_MAX} before the @, {_ADDRESS_BYTES_MAX} in all"
        )
    try:
        domain = domain if domain.isascii() else domain.encode("idna").decode("ascii")
    except UnicodeError as err:
        raise InvalidRequestError(f"{shown}: the domain can't be written in ASCII") from err
    address = f"{local}@{domain}"
    if not _DOMAIN.fullmatch(domain) or len(address.encode()) > _ADDRESS_BYTES_MAX:
        raise InvalidRequestError(f"{shown}: the part after the @ is not a domain")
    return address


def parse_message_id(text: str) -> str:
    """A Message-ID with its angle brackets, which may be left out.

    Raises:
        InvalidRequestError: it is empty, too long, or holds what is no printable ASCII.
    """
    bare = text.strip().removeprefix("<").removesuffix(">")
    if not _BARE_ID.fullmatch(bare) or len(bare) > _MESSAGE_ID_BYTES_MAX:
        raise InvalidRequestError(f"{text[:80]!r} is not a Message-ID like <something@example.org>")
    return f"<{bare}>"


def message_id_for(job_id: uuid.UUID | str, domain: str) -> str:
    """The Message-ID of a job: the same at each try."""
    return f"<{job_id}@{domain}>"


def envelope_recipients(message: OutgoingMessage) -> tuple[str, ...]:
    """Everyone who gets the message, once; domains are compared without case (RFC 5321 section 2.4)."""
    unique: dict[tuple[str, str], str] = {}
    for address in (*message.to, *message.cc, *message.bcc):
        local, _, domain = address.rpartition("@")
        unique.setdefault((local, domain.lower()), address)
    return tuple(unique.values())
