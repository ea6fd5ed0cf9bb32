"""What the servers and the control have in common, and what the control adds to it: waiting, cutting, clocks.

Owns: the open connections as people see them, those who wait for the ledger, the folders whose timeline runs by itself.
Never does: HTTP. Called by: serving (makes it and closes it), the handlers of this package.
"""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from fakemail.faults import Plan
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore, NotFoundError
from fakemail.timeline import Event, Weights

#: Turns of the loop in which a connection that was cut must be gone: TLS takes three.
_TURNS_MAX: Final = 100
#: Steps of a timeline between two looks at the sockets.
_STEPS: Final = 128


class WatchedLedger(Ledger):
    """A ledger that wakes those who wait for its next entry, and knows who is logged in on which connection."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._waiting: set[asyncio.Future[None]] = set()
        #: By connection.
        self.users: dict[int, str] = {}
        #: The number given last.
        self.opened = 0

    def open_connection(self) -> int:
        """A number for a new connection."""
        self.opened = super().open_connection()
        return self.opened

    def record(self, *, protocol: str, connection: int, kind: str, **facts: object) -> None:
        """Append an entry."""
        super().record(protocol=protocol, connection=connection, kind=kind, **facts)
        if kind == "login" and facts.get("success"):
            self.users[connection] = str(facts.get("user", ""))
        elif kind == "disconnect":
            self.users.pop(connection, None)
        if self._waiting:
            self.wake()

    def wake(self) -> None:
        """Let everybody look again."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, timeout_s: float) -> None:
        """Until the next entry, or until the time is over."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=timeout_s)
        finally:
            self._waiting.discard(waiter)


@dataclass(kw_only=True)
class Shared:
    """Everything that a handler may look at or change."""

    store: MailStore
    ledger: WatchedLedger
    plan: Plan
    #: Of all servers; each takes itself out when it ends.
    connections: set[asyncio.Transport] = field(default_factory=set)
    #: Protocol (smtp, imap) and number of every connection that there is.
    numbers: weakref.WeakKeyDictionary[asyncio.BaseProtocol, tuple[str, int]] = field(
        default_factory=weakref.WeakKeyDictionary
    )
    version: str
    #: Host and port by name, of those that listen.
    servers: dict[str, tuple[str, int]] = field(default_factory=dict)
    #: The certificate authority's certificate as PEM text; made when it is first asked for.
    ca_pem: Callable[[], str]
    #: Brings back users, mail, faults and limits of the start.
    restore: Callable[[], None]
    #: On the monotonic clock.
    started_s: float = field(default_factory=time.monotonic)
    #: Set at the end: who waits answers at once.
    closing: bool = False
    _clocks: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    def known(self, name: str, protocol: asyncio.BaseProtocol) -> asyncio.BaseProtocol:
        """Remember a connection that was just made, which has taken the ledger's last number."""
        self.numbers[protocol] = (name, self.ledger.opened)
        return protocol

    def connection_facts(self, transport: asyncio.Transport) -> dict[str, Any]:
        """A connection as people see it; one that shakes hands has no number yet."""
        name, number = self.numbers.get(transport.get_protocol(), ("", 0))
        peer = transport.get_extra_info("peername")
        return {
            "connection": number,
            "protocol": name,
            "user": self.ledger.users.get(number, ""),
            "peer": f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "",
            "tls": transport.get_extra_info("ssl_object") is not None,
        }

    async def cut(self, transports: Iterable[asyncio.Transport]) -> int:
        """End connections as if the cable was cut; answers how many, once they are gone."""
        chosen = set(transports)
        for transport in chosen:
            transport.abort()
        for _ in range(_TURNS_MAX):
            if not chosen & self.connections:
                break
            await asyncio.sleep(0)
        return len(chosen)

    async def advance(
        self, address: str, folder: str, steps: int, *, weights: Weights | None = None, profile: str = "small"
    ) -> list[Event]:
        """Let steps of a timeline happen, each with its entry in the ledger."""
        events: list[Event] = []
        while len(events) < steps:
            # Looked up anew: a reset may have come in between.
            account = self.store.user(address)
            count = min(_STEPS, steps - len(events))
            some = self.store.advance(account, folder, count, weights=weights, profile=profile)
            for event in some:
                self._note(account.address, folder, event)
            events += some
            await asyncio.sleep(0)
        return events

    def _note(self, user: str, folder: str, event: Event) -> None:
        facts = {"user": user, "folder": folder, "step": event.step, "event": event.kind, "uid": event.uid}
        self.ledger.record(protocol="control", connection=0, kind="timeline", flags=list(event.flags), **facts)

    def set_clock(self, address: str, folder: str, per_s: float, *, weights: Weights | None, profile: str) -> None:
        """Let a timeline run by itself, or stop it with a rate of 0."""
        key = (address, folder)
        if (running := self._clocks.pop(key, None)) is not None:
            running.cancel()
        if per_s:
            work = self._run(address, folder, per_s, weights, profile)
            task = self._clocks[key] = asyncio.get_running_loop().create_task(work)
            task.add_done_callback(lambda done: self._clocks.pop(key, None) if self._clocks.get(key) is done else None)

    async def _run(self, address: str, folder: str, per_s: float, weights: Weights | None, profile: str) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while True:
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            try:
                await self.advance(address, folder, 1, weights=weights, profile=profile)
            except NotFoundError:
                return

    @property
    def clocks(self) -> int:
        """How many timelines run by themselves."""
        return len(self._clocks)

    async def stop_clocks(self) -> None:
        """No timeline runs by itself any more."""
        tasks = list(self._clocks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Let everybody who waits answer, and stop what runs by itself."""
        self.closing = True
        self.ledger.wake()
        await self.stop_clocks()


def event_row(event: Event) -> dict[str, Any]:
    """An event as an answer shows it."""
    return asdict(event) | {"flags": list(event.flags)}
