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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.utils import format_datetime, getaddresses, parsedate_to_datetime
from typing import Final, TypeAlias, TypeVar
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
#: Longer file names are cut.
_NAME_CHARACTERS_MAX: Final = 255
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
#: File names that need no RFC 2231; quotes and backslashes are left to it, as parsers disagree about escapes.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._()+-](?:[A-Za-z0-9 ._()+-]*[A-Za-z0-9._()+-])?")
_BREAK_OR_NUL: Final = re.compile(r"[\r\n\0]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_ASCII: Final = bytes(range(0x80))
_CRLF: Final = b"\r\n"
_BOUNDARY_MARK: Final = "--=_"

#: Codecs that are no character set, or that take quadratic time on a hostile body.
_CODECS_REFUSED: Final = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})

_Mime: TypeAlias = "Message[str, str]"
_T = TypeVar("_T")


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
        _folded("Date", [f" {format_datetime(message.date)}"]),
        _folded("Message-ID", [f" {message.message_id}"]),
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
    """Addresses; one that needs SMTPUTF8 stays UTF-8 (RFC 6532)."""
    checked = [parse_address(address) for address in addresses]
    return _folded(name, [f" {address}," for address in checked[:-1]] + [f" {checked[-1]}"])


def _text_header(name: str, value: str) -> bytes:
    """Free text: ASCII folded at its spaces, all else in encoded words (RFC 2047)."""
    if _BREAK_OR_NUL.search(value):
        raise InvalidRequestError(f"the {name} header holds a line break or a NUL")
    # What looks encoded, and spaces that a reader would trim, are encoded too.
    words = re.findall(r" *[^ ]+", f" {value}")
    if _PLAIN.fullmatch(value) and "=?" not in value and value == value.strip(" ") and _short(words):
        return _folded(name, words)
    encoded = (base64.b64encode(chunk).decode("ascii") for chunk in _utf8_chunks(value, _WORD_BYTES))
    return f"{name}: ".encode("ascii") + b"\r\n ".join(f"=?utf-8?b?{word}?=".encode("ascii") for word in encoded)


def _short(words: Iterable[str]) -> bool:
    return all(len(word) <= _LINE_BYTES for word in words)


def _folded(name: str, items: Sequence[str]) -> bytes:
    """A header whose lines break before items; each item begins with its space, so unfolding gives the value back."""
    lines = [f"{name}:"]
    for item in items:
        if len(lines[-1]) + len(item) > _LINE_BYTES:
            lines.append("")
        lines[-1] += item
    return "\r\n".join(lines).encode("utf-8")


def _utf8_chunks(text: str, size: int) -> Iterator[bytes]:
    """Pieces of at most ``size`` bytes; none splits a character (RFC 2047 section 5)."""
    chunk = b""
    for character in map(_utf8, text):
        if len(chunk) + len(character) > size:
            yield chunk
            chunk = b""
        chunk += character
    if chunk:
        yield chunk


def _text_part(subtype: str, text: str) -> bytes:
    """7bit where that is safe, else the shorter of quoted-printable and base64."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines_fit = max(map(len, text.split("\n"))) <= _LINE_BYTES_MAX
    if lines_fit and _BOUNDARY_MARK not in text and _PLAIN_TEXT.fullmatch(text):
        return _part(f"text/{subtype}; charset=utf-8", "7bit", text.replace("\n", "\r\n").encode("ascii"))
    data = _utf8(text)
    if len(data.translate(None, _ASCII)) * 100 > _BASE64_PERCENT * len(data):
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
    if _PLAIN_NAME.fullmatch(filename) and len(filename) <= _PARAMETER_BYTES:
        return f';\r\n filename="{filename}"'
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


def _utf8(text: str) -> bytes:
    """UTF-8, with a question mark for half a surrogate pair (JSON can carry one)."""
    return text.encode("utf-8", "replace")


# --- parse ----------------------------------------------------------------------------------------------------------


def parse(raw: bytes) -> ParsedMessage:
    """What the message says, as far as it can be read."""
    try:
        return _Reader(message_from_bytes(raw)).read()
    except Exception:  # noqa: BLE001  # failures on hostile input have no common class: RecursionError is one of them
        return _parse_headers(raw)


def _parse_headers(raw: bytes) -> ParsedMessage:
    """The headers, and all the rest as text."""
    try:
        return _Reader(BytesHeaderParser().parsebytes(raw), broken=True).read()
    except Exception:  # noqa: BLE001  # as above
        return _Reader(_bare(raw), broken=True).read()


def _bare(raw: bytes) -> _Mime:
    message: _Mime = Message()
    message.set_payload(raw.decode("ascii", "surrogateescape"))
    return message


class _Reader:
    """Reads one tree of parts, and remembers whether all of it was what it claims to be."""

    def __init__(self, root: _Mime, *, broken: bool = False) -> None:
        self._root = root
        self._broken = broken
        self._texts: list[str] = []
        self._htmls: list[str] = []
        self._attachments: list[ParsedAttachment] = []

    def read(self) -> ParsedMessage:
        """Read it all; the defects come last, as reading a part finds some of them."""
        headers = tuple((_clean(name), _unfolded(value)) for name, value in self._root.raw_items())
        self._read_part(self._root)
        return ParsedMessage(
            message_id=_message_id(_first(headers, "message-id")),
            subject=self._decoded(_first(headers, "subject")),
            from_=next(iter(self._addresses(headers, "from")), ""),
            to=self._addresses(headers, "to"),
            cc=self._addresses(headers, "cc"),
            date=_date(_first(headers, "date")),
            text="\n".join(self._texts),
            html="\n".join(self._htmls) if self._htmls else None,
            headers=headers,
            attachments=tuple(self._attachments),
            broken=self._broken or any(part.defects for part in self._root.walk()),
        )

    def _read_part(self, part: _Mime) -> None:
        kind = part.get_content_type()
        if part.is_multipart() and part.get_content_maintype() == "multipart":
            for child in _children(part):
                self._read_part(child)
            return
        name = self._tolerant(part.get_filename, None)
        if part.get_content_disposition() == "attachment" or name is not None or part.is_multipart():
            self._read_attachment(part, name)
        elif kind == "text/html":
            self._htmls.append(self._body(part))
        elif kind == "text/plain" or part.get_content_maintype() == "multipart":
            # A multipart that is none (no boundary) has its text as its payload.
            self._texts.append(self._body(part))
        else:
            self._read_attachment(part, name)

    def _read_attachment(self, part: _Mime, name: str | None) -> None:
        content_id = str(part.get("Content-ID", "")).strip().strip("<>")
        disposition = part.get_content_disposition()
        self._attachments.append(
            ParsedAttachment(
                filename=_file_name(self._decoded(name or "")),
                content_type=_clean(part.get_content_type()),
                content_id=_clean(content_id) or None,
                inline=disposition == "inline" or (disposition is None and bool(content_id)),
                data=self._tolerant(lambda: _data(part), b""),
            )
        )

    def _body(self, part: _Mime) -> str:
        charset = self._tolerant(part.get_content_charset, None)
        text = self._text(_data(part), charset)
        return text.replace("\r\n", "\n").replace("\r", "\n")

    def _text(self, data: bytes, charset: str | None) -> str:
        """Decode; a character set that is unknown or untrue makes the message broken."""
        if charset is None or charset.lower() in {"us-ascii", "unknown-8bit"}:
            return _clean(_guessed(data))
        try:
            codec = codecs.lookup(charset)
            if codec.name.replace("_", "-") not in _CODECS_REFUSED:
                return _clean(data.decode(codec.name))
        except (LookupError, ValueError):
            # ValueError: the text does not fit, or the name holds a NUL.
            pass
        self._broken = True
        return _clean(_guessed(data))

    def _decoded(self, value: str) -> str:
        """A header's text with its encoded words decoded."""
        if "=?" not in value:
            return value
        pieces = self._tolerant(lambda: decode_header(value), [(value, None)])
        return "".join(self._piece(*piece) for piece in pieces)

    def _piece(self, piece: str | bytes, charset: str | None) -> str:
        if isinstance(piece, str):
            return piece
        # Plain text between encoded words comes in this one (email.header.decode_header).
        return self._text(piece, charset) if charset else _clean(piece.decode("raw-unicode-escape", "replace"))

    def _addresses(self, headers: Iterable[tuple[str, str]], name: str) -> tuple[str, ...]:
        values = [value for key, value in headers if key.lower() == name]
        nobody: list[tuple[str, str]] = []
        pairs = self._tolerant(lambda: getaddresses(values), nobody)
        return tuple(_CONTROL.sub("", address) for _, address in pairs if address)

    def _tolerant(self, read: Callable[[], _T], fallback: _T) -> _T:
        try:
            return read()
        except Exception:  # noqa: BLE001  # as in parse: the standard library's readers fail in many ways
            self._broken = True
            return fallback


def _children(part: _Mime) -> list[_Mime]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _data(part: _Mime) -> bytes:
    """A part's content; a message within the message is written out again."""
    if part.is_multipart():
        return b"\n".join(child.as_bytes() for child in _children(part))
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _guessed(data: bytes) -> str:
    """Text that does not say what it is: UTF-8 if it can be, else the Latin that never fails."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _unfolded(value: str) -> str:
    """A header's value on one line; its 8-bit bytes were smuggled through as halves of surrogate pairs."""
    data = value.encode("ascii", "surrogateescape").replace(b"\r", b"").replace(b"\n", b"")
    return _clean(_guessed(data)).strip()


def _first(headers: Iterable[tuple[str, str]], name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")


def _message_id(value: str) -> str | None:
    found = _MESSAGE_ID.search(value)
    return found[0] if found else value or None


def _date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
        # RFC 5322 section 3.3: "-0000" is UTC of an unknown place.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None


def _file_name(text: str) -> str:
    """The last part of a path, without control characters."""
    name = _CONTROL.sub("", re.split(r"[/\\]", text)[-1]).strip()[:_NAME_CHARACTERS_MAX]
    return "unnamed" if name in {"", ".", ".."} else name


def _clean(text: str) -> str:
    """What PostgreSQL stores: no NUL, no half of a surrogate pair (UTF-7 can hold one)."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")
