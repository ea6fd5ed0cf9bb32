"""Read messages in batches, and never stop at one that can't be had.

Rule 1: a batch is bounded by count and by bytes, whatever sizes the server claims.
Rule 2: a message is left out only when the server says that it is gone; one that it will not hand out is searched
for by halves and becomes an ``UnreadableMessage``.
Rule 3: the next batch is asked for before the present one is handed out, so the server works while rows are stored.
Called by changes.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from email_service.errors import ImapError
from email_service.imap.folder import OpenFolder
from email_service.imap.refusals import errors, is_about_the_server, span
from email_service.imap.replies import (
    Skipped,
    Value,
    fetched,
    flags_of,
    integer,
    internal_date,
    message_of,
    uid_set,
)
from email_service.imap.values import RemoteMessage, UnreadableMessage
from email_service.imap.wire import Reply
from email_service.signals import IMAP_BYTES, IMAP_FOLDER, IMAP_MESSAGES, SPAN_IMAP_FETCH

#: Most bytes of messages that one FETCH asks for (one larger message comes alone).
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
#: UIDs in one command: servers need not take lines above 8,192 octets (RFC 7162 section 4).
UIDS_AT_ONCE: Final = 500
_HEADER_BYTES_MAX: Final = 256 * 1024
#: One damaged message is common, this many in a row are a server in trouble: a later try may read them all.
_REFUSED_IN_A_ROW_MAX: Final = 20
_BODY: Final = b"(UID FLAGS INTERNALDATE BODY.PEEK[])"
_FACTS: Final = b"(UID FLAGS INTERNALDATE RFC822.SIZE)"
_HEADER: Final = b"(UID BODY.PEEK[HEADER]<0.%d>)" % _HEADER_BYTES_MAX


@dataclass(frozen=True, kw_only=True)
class Read:
    """Some messages, and how far they go."""

    messages: tuple[RemoteMessage, ...]
    unreadable: tuple[UnreadableMessage, ...]
    #: Of the last one that was asked for, also if it is gone.
    last_uid: int
    more: bool


class Reader:
    """Reads messages of an open folder."""

    def __init__(self, folder: OpenFolder, *, count_max: int) -> None:
        self._folder = folder
        self._count_max = min(count_max, UIDS_AT_ONCE)
        self._bytes_max = BATCH_BYTES_MAX
        self._refused_in_a_row = 0

    def read(self, uids: Sequence[int]) -> Iterator[Read]:
        """The messages of these UIDs, in their order, in batches.

        Raises:
            ImapError: the server is in trouble, or broke off.
        """
        groups = self._groups(uids)
        group = next(groups, None)
        flying = self._ask(group)
        while group is not None:
            messages, unreadable = self._take(group, flying)
            following = next(groups, None)
            flying = self._ask(following)
            yield Read(
                messages=tuple(messages[uid] for uid in group if uid in messages),
                unreadable=tuple(unreadable[uid] for uid in group if uid in unreadable),
                last_uid=next(reversed(group)),
                more=following is not None,
            )
            group = following

    def _groups(self, uids: Sequence[int]) -> Iterator[dict[int, int]]:
        """UIDs in order with their sizes, as many at once as count and bytes allow."""
        group: dict[int, int] = {}
        size_bytes = 0
        for uid, size in self._sizes(uids):
            if group and (len(group) >= self._count_max or size_bytes + size > self._bytes_max):
                yield group
                group, size_bytes = {}, 0
            group[uid] = size
            size_bytes += 0 if self._is_too_large(size) else size
        if group:
            yield group

    def _sizes(self, uids: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Each UID with its size; 0 for one that is gone by now."""
        rest = iter(uids)
        while some := array("I", islice(rest, UIDS_AT_ONCE)):
            with errors("UID FETCH"):
                sizes = {
                    uid: integer(items.get(b"RFC822.SIZE"))
                    for uid, items in self._folder.fetch(uid_set(some), b"(UID RFC822.SIZE)")
                    if b"RFC822.SIZE" in items
                }
            for uid in some:
                yield uid, sizes.get(uid) or 0

    def _is_too_large(self, size_bytes: int) -> bool:
        return size_bytes > self._folder.wire.literal_bytes_max

    def _ask(self, group: Mapping[int, int] | None) -> bytes | None:
        """Say the FETCH of a group; its answer is read later."""
        uids = [uid for uid, size in (group or {}).items() if not self._is_too_large(size)]
        with errors("UID FETCH"):
            return self._folder.wire.send(b"UID FETCH", uid_set(uids), _BODY) if uids else None

    def _take(
        self, group: Mapping[int, int], flying: bytes | None
    ) -> tuple[dict[int, RemoteMessage], dict[int, UnreadableMessage]]:
        """What became of each UID of a group; what is in neither is gone."""
        limit = self._folder.wire.literal_bytes_max
        with span(SPAN_IMAP_FETCH, {IMAP_FOLDER: self._folder.name}) as fetching:
            messages: dict[int, RemoteMessage] = {}
            unreadable: dict[int, UnreadableMessage] = {}
            asked = [uid for uid, size in group.items() if not self._is_too_large(size)]
            if flying is not None:
                room_bytes = 2 * max(self._bytes_max, *(group[uid] for uid in asked))
                self._receive(asked, flying, room_bytes, messages, unreadable)
            for uid in group.keys() - asked:
                if (found := self._described(uid, f"larger than {limit} bytes")) is not None:
                    unreadable[uid] = found
            fetching.set_attribute(IMAP_MESSAGES, len(messages))
            fetching.set_attribute(IMAP_BYTES, sum(message.size_bytes for message in messages.values()))
            return messages, unreadable

    def _receive(
        self,
        uids: Sequence[int],
        flying: bytes,
        room_bytes: int,
        messages: dict[int, RemoteMessage],
        unreadable: dict[int, UnreadableMessage],
    ) -> None:
        """The answer to a FETCH of bodies; what is missing is asked for again, in ever smaller parts."""
        found, refusal = self._bodies(uids, flying, room_bytes)
        new = {uid: message for uid, items in found.items() if (message := message_of(uid, items)) is not None}
        messages.update(new)
        left = [uid for uid in uids if uid not in new]
        if new:
            self._refused_in_a_row = 0
        if not left:
            return
        if len(uids) == 1:
            self._give_up(uids[0], _reason(found.get(uids[0]), refusal), unreadable)
            return
        left = self._still_there(left)
        middle = (len(left) + 1) // 2
        for half in filter(None, (left[:middle], left[middle:])):
            # One message may fill the whole of the bound.
            room = self._folder.wire.literal_bytes_max if len(half) == 1 else room_bytes
            with errors("UID FETCH"):
                again = self._folder.wire.send(b"UID FETCH", uid_set(half), _BODY)
            self._receive(half, again, room, messages, unreadable)

    def _bodies(
        self, uids: Sequence[int], flying: bytes, room_bytes: int
    ) -> tuple[dict[int, dict[bytes, Value]], ImapError | None]:
        """Items by UID, and the refusal if the server would not give them all."""
        found: dict[int, dict[bytes, Value]] = {uid: {} for uid in uids}
        try:
            with errors("UID FETCH"):
                for reply in self._folder.answer(flying, b"FETCH", literals_bytes_max=room_bytes):
                    items = _items(reply)
                    uid = integer(items.get(b"UID"))
                    if uid in found:
                        # A second reply for a message is news of its flags.
                        found[uid].update(items)
        except ImapError as err:
            if is_about_the_server(err):
                raise
            return found, err
        return found, None

    def _still_there(self, uids: Sequence[int]) -> list[int]:
        """Those that were not expunged meanwhile."""
        there = self._folder.flags(uid_set(uids))
        return [uid for uid in uids if uid in there]

    def _give_up(self, uid: int, reason: str, unreadable: dict[int, UnreadableMessage]) -> None:
        found = self._described(uid, reason)
        if found is None:
            return
        self._refused_in_a_row += 1
        if self._refused_in_a_row > _REFUSED_IN_A_ROW_MAX:
            raise ImapError(f"the server hands out no message any more: {reason}", transient=True)
        unreadable[uid] = found

    def _described(self, uid: int, reason: str) -> UnreadableMessage | None:
        """What can be said of a message without its body; None if it is gone."""
        facts = self._part(uid, _FACTS)
        if facts is None:
            # Its flags are in an index, so this is refused only by a server that refuses everything.
            flags = self._folder.flags(b"%d" % uid)
            facts = {b"FLAGS": [flag.encode() for flag in flags[uid]]} if uid in flags else {}
        if not facts:
            return None
        date = facts.get(b"INTERNALDATE")
        header = (self._part(uid, _HEADER) or {}).get(b"BODY[HEADER]<0>")
        return UnreadableMessage(
            uid=uid,
            flags=flags_of(facts.get(b"FLAGS")),
            internal_date=internal_date(date) if isinstance(date, bytes) else None,
            size_bytes=integer(facts.get(b"RFC822.SIZE")),
            header=header if isinstance(header, bytes) else b"",
            reason=reason,
        )

    def _part(self, uid: int, what: bytes) -> dict[bytes, Value] | None:
        """Some items of one message: empty if it is gone, None if they are refused."""
        try:
            with errors("UID FETCH"):
                parts = [items for found, items in self._folder.fetch(b"%d" % uid, what) if found == uid]
        except ImapError as err:
            if is_about_the_server(err):
                raise
            return None
        return {key: value for items in parts for key, value in items.items()}


def _items(reply: Reply) -> dict[bytes, Value]:
    """The items of a reply; none if it can't be read, so that its message is asked for alone."""
    try:
        return fetched(reply.pieces)
    except ImapError:
        return {}


def _reason(items: Mapping[bytes, Value] | None, refusal: ImapError | None) -> str:
    body = (items or {}).get(b"BODY[]")
    if isinstance(body, Skipped):
        return f"it has {int(body)} bytes, which is more than is read"
    return refusal.detail if refusal is not None else "the server sends no body"
