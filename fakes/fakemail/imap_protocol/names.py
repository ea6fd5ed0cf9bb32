"""The commands on folder names: CREATE to UNSUBSCRIBE, STATUS, NAMESPACE (RFC 3501 section 6.3 and its extensions).

Owns: what each does to the tree of names, and what STATUS can tell. Never does: LIST (listing).
Called by: table, listing (``status_items``, ``status_line``, ``wire``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fakemail.folder import sizes, unseen
from fakemail.imap_protocol import mutf7
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Refused, Request, mailbox_name
from fakemail.imap_protocol.events import Event, Steps, paused
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault, astring
from fakemail.mailbox import SPECIAL_USES, ConflictError, Folder, canonical
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
    if context.view is not None and context.view.folder is context.me.folders.get(canonical(name)):
        yield from context.left()
    context.mail.delete(context.me, name)
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
    """RFC 3501 section 6.3.6: of a name that is there, or was there when it was subscribed."""
    request.cursor.space()
    name = canonical(mailbox_name(request.cursor))
    request.cursor.end()
    if name not in context.me.placeholders | context.me.subscribed:
        context.folder(name)
    context.me.subscribed.add(name)
    yield from ()
    return Ok(text="SUBSCRIBE completed")


def unsubscribe(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.7: of a name that is gone too."""
    request.cursor.space()
    name = mailbox_name(request.cursor)
    request.cursor.end()
    context.me.subscribed.discard(canonical(name))
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
    return sum((yield from paused(parts)))


def _at_once(value: Callable[[Folder], int]) -> Callable[[Context, Folder], Steps[int]]:
    def steps(_context: Context, folder: Folder) -> Steps[int]:
        yield from ()
        return value(folder)

    return steps


def _recent(context: Context, folder: Folder) -> Steps[int]:
    """Those of which nobody was told, and of the selected folder those that are this client's."""
    yield from ()
    recent = folder.uids.between(folder.recent_from, UID_MAX)
    if context.view is not None and context.view.folder is folder:
        recent = (recent | context.view.recent) & folder.uids
    return len(recent)


#: Item -> its value, in steps; and the capability that it belongs to.
_STATUS: Final[dict[str, tuple[Callable[[Context, Folder], Steps[int]], str | None]]] = {
    "MESSAGES": (_at_once(lambda folder: len(folder.uids)), None),
    "RECENT": (_recent, None),
    "UIDNEXT": (_at_once(lambda folder: folder.uidnext), None),
    "UIDVALIDITY": (_at_once(lambda folder: folder.uidvalidity), None),
    "UNSEEN": (lambda _, folder: _added(unseen(folder)), None),
    "SIZE": (lambda _, folder: _added(sizes(folder)), "STATUS=SIZE"),
    "HIGHESTMODSEQ": (_at_once(lambda folder: folder.highestmodseq), "CONDSTORE"),
}


def status(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.10; SIZE by RFC 8438, HIGHESTMODSEQ by RFC 7162 section 3.1.7."""
    cursor = request.cursor
    cursor.space()
    name = mailbox_name(cursor)
    cursor.space()
    items = status_items(context, cursor)
    cursor.end()
    folder = context.folder(name)
    if "HIGHESTMODSEQ" in items:
        yield from switch_on(context, "CONDSTORE")
    yield from status_line(context, folder, items)
    return Ok(text="STATUS completed")


def status_items(context: Context, cursor: Cursor) -> list[str]:
    """What STATUS, or LIST for it, asks for (RFC 3501 section 9, status-att)."""
    cursor.need(b"(")
    items = [cursor.word()]
    while not cursor.take(b")"):
        cursor.space()
        items.append(cursor.word())
    for item in items:
        if item not in _STATUS or not context.has(_STATUS[item][1] or ""):
            raise SyntaxFault(f"unknown STATUS item {item}")
    return items


def status_line(context: Context, folder: Folder, items: Iterable[str]) -> Iterator[Event]:
    """One STATUS response (RFC 3501 section 7.2.4)."""
    words = []
    for item in dict.fromkeys(items):
        value = yield from _STATUS[item][0](context, folder)
        words.append(f"{item} {value}")
    yield b"* STATUS " + wire(folder.name) + f" ({' '.join(words)})\r\n".encode()


def wire(name: str) -> bytes:
    """A folder's name as an astring of the wire."""
    return astring(mutf7.encode(name))
