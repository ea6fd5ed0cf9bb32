"""Mail as bytes: build what is sent, parse what was fetched (RFC 5322, 2045-2047, 2231).

Rule 1: the same ``OutgoingMessage`` gives the same bytes, so that a retry sends the same message: no clock, no random.
Rule 2: what is built is 7-bit with CRLF line ends; Bcc is envelope alone, and no value can begin a header line.
Rule 3: ``parse`` never raises: mail is written by others. What could not be read as it claims is marked ``broken``.
It writes MIME itself, and reads with the compat32 parser: ``policy.default`` takes five times as long.
Callers: api checks addresses, service builds and parses.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message
from email.utils import collapse_rfc2231_value, format_datetime, getaddresses, parsedate_to_datetime, quote, unquote
from typing import Final, TypeAlias
from urllib.parse import quote as percent_encode

from email_service.errors import InvalidRequestError

# RFC 5321 section 4.5.3.1, in octets.
_LOCAL_BYTES_MAX: Final = 64
_ADDRESS_BYTES_MAX: Final = 254
# RFC 5322 section 2.1.1, without CRLF; RFC 2047 section 2 for a line with an encoded word.
_LINE_BYTES: Final = 76
_LINE_BYTES_MAX: Final = 998
#: Payload of one encoded word: 39 bytes are 52 of base64, and with "Subject: " and "=?utf-8?b??=" the line keeps to 76.
_WORD_BYTES: Final = 39
#: No parameter is longer on a line; RFC 2231 section 3 continues it on the next.
_PARAMETER_BYTES: Final = 60
#: Of this many non-ASCII characters in a hundred, quoted-printable is longer than base64.
_BASE64_PERCENT: Final = 17

_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_LOCAL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    r"(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*"
)
_MESSAGE_ID: Final = re.compile(r"<[^<>\s\x00-\x1f\x7f]+@[^<>\s\x00-\x1f\x7f]+>")
_CONTENT_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_PLAIN_TEXT: Final = re.compile(r"[\t\n\x20-\x7e]*")
_BREAK_OR_NUL: Final = re.compile(r"[\r\n\0]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_CRLF: Final = b"\r\n"
_BOUNDARY_MARK: Final = "--=_"

#: Codecs that are no character set, or that take quadratic time on a hostile body.
_CODECS_REFUSED: Final = frozenset({"idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape"})

_Mime: TypeAlias = "Message[str, str]"


@dataclass(frozen=True, kw_only=True)
class OutgoingMessage:
    """A message to send; addresses are as ``parse_address`` returns them."""

    #: With angle brackets (``message_id_for``).
    message_id: str
    #: Aware.
    date: datetime
    mail_from: str
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    #: For the envelope alone.
    bcc: tuple[str, ...] = ()
    subject: str
    text: str
    html: str | None = None
    #: (filename, content type, data) of each.
    attachments: tuple[tuple[str, str, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ParsedAttachment:
    """A part that is not the body."""

    #: Without directories; never empty.
    filename: str
    content_type: str
    #: Without angle brackets.
    content_id: str | None
    #: Meant to be shown within the body.
    inline: bool
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ParsedMessage:
    """What a fetched message says; no text holds a NUL or half a surrogate pair, which PostgreSQL refuses."""

    #: With angle brackets.
    message_id: str | None
    subject: str
    #: Addresses alone; the first author, or empty.
    from_: str
    to: tuple[str, ...]
    cc: tuple[str, ...]
    #: In UTC.
    date: datetime | None
    #: With ``\n`` line ends.
    text: str
    html: str | None
    #: (name, value) as they came: unfolded, not decoded.
    headers: tuple[tuple[str, str], ...]
    attachments: tuple[ParsedAttachment, ...]
    #: Its MIME is not what it claims to be.
    broken: bool


def parse_address(text: str) -> str:
    """A bare address, its domain in ASCII (IDNA).

    Raises:
        InvalidRequestError: it is not ``local@domain``; says what is wrong.
    """
    local, at, domain = text.rpartition("@")
    if not at or not _LOCAL.fullmatch(local) or not _is_utf8(local):
        raise InvalidRequestError(
            f"{text[:80]!r} is not an address like name@example.org (no name, no quotes, no spaces)"
        )
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode("ascii")
        except UnicodeError as err:
            raise InvalidRequestError(f"{text[:80]!r}: the domain can't be written in ASCII") from err
    if not _DOMAIN.fullmatch(domain):
        raise InvalidRequestError(f"{text[:80]!r}: the part after the @ is not a domain")
    address = f"{local}@{domain}"
    if len(local.encode()) > _LOCAL_BYTES_MAX or len(address.encode()) > _ADDRESS_BYTES_MAX:
        raise InvalidRequestError(
            f"{text[:80]!r} is longer than {_LOCAL_BYTES_MAX} before the @ or {_ADDRESS_BYTES_MAX} in all"
        )
    return address


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


# --- build ----------------------------------------------------------------------------------------------------------


def build(message: OutgoingMessage) -> bytes:
    """The message as it goes over the wire, before dot-stuffing.

    Raises:
        InvalidRequestError: an address or a header value is malformed, or holds a line break.
    """
    if not _MESSAGE_ID.fullmatch(message.message_id) or not message.message_id.isascii():
        raise InvalidRequestError(f"message id {message.message_id!r} is not <something@domain>")
    if message.date.tzinfo is None:
        raise ValueError("an aware date is needed")
    headers = [_address_header("From", (message.mail_from,))]
    for name, addresses in (("To", message.to), ("Cc", message.cc)):
        if addresses:
            headers.append(_address_header(name, addresses))
    if not message.to and not message.cc:
        # RFC 5322 section 3.6.3 allows a message without recipients, many servers do not.
        headers.append(b"To: undisclosed-recipients:;")
    headers += [
        _text_header("Subject", message.subject),
        _text_header("Date", format_datetime(message.date)),
        _text_header("Message-ID", message.message_id),
        b"MIME-Version: 1.0",
    ]
    return _CRLF.join(headers) + _CRLF + _content(message)


def _content(message: OutgoingMessage) -> bytes:
    """Content headers, an empty line and the body."""
    content = _text_part("plain", message.text)
    if message.html is not None:
        content = _multipart("alternative", message.message_id, [content, _text_part("html", message.html)])
    if message.attachments:
        parts = [content, *(_attachment_part(*attachment) for attachment in message.attachments)]
        content = _multipart("mixed", message.message_id, parts)
    return content if content.endswith(_CRLF) else content + _CRLF


def _address_header(name: str, addresses: tuple[str, ...]) -> bytes:
    """Addresses folded after the commas; one that needs SMTPUTF8 stays UTF-8 (RFC 6532)."""
    lines = [f"{name}:"]
    for position, address in enumerate(addresses):
        item = parse_address(address) + ("," if position + 1 < len(addresses) else "")
        if len(lines[-1]) + 1 + len(item) > _LINE_BYTES:
            lines.append("")
        lines[-1] += f" {item}"
    return "\r\n".join(lines).encode()


def _text_header(name: str, value: str) -> bytes:
    """A header of free text: as it is if that is one short line of ASCII, else in encoded words (RFC 2047)."""
    if _BREAK_OR_NUL.search(value):
        raise InvalidRequestError(f"the {name} header holds a line break or a NUL")
    # Words that look encoded, and spaces that folding or trimming would lose, are encoded too.
    plain = _PLAIN.fullmatch(value) and "=?" not in value and value == value.strip()
    if plain and len(name) + 2 + len(value) <= _LINE_BYTES:
        return f"{name}: {value}".encode("ascii")
    if plain and name != "Subject":
        return f"{name}:\r\n {value}".encode("ascii")
    words = (f"=?utf-8?b?{base64.b64encode(chunk).decode('ascii')}?=" for chunk in _utf8_chunks(value, _WORD_BYTES))
    return f"{name}: ".encode("ascii") + b"\r\n ".join(word.encode("ascii") for word in words)


def _utf8_chunks(text: str, size: int) -> Iterator[bytes]:
    """Pieces of at most ``size`` bytes; none splits a character (RFC 2047 section 5)."""
    data = _utf8(text)
    while data:
        end = min(size, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[:end]
        data = data[end:]


def _text_part(subtype: str, text: str) -> bytes:
    """7bit where that is safe, else the shorter of quoted-printable and base64."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines_fit = all(len(line) <= _LINE_BYTES_MAX for line in text.split("\n"))
    if lines_fit and _BOUNDARY_MARK not in text and _PLAIN_TEXT.fullmatch(text):
        return _part(f"text/{subtype}; charset=utf-8", "7bit", text.replace("\n", "\r\n").encode("ascii"))
    data = _utf8(text)
    if sum(byte > 0x7E for byte in data) * 100 > _BASE64_PERCENT * len(data):
        return _part(f"text/{subtype}; charset=utf-8", "base64", _base64(data.replace(b"\n", _CRLF)))
    # istext keeps line ends; a dot alone on a line and spaces before a line end come out encoded.
    quoted = binascii.b2a_qp(data, istext=True)
    return _part(f"text/{subtype}; charset=utf-8", "quoted-printable", quoted.replace(b"\n", _CRLF))


def _attachment_part(filename: str, content_type: str, data: bytes) -> bytes:
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequestError(f"content type {content_type[:80]!r} is not type/subtype")
    if content_type.lower().startswith(("multipart/", "message/")):
        # RFC 2046 sections 5.1 and 5.2.1 forbid base64 for these.
        content_type = "application/octet-stream"
    return _part(content_type, "base64", _base64(data), disposition=f"attachment{_filename_parameter(filename)}")


def _filename_parameter(filename: str) -> str:
    """A parameter of Content-Disposition, each on a line of its own (RFC 2231)."""
    if _BREAK_OR_NUL.search(filename):
        raise InvalidRequestError("a file name holds a line break or a NUL")
    if _PLAIN.fullmatch(filename) and len(filename) <= _PARAMETER_BYTES:
        return f';\r\n filename="{quote(filename)}"'
    units = re.findall(r"%..|.", percent_encode(_utf8(filename), safe=""))
    pieces = [""]
    for unit in units:
        if len(pieces[-1]) + len(unit) > _PARAMETER_BYTES:
            pieces.append("")
        pieces[-1] += unit
    if len(pieces) == 1:
        return f";\r\n filename*=utf-8''{pieces[0]}"
    pieces[0] = f"utf-8''{pieces[0]}"
    return "".join(f";\r\n filename*{index}*={piece}" for index, piece in enumerate(pieces))


def _part(content_type: str, encoding: str, body: bytes, *, disposition: str | None = None) -> bytes:
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n"
    if disposition is not None:
        head += f"Content-Disposition: {disposition}\r\n"
    return head.encode("ascii") + _CRLF + body


def _multipart(subtype: str, message_id: str, parts: Iterable[bytes]) -> bytes:
    """Parts between boundaries that no part can hold: "=_" is in no base64 and no quoted-printable line."""
    digest = hashlib.sha256(f"{subtype} {message_id}".encode()).hexdigest()[:32]
    boundary = f"=_{digest}"
    body = b"".join(f"--{boundary}\r\n".encode("ascii") + part + _CRLF for part in parts)
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"\r\n\r\n'
    return head.encode("ascii") + body + f"--{boundary}--\r\n".encode("ascii")


def _base64(data: bytes) -> bytes:
    return base64.encodebytes(data).replace(b"\n", _CRLF)


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _utf8(text: str) -> bytes:
    """UTF-8, with a question mark for half a surrogate pair (JSON can carry one)."""
    return text.encode("utf-8", "replace")


# --- parse ----------------------------------------------------------------------------------------------------------


def parse(raw: bytes) -> ParsedMessage:
    """What the message says, as far as it can be read."""
    try:
        return _Reader(message_from_bytes(raw)).read()
    except Exception:  # noqa: BLE001  # the parser's failures on hostile input have no common class; RecursionError is one
        return _unparsed(raw)


def _unparsed(raw: bytes) -> ParsedMessage:
    return ParsedMessage(
        message_id=None,
        subject="",
        from_="",
        to=(),
        cc=(),
        date=None,
        text=_clean(raw.decode("utf-8", "replace")),
        html=None,
        headers=(),
        attachments=(),
        broken=True,
    )


class _Reader:
    """Reads one parsed tree, and remembers whether all of it could be read."""

    def __init__(self, root: _Mime) -> None:
        self._root = root
        self._broken = False
        self._texts: list[str] = []
        self._htmls: list[str] = []
        self._attachments: list[ParsedAttachment] = []

    def read(self) -> ParsedMessage:
        self._part(self._root)
        headers = tuple((_clean(name), _unfold(value)) for name, value in self._root.raw_items())
        return ParsedMessage(
            message_id=_first_message_id(headers),
            subject=self._decoded(_values(headers, "subject")[:1]),
            from_=next(iter(self._addresses(headers, "from")), ""),
            to=self._addresses(headers, "to"),
            cc=self._addresses(headers, "cc"),
            date=self._tolerant(lambda: _date(_values(headers, "date")), None),
            text="\n".join(self._texts),
            html="\n".join(self._htmls) if self._htmls else None,
            headers=headers,
            attachments=tuple(self._attachments),
            # Last: reading a part is what finds some of its defects.
            broken=self._broken or any(part.defects for part in self._root.walk()),
        )

    def _tolerant(self, read: Callable[[], _T], fallback: _T) -> _T: ...
