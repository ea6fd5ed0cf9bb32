"""FETCH and UID FETCH (RFC 3501 section 6.4.5, RFC 7162 sections 3.1.4 and 3.2.6). Called by: table.

Owns: which messages, rows and chunks, the faults of what is served. What an item is and says: fetch_items.

Rows are put together into chunks, so that an answer of any length takes a chunk's memory, and the first row goes out
early. A chunk is a list of pieces; the bytes of a message are not copied on the way to the socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from fakemail.faults.garble import GARBLES
from fakemail.folder import SEEN
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Refused, Request
from fakemail.imap_protocol.events import Event, Gather, Pace, Piece
from fakemail.imap_protocol.faulty import carried_out
from fakemail.imap_protocol.fetch_items import Literal, Wanted, Writer, parse_wanted, writer
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.syntax import MODSEQ_MAX, SyntaxFault, uid_set
from fakemail.imap_protocol.view import View, flag_list
from fakemail.uids import UidSet, pieces

#: The first chunk is small, so that the first row comes at once; each further one is eight times as large, up to the
#: last: each time that a client must be woken costs as much as making some messages.
CHUNK_BYTES_FIRST: Final = 4096
CHUNK_BYTES_MAX: Final = 262_144
#: Rows of a chunk that has nothing but flags.
_ROWS_MAX: Final = 2048
#: A piece this long is a literal in the sense of the fault point ``imap.literal``.
LITERAL_BYTES_MIN: Final = 1024


def fetch(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.5."""
    cursor, view = request.cursor, context.here
    cursor.space()
    text = cursor.sequence_set()
    chosen = view.named(text, by_uid=request.by_uid)
    cursor.space()
    wanted = parse_wanted(cursor, view, context.has)
    _modifiers(context, request, wanted)
    cursor.end()
    if request.by_uid and "UID" not in wanted.names:
        wanted.names.insert(0, "UID")
        wanted.writers.insert(0, writer("UID", view))
    if wanted.changed_since is not None or "MODSEQ" in wanted.names:
        yield from switch_on(context, "CONDSTORE")
    if wanted.changed_since is not None:
        known, chosen = chosen, chosen & view.folder.changed_since(wanted.changed_since)
        if "MODSEQ" not in wanted.names:
            wanted.add("MODSEQ", writer("MODSEQ", view))
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
    if wanted.undecodable:
        raise Refused("a transfer encoding can't be undone", code="UNKNOWN-CTE")
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
    chunk = _Chunk()
    served, limit = 0, CHUNK_BYTES_FIRST
    for number, low, high in view.uids.runs(chosen):
        for uid in range(low, high + 1):
            message = Message(view.folder, number + uid - low, uid, _garble(context) if spoiling else None)
            shown = wanted.writers
            # Also where somebody else has just read it: this client must hear that it is seen.
            if marks and (SEEN not in view.folder.flags(uid) or not view.knows(uid)):
                shown = shown + _seen(context, view, uid, wanted.names)
            if cutting:
                yield from _cut(context, message, shown)
                yield from view.keyword_lines()
                continue
            chunk.add(message, shown)
            if chunk.size_bytes >= limit:
                served += chunk.size_bytes
                yield from chunk.taken()
                limit = min(limit * 8, CHUNK_BYTES_MAX)
                yield from view.keyword_lines()
    context.facts["bytes"] = served + chunk.size_bytes
    yield from chunk.taken()


class _Chunk:
    """Rows that go out together."""

    def __init__(self) -> None:
        self.size_bytes = 0
        self._parts: list[Piece] = []
        #: Short pieces since the last literal: put together once, since each time copies them all.
        self._words: list[bytes] = []

    def add(self, message: Message, writers: Sequence[Writer]) -> None:
        """One row; short items are put together, literals stay in their pieces."""
        words, gap = self._words, b"* %d FETCH (" % message.number
        size_bytes = self.size_bytes
        for write in writers:
            made = write(message)
            if isinstance(made, Literal):
                words += (gap, made.announcement)
                size_bytes += len(gap) + len(made.announcement) + made.size_bytes
                self._parts.append(b"".join(words))
                self._parts += made.parts
                words.clear()
            else:
                words += (gap, made)
                size_bytes += len(gap) + len(made)
            gap = b" "
        words.append(b")\r\n")
        self.size_bytes = size_bytes + 3

    def taken(self) -> Iterator[Event]:
        """What was gathered; a message of many megabytes is handed out in slices."""
        if self._words:
            self._parts.append(b"".join(self._words))
            self._words.clear()
        parts, self._parts = self._parts, []
        size_bytes, self.size_bytes = self.size_bytes, 0
        if size_bytes <= 2 * CHUNK_BYTES_MAX:
            yield Gather(parts=parts, size_bytes=size_bytes)
            return
        for part in parts:
            for at in range(0, len(part), CHUNK_BYTES_MAX):
                piece = memoryview(part)[at : at + CHUNK_BYTES_MAX]
                yield Gather(parts=[piece], size_bytes=len(piece))


def _seen(context: Context, view: View, uid: int, names: Sequence[str]) -> list[Writer]:
    r"""Set \Seen; what must be told with the message unless it was asked for."""
    view.mark(uid, view.folder.flags(uid) | {SEEN}, told=True)
    extra = [] if "FLAGS" in names else [writer("FLAGS", view)]
    if "CONDSTORE" in context.enabled and "MODSEQ" not in names:
        extra.append(writer("MODSEQ", view))
    return extra


# Faults ---------------------------------------------------------------------------------------------------------------


def _garble(context: Context) -> Callable[[bytes], bytes] | None:
    """How the next message is spoilt, if it is."""
    action = context.decide("imap.message", folder=context.folder_name)
    return GARBLES[action.garble].spoil if action is not None and action.garble else None


def _cut(context: Context, message: Message, writers: Sequence[Writer]) -> Iterator[Event]:
    """A row with its literals under the eye of the fault plan."""
    gap = b"* %d FETCH (" % message.number
    for write in writers:
        made = write(message)
        if isinstance(made, Literal):
            yield gap + made.announcement
            yield from _cut_literal(context, b"".join(made.parts))
        else:
            yield gap + made
        gap = b" "
    yield b")\r\n"


def _cut_literal(context: Context, data: bytes) -> Iterator[Event]:
    large = len(data) >= LITERAL_BYTES_MIN
    action = context.decide("imap.literal", folder=context.folder_name) if large else None
    if action is None:
        yield data
        return
    at = action.after_bytes
    if at is None:
        at = 0 if action.bytes_per_s is not None else len(data) // 2
    yield data[:at]
    yield from carried_out(action)
    yield data[at:]
    if action.bytes_per_s is not None:
        yield Pace(bytes_per_s=None)
