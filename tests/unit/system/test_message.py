"""Mail as bytes: what is built says what was asked, and what is parsed never raises."""

import email
import email.policy
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service.errors import InvalidRequestError
from email_service.message import (
    OutgoingMessage,
    build,
    composer,
    envelope_recipients,
    message_id_for,
    parse,
    parse_address,
)

ADDRESS = "bob@example.org"


def outgoing(**changes):
    fields = {
        "message_id": "<1@example.org>",
        "date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "mail_from": "ann@example.org",
        "to": (ADDRESS,),
        "subject": "hello",
        "text": "text\n",
    }
    return OutgoingMessage(**{**fields, **changes})


def header_of(raw):
    return raw.partition(b"\r\n\r\n")[0]


# --- addresses ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [ADDRESS, "a.b+tag@sub.example.org", "x@localhost", "O'Brien@Example.ORG", "!#$%&'*+/=?^_`{|}~-@example.org"],
)
def test_a_plain_address_is_kept_as_it_is(text):
    assert parse_address(text) == text


def test_a_domain_beyond_ascii_is_written_in_ascii():
    assert parse_address("a@exämple.org") == "a@xn--exmple-cua.org"


def test_a_local_part_beyond_ascii_is_kept():
    assert parse_address("jürgen@example.org") == "jürgen@example.org"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bob",
        "@example.org",
        "bob@",
        "Bob <bob@example.org>",
        "bob@example.org, eve@example.org",
        " bob@example.org",
        "bob@example.org ",
        "bob@example.org\r\nBcc: eve@example.org",
        "bob\n@example.org",
        "bob@example.org\n",
        "bob\0@example.org",
        "bob\u2028@example.org",
        "bob\ud800@example.org",
        "b..b@example.org",
        ".bob@example.org",
        '"bob"@example.org',
        "a@b@example.org",
        "bob@-example.org",
        "bob@exa_mple.org",
        "bob@[127.0.0.1]",
        "bob@example..org",
        "bob@ä..org",
        "x" * 65 + "@example.org",
        "bob@" + ".".join(["x" * 60] * 5),
        "bob@" + "ä" * 300 + ".org",
    ],
)
def test_what_is_no_bare_address_is_refused(text):
    with pytest.raises(InvalidRequestError):
        parse_address(text)


def test_the_message_id_of_a_job_is_always_the_same():
    assert message_id_for("7f", "example.org") == "<7f@example.org>" == message_id_for("7f", "example.org")


def test_the_envelope_names_everyone_once_without_regard_to_the_case_of_the_domain():
    mail = outgoing(to=("a@x.org", "B@x.org"), cc=("a@X.ORG", "c@x.org"), bcc=("b@x.org", "C@x.org", "c@X.org"))
    assert envelope_recipients(mail) == ("a@x.org", "B@x.org", "c@x.org", "b@x.org", "C@x.org")


# --- headers --------------------------------------------------------------------------------------------------------


def test_headers_say_what_was_asked_and_nothing_else():
    raw = build(outgoing(cc=("c@example.org",), bcc=("hidden@example.net",)))
    parsed = email.message_from_bytes(raw)
    assert parsed.keys() == [
        "From",
        "To",
        "Cc",
        "Subject",
        "Date",
        "Message-ID",
        "MIME-Version",
        "Content-Type",
        "Content-Transfer-Encoding",
    ]
    assert parsed["Date"] == "Fri, 02 Jan 2026 03:04:05 +0000"
    assert parsed["Message-ID"] == "<1@example.org>"


def test_bcc_is_never_in_the_bytes():
    raw = build(outgoing(bcc=("hidden@example.net",), html="<p>x</p>", attachments=(("a.txt", "text/plain", b"x"),)))
    assert b"hidden" not in raw.lower()
    assert b"bcc" not in raw.lower()


def test_a_message_to_hidden_recipients_alone_says_so():
    raw = build(outgoing(to=(), bcc=("hidden@example.net",)))
    assert b"To: undisclosed-recipients:;\r\n" in raw


def test_the_same_message_is_the_same_bytes_at_each_try():
    mail = outgoing(html="<p>x</p>", attachments=(("a.bin", "application/octet-stream", b"x" * 100),))
    assert build(mail) == build(mail)


@pytest.mark.parametrize("bad", ["x\r\nBcc: eve@example.org", "x\ny", "x\ry", "x\0y"])
def test_no_value_can_begin_a_header_line(bad):
    attachment = (("a.txt", "text/plain", b"x"),)
    for changes in (
        {"subject": bad},
        {"to": (bad,)},
        {"cc": (ADDRESS, f"{bad}@example.org")},
        {"mail_from": bad},
        {"message_id": f"<{bad}@example.org>"},
        {"attachments": ((bad, *attachment[0][1:]),)},
        {"attachments": (("a.txt", f"text/{bad}", b"x"),)},
    ):
        with pytest.raises(InvalidRequestError):
            build(outgoing(**changes))


def test_a_naive_date_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="aware"):
        build(outgoing(date=datetime(2026, 1, 2)))  # noqa: DTZ001  # the point


@pytest.mark.parametrize("content_type", ["", "text", "text/", "text/plain; name=x", "text/plain\n"])
def test_an_attachment_has_a_bare_content_type(content_type):
    with pytest.raises(InvalidRequestError):
        build(outgoing(attachments=(("a", content_type, b""),)))


def test_header_lines_are_short_and_fold_between_words():
    mail = outgoing(
        subject="long words " * 30,
        to=tuple(f"recipient-{number}@department.example.org" for number in range(40)),
        attachments=(("ünïcödé " * 20, "application/pdf", b"x"),),
    )
    lines = header_of(build(mail)).split(b"\r\n")
    assert max(map(len, lines)) <= 78
    assert all(line.strip() for line in lines)


def test_plain_ascii_in_a_subject_stays_readable():
    raw = build(outgoing(subject="a long but plain subject with nothing special in it that still needs two lines"))
    assert b"Subject: a long but plain subject" in raw
    assert b"=?" not in header_of(raw)


def test_an_address_beyond_ascii_stays_utf8_and_all_else_is_ascii():
    raw = build(outgoing(to=("jürgen@example.org",), subject="Grüße"))
    assert "To: jürgen@example.org\r\n".encode() in raw
    assert build(outgoing(subject="Grüße", text="ä", html="ö", attachments=(("ü", "a/b", b"\xff"),))).isascii()


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("plain\n", b"7bit"),
        ("", b"7bit"),
        ("mostly plain, one ä\n" * 3, b"quoted-printable"),
        ("x" * 999 + "\n", b"quoted-printable"),
        ("--=_looks like our boundary", b"quoted-printable"),
        ("bell \x07", b"quoted-printable"),
        ("Ελληνικά", b"base64"),
    ],
)
def test_a_text_is_encoded_no_more_than_it_needs(text, encoding):
    raw = build(outgoing(text=text))
    assert b"Content-Transfer-Encoding: " + encoding in raw
    assert parse(raw).text.removesuffix("\n") == text.removesuffix("\n")


def test_lines_are_never_longer_than_smtp_allows():
    mail = outgoing(text="ä" * 5000, html="x" * 5000, attachments=(("a", "a/b", bytes(5000)),))
    assert max(map(len, build(mail).split(b"\r\n"))) <= 998


def test_every_line_ends_with_crlf():
    raw = build(outgoing(text="a\rb\nc\r\nd", html="e\nf", attachments=(("a", "a/b", b"\r\n\n\r"),)))
    assert raw.count(b"\r\n") == raw.count(b"\n") == raw.count(b"\r")
    assert raw.endswith(b"\r\n")
    assert parse(raw).text == "a\nb\nc\nd"


def test_text_and_html_are_alternatives_and_attachments_stand_beside_them():
    mail = outgoing(html="<p>hi</p>", attachments=(("a.pdf", "application/pdf", b"%PDF"), ("b", "text/plain", b"b")))
    parsed = email.message_from_bytes(build(mail))
    assert [part.get_content_type() for part in parsed.walk()] == [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "text/html",
        "application/pdf",
        "text/plain",
    ]
    assert [part.get_payload(decode=True) for part in parsed.walk()][-2:] == [b"%PDF", b"b"]


def test_a_message_as_an_attachment_is_not_encoded_as_one():
    raw = build(outgoing(attachments=(("a.eml", "message/rfc822", b"Subject: x\n\ny"),)))
    assert b"message/rfc822" not in raw
    assert parse(raw).attachments[0].data == b"Subject: x\n\ny"


def test_the_modern_parser_of_the_standard_library_finds_no_defect():
    mail = outgoing(
        subject="Grüße " * 30, html="ö", attachments=(("ünïcode " * 9, "a/b", b"\0"), ("a b.txt", "a/b", b"x"))
    )
    parsed = email.message_from_bytes(build(mail), policy=email.policy.default)
    assert not any(part.defects for part in parsed.walk())
    assert parsed["Subject"] == "Grüße " * 30
    assert [part.get_filename() for part in parsed.iter_attachments()] == [("ünïcode " * 9).strip(), "a b.txt"]


# --- round trip -----------------------------------------------------------------------------------------------------

_UNICODE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_LINE = st.text(_UNICODE.filter(lambda character: character not in "\r\n"), max_size=300)
_TEXT = st.text(st.one_of(_UNICODE, st.sampled_from("\r\n.-= \t")), max_size=1500)
_NAME = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"], exclude_characters="/\\"), min_size=1)
_ADDRESSES = st.lists(st.from_regex(r"[a-z0-9]{1,20}@[a-z]{1,20}\.org", fullmatch=True), max_size=8).map(tuple)
_ATTACHMENTS = st.lists(
    st.tuples(_NAME.filter(lambda name: name not in {".", ".."} and len(name) < 200), st.just("a/b"), st.binary()),
    max_size=3,
).map(tuple)


def unix(text):
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(
    subject=_LINE,
    text=_TEXT,
    html=st.none() | _TEXT,
    to=_ADDRESSES,
    cc=_ADDRESSES,
    attachments=_ATTACHMENTS,
    offset=st.integers(-14, 14),
)
def test_what_is_built_is_parsed_back(*, subject, text, html, to, cc, attachments, offset):
    date = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=offset)))
    raw = build(outgoing(subject=subject, text=text, html=html, to=to, cc=cc, attachments=attachments, date=date))
    parsed = parse(raw)
    assert raw.isascii()
    assert not parsed.broken
    assert parsed.subject == subject
    # A body of one part may gain the line end that SMTP needs.
    assert parsed.text.removesuffix("\n") == unix(text).removesuffix("\n")
    assert (parsed.html or "").removesuffix("\n") == unix(html or "").removesuffix("\n")
    assert (parsed.from_, parsed.to, parsed.cc) == ("ann@example.org", to, cc)
    assert parsed.date == date
    assert parsed.message_id == "<1@example.org>"
    assert [(a.filename, a.content_type, a.data) for a in parsed.attachments] == list(attachments)


@given(st.binary(max_size=2000))
def test_no_bytes_make_parse_raise(raw):
    storable(parse(raw))


_FRAGMENTS = st.sampled_from(
    [
        b"Content-Type: multipart/mixed; boundary=b\n",
        b"Content-Type: multipart/mixed\n",
        b"Content-Type: text/plain; charset=\0utf-8\n",
        b"Content-Type: text/plain; charset*=x'y'%ff\n",
        b"Content-Type: message/rfc822\n",
        b"Content-Type: message/delivery-status\n",
        b"Content-Transfer-Encoding: base64\n",
        b"Content-Transfer-Encoding: quoted-printable\n",
        b"Content-Transfer-Encoding: x-uuencode\n",
        b"Content-Disposition: attachment; filename*0*=utf-8''%ff; filename*1=x\n",
        b"Content-ID: <\xff\0>\n",
        b"Subject: =?utf-8?b?!?= =?utf-7?q?+2AA-?= =?nope?q?x?=\n",
        b"From: (((((\n",
        b"Date: Mon, 99 Foo 20260 99:99:99 +9999\n",
        b"\n",
        b"--b\n",
        b"--b--\n",
        b"begin 644 x\n",
        b"=\xff\0=\n",
        b"!!!=\n",
    ]
)


@given(st.lists(_FRAGMENTS, max_size=25).map(b"".join))
def test_no_pieces_of_mail_make_parse_raise(raw):
    storable(parse(raw))


def storable(parsed):
    """Every text is what PostgreSQL takes."""
    texts = [parsed.message_id or "", parsed.subject, parsed.from_, *parsed.to, *parsed.cc, parsed.text]
    texts += [parsed.html or "", *(text for pair in parsed.headers for text in pair)]
    for part in parsed.attachments:
        texts += [part.filename, part.content_type, part.content_id or ""]
        assert part.filename
    for text in texts:
        assert "\0" not in text
        text.encode("utf-8")


# --- broken mail ----------------------------------------------------------------------------------------------------


def test_nul_bytes_are_taken_out_of_texts_and_kept_in_attachments():
    raw = b"Subject: a\0b\r\nTo: x\0y@example.org\r\nMessage-ID: <1\0@x>\r\n\r\nte\0xt\r\n"
    parsed = parse(raw)
    assert (parsed.subject, parsed.to, parsed.message_id, parsed.text) == (
        "ab",
        ("xy@example.org",),
        "<1@x>",
        "text\n",
    )
    encoded = b'Content-Type: a/b; name="x\0y"\r\nContent-Transfer-Encoding: base64\r\n\r\nAAEA'
    assert [(part.filename, part.data) for part in parse(encoded).attachments] == [("xy", b"\0\1\0")]


@pytest.mark.parametrize(
    ("head", "body", "text"),
    [
        (b"Content-Type: text/plain; charset=klingon", "grüße".encode(), "grüße"),
        (b"Content-Type: text/plain; charset=utf-8", b"gr\xfc\xdfe", "grüße"),
        (b"Content-Type: text/plain; charset=hex", b"6162", "6162"),
        (b"Content-Type: text/plain; charset=unicode_escape", b"\\u0041", "\\u0041"),
        (b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64", b"aGVsbG8", "hello"),
        (b"Content-Type: multipart/mixed", b"no boundary", "no boundary"),
        (b"Content-Type: multipart/mixed; boundary=b", b"nobody begins", "nobody begins"),
        (b"Content-Type: multipart/mixed; boundary=b", b"--b\n\nnever closed", "never closed"),
        (b"Subject: =?utf-8?b?a?=", b"x", "x"),
        (b"this is no header", b"x", "this is no header\n\nx"),
    ],
)
def test_what_is_not_what_it_claims_is_read_all_the_same_and_marked(head, body, text):
    parsed = parse(head + b"\n\n" + body)
    assert (parsed.text, parsed.broken) == (text, True)


@pytest.mark.parametrize("body", ["grüße".encode(), "grüße".encode("latin-1")])
def test_a_text_that_claims_nothing_is_guessed_and_not_broken(body):
    parsed = parse(b"Subject: x\r\n\r\n" + body)
    assert (parsed.text, parsed.broken) == ("grüße", False)


def test_eight_bit_headers_are_guessed():
    parsed = parse("Subject: Grüße\r\nFrom: Jörg <j@example.org>\r\n\r\n".encode("latin-1"))
    assert (parsed.subject, parsed.from_, parsed.headers[0]) == ("Grüße", "j@example.org", ("Subject", "Grüße"))


def test_parts_nested_deeper_than_the_parser_goes_leave_headers_and_a_text():
    levels = b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (level, level) for level in range(3000)
    )
    parsed = parse(b"Subject: deep\n" + levels)
    assert (parsed.subject, parsed.broken) == ("deep", True)
    assert parsed.text.startswith("--b0")


def test_an_encoded_word_between_plain_words_is_decoded():
    assert parse(b"Subject: Re: =?iso-8859-1?q?Gr=FC=DFe?= to all\n\n").subject == "Re: Grüße to all"


def test_addresses_are_found_among_names_comments_and_groups():
    parsed = parse(b'To: "Bob, B." <bob@x.org>, team: a@x.org, b@x.org;\nCc: =?utf-8?q?J=C3=B6?= <j@x.org>\n\n')
    assert parsed.to == ("bob@x.org", "a@x.org", "b@x.org")
    assert parsed.cc == ("j@x.org",)


@pytest.mark.parametrize(
    ("value", "date"),
    [
        (b"Fri, 02 Jan 2026 03:04:05 +0200", datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC)),
        (b"Fri, 02 Jan 2026 03:04:05 -0000", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (b"yesterday", None),
        (b"Fri, 31 Dec 9999 23:00:00 -1400", None),
    ],
)
def test_a_date_is_utc_or_none(value, date):
    assert parse(b"Date: " + value + b"\n\n").date == date


def test_a_message_without_an_id_has_none_and_a_bare_one_is_kept():
    assert parse(b"Subject: x\n\n").message_id is None
    assert parse(b"Message-ID:   bare\n\n").message_id == "bare"
    assert parse(b"Message-ID: (comment) <1@x.org>\n\n").message_id == "<1@x.org>"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b'"../../etc/passwd"', "passwd"),
        (b'"C:\\\\dir\\\\x.doc"', "x.doc"),
        (b'".."', "unnamed"),
        (b'""', "unnamed"),
        (b'"=?utf-8?b?w6Q=?=.pdf"', "ä.pdf"),
        (b'"' + b"x" * 300 + b'"', "x" * 255),
    ],
)
def test_a_file_name_is_no_path(name, found):
    (part,) = parse(b"Content-Type: a/b\nContent-Disposition: attachment; filename=" + name + b"\n\nx").attachments
    assert part.filename == found


def test_inline_images_and_forwarded_messages_are_attachments():
    raw = (
        b"Content-Type: multipart/related; boundary=b\n\n"
        b"--b\nContent-Type: text/html\n\n<img src=cid:1>\n"
        b"--b\nContent-Type: image/png\nContent-ID: <1@x>\nContent-Transfer-Encoding: base64\n\niVBO\n"
        b"--b\nContent-Type: message/rfc822\n\nSubject: inner\n\nhello\n"
        b"--b\nContent-Type: text/plain; name=notes.txt\n\nnotes\n--b--\n"
    )
    parsed = parse(raw)
    assert (parsed.html, parsed.text) == ("<img src=cid:1>", "")
    assert [(a.content_type, a.content_id, a.inline, a.filename) for a in parsed.attachments] == [
        ("image/png", "1@x", True, "unnamed"),
        ("message/rfc822", None, False, "unnamed"),
        ("text/plain", None, False, "notes.txt"),
    ]
    assert parsed.attachments[1].data == b"Subject: inner\n\nhello"


def test_the_one_line_that_a_mutant_changes_is_there_once():
    source = composer.__spec__.loader.get_source(composer.__name__)
    assert source.count('(("To", message.to), ("Cc", message.cc))') == 1
