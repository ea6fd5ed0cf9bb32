"""SORT and UID SORT (RFC 5256 section 3; MODSEQ by RFC 7162 section 3.1.6).

Owns: what messages are ordered by. Called by: table; threads (``sent_s``, ``subject_of``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_tz
from typing import Any, Final

from fakemail.imap_protocol.addresses import parse_addresses
from fakemail.imap_protocol.context import Answer, Context, Ok, Request
from fakemail.imap_protocol.events import Steps, paused
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.search import numbers_line
from fakemail.imap_protocol.search_keys import charset_at, criteria, matching
from fakemail.imap_protocol.subjects import Subject, base_subject, collated
from fakemail.imap_protocol.syntax import Cursor, SyntaxFault
from fakemail.imap_protocol.texts import readable
from fakemail.imap_protocol.view import View
from fakemail.mime import field_value
from fakemail.uids import UidSet, batches

#: Messages whose headers are read between two pauses.
_BETWEEN_PAUSES: Final = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class _Criterion:
    key: Callable[[Message], Any]
    reverse: bool


def subject_of(message: Message) -> Subject:
    """What it is about; empty where it has no Subject."""
    return base_subject(readable(field_value(message.header, "subject") or ""))


def sent_s(message: Message) -> int:
    """When it was sent, by its Date field; where that can't be read, when it came (RFC 5256 section 2.2)."""
    try:
        parsed = parsedate_tz(field_value(message.header, "date") or "")
        if parsed is not None:
            day = datetime(parsed[0], parsed[1], parsed[2], tzinfo=UTC)
            return int(day.timestamp()) + _second_of_day(parsed[3:6]) - (parsed[9] or 0)
    except (ValueError, OverflowError, IndexError, TypeError):
        # No such day, or one that the library's parser trips over.
        pass
    return message.folder.received(message.uid)[0]


def _second_of_day(time: tuple[int, ...]) -> int:
    """A time that there is not is midnight."""
    hour, minute, second = time
    valid = 0 <= hour < 24 and 0 <= minute < 60 and 0 <= second <= 60  # noqa: PLR2004  # a clock's
    return hour * 3600 + minute * 60 + second if valid else 0


def _first_mailbox(name: str) -> Callable[[Message], str]:
    def key(message: Message) -> str:
        found = parse_addresses(field_value(message.header, name) or "")
        return collated(found[0].mailbox or "") if found else ""

    return key


_KEYS: Final[dict[str, Callable[[Message], Any]]] = {
    "ARRIVAL": lambda m: m.folder.received(m.uid)[0],
    "CC": _first_mailbox("cc"),
    "DATE": sent_s,
    "FROM": _first_mailbox("from"),
    "SIZE": lambda m: m.size,
    "SUBJECT": lambda m: collated(subject_of(m).base),
    "TO": _first_mailbox("to"),
}


def sort(context: Context, request: Request) -> Answer:
    """RFC 5256 section 3, BASE.6.4.SORT."""
    cursor, view = request.cursor, context.here
    cursor.space()
    order = _order(cursor)
    cursor.space()
    key, modseq = yield from criteria(context, cursor, charset_at(cursor))
    found = yield from matching(view, key)
    context.facts["messages"] = len(found)
    uids = yield from _ordered(view, found, order)
    numbers = uids if request.by_uid else map(view.uids.position, uids)
    yield from numbers_line(b"SORT", view, numbers, modseq=modseq and found)
    return Ok(text="SORT completed", expunges=request.by_uid)


def _order(cursor: Cursor) -> list[_Criterion]:
    cursor.need(b"(")
    found: list[_Criterion] = []
    while True:
        word = cursor.word()
        reverse = word == "REVERSE"
        if reverse:
            cursor.space()
            word = cursor.word()
        if word not in _KEYS:
            raise SyntaxFault(f"unknown sort criterion {word}")
        found.append(_Criterion(key=_KEYS[word], reverse=reverse))
        if cursor.take(b")"):
            return found
        cursor.space()


def _ordered(view: View, found: UidSet, order: list[_Criterion]) -> Steps[list[int]]:
    """The UIDs in order; where all criteria are equal the message number decides."""

    def keyed() -> Iterator[list[tuple[int, list[Any]]]]:
        for batch in batches(found, length=_BETWEEN_PAUSES):
            messages = [
                Message(view.folder, view.uids.position(uid), uid)
                for low, high in batch
                for uid in range(low, high + 1)
            ]
            yield [(message.uid, [each.key(message) for each in order]) for message in messages]

    rows = [row for part in (yield from paused(keyed())) for row in part]
    # Python's sort keeps the order of what is equal, so the last criterion goes first.
    for at in reversed(range(len(order))):
        rows.sort(key=lambda row, at=at: row[1][at], reverse=order[at].reverse)  # type: ignore[misc]
    return [uid for uid, _ in rows]
