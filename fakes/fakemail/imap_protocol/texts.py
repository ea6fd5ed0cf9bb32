"""What SEARCH looks at: header fields and bodies as a person would read them (RFC 3501 section 6.4.4). Pure.

Called by: search_keys, sorting.
"""

from __future__ import annotations

import base64
import binascii
import quopri
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Final

from fakemail.imap_protocol.addresses import parse_addresses
from fakemail.mime import Part, header_fields, unfolded

#: A part is looked at so far; larger ones are attachments in disguise.
_DECODED_BYTES_MAX: Final = 4 * 1024 * 1024


def readable(value: str) -> str:
    """A field's value with its encoded words decoded; eight-bit bytes are UTF-8 if they can be."""
    try:
        plain = value.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        plain = value
    if "=?" not in plain:
        return plain
    try:
        return str(make_header(decode_header(plain)))
    except (HeaderParseError, LookupError, ValueError, AssertionError, TypeError):
        # The last two for what the library's decoders trip over.
        return plain


def address_words(value: str) -> Iterator[str]:
    """Each address as ``local@domain`` and as ``Name <local@domain>``, whatever comments it was written with."""
    for each in parse_addresses(value):
        if each.host is not None:
            yield f"{each.name or ''} <{each.mailbox}@{each.host}>"
        elif each.mailbox is not None:
            yield each.mailbox


def body_text(part: Part, *, header: bool) -> str:
    """All text of a message, decoded; with its header fields, and those of its parts, if they are wanted."""
    return "\n".join(_texts(part, header=header))


def _texts(part: Part, *, header: bool) -> Iterator[str]:
    if header:
        # With the names of the fields: TEXT finds those too.
        yield "\n".join(f"{name}: {readable(unfolded(raw))}" for name, raw in header_fields(part.header))
    kind, subtype = part.content_type
    if kind == "multipart" and not part.parts:
        yield part.body.decode("utf-8", errors="replace")
    for child in part.parts:
        # The header of a message inside is body text of the one around it (section 6.4.5).
        yield from _texts(child, header=header or subtype == "rfc822")
    if kind == "text" or (kind == "message" and not part.parts):
        yield _decoded(part)


def _decoded(part: Part) -> str:
    data = part.body[:_DECODED_BYTES_MAX]
    encoding = (part.field("content-transfer-encoding") or "").strip().lower()
    if encoding == "quoted-printable":
        data = quopri.decodestring(data)
    elif encoding == "base64":
        data = _base64(data)
    charset = next((value for name, value in part.parameters if name.lower() == "charset"), "utf-8")
    try:
        return data.decode(charset, errors="replace")
    except (LookupError, ValueError):
        # No such character set, or one of Python's own that is none.
        return data.decode("utf-8", errors="replace")


def _base64(data: bytes) -> bytes:
    """As far as it can be decoded: broken base64 never stops a search."""
    plain = bytes(data).translate(None, b"\r\n\t ")
    try:
        return base64.b64decode(plain[: len(plain) // 4 * 4])
    except binascii.Error:
        return data
