"""The commands on folder names: CREATE to LSUB, STATUS, NAMESPACE (RFC 3501 section 6.3 and its extensions).

Called by: table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fakemail.folder import sizes, unseen
from fakemail.imap_protocol import mutf7
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Refused, Request, mailbox_name
from fakemail.imap_protocol.events import Event, Pause, Steps
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault, astring
from fakemail.mailbox import SPECIAL_USES, ConflictError, Folder
from fakemail.uids import UID_MAX


def create(context: Context, request: Request) -> Answer:
    r"""RFC 3501 section 6.3.3; ``(USE (\Sent))`` by RFC 6154 section 3."""
    cursor = request.cursor
    cursor.space()
    name = mailbox_name(cursor)
    use = _use(context, cursor)
    cursor.end()
    try:
        context.mail.create(context.me, name, use=use)
    except ConflictError as err:
        raise Refused(str(err), code="ALREADYEXISTS") from err
    yield from ()
    return Ok(text="CREATE completed")


def _use(context: Context, cursor: Cursor) -> str | None:
    if cursor.done or not context.has("CREATE-SPECIAL-USE"):
        return None
    cursor.space()
    cursor.need(b"(")
    if cursor.word() != "USE":
        raise SyntaxFault("the only parameter is USE")
    cursor.space()
    flags = cursor.flags()
    cursor.need(b")")
    known = {use.lower(): use for use in SPECIAL_USES}
    if len(flags) != 1 or flags[0].lower() not in known:
        raise Refused("one known special use expected", code="USEATTR")
    return known[flags[0].lower()]


def delete(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.4; whoever has the folder selected here lets go of it first."""
    request.cursor.space()
    name = mailbox_name(request.cursor)
    request.cursor.end()
    if context.view is not None and context.view.folder is context.me.folders.get(name):
        context.leave()
        yield b"* OK [CLOSED] The folder is not selected any more\r\n"
    context.mail.delete(context.me, name)
    yield from ()
    return Ok(text="DELETE completed")


def rename(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.5."""
    cursor = request.cursor
    cursor.space()
    old = mailbox_name(cursor)
    cursor.space()
    new = mailbox_name(cursor)
    cursor.end()
    try:
        context.mail.rename(context.me, old, new)
    except ConflictError as err:
        raise Refused(str(err), code="ALREADYEXISTS") from err
    yield from ()
    return Ok(text="RENAME completed")


def subscribe(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.6."""
    request.cursor.space()
    folder = context.folder(mailbox_name(request.cursor))
    request.cursor.end()
    context.me.subscribed.add(folder.name)
    yield from ()
    return Ok(text="SUBSCRIBE completed")


def unsubscribe(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.7: of a name that is gone too."""
    request.cursor.space()
    name = mailbox_name(request.cursor)
    request.cursor.end()
    context.me.subscribed.discard("INBOX" if name.upper() == "INBOX" else name)
    yield from ()
    return Ok(text="UNSUBSCRIBE completed")


def namespace(context: Context, request: Request) -> Answer:
    """RFC 2342 section 5: one personal namespace without a prefix."""
    del context
    request.cursor.end()
    yield b'* NAMESPACE (("" "/")) NIL NIL\r\n'
    return Ok(text="NAMESPACE completed")


# STATUS ---------------------------------------------------------------------------------------------------------------


def _added(parts: Iterator[int]) -> Steps[int]:
    total = 0
    for part in parts:
        total += part
        yield Pause()
    return total


def _at_once(value: Callable[[Folder], int]) -> Callable[[Folder], Steps[int]]:
    def steps(folder: Folder) -> Steps[int]:
        yield from ()
        return value(folder)

    return steps


#: Item -> its value, in steps; and the capability that it belongs to.
_STATUS: Final[dict[str, tuple[Callable[[Folder], Steps[int]], str | None]]] = {
    "MESSAGES": (_at_once(lambda folder: len(folder.uids)), None),
    "RECENT": (_at_once(lambda folder: len(folder.uids.between(folder.recent_from, UID_MAX))), None),
    "UIDNEXT": (_at_once(lambda folder: folder.uidnext), None),
    "UIDVALIDITY": (_at_once(lambda folder: folder.uidvalidity), None),
    "UNSEEN": (lambda folder: _added(unseen(folder)), None),
    "SIZE": (lambda folder: _added(sizes(folder)), "STATUS=SIZE"),
    "HIGHESTMODSEQ": (_at_once(lambda folder: folder.highestmodseq), "CONDSTORE"),
}


def status(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.10; SIZE by RFC 8438, HIGHESTMODSEQ by RFC 7162 section 3.1.7."""
    cursor = request.cursor
    cursor.space()
    name = mailbox_name(cursor)
    cursor.space()
    items = _status_items(context, cursor)
    cursor.end()
    folder = context.folder(name)
    if "HIGHESTMODSEQ" in items:
        yield from switch_on(context, "CONDSTORE")
    yield from _status_line(folder, items)
    return Ok(text="STATUS completed")


def _status_items(context: Context, cursor: Cursor) -> list[str]:
    cursor.need(b"(")
    items = [cursor.word()]
    while not cursor.take(b")"):
        cursor.space()
        items.append(cursor.word())
    for item in items:
        if item not in _STATUS or not context.has(_STATUS[item][1] or ""):
            raise SyntaxFault(f"unknown STATUS item {item}")
    return items


def _status_line(folder: Folder, items: Iterable[str]) -> Iterator[Event]:
    words = []
    for item in dict.fromkeys(items):
        value = yield from _STATUS[item][0](folder)
        words.append(f"{item} {value}")
    yield b"* STATUS " + wire(folder.name) + f" ({' '.join(words)})\r\n".encode()


def wire(name: str) -> bytes:
    """A folder's name as an astring of the wire."""
    return astring(mutf7.encode(name))


# LIST and LSUB --------------------------------------------------------------------------------------------------------

#: Option -> the capability that it belongs to.
_SELECTIONS: Final = {
    **dict.fromkeys(("SUBSCRIBED", "REMOTE", "RECURSIVEMATCH"), "LIST-EXTENDED"),
    "SPECIAL-USE": "SPECIAL-USE",
}
_RETURNS: Final = {
    **dict.fromkeys(("SUBSCRIBED", "CHILDREN"), "LIST-EXTENDED"),
    "SPECIAL-USE": "SPECIAL-USE",
    "STATUS": "LIST-STATUS",
}


def list_(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.8; the extended forms by RFC 5258, RFC 6154 and RFC 5819."""
    cursor = request.cursor
    cursor.space()
    extended = cursor.peek() == b"("
    selections = _selections(context, cursor) if extended else set()
    reference = _pattern(cursor.astring())
    cursor.space()
    patterns, several = _patterns(cursor)
    extended = extended or several
    returns, items = _returns(context, cursor)
    cursor.end()
    if patterns == [""] and not extended:
        root = reference[: reference.rfind("/") + 1]
        yield b'* LIST (\\Noselect) "/" ' + (wire(root) if root else b'""') + b"\r\n"
        return Ok(text="LIST completed")
    matches = [_matcher(reference + pattern) for pattern in patterns]
    lines = _Listing(context, selections, returns, lambda name: any(match(name) for match in matches))
    for name, line in lines.lines():
        yield line
        if items and name in context.me.folders:
            yield from _status_line(context.me.folders[name], items)
    return Ok(text="LIST completed")


def _selections(context: Context, cursor: Cursor) -> set[str]:
    cursor.need(b"(")
    found: set[str] = set()
    while not cursor.take(b")"):
        if found:
            cursor.space()
        word = cursor.word()
        if word not in _SELECTIONS or not context.has(_SELECTIONS[word]):
            raise SyntaxFault(f"unknown selection option {word}")
        found.add(word)
    if "RECURSIVEMATCH" in found and not found - {"RECURSIVEMATCH", "REMOTE"}:
        raise SyntaxFault("RECURSIVEMATCH needs another selection option")
    cursor.space()
    return found


def _patterns(cursor: Cursor) -> tuple[list[str], bool]:
    if not cursor.take(b"("):
        return [_pattern(cursor.list_mailbox())], False
    found = [_pattern(cursor.list_mailbox())]
    while not cursor.take(b")"):
        cursor.space()
        found.append(_pattern(cursor.list_mailbox()))
    return found, True


def _pattern(data: bytes) -> str:
    text = data.decode("utf-8", errors="surrogateescape")
    try:
        return mutf7.decode(text)
    except ValueError:
        # What can't be a name matches none.
        return text


def _returns(context: Context, cursor: Cursor) -> tuple[set[str], list[str]]:
    found: set[str] = set()
    items: list[str] = []
    if cursor.done:
        return found, items
    cursor.space()
    if not cursor.take_word(b"RETURN") or not (context.has("LIST-EXTENDED") or context.has("SPECIAL-USE")):
        raise SyntaxFault("RETURN expected")
    cursor.space()
    cursor.need(b"(")
    while not cursor.take(b")"):
        if found:
            cursor.space()
        word = cursor.word()
        if word not in _RETURNS or not context.has(_RETURNS[word]):
            raise SyntaxFault(f"unknown return option {word}")
        found.add(word)
        if word == "STATUS":
            cursor.space()
            items = _status_items(context, cursor)
    return found, items


class _Listing:
    """The lines of one LIST (RFC 5258 section 3)."""

    def __init__(
        self, context: Context, selections: set[str], returns: set[str], matches: Callable[[str], bool]
    ) -> None:
        self._me, self._context = context.me, context
        self._selections, self._returns, self._matches = selections, returns, matches
        self._names = self._me.names
        self._existing = frozenset(self._names)

    def _selected(self, name: str) -> bool:
        """Whether a name fulfils the selection options."""
        if "SUBSCRIBED" in self._selections and name not in self._me.subscribed:
            return False
        return "SPECIAL-USE" not in self._selections or name in self._me.uses

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """(name, line) in order."""
        candidates = self._existing
        if "SUBSCRIBED" in self._selections:
            candidates = candidates | self._me.subscribed
        shown = {name for name in candidates if self._selected(name) and self._matches(name)}
        parents = self._matching_parents(candidates, shown) if "RECURSIVEMATCH" in self._selections else set()
        for name in sorted(shown | parents):
            yield name, self._line(name, child_info=name in parents)

    def _matching_parents(self, candidates: Iterable[str], shown: set[str]) -> set[str]:
        """Names that match and have a selected name below them which the patterns don't show (section 3.5)."""
        hidden = [name for name in candidates if self._selected(name) and name not in shown]
        parents = {above for name in hidden for above in _above(name)}
        return {name for name in parents if self._matches(name)}

    def _line(self, name: str, *, child_info: bool) -> bytes:
        flags = []
        if name not in self._existing:
            flags.append("\\NonExistent")
        elif name in self._me.placeholders:
            flags.append("\\Noselect")
        if self._context.has("CHILDREN") or "CHILDREN" in self._returns:
            flags.append("\\HasChildren" if self._me.below(name) else "\\HasNoChildren")
        if {"SUBSCRIBED"} & (self._selections | self._returns) and name in self._me.subscribed:
            flags.append("\\Subscribed")
        if name in self._me.uses and self._context.has("SPECIAL-USE"):
            flags.append(self._me.uses[name])
        line = f'* LIST ({" ".join(flags)}) "/" '.encode() + wire(name)
        told = child_info and "SUBSCRIBED" in self._selections
        return line + (b' ("CHILDINFO" ("SUBSCRIBED"))' if told else b"") + b"\r\n"


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
    head, slash, rest = pattern.partition("/")
    pattern = f"INBOX{slash}{rest}" if head.upper() == "INBOX" else pattern

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
