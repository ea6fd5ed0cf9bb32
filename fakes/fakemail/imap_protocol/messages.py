"""The commands that put messages in, change, copy and remove them (RFC 3501 sections 6.3.11 and 6.4).

Called by: table; selecting (``expunged``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from fakemail.folder import DELETED, SYSTEM_FLAGS, Folder, marked
from fakemail.imap_protocol.condstore import switch_on
from fakemail.imap_protocol.context import Answer, Context, Ok, Refused, Request, mailbox_name
from fakemail.imap_protocol.events import Steps, paused
from fakemail.imap_protocol.syntax import MODSEQ_MAX, Cursor, SyntaxFault
from fakemail.imap_protocol.view import View
from fakemail.mailbox import NotFoundError
from fakemail.uids import Range, UidSet, batches

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE_TIME: Final = re.compile(r"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)([0-5]\d)")
_STORE_ITEM: Final = re.compile(r"([+-]?)FLAGS(\.SILENT)?")


# APPEND ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _New:
    raw: bytes
    flags: tuple[str, ...]
    received_s: int | None
    zone_min: int


def append(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.3.11; several at once by RFC 3502, APPENDUID by RFC 4315 section 3."""
    cursor = request.cursor
    cursor.space()
    name = mailbox_name(cursor)
    new = [_new(cursor, binary=context.has("BINARY"))]
    while not cursor.done and context.has("MULTIAPPEND"):
        new.append(_new(cursor, binary=context.has("BINARY")))
    cursor.end()
    folder = _target(context, name)
    context.facts |= {"folder": folder.name, "messages": len(new), "bytes": sum(len(each.raw) for each in new)}
    uids = [
        context.mail.store(folder, each.raw, flags=each.flags, received_s=each.received_s, zone_min=each.zone_min)
        for each in new
    ]
    yield from ()
    code = f"APPENDUID {folder.uidvalidity} {UidSet.single(uids)}" if context.has("UIDPLUS") else ""
    return Ok(text="APPEND completed", code=code)


def _new(cursor: Cursor, *, binary: bool) -> _New:
    """``[flags] [date] literal``; with ``binary`` it may be a literal8 (RFC 3516 section 4.4)."""
    cursor.space()
    flags: list[str] = []
    received_s, zone_min = None, 0
    if cursor.peek() == b"(":
        flags = [system_or_keyword(flag) for flag in cursor.flags()]
        cursor.space()
    if cursor.peek() == b'"':
        received_s, zone_min = _date_time(cursor.string().decode("ascii", errors="replace"))
        cursor.space()
    if binary:
        cursor.take(b"~")
    if cursor.peek() != b"{":
        raise SyntaxFault(f"literal expected at {cursor.at}")
    raw = cursor.string()
    if not raw:
        raise Refused("a message without a byte is none")
    return _New(raw=raw, flags=tuple(flags), received_s=received_s, zone_min=zone_min)


def _target(context: Context, name: str) -> Folder:
    """The folder that messages go to; one that is missing may be made (section 6.3.11)."""
    try:
        return context.folder(name)
    except NotFoundError as err:
        raise Refused("there is no such folder", code="TRYCREATE") from err


def system_or_keyword(text: str) -> str:
    """A system flag in the spelling of RFC 3501 section 2.3.2; a keyword as it is."""
    if text.startswith("\\") and text.lower() not in SYSTEM_FLAGS:
        raise SyntaxFault("unknown system flag")
    return SYSTEM_FLAGS.get(text.lower(), text)


def _date_time(text: str) -> tuple[int, int]:
    """RFC 3501 section 9, date-time: (seconds since 1970, minutes east of UTC)."""
    match = _DATE_TIME.fullmatch(text)
    if match is None or match[2].title() not in _MONTHS:
        raise SyntaxFault("a date such as 01-Feb-2026 10:00:00 +0000 expected")
    zone_min = (int(match[8]) * 60 + int(match[9])) * (1 if match[7] == "+" else -1)
    day, year, month = int(match[1]), int(match[3]), _MONTHS.index(match[2].title()) + 1
    try:
        zone = timezone(timedelta(minutes=zone_min))
        moment = datetime(year, month, day, int(match[4]), int(match[5]), int(match[6]), tzinfo=zone)
        # Years 1 to 9999 in UTC too: else INTERNALDATE couldn't give it back.
        return int(moment.astimezone(UTC).timestamp()), zone_min
    except (ValueError, OverflowError) as err:
        raise SyntaxFault("there is no such date") from err


# STORE ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Change:
    sign: str
    silent: bool
    flags: frozenset[str]
    unchanged_since: int | None

    def of(self, before: frozenset[str], folder: Folder) -> frozenset[str]:
        """The flags afterwards."""
        given = frozenset(folder.spelling(flag) for flag in self.flags)
        return {"+": before | given, "-": before - given, "": given}[self.sign]


def store(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.6; UNCHANGEDSINCE by RFC 7162 section 3.1.3."""
    cursor, view = request.cursor, context.here
    cursor.space()
    chosen = view.named(cursor.sequence_set(), by_uid=request.by_uid)
    cursor.space()
    change = _change(context, cursor)
    cursor.end()
    if change.unchanged_since is not None:
        # Also where nothing may be stored: who asks for it can do with it (RFC 7162 section 3.1).
        yield from switch_on(context, "CONDSTORE")
    context.writable()
    context.facts["messages"] = len(chosen)
    parts = yield from paused(_applied(view, batch, change) for batch in batches(chosen))
    refused = UidSet.single(uid for part in parts for uid in part)
    yield from view.keyword_lines()
    if not change.silent or "CONDSTORE" in context.enabled:
        yield from view.flag_lines(
            chosen - refused, enabled=context.enabled, by_uid=request.by_uid, flags=not change.silent
        )
    if not refused:
        return Ok(text="STORE completed", expunges=request.by_uid)
    numbers = refused if request.by_uid else UidSet.single(view.uids.position(uid) for uid in refused)
    return Ok(text="STORE completed but for some", code=f"MODIFIED {numbers}", expunges=request.by_uid)


def _change(context: Context, cursor: Cursor) -> _Change:
    unchanged_since = None
    if cursor.take(b"("):
        if not context.has("CONDSTORE") or cursor.word() != "UNCHANGEDSINCE":
            raise SyntaxFault("the only STORE modifier is UNCHANGEDSINCE")
        cursor.space()
        unchanged_since = cursor.number(largest=MODSEQ_MAX)
        cursor.need(b")")
        cursor.space()
    match = _STORE_ITEM.fullmatch(cursor.word())
    if match is None:
        raise SyntaxFault("FLAGS, +FLAGS or -FLAGS expected, with or without .SILENT")
    cursor.space()
    flags = frozenset(system_or_keyword(flag) for flag in cursor.flags())
    return _Change(sign=match[1], silent=bool(match[2]), flags=flags, unchanged_since=unchanged_since)


def _applied(view: View, batch: list[Range], change: _Change) -> list[int]:
    """Change the flags; answers the messages whose flags were not changed, since somebody else did so meanwhile."""
    folder, refused = view.folder, []
    since = change.unchanged_since
    for low, high in batch:
        for uid in range(low, high + 1):
            if since is not None and folder.modseq(uid) > since:
                refused.append(uid)
            else:
                view.mark(uid, change.of(folder.flags(uid), folder), told=not change.silent)
    return refused


# EXPUNGE --------------------------------------------------------------------------------------------------------------


def expunge(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.3; UID EXPUNGE by RFC 4315 section 2.1."""
    cursor, view = request.cursor, context.here
    chosen = view.uids
    if request.by_uid:
        cursor.space()
        chosen = view.named(cursor.sequence_set(), by_uid=True)
    cursor.end()
    context.writable()
    gone = yield from expunged(view, chosen)
    context.facts["messages"] = len(gone)
    return Ok(text="EXPUNGE completed", highest=bool(gone))


def expunged(view: View, chosen: UidSet) -> Steps[UidSet]:
    r"""Remove those of these messages that have \Deleted; says which they were."""
    parts = yield from paused(marked(view.folder, DELETED, chosen))
    return view.folder.expunge(UidSet.single(uid for part in parts for uid in part))


# COPY and MOVE --------------------------------------------------------------------------------------------------------


def copy(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.4.7; COPYUID by RFC 4315 section 3."""
    target, chosen = _transfer(context, request)
    code = _copied(context, chosen, target)
    yield from ()
    return Ok(text="COPY completed", code=code)


def move(context: Context, request: Request) -> Answer:
    """RFC 6851 section 3.1: the COPYUID comes untagged, before the EXPUNGEs."""
    target, chosen = _transfer(context, request)
    view = context.writable()
    chosen = chosen & view.folder.uids
    code = _copied(context, chosen, target)
    if code:
        yield f"* OK [{code}] Moved\r\n".encode()
    gone = view.folder.expunge(chosen)
    return Ok(text="MOVE completed", highest=bool(gone))


def _transfer(context: Context, request: Request) -> tuple[Folder, UidSet]:
    cursor, view = request.cursor, context.here
    cursor.space()
    chosen = view.named(cursor.sequence_set(), by_uid=request.by_uid)
    cursor.space()
    name = mailbox_name(cursor)
    cursor.end()
    context.facts |= {"messages": len(chosen), "target": name}
    return _target(context, name), chosen


def _copied(context: Context, chosen: UidSet, target: Folder) -> str:
    """Copy, and name what became of what; the copies get UIDs in the order of the originals."""
    if not chosen:
        return ""
    made = target.take(context.here.folder, chosen)
    return f"COPYUID {target.uidvalidity} {chosen} {made}" if context.has("UIDPLUS") else ""
