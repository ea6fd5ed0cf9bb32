"""SMTP on aiosmtpd: every verb passes the fault plan, every message taken is in the ledger (RFC 5321).

Recipients of every domain are accepted; a message goes into the INBOX of each recipient who is a user here, and of the
others only the ledger knows. ``accepted`` is recorded before the reply, also when a fault then cuts the connection:
that is the case in which only the ledger can say what happened.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from fakemail.faults import Action, Plan
from fakemail.imap_server import no_delay, quick
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore
from fakemail.mime import field_value, header_block

SIZE_BYTES_MAX: Final = 50 * 1024 * 1024
#: How much of a message's header the ledger keeps.
HEADER_BYTES_MAX: Final = 16_384
_Method = Callable[[str], Awaitable[None]]


class Handler:
    """aiosmtpd's hooks."""

    def __init__(
        self, store: MailStore, ledger: Ledger, plan: Plan, connections: set[asyncio.Transport] | None = None
    ) -> None:
        self._store, self._ledger, self._plan = store, ledger, plan
        #: Shared by all: who stops the servers ends what is in it.
        self.connections = set() if connections is None else connections

    def note(self, server: SmtpConnection, kind: str, **facts: object) -> None:
        """An entry for the ledger."""
        self._ledger.record(protocol="smtp", connection=server.number, kind=kind, **facts)

    def open_connection(self) -> int:
        """A number for a new connection."""
        return self._ledger.open_connection()

    def authenticate(self, user: str, password: str) -> bool:
        """Whether the user may log in."""
        return self._store.login(user, password) is not None

    def decide(self, server: SmtpConnection, point: str, **context: Any) -> Action | None:
        """Ask the plan, and write down what it says."""
        action = self._plan.decide(point, **context)
        if action is not None:
            self.note(server, "fault", fault_id=action.fault_id, point=point)
        return action

    async def carry_out(self, server: SmtpConnection, action: Action | None) -> str | None:
        """Wait, cut the line or answer; None when the verb goes on as usual."""
        if action is None:
            return None
        if action.delay_ms:
            await asyncio.sleep(action.delay_ms / 1000)
        if action.drop:
            server.cut()
            # Never sent: the line is cut. aiosmtpd needs an answer to go on.
            return "421 4.3.0 Connection lost"
        return action.reply

    async def handle_EHLO(  # noqa: N802  # aiosmtpd's names
        self, _server: SmtpConnection, session: Session, _envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Answer in one write (section 4.1.1.1): aiosmtpd writes each item of the list by itself."""
        session.host_name = hostname
        return ["\r\n".join(responses)]

    async def handle_MAIL(  # noqa: N802  # aiosmtpd's names
        self, server: SmtpConnection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """MAIL FROM (section 4.1.1.2)."""
        action = self.decide(server, "smtp.mail", sender=address, user=_user(session))
        if reply := await self.carry_out(server, action):
            return reply
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SmtpConnection, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """RCPT TO (section 4.1.1.3)."""
        server.recipient = address
        who = {"sender": envelope.mail_from or "", "user": _user(session)}
        action = self.decide(server, "smtp.rcpt", recipient=address, **who)
        if reply := await self.carry_out(server, action):
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def before_data(self, server: SmtpConnection, session: Session, envelope: Envelope) -> str | None:
        """DATA, before the 354 (section 4.1.1.4)."""
        action = self.decide(server, "smtp.data", **_context(session, envelope))
        return await self.carry_out(server, action)

    async def handle_DATA(self, server: SmtpConnection, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """The message has arrived: it is ours now, whatever becomes of the reply (section 6.1).

        A fault that replies 4xx or 5xx here makes a server that keeps what it says it refused.
        """
        raw = envelope.original_content or b""
        header = header_block(raw)
        action = self.decide(server, "smtp.accepted", **_context(session, envelope))
        self.note(
            server,
            "accepted",
            mail_from=envelope.mail_from,
            rcpt_to=list(envelope.rcpt_tos),
            size_bytes=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
            message_id=field_value(header, "message-id"),
            header=header[:HEADER_BYTES_MAX].decode("utf-8", errors="replace"),
            replied=action is None or not action.drop,
        )
        self._store.deliver(envelope.rcpt_tos, raw)
        return await self.carry_out(server, action) or "250 2.0.0 OK, taken"


class _Session(Session):  # type: ignore[misc]  # aiosmtpd ships no types
    """aiosmtpd 1.4.6 warns about its own use of ``login_data`` at every login; nothing here reads it."""

    login_data: Any = None


class SmtpConnection(SMTP):  # type: ignore[misc]  # aiosmtpd ships no types
    """One client, with the socket options that the fake IMAP server has too."""

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self.number = handler.open_connection()
        self._fakes = handler
        #: The verb at work and its recipient, for the ledger.
        self._verb = ""
        self.recipient = ""
        # aiosmtpd 1.4.6 keeps this on the class: one client's EHLO would change the limits of all.
        self.command_size_limits: dict[str, int] = defaultdict(lambda: self.command_size_limit)
        super().__init__(
            handler,
            data_size_limit=SIZE_BYTES_MAX,
            enable_SMTPUTF8=True,
            auth_require_tls=False,
            authenticator=_authenticator(handler),
            # Without a name aiosmtpd asks the resolver at every connection.
            hostname="localhost",
            ident="fakemail",
            loop=loop,
        )
        methods: dict[str, _Method] = self._smtp_methods
        self._smtp_methods: dict[str, _Method] = {name: self._named(name, each) for name, each in methods.items()}

    def _create_session(self) -> Session:
        return _Session(self.loop)

    def _named(self, name: str, method: _Method) -> _Method:
        @functools.wraps(method)
        async def run(arg: str) -> None:
            self._verb, self.recipient = name, ""
            await method(arg)
            self._verb = ""

        return run

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note it, and set the socket up."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP and TLS both are
        self._fakes.note(self, "connect")
        no_delay(transport)
        quick(transport)
        self._fakes.connections.add(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Acknowledge at once."""
        if self.transport is not None:
            quick(self.transport)
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Note it."""
        self._fakes.note(self, "disconnect")
        self._fakes.connections.discard(self.transport)
        super().connection_lost(error)

    def cut(self) -> None:
        """End the connection as if the cable was cut."""
        if self.transport is not None:
            self.transport.abort()

    async def push(self, status: Any) -> None:
        """Write a reply, unless the line is cut; note a refusal; after a 421 close (section 3.8)."""
        if self.transport is None or self.transport.is_closing():
            return
        text = status.decode("utf-8", errors="replace") if isinstance(status, bytes) else str(status)
        if text[:1] in {"4", "5"}:
            whom = {"recipient": self.recipient} if self.recipient else {}
            self._fakes.note(self, "refused", command=self._verb, reply_code=int(text[:3]), reply=text, **whom)
        await super().push(status)
        if text.startswith("421") and self.transport is not None:
            self.transport.close()

    async def _handle_client(self) -> None:
        """A fault before the 220 comes before everything else."""
        action = self._fakes.decide(self, "smtp.connect")
        self._verb = "connect"
        reply = await self._fakes.carry_out(self, action)
        if reply is not None:
            await self.push(reply)
            if self.transport is not None:
                self.transport.close()
            return
        await super()._handle_client()

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802  # aiosmtpd finds verbs by name
        """A fault before the 354 is an answer to DATA."""
        ready = not arg and self.envelope is not None and bool(self.envelope.rcpt_tos) and self.session is not None
        if ready:
            reply = await self._fakes.before_data(self, self.session, self.envelope)
            if reply is not None:
                await self.push(reply)
                return
        await super().smtp_DATA(arg)


def _authenticator(handler: Handler) -> Any:
    def check(server: SmtpConnection, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        if not isinstance(data, LoginPassword):
            return AuthResult(success=False, handled=False)
        user, password = (part.decode("utf-8", errors="replace") for part in (data.login, data.password))
        success = handler.authenticate(user, password)
        handler.note(server, "login", user=user.lower(), success=success)
        return AuthResult(success=success, handled=False, auth_data=user)

    return check


def _user(session: Session) -> str:
    return str(session.auth_data or "") if session.authenticated else ""


def _context(session: Session, envelope: Envelope) -> dict[str, Any]:
    recipients = list(envelope.rcpt_tos)
    return {"recipient": recipients, "sender": envelope.mail_from or "", "user": _user(session)}
