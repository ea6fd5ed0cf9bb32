"""What an SMTP server knows and does apart from any one connection: users, faults, the ledger, delivery, limits.

Never does: sockets, verbs, replies' syntax. Made by: serving, once a server. Called by: verbs.

Rule 1: ``accepted`` is recorded before the reply, also when a fault then cuts the connection: that is the case in which
only the ledger can say what happened. Rule 2: recipients of every domain are taken unless an option says otherwise;
a message goes into the INBOX of each who is a user here, and of the others only the ledger knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from fakemail.faults import Action, Plan
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore
from fakemail.mime import field_value, header_block
from fakemail.smtp_server.options import SmtpOptions
from fakemail.smtp_server.session import SmtpSession, Transaction
from fakemail.smtp_server.stream import READ_BYTES
from fakemail.smtp_server.syntax import plain
from fakemail.smtp_server.trace import Way, trace_fields, with_protocol
from fakemail.tls import Certificates

#: How much of a message's header the ledger keeps.
HEADER_BYTES_MAX: Final = 16_384
_PROTOCOL: Final = "smtp"


class Handler:
    """One SMTP server: what all its connections share."""

    def __init__(
        self,
        store: MailStore,
        ledger: Ledger,
        plan: Plan,
        connections: set[asyncio.Transport] | None = None,
        *,
        options: SmtpOptions | None = None,
        certificates: Certificates | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store, self._ledger, self._plan, self._clock = store, ledger, plan, clock
        #: Whether any fault is set at a point: asked for each command.
        self.expects: Callable[[str], bool] = plan.active
        self.options = options or SmtpOptions()
        #: None: STARTTLS is not offered.
        self.certificates = certificates
        #: Shared by all: who stops the servers ends what is in it.
        self.connections = set() if connections is None else connections
        #: Every connection reads into it, and takes its bytes out at once.
        self.buffer = memoryview(bytearray(READ_BYTES))
        self.keywords = self.options.keywords - (frozenset() if certificates else {"STARTTLS"})

    # --- ledger and faults ---

    def open_connection(self) -> int:
        """A number for a new connection."""
        return self._ledger.open_connection()

    def note(self, connection: int, kind: str, **facts: object) -> None:
        """An entry for the ledger."""
        self._ledger.record(protocol=_PROTOCOL, connection=connection, kind=kind, **facts)

    def forget(self, connection: int) -> None:
        """The connection is over."""
        self._plan.forget(connection)

    def decide(self, point: str, connection: int, command: str, **context: Any) -> Action | None:
        """Ask the plan, and write down what it says."""
        action = self._plan.decide(point, connection=connection, command=command, **context)
        if action is not None:
            self.note(connection, "fault", fault_id=action.fault_id, point=point, command=command)
        return action

    # --- users and limits ---

    def login(self, mechanism: str, user: str, secret: str) -> bool:
        """Whether the user may come in."""
        if mechanism == "XOAUTH2":
            return self._store.login_token(user, secret) is not None
        return self._store.login(user, secret) is not None

    def has_room(self, user: str) -> bool:
        """Whether one more connection is within the limits: of this user, or of an empty name of anybody."""
        return self._store.has_room(_PROTOCOL, user)

    def count(self, user: str, change: int) -> None:
        """So many connections more, or fewer."""
        self._store.connections[_PROTOCOL, user] += change

    # --- mail ---

    def take(
        self, connection: int, session: SmtpSession, transaction: Transaction, raw: bytes, *, replied: bool
    ) -> None:
        """The message is ours now, whatever becomes of the reply (RFC 5321 section 6.1)."""
        header = header_block(raw)
        parameters = transaction.parameters
        self.note(
            connection,
            "accepted",
            mail_from=transaction.mail_from,
            rcpt_to=transaction.rcpt_tos,
            size_bytes=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
            message_id=message_id(header),
            header=header[:HEADER_BYTES_MAX].decode("utf-8", errors="replace"),
            replied=replied,
            user=session.user,
            tls=session.ssl is not None,
            body=parameters.body,
            smtputf8=parameters.smtputf8,
            dsn=_dsn(transaction),
            duration_ms=(time.monotonic_ns() - transaction.began_ns) // 1_000 / 1_000,
        )
        if self.options.trace_headers:
            raw = self._trace(connection, session, transaction) + raw
        self._store.deliver([plain(each) for each in transaction.rcpt_tos], raw)

    def _trace(self, connection: int, session: SmtpSession, transaction: Transaction) -> bytes:
        protocol = with_protocol(
            extended=session.extended_smtp,
            smtputf8=transaction.parameters.smtputf8,
            tls=session.ssl is not None,
            login=bool(session.user),
        )
        way = Way(
            hello=session.host_name or "",
            peer=str(session.peer[0]) if session.peer else "unknown",
            hostname=self.options.hostname,
            protocol=protocol,
            connection=connection,
            received=datetime.fromtimestamp(self._clock() // 1_000_000_000, tz=UTC),
        )
        return trace_fields(transaction.mail_from or "", way)


def message_id(header: bytes) -> str | None:
    """The same as ``field_value``, and for an ordinary header several times as fast: each message is asked for it."""
    start = (b"\n" + header.lower()).find(b"\nmessage-id")
    value, end = start + len(b"message-id:"), header.find(b"\r\n", start)
    ordinary = (
        0 <= start < end
        and header[value - 1 : value] == b":"
        and header[end + 2 : end + 3] not in {b" ", b"\t"}
        and header.count(b"\r\n") == header.count(b"\n") == header.count(b"\r")
    )
    return header[value:end].strip().decode("latin-1") if ordinary else field_value(header, "message-id")


def _dsn(transaction: Transaction) -> dict[str, Any]:
    """What the client said of notifications (RFC 3461); empty if nothing."""
    said: dict[str, Any] = {}
    if transaction.parameters.ret:
        said["ret"] = transaction.parameters.ret
    if transaction.parameters.envid:
        said["envid"] = transaction.parameters.envid
    if transaction.recipient_parameters:
        said["recipients"] = {
            address: {"notify": list(each.notify), "orcpt": each.orcpt}
            for address, each in transaction.recipient_parameters.items()
        }
    return said
