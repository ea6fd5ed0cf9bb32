"""Mail that exists, and the record of what was done with it.

Owns: synthesised mail (a pure function of seed, mailbox and UID), its MIME structure, folders with UIDs, UIDVALIDITY
and flags, users, and the Ledger.
Never does: protocols, I/O, threads. Everything here belongs to one asyncio loop; the clock is given.
Called by: imap_protocol (folders, structure), smtp_server (delivery, ledger), imap_server (ledger), control.

Rule 1: a message is bytes = f(seed, address, folder, uid), equal on every machine; only deviations are held in memory.
Rule 2: a folder's ``version`` grows with every change, so a session sees by one comparison that it has nothing to tell.
Rule 3: a UID and a pair (folder name, UIDVALIDITY) are never used again, not even after ``reset``.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import re
import struct
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from fakemail import FakemailError

SEEN: Final = "\\Seen"
DELETED: Final = "\\Deleted"
#: Folders that every user has, with their special use (RFC 6154 section 2).
STANDARD_FOLDERS: Final = {
    "INBOX": None,
    "Sent": "\\Sent",
    "Drafts": "\\Drafts",
    "Trash": "\\Trash",
    "Junk": "\\Junk",
}
#: UIDs have 32 bits (RFC 3501 section 2.3.1.1); more than this in one call is a slip of the keyboard.
SEED_COUNT_MAX: Final = 1_000_000


class MailboxError(FakemailError):
    """Mail or a folder can't be had."""


class NotFoundError(MailboxError):
    """There is no such user or folder."""


class ConflictError(MailboxError):
    """It exists already, or can't be removed."""


# Synthesis ------------------------------------------------------------------------------------------------------------


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
_FIRST_DAY: Final = datetime(2024, 1, 1, tzinfo=UTC)
_LINE_BYTES: Final = 76
_POOL_LINES: Final = 4096
_T = TypeVar("_T")


class _Draw:
    """Thirty-two small numbers from a hash of everything that names a message."""

    def __init__(self, *name: object) -> None:
        self._numbers = iter(struct.unpack(">32H", _hash(*name, size=64)))

    def below(self, limit: int) -> int:
        return int(next(self._numbers)) % limit

    def of(self, choices: Sequence[_T]) -> _T:
        return choices[self.below(len(choices))]


def _hash(*name: object, size: int) -> bytes:
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
    moment = _FIRST_DAY + timedelta(seconds=(uid % 2_000_000) * 311 + draw.below(300))
    return moment.astimezone(timezone(timedelta(minutes=draw.of(_ZONES_MIN))))


def _name(seed: int, address: str, folder: str, uid: int) -> str:
    return f"<{_hash('name', seed, address, folder, uid, size=10).hex()}.{uid}@fakemail.test>"


# Structure ------------------------------------------------------------------------------------------------------------

#: Deeper nesting than any honest mail's; below it a part is taken as plain text.
_DEPTH_MAX: Final = 20
_HEADER_END: Final = re.compile(rb"\r?\n\r?\n")
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
_PARAMETER: Final = re.compile(r';\s*([^\s=;]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;]*)')


@dataclass(frozen=True, kw_only=True)
class Part:
    """A MIME entity: the very bytes and what they say of themselves (RFC 2045, RFC 2046)."""

    #: Header block with its empty line.
    header: bytes
    body: bytes
    #: Lower case, such as ("text", "plain").
    content_type: tuple[str, str]
    parameters: tuple[tuple[str, str], ...]
    #: Of a multipart; else empty.
    parts: tuple[Part, ...]

    def field(self, name: str) -> str | None:
        """The first field of this name, unfolded; None if there is none."""
        return field_value(self.header, name)


def header_block(raw: bytes) -> bytes:
    """The header with its empty line: all of it if no empty line comes."""
    if raw.startswith((b"\r\n", b"\n")):
        return raw[: raw.index(b"\n") + 1]
    end = _HEADER_END.search(raw)
    return raw[: end.end()] if end else raw


def header_fields(header: bytes) -> list[tuple[str, bytes]]:
    """(name in lower case, the very bytes with folding and line end), in order."""
    fields: list[tuple[str, bytes]] = []
    for line in header.splitlines(keepends=True):
        if line[:1] in b" \t" and fields:
            name, raw = fields.pop()
            fields.append((name, raw + line))
        elif match := _FIELD.match(line):
            fields.append((match[1].decode("ascii").lower(), line))
    return fields


def field_value(header: bytes, name: str) -> str | None:
    """The first field of this name, unfolded (RFC 5322 section 2.2.3), eight-bit bytes as Latin-1; or None."""
    raw = next((raw for key, raw in header_fields(header) if key == name.lower()), None)
    if raw is None:
        return None
    return re.sub(rb"\r?\n", b"", raw.partition(b":")[2]).strip().decode("latin-1")


def parse_parameters(value: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """``attachment; filename="x"`` -> ("attachment", (("filename", "x"),)); names as they were written."""
    pairs = [(name, _unquoted(text)) for name, text in _PARAMETER.findall(value)]
    return value.partition(";")[0].strip().lower(), tuple(pairs)


def parse_mime(raw: bytes, *, depth: int = 0) -> Part:
    """Take a message apart; what can't be understood is text/plain (RFC 2045 section 5.2)."""
    header = header_block(raw)
    body = raw[len(header) :]
    main, parameters = parse_parameters(field_value(header, "content-type") or "")
    kind, slash, subtype = main.partition("/")
    if not (kind and slash and subtype) or depth > _DEPTH_MAX:
        kind, subtype, parameters = "text", "plain", (parameters or (("charset", "us-ascii"),))
    boundary = {name.lower(): text for name, text in parameters}.get("boundary", "")
    inner: list[bytes] = _split(body, boundary) if kind == "multipart" and boundary else []
    if (kind, subtype) == ("message", "rfc822"):
        inner = [body]
    parts = tuple(parse_mime(each, depth=depth + 1) for each in inner)
    return Part(header=header, body=body, content_type=(kind, subtype), parameters=parameters, parts=parts)


def _split(body: bytes, boundary: str) -> list[bytes]:
    """The parts between the delimiters; a delimiter owns the line break before it (RFC 2046 section 5.1.1)."""
    mark = re.escape(boundary.encode("latin-1", errors="replace"))
    pattern = re.compile(rb"(?:\A|\r?\n)--" + mark + rb"(--)?[ \t]*(?=\r?\n|\Z)")
    parts, start = [], None
    for match in pattern.finditer(body):
        if start is not None:
            parts.append(body[start : match.start()])
        if match[1]:
            return parts
        start = body.find(b"\n", match.end()) + 1 or len(body)
    return parts if start is None else [*parts, body[start:]]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


# Folders and users ----------------------------------------------------------------------------------------------------


class Mail(Protocol):
    """A message that a folder holds: made on demand (Seeded) or kept (Stored)."""

    @property
    def raw(self) -> bytes:
        """The whole message."""

    @property
    def received(self) -> datetime:
        """IMAP's internal date."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Mail that is its name: the bytes are made when they are asked for."""

    seed: int
    address: str
    folder: str
    uid: int
    profile: str

    @property
    def raw(self) -> bytes:
        """The whole message."""
        return synthesise(seed=self.seed, address=self.address, folder=self.folder, uid=self.uid, profile=self.profile)

    @property
    def received(self) -> datetime:
        """One minute after the slowest minute in which it may have been sent."""
        return _FIRST_DAY + timedelta(seconds=(self.uid % 2_000_000) * 311 + 360)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Mail that came from outside."""

    raw: bytes
    received: datetime


class Folder:
    """One folder of one user."""

    def __init__(self, *, address: str, name: str, uidvalidity: int, changed: Callable[[], None]) -> None:
        self.address = address
        self.name = name
        self.uidvalidity = uidvalidity
        self.uidnext = 1
        #: Grows with every change.
        self.version = 1
        #: Ascending, without the expunged.
        self.uids: list[int] = []
        self._changed = changed
        self._ranges: list[tuple[range, int, str]] = []
        self._own: dict[int, Mail] = {}
        self._gone: set[int] = set()
        self._flags: dict[int, frozenset[str]] = {}
        self._flagged_at: dict[int, int] = {}

    def mail(self, uid: int) -> Mail | None:
        """The message, or None once it is expunged."""
        if uid in self._gone:
            return None
        if uid in self._own:
            return self._own[uid]
        seed, profile = next(((seed, profile) for uids, seed, profile in self._ranges if uid in uids), (0, ""))
        if not profile:
            return None
        return Seeded(seed=seed, address=self.address, folder=self.name, uid=uid, profile=profile)

    def flags(self, uid: int) -> frozenset[str]:
        """Its flags; none once it is expunged."""
        return self._flags.get(uid, frozenset())

    def set_flags(self, uid: int, flags: frozenset[str]) -> None:
        """Replace the flags of a message that may have been expunged meanwhile."""
        if self.mail(uid) is not None and self.flags(uid) != flags:
            self._flags[uid] = flags
            self._touch()
            self._flagged_at[uid] = self.version

    def flagged_since(self, version: int) -> list[int]:
        """UIDs whose flags changed after this version."""
        return sorted(uid for uid, changed in self._flagged_at.items() if changed > version)

    def add(self, mail: Mail, flags: Iterable[str] = ()) -> int:
        """Keep a message under the next UID."""
        uid = self.uidnext
        self.uidnext += 1
        self.uids.append(uid)
        self._own[uid] = mail
        self._flags[uid] = frozenset(flags)
        self._touch()
        return uid

    def seed(self, *, count: int, seed: int, profile: str) -> range:
        """Add ``count`` messages that are made when they are read."""
        uids = range(self.uidnext, self.uidnext + count)
        self.uidnext += count
        self.uids.extend(uids)
        self._ranges.append((uids, seed, profile))
        self._touch()
        return uids

    def expunge(self, uids: Iterable[int]) -> None:
        """Remove messages for good."""
        gone = {uid for uid in uids if self.mail(uid) is not None}
        if not gone:
            return
        for uid in gone:
            for held in (self._own, self._flags, self._flagged_at):
                held.pop(uid, None)
        self._gone |= gone
        self.uids = [uid for uid in self.uids if uid not in gone]
        self._touch()

    def _touch(self) -> None:
        self.version += 1
        self._changed()


@dataclass(kw_only=True)
class Account:
    """A user: an address, a password, folders by name."""

    address: str
    password: str = field(repr=False)
    folders: dict[str, Folder] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)

    def folder(self, name: str) -> Folder:
        """The folder of this name; INBOX in any case (RFC 3501 section 5.1)."""
        try:
            return self.folders[canonical(name)]
        except KeyError:
            raise NotFoundError(f"{self.address} has no folder {name!r}") from None


def canonical(name: str) -> str:
    """The folder's name as it is kept."""
    return "INBOX" if name.upper() == "INBOX" else name


class MailStore:
    """All users and their mail."""

    def __init__(self, *, seed: int = 0, clock: Callable[[], int] = time.time_ns) -> None:
        #: Used where a request names no seed of its own.
        self.seed = seed
        #: Called after each change, for those who wait in IDLE.
        self.watchers: set[Callable[[], None]] = set()
        self._clock = clock
        self._accounts: dict[str, Account] = {}
        self._generations: Counter[tuple[str, str]] = Counter()

    def add_user(self, address: str, password: str) -> Account:
        """Make the user with the standard folders; for one who exists, set the password."""
        if not re.fullmatch(r"[!-?A-~]+@[!-?A-~]+", address):
            raise MailboxError(f"{address!r} is not an address; allowed: local-part@domain in ASCII")
        account = self._accounts.setdefault(address.lower(), Account(address=address.lower(), password=password))
        account.password = password
        for name in STANDARD_FOLDERS:
            if name not in account.folders:
                self.create(account, name)
        return account

    def user(self, address: str) -> Account:
        """The user of this address, in any case."""
        try:
            return self._accounts[address.lower()]
        except KeyError:
            raise NotFoundError(f"no user {address!r}; add it first") from None

    def login(self, address: str, password: str) -> Account | None:
        """The user, if the password is right."""
        account = self._accounts.get(address.lower())
        # A client may send bytes that are no UTF-8: a wrong password like any other.
        given = password.encode("utf-8", errors="surrogateescape")
        if account is None or not hmac.compare_digest(
            account.password.encode("utf-8", errors="surrogateescape"), given
        ):
            return None
        return account

    def create(self, account: Account, name: str) -> Folder:
        """Make a folder, subscribed; its UIDVALIDITY is greater than that of any earlier one of this name."""
        name = canonical(name)
        if name in account.folders:
            raise ConflictError(f"folder {name!r} exists")
        # Folder names are ASCII on the wire (RFC 3501 section 5.1.3); wildcards could never be listed.
        if not re.fullmatch(r"[\x20-\x7e]{1,255}", name) or re.search(r'[%*"\\]', name) or name.strip("/") != name:
            raise MailboxError(f'{name!r} is no folder name; allowed: 1 to 255 ASCII characters without % * " \\')
        self._generations[account.address, name] += 1
        base = int.from_bytes(_hash("uidvalidity", self.seed, account.address, name, size=4)) % 1_000_000_000
        uidvalidity = 1_000_000_000 + base + self._generations[account.address, name]
        folder = Folder(address=account.address, name=name, uidvalidity=uidvalidity, changed=self._changed)
        account.folders[name] = folder
        account.subscribed.add(name)
        return folder

    def delete(self, account: Account, name: str) -> None:
        """Remove a folder and its mail."""
        folder = account.folder(name)
        if folder.name == "INBOX":
            raise ConflictError("INBOX can't be deleted")
        folder.expunge(list(folder.uids))
        del account.folders[folder.name]

    def seed_folder(self, folder: Folder, *, count: int, seed: int | None, profile: str) -> range:
        """Add synthesised mail; raises MailboxError for an impossible count or an unknown profile."""
        if not 0 <= count <= SEED_COUNT_MAX:
            raise MailboxError(f"count: {count} given; allowed: 0 to {SEED_COUNT_MAX}")
        if profile not in PROFILES:
            raise MailboxError(f"profile: {profile!r} given; allowed: {', '.join(PROFILES)}")
        return folder.seed(count=count, seed=self.seed if seed is None else seed, profile=profile)

    def store(self, folder: Folder, raw: bytes, *, flags: Iterable[str] = (), received: datetime | None = None) -> int:
        """Keep mail from outside; without a date it was received now."""
        moment = received or datetime.fromtimestamp(self._clock() // 1_000_000_000, tz=UTC)
        return folder.add(Stored(raw=raw, received=moment), flags)

    def deliver(self, recipients: Iterable[str], raw: bytes) -> list[str]:
        """Put a message into the INBOX of each recipient who is a user here; says who they were."""
        local = sorted({each.lower() for each in recipients} & self._accounts.keys())
        for address in local:
            self.store(self._accounts[address].folder("INBOX"), raw)
        return local

    def reset(self) -> None:
        """Forget every user. A session that is open keeps its folder until it logs out."""
        self._accounts.clear()

    def _changed(self) -> None:
        for watcher in tuple(self.watchers):
            watcher()


# Ledger ---------------------------------------------------------------------------------------------------------------


class Ledger:
    """What the servers did, in order: the outside truth that a test compares with.

    Rule 1: an entry is never changed once it is recorded.
    Rule 2: ``seq`` grows by one and never starts again; the oldest entries make room, and ``dropped`` counts them.
    """

    def __init__(self, *, capacity: int = 100_000, clock: Callable[[], int] = time.time_ns) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=capacity)
        self._clock = clock
        self._connections = 0
        #: Of the last entry; 0 before the first.
        self.seq = 0
        #: Entries that made room for later ones.
        self.dropped = 0

    def open_connection(self) -> int:
        """A number for a new connection."""
        self._connections += 1
        return self._connections

    def record(self, *, protocol: str, connection: int, kind: str, **facts: object) -> None:
        """Append an entry."""
        self.dropped += len(self._entries) == self._entries.maxlen
        self.seq += 1
        head = {"seq": self.seq, "time_ns": self._clock(), "protocol": protocol, "connection": connection, "kind": kind}
        self._entries.append(head | facts)

    def after(self, seq: int, *, limit: int) -> list[dict[str, Any]]:
        """At most ``limit`` entries that come after ``seq``, oldest first."""
        first = self._entries[0]["seq"] if self._entries else 1
        skip = max(0, seq - first + 1)
        return list(islice(self._entries, skip, skip + limit))

    def clear(self) -> None:
        """Forget the entries; numbers go on."""
        self._entries.clear()
        self.dropped = 0
