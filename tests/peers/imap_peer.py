"""What the contract suite knows of a server: where it listens, how a user is made, and what it takes as a token.

Owns: that one shape.
Called by: the server modules, which fill it in, and the contract suite, which asks no more than this.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImapPeer:
    """A running IMAP server."""

    #: fakemail, dovecot or greenmail.
    name: str
    #: Its version, as the matrix tells it.
    version: str
    #: 127.0.0.1.
    host: str
    #: Plain text at first, STARTTLS where it is offered.
    port: int
    #: TLS from the first byte.
    tls_port: int
    #: Makes a mailbox: address, password.
    add_user: Callable[[str, str], None]
    #: A bearer token that is good for this address and password (RFC 7628; Google's XOAUTH2).
    token: Callable[[str, str], str]
