"""What is wrong is called BAD, and the connection goes on (RFC 3501 sections 2.2 and 7.1.3)."""

from __future__ import annotations

from contract.box import Box
from contract.cases import case
from contract.mails import letter


@case("malformed")
def an_unknown_command_is_bad(box: Box) -> None:
    box.imap.bad("NONSENSE")
    box.imap.bad("UID NONSENSE 1")
    box.imap.ok("NOOP")


@case("malformed")
def a_missing_argument_is_bad(box: Box) -> None:
    imap = box.selected(letter(1))
    for command in ("SELECT", 'LIST ""', "CREATE", "FETCH 1", "FETCH", "STORE 1", "STORE 1 FLAGS", "COPY 1", "UID"):
        imap.bad(command)
    imap.ok("NOOP")


@case("malformed")
def an_argument_too_many_is_bad(box: Box) -> None:
    imap = box.selected(letter(1))
    for command in ("SELECT INBOX INBOX", "FETCH 1 FLAGS UID", "EXPUNGE 1", "NOOP now"):
        imap.bad(command)
    box.imap.ok("NOOP")


@case("malformed")
def sets_that_are_none_are_bad(box: Box) -> None:
    imap = box.selected(letter(1))
    for numbers in ("0", "1:", ":1", "1,,2", "a", "1:2:3", "-1", "99999999999999999999"):
        imap.bad(f"FETCH {numbers} FLAGS")
    imap.ok("NOOP")


@case("malformed")
def parentheses_that_do_not_match_are_bad(box: Box) -> None:
    imap = box.selected(letter(1))
    for command in ("FETCH 1 (FLAGS", "FETCH 1 FLAGS)", "FETCH 1 ((FLAGS))", "STORE 1 FLAGS (one", "SEARCH (ALL"):
        imap.bad(command)
    imap.ok("NOOP")


@case("malformed")
def a_quote_that_does_not_end_is_bad(box: Box) -> None:
    box.imap.bad('SELECT "INBOX')
    box.imap.ok("NOOP")


@case("malformed")
def an_unknown_item_is_bad(box: Box) -> None:
    imap = box.selected(letter(1))
    for command in ("FETCH 1 NOBODY", "FETCH 1 (FLAGS NOBODY)", "STORE 1 NOBODY (x)", "FETCH 1 BODY["):
        imap.bad(command)
    imap.ok("NOOP")


@case("malformed")
def a_literal_of_no_size_is_bad(box: Box) -> None:
    for size in ("{x}", "{9x}"):
        box.imap.bad(f"SELECT {size}")
    box.imap.ok("NOOP")


@case("malformed")
def a_line_without_a_tag_is_answered_and_the_next_command_works(box: Box) -> None:
    box.imap.write(b"\r\n")
    tag = box.imap.send("NOOP")
    response = box.imap.response()
    while not response.startswith(tag):
        assert b" BAD " in response
        response = box.imap.response()
    assert response.startswith(tag + b" OK")


@case("malformed")
def commands_in_one_packet_are_all_answered(box: Box) -> None:
    """RFC 3501 section 5.5: those that can't disturb one another may be answered in any order."""
    box.append(letter(1))
    box.imap.write(b"p1 SELECT INBOX\r\np2 FETCH 1 FLAGS\r\np3 NONSENSE\r\np4 LOGOUT\r\n")
    box.imap.finish(b"p1").ok()
    told = box.imap.news(rb"1 FETCH", rb"p2 OK", rb"p3 BAD", rb"BYE", rb"p4 OK")
    assert told[-1].startswith(b"p4 OK")


@case("malformed")
def a_command_in_many_packets_is_one_command(box: Box) -> None:
    for piece in (b"p1 SEL", b"ECT ", b"INB", b"OX\r", b"\n"):
        box.imap.write(piece)
    box.imap.finish(b"p1").ok()


@case("malformed")
def a_long_set_and_a_long_name_are_taken(box: Box) -> None:
    imap = box.selected(letter(1))
    uids = ",".join(str(uid) for uid in range(1, 1_500, 2))
    assert len(imap.ok(f"UID FETCH {uids} FLAGS").fetches()) == 1
    imap.ok(f"CREATE {'n' * 120}")
    imap.ok(f"SELECT {'n' * 120}")


@case("malformed")
def eight_bit_bytes_in_a_command_do_not_end_the_connection(box: Box) -> None:
    box.imap.command(b"SELECT \xff\xfe\x80").must("BAD", "NO")
    box.imap.ok("NOOP")
