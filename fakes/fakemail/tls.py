"""Certificates that tests can trust, expire or mistrust, and the gate that a connection passes to become encrypted.

Owns: the authority and the contexts by name (Certificates), what may go wrong with a handshake (Handshake), and the way
from TCP to TLS (TlsGate). Never does: SMTP, IMAP, faults of its own.
Called by: smtp_server and imap_server for TLS from the first byte (RFC 8314 section 3.3) and for STARTTLS (RFC 3207,
RFC 2595), serving for the authority's certificate.

The gate accepts the TCP connection first, asks its protocol what shall go wrong, and only then shakes hands:

    # TLS from the first byte
    loop.create_server(lambda: TlsGate(protocol(), certificates=certificates, loop=loop), host, port)
    # STARTTLS, when "go ahead" is written and everything that was received is forgotten
    TlsGate(self, certificates=certificates, loop=loop).take_over(self.transport)

``protocol`` is Secured: ``tcp_made`` (not for STARTTLS), ``handshake``, then ``connection_made`` with the encrypted
transport, or ``connection_lost`` with the error if there will be none.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Protocol

from fakemail import FakemailError

if TYPE_CHECKING:
    import trustme

#: Names that a valid certificate is for.
HOSTS: Final = ("localhost", "127.0.0.1", "::1")
#: fetchmail refuses a certificate without one, though nobody should look at it any more (RFC 6125 section 6.4.4).
_COMMON_NAME: Final = "localhost"
#: An expired certificate is so since the day on which this one ended.
_EXPIRED_SINCE: Final = datetime(2001, 1, 1, tzinfo=UTC)
_ISSUED_AT: Final = datetime(2000, 1, 1, tzinfo=UTC)
_WRONG_HOST: Final = "wrong.invalid"
#: A fatal alert "handshake_failure" in a record of TLS 1.2, as every client understands it (RFC 8446 section 6).
_ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"
#: Type, version and length come before a record's content (RFC 8446 section 5.1).
_RECORD_HEADER_BYTES: Final = 5
#: asyncio's own default.
_HANDSHAKE_S: Final = 60.0


class CertificateError(FakemailError):
    """There is no certificate of this name."""


class Certificates:
    """An authority and its server contexts: "valid", "expired", "wrong-host", "self-signed".

    Rule 1: nothing is made, nor is cryptography imported, before it is asked for: a server that nobody speaks TLS to
    starts without it. Rule 2: what was made is kept; all of it dies with the process.
    """

    def __init__(self, *hosts: str) -> None:
        self._hosts = tuple(dict.fromkeys((*hosts, *HOSTS)))
        self._authority: trustme.CA | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def ca_pem(self) -> bytes:
        """What a client must trust to find "valid" valid."""
        return self._ca().cert_pem.bytes()

    def context(self, name: str = "valid") -> ssl.SSLContext:
        """A server context with the certificate of this name; raises CertificateError for an unknown one."""
        if name not in _LOADERS:
            raise CertificateError(f"certificate: {name!r} given; allowed: {', '.join(_LOADERS)}")
        if name not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            _LOADERS[name](self, context)
            self._contexts[name] = context
        return self._contexts[name]

    def _ca(self) -> trustme.CA:
        if self._authority is None:
            import trustme  # noqa: PLC0415  # 60 ms, for those alone who speak TLS

            # Keys on an elliptic curve: 4 ms instead of 100 for RSA's.
            self._authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        return self._authority

    def _load_valid(self, context: ssl.SSLContext) -> None:
        self._ca().issue_cert(*self._hosts, common_name=_COMMON_NAME).configure_cert(context)

    def _load_expired(self, context: ssl.SSLContext) -> None:
        leaf = self._ca().issue_cert(
            *self._hosts, common_name=_COMMON_NAME, not_before=_ISSUED_AT, not_after=_EXPIRED_SINCE
        )
        leaf.configure_cert(context)

    def _load_wrong_host(self, context: ssl.SSLContext) -> None:
        self._ca().issue_cert(_WRONG_HOST).configure_cert(context)

    def _load_self_signed(self, context: ssl.SSLContext) -> None:
        """The certificate of an authority that nobody knows is signed by itself."""
        import trustme  # noqa: PLC0415  # as above

        stranger = trustme.CA(key_type=trustme.KeyType.ECDSA)
        with stranger.cert_pem.tempfile() as certificate, stranger.private_key_pem.tempfile() as key:
            context.load_cert_chain(certificate, key)


_LOADERS: Final[dict[str, Callable[[Certificates, ssl.SSLContext], None]]] = {
    "valid": Certificates._load_valid,  # noqa: SLF001  # the class's own table
    "expired": Certificates._load_expired,  # noqa: SLF001
    "wrong-host": Certificates._load_wrong_host,  # noqa: SLF001
    "self-signed": Certificates._load_self_signed,  # noqa: SLF001
}
#: What ``Certificates.context`` and a fault's ``certificate`` may name.
CERTIFICATES: Final = tuple(_LOADERS)


@dataclass(frozen=True, kw_only=True)
class Handshake:
    """How a TLS handshake goes; as it stands here, well."""

    #: Waited before anything else.
    delay_s: float = 0.0
    #: The connection is cut.
    drop: bool = False
    #: Nothing is ever answered; the connection stays open.
    stall: bool = False
    #: The client's hello is answered with a fatal alert.
    alert: bool = False
    #: Which certificate is shown.
    certificate: str = "valid"


class Secured(Protocol):
    """A protocol that the gate can stand before."""

    def tcp_made(self, transport: asyncio.Transport) -> None:
        """TCP is there, TLS is not yet; nothing may be written."""

    def handshake(self) -> Handshake:
        """What shall become of the handshake; asked once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The encrypted transport is there."""

    def data_received(self, data: bytes) -> None:
        """Called by the gate for what came together with the end of the handshake; by TLS for all that follows."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, before or after the handshake; ``exc`` says why if somebody knows."""


class TlsGate(asyncio.Protocol):
    """Stands in a connection's place until it is encrypted.

    Rule 1: not a byte is read before the handshake is decided on, so all that TLS reads came after that.
    Rule 2: the protocol hears of the end exactly once, from the gate or, after the handshake, from TLS.
    """

    def __init__(self, protocol: Secured, *, certificates: Certificates, loop: asyncio.AbstractEventLoop) -> None:
        self._protocol = protocol
        self._certificates = certificates
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._plan = Handshake()
        self._received = bytearray()
        self._shaking = False
        self._over = False
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected to a port that speaks TLS from the first byte."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # we listen on TCP
        self._protocol.tcp_made(transport)
        self._begin(transport)

    def take_over(self, transport: asyncio.Transport) -> None:
        """Go on with a connection on which the client was told to start TLS."""
        transport.set_protocol(self)
        self._begin(transport)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        # TLS must find the client's hello where it is: in the kernel.
        transport.pause_reading()
        self._plan = self._protocol.handshake()
        if self._plan.delay_s:
            self._timer = self._loop.call_later(self._plan.delay_s, self._go_on)
        else:
            self._go_on()

    def _go_on(self) -> None:
        assert self._transport is not None  # noqa: S101  # set before anything else
        if self._plan.drop:
            self._transport.abort()
        elif self._plan.stall or self._plan.alert:
            # Read on, or the end of a client that gives up would never be seen.
            self._transport.resume_reading()
        else:
            self._shaking = True
            self._task = self._loop.create_task(self._shake_hands(self._transport))

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        context = self._certificates.context(self._plan.certificate)
        try:
            secured = await self._loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_S
            )
        except OSError as err:
            self._end(err)
            return
        if secured is None or self._over:
            # The client is gone, or the server was stopped, in the moment in which the handshake ended.
            self._end(None)
            return
        self._hand_over(secured)

    def _hand_over(self, secured: asyncio.Transport) -> None:
        self._over = True
        protocol = self._protocol
        assert isinstance(protocol, asyncio.BaseProtocol)  # noqa: S101  # asyncio made no Protocol of it
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        if self._received and not secured.is_closing():
            protocol.data_received(bytes(self._received))

    def data_received(self, data: bytes) -> None:
        """Keep what TLS has read before its protocol was there; else it is a hello, to be answered with an alert."""
        if self._plan.stall:
            return
        self._received += data
        if self._plan.alert and not self._shaking and self._hello_is_whole():
            assert self._transport is not None  # noqa: S101  # it has sent something
            self._transport.write(_ALERT)
            self._transport.close()

    def _hello_is_whole(self) -> bool:
        """Closing over unread bytes would make the kernel reset the connection, and the alert would be lost."""
        content = int.from_bytes(self._received[3:_RECORD_HEADER_BYTES])
        return len(self._received) >= _RECORD_HEADER_BYTES + content

    def connection_lost(self, exc: Exception | None) -> None:
        """TCP or TLS has ended before the handshake was done and handed over."""
        self._end(exc)

    def _end(self, exc: Exception | None) -> None:
        if self._over:
            return
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._protocol.connection_lost(exc)
