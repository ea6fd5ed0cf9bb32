"""The commands that open and leave a folder, and wait in it: SELECT, EXAMINE, CLOSE, UNSELECT, IDLE.

Called by: table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from fakemail.folder import SEEN, Folder
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import SELECTED, Answer, Context, Ok, Request, codes, decoded_name
from fakemail.imap_protocol.events import Line, Pause, Steps
from fakemail.imap_protocol.faulty import spoilt
from fakemail.imap_protocol.messages import expunged
from fakemail.imap_protocol.syntax import MODSEQ_MAX, Cursor, SyntaxFault, uid_set
from fakemail.imap_protocol.view import View
from fakemail.uids import UidSet, batches


@dataclass(frozen=True, kw_only=True)
class _Resume:
    """What the client knows of the folder (RFC 7162 section 3.2.5)."""

    uidvalidity: int
    modseq: int
    known: UidSet | None = None


def select(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.1."""
    return (yield from _open(context, request, read_only=False))


def examine(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.2."""
    return (yield from _open(context, request, read_only=True))


def _open(context: Context, request: Request, *, read_only: bool) -> Answer:
    cursor = request.cursor
    cursor.space()
    name = cursor.text()
    condstore, resume = _parameters(context, cursor)
    cursor.end()
    if context.view is not None:
        # What was selected is left even if the new one can't be opened (section 6.3.1).
        yield from context.left()
    name = decoded_name(name)
    action = context.decide("imap.select", folder=name)
    if action is not None and action.mailbox == "reset-uidvalidity":
        context.mail.reset_uidvalidity(context.me, context.folder(name).name)
    folder = context.folder(name)
    if condstore:
        yield from switch_on(context, "CONDSTORE")
    unseen = yield from _first_unseen(folder)
    context.view = view = View(folder, read_only=read_only, wake=context.wake)
    context.state = SELECTED
    yield from _greeting(context, view, unseen=unseen, omit=action.omit if action is not None else ())
    if resume is not None and resume.uidvalidity == folder.uidvalidity:
        yield from _resumed(context, view, resume)
    word = "EXAMINE" if read_only else "SELECT"
    return Ok(text=f"{word} completed", code="READ-ONLY" if read_only else "READ-WRITE")


def _parameters(context: Context, cursor: Cursor) -> tuple[bool, _Resume | None]:
    """``(CONDSTORE)`` and ``(QRESYNC (...))`` (RFC 7162 sections 3.1.8 and 3.2.5)."""
    condstore, resume = False, None
    if cursor.done:
        return condstore, resume
    cursor.space()
    cursor.need(b"(")
    while True:
        word = cursor.word()
        if word == "CONDSTORE" and context.has("CONDSTORE"):
            condstore = True
        elif word == "QRESYNC" and context.has("QRESYNC"):
            if "QRESYNC" not in context.enabled:
                raise SyntaxFault("QRESYNC must be enabled first")
            cursor.space()
            resume = _resume(cursor)
        else:
            raise SyntaxFault(f"unknown SELECT parameter {word}")
        if cursor.take(b")"):
            return condstore, resume
        cursor.space()


def _resume(cursor: Cursor) -> _Resume:
    cursor.need(b"(")
    uidvalidity = cursor.number()
    cursor.space()
    modseq = cursor.number(largest=MODSEQ_MAX)
    known = None
    if cursor.take(b" ") and cursor.peek() != b"(":
        known = _without_star(cursor)
        more = cursor.take(b" ")
    else:
        more = cursor.peek() == b"("
    if more:
        # Numbers with their UIDs help a server that forgets what was expunged; this one doesn't.
        cursor.need(b"(")
        _without_star(cursor)
        cursor.space()
        _without_star(cursor)
        cursor.need(b")")
    cursor.need(b")")
    return _Resume(uidvalidity=uidvalidity, modseq=modseq, known=known)


def _without_star(cursor: Cursor) -> UidSet:
    text = cursor.sequence_set()
    if b"*" in text or b"$" in text:
        raise SyntaxFault("a set of numbers alone expected")
    return uid_set(text, 0)


def _greeting(context: Context, view: View, *, unseen: int, omit: tuple[str, ...]) -> Iterator[bytes]:
    """What SELECT says of a folder (RFC 3501 section 6.3.1, RFC 7162 section 3.1.2.1)."""
    folder = view.folder
    yield view.flags_line() + (view.permanent_flags_line() if "PERMANENTFLAGS" not in omit else b"")
    yield b"* %d EXISTS\r\n* %d RECENT\r\n" % (len(view.uids), len(view.recent))
    told = [("UIDVALIDITY", folder.uidvalidity, "UIDs are valid"), ("UIDNEXT", folder.uidnext, "The next UID")]
    if unseen:
        told.insert(0, ("UNSEEN", view.uids.position(unseen), "The first unseen message"))
    if context.has("CONDSTORE"):
        told.append(("HIGHESTMODSEQ", folder.highestmodseq, "The highest mod-sequence"))
    yield codes([(f"{name} {value}", text) for name, value, text in told if name not in omit])


def _first_unseen(folder: Folder) -> Steps[int]:
    """The first message that is not seen; 0 if all are."""
    uids, found = folder.uids, 0
    for batch in batches(uids, length=16_384):
        block = ((uid, each) for low, high in batch for uid, each in enumerate(folder.flags_block(low, high), low))
        found = next((uid for uid, flags in block if SEEN not in flags), 0)
        if found:
            break
        if batch[-1][1] < uids.largest:
            yield Pause()
    # Somebody may have expunged it meanwhile.
    return found if not found or found in folder.uids else (yield from _first_unseen(folder))


def _resumed(context: Context, view: View, resume: _Resume) -> Iterator[bytes]:
    """What has changed since the client's last visit (RFC 7162 section 3.2.5.1)."""
    known = resume.known if resume.known is not None else UidSet.of([(1, max(1, view.folder.uidnext - 1))])
    gone = (view.folder.vanished_since(resume.modseq) & known) - view.uids
    if gone:
        yield f"* VANISHED (EARLIER) {gone}\r\n".encode()
    yield from view.flag_lines(view.folder.changed_since(resume.modseq) & known & view.uids, enabled=context.enabled)


def close(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.2: expunges without saying so."""
    request.cursor.end()
    view = context.here
    if not view.read_only:
        yield from expunged(view, view.uids)
    context.leave()
    return Ok(text="CLOSE completed")


def unselect(context: Context, request: Request) -> Answer:
    """RFC 3691 section 2."""
    request.cursor.end()
    context.leave()
    yield from ()
    return Ok(text="UNSELECT completed")


def idle(context: Context, request: Request) -> Answer:
    """RFC 2177 section 3; without a folder too: there is just no news then."""
    request.cursor.end()
    action = context.decide("imap.idle", folder=context.folder_name)
    yield from spoilt(action, request.tag)
    yield b"+ idling\r\n"
    line = yield Line(idle=True)
    if line.upper() != b"DONE":
        raise SyntaxFault("DONE expected")
    return Ok(text="IDLE completed")
