"""One folder: which messages it holds, their flags, and when each last changed (RFC 3501, RFC 7162).

Owns: UIDs, flags, mod-sequences, the log of what was expunged. Never does: protocols, I/O, clocks.
Called by: mailbox (makes them), imap_protocol (reads and changes them), timeline.

Rule 1: synthesised mail is a range of UIDs and a ``Source``; only deviations from it take memory.
Rule 2: ``highestmodseq`` grows with every change, so one comparison tells a session that there is no news.
Rule 3: a message that is expunged stays readable until every session that was shown it has been told.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fakemail.mime import header_block
from fakemail.synthesis import Source, name_hash
from fakemail.uids import NONE, UID_MAX, UidSet, batches

#: System flags in the spelling of RFC 3501 section 2.3.2, by their lower case.
SYSTEM_FLAGS: Final = {flag.lower(): flag for flag in ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")}
SEEN: Final = "\\Seen"
DELETED: Final = "\\Deleted"
NO_FLAGS: Final[frozenset[str]] = frozenset()
#: So many new messages get an entry each in the list of changes; more become a range with one mod-sequence.
_SINGLE_MAX: Final = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """Mail that came from outside."""

    raw: bytes
    #: Seconds since 1970, UTC.
    received_s: int
    #: The zone it was given in, minutes east of UTC: INTERNALDATE gives it back.
    zone_min: int = 0


@dataclass(frozen=True, slots=True)
class Shifted:
    """Synthesised mail that was copied or renumbered: the message of ``uid + offset``, made when it is read."""

    base: Source
    offset: int

    @property
    def flags_table(self) -> tuple[frozenset[str], ...]:
        """As the original's."""
        return self.base.flags_table

    def flags_indexes(self, uids: range) -> Sequence[int]:
        """As the original's."""
        return self.base.flags_indexes(range(uids.start + self.offset, uids.stop + self.offset))

    def flags(self, uid: int) -> frozenset[str]:
        """As the original's."""
        return self.base.flags(uid + self.offset)

    def raw(self, uid: int) -> bytes:
        """The original's bytes."""
        return self.base.raw(uid + self.offset)

    def pieces(self, uid: int) -> tuple[Sequence[bytes | memoryview], int]:
        """The original's bytes, not put together, and their number."""
        return self.base.pieces(uid + self.offset)

    def header(self, uid: int) -> bytes:
        """The original's header."""
        return self.base.header(uid + self.offset)

    def size(self, uid: int) -> int:
        """The original's size."""
        return self.base.size(uid + self.offset)

    def received(self, uid: int) -> int:
        """The original's date."""
        return self.base.received(uid + self.offset)


@functools.lru_cache(maxsize=1024)
def _source(seed: int, address: str, folder: str, profile: str) -> Source:
    """One object for each name, so that ranges of the same mail can be told to be that."""
    return Source(seed=seed, address=address, folder=folder, profile=profile)


@dataclass(kw_only=True, slots=True)
class _Segment:
    """A range of UIDs whose messages are made on demand."""

    first: int
    last: int
    source: Source | Shifted
    modseq: int


class Watcher(Protocol):
    """A session that has the folder selected."""

    #: It was told of all expunges up to this mod-sequence.
    told: int

    def wake(self) -> None:
        """There may be news."""


class Folder:
    """One folder of one user."""

    def __init__(self, *, address: str, name: str, uidvalidity: int) -> None:
        self.address, self.name, self.uidvalidity = address, name, uidvalidity
        self.uidnext = 1
        #: Grows with every change (RFC 7162 section 3.1.1).
        self.highestmodseq = 1
        #: What it holds.
        self.uids: UidSet = NONE
        #: From this UID on no session was told of the messages yet: the first that is sees them as \\Recent.
        self.recent_from = 1
        #: Keywords that were ever used, by their lower case: PERMANENTFLAGS and FLAGS name them.
        self.keywords: dict[str, str] = {}
        #: Why sessions must let go of it, once it is deleted or reset.
        self.closed: str = ""
        #: Sessions that have it selected.
        self.watchers: set[Watcher] = set()
        #: How far its timeline has come.
        self.step = 0
        #: Added to a UID it names the seeded mail that comes next: after a renumbering no message comes twice.
        self.drift = 0
        self._segments: list[_Segment] = []
        self._starts: list[int] = []
        self._own: dict[int, Stored] = {}
        self._flags: dict[int, frozenset[str]] = {}
        #: Mod-sequence by UID where it is not its segment's; in the order of change.
        self._modseqs: dict[int, int] = {}
        self._expunged: list[tuple[int, UidSet]] = []
        self._ghosts: list[UidSet] = []

    # --- messages ---

    def _segment(self, uid: int) -> _Segment | None:
        at = bisect_right(self._starts, uid) - 1
        return self._segments[at] if at >= 0 and uid <= self._segments[at].last else None

    def raw(self, uid: int) -> bytes:
        """The whole message; KeyError if there never was one."""
        own = self._own.get(uid)
        return self._source(uid).raw(uid) if own is None else own.raw

    def raw_pieces(self, uid: int) -> tuple[Sequence[bytes | memoryview], int]:
        """The same in the pieces that it is made of, and its size."""
        own = self._own.get(uid)
        return self._source(uid).pieces(uid) if own is None else ((own.raw,), len(own.raw))

    def header(self, uid: int) -> bytes:
        """Its header block with the empty line, cheaper than the whole."""
        own = self._own.get(uid)
        return self._source(uid).header(uid) if own is None else header_block(own.raw)

    def size(self, uid: int) -> int:
        """RFC822.SIZE; of synthesised mail without making it."""
        own = self._own.get(uid)
        return self._source(uid).size(uid) if own is None else len(own.raw)

    def received(self, uid: int) -> tuple[int, int]:
        """IMAP's internal date: (seconds since 1970, minutes east of UTC)."""
        own = self._own.get(uid)
        return (self._source(uid).received(uid), 0) if own is None else (own.received_s, own.zone_min)

    def _source(self, uid: int) -> Source | Shifted:
        segment = self._segment(uid)
        if segment is None:
            raise KeyError(uid)
        return segment.source

    def flags(self, uid: int) -> frozenset[str]:
        r"""Its flags without \Recent, which belongs to a session."""
        found = self._flags.get(uid)
        if found is not None:
            return found
        segment = self._segment(uid)
        return segment.source.flags(uid) if segment is not None else NO_FLAGS

    def flags_block(self, low: int, high: int) -> Sequence[frozenset[str]]:
        """The flags of every UID from ``low`` to ``high``, all of which the caller knows to exist."""
        out: list[frozenset[str]] = []
        changed = self._flags
        while low <= high:
            segment = self._segment(low)
            if segment is None:
                out.append(changed.get(low, NO_FLAGS))
                low += 1
                continue
            end = min(high, segment.last)
            block = range(low, end + 1)
            made = map(segment.source.flags_table.__getitem__, segment.source.flags_indexes(block))
            out += [changed.get(uid, flags) for uid, flags in zip(block, made, strict=True)] if changed else made
            low = end + 1
        return out

    # --- changes ---

    def spelling(self, flag: str) -> str:
        """The flag as this folder writes it: keywords are the same in any case (RFC 9051 section 2.3.2)."""
        key = flag.lower()
        return SYSTEM_FLAGS.get(key) or self.keywords.get(key) or flag

    def set_flags(self, uid: int, flags: Iterable[str]) -> bool:
        """Replace the flags of a message; says whether they changed."""
        wanted = frozenset(self.spelling(flag) for flag in flags)
        if self.flags(uid) == wanted:
            return False
        here = uid in self.uids
        if not here and not any(uid in each for each in self._ghosts):
            return False
        self._learn(wanted)
        self._flags[uid] = wanted
        if not here:
            # Who is still shown an expunged message sees what is done to it; nobody else ever hears of it.
            return False
        self._changed(uid)
        self._wake()
        return True

    def _learn(self, flags: Iterable[str]) -> None:
        for flag in flags:
            if flag[0] != "\\":
                self.keywords.setdefault(flag.lower(), flag)

    def _changed(self, uid: int) -> None:
        self.highestmodseq += 1
        self._modseqs.pop(uid, None)
        self._modseqs[uid] = self.highestmodseq

    def add(self, mail: Stored, flags: Iterable[str] = ()) -> int:
        """Keep a message under the next UID."""
        uid = self.uidnext
        # Past the last of 32 bits a real server would renumber under another UIDVALIDITY.
        assert uid <= UID_MAX, "no UIDs left"  # noqa: S101
        wanted = frozenset(self.spelling(flag) for flag in flags)
        self._learn(wanted)
        self._own[uid], self._flags[uid] = mail, wanted
        self.uidnext += 1
        self.uids = self.uids.with_range(uid, uid)
        self._changed(uid)
        self._wake()
        return uid

    def seed(self, *, count: int, seed: int, profile: str, gaps: int = 0, recent: bool = False) -> UidSet:
        """Add ``count`` messages that are made when they are read.

        ``gaps`` leaves up to so many UIDs out between runs of a few, as in a folder that was tidied up;
        ``recent`` mail has just arrived, other mail was there before.
        """
        source = _shifted(_source(seed, self.address, self.name, profile), self.drift)
        first, few = self.uidnext, count <= _SINGLE_MAX
        ranges = _with_gaps(first, count, gaps, seed, self.name) if gaps else [(first, first + count - 1)]
        uids = UidSet.of(ranges)
        self.highestmodseq += 1
        self._append_segment(first, uids.largest, source, few=few)
        # What is new shows as a change of its own, so that an incremental sync sees it one by one.
        for uid in uids if few else ():
            self._modseqs[uid] = self.highestmodseq
        if recent:
            self._flags.update(dict.fromkeys(uids, NO_FLAGS))
        else:
            self._learn(frozenset().union(*source.flags_table))
            if self.recent_from == first:
                self.recent_from = uids.largest + 1
        self.uidnext = uids.largest + 1
        self.uids = self.uids | uids if gaps else self.uids.with_range(first, uids.largest)
        self._wake()
        return uids

    def take(self, other: Folder, uids: UidSet) -> UidSet:
        """Copy messages, with flags and dates, in the order of their UIDs; answers the UIDs that they get here.

        Synthesised mail stays a function, so a copy of a million messages takes no memory either.
        """
        first, few = self.uidnext, len(uids) <= _SINGLE_MAX
        if not uids:
            return NONE
        self.highestmodseq += 1
        for low, high in uids.ranges():
            self._take_range(other, low, high, few=few)
        new = UidSet.of([(first, self.uidnext - 1)])
        self._learn({flag for uid in new for flag in self.flags(uid)} if few else other.keywords.values())
        # Mail from outside has no segment to say when it came; few messages are told one by one, as in ``seed``.
        for uid in new if few else [uid for uid in self._own if uid >= first]:
            self._modseqs[uid] = self.highestmodseq
        self.uids = self.uids.with_range(first, self.uidnext - 1)
        self._wake()
        return new

    def _take_range(self, other: Folder, low: int, high: int, *, few: bool) -> None:
        offset = low - self.uidnext
        block = range(low, high + 1)
        for uid in _fewer(block, other._flags):
            self._flags[uid - offset] = frozenset(self.spelling(flag) for flag in other._flags[uid])
        while low <= high:
            segment = other._segment(low)
            end = low if segment is None else min(high, segment.last)
            if segment is None:
                self._own[low - offset] = other._own[low]
            else:
                self._append_segment(low - offset, end - offset, _shifted(segment.source, offset), few=few)
            low = end + 1
        self.uidnext = high - offset + 1

    def _append_segment(self, first: int, last: int, source: Source | Shifted, *, few: bool) -> None:
        """``few`` messages are told one by one when they came, so an older segment may take them in."""
        latest = self._segments[-1] if self._segments else None
        joined = latest is not None and latest.last + 1 == first and latest.source == source
        if latest is not None and joined and (few or latest.modseq == self.highestmodseq):
            latest.last = last
            return
        self._segments.append(_Segment(first=first, last=last, source=source, modseq=self.highestmodseq))
        self._starts.append(first)

    def expunge(self, uids: UidSet) -> UidSet:
        """Remove messages for good; says which of them were there."""
        gone = self.uids & uids
        if gone:
            self.highestmodseq += 1
            self.uids = self.uids - gone
            self._expunged.append((self.highestmodseq, gone))
            self._ghosts.append(gone)
            self.tidy()
            self._wake()
        return gone

    def tidy(self) -> None:
        """Forget expunged messages of which every session knows."""
        if not self._ghosts or (self.watchers and min(each.told for each in self.watchers) < self._expunged[-1][0]):
            return
        ghosts, self._ghosts = UidSet.of(pair for each in self._ghosts for pair in each.ranges()), []
        for held in (self._own, self._flags, self._modseqs):
            few = ghosts if len(ghosts) < len(held) else [uid for uid in held if uid in ghosts]
            for uid in few:
                held.pop(uid, None)

    def close(self, reason: str) -> None:
        """Send every session away: the folder was deleted, or its UIDs were renumbered."""
        self.closed = reason
        self._wake()

    def _wake(self) -> None:
        for watcher in tuple(self.watchers):
            watcher.wake()

    # --- history (RFC 7162) ---

    def modseq(self, uid: int) -> int:
        """When its flags last changed, or when it came."""
        found = self._modseqs.get(uid)
        if found is not None:
            return found
        segment = self._segment(uid)
        return segment.modseq if segment is not None else 1

    def changed_since(self, modseq: int) -> UidSet:
        """What came or changed its flags after this mod-sequence, and is still here."""
        if modseq >= self.highestmodseq:
            return NONE
        late = []
        # Both are in the order of change.
        for uid in reversed(self._modseqs):
            if self._modseqs[uid] <= modseq:
                break
            late.append((uid, uid))
        for segment in reversed(self._segments):
            if segment.modseq <= modseq:
                break
            late.append((segment.first, segment.last))
        return UidSet.of(late) & self.uids

    def vanished_since(self, modseq: int) -> UidSet:
        """What was expunged after this mod-sequence."""
        start = bisect_right(self._expunged, modseq, key=lambda entry: entry[0])
        return UidSet.of(pair for _, gone in self._expunged[start:] for pair in gone.ranges())


def _fewer(block: range, held: dict[int, frozenset[str]]) -> list[int]:
    """The keys within a block, found by way of whichever is shorter."""
    return [uid for uid in block if uid in held] if len(block) < len(held) else [uid for uid in held if uid in block]


def _shifted(source: Source | Shifted, offset: int) -> Source | Shifted:
    if isinstance(source, Shifted):
        offset += source.offset
        source = source.base
    return Shifted(source, offset) if offset else source


def _with_gaps(first: int, count: int, gaps: int, seed: int, name: str) -> Iterator[tuple[int, int]]:
    """Runs of 1 to 32 UIDs with holes of 1 to ``gaps`` between them, by the seed alone."""
    number = 0
    while count > 0:
        draws = name_hash("gaps", seed, name, number, size=64)
        number += 1
        for run, hole in zip(draws[::2], draws[1::2], strict=True):
            length = min(1 + run % 32, count)
            yield first, first + length - 1
            first += length + 1 + hole % gaps
            count -= length
            if count == 0:
                return


def unseen(folder: Folder) -> Iterator[int]:
    r"""How many messages lack \Seen, in parts: whoever adds them up may do something else in between."""
    for batch in batches(folder.uids):
        yield sum(SEEN not in flags for low, high in batch for flags in folder.flags_block(low, high))


def marked(folder: Folder, flag: str, uids: UidSet) -> Iterator[list[int]]:
    """Those among these messages that have a flag, in parts as above."""
    for batch in batches(uids & folder.uids):
        block = [(uid, flags) for low, high in batch for uid, flags in enumerate(folder.flags_block(low, high), low)]
        yield [uid for uid, flags in block if flag in flags]


def sizes(folder: Folder) -> Iterator[int]:
    """The sizes of all messages in bytes (RFC 8438), in parts as above."""
    for batch in batches(folder.uids):
        yield sum(sum(map(folder.size, range(low, high + 1))) for low, high in batch)
