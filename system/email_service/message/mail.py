"""Mail as values: what is asked to be sent, and what a fetched message says. Data alone.

Callers: the service makes an ``OutgoingMessage`` and turns a ``ParsedMessage`` into rows; the rest of the package
fills the one and writes the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class InlinePart:
    """Something that the HTML shows, as ``cid:...``."""

    #: As the HTML names it; angle brackets around it don't matter.
    content_id: str
    filename: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class OutgoingMessage:
    """A message to send; addresses are as ``parse_address`` returns them."""

    #: With angle brackets (``message_id_for``).
    message_id: str
    #: Aware.
    date: datetime
    mail_from: str
    #: The name that is shown beside the address.
    from_name: str | None = None
    reply_to: tuple[str, ...] = ()
    to: tuple[str, ...]
    cc: tuple[str, ...] = ()
    #: For the envelope alone.
    bcc: tuple[str, ...] = ()
    #: The Message-ID that this answers, and those of the thread before it, the oldest first (``parse_message_id``).
    in_reply_to: str | None = None
    references: tuple[str, ...] = ()
    subject: str
    text: str
    html: str | None = None
    #: Shown within the HTML; without one they are attached.
    inline: tuple[InlinePart, ...] = ()
    #: (filename, content type, data) of each.
    attachments: tuple[tuple[str, str, bytes], ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class ParsedAttachment:
    """A part that is not the body."""

    #: Without directories; never empty.
    filename: str
    #: In lower case, without parameters.
    content_type: str
    #: Without angle brackets.
    content_id: str | None
    #: Meant to be shown within the body.
    inline: bool
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ParsedMessage:
    """What a fetched message says; no text holds a NUL or half a surrogate pair, which PostgreSQL refuses."""

    #: With angle brackets, unless it came without.
    message_id: str | None
    subject: str
    #: Addresses alone; the first author, or empty.
    from_: str
    reply_to: tuple[str, ...]
    to: tuple[str, ...]
    cc: tuple[str, ...]
    #: Drafts and copies of what was sent name them.
    bcc: tuple[str, ...]
    #: The Message-ID that this answers, and the thread before it, the oldest first.
    in_reply_to: str | None
    references: tuple[str, ...]
    #: In UTC.
    date: datetime | None
    #: With ``\n`` line ends.
    text: str
    html: str | None
    #: (name, value) as they came: unfolded, not decoded.
    headers: tuple[tuple[str, str], ...]
    attachments: tuple[ParsedAttachment, ...]
    #: Its MIME is not what it claims to be.
    broken: bool
