"""A case's surroundings: a fresh user on the server that is asked, and connections that are closed afterwards.

Owns: users, connections and the small steps that nearly every case needs.
Called by: the cases.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
from collections.abc import Sequence
from typing import Self

from imap_peer import ImapPeer
from raw_imap import RawImap, Reply

_NUMBERS = itertools.count(1)
DATE = "05-Mar-2021 10:20:30 +0200"


class Box:
    """What a case may use; ``with`` closes its connections."""

    def __init__(self, peer: ImapPeer) -> None:
        self.peer = peer
        self._opened = contextlib.ExitStack()
        self.user, self.password = self.new_user()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def new_user(self, password: str = "canary-password") -> tuple[str, str]:
        """A user with an empty INBOX."""
        address = f"user{next(_NUMBERS)}@contract.example"
        self.peer.add_user(address, password)
        return address, password

    def connect(self) -> RawImap:
        """A connection that has been greeted."""
        return self._opened.enter_context(RawImap(self.peer.host, self.peer.port))

    def connect_tls(self) -> RawImap:
        """The same on the port that speaks TLS from the first byte."""
        return self._opened.enter_context(RawImap(self.peer.host, self.peer.tls_port, tls=True))

    def login(self) -> RawImap:
        """A connection that has logged in."""
        imap = self.connect()
        imap.ok(f"LOGIN {self.user} {self.password}")
        return imap

    @functools.cached_property
    def imap(self) -> RawImap:
        """The first connection, logged in."""
        return self.login()

    @functools.cached_property
    def capabilities(self) -> frozenset[str]:
        """What the server can do: announced before or after the login."""
        before = self.connect().ok("CAPABILITY").named(b"CAPABILITY")[0]
        after = self.imap.ok("CAPABILITY").named(b"CAPABILITY")[0]
        return frozenset(word.decode().upper() for word in (*before, *after))

    @functools.cached_property
    def separator(self) -> str:
        """Between the levels of a mailbox name (RFC 3501 section 6.3.8)."""
        return self.imap.ok('LIST "" ""').named(b"LIST")[0][1].decode()

    def path(self, *levels: str) -> str:
        """A mailbox name of these levels."""
        return self.separator.join(levels)

    def selected(self, *mails: bytes, flags: Sequence[str] = (), folder: str = "INBOX") -> RawImap:
        """The first connection with this mail in a folder that is selected."""
        for mail in mails:
            self.append(mail, flags=flags, folder=folder)
        self.imap.ok(f"SELECT {folder}")
        return self.imap

    def append(self, mail: bytes, *, flags: Sequence[str] = (), date: str = DATE, folder: str = "INBOX") -> Reply:
        """One message, through the first connection."""
        head = f'APPEND {folder} ({" ".join(flags)}) "{date}" {{{len(mail)}}}\r\n'
        return self.imap.ok(head.encode() + mail)

    def uids(self, imap: RawImap | None = None) -> list[int]:
        """The UIDs of the selected mailbox."""
        found = (imap or self.imap).ok("UID SEARCH ALL").named(b"SEARCH")
        return [int(uid) for uid in found[0]]

    def modseq(self, folder: str = "INBOX") -> int:
        """The mailbox's HIGHESTMODSEQ (RFC 7162 section 3.1.7), asked by another connection."""
        (answer,) = self.login().ok(f"STATUS {folder} (HIGHESTMODSEQ)").named(b"STATUS")
        return int(answer[1][1])


def plain(user: str, password: str, *, acting_for: str = "") -> str:
    """RFC 4616: the PLAIN mechanism's message in base64."""
    return base64.b64encode(f"{acting_for}\0{user}\0{password}".encode()).decode()


def xoauth2(user: str, token: str) -> str:
    """Google's XOAUTH2 message in base64."""
    return base64.b64encode(f"user={user}\x01auth=Bearer {token}\x01\x01".encode()).decode()
