"""Mail that is not what it claims to be, as real mailboxes hold it: a row per way of being broken.

Each breaks one rule, named by its section; none holds a NUL. Never answered, never anything's parent.
Called by: layouts (which ways there are), plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from fakemail.synthesis import headers
from fakemail.synthesis.attachments import FILE_END, file_fields, first_line
from fakemail.synthesis.bodies import Builder, Kit, text_fields
from fakemail.synthesis.headers import subjects
from fakemail.synthesis.parts import Entity, Gap, Plan, plan

_LINE: Final = b"this line goes on and on "
_JUNK: Final = "Grüße aus München, 会議".encode()


def _entity(kit: Kit, entity: Entity, *overrides: tuple[int, bytes]) -> Plan:
    return plan(entity, subjects=subjects(kit.at), people=kit.people, overrides=overrides)


def _unclosed(kit: Kit) -> Plan:
    """The delimiter that closes a multipart is missing (RFC 2046 section 5.1.1)."""
    whole = kit.mixed(kit.text(), kit.file())
    return _entity(kit, replace(whole, body=whole.body[:-1]))


def _no_boundary(kit: Kit) -> Plan:
    """The boundary parameter is missing (RFC 2046 section 5.1.1)."""
    return _entity(kit, replace(kit.alternative(), fields=b"Content-Type: multipart/alternative\r\n"))


def _wrong_boundary(kit: Kit) -> Plan:
    """The boundary that is named occurs nowhere."""
    fields = b'Content-Type: multipart/alternative; boundary="' + kit.mark(8) + b'"\r\n'
    return _entity(kit, replace(kit.alternative(), fields=fields))


def _bad_base64(kit: Kit) -> Plan:
    """Characters out of the alphabet, padding in the middle, and a last group of three (RFC 2045 section 6.8)."""
    spoilt = (b"\r\nQUJD====REVG!!**\r\n", Gap(section=kit.pool.noise, share=64, of_attachment=True), b"QUJ\r\n")
    file = Entity(fields=file_fields(0), body=(first_line("application/pdf"), *spoilt))
    return _entity(kit, kit.mixed(kit.text(), file))


def _bad_quoted_printable(kit: Kit) -> Plan:
    """Hexadecimal that is none, a lower-case digit, an equals sign as the very last byte (RFC 2045 section 6.7)."""
    gap = Gap(section=kit.pool.text[kit.at])
    body = (b"caf=e9 =ZZ =4 a=b\r\n", gap, b"this is the end =")
    return _entity(kit, Entity(fields=text_fields("plain", "utf-8", "quoted-printable"), body=body))


def _wrong_charset(kit: Kit) -> Plan:
    """Bytes that the charset they are labelled with doesn't have."""
    named, real = ("utf-8", 10) if kit.at % 2 else ("us-ascii", 7)
    body = (Gap(section=kit.pool.text[real]), _JUNK + b"\r\n")
    return _entity(kit, Entity(fields=text_fields("plain", named, "8bit"), body=body))


def _unknown_charset(kit: Kit) -> Plan:
    """A charset that nobody registered (RFC 2046 section 4.1.2)."""
    return _entity(kit, replace(kit.text(), fields=text_fields("plain", "x-unknown-8", kit.variant.encoding)))


def _unknown_encoding(kit: Kit) -> Plan:
    """A transfer encoding that nobody registered (RFC 2045 section 6.3)."""
    return _entity(kit, replace(kit.text(), fields=text_fields("plain", kit.variant.charset, "x-rot13")))


def _encoded_multipart(kit: Kit) -> Plan:
    """A multipart that says it is base64 and is not (RFC 2045 section 6.4)."""
    whole = kit.alternative()
    return _entity(kit, replace(whole, fields=whole.fields + b"Content-Transfer-Encoding: base64\r\n"))


def _raw_header(kit: Kit) -> Plan:
    """Eight-bit bytes in Subject and From, in whatever charset the sender had (RFC 5322 section 2.2)."""
    subject = (headers.SUBJECT, kit.variant.language.subjects[0].encode(_eight_bit(kit)))
    sender = f"From: {kit.variant.language.people[0][0].replace(',', '')} <raw@example.com>\r\n".encode(_eight_bit(kit))
    return _entity(kit, kit.text(), subject, (headers.FROM, sender))


def _eight_bit(kit: Kit) -> str:
    charset = kit.variant.charset
    return "shift_jis" if charset == "iso-2022-jp" else "utf-8" if charset == "us-ascii" else charset


def _bad_encoded_word(kit: Kit) -> Plan:
    """Encoded words cut off, with spaces, and in charsets that don't exist (RFC 2047 section 2)."""
    words = b"=?utf-8?B?R3LDvMOfZ?= =?utf-8?Q?two words?= =?x-none?Q?=E4?= =?utf-8?B?R3L"
    return _entity(kit, kit.text(), (headers.SUBJECT, words))


def _bare_lf(kit: Kit) -> Plan:
    """Line ends that are LF alone, among those that are CRLF (RFC 5322 section 2.3)."""
    lines = b"one\ntwo\n\nthree\n"
    body = (lines, Gap(section=kit.pool.text[0]), lines)
    return _entity(kit, Entity(fields=text_fields("plain", "us-ascii", "7bit"), body=body))


def _long_line(kit: Kit) -> Plan:
    """Lines of more than 998 characters, in the header too (RFC 5322 section 2.1.1)."""
    field = (headers.EXTRAS, b"X-Thread-History: " + _LINE * 60 + b"\r\n")
    body = (_LINE * 400 + b"\r\n", Gap(section=kit.pool.text[0]), _LINE * 90 + b"\r\n")
    return _entity(kit, Entity(fields=text_fields("plain", "us-ascii", "7bit"), body=body), field)


def _no_date(kit: Kit) -> Plan:
    """Date is missing (RFC 5322 section 3.6)."""
    return _entity(kit, kit.text(), *((place, b"") for place in headers.DATE))


def _bad_date(kit: Kit) -> Plan:
    """A date that is none (RFC 5322 section 3.3)."""
    texts = (b"Wednesday, 31. February 24 25:61 CEST", b"2024-01-01T00:00:00Z", b"Mon, 01 Jan 0124 00:00 +9999", b"")
    parts = zip(headers.DATE, (b"Date: ", texts[kit.at % 4], b"", b"\r\n"), strict=True)
    return _entity(kit, kit.text(), *parts)


def _no_from(kit: Kit) -> Plan:
    """From is missing (RFC 5322 section 3.6)."""
    return _entity(kit, kit.alternative(), (headers.FROM, b""))


def _twice(kit: Kit) -> Plan:
    """Fields that may occur once occur twice (RFC 5322 section 3.6)."""
    more = b"Subject: another subject\r\nFrom: Mallory <mallory@example.net>\r\nTo: somebody@example.net\r\n"
    more += b"Date: Thu, 01 Jan 1970 00:00:00 +0000\r\nContent-Type: text/plain\r\n"
    return _entity(kit, kit.alternative(), (headers.EXTRAS, more))


def _no_colon(kit: Kit) -> Plan:
    """A line in the header that is no field (RFC 5322 section 2.2)."""
    return _entity(kit, kit.text(), (headers.EXTRAS, b">From office Mon Jan  1 00:00:00 2024\r\n"))


def _cut_off(kit: Kit) -> Plan:
    """A message that ends in the middle of a line, as after a lost connection."""
    whole = kit.mixed(kit.alternative(), kit.file())
    end = FILE_END[:5]
    return _entity(kit, replace(whole, body=(*whole.body[:-3], end)))


def _no_body(kit: Kit) -> Plan:
    """A header that says multipart, and then nothing."""
    return _entity(kit, replace(kit.alternative(), body=()))


def _bad_address(kit: Kit) -> Plan:
    """Addresses that are none (RFC 5322 section 3.4)."""
    sender = b'From: <<nobody at example.com>, ;; "unclosed\r\n'
    return _entity(kit, kit.text(), (headers.FROM, sender))


BROKEN: Final[Mapping[str, Builder]] = {
    "unclosed": _unclosed,
    "no-boundary": _no_boundary,
    "wrong-boundary": _wrong_boundary,
    "bad-base64": _bad_base64,
    "bad-quoted-printable": _bad_quoted_printable,
    "wrong-charset": _wrong_charset,
    "unknown-charset": _unknown_charset,
    "unknown-encoding": _unknown_encoding,
    "encoded-multipart": _encoded_multipart,
    "raw-header": _raw_header,
    "bad-encoded-word": _bad_encoded_word,
    "bare-lf": _bare_lf,
    "long-line": _long_line,
    "no-date": _no_date,
    "bad-date": _bad_date,
    "no-from": _no_from,
    "twice": _twice,
    "no-colon": _no_colon,
    "cut-off": _cut_off,
    "no-body": _no_body,
    "bad-address": _bad_address,
}
