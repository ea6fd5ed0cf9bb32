"""Mail that is not what it says."""

import base64
import binascii
import email
import email.policy
from email import errors
from email.message import EmailMessage

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fakemail.faults import GARBLES, spoil

HEADER = b"From: a@example.test\r\nSubject: caf\r\n"
PLAIN = HEADER + b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + b"Dear reader, here we are.\r\n" * 20
BARE = HEADER + b"\r\n" + b"no MIME at all\r\n" * 20


def message(*, attachment=True, nested=False):
    built = EmailMessage()
    built["From"], built["Subject"] = "a@example.test", "words"
    built.set_content("Dear reader, here we are again and again.\n" * 10)
    if nested:
        built.add_alternative("<p>Dear reader</p>\n" * 10, subtype="html")
    if attachment:
        built.add_attachment(bytes(range(256)) * 4, maintype="application", subtype="pdf", filename="a.pdf")
    return built.as_bytes(policy=email.policy.SMTP)


MESSAGES = {
    "plain": PLAIN,
    "bare": BARE,
    "attachment": message(),
    "nested": message(nested=True),
    "no attachment": message(attachment=False),
    "alternative": message(attachment=False, nested=True),
}


def leaves(raw):
    return [part for part in email.message_from_bytes(raw).walk() if not part.is_multipart()]


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
@pytest.mark.parametrize("kind", GARBLES)
def test_every_message_is_spoilt_always_alike_and_keeps_its_length(kind, raw):
    spoilt = spoil(kind, raw)
    assert spoilt != raw
    assert spoilt == spoil(kind, raw)
    if kind != "truncate":
        assert len(spoilt) == len(raw)


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_base64_can_not_be_decoded(raw):
    (part, *_) = [part for part in leaves(spoil("base64", raw)) if part["content-transfer-encoding"] == "base64"]
    text = part.get_payload().encode("ascii", errors="surrogateescape")
    with pytest.raises(binascii.Error, match="cannot be 1 more than a multiple of 4"):
        base64.b64decode(text)


def test_the_part_that_has_base64_is_the_one_that_is_spoilt():
    before, after = (leaves(raw) for raw in (MESSAGES["nested"], spoil("base64", MESSAGES["nested"])))
    changed = [a.get_content_type() for a, b in zip(before, after, strict=True) if a.as_bytes() != b.as_bytes()]
    assert changed == ["application/pdf"]


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_a_multipart_has_no_boundary(raw):
    parsed = email.message_from_bytes(spoil("no-boundary", raw))
    assert parsed.get_content_maintype() == "multipart"
    assert type(parsed.defects[0]) is errors.NoBoundaryInMultipartDefect


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_a_last_delimiter_never_comes(raw):
    parsed = email.message_from_bytes(spoil("boundary", raw))
    defects = {type(each) for part in parsed.walk() for each in part.defects}
    assert defects & {errors.CloseBoundaryNotFoundDefect, errors.StartBoundaryNotFoundDefect}


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_a_charset_is_unknown(raw):
    part = leaves(spoil("charset", raw))[0]
    with pytest.raises(LookupError):
        part.get_payload(decode=True).decode(part.get_content_charset())
    assert max(part.get_payload(decode=True)) > 127


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_a_header_has_a_line_without_a_colon(raw):
    parsed = email.message_from_bytes(spoil("header", raw))
    assert errors.MissingHeaderBodySeparatorDefect in {type(each) for each in parsed.defects}
    assert parsed["from"] == "a@example.test"
    assert b"\xe9" in spoil("header", raw)


@pytest.mark.parametrize("raw", MESSAGES.values(), ids=MESSAGES)
def test_nothing_ends_the_header(raw):
    header = raw[: raw.index(b"\r\n\r\n")]
    spoilt = spoil("no-header-end", raw)
    assert spoilt.startswith(header + b"\r\n")
    assert not spoilt.startswith(header + b"\r\n\r\n")


def test_nul_bytes_bare_line_feeds_and_halves():
    assert 0 in spoil("nul", PLAIN)
    assert b"\r" not in spoil("bare-lf", PLAIN)
    assert spoil("truncate", PLAIN) == PLAIN[: len(PLAIN) // 2]


MIMEISH = st.lists(
    st.sampled_from(
        [
            b"\r\n", b"\r\n\r\n", b"--b", b"--b--", b"\r\n--b\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n",
            b'Content-Type: multipart/mixed;\r\n boundary="b"\r\n', b"Content-Transfer-Encoding: base64\r\n", b"QUJD",
            b"=", b"\n", b" ", b"x: y", b"\xff", b"\0",
        ]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@given(raw=st.binary(max_size=200) | MIMEISH)
@example(raw=b"")
@example(raw=b"\r\n")
@example(raw=b"Content-Type: multipart/mixed; boundary=b")
@example(raw=b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n--b\r\n--b")
def test_fuzz_no_message_is_too_broken_to_be_spoilt(raw):
    for kind in GARBLES:
        assert isinstance(spoil(kind, raw), bytes)


def test_a_large_message_is_spoilt_in_no_time():
    large = HEADER + b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(bytes(25_000_000))
    for kind in GARBLES:
        assert len(spoil(kind, large)) >= len(large) // 2
