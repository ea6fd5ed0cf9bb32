r"""LIST and LSUB (RFC 3501 sections 6.3.8 and 6.3.9, RFC 3348, RFC 5258, RFC 5819, RFC 6154).

Owns: which names a pattern matches, and what is told of each. Called by: table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from fakemail.imap_protocol import mutf7
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Request
from fakemail.imap_protocol.names import status_items, status_line, wire
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault
from fakemail.mailbox import canonical

#: Selection option -> whether it is a base option, which RECURSIVEMATCH needs and CHILDINFO names (RFC 5258 section 3).
_SELECTIONS: Final = {"SUBSCRIBED": True, "REMOTE": False, "RECURSIVEMATCH": False, "SPECIAL-USE": True}
_RETURNS: Final = ("SUBSCRIBED", "CHILDREN", "SPECIAL-USE", "STATUS")
#: Option -> the capability that it needs beside LIST-EXTENDED.
_NEEDS: Final = {"SPECIAL-USE": "SPECIAL-USE", "STATUS": "LIST-STATUS"}


@dataclass(kw_only=True)
class _Asked:
    """The arguments of a LIST."""

    selections: list[str] = field(default_factory=list)
    returns: list[str] = field(default_factory=list)
    #: For STATUS among the above (RFC 5819 section 2).
    items: list[str] = field(default_factory=list)
    reference: str = ""
    patterns: list[str] = field(default_factory=list)
    #: Any of what RFC 5258 section 3 adds was used.
    extended: bool = False


def list_(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.8; the extended forms by RFC 5258, RFC 6154 and RFC 5819."""
    asked = _asked(context, request.cursor)
    request.cursor.end()
    if asked.patterns == [""] and not asked.extended:
        root = asked.reference[: asked.reference.rfind("/") + 1]
        yield b'* LIST (\\Noselect) "/" ' + (wire(root) if root else b'""') + b"\r\n"
        return Ok(text="LIST completed")
    if "HIGHESTMODSEQ" in asked.items:
        yield from switch_on(context, "CONDSTORE")
    for name, line in _Listing(context, asked).lines():
        yield line
        if asked.items and name in context.me.folders:
            yield from status_line(context, context.me.folders[name], asked.items)
    return Ok(text="LIST completed")


def _asked(context: Context, cursor: Cursor) -> _Asked:
    asked, can_more = _Asked(), context.has("LIST-EXTENDED")
    cursor.space()
    if can_more and cursor.take(b"("):
        asked.extended = True
        _selections(context, cursor, asked)
        cursor.space()
    asked.reference = _pattern(cursor.astring())
    cursor.space()
    if can_more and cursor.take(b"("):
        asked.extended = True
        asked.patterns.append(_pattern(cursor.list_mailbox()))
        while not cursor.take(b")"):
            cursor.space()
            asked.patterns.append(_pattern(cursor.list_mailbox()))
    else:
        asked.patterns.append(_pattern(cursor.list_mailbox()))
    if can_more and cursor.take(b" "):
        asked.extended = True
        _returns(context, cursor, asked)
    return asked


def _selections(context: Context, cursor: Cursor, asked: _Asked) -> None:
    """Up to the closing parenthesis (RFC 5258 section 3.1)."""
    while not cursor.take(b")"):
        if asked.selections:
            cursor.space()
        word = cursor.word()
        if word not in _SELECTIONS or not context.has(_NEEDS.get(word, "")):
            raise SyntaxFault(f"unknown selection option {word}")
        asked.selections.append(word)
    if "RECURSIVEMATCH" in asked.selections and not any(_SELECTIONS[word] for word in asked.selections):
        raise SyntaxFault("RECURSIVEMATCH needs another selection option")


def _returns(context: Context, cursor: Cursor, asked: _Asked) -> None:
    """``RETURN (options)`` (RFC 5258 section 3.2)."""
    if not cursor.take_word(b"RETURN"):
        raise SyntaxFault("RETURN expected")
    cursor.space()
    cursor.need(b"(")
    while not cursor.take(b")"):
        if asked.returns:
            cursor.space()
        word = cursor.word()
        if word not in _RETURNS or not context.has(_NEEDS.get(word, "")):
            raise SyntaxFault(f"unknown return option {word}")
        asked.returns.append(word)
        if word == "STATUS":
            cursor.space()
            asked.items = status_items(context, cursor)


def _pattern(data: bytes) -> str:
    text = data.decode("utf-8", errors="surrogateescape")
    try:
        return mutf7.decode(text)
    except ValueError:
        # What can't be a name matches none.
        return text


class _Listing:
    """The lines of one LIST (RFC 5258 section 3)."""

    def __init__(self, context: Context, asked: _Asked) -> None:
        self._me, self._context, self._asked = context.me, context, asked
        self._matchers = [_matcher(asked.reference + pattern) for pattern in asked.patterns]
        self._existing = frozenset(self._me.names)
        self._parents = {above for name in self._existing for above in _above(name)}

    def _matches(self, name: str) -> bool:
        return any(matches(name) for matches in self._matchers)

    def _selected(self, name: str) -> bool:
        """Whether a name fulfils the selection options."""
        selections = self._asked.selections
        if "SUBSCRIBED" in selections and name not in self._me.subscribed:
            return False
        return "SPECIAL-USE" not in selections or name in self._me.uses

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """(name, line) in order."""
        candidates = self._existing
        if "SUBSCRIBED" in self._asked.selections:
            candidates = candidates | self._me.subscribed
        selected = {name for name in candidates if self._selected(name)}
        shown = {name for name in selected if self._matches(name)}
        parents = self._matching_parents(selected - shown) if "RECURSIVEMATCH" in self._asked.selections else set()
        for name in sorted(shown | parents):
            yield name, self._line(name, child_info=name in parents)

    def _matching_parents(self, hidden: Iterable[str]) -> set[str]:
        """Names that match and have a selected name below them which the patterns don't show (RFC 5258 section 3.5)."""
        return {above for name in hidden for above in _above(name) if self._matches(above)}

    def _line(self, name: str, *, child_info: bool) -> bytes:
        asked, flags = self._asked, []
        if name not in self._existing:
            flags.append("\\NonExistent")
        elif name in self._me.placeholders:
            flags.append("\\Noselect")
        if self._context.has("CHILDREN") or "CHILDREN" in asked.returns:
            flags.append("\\HasChildren" if name in self._parents else "\\HasNoChildren")
        if "SUBSCRIBED" in asked.selections + asked.returns and name in self._me.subscribed:
            flags.append("\\Subscribed")
        if name in self._me.uses and self._context.has("SPECIAL-USE"):
            flags.append(self._me.uses[name])
        line = f'* LIST ({" ".join(flags)}) "/" '.encode() + wire(name)
        if child_info:
            told = " ".join(f'"{word}"' for word in dict.fromkeys(asked.selections) if _SELECTIONS[word])
            line += f' ("CHILDINFO" ({told}))'.encode()
        return line + b"\r\n"


def lsub(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.9: with ``%`` a name above a subscribed one is told too, as not selectable."""
    cursor = request.cursor
    cursor.space()
    reference = _pattern(cursor.astring())
    cursor.space()
    pattern = reference + _pattern(cursor.list_mailbox())
    cursor.end()
    matches, subscribed = _matcher(pattern), context.me.subscribed
    names = {name for name in subscribed if matches(name)}
    if pattern.endswith("%"):
        names |= {above for name in subscribed for above in _above(name) if matches(above)}
    for name in sorted(names):
        flag = b"" if name in subscribed else b"\\Noselect"
        yield b'* LSUB (%b) "/" %b\r\n' % (flag, wire(name))
    return Ok(text="LSUB completed")


def _above(name: str) -> Iterator[str]:
    while "/" in name:
        name = name.rpartition("/")[0]
        yield name


def _matcher(pattern: str) -> Callable[[str], bool]:
    """``*`` is anything, ``%`` anything within one level; linear, since backtracking could take for ever."""
    pattern = canonical(pattern)

    def matches(name: str) -> bool:
        # The positions in the pattern that the name read so far can have led to.
        places = _skipping(pattern, {0})
        for character in name:
            following = set()
            for at in places:
                if at == len(pattern):
                    continue
                wild = pattern[at]
                if wild == "*" or (wild == "%" and character != "/"):
                    following.add(at)
                elif wild == character:
                    following.add(at + 1)
            places = _skipping(pattern, following)
        return len(pattern) in places

    return matches


def _skipping(pattern: str, places: set[int]) -> set[int]:
    """With every wildcard that may stand for nothing stepped over."""
    found, todo = set(places), list(places)
    while todo:
        at = todo.pop()
        if at < len(pattern) and pattern[at] in "*%" and at + 1 not in found:
            found.add(at + 1)
            todo.append(at + 1)
    return found
