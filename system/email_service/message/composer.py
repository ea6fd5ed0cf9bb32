"""Mail that is sent, as bytes (RFC 5322, 2045-2047, 2231).

Rule 1: the same ``OutgoingMessage`` gives the same bytes, so that a retry sends the same message: no clock, no random.
Rule 2: what is built is 7-bit with CRLF line ends, unless an address needs SMTPUTF8 (RFC 6532).
Rule 3: Bcc is envelope alone, and no value can begin a header line: each passes a ``_*_header`` function or a
pattern of what it may hold.
It writes MIME itself: text, the HTML with what it shows (RFC 2387), attachments, one inside the other.
Callers: service.sending.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote as percent_encode

import pybase64

from email_service.errors import InvalidRequestError
from email_service.message.addresses import parse_address, parse_message_id
from email_service.message.mail import InlinePart, OutgoingMessage

# RFC 5322 section 2.1.1, without CRLF; RFC 2047 section 2 for a line with an encoded word.
_LINE_BYTES: Final = 76
_LINE_BYTES_MAX: Final = 998
#: Payload of one encoded word: 39 bytes are 52 of base64, and with "Subject: " and "=?utf-8?b??=" the line keeps to 76.
_WORD_BYTES: Final = 39
#: No parameter is longer on a line; RFC 2231 section 3 continues it on the next.
_PARAMETER_BYTES: Final = 60
#: Of this many non-ASCII characters in a hundred, quoted-printable is longer than base64.
_BASE64_PERCENT: Final = 17
#: A longer thread keeps its first and its last ones (RFC 5537 section 3.4.4 does so too).
_REFERENCES_MAX: Final = 50

_MESSAGE_ID: Final = re.compile(r"<[^<>\s\x00-\x1f\x7f]+@[^<>\s\x00-\x1f\x7f]+>")
_CONTENT_TYPE: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+")
_CONTENT_ID: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.@-]{1,200}")
_PLAIN: Final = re.compile(r"[\x20-\x7e]*")
_PLAIN_TEXT: Final = re.compile(r"[\t\n\x20-\x7e]*")
#: Names that need no quotes (RFC 5322 section 3.2.3), and those that need quotes alone.
_PLAIN_PHRASE: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/?^_`{|}~-]+)*")
_QUOTED_PHRASE: Final = re.compile(r"(?! )(?:[\x20\x21\x23-\x5b\x5d-\x7e](?!  ))+(?<! )")
#: File names that need no RFC 2231; quotes and backslashes are left to it, as parsers disagree about escapes.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9._()+-](?:[A-Za-z0-9 ._()+-]*[A-Za-z0-9._()+-])?")
_BREAK_OR_NUL: Final = re.compile(r"[\r\n\0]")
_ASCII: Final = bytes(range(0x80))
_CRLF: Final = b"\r\n"
_BOUNDARY_MARK: Final = "--=_"


def build(message: OutgoingMessage) -> bytes:
    """The message as it goes over the wire, before dot-stuffing.

    Raises:
        InvalidRequestError: an address or a header value is malformed, or holds a line break.
    """
    if not _MESSAGE_ID.fullmatch(message.message_id) or not message.message_id.isascii():
        raise InvalidRequestError(f"message id {message.message_id!r} is not <something@domain>")
    if message.date.tzinfo is None:
        raise ValueError("an aware date is needed")
    headers = [_from_header(message.mail_from, message.from_name)]
    for name, addresses in (("To", message.to), ("Cc", message.cc)):
        if addresses:
            headers.append(_address_header(name, addresses))
    if not message.to and not message.cc:
        # RFC 5322 section 3.6.3 allows a message without recipients, many servers do not.
        headers.append(b"To: undisclosed-recipients:;")
    if message.reply_to:
        headers.append(_address_header("Reply-To", message.reply_to))
    headers += [
        _text_header("Subject", message.subject),
        _folded("Date", [f" {format_datetime(message.date)}"]),
        _folded("Message-ID", [f" {message.message_id}"]),
        *_thread_headers(message),
        b"MIME-Version: 1.0",
    ]
    return _CRLF.join(headers) + _CRLF + _content(message)


def _content(message: OutgoingMessage) -> bytes:
    """Content headers, an empty line and the body."""
    content = _text_part("plain", message.text)
    attached = [_attachment_part(*attachment) for attachment in message.attachments]
    shown = [_inline_part(part) for part in message.inline]
    if message.html is not None:
        content = _multipart("alternative", message.message_id, [content, _html(message, message.html, shown)])
    else:
        attached = shown + attached
    if attached:
        content = _multipart("mixed", message.message_id, [content, *attached])
    return content if content.endswith(_CRLF) else content + _CRLF


def _html(message: OutgoingMessage, html: str, shown: list[bytes]) -> bytes:
    """The HTML, together with what it shows (RFC 2387)."""
    part = _text_part("html", html)
    if not shown:
        return part
    return _multipart("related", message.message_id, [part, *shown], parameter='; type="text/html"')


def _from_header(address: str, name: str | None) -> bytes:
    """The author; a name stands before the address in angle brackets."""
    address = parse_address(address)
    if not name:
        return _folded("From", [f" {address}"])
    return _folded("From", [*_phrase("from name", name), f" <{address}>"])


def _phrase(what: str, name: str) -> list[str]:
    """A display name (RFC 5322 section 3.2.5), in pieces to fold between; each begins with its space."""
    if _BREAK_OR_NUL.search(name):
        raise InvalidRequestError(f"the {what} holds a line break or a NUL")
    if len(name) <= _PARAMETER_BYTES and "=?" not in name:
        if _PLAIN_PHRASE.fullmatch(name):
            return [f" {name}"]
        if _QUOTED_PHRASE.fullmatch(name):
            return [f' "{name}"']
    return [f" {word}" for word in _encoded_words(name)]


def _thread_headers(message: OutgoingMessage) -> list[bytes]:
    """What this answers, and the thread before it (RFC 5322 section 3.6.4)."""
    headers = []
    references = [parse_message_id(each) for each in message.references]
    if message.in_reply_to is not None:
        answered = parse_message_id(message.in_reply_to)
        headers.append(_folded("In-Reply-To", [f" {answered}"]))
        references = references or [answered]
    if len(references) > _REFERENCES_MAX:
        references = [references[0], *references[1 - _REFERENCES_MAX :]]
    if references:
        headers.append(_folded("References", [f" {each}" for each in references]))
    return headers


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
    return f"{name}: ".encode("ascii") + b"\r\n ".join(word.encode("ascii") for word in _encoded_words(value))


def _encoded_words(text: str) -> Iterator[str]:
    """The text in words that each fit on a line (RFC 2047)."""
    for chunk in _utf8_chunks(text, _WORD_BYTES):
        yield f"=?utf-8?b?{pybase64.b64encode(chunk).decode('ascii')}?="


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
    return _file_part(content_type, data, f"Content-Disposition: attachment{_filename_parameter(filename)}\r\n")


def _inline_part(part: InlinePart) -> bytes:
    content_id = part.content_id.removeprefix("<").removesuffix(">")
    if not _CONTENT_ID.fullmatch(content_id):
        raise InvalidRequestError(f"content id {part.content_id[:80]!r} is not like name@example.org")
    fields = f"Content-ID: <{content_id}>\r\nContent-Disposition: inline{_filename_parameter(part.filename)}\r\n"
    return _file_part(part.content_type, part.data, fields)


def _file_part(content_type: str, data: bytes, fields: str) -> bytes:
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise InvalidRequestError(f"content type {content_type[:80]!r} is not type/subtype")
    if content_type.lower().startswith(("multipart/", "message/")):
        # RFC 2046 sections 5.1 and 5.2.1 forbid base64 for these.
        content_type = "application/octet-stream"
    return _part(content_type, "base64", _base64(data), fields=fields)


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


def _part(content_type: str, encoding: str, body: bytes, *, fields: str = "") -> bytes:
    head = f"Content-Type: {content_type}\r\nContent-Transfer-Encoding: {encoding}\r\n{fields}\r\n"
    return head.encode("ascii") + body


def _multipart(subtype: str, message_id: str, parts: Iterable[bytes], *, parameter: str = "") -> bytes:
    """Parts between boundaries that no part can hold: "=_" is in no base64 and no quoted-printable line."""
    digest = hashlib.sha256(f"{subtype} {message_id}".encode()).hexdigest()[:32]
    boundary = f"=_{digest}"
    head = f'Content-Type: multipart/{subtype}; boundary="{boundary}"{parameter}\r\n\r\n--{boundary}\r\n'
    body = f"\r\n--{boundary}\r\n".encode("ascii").join(parts)
    return head.encode("ascii") + body + f"\r\n--{boundary}--\r\n".encode("ascii")


def _base64(data: bytes) -> bytes:
    """Lines of 76 (RFC 2045 section 6.8), encoded in one go."""
    whole = pybase64.b64encode(data)
    return b"".join([whole[at : at + _LINE_BYTES] + _CRLF for at in range(0, len(whole), _LINE_BYTES)])


def _utf8(text: str) -> bytes:
    """UTF-8, with a question mark for half a surrogate pair (JSON can carry one)."""
    return text.encode("utf-8", "replace")
