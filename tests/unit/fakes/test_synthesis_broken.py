"""Broken mail is broken in the way it says, and in no other."""

import email
import email.policy
import re

import pytest

from fakemail.synthesis import Source
from fakemail.synthesis.broken import BROKEN

SOURCE = Source(seed=7, address="ann@example.test", folder="INBOX", profile="small")
MAIL = {}
for _uid in range(1, 20_000):
    if _kind := SOURCE.facts(_uid).broken:
        MAIL.setdefault(_kind, []).append(_uid)


def boundary(uid):
    found = re.search(rb'boundary="([^"]*)"', SOURCE.raw(uid))
    return found[1]


def body(uid):
    return SOURCE.raw(uid)[len(SOURCE.header(uid)) :]


def test_every_way_occurs_about_equally_often():
    assert set(MAIL) == set(BROKEN)
    assert min(map(len, MAIL.values())) > 3


@pytest.mark.parametrize("kind", BROKEN)
def test_sizes_agree_and_there_is_no_nul(kind):
    for uid in MAIL[kind]:
        raw = SOURCE.raw(uid)
        assert len(raw) == SOURCE.size(uid)
        assert b"\0" not in raw
        assert raw.startswith(SOURCE.header(uid))
        assert b"\r\nMessage-ID: " + SOURCE.message_id(uid) + b"\r\n" in SOURCE.header(uid)


def test_a_delimiter_that_closes_is_missing():
    for uid in MAIL["unclosed"]:
        assert b"--" + boundary(uid) + b"\r\n" in body(uid)
        assert b"--" + boundary(uid) + b"--" not in body(uid)


def test_a_boundary_is_not_named_or_occurs_nowhere():
    for uid in MAIL["no-boundary"]:
        header = SOURCE.header(uid)
        assert b"multipart/alternative\r\n" in header
        assert b"boundary" not in header
    for uid in MAIL["wrong-boundary"]:
        assert boundary(uid) not in body(uid)


def test_base64_has_foreign_characters_and_padding_in_the_middle():
    for uid in MAIL["bad-base64"]:
        message = email.message_from_bytes(SOURCE.raw(uid), policy=email.policy.default)
        file = next(message.iter_attachments())
        file.get_content()
        assert file.defects


def test_quoted_printable_has_what_is_no_hexadecimal():
    for uid in MAIL["bad-quoted-printable"]:
        assert b"=ZZ" in body(uid)
        assert body(uid).endswith(b"=")


def test_text_is_in_another_charset_than_it_says():
    for uid in MAIL["wrong-charset"]:
        charset = email.message_from_bytes(SOURCE.raw(uid)).get_content_charset()
        with pytest.raises(UnicodeDecodeError):
            body(uid).decode(charset)


def test_a_charset_or_an_encoding_is_nobodys():
    for uid in MAIL["unknown-charset"]:
        with pytest.raises(LookupError):
            body(uid).decode(email.message_from_bytes(SOURCE.raw(uid)).get_content_charset())
    for uid in MAIL["unknown-encoding"]:
        assert b"Content-Transfer-Encoding: x-rot13\r\n" in SOURCE.header(uid)


def test_a_multipart_says_that_it_is_base64():
    for uid in MAIL["encoded-multipart"]:
        message = email.message_from_bytes(SOURCE.raw(uid), policy=email.policy.default)
        assert "InvalidMultipartContentTransferEncodingDefect" in {type(defect).__name__ for defect in message.defects}


def test_eight_bit_bytes_are_in_a_header():
    eight_bit = [uid for uid in MAIL["raw-header"] if not SOURCE.header(uid).isascii()]
    # English in US-ASCII has none to offer.
    assert eight_bit
    assert all(SOURCE.facts(uid).charset == "us-ascii" for uid in set(MAIL["raw-header"]) - set(eight_bit))


def test_encoded_words_are_cut_off():
    for uid in MAIL["bad-encoded-word"]:
        assert re.search(rb"\r\nSubject: .*=\?utf-8\?B\?R3L", SOURCE.header(uid))


def test_line_ends_are_mixed():
    for uid in MAIL["bare-lf"]:
        assert re.search(rb"(?<!\r)\n", body(uid))
        assert b"\r\n" in body(uid)
        assert not re.search(rb"(?<!\r)\n", SOURCE.header(uid))


def test_lines_are_longer_than_998():
    for uid in MAIL["long-line"]:
        assert max(map(len, SOURCE.header(uid).split(b"\r\n"))) > 998
        assert max(map(len, body(uid).split(b"\r\n"))) > 998


def test_fields_are_missing_or_twice_there():
    def names(uid):
        return [name.lower() for name, _ in email.message_from_bytes(SOURCE.header(uid)).items()]

    assert all("date" not in names(uid) for uid in MAIL["no-date"])
    assert all("from" not in names(uid) for uid in MAIL["no-from"])
    for uid in MAIL["twice"]:
        assert all(names(uid).count(name) == 2 for name in ("subject", "from", "date", "content-type"))
        assert names(uid).count("message-id") == 1


def test_a_date_or_an_address_is_none():
    for uid in MAIL["bad-date"]:
        assert email.message_from_bytes(SOURCE.header(uid), policy=email.policy.default)["Date"].datetime is None
    for uid in MAIL["bad-address"]:
        assert email.message_from_bytes(SOURCE.header(uid), policy=email.policy.default)["From"].defects


def test_a_line_of_the_header_is_no_field():
    for uid in MAIL["no-colon"]:
        assert re.search(rb"\r\n>From office", SOURCE.header(uid))


def test_a_message_ends_too_early():
    for uid in MAIL["cut-off"]:
        assert not body(uid).endswith(b"\n")
        assert b"--" + boundary(uid) + b"--" not in body(uid)
    for uid in MAIL["no-body"]:
        assert body(uid) == b""
        assert b"multipart/alternative" in SOURCE.header(uid)
