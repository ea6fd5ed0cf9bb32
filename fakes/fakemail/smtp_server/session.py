"""What an SMTP connection remembers between its verbs: who the client is, and the message under way.

Never does: anything. Called by: verbs, which makes one Session a connection (and another after STARTTLS) and one
Transaction a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiosmtpd.smtp import Envelope, Session

from fakemail.faults import Action
from fakemail.smtp_server.syntax import NO_MAIL_PARAMETERS, MailParameters, RecipientParameters


class SmtpSession(Session):  # type: ignore[misc]  # aiosmtpd ships no types
    """The client, as far as it has said who it is."""

    #: aiosmtpd 1.4.6 warns about its own use of this; nothing here reads it.
    login_data: Any = None

    @property
    def user(self) -> str:
        """Who logged in; empty for nobody."""
        return str(self.auth_data) if self.authenticated else ""


class Transaction(Envelope):  # type: ignore[misc]  # aiosmtpd ships no types
    """A message from MAIL to its end (RFC 5321 section 3.3)."""

    #: None before MAIL; empty for the null reverse-path.
    mail_from: str | None
    rcpt_tos: list[str]
    parameters: MailParameters = NO_MAIL_PARAMETERS
    #: Of those recipients alone who said something.
    recipient_parameters: Mapping[str, RecipientParameters] = MappingProxyType({})
    #: There were recipients, all refused.
    refused = False
    began_ns = 0
    #: Pieces of the message that came by BDAT; None before the first.
    chunks: list[bytes] | None = None
    chunk_bytes = 0
    #: What shall happen while the message arrives, once it begins to.
    body_fault: Action | None = None
