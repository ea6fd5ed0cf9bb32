"""Bytes to commands, and commands to tokens (RFC 3501 section 9). Pure: no I/O, no mailbox.

Rule 1: a command is taken only when all of it has arrived, its literals included.
Rule 2: lines, literals and whole commands have limits. What exceeds them is read past without being kept, so that the
client gets a tagged BAD and the connection stays in step.
Called by: session (Framer), every command (Cursor).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from fakemail.uids import UID_MAX, Range, UidSet

LINE_BYTES_MAX: Final = 65_536
LITERAL_BYTES_MAX: Final = 64 * 1024 * 1024
#: Before login nobody needs more: a password, perhaps an OAuth token.
LITERAL_BYTES_MAX_BEFORE_LOGIN: Final = 65_536
NESTING_MAX: Final = 32
#: Mod-sequences have 63 bits (RFC 7162 section 7).
MODSEQ_MAX: Final = (1 << 63) - 1
#: Enough of a line's end to see a literal's announcement.
_TAIL_BYTES: Final = 32
_LITERAL_END: Final = re.compile(rb"\{(\d{1,19})(\+?)\}\Z")
_LITERAL_START: Final = re.compile(rb"\{(\d{1,19})\+?\}\r?\n")
_ATOM: Final = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]+')
_ASTRING: Final = re.compile(rb'[^\x00-\x20\x7f(){%*"\\]+')
_LIST_MAILBOX: Final = re.compile(rb'[^\x00-\x20\x7f(){"\\]+')
_QUOTED: Final = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
_NUMBER: Final = re.compile(rb"\d{1,19}")
_ELEMENT: Final = rb"(?:[1-9]\d{0,9}|\*)"
_RANGES: Final = _ELEMENT + rb"(?::" + _ELEMENT + rb")?(?:," + _ELEMENT + rb"(?::" + _ELEMENT + rb")?)*"
_SET: Final = re.compile(_RANGES)
_SET_OR_SAVED: Final = re.compile(_RANGES + rb"|\$")
_QUOTABLE: Final = re.compile(rb"[\x20-\x7e]*")
#: A longer string only makes lines long.
_QUOTED_BYTES_MAX: Final = 1000


class SyntaxFault(Exception):  # noqa: N818  # not one for users of fakemail: it becomes a BAD
    """The command can't be understood."""


@dataclass(frozen=True, kw_only=True)
class Continue:
    """The client waits for leave to send its literal (RFC 3501 section 7.5)."""


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A limit was exceeded; what exceeded it was read past."""

    tag: bytes
    #: For the BAD; with a response code where there is one (RFC 7888 section 5: TOOBIG).
    why: str


class Framer:
    """Collects bytes until a command is whole."""

    def __init__(
        self,
        *,
        line_bytes_max: int = LINE_BYTES_MAX,
        literal_bytes_max: int = LITERAL_BYTES_MAX,
        literal_plus: bool = True,
    ) -> None:
        #: Of a command's text, which are its lines without its literals.
        self._line_bytes_max = line_bytes_max
        #: Of all literals of a command together.
        self.literal_bytes_max = literal_bytes_max
        self._literal_plus = literal_plus
        self._buffer = bytearray()
        #: Bytes of a literal that nobody wants.
        self._unwanted = 0
        self._too_long: TooLong | None = None
        self._restart()

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._buffer += data

    @property
    def held_bytes(self) -> int:
        """What waits to become a command."""
        return len(self._buffer)

    def clear(self) -> None:
        """Forget what came before TLS began: it may be an attacker's (RFC 3501 section 11.1, CVE-2011-0411)."""
        self._buffer.clear()
        self._unwanted, self._too_long = 0, None
        self._restart()

    def _restart(self) -> None:
        #: Where the current line begins, behind the literals that have arrived; how far it was searched for its end.
        self._line = self._searched = 0
        #: Bytes of the literals so far.
        self._literals = 0
        self._granted = False

    def line(self) -> bytes | TooLong | None:
        """The next line as it is, without its end: what follows a continuation request (AUTHENTICATE, IDLE)."""
        end = self._end()
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        self._drop(end + 1)
        if self._too_long is not None:
            return self._finish_too_long()
        return line

    def command(self) -> bytes | Continue | TooLong | None:
        """A whole command with its literals in it; None when more must arrive."""
        while True:
            end = self._end()
            if end < 0:
                return None
            line = bytes(self._buffer[max(self._line, end - _TAIL_BYTES) : end]).removesuffix(b"\r")
            literal = _LITERAL_END.search(line)
            if literal is None:
                return self._take(end)
            size, waits = int(literal[1]), not literal[2]
            if found := self._wrong_literal(size, waits=waits):
                self._give_up(found)
                end = self._end()
            if self._too_long is not None:
                self._drop(end + 1)
                if waits:
                    # The client asks before it sends: the answer is the BAD.
                    return self._finish_too_long()
                self._unwanted = size
                continue
            if waits and not self._granted:
                self._granted = True
                return Continue()
            self._granted = False
            self._literals += size
            self._line = self._searched = end + 1 + size

    def _wrong_literal(self, size: int, *, waits: bool) -> str:
        if self._too_long is None and self._literals + size > self.literal_bytes_max:
            return "[TOOBIG] the literal is too long"
        return "" if waits or self._literal_plus else "a literal has to wait for leave"

    def _end(self) -> int:
        """Where the current line ends; below zero when that has not arrived."""
        if self._unwanted:
            skipped = min(self._unwanted, len(self._buffer))
            self._unwanted -= skipped
            self._drop(skipped)
        if len(self._buffer) < self._searched:
            return -1
        end = self._buffer.find(b"\n", self._searched)
        text = (len(self._buffer) if end < 0 else end) - self._literals
        if text > self._line_bytes_max:
            self._give_up("the line is too long")
            end = self._buffer.find(b"\n")
        if end < 0:
            self._searched = len(self._buffer)
        return end

    def _give_up(self, why: str) -> None:
        """Keep the tag and the end of the current line alone."""
        if self._too_long is None:
            tag, space, _ = bytes(self._buffer[: min(64, self._line_bytes_max)]).partition(b" ")
            known = space and _ATOM.fullmatch(tag) and b"+" not in tag
            self._too_long = TooLong(tag=tag if known else b"*", why=why)
        end = self._buffer.find(b"\n", self._searched)
        keep = max(self._line, (len(self._buffer) if end < 0 else end) - _TAIL_BYTES)
        self._drop(keep)

    def _finish_too_long(self) -> TooLong:
        found = self._too_long
        assert found is not None  # noqa: S101  # the callers asked
        self._too_long = None
        return found

    def _take(self, end: int) -> bytes | TooLong:
        if self._too_long is not None:
            self._drop(end + 1)
            return self._finish_too_long()
        command = bytes(self._buffer[:end])
        self._drop(end + 1)
        return command.removesuffix(b"\r")

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._restart()


class Cursor:
    """Reads tokens from one command, left to right."""

    def __init__(self, data: bytes, *, saved: bool = True) -> None:
        self.data = data
        self.at = 0
        #: With ``saved`` a set may be ``$`` (RFC 5182 section 2.1).
        self._set = _SET_OR_SAVED if saved else _SET

    @property
    def done(self) -> bool:
        """Whether all was read."""
        return self.at >= len(self.data)

    def _match(self, pattern: re.Pattern[bytes], what: str) -> re.Match[bytes]:
        match = pattern.match(self.data, self.at)
        if match is None:
            raise SyntaxFault(f"{what} expected at {self.at}")
        self.at = match.end()
        return match

    def peek(self) -> bytes:
        """The next byte; empty at the end."""
        return self.data[self.at : self.at + 1]

    def take(self, text: bytes) -> bool:
        """Step over ``text`` if it is next."""
        if self.data.startswith(text, self.at):
            self.at += len(text)
            return True
        return False

    def take_word(self, word: bytes) -> bool:
        """Step over a keyword in any case, if it is next and whole."""
        end = self.at + len(word)
        if self.data[self.at : end].upper() == word and not _ATOM.match(self.data, end):
            self.at = end
            return True
        return False

    def need(self, text: bytes) -> None:
        """Step over ``text``, which must be next."""
        if not self.take(text):
            raise SyntaxFault(f"{text.decode()!r} expected at {self.at}")

    def space(self) -> None:
        """One space."""
        self.need(b" ")

    def end(self) -> None:
        """Nothing may follow."""
        if not self.done:
            raise SyntaxFault(f"nothing expected at {self.at}")

    def atom(self) -> bytes:
        """An atom."""
        return self._match(_ATOM, "atom")[0]

    def word(self) -> str:
        """An atom in upper case: a keyword."""
        return self.atom().decode("ascii").upper()

    def astring(self) -> bytes:
        """An atom, a quoted string or a literal."""
        return self.string() if self.peek() in {b'"', b"{"} else self._match(_ASTRING, "string")[0]

    def nstring(self) -> bytes | None:
        """NIL, a quoted string or a literal."""
        return None if self.take_word(b"NIL") else self.string()

    def list_mailbox(self) -> bytes:
        """A pattern of LIST: wildcards are allowed."""
        return self.string() if self.peek() in {b'"', b"{"} else self._match(_LIST_MAILBOX, "mailbox pattern")[0]

    def string(self) -> bytes:
        """A quoted string or a literal."""
        if self.peek() == b'"':
            return re.sub(rb"\\(.)", rb"\1", self._match(_QUOTED, "quoted string")[1])
        size = int(self._match(_LITERAL_START, "string")[1])
        value = self.data[self.at : self.at + size]
        if len(value) != size:
            raise SyntaxFault("literal cut short")
        self.at += size
        return value

    def text(self) -> str:
        """A string as text: ASCII, or UTF-8 where a client sends it all the same."""
        return self.astring().decode("utf-8", errors="surrogateescape")

    def number(self, *, largest: int = UID_MAX) -> int:
        """A number; 32 bits unless another largest is given."""
        value = int(self._match(_NUMBER, "number")[0])
        if value > largest:
            raise SyntaxFault(f"{value} is greater than {largest}")
        return value

    def sequence_set(self) -> bytes:
        """A sequence set, or ``$``, as it is written."""
        return self._match(self._set, "sequence set")[0]

    def at_set(self) -> bool:
        """Whether a sequence set is next, and a whole word of it."""
        match = self._set.match(self.data, self.at)
        return match is not None and self.data[match.end() : match.end() + 1] in {b"", b" ", b")"}

    def flags(self) -> list[str]:
        """Flags, in parentheses or bare (RFC 3501 section 6.4.6); none at all is a list too."""
        if not self.take(b"("):
            found = [self.flag()]
            while self.take(b" "):
                found.append(self.flag())
            return found
        found = []
        while not self.take(b")"):
            if found:
                self.space()
            found.append(self.flag())
        return found

    def flag(self) -> str:
        """One flag."""
        mark = "\\" if self.take(b"\\") else ""
        return mark + self.atom().decode("ascii")


def ranges(text: bytes, largest: int) -> list[tuple[Range, bool]]:
    """The intervals of a sequence set, ascending each, and whether ``*`` was in it (RFC 3501 section 9, seq-range)."""
    found = []
    for item in text.split(b","):
        ends = item.split(b":")
        values = sorted(largest if end == b"*" else int(end) for end in ends)
        if values[-1] > UID_MAX:
            raise SyntaxFault(f"{values[-1]} is greater than {UID_MAX}")
        found.append(((values[0], values[-1]), b"*" in item))
    return found


def uid_set(text: bytes, largest: int) -> UidSet:
    """A set of UIDs as it stands: it may name UIDs that don't exist. ``*`` is the largest there is."""
    return UidSet.of((max(1, low), high) for (low, high), _ in ranges(text, largest) if high)


def number_set(text: bytes, count: int) -> UidSet:
    """Message numbers; one that doesn't exist is the client's error (RFC 3501 section 9, seq-number)."""
    for (_, high), starred in ranges(text, count):
        # "6:*" names at least the last message; "1:*" is what clients say of an empty folder too.
        if high > count and not starred:
            raise SyntaxFault(f"there is no message {high}")
    return uid_set(text, count)


def quoted(text: str | bytes | None) -> bytes:
    """An nstring: NIL, a quoted string, or a literal where quoting can't carry it."""
    if text is None:
        return b"NIL"
    data = text.encode("utf-8", errors="surrogateescape") if isinstance(text, str) else text
    if len(data) > _QUOTED_BYTES_MAX or not _QUOTABLE.fullmatch(data):
        # A NUL may not stand in a literal either (RFC 3501 section 9, CHAR8).
        data = data.replace(b"\0", b"\x80")
        return b"{%d}\r\n%s" % (len(data), data)
    if b'"' in data or b"\\" in data:
        data = re.sub(rb'(["\\])', rb"\\\1", data)
    return b'"' + data + b'"'


def astring(text: str | bytes) -> bytes:
    """A name as an atom where it can be one."""
    data = text.encode() if isinstance(text, str) else text
    plain = _ATOM.fullmatch(data) and data.upper() != b"NIL"
    return data if plain else quoted(data)
