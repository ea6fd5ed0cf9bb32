"""Synthesised mail and MIME structure."""

import email
import email.policy
import hashlib

import pytest

from fakemail.mime import field_value, header_block, header_fields, parse_mime
from fakemail.synthesis import synthesise

MAIL = [synthesise(seed=7, address="ann@example.test", folder="INBOX", uid=uid) for uid in range(1, 401)]


def leaves(part):
    return [leaf for each in part.parts for leaf in leaves(each)] if part.parts else [part]


def test_a_message_is_the_same_on_every_machine():
    """A change here changes every seeded mailbox that anyone has: say so in the changelog."""
    digest = hashlib.sha256(b"".join(MAIL)).hexdigest()
    assert digest == "ee0b8369e937eaea2f6197b7d36cb233751682084142233150a0f254c5098c6d"


def test_every_part_of_its_name_changes_a_message():
    base = {"seed": 7, "address": "ann@example.test", "folder": "INBOX", "uid": 9}
    others = [{"seed": 8}, {"address": "bob@example.test"}, {"folder": "Junk"}, {"uid": 10}]
    bodies = {synthesise(**(base | change)) for change in [{}, *others]}
    assert len(bodies) == 5


def test_mail_is_well_formed_and_decodes():
    for raw in MAIL:
        message = email.message_from_bytes(raw, policy=email.policy.default)
        assert {"From", "To", "Subject", "Date", "Message-ID", "MIME-Version"} <= set(message.keys())
        assert message["To"].addresses[0].addr_spec == "ann@example.test"
        for part in message.walk():
            assert not part.defects
            if not part.is_multipart():
                part.get_content()


def test_lines_end_with_crlf_and_are_short():
    for raw in MAIL:
        assert raw.count(b"\n") == raw.count(b"\r\n")
        assert max(map(len, raw.split(b"\r\n"))) <= 120


def test_the_small_profile_is_as_large_as_it_says():
    sizes = [len(raw) for raw in MAIL]
    assert 15_000 < sum(sizes) / len(sizes) < 22_000


def test_a_fifth_has_an_attachment_and_a_third_an_alternative():
    with_file = sum(b"Content-Disposition: attachment" in raw for raw in MAIL) / len(MAIL)
    with_html = sum(b"multipart/alternative" in raw for raw in MAIL) / len(MAIL)
    assert 0.15 < with_file < 0.25
    assert 0.25 < with_html < 0.42


def test_some_subjects_and_names_are_not_ascii():
    subjects = [email.message_from_bytes(raw, policy=email.policy.default)["Subject"] for raw in MAIL]
    assert any("München" in str(subject) for subject in subjects)
    assert all(raw[: raw.index(b"\r\n\r\n")].isascii() for raw in MAIL)


def test_message_ids_are_unique_and_replies_name_a_message_that_exists():
    names = [field_value(header_block(raw), "message-id") for raw in MAIL]
    parents = {field_value(header_block(raw), "in-reply-to") for raw in MAIL} - {None}
    assert len(set(names)) == len(MAIL)
    assert parents
    assert parents <= set(names)


def test_in_sent_the_user_is_the_sender():
    raw = synthesise(seed=7, address="ann@example.test", folder="Sent", uid=1)
    assert field_value(header_block(raw), "from") == "ann@example.test"


def test_mime_structure_agrees_with_the_standard_library():
    for raw in MAIL:
        message = email.message_from_bytes(raw)
        theirs = [part.get_payload().encode("ascii") for part in message.walk() if not part.is_multipart()]
        # The standard library gives the line break before a delimiter to the delimiter, as we do.
        assert [leaf.body for leaf in leaves(parse_mime(raw))] == [
            t.replace(b"\n", b"\r\n").replace(b"\r\r", b"\r") for t in theirs
        ]


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
