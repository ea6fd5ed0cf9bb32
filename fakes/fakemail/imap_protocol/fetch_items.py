"""What FETCH can be asked for, and how each item is written (RFC 3501 sections 6.4.5 and 7.4.2). Called by: fetch.

An item becomes a writer once per command. A writer makes, of one message, a few bytes, or a literal in the pieces that
it is made of: they are not put together before they are on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Final, NamedTuple

from fakemail.imap_protocol.events import Piece
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.structure import FIELD_NAME, decoded, envelope, find_part, some_fields, structure
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault, astring
from fakemail.imap_protocol.view import View
from fakemail.mime import Part
from fakemail.uids import UID_MAX

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MACROS: Final = {
    b"ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    b"FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    b"FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
_ITEM_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9.]*")
_PATH: Final = re.compile(rb"[1-9]\d{0,9}(?:\.[1-9]\d{0,9})*")
_PARTIAL: Final = re.compile(rb"<(\d{1,10})\.(\d{1,10})>")


class Literal(NamedTuple):
    """A string whose length goes before it (RFC 3501 section 4.3)."""

    #: Up to the end of the line before it.
    announcement: bytes
    parts: Sequence[Piece]
    size_bytes: int


Writer = Callable[[Message], bytes | Literal]


@dataclass(kw_only=True)
class Wanted:
    """What a FETCH asks for."""

    names: list[str] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)
    #: It sets \\Seen.
    sees: bool = False
    changed_since: int | None = None
    vanished: bool = False
    #: A part had a transfer encoding that can't be undone.
    undecodable: bool = False

    def add(self, name: str, writer: Writer, *, sees: bool = False) -> None:
        """One more item; one that needs no argument is answered once."""
        if name in self.names and name != "BODY[]":
            return
        self.names.append(name)
        self.writers.append(writer)
        self.sees = self.sees or sees


# Parsing --------------------------------------------------------------------------------------------------------------


def parse_wanted(cursor: Cursor, view: View, has: Callable[[str], bool]) -> Wanted:
    """The items at the cursor; SyntaxFault if one is not known to a server that ``has`` these capabilities."""
    wanted = Wanted()
    for macro, names in _MACROS.items():
        if cursor.take_word(macro):
            for name in names:
                wanted.add(name, writer(name, view))
            return wanted
    if not cursor.take(b"("):
        _item(cursor, view, wanted, has)
        return wanted
    while True:
        _item(cursor, view, wanted, has)
        if cursor.take(b")"):
            return wanted
        cursor.space()


def _item(cursor: Cursor, view: View, wanted: Wanted, has: Callable[[str], bool]) -> None:
    match = _ITEM_NAME.match(cursor.data, cursor.at)
    name = match[0].decode("ascii").upper() if match else ""
    cursor.at += len(name)
    if name in {"BODY", "BODY.PEEK"} and cursor.peek() == b"[":
        _section(cursor, wanted, sees=name == "BODY")
    elif name in {"BINARY", "BINARY.PEEK", "BINARY.SIZE"} and cursor.peek() == b"[" and has("BINARY"):
        _binary(cursor, wanted, name)
    elif name == "FLAGS" or (name in _SIMPLE and (name != "MODSEQ" or has("CONDSTORE"))):
        wanted.add(name, writer(name, view), sees=name in {"RFC822", "RFC822.TEXT"})
    else:
        raise SyntaxFault(f"unknown FETCH item {name or 'at ' + str(cursor.at)}")


def _section(cursor: Cursor, wanted: Wanted, *, sees: bool) -> None:
    """``BODY[section]<origin.length>``, behind its name."""
    start = cursor.at
    cursor.need(b"[")
    path = _path(cursor)
    more = cursor.take(b".") if path else cursor.peek() != b"]"
    take = _section_of(cursor, path) if more else None
    label = b"BODY" + (cursor.data[start : cursor.at].upper() if take is None or not take.named else take.label(path))
    cursor.need(b"]")
    span = _span(cursor)
    label += b"]" + (b"<%d>" % span[0] if span else b"")
    wanted.add("BODY[]", _section_writer(label, path, take, span), sees=sees)


def _binary(cursor: Cursor, wanted: Wanted, name: str) -> None:
    """``BINARY[part]<origin.length>``, behind its name (RFC 3516 section 4.2)."""
    start = cursor.at
    cursor.need(b"[")
    path = _path(cursor)
    cursor.need(b"]")
    label = name.removesuffix(".PEEK").encode() + cursor.data[start : cursor.at]
    if name == "BINARY.SIZE":
        wanted.add("BODY[]", lambda m: b"%b %d" % (label, len(_binary_bytes(wanted, m, path) or b"")))
        return
    span = _span(cursor)
    label += b"<%d>" % span[0] if span else b""

    def write(message: Message) -> bytes | Literal:
        data = _binary_bytes(wanted, message, path)
        if data is None:
            return label + b" NIL"
        return _literal(label, data if span is None else data[span[0] : span[0] + span[1]], binary=True)

    wanted.add("BODY[]", write, sees=name == "BINARY")


def _path(cursor: Cursor) -> tuple[int, ...]:
    match = _PATH.match(cursor.data, cursor.at)
    if match is None:
        return ()
    cursor.at = match.end()
    return tuple(int(number) for number in match[0].split(b"."))


def _span(cursor: Cursor) -> tuple[int, int] | None:
    """``<origin.length>``, if that is next."""
    match = _PARTIAL.match(cursor.data, cursor.at)
    if match is None:
        if cursor.peek() == b"<":
            raise SyntaxFault(f"<origin.length> expected at {cursor.at}")
        return None
    cursor.at = match.end()
    origin, length = int(match[1]), int(match[2])
    if length == 0 or max(origin, length) > UID_MAX:
        raise SyntaxFault("a partial of 1 to 4294967295 bytes expected")
    return origin, length


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """Which bytes of a part a section means."""

    #: HEADER, TEXT, MIME or HEADER.FIELDS.
    word: str
    names: tuple[bytes, ...] = ()
    exclude: bool = False

    @property
    def named(self) -> bool:
        return bool(self.names)

    def label(self, path: Sequence[int]) -> bytes:
        """The section as the answer repeats it."""
        before = b".".join(b"%d" % number for number in path) + (b"." if path else b"")
        word = b"HEADER.FIELDS.NOT" if self.exclude else b"HEADER.FIELDS"
        return b"[" + before + word + b" (" + b" ".join(map(astring, self.names)) + b")"


def _section_of(cursor: Cursor, path: Sequence[int]) -> _Kind:
    match = _ITEM_NAME.match(cursor.data, cursor.at)
    word = match[0].decode("ascii").upper() if match else ""
    cursor.at += len(word)
    if word in {"HEADER", "TEXT"} or (word == "MIME" and path):
        return _Kind(word=word)
    if word not in {"HEADER.FIELDS", "HEADER.FIELDS.NOT"}:
        raise SyntaxFault(f"unknown section at {cursor.at}")
    cursor.space()
    cursor.need(b"(")
    names = [cursor.astring()]
    while not cursor.take(b")"):
        cursor.space()
        names.append(cursor.astring())
    if not all(FIELD_NAME.fullmatch(name) for name in names):
        raise SyntaxFault("names of header fields expected")
    return _Kind(word="HEADER.FIELDS", names=tuple(names), exclude=word.endswith(".NOT"))


# Writing --------------------------------------------------------------------------------------------------------------


def writer(name: str, view: View) -> Writer:
    """How an item without arguments is written."""
    if name == "FLAGS":
        return lambda m: b"FLAGS " + view.flags(m.uid)
    return _SIMPLE[name]


def _literal(label: bytes, data: bytes, *, binary: bool = False) -> Literal:
    # Only a literal8 may hold a NUL (RFC 3516 section 7); elsewhere mail that has one is served as it is.
    mark = b"~" if binary and b"\0" in data else b""
    return Literal(b"%b %b{%d}\r\n" % (label, mark, len(data)), (data,), len(data))


def _whole(label: bytes, message: Message) -> Literal:
    parts, size_bytes = message.pieces
    return Literal(b"%b {%d}\r\n" % (label, size_bytes), parts, size_bytes)


#: Items that need nothing but the message.
_SIMPLE: Final[dict[str, Writer]] = {
    "UID": lambda m: b"UID %d" % m.uid,
    "MODSEQ": lambda m: b"MODSEQ (%d)" % m.folder.modseq(m.uid),
    "INTERNALDATE": lambda m: b'INTERNALDATE "' + internal_date(*m.folder.received(m.uid)) + b'"',
    "RFC822.SIZE": lambda m: b"RFC822.SIZE %d" % m.size,
    "ENVELOPE": lambda m: b"ENVELOPE " + envelope(m.header),
    "BODYSTRUCTURE": lambda m: b"BODYSTRUCTURE " + structure(m.part, extended=True),
    "BODY": lambda m: b"BODY " + structure(m.part, extended=False),
    "RFC822": partial(_whole, b"RFC822"),
    "RFC822.HEADER": lambda m: _literal(b"RFC822.HEADER", m.header),
    "RFC822.TEXT": lambda m: _literal(b"RFC822.TEXT", m.raw[len(m.header) :]),
}


def _section_writer(label: bytes, path: tuple[int, ...], kind: _Kind | None, span: tuple[int, int] | None) -> Writer:
    if not path and kind is None and span is None:
        return partial(_whole, label)

    def write(message: Message) -> Literal:
        # A part that isn't there is empty, as in the servers that clients know; so is a partial past the end.
        data = _section_bytes(message, path, kind) or b""
        return _literal(label, data if span is None else data[span[0] : span[0] + span[1]])

    return write


def _section_bytes(m: Message, path: tuple[int, ...], kind: _Kind | None) -> bytes | None:
    """The bytes of a section (section 6.4.5); None where there is no such part."""
    if not path:
        return m.raw if kind is None else _of_message(m.header, lambda: m.raw[len(m.header) :], kind)
    part = find_part(m.part, path)
    if part is None or kind is None:
        return None if part is None else part.body
    if kind.word == "MIME":
        return part.header
    inner = _message_in(part)
    return None if inner is None else _of_message(inner.header, lambda: inner.body, kind)


def _binary_bytes(wanted: Wanted, message: Message, path: tuple[int, ...]) -> bytes | None:
    """A part without its transfer encoding; None, and remembered, where that can't be undone."""
    if not path:
        return message.raw
    part = find_part(message.part, path)
    data = b"" if part is None else decoded(part)
    wanted.undecodable = wanted.undecodable or data is None
    return data


def _of_message(header: bytes, body: Callable[[], bytes], kind: _Kind) -> bytes:
    if kind.word == "TEXT":
        return body()
    if kind.word == "HEADER":
        return header
    return some_fields(header, frozenset(name.decode("ascii").lower() for name in kind.names), exclude=kind.exclude)


def _message_in(part: Part) -> Part | None:
    """HEADER and TEXT of a part speak of the message inside it."""
    return part.parts[0] if part.content_type == ("message", "rfc822") and part.parts else None


def internal_date(received_s: int, zone_min: int) -> bytes:
    """RFC 3501 section 9, date-time; the month's name is English whatever the locale."""
    t = datetime.fromtimestamp(received_s, tz=timezone(timedelta(minutes=zone_min)) if zone_min else UTC)
    sign, zone = ("-", -zone_min) if zone_min < 0 else ("+", zone_min)
    return (
        f"{t.day:2d}-{_MONTHS[t.month - 1]}-{t.year:04d} {t.hour:02d}:{t.minute:02d}:{t.second:02d}"
        f" {sign}{zone // 60:02d}{zone % 60:02d}"
    ).encode()
