"""What header fields say: addresses, dates, Message-IDs; and the message put together from fields and parts.

The common form of each field is read here; whatever is odd is left to the standard library, whose answer is the same
where both have one (a test holds them together). Nothing here raises.
Callers: the two readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import getaddresses, parsedate_to_datetime
from typing import Final

from email_service.message.mail import ParsedAttachment, ParsedMessage
from email_service.message.texts import Decoder, clean, guessed, without_controls

#: Of the lists of one name that are not plain, as much is read: what is odd and longer is an attack, at a microsecond
#: a byte.
_ODD_CHARACTERS_MAX: Final = 200_000
#: Of a longer thread the last ones are kept.
_REFERENCES_MAX: Final = 200

#: The @ is looked for behind it: in one pattern, a row of them would take the square of its length.
_IN_ANGLES: Final = re.compile(r"<[^<>\s\x00-\x1f\x7f]{3,990}>")
_WORD: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_ADDRESS: Final = rf"{_WORD}(?:\.{_WORD})*@{_WORD}(?:\.{_WORD})*"
#: One mailbox of the plain kind, up to the comma behind it.
_PHRASE: Final = rf'(?:"[^"\\]*(?:\\.[^"\\]*)*"|{_WORD}(?:[ ]{_WORD})*)'
_MAILBOX: Final = re.compile(
    rf"[ \t]*(?:{_PHRASE}[ ]<({_ADDRESS})>|({_ADDRESS})(?:[ ]\([^()\\]*\))?|<({_ADDRESS})>)[ \t]*(?:,|\Z)"
)
_NOBODY: Final = "undisclosed-recipients:;"
_DATE: Final = re.compile(
    r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), )?(\d\d?) (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) "
    r"((?:19|20)\d\d) ([01]\d|2[0-3]):([0-5]\d):([0-5]\d) ([+-])([01]\d)([0-5]\d)(?: \([A-Za-z]+\))?"
)
_MONTHS: Final = {
    "Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6,
    "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12,
}  # fmt: skip


@dataclass(kw_only=True)
class Parts:
    """What the parts of a message held, in their order."""

    texts: list[str] = field(default_factory=list)
    htmls: list[str] = field(default_factory=list)
    attachments: list[ParsedAttachment] = field(default_factory=list)


def assemble(
    headers: tuple[tuple[str, str], ...], parts: Parts, decoder: Decoder, *, broken: bool = False
) -> ParsedMessage:
    """The message; its first header of a name counts, of addresses all do."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)

    def first(name: str) -> str:
        return found[name][0] if name in found else ""

    def listed(name: str) -> tuple[str, ...]:
        return addresses(found[name], decoder) if name in found else ()

    return ParsedMessage(
        message_id=message_id(first("message-id")),
        subject=decoder.words(first("subject")),
        from_=next(iter(listed("from")), ""),
        reply_to=listed("reply-to"),
        to=listed("to"),
        cc=listed("cc"),
        bcc=listed("bcc"),
        in_reply_to=message_id(first("in-reply-to")),
        references=tuple(_message_ids(first("references"))[-_REFERENCES_MAX:]) if "references" in found else (),
        date=date(first("date")),
        text="\n".join(parts.texts),
        html="\n".join(parts.htmls) if parts.htmls else None,
        headers=headers,
        attachments=tuple(parts.attachments),
        broken=broken or decoder.broken,
    )


def unfolded(data: bytes) -> str:
    """A header's value on one line."""
    return clean(guessed(data.replace(b"\r", b"").replace(b"\n", b""))).strip()


def addresses(values: Iterable[str], decoder: Decoder) -> tuple[str, ...]:
    """The addresses alone, of all values."""
    found: list[str] = []
    left = _ODD_CHARACTERS_MAX
    for value in values:
        plain = _plain_addresses(value)
        if plain is None:
            left -= len(value)
            plain = _odd_addresses(value) if left > 0 else None
        if plain is None:
            decoder.broken = True
        else:
            found += plain
    return tuple(found)


def _plain_addresses(value: str) -> list[str] | None:
    """The addresses of a list whose members are all of the plain kind; None of any other."""
    found: list[str] = []
    at, end = 0, 0 if value == _NOBODY else len(value)
    while at < end:
        mailbox = _MAILBOX.match(value, at)
        if mailbox is None:
            return None
        found.append(mailbox[mailbox.lastindex or 1])
        at = mailbox.end()
    return found


def _odd_addresses(value: str) -> list[str] | None:
    try:
        pairs = getaddresses([value])
    except Exception:  # noqa: BLE001  # failures on hostile input have no common class: RecursionError is one of them
        return None
    return [without_controls(address) for _, address in pairs if address]


def message_id(value: str) -> str | None:
    """The first Message-ID in the value, or else all of the value."""
    found = _message_ids(value)
    return found[0] if found else value or None


def _message_ids(value: str) -> list[str]:
    return [found for found in _IN_ANGLES.findall(value) if "@" in found[2:-2]]


def date(value: str) -> datetime | None:
    """In UTC; None if it is none."""
    plain = _DATE.fullmatch(value)
    if plain is None:
        return _odd_date(value)
    day, month, year, hour, minute, second, sign, zone_hours, zone_minutes = plain.groups()
    offset = timedelta(hours=int(zone_hours), minutes=int(zone_minutes))
    try:
        local = datetime(int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=UTC)
    except ValueError:
        return None
    return local - offset if sign == "+" else local + offset


def _odd_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
        # RFC 5322 section 3.3: "-0000" is UTC of an unknown place.
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
