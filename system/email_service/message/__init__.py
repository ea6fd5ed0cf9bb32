"""Mail as bytes: build what is sent, parse what was fetched (RFC 5322, 2045-2047, 2231). No I/O, no clock, no random.

``build`` answers the same bytes for the same message; ``parse`` never raises, as mail is written by others: what could
not be read as it claims is marked ``broken``.

    composer           OutgoingMessage -> bytes
    reader             bytes -> ParsedMessage: the mail of every day, straight from its bytes
    patient            the rest of it, with the standard library's parser; both answer the same
    texts, fields      character sets and encoded words; addresses and dates
    spam               ParsedMessage -> a score, and why

Callers: api checks addresses, service builds, parses and scores.
"""

from email_service.message.addresses import envelope_recipients, message_id_for, parse_address, parse_message_id
from email_service.message.composer import build
from email_service.message.mail import InlinePart, OutgoingMessage, ParsedAttachment, ParsedMessage
from email_service.message.reader import parse

__all__ = [
    "InlinePart",
    "OutgoingMessage",
    "ParsedAttachment",
    "ParsedMessage",
    "build",
    "envelope_recipients",
    "message_id_for",
    "parse",
    "parse_address",
    "parse_message_id",
]
