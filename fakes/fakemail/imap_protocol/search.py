"""SEARCH as a predicate (RFC 3501 section 6.4.4). Pure. Called by session."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.utils import parsedate_to_datetime
from typing import Final

from fakemail.imap_protocol.syntax import NESTING_MAX, Cursor, SyntaxFault, chosen, numbers
from fakemail.mailbox import Folder, Mail
from fakemail.mime import field_value, header_block

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATE: Final = re.compile(r"(\d{1,2})-([A-Za-z]{3})-(\d{4})")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A message as a key looks at it."""

    number: int
    uid: int
    folder: Folder
    mail: Mail


Key = Callable[[Candidate], bool]
_FLAGS: Final = {
    "ANSWERED": "\\Answered", "DELETED": "\\Deleted", "DRAFT": "\\Draft", "FLAGGED": "\\Flagged", "SEEN": "\\Seen",
}  # fmt: skip


def parse_keys(cursor: Cursor, uids: Sequence[int], *, depth: int = 0) -> Key:
    """The keys up to the end or a closing parenthesis, all of which must hold.

    Raises:
        SyntaxFault: a key is not known, or nesting is too deep.
    """
    keys = [_key(cursor, uids, depth)]
    while cursor.take(b" "):
        keys.append(_key(cursor, uids, depth))
    return lambda c: all(key(c) for key in keys)


def _key(cursor: Cursor, uids: Sequence[int], depth: int) -> Key:  # noqa: C901, PLR0911, PLR0912  # a table with arguments
    if depth > NESTING_MAX:
        raise SyntaxFault("keys are nested too deeply")
    if cursor.take(b"("):
        key = parse_keys(cursor, uids, depth=depth + 1)
        cursor.need(b")")
        return key
    if cursor.at_set():
        named = set(numbers(cursor.sequence_set(), len(uids)))
        return lambda c: c.number in named
    word = cursor.word()
    if word in _FLAGS:
        return _flag(_FLAGS[word], has=True)
    if word.startswith("UN") and word[2:] in _FLAGS:
        return _flag(_FLAGS[word[2:]], has=False)
    match word:
        case "ALL" | "OLD":
            return lambda _: True
        case "NEW" | "RECENT":
            return lambda _: False
        case "NOT":
            cursor.space()
            inner = _key(cursor, uids, depth + 1)
            return lambda c: not inner(c)
        case "OR":
            cursor.space()
            first = _key(cursor, uids, depth + 1)
            cursor.space()
            second = _key(cursor, uids, depth + 1)
            return lambda c: first(c) or second(c)
    cursor.space()
    match word:
        case "UID":
            found = set(chosen(uids, cursor.sequence_set()))
            return lambda c: c.uid in found
        case "KEYWORD" | "UNKEYWORD":
            return _flag(cursor.atom().decode("ascii", errors="replace"), has=word == "KEYWORD")
        case "LARGER" | "SMALLER":
            size = cursor.number()
            return lambda c: len(c.mail.raw) > size if word == "LARGER" else len(c.mail.raw) < size
        case "BEFORE" | "ON" | "SINCE":
            return _dated(word, _day(cursor.text()), lambda c: c.mail.received.date())
        case "SENTBEFORE" | "SENTON" | "SENTSINCE":
            return _dated(word.removeprefix("SENT"), _day(cursor.text()), _sent)
        case "HEADER":
            name = cursor.text()
            cursor.space()
            return _header(name, cursor.text())
        case "FROM" | "TO" | "CC" | "BCC" | "SUBJECT":
            return _header(word, cursor.text())
        case "BODY" | "TEXT":
            text = cursor.text().lower().encode("utf-8", errors="surrogateescape")
            return lambda c: text in _searched(c, whole=word == "TEXT").lower()
    raise SyntaxFault(f"unknown SEARCH key {word}")


def _flag(flag: str, *, has: bool) -> Key:
    return lambda c: (flag.lower() in {f.lower() for f in c.folder.flags(c.uid)}) == has


def _searched(candidate: Candidate, *, whole: bool) -> bytes:
    raw = candidate.mail.raw
    return raw if whole else raw[len(header_block(raw)) :]


def _header(name: str, text: str) -> Key:
    wanted = text.lower()

    def key(candidate: Candidate) -> bool:
        value = field_value(header_block(candidate.mail.raw), name)
        return value is not None and wanted in _readable(value).lower()

    return key


def _readable(value: str) -> str:
    """A field's value with its encoded words decoded (RFC 3501 section 6.4.4 asks for it)."""
    plain = value.encode("latin-1").decode("utf-8", errors="replace")
    try:
        return str(make_header(decode_header(plain)))
    except (HeaderParseError, LookupError, ValueError):
        return plain


def _sent(candidate: Candidate) -> date | None:
    """The day in the Date field, time and zone left out; None where it can't be read."""
    try:
        return parsedate_to_datetime(field_value(header_block(candidate.mail.raw), "date") or "").date()
    except ValueError:
        return None


def _day(text: str) -> date:
    match = _DATE.fullmatch(text)
    if match is None or match[2].lower() not in _MONTHS:
        raise SyntaxFault("date expected, such as 1-Feb-2026")
    try:
        return date(int(match[3]), _MONTHS.index(match[2].lower()) + 1, int(match[1]))
    except ValueError as err:
        raise SyntaxFault(f"there is no {text}") from err


def _dated(word: str, day: date, of: Callable[[Candidate], date | None]) -> Key:
    holds: Callable[[date], bool] = {"BEFORE": day.__gt__, "ON": day.__eq__, "SINCE": day.__le__}[word]

    def key(candidate: Candidate) -> bool:
        mail = of(candidate)
        return mail is not None and holds(mail)

    return key
