"""IMAP on a socket: an asyncio shell around the protocol core, which also carries out what the core asks for.

Owns: sockets, turns, waiting, pace, TLS. Never does: the protocol. Called by: serving.

Rule 1: a reply is one write, TCP_NODELAY is on and TCP_QUICKACK is set again after every read: clients that send a
command in two writes would otherwise wait 40 ms for a delayed ACK.
Rule 2: there is no task for a connection; what waits is a generator. A slow reader stops its own, and an answer that is
long gives way to others after every turn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Final

from fakemail.faults import Action, Plan
from fakemail.imap_protocol import (
    Close,
    Delay,
    Event,
    Gather,
    ImapOptions,
    ImapSession,
    Pace,
    Pause,
    Piece,
    Stall,
    StartTls,
)
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore
from fakemail.sockets import no_delay, quick
from fakemail.tls import Certificates, Handshake, TlsGate

#: The first write of a long answer has so many bytes, so that its first row goes out at once; each further one has
#: eight times as many, up to the last.
WRITE_BYTES_MIN: Final = 4096
WRITE_BYTES_MAX: Final = 262_144
#: After so many bytes it is the others' turn.
TURN_BYTES: Final = 524_288
#: What a client may send ahead while its own answers are not read.
AHEAD_BYTES_MAX: Final = 1_048_576
#: Pieces in one system call (IOV_MAX is 1024 on Linux and macOS).
_IOV_MAX: Final = 1000
#: How often a paced answer goes on.
_PACE_S: Final = 0.05


class ImapConnection(asyncio.Protocol):
    """One client."""

    def __init__(
        self,
        store: MailStore,
        ledger: Ledger,
        plan: Plan,
        connections: set[asyncio.Transport] | None = None,
        *,
        options: ImapOptions | None = None,
        certificates: Certificates | None = None,
        idle_timeout_s: float | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._store, self._ledger, self._plan = store, ledger, plan
        self._options, self._certificates = options or ImapOptions(), certificates
        #: Shared by all: who stops the servers ends what is in it.
        self._connections = set() if connections is None else connections
        self._loop = loop or asyncio.get_running_loop()
        self._number = ledger.open_connection()
        self._session = self._new_session()
        self._transport: asyncio.Transport | None = None
        self._pending: list[Piece] = []
        self._pending_bytes, self._enough_bytes = 0, WRITE_BYTES_MIN
        #: No more is asked of the core until what is named here has happened.
        self._blocked: set[str] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._scheduled = self._pumping = self._tls = self._reading_paused = False
        self._bytes_per_s: int | None = None
        self._why = "the client left"
        self._idle_timeout_s = idle_timeout_s
        self._active_at = 0.0

    def _new_session(self) -> ImapSession:
        return ImapSession(
            self._store, note=self._note, decide=self._decide, active=self._plan.active, options=self._options,
            wake=self._soon, gathers=True,
        )  # fmt: skip

    # --- ledger and faults ---

    def _note(self, kind: str, **facts: object) -> None:
        self._ledger.record(protocol="imap", connection=self._number, kind=kind, **facts)

    def _decide(self, point: str, **context: str | Sequence[str]) -> Action | None:
        user = str(context.pop("user", ""))
        action = self._plan.decide(point, connection=self._number, user=user, **context)
        if action is not None:
            self._note("fault", fault_id=action.fault_id, point=point, user=user, **_told(context))
        return action

    # --- the way in ---

    def tcp_made(self, transport: asyncio.Transport) -> None:
        """TCP is there; the port speaks TLS from the first byte."""
        self._accept(transport, tls=True)

    def handshake(self) -> Handshake:
        """What a fault makes of the handshake."""
        action = self._decide("imap.tls")
        if action is None:
            return Handshake()
        return Handshake(
            delay_s=action.delay_ms / 1000, drop=action.drop, stall=action.stall, alert=action.alert,
            certificate=action.certificate or "valid",
        )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or do what a fault says instead; after STARTTLS go on."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP and TLS both are
        upgraded = "tls" in self._blocked
        if self._transport is None:
            self._accept(transport, tls=False)
        else:
            self._connections.discard(self._transport)
            self._connections.add(transport)
            self._transport, self._tls = transport, True
            self._session.tls_started()
        transport.set_write_buffer_limits(high=WRITE_BYTES_MAX)
        if upgraded:
            self._unblock("tls")
        else:
            self._greet()

    def _accept(self, transport: asyncio.Transport, *, tls: bool) -> None:
        self._transport = transport
        no_delay(transport)
        quick(transport)
        self._connections.add(transport)
        peer = transport.get_extra_info("peername")
        self._note("connect", tls=tls, peer=f"{peer[0]}:{peer[1]}" if peer else "")
        self._full = not self._store.has_room("imap")
        self._store.connections["imap", ""] += 1
        if self._idle_timeout_s is not None:
            self._after(self._idle_timeout_s, self._check_idle)

    def _greet(self) -> None:
        if self._full:
            self._end(b"* BYE [UNAVAILABLE] Too many connections\r\n", "too many connections")
            return
        action = self._decide("imap.connect")
        if action is None:
            self._write(self._session.greeting())
            self._pump()
            return
        self._after(action.delay_ms / 1000, lambda: self._greet_faulty(action))
        self._blocked.add("greeting")

    def _greet_faulty(self, action: Action) -> None:
        if action.drop:
            self._abort("fault")
        elif action.reply is not None:
            self._end(f"* {action.reply}\r\n".encode(), "fault")
        elif not action.stall:
            self._write(self._session.greeting())
            self._unblock("greeting")

    def data_received(self, data: bytes) -> None:
        """Feed the core; if it is not at work, set it to work."""
        if self._transport is None:
            return
        quick(self._transport)
        self._active_at = self._loop.time()
        self._session.feed(data)
        if self._blocked and self._session.held_bytes > AHEAD_BYTES_MAX and not self._reading_paused:
            self._transport.pause_reading()
            self._reading_paused = True
        self._pump()

    # --- turns ---

    def _soon(self) -> None:
        """There may be something to say, but not within this call."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        self._pump()

    def _pump(self) -> None:
        """Write what the core says, until it wants more, must wait or has had its turn."""
        if self._blocked or self._pumping or self._transport is None or self._transport.is_closing():
            return
        self._pumping = True
        try:
            self._one_turn()
        except Exception as err:  # noqa: BLE001  # a mistake of ours: it is told, and no client is left waiting for it
            self._abort("a defect")
            self._loop.call_exception_handler({"message": "IMAP session failed", "exception": err})
        finally:
            self._pumping = False
        if self._reading_paused and not self._blocked and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _one_turn(self) -> None:
        turn = 0
        for event in self._session.events():
            if isinstance(event, bytes):
                turn += len(event)
                self._put([event], len(event))
            elif isinstance(event, Gather):
                turn += event.size_bytes
                self._put(event.parts, event.size_bytes)
            else:
                self._flush()
                turn += self._carry_out(event)
            if self._blocked:
                return
            if turn >= TURN_BYTES:
                self._soon()
                return
        self._flush()
        self._enough_bytes = WRITE_BYTES_MIN

    def _put(self, parts: list[Piece], size_bytes: int) -> None:
        """Pieces wait for what follows them, so that an answer and its tagged OK are one write; but not for long."""
        if self._pending_bytes >= self._enough_bytes:
            self._flush()
            self._enough_bytes = min(8 * self._enough_bytes, WRITE_BYTES_MAX)
        self._pending += parts
        self._pending_bytes += size_bytes

    def _carry_out(self, event: Event) -> int:
        """What is more than bytes; answers how much of the turn it takes."""
        match event:
            case Pause():
                return TURN_BYTES
            case Delay(delay_ms=delay_ms):
                self._blocked.add("delay")
                self._after(delay_ms / 1000, lambda: self._unblock("delay"))
            case Pace(bytes_per_s=bytes_per_s):
                self._bytes_per_s = bytes_per_s
            case Stall():
                self._blocked.add("stall")
            case StartTls():
                self._start_tls()
            case Close(abrupt=True):
                self._abort("fault")
            case Close():
                self._why = "told to leave" if self._why == "the client left" else self._why
                self._blocked.add("closing")
                if "pace" not in self._blocked and self._transport is not None:
                    self._transport.close()
        return 0

    def _unblock(self, what: str) -> None:
        self._blocked.discard(what)
        self._pump()

    def _after(self, delay_s: float, run: Callable[[], None]) -> None:
        def fire() -> None:
            self._timers.discard(timer)
            run()

        timer = self._loop.call_later(delay_s, fire)
        self._timers.add(timer)

    def _start_tls(self) -> None:
        assert self._certificates is not None  # noqa: S101  # STARTTLS is not offered without
        assert self._transport is not None  # noqa: S101  # only who is connected asks
        self._blocked.add("tls")
        self._session.tls_started()
        TlsGate(self, certificates=self._certificates, loop=self._loop).take_over(self._transport)

    # --- the way out ---

    def _flush(self) -> None:
        if self._pending:
            parts, self._pending, self._pending_bytes = self._pending, [], 0
            self._gather(parts)

    def _write(self, data: bytes) -> None:
        if not data or self._transport is None or self._transport.is_closing():
            return
        if self._bytes_per_s is None:
            self._transport.write(data)
            return
        self._blocked.add("pace")
        self._paced(memoryview(data))

    def _gather(self, parts: list[Piece]) -> None:
        """Write pieces without putting them together, straight to the socket where nothing waits before them.

        Joining and a second copy in the transport would take a third of the time that a large FETCH takes.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._tls or self._bytes_per_s is not None or transport.get_write_buffer_size():
            self._write(b"".join(parts))
            return
        at = 0
        while at < len(parts):
            some = parts[at : at + _IOV_MAX]
            try:
                sent = os.writev(transport.get_extra_info("socket").fileno(), some)
            except OSError:
                # Full, or the client is gone: the transport waits for the one and finds out the other.
                sent = 0
            at += _IOV_MAX
            if sent < sum(map(len, some)):
                self._write(b"".join([*_unsent(some, sent), *parts[at:]]))
                return

    def _paced(self, data: memoryview) -> None:
        """So many bytes a second, in small pieces."""
        piece = max(1, int((self._bytes_per_s or 1) * _PACE_S))
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(bytes(data[:piece]))
        rest = data[piece:]
        wait_s = _PACE_S if self._bytes_per_s is None else min(piece, len(data)) / self._bytes_per_s
        self._after(wait_s, lambda: self._paced(rest) if rest else self._paced_out())

    def _paced_out(self) -> None:
        if "closing" in self._blocked and self._transport is not None:
            self._transport.close()
        self._unblock("pace")

    def pause_writing(self) -> None:
        """The client reads slowly: wait."""
        self._blocked.add("reader")

    def resume_writing(self) -> None:
        """It has caught up; its turn comes with the others'."""
        self._blocked.discard("reader")
        self._soon()

    def _end(self, last: bytes, why: str) -> None:
        self._why = why
        self._flush()
        self._write(last)
        self._blocked.add("closing")
        if self._transport is not None:
            self._transport.close()

    def _abort(self, why: str) -> None:
        self._why = why
        self._blocked.add("closing")
        if self._transport is not None:
            self._transport.abort()

    def _check_idle(self) -> None:
        """Whoever says nothing for too long is logged out (RFC 3501 section 5.4)."""
        assert self._idle_timeout_s is not None  # noqa: S101  # it has set the timer
        left_s = self._active_at + self._idle_timeout_s - self._loop.time()
        if left_s <= 0:
            self._end(b"* BYE Idle for too long\r\n", "idle for too long")
        else:
            self._after(left_s, self._check_idle)

    def eof_received(self) -> bool:
        """The client has said its last: what it asked for is answered no more."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._transport is None:
            return
        self._connections.discard(self._transport)
        user = self._session.user
        counts = self._store.connections
        counts["imap", user] -= 1
        if counts["imap", user] <= 0:
            del counts["imap", user]
        self._session.close()
        self._plan.forget(self._number)
        self._note("disconnect", user=user, why=self._why if exc is None else str(exc))
        self._transport = None


def _unsent(parts: list[Piece], sent: int) -> list[Piece]:
    """What is left of the pieces after so many bytes."""
    for at, part in enumerate(parts):
        if sent < len(part):
            return [memoryview(part)[sent:], *parts[at + 1 :]]
        sent -= len(part)
    return []


def _told(context: dict[str, str | Sequence[str]]) -> dict[str, str]:
    """What the ledger says of an event: of a command's names the fullest."""
    return {name: value if isinstance(value, str) else value[-1] for name, value in context.items() if value}
