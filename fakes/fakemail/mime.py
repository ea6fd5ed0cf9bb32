"""MIME structure of arbitrary bytes: header fields, parameters, parts (RFC 5322, RFC 2045, RFC 2046).

Never raises for bad mail: what can't be understood is text/plain. Pure. Called by: imap_protocol, smtp_server, control.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: Deeper nesting than any honest mail's; below it a part is taken as plain text.
_DEPTH_MAX: Final = 20
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_FOLDING: Final = re.compile(rb"\r?\n")
_PARAMETER: Final = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]*)')


@dataclass(frozen=True, kw_only=True)
class Part:
    """A MIME entity: the very bytes and what they say of themselves (RFC 2045, RFC 2046)."""

    #: Header block with its empty line.
    header: bytes
    body: bytes
    #: Lower case, such as ("text", "plain").
    content_type: tuple[str, str]
    parameters: tuple[tuple[str, str], ...]
    #: Of a multipart; else empty.
    parts: tuple[Part, ...]

    def field(self, name: str) -> str | None:
        """The first field of this name, unfolded; None if there is none."""
        return field_value(self.header, name)


def header_block(raw: bytes) -> bytes:
    """The header with its empty line: all of it if no empty line comes."""
    if raw.startswith((b"\r\n", b"\n")):
        return raw[: raw.index(b"\n") + 1]
    end = _HEADER_END.search(raw)
    return raw[: end.end()] if end else raw


def header_fields(header: bytes) -> list[tuple[str, bytes]]:
    """(name in lower case, the very bytes with folding and line end), in order."""
    fields: list[tuple[str, bytes]] = []
    for line in header.splitlines(keepends=True):
        if line[:1] in b" \t" and fields:
            name, raw = fields.pop()
            fields.append((name, raw + line))
        elif match := _FIELD.match(line):
            fields.append((match[1].decode("ascii").lower(), line))
    return fields


def unfolded(raw: bytes) -> str:
    """A field without its name, folding and surrounding space (RFC 5322 section 2.2.3); eight-bit bytes as Latin-1."""
    return _FOLDING.sub(b"", raw.partition(b":")[2]).strip().decode("latin-1")


def field_values(header: bytes, name: str) -> list[str]:
    """Every field of this name, in order."""
    wanted = name.lower()
    if wanted.encode("latin-1", errors="replace") not in header.lower():
        return []
    return [unfolded(raw) for key, raw in header_fields(header) if key == wanted]


def field_value(header: bytes, name: str) -> str | None:
    """The first field of this name; None if there is none."""
    return next(iter(field_values(header, name)), None)


def parse_parameters(value: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """``attachment; filename="x"`` -> ("attachment", (("filename", "x"),)); names as they were written."""
    pairs = [(name, _unquoted(text)) for name, text in _PARAMETER.findall(value)]
    return value.partition(";")[0].strip().lower(), tuple(pairs)


def parse_mime(raw: bytes, *, depth: int = 0, default: tuple[str, str] = ("text", "plain")) -> Part:
    """Take a message apart; what can't be understood is text/plain (RFC 2045 section 5.2).

    ``default`` is what a part is that doesn't say: message/rfc822 within a digest (RFC 2046 section 5.1.5).
    """
    header = header_block(raw)
    body = raw[len(header) :]
    main, parameters = parse_parameters(field_value(header, "content-type") or "")
    kind, slash, subtype = main.partition("/")
    if not (kind and slash and subtype) or depth > _DEPTH_MAX:
        kind, subtype = ("text", "plain") if main or depth > _DEPTH_MAX else default
    boundary = {name.lower(): text for name, text in parameters}.get("boundary", "")
    inner: list[bytes] = _split(body, boundary) if kind == "multipart" and boundary else []
    if (kind, subtype) == ("message", "rfc822"):
        inner = [body]
    below = ("message", "rfc822") if (kind, subtype) == ("multipart", "digest") else ("text", "plain")
    parts = tuple(parse_mime(each, depth=depth + 1, default=below) for each in inner)
    return Part(header=header, body=body, content_type=(kind, subtype), parameters=parameters, parts=parts)


def _split(body: bytes, boundary: str) -> list[bytes]:
    """The parts between the delimiters; a delimiter owns the line break before it (RFC 2046 section 5.1.1)."""
    mark = re.escape(boundary.encode("latin-1", errors="replace"))
    pattern = re.compile(rb"(?:\A|\r?\n)--" + mark + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    parts, start = [], None
    for match in pattern.finditer(body):
        if start is not None:
            parts.append(body[start : match.start()])
        if match[1]:
            return parts
        start = body.find(b"\n", match.end()) + 1 or len(body)
    return parts if start is None else [*parts, body[start:]]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
