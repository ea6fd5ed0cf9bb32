"""Header fields but for the addresses: Received chains, dates, Message-IDs, subjects, what mailers and filters add.

Every table is made once per process, and every entry has a length of its own that never changes, so that the size of a
message is a sum. Never draws: source does. Called by: bodies (subjects), layouts (extras), source.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from fakemail.synthesis.draws import Dice, name_hash
from fakemail.synthesis.encodings import encoded_words
from fakemail.synthesis.pools import VARIANTS
from fakemail.synthesis.words import DOMAINS

# --- the pieces of a header -------------------------------------------------------------------------------------------

#: A header is joined from these, in this order; what is broken puts other bytes in the place of some.
(
    PATH, DELIVERED, TRACE, PROOF, FROM, TO, USER, COPIES, SUBJECT_NAME, SUBJECT, NUMBER, DATE_NAME, DAY, MINUTE, CLOCK,
    MESSAGE_ID, REFERENCES, EXTRAS, CONTENT,
) = range(19)  # fmt: skip
DATE: Final = (DATE_NAME, DAY, MINUTE, CLOCK)

# --- dates ------------------------------------------------------------------------------------------------------------

FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
FIRST_SECOND: Final = int(FIRST_DAY.timestamp())
#: A mailbox gets busier: (first UID of the stretch, seconds from one message to the next, second of its first message).
#: Above the last of them 64 messages share a second, so that even UID 2**32 - 1 is of this decade.
_PACE: Final = ((1, 1801), (1 << 10, 311), (1 << 14, 61), (1 << 20, 0))
CROWD_BITS: Final = 6
#: Minutes since FIRST_DAY may be as low as minus so many: the delay of a message, and the zone of its sender.
_EARLY_DAYS: Final = 2
_LAST_DAYS: Final = 1600
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ZONES_MIN: Final = (0, 60, 120, -300, -480, 330, 540, 60, 120, 0, -210, 765, 60, 180, -240, 480)
#: What a message waits on its way, in minutes: mostly nothing, now and then hours.
_DELAYS_MIN: Final = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 17, 253)
#: What precedes the seconds: "Mon, 01 Jan 2024 " and "00:00".
DAY_TEXTS: Final = tuple(
    f"{_DAYS[day.weekday()]}, {day.day:02} {_MONTHS[day.month - 1]} {day.year} ".encode("ascii")
    for day in map(date.fromordinal, range(FIRST_DAY.toordinal() - _EARLY_DAYS, FIRST_DAY.toordinal() + _LAST_DAYS))
)
MINUTE_TEXTS: Final = tuple(f"{hour:02}:{minute:02}".encode("ascii") for hour in range(24) for minute in range(60))
MINUTES_PER_DAY: Final = 1440
#: So far is minute 0 of FIRST_DAY from the first of DAY_TEXTS.
EARLY_MINUTES: Final = _EARLY_DAYS * MINUTES_PER_DAY
_WHEN_BYTES: Final = len("Mon, 01 Jan 2024 00:00")


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """How a sender's clock stands to ours, for Date (RFC 5322 section 3.3)."""

    #: Minutes to add to the UTC minute of arrival.
    shift_min: int
    #: Seconds and zone, with the line end.
    tail: bytes


#: By six bits; the seconds are those before the first relay's.
CLOCKS: Final = tuple(
    Clock(
        shift_min=_ZONES_MIN[at % 16] - _DELAYS_MIN[at // 4],
        tail=f":{at % 19:02} {'-' if _ZONES_MIN[at % 16] < 0 else '+'}"
        f"{abs(_ZONES_MIN[at % 16]) // 60:02}{abs(_ZONES_MIN[at % 16]) % 60:02}\r\n".encode("ascii"),
    )
    for at in range(64)
)
DATE_BYTES: Final = len("Date: ") + _WHEN_BYTES + len(CLOCKS[0].tail)


def _stretches() -> tuple[tuple[int, int, int], ...]:
    begun, found = FIRST_SECOND + 600, []
    for at, (first, step) in enumerate(_PACE):
        found.append((first, step, begun))
        if at + 1 < len(_PACE):
            begun += (_PACE[at + 1][0] - first) * step
    return tuple(found)


_FIRST, _STEADY, _BUSY, _CROWDED = _stretches()
_GOLDEN: Final = 0x9E3779B1


def received(uid: int) -> int:
    """Epoch second of arrival; never before that of a lower UID."""
    if uid >= _CROWDED[0]:
        return _CROWDED[2] + (uid - _CROWDED[0] >> CROWD_BITS)
    first, step, begun = _FIRST if uid < _STEADY[0] else _STEADY if uid < _BUSY[0] else _BUSY
    # Somewhere within its own step: mail doesn't come by the clock.
    return begun + (uid - first) * step + ((uid * _GOLDEN & 0xFFFFFFFF) * step >> 32)


def when(minute: int) -> bytes:
    """Such as "Mon, 01 Jan 2024 00:00", of a minute counted from EARLY_MINUTES before FIRST_DAY."""
    return DAY_TEXTS[minute // MINUTES_PER_DAY] + MINUTE_TEXTS[minute % MINUTES_PER_DAY]


# --- the way here -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """Received fields, newest first (RFC 5321 section 4.4); NUL stands where the UTC minute goes."""

    template: bytes
    size_bytes: int


@functools.cache
def traces() -> tuple[Trace, ...]:
    """Sixty-four ways through one to five relays."""
    dice = Dice("traces")
    return tuple(_trace(dice, 1 + dice.below(5)) for _ in range(64))


def _trace(dice: Dice, hops: int) -> Trace:
    fields, here, second = [], "mx.fakemail.test", 59
    for _ in range(hops):
        second -= dice.below(7)
        there = f"relay{dice.below(90)}.{dice.of(DOMAINS)}"
        address = f"192.0.2.{1 + dice.below(250)}" if dice.below(3) else f"IPv6:2001:db8::{dice.below(65536):x}"
        name, queue = (
            dice.of(("ESMTP", "ESMTPS", "ESMTPSA", "SMTP", "LMTP")),
            name_hash(dice.below(1 << 40), size=5).hex(),
        )
        cipher = "\r\n\t(version=TLS1_3 cipher=TLS_AES_256_GCM_SHA384 bits=256/256)" if dice.below(2) else ""
        fields.append(
            f"Received: from {there} ({there} [{address}]){cipher}\r\n"
            f"\tby {here} (Postfix) with {name} id {queue.upper()};\r\n\t\0:{second:02} +0000 (UTC)\r\n"
        )
        here = there
    template = "".join(fields).encode("ascii")
    return Trace(template=template, size_bytes=len(template) + hops * (_WHEN_BYTES - 1))


#: Sent mail and drafts came no way.
NO_TRACE: Final = (Trace(template=b"", size_bytes=0),) * 64


# --- names of messages ------------------------------------------------------------------------------------------------

#: A UID in hexadecimal stands between the two. All are of one length: the digest fills what the domain leaves.
_NAMES: Final = (
    ("CAF", "@mail.example.com>"), ("", "@fakemail.test>"), ("AM0PR04MB", "@AM0PR04MB.prod.example.net>"),
    ("5f3a-", "@team.example>"), ("PINE.LNX.", "@localhost.test>"), ("010001-", "@email.example.org>"),
    ("$", "$@mailer.example>"), ("_", ".JavaMail.root@app1.example>"),
)  # fmt: skip
_NAME_BYTES: Final = 62
_UID_BYTES: Final = 8
#: A whole Message-ID with its angle brackets.
ID_BYTES: Final = 1 + _NAME_BYTES + _UID_BYTES


def id_shapes(*name: object) -> tuple[tuple[bytes, bytes], ...]:
    """(before, after) of the UID, for eight kinds of senders; unique to a source by what it is named."""
    digest = name_hash("message-id", *name, size=32).hex()
    return tuple(
        (f"<{before}{digest[: _NAME_BYTES - len(before) - len(after)]}".encode("ascii"), after.encode("ascii"))
        for before, after in _NAMES
    )


# --- subjects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """What a message is about, without the field's name: some go on with a number."""

    text: str
    root: bytes
    reply: bytes
    numbered: bool


#: What a line with an encoded word has left after "Subject: Re: [chess-club] ".
_SUBJECT_ROOM: Final = 46


def subject(text: str, *, charset: str, at: int) -> Subject:
    """A subject in one of the ways that are usual; ``at`` says which."""
    if text.isascii():
        root = _folded(text)
        return Subject(text=text, root=root, reply=b"Re: " + root, numbered=at % 2 == 1)
    kind = "B" if charset == "iso-2022-jp" or at % 4 < 2 else "Q"  # noqa: PLR2004
    root = encoded_words(text, charset=charset, kind=kind, room=_SUBJECT_ROOM)
    # Some mailers encode their "Re: " too.
    whole = (
        encoded_words(f"Re: {text}", charset=charset, kind=kind, room=_SUBJECT_ROOM) if at % 4 == 1 else b"Re: " + root
    )
    return Subject(text=text, root=root, reply=whole, numbered=at % 2 == 1)


def _folded(text: str) -> bytes:
    """Broken before the word that goes beyond the line (RFC 5322 section 2.2.3)."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > _SUBJECT_ROOM:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] or len(lines) > 1 else word
    return "\r\n".join(lines).encode("ascii")


@functools.cache
def subjects(variant: int) -> tuple[Subject, ...]:
    """What is written about in this variant: what occurs twice is written in two ways."""
    kind = VARIANTS[variant]
    texts = kind.language.subjects
    return tuple(subject(texts[at % len(texts)], charset=kind.charset, at=at + at // 8) for at in range(16))


def sixteen(found: Sequence[Subject]) -> tuple[Subject, ...]:
    """As many as four bits can choose from."""
    return tuple(found[at % len(found)] for at in range(16))


# --- what programs add ------------------------------------------------------------------------------------------------

_MAILERS: Final = (
    b"User-Agent: Mozilla Thunderbird\r\n",
    b"X-Mailer: Microsoft Outlook 16.0\r\nThread-Index: AdpQ3yR1b9k2vN0sTZ+4n0J3Q==\r\nContent-Language: en-us\r\n",
    b"X-Mailer: Apple Mail (2.3774.300.61.1.2)\r\n",
    b"User-Agent: Mutt/2.2.9 (2022-11-12)\r\n",
    b"",
    b"Importance: high\r\nX-Priority: 1 (Highest)\r\n",
    b"Organization: =?utf-8?Q?Pr=C3=BCfwerk?=\r\n",
    b"Reply-To: Office <office@team.example>\r\n",
    b"X-Spam-Status: No, score=-1.9 required=5.0 tests=BAYES_00 autolearn=ham\r\n",
    b"Disposition-Notification-To: receipts@example.com\r\n",
    b"Sensitivity: Company-Confidential\r\nKeywords: budget, quarter\r\nComments: none\r\n",
    b"",
    b"Accept-Language: de-DE, en-US\r\nX-MS-Has-Attach:\r\nX-MS-TNEF-Correlator:\r\n",
    b"Resent-From: a@example.org\r\nResent-Date: Tue, 02 Jan 2024 08:00:00 +0000\r\nResent-To: b@team.example\r\n",
    b"X-Originating-IP: [203.0.113.7]\r\n",
    b"",
)
_MACHINES: Final = (
    b"Auto-Submitted: auto-generated\r\nPrecedence: bulk\r\n",
    b"Auto-Submitted: auto-generated\r\nX-Auto-Response-Suppress: All\r\n",
)
_NEWS: Final = (
    (
        b"List-Unsubscribe: <https://news.example/u/8f1c>, <mailto:unsubscribe@news.example>\r\n"
        b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nPrecedence: bulk\r\nFeedback-ID: 20240101:news:x\r\n"
    ),
    b"List-Unsubscribe: <https://shop.example/leave?id=77>\r\nX-Campaign: spring-sale\r\nX-Mailer: Mailer 7.4.1\r\n",
)


def _spam(score: int) -> bytes:
    """As SpamAssassin marks what it finds."""
    return (
        f"X-Spam-Flag: YES\r\nX-Spam-Score: {score}.{score % 7}\r\nX-Spam-Level: {'*' * score}\r\n"
        f"X-Spam-Status: Yes, score={score}.{score % 7} required=5.0 tests=BAYES_99,HTML_MESSAGE,\r\n"
        "\tMISSING_MID,SUBJ_ALL_CAPS,URIBL_BLACK autolearn=spam autolearn_force=no\r\n"
        f"Reply-To: claims{score}@elsewhere.test\r\nX-Mailer: The Bat! (v2.00.{score})\r\n"
    ).encode("ascii")


PERSONAL_EXTRAS: Final = _MAILERS
MACHINE_EXTRAS: Final = _MACHINES * 8
NEWS_EXTRAS: Final = _NEWS * 8
SPAM_EXTRAS: Final = tuple(_spam(score) for score in range(6, 22))
NO_EXTRAS: Final = (b"",) * 16
SENT_EXTRAS: Final = (*_MAILERS[:5], b"", *_MAILERS[:4], b"", b"", _MAILERS[12], b"", b"", b"")
DRAFT_EXTRAS: Final = (
    b"X-Mozilla-Draft-Info: internal/draft; vcard=0; receipt=0; DSN=0; uuencode=0\r\nX-Identity-Key: id1\r\n",
    b"X-Uniform-Type-Identifier: com.apple.mail-draft\r\n",
) * 8
