"""Address lists of header fields, as ENVELOPE shows them (RFC 3501 section 7.4.2, RFC 5322 section 3.4). Pure.

Never raises: mail has addresses of every shape, and a client wants to see them all the same.
Called by: structure (ENVELOPE), texts (FROM, TO, CC, BCC), sorting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

#: What stands for a part that isn't there: NIL as host would begin a group.
NO_DOMAIN: Final = "MISSING_DOMAIN"
NO_MAILBOX: Final = "MISSING_MAILBOX"
#: Text is Latin-1 here, where two bytes of UTF-8 would pass for white space if it weren't for ASCII's.
_SPACE: Final = " \t\r\n\v\f"
_PIECE: Final = re.compile(r'\s+|"(?:[^"\\]|\\.)*"?|\(|[<>@,:;]|\[[^\]]*\]?|[^\s"(<>@,:;\[]+', re.DOTALL | re.ASCII)
#: ``Ann B <ann@example.com>`` or ``ann@example.com``, which is what most fields are.
_WORD: Final = r'[^\s"(),:;<>@\[\]\\]+'
_ORDINARY: Final = re.compile(rf"((?:{_WORD} +)*{_WORD})? *<({_WORD})@({_WORD})>|({_WORD})@({_WORD})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Address:
    """One address; with no host the begin of a group (mailbox is its name) or, with neither, its end."""

    name: str | None = None
    route: str | None = None
    mailbox: str | None = None
    host: str | None = None


def parse_addresses(value: str) -> list[Address]:
    """The addresses of an unfolded field, groups marked as ENVELOPE marks them."""
    if match := _ORDINARY.fullmatch(value):
        name, *ends = match.groups()
        mailbox, host = ends[:2] if ends[0] is not None else ends[2:]
        return [Address(name=name and " ".join(filter(None, name.split(" "))), mailbox=mailbox, host=host)]
    return _Parser(value).run()


class _Parser:
    def __init__(self, value: str) -> None:
        self._value, self._at = value, 0
        self._found: list[Address] = []
        self._words: list[str] = []
        self._comment: str | None = None
        self._host: str | None = None
        #: One of the words was a quoted string.
        self._quoted = False
        self._in_group = False

    def run(self) -> list[Address]:
        while (piece := self._piece()) is not None:
            if piece == ",":
                self._plain()
            elif piece == ":" and not self._in_group and self._host is None:
                self._found.append(Address(mailbox=" ".join(self._words)))
                self._words, self._quoted, self._in_group = [], False, True
            elif piece == ";":
                self._plain()
                self._end_group()
            elif piece == "<":
                self._angle()
            elif piece == "@":
                self._words = self._words or [NO_MAILBOX]
                self._host = self._domain()
            else:
                self._quoted = self._quoted or piece.startswith('"')
                self._words.append(_unquoted(piece))
        self._plain()
        if self._in_group:
            self._end_group()
        return self._found

    def _piece(self) -> str | None:
        """The next word or special; white space and comments are stepped over."""
        while match := _PIECE.match(self._value, self._at):
            self._at = match.end()
            if match[0] == "(":
                self._comment = self._read_comment()
            elif match[0][0] not in _SPACE:
                return match[0]
        return None

    def _read_comment(self) -> str:
        depth, start = 1, self._at
        while self._at < len(self._value):
            character = self._value[self._at]
            self._at += 2 if character == "\\" else 1
            depth += {"(": 1, ")": -1}.get(character, 0)
            if depth == 0:
                return self._value[start : self._at - 1].strip(_SPACE)
        return self._value[start:].strip(_SPACE)

    def _domain(self) -> str:
        parts = []
        while match := _PIECE.match(self._value, self._at):
            if match[0] in {",", ";", ">", "<", ":"}:
                break
            piece = self._piece()
            if piece is None:
                break
            if piece in {",", ";", ">", "<", ":"}:
                self._at -= 1
                break
            parts.append(piece)
        return "".join(parts)

    def _angle(self) -> None:
        """``<route:local@domain>``."""
        name, self._words, self._quoted = " ".join(self._words) or None, [], False
        route, local, host = None, "", None
        before = self._comment
        if self._value[self._at :].lstrip(_SPACE).startswith("@"):
            end = self._value.find(":", self._at)
            if end >= 0:
                route, self._at = re.sub(r"\s", "", self._value[self._at : end], flags=re.ASCII), end + 1
        while (piece := self._piece()) is not None and piece != ">":
            if piece == "@":
                host = self._domain()
            else:
                local += _unquoted(piece)
        self._comment = None
        self._found.append(
            Address(name=name or before, route=route, mailbox=local or NO_MAILBOX, host=host or NO_DOMAIN)
        )
        self._host = None

    def _plain(self) -> None:
        """An address without angles ends; its comment is its name (RFC 822's custom)."""
        if self._host is not None:
            mailbox = "".join(self._words)
            self._found.append(Address(name=self._comment, mailbox=mailbox, host=self._host or NO_DOMAIN))
        elif self._words:
            # One bare word is a local user's; anything else a name whose address was forgotten.
            bare = len(self._words) == 1 and not self._quoted
            name, mailbox = (self._comment, self._words[0]) if bare else (" ".join(self._words), NO_MAILBOX)
            self._found.append(Address(name=name, mailbox=mailbox, host=NO_DOMAIN))
        self._words, self._comment, self._host, self._quoted = [], None, None, False

    def _end_group(self) -> None:
        if self._in_group:
            self._found.append(Address())
        self._in_group = False


def _unquoted(piece: str) -> str:
    if not piece.startswith('"'):
        return piece
    return re.sub(r"\\(.)", r"\1", piece[1:].removesuffix('"') if len(piece) > 1 else "", flags=re.DOTALL)
