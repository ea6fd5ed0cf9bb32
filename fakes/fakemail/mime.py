"""MIME structure of arbitrary bytes: header fields, parameters, parts (RFC 5322, RFC 2045, RFC 2046).

Never raises for bad mail: what can't be understood is text/plain. Pure. Called by: imap_protocol, smtp_server, control.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

#: Deeper nesting than any honest mail's; below it a part is taken as plain text.
_DEPTH_MAX: Final = 20
#: A name, a colon and all that is folded behind it.
_FIELD: Final = re.compile(rb"(?m)^([!-9;-~]+)[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*\n?")
_FOLDING: Final = re.compile(rb"\r?\n")
_LF: Final = ord("\n")
#: Text is Latin-1 here, where two bytes of UTF-8 would pass for white space if it weren't for ASCII's.
_PARAMETER: Final = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:[^"\\]|\\.)*"?|[^\s;]*)', re.ASCII)
_COMMENT_OR_SPACE: Final = re.compile(r"\([^()]*\)|\s+", re.ASCII)


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

    @functools.cached_property
    def _first(self) -> dict[str, bytes]:
        return first_fields(self.header)

    def field(self, name: str) -> str | None:
        """The first field of this name, unfolded; None if there is none."""
        raw = self._first.get(name)
        return None if raw is None else unfolded(raw)


def header_block(raw: bytes) -> bytes:
    """The header with its empty line: all of it if no empty line comes."""
    if raw.startswith((b"\r\n", b"\n")):
        return raw[: raw.index(b"\n") + 1]
    end = raw.find(b"\n\r\n")
    bare = raw.find(b"\n\n", 0, end + 1 if end >= 0 else None)
    if bare >= 0:
        return raw[: bare + 2]
    return raw[: end + 3] if end >= 0 else raw


def header_fields(header: bytes) -> list[tuple[str, bytes]]:
    """(name in lower case, the very bytes with folding and line end), in order."""
    return [(match[1].decode("ascii").lower(), match[0]) for match in _FIELD.finditer(header)]


def first_fields(header: bytes) -> dict[str, bytes]:
    """The first field of each name (lower case), as it stands there."""
    found: dict[str, bytes] = {}
    for name, raw in header_fields(header):
        found.setdefault(name, raw)
    return found


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
    return _COMMENT_OR_SPACE.sub("", value.partition(";")[0]).lower(), tuple(pairs)


def parse_mime(raw: bytes, *, depth: int = 0, default: tuple[str, str] = ("text", "plain")) -> Part:
    """Take a message apart; what can't be understood is text/plain (RFC 2045 section 5.2).

    ``default`` is what a part is that doesn't say: message/rfc822 within a digest (RFC 2046 section 5.1.5).
    """
    header = header_block(raw)
    body = raw[len(header) :]
    fields = first_fields(header)
    main, parameters = parse_parameters(unfolded(fields.get("content-type", b"")))
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
    mark = b"--" + boundary.encode("latin-1", errors="replace")
    parts: list[bytes] = []
    start, at = -1, body.find(mark)
    while at >= 0:
        end = at + len(mark)
        last = body.startswith(b"--", end)
        line_end = body.find(b"\n", end)
        rest = body[end + 2 * last : line_end if line_end >= 0 else len(body)]
        # Only a whole line is a delimiter; white space may follow it.
        if (at == 0 or body[at - 1] == _LF) and not rest.strip(b" \t\r"):
            if start >= 0:
                parts.append(body[start : max(start, at - 2 if body.startswith(b"\r\n", at - 2) else at - 1)])
            if last:
                return parts
            start = end = line_end + 1 or len(body)
        at = body.find(mark, end)
    return parts if start < 0 else [*parts, body[start:]]


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    closed = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', text)
    return re.sub(r"\\(.)", r"\1", closed[1] if closed else text[1:])
