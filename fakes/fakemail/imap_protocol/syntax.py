"""Bytes to commands, and commands to tokens (RFC 3501 section 9). Pure: no I/O, no mailbox.

Rule 1: a command is taken only when all of it has arrived, its literals included. Rule 2: lines, literals and whole
commands have limits; what exceeds them is an error with a tag, never memory. Called by session.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LINE_BYTES_MAX: Final = 65_536
LITERAL_BYTES_MAX: Final = 64 * 1024 * 1024
NESTING_MAX: Final = 32
_LITERAL_END: Final = re.compile(rb"\{(\d{1,19})(\+?)\}\Z")
_LITERAL_START: Final = re.compile(rb"~?\{(\d{1,19})\+?\}\r?\n")
_ATOM: Final = re.compile(rb'[^\x00-\x1f\x7f-\xff(){ %*"\\\]]+')
_ASTRING: Final = re.compile(rb'[^\x00-\x1f\x7f(){ %*"\\]+')
_LIST_MAILBOX: Final = re.compile(rb'[^\x00-\x1f\x7f(){ "\\]+')
_QUOTED: Final = re.compile(rb'"((?:[^"\\\r\n\x00]|\\["\\])*)"')
_NUMBER: Final = rb"(?:[1-9]\d{0,9}|\*)"
_SET: Final = re.compile(_NUMBER + rb"(?::" + _NUMBER + rb")?(?:," + _NUMBER + rb"(?::" + _NUMBER + rb")?)*")


class SyntaxFault(Exception):  # noqa: N818  # not one for users of fakemail: it becomes a BAD
    """The command can't be understood."""


@dataclass(frozen=True, kw_only=True)
class Continue:
    """The client waits for leave to send its literal (RFC 3501 section 7.5)."""


@dataclass(frozen=True, kw_only=True)
class TooLong:
    """A limit was exceeded; the connection can't be kept in step."""

    tag: bytes
    what: str


class Framer:
    """Collects bytes until a command is whole."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        #: Where the current line begins; behind the literals that have arrived.
        self._line = 0
        self._literal_end = 0
        self._granted = False

    def feed(self, data: bytes) -> None:
        """More bytes."""
        self._buffer += data

    def line(self) -> bytes | TooLong | None:
        """The next line as it is, without its end: what follows a continuation request (AUTHENTICATE, IDLE)."""
        end = self._buffer.find(b"\n")
        if (len(self._buffer) if end < 0 else end) > LINE_BYTES_MAX:
            return self._too_long("line")
        if end < 0:
            return None
        line = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        return line

    def command(self) -> bytes | Continue | TooLong | None:
        """A whole command with its literals in it; None when more must arrive."""
        while True:
            if len(self._buffer) < self._literal_end:
                return None
            end = self._buffer.find(b"\n", self._line)
            if end < 0:
                return self._too_long("line") if len(self._buffer) - self._line > LINE_BYTES_MAX else None
            line = bytes(self._buffer[self._line : end]).rstrip(b"\r")
            if len(line) > LINE_BYTES_MAX:
                return self._too_long("line")
            literal = _LITERAL_END.search(line)
            if literal is None:
                return self._take(end)
            # All literals of a command together: it is kept until it is whole.
            if end + int(literal[1]) > LITERAL_BYTES_MAX:
                return self._too_long("literal")
            if not literal[2] and not self._granted:
                self._granted = True
                return Continue()
            self._granted = False
            self._line = self._literal_end = end + 1 + int(literal[1])

    def _take(self, end: int) -> bytes:
        command = bytes(self._buffer[:end]).rstrip(b"\r")
        del self._buffer[: end + 1]
        self._line = self._literal_end = 0
        return command

    def _too_long(self, what: str) -> TooLong:
        tag = bytes(self._buffer[:64]).split(b" ", 1)[0]
        self._buffer.clear()
        self._line = self._literal_end = 0
        return TooLong(tag=tag if _ATOM.fullmatch(tag) else b"*", what=what)


class Cursor:
    """Reads tokens from one command, left to right."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

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
        return self.atom().decode("ascii", errors="replace").upper()

    def astring(self) -> bytes:
        """An atom, a quoted string or a literal."""
        return self.string() if self.peek() in {b'"', b"{", b"~"} else self._match(_ASTRING, "string")[0]

    def list_mailbox(self) -> bytes:
        """A pattern of LIST: wildcards are allowed."""
        return self.string() if self.peek() in {b'"', b"{"} else self._match(_LIST_MAILBOX, "mailbox pattern")[0]

    def string(self) -> bytes:
        """A quoted string or a literal."""
        if self.peek() == b'"':
            return re.sub(rb"\\(.)", rb"\1", self._match(_QUOTED, "quoted string")[1])
        size = int(self._match(_LITERAL_START, "literal")[1])
        value = self.data[self.at : self.at + size]
        if len(value) != size:
            raise SyntaxFault("literal cut short")
        self.at += size
        return value

    def text(self) -> str:
        """A string as text: ASCII, or UTF-8 where a client sends it all the same."""
        return self.astring().decode("utf-8", errors="surrogateescape")

    def number(self) -> int:
        """A number of 32 bits."""
        match = self._match(re.compile(rb"\d{1,10}"), "number")
        return int(match[0])

    def sequence_set(self) -> bytes:
        """A sequence set, as it is written."""
        return self._match(_SET, "sequence set")[0]

    def at_set(self) -> bool:
        """Whether a sequence set is next, and a whole word of it."""
        match = _SET.match(self.data, self.at)
        return match is not None and self.data[match.end() : match.end() + 1] in {b"", b" ", b")"}

    def flags(self) -> list[str]:
        """Flags, in parentheses or bare (RFC 3501 section 6.4.6)."""
        listed = self.take(b"(")
        found: list[str] = []
        while not self.done and self.peek() != b")":
            mark = "\\" if self.take(b"\\") else ""
            found.append(mark + self.atom().decode("ascii", errors="replace"))
            self.take(b" ")
        if listed:
            self.need(b")")
        return found


def numbers(text: bytes, count: int) -> list[int]:
    """Message sequence numbers; one that doesn't exist is the client's error (RFC 3501 section 9, seq-number)."""
    highest = max((int(number) for number in re.findall(rb"\d+", text)), default=0)
    # "1:*" is what clients say for everything, also of an empty folder.
    if highest > count and not (count == 0 and text == b"1:*"):
        raise SyntaxFault(f"there is no message {highest}")
    return chosen(range(1, count + 1), text)


def ranges(text: bytes, largest: int) -> list[tuple[int, int]]:
    """The ranges of a sequence set, ``*`` resolved, each in ascending order (RFC 3501 section 9, seq-range)."""

    def value(end: bytes) -> int:
        return largest if end == b"*" else int(end)

    pairs = []
    for item in text.split(b","):
        first, _, last = item.partition(b":")
        low, high = sorted((value(first), value(last or first)))
        pairs.append((low, high))
    return pairs


def chosen(numbers: Sequence[int], text: bytes) -> list[int]:
    """Those of the ascending ``numbers`` that a sequence set names."""
    wanted = ranges(text, numbers[-1] if numbers else 0)
    return [n for n in numbers if any(low <= n <= high for low, high in wanted)]


def quoted(text: str | bytes | None) -> bytes:
    """An nstring: NIL, a quoted string, or a literal where quoting can't carry it."""
    if text is None:
        return b"NIL"
    data = text.encode("utf-8", errors="surrogateescape") if isinstance(text, str) else text
    if len(data) > 1000 or re.search(rb"[^\x20-\x7e]", data):  # noqa: PLR2004  # longer ones only make lines long
        return b"{%d}\r\n%s" % (len(data), data)
    return b'"' + re.sub(rb'(["\\])', rb"\\\1", data) + b'"'
