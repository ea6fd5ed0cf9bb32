"""What has changed in a folder since a token: by QRESYNC, by CONDSTORE, or by comparing with our rows.

Rule 1: the token never passes a UID that was not handed out, nor a change of flags: its modification sequence is the
folder's from before the flags were read, so what changes meanwhile is told again next time.
Rule 2: a message that comes in while a folder is read has a UID beyond the search, and is new next time; a message
that goes is passed over, and the next difference tells it.
Rule 3: what the server claims is checked against what it claimed before: a modification sequence that goes back, or a
count that does not add up, makes us compare; a UIDNEXT that goes back with the messages gone makes us begin again.
Called by session.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import Final, NamedTuple

from email_service.imap.folder import UID_MAX, OpenFolder, open_folder
from email_service.imap.reading import Read, Reader
from email_service.imap.refusals import span
from email_service.imap.values import Batch, Flags, Known, SyncToken
from email_service.imap.wire import Wire
from email_service.signals import IMAP_FOLDER, IMAP_MESSAGES, SPAN_IMAP_CHANGES

#: Messages of which flags are asked for, or compared with rows, at once.
_WINDOW_MESSAGES: Final = 20_000
#: Flags in one batch.
_FLAGS_AT_ONCE: Final = 5_000
#: The modifier that is QRESYNC's (RFC 7162 section 3.2.6).
_VANISHED: Final = {True: b" VANISHED", False: b""}


class Old(NamedTuple):
    """Changes of messages that were handed out before."""

    flags: Mapping[int, Flags]
    vanished: Sequence[range]


class New(NamedTuple):
    """Messages that are to be read."""

    #: UIDs up to the token's that our rows lack.
    missing: array[int]
    #: UIDs beyond the token.
    fresh: array[int]
    #: How many messages beside these there are.
    others: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question of what has changed in a folder."""

    #: Decoded, for people.
    name: str
    wire_name: bytes
    #: None to begin at the beginning.
    token: SyncToken | None
    known: Known
    #: Messages in a batch.
    count_max: int


def changes(wire: Wire, asked: Asked) -> Iterator[Batch]:
    """Batches, the last of them with the token of all that was there; at least one, be it empty."""
    folder = open_folder(wire, asked.name, asked.wire_name, resync=_resync(asked.token))
    token = asked.token if asked.token is not None and asked.token.uidvalidity == folder.uidvalidity else None
    if token is not None and _was_set_back(folder, token):
        token = None
    fresh = _fresh(folder, token.last_uid if token else 0)
    old_count = max(folder.exists - len(fresh), 0)
    missing: array[int] = array("I")
    pending = Old({}, ())
    if token is not None and token.last_uid:
        for part in _old(folder, token, old_count, asked, missing):
            if pending.flags or pending.vanished:
                yield _batch(folder, replace(token, uidnext=None), pending, None, more=True)
            pending = part
    others = max(old_count - len(missing), 0) if token else 0
    yield from _new(folder, asked, token, pending, New(missing, fresh, others))


def _resync(token: SyncToken | None) -> SyncToken | None:
    """The token that goes with the opening: of a folder whose changes can be held at once."""
    if token is None or not token.highestmodseq or not token.last_uid:
        return None
    return token if (token.messages or 0) <= _WINDOW_MESSAGES else None


def _was_set_back(folder: OpenFolder, token: SyncToken) -> bool:
    """Whether the folder has forgotten messages that it once gave UIDs, as after a restored backup."""
    if folder.uidnext is None or folder.uidnext > token.last_uid:
        return False
    # A server that counts UIDNEXT wrong still has the message, or a later one.
    return not any(uid >= token.last_uid for uid in folder.search(b"UID %d:*" % token.last_uid))


def _fresh(folder: OpenFolder, last_uid: int) -> array[int]:
    """UIDs beyond the token."""
    if not folder.exists or folder.uidnext == last_uid + 1:
        return array("I")
    # "n:*" is "*:n" too (RFC 3501 section 6.4.8): the last message comes back even if it is older.
    return array("I", (uid for uid in folder.search(b"UID %d:*" % (last_uid + 1)) if uid > last_uid))


# --- messages that are known ----------------------------------------------------------------------------------------


def _old(folder: OpenFolder, token: SyncToken, old_count: int, asked: Asked, missing: array[int]) -> Iterator[Old]:
    """Changes up to the token's last UID, part by part; UIDs that our rows lack are added to ``missing``."""
    windows = _windows(token.last_uid, max(old_count, token.messages or 0))
    if not _has_history(folder, token):
        for first, last in windows:
            yield from _compared(folder, asked, first, last, missing, with_flags=True)
        return
    gone = 0
    for part in _since(folder, token, windows):
        gone += sum(map(len, part.vanished))
        yield part
    if not _adds_up(folder, token, old_count, gone):
        for first, last in windows:
            yield from _compared(folder, asked, first, last, missing, with_flags=False)


def _has_history(folder: OpenFolder, token: SyncToken) -> bool:
    """Whether the folder can tell changes by modification sequence."""
    return bool(token.highestmodseq and folder.highestmodseq and folder.highestmodseq >= token.highestmodseq)


def _adds_up(folder: OpenFolder, token: SyncToken, old_count: int, gone: int) -> bool:
    """Whether what vanished explains how many messages are left; without QRESYNC nobody says what vanished."""
    told = b"QRESYNC" in folder.wire.capabilities
    if token.messages is None:
        return told
    # Of UIDs that vanished, some may have gone before: there may be more left, but never fewer.
    return old_count >= token.messages - gone if told else old_count == token.messages


def _windows(last_uid: int, count: int) -> list[tuple[int, int]]:
    """1 to ``last_uid`` in as many parts as ``count`` messages need, if they are spread evenly."""
    parts = min(max(1, -(-count // _WINDOW_MESSAGES)), last_uid)
    edges = [last_uid * part // parts for part in range(parts + 1)]
    return [(first + 1, last) for first, last in pairwise(edges)]


def _since(folder: OpenFolder, token: SyncToken, windows: Sequence[tuple[int, int]]) -> Iterator[Old]:
    """What the folder's history tells: at its opening, or in windows."""
    if folder.is_resynced:
        flags = {uid: flags for uid, flags in folder.changed.items() if uid <= token.last_uid}
        yield from _parts(flags, _clipped(folder.vanished, 1, token.last_uid))
    elif folder.highestmodseq != token.highestmodseq:
        since = b"(CHANGEDSINCE %d%s)" % (token.highestmodseq or 1, _VANISHED[b"QRESYNC" in folder.wire.capabilities])
        for first, last in windows:
            folder.vanished = []
            flags = _flags(folder, first, last, since)
            yield from _parts(flags, _clipped(folder.vanished, first, last))


def _compared(
    folder: OpenFolder, asked: Asked, first: int, last: int, missing: array[int], *, with_flags: bool
) -> Iterator[Old]:
    """The difference between a window and our rows."""
    there: Mapping[int, Flags | None]
    uids = b"%d:%d" % (first, last)
    there = _flags(folder, first, last) if with_flags else dict.fromkeys(folder.search(b"UID " + uids))
    rows = asked.known(first, last)
    missing.extend(sorted(there.keys() - rows.keys()))
    flags = {
        uid: flags for uid, flags in there.items() if flags is not None and uid in rows and not _same(flags, rows[uid])
    }
    yield from _parts(flags, _runs(sorted(rows.keys() - there.keys())))


def _flags(folder: OpenFolder, first: int, last: int, *modifiers: bytes) -> dict[int, Flags]:
    with span(SPAN_IMAP_CHANGES, {IMAP_FOLDER: folder.name}) as asking:
        flags = folder.flags(b"%d:%d" % (first, last), *modifiers)
        asking.set_attribute(IMAP_MESSAGES, len(flags))
    # News of others may be among the replies.
    return {uid: flags for uid, flags in flags.items() if first <= uid <= last}


def _parts(flags: Mapping[int, Flags], vanished: Sequence[range]) -> Iterator[Old]:
    rest = iter(flags.items())
    while some := dict(islice(rest, _FLAGS_AT_ONCE)):
        yield Old(some, vanished)
        vanished = ()
    if vanished:
        yield Old({}, vanished)


def _same(one: Flags, other: Flags) -> bool:
    """Flags have no order and no case (RFC 3501 section 2.3.2)."""
    return one == other or {flag.lower() for flag in one} == {flag.lower() for flag in other}


def _clipped(ranges: Sequence[range], first: int, last: int) -> list[range]:
    """Ranges in order, none below ``first`` or above ``last``, neighbours and doubles joined."""
    joined: list[range] = []
    for run in sorted(ranges, key=lambda run: run.start):
        start, stop = max(run.start, first), min(run.stop, last + 1)
        if joined and start <= joined[-1].stop:
            joined[-1] = range(joined[-1].start, max(stop, joined[-1].stop))
        elif start < stop:
            joined.append(range(start, stop))
    return joined


def _runs(uids: Sequence[int]) -> list[range]:
    return _clipped([range(uid, uid + 1) for uid in uids], 1, UID_MAX)


# --- messages that are new ------------------------------------------------------------------------------------------


def _new(folder: OpenFolder, asked: Asked, token: SyncToken | None, pending: Old, new: New) -> Iterator[Batch]:
    """The last changes of what was known, and then what is new."""
    now = SyncToken(
        uidvalidity=folder.uidvalidity,
        last_uid=token.last_uid if token else 0,
        highestmodseq=folder.highestmodseq,
        messages=new.others,
    )
    if not new.missing and not new.fresh:
        yield _batch(folder, _at_the_end(folder, now), pending, None, reset=token is None)
        return
    reset = token is None
    for read in Reader(folder, count_max=asked.count_max).read(new.missing + new.fresh):
        now = replace(
            now,
            last_uid=max(now.last_uid, read.last_uid),
            messages=(now.messages or 0) + len(read.messages) + len(read.unreadable),
        )
        # Until all are there that should have been, the next synchronisation has to compare again.
        good = now if token is None or not new.missing or read.last_uid >= new.missing[-1] else token
        yield _batch(
            folder, good if read.more else _at_the_end(folder, good), pending, read, reset=reset, more=read.more
        )
        pending, reset = Old({}, ()), False


def _at_the_end(folder: OpenFolder, token: SyncToken) -> SyncToken:
    """The token of a folder that was read to its end; more may have come in meanwhile."""
    return token if folder.has_grown else replace(token, uidnext=folder.uidnext)


def _batch(
    folder: OpenFolder, token: SyncToken, old: Old, read: Read | None, *, reset: bool = False, more: bool = False
) -> Batch:
    return Batch(
        uidvalidity=folder.uidvalidity,
        reset=reset,
        messages=read.messages if read else (),
        flags=old.flags,
        vanished=tuple(old.vanished),
        unreadable=read.unreadable if read else (),
        token=token,
        more=more,
    )
