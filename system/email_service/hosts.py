"""Which mail servers a tenant may name, and at which addresses they are: the guard against requests into our own net.

Rule 1: what the operator lists (MAIL_ALLOWED_HOSTS) may be anywhere. Any other host may be named only if the word
``public`` is listed, on a port of mail, and if *all* its addresses are public.
Rule 2: the caller connects to the addresses that were checked, never to the name again: a name service that answers
otherwise the second time (DNS rebinding) changes nothing.
Callers: service, at the creation of a client and at each use.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from typing import Final, TypeAlias

from email_service.config import Settings
from email_service.errors import ConnectError, HostNotAllowedError

Address: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"

#: SMTP, submission and IMAP, with and without TLS from the start (RFC 6409, 8314), and the customary 2525.
MAIL_PORTS: Final = frozenset({25, 143, 465, 587, 993, 2525})
#: RFC 6052: IPv4 behind a translator.
_TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))


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
    if not listed and (inner := [a for a in addresses if not is_public(a)]):
        raise HostNotAllowedError(f"{host}:{port} is at {inner[0]}, which is not a public address")
    return tuple(addresses)


def is_public(text: str) -> bool:
    """Whether an address is one of the Internet, also behind what maps IPv4 into IPv6."""
    address: Address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and any(address in network for network in _TRANSLATED):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            return is_public(str(inner))
    return address.is_global and not address.is_multicast and not address.is_reserved


def _resolve(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise ConnectError(f"{host} has no address ({err})", transient=not isinstance(err, UnicodeError)) from err
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
