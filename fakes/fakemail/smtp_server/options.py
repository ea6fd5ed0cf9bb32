"""How an SMTP server behaves by configuration (faults are another matter: fakemail.faults).

Never does: anything. Made by: serving and tests. Read by: handler, stream, verbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fakemail import FakemailError

#: EHLO keywords, in the order in which they are offered.
KEYWORDS: Final = (
    "PIPELINING",
    "SIZE",
    "8BITMIME",
    "SMTPUTF8",
    "ENHANCEDSTATUSCODES",
    "DSN",
    "CHUNKING",
    "STARTTLS",
    "AUTH",
    "HELP",
)


class SmtpOptionError(FakemailError):
    """An option of the SMTP server can't be used."""


@dataclass(frozen=True, kw_only=True)
class SmtpOptions:
    """Options of one server; the defaults take mail from everybody for everybody."""

    #: What the server calls itself.
    hostname: str = "localhost"
    #: Keywords that are neither offered nor honoured.
    without: frozenset[str] = frozenset()
    #: Mail is taken from users who have logged in (RFC 6409 section 4.3).
    login_required: bool = False
    #: Before TLS nothing is done but NOOP, EHLO, STARTTLS and QUIT (RFC 3207 section 4).
    tls_required: bool = False
    #: Domains, in lower case, whose recipients are refused.
    refused_domains: frozenset[str] = frozenset()
    #: Largest message, bytes (RFC 1870).
    size_bytes_max: int = 50 * 1024 * 1024
    #: Recipients of one message (RFC 5321 section 4.5.3.1.8).
    recipients_max: int = 1_000
    #: Commands that are no commands, or come out of turn, before the connection is closed.
    mistakes_max: int = 20
    #: Silence before the connection is closed (RFC 5321 section 4.5.3.2.7).
    idle_s: float = 300.0
    #: Delivered mail begins with Return-Path and Received (RFC 5321 section 4.4); else it is what was sent.
    trace_headers: bool = False

    def __post_init__(self) -> None:
        """Raise SmtpOptionError for a keyword that nobody offers."""
        if unknown := sorted(self.without - set(KEYWORDS)):
            raise SmtpOptionError(f"without: {unknown[0]!r} given; allowed: {', '.join(KEYWORDS)}")

    @property
    def keywords(self) -> frozenset[str]:
        """What is offered, where circumstances allow it."""
        return frozenset(KEYWORDS) - self.without
