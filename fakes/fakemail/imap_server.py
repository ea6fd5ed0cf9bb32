"""IMAP on a socket: an asyncio shell around the protocol core, which also carries out faults.

Rule 1: a reply is one write, TCP_NODELAY is on and TCP_QUICKACK is set again after every read: clients that send a
command in two writes would otherwise wait 40 ms for a delayed ACK. Rule 2: a slow reader stops its own generator, no
other connection, and its answer is made piece by piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Coroutine, Sequence

from fakemail.faults import Action, Plan
from fakemail.imap_protocol import Close, Delay, ImapSession, Wait
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore


def quick(transport: asyncio.BaseTransport) -> None:
    """Acknowledge what has arrived at once (Linux forgets the wish after a while, hence after each read)."""
    sock = transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_QUICKACK"):
        return
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


def no_delay(transport: asyncio.BaseTransport) -> None:
    """Send what is written at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class ImapConnection(asyncio.Protocol):
    """One client."""

    def __init__(
        self, store: MailStore, ledger: Ledger, plan: Plan, connections: set[asyncio.Transport] | None = None
    ) -> None:
        self._store, self._ledger, self._plan = store, ledger, plan
        #: Shared by all: who stops the servers ends what is in it.
        self._connections = set() if connections is None else connections
        self._served: Counter[str] = Counter()
        self._number = ledger.open_connection()
        self._session = ImapSession(store, note=self._note, decide=self._decide)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def _note(self, kind: str, **facts: object) -> None:
        if kind == "served":
            # Counted, and told at the end: an entry a command would push deliveries out of the ledger.
            self._served[str(facts["command"])] += 1
            return
        self._ledger.record(protocol="imap", connection=self._number, kind=kind, **facts)

    def _decide(self, point: str, **context: str | Sequence[str]) -> Action | None:
        action = self._plan.decide(point, **context)
        if action is not None:
            self._note("fault", fault_id=action.fault_id, point=point)
        return action

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet, or do what a fault says instead."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # TCP and TLS both are
        self._transport = transport
        no_delay(transport)
        quick(transport)
        self._connections.add(transport)
        self._note("connect")
        self._store.watchers.add(self._wake)
        self._start(self._greet())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """A mistake of ours is told, and no client is left waiting for it."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._abort()
        asyncio.get_running_loop().call_exception_handler({"message": "IMAP session failed", "exception": error})

    async def _greet(self) -> None:
        action = self._plan.decide("imap.connect")
        if action is None:
            await self._write(self._session.greeting())
        else:
            self._note("fault", fault_id=action.fault_id, point="imap.connect")
            await asyncio.sleep(action.delay_ms / 1000)
            if action.drop:
                self._abort()
                return
            if action.reply is not None:
                await self._write(f"* {action.reply}\r\n".encode())
                self._close()
                return
            await self._write(self._session.greeting())
        await self._drain()

    def data_received(self, data: bytes) -> None:
        """Feed the core; if it is not at work, set it to work."""
        if self._transport is not None:
            quick(self._transport)
        self._session.feed(data)
        self._wake()

    def _wake(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._task is None or self._task.done():
            self._start(self._drain())
        else:
            self._again = True

    async def _drain(self) -> None:
        """Write what the core says until it wants more."""
        self._again = True
        while self._again:
            self._again = False
            pending = bytearray()
            for event in self._session.events():
                if isinstance(event, bytes):
                    pending += event
                    # Short answers are joined into one write; long ones go out in their pieces.
                    if len(pending) < 65_536:  # noqa: PLR2004  # half of a piece
                        continue
                await self._write(bytes(pending))
                pending.clear()
                if isinstance(event, Delay):
                    await asyncio.sleep(event.delay_ms / 1000)
                elif isinstance(event, Close):
                    self._abort() if event.abrupt else self._close()
                    return
                elif isinstance(event, Wait):
                    break
            await self._write(bytes(pending))

    async def _write(self, data: bytes) -> None:
        await self._writable.wait()
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def pause_writing(self) -> None:
        """The client reads slowly: wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        del exc
        self._store.watchers.discard(self._wake)
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._connections.discard(self._transport)
        self._note_end()

    def _note_end(self) -> None:
        user = self._session.user
        if self._served:
            self._ledger.record(
                protocol="imap", connection=self._number, kind="served", user=user, commands=dict(self._served)
            )
        self._note("disconnect", user=user)
