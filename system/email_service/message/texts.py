"""Bytes to text: character sets, encoded words (RFC 2047), file names; and what PostgreSQL can store of it.

Rule: nothing here raises, whatever the bytes; ``Decoder`` remembers whether all of it was what it claimed to be.
Rule: work is linear in what is given, and what a mail names is looked up in a closed list before Python may import it.
Callers: the two readers, and ``fields``.
"""

from __future__ import annotations

import binascii
import codecs
import encodings
import encodings.aliases
import functools
import pkgutil
import re
from typing import Final

#: Longer file names are cut.
NAME_CHARACTERS_MAX: Final = 255
#: A header with more encoded words than anybody needs is left as it came.
_WORDS_MAX: Final = 1000

#: Codecs that are no character set, or that take quadratic time on a hostile body.
_CODECS_REFUSED: Final = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
#: Codecs that never answer half a surrogate pair.
_CODECS_CLEAN: Final = re.compile(r"ascii|utf-8|iso8859-\d+|cp125\d|koi8-[ru]")
_CODECS: Final = (
    frozenset(encodings.aliases.aliases)
    | frozenset(encodings.aliases.aliases.values())
    | frozenset(module.name for module in pkgutil.iter_modules(encodings.__path__))
)
#: Codecs of which CR and LF are bytes of their own, whatever stands before them.
_CODECS_BY_LINE: Final = re.compile(
    r"(?:big5|cp9|euc_|gb|iso2022_|johab|shift_|mac-).*|cp437|cp[78]\d\d|hp-roman8|tis-620"
)
#: No claim at all: what clients write who don't know.
_UNKNOWN_CHARSETS: Final = frozenset({"us-ascii", "unknown-8bit"})

#: An encoded word, its language (RFC 2231 section 5) aside. The text may hold question marks, which RFC 2047 forbids
#: and some clients write; its length is bounded so that a word without an end costs no more than that.
_WORD: Final = re.compile(r"=\?([^?*\s]{1,60})(?:\*[^?\s]{0,20})?\?([bBqQ])\?((?:[^?]|\?(?!=)){0,2000})\?=")
_QUOTED: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9!#$&^_.+-]{1,100}/[a-z0-9!#$&^_.+-]{1,100}")
_SEPARATOR: Final = re.compile(r"[/\\]")


class Decoder:
    """Decodes what one message holds."""

    def __init__(self) -> None:
        #: Something was not what it claimed to be.
        self.broken = False

    def text(self, data: bytes, charset: str | None) -> str:
        """Decode; a character set that is unknown or untrue makes the message broken."""
        if charset is None or (charset := charset.lower()) in _UNKNOWN_CHARSETS:
            return guessed(data)
        codec = _codec(charset)
        if codec is not None:
            name, clean_already = codec
            try:
                text = data.decode(name)
            except (LookupError, ValueError):
                # LookupError: base64 and its like are codecs, but not of text.
                pass
            else:
                return text.replace("\0", "") if clean_already else clean(text)
        self.broken = True
        return guessed(data)

    def body(self, data: bytes, charset: str | None) -> str:
        """A text whose lines end in LF."""
        text = self.text(data, charset)
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text

    def words(self, value: str) -> str:
        """A header's text with its encoded words decoded; one that can't be is left as it came."""
        if "=?" not in value:
            return value
        if value.count("=?") > _WORDS_MAX:
            self.broken = True
            return value
        pieces: list[tuple[str | bytes, str | None]] = []
        at = 0
        for word in _WORD.finditer(value):
            charset, kind, encoded = word.groups()
            between = value[at : word.start()]
            # Spaces between two encoded words are no text (RFC 2047 section 6.2).
            if between and not (pieces and between.isspace()):
                pieces.append((between, None))
            self._add(pieces, _word(kind, encoded), charset, word[0])
            at = word.end()
        pieces.append((value[at:], None))
        return "".join(self.text(piece, of) if isinstance(piece, bytes) else piece for piece, of in pieces)

    def _add(self, pieces: list[tuple[str | bytes, str | None]], data: bytes | None, charset: str, word: str) -> None:
        """Neighbours in one character set are decoded together: some clients split characters between words."""
        if data is None:
            self.broken = True
            pieces.append((word, None))
        elif pieces and isinstance(before := pieces[-1][0], bytes) and pieces[-1][1] == charset.lower():
            pieces[-1] = (before + data, charset.lower())
        else:
            pieces.append((data, charset.lower()))


def _word(kind: str, encoded: str) -> bytes | None:
    """The bytes of an encoded word."""
    try:
        data = encoded.encode("ascii")
        if kind in "bB":
            return binascii.a2b_base64(data + b"==="[: -len(data) % 4])
    except (ValueError, binascii.Error):
        return None
    return _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), data.replace(b"_", b" "))


@functools.lru_cache(maxsize=256)
def _codec(charset: str) -> tuple[str, bool] | None:
    """Python's name for a character set, and whether its texts need no cleaning; None if it is not one."""
    normal = encodings.normalize_encoding(charset).lower() if charset.isascii() and len(charset) < 40 else ""  # noqa: PLR2004  # no codec's name is longer
    if normal not in _CODECS and normal.replace(".", "_") not in _CODECS:
        return None
    try:
        name = codecs.lookup(charset).name
    except (LookupError, ValueError):
        return None
    if name.replace("_", "-") in _CODECS_REFUSED:
        return None
    return name, bool(_CODECS_CLEAN.fullmatch(name))


def holds_line_ends(charset: str) -> bool:
    """Whether CR and LF are bytes of their own in a text of this character set, as in ASCII."""
    if charset.lower() in _UNKNOWN_CHARSETS:
        return True
    codec = _codec(charset.lower())
    return codec is None or codec[1] or bool(_CODECS_BY_LINE.fullmatch(codec[0]))


def guessed(data: bytes) -> str:
    """Text that does not say what it is: UTF-8 if it can be, else the Latin that never fails."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return text.replace("\0", "")


def clean(text: str) -> str:
    """What PostgreSQL stores: no NUL, no half of a surrogate pair (UTF-7 can hold one)."""
    return text.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def without_controls(text: str) -> str:
    """Text that fits on one line."""
    return _CONTROL.sub("", text)


def media_type(text: str) -> str:
    """A type that may be served; what is no type is bytes."""
    return text if _MEDIA_TYPE.fullmatch(text) else "application/octet-stream"


def file_name(text: str) -> str:
    """The last part of a path, without control characters."""
    name = without_controls(_SEPARATOR.split(text)[-1]).strip()[:NAME_CHARACTERS_MAX]
    return "unnamed" if name in {"", ".", ".."} else name
