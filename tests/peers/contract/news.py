"""What one connection learns of what another one does: NOOP, IDLE, and when numbers may change (RFC 3501, 2177)."""

from __future__ import annotations

from contract.box import Box
from contract.cases import case
from contract.mails import letter


@case("news")
def noop_tells_of_new_mail(box: Box) -> None:
    box.imap.ok("SELECT INBOX")
    other = box.login()
    other.ok("SELECT INBOX")
    box.append(letter(1))
    assert other.ok("NOOP").numbered(b"EXISTS") == [1]
    assert other.ok("FETCH 1 ENVELOPE").row()[b"ENVELOPE"][1] == b"Letter 1"


@case("news")
def noop_tells_of_others_flags(box: Box) -> None:
    imap = box.selected(letter(1))
    other = box.login()
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS (\Flagged)")
    ((number, row),) = other.ok("NOOP").fetches()
    assert number == 1
    assert rb"\Flagged" in row[b"FLAGS"]


@case("news")
def noop_tells_of_others_expunges(box: Box) -> None:
    imap = box.selected(letter(1), letter(2), letter(3))
    other = box.login()
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1,2 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    gone = other.ok("NOOP").numbered(b"EXPUNGE")
    assert sorted(gone) in ([1, 1], [1, 2])
    assert other.ok("FETCH 1 ENVELOPE").row()[b"ENVELOPE"][1] == b"Letter 3"


@case("news")
def numbers_do_not_change_during_fetch_store_and_search(box: Box) -> None:
    """RFC 3501 section 7.4.1: no EXPUNGE while these are in progress."""
    imap = box.selected(letter(1), letter(2))
    other = box.login()
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    for command in ("FETCH 2 FLAGS", r"STORE 2 +FLAGS (\Seen)", "SEARCH ALL"):
        assert other.ok(command).numbered(b"EXPUNGE") == [], command
    assert other.ok("NOOP").numbered(b"EXPUNGE") == [1]


@case("news")
def a_message_that_went_is_still_in_its_place_until_it_is_told(box: Box) -> None:
    imap = box.selected(letter(1), letter(2))
    other = box.login()
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    rows = other.command("FETCH 2 ENVELOPE").must("OK", "NO").fetches()
    assert [(number, row[b"ENVELOPE"][1]) for number, row in rows if b"ENVELOPE" in row] == [(2, b"Letter 2")]


@case("news", "IDLE")
def idle_tells_of_new_mail(box: Box) -> None:
    other = box.login()
    other.ok("SELECT INBOX")
    tag = other.send("IDLE")
    other.continued(tag)
    box.append(letter(1))
    other.news(rb"1 EXISTS\Z")
    other.write(b"DONE\r\n")
    other.finish(tag).ok()


@case("news", "IDLE")
def idle_tells_of_flags_and_expunges(box: Box) -> None:
    imap = box.selected(letter(1), letter(2))
    other = box.login()
    other.ok("SELECT INBOX")
    tag = other.send("IDLE")
    other.continued(tag)
    imap.ok(r"STORE 1 +FLAGS (\Flagged)")
    other.news(rb"1 FETCH \(.*\\Flagged")
    imap.ok(r"STORE 1 +FLAGS (\Deleted)")
    imap.ok("EXPUNGE")
    other.news(rb"1 EXPUNGE\Z")
    other.write(b"DONE\r\n")
    other.finish(tag).ok()


@case("news", "IDLE")
def idle_without_a_mailbox_is_fine(box: Box) -> None:
    tag = box.imap.send("IDLE")
    box.imap.continued(tag)
    box.imap.write(b"DONE\r\n")
    box.imap.finish(tag).ok()
    box.imap.ok("NOOP")


@case("news", "IDLE")
def idle_that_ends_with_anything_but_done_is_wrong(box: Box) -> None:
    tag = box.imap.send("IDLE")
    box.imap.continued(tag)
    box.imap.write(b"x1 NOOP\r\n")
    box.imap.finish(tag).bad()
    box.imap.ok("NOOP")


@case("news", "IDLE")
def done_in_one_packet_with_the_next_command_is_two_commands(box: Box) -> None:
    tag = box.imap.send("IDLE")
    box.imap.continued(tag)
    box.imap.write(b"DONE\r\nnext NOOP\r\n")
    box.imap.finish(tag).ok()
    box.imap.finish(b"next").ok()


@case("news")
def ones_own_silent_store_is_news_to_the_others(box: Box) -> None:
    imap = box.selected(letter(1))
    other = box.login()
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Seen)")
    assert any(rb"\Seen" in row[b"FLAGS"] for _, row in other.ok("NOOP").fetches())


@case("news")
def mail_that_comes_is_in_no_answer_before_exists_has_told_it(box: Box) -> None:
    """RFC 3501 section 7.3.1: a client knows no number above the last EXISTS."""
    box.imap.ok("SELECT INBOX")
    other = box.login()
    other.ok("SELECT INBOX")
    box.append(letter(1))
    reply = other.ok("UID FETCH 1:* FLAGS")
    numbers = [index for index, line in enumerate(reply.untagged) if line == b"1 EXISTS"]
    rows = [index for index, line in enumerate(reply.untagged) if line.startswith(b"1 FETCH")]
    assert not rows or (numbers and numbers[0] < rows[0])


@case("news")
def a_mailbox_deleted_by_another_leaves_the_connection_alive(box: Box) -> None:
    """Whether it says NO, or BYE and hangs up: it answers."""
    box.imap.ok("CREATE work")
    box.append(letter(1), folder="work")
    other = box.login()
    other.ok("SELECT work")
    box.imap.ok("DELETE work")
    box.imap.no("SELECT work")
    box.imap.ok("NOOP")
