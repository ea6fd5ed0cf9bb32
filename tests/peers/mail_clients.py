"""What the tests of mail clients share: a mailbox on the running fakemail, and a way to run a program.

Owns: users and what their folders hold, as the control API tells it; Maildirs, as files.
Never: speaks IMAP or SMTP itself.
Called by: the tests of clients.
"""

from __future__ import annotations

import email
import hashlib
import itertools
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakemail_server import Fakes
from processes import Identity

PASSWORD = "canary-password"
#: It has nothing that Python's own mail package writes otherwise than it read it: two of the clients are built on it.
LETTER = (
    b"From: Ann <ann@a.example>\r\nTo: Bob <bob@b.example>\r\nSubject: a letter of mine\r\n"
    b"Date: Mon, 01 Feb 2021 08:00:00 +0000\r\nMessage-ID: <mine@a.example>\r\n\r\nHello.\r\n"
)
#: mbsync's, offlineimap3's and getmail6's own.
_MARKS = (b"X-TUID:", b"X-OfflineIMAP:", b"X-getmail-retrieved-from-mailbox:", b"Return-Path: <unknown>")
_NUMBERS = itertools.count(1)


@dataclass(frozen=True, kw_only=True)
class Mailbox:
    """One user of the fakemail that all tests share."""

    fakes: Fakes
    address: str
    password: str = PASSWORD

    @property
    def token(self) -> str:
        """An OAuth token that is good for this user."""
        return f"token-of-{self.address}"

    def seed(self, count: int, *, folder: str = "INBOX") -> list[str]:
        """Put synthesised mail there; answers the digests of all that the folder holds."""
        self.fakes.control.seed(self.address, count=count, seed=5, folder=folder, digests=True)
        return self.digests(folder)

    def letters(self, count: int) -> list[str]:
        """Letters like ``LETTER``, each of another length; answers their digests."""
        for number in range(count):
            text = b"a line of text\r\n" * number * 10
            self.append(LETTER.replace(b"mine", b"mine-%d" % number) + text)
        return self.digests()

    def append(self, raw: bytes, *, folder: str = "INBOX", flags: Sequence[str] = ()) -> None:
        """One message of one's own."""
        self.fakes.control.append(self.address, raw, folder, flags=flags)

    def rows(self, folder: str = "INBOX") -> list[dict[str, Any]]:
        """The messages of a folder, with digests."""
        return list(self.fakes.control.messages(self.address, folder, digests=True))

    def digests(self, folder: str = "INBOX") -> list[str]:
        """SHA-256 of each message of a folder."""
        return [row["sha256"] for row in self.rows(folder)]

    def as_files(self, folder: str = "INBOX") -> list[str]:
        """SHA-256 of each message as a file can hold it, sorted: one in a thousand has line ends of two kinds."""
        return sorted(sha256(as_sent(self.message(row["uid"], folder))) for row in self.rows(folder))

    def flags(self, folder: str = "INBOX") -> dict[int, set[str]]:
        """Flags by UID, without \\Recent."""
        return {row["uid"]: set(row["flags"]) - {"\\Recent"} for row in self.rows(folder)}

    def message(self, uid: int, folder: str = "INBOX") -> bytes:
        """A message's bytes."""
        return self.fakes.control.message(self.address, uid, folder)

    def set_flags(self, uid: int, *flags: str) -> None:
        """As another client of this user would."""
        self.fakes.control.set_flags(self.address, uid, flags)

    def expunge(self, *uids: int) -> None:
        """As another client of this user would."""
        self.fakes.control.expunge(self.address, uids)

    def entries(self, **filters: Any) -> list[dict[str, Any]]:
        """The ledger's entries about this user."""
        return list(self.fakes.control.ledger(user=self.address, **filters))

    def taken(self) -> list[dict[str, Any]]:
        """The ledger's entries about mail that was accepted for this user."""
        return list(self.fakes.control.ledger(kind="accepted", rcpt_to=self.address))


def new_mailbox(fakes: Fakes) -> Mailbox:
    """A user with an empty INBOX."""
    mailbox = Mailbox(fakes=fakes, address=f"client{next(_NUMBERS)}@peers.example")
    fakes.control.add_user(mailbox.address, mailbox.password, token=mailbox.token)
    return mailbox


def run(
    *argv: str | Path,
    given: bytes = b"",
    code: int | None = 0,
    identity: Identity | None = None,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end; ``code`` is the exit code that it must have, None for any."""
    options = identity.options() if identity else {}
    words = [str(part) for part in argv]
    done = subprocess.run(words, input=given, capture_output=True, check=False, timeout=timeout_s, **options)
    told = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
    assert code is None or done.returncode == code, f"exit code {done.returncode}\n{told[-6000:]}"
    return done


def sha256(data: bytes) -> str:
    """As fakemail tells it."""
    return hashlib.sha256(data).hexdigest()


def message_id(raw: bytes) -> str:
    """A letter's Message-ID, ``none`` without one."""
    return str(email.message_from_bytes(raw).get("Message-ID", "none")).strip()


def as_sent(data: bytes) -> bytes:
    """A file's line ends as they are on the wire."""
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def without_marks(raw: bytes) -> bytes:
    """A message without the fields that the programs put into what they store."""
    head, end, body = raw.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(_MARKS)]
    return b"\r\n".join(lines) + end + body


@dataclass(frozen=True, kw_only=True)
class Maildir:
    """A Maildir on the disk; its messages are told as they would be on the wire, without marks."""

    path: Path

    def message(self, path: Path) -> bytes:
        """One message."""
        return without_marks(as_sent(path.read_bytes()))

    def files(self) -> list[Path]:
        """Its messages."""
        return sorted(p for part in ("cur", "new") for p in (self.path / part).glob("*") if p.is_file())

    def digests(self) -> list[str]:
        """SHA-256 of each message, sorted."""
        return sorted(sha256(self.message(path)) for path in self.files())

    def find(self, digest: str) -> Path:
        """The file of this message."""
        (path,) = (path for path in self.files() if sha256(self.message(path)) == digest)
        return path

    def flags(self, digest: str) -> set[str]:
        """Its letters: S seen, F flagged, R replied, T trashed, D draft."""
        _, _, letters = self.find(digest).name.partition(":2,")
        return set(letters)

    def mark(self, digest: str, letters: str) -> None:
        """As a mail reader marks a message: by its new name, in cur."""
        path = self.find(digest)
        base, _, _ = path.name.partition(":2,")
        path.rename(self.path / "cur" / f"{base}:2,{''.join(sorted(letters))}")

    def deliver(self, raw: bytes, name: str) -> None:
        """As a delivery program does."""
        (self.path / "new" / name).write_bytes(raw.replace(b"\r\n", b"\n"))
