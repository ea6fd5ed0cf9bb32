"""Mail as a function: message = f(seed, address, folder, uid), the same bytes on every machine. Pure.

Called by: mailbox (folders hold the name of a message, not the message).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Final, TypeVar


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How large seeded mail is: each table holds the values of sixteen equal shares of the messages."""

    #: Lines of text (about 72 bytes each).
    text_lines: tuple[int, ...]
    #: Lines of base64 (78 bytes each) in an attachment.
    attachment_lines: tuple[int, ...]
    #: Of 256 messages, so many have an attachment.
    attachment_share: int
    #: Of 256 messages, so many have an HTML alternative.
    html_share: int


PROFILES: Final[Mapping[str, Profile]] = {
    # Mean about 19 kB, of which two thirds are in the fifth of the messages that have an attachment.
    "small": Profile(
        text_lines=(8, 12, 16, 20, 25, 30, 36, 43, 51, 60, 72, 87, 107, 135, 180, 260),
        attachment_lines=(40, 80, 130, 190, 260, 340, 430, 530, 640, 760, 900, 1060, 1250, 1500, 1900, 2600),
        attachment_share=51,
        html_share=85,
    ),
}

_PEOPLE: Final = (
    ("Ada Byron", "ada.byron"),
    ("Björn Åkesson", "bjorn.akesson"),
    ("Chidi Okafor", "chidi"),
    ("Danièle Lefèvre", "d.lefevre"),
    ("Emil Novák", "emil.novak"),
    ("Fatima Zahra", "fatima"),
    ("Grace Tan", "grace.tan"),
    ("Hiroshi 田中", "h.tanaka"),
    ("Ines Müller", "ines.mueller"),
    ("Joao Pereira", "joao"),
    ("Katya Иванова", "katya"),
    ("Liam O'Neill", "liam.oneill"),
)
_DOMAINS: Final = ("example.com", "example.net", "example.org", "mail.example", "shop.example", "team.example")
_SUBJECTS: Final = (
    "Minutes of the weekly meeting",
    "Invoice for your last order",
    "Grüße aus München, und eine Frage",
    "Your parcel is on its way",
    "Re: budget for the next quarter",
    "Réunion reportée à jeudi",
    "Photos from the trip",
    "Отчёт за неделю",
    "Please review the attached draft",
    "会議の議事録について",
    "Password changed on a new device",
    "Weekend plans?",
)
# fmt: off
_WORDS: Final = (
    "the", "of", "and", "to", "in", "that", "is", "for", "on", "with", "as", "was", "by", "be", "at", "from", "this",
    "are", "or", "an", "which", "but", "not", "have", "one", "all", "their", "been", "more", "will", "about", "when",
    "would", "there", "time", "order", "team", "report", "meeting", "customer", "project", "change", "number", "price",
    "release", "service", "question", "answer", "library", "window", "garden", "river", "winter", "morning", "paper",
    "letter", "street", "market", "office", "review", "budget", "draft", "schedule", "delivery",
)
# fmt: on
#: As quoted-printable (RFC 2045 section 6.7), so that some mail needs decoding.
_QP_WORDS: Final = (
    *_WORDS[:52],
    "caf=C3=A9",
    "na=C3=AFve",
    "Gr=C3=BC=C3=9Fe",
    "=E2=82=AC 25",
    "d=C3=A9j=C3=A0",
    "=E2=80=93",
)
_ZONES_MIN: Final = (0, 60, 120, -300, -480, 330, 540)
FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_LINE_BYTES: Final = 76
_POOL_LINES: Final = 4096
_T = TypeVar("_T")


class _Draw:
    """Thirty-two small numbers from a hash of everything that names a message."""

    def __init__(self, *name: object) -> None:
        self._numbers = iter(struct.unpack(">32H", name_hash(*name, size=64)))

    def below(self, limit: int) -> int:
        return int(next(self._numbers)) % limit

    def of(self, choices: Sequence[_T]) -> _T:
        return choices[self.below(len(choices))]


def name_hash(*name: object, size: int) -> bytes:
    """A digest of everything that names a thing."""
    return hashlib.blake2b("\x1f".join(map(str, name)).encode(), digest_size=size).digest()


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Lines made once per seed; every body is a slice, since making text word by word is sixty times slower."""

    text: tuple[bytes, ...]
    quoted: tuple[bytes, ...]
    base64: tuple[bytes, ...]


@functools.lru_cache(maxsize=4)
def _pool(seed: int) -> _Pool:
    noise = hashlib.shake_256(f"attachment\x1f{seed}".encode()).digest(_POOL_LINES * 57)
    return _Pool(
        text=_prose(seed, _WORDS),
        quoted=_prose(seed, _QP_WORDS),
        # 57 bytes are exactly one line of 76 characters, so any run of whole lines is valid base64.
        base64=tuple(base64.b64encode(noise[start : start + 57]) for start in range(0, len(noise), 57)),
    )


def _prose(seed: int, words: Sequence[str]) -> tuple[bytes, ...]:
    lines, line = [], ""
    for byte in hashlib.shake_256(f"prose\x1f{seed}".encode()).digest(_POOL_LINES * 6):
        word = words[byte % len(words)] + ("." if byte >= 240 else "")  # noqa: PLR2004 one word in sixteen ends a sentence
        if len(line) + 1 + len(word) > _LINE_BYTES:
            lines.append(line.encode())
            line = word
        else:
            line = f"{line} {word}" if line else word
    return tuple(lines)


def _run(lines: Sequence[bytes], start: int, count: int) -> bytes:
    start %= len(lines) - count
    return b"\r\n".join(lines[start : start + count]) + b"\r\n"


def synthesise(*, seed: int, address: str, folder: str, uid: int, profile: str = "small") -> bytes:
    """The message of this name: the same bytes in every process, on every machine, in any order."""
    draw = _Draw("message", seed, address, folder, uid)
    other = draw.of(_PEOPLE)
    correspondent = f"{_word(other[0])} <{other[1]}@{draw.of(_DOMAINS)}>"
    sender, recipient = (address, correspondent) if folder == "Sent" else (correspondent, address)
    sent = _sent(uid, draw)
    lines = [
        f"Received: from {draw.of(_DOMAINS)} (relay{draw.below(9)}.test [192.0.2.{draw.below(250)}])",
        f"\tby mx.fakemail.test with ESMTP; {format_datetime(sent)}",
        f"From: {sender}",
        f"To: {recipient}",
        f"Subject: {_word(draw.of(_SUBJECTS))} ({uid})",
        f"Date: {format_datetime(sent)}",
        f"Message-ID: {_name(seed, address, folder, uid)}",
    ]
    if draw.below(4) == 0 and uid > 1:
        parent = _name(seed, address, folder, uid - 1)
        lines += [f"In-Reply-To: {parent}", f"References: {parent}"]
    if draw.below(8) == 0:
        lines.append(f"Cc: {draw.of(_PEOPLE)[1]}@{draw.of(_DOMAINS)}")
    lines.append("MIME-Version: 1.0\r\n")
    return "\r\n".join(lines).encode("ascii") + _content(draw, _pool(seed), PROFILES[profile], uid)


def _content(draw: _Draw, pool: _Pool, profile: Profile, uid: int) -> bytes:
    """Everything from Content-Type on."""
    lines, start, quoted = draw.of(profile.text_lines), draw.below(1 << 16), draw.below(4) == 0
    mark = f"=_{uid:x}.{draw.below(1 << 16):04x}"
    text = _run(pool.quoted if quoted else pool.text, start, lines)
    entity = _text(b"plain", text, quoted=quoted)
    if draw.below(256) < profile.html_share:
        page = b"<html><body><p>\r\n" + text + b"</p></body></html>\r\n"
        entity = _multipart("alternative", f"{mark}.a", [entity, _text(b"html", page, quoted=quoted)])
    if draw.below(256) < profile.attachment_share:
        count, start, number = draw.of(profile.attachment_lines), draw.below(1 << 16), draw.below(1000)
        entity = _multipart("mixed", f"{mark}.m", [entity, _attachment(_run(pool.base64, start, count), number)])
    return entity


def _text(subtype: bytes, body: bytes, *, quoted: bool) -> bytes:
    charset, encoding = (b"utf-8", b"quoted-printable") if quoted else (b"us-ascii", b"7bit")
    header = b"Content-Type: text/%b; charset=%b\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (
        subtype,
        charset,
        encoding,
    )
    return header + body


def _attachment(body: bytes, number: int) -> bytes:
    # One name in four is not ASCII (RFC 2231 section 4).
    name = f"filename*=utf-8''Pr%C3%BCfbericht-{number}.bin" if number % 4 == 0 else f'filename="report-{number}.bin"'
    header = "Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n"
    return f"{header}Content-Disposition: attachment; {name}\r\n\r\n".encode("ascii") + body


def _multipart(subtype: str, mark: str, entities: Iterable[bytes]) -> bytes:
    border = f"--{mark}".encode("ascii")
    parts = b"".join(border + b"\r\n" + entity + b"\r\n" for entity in entities)
    return f'Content-Type: multipart/{subtype}; boundary="{mark}"\r\n\r\n'.encode("ascii") + parts + border + b"--\r\n"


def _word(text: str) -> str:
    """An encoded word if it must be one (RFC 2047 section 2)."""
    if text.isascii():
        return text
    return f"=?utf-8?b?{base64.b64encode(text.encode()).decode('ascii')}?="


def _sent(uid: int, draw: _Draw) -> datetime:
    # Later UIDs were sent later; the modulus keeps the largest UIDs within the calendar.
    moment = FIRST_DAY + timedelta(seconds=(uid % 2_000_000) * 311 + draw.below(300))
    return moment.astimezone(timezone(timedelta(minutes=draw.of(_ZONES_MIN))))


def _name(seed: int, address: str, folder: str, uid: int) -> str:
    return f"<{name_hash('name', seed, address, folder, uid, size=10).hex()}.{uid}@fakemail.test>"
