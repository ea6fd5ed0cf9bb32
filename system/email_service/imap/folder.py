"""A folder that is open: how it was when it was opened, how many messages it holds by now, and questions to it.

Rule 1: everything is asked by UID; sequence numbers, which move with every expunge, are never used.
Rule 2: news may come with any answer (RFC 3501 section 7): they are counted, and are never taken for the answer.
Called by changes, reading and moving.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Final

from email_service.errors import ImapError
from email_service.imap.refusals import RefusedError, errors, span
from email_service.imap.replies import (
    Value,
    fetched,
    flags_line,
    flags_of,
    integer,
    items_of,
    quoted,
    searched,
    tokens,
    uid_ranges,
)
from email_service.imap.values import Flags, SyncToken
from email_service.imap.wire import ANSWER_BYTES_MAX, Reply, Wire
from email_service.signals import IMAP_FOLDER, SPAN_IMAP_SELECT

UID_MAX: Final = 2**32 - 1
#: Messages that may have come in while a search was answered.
_NEWCOMERS_MAX: Final = 10_000
_CODE: Final = re.compile(rb"\[(UIDVALIDITY|UIDNEXT|HIGHESTMODSEQ) (\d{1,20})\]", re.IGNORECASE)


class OpenFolder:
    """The folder that is selected on the wire; opening another one ends it."""

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        #: For people and spans.
        self.name = name
        self.is_read_only = False
        #: As news have it.
        self.exists = 0
        #: More came in since it was opened.
        self.has_grown = False
        #: It was opened with QRESYNC: what changed since is in the two below.
        self.is_resynced = False
        #: Flags that changed, and UIDs that are gone.
        self.changed: dict[int, Flags] = {}
        self.vanished: list[range] = []
        self._opening = True
        self._codes: dict[bytes, int] = {}

    @property
    def uidvalidity(self) -> int:
        """Under which UIDs name messages here."""
        return self._codes[b"UIDVALIDITY"]

    @property
    def uidnext(self) -> int | None:
        """What the next message gets at least, as of the opening; None if the server does not say."""
        return self._codes.get(b"UIDNEXT") or None

    @property
    def highestmodseq(self) -> int | None:
        """As of the opening; None where there are no modification sequences (NOMODSEQ, RFC 7162 section 3.1.2.2)."""
        return self._codes.get(b"HIGHESTMODSEQ") or None

    def answer(self, tag: bytes, kind: bytes, *, literals_bytes_max: int = ANSWER_BYTES_MAX) -> Iterator[Reply]:
        """Replies of a kind to a command, with the news counted."""
        for reply in self.wire.answer(tag, literals_bytes_max=literals_bytes_max):
            self._note(reply)
            if reply.kind == kind and reply.tag == b"*":
                yield reply

    def ask(self, kind: bytes, *words: bytes) -> Iterator[Reply]:
        """Say a command; replies of a kind, as they come."""
        return self.answer(self.wire.send(*words), kind)

    def fetch(self, uids: bytes, what: bytes) -> Iterator[tuple[int, dict[bytes, Value]]]:
        """UID FETCH: UID and items; replies without a UID are news that nobody asked for."""
        for reply in self.ask(b"FETCH", b"UID FETCH", uids, what):
            items = fetched(reply.pieces)
            if (uid := integer(items.get(b"UID"))) is not None:
                yield uid, items

    def flags(self, uids: bytes, *modifiers: bytes) -> dict[int, Flags]:
        """UID FETCH of flags: UID -> flags. With the modifier VANISHED, what is gone is added to ``vanished``."""
        with errors("UID FETCH"):
            found: dict[int, Flags] = {}
            for reply in self.wire.answer(self.wire.send(b"UID FETCH", uids, b"(UID FLAGS)", *modifiers)):
                self._note(reply)
                if reply.kind == b"FETCH" and (pair := _flags(reply)) is not None:
                    found[pair[0]] = pair[1]
            return found

    def search(self, key: bytes) -> array[int]:
        """UID SEARCH, in order; no more than the folder holds.

        Raises:
            ImapError: the server refused, or found more than there can be.
        """
        words = (b"RETURN (ALL)", key) if b"ESEARCH" in self.wire.capabilities else (key,)
        found: array[int] = array("I")
        with errors("UID SEARCH"):
            for reply in self.wire.answer(self.wire.send(b"UID SEARCH", *words)):
                self._note(reply)
                for run in _found(reply):
                    if run.start < 1 or run[-1] > UID_MAX:
                        continue
                    if len(found) + len(run) > self.exists + _NEWCOMERS_MAX:
                        raise ImapError("a search found more messages than the folder holds", transient=False)
                    found.extend(run)
        return array("I", sorted(set(found))) if any(a >= b for a, b in pairwise(found)) else found

    def _note(self, reply: Reply) -> None:
        if reply.tag != b"*":
            return
        if reply.kind == b"EXISTS" and reply.number is not None:
            self.has_grown |= not self._opening and reply.number > self.exists
            self.exists = reply.number
        elif reply.kind == b"EXPUNGE":
            self.exists = max(self.exists - 1, 0)
        elif reply.kind == b"VANISHED":
            self._note_vanished(reply.text)

    def _note_vanished(self, text: bytes) -> None:
        earlier, _, uids = text.rpartition(b" ")
        ranges = uid_ranges(uids, UID_MAX)
        if earlier.upper() == b"(EARLIER)":
            self.vanished.extend(ranges)
        else:
            self.exists = max(self.exists - sum(map(len, ranges)), 0)

    def _open(self, verb: bytes, words: Iterable[bytes]) -> None:
        for reply in self.wire.answer(self.wire.send(verb, *words)):
            if b"[CLOSED]" in reply.text.upper()[:8]:
                # What came until here was about the folder that was open before (RFC 7162 section 3.2.11).
                self.exists, self.vanished = 0, []
                self.changed.clear()
            self._note(reply)
            if reply.kind in {b"OK", b"NO"} and (code := _CODE.match(reply.text)):
                self._codes[code[1].upper()] = int(code[2])
            elif reply.kind == b"FETCH" and (pair := _flags(reply)) is not None:
                self.changed[pair[0]] = pair[1]
            self.is_read_only = reply.tag != b"*" and reply.text.upper().startswith(b"[READ-ONLY]")
        self._opening = False


def open_folder(
    wire: Wire, name: str, wire_name: bytes, *, write: bool = False, resync: SyncToken | None = None
) -> OpenFolder:
    """Open a folder: EXAMINE, which leaves no trace, or SELECT. ``resync`` asks for what changed since (RFC 7162).

    Raises:
        ImapError: the server refused, or gives no UIDVALIDITY.
    """
    verb = b"SELECT" if write else b"EXAMINE"
    with span(SPAN_IMAP_SELECT, {IMAP_FOLDER: name}), errors(verb.decode()):
        folder = _opened(wire, name, verb, quoted(wire_name), resync)
        if not folder._codes.get(b"UIDVALIDITY"):  # noqa: SLF001  # of this module
            raise ImapError("the server gives the folder no UIDVALIDITY, so its UIDs can't be kept", transient=False)
        return folder


def _opened(wire: Wire, name: str, verb: bytes, wire_name: bytes, resync: SyncToken | None) -> OpenFolder:
    if resync is not None and b"QRESYNC" in wire.capabilities:
        parameters = [b"(QRESYNC (%d %d 1:%d))" % (resync.uidvalidity, resync.highestmodseq or 1, resync.last_uid)]
    else:
        parameters = [b"(CONDSTORE)"] if b"CONDSTORE" in wire.capabilities else []
    folder = OpenFolder(wire, name)
    try:
        folder._open(verb, (wire_name, *parameters))  # noqa: SLF001  # of this module
    except RefusedError as err:
        if err.kind != b"BAD" or not parameters:
            raise
        # It offers what it does not take: go on without.
        wire.capabilities -= {b"QRESYNC"} if b"QRESYNC" in parameters[0] else {b"CONDSTORE", b"QRESYNC"}
        return _opened(wire, name, verb, wire_name, None)
    folder.is_resynced = b"QRESYNC" in b"".join(parameters)
    return folder


def _flags(reply: Reply) -> tuple[int, Flags] | None:
    line = reply.pieces[0]
    if isinstance(line, bytes) and (usual := flags_line(line)) is not None:
        return usual
    items = items_of(tokens(reply.pieces))
    uid = integer(items.get(b"UID"))
    return None if uid is None or b"FLAGS" not in items else (uid, flags_of(items[b"FLAGS"]))


def _found(reply: Reply) -> Iterable[range]:
    if reply.kind == b"SEARCH":
        return searched(reply.text)
    if reply.kind == b"ESEARCH":
        words = tokens(reply.pieces)
        place = next((at for at, word in enumerate(words) if isinstance(word, bytes) and word.upper() == b"ALL"), None)
        value = words[place + 1] if place is not None and place + 1 < len(words) else None
        return uid_ranges(value, UID_MAX) if isinstance(value, bytes) else ()
    return ()
