"""BINARY: parts without their transfer encoding, and literals that may hold a NUL (RFC 3516)."""

from __future__ import annotations

import base64
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imap_transcript import SHORT, selected

NUL = b"\x89PNG\0\xff\r\n\0"


def multipart(*parts):
    """A message of these parts: (encoding, body)."""
    head = b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    made = [b"--b\r\nContent-Transfer-Encoding: %b\r\n\r\n%b\r\n" % part for part in parts]
    return head + b"".join(made) + b"--b--\r\n"


PARTS = {
    1: (b"base64", base64.encodebytes(NUL * 9).replace(b"\n", b"\r\n"), NUL * 9),
    2: (b"quoted-printable", b"J=C3=B6=\r\nrg =3D\r\n", "J\u00f6rg =\r\n".encode()),
    3: (b"8bit", b"\xc3\xb6", b"\xc3\xb6"),
    4: (b"7bit", b"plain", b"plain"),
    5: (b"Binary", NUL, NUL),
    6: (b" BASE64 ", b"aGVs\r\nbG8=\r\n", b"hello"),
    7: (b"base64", b"", b""),
}


@pytest.fixture
def imap():
    return selected(multipart(*(part[:2] for part in PARTS.values())), SHORT)


def answer(client, number, item):
    """(what goes before the value, the value) of one item."""
    out = client.send(f"f FETCH {number} {item}\r\n".encode())
    before, mark, size, rest = re.match(rb"\* \d+ FETCH \((\S+) (~?)\{(\d+)\}\r\n(.*)", out, re.DOTALL).groups()
    data = rest[: int(size)]
    assert (mark == b"~") == (b"\0" in data)
    return before, data


@pytest.mark.parametrize("part", PARTS)
def test_a_part_comes_without_its_encoding(imap, part):
    expected = PARTS[part][2]
    assert answer(imap, 1, f"BINARY.PEEK[{part}]") == (b"BINARY[%d]" % part, expected)
    assert imap.ok(f"FETCH 1 BINARY.SIZE[{part}]") == [f"* 1 FETCH (BINARY.SIZE[{part}] {len(expected)})"]
    assert imap.inbox.flags(1) == frozenset()


def test_a_partial_counts_what_is_decoded(imap):
    assert answer(imap, 1, "binary.peek[1]<4.3>") == (b"BINARY[1]<4>", NUL[4:7])
    assert answer(imap, 1, "BINARY.PEEK[1]<999.3>") == (b"BINARY[1]<999>", b"")
    assert answer(imap, 1, "BINARY.PEEK[2]<0.3>") == (b"BINARY[2]<0>", "J\u00f6".encode())


def test_the_whole_and_a_part_that_is_not_there(imap):
    assert answer(imap, 2, "BINARY.PEEK[]") == (b"BINARY[]", SHORT)
    assert answer(imap, 2, "BINARY.PEEK[1]") == (b"BINARY[1]", b"body\r\n")
    assert answer(imap, 2, "BINARY.PEEK[9]") == (b"BINARY[9]", b"")
    assert imap.ok("FETCH 2 (BINARY.SIZE[] BINARY.SIZE[9])") == [
        f"* 2 FETCH (BINARY.SIZE[] {len(SHORT)} BINARY.SIZE[9] 0)"
    ]


def test_a_part_of_a_message_inside_is_decoded_too():
    inner = b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8=\r\n"
    imap = selected(b"Content-Type: message/rfc822\r\n\r\n" + inner)
    assert answer(imap, 1, "BINARY.PEEK[1]") == (b"BINARY[1]", inner)
    assert answer(imap, 1, "BINARY.PEEK[1.1]") == (b"BINARY[1.1]", b"hello")


def test_reading_marks_as_seen_and_asking_for_the_size_does_not(imap):
    imap.ok("FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[4])")
    assert imap.inbox.flags(1) == frozenset()
    imap.step("1 FETCH 1 BINARY[4]", "* 1 FETCH (BINARY[4] {5}", "plain FLAGS (\\Seen))", "1 OK <any>")
    assert imap.inbox.flags(1) == {"\\Seen"}


@pytest.mark.parametrize(
    "part", [(b"x-uuencode", b"begin 644"), (b"base64", b"a"), (b"base64", b"aGVsbG8=\r\n--\r\nfooter")]
)
def test_an_encoding_that_can_not_be_undone_is_refused_by_its_code_and_the_others_are_served(part):
    imap = selected(multipart(part), multipart((b"7bit", b"fine")))
    imap.step(
        "1 FETCH 1:2 (UID BINARY.PEEK[1])",
        "* 1 FETCH (UID 1 BINARY[1] NIL)",
        "* 2 FETCH (UID 2 BINARY[1] {4}",
        "fine)",
        "1 NO [UNKNOWN-CTE] <any>",
    )
    imap.step("2 FETCH 1 BINARY.SIZE[1]", "* 1 FETCH (BINARY.SIZE[1] 0)", "2 NO [UNKNOWN-CTE] <any>")
    imap.step("3 FETCH 2 BINARY.SIZE[1]", "* 2 FETCH (BINARY.SIZE[1] 4)", "3 OK <any>")


@pytest.mark.parametrize(
    "item",
    ["BINARY", "BINARY.PEEK", "BINARY.SIZE", "BINARY[TEXT]", "BINARY[1.MIME]", "BINARY[1.]", "BINARY[0]", "BINARY[1",
     "BINARY.SIZE[1]<0.1>", "BINARY[1]<0.0>", "BINARY[1]<1>", "BINARY.TEXT[1]"],
)  # fmt: skip
def test_a_malformed_item_is_bad(imap, item):
    imap.step(f"1 FETCH 1 {item}", "1 BAD <any>")


# --- APPEND ---


@pytest.mark.parametrize("literal", [b"~{%d+}\r\n", b"~{%d}\r\n"])
def test_a_literal8_is_a_message_with_any_bytes(literal):
    imap = selected()
    raw = b"Content-Transfer-Encoding: binary\r\n\r\n" + NUL
    said = imap.send(b"1 APPEND INBOX (\\Seen) " + literal % len(raw))
    if b"+}" not in literal:
        assert said.startswith(b"+ ")
    assert b"1 OK [APPENDUID " in imap.send(raw + b"\r\n")
    assert imap.inbox.raw(1) == raw
    assert answer(imap, 1, "BINARY.PEEK[1]") == (b"BINARY[1]", NUL)


def test_several_messages_may_be_of_both_kinds():
    imap = selected()
    imap.step(
        "1 APPEND INBOX {1+}\r\na ~{1+}\r\nb {1+}\r\nc", "* 3 EXISTS", "* 3 RECENT", "1 OK [APPENDUID <any> 1:3] <any>"
    )


@pytest.mark.parametrize("command", ["APPEND INBOX ~ {1+}\r\nx", "APPEND INBOX ~~{1+}\r\nx", "CREATE ~{1+}\r\nx"])
def test_a_literal8_is_nothing_but_a_message(command):
    selected().step(f"1 {command}", "1 BAD <any>")


@given(st.binary(max_size=60))
@settings(deadline=None)
def test_whatever_was_encoded_comes_back(data):
    imap = selected(multipart((b"base64", base64.encodebytes(data).replace(b"\n", b"\r\n"))))
    assert answer(imap, 1, "BINARY.PEEK[1]") == (b"BINARY[1]", data)


@given(st.binary(max_size=60), st.sampled_from([b"base64", b"quoted-printable", b"binary", b"x"]))
@settings(deadline=None)
def test_no_body_breaks_the_decoding(data, encoding):
    imap = selected(multipart((encoding, data.replace(b"--b", b""))))
    assert (
        imap.send(b"1 FETCH 1 (BINARY.PEEK[1] BINARY.SIZE[1])\r\n")
        .splitlines()[-1]
        .startswith((b"1 OK", b"1 NO [UNKNOWN-CTE]"))
    )
