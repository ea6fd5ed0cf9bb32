"""Hand one message to an SMTP server, and say for each recipient what became of it (RFC 5321).

Rule 1: until the final dot is written the server can't have the message: every failure before it is definite.
Rule 2: from that write on, only a reply tells; anything else is ``DeliveryUnknownError`` and is never tried again.
Rule 3: ``before_data`` runs after the recipients are accepted and before DATA, so its commit precedes any effect.
Rule 4: no error and no span holds the password; no span holds an address.
Called by service: ``deliver``, with the process's ``Connections``.

    replies -> wire -> session -> auth        bytes, reply by reply; a logged-in session
    transaction                               one message over a session: the rules above
    connections -> delivery                   sessions that are kept between messages; deliver
"""

from email_service.smtp.connections import Connections
from email_service.smtp.delivery import deliver
from email_service.smtp.endpoint import SmtpEndpoint
from email_service.smtp.transaction import FINAL_REPLY_TIMEOUT_S, Receipt, Refusal

__all__ = ["FINAL_REPLY_TIMEOUT_S", "Connections", "Receipt", "Refusal", "SmtpEndpoint", "deliver"]
