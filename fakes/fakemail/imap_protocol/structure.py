"""ENVELOPE, BODY, BODYSTRUCTURE and the sections of a message (RFC 3501 sections 6.4.5 and 7.4.2). Pure.

Called by: fetch_items.
"""

from __future__ import annotations

import base64
import binascii
import quopri
import re
from collections.abc import Sequence
from typing import Final

from fakemail.imap_protocol.addresses import parse_addresses
from fakemail.imap_protocol.syntax import quoted
from fakemail.mime import Part, first_fields, header_fields, parse_parameters, unfolded

_NOTHING: Final = Part(header=b"", body=b"", content_type=("text", "plain"), parameters=(), parts=())


# ENVELOPE -------------------------------------------------------------------------------------------------------------


def envelope(header: bytes) -> bytes:
    """RFC 3501 section 7.4.2: sender and reply-to fall back to from."""
    fields = first_fields(header)

    def value(name: str) -> str | None:
        raw = fields.get(name)
        return None if raw is None else unfolded(raw)

    sender = _addresses(value("from"))
    rows = [
        _text(value("date")),
        _text(value("subject")),
        sender,
        *(_addresses(value(name), default=sender) for name in ("sender", "reply-to")),
        *(_addresses(value(name)) for name in ("to", "cc", "bcc")),
        _text(value("in-reply-to")),
        _text(value("message-id")),
    ]
    return b"(" + b" ".join(rows) + b")"


def _text(value: str | None) -> bytes:
    return quoted(value.encode("latin-1") if value is not None else None)


def _addresses(value: str | None, *, default: bytes = b"NIL") -> bytes:
    found = parse_addresses(value) if value else []
    if not found:
        return default
    rows = [b" ".join(map(_text, (each.name, each.route, each.mailbox, each.host))) for each in found]
    return b"(" + b"".join(b"(" + row + b")" for row in rows) + b")"


# BODYSTRUCTURE --------------------------------------------------------------------------------------------------------


def structure(part: Part, *, extended: bool) -> bytes:
    """BODY and, extended, BODYSTRUCTURE."""
    kind, subtype = part.content_type
    if kind == "multipart":
        # The grammar wants one part at least, also where the mail has none.
        inner = b"".join(structure(child, extended=extended) for child in part.parts or (_NOTHING,))
        words = [inner, _text(subtype)]
        if extended:
            words += [_parameters(part.parameters), *_extension(part)]
        return b"(" + b" ".join(words) + b")"
    words = [
        _text(kind),
        _text(subtype),
        _parameters(_with_charset(part) if kind == "text" else part.parameters),
        _text(part.field("content-id")),
        _text(part.field("content-description")),
        _text((part.field("content-transfer-encoding") or "7bit").lower()),
        b"%d" % len(part.body),
    ]
    lines = b"%d" % part.body.count(b"\n")
    if (kind, subtype) == ("message", "rfc822") and part.parts:
        words += [envelope(part.parts[0].header), structure(part.parts[0], extended=extended), lines]
    elif kind == "text":
        words.append(lines)
    if extended:
        words += [_text(part.field("content-md5")), *_extension(part)]
    return b"(" + b" ".join(words) + b")"


def _with_charset(part: Part) -> tuple[tuple[str, str], ...]:
    """Text is US-ASCII unless it says otherwise (RFC 2046 section 4.1.2)."""
    named = any(name.lower().startswith("charset") for name, _ in part.parameters)
    return part.parameters if named else (*part.parameters, ("charset", "us-ascii"))


def _parameters(pairs: Sequence[tuple[str, str]]) -> bytes:
    if not pairs:
        return b"NIL"
    return b"(" + b" ".join(_text(name) + b" " + _text(value) for name, value in pairs) + b")"


def _extension(part: Part) -> list[bytes]:
    """Disposition, language, location."""
    value = part.field("content-disposition")
    disposition = b"NIL"
    if value is not None:
        kind, pairs = parse_parameters(value)
        disposition = b"(" + _text(kind) + b" " + _parameters(pairs) + b")"
    languages = [_text(each.strip()) for each in (part.field("content-language") or "").split(",") if each.strip()]
    language = b"(" + b" ".join(languages) + b")" if languages else b"NIL"
    return [disposition, language, _text(part.field("content-location"))]


# Sections -------------------------------------------------------------------------------------------------------------


def find_part(message: Part, path: Sequence[int]) -> Part | None:
    """The body part that a path of numbers names; None where there is none.

    A number below a message (the whole, or a message/rfc822 part) counts the parts of its body, or is 1 for a body
    that is no multipart; below a multipart it counts the parts.
    """
    part, is_message = message, True
    for number in path:
        if not is_message and part.content_type == ("message", "rfc822") and part.parts:
            part, is_message = part.parts[0], True
        if part.content_type[0] == "multipart":
            if not 1 <= number <= len(part.parts):
                return None
            part = part.parts[number - 1]
        elif not is_message or number != 1:
            return None
        is_message = False
    return part


def decoded(part: Part) -> bytes | None:
    """Its body without the transfer encoding (RFC 3516 section 4.3); None where that can't be undone."""
    encoding = (part.field("content-transfer-encoding") or "7bit").strip().lower()
    if part.content_type[0] == "multipart" or encoding in {"7bit", "8bit", "binary"}:
        return part.body
    if encoding == "quoted-printable":
        return quopri.decodestring(part.body)
    try:
        return base64.b64decode(part.body.translate(None, b"\r\n\t "), validate=True) if encoding == "base64" else None
    except binascii.Error:
        return None


def some_fields(header: bytes, names: frozenset[str], *, exclude: bool) -> bytes:
    """The fields of these names (lower case), or all others, and the empty line that ends a header."""
    kept = [line for name, line in header_fields(header) if (name in names) != exclude]
    # A header that is all of a message may lack its last line end.
    return b"".join(line if line.endswith(b"\n") else line + b"\r\n" for line in kept) + b"\r\n"


FIELD_NAME: Final = re.compile(rb"[!-9;-~]+")
