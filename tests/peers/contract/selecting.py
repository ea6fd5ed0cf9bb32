"""SELECT, EXAMINE, the ways out of a mailbox, and APPEND into one (RFC 3501 sections 6.3.1, 6.3.2, 6.3.11, 6.4.2)."""

from __future__ import annotations

import re

from contract.box import DATE, Box
from contract.cases import case
from contract.mails import EIGHT_BIT, NO_HEAD, letter


@case("SELECT")
def select_tells_flags_counts_and_uids(box: Box) -> None:
    box.append(letter(1))
    reply = box.imap.ok("SELECT INBOX")
    (flags,) = reply.named(b"FLAGS")
    assert {rb"\Answered", rb"\Flagged", rb"\Deleted", rb"\Seen", rb"\Draft"} <= set(flags[0])
    assert reply.numbered(b"EXISTS") == [1]
    assert len(reply.numbered(b"RECENT")) == 1
    assert int(reply.codes[b"UIDVALIDITY"]) > 0
    assert int(reply.codes[b"UIDNEXT"]) > 1
    assert reply.code == b"READ-WRITE"


@case("SELECT")
def permanent_flags_include_the_system_flags_and_new_keywords(box: Box) -> None:
    flags = set(box.imap.ok("SELECT INBOX").codes[b"PERMANENTFLAGS"].strip(b"()").split())
    assert {rb"\Answered", rb"\Flagged", rb"\Deleted", rb"\Seen", rb"\Draft", rb"\*"} <= flags


@case("SELECT")
def select_tells_the_first_unseen_message_where_there_is_one(box: Box) -> None:
    box.append(letter(1), flags=[r"\Seen"])
    box.append(letter(2))
    box.append(letter(3))
    assert box.imap.ok("SELECT INBOX").codes[b"UNSEEN"] == b"2"


@case("SELECT")
def select_is_silent_about_unseen_where_all_is_seen(box: Box) -> None:
    box.append(letter(1), flags=[r"\Seen"])
    assert b"UNSEEN" not in box.imap.ok("SELECT INBOX").codes


@case("SELECT")
def every_response_code_is_followed_by_text(box: Box) -> None:
    """RFC 3501 section 9: resp-text has text, and clients' parsers insist on it."""
    reply = box.imap.ok("SELECT INBOX")
    coded = [line for line in (*reply.untagged, b"OK " + reply.text) if re.match(rb"OK \[", line)]
    assert coded
    for line in coded:
        assert re.match(rb"OK \[[^\]]+\] [^\r\n]+\Z", line), line


@case("SELECT")
def examine_is_read_only(box: Box) -> None:
    box.append(letter(1))
    assert box.imap.ok("EXAMINE INBOX").code == b"READ-ONLY"
    box.imap.command(r"STORE 1 +FLAGS (\Seen)")
    box.imap.ok("FETCH 1 BODY[]")
    box.imap.ok("SELECT INBOX")
    assert rb"\Seen" not in box.imap.ok("FETCH 1 FLAGS").row()[b"FLAGS"]


@case("SELECT")
def select_of_what_is_not_there_leaves_nothing_selected(box: Box) -> None:
    box.append(letter(1))
    box.imap.ok("SELECT INBOX")
    box.imap.no("SELECT nothing")
    box.imap.bad("FETCH 1 FLAGS")


@case("SELECT")
def select_of_another_mailbox_replaces_the_selected_one(box: Box) -> None:
    box.append(letter(1))
    box.imap.ok("CREATE work")
    box.imap.ok("SELECT INBOX")
    assert box.imap.ok("SELECT work").numbered(b"EXISTS") == [0]


@case("SELECT")
def commands_on_messages_are_out_of_place_without_a_mailbox(box: Box) -> None:
    for command in ("FETCH 1 FLAGS", "SEARCH ALL", "EXPUNGE", "CLOSE", "CHECK", r"UID STORE 1 FLAGS (\Seen)"):
        box.imap.bad(command)


@case("SELECT")
def close_expunges_without_a_word(box: Box) -> None:
    imap = box.selected(letter(1), letter(2))
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    assert imap.ok("CLOSE").numbered(b"EXPUNGE") == []
    imap.bad("FETCH 1 FLAGS")
    assert imap.ok("SELECT INBOX").numbered(b"EXISTS") == [1]


@case("SELECT")
def close_of_an_examined_mailbox_expunges_nothing(box: Box) -> None:
    box.append(letter(1), flags=[r"\Deleted"])
    box.imap.ok("EXAMINE INBOX")
    box.imap.ok("CLOSE")
    assert box.imap.ok("SELECT INBOX").numbered(b"EXISTS") == [1]


@case("SELECT", "UNSELECT")
def unselect_leaves_without_expunging(box: Box) -> None:
    """RFC 3691 section 2."""
    box.append(letter(1), flags=[r"\Deleted"])
    box.imap.ok("SELECT INBOX")
    box.imap.ok("UNSELECT")
    box.imap.bad("FETCH 1 FLAGS")
    assert box.imap.ok("SELECT INBOX").numbered(b"EXISTS") == [1]


@case("SELECT")
def a_mailbox_shows_the_same_uids_to_everyone_and_never_uses_one_again(box: Box) -> None:
    imap = box.selected(letter(1), letter(2), letter(3))
    before = box.uids()
    assert before == sorted(set(before))
    imap.ok(r"STORE 3 +FLAGS (\Deleted)")
    imap.ok("EXPUNGE")
    box.append(letter(4))
    other = box.login()
    other.ok("SELECT INBOX")
    after = box.uids(other)
    assert after[:2] == before[:2]
    assert after[2] > before[2]


@case("APPEND")
def append_keeps_every_byte(box: Box) -> None:
    imap = box.selected(EIGHT_BIT)
    row = imap.ok("FETCH 1 (BODY.PEEK[] RFC822.SIZE)").row()
    assert row[b"BODY[]"] == EIGHT_BIT
    assert int(row[b"RFC822.SIZE"]) == len(EIGHT_BIT)


@case("APPEND")
def append_keeps_every_byte_of_a_large_message(box: Box) -> None:
    large = letter(1, body="\r\n".join(f"{number} " + "large " * 12 for number in range(12_000)))
    imap = box.selected(large)
    assert imap.ok("FETCH 1 BODY.PEEK[]").row()[b"BODY[]"] == large


@case("APPEND")
def append_takes_a_message_without_a_head(box: Box) -> None:
    assert box.selected(NO_HEAD).ok("FETCH 1 BODY.PEEK[]").row()[b"BODY[]"] == NO_HEAD


@case("APPEND")
def append_keeps_flags_and_keywords(box: Box) -> None:
    box.append(letter(1), flags=[r"\Flagged", r"\Draft", "$Forwarded"])
    box.imap.ok("SELECT INBOX")
    flags = set(box.imap.ok("FETCH 1 FLAGS").row()[b"FLAGS"]) - {rb"\Recent"}
    assert flags == {rb"\Flagged", rb"\Draft", b"$Forwarded"}


@case("APPEND")
def append_keeps_the_moment_of_arrival(box: Box) -> None:
    """RFC 3501 section 2.3.3; the zone may be told as another one."""
    imap = box.selected(letter(1))
    date = imap.ok("FETCH 1 INTERNALDATE").row()[b"INTERNALDATE"].decode()
    assert re.fullmatch(r"[ \d]\d-[A-Z][a-z]{2}-\d{4} \d\d:\d\d:\d\d [+-]\d{4}", date)
    day, time, zone = date.split()
    minutes = int(time[:2]) * 60 + int(time[3:5]) - int(f"{zone[0]}1") * (int(zone[1:3]) * 60 + int(zone[3:]))
    assert (day[-8:], minutes, time[6:]) == ("Mar-2021", 8 * 60 + 20, "30")
    assert DATE.lstrip("0").startswith(day.lstrip("0"))


@case("APPEND")
def append_needs_neither_flags_nor_date(box: Box) -> None:
    mail = letter(1)
    box.imap.ok(b"APPEND INBOX {%d}\r\n%s" % (len(mail), mail))
    assert box.imap.ok("SELECT INBOX").numbered(b"EXISTS") == [1]


@case("APPEND", "UIDPLUS")
def append_tells_the_uid(box: Box) -> None:
    """RFC 4315 section 3."""
    name, validity, uid = box.append(letter(1)).code.split()
    assert name == b"APPENDUID"
    assert box.imap.ok("SELECT INBOX").codes[b"UIDVALIDITY"] == validity
    assert box.uids() == [int(uid)]


@case("APPEND", "LITERAL+")
def append_takes_a_literal_with_a_plus(box: Box) -> None:
    mail = letter(1)
    box.imap.ok(b"APPEND INBOX {%d+}\r\n%s" % (len(mail), mail))
    box.imap.ok("SELECT INBOX")
    assert box.imap.ok("FETCH 1 BODY.PEEK[]").row()[b"BODY[]"] == mail


@case("APPEND")
def append_to_what_is_not_there_says_try_create(box: Box) -> None:
    """RFC 3501 section 6.3.11; also before the message is sent, or after it."""
    mail = letter(1)
    tag = box.imap.tag()
    box.imap.write(tag + b" APPEND nothing {%d}\r\n" % len(mail))
    response = box.imap.response()
    if response.startswith(b"+"):
        box.imap.write(mail + b"\r\n")
        response = box.imap.response()
    assert response.startswith(tag + b" NO [TRYCREATE]")
    box.imap.ok("NOOP")


@case("APPEND")
def append_to_the_selected_mailbox_tells_of_it(box: Box) -> None:
    box.imap.ok("SELECT INBOX")
    reply = box.append(letter(1))
    assert 1 in reply.numbered(b"EXISTS") + box.imap.ok("NOOP").numbered(b"EXISTS")


@case("APPEND")
def append_calls_a_date_that_is_none_wrong(box: Box) -> None:
    mail = letter(1)
    tag = box.imap.tag()
    box.imap.write(tag + b' APPEND INBOX "40-Foo-2021 10:20:30 +0200" {%d}\r\n' % len(mail))
    response = box.imap.response()
    if response.startswith(b"+"):
        box.imap.write(mail + b"\r\n")
        response = box.imap.response()
    assert response.startswith(tag + b" BAD ")
    box.imap.ok("NOOP")
