"""One SMTP connection as a conversation: its beginning and end, how a line becomes a verb and a refusal a reply.

Owns: the session and the message under way, limits, encryption, faults as they are suffered, the ledger's entries.
Never does: verbs (verbs, data), the socket (stream). Called by: stream, TlsGate, and the verbs that build on it.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Any, ClassVar, Final, TypeVar

from aiosmtpd.smtp import syntax

from fakemail.faults import Action
from fakemail.smtp_server.handler import Handler
from fakemail.smtp_server.reader import BadLine
from fakemail.smtp_server.session import SmtpSession, Transaction
from fakemail.smtp_server.stream import Stream, Work
from fakemail.smtp_server.syntax import RefusedError
from fakemail.tls import Handshake, TlsGate

#: RFC 5321 section 4.5.3.1.4, CR LF included, and what extensions add to it (RFC 1870, 3461, 4954, 6531).
LINE_BYTES: Final = 512
EXTENDED_LINE_BYTES: Final = {"MAIL": 2_048, "RCPT": 2_048, "AUTH": 12_288}
#: RFC 3207 section 4.
BEFORE_TLS: Final = frozenset({"NOOP", "EHLO", "STARTTLS", "QUIT"})
#: RFC 6409 section 4.3 and RFC 4954 section 6 name the others.
BEFORE_LOGIN: Final = frozenset({"NOOP", "EHLO", "HELO", "STARTTLS", "AUTH", "RSET", "HELP", "QUIT"})
#: Codes of commands that are no commands, or come out of turn.
MISTAKES: Final = frozenset({"500", "501", "502", "503", "504", "535", "555"})
#: What is no verb stays out of the ledger: it may be a password that came at the wrong moment.
UNKNOWN: Final = "?"
_ENHANCED: Final = re.compile(rb"(?m)^([245]\d\d[ -])[245]\.\d{1,3}\.\d{1,3} ")

_Verb = TypeVar("_Verb", bound=Callable[..., Work])


def described(text: str, *, extended: str = "", when: str | None = None) -> Callable[[_Verb], _Verb]:
    """Tell HELP a verb's syntax: aiosmtpd's decorator, with types."""
    decorate: Callable[[_Verb], _Verb] = syntax(text, extended=extended, when=when)
    return decorate


class _Nothing:
    """What is awaited where nothing goes wrong."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_NOTHING: Final = _Nothing()


class Conversation(Stream):
    """A connection that knows no verb yet."""

    #: By name; found once, and not, as by aiosmtpd, for each connection.
    _smtp_methods: ClassVar[Mapping[str, Callable[[Any, str], Work]]] = {}

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        options = handler.options
        super().__init__(loop=loop, buffer=handler.buffer, idle_s=options.idle_s)
        self.fakes = handler
        self.number = handler.open_connection()
        self.hostname = options.hostname
        self.session = SmtpSession(loop)
        self.envelope = Transaction()
        #: What the last EHLO offered; before it, and after HELO, nothing.
        self.offered: frozenset[str] = frozenset()
        #: The verb at work and its recipient, for the ledger.
        self.verb = self.recipient = ""
        if "ENHANCEDSTATUSCODES" in options.without:
            put = self.put
            self.put = lambda reply: put(_ENHANCED.sub(rb"\1", reply))
        self._guarded = options.tls_required or options.login_required
        self._greeted = False
        #: As whom the connection is counted; None before it is.
        self._counted: str | None = None
        self._mistakes = self._messages = self._began_ns = 0
        self._served: dict[str, int] = {}

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.session.ssl is not None

    # --- from the beginning to the end ---

    def tcp_made(self, transport: asyncio.Transport) -> None:
        """A client has connected."""
        self._began_ns = time.monotonic_ns()
        self.transport = transport
        peer = self.session.peer = transport.get_extra_info("peername")
        self.fakes.connections.add(transport)
        self.note("connect", peer=_printed(peer) if peer else "")

    def handshake(self) -> Handshake:
        """What shall become of the TLS handshake."""
        action = self.decide("smtp.tls")
        if action is None:
            return Handshake()
        if action.drop or action.alert:
            self.reason = "fault"
        return Handshake(
            delay_s=action.delay_ms / 1_000,
            drop=action.drop,
            stall=action.stall,
            alert=action.alert,
            certificate=action.certificate or "valid",
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or go on encrypted: then the client is a stranger again (RFC 3207 section 4.2)."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP and TLS both are
        if self.transport is None:
            self.tcp_made(transport)
        elif self.transport is not transport:
            self.fakes.connections.discard(self.transport)
            self.fakes.connections.add(transport)
        peer, self.session = self.session.peer, SmtpSession(self.loop)
        self.session.peer, self.session.ssl = peer, _encryption(transport)
        self.offered = frozenset()
        self._set_rset_state()
        if self.session.ssl is not None:
            self.note("tls", **self.session.ssl)
        if self._counted:
            self._count("")
        self.start(transport, None if self._greeted else self._greet())

    async def _greet(self) -> None:
        self._greeted, self.verb = True, "connect"
        try:
            await self.meet("smtp.connect")
            self.count_as("")
        except RefusedError as err:
            self._refuse(err)
            self.close("refused")
            return
        self.put(f"220 {self.hostname} ESMTP fakemail\r\n".encode())
        self.verb = ""

    def count_as(self, user: str) -> None:
        """Count the connection, or from now on as its user's; raises RefusedError if there is no room."""
        if not self.fakes.has_room(user):
            whose = " of this user" if user else ""
            raise RefusedError(f"421 4.7.0 Too many connections{whose}")
        self._count(user)

    def _count(self, user: str | None) -> None:
        if self._counted is not None:
            self.fakes.count(self._counted, -1)
        if user is not None:
            self.fakes.count(user, 1)
        self._counted = user

    def encrypt(self) -> None:
        """Give the connection to TLS; what came before it is forgotten, whoever sent it (RFC 3207 section 6)."""
        assert self.transport is not None  # noqa: S101  # a verb is at work
        assert self.fakes.certificates is not None  # noqa: S101  # or STARTTLS was refused
        self.flush()
        self.rest()
        TlsGate(self, certificates=self.fakes.certificates, loop=self.loop).take_over(self.transport)

    def ended(self, reason: str) -> None:
        """Tell the ledger."""
        if self.transport is not None:
            self.fakes.connections.discard(self.transport)
        self._count(None)
        user = self.session.user
        if self._served:
            self.note("served", user=user, commands=self._served)
        self.note(
            "disconnect",
            user=user,
            reason=reason,
            # At work when it ended: if it brings a message, nobody was told what became of that.
            command=self.verb,
            commands=sum(self._served.values()),
            messages=self._messages,
            duration_ms=(time.monotonic_ns() - self._began_ns) // 1_000 / 1_000,
        )
        self.fakes.forget(self.number)

    def timed_out(self) -> None:
        """RFC 5321 section 4.5.3.2.7."""
        self._refuse(RefusedError("421 4.4.2 Timeout"))

    def failed(self, error: Exception) -> None:
        """A mistake of ours is told to whoever runs the loop, and no client is left waiting for it."""
        self.loop.call_exception_handler({"message": "SMTP session failed", "exception": error, "protocol": self})
        self._refuse(RefusedError("421 4.3.0 Internal error"))

    # --- from a line to a reply ---

    async def serve(self, line: bytes | BadLine) -> None:
        """One command."""
        try:
            method, argument = self._read(line)
            await self.meet("smtp.command")
            if method is None:
                raise RefusedError(argument)  # noqa: TRY301  # every way out of a verb is the same
            if self._guarded:
                self._may_run()
            await method(self, argument)
        except RefusedError as err:
            self._refuse(err)
        self.verb = self.recipient = ""

    def _read(self, line: bytes | BadLine) -> tuple[Callable[[Any, str], Work] | None, str]:
        """(verb, argument), or (None, refusal)."""
        if isinstance(line, BadLine):
            self.verb = UNKNOWN
            return None, f"500 5.5.2 {line.problem}"
        word, _, rest = line.partition(b" ")
        name = word.upper().decode("ascii", errors="replace")
        method = self._smtp_methods.get(name)
        self.verb = name = UNKNOWN if method is None else name
        self._served[name] = self._served.get(name, 0) + 1
        if method is None:
            return None, "500 5.5.2 Command not recognized"
        if len(line) + 2 > LINE_BYTES and len(line) + 2 > self._line_bytes_max():
            return None, "500 5.5.2 Line too long"
        return method, rest.decode("utf-8", errors="surrogateescape").strip(" ")

    def _line_bytes_max(self) -> int:
        return EXTENDED_LINE_BYTES.get(self.verb, LINE_BYTES) if self.session.extended_smtp else LINE_BYTES

    def _may_run(self) -> None:
        options = self.fakes.options
        if options.tls_required and self.verb not in BEFORE_TLS and not self.tls:
            raise RefusedError("530 5.7.0 Must issue a STARTTLS command first")
        if options.login_required and self.verb not in BEFORE_LOGIN and not self.session.authenticated:
            raise RefusedError("530 5.7.0 Authentication required")

    async def push(self, status: Any) -> None:
        """How aiosmtpd's mechanisms of AUTH answer."""
        text = status.decode("utf-8", errors="replace") if isinstance(status, bytes) else str(status)
        if text[:1] in {"4", "5"}:
            raise RefusedError(text)
        self.put(f"{text}\r\n".encode())

    def _refuse(self, error: RefusedError) -> None:
        reply = error.reply
        whom = {"recipient": self.recipient} if self.recipient else {}
        self.note("refused", command=self.verb, reply_code=int(reply[:3]), reply=reply, user=self.session.user, **whom)
        self.put(f"{reply}\r\n".encode())
        self._mistakes += reply[:3] in MISTAKES
        if error.close or reply.startswith("421"):
            # RFC 5321 section 3.8: the server closes the channel after it.
            self.close("refused")
        elif self._mistakes > self.fakes.options.mistakes_max:
            self._mistakes = 0
            self._refuse(RefusedError("421 4.7.0 Too many mistakes"))

    def taken(self) -> None:
        """A message is the server's."""
        self._messages += 1
        self._mistakes = 0

    def note(self, kind: str, **facts: object) -> None:
        """An entry for the ledger."""
        self.fakes.note(self.number, kind, **facts)

    def _set_rset_state(self) -> None:
        self.envelope = Transaction()

    # --- faults ---

    def decide(self, point: str, **context: Any) -> Action | None:
        """Ask what shall go wrong, if anything may."""
        if not self.fakes.expects(point):
            return None
        transaction = self.envelope
        known = {"user": self.session.user, "sender": transaction.mail_from or "", "recipient": transaction.rcpt_tos}
        return self.fakes.decide(point, self.number, self.verb, **{**known, **context})

    def meet(self, point: str, **context: Any) -> Awaitable[Action | None]:
        """Await this: ask what shall go wrong, and let it; what is left to do is in the action."""
        # Nearly always nothing: not even a coroutine is made for it.
        return self._meet(point, context) if self.fakes.expects(point) else _NOTHING

    async def _meet(self, point: str, context: Mapping[str, Any]) -> Action | None:
        action = self.decide(point, **context)
        if action is not None:
            await self.suffer(action)
        return action

    async def suffer(self, action: Action) -> None:
        """Wait, stall, cut the line, refuse: whatever of it the action says; raises RefusedError for a reply."""
        if action.delay_ms:
            await self.pause(action.delay_ms / 1_000)
        if action.stall:
            await self.stall()
        if action.drop:
            self.cut("fault")
            # The end of the connection ends the verb.
            await self.stall()
        if action.reply is not None:
            raise RefusedError(action.reply, close=action.close)


def _printed(peer: tuple[Any, ...]) -> str:
    host, port = peer[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _encryption(transport: asyncio.Transport) -> dict[str, str] | None:
    """Version and cipher; None on a plain connection."""
    ssl_object = transport.get_extra_info("ssl_object")
    if ssl_object is None:
        return None
    cipher = ssl_object.cipher()
    return {"version": ssl_object.version() or "", "cipher": cipher[0] if cipher else ""}
