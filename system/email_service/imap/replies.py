"""What an IMAP server's replies mean: pure functions from bytes to values (RFC 3501 section 9).

Rule 1: a literal is a value like any other: nothing in it is ever read as syntax.
Rule 2: what can't be read is a permanent ``ImapError``, never a guess; only texts for people are lenient.
Called by all of the package.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, TypeAlias

from email_service.errors import ImapError
from email_service.imap.values import Flags, RemoteMessage

_REPLY_CHARACTERS_MAX: Final = 300
_TOKEN: Final = re.compile(
    rb"\s*(?:(?P<open>\()|(?P<close>\))"
    rb'|"(?P<quoted>(?:[^"\\]|\\.)*)"'
    # A section such as BODY[HEADER.FIELDS (TO)]<0> is one atom; a lone bracket occurs in keywords.
    rb'|(?P<atom>(?:[^\s()"\[]|\[[^\]]{0,4000}\]|\[)+))\s*'
)
_INTERNAL_DATE: Final = re.compile(
    rb"\s*(\d{1,2})-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)(\d\d)", re.ASCII
)
_MONTHS: Final = (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec")
NOT_QUOTABLE: Final = re.compile(rb"[\r\n\0]")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]+")
#: Flags of one message that are worth keeping to be shared.
_FLAGS_KEPT_BYTES: Final = 1000
#: Of 2**64.
_DIGITS_MAX: Final = 20
_UID_SET: Final = re.compile(rb"\d{1,10}(?::\d{1,10})?(?:,\d{1,10}(?::\d{1,10})?)*")
_NUMBER: Final = re.compile(rb"\d{1,10}(?!\d)")
_FLAGS_LINE: Final = re.compile(
    rb"\* \d+ FETCH \((?:UID (\d{1,10}) )?(?:MODSEQ \(\d+\) )?FLAGS \(([^()\"\[\]{}]*)\)"
    rb"(?: UID (\d{1,10}))?(?: MODSEQ \(\d+\))?\)\r?\n"
)
_SIZE_LINE: Final = re.compile(rb"\* \d+ FETCH \(UID (\d{1,10}) RFC822\.SIZE (\d{1,19})\)\r?\n")
_BODY_LINE: Final = re.compile(
    rb'\* \d+ FETCH \(UID (\d{1,10}) FLAGS \(([^()"\[\]{}]*)\) INTERNALDATE "([^"\\]*)" BODY\[\] \{\d+\}\r?\n'
)
_CLOSED: Final = (b")\r\n", b")\n")


class Skipped(int):
    """A literal that was read past: how long it was."""

    __slots__ = ()


#: What a reply is made of: NIL, an atom or a string, a list.
Value: TypeAlias = "bytes | list[Value] | Skipped | None"
#: A line, or a line and the literal after it.
Piece: TypeAlias = "bytes | tuple[bytes, bytes | Skipped]"


def tokens(pieces: Sequence[Piece]) -> list[Value]:
    """A reply as nested lists; a literal is a value like any other, whatever it holds."""
    stack: list[list[Value]] = [[]]
    for piece in pieces:
        text, literal = (piece, None) if isinstance(piece, bytes) else piece
        _scan(text.rstrip() if literal is None else text[: text.rindex(b"{")], stack)
        if literal is not None:
            stack[-1].append(literal)
    if len(stack) != 1:
        raise ImapError("a reply with an open parenthesis", transient=False)
    return stack[0]


def _scan(text: bytes, stack: list[list[Value]]) -> None:
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None or (token["close"] and len(stack) == 1):
            raise ImapError(f"a reply that can't be read: {readable(text[position : position + 60])}", transient=False)
        position = token.end()
        if token["open"]:
            inner: list[Value] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif token["close"]:
            stack.pop()
        elif token["quoted"] is not None:
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", token["quoted"]))
        else:
            stack[-1].append(None if token["atom"].upper() == b"NIL" else token["atom"])


def fetched(pieces: Sequence[Piece]) -> dict[bytes, Value]:
    """The items of a FETCH reply.

    The two that come by the thousand are matched as a whole where they are as usual: a fifth of the time.
    """
    first = pieces[0]
    if isinstance(first, bytes):
        size = _SIZE_LINE.fullmatch(first)
        return items_of(tokens(pieces)) if size is None else {b"UID": size[1], b"RFC822.SIZE": size[2]}
    body = _BODY_LINE.fullmatch(first[0]) if len(pieces) == 2 and pieces[1] in _CLOSED else None  # noqa: PLR2004
    if body is None:
        return items_of(tokens(pieces))
    flags: list[Value] = [*body[2].split()]
    return {b"UID": body[1], b"FLAGS": flags, b"INTERNALDATE": body[3], b"BODY[]": first[1]}


def items_of(reply: list[Value]) -> dict[bytes, Value]:
    """The pairs of ``12 (UID 5 FLAGS () ...)``."""
    pairs = next((value for value in reply if isinstance(value, list)), [])
    return {key.upper(): value for key, value in zip(pairs[::2], pairs[1::2], strict=False) if isinstance(key, bytes)}


def flags_line(line: bytes) -> tuple[int, Flags] | None:
    """UID and flags of the usual reply that has these alone; None for any other, which ``items_of`` reads."""
    found = _FLAGS_LINE.fullmatch(line)
    if found is None or (found[1] is None) == (found[3] is None):
        return None
    return int(found[1] or found[3]), _flags(found[2])


def flags_of(value: Value) -> Flags:
    """Flags, without the session's own."""
    words = value if isinstance(value, list) else []
    return _flags(b" ".join(word for word in words if isinstance(word, bytes)))


def _flags(text: bytes) -> Flags:
    return _flag_words(text) if len(text) <= _FLAGS_KEPT_BYTES else _flag_words.__wrapped__(text)


@functools.lru_cache(maxsize=4096)
def _flag_words(text: bytes) -> Flags:
    """A folder has few combinations of flags: each is made once, and shared."""
    words = (readable(word) for word in text.split())
    return tuple(word for word in words if word.lower() != "\\recent")


def message_of(uid: int, items: Mapping[bytes, Value]) -> RemoteMessage | None:
    """The message of a FETCH reply, None if its body is not in it."""
    raw, date = items.get(b"BODY[]"), items.get(b"INTERNALDATE")
    if not isinstance(raw, bytes):
        return None
    return RemoteMessage(
        uid=uid,
        flags=flags_of(items.get(b"FLAGS")),
        internal_date=internal_date(date) if isinstance(date, bytes) else None,
        size_bytes=len(raw),
        raw=raw,
    )


def internal_date(text: bytes) -> datetime | None:
    """``17-Jul-1996 02:44:25 -0700`` in UTC; own parsing, as strptime's %b follows the locale."""
    found = _INTERNAL_DATE.match(text)
    if found is None or found[2].lower() not in _MONTHS:
        return None
    day, year, hour, minute, second, hours, minutes = (int(found[i]) for i in (1, 3, 4, 5, 6, 8, 9))
    offset = timedelta(hours=hours, minutes=minutes) * (-1 if found[7] == b"-" else 1)
    try:
        zone = timezone(offset)
        return datetime(year, _MONTHS.index(found[2].lower()) + 1, day, hour, minute, second, tzinfo=zone).astimezone(
            UTC
        )
    except (OverflowError, ValueError):
        return None


def uid_set(uids: Iterable[int]) -> bytes:
    """``1:3,5``: runs of neighbours as ranges."""
    runs: list[list[int]] = []
    for uid in uids:
        if runs and uid == runs[-1][1] + 1:
            runs[-1][1] = uid
        else:
            runs.append([uid, uid])
    return b",".join(b"%d:%d" % (first, last) if first != last else b"%d" % first for first, last in runs)


def uid_ranges(text: bytes, uid_max: int) -> list[range]:
    """The ranges of ``1:3,5``, in order, without what is above ``uid_max`` (RFC 3501: ``3:1`` is ``1:3``)."""
    if not _UID_SET.fullmatch(text):
        raise ImapError(f"a set of UIDs that can't be read: {readable(text[:60])}", transient=False)
    pairs = (sorted(map(int, part.split(b":"))) for part in text.split(b","))
    return sorted((range(p[0], min(p[-1], uid_max) + 1) for p in pairs if p[0] <= uid_max), key=lambda r: r.start)


def searched(text: bytes) -> Iterator[range]:
    """UIDs of ``SEARCH 2 3 5 (MODSEQ 9)``, each as a range; nothing is made of the whole line."""
    for found in _NUMBER.finditer(text, 0, text.find(b"(") if b"(" in text else len(text)):
        yield range(int(found[0]), int(found[0]) + 1)


def integer(value: Value) -> int | None:
    """A number, None if it is none."""
    return int(value) if isinstance(value, bytes) and value.isdigit() and len(value) <= _DIGITS_MAX else None


def quoted(text: bytes) -> bytes:
    """A quoted string."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def readable(text: bytes | str | None, *, hidden: Sequence[str] = ()) -> str:
    """A reply on one line, cut, without what must not be repeated."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""
    for secret in filter(None, hidden):
        said = said.replace(secret, "***")
    return _CONTROL.sub(" ", said).strip()[:_REPLY_CHARACTERS_MAX]
