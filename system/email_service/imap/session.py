"""A session with a mailbox: its folders, and what is new in one of them since a token.

Rule 1: a message is (folder, UIDVALIDITY, UID); a token says up to which UID all has been handed out.
Rule 2: a batch is bounded by count and by bytes.
Rule 3: it reads only: EXAMINE and BODY.PEEK leave no trace in the mailbox.
"""

from __future__ import annotations

import imaplib
import ssl
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Final

from email_service.errors import ConnectError, ImapError, InvalidRequestError, MailServerError
from email_service.imap.replies import (
    Value,
    decode_name,
    encode_name,
    integer,
    items_of,
    listed_folder,
    message_of,
    replies_of,
    tokens,
    typed_folders,
    uid_set,
)
from email_service.imap.values import Batch, ImapEndpoint, Known, RemoteFolder, RemoteMessage, SyncToken
from email_service.imap.wire import Wire, accepted, errors, log_in, span
from email_service.signals import (
    IMAP_BYTES,
    IMAP_FOLDER,
    IMAP_MESSAGES,
    SERVER_ADDRESS,
    SERVER_PORT,
    SPAN_IMAP_CONNECT,
    SPAN_IMAP_FETCH,
    SPAN_IMAP_LOGIN,
    SPAN_IMAP_SELECT,
)

#: Most bytes of messages that one FETCH asks for (one larger message comes alone).
BATCH_BYTES_MAX: Final = 8 * 1024 * 1024
#: UIDs in one command: servers need not take lines above 8,192 octets (RFC 7162 section 4).
_UIDS_AT_ONCE: Final = 500
_LOGOUT_TIMEOUT_S: Final = 2.0
_GONE: Final[Mapping[bytes, Value]] = {b"BODY[]": None}
_ENCRYPTIONS: Final = ("none", "starttls", "tls")


@contextmanager
def open_session(
    endpoint: ImapEndpoint, timeout_s: float, *, tls: ssl.SSLContext | None = None
) -> Iterator[ImapSession]:
    """A logged-in session; ``timeout_s`` bounds each wait, ``tls`` replaces the system's trust.

    Raises:
        ConnectError: no session, or no encryption where it is demanded.
        AuthenticationError: the account was refused; transient if the server says so.
    """
    if endpoint.encryption not in _ENCRYPTIONS:
        raise InvalidRequestError(
            f"encryption is {endpoint.encryption!r}; it must be one of: {', '.join(_ENCRYPTIONS)}"
        )
    with span(SPAN_IMAP_CONNECT, _peer(endpoint)), errors("connect", broken=ConnectError, refused=ConnectError):
        wire = Wire(endpoint, timeout_s, tls)
    try:
        with span(SPAN_IMAP_LOGIN, _peer(endpoint)):
            log_in(wire, endpoint)
        yield ImapSession(wire)
        # Nothing depends on the answer; after an error the stream may stand within a reply, so it is just closed.
        with suppress(OSError, imaplib.IMAP4.error, MailServerError):
            wire.sock.settimeout(_LOGOUT_TIMEOUT_S)
            wire.logout()
    finally:
        wire.shutdown()


class ImapSession:
    """What can be asked of a mailbox."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        #: Names as the server wrote them: not every server's modified UTF-7 survives decoding and encoding.
        self._wire_names: dict[str, bytes] = {}

    def folders(self) -> list[RemoteFolder]:
        """All folders that can be read, in the server's order.

        Raises:
            ImapError: the server refused, or broke off.
        """
        with errors("LIST"):
            replies = [tokens(pieces) for pieces in replies_of(accepted("LIST", self._wire.list('""', "*")))]
        listed = [folder for folder in map(listed_folder, replies) if folder is not None]
        self._wire_names = {decode_name(name): name for _, _, name in listed}
        return typed_folders(listed)

    def changes_since(self, folder: str, token: SyncToken | None, known: Known, *, batch: int = 100) -> Iterator[Batch]:
        """What the folder holds beyond the token, oldest first: at least one batch, be it empty.

        Commit each batch's rows with its token before taking the next. A UIDVALIDITY other than the token's makes
        the first batch a ``reset``, and begins at the beginning.

        Raises:
            ImapError: the server refused, or broke off; ``transient`` says whether a retry may help.
        """
        uidvalidity, highestmodseq = self._examine(folder)
        good = token if token is not None and token.uidvalidity == uidvalidity else None
        last_uid = good.last_uid if good else 0
        # Flags that change later are not read yet: the token must not claim that they were.
        modseq = good.highestmodseq if good else highestmodseq
        uids = self._search(last_uid)
        reset = good is None
        for group in self._groups(uids, batch) if uids else [[]]:
            yield Batch(
                uidvalidity=uidvalidity,
                reset=reset,
                messages=self._fetch(folder, group) if group else (),
                flags={},
                vanished=(),
                unreadable=(),
                token=SyncToken(
                    uidvalidity=uidvalidity, last_uid=group[-1] if group else last_uid, highestmodseq=modseq
                ),
                more=bool(group) and group[-1] != uids[-1],
            )
            reset = False

    def _examine(self, folder: str) -> tuple[int, int | None]:
        """Open the folder for reading: its UIDVALIDITY and HIGHESTMODSEQ."""
        with span(SPAN_IMAP_SELECT, {IMAP_FOLDER: folder}), errors("EXAMINE"):
            accepted("EXAMINE", self._wire.examine(self._wire_names.get(folder) or encode_name(folder)))
            uidvalidity = self._wire.number("UIDVALIDITY")
            if uidvalidity is None:
                raise ImapError(
                    "the server gives the folder no UIDVALIDITY, so its UIDs can't be kept", transient=False
                )
            return uidvalidity, self._wire.number("HIGHESTMODSEQ")

    def _search(self, last_uid: int) -> list[int]:
        with errors("UID SEARCH"):
            lines = accepted("UID SEARCH", self._wire.uid("SEARCH", "UID", f"{last_uid + 1}:*"))
        found = {int(word) for line in lines if isinstance(line, bytes) for word in line.split() if word.isdigit()}
        # "n:*" is "*:n" too (RFC 3501 section 6.4.8): the last message comes back even if it is older.
        return sorted(uid for uid in found if uid > last_uid)

    def _groups(self, uids: list[int], count_max: int) -> Iterator[list[int]]:
        """UIDs in order, as many at once as count and bytes allow."""
        group: list[int] = []
        size_bytes = 0
        for uid, size in self._sizes(uids):
            if group and (len(group) >= count_max or size_bytes + size > BATCH_BYTES_MAX):
                yield group
                group, size_bytes = [], 0
            group.append(uid)
            size_bytes += size
        yield group

    def _sizes(self, uids: Iterable[int]) -> Iterator[tuple[int, int]]:
        """Each UID with its size; 0 for one that is gone by now."""
        rest = iter(uids)
        while some := list(islice(rest, _UIDS_AT_ONCE)):
            items = self._ask(some, "(UID RFC822.SIZE)")
            for uid in some:
                yield uid, integer(items.get(uid, {}).get(b"RFC822.SIZE")) or 0

    def _fetch(self, folder: str, uids: list[int]) -> tuple[RemoteMessage, ...]:
        with span(SPAN_IMAP_FETCH, {IMAP_FOLDER: folder}) as fetching:
            items = self._ask(uids, "(UID FLAGS INTERNALDATE BODY.PEEK[])")
            # No reply, or a body of NIL: deleted since the search, and past.
            there = [uid for uid in uids if items.get(uid, _GONE).get(b"BODY[]", b"") is not None]
            messages = tuple(message_of(uid, items[uid]) for uid in there)
            fetching.set_attribute(IMAP_MESSAGES, len(messages))
            fetching.set_attribute(IMAP_BYTES, sum(message.size_bytes for message in messages))
            return messages

    def _ask(self, uids: list[int], what: str) -> dict[int, dict[bytes, Value]]:
        """UID FETCH: the items of each message, by UID; replies without a UID are news that nobody asked for."""
        with errors("UID FETCH"):
            pieces = accepted("UID FETCH", self._wire.uid("FETCH", uid_set(uids), what))
            found: dict[int, dict[bytes, Value]] = {}
            for reply in map(tokens, replies_of(pieces)):
                items = items_of(reply)
                if (uid := integer(items.get(b"UID"))) is not None:
                    found.setdefault(uid, {}).update(items)
            return found


def _peer(endpoint: ImapEndpoint) -> dict[str, str | int]:
    return {SERVER_ADDRESS: endpoint.host, SERVER_PORT: endpoint.port}
