"""MIME structure, ENVELOPE, BODYSTRUCTURE and sections of good mail, odd mail and no mail at all."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from imap_transcript import MAIL, parsed, selected

from fakemail.imap_protocol.addresses import parse_addresses
from fakemail.imap_protocol.structure import envelope, structure
from fakemail.mime import field_value, field_values, header_block, header_fields, parse_mime, parse_parameters


def crlf(text):
    return text.replace("\n", "\r\n").encode("utf-8", errors="surrogateescape")


def structured(text, *, extended=True):
    return structure(parse_mime(crlf(text)), extended=extended).decode("utf-8", errors="surrogateescape")


def enveloped(text):
    return parsed(envelope(crlf(text)))[0]


NAMES = ("date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id")


def envelope_field(header, name):
    return enveloped(header)[NAMES.index(name)]


# --- header ---


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        (b"A: b\r\n\r\nbody", b"A: b\r\n\r\n"),
        (b"A: b\n\nbody", b"A: b\n\n"),
        (b"A: b\r\n\nbody", b"A: b\r\n\n"),
        (b"\r\nbody", b"\r\n"),
        (b"\nbody", b"\n"),
        (b"A: b\r\n", b"A: b\r\n"),
        (b"A: b", b"A: b"),
        (b"", b""),
        (b"A: b\n\nx\r\n\r\n", b"A: b\n\n"),
    ],
)
def test_a_header_ends_with_its_empty_line_or_with_the_message(raw, header):
    assert header_block(raw) == header


def test_fields_keep_their_bytes_and_their_order():
    header = b"B: 1\r\nA : 2\r\n\tfolded\r\nno field\r\nB:3\r\n: nameless\r\n\r\n"
    assert header_fields(header) == [("b", b"B: 1\r\n"), ("a", b"A : 2\r\n\tfolded\r\n"), ("b", b"B:3\r\n")]
    assert field_values(header, "B") == ["1", "3"]
    assert field_value(header, "a") == "2\tfolded"
    assert field_value(header, "c") is None


def test_eight_bit_bytes_at_the_end_of_a_field_are_kept():
    # In UTF-8 both end with a byte that is white space in Latin-1.
    assert envelope_field("Subject: voil\u00e0\n\n", "subject") == "voil\u00e0".encode()
    assert envelope_field("Subject: \u00c5\n\n", "subject") == "\u00c5".encode()


@pytest.mark.parametrize("name", ["voil\u00e0", "\u00c5ke", "a\u00a0b", "\u0145", "\u00e0 la"])
def test_eight_bit_bytes_of_a_name_are_no_white_space(name):
    (row,) = envelope_field(f"From: {name} <a@b.test>\n\n", "from")
    assert row == [name.encode(), None, b"a", b"b.test"]
    (row,) = envelope_field(f"From: a@b.test ({name})\n\n", "from")
    assert row[0] == name.encode()
    (row,) = envelope_field(f'From: "{name}" <a@b.test>\n\n', "from")
    assert row[0] == name.encode()


def test_eight_bit_bytes_of_a_parameter_are_no_white_space():
    assert parse_parameters("a/b; name=voil\xc3\xa0; x=y") == ("a/b", (("name", "voil\xc3\xa0"), ("x", "y")))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('Attachment; filename="a;b.png"', ("attachment", (("filename", "a;b.png"),))),
        ('a/b; x="q\\"uo\\\\te"; y = z', ("a/b", (("x", 'q"uo\\te'), ("y", "z")))),
        ("text/plain (a comment); charset=x", ("text/plain", (("charset", "x"),))),
        ("text/plain; charset=utf-8 (a comment)", ("text/plain", (("charset", "utf-8"),))),
        ("text / plain", ("text/plain", ())),
        ("a/b; empty=; other=1", ("a/b", (("empty", ""), ("other", "1")))),
        ('a/b; x="unfinished', ("a/b", (("x", "unfinished"),))),
        ('a/b; x="', ("a/b", (("x", ""),))),
        ('a/b; x="\\"', ("a/b", (("x", '"'),))),
        ("", ("", ())),
        (";;;", ("", ())),
    ],
)
def test_parameters(value, expected):
    assert parse_parameters(value) == expected


# --- ENVELOPE (RFC 3501 section 7.4.2) ---


def test_an_envelope_of_no_header_is_all_nil():
    assert enveloped("\n") == enveloped("") == [None] * 10


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("Subject: =?utf-8?b?w7Y=?=\n folded\n\n", "subject", b"=?utf-8?b?w7Y=?= folded"),
        ("Subject:\n\n", "subject", b""),
        ("Subject: first\nSubject: second\n\n", "subject", b"first"),
        ('Subject: a "b" \\c\n\n', "subject", b'a "b" \\c'),
        ("Date: bad date\n\n", "date", b"bad date"),
        ("Date: Tue, 22 Feb 2008 17:06:23 +0200\n\n", "date", b"Tue, 22 Feb 2008 17:06:23 +0200"),
        ("In-Reply-To:  <1@a>  <2@b> \n\n", "in-reply-to", b"<1@a>  <2@b>"),
        ("Message-ID: <x@y>\n\n", "message-id", b"<x@y>"),
        ("MESSAGE-id:<x@y>\n\n", "message-id", b"<x@y>"),
    ],
)
def test_text_of_an_envelope_is_unfolded_and_not_decoded(header, name, value):
    assert envelope_field(header, name) == value


def address(name, route, mailbox, host):
    return [None if each is None else each.encode() for each in (name, route, mailbox, host)]


END = address(None, None, None, None)
ADDRESSES = {
    "a@b.test": [address(None, None, "a", "b.test")],
    "Ann B <a@b.test>": [address("Ann B", None, "a", "b.test")],
    '"A \\"q\\" B" <a@b.test>': [address('A "q" B', None, "a", "b.test")],
    "=?utf-8?q?J=C3=B6?= <j@x>": [address("=?utf-8?q?J=C3=B6?=", None, "j", "x")],
    "a@b.test (Real Name)": [address("Real Name", None, "a", "b.test")],
    "c@d (Comm (nested))": [address("Comm (nested)", None, "c", "d")],
    "ann (x)@ (y) host.test": [address("y", None, "ann", "host.test")],
    "u@[1.2.3.4]": [address(None, None, "u", "[1.2.3.4]")],
    "<@route:user@host>": [address(None, "@route", "user", "host")],
    "<@a,@b:user@host>": [address(None, "@a,@b", "user", "host")],
    "grp: ;": [address(None, None, "grp", None), END],
    "undisclosed-recipients:;": [address(None, None, "undisclosed-recipients", None), END],
    "team: a@x.test, b@y.test;": [
        address(None, None, "team", None),
        address(None, None, "a", "x.test"),
        address(None, None, "b", "y.test"),
        END,
    ],
    "g: a@x;, c@d": [address(None, None, "g", None), address(None, None, "a", "x"), END, address(None, None, "c", "d")],
    "g: a@x": [address(None, None, "g", None), address(None, None, "a", "x"), END],
    "a@b, Ann <c@d>": [address(None, None, "a", "b"), address("Ann", None, "c", "d")],
    "a@b,, c@d,": [address(None, None, "a", "b"), address(None, None, "c", "d")],
    "bad address": [address("bad address", None, "MISSING_MAILBOX", "MISSING_DOMAIN")],
    "root": [address(None, None, "root", "MISSING_DOMAIN")],
    "root (Charlie)": [address("Charlie", None, "root", "MISSING_DOMAIN")],
    "<>": [address(None, None, "MISSING_MAILBOX", "MISSING_DOMAIN")],
    '"only name"': [address("only name", None, "MISSING_MAILBOX", "MISSING_DOMAIN")],
    "@host": [address(None, None, "MISSING_MAILBOX", "host")],
    "a@": [address(None, None, "a", "MISSING_DOMAIN")],
    "Ann <a@b": [address("Ann", None, "a", "b")],
    "a b @ c . d": [address(None, None, "ab", "c.d")],
    '"quoted local"@x.test': [address(None, None, "quoted local", "x.test")],
}


@pytest.mark.parametrize("value", list(ADDRESSES))
def test_addresses_of_an_envelope(value):
    assert envelope_field(f"To: {value}\n\n", "to") == ADDRESSES[value]


def test_sender_and_reply_to_fall_back_to_from():
    found = enveloped("From: g: a@b.test, c@d.test;\nSender:\nReply-To: \n\n")
    assert found[2] == found[3] == found[4]
    assert len(found[2]) == 4
    assert enveloped("From: a@b\nSender: c@d\n\n")[3] == [address(None, None, "c", "d")]
    assert enveloped("Sender: c@d\n\n")[2:5] == [None, [address(None, None, "c", "d")], None]


def test_addresses_stand_side_by_side_without_a_space():
    assert b'((NIL NIL "a" "b")(NIL NIL "c" "d"))' in envelope(b"To: a@b, c@d\r\n\r\n")


ODD = st.text(st.sampled_from('ab@<>,:;()"\\[] .\t\xa0\xe9'), max_size=24)


@given(ODD)
@example('"\\')
@example("(((((")
def test_any_field_becomes_addresses_that_a_client_can_read(value):
    for each in parse_addresses(value):
        # With a host there is a mailbox; without, it is the begin or the end of a group.
        assert each.mailbox is not None or each.host is None
    groups = [each for each in parse_addresses(value) if each.host is None]
    assert [each.mailbox is None for each in groups] == [False, True] * (len(groups) // 2)


# --- BODY and BODYSTRUCTURE ---

TEXT = '("text" "plain" ("charset" "us-ascii") NIL NIL "7bit"'
NO_EXTRAS = " NIL NIL NIL NIL)"


@pytest.mark.parametrize(
    ("mail", "expected"),
    [
        ("Subject: x\n\nFoo\n", f"{TEXT} 5 1{NO_EXTRAS}"),
        ("\nFoo\n", f"{TEXT} 5 1{NO_EXTRAS}"),
        ("\nx", f"{TEXT} 1 0{NO_EXTRAS}"),
        ("Subject: x\n", f"{TEXT} 0 0{NO_EXTRAS}"),
        ("", f"{TEXT} 0 0{NO_EXTRAS}"),
        ("Content-Type: text/html; charset=x\n\na\n", f'("text" "html" ("charset" "x") NIL NIL "7bit" 3 1{NO_EXTRAS}'),
        ("Content-Type: text\n\n", f"{TEXT} 0 0{NO_EXTRAS}"),
        ("Content-Type: garbage\n\n", f"{TEXT} 0 0{NO_EXTRAS}"),
        (
            "Content-Type: application/x; a=b\nContent-Transfer-Encoding: BASE64\n\nAAAA",
            f'("application" "x" ("a" "b") NIL NIL "base64" 4{NO_EXTRAS}',
        ),
        (
            "Content-Type: message/delivery-status\n\nxy",
            f'("message" "delivery-status" NIL NIL NIL "7bit" 2{NO_EXTRAS}',
        ),
        (
            (
                'Content-Type: image/png; name="f n.png"\nContent-ID: <cid>\nContent-Description: desc\n'
                "Content-Transfer-Encoding: base64\nContent-MD5: md\n"
                'Content-Disposition: attachment; filename="a;b.png"\n'
                "Content-Language: en, de\nContent-Location: loc\n\nAA=="
            ),
            (
                '("image" "png" ("name" "f n.png") "<cid>" "desc" "base64" 4 "md" '
                '("attachment" ("filename" "a;b.png")) ("en" "de") "loc")'
            ),
        ),
        ("Content-Disposition: inline\n\n", f'{TEXT} 0 0 NIL ("inline" NIL) NIL NIL)'),
    ],
)
def test_structure_of_a_single_part(mail, expected):
    assert structured(mail) == expected


def test_body_is_the_structure_without_extension_data():
    assert structured("\nFoo\n", extended=False) == f"{TEXT} 5 1)"
    assert structured(MULTI, extended=False) == (
        '(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 0)'
        '("text" "html" ("charset" "us-ascii") NIL NIL "7bit" 5 1) "mixed")'
    )


MULTI = (
    'Content-Type: multipart/mixed; boundary="b"\n\nprologue\n'
    "--b\n\none\n--b\nContent-Type: text/html\n\ntwo\n\n--b--\nepilogue\n"
)


def test_a_multipart_lists_its_parts_and_its_boundary():
    assert structured(MULTI).endswith(' "mixed" ("boundary" "b") NIL NIL NIL)')


@pytest.mark.parametrize(
    "mail", ["Content-Type: multipart/mixed; boundary=b\n\n", "Content-Type: multipart/mixed\n\nx"]
)
def test_a_multipart_without_parts_has_an_empty_one(mail):
    assert structured(mail, extended=False) == f'({TEXT} 0 0) "mixed")'


def test_a_message_in_a_message_has_its_envelope_its_structure_and_its_lines():
    mail = "Content-Type: message/rfc822\n\nSubject: inner\n\nwithin\n"
    inner = '(NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL)'
    assert structured(mail) == f'("message" "rfc822" NIL NIL NIL "7bit" 26 {inner} {TEXT} 8 1{NO_EXTRAS} 3{NO_EXTRAS}'


def test_parts_of_a_digest_are_messages_unless_they_say_otherwise():
    mail = (
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: one\n\nfirst\n"
        "--b\nContent-Type: text/plain\n\nplain\n--b--\n"
    )
    (first, second) = parse_mime(crlf(mail)).parts
    assert (first.content_type, second.content_type) == (("message", "rfc822"), ("text", "plain"))
    assert first.header == b"\r\n"
    assert first.parts[0].field("subject") == "one"


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("--b\n\none\n--b--\n", [b"one"]),
        ("--b\n\none\n\n--b--", [b"one\r\n"]),
        ("--b  \t\n\none\n--b \n\ntwo\n--b--  \n", [b"one", b"two"]),
        ("pre\n--b\n\none\n--bb\n--bx\n--b\n\ntwo\n", [b"one\r\n--bb\r\n--bx", b"two\r\n"]),
        ("--b\n\none --b\n--b--\n--b\n\nafter the end", [b"one --b"]),
        ("--b\n--b\n\none\n--b--", [b"", b"one"]),
        ("--b", [b""]),
        ("no delimiter", []),
        ("", []),
    ],
)
def test_delimiters_are_whole_lines_and_own_the_line_break_before_them(body, parts):
    found = parse_mime(crlf(f"Content-Type: multipart/mixed; boundary=b\n\n{body}"))
    assert [each.body for each in found.parts] == parts


def test_delimiters_may_end_in_bare_line_feeds():
    found = parse_mime(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\none\n--b\n\ntwo\n--b--\n")
    assert [each.body for each in found.parts] == [b"one", b"two"]


def test_a_boundary_folded_inside_its_quotes_is_joined_by_its_white_space():
    mail = 'Content-Type: multipart/mixed; boundary="foo\n bar"\n\n--foo bar \n\none\n--foo bar--\n'
    assert [each.body for each in parse_mime(crlf(mail)).parts] == [b"one"]


def test_a_boundary_may_be_a_pattern_of_anything():
    mail = 'Content-Type: multipart/mixed; boundary="(.*)+?"\n\n--(.*)+?\n\none\n--(.*)+?--\n'
    assert [each.body for each in parse_mime(crlf(mail)).parts] == [b"one"]


def test_an_inner_multipart_that_is_not_closed_ends_with_the_outer_part():
    mail = (
        "Content-Type: multipart/mixed; boundary=out\n\n--out\nContent-Type: multipart/mixed; boundary=in\n\n"
        "--in\n\none\n--out\n\ntwo\n--out--\n"
    )
    outer = parse_mime(crlf(mail))
    assert [each.body for each in outer.parts[0].parts] == [b"one"]
    assert outer.parts[1].body == b"two"


def test_nesting_has_an_end():
    mail = "Content-Type: message/rfc822\n\n" * 100
    depth, part = 0, parse_mime(crlf(mail))
    while part.parts:
        depth, part = depth + 1, part.parts[0]
    assert 10 < depth < 30
    parsed(structure(parse_mime(crlf(mail)), extended=True))


SCRAPS = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\r\n",
        b'Content-Type: multipart/digest; boundary="c"\r\n',
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: text/\xc3\xa9; charset=\r\n",
        b"Content-Disposition: ;x=y\r\n",
        b"Content-Language: ,en\r\n",
        b"Content-Transfer-Encoding: \r\n",
        b"From: x:y@<z>\r\n",
        b"Subject: \0\xff\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"--b\r\n",
        b"--b--\r\n",
        b"--c\r\n",
        b" folded\r\n",
        b"text\r\n",
        b"\0",
    ]
)  # fmt: skip


@given(st.lists(SCRAPS, max_size=16).map(b"".join))
@settings(max_examples=300, deadline=None)
def test_whatever_arrives_has_a_structure_that_a_client_can_read(raw):
    part = parse_mime(raw)
    assert part.header + part.body == raw
    for extended in (False, True):
        (found,) = parsed(structure(part, extended=extended))
        assert isinstance(found, list)
    (found,) = parsed(envelope(part.header))
    assert len(found) == 10
    _check_parts(part)


def _check_parts(part):
    for child in part.parts:
        assert child.header + child.body in part.body
        _check_parts(child)


# --- sections (RFC 3501 section 6.4.5) ---

INNER = "Content-Type: multipart/mixed; boundary=in\n\npro\n--in\nX-A: 1\n\nalpha\n--in\n\nbeta\n--in--\nepi\n"
OUTER = (
    "Subject: outer\nContent-Type: multipart/mixed; boundary=out\n\n--out\n\nfirst\n--out\n"
    f"Content-Type: message/rfc822\nX-Part: two\n\nSubject: inner\nX-Dup: a\nX-Dup: b\n folded\n{INNER}\n"
    "--out\nContent-Type: message/rfc822\n\nSubject: plain\n\nbody\n--out\nX-M: 4\n"
    f"{INNER}\n--out--\n"
)
INNER_BODY = INNER.partition("\n\n")[2]
EMBEDDED = f"Subject: inner\nX-Dup: a\nX-Dup: b\n folded\n{INNER}"
TOP = "Subject: top\nContent-Type: message/rfc822\n\n"
DIGEST = "Content-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: one\n\nfirst\n--d--\n"
SINGLE = "Subject: single\nMIME-Version: 1.0\n\nhello\n"
SECTIONS = [
    (OUTER, "", OUTER),
    (OUTER, "1", "first"),
    (OUTER, "1.MIME", "\n"),
    (OUTER, "2", EMBEDDED),
    (OUTER, "2.MIME", "Content-Type: message/rfc822\nX-Part: two\n\n"),
    (OUTER, "2.HEADER", EMBEDDED.partition("\n\n")[0] + "\n\n"),
    (OUTER, "2.TEXT", INNER_BODY),
    (OUTER, "2.1", "alpha"),
    (OUTER, "2.1.MIME", "X-A: 1\n\n"),
    (OUTER, "2.2", "beta"),
    (OUTER, "2.HEADER.FIELDS (X-Dup)", "X-Dup: a\nX-Dup: b\n folded\n\n"),
    (OUTER, "2.HEADER.FIELDS.NOT (X-DUP content-type)", "Subject: inner\n\n"),
    (OUTER, "3.1", "body"),
    (OUTER, "3.HEADER", "Subject: plain\n\n"),
    (OUTER, "4", INNER_BODY),
    (OUTER, "4.MIME", "X-M: 4\nContent-Type: multipart/mixed; boundary=in\n\n"),
    (OUTER, "4.1", "alpha"),
    (OUTER, "4.1.MIME", "X-A: 1\n\n"),
    (OUTER, "4.2", "beta"),
    (OUTER, "4.TEXT", ""),
    (OUTER, "4.HEADER", ""),
    (OUTER, "4.3", ""),
    (OUTER, "5", ""),
    (OUTER, "1.1", ""),
    (OUTER, "3.2", ""),
    (OUTER, "3.1.1", ""),
    (TOP + SINGLE, "1", SINGLE),
    (TOP + SINGLE, "1.HEADER", "Subject: single\nMIME-Version: 1.0\n\n"),
    (TOP + SINGLE, "1.TEXT", "hello\n"),
    (TOP + SINGLE, "1.1", "hello\n"),
    (TOP + SINGLE, "1.1.MIME", "Subject: single\nMIME-Version: 1.0\n\n"),
    (TOP + TOP + SINGLE, "1.1", SINGLE),
    (TOP + TOP + SINGLE, "1.1.HEADER", "Subject: single\nMIME-Version: 1.0\n\n"),
    (TOP + TOP + SINGLE, "1.1.TEXT", "hello\n"),
    (TOP + TOP + SINGLE, "1.1.1", "hello\n"),
    (TOP + EMBEDDED, "1.1", "alpha"),
    (TOP + EMBEDDED, "1.2", "beta"),
    (DIGEST, "1", "Subject: one\n\nfirst"),
    (DIGEST, "1.HEADER", "Subject: one\n\n"),
    (DIGEST, "1.MIME", "\n"),
    (DIGEST, "1.1", "first"),
    (SINGLE, "1", "hello\n"),
    (SINGLE, "1.MIME", "Subject: single\nMIME-Version: 1.0\n\n"),
    (SINGLE, "TEXT", "hello\n"),
    (SINGLE, "HEADER", "Subject: single\nMIME-Version: 1.0\n\n"),
    (SINGLE, "HEADER.FIELDS (xyz)", "\n"),
    (SINGLE, "2", ""),
    (SINGLE, "1.1", ""),
    (SINGLE, "1.HEADER", ""),
    ("\nno header\n", "HEADER", "\n"),
    ("\nno header\n", "TEXT", "no header\n"),
    ("\nno header\n", "1.MIME", "\n"),
    ("Subject: no body\n", "HEADER", "Subject: no body\n"),
    ("Subject: no body\n", "TEXT", ""),
    ("Subject: no body\n", "1", ""),
]


@pytest.mark.parametrize(("mail", "section", "expected"), SECTIONS)
def test_sections(mail, section, expected):
    assert selected(crlf(mail)).fetch(1, f"BODY.PEEK[{section}]") == crlf(expected)


@pytest.mark.parametrize("mail", [OUTER, TOP + EMBEDDED, DIGEST, SINGLE, MULTI])
def test_header_and_text_are_the_whole(mail):
    imap = selected(crlf(mail))
    assert imap.fetch(1, "BODY.PEEK[HEADER]") + imap.fetch(1, "BODY.PEEK[TEXT]") == crlf(mail)
    assert int(re.search(r"RFC822.SIZE (\d+)", imap.ok("FETCH 1 RFC822.SIZE")[0])[1]) == len(crlf(mail))


def test_every_size_that_a_structure_tells_is_that_of_its_section():
    imap = selected(MAIL)
    (row,) = parsed("\r\n".join(imap.ok("FETCH 1 BODYSTRUCTURE")).encode())[3:]
    for number, part in enumerate(row[1][:2], 1):
        assert int(part[6]) == len(imap.fetch(1, f"BODY.PEEK[{number}]"))
