"""What a client has sent, taken apart: command lines, the message after DATA, the octets after BDAT.

Owns: the bytes that nobody has asked for yet, and the message that is arriving. Never does: I/O, replies, verbs.
Called by: stream, which feeds it what the socket gives and asks for what the session waits for.

Rule 1: only CR LF ends a line and only CR LF "." CR LF ends a message (RFC 5321 section 4.1.1.4); a bare CR or LF ends
nothing, so nobody can hide a second message behind one. Rule 2: no octet is looked at twice and none of a message by
itself: ends are found, and dots are removed, by functions in C. Rule 3: what is refused for its size is not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Longest command line of any verb: an initial response to AUTH (RFC 4954 section 4), CR LF included.
LINE_BYTES_MAX: Final = 12_288
_END: Final = b"\r\n.\r\n"
#: The body begins where a line begins: a dot may come first.
_BEGIN: Final = b"\r\n"
_DOT: Final = b"\r\n."
#: Dots of a header, say.
_DOTS: Final = 24


@dataclass(frozen=True)
class BadLine:
    """Stands for a line that can't be taken."""

    #: What is wrong with it.
    problem: str


TOO_LONG: Final = BadLine("Line too long")
#: Whoever ends lines so gets an answer, not obedience and not silence.
BARE: Final = BadLine("A line ends with CR LF and holds neither by itself")


class Oversize:
    """Stands for a message of which nothing was kept, because it was larger than allowed."""


OVERSIZE: Final = Oversize()


class Reader:
    """The bytes of one connection, in order."""

    def __init__(self) -> None:
        self._data = b""
        self._at = 0
        # The rest of a line that was too long is still to come.
        self._skipping = False
        self._pieces: list[bytes] = []
        self._tail = b""
        self._stuffed = False
        self._limit = 0
        self._missing = 0
        #: Of the message or the chunk that is arriving, as it came: with its dots.
        self.body_bytes = 0

    @property
    def pending_bytes(self) -> int:
        """Received, and not yet asked for."""
        return len(self._data) - self._at

    def feed(self, data: bytes) -> None:
        """More has come."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def clear(self) -> None:
        """Forget what nobody has asked for (RFC 3207 section 4.2: it came before TLS, from anybody)."""
        self._data, self._at, self._skipping = b"", 0, False

    def line(self) -> bytes | BadLine | None:
        """The next line without its CR LF, None if it isn't whole."""
        data, start = self._data, self._at
        if start == len(data):
            return None
        end = data.find(b"\n", start)
        if end < 0:
            self._skip_if_too_long()
            return None
        self._at = end + 1
        if self._skipping:
            self._skipping = False
            return TOO_LONG
        if end >= start + LINE_BYTES_MAX:
            return TOO_LONG
        # The only CR is the one before the LF.
        if data.find(b"\r", start, end) != end - 1 or end == start:
            return BARE
        return data[start : end - 1]

    def _skip_if_too_long(self) -> None:
        if self._skipping or self.pending_bytes >= LINE_BYTES_MAX:
            self._skipping = True
            self._at = len(self._data)

    def start_message(self, *, limit: int) -> None:
        """What follows is a message after DATA, of at most so many octets."""
        self._start(limit)
        self._tail, self._stuffed = _BEGIN, False

    def start_chunk(self, size: int, *, limit: int) -> None:
        """What follows are octets after BDAT (RFC 3030 section 2), kept if there are no more than the limit."""
        self._start(limit)
        self._missing = size

    def _start(self, limit: int) -> None:
        self._pieces, self.body_bytes, self._limit = [], 0, limit

    def message(self) -> bytes | Oversize | None:
        """The message once its end has come, with its stuffed dots removed (RFC 5321 section 4.5.2)."""
        chunk = self._rest()
        if not chunk:
            return None
        end = self._find_end(chunk)
        if end is None:
            self._tail = (self._tail + chunk)[-4:] if len(chunk) < len(_END) else chunk[-4:]
            self._keep(chunk)
            return None
        self._data, self._at = chunk, end + len(_END)
        end += len(_BEGIN)
        # A negative end: the dot's line began in the piece before.
        self._keep(chunk[: max(end, 0)])
        return self._whole(cut=min(end, 0))

    def _find_end(self, chunk: bytes) -> int | None:
        """Offset of CR LF "." CR LF in the chunk, negative if it began before it.

        One search finds the end and whether there are dots to remove: nearly always the first line that begins with
        a dot is the last line.
        """
        seam = self._tail + chunk[:4]
        if _DOT in seam:
            self._stuffed = True
            if (found := seam.find(_END)) >= 0:
                return found - len(self._tail)
        first = _first_dot(chunk)
        if first < 0 or chunk.startswith(_END, first):
            return None if first < 0 else first
        self._stuffed = True
        found = chunk.find(_END, first)
        return None if found < 0 else found

    def _whole(self, *, cut: int) -> bytes | Oversize:
        raw = b"".join(self._pieces)
        self._pieces = []
        self.body_bytes += cut
        if self.body_bytes > _stuffed(self._limit):
            return OVERSIZE
        if cut:
            raw = raw[:cut]
        if self._stuffed:
            raw = raw.removeprefix(b".").replace(_DOT, _BEGIN)
        return raw if len(raw) <= self._limit else OVERSIZE

    def chunk(self) -> bytes | Oversize | None:
        """The octets after BDAT, once all have come."""
        if self._missing:
            data = self._rest()
            took = data[: self._missing]
            self._missing -= len(took)
            self._keep(took)
            self._data, self._at = data, len(took)
        if self._missing:
            return None
        raw = b"".join(self._pieces)
        self._pieces = []
        return raw if self.body_bytes <= self._limit else OVERSIZE

    def _rest(self) -> bytes:
        data = self._data[self._at :]
        self._data, self._at = b"", 0
        return data

    def _keep(self, piece: bytes) -> None:
        self.body_bytes += len(piece)
        if self.body_bytes > _stuffed(self._limit):
            self._pieces = []
        else:
            self._pieces.append(piece)


def _first_dot(chunk: bytes) -> int:
    """Offset of the first CR LF ".", or -1.

    A search for one octet is thirty times as fast as one for three, and most of what mail consists of, base64, has no
    dots at all: so many are looked at one by one.
    """
    at = chunk.find(b".", 2)
    for _ in range(_DOTS):
        if at < 0:
            return -1
        if chunk[at - 2 : at] == _BEGIN:
            return at - 2
        at = chunk.find(b".", at + 1)
    return -1 if at < 0 else chunk.find(_DOT, at - 2)


def _stuffed(limit: int) -> int:
    """The most octets in which so many can come: the densest lines are a dot alone, doubled for transparency."""
    return limit + limit // 3 + 1
