"""FETCH and UID FETCH (RFC 3501 sections 6.4.5 and 7.4.2, RFC 7162 sections 3.1.4 and 3.2.6).

Owns: which items there are and how each is written. Called by: table.

An item becomes a writer once per command; a writer appends its pieces of one message to the row. Rows are put together
into chunks, so that an answer of any length takes a chunk's memory, and the first row goes out early.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Final

from fakemail.faults.garble import GARBLES
from fakemail.folder import SEEN
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Request
from fakemail.imap_protocol.events import Event, Pace
from fakemail.imap_protocol.faulty import carried_out
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.structure import FIELD_NAME, envelope, find_part, some_fields, structure
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault, astring, uid_set
from fakemail.imap_protocol.view import View, flag_list
from fakemail.mime import Part
from fakemail.uids import UID_MAX, UidSet, pieces

#: The first chunk is small, so that the first row comes at once; each further one is twice as large, up to the last.
CHUNK_BYTES_FIRST: Final = 4096
CHUNK_BYTES_MAX: Final = 131_072
#: Rows of a chunk that has nothing but flags.
_ROWS_MAX: Final = 2048
#: Mod-sequences have 63 bits (RFC 7162 section 7).
MODSEQ_MAX: Final = (1 << 63) - 1
#: A piece this long is a literal in the sense of the fault point ``imap.literal``.
LITERAL_BYTES_MIN: Final = 1024
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MACROS: Final = {
    b"ALL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE"),
    b"FAST": ("FLAGS", "INTERNALDATE", "RFC822.SIZE"),
    b"FULL": ("FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY"),
}
_ITEM_NAME: Final = re.compile(rb"[A-Za-z][A-Za-z0-9.]*")
_PATH: Final = re.compile(rb"[1-9]\d{0,9}(?:\.[1-9]\d{0,9})*")
_PARTIAL: Final = re.compile(rb"<(\d{1,10})\.(\d{1,10})>")

Writer = Callable[[Message, list[bytes]], None]


@dataclass(kw_only=True)
class Wanted:
    """What a FETCH asks for."""

    names: list[str] = field(default_factory=list)
    writers: list[Writer] = field(default_factory=list)
    #: It sets \\Seen.
    sees: bool = False
    changed_since: int | None = None
    vanished: bool = False

    def add(self, name: str, writer: Writer, *, sees: bool = False) -> None:
        """One more item; one that needs no argument is answered once."""
        if name in self.names and name != "BODY[]":
            return
        self.names.append(name)
        self.writers.append(writer)
        self.sees = self.sees or sees


# Parsing --------------------------------------------------------------------------------------------------------------


def parse_wanted(cursor: Cursor, view: View, *, modseq: bool) -> Wanted:
    """The items at the cursor; SyntaxFault if one is not known."""
    wanted = Wanted()
    for macro, names in _MACROS.items():
        if cursor.take_word(macro):
            for name in names:
                wanted.add(name, _simple(name, view))
            return wanted
    if not cursor.take(b"("):
        _item(cursor, view, wanted, modseq=modseq)
        return wanted
    while True:
        _item(cursor, view, wanted, modseq=modseq)
        if cursor.take(b")"):
            return wanted
        cursor.space()


def _item(cursor: Cursor, view: View, wanted: Wanted, *, modseq: bool) -> None:
    match = _ITEM_NAME.match(cursor.data, cursor.at)
    name = match[0].decode("ascii").upper() if match else ""
    cursor.at += len(name)
    if name in {"BODY", "BODY.PEEK"} and cursor.peek() == b"[":
        _section(cursor, wanted, sees=name == "BODY")
    elif name == "MODSEQ" and modseq:
        wanted.add(name, lambda m, out: out.append(b"MODSEQ (%d)" % m.folder.modseq(m.uid)))
    elif name in _SIMPLE or name in {"UID", "FLAGS"}:
        wanted.add(name, _simple(name, view), sees=name in {"RFC822", "RFC822.TEXT"})
    else:
        raise SyntaxFault(f"unknown FETCH item {name or 'at ' + str(cursor.at)}")


def _section(cursor: Cursor, wanted: Wanted, *, sees: bool) -> None:
    """``[section]<origin.length>``."""
    start = cursor.at
    cursor.need(b"[")
    path: list[int] = []
    if match := _PATH.match(cursor.data, cursor.at):
        path = [int(number) for number in match[0].split(b".")]
        cursor.at = match.end()
        more = cursor.take(b".")
    else:
        more = cursor.peek() != b"]"
    take = _section_of(cursor, path) if more else None
    label = b"BODY" + (cursor.data[start : cursor.at].upper() if take is None or not take.named else take.label(path))
    cursor.need(b"]")
    partial_match = _PARTIAL.match(cursor.data, cursor.at)
    span = None
    if partial_match:
        cursor.at = partial_match.end()
        span = int(partial_match[1]), int(partial_match[2])
        if span[1] == 0 or max(span) > UID_MAX:
            raise SyntaxFault("a partial of 1 to 4294967295 bytes expected")
    elif cursor.peek() == b"<":
        raise SyntaxFault(f"<origin.length> expected at {cursor.at}")
    label += b"]" + (b"<%d>" % span[0] if span else b"")
    wanted.add("BODY[]", partial(_write_section, label, tuple(path), take, span), sees=sees)


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


def _simple(name: str, view: View) -> Writer:
    if name == "UID":
        return lambda m, out: out.append(b"UID %d" % m.uid)
    if name == "FLAGS":
        return lambda m, out: out.append(b"FLAGS " + view.flags(m.uid))
    return _SIMPLE[name]


def _literal(out: list[bytes], label: bytes, data: bytes) -> None:
    out.append(b"%b {%d}\r\n" % (label, len(data)))
    out.append(data)


#: Items that need nothing but the message.
_SIMPLE: Final[dict[str, Writer]] = {
    "INTERNALDATE": lambda m, out: out.append(b'INTERNALDATE "' + internal_date(*m.folder.received(m.uid)) + b'"'),
    "RFC822.SIZE": lambda m, out: out.append(b"RFC822.SIZE %d" % m.size),
    "ENVELOPE": lambda m, out: out.append(b"ENVELOPE " + envelope(m.header)),
    "BODYSTRUCTURE": lambda m, out: out.append(b"BODYSTRUCTURE " + structure(m.part, extended=True)),
    "BODY": lambda m, out: out.append(b"BODY " + structure(m.part, extended=False)),
    "RFC822": lambda m, out: _literal(out, b"RFC822", m.raw),
    "RFC822.HEADER": lambda m, out: _literal(out, b"RFC822.HEADER", m.header),
    "RFC822.TEXT": lambda m, out: _literal(out, b"RFC822.TEXT", m.raw[len(m.header) :]),
}


def _write_section(  # noqa: PLR0917  # bound by partial: the message comes last
    label: bytes, path: tuple[int, ...], kind: _Kind | None, span: tuple[int, int] | None, m: Message, out: list[bytes]
) -> None:
    # A part that isn't there is empty, as in the servers that clients know; so is a partial past the end.
    data = _section_bytes(m, path, kind) or b""
    _literal(out, label, data if span is None else data[span[0] : span[0] + span[1]])


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


# The command ----------------------------------------------------------------------------------------------------------


def fetch(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.5."""
    cursor, view = request.cursor, context.here
    cursor.space()
    text = cursor.sequence_set()
    chosen = view.named(text, by_uid=request.by_uid)
    cursor.space()
    wanted = parse_wanted(cursor, view, modseq=context.has("CONDSTORE"))
    _modifiers(context, request, wanted)
    cursor.end()
    if request.by_uid and "UID" not in wanted.names:
        wanted.names.insert(0, "UID")
        wanted.writers.insert(0, _simple("UID", view))
    if wanted.changed_since is not None or "MODSEQ" in wanted.names:
        yield from switch_on(context, "CONDSTORE")
    if wanted.changed_since is not None:
        known, chosen = chosen, chosen & view.folder.changed_since(wanted.changed_since)
        if "MODSEQ" not in wanted.names:
            wanted.add("MODSEQ", lambda m, out: out.append(b"MODSEQ (%d)" % m.folder.modseq(m.uid)))
        if wanted.vanished:
            named = view.saved if text == b"$" else uid_set(text, max(view.uids.largest, view.folder.uidnext - 1))
            if gone := (view.folder.vanished_since(wanted.changed_since) & named) - known:
                yield f"* VANISHED (EARLIER) {gone}\r\n".encode()
    yield from view.keyword_lines()
    context.facts["messages"] = len(chosen)
    if set(wanted.names) <= {"UID", "FLAGS"} and not view.recent:
        yield from _flag_rows(view, chosen, wanted.names)
    else:
        yield from _rows(context, view, chosen, wanted)
    return Ok(text="FETCH completed", expunges=request.by_uid)


def _modifiers(context: Context, request: Request, wanted: Wanted) -> None:
    """``(CHANGEDSINCE n [VANISHED])`` (RFC 7162 sections 3.1.4.1 and 3.2.6)."""
    cursor = request.cursor
    if cursor.done:
        return
    cursor.space()
    cursor.need(b"(")
    while True:
        word = cursor.word()
        if word == "CHANGEDSINCE" and context.has("CONDSTORE"):
            cursor.space()
            wanted.changed_since = cursor.number(largest=MODSEQ_MAX)
        elif word == "VANISHED" and context.has("QRESYNC"):
            if not request.by_uid or "QRESYNC" not in context.enabled:
                raise SyntaxFault("VANISHED needs UID FETCH and ENABLE QRESYNC")
            wanted.vanished = True
        else:
            raise SyntaxFault(f"unknown FETCH modifier {word}")
        if cursor.take(b")"):
            break
        cursor.space()
    if wanted.vanished and wanted.changed_since is None:
        raise SyntaxFault("VANISHED needs CHANGEDSINCE")


def _flag_rows(view: View, chosen: UidSet, names: Sequence[str]) -> Iterator[Event]:
    """The fast way for what synchronising clients ask of every message: nothing but UIDs and flags."""
    words = {"UID": b"UID %d", "FLAGS": b"FLAGS %b"}
    form = b"* %d FETCH (" + b" ".join(words[name] for name in names) + b")\r\n"
    length = 64
    for first, last in pieces(chosen, length=_ROWS_MAX):
        low = first
        while low <= last:
            high = min(last, low + length - 1)
            yield from view.keyword_lines()
            yield b"".join(_block(view, form, names, low, high))
            low, length = high + 1, min(length * 2, _ROWS_MAX)


def _block(view: View, form: bytes, names: Sequence[str], low: int, high: int) -> list[bytes]:
    first = view.uids.position(low)
    numbers = range(first, first + high - low + 1)
    uids = range(low, high + 1)
    if list(names) == ["FLAGS"]:
        return [form % row for row in zip(numbers, map(flag_list, view.folder.flags_block(low, high)), strict=True)]
    columns = [uids if name == "UID" else map(flag_list, view.folder.flags_block(low, high)) for name in names]
    return [form % row for row in zip(numbers, *columns, strict=True)]


def _rows(context: Context, view: View, chosen: UidSet, wanted: Wanted) -> Iterator[Event]:
    spoiling, cutting = context.active("imap.message"), context.active("imap.literal")
    marks = wanted.sees and not view.read_only
    out: list[bytes] = []
    size, limit, served = 0, CHUNK_BYTES_FIRST, 0
    for number, low, high in view.uids.runs(chosen):
        for uid in range(low, high + 1):
            message = Message(view.folder, number + uid - low, uid, _garble(context) if spoiling else None)
            shown = wanted.writers
            if marks and SEEN not in view.folder.flags(uid):
                shown = shown + _seen(context, view, uid, wanted.names)
            row: list[bytes] = [b"* %d FETCH (" % message.number]
            for writer in shown:
                writer(message, row)
                row.append(b" ")
            row[-1] = b")\r\n"
            if cutting:
                yield b"".join(out)
                out, size = [], 0
                yield from _cut(context, row)
                yield from view.keyword_lines()
                continue
            out += row
            size += sum(map(len, row))
            if size >= limit:
                served += size
                yield from _pieces(out)
                out, size, limit = [], 0, min(limit * 2, CHUNK_BYTES_MAX)
                yield from view.keyword_lines()
    context.facts["bytes"] = served + size
    yield b"".join(out)


def _pieces(out: list[bytes]) -> Iterator[bytes]:
    """Chunks of what was gathered; a message of many megabytes is handed out in slices."""
    whole = b"".join(out)
    if len(whole) <= 2 * CHUNK_BYTES_MAX:
        yield whole
        return
    for at in range(0, len(whole), CHUNK_BYTES_MAX):
        yield whole[at : at + CHUNK_BYTES_MAX]


def _seen(context: Context, view: View, uid: int, names: Sequence[str]) -> list[Writer]:
    r"""Set \Seen; what must be told with the message unless it was asked for."""
    view.mark(uid, view.folder.flags(uid) | {SEEN}, told=True)
    extra: list[Writer] = [] if "FLAGS" in names else [_simple("FLAGS", view)]
    if "CONDSTORE" in context.enabled and "MODSEQ" not in names:
        extra.append(lambda m, out: out.append(b"MODSEQ (%d)" % m.folder.modseq(m.uid)))
    return extra


# Faults ---------------------------------------------------------------------------------------------------------------


def _garble(context: Context) -> Callable[[bytes], bytes] | None:
    """How the next message is spoilt, if it is."""
    action = context.decide("imap.message", folder=context.folder_name)
    return GARBLES[action.garble].spoil if action is not None and action.garble else None


def _cut(context: Context, row: list[bytes]) -> Iterator[Event]:
    """The row with its literals under the eye of the fault plan."""
    announced = False
    for piece in row:
        action = None
        if announced and len(piece) >= LITERAL_BYTES_MIN:
            action = context.decide("imap.literal", folder=context.folder_name)
        announced = piece.endswith(b"}\r\n")
        if action is None:
            yield piece
            continue
        at = action.after_bytes
        if at is None:
            at = 0 if action.bytes_per_s is not None else len(piece) // 2
        yield piece[:at]
        yield from carried_out(action)
        yield piece[at:]
        if action.bytes_per_s is not None:
            yield Pace(bytes_per_s=None)
