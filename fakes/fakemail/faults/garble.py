"""Mail that is not what it says: how a message is spoilt on its way to the client.

Owns: the ways to spoil a message, as functions of its bytes. Never does: choosing whom to spoil (a fault does).
Called by: actions (the names), imap_protocol (``spoil``), table.

Rule 1: the length stays, so that RFC822.SIZE is still true; what gets too long loses the end of a body. A body that is
too short for that, and ``truncate``, which lies about its size on purpose, are the exceptions.
Rule 2: every message is spoilt: one that lacks what a way to spoil looks for is made to claim that it has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Final

_BLANK: Final = b"\r\n\r\n"
#: Parts in parts in parts are looked into so deep.
_DEPTH_MAX: Final = 8
_MULTIPART: Final = re.compile(
    rb"(?im)^content-type:\s*multipart/[^;]*;(?:[^\r\n]|\r\n[ \t])*?\b(boundary)=\"?([^\"\r\n;]+)"
)
_IS_BASE64: Final = re.compile(rb"(?im)^content-transfer-encoding:[ \t]*base64")
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_LETTER: Final = re.compile(rb"[A-Za-z0-9+/]")


@dataclass(frozen=True, kw_only=True)
class Garble:
    """One way to spoil a message."""

    #: What the client gets, for people.
    words: str
    #: The spoilt message of a whole one.
    spoil: Callable[[bytes], bytes]


@dataclass(frozen=True, kw_only=True)
class _Leaf:
    """A part without parts, or a whole message that has none: its place in the message."""

    start: int
    #: Behind the header's last line, without its CRLF.
    header_end: int
    body: int
    end: int


def _leaves(raw: bytes, start: int, end: int, depth: int = 0) -> Iterator[_Leaf]:
    blank = raw.find(_BLANK, start, end)
    leaf = _Leaf(start=start, header_end=blank, body=blank + 4, end=end)
    if raw[start : start + 2] == b"\r\n":
        leaf = _Leaf(start=start, header_end=start, body=start + 2, end=end)
    elif blank < 0:
        leaf = _Leaf(start=start, header_end=end, body=end, end=end)
    multipart = _MULTIPART.search(raw[start : leaf.header_end])
    inside = list(_parts(raw, leaf, b"--" + multipart[2])) if multipart and depth < _DEPTH_MAX else []
    if not inside:
        yield leaf
    for first, last in inside:
        yield from _leaves(raw, first, last, depth + 1)


def _parts(raw: bytes, whole: _Leaf, delimiter: bytes) -> Iterator[tuple[int, int]]:
    """From behind each delimiter line to the next delimiter, the last one (RFC 2046 section 5.1.1) left out."""
    lines = [at.start() for at in re.finditer(rb"(?m)^" + re.escape(delimiter), raw[whole.body : whole.end])]
    for at, following in pairwise([*lines, whole.end - whole.body]):
        first = raw.find(b"\n", whole.body + at, whole.end) + 1
        if first and not raw.startswith(b"--", whole.body + at + len(delimiter)):
            yield first, max(first, whole.body + following)


def _leaf(raw: bytes, wanted: re.Pattern[bytes] | None = None) -> _Leaf:
    """The first leaf whose header fits, else the first of all."""
    leaves = list(_leaves(raw, 0, len(raw)))
    fitting = [leaf for leaf in leaves if wanted and wanted.search(raw[leaf.start : leaf.header_end])]
    return (fitting or leaves)[0]


def _rewrite(raw: bytes, leaf: _Leaf, header: bytes, body: bytes) -> bytes:
    """The message with another header and body of a leaf, as long as it was."""
    room = max(0, leaf.end - leaf.start - len(header) - len(_BLANK))
    return raw[: leaf.start] + header + _BLANK + body[:room].ljust(room) + raw[leaf.end :]


def _with_field(header: bytes, name: bytes, value: bytes) -> bytes:
    """The header with this field, in the place of the one that was there or at its end."""
    field = name + b": " + value
    pattern = re.compile(rb"(?im)^" + re.escape(name) + rb":[^\r\n]*(?:\r\n[ \t][^\r\n]*)*")
    if pattern.search(header):
        return pattern.sub(lambda _: field, header, count=1)
    return header + (b"\r\n" if header else b"") + field


def _base64(raw: bytes) -> bytes:
    leaf = _leaf(raw, _IS_BASE64)
    header = _with_field(raw[leaf.start : leaf.header_end], b"Content-Transfer-Encoding", b"base64")
    room = max(0, leaf.end - leaf.start - len(header) - len(_BLANK))
    body = bytearray(raw[leaf.body : leaf.end][:room].ljust(room).replace(b"=", b"!"))
    letters = len(body) - len(body.translate(None, delete=_ALPHABET))
    # One letter more than a multiple of four is more than padding can mend (RFC 4648 section 4).
    for letter in islice(_LETTER.finditer(bytes(body)), (letters - 1) % 4 or 4):
        body[letter.start()] = ord("*")
    return _rewrite(raw, leaf, header, bytes(body))


def _whole(raw: bytes) -> _Leaf:
    """The message as if it had no parts."""
    end = raw.find(_BLANK)
    end = end if end >= 0 else len(raw)
    return _Leaf(start=0, header_end=end, body=min(len(raw), end + len(_BLANK)), end=len(raw))


def _boundary(raw: bytes) -> bytes:
    """Closing delimiters lose their dashes at the end, or there is nothing that could be closed."""
    spoilt = re.sub(rb"(?m)^(--[^\r\n]+)--([ \t]*\r?)$", rb"\1  \2", raw)
    if spoilt != raw:
        return spoilt
    whole = _whole(raw)
    header = _with_field(raw[: whole.header_end], b"Content-Type", b'multipart/mixed; boundary="never"')
    return _rewrite(raw, whole, header, raw[whole.body :])


def _no_boundary(raw: bytes) -> bytes:
    whole = _whole(raw)
    if found := _MULTIPART.search(raw[: whole.header_end]):
        return raw[: found.start(1)] + b"boundery" + raw[found.end(1) :]
    header = _with_field(raw[: whole.header_end], b"Content-Type", b"multipart/mixed")
    return _rewrite(raw, whole, header, raw[whole.body :])


def _charset(raw: bytes) -> bytes:
    leaf = _leaf(raw)
    header = _with_field(raw[leaf.start : leaf.header_end], b"Content-Type", b'text/plain; charset="x-nowhere"')
    header = _with_field(header, b"Content-Transfer-Encoding", b"8bit")
    return _rewrite(raw, leaf, header, b"\xff\xfe" + raw[leaf.body : leaf.end].replace(b"e", b"\xe9"))


def _header(raw: bytes) -> bytes:
    whole = _whole(raw)
    first, _, rest = raw[: whole.header_end].partition(b"\r\n")
    lines = [first, b"X-Eight-Bit: caf\xe9 =?utf-8?b?!!?=", b"a line that is no header field", rest]
    return _rewrite(raw, whole, b"\r\n".join(filter(None, lines)), raw[whole.body :])


def _no_header_end(raw: bytes) -> bytes:
    whole = _whole(raw)
    return (raw[: whole.header_end] + b"\r\n" + raw[whole.body :]).ljust(len(raw))


def _nul(raw: bytes) -> bytes:
    at = min(_leaf(raw).body, len(raw) - 1)
    # The first byte too, for a body without a blank.
    return raw[: max(0, at)] + b"\0" + raw[at + 1 :].replace(b" ", b"\0", 8)


def _bare_lf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n").ljust(len(raw), b"\n")


def _truncate(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


#: Every way to spoil a message.
GARBLES: Final[Mapping[str, Garble]] = {
    "base64": Garble(
        words="base64 with characters outside its alphabet and one letter too many (RFC 4648)", spoil=_base64
    ),
    "boundary": Garble(words="a multipart whose last delimiter never comes (RFC 2046 section 5.1.1)", spoil=_boundary),
    "no-boundary": Garble(
        words="a multipart whose Content-Type names no boundary (RFC 2046 section 5.1.1)", spoil=_no_boundary
    ),
    "charset": Garble(words="text in a charset that there is not, with bytes above 127", spoil=_charset),
    "header": Garble(
        words="a header with bytes above 127, a broken encoded word and a line without a colon", spoil=_header
    ),
    "no-header-end": Garble(words="no empty line between header and body (RFC 5322 section 2.1)", spoil=_no_header_end),
    "truncate": Garble(words="the first half alone, shorter than RFC822.SIZE says", spoil=_truncate),
    "bare-lf": Garble(words="lines that end in LF alone (RFC 5322 section 2.3)", spoil=_bare_lf),
    "nul": Garble(words="NUL bytes, which no literal may hold (RFC 3501 section 9)", spoil=_nul),
}


def spoil(kind: str, raw: bytes) -> bytes:
    """The message, spoilt; ``kind`` is a key of ``GARBLES``."""
    return GARBLES[kind].spoil(raw)
