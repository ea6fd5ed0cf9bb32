"""What an IMAP session takes and gives: pure data.

Rule 1: a message is (folder, UIDVALIDITY, UID) (RFC 3501 section 2.3.1.1); nothing here speaks of sequence numbers.
Rule 2: sets of UIDs are ranges, as servers may name four billion of them in a line.
Made by session, changes and moving; read by service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self, TypeAlias

from email_service.vault import Secret

#: Flags of one message, in the server's order and without \\Recent, which is the session's and not the message's.
Flags: TypeAlias = tuple[str, ...]
#: (first, last) -> UID -> flags of our rows with first <= UID <= last and the token's UIDVALIDITY: of all of them,
#: those of unreadable messages too, as a message without a row is read again.
Known: TypeAlias = Callable[[int, int], Mapping[int, Flags]]


@dataclass(frozen=True, kw_only=True)
class ImapEndpoint:
    """A server and an account on it."""

    #: The name that the certificate must bear.
    host: str
    port: int
    #: none, starttls or tls.
    encryption: str
    username: str
    #: A password, or the bearer token of ``auth`` xoauth2.
    password: Secret
    #: Connect to these, in turn; none: ask the name service for ``host``.
    addresses: tuple[str, ...] = ()
    #: password or xoauth2.
    auth: str = "password"


@dataclass(frozen=True, kw_only=True)
class FolderStatus:
    """What the server says of a folder without its being opened (RFC 3501 section 7.2.4, RFC 7162 section 3.1.2)."""

    uidvalidity: int | None
    uidnext: int | None
    messages: int | None
    highestmodseq: int | None


@dataclass(frozen=True, kw_only=True)
class RemoteFolder:
    """A folder that can be read."""

    #: Decoded from modified UTF-7.
    name: str
    #: inbox, sent, drafts, trash, spam, archive or custom; no two have the same, custom excepted.
    type: str
    #: None where the server does not tell it in its list (RFC 5819).
    status: FolderStatus | None = None


@dataclass(frozen=True, kw_only=True)
class RemoteMessage:
    """A message as it is on the server."""

    uid: int
    flags: Flags
    #: When the server got it, in UTC; None if it says nothing readable.
    internal_date: datetime | None
    #: Of ``raw``: some servers' RFC822.SIZE is not.
    size_bytes: int
    raw: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class UnreadableMessage:
    """A message that is there and that can't be had: too large, or the server will not hand it out."""

    uid: int
    flags: Flags
    internal_date: datetime | None
    #: What the server claims, None if it claims nothing.
    size_bytes: int | None
    #: Its header, empty if that can't be had either.
    header: bytes = field(repr=False)
    #: For people.
    reason: str


@dataclass(frozen=True, kw_only=True)
class SyncToken:
    """How far a folder has been read."""

    uidvalidity: int
    #: All messages up to this UID have been handed out, and none beyond.
    last_uid: int
    #: Flags of those messages are at least as new as this; None where the server keeps none (RFC 7162).
    highestmodseq: int | None
    #: The folder's UIDNEXT when it was read to its end; None while it is being read, or where none is told.
    uidnext: int | None = None
    #: Of the messages up to ``last_uid``, how many there were; None if unknown.
    messages: int | None = None

    def is_current(self, status: FolderStatus | None) -> bool:
        """Whether a folder of that status holds nothing that this token has not seen: it need not be opened."""
        return (
            status is not None
            # Without modification sequences flags change unnoticed; without UIDNEXT a folder was not read to its end.
            and None not in (self.highestmodseq, self.uidnext, self.messages)
            and status.uidvalidity == self.uidvalidity
            and status.highestmodseq == self.highestmodseq
            and status.uidnext == self.uidnext
            and status.messages == self.messages
        )

    def to_json(self) -> dict[str, Any]:
        """What the folder's row keeps."""
        return {
            "uidvalidity": self.uidvalidity,
            "last_uid": self.last_uid,
            "highestmodseq": self.highestmodseq,
            "uidnext": self.uidnext,
            "messages": self.messages,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The token of ``to_json``, also of one from before ``uidnext`` and ``messages``."""
        optional = {name: data.get(name) for name in ("highestmodseq", "uidnext", "messages")}
        return cls(
            uidvalidity=int(data["uidvalidity"]),
            last_uid=int(data["last_uid"]),
            **{name: None if value is None else int(value) for name, value in optional.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some changes of a folder, and the token that belongs into the commit of their rows.

    In this order they turn the rows of the last token into those of this one: reset, vanished, flags, messages and
    unreadable. Each can be done twice with the same end.
    """

    uidvalidity: int
    #: No UID of an earlier row names anything any more, whatever its UIDVALIDITY. On the first batch alone.
    reset: bool
    #: New, by UID.
    messages: tuple[RemoteMessage, ...]
    #: UID -> all of its flags, of messages handed out earlier; some may be as they were.
    flags: Mapping[int, Flags]
    #: UIDs that are gone, by UID; many may have no row.
    vanished: tuple[range, ...]
    #: New as well, by UID.
    unreadable: tuple[UnreadableMessage, ...]
    token: SyncToken
    #: Another batch follows.
    more: bool


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What became of messages that were to leave a folder."""

    #: UIDs that were there and have left.
    done: tuple[int, ...]
    #: UIDs that had gone before; those of an earlier try whose reply was lost are among them.
    gone: tuple[int, ...]
    #: Old -> new UID in the target, where the server tells it (RFC 4315 section 3).
    uids: Mapping[int, int]
    #: UIDVALIDITY of ``uids``; None if there are none.
    uidvalidity: int | None
