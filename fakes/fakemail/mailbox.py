"""Mail that exists, and the record of what was done with it.

Owns: synthesised mail (a pure function of seed, mailbox and UID), its MIME structure, folders with UIDs, UIDVALIDITY
and flags, users, and the Ledger.
Never does: protocols, I/O, threads. Everything here belongs to one asyncio loop; the clock is given.
Called by: imap_protocol (folders, structure), smtp_server (delivery, ledger), imap_server (ledger), control.

Rule 1: a message is bytes = f(seed, address, folder, uid), equal on every machine; only deviations are held in memory.
Rule 2: a folder's ``version`` grows with every change, so a session sees by one comparison that it has nothing to tell.
Rule 3: a UID and a pair (folder name, UIDVALIDITY) are never used again, not even after ``reset``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import islice
from typing import Any, Final, Protocol

from fakemail import FakemailError

SEEN: Final = "\\Seen"
DELETED: Final = "\\Deleted"
#: Folders that every user has, with their special use (RFC 6154 section 2).
STANDARD_FOLDERS: Final = {
    "INBOX": None,
    "Sent": "\\Sent",
    "Drafts": "\\Drafts",
    "Trash": "\\Trash",
    "Junk": "\\Junk",
}
#: UIDs have 32 bits (RFC 3501 section 2.3.1.1); more than this in one call is a slip of the keyboard.
SEED_COUNT_MAX: Final = 1_000_000


class MailboxError(FakemailError):
    """Mail or a folder can't be had."""


class NotFoundError(MailboxError):
    """There is no such user or folder."""


class ConflictError(MailboxError):
    """It exists already, or can't be removed."""


# Synthesis ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How large seeded mail is: each table holds the values of sixteen equal shares of the messages."""

    #: Lines of text (about 72 bytes each).
    text_lines: tuple[int, ...]
    #: Lines of base64 (78 bytes each) in an attachment.
    attachment_lines: tuple[int, ...]
    #: Of 256 messages, so many have an attachment.
    attachment_share: int
    #: Of 256 messages, so many have an HTML alternative.
    html_share: int


PROFILES: Final[Mapping[str, Profile]] = {
    # Mean about 19 kB, of which two thirds are in the fifth of the messages that have an attachment.
    "small": Profile(
        text_lines=(8, 12, 16, 20, 25, 30, 36, 43, 51, 60, 72, 87, 107, 135, 180, 260),
        attachment_lines=(40, 80, 130, 190, 260, 340, 430, 530, 640, 760, 900, 1060, 1250, 1500, 1900, 2600),
        attachment_share=51,
        html_share=85,
    ),
}

_PEOPLE: Final = (
    ("Ada Byron", "ada.byron"),
    ("Björn Åkesson", "bjorn.akesson"),
    ("Chidi Okafor", "chidi"),
    ("Danièle Lefèvre", "d.lefevre"),
    ("Emil Novák", "emil.novak"),
    ("Fatima Zahra", "fatima"),
    ("Grace Tan", "grace.tan"),
    ("Hiroshi 田中", "h.tanaka"),
    ("Ines Müller", "ines.mueller"),
    ("Joao Pereira", "joao"),
    ("Katya Иванова", "katya"),
    ("Liam O'Neill", "liam.oneill"),
)
_DOMAINS: Final = ("example.com", "example.net", "example.org", "mail.example", "shop.example", "team.example")
_SUBJECTS: Final = (
    "Minutes of the weekly meeting",
    "Invoice for your last order",
    "Grüße aus München, und eine Frage",
    "Your parcel is on its way",
    "Re: budget for the next quarter",
    "Réunion reportée à jeudi",
    "Photos from the trip",
    "Отчёт за неделю",
    "Please review the attached draft",
    "会議の議事録について",
    "Password changed on a new device",
    "Weekend plans?",
)
_WORDS: Final = tuple(
    (
        "the of and to in that is for on with as was by be at from this are or an which but not have one all their been"
        " more will about when would there time order team report meeting customer project change number price release"
        " service question answer library window garden river winter morning paper letter street market office review"
        " budget draft schedule quarter delivery"
    ).split()
)
#: As quoted-printable (RFC 2045 section 6.7), so that some mail needs decoding.
_QP_WORDS: Final = (*_WORDS[:52], "caf=C3=A9", "na=C3=AFve", "Gr=C3=BC=C3=9Fe", "=E2=82=AC 25", "d=C3=A9j=C3=A0", "=E2=80=93")
_ZONES_MIN: Final = (0, 60, 120, -300, -480, 330, 540)
_FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_LINE_BYTES: Final = 76
_POOL_LINES: Final = 4096


class _Draw:
    """Thirty-two small numbers from a hash of everything that names a message."""

    def __init__(self, *name: object) -> None:
        self._numbers = iter(struct.unpack(">32H", hashlib.blake2b(_key(*name), digest_size=64).digest()))

    def below(self, limit: int) -> int:
        return next(self._numbers) % limit

    def of[T](self, choices: Sequence[T]) -> T:
        return choices[self.below(len(choices))]
