"""Return-Path and Received, which a relay puts before a message (RFC 5321 section 4.4).

Pure. Called by: handler, where the option ``trace_headers`` is on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a message came."""

    #: The client's name for itself, and its address.
    hello: str
    peer: str
    #: Ours.
    hostname: str
    #: RFC 3848, RFC 6531 section 4.3: SMTP, ESMTP or UTF8SMTP, with S for TLS and A for a login.
    protocol: str
    #: The ledger's number of the connection.
    connection: int
    #: Aware.
    received: datetime


def with_protocol(*, extended: bool, smtputf8: bool, tls: bool, login: bool) -> str:
    """The name that Received gives to the protocol (RFC 3848, RFC 6531 section 4.3)."""
    if not extended:
        return "SMTP"
    return ("UTF8SMTP" if smtputf8 else "ESMTP") + ("S" if tls else "") + ("A" if login else "")


def trace_fields(sender: str, way: Way) -> bytes:
    """Both fields, folded, with their line ends."""
    # What a client calls itself is its own affair, but it must not break the line or the comment.
    hello = "".join(char if char.isprintable() and char not in "()\\" else "?" for char in way.hello)
    peer = f"IPv6:{way.peer}" if ":" in way.peer else way.peer
    return (
        f"Return-Path: <{sender}>\r\n"
        f"Received: from {hello} ([{peer}])\r\n"
        f"\tby {way.hostname} with {way.protocol} id {way.connection};\r\n"
        f"\t{format_datetime(way.received)}\r\n"
    ).encode("utf-8", errors="replace")
