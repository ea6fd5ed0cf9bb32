"""Mail that exists: folders with UIDs, UIDVALIDITY and flags, and the users who have them.

Never does: protocols, I/O, threads. Everything here belongs to one asyncio loop; the clock is given.
Called by: imap_protocol (folders), smtp_server (delivery), control.

Rule 1: a message is bytes = f(seed, address, folder, uid), equal on every machine; only deviations are held in memory.
Rule 2: a folder's ``version`` grows with every change, so a session sees by one comparison that it has nothing to tell.
Rule 3: a UID and a pair (folder name, UIDVALIDITY) are never used again, not even after ``reset``.
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from fakemail import FakemailError
from fakemail.synthesis import FIRST_DAY, PROFILES, name_hash, synthesise

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


class Mail(Protocol):
    """A message that a folder holds: made on demand (Seeded) or kept (Stored)."""

    @property
    def raw(self) -> bytes:
        """The whole message."""

    @property
    def received(self) -> datetime:
        """IMAP's internal date."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Mail that is its name: the bytes are made when they are asked for."""

    seed: int
    address: str
    folder: str
    uid: int
    profile: str

    @property
    def raw(self) -> bytes:
        """The whole message."""
        return synthesise(seed=self.seed, address=self.address, folder=self.folder, uid=self.uid, profile=self.profile)

    @property
    def received(self) -> datetime:
        """One minute after the slowest minute in which it may have been sent."""
        return FIRST_DAY + timedelta(seconds=(self.uid % 2_000_000) * 311 + 360)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Mail that came from outside."""

    raw: bytes
    received: datetime


class Folder:
    """One folder of one user."""

    def __init__(self, *, address: str, name: str, uidvalidity: int, changed: Callable[[], None]) -> None:
        self.address = address
        self.name = name
        self.uidvalidity = uidvalidity
        self.uidnext = 1
        #: Grows with every change.
        self.version = 1
        #: Ascending, without the expunged.
        self.uids: list[int] = []
        self._changed = changed
        self._ranges: list[tuple[range, int, str]] = []
        self._own: dict[int, Mail] = {}
        self._gone: set[int] = set()
        self._flags: dict[int, frozenset[str]] = {}
        self._flagged_at: dict[int, int] = {}

    def mail(self, uid: int) -> Mail | None:
        """The message, or None once it is expunged."""
        if uid in self._gone:
            return None
        if uid in self._own:
            return self._own[uid]
        seed, profile = next(((seed, profile) for uids, seed, profile in self._ranges if uid in uids), (0, ""))
        if not profile:
            return None
        return Seeded(seed=seed, address=self.address, folder=self.name, uid=uid, profile=profile)

    def flags(self, uid: int) -> frozenset[str]:
        """Its flags; none once it is expunged."""
        return self._flags.get(uid, frozenset())

    def set_flags(self, uid: int, flags: frozenset[str]) -> None:
        """Replace the flags of a message that may have been expunged meanwhile."""
        if self.mail(uid) is not None and self.flags(uid) != flags:
            self._flags[uid] = flags
            self._touch()
            self._flagged_at[uid] = self.version

    def flagged_since(self, version: int) -> list[int]:
        """UIDs whose flags changed after this version."""
        return sorted(uid for uid, changed in self._flagged_at.items() if changed > version)

    def add(self, mail: Mail, flags: Iterable[str] = ()) -> int:
        """Keep a message under the next UID."""
        uid = self.uidnext
        self.uidnext += 1
        self.uids.append(uid)
        self._own[uid] = mail
        self._flags[uid] = frozenset(flags)
        self._touch()
        return uid

    def seed(self, *, count: int, seed: int, profile: str) -> range:
        """Add ``count`` messages that are made when they are read."""
        uids = range(self.uidnext, self.uidnext + count)
        self.uidnext += count
        self.uids.extend(uids)
        self._ranges.append((uids, seed, profile))
        self._touch()
        return uids

    def expunge(self, uids: Iterable[int]) -> None:
        """Remove messages for good."""
        gone = {uid for uid in uids if self.mail(uid) is not None}
        if not gone:
            return
        for uid in gone:
            for held in (self._own, self._flags, self._flagged_at):
                held.pop(uid, None)
        self._gone |= gone
        self.uids = [uid for uid in self.uids if uid not in gone]
        self._touch()

    def _touch(self) -> None:
        self.version += 1
        self._changed()


@dataclass(kw_only=True)
class Account:
    """A user: an address, a password, folders by name."""

    address: str
    password: str = field(repr=False)
    folders: dict[str, Folder] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)

    def folder(self, name: str) -> Folder:
        """The folder of this name; INBOX in any case (RFC 3501 section 5.1)."""
        try:
            return self.folders[canonical(name)]
        except KeyError:
            raise NotFoundError(f"{self.address} has no folder {name!r}") from None


def canonical(name: str) -> str:
    """The folder's name as it is kept."""
    return "INBOX" if name.upper() == "INBOX" else name


class MailStore:
    """All users and their mail."""

    def __init__(self, *, seed: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        #: Used where a request names no seed of its own.
        self.seed = seed
        #: Called after each change, for those who wait in IDLE.
        self.watchers: set[Callable[[], None]] = set()
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._generations: Counter[tuple[str, str]] = Counter()

    def add_user(self, address: str, password: str) -> Account:
        """Make the user with the standard folders; for one who exists, set the password."""
        if not re.fullmatch(r"[!-?A-~]+@[!-?A-~]+", address):
            raise MailboxError(f"{address!r} is not an address; allowed: local-part@domain in ASCII")
        account = self._accounts.setdefault(address.lower(), Account(address=address.lower(), password=password))
        account.password = password
        for name in STANDARD_FOLDERS:
            if name not in account.folders:
                self.create(account, name)
        return account

    def user(self, address: str) -> Account:
        """The user of this address, in any case."""
        try:
            return self._accounts[address.lower()]
        except KeyError:
            raise NotFoundError(f"no user {address!r}; add it first") from None

    def login(self, address: str, password: str) -> Account | None:
        """The user, if the password is right."""
        account = self._accounts.get(address.lower())
        # A client may send bytes that are no UTF-8: a wrong password like any other.
        given = password.encode("utf-8", errors="surrogateescape")
        if account is None or not hmac.compare_digest(
            account.password.encode("utf-8", errors="surrogateescape"), given
        ):
            return None
        return account

    def create(self, account: Account, name: str) -> Folder:
        """Make a folder, subscribed; its UIDVALIDITY is greater than that of any earlier one of this name."""
        name = canonical(name)
        if name in account.folders:
            raise ConflictError(f"folder {name!r} exists")
        # Folder names are ASCII on the wire (RFC 3501 section 5.1.3); wildcards could never be listed.
        if not re.fullmatch(r"[\x20-\x7e]{1,255}", name) or re.search(r'[%*"\\]', name) or name.strip("/") != name:
            raise MailboxError(f'{name!r} is no folder name; allowed: 1 to 255 ASCII characters without % * " \\')
        self._generations[account.address, name] += 1
        base = int.from_bytes(name_hash("uidvalidity", self.seed, account.address, name, size=4)) % 1_000_000_000
        uidvalidity = 1_000_000_000 + base + self._generations[account.address, name]
        folder = Folder(address=account.address, name=name, uidvalidity=uidvalidity, changed=self._changed)
        account.folders[name] = folder
        account.subscribed.add(name)
        return folder

    def delete(self, account: Account, name: str) -> None:
        """Remove a folder and its mail."""
        folder = account.folder(name)
        if folder.name == "INBOX":
            raise ConflictError("INBOX can't be deleted")
        folder.expunge(list(folder.uids))
        del account.folders[folder.name]

    def seed_folder(self, folder: Folder, *, count: int, seed: int | None, profile: str) -> range:
        """Add synthesised mail; raises MailboxError for an impossible count or an unknown profile."""
        if not 0 <= count <= SEED_COUNT_MAX:
            raise MailboxError(f"count: {count} given; allowed: 0 to {SEED_COUNT_MAX}")
        if profile not in PROFILES:
            raise MailboxError(f"profile: {profile!r} given; allowed: {', '.join(PROFILES)}")
        return folder.seed(count=count, seed=self.seed if seed is None else seed, profile=profile)

    def store(self, folder: Folder, raw: bytes, *, flags: Iterable[str] = (), received: datetime | None = None) -> int:
        """Keep mail from outside; without a date it was received now."""
        moment = received or datetime.fromtimestamp(self._clock() // 1_000_000_000, tz=UTC)
        return folder.add(Stored(raw=raw, received=moment), flags)

    def deliver(self, recipients: Iterable[str], raw: bytes) -> list[str]:
        """Put a message into the INBOX of each recipient who is a user here; says who they were."""
        local = sorted({each.lower() for each in recipients} & self._accounts.keys())
        for address in local:
            self.store(self._accounts[address].folder("INBOX"), raw)
        return local

    def reset(self) -> None:
        """Forget every user. A session that is open keeps its folder until it logs out."""
        self._accounts.clear()

    def _changed(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()
