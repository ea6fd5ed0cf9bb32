"""Move messages, remove them for good, make folders: all that writes to a mailbox.

Rule 1: a UID means something under its UIDVALIDITY alone: it is compared before anything is done.
Rule 2: everything may be done twice, as a reply may be lost: what is gone already is ``gone``, and a copy that the
target holds already is not made again.
Rule 3: nothing that others have flagged as deleted is expunged.
Called by session.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Final

from email_service.errors import ImapError, UidValidityError
from email_service.imap.folder import UID_MAX, OpenFolder, open_folder
from email_service.imap.names import SPECIAL_USES
from email_service.imap.reading import UIDS_AT_ONCE
from email_service.imap.refusals import RefusedError, errors, span
from email_service.imap.replies import NOT_QUOTABLE, Value, quoted, tokens, uid_ranges, uid_set
from email_service.imap.values import Moved
from email_service.imap.wire import Reply, Wire
from email_service.signals import IMAP_FOLDER, IMAP_MESSAGES, SPAN_IMAP_CREATE, SPAN_IMAP_EXPUNGE, SPAN_IMAP_MOVE

_COPYUID: Final = re.compile(rb"\[COPYUID (\d{1,10}) ([\d:,]+) ([\d:,]+)\]", re.IGNORECASE)
_MESSAGE_ID: Final = re.compile(rb"^message-id:\s*(<[^<>\r\n]{1,500}>)", re.IGNORECASE | re.MULTILINE)
_FACTS: Final = b"(UID INTERNALDATE RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"


@dataclass(frozen=True, kw_only=True)
class Where:
    """A folder, and the UIDVALIDITY under which its UIDs are known."""

    #: Decoded, for people.
    name: str
    wire_name: bytes
    uidvalidity: int


@dataclass(frozen=True, kw_only=True)
class _Copied:
    """COPYUID: where copies went (RFC 4315 section 3)."""

    uidvalidity: int
    uids: Mapping[int, int]


def move(wire: Wire, where: Where, uids: Sequence[int], target: bytes) -> Moved:
    """MOVE (RFC 6851), or COPY and expunge."""
    if where.wire_name == target:
        raise ImapError(f"the messages are in the folder {where.name!r} already", transient=False)
    with span(SPAN_IMAP_MOVE, {IMAP_FOLDER: where.name}) as moving:
        folder = _open(wire, where)
        there = _there(folder, uids)
        copied: list[_Copied] = []
        for some in _chunks(there):
            if b"MOVE" in wire.capabilities:
                with errors("UID MOVE"):
                    copied += _copied(wire.run(b"UID MOVE", uid_set(some), quoted(target)), some)
            else:
                copied += _copy(wire, where, folder, some, target)
                folder = _open(wire, where)
                _remove(folder, some)
        moving.set_attribute(IMAP_MESSAGES, len(there))
        return _moved(uids, there, copied)


def expunge(wire: Wire, where: Where, uids: Sequence[int]) -> Moved:
    """Flag and expunge."""
    with span(SPAN_IMAP_EXPUNGE, {IMAP_FOLDER: where.name}) as expunging:
        folder = _open(wire, where)
        there = _there(folder, uids)
        for some in _chunks(there):
            _remove(folder, some)
        if there and (left := _there(folder, there)):
            raise ImapError(f"EXPUNGE: {len(left)} messages are still there", transient=True)
        expunging.set_attribute(IMAP_MESSAGES, len(there))
        return _moved(uids, there, [])


def create(wire: Wire, kind: str, wire_name: bytes) -> bytes:
    """Make a folder, with its use where that can be said (RFC 6154 section 3); the name that it got."""
    if not wire_name:
        raise ImapError("a folder needs a name", transient=False)
    with span(SPAN_IMAP_CREATE, {}), errors("CREATE"):
        prefix = _prefix(wire)
        name = wire_name if wire_name.startswith(prefix) else prefix + wire_name
        use = SPECIAL_USES.get(kind) if b"CREATE-SPECIAL-USE" in wire.capabilities else None
        if use is None or not _created(wire, name, b"(USE (" + use + b"))", is_last=False):
            _created(wire, name)
        # Other clients show what is subscribed; this one does not ask.
        with suppress(RefusedError):
            wire.run(b"SUBSCRIBE", quoted(name))
        return name


def _created(wire: Wire, name: bytes, *parameters: bytes, is_last: bool = True) -> bool:
    try:
        wire.run(b"CREATE", quoted(name), *parameters)
    except RefusedError as err:
        # Made meanwhile, or by an earlier try. Not all servers have the code of RFC 5530.
        if b"exist" not in err.text.lower():
            if is_last:
                raise
            return False
    return True


def _prefix(wire: Wire) -> bytes:
    """What the names of one's own folders begin with (RFC 2342), such as ``INBOX.``."""
    if b"NAMESPACE" not in wire.capabilities:
        return b""
    with suppress(RefusedError):
        for reply in wire.run(b"NAMESPACE"):
            if reply.kind == b"NAMESPACE":
                return _first_prefix(tokens(reply.pieces)[2:])
    return b""


def _first_prefix(values: Sequence[Value]) -> bytes:
    first: Value = values[0] if values else None
    while isinstance(first, list):
        first = first[0] if first else None
    return first or b"" if isinstance(first, bytes) else b""


def _open(wire: Wire, where: Where) -> OpenFolder:
    folder = open_folder(wire, where.name, where.wire_name, write=True)
    if folder.uidvalidity != where.uidvalidity:
        raise UidValidityError(f"{where.name!r} has UIDVALIDITY {folder.uidvalidity}, not {where.uidvalidity}")
    if folder.is_read_only:
        raise ImapError(f"the folder {where.name!r} may only be read", transient=False)
    return folder


def _there(folder: OpenFolder, uids: Sequence[int]) -> list[int]:
    """Those of the UIDs that are there, in order."""
    wanted = sorted({uid for uid in uids if 0 < uid <= UID_MAX})
    return [uid for some in _chunks(wanted) for uid in sorted({*folder.search(b"UID " + uid_set(some))} & {*some})]


def _remove(folder: OpenFolder, uids: Sequence[int]) -> None:
    """Flag messages as deleted and expunge them alone."""
    _store(folder, uids, b"+")
    if b"UIDPLUS" in folder.wire.capabilities:
        with errors("UID EXPUNGE"):
            folder.wire.run(b"UID EXPUNGE", uid_set(uids))
        return
    # EXPUNGE takes all that anybody has flagged: others' flags are off meanwhile, and if the line breaks they stay
    # off, which loses nothing.
    others = [uid for uid in folder.search(b"DELETED") if uid not in {*uids}]
    _store(folder, others, b"-")
    try:
        with errors("EXPUNGE"):
            folder.wire.run(b"EXPUNGE")
    except ImapError as err:
        if err.refused:
            _store(folder, others, b"+")
        raise
    _store(folder, others, b"+")


def _store(folder: OpenFolder, uids: Sequence[int], sign: bytes) -> None:
    for some in _chunks(uids):
        with errors("UID STORE"):
            folder.wire.run(b"UID STORE", uid_set(some), sign + rb"FLAGS.SILENT (\Deleted)")


def _copy(wire: Wire, where: Where, folder: OpenFolder, uids: Sequence[int], target: bytes) -> list[_Copied]:
    """COPY what the target does not hold yet: an earlier try may have come as far as that."""
    with errors("UID FETCH"):
        facts = {uid: items for uid, items in folder.fetch(uid_set(uids), _FACTS) if uid in {*uids}}
    there = open_folder(wire, target.decode("utf-8", "replace"), target)
    twins = {uid: twin for uid, items in facts.items() if (twin := _twin(there, items)) is not None}
    _open(wire, where)
    rest = [uid for uid in uids if uid not in twins]
    copied = [_Copied(uidvalidity=there.uidvalidity, uids=twins)] if twins else []
    if rest:
        with errors("UID COPY"):
            copied += _copied(wire.run(b"UID COPY", uid_set(rest), quoted(target)), rest)
    return copied


def _twin(folder: OpenFolder, facts: Mapping[bytes, Value]) -> int | None:
    """The UID of a message with the same Message-ID, size and date, which a COPY keeps (RFC 3501 section 6.4.7)."""
    size, date = facts.get(b"RFC822.SIZE"), facts.get(b"INTERNALDATE")
    if not isinstance(size, bytes) or not size.isdigit():
        return None
    found = _MESSAGE_ID.search(_header(facts))
    key = b"LARGER %d SMALLER %d" % (max(int(size) - 1, 0), int(size) + 1)
    if found is not None and not NOT_QUOTABLE.search(found[1]) and found[1].isascii():
        key += b" HEADER Message-ID " + quoted(found[1])
    candidates = folder.search(key)
    with errors("UID FETCH"):
        for some in _chunks(candidates):
            for uid, items in folder.fetch(uid_set(some), _FACTS):
                same = items.get(b"RFC822.SIZE") == size and items.get(b"INTERNALDATE") == date
                if same and _header(items) == _header(facts):
                    return uid
    return None


def _header(facts: Mapping[bytes, Value]) -> bytes:
    value = next((value for key, value in facts.items() if key.startswith(b"BODY[HEADER")), None)
    return value if isinstance(value, bytes) else b""


def _copied(replies: Sequence[Reply], uids: Sequence[int]) -> list[_Copied]:
    """What COPYUID says in any of the replies: with MOVE it comes before the tagged one (RFC 6851 section 4.3)."""
    found = [code for reply in replies if (code := _COPYUID.match(reply.text)) is not None]
    return [_Copied(uidvalidity=int(code[1]), uids=pairs) for code in found if (pairs := _pairs(code, uids))]


def _pairs(code: re.Match[bytes], uids: Sequence[int]) -> dict[int, int]:
    old, new = ([uid for run in _in_order(code[group]) for uid in islice(run, len(uids))] for group in (2, 3))
    return dict(zip(old, new, strict=True)) if len(old) == len(new) and {*old} <= {*uids} else {}


def _in_order(text: bytes) -> Iterator[range]:
    for part in text.split(b","):
        yield from uid_ranges(part, UID_MAX)


def _moved(uids: Sequence[int], there: Sequence[int], copied: Sequence[_Copied]) -> Moved:
    return Moved(
        done=tuple(there),
        gone=tuple(sorted({*uids} - {*there})),
        uids={old: new for some in copied for old, new in some.uids.items()},
        uidvalidity=copied[-1].uidvalidity if copied else None,
    )


def _chunks(uids: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(uids), UIDS_AT_ONCE):
        yield uids[start : start + UIDS_AT_ONCE]
