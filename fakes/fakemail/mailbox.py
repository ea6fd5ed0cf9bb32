r"""The users, their folders by name, and how mail gets in.

Owns: accounts, the tree of folder names, UIDVALIDITY, limits. Never does: protocols, I/O, threads. Everything here
belongs to one asyncio loop; the clock is given. Called by: imap_protocol, smtp_server (delivery), control.

Rule 1: a pair (folder name, UIDVALIDITY) is never used again, not even after ``reset``.
Rule 2: a name whose mail was removed while it has names below it stays as a placeholder (\Noselect).
"""

from __future__ import annotations

import hmac
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from fakemail import FakemailError
from fakemail.folder import DELETED, SEEN, Folder, Stored
from fakemail.synthesis import PROFILES, name_hash
from fakemail.timeline import Event, Weights, next_event
from fakemail.uids import UID_MAX, UidSet

#: Folders that every user has, with their special use (RFC 6154 section 2).
STANDARD_FOLDERS: Final = {
    "INBOX": None,
    "Sent": "\\Sent",
    "Drafts": "\\Drafts",
    "Trash": "\\Trash",
    "Junk": "\\Junk",
}
#: What CREATE ... (USE ...) may ask for (RFC 6154 section 2).
SPECIAL_USES: Final = ("\\All", "\\Archive", "\\Drafts", "\\Flagged", "\\Junk", "\\Sent", "\\Trash")
#: More in one call is a slip of the keyboard.
SEED_COUNT_MAX: Final = 10_000_000
NAME_CHARACTERS_MAX: Final = 255


class MailboxError(FakemailError):
    """Mail or a folder can't be had."""


class NotFoundError(MailboxError):
    """There is no such user or folder."""


class ConflictError(MailboxError):
    """It exists already, or can't be removed."""


@dataclass(kw_only=True)
class Limits:
    """How many may be connected at once; None is no limit."""

    connections: int | None = None
    #: By one user, per protocol (Gmail's is 15).
    connections_per_user: int | None = None


@dataclass(kw_only=True)
class Account:
    """A user: an address, a password, folders by name."""

    address: str
    password: str = field(repr=False)
    #: What XOAUTH2 accepts; None: the password.
    token: str | None = field(default=None, repr=False)
    folders: dict[str, Folder] = field(default_factory=dict)
    #: Names that hold no mail, only other names.
    placeholders: set[str] = field(default_factory=set)
    subscribed: set[str] = field(default_factory=set)
    #: Special use by name.
    uses: dict[str, str] = field(default_factory=dict)

    def folder(self, name: str) -> Folder:
        """The folder of this name; INBOX in any case (RFC 3501 section 5.1)."""
        try:
            return self.folders[canonical(name)]
        except KeyError:
            raise NotFoundError(f"{self.address} has no folder {name!r}") from None

    @property
    def names(self) -> list[str]:
        """Every name in the tree, in order."""
        return sorted(self.folders.keys() | self.placeholders)

    def below(self, name: str) -> list[str]:
        """The names under this one, in order."""
        return [each for each in self.names if each.startswith(f"{name}/")]


def canonical(name: str) -> str:
    """The folder's name as it is kept: INBOX is INBOX in any case, also above other names (RFC 3501 section 5.1)."""
    head, slash, rest = name.partition("/")
    return f"INBOX{slash}{rest}" if head.upper() == "INBOX" else name


class MailStore:
    """All users and their mail."""

    def __init__(self, *, seed: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        #: Used where a request names no seed of its own.
        self.seed = seed
        self.limits = Limits()
        #: Open connections by (protocol, user); the user is empty before login.
        self.connections: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        #: UIDVALIDITY was given out so often, by address: it survives ``reset``.
        self._generations: Counter[str] = Counter()

    # --- users ---

    def add_user(self, address: str, password: str, token: str | None = None) -> Account:
        """Make the user with the standard folders; for one who exists, set the password."""
        if not re.fullmatch(r"[!-?A-~]+@[!-?A-~]+", address):
            raise MailboxError(f"{address!r} is not an address; allowed: local-part@domain in ASCII")
        account = self._accounts.setdefault(address.lower(), Account(address=address.lower(), password=password))
        account.password, account.token = password, token
        for name, use in STANDARD_FOLDERS.items():
            if name not in account.folders:
                self.create(account, name, use=use)
                account.subscribed.add(name)
        return account

    @property
    def users(self) -> list[Account]:
        """Everyone, by address."""
        return [self._accounts[address] for address in sorted(self._accounts)]

    def user(self, address: str) -> Account:
        """The user of this address, in any case."""
        try:
            return self._accounts[address.lower()]
        except KeyError:
            raise NotFoundError(f"no user {address!r}; add it first") from None

    def remove_user(self, address: str) -> None:
        """Forget a user with all mail; open sessions of the folders are sent away."""
        for folder in self.user(address).folders.values():
            folder.close("the user was removed")
        del self._accounts[address.lower()]

    def login(self, address: str, password: str) -> Account | None:
        """The user, if the password is right."""
        account = self._accounts.get(address.lower())
        return account if account is not None and _same(account.password, password) else None

    def login_token(self, address: str, token: str) -> Account | None:
        """The user, if the OAuth token is right; a user without one may use the password."""
        account = self._accounts.get(address.lower())
        if account is None:
            return None
        return account if _same(account.password if account.token is None else account.token, token) else None

    def has_room(self, protocol: str, user: str = "") -> bool:
        """Whether one more connection is within the limits: of this user, or before login of anybody."""
        if user:
            most = self.limits.connections_per_user
            return most is None or self.connections[protocol, user] < most
        most = self.limits.connections
        return most is None or sum(self.connections.values()) < most

    # --- folders ---

    def create(self, account: Account, name: str, *, use: str | None = None) -> Folder:
        """Make a folder, and those above it; its UIDVALIDITY is greater than that of any earlier one."""
        name = _checked(name)
        if name in account.folders:
            raise ConflictError(f"folder {name!r} exists")
        above = name.rpartition("/")[0]
        if above and above not in account.folders and above not in account.placeholders:
            self.create(account, above)
        account.placeholders.discard(name)
        folder = Folder(address=account.address, name=name, uidvalidity=self._next_uidvalidity(account))
        account.folders[name] = folder
        if use is not None:
            account.uses[name] = use
        return folder

    def _next_uidvalidity(self, account: Account) -> int:
        base = int.from_bytes(name_hash("uidvalidity", self.seed, account.address, size=4)) % 1_000_000_000
        self._generations[account.address] += 1
        return 1_000_000_000 + base + self._generations[account.address]

    def delete(self, account: Account, name: str) -> None:
        """Remove a folder and its mail; names below it stay (RFC 3501 section 6.3.4)."""
        name = canonical(name)
        if name == "INBOX":
            raise ConflictError("INBOX can't be deleted")
        if name in account.placeholders:
            raise ConflictError(f"{name!r} holds no mail, only other folders")
        account.folder(name).close("the folder was deleted")
        del account.folders[name]
        account.uses.pop(name, None)
        if account.below(name):
            account.placeholders.add(name)
        self._prune(account, name.rpartition("/")[0])

    def _prune(self, account: Account, name: str) -> None:
        """A placeholder with nothing below it is no name any more."""
        while name and name in account.placeholders and not account.below(name):
            account.placeholders.discard(name)
            name = name.rpartition("/")[0]

    def rename(self, account: Account, old: str, new: str) -> None:
        """Give a folder and those below it another name; of INBOX only the mail moves (RFC 3501 section 6.3.5)."""
        old, new = canonical(old), _checked(new)
        if old not in account.folders and old not in account.placeholders:
            raise NotFoundError(f"{account.address} has no folder {old!r}")
        if new in account.folders or new in account.placeholders:
            raise ConflictError(f"folder {new!r} exists")
        if new.startswith(f"{old}/") and old != "INBOX":
            raise MailboxError(f"{new!r} is below {old!r}")
        if old == "INBOX":
            self._move_inbox(account, new)
            return
        above = new.rpartition("/")[0]
        if above and above not in account.folders and above not in account.placeholders:
            self.create(account, above)
        for name in [old, *account.below(old)]:
            _relabel(account, name, new + name[len(old) :])
        self._prune(account, old.rpartition("/")[0])

    def _move_inbox(self, account: Account, new: str) -> None:
        inbox, target = account.folder("INBOX"), self.create(account, new)
        target.take(inbox, inbox.uids)
        inbox.expunge(inbox.uids)

    def reset_uidvalidity(self, account: Account, name: str) -> Folder:
        """Renumber a folder like a server that lost its index: the same mail from UID 1, another UIDVALIDITY."""
        before = account.folder(name)
        after = Folder(address=account.address, name=before.name, uidvalidity=self._next_uidvalidity(account))
        account.folders[before.name] = after
        after.take(before, before.uids)
        after.step, after.recent_from = before.step, after.uidnext
        after.drift = before.drift + before.uidnext - after.uidnext
        before.close("the folder's UIDs were renumbered")
        return after

    # --- mail ---

    def seed_folder(
        self, folder: Folder, *, count: int, seed: int | None = None, profile: str = "small", gaps: int = 0
    ) -> UidSet:
        """Add synthesised mail; raises MailboxError for an impossible count or an unknown profile."""
        most = min(SEED_COUNT_MAX, (UID_MAX - folder.uidnext) // (1 + gaps))
        if not 0 <= count <= most:
            raise MailboxError(f"count: {count} given; allowed: 0 to {most}")
        if profile not in PROFILES:
            raise MailboxError(f"profile: {profile!r} given; allowed: {', '.join(PROFILES)}")
        if count == 0:
            return UidSet.of(())
        return folder.seed(count=count, seed=self.seed if seed is None else seed, profile=profile, gaps=gaps)

    def store(
        self,
        folder: Folder,
        raw: bytes,
        *,
        flags: Iterable[str] = (),
        received_s: int | None = None,
        zone_min: int = 0,
    ) -> int:
        """Keep mail from outside; without a date it was received now. Answers its UID."""
        moment = self._clock() // 1_000_000_000 if received_s is None else received_s
        return folder.add(Stored(raw=raw, received_s=moment, zone_min=zone_min), flags)

    def deliver(self, recipients: Iterable[str], raw: bytes) -> list[str]:
        """Put a message into the INBOX of each recipient who is a user here; says who they were."""
        local = sorted({each.lower() for each in recipients} & self._accounts.keys())
        for address in local:
            self.store(self._accounts[address].folder("INBOX"), raw)
        return local

    def advance(
        self, account: Account, name: str, steps: int, *, weights: Weights | None = None, profile: str = "small"
    ) -> list[Event]:
        """Let so many steps of the folder's timeline happen: the same seed, the same events."""
        events = []
        for _ in range(steps):
            folder = account.folder(name)
            event = next_event(folder, seed=self.seed, weights=weights or Weights(), profile=profile)
            if event.kind == "reset":
                self.reset_uidvalidity(account, name)
            events.append(event)
        return events

    def reset(self) -> None:
        """Forget every user; open sessions are sent away."""
        for account in self._accounts.values():
            for folder in account.folders.values():
                folder.close("everything was reset")
        self._accounts.clear()
        self.limits = Limits()


def _checked(name: str) -> str:
    """The name as it will be kept; a separator at its end only says that names will come below (section 6.3.3)."""
    name = canonical(name.removesuffix("/"))
    # Wildcards could never be listed, controls never be shown.
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX or re.search(r"[\x00-\x1f\x7f%*]|//|\A/|/\Z", name):
        allowed = "1 to 255 characters, none of % * or control, with / between levels"
        raise MailboxError(f"{name!r} is no folder name; allowed: {allowed}")
    return name


def _relabel(account: Account, old: str, new: str) -> None:
    if old in account.placeholders:
        account.placeholders.discard(old)
        account.placeholders.add(new)
        return
    folder = account.folders.pop(old)
    folder.name = new
    account.folders[new] = folder
    if old in account.uses:
        account.uses[new] = account.uses.pop(old)


def _same(kept: str, given: str) -> bool:
    # A client may send bytes that are no UTF-8: wrong like any other.
    return hmac.compare_digest(*(each.encode("utf-8", errors="surrogateescape") for each in (kept, given)))


__all__ = [
    "DELETED", "SEEN", "SPECIAL_USES", "STANDARD_FOLDERS", "Account", "ConflictError", "Folder", "Limits", "MailStore",
    "MailboxError", "NotFoundError", "canonical",
]  # fmt: skip
