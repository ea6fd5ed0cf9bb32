"""MIME structure, of synthesised mail and of what is no mail at all."""

import email

import pytest

from fakemail.mime import field_value, header_fields, parse_mime
from fakemail.synthesis import Source

SOURCE = Source(seed=7, address="ann@example.test", folder="INBOX", profile="small")
MAIL = [SOURCE.raw(uid) for uid in range(1, 401)]


def leaves(part):
    return [leaf for each in part.parts for leaf in leaves(each)] if part.parts else [part]


def theirs(raw):
    """What the standard library makes of it: (type, body) of each leaf."""
    found = []
    for part in email.message_from_bytes(raw).walk():
        if not part.is_multipart():
            # As it was, with bytes that are not ASCII as half surrogates: get_payload() would decode them.
            body = part._payload.encode("ascii", errors="surrogateescape")
            found.append((part.get_content_type(), body.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")))
    return found


def test_mime_structure_agrees_with_the_standard_library():
    """Both give the line break before a delimiter to the delimiter (RFC 2046 section 5.1.1)."""
    for uid, raw in enumerate(MAIL, start=1):
        # The standard library takes a report's fields apart, as messages of their own.
        if SOURCE.kind(uid) not in {"broken", "report"}:
            ours = [("/".join(leaf.content_type), leaf.body) for leaf in leaves(parse_mime(raw))]
            assert ours == theirs(raw), uid


@pytest.mark.parametrize(
    ("raw", "kinds"),
    [
        (b"", [("text", "plain")]),
        (b"Subject: no body", [("text", "plain")]),
        (b"\r\nno header", [("text", "plain")]),
        (b"Content-Type: nonsense\r\n\r\nx", [("text", "plain")]),
        (b"Content-Type: multipart/mixed\r\n\r\nx", [("multipart", "mixed")]),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\nno delimiter", [("multipart", "mixed")]),
        (b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nunclosed", [("text", "plain")]),
        (b'Content-Type: multipart/mixed; boundary="b c"\n\n--b c\n\nx\n--b c\nContent-Type: image/png\n\ny\n--b c--\n',
         [("text", "plain"), ("image", "png")]),
    ],
)  # fmt: skip
def test_broken_mail_still_has_a_structure(raw, kinds):
    assert [leaf.content_type for leaf in leaves(parse_mime(raw))] == kinds


def test_a_message_inside_a_message_is_a_part():
    inner = b"Subject: inner\r\n\r\nhello\r\n"
    part = parse_mime(b"Content-Type: message/rfc822\r\n\r\n" + inner)
    assert part.parts[0].field("subject") == "inner"


def test_nesting_ends_somewhere():
    raw = b"Content-Type: message/rfc822\r\n\r\n" * 500 + b"\r\nx"
    assert parse_mime(raw)


def test_folded_fields_are_unfolded_and_kept_whole():
    header = b"Subject: one\r\n two\r\nX: 1\r\nX: 2\r\n\r\n"
    assert field_value(header, "SUBJECT") == "one two"
    assert header_fields(header)[0] == ("subject", b"Subject: one\r\n two\r\n")
    assert field_value(header, "x") == "1"
    assert field_value(header, "y") is None
