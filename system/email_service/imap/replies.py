"""What an IMAP server's replies mean: pure functions from bytes to values, and back for names (RFC 3501 section 9).

Rule 1: a literal is a value like any other: nothing in it is ever read as syntax.
Rule 2: what can't be read is a permanent ``ImapError``, never a guess; only texts for people are lenient.
Called by session and wire.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, TypeAlias

from email_service.errors import ImapError
from email_service.imap.values import RemoteFolder, RemoteMessage

_REPLY_CHARACTERS_MAX: Final = 300
#: RFC 6154 section 2 -> our names.
_SPECIAL_USE: Final = {
    "\\sent": "sent",
    "\\drafts": "drafts",
    "\\trash": "trash",
    "\\junk": "spam",
    "\\archive": "archive",
    "\\all": "archive",
}
_WELL_KNOWN: Final = {
    **dict.fromkeys(("sent", "sent items", "sent mail", "sent messages"), "sent"),
    **dict.fromkeys(("draft", "drafts"), "drafts"),
    **dict.fromkeys(("bin", "deleted items", "deleted messages", "trash"), "trash"),
    **dict.fromkeys(("bulk mail", "junk", "junk e-mail", "junk email", "spam"), "spam"),
    **dict.fromkeys(("all mail", "archive", "archives"), "archive"),
}
_UNSELECTABLE: Final = frozenset({"\\noselect", "\\nonexistent"})

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
#: What a reply is made of: NIL, an atom or a string, a list.
Value: TypeAlias = "bytes | list[Value] | None"
#: What imaplib makes of a reply: text, or text and the literal after it.
Piece: TypeAlias = bytes | tuple[bytes, bytes]


def replies_of(pieces: Iterable[Piece | None]) -> Iterator[list[Piece]]:
    """The flat list of imaplib, cut into replies: each ends with the first piece that no literal follows."""
    reply: list[Piece] = []
    for piece in pieces:
        if piece is None:
            continue
        reply.append(piece)
        if isinstance(piece, bytes):
            yield reply
            reply = []


def tokens(pieces: Sequence[Piece]) -> list[Value]:
    """A reply as nested lists; a literal is a value like any other, whatever it holds."""
    stack: list[list[Value]] = [[]]
    for piece in pieces:
        text, literal = (piece, None) if isinstance(piece, bytes) else piece
        _scan(text if literal is None else text[: text.rindex(b"{")], stack)
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


def items_of(reply: list[Value]) -> dict[bytes, Value]:
    """The pairs of ``12 (UID 5 FLAGS () ...)``."""
    pairs = next((value for value in reply if isinstance(value, list)), [])
    return {key.upper(): value for key, value in zip(pairs[::2], pairs[1::2], strict=False) if isinstance(key, bytes)}


def message_of(uid: int, items: Mapping[bytes, Value]) -> RemoteMessage:
    """The message of a reply.

    Raises:
        ImapError: it has none.
    """
    raw, flags, date = items.get(b"BODY[]"), items.get(b"FLAGS"), items.get(b"INTERNALDATE")
    if not isinstance(raw, bytes):
        # To skip it would lose it: the token moves past it.
        raise ImapError(f"the server sent UID {uid} without its body", transient=True)
    words = flags if isinstance(flags, list) else []
    return RemoteMessage(
        uid=uid,
        flags=tuple(readable(word) for word in words if isinstance(word, bytes)),
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


def uid_set(uids: Sequence[int]) -> str:
    """``1:3,5``: runs of neighbours as ranges."""
    runs: list[list[int]] = []
    for uid in uids:
        if runs and uid == runs[-1][1] + 1:
            runs[-1][1] = uid
        else:
            runs.append([uid, uid])
    return ",".join(f"{first}:{last}" if first != last else f"{first}" for first, last in runs)


def integer(value: Value) -> int | None:
    """A number, None if it is none."""
    return int(value) if isinstance(value, bytes) and value.isdigit() else None


def listed_folder(reply: list[Value]) -> tuple[frozenset[str], str, bytes] | None:
    """Flags, the last part of the name, and the name on the wire; None if it can't be opened."""
    flags, delimiter, name = (*reply, None, None, None)[:3]
    if not isinstance(flags, list) or not isinstance(name, bytes) or NOT_QUOTABLE.search(name):
        return None
    words = frozenset(readable(flag).lower() for flag in flags if isinstance(flag, bytes))
    if words & _UNSELECTABLE:
        return None
    path = decode_name(name)
    leaf = path.rsplit(readable(delimiter), 1)[-1] if isinstance(delimiter, bytes) and delimiter else path
    return words, leaf, name


def typed_folders(listed: Sequence[tuple[frozenset[str], str, bytes]]) -> list[RemoteFolder]:
    """Each type goes to one folder: to the one that is flagged so, else to the first with a well-known name."""
    types: dict[int, str] = {}
    for place, (_, _, name) in enumerate(listed):
        if name.upper() == b"INBOX":
            types[place] = "inbox"
    for guess in (_flagged_type, _named_type):
        for place, (flags, leaf, _) in enumerate(listed):
            kind = guess(flags, leaf)
            if kind is not None and kind not in types.values():
                types.setdefault(place, kind)
    return [
        RemoteFolder(name=decode_name(name), type=types.get(place, "custom"))
        for place, (_, _, name) in enumerate(listed)
    ]


def _flagged_type(flags: frozenset[str], _leaf: str) -> str | None:
    return next((_SPECIAL_USE[flag] for flag in sorted(flags) if flag in _SPECIAL_USE), None)


def _named_type(_flags: frozenset[str], leaf: str) -> str | None:
    return _WELL_KNOWN.get(leaf.lower())


def decode_name(name: bytes) -> str:
    """Modified UTF-7 (RFC 3501 section 5.1.3); what is none stays as it is."""
    text = name.decode("utf-8", "replace")
    try:
        decoded = re.sub("&([^-]*)-", lambda run: _decode_run(run[1]), text)
    except ValueError:
        return text
    return text if "\0" in decoded else decoded


def _decode_run(run: str) -> str:
    if not run:
        return "&"
    padded = run.replace(",", "/") + "=" * (-len(run) % 4)
    return base64.b64decode(padded, validate=True).decode("utf-16-be")


def encode_name(name: str) -> bytes:
    """A name as the server wants it: modified UTF-7."""
    return re.sub(r"&|[^\x20-\x7e]+", lambda run: _encode_run(run[0]), name).encode("ascii")


def _encode_run(run: str) -> str:
    if run == "&":
        return "&-"
    encoded = base64.b64encode(run.encode("utf-16-be", "surrogatepass")).decode("ascii")
    return f"&{encoded.rstrip('=').replace('/', ',')}-"


def quoted(text: bytes) -> bytes:
    """A quoted string."""
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def readable(text: bytes | str | None, *, hidden: Sequence[str] = ()) -> str:
    """A reply on one line, cut, without what must not be repeated."""
    said = text.decode("utf-8", "replace") if isinstance(text, bytes) else text or ""
    for secret in filter(None, hidden):
        said = said.replace(secret, "***")
    return _CONTROL.sub(" ", said).strip()[:_REPLY_CHARACTERS_MAX]
