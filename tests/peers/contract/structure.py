"""ENVELOPE, BODYSTRUCTURE and BODY of letters that are not simple (RFC 3501 section 7.4.2)."""

from __future__ import annotations

from typing import Any

from contract.box import Box
from contract.cases import case
from contract.mails import ADDRESSES, BARE, BROKEN, NESTED, NO_HEAD, letter, lines

_ENVELOPE = ("date", "subject", "from", "sender", "reply-to", "to", "cc", "bcc", "in-reply-to", "message-id")


def _envelope(box: Box, mail: bytes) -> dict[str, Any]:
    box.selected(mail)
    return dict(zip(_ENVELOPE, box.imap.ok("FETCH 1 ENVELOPE").row()[b"ENVELOPE"], strict=True))


def _structure(box: Box, mail: bytes, item: str = "BODYSTRUCTURE") -> list[Any]:
    box.selected(mail)
    return box.imap.ok(f"FETCH 1 {item}").row()[item.encode()]


def _pairs(values: list[bytes] | None) -> dict[bytes, bytes]:
    """Parameters, whose names know no case."""
    return {key.lower(): value for key, value in zip(values[::2], values[1::2], strict=True)} if values else {}


@case("structure")
def an_envelope_has_ten_fields(box: Box) -> None:
    envelope = _envelope(box, letter(7))
    sender = [[b"Sender 7", None, b"sender7", b"a.example"]]
    assert envelope == {
        "date": b"Sun, 07 Feb 2021 08:00:00 +0000",
        "subject": b"Letter 7",
        "from": sender,
        "sender": sender,
        "reply-to": sender,
        "to": [[b"Receiver", None, b"receiver", b"b.example"]],
        "cc": None,
        "bcc": None,
        "in-reply-to": None,
        "message-id": b"<7@a.example>",
    }


@case("structure")
def sender_and_reply_to_default_to_from_only_where_they_are_missing(box: Box) -> None:
    envelope = _envelope(box, ADDRESSES)
    assert envelope["sender"] == [[b"The Sender", None, b"sender", b"a.example"]]
    assert envelope["reply-to"] == envelope["from"]
    assert [row[2:] for row in envelope["from"]] == [[b"quoted", b"a.example"], [b"plain", b"a.example"]]
    assert envelope["from"][0][0] == b"Quoted, Name"


@case("structure")
def a_group_of_addresses_has_a_beginning_and_an_end(box: Box) -> None:
    assert _envelope(box, ADDRESSES)["to"] == [
        [None, None, b"A Group", None],
        [None, None, b"one", b"b.example"],
        [b"Two", None, b"two", b"b.example"],
        [None, None, None, None],
    ]


@case("structure")
def encoded_names_stay_encoded_and_quoted_local_parts_lose_their_quotes(box: Box) -> None:
    assert _envelope(box, ADDRESSES)["cc"] == [
        [b"=?utf-8?q?J=C3=BCrgen?=", None, b"jurgen", b"c.example"],
        [None, None, b"odd local", b"c.example"],
    ]


@case("structure")
def a_folded_subject_is_one_line(box: Box) -> None:
    envelope = _envelope(box, ADDRESSES)
    assert envelope["subject"] == b"=?utf-8?b?R3LDvMOfZQ==?= and a folded line"
    assert envelope["in-reply-to"] == b"<before@a.example>"


@case("structure")
def fields_that_are_missing_are_nil(box: Box) -> None:
    envelope = _envelope(box, BARE)
    assert envelope.pop("subject") == b"bare"
    assert set(map(repr, envelope.values())) == {"None"}


@case("structure")
def a_letter_without_a_head_has_an_envelope_of_nils(box: Box) -> None:
    assert set(map(repr, _envelope(box, NO_HEAD).values())) == {"None"}


@case("structure")
def a_simple_text_tells_type_octets_and_lines(box: Box) -> None:
    structure = _structure(box, letter(1, body="one\r\ntwo"))
    assert [part.lower() for part in structure[:2]] == [b"text", b"plain"]
    assert _pairs(structure[2]) == {b"charset": b"us-ascii"}
    assert structure[3:5] == [None, None]
    assert structure[5].lower() == b"7bit"
    assert structure[6:8] == [b"10", b"2"]


@case("structure")
def body_has_no_extension_data(box: Box) -> None:
    body = _structure(box, letter(1), "BODY")
    assert len(body) == 8
    nested = _structure(box, NESTED, "BODY")
    assert nested


@case("structure")
def a_multipart_has_its_parts_and_then_its_subtype(box: Box) -> None:
    structure = _structure(box, NESTED)
    parts, rest = structure[:3], structure[3:]
    assert all(isinstance(part, list) for part in parts)
    assert rest[0].lower() == b"mixed"
    assert _pairs(rest[1]) == {b"boundary": b"outer"}
    alternative = parts[0]
    assert [alternative[0][1].lower(), alternative[1][1].lower()] == [b"plain", b"html"]
    assert alternative[2].lower() == b"alternative"
    assert alternative[0][5].lower() == b"quoted-printable"
    assert _pairs(alternative[0][2]) == {b"charset": b"utf-8"}


@case("structure")
def an_attachment_tells_name_disposition_and_languages(box: Box) -> None:
    attachment = _structure(box, NESTED)[2]
    assert [part.lower() for part in attachment[:2]] == [b"application", b"pdf"]
    assert _pairs(attachment[2]) == {b"name": b"a file.pdf"}
    assert attachment[5].lower() == b"base64"
    assert attachment[6] == b"8"
    disposition, languages = attachment[8], attachment[9]
    assert disposition[0].lower() == b"attachment"
    assert _pairs(disposition[1]) == {b"filename": b"a file.pdf", b"size": b"5"}
    assert languages == [b"en", b"de"]


@case("structure")
def a_letter_inside_has_an_envelope_a_structure_and_lines(box: Box) -> None:
    inside = _structure(box, NESTED)[1]
    whole = box.imap.ok("FETCH 1 BODY.PEEK[2]").row()[b"BODY[2]"]
    assert [part.lower() for part in inside[:2]] == [b"message", b"rfc822"]
    assert inside[4] == b"the letter inside"
    assert int(inside[6]) == len(whole)
    assert inside[7][1] == b"inside"
    deep = inside[8]
    assert [deep[0][1].lower(), deep[1][1].lower(), deep[2].lower()] == [b"plain", b"octet-stream", b"mixed"]
    assert deep[1][3] == b"<thing@c.example>"
    assert int(inside[9]) in {whole.count(b"\n"), whole.count(b"\n") + 1}


@case("structure")
def every_leaf_tells_the_octets_that_fetch_gives(box: Box) -> None:
    structure = _structure(box, NESTED)
    leaves = {"1.1": structure[0][0], "1.2": structure[0][1], "2.1": structure[1][8][0], "3": structure[2]}
    for section, leaf in leaves.items():
        body = box.imap.ok(f"FETCH 1 BODY.PEEK[{section}]").row()[f"BODY[{section}]".encode()]
        assert int(leaf[6]) == len(body), section


@case("structure")
def a_boundary_that_never_comes_leaves_a_structure_that_can_be_read(box: Box) -> None:
    structure = _structure(box, BROKEN)
    assert structure
    assert box.imap.ok("FETCH 1 BODY.PEEK[]").row()[b"BODY[]"] == BROKEN


@case("structure")
def quotes_backslashes_and_eight_bits_in_fields_stay_readable(box: Box) -> None:
    """They need an escape or a literal (RFC 3501 section 4.3)."""
    mail = lines(
        r'From: "A \"B\" \\ C" <a@a.example>',
        'Subject: say "hello" \\ goodbye',
        b"To: J\xc3\xbcrgen <j@b.example>",
        "",
        "text",
    )
    envelope = _envelope(box, mail)
    assert envelope["subject"] == rb'say "hello" \ goodbye'
    assert envelope["from"] == [[rb'A "B" \ C', None, b"a", b"a.example"]]
    assert envelope["to"][0][2:] == [b"j", b"b.example"]
