"""The servers together: SMTP, SMTPS, IMAP, IMAPS and the control API in one event loop.

Owns: which ports are open, what the servers share, opening and closing it all. Never does: protocols, files, signals.
Called by: ``__main__``; tests that want the servers inside their own loop:

    async with Fakes(Options(ports=FREE_PORTS)) as fakes:
        host, port = fakes.servers["smtp"]

Rule 1: what was opened is closed, also if a later port is taken. Rule 2: after the end there is no socket, no task and
no connection left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import importlib.metadata
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Final, Self

from fakemail import FakemailError
from fakemail.client import PORTS
from fakemail.config import Config, apply
from fakemail.control.loading import load
from fakemail.control.shared import Shared, WatchedLedger
from fakemail.faults import Plan
from fakemail.imap_protocol import ImapOptions, without
from fakemail.imap_server import ImapConnection
from fakemail.mailbox import MailStore
from fakemail.smtp_server import Handler, SmtpConnection, SmtpOptions
from fakemail.tls import Certificates, TlsGate

#: A free port each.
FREE_PORTS: Final[Mapping[str, int]] = dict.fromkeys(PORTS, 0)
#: For answers that are being given when the control closes.
_SHUTDOWN_S: Final = 2.0
_BACKLOG: Final = 512
#: To find one port that is free on all addresses of a name.
_TRIES_MAX: Final = 5


class ServingError(FakemailError):
    """A port can't be had."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the servers are."""

    #: Name or address to bind, IPv4 or IPv6.
    host: str = "127.0.0.1"
    #: By name: 0 is a free one, None or no entry is off.
    ports: Mapping[str, int | None] = field(default_factory=lambda: dict(PORTS))
    #: Users, mail, faults, limits: at the start, and at every reset to it.
    config: Config = field(default_factory=Config)
    #: How SMTP behaves, where the configuration says nothing.
    smtp: SmtpOptions = field(default_factory=SmtpOptions)
    #: How IMAP behaves, where the configuration says nothing; STARTTLS is there.
    imap: ImapOptions = field(default_factory=ImapOptions)
    #: Names that the certificate is for, beside the host, localhost and its addresses.
    tls_names: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        """Of mail and chance."""
        return 1 if self.config.seed is None else self.config.seed

    def for_smtp(self) -> SmtpOptions:
        """Both together."""
        said, limits = self.config.smtp, self.config.limits
        return replace(
            self.smtp,
            without=self.smtp.without | said.without,
            tls_required=self.smtp.tls_required or said.require_tls,
            size_bytes_max=limits.message_bytes or self.smtp.size_bytes_max,
        )

    def for_imap(self) -> ImapOptions:
        """Both together."""
        said, limits = self.config.imap, self.config.limits
        return replace(
            self.imap,
            # What needs a capability that is not there is not there either.
            without=without(self.imap.without | said.without),
            starttls=True,
            require_tls=self.imap.require_tls or said.require_tls,
            line_bytes_max=limits.line_bytes or self.imap.line_bytes_max,
            literal_bytes_max=limits.literal_bytes or self.imap.literal_bytes_max,
        )


class Fakes:
    """All servers, from ``async with`` to its end."""

    def __init__(self, options: Options | None = None) -> None:
        self._options = options or Options()
        self._opened = contextlib.AsyncExitStack()
        self.certificates = Certificates(self._options.host, *self._options.tls_names)
        store, plan = MailStore(seed=self._options.seed), Plan(self._options.seed)
        #: What the servers and the control work on.
        self.shared = Shared(
            store=store,
            ledger=WatchedLedger(),
            plan=plan,
            version=version(),
            ca_pem=lambda: self.certificates.ca_pem.decode("ascii"),
            restore=self._restore,
        )

    def _restore(self) -> None:
        config, shared = self._options.config, self.shared
        apply(config, shared.store, shared.plan, load=load)
        for address, folder, line in config.running:
            name = shared.store.user(address).address
            shared.set_clock(name, folder, line.per_s, weights=line.weights, profile=line.profile)

    @property
    def servers(self) -> Mapping[str, tuple[str, int]]:
        """Host and port by name, of those that are on."""
        return self.shared.servers

    @property
    def url(self) -> str | None:
        """Of the control API; None where it is off."""
        at = self.servers.get("control")
        return None if at is None else base_url(*at)

    def facts(self) -> dict[str, Any]:
        """What the ready file says: process, version, where everything is."""
        mail = {name: {"host": host, "port": port} for name, (host, port) in self.servers.items() if name != "control"}
        return {"pid": os.getpid(), "version": self.shared.version, **mail, "control": self.url}

    async def __aenter__(self) -> Self:
        try:
            self.shared.restore()
            await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._close()

    async def _open(self) -> None:
        wanted = [name for name in PORTS if self._options.ports.get(name) is not None]
        factories = self._factories()
        if "control" in wanted:
            factories["control"] = await self._control()
        for name in wanted:
            await self._listen(name, factories[name])

    def _factories(self) -> dict[str, Callable[[], Any]]:
        """What a connection to each port begins with."""
        loop = asyncio.get_running_loop()
        made: dict[str, Callable[[], Any]] = {}
        for name, make in {"smtp": self._smtp(loop), "imap": self._imap(loop)}.items():
            made[name] = functools.partial(self._plain, name, make)
            made[f"{name}s"] = functools.partial(self._gate, made[name], loop)
        return made

    def _plain(self, name: str, make: Callable[[], Any]) -> Any:
        return self.shared.known(name, make())

    def _gate(self, make: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> TlsGate:
        """TLS from the first byte (RFC 8314 section 3.3)."""
        return TlsGate(make(), certificates=self.certificates, loop=loop)

    def _smtp(self, loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
        store, ledger, plan, connections = self._common()
        options, certificates = self._options.for_smtp(), self.certificates
        handler = Handler(store, ledger, plan, connections, options=options, certificates=certificates)
        return functools.partial(SmtpConnection, handler, loop)

    def _imap(self, loop: asyncio.AbstractEventLoop) -> Callable[[], Any]:
        return functools.partial(
            ImapConnection,
            *self._common(),
            options=self._options.for_imap(),
            certificates=self.certificates,
            idle_timeout_s=self._options.config.limits.idle_timeout_s,
            loop=loop,
        )

    def _common(self) -> tuple[MailStore, WatchedLedger, Plan, set[asyncio.Transport]]:
        shared = self.shared
        return shared.store, shared.ledger, shared.plan, shared.connections

    async def _control(self) -> Callable[[], Any]:
        # 17 MB of memory and a quarter of a second: only for those who want the control.
        from aiohttp import web  # noqa: PLC0415

        from fakemail.control.application import application  # noqa: PLC0415

        runner = web.AppRunner(application(self.shared), access_log=None, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        self._opened.push_async_callback(runner.cleanup)
        assert runner.server is not None  # noqa: S101  # setup made it
        return runner.server

    async def _listen(self, name: str, factory: Callable[[], Any]) -> None:
        """Open a port, and note where it is."""
        host, port = self._options.host, self._options.ports[name] or 0
        try:
            server = await _server(factory, host, port)
        except OSError as err:
            # A name that is not found has an errno of its own numbering.
            named = isinstance(err, socket.gaierror)
            text = err.strerror if named or not err.errno else os.strerror(err.errno)
            wish = "choose another --host" if named else f"choose another --{name}-port, or 0 for a free one"
            raise ServingError(f"{host}:{port} can't be bound ({text}); {wish}") from err
        self._opened.callback(server.close)
        self.shared.servers[name] = (host, server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        await self.shared.close()
        # Ports first: nobody comes in while the others are sent out.
        await self._opened.aclose()
        await self.shared.cut(self.shared.connections)
        self.shared.servers.clear()


async def _server(factory: Callable[[], Any], host: str, port: int) -> asyncio.Server:
    """A server on one port of all addresses of ``host``: a name such as localhost may have two."""
    loop = asyncio.get_running_loop()
    for _ in range(_TRIES_MAX):
        server = await loop.create_server(factory, host, port, backlog=_BACKLOG)
        ports = {each.getsockname()[1] for each in server.sockets}
        if len(ports) == 1:
            return server
        # A free port was asked for, and each address got its own: take the first for all.
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def version() -> str:
    """Of the distribution; a source tree that was never installed has none."""
    try:
        return importlib.metadata.version("mailrig")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def base_url(host: str, port: int, *, scheme: str = "http") -> str:
    """As a client writes it: an IPv6 address stands in brackets (RFC 3986 section 3.2.2)."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
