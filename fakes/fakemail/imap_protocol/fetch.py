"""What FETCH says of a message (RFC 3501 sections 6.4.5 and 7.4.2). Pure: mail in, bytes out. Called by session."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Final

from fakemail.imap_protocol.syntax import SyntaxFault, quoted
from fakemail.mailbox import Folder, Mail
from fakemail.mime import Part, field_value, header_block, header_fields, parse_mime, parse_parameters

_ITEM: Final = re.compile(rb"(BODY(?:\.PEEK)?)\[([^\]]*)\](?:<(\d{1,10})\.(\d{1,10})>)?|([A-Z0-9.]+)", re.IGNORECASE)
_MACROS: Final = {
    "ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    "FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    "FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
_PLAIN: Final = frozenset(
    {"FLAGS", "UID", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "RFC822", "RFC822.HEADER",
     "RFC822.TEXT"}
)  # fmt: skip
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_SECTION: Final = re.compile(
    r"(?P<path>\d+(?:\.\d+)*)?(?(path)(?:\.(?=[HTM])|(?=\Z)))"
    # MIME is a part's alone.
    r"(?P<what>HEADER\.FIELDS(?:\.NOT)? \((?P<names>[^)]+)\)|HEADER|TEXT|(?(path)MIME|(?!)))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that is asked of a message."""

    #: Upper case: FLAGS, ENVELOPE ..., or BODY[] with a section.
    name: str
    section: str | None = None
    #: Origin and length of a partial fetch.
    partial: tuple[int, int] | None = None
    #: Leaves \\Seen alone.
    peek: bool = True


def parse_items(data: bytes) -> list[Item]:
    """The items of a FETCH, macros resolved.

    Raises:
        SyntaxFault: one is not known.
    """
    text = data.strip()
    if text.startswith(b"(") and text.endswith(b")"):
        text = text[1:-1]
    macro = _MACROS.get(text.decode("ascii", errors="replace").upper())
    if macro is not None:
        return [Item(name=name) for name in macro]
    items, at = [], 0
    while at < len(text):
        match = _ITEM.match(text, at)
        if match is None:
            raise SyntaxFault("unknown FETCH item")
        items.append(_item(match))
        at = match.end()
        if at < len(text) and text[at : at + 1] != b" ":
            raise SyntaxFault("space expected between FETCH items")
        at += 1
    if not items:
        raise SyntaxFault("FETCH asks for nothing")
    return items


def _item(match: re.Match[bytes]) -> Item:
    if match[5] is not None:
        name = match[5].decode().upper()
        if name not in _PLAIN:
            raise SyntaxFault(f"unknown FETCH item {name}")
        return Item(name=name, peek=name not in {"RFC822", "RFC822.TEXT"})
    section = match[2].decode("ascii", errors="replace")
    if not _SECTION.fullmatch(section):
        raise SyntaxFault(f"unknown section [{section}]")
    partial = (int(match[3]), int(match[4])) if match[3] is not None else None
    return Item(name="BODY[]", section=section, partial=partial, peek=match[1].upper() == b"BODY.PEEK")


def row(number: int, uid: int, folder: Folder, mail: Mail, items: Sequence[Item]) -> bytes:
    """One untagged FETCH response."""
    raw: bytes | None = None
    words: list[bytes] = []
    for item in items:
        if item.name == "UID":
            words.append(b"UID %d" % uid)
        elif item.name == "FLAGS":
            words.append(b"FLAGS " + flag_list(folder.flags(uid)))
        elif item.name == "INTERNALDATE":
            words.append(b'INTERNALDATE "' + internal_date(mail) + b'"')
        else:
            raw = mail.raw if raw is None else raw
            words.append(_of_bytes(item, raw))
    return b"* %d FETCH (%s)\r\n" % (number, b" ".join(words))


def flag_list(flags: frozenset[str]) -> bytes:
    """Flags in parentheses, in a fixed order."""
    return b"(" + " ".join(sorted(flags)).encode() + b")"


def internal_date(mail: Mail) -> bytes:
    """RFC 3501 section 9, date-time; the month's name is English whatever the locale."""
    t = mail.received
    return f"{t.day:2d}-{_MONTHS[t.month - 1]}-{t.year} {t:%H:%M:%S} {t:%z}".encode()


def _of_bytes(item: Item, raw: bytes) -> bytes:  # noqa: PLR0911  # a table
    header = header_block(raw)
    match item.name:
        case "RFC822.SIZE":
            return b"RFC822.SIZE %d" % len(raw)
        case "ENVELOPE":
            return b"ENVELOPE " + envelope(header)
        case "BODYSTRUCTURE":
            return b"BODYSTRUCTURE " + structure(parse_mime(raw), extended=True)
        case "BODY":
            return b"BODY " + structure(parse_mime(raw), extended=False)
        case "RFC822":
            return b"RFC822 " + _literal(raw)
        case "RFC822.HEADER":
            return b"RFC822.HEADER " + _literal(header)
        case "RFC822.TEXT":
            return b"RFC822.TEXT " + _literal(raw[len(header) :])
        case _:
            return _section(item, raw)


def _literal(data: bytes) -> bytes:
    return b"{%d}\r\n%s" % (len(data), data)


def _section(item: Item, raw: bytes) -> bytes:
    name = (item.section or "").upper()
    data = section_bytes(item.section or "", raw)
    label = b"BODY[" + name.encode() + b"]"
    if item.partial is None:
        return label + b" " + (b"NIL" if data is None else _literal(data))
    origin, length = item.partial
    piece = (data or b"")[origin : origin + length]
    return label + b"<%d> " % origin + _literal(piece)


def section_bytes(section: str, raw: bytes) -> bytes | None:  # noqa: PLR0911  # one answer for each kind of section
    """The bytes of a section (RFC 3501 section 6.4.5); None where there is no such part."""
    match = _SECTION.fullmatch(section)
    if match is None:
        return None
    part = Part(
        header=header_block(raw), body=raw[len(header_block(raw)) :], content_type=("", ""), parameters=(), parts=()
    )
    what = (match["what"] or "").upper()
    if match["path"]:
        found = _walk(parse_mime(raw), [int(n) for n in match["path"].split(".")])
        if found is None:
            return None
        if not what:
            return found.body
        if what == "MIME":
            return found.header
        # HEADER and TEXT of a part speak of the message inside it.
        if not found.parts:
            return None
        part = found.parts[0]
    if not what:
        return raw
    if what == "TEXT":
        return part.body
    if what == "HEADER":
        return part.header
    return _fields(part.header, (match["names"] or "").split(), exclude=".NOT" in what)


def _fields(header: bytes, names: Sequence[str], *, exclude: bool) -> bytes:
    wanted = {name.strip('"').lower() for name in names}
    kept = [line for name, line in header_fields(header) if (name in wanted) != exclude]
    return b"".join(kept) + b"\r\n"


def _walk(part: Part, path: Sequence[int]) -> Part | None:
    whole = True
    for number in path:
        contained = part.content_type == ("message", "rfc822") and bool(part.parts) and not whole
        inner = part.parts[0] if contained else part
        if inner.content_type[0] == "multipart":
            if not 1 <= number <= len(inner.parts):
                return None
            part, whole = inner.parts[number - 1], False
        elif number == 1 and (whole or contained):
            # A message that is not multipart has one part, itself.
            part, whole = inner, False
        else:
            return None
    return part


def envelope(header: bytes) -> bytes:
    """RFC 3501 section 7.4.2: sender and reply-to fall back to from."""

    def value(name: str) -> str | None:
        return field_value(header, name)

    sender = value("from")
    rows = [
        quoted(value("date")),
        quoted(value("subject")),
        _addresses(sender),
        _addresses(value("sender") or sender),
        _addresses(value("reply-to") or sender),
        *(_addresses(value(name)) for name in ("to", "cc", "bcc")),
        quoted(value("in-reply-to")),
        quoted(value("message-id")),
    ]
    return b"(" + b" ".join(rows) + b")"


def _addresses(value: str | None) -> bytes:
    pairs = [pair for pair in getaddresses([value]) if pair[1]] if value else []
    if not pairs:
        return b"NIL"
    rows = []
    for name, address in pairs:
        local, _, domain = address.rpartition("@")
        rows.append(b"(%s NIL %s %s)" % (quoted(name or None), quoted(local or domain), quoted(domain or None)))
    return b"(" + b"".join(rows) + b")"


_NOTHING: Final = Part(header=b"", body=b"", content_type=("text", "plain"), parameters=(), parts=())


def structure(part: Part, *, extended: bool) -> bytes:
    """BODY and BODYSTRUCTURE (RFC 3501 section 7.4.2)."""
    kind, subtype = part.content_type
    if kind == "multipart":
        # The grammar wants one part at least, also where the mail has none.
        inner = b"".join(structure(child, extended=extended) for child in part.parts or (_NOTHING,))
        words = [inner, quoted(subtype)]
        if extended:
            words += [_parameters(part.parameters), *_extension(part)]
        return b"(" + b" ".join(words) + b")"
    words = [
        quoted(kind),
        quoted(subtype),
        _parameters(part.parameters),
        quoted(part.field("content-id")),
        quoted(part.field("content-description")),
        quoted((part.field("content-transfer-encoding") or "7bit").lower()),
        b"%d" % len(part.body),
    ]
    lines = b"%d" % part.body.count(b"\n")
    if (kind, subtype) == ("message", "rfc822") and part.parts:
        words += [envelope(part.parts[0].header), structure(part.parts[0], extended=extended), lines]
    elif kind == "text":
        words.append(lines)
    if extended:
        words += [b"NIL", *_extension(part)]
    return b"(" + b" ".join(words) + b")"


def _parameters(pairs: Sequence[tuple[str, str]]) -> bytes:
    if not pairs:
        return b"NIL"
    return b"(" + b" ".join(quoted(name) + b" " + quoted(value) for name, value in pairs) + b")"


def _extension(part: Part) -> list[bytes]:
    """Disposition, language, location."""
    value = part.field("content-disposition")
    if value is None:
        return [b"NIL", b"NIL", b"NIL"]
    kind, pairs = parse_parameters(value)
    return [b"(" + quoted(kind) + b" " + _parameters(pairs) + b")", b"NIL", b"NIL"]


def sees(items: Sequence[Item]) -> bool:
    """Whether the fetch marks what it shows as seen."""
    return any(not item.peek for item in items)
