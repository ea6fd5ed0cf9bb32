"""A session with a mailbox: its folders, what has changed in one of them since a token, and what may be done to mail.

Rule 1: reading leaves no trace in the mailbox: EXAMINE and BODY.PEEK. ``moving`` alone writes.
Rule 2: one thread at a time, and one generator of changes at a time; asking for anything else ends the one before.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from email_service.errors import ConnectError, ImapError, InvalidRequestError, MailServerError
from email_service.imap import moving
from email_service.imap.changes import Asked, changes
from email_service.imap.login import log_in
from email_service.imap.names import decode_name, encode_name, folder_status, listed_folder, typed_folders
from email_service.imap.refusals import BrokenError, RefusedError, errors, span
from email_service.imap.replies import tokens
from email_service.imap.values import Batch, ImapEndpoint, Known, Moved, RemoteFolder, SyncToken
from email_service.imap.wire import LITERAL_BYTES_MAX, Reply, Wire
from email_service.signals import SERVER_ADDRESS, SERVER_PORT, SPAN_IMAP_CONNECT, SPAN_IMAP_LIST, SPAN_IMAP_LOGIN

_LOGOUT_TIMEOUT_S: Final = 2.0
_ENCRYPTIONS: Final = ("none", "starttls", "tls")
_AUTHS: Final = ("password", "xoauth2")


@contextmanager
def open_session(
    endpoint: ImapEndpoint,
    timeout_s: float,
    *,
    tls: ssl.SSLContext | None = None,
    message_bytes_max: int = LITERAL_BYTES_MAX,
) -> Iterator[ImapSession]:
    """A logged-in session; ``timeout_s`` bounds each wait, ``tls`` replaces the system's trust.

    Messages above ``message_bytes_max`` are handed out as unreadable.

    Raises:
        ConnectError: no session, or no encryption where it is demanded.
        AuthenticationError: the account was refused; transient if the server says so.
    """
    _check("encryption", endpoint.encryption, _ENCRYPTIONS)
    _check("auth", endpoint.auth, _AUTHS)
    where: dict[str, str | int] = {SERVER_ADDRESS: endpoint.host, SERVER_PORT: endpoint.port}
    with span(SPAN_IMAP_CONNECT, where), errors("connect", broken=ConnectError, refused=ConnectError):
        wire = Wire(endpoint, timeout_s, tls, literal_bytes_max=message_bytes_max)
    try:
        with span(SPAN_IMAP_LOGIN, where):
            log_in(wire, endpoint)
        yield ImapSession(wire)
        # Nothing depends on the answer; after an error the stream may stand within a reply, so it is just closed.
        with suppress(OSError, BrokenError, RefusedError, MailServerError):
            wire.leave(_LOGOUT_TIMEOUT_S)
    finally:
        wire.close()


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise InvalidRequestError(f"{name} is {value!r}; it must be one of: {', '.join(allowed)}")


class ImapSession:
    """What can be asked of a mailbox."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        #: Names as the server wrote them: not every server's modified UTF-7 survives decoding and encoding.
        self._wire_names: dict[str, bytes] = {}
        self._is_enabled = False

    def folders(self) -> list[RemoteFolder]:
        """All folders that can be read, in the server's order, with their status where the list tells it.

        Raises:
            ImapError: the server refused, or broke off.
        """
        with span(SPAN_IMAP_LIST, {}), errors("LIST"):
            replies = self._list()
            read = [(reply.kind, tokens(reply.pieces)[2:]) for reply in replies if reply.kind in {b"LIST", b"STATUS"}]
        listed = [folder for kind, values in read if kind == b"LIST" and (folder := listed_folder(values)) is not None]
        statuses = {
            values[0]: folder_status(values[1])
            for kind, values in read
            if kind == b"STATUS" and len(values) > 1 and isinstance(values[0], bytes) and isinstance(values[1], list)
        }
        self._wire_names = {decode_name(folder.name): folder.name for folder in listed}
        return typed_folders(listed, statuses)

    def changes_since(self, folder: str, token: SyncToken | None, known: Known, *, batch: int = 100) -> Iterator[Batch]:
        """What has changed in the folder since the token, oldest first: at least one batch, be it empty.

        Commit each batch's rows with its token before taking the next: whatever breaks off, the last token goes on
        from there. ``known`` is asked only where the server can't tell what changed. A UIDVALIDITY other than the
        token's makes the first batch a ``reset``, and begins at the beginning.

        Raises:
            ImapError: the server refused, or broke off; ``transient`` says whether a retry may help.
        """
        self._enable()
        wire_name = self._wire_name(folder)
        asked = Asked(name=folder, wire_name=wire_name, token=token, known=known, count_max=batch)
        return changes(self._wire, asked)

    def move(self, folder: str, uidvalidity: int, uids: Sequence[int], target: str) -> Moved:
        """Move messages to another folder. Doing it again, after a reply was lost, does no harm.

        Raises:
            UidValidityError: the UIDs are of another UIDVALIDITY; nothing was done.
            ImapError: the server refused, or broke off; some may have been moved.
        """
        where = moving.Where(name=folder, wire_name=self._wire_name(folder), uidvalidity=uidvalidity)
        return moving.move(self._wire, where, uids, self._wire_name(target))

    def expunge(self, folder: str, uidvalidity: int, uids: Sequence[int]) -> Moved:
        """Remove messages for good, and no others. Doing it again does no harm.

        Raises:
            UidValidityError: the UIDs are of another UIDVALIDITY; nothing was done.
            ImapError: the server refused, or broke off; some may be gone.
        """
        where = moving.Where(name=folder, wire_name=self._wire_name(folder), uidvalidity=uidvalidity)
        return moving.expunge(self._wire, where, uids)

    def ensure_folder(self, kind: str, name: str) -> RemoteFolder:
        """The folder of a type; where there is none, one of that name, made if need be.

        Raises:
            ImapError: the server refused, or broke off.
        """
        found = self._folder_of(kind, name)
        if found is None:
            self._wire_names[name] = moving.create(self._wire, kind, encode_name(name))
            found = self._folder_of(kind, decode_name(self._wire_names[name]))
        if found is None:
            raise ImapError(f"the server made the folder {name!r} and does not list it", transient=True)
        return found

    def _folder_of(self, kind: str, name: str) -> RemoteFolder | None:
        folders = self.folders()
        return next((f for f in folders if f.type == kind), None) or next((f for f in folders if f.name == name), None)

    def _list(self) -> list[Reply]:
        """LIST with all that the server puts into it (RFC 5258, 5819, 6154), or as RFC 3501 has it."""
        options = self._list_options()
        if options:
            try:
                return self._wire.run(b'LIST "" * RETURN (' + b" ".join(options) + b")")
            except RefusedError as err:
                if err.kind != b"BAD":
                    raise
        return self._wire.run(b'LIST "" *')

    def _list_options(self) -> list[bytes]:
        can = self._wire.capabilities
        options = [b"SPECIAL-USE"] if {b"LIST-EXTENDED", b"SPECIAL-USE"} <= can else []
        if b"LIST-STATUS" in can:
            modseq = b" HIGHESTMODSEQ" if b"CONDSTORE" in can or b"QRESYNC" in can else b""
            options.append(b"STATUS (MESSAGES UIDNEXT UIDVALIDITY" + modseq + b")")
        return options

    def _enable(self) -> None:
        """Switch QRESYNC on, once and before a folder is open (RFC 7162 section 3.2.5)."""
        if self._is_enabled or b"QRESYNC" not in self._wire.capabilities:
            return
        with errors("ENABLE"):
            try:
                replies = self._wire.run(b"ENABLE QRESYNC")
            except RefusedError:
                replies = []
        self._is_enabled = True
        if not any(reply.kind == b"ENABLED" and b"QRESYNC" in reply.text.upper().split() for reply in replies):
            self._wire.capabilities -= {b"QRESYNC"}

    def _wire_name(self, folder: str) -> bytes:
        return self._wire_names.get(folder) or encode_name(folder)
