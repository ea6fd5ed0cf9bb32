"""Which mail servers a tenant may name, and at which addresses they are: the guard against requests into our own net.

Rule 1: what the operator lists (MAIL_ALLOWED_HOSTS) may be anywhere. Any other host may be named only if the word
``public`` is listed, on a port of mail, and if *all* its addresses are public.
Rule 2: the caller connects to the addresses that were checked, never to the name again: a name service that answers
otherwise the second time (DNS rebinding) changes nothing.
Callers: service, at the creation of a client and at each use.
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from email_service.config import Settings
from email_service.errors import ConnectError, HostNotAllowedError

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

#: SMTP, submission and IMAP, with and without TLS from the start (RFC 6409, 8314), and the customary 2525.
MAIL_PORTS: Final = frozenset({25, 143, 465, 587, 993, 2525})
#: Seconds until a name service that does not answer is given up.
RESOLVE_S: float = 5.0
#: RFC 6052: IPv4 behind a translator, public addresses alone.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
#: Never public, whatever the version of ipaddress says: protocol assignments, the relay of 6to4, translation for local
#: use, segment routing, and the site-local addresses that RFC 3879 withdrew.
_INNER: Final = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "5f00::/16", "fec0::/10")
)
#: RFC 5214 section 6.1: an interface identifier that ends in an IPv4 address; its second bit says if that is global.
_ISATAP: Final = 0x0000_5EFE


def permitted(
    settings: Settings, host: str, port: int, *, resolve: Callable[[str, int], list[str]] | None = None
) -> tuple[str, ...]:
    """The addresses of the host, in the name service's order.

    Raises:
        HostNotAllowedError: says which rule it breaks.
        ConnectError: the name has no address now.
    """
    listed = settings.host_listed(host, port)
    if not listed and not settings.public_hosts:
        raise HostNotAllowedError(f"{host}:{port}; the operator lists hosts in MAIL_ALLOWED_HOSTS")
    if not listed and port not in MAIL_PORTS:
        ports = ", ".join(map(str, sorted(MAIL_PORTS)))
        raise HostNotAllowedError(f"{host}:{port}; the port must be one of {ports}")
    addresses = (resolve or _resolve)(host, port)
    if not addresses:
        raise ConnectError(f"{host} has no address")
    if not listed and (inner := [a for a in addresses if not is_public(a)]):
        raise HostNotAllowedError(f"{host}:{port} is at {inner[0]}, which is not a public address")
    return tuple(addresses)


def is_public(text: str) -> bool:
    """Whether an address is one of the Internet, also behind what maps IPv4 into IPv6."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = _embedded(address)
        if inner is not None and not is_public(str(inner)):
            return False
        if inner is not None and address.ipv4_mapped is None and address in _TRANSLATED:
            return True
        address = address.ipv4_mapped or address
    if any(address in network for network in _INNER):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that packets to this one may end at: mapped, 6to4, Teredo, ISATAP, behind a translator."""
    value = int(address)
    if address in _TRANSLATED or value >> 32 & 0xFDFF_FFFF == _ISATAP:
        return ipaddress.IPv4Address(value & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]


def _resolve(host: str, port: int) -> list[str]:
    """Ask the system's name service, which knows no time limit, and wait ``RESOLVE_S`` at most."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, ValueError) as err:
            found.put(err)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    try:
        answer = found.get(timeout=RESOLVE_S)
    except queue.Empty:
        raise ConnectError(f"the name service did not answer for {host} within {RESOLVE_S:g} s") from None
    if isinstance(answer, Exception):
        # UnicodeError, and the ValueError of a NUL: what is no name will never be one.
        raise ConnectError(f"{host!r} has no address ({answer})", transient=isinstance(answer, OSError)) from answer
    return list(dict.fromkeys(str(entry[4][0]) for entry in answer))
