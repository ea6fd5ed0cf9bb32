"""Messages by their UID: what is drawn for each, and how header and body are joined.

A message is f(seed, address, folder, uid); the profile changes its size and nothing else. One 128-bit number per
message is drawn from all of that; its bits choose, piece by piece. Threads: a message knows its ancestors from its
slot (``layouts``), and takes language, subject and people from the number of the root.
Called by: mailbox, through the package.

Bits of the number: 0-5 variant, 6-9 subject, 10-15 and 16-17 sender, 18-23 recipients, 24-35 and 36-43 text size, 44-55
and 56-63 attachment size, 64-69 trace, 70-75 clock, 76-79 extras, 80-83 list, 84 and above what is cut from the pools.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis import headers
from fakemail.synthesis.draws import mix, name_hash
from fakemail.synthesis.flags import FLAGS_SIZE, flags_table
from fakemail.synthesis.headers import (
    CLOCKS,
    DATE_BYTES,
    DAY_TEXTS,
    EARLY_MINUTES,
    FIRST_SECOND,
    ID_BYTES,
    MINUTE_TEXTS,
    received,
    when,
)
from fakemail.synthesis.layouts import BLOCK_BITS, Slot, habit_of, slots_of
from fakemail.synthesis.parts import Plan
from fakemail.synthesis.people import CAST_SIZE, Person, Recipients, from_the_user, mailbox, mailing_lists, to_the_user
from fakemail.synthesis.plans import plans_of
from fakemail.synthesis.pools import VARIANT_MIX, VARIANTS
from fakemail.synthesis.profiles import sizes_of

_GOLDEN: Final = 0x9E3779B1
_STIR: Final = 0x85EBCA77
_32_BITS: Final = 0xFFFFFFFF
_CAST: Final = CAST_SIZE - 1
_PLACES: Final = (1 << BLOCK_BITS) - 1
#: A few people write most of the mail.
_FAVOURS: Final = tuple(at * at >> 5 for at in range(64))
_SUBJECT_NAMES: Final = (b"Subject: ", b"Subject: ")
_LISTS: Final = mailing_lists()
_NUMBERS: Final = 1_000_000
_NUMBER_BYTES: Final = len(" #000000\r\n")
#: Messages whose pieces are remembered, about 2 kB each.
_REMEMBERED: Final = 2048
_CONSTANT_BYTES: Final = DATE_BYTES + len("Message-ID: \r\n") + ID_BYTES
#: The last of the names has no fold after it.
_REFERENCES_BYTES: Final = len("In-Reply-To: \r\n") + ID_BYTES + len("References: \r\n") - len("\r\n ")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a message is, for those who check what others make of it."""

    #: ``personal``, ``list``, ``digest``, ``newsletter``, ``notification``, ``calendar``, ``report``, ``signed``,
    #: ``forward``, ``draft``, ``spam``, ``broken``.
    kind: str
    #: How it is made, such as ``mixed-alternative``; of a broken message, what is broken.
    structure: str
    language: str
    charset: str
    encoding: str
    #: Decoded; of a message whose subject is broken, as it was meant.
    subject: str
    #: UIDs, root first, parent last; empty in mail that answers nothing.
    ancestors: tuple[int, ...]
    #: A part says that it is an attachment.
    has_attachment: bool

    @property
    def parent(self) -> int | None:
        """The UID that it answers."""
        return self.ancestors[-1] if self.ancestors else None

    @property
    def is_spam(self) -> bool:
        """Marked as spam."""
        return self.kind == "spam"

    @property
    def broken(self) -> str | None:
        """What is wrong with it."""
        return self.structure if self.kind == "broken" else None


@dataclass(frozen=True, kw_only=True)
class _User:
    """What a source's user puts into each message."""

    #: By ``Recipients.named``.
    names: tuple[bytes, bytes, bytes]
    from_field: bytes
    delivered: bytes
    delivered_bytes: int


class Source:
    """The messages of one folder; cheap to make, holds no message."""

    __slots__ = (
        "_attachment_bulk", "_attachment_tail", "_block_key", "_circle", "_flag_key", "_from_user", "_ids", "_key",
        "_plans", "_recipients", "_slots", "_text_bulk", "_text_tail", "_traces", "_user", "flags_table",
    )  # fmt: skip

    def __init__(self, *, seed: int, address: str, folder: str, profile: str) -> None:
        habit = habit_of(folder)
        #: Sixty-four sets of flags, each as often as it occurs.
        self.flags_table = flags_table(habit)
        key = int.from_bytes(name_hash("source", seed, address, folder, size=16))
        self._key, self._block_key, self._flag_key, self._circle = key, key >> 96, key & _32_BITS, key >> 64 & 255
        self._slots, self._plans = slots_of(habit), plans_of(seed)
        text, attachment = sizes_of(profile)
        self._text_bulk, self._text_tail = text.bulk, text.tail
        self._attachment_bulk, self._attachment_tail = attachment.bulk, attachment.tail
        self._ids = headers.id_shapes(seed, address, folder)
        self._user = _user(address)
        self._from_user = habit in {"sent", "drafts"}
        self._recipients = from_the_user() if self._from_user else to_the_user()
        self._traces = headers.NO_TRACE if self._from_user else headers.traces()

    def raw(self, uid: int) -> bytes:
        """The whole message."""
        return b"".join(self._pieces(uid))

    def pieces(self, uid: int) -> tuple[tuple[bytes | memoryview, ...], int]:
        """The whole message in pieces, its body not copied, and its size: for who can write them one by one.

        The latest are remembered, since many clients read the same mail: a header and some views of the pools each.
        """
        return _made(self, uid)

    def _pieces(self, uid: int) -> list[bytes | memoryview]:
        slot, bits, root, plan = self._choose(uid)
        # A header has twenty pieces of a few bytes: one is faster written.
        pieces: list[bytes | memoryview] = [b"".join(self._header(uid, slot, bits, root, plan))]
        plan.fill(
            pieces,
            bits,
            self._text_bulk[bits >> 24 & 4095] or self._text_tail[bits >> 36 & 255],
            self._attachment_bulk[bits >> 44 & 4095] or self._attachment_tail[bits >> 56 & 255],
        )
        return pieces

    def header(self, uid: int) -> bytes:
        """The header with its empty line: the beginning of ``raw``, without making the body."""
        return b"".join(self._header(uid, *self._choose(uid)))

    def size(self, uid: int) -> int:
        """``len(raw(uid))``, without making anything (RFC822.SIZE of RFC 3501 section 2.3.4)."""
        slot, bits, root, plan = self._choose(uid)
        body = plan.size(
            bits,
            self._text_bulk[bits >> 24 & 4095] or self._text_tail[bits >> 36 & 255],
            self._attachment_bulk[bits >> 44 & 4095] or self._attachment_tail[bits >> 56 & 255],
        )
        if plan.overrides or slot.unnamed or slot.unaddressed:
            return body + sum(map(len, self._header(uid, slot, bits, root, plan)))
        return body + self._header_bytes(slot, bits, root, plan)

    def received(self, uid: int) -> int:
        """Epoch second of arrival (INTERNALDATE), never before that of a lower UID."""
        return received(uid)

    def flags_index(self, uid: int) -> int:
        """Where in ``flags_table`` the flags of this message are."""
        number = (uid ^ self._flag_key) * _GOLDEN & _32_BITS
        return (number ^ number >> 15) * _STIR >> 20 & FLAGS_SIZE - 1

    def flags_indexes(self, uids: Iterable[int]) -> list[int]:
        """``flags_index`` of many, faster than one by one."""
        key = self._flag_key
        return [
            ((number := (uid ^ key) * 0x9E3779B1 & 0xFFFFFFFF) ^ number >> 15) * 0x85EBCA77 >> 20 & 63 for uid in uids
        ]

    def flags(self, uid: int) -> frozenset[str]:
        """What an old mailbox has: most are seen, some answered, few flagged."""
        return self.flags_table[self.flags_index(uid)]

    def kind(self, uid: int) -> str:
        """What the message is, as ``Facts.kind`` has it."""
        return self._choose(uid)[0].kind

    def facts(self, uid: int) -> Facts:
        """What the message is, without making it."""
        slot, _, root, plan = self._choose(uid)
        variant, subject = VARIANTS[VARIANT_MIX[root & 63]], plan.subjects[root >> 6 & 15]
        number = f" #{(root >> 84) % _NUMBERS:06}" if subject.numbered else ""
        prefix = f"[{_LISTS[root >> 80 & 3].name}] " if slot.listed else ""
        return Facts(
            kind=slot.kind,
            structure=slot.structure,
            language=variant.tag,
            charset=variant.charset,
            encoding=variant.encoding,
            subject=("Re: " if slot.ancestors else "") + prefix + subject.text + number,
            ancestors=tuple(uid - back for back in slot.ancestors),
            has_attachment=plan.has_attachment,
        )

    def message_id(self, uid: int) -> bytes:
        """With angle brackets."""
        before, after = self._ids[uid * _GOLDEN >> 13 & 7]
        return b"%b%08x%b" % (before, uid, after)

    # --- how it is done ---

    def _choose(self, uid: int) -> tuple[Slot, int, int, Plan]:
        """(slot, number of the message, number of its thread's root, plan)."""
        block = uid - 1 >> BLOCK_BITS
        layout = (block + self._block_key) * _GOLDEN >> 18 & _PLACES
        slot = self._slots[layout << BLOCK_BITS | uid - 1 & _PLACES]
        bits = mix(self._key + uid)
        root = mix(self._key + uid - slot.ancestors[0]) if slot.ancestors else bits
        return slot, bits, root, self._plans[slot.row + VARIANT_MIX[root & 63]]

    def _sender(self, slot: Slot, bits: int, root: int, plan: Plan) -> Person:
        # The people of a thread sit side by side.
        return (slot.senders or plan.people)[self._circle + _FAVOURS[root >> 10 & 63] + (bits >> 16 & 3) & _CAST]

    def _envelope(self, slot: Slot, bits: int, root: int) -> tuple[Recipients, tuple[bytes, bytes], bytes]:
        """(who it went to, names of Subject for a root and a reply, what programs added)."""
        if slot.listed:
            mailing_list = _LISTS[root >> 80 & 3]
            return mailing_list.recipients, mailing_list.prefixes, mailing_list.fields
        return self._recipients[bits >> 18 & 63], _SUBJECT_NAMES, slot.extras[bits >> 76 & 15]

    def _header(self, uid: int, slot: Slot, bits: int, root: int, plan: Plan) -> list[bytes | memoryview]:
        """The pieces, in the order of ``headers.PATH`` and those that follow it."""
        to, names, extras = self._envelope(slot, bits, root)
        # The minute before it arrived: so no relay saw it later than that.
        minute, clock = (received(uid) - FIRST_SECOND) // 60 + (EARLY_MINUTES - 1), CLOCKS[bits >> 70 & 63]
        local, replied, subject = minute + clock.shift_min, slot.ancestors, plan.subjects[root >> 6 & 15]
        pieces = self._arrival(minute, bits, self._sender(slot, bits, root, plan), to)
        pieces += (
            names[1 if replied else 0],
            subject.reply if replied and not slot.listed else subject.root,
            b" #%06d\r\n" % ((root >> 84) % _NUMBERS) if subject.numbered else b"\r\n",
            b"Date: ",
            DAY_TEXTS[local // 1440],
            MINUTE_TEXTS[local % 1440],
            clock.tail,
            b"Message-ID: %b\r\n" % self.message_id(uid),
            self._references(uid, replied) if replied else b"",
            extras,
            plan.head,
        )
        if plan.overrides or slot.unnamed or slot.unaddressed:
            _override(pieces, slot, plan)
        return pieces

    def _arrival(self, minute: int, bits: int, sender: Person, to: Recipients) -> list[bytes | memoryview]:
        """The pieces from Return-Path to the last of the recipients."""
        user = self._user
        if self._from_user:
            return [b"", b"", b"", b"", user.from_field, sender.to_field, b"", to.after]
        trace = self._traces[bits >> 64 & 63].template.replace(b"\0", when(minute))
        named = user.names[to.named]
        return [sender.path, user.delivered, trace, sender.proof, sender.from_field, to.before, named, to.after]

    def _references(self, uid: int, ancestors: tuple[int, ...]) -> bytes:
        """In-Reply-To and References (RFC 5322 section 3.6.4)."""
        names = [self.message_id(uid - back) for back in ancestors]
        return b"In-Reply-To: %b\r\nReferences: %b\r\n" % (names[-1], b"\r\n ".join(names))

    def _header_bytes(self, slot: Slot, bits: int, root: int, plan: Plan) -> int:
        """Bytes of a header that nothing is wrong with: the sum of ``_header``, piece by piece."""
        to, names, extras = self._envelope(slot, bits, root)
        sender, user, subject = self._sender(slot, bits, root, plan), self._user, plan.subjects[root >> 6 & 15]
        total = _CONSTANT_BYTES + len(extras) + len(plan.head) + len(to.after)
        if self._from_user:
            total += len(user.from_field) + len(sender.to_field)
        else:
            total += self._traces[bits >> 64 & 63].size_bytes + sender.arrival_bytes + user.delivered_bytes
            total += len(to.before) + len(user.names[to.named])
        total += _NUMBER_BYTES if subject.numbered else 2
        ancestors = slot.ancestors
        if ancestors:
            total += _REFERENCES_BYTES + len(ancestors) * (ID_BYTES + 3)
            return total + len(names[1]) + len(subject.root if slot.listed else subject.reply)
        return total + len(names[0]) + len(subject.root)


@functools.lru_cache(maxsize=_REMEMBERED)
def _made(source: Source, uid: int) -> tuple[tuple[bytes | memoryview, ...], int]:
    pieces = tuple(source._pieces(uid))  # noqa: SLF001  # the cache that its method speaks of
    return pieces, sum(map(len, pieces))


def _override(pieces: list[bytes | memoryview], slot: Slot, plan: Plan) -> None:
    """Put in what is broken, and leave out what a draft has not got yet."""
    for place, other in plan.overrides:
        pieces[place] = other
    if slot.unnamed:
        pieces[headers.MESSAGE_ID] = b""
    if slot.unaddressed:
        pieces[headers.TO] = pieces[headers.COPIES] = b""


@functools.lru_cache(maxsize=1024)
def _user(address: str) -> _User:
    box = mailbox(address.partition("@")[0].replace(".", " ").title(), address)
    bare = address.encode("ascii")
    delivered = b"Delivered-To: " + bare + b"\r\n"
    return _User(
        names=(bare, box, b""),
        from_field=b"From: " + box + b"\r\n",
        delivered=delivered,
        delivered_bytes=len(delivered),
    )
