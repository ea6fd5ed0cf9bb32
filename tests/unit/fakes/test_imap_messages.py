"""APPEND, STORE, EXPUNGE, COPY, MOVE (RFC 3501 section 6.4, RFC 3502, RFC 4315, RFC 6851)."""

from __future__ import annotations

import re

import pytest
from imap_transcript import FLAGS, MAIL, NOW_S, SHORT, Transcript, another, selected

from fakemail.imap_protocol import Pause
from fakemail.mailbox import DELETED, SEEN


@pytest.fixture
def imap():
    """Selected INBOX: 1 is MAIL, 2 and 3 are SHORT; none is recent."""
    return selected(MAIL, SHORT, SHORT)


def folder(client, name):
    return client.account.folder(name)


# --- APPEND ---


def test_append_keeps_flags_date_and_bytes():
    client = Transcript().login()
    client.step('1 APPEND Sent (\\seen $Label) "02-Feb-2024 10:00:00 +0100" {5}', "+ <any>")
    client.step("a\r\nbc", f"1 OK [APPENDUID {folder(client, 'Sent').uidvalidity} 1] <any>")
    sent = folder(client, "Sent")
    assert (sent.raw(1), sent.flags(1)) == (b"a\r\nbc", {SEEN, "$Label"})
    assert sent.received(1) == (1_706_864_400, 60)


def test_append_needs_neither_flags_nor_date_and_takes_an_empty_list():
    client = Transcript().login()
    client.step("1 APPEND Sent {1+}\r\nx", "1 OK [APPENDUID <any> 1] <any>")
    client.step("2 APPEND Sent () {1+}\r\nx", "2 OK [APPENDUID <any> 2] <any>")
    client.step('3 APPEND "Sent" "01-Jan-2020 00:00:00 +0000" {1+}\r\nx', "3 OK [APPENDUID <any> 3] <any>")
    client.step("4 append inbox (abc def) {1+}\r\nx", "4 OK <any>")
    assert folder(client, "Sent").received(1) == (NOW_S, 0)
    assert client.inbox.flags(1) == {"abc", "def"}


def test_append_to_the_selected_folder_is_told_before_its_ok(imap):
    imap.step("1 APPEND INBOX (\\Flagged) {1+}\r\nx", "* 4 EXISTS", "* 1 RECENT", "1 OK [APPENDUID <any> 4] <any>")
    imap.step("2 FETCH 4 FLAGS", "* 4 FETCH (FLAGS (\\Flagged \\Recent))", "2 OK <any>")


def test_append_with_a_new_keyword_names_it_everywhere_before_it_is_shown(imap):
    other = another(imap)
    keywords = [f"* FLAGS ({FLAGS} $New)", f"* OK [PERMANENTFLAGS ({FLAGS} $New \\*)] <any>"]
    imap.step("1 APPEND INBOX ($New) {1+}\r\nx", "* 4 EXISTS", "* 1 RECENT", *keywords, "1 OK <any>")
    other.step("1 NOOP", "* 4 EXISTS", "* 0 RECENT", *keywords, "1 OK <any>")
    other.step("2 FETCH 4 FLAGS", "* 4 FETCH (FLAGS ($New))", "2 OK <any>")


@pytest.mark.parametrize("literal", ["{1+}\r\nx", "{1}"])
def test_append_to_nowhere_says_how_to_help_and_stays_in_step(literal):
    client = Transcript().login()
    lines = client.lines(f"1 APPEND nowhere {literal}")
    if literal == "{1}":
        assert lines[0].startswith("+")
        lines = client.lines("x")
    assert re.fullmatch(r"1 NO \[TRYCREATE\] .+", lines[0])
    client.step("2 NOOP", "2 OK <any>")


@pytest.mark.parametrize(
    "words",
    [
        '"99-Feb-2024 10:00:00 +0100"', '"31-Feb-2024 10:00:00 +0100"', '"1-Feb-2024 10:00:00 +0100"', '"yesterday"',
        '"01-Feb-2024 24:00:00 +0100"', '"01-Feb-2024 10:00:00"', '"01-Feb-2024 10:00:00 +9900"',
        '"01-Jan-0001 00:00:00 +0100"', '"31-Dec-9999 23:59:59 -0100"', '"01-Xxx-2024 10:00:00 +0100"',
        "(\\Recent)", "(\\Odd)", "(a", "x", "(a) (b)", '"01-Feb-2024 10:00:00 +0100" (a)',
    ],
)  # fmt: skip
def test_a_malformed_append_is_bad_and_its_literal_is_swallowed(imap, words):
    imap.step(f"1 APPEND INBOX {words} {{6+}}\r\n2 NOOP", "1 BAD <any>")
    imap.step("3 NOOP", "3 OK <any>")
    assert len(imap.inbox.uids) == 3


@pytest.mark.parametrize("rest", ['"quoted is no message"', "atom", "", "{1+}\r\nx more", "{1+}\r\nx "])
def test_a_message_is_a_literal_and_the_last_word(imap, rest):
    imap.step(f"1 APPEND INBOX {rest}", "1 BAD <any>")
    assert len(imap.inbox.uids) == 3


def test_a_message_without_a_byte_is_none(imap):
    imap.step("1 APPEND INBOX {0+}\r\n", "1 NO <any>")
    assert len(imap.inbox.uids) == 3


def test_several_messages_are_appended_all_or_none():
    client = Transcript().login()
    client.step(
        '1 APPEND Sent (\\Seen) {1+}\r\na (x) "02-Feb-2024 10:00:00 +0100" {2+}\r\nbb {3+}\r\nccc',
        f"1 OK [APPENDUID {folder(client, 'Sent').uidvalidity} 1:3] <any>",
    )
    sent = folder(client, "Sent")
    assert [(sent.raw(uid), sent.flags(uid)) for uid in sent.uids] == [(b"a", {SEEN}), (b"bb", {"x"}), (b"ccc", set())]
    client.step("2 APPEND Sent {1+}\r\na {0+}\r\n", "2 NO <any>")
    client.step("3 APPEND Sent {1+}\r\na (\\Odd) {1+}\r\nb", "3 BAD <any>")
    client.step("4 APPEND Sent {1+}\r\na {1}", "+ <any>")
    client.step("b", "4 OK [APPENDUID <any> 4:5] <any>")


# --- STORE ---


def test_store_tells_the_new_flags_of_each_message(imap):
    imap.step("1 STORE 1 FLAGS (\\seen)", "* 1 FETCH (FLAGS (\\Seen))", "1 OK <any>")
    imap.step("2 UID STORE 1 -FLAGS \\Seen", "* 1 FETCH (UID 1 FLAGS ())", "2 OK <any>")
    imap.step(
        "3 STORE 1:2 +FLAGS \\Flagged \\Draft",
        *(f"* {n} FETCH (FLAGS (\\Draft \\Flagged))" for n in (1, 2)),
        "3 OK <any>",
    )
    imap.step("4 STORE 1:3 +flags.silent (\\Answered)", "4 OK <any>")
    imap.step("5 STORE 3:*,3 -FLAGS (\\Answered)", "* 3 FETCH (FLAGS ())", "5 OK <any>")
    imap.step("6 NOOP", "6 OK <any>")


@pytest.mark.parametrize("item", ["FLAGS ()", "+FLAGS ()", "-FLAGS ()", "-FLAGS (x)", "+FLAGS (\\Seen)"])
def test_a_store_that_changes_nothing_is_answered_too(imap, item):
    imap.ok("STORE 1 FLAGS (\\Seen)")
    imap.inbox.set_flags(2, {SEEN})
    imap.ok("NOOP")
    flags = "" if item == "FLAGS ()" else "\\Seen"
    imap.step(f"1 STORE 1:2 {item}", *(f"* {number} FETCH (FLAGS ({flags}))" for number in (1, 2)), "1 OK <any>")


def test_recent_is_kept_whatever_is_stored():
    imap = selected()
    imap.append(SHORT)
    imap.step("1 STORE 1 FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Recent \\Seen))", "1 OK <any>")
    imap.step("2 STORE 1 FLAGS ()", "* 1 FETCH (FLAGS (\\Recent))", "2 OK <any>")


def test_a_new_keyword_is_named_before_it_is_shown_and_never_forgotten(imap):
    other = another(imap)
    named = [f"* FLAGS ({FLAGS} $Work)", f"* OK [PERMANENTFLAGS ({FLAGS} $Work \\*)] <any>"]
    imap.step("1 STORE 1 +FLAGS ($Work)", *named, "* 1 FETCH (FLAGS ($Work))", "1 OK <any>")
    other.step("1 FETCH 1 FLAGS", *named, "* 1 FETCH (FLAGS ($Work))", "* 1 FETCH (FLAGS ($Work))", "1 OK <any>")
    imap.step("2 STORE 1 -FLAGS ($work)", "* 1 FETCH (FLAGS ())", "2 OK <any>")
    assert named[0] in imap.lines("3 SELECT INBOX")


def test_a_keyword_is_the_same_in_any_case_and_shown_as_it_was_first(imap):
    imap.ok("STORE 1 +FLAGS ($Work)")
    imap.step("1 STORE 2 +FLAGS ($WORK \\SEEN)", "* 2 FETCH (FLAGS (\\Seen $Work))", "1 OK <any>")
    imap.step("2 STORE 2 -FLAGS ($work)", "* 2 FETCH (FLAGS (\\Seen))", "2 OK <any>")


@pytest.mark.parametrize("keyword", ["NIL", "a.b", "$MDNSent", "x+y", "~", "1", "&", "[", "!#"])
def test_any_atom_is_a_keyword(imap, keyword):
    assert imap.ok(f"STORE 1 +FLAGS ({keyword})")[-1] == f"* 1 FETCH (FLAGS ({keyword}))"


@pytest.mark.parametrize(
    "words",
    [
        "1", "1 FLAGS", "1 COLOUR (x)", "1 FLAGS (\\Odd)", "1 FLAGS (\\Recent)", "1 FLAGS (a", "1 +FLAGS", "1 FLAGS \\",
        "1 FLAGS.LOUD (x)", "1 *FLAGS (x)", "1 FLAGS (a  b)", "1 FLAGS (a) b", "1 FLAGS a (b)", "1 FLAGS (\\*)",
        "0 FLAGS (x)", "9 FLAGS (x)", "1:9 FLAGS (x)", "x FLAGS (x)", '1 FLAGS ("x")', "1 FLAGS (a]b)",
        "1 FLAGS ({1+}\r\nx)",
    ],
)  # fmt: skip
def test_a_malformed_store_changes_nothing(imap, words):
    imap.step(f"1 STORE {words}", "1 BAD <any>")
    assert all(imap.inbox.flags(uid) == frozenset() for uid in imap.inbox.uids)


def test_a_store_of_no_message_is_fine(imap):
    imap.step("1 UID STORE 9 +FLAGS (x)", "1 OK <any>")
    selected().step("1 STORE 1:* +FLAGS (x)", "1 OK <any>")


@pytest.mark.parametrize("silent", ["", ".SILENT"])
def test_others_learn_of_a_change(imap, silent):
    other = another(imap)
    imap.ok(f"STORE 2 +FLAGS{silent} (\\Seen)")
    other.step("1 NOOP", "* 2 FETCH (FLAGS (\\Seen))", "1 OK <any>")
    other.step("2 NOOP", "2 OK <any>")


def test_a_store_on_many_messages_gives_others_a_turn():
    imap = Transcript().login()
    imap.inbox.seed(count=10_000, seed=1, profile="small")
    imap.select()
    lines = imap.ok("STORE 1:* FLAGS (\\Deleted)")
    assert len([line for line in lines if line.endswith("FETCH (FLAGS (\\Deleted))")]) == 10_000
    assert sum(isinstance(event, Pause) for event in imap.events) >= 2
    lines = imap.ok("EXPUNGE")
    assert (lines[0], lines[-1], len(lines)) == ("* 10000 EXPUNGE", "* 1 EXPUNGE", 10_000)
    assert sum(isinstance(event, Pause) for event in imap.events) >= 4


# --- EXPUNGE ---


def test_expunge_numbers_are_told_from_the_end(imap):
    imap.ok("STORE 1,3 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 EXPUNGE", "* 3 EXPUNGE", "* 1 EXPUNGE", "1 OK <any>")
    imap.step("2 FETCH 1 UID", "* 1 FETCH (UID 2)", "2 OK <any>")


def test_uid_expunge_removes_only_what_is_named_and_marked(imap):
    imap.ok("STORE 1,2 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 UID EXPUNGE 2:3", "* 2 EXPUNGE", "1 OK <any>")
    imap.step("2 UID EXPUNGE 99", "2 OK <any>")
    assert list(imap.inbox.uids) == [1, 3]
    imap.step("3 UID EXPUNGE *:1", "* 1 EXPUNGE", "3 OK <any>")


@pytest.mark.parametrize("command", ["UID EXPUNGE", "UID EXPUNGE x", "UID EXPUNGE 1 2", "EXPUNGE 1"])
def test_a_malformed_expunge_is_bad(imap, command):
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    imap.step(f"1 {command}", "1 BAD <any>")
    assert len(imap.inbox.uids) == 3


def test_expunges_of_two_sessions_are_told_to_both():
    first = selected(MAIL, SHORT, SHORT)
    second = another(first)
    first.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("STORE 3 +FLAGS.SILENT (\\Deleted)")
    first.ok("NOOP")
    first.step("1 UID EXPUNGE 1", "* 1 EXPUNGE", "1 OK <any>")
    second.step("1 EXPUNGE", "* 3 EXPUNGE", "* 1 EXPUNGE", "1 OK <any>")
    first.step("2 NOOP", "* 2 EXPUNGE", "2 OK <any>")


# --- COPY ---


def test_copy_keeps_flags_date_and_bytes_and_says_the_new_uids(imap):
    imap.inbox.set_flags(1, {SEEN, "$x"})
    sent = folder(imap, "Sent")
    sent.uidnext = 4
    assert imap.code("UID COPY 1,3 Sent") == f"COPYUID {sent.uidvalidity} 1,3 4:5"
    assert (sent.raw(4), sent.flags(4), sent.received(4)) == (MAIL, {SEEN, "$x"}, imap.inbox.received(1))
    assert sent.recent_from <= 4
    assert imap.inbox.flags(1) == {SEEN, "$x"}


def test_copy_by_number_names_uids(imap):
    imap.inbox.expunge(imap.inbox.uids.between(1, 1))
    imap.ok("NOOP")
    assert imap.code("COPY 2,1 Sent").endswith(" 2:3 1:2")


def test_copy_to_nowhere_says_how_to_help(imap):
    imap.step("1 COPY 1 nowhere", "1 NO [TRYCREATE] <any>")
    imap.step("2 UID COPY 1 nowhere", "2 NO [TRYCREATE] <any>")
    imap.step("3 MOVE 1 nowhere", "3 NO [TRYCREATE] <any>")
    assert list(imap.inbox.uids) == [1, 2, 3]


def test_copy_of_nothing_is_fine_and_names_nothing(imap):
    assert imap.code("UID COPY 99 Sent") == ""
    assert imap.code("UID MOVE 99 Sent") == ""
    assert not folder(imap, "Sent").uids


def test_copy_into_the_selected_folder_is_told_before_its_ok(imap):
    imap.step("1 COPY 1:2 INBOX", "* 5 EXISTS", "* 2 RECENT", "1 OK [COPYUID <any> 1:2 4:5] <any>")
    assert imap.fetch(4, "BODY.PEEK[]") == MAIL


def test_a_copy_of_seeded_mail_has_the_same_bytes_and_date():
    imap = Transcript().login()
    imap.inbox.seed(count=3, seed=1, profile="small")
    expected = [(imap.inbox.raw(uid), imap.inbox.received(uid), imap.inbox.flags(uid)) for uid in (2, 3)]
    imap.select().ok("COPY 2:3 Trash")
    trash = folder(imap, "Trash")
    assert [(trash.raw(uid), trash.received(uid), trash.flags(uid)) for uid in trash.uids] == expected


@pytest.mark.parametrize("words", ["", "1", "9 Sent", "x Sent", "1 Sent x", "1  Sent", "0 Sent"])
@pytest.mark.parametrize("command", ["COPY", "MOVE"])
def test_a_malformed_copy_or_move_is_bad(imap, command, words):
    imap.step(f"1 {command} {words}", "1 BAD <any>")
    assert (len(imap.inbox.uids), len(folder(imap, "Sent").uids)) == (3, 0)


# --- MOVE ---


def test_move_says_the_new_uids_then_expunges(imap):
    trash = folder(imap, "Trash")
    imap.step("1 MOVE 2 Trash", f"* OK [COPYUID {trash.uidvalidity} 2 1] <any>", "* 2 EXPUNGE", "1 OK <any>")
    imap.step("2 UID MOVE 1,3 Trash", "* OK [COPYUID <any> 1,3 2:3] <any>", "* 2 EXPUNGE", "* 1 EXPUNGE", "2 OK <any>")
    assert (list(imap.inbox.uids), list(trash.uids)) == ([], [1, 2, 3])
    assert trash.raw(2) == MAIL


def test_move_within_a_folder_gives_new_uids(imap):
    imap.step(
        "1 MOVE 1 INBOX", "* OK [COPYUID <any> 1 4] <any>", "* 1 EXPUNGE", "* 3 EXISTS", "* 1 RECENT", "1 OK <any>"
    )
    assert imap.fetch(3, "BODY.PEEK[]") == MAIL


def test_move_leaves_other_deleted_messages_alone(imap):
    imap.inbox.set_flags(3, {DELETED})
    imap.ok("MOVE 1 Trash")
    assert list(imap.inbox.uids) == [2, 3]


def test_what_somebody_else_expunged_is_not_moved():
    first = selected(MAIL, SHORT)
    second = another(first)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    first.step("1 MOVE 1:2 Trash", "* OK [COPYUID <any> 2 1] <any>", "* 2 EXPUNGE", "* 1 EXPUNGE", "1 OK <any>")


def test_others_hear_of_a_move_as_of_an_expunge(imap):
    other, target = another(imap), another(imap, "Trash")
    imap.ok("MOVE 2 Trash")
    other.step("1 NOOP", "* 2 EXPUNGE", "1 OK <any>")
    target.step("1 NOOP", "* 1 EXISTS", "* 1 RECENT", "1 OK <any>")
