"""Socket options that every fake server sets, so that no client waits 40 ms for a delayed acknowledgement.

Owns: TCP_NODELAY and TCP_QUICKACK on a transport's socket. Never does: reading, writing, protocols.
Called by: imap_server and smtp_server, when a connection is made (``no_delay``) and after reads (``quick``).

A client that sends a command in two writes and leaves Nagle's algorithm on (imaplib, IMAPClient) holds the second back
until the first is acknowledged, and the kernel delays that acknowledgement by 40 ms unless it is told not to.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

#: Linux has it; elsewhere acknowledgements come when the system sees fit.
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)


def quick(transport: asyncio.BaseTransport) -> None:
    """Acknowledge what has arrived at once (Linux forgets the wish after a while, hence after each read)."""
    sock = transport.get_extra_info("socket")
    if sock is not None and _QUICKACK is not None:
        _set(sock, _QUICKACK)


def no_delay(transport: asyncio.BaseTransport) -> None:
    """Send what is written at once (RFC 896 is switched off)."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        _set(sock, socket.TCP_NODELAY)


def _set(sock: socket.socket, option: int) -> None:
    # A plain try costs nothing where nothing is raised; a context manager would cost as much as the call.
    try:  # noqa: SIM105
        sock.setsockopt(socket.IPPROTO_TCP, option, 1)
    except OSError:
        # The peer is gone, or the socket is of another family: there is nothing to acknowledge.
        pass
