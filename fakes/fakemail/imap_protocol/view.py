r"""The selected folder as one client was told of it: message numbers, news, \Recent (RFC 3501 sections 2.3.1.2, 7.4.1).

Owns: what this client knows. Never does: I/O. Called by: session, the commands of the selected state.

Rule 1: a message number changes only by an EXPUNGE or VANISHED that was sent; until then an expunged message stays
readable here. Rule 2: EXPUNGE comes first, then EXISTS, then flags.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fakemail.folder import SYSTEM_FLAGS, Folder
from fakemail.imap_protocol.syntax import number_set, uid_set
from fakemail.uids import NONE, UID_MAX, UidSet, pieces

RECENT: Final = "\\Recent"
#: Lines that are put together into one event.
_LINES: Final = 2000


class _Rendered(dict[frozenset[str], bytes]):
    """Flags in parentheses, in a fixed order, made once for each combination."""

    def __missing__(self, flags: frozenset[str]) -> bytes:
        if len(self) > 4096:  # noqa: PLR2004  # far more combinations than any folder has
            self.clear()
        # System flags first: "\\" sorts behind "$" and upper case.
        words = sorted(flags, key=lambda flag: (flag[0] != "\\", flag))
        self[flags] = text = b"(" + " ".join(words).encode() + b")"
        return text


flag_list: Final = _Rendered().__getitem__


class View:
    """What one client has selected."""

    def __init__(self, folder: Folder, *, read_only: bool, wake: Callable[[], None]) -> None:
        self.folder, self.read_only = folder, read_only
        #: By message number.
        self.uids: UidSet = folder.uids
        #: It was told of all expunges up to this mod-sequence (what a folder asks its watchers).
        self.told = folder.highestmodseq
        #: What SEARCH saved (RFC 5182).
        self.saved: UidSet = NONE
        self.recent: UidSet = NONE
        self._known = folder.highestmodseq
        self._uidnext = folder.uidnext
        self._keywords = 0
        #: UIDs whose flags were told in between, with the mod-sequences that they had.
        self._told_flags: dict[int, int] = {}
        self.wake = wake
        self._claim(folder.uids)
        folder.watchers.add(self)

    def leave(self) -> None:
        """The folder is not selected any more."""
        self.folder.watchers.discard(self)
        self.folder.tidy()

    def _claim(self, uids: UidSet) -> None:
        """Who is told of new messages first sees them as recent, and nobody after (section 2.3.2)."""
        self.recent = self.recent | uids.between(self.folder.recent_from, UID_MAX)
        if not self.read_only:
            self.folder.recent_from = max(self.folder.recent_from, self.folder.uidnext)

    # --- naming messages ---

    def named(self, text: bytes, *, by_uid: bool) -> UidSet:
        """The UIDs that a sequence set names here (RFC 3501 section 9, RFC 5182 section 2.1 for ``$``)."""
        if text == b"$":
            return self.saved & self.uids
        if by_uid:
            return self.uids & uid_set(text, self.uids.largest)
        return self.uids.at_positions(number_set(text, len(self.uids)))

    # --- flags ---

    def flags(self, uid: int) -> bytes:
        """Its flags for this client, in parentheses."""
        flags = self.folder.flags(uid)
        return flag_list(flags | {RECENT} if uid in self.recent else flags)

    def mark(self, uid: int, flags: Iterable[str], *, told: bool) -> None:
        """Change flags by this client's own command; the news need not repeat what its answer has ``told``."""
        up_to_date = self.folder.highestmodseq == self._known
        if not self.folder.set_flags(uid, flags):
            return
        if up_to_date:
            self._known = self.folder.highestmodseq
        elif told:
            self._told_flags[uid] = self.folder.highestmodseq

    def knows(self, uid: int) -> bool:
        """Whether this client was told the message's flags as they are now; of one that is gone nobody is told."""
        return self.folder.modseq(uid) <= self._known and uid in self.folder.uids

    def keyword_lines(self) -> Iterator[bytes]:
        """FLAGS and PERMANENTFLAGS, when a keyword was used that this client doesn't know (section 7.2.6)."""
        if len(self.folder.keywords) == self._keywords:
            return
        # At once: in between somebody could use another one.
        yield self.flags_line() + self.permanent_flags_line()

    def _all_flags(self) -> str:
        return " ".join([*SYSTEM_FLAGS.values(), *self.folder.keywords.values()])

    def flags_line(self) -> bytes:
        """RFC 3501 section 7.2.6."""
        self._keywords = len(self.folder.keywords)
        return f"* FLAGS ({self._all_flags()})\r\n".encode()

    def permanent_flags_line(self) -> bytes:
        """RFC 3501 section 7.1."""
        if self.read_only:
            return b"* OK [PERMANENTFLAGS ()] Read-only folder\r\n"
        return f"* OK [PERMANENTFLAGS ({self._all_flags()} \\*)] Flags kept\r\n".encode()

    # --- news ---

    def news(self, *, expunges: bool, enabled: set[str]) -> Iterator[bytes]:
        """What has changed since this client was last told (RFC 3501 sections 5.2 and 7.4.1)."""
        folder = self.folder
        if folder.highestmodseq == self._known and not (expunges and self.told < self._known):
            return
        since, self._known = self._known, folder.highestmodseq
        recent = self.recent
        if expunges:
            self.told = folder.highestmodseq
            yield from self._gone(vanished="QRESYNC" in enabled)
        new = folder.uids.between(self._uidnext, UID_MAX)
        old, self._uidnext = self.uids, folder.uidnext
        if new:
            self.uids = old | new
            self._claim(new)
            yield b"* %d EXISTS\r\n" % len(self.uids)
        if new or self.recent is not recent:
            yield b"* %d RECENT\r\n" % len(self.recent)
        yield from self.keyword_lines()
        told, self._told_flags = self._told_flags, {}
        known = UidSet.single(uid for uid, modseq in told.items() if folder.modseq(uid) == modseq)
        # What changes while these lines go out is told next time, when everything up to it is told.
        changed = (folder.changed_since(since) & old) - known
        yield from self.flag_lines(changed, enabled=enabled, until=self._known)

    @property
    def synchronised(self) -> int:
        """The mod-sequence up to which this client was told of everything, behind news with expunges."""
        return self._known

    def _gone(self, *, vanished: bool) -> Iterator[bytes]:
        gone = self.uids - self.folder.uids
        if not gone:
            self.folder.tidy()
            return
        before, self.uids = self.uids, self.uids - gone
        if self.recent & gone:
            self.recent = self.recent - gone
        self.folder.tidy()
        if vanished:
            yield f"* VANISHED {gone}\r\n".encode()
            return
        # The highest number first, so that the others keep theirs.
        lines = []
        for low, high in reversed(list(gone.ranges())):
            first = before.position(low)
            for number in range(first + high - low, first - 1, -1):
                lines.append(b"* %d EXPUNGE\r\n" % number)
                if len(lines) >= _LINES:
                    yield b"".join(lines)
                    lines.clear()
        yield b"".join(lines)

    def flag_lines(
        self, uids: UidSet, *, enabled: set[str], by_uid: bool = False, flags: bool = True, until: int | None = None
    ) -> Iterator[bytes]:
        """An untagged FETCH with the flags of each (RFC 7162 section 3.2.4: with the UID under QRESYNC).

        Without ``flags`` it tells the mod-sequence alone (section 3.1.3). What changed after ``until`` is left out.
        """
        for low, high in pieces(uids, length=_LINES):
            # Meanwhile others may have used a keyword that this client doesn't know yet.
            yield from self.keyword_lines()
            block: Iterable[int] = range(low, high + 1)
            if until is not None:
                block = [uid for uid in block if self.folder.modseq(uid) <= until]
            yield b"".join([self._flag_line(uid, enabled=enabled, by_uid=by_uid, flags=flags) for uid in block])

    def _flag_line(self, uid: int, *, enabled: set[str], by_uid: bool, flags: bool) -> bytes:
        words = [b"UID %d" % uid] if by_uid or "QRESYNC" in enabled else []
        if flags:
            words.append(b"FLAGS " + self.flags(uid))
        if "CONDSTORE" in enabled:
            words.append(b"MODSEQ (%d)" % self.folder.modseq(uid))
        return b"* %d FETCH (%s)\r\n" % (self.uids.position(uid), b" ".join(words))
