"""The text and the noise that bodies are cut from: made once per seed, about 1 MB each, in some tens of milliseconds.

Text made word by word per message would be sixty times slower, so a body is a slice of lines that fit together in any
number: every line of a section is whole in its charset and its transfer encoding. Never makes a message.
Called by: bodies (which sections a body has), source (through ``Cut``, per message).
"""

from __future__ import annotations

import binascii
import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis.draws import weighted
from fakemail.synthesis.encodings import LINE_OF_BASE64, base64_lines, quoted_printable
from fakemail.synthesis.words import LANGUAGES, Language

_SECTION_BYTES: Final = 30_000
_NOISE_LINES: Final = 13_440
_BASE64_LINE: Final = 78
#: RFC 5322 section 2.1.1 wishes for 78 at most, RFC 2045 section 6.7 demands 76 of quoted-printable.
_LINE_BYTES: Final = 74
_PARAGRAPH_LINES: Final = 7


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to write text: a language in a charset in a transfer encoding."""

    #: A key of ``words.LANGUAGES``.
    words: str
    charset: str
    encoding: str
    #: Of a text line before encoding, in bytes as they are transferred (base64: as they are before it).
    line_bytes: int = _LINE_BYTES

    @property
    def language(self) -> Language:
        """Its words, subjects and people."""
        return LANGUAGES[self.words]

    @property
    def tag(self) -> str:
        """The language as facts name it."""
        return self.words.partition("-")[0]

    def width(self, text: str) -> int:
        """Bytes that a piece of a line takes against ``line_bytes``."""
        raw = text.encode(self.charset)
        if self.charset == "iso-2022-jp":  # the escape sequences are counted once per line, by line_bytes
            return 2 * len(text)
        return len(quoted_printable(raw)) if self.encoding == "quoted-printable" else len(raw)

    def encode(self, lines: Iterable[str], *, last: bool = True) -> bytes:
        """Lines as they are transferred; only if they are the ``last`` of a body may base64 end with padding."""
        # Each line is encoded alone: ISO-2022-JP has to return to ASCII before its end (RFC 1468).
        raw = [line.encode(self.charset) for line in lines]
        if self.encoding == "quoted-printable":
            raw = [quoted_printable(line) for line in raw]
        text = b"".join(line + b"\r\n" for line in raw)
        if self.encoding != "base64":
            return text
        missing = -len(text) % LINE_OF_BASE64
        return base64_lines(text if last or not missing else text[:-2] + b" " * missing + b"\r\n")


#: What mail is written in; the first is what is neither decoded nor ever wrong.
VARIANTS: Final = (
    Variant(words="en", charset="us-ascii", encoding="7bit"),
    Variant(words="en-typographic", charset="utf-8", encoding="quoted-printable"),
    Variant(words="en-typographic", charset="windows-1252", encoding="quoted-printable"),
    Variant(words="emoji", charset="utf-8", encoding="8bit"),
    Variant(words="emoji", charset="utf-8", encoding="base64", line_bytes=112),
    Variant(words="de", charset="utf-8", encoding="quoted-printable"),
    Variant(words="de", charset="iso-8859-1", encoding="quoted-printable"),
    Variant(words="de", charset="utf-8", encoding="8bit"),
    Variant(words="fr", charset="iso-8859-1", encoding="8bit"),
    Variant(words="fr", charset="windows-1252", encoding="quoted-printable"),
    Variant(words="ru", charset="koi8-r", encoding="8bit"),
    Variant(words="ru", charset="utf-8", encoding="base64", line_bytes=112),
    Variant(words="ru", charset="koi8-r", encoding="base64", line_bytes=55),
    Variant(words="ja", charset="iso-2022-jp", encoding="7bit", line_bytes=66),
    Variant(words="ja", charset="utf-8", encoding="base64", line_bytes=112),
    Variant(words="ar", charset="utf-8", encoding="base64", line_bytes=112),
    Variant(words="zh", charset="utf-8", encoding="base64", line_bytes=112),
)
#: Indexes into VARIANTS, for six bits to choose from.
VARIANT_MIX: Final = weighted(
    list(zip(range(len(VARIANTS)), (17, 8, 4, 3, 2, 4, 3, 2, 2, 3, 2, 3, 1, 3, 2, 2, 3), strict=True))
)
_HTML: Final = (("<p>", "</p>"), ("<div>", "</div>"), ('<p class="lead">', "</p>"), ("<div>", "<br></div>"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """Lines of one kind, of which any run may be cut."""

    view: memoryview
    #: Where each line begins, and where the last one ends.
    starts: Sequence[int]

    @property
    def lines(self) -> int:
        """How many there are."""
        return len(self.starts) - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """Everything that is made once per seed."""

    #: By variant.
    text: tuple[Section, ...]
    #: By variant: elements of HTML, each whole in its line.
    html: tuple[Section, ...]
    #: Base64 of what looks compressed, as attachments are.
    noise: Section


@functools.lru_cache(maxsize=4)
def pool_of(seed: int) -> Pool:
    """The pool of this seed."""
    return Pool(
        text=tuple(_prose(seed, variant, html=False) for variant in VARIANTS),
        html=tuple(_prose(seed, variant, html=True) for variant in VARIANTS),
        noise=_noise(seed),
    )


def _noise(seed: int) -> Section:
    raw = hashlib.shake_256(f"attachment\x1f{seed}".encode()).digest(_NOISE_LINES * LINE_OF_BASE64)
    # Cut after encoding: whole lines hold whole groups of four characters.
    flat = binascii.b2a_base64(raw, newline=False)
    lines = b"".join(flat[at : at + 76] + b"\r\n" for at in range(0, len(flat), 76))
    return Section(view=memoryview(lines), starts=range(0, len(lines) + 1, _BASE64_LINE))


def _prose(seed: int, variant: Variant, *, html: bool) -> Section:
    name = f"prose\x1f{seed}\x1f{VARIANTS.index(variant)}\x1f{html}"
    throws = hashlib.shake_256(name.encode()).digest(_SECTION_BYTES // 2)
    lines = _filled(variant, throws, html=html)
    if variant.encoding == "base64":
        # So many whole lines of base64 that the text line with its line end fills them: it can be cut anywhere.
        whole = variant.line_bytes
        raw = [line.encode(variant.charset) for line in lines]
        encoded = [base64_lines(line + b" " * (whole - len(line)) + b"\r\n") for line in raw]
    else:
        # A paragraph ends after every seventh line; HTML has its own.
        every = len(lines) + 1 if html else _PARAGRAPH_LINES
        encoded = [variant.encode([line] if at % every else [line, ""]) for at, line in enumerate(lines, start=1)]
    starts = [0]
    for line in encoded:
        starts.append(starts[-1] + len(line))
    return Section(view=memoryview(b"".join(encoded)), starts=tuple(starts))


def _filled(variant: Variant, throws: bytes, *, html: bool) -> list[str]:
    """Words packed into lines, until there are enough bytes."""
    language = variant.language
    words = [language.words[at % len(language.words)] for at in range(256)]
    # One word in sixteen ends a sentence.
    words[240:] = [word + language.stop for word in words[240:]]
    wraps = [(before, after, variant.width(before + after)) for before, after in (_HTML if html else (("", ""),))]
    widths, glue = [variant.width(word) for word in words], len(language.glue)
    lines: list[str] = []
    line: list[str] = []
    (before, after, used), made = wraps[0], 0
    enough = _SECTION_BYTES * 3 // 4 if variant.encoding == "base64" else _SECTION_BYTES
    for throw in throws:
        width = widths[throw] + glue
        if used + width > variant.line_bytes:
            lines.append(before + language.glue.join(line) + after)
            made += used
            if made > enough:
                break
            line = []
            before, after, used = wraps[len(lines) % len(wraps)]
        line.append(words[throw])
        used += width
    return lines
