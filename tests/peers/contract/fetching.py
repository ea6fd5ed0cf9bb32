"""FETCH: items, sets, sections and partials (RFC 3501 section 6.4.5)."""

from __future__ import annotations

from contract.box import Box
from contract.cases import case
from contract.mails import ADDRESSES, BARE, NESTED, letter


def _body(box: Box, section: str) -> bytes | None:
    """One section of the only message, by its name in the answer."""
    row = box.imap.ok(f"FETCH 1 BODY.PEEK[{section}]").row()
    return row[f"BODY[{section}]".encode()]


@case("FETCH")
def fetch_answers_each_item_once_by_its_name(box: Box) -> None:
    box.selected(letter(1))
    row = box.imap.ok("FETCH 1 (FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE)").row()
    assert set(row) == {b"FLAGS", b"UID", b"RFC822.SIZE", b"INTERNALDATE", b"ENVELOPE", b"BODYSTRUCTURE"}
    assert int(row[b"RFC822.SIZE"]) == len(letter(1))


@case("FETCH")
def macros_stand_for_their_items(box: Box) -> None:
    box.selected(letter(1))
    fast = {b"FLAGS", b"INTERNALDATE", b"RFC822.SIZE"}
    for macro, items in (("FAST", fast), ("ALL", fast | {b"ENVELOPE"}), ("FULL", fast | {b"ENVELOPE", b"BODY"})):
        assert set(box.imap.ok(f"FETCH 1 {macro}").row()) == items


@case("FETCH")
def a_macro_among_other_items_is_wrong(box: Box) -> None:
    box.selected(letter(1)).bad("FETCH 1 (FAST UID)")


@case("FETCH")
def sets_have_commas_ranges_stars_and_any_order(box: Box) -> None:
    box.selected(*(letter(number) for number in range(1, 6)))
    for numbers, expected in {
        "2": [2],
        "1,3": [1, 3],
        "2:4": [2, 3, 4],
        "4:2": [2, 3, 4],
        "*": [5],
        "4:*": [4, 5],
        "*:4": [4, 5],
        "1:2,2:3,5": [1, 2, 3, 5],
    }.items():
        rows = box.imap.ok(f"FETCH {numbers} FLAGS").fetches()
        assert sorted({number for number, _ in rows}) == expected, numbers


@case("FETCH")
def a_message_number_that_is_not_there_is_wrong(box: Box) -> None:
    box.selected(letter(1))
    box.imap.command("FETCH 2 FLAGS").must("BAD", "NO")
    box.imap.bad("FETCH 0 FLAGS")
    assert len(box.imap.ok("FETCH 1 FLAGS").fetches()) == 1


@case("FETCH")
def a_uid_that_is_not_there_is_passed_over(box: Box) -> None:
    """RFC 3501 section 6.4.8."""
    box.selected(letter(1), letter(2))
    (first, second) = box.uids()
    reply = box.imap.ok(f"UID FETCH {first},{second + 50}:{second + 60} FLAGS")
    assert set(reply.by_uid()) == {first}


@case("FETCH")
def a_uid_range_to_the_star_always_has_the_last_message(box: Box) -> None:
    box.selected(letter(1), letter(2))
    last = box.uids()[-1]
    assert set(box.imap.ok(f"UID FETCH {last + 100}:* FLAGS").by_uid()) == {last}


@case("FETCH")
def uid_fetch_answers_the_uid_though_not_asked_and_the_message_number(box: Box) -> None:
    box.selected(letter(1), letter(2))
    uids = box.uids()
    rows = box.imap.ok("UID FETCH 1:* FLAGS").fetches()
    assert [(number, int(row[b"UID"])) for number, row in rows] == list(enumerate(uids, 1))


@case("FETCH")
def fetch_of_a_body_sets_seen_and_says_so(box: Box) -> None:
    box.selected(letter(1))
    assert rb"\Seen" not in box.imap.ok("FETCH 1 FLAGS").row()[b"FLAGS"]
    reply = box.imap.ok("FETCH 1 BODY[TEXT]")
    assert any(rb"\Seen" in row.get(b"FLAGS", []) for _, row in reply.fetches())
    assert rb"\Seen" in box.imap.ok("FETCH 1 FLAGS").row()[b"FLAGS"]


@case("FETCH")
def peek_and_rfc822_header_leave_seen_alone(box: Box) -> None:
    box.selected(letter(1))
    box.imap.ok("FETCH 1 (BODY.PEEK[] RFC822.HEADER BODY.PEEK[1] ENVELOPE BODYSTRUCTURE)")
    assert rb"\Seen" not in box.imap.ok("FETCH 1 FLAGS").row()[b"FLAGS"]


@case("FETCH")
def the_old_names_answer_by_their_old_names(box: Box) -> None:
    """RFC 3501 section 6.4.5: RFC822, RFC822.HEADER, RFC822.TEXT."""
    mail = letter(1)
    head, _, text = mail.partition(b"\r\n\r\n")
    box.selected(mail)
    row = box.imap.ok("FETCH 1 (RFC822 RFC822.HEADER RFC822.TEXT)").row()
    assert row[b"RFC822"] == mail
    assert row[b"RFC822.HEADER"] == head + b"\r\n\r\n"
    assert row[b"RFC822.TEXT"] == text


@case("FETCH")
def many_messages_come_in_order_with_their_own_bytes(box: Box) -> None:
    mails = [letter(number, body="x" * number * 37) for number in range(1, 21)]
    box.selected(*mails)
    rows = box.imap.ok("FETCH 1:* (UID BODY.PEEK[])").fetches()
    assert [(number, row[b"BODY[]"]) for number, row in rows] == list(enumerate(mails, 1))


@case("sections")
def the_whole_its_head_and_its_text_fit_together(box: Box) -> None:
    box.selected(NESTED)
    assert _body(box, "") == NESTED
    assert _body(box, "HEADER") + _body(box, "TEXT") == NESTED
    assert _body(box, "HEADER").endswith(b"\r\n\r\n")


@case("sections")
def header_fields_are_picked_in_the_letters_order_with_a_blank_line(box: Box) -> None:
    box.selected(ADDRESSES)
    row = box.imap.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT FROM X-NONE)]").row()
    (value,) = row.values()
    assert value == (
        b'From: "Quoted, Name" <quoted@a.example>, plain@a.example\r\n'
        b"Subject: =?utf-8?b?R3LDvMOfZQ==?= and\r\n a folded line\r\n\r\n"
    )


@case("sections")
def the_name_of_a_field_list_comes_back_with_it(box: Box) -> None:
    box.selected(ADDRESSES)
    (name,) = box.imap.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT FROM)]").row()
    assert name.replace(b'"', b"") == b"BODY[HEADER.FIELDS (SUBJECT FROM)]"


@case("sections")
def header_fields_not_leaves_the_rest(box: Box) -> None:
    box.selected(letter(1))
    row = box.imap.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS.NOT (FROM TO DATE MESSAGE-ID)]").row()
    assert list(row.values()) == [b"Subject: Letter 1\r\n\r\n"]


@case("sections")
def no_such_field_leaves_the_blank_line(box: Box) -> None:
    box.selected(letter(1))
    assert list(box.imap.ok("FETCH 1 BODY.PEEK[HEADER.FIELDS (X-NONE)]").row().values()) == [b"\r\n"]


@case("sections")
def parts_are_numbered_from_one_and_nest_by_dots(box: Box) -> None:
    box.selected(NESTED)
    assert _body(box, "1.1") == b"Gr=C3=BC=C3=9Fe"
    assert _body(box, "1.2") == b"<p>Hello</p>"
    assert _body(box, "3") == b"JVBERi0="


@case("sections")
def part_one_of_a_letter_that_is_no_multipart_is_its_text(box: Box) -> None:
    box.selected(letter(1))
    assert _body(box, "1") == b"Some text.\r\n"
    assert _body(box, "TEXT") == b"Some text.\r\n"


@case("sections")
def mime_gives_the_head_of_a_part(box: Box) -> None:
    box.selected(NESTED)
    assert _body(box, "1.2.MIME") == b"Content-Type: text/html; charset=us-ascii\r\n\r\n"


@case("sections")
def a_letter_inside_has_its_own_head_text_and_parts(box: Box) -> None:
    box.selected(NESTED)
    head, text = _body(box, "2.HEADER"), _body(box, "2.TEXT")
    assert head.startswith(b"From: Carl <carl@c.example>\r\n")
    assert head.endswith(b"boundary=deep\r\n\r\n")
    assert text.startswith(b"--deep\r\n")
    assert _body(box, "2") == head + text
    assert _body(box, "2.1") == b"deep text"
    assert _body(box, "2.2") == b"AAECAwQ="
    assert b"the letter inside" in _body(box, "2.MIME")
    assert b"thing@c.example" in _body(box, "2.2.MIME")


@case("sections")
def fields_of_a_letter_inside_are_picked_too(box: Box) -> None:
    box.selected(NESTED)
    (value,) = box.imap.ok("FETCH 1 BODY.PEEK[2.HEADER.FIELDS (SUBJECT)]").row().values()
    assert value == b"Subject: inside\r\n\r\n"


@case("sections")
def a_part_that_is_not_there_is_nil_or_empty(box: Box) -> None:
    box.selected(NESTED)
    for section in ("9", "1.9"):
        assert _body(box, section) in {None, b""}, section


@case("sections")
def a_partial_begins_at_its_octet_and_tells_it(box: Box) -> None:
    box.selected(NESTED)
    row = box.imap.ok("FETCH 1 (BODY.PEEK[]<0.10> BODY.PEEK[TEXT]<5.20>)").row()
    text = NESTED.partition(b"\r\n\r\n")[2]
    assert row[b"BODY[]<0>"] == NESTED[:10]
    assert row[b"BODY[TEXT]<5>"] == text[5:25]


@case("sections")
def a_partial_beyond_the_end_is_short_or_empty(box: Box) -> None:
    box.selected(letter(1))
    size = len(letter(1))
    row = box.imap.ok(f"FETCH 1 BODY.PEEK[]<{size - 4}.100>").row()
    assert row[f"BODY[]<{size - 4}>".encode()] == letter(1)[-4:]
    row = box.imap.ok(f"FETCH 1 BODY.PEEK[]<{size + 10}.100>").row()
    assert row[f"BODY[]<{size + 10}>".encode()] in {b"", None}


@case("sections")
def partials_of_parts_and_fields_work_too(box: Box) -> None:
    box.selected(NESTED)
    row = box.imap.ok("FETCH 1 (BODY.PEEK[1.2]<3.5> BODY.PEEK[HEADER.FIELDS (SUBJECT)]<9.6>)").row()
    assert row[b"BODY[1.2]<3>"] == b"Hello"
    (fields,) = (value for name, value in row.items() if b"FIELDS" in name)
    assert fields == b"nested"


@case("sections")
def pieces_put_together_are_the_whole(box: Box) -> None:
    """How clients load what is large."""
    box.selected(NESTED)
    whole = b""
    for start in range(0, len(NESTED), 100):
        row = box.imap.ok(f"FETCH 1 BODY.PEEK[]<{start}.100>").row()
        whole += row[f"BODY[]<{start}>".encode()]
    assert whole == NESTED


@case("sections")
def a_section_that_is_none_is_wrong(box: Box) -> None:
    box.selected(BARE)
    for section in ("NONSENSE", "HEADER.FIELDS", "MIME"):
        box.imap.command(f"FETCH 1 BODY.PEEK[{section}]").must("BAD", "NO")
    box.imap.ok("NOOP")
