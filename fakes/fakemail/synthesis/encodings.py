"""Text as mail writes it: encoded words, quoted-printable, base64, parameters (RFC 2045, 2047, 2231).

Written here and not taken from ``email``: the standard library may fold differently from one version to the next, and
a seeded message must not. Never decodes. Called by: the tables of this package.
"""

from __future__ import annotations

import binascii
from typing import Final

#: An encoded word, and a line that has one, may have so many bytes (RFC 2047 section 2).
_WORD_BYTES: Final = 75
#: What base64 makes a line of 76 of (RFC 2045 section 6.8).
LINE_OF_BASE64: Final = 57
# RFC 2047 section 5 rule 3: what may stand for itself in a phrase.
_Q_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!*+-/")
# RFC 2231 section 7: attribute-char.
_PERCENT_SAFE: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$&+-.^_`{|}~")
# RFC 2045 section 6.7 rules 1 and 2; "=" is the mark itself.
_QP: Final = {byte: f"={byte:02X}" for byte in (*range(9), *range(10, 32), 61, *range(127, 256))}
_QP_BYTES: Final = 76
_PARAMETER_BYTES: Final = 60


def encoded_words(text: str, *, charset: str = "utf-8", kind: str = "B", room: int = _WORD_BYTES) -> bytes:
    """One encoded word after another, each on a line of its own; ``room`` is what the first line has left."""
    words: list[bytes] = []
    chunk = ""
    for character in text:
        # No word may end within a character (section 5), nor in another state than ASCII: each is encoded alone.
        if chunk and len(_encoded_word(chunk + character, charset, kind)) > (_WORD_BYTES if words else room):
            words.append(_encoded_word(chunk, charset, kind))
            chunk = ""
        chunk += character
    return b"\r\n ".join([*words, _encoded_word(chunk, charset, kind)])


def _encoded_word(text: str, charset: str, kind: str) -> bytes:
    raw = text.encode(charset)
    if kind == "B":
        inner = binascii.b2a_base64(raw, newline=False)
    else:
        inner = b"".join(bytes([b]) if b in _Q_SAFE else b"_" if b == 32 else b"=%02X" % b for b in raw)  # noqa: PLR2004 a space
    return b"=?%b?%b?%b?=" % (charset.encode("ascii"), kind.encode("ascii"), inner)


def quoted_printable(raw: bytes) -> bytes:
    """One line without its line end; broken softly where it would be longer than 76 (RFC 2045 section 6.7)."""
    text = raw.decode("latin-1").translate(_QP)
    if text.endswith(" "):
        text = text[:-1] + "=20"  # a space at the end would be lost on the way (rule 3)
    broken = ""
    while len(text) > _QP_BYTES:
        # Never within the three characters of one byte.
        at = next(at for at in (75, 74, 73) if "=" not in text[at - 2 : at])
        broken, text = f"{broken}{text[:at]}=\r\n", text[at:]
    return (broken + text).encode("ascii")


def base64_lines(raw: bytes) -> bytes:
    """Lines of 76 characters, the last one shorter (RFC 2045 section 6.8)."""
    starts = range(0, len(raw), LINE_OF_BASE64)
    return b"".join(binascii.b2a_base64(raw[at : at + LINE_OF_BASE64], newline=False) + b"\r\n" for at in starts)


def extended_parameter(name: str, value: str, *, charset: str = "utf-8", language: str = "") -> bytes:
    """``name*=charset'language'value``, continued where it is long (RFC 2231 sections 3 and 4)."""
    escaped = [chr(b) if b in _PERCENT_SAFE else f"%{b:02X}" for b in value.encode(charset)]
    pieces = [f"{charset}'{language}'"]
    for each in escaped:
        if len(pieces[-1]) + len(each) > _PARAMETER_BYTES:
            pieces.append("")
        pieces[-1] += each
    if len(pieces) == 1:
        return f"{name}*={pieces[0]}".encode("ascii")
    return ";\r\n ".join(f"{name}*{at}*={piece}" for at, piece in enumerate(pieces)).encode("ascii")


def encoded_parameter(name: str, value: str, *, charset: str = "utf-8", kind: str = "B") -> bytes:
    """An encoded word in quotes: RFC 2047 section 5 forbids it, and Outlook has always written it."""
    return b'%b="%b"' % (name.encode("ascii"), encoded_words(value, charset=charset, kind=kind, room=60))
