"""Who writes to whom: correspondents, mailing lists, robots and spammers, and address fields of every shape.

A person is bytes ready to be joined into a header. Nothing depends on a seed: the tables are made once per process,
and a source looks at them from a place of its own. Called by: headers, layouts, source.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis.draws import Dice, name_hash, weighted
from fakemail.synthesis.encodings import base64_lines, encoded_words
from fakemail.synthesis.words import DOMAINS, LANGUAGES, LISTS, ROBOTS, SPAMMERS

#: People in each table; a mask takes a number to one of them.
CAST_SIZE: Final = 64
_ATOM_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_`{|}~ "
)
_FOLD_BYTES: Final = 65
#: The charsets names are written in besides UTF-8, by what they are in.
_CHARSETS: Final = {"ja": "iso-2022-jp", "ru": "koi8-r", "de": "iso-8859-1", "fr": "windows-1252"}


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who writes mail."""

    address: str
    #: As an address field has it (RFC 5322 section 3.4).
    mailbox: bytes
    #: Return-Path with its line end (RFC 5321 section 4.4).
    path: bytes
    #: Authentication-Results and DKIM-Signature, or nothing.
    proof: bytes
    #: From with its line end; To without, since others may follow.
    from_field: bytes
    to_field: bytes

    @functools.cached_property
    def arrival_bytes(self) -> int:
        """Of all that a message that came from here has of its sender."""
        return len(self.path) + len(self.proof) + len(self.from_field)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipients:
    """Address fields with a gap for the user: ``before + user[named] + after``."""

    before: bytes
    #: 1 if the user's name is shown, 0 if the address alone, 2 if nobody.
    named: int
    after: bytes


def mailbox(name: str, address: str, *, charset: str = "utf-8", kind: str = "B") -> bytes:
    """A name and an address; the name as atoms, in quotes or as encoded words, as it needs."""
    if not name:
        return address.encode("ascii")
    if not name.isascii():
        return encoded_words(name, charset=charset, kind=kind, room=60) + f" <{address}>".encode("ascii")
    if not _ATOM_CHARACTERS.issuperset(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    # A long name is folded before the address (RFC 5322 section 2.2.3).
    fold = " " if len(name) + len(address) < _FOLD_BYTES else "\r\n "
    return f"{name}{fold}<{address}>".encode("ascii")


@functools.cache
def people(language: str) -> tuple[Person, ...]:
    """Correspondents in a language, most of whom are at home in it."""
    names = [(tag, *person) for tag, each in LANGUAGES.items() for person in each.people]
    natives = [entry for entry in names if entry[0] == language]
    dice = Dice("people", language)
    return tuple(_person(dice, *dice.of(natives if dice.below(4) else names)) for _ in range(CAST_SIZE))


@functools.cache
def everybody() -> tuple[Person, ...]:
    """Correspondents in all languages."""
    return tuple(person for language in LANGUAGES for person in people(language)[:16])


@functools.cache
def robots() -> tuple[Person, ...]:
    """Senders that are programs."""
    dice = Dice("robots")
    return tuple(_person(dice, "en", *dice.of(ROBOTS)) for _ in range(CAST_SIZE))


@functools.cache
def spammers() -> tuple[Person, ...]:
    """Senders of spam: without proof, and with a return path of somebody else."""
    dice = Dice("spammers")
    cast = []
    for at in range(CAST_SIZE):
        person, stranger = _person(dice, "en", *dice.of(SPAMMERS)), f"bounce-{at:04x}@bulk{dice.below(9)}.test"
        proof = f"Authentication-Results: mx.fakemail.test; spf=softfail smtp.mailfrom={stranger};\r\n dkim=none\r\n"
        cast.append(
            Person(
                address=person.address,
                mailbox=person.mailbox,
                path=f"Return-Path: <{stranger}>\r\n".encode("ascii"),
                proof=proof.encode("ascii"),
                from_field=person.from_field,
                to_field=person.to_field,
            )
        )
    return tuple(cast)


@functools.cache
def daemons() -> tuple[Person, ...]:
    """Mail systems: their reports have an empty return path (RFC 3464 section 2)."""
    made = []
    for domain in DOMAINS:
        address = f"MAILER-DAEMON@{domain}"
        box = f"Mail Delivery System <{address}>".encode("ascii")
        made.append(
            Person(
                address=address,
                mailbox=box,
                path=b"Return-Path: <>\r\n",
                proof=b"",
                from_field=b"From: " + box + b"\r\nAuto-Submitted: auto-replied\r\n",
                to_field=b"To: " + box,
            )
        )
    return tuple(made[at % len(made)] for at in range(CAST_SIZE))


def _person(dice: Dice, tag: str, name: str, local: str) -> Person:
    domain = dice.of(DOMAINS)
    address = f"{local}@{domain}"
    charset = _CHARSETS.get(tag, "utf-8") if dice.below(3) == 0 else "utf-8"
    box = mailbox(name, address, charset=charset, kind="BQ"[dice.below(2)])
    if name.isascii() and name.isalpha() and dice.below(4) == 0:
        box = f"{address} ({name})".encode("ascii")  # the old way, a comment (RFC 5322 section 3.4)
    return Person(
        address=address,
        mailbox=box,
        path=f"Return-Path: <{address}>\r\n".encode("ascii"),
        proof=_proof(domain, dice.below(4)),
        from_field=b"From: " + box + b"\r\n",
        to_field=b"To: " + box,
    )


def _proof(domain: str, selector: int) -> bytes:
    """Shaped as RFC 8601 and RFC 6376 have it; the signature verifies nothing."""
    if selector == 0:
        return b""
    results = f"Authentication-Results: mx.fakemail.test;\r\n\tdkim=pass header.d={domain} header.s=s{selector};\r\n"
    results += f"\tspf=pass smtp.mailfrom={domain}; dmarc=pass header.from={domain}\r\n"
    signature = base64_lines(name_hash("dkim", domain, selector, size=64) * 2).decode("ascii").split()
    body_hash = base64_lines(name_hash("body", domain, selector, size=32)).decode("ascii").strip()
    dkim = f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={domain}; s=s{selector};\r\n"
    dkim += f"\th=from:to:subject:date:message-id:mime-version;\r\n\tbh={body_hash};\r\n\tb="
    return (results + dkim + "\r\n\t ".join(signature) + "\r\n").encode("ascii")


def _alone(dice: Dice) -> Recipients:
    return Recipients(before=b"To: ", named=dice.below(2), after=b"\r\n")


def _one_of_several(dice: Dice) -> Recipients:
    after = b",\r\n " + _some(dice, 1 + dice.below(4)) + b"\r\n"
    return Recipients(before=b"To: ", named=1, after=after)


def _with_copies(dice: Dice) -> Recipients:
    after = b"\r\nCc: " + _some(dice, 1 + dice.below(5)) + b"\r\n"
    return Recipients(before=b"To: ", named=dice.below(2), after=after)


def _copied(dice: Dice) -> Recipients:
    return Recipients(before=b"To: " + _some(dice, 1) + b"\r\nCc: ", named=1, after=b"\r\n")


def _one_of_many(dice: Dice) -> Recipients:
    before, after = _some(dice, 8 + dice.below(10)), _some(dice, 8 + dice.below(24))
    return Recipients(before=b"To: " + before + b",\r\n ", named=1, after=b",\r\n " + after + b"\r\n")


def _in_a_group(dice: Dice) -> Recipients:
    """A full group and an empty one (RFC 5322 section 3.4)."""
    before = b"To: Project team: " + _some(dice, 2) + b",\r\n "
    return Recipients(before=before, named=0, after=b";, absent friends:;\r\n")


def _blind(_: Dice) -> Recipients:
    """Nobody is named (RFC 5322 section 3.6.3)."""
    return Recipients(before=b"To: undisclosed-recipients:;\r\nX-Envelope-To: ", named=0, after=b"\r\n")


_WAYS: Final = weighted(
    [
        (_alone, 34), (_one_of_several, 8), (_with_copies, 9), (_copied, 5), (_one_of_many, 3), (_in_a_group, 2),
        (_blind, 3),
    ]
)  # fmt: skip


@functools.cache
def to_the_user() -> tuple[Recipients, ...]:
    """Sixty-four ways to be written to: mostly alone, sometimes as one of many, in a group or unnamed."""
    dice = Dice("recipients")
    return tuple(way(dice) for way in _WAYS)


def _some(dice: Dice, count: int) -> bytes:
    cast = everybody()
    return b",\r\n ".join(dice.of(cast).mailbox for _ in range(count))


@functools.cache
def from_the_user() -> tuple[Recipients, ...]:
    """What follows the one who is written to in sent mail: the rest of To, Cc, Bcc; mostly nothing."""
    dice = Dice("copies")
    starts = weighted([(b"\r\n", 46), (b",\r\n ", 8), (b"\r\nCc: ", 9), (b"\r\nBcc: ", 1)])
    return tuple(
        Recipients(
            before=b"", named=2, after=start if start == b"\r\n" else start + _some(dice, 1 + dice.below(6)) + b"\r\n"
        )
        for start in starts
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class MailingList:
    """What a list adds to a message."""

    name: str
    #: "Subject: [name] " and the same for a reply.
    prefixes: tuple[bytes, bytes]
    recipients: Recipients
    #: RFC 2369 and RFC 2919, with line ends.
    fields: bytes


@functools.cache
def mailing_lists() -> Sequence[MailingList]:
    """The lists that people are on."""
    return tuple(_mailing_list(*each) for each in LISTS)


def _mailing_list(name: str, address: str, purpose: str) -> MailingList:
    local, _, domain = address.partition("@")
    fields = (
        f"Sender: {name}-bounces@{domain}\r\nErrors-To: {name}-bounces@{domain}\r\nPrecedence: list\r\n"
        f"List-Id: {purpose} <{name}.{domain}>\r\nList-Post: <mailto:{address}>\r\n"
        f"List-Help: <mailto:{local}-request@{domain}?subject=help>\r\n"
        f"List-Unsubscribe: <https://{domain}/options/{name}>,\r\n"
        f" <mailto:{local}-request@{domain}?subject=unsubscribe>\r\n"
        f"List-Archive: <https://{domain}/archives/{name}/>\r\nX-Mailman-Version: 2.1.39\r\n"
    )
    return MailingList(
        name=name,
        prefixes=(f"Subject: [{name}] ".encode("ascii"), f"Subject: Re: [{name}] ".encode("ascii")),
        recipients=Recipients(before=f"To: {address}\r\nX-Original-To: ".encode("ascii"), named=0, after=b"\r\n"),
        fields=fields.encode("ascii"),
    )
