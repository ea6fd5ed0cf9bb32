"""SELECT, EXAMINE, STATUS, CLOSE, UNSELECT, IDLE, ENABLE, and what a session is told of the others."""

from __future__ import annotations

import re

import pytest
from imap_transcript import FLAGS, MAIL, SHORT, USER, Transcript, another, selected

from fakemail.imap_protocol import Pause
from fakemail.mailbox import DELETED, SEEN


@pytest.fixture
def imap():
    """Selected INBOX: 1 is MAIL, 2 and 3 are SHORT; none is recent."""
    return selected(MAIL, SHORT, SHORT)


def pair(*mails):
    first = selected(*mails)
    return first, another(first)


# --- SELECT and EXAMINE ---


def test_select_says_all_that_a_client_needs_with_text_after_each_code(imap):
    imap.inbox.set_flags(1, {SEEN, "$Work"})
    imap.step(
        "1 SELECT inbox",
        "* OK [CLOSED] <any>",
        f"* FLAGS ({FLAGS} $Work)",
        f"* OK [PERMANENTFLAGS ({FLAGS} $Work \\*)] <any>",
        "* 3 EXISTS",
        "* 0 RECENT",
        "* OK [UNSEEN 2] <any>",
        f"* OK [UIDVALIDITY {imap.inbox.uidvalidity}] <any>",
        "* OK [UIDNEXT 4] <any>",
        f"* OK [HIGHESTMODSEQ {imap.inbox.highestmodseq}] <any>",
        "1 OK [READ-WRITE] <any>",
    )


def test_select_of_an_empty_folder(imap):
    imap.select("Sent").step(
        "1 SELECT Sent",
        "* OK [CLOSED] <any>",
        f"* FLAGS ({FLAGS})",
        f"* OK [PERMANENTFLAGS ({FLAGS} \\*)] <any>",
        "* 0 EXISTS",
        "* 0 RECENT",
        "* OK [UIDVALIDITY <any>] <any>",
        "* OK [UIDNEXT 1] <any>",
        "* OK [HIGHESTMODSEQ 1] <any>",
        "1 OK [READ-WRITE] <any>",
    )


def test_unseen_is_a_number_and_absent_when_all_are_seen(imap):
    imap.inbox.expunge(imap.inbox.uids.between(1, 1))
    imap.inbox.set_flags(2, {SEEN})
    assert "* OK [UNSEEN 2]" in "\n".join(imap.lines("1 SELECT INBOX"))
    imap.inbox.set_flags(3, {SEEN})
    for how in ("SELECT", "EXAMINE"):
        assert "UNSEEN" not in "\n".join(imap.lines(f"1 {how} INBOX"))


def test_unseen_is_found_in_a_large_folder_in_parts():
    imap = Transcript().login()
    inbox = imap.inbox
    inbox.seed(count=40_000, seed=1, profile="small")
    for uid in inbox.uids:
        inbox._flags[uid] = frozenset({SEEN})
    inbox._flags[39_000] = frozenset()
    lines = imap.lines("1 SELECT INBOX")
    assert any(line.startswith("* OK [UNSEEN 39000]") for line in lines)
    assert sum(isinstance(event, Pause) for event in imap.events) >= 2


def test_nothing_is_closed_where_nothing_was_selected():
    client = Transcript().login()
    assert not any("CLOSED" in line for line in client.lines("1 SELECT INBOX"))
    client.ok("CLOSE")
    assert not any("CLOSED" in line for line in client.lines("2 SELECT INBOX"))


def test_examine_is_read_only_and_says_so(imap):
    imap.append(SHORT)
    imap.step(
        "1 EXAMINE INBOX",
        "* OK [CLOSED] <any>",
        f"* FLAGS ({FLAGS})",
        "* OK [PERMANENTFLAGS ()] <any>",
        "* 4 EXISTS",
        "* 0 RECENT",
        "* OK [UNSEEN 1] <any>",
        "* OK [UIDVALIDITY <any>] <any>",
        "* OK [UIDNEXT 5] <any>",
        "* OK [HIGHESTMODSEQ <any>] <any>",
        "1 OK [READ-ONLY] <any>",
    )


@pytest.mark.parametrize(
    "command",
    ["STORE 1 +FLAGS (\\Seen)", "UID STORE 1 FLAGS ()", "EXPUNGE", "UID EXPUNGE 1", "MOVE 1 Sent", "UID MOVE 1 Sent"],
)
def test_what_is_opened_read_only_is_not_changed(imap, command):
    imap.inbox.set_flags(1, {DELETED})
    imap.select(how="EXAMINE")
    imap.step(f"1 {command}", "1 NO [READ-ONLY] <any>")
    assert (list(imap.inbox.uids), imap.inbox.flags(1)) == ([1, 2, 3], {DELETED})


def test_reading_what_is_opened_read_only_sets_no_flag_and_closing_it_expunges_nothing(imap):
    imap.inbox.set_flags(1, {DELETED})
    imap.select(how="EXAMINE")
    imap.step("1 FETCH 2 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", ")", "1 OK <any>")
    imap.step("2 CLOSE", "2 OK <any>")
    assert list(imap.inbox.uids) == [1, 2, 3]
    assert imap.inbox.flags(2) == frozenset()


def test_copying_out_of_what_is_opened_read_only_is_fine(imap):
    imap.select(how="EXAMINE")
    assert imap.code("COPY 1 Sent").startswith("COPYUID ")


@pytest.mark.parametrize("name", ["nowhere", '"a & b"', "&AGE-"])
def test_a_failed_select_leaves_nothing_selected(imap, name):
    imap.step(f"1 SELECT {name}", "* OK [CLOSED] <any>", "1 NO [<any>] <any>")
    imap.step("2 FETCH 1 FLAGS", "2 BAD <any>")
    assert not imap.inbox.watchers


@pytest.mark.parametrize(
    "arguments", ["", "INBOX x", "INBOX ()", "INBOX (COLOUR)", "INBOX (CONDSTORE", "(INBOX)", "INBOX  "]
)
def test_a_malformed_select_changes_nothing(imap, arguments):
    imap.step(f"1 SELECT {arguments}", "1 BAD <any>")
    imap.step("2 FETCH 1 UID", "* 1 FETCH (UID 1)", "2 OK <any>")


# --- CLOSE and UNSELECT ---


def test_close_expunges_without_a_word_and_others_hear_of_it(imap):
    other = another(imap)
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 CLOSE", "1 OK <any>")
    assert list(imap.inbox.uids) == [2, 3]
    other.step("1 NOOP", "* 1 EXPUNGE", "1 OK <any>")
    imap.step("2 FETCH 1 FLAGS", "2 BAD <any>")


def test_unselect_expunges_nothing(imap):
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 UNSELECT", "1 OK <any>")
    assert list(imap.inbox.uids) == [1, 2, 3]
    imap.step("2 UNSELECT", "2 BAD <any>")


def test_select_of_another_folder_expunges_nothing(imap):
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    imap.select("Sent")
    assert list(imap.inbox.uids) == [1, 2, 3]


# --- \\Recent ---


def test_messages_are_recent_to_the_first_session_that_is_told_and_to_no_other():
    writer = Transcript().login()
    for _ in range(2):
        writer.append(SHORT)
    first = Transcript(writer.store).login()
    assert "* 2 RECENT" in first.lines("1 SELECT INBOX")
    first.step("2 FETCH 1:2 FLAGS", "* 1 FETCH (FLAGS (\\Recent))", "* 2 FETCH (FLAGS (\\Recent))", "2 OK <any>")
    second = Transcript(writer.store).login()
    assert "* 0 RECENT" in second.lines("1 SELECT INBOX")
    second.step("2 FETCH 1 FLAGS", "* 1 FETCH (FLAGS ())", "2 OK <any>")
    first.ok("SELECT INBOX")
    first.step("3 FETCH 1 FLAGS", "* 1 FETCH (FLAGS ())", "3 OK <any>")


def test_examine_counts_recent_messages_and_does_not_take_them():
    client = Transcript().login()
    client.append(SHORT)
    client.append(SHORT)
    assert "* 2 RECENT" in client.lines("1 EXAMINE INBOX")
    client.step("2 FETCH 2 FLAGS", "* 2 FETCH (FLAGS (\\Recent))", "2 OK <any>")
    client.ok("CLOSE")
    assert client.ok("STATUS INBOX (RECENT)") == ["* STATUS INBOX (RECENT 2)"]
    assert "* 2 RECENT" in client.lines("3 SELECT INBOX")
    client.ok("CLOSE")
    assert client.ok("STATUS INBOX (RECENT)") == ["* STATUS INBOX (RECENT 0)"]


def test_a_message_that_comes_to_a_selected_folder_is_recent_there():
    first, second = pair()
    second.append(SHORT)
    first.step("1 NOOP", "* 1 EXISTS", "* 0 RECENT", "1 OK <any>")
    other = Transcript(first.store).login()
    other.append(SHORT)
    first.step("2 NOOP", "* 2 EXISTS", "* 1 RECENT", "2 OK <any>")
    first.step("3 FETCH 2 FLAGS", "* 2 FETCH (FLAGS (\\Recent))", "3 OK <any>")
    second.step("1 NOOP", "* 2 EXISTS", "* 1 RECENT", "1 OK <any>")
    second.step("2 FETCH 1:2 FLAGS", "* 1 FETCH (FLAGS (\\Recent))", "* 2 FETCH (FLAGS ())", "2 OK <any>")


def test_copies_are_recent_in_their_target():
    imap = selected(SHORT)
    watching = another(imap, "Sent")
    imap.ok("COPY 1 Sent")
    watching.step("1 NOOP", "* 1 EXISTS", "* 1 RECENT", "1 OK <any>")
    watching.step("2 FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Recent))", "2 OK <any>")


def test_status_of_the_selected_folder_counts_what_is_recent_here_and_of_another_what_is_recent_nowhere():
    imap = selected(SHORT)
    imap.append(SHORT)
    imap.append(SHORT)
    assert imap.ok("STATUS INBOX (RECENT)") == ["* STATUS INBOX (RECENT 2)"]
    assert another(imap).ok("STATUS INBOX (RECENT)") == ["* STATUS INBOX (RECENT 0)"]
    imap.store.deliver([USER], SHORT)
    assert imap.ok("STATUS INBOX (RECENT)")[0] == "* STATUS INBOX (RECENT 3)"
    imap.ok("CLOSE")
    assert imap.ok("STATUS INBOX (RECENT)") == ["* STATUS INBOX (RECENT 0)"]


def test_an_expunge_of_recent_messages_changes_their_count():
    imap = selected(SHORT)
    imap.append(SHORT)
    imap.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 UID EXPUNGE 1", "* 1 EXPUNGE", "1 OK <any>")
    imap.step("2 EXPUNGE", "* 1 EXPUNGE", "* 0 RECENT", "2 OK <any>")


# --- STATUS ---


def test_status_tells_what_is_asked_for_in_its_order(imap):
    imap.inbox.set_flags(1, {SEEN})
    size = len(MAIL) + 2 * len(SHORT)
    imap.step(
        "1 STATUS inbox (UNSEEN MESSAGES SIZE UIDNEXT RECENT UIDVALIDITY)",
        f"* STATUS INBOX (UNSEEN 2 MESSAGES 3 SIZE {size} UIDNEXT 4 RECENT 0 UIDVALIDITY {imap.inbox.uidvalidity})",
        "* 1 FETCH (FLAGS (\\Seen))",
        "1 OK <any>",
    )
    imap.step("2 STATUS Sent (messages MESSAGES)", "* STATUS Sent (MESSAGES 0)", "2 OK <any>")


def test_status_of_a_large_folder_is_counted_in_parts():
    imap = Transcript().login()
    imap.inbox.seed(count=20_000, seed=1, profile="small")
    (line,) = imap.ok("STATUS INBOX (UNSEEN SIZE)")
    unseen, size = map(int, re.findall(r"\d+", line))
    assert unseen == sum(SEEN not in imap.inbox.flags(uid) for uid in imap.inbox.uids)
    assert size == sum(map(imap.inbox.size, imap.inbox.uids))
    assert sum(isinstance(event, Pause) for event in imap.events) >= 8


@pytest.mark.parametrize(
    "arguments", ["", "INBOX", "INBOX ()", "INBOX (COLOUR)", "INBOX MESSAGES", "INBOX (MESSAGES", "(MESSAGES)"]
)
def test_a_malformed_status_is_bad(imap, arguments):
    imap.step(f"1 STATUS {arguments}", "1 BAD <any>")


def test_status_of_what_is_not_there_is_no(imap):
    imap.step("1 STATUS nowhere (MESSAGES)", "1 NO [NONEXISTENT] <any>")
    imap.step("2 FETCH 1 UID", "* 1 FETCH (UID 1)", "2 OK <any>")


# --- news ---


def test_nothing_new_is_no_line(imap):
    for command in ("NOOP", "CHECK", "EXPUNGE"):
        imap.step(f"1 {command}", "1 OK <any>")
    empty = Transcript().login().select()
    empty.step("1 NOOP", "1 OK <any>")
    empty.step("2 EXPUNGE", "2 OK <any>")


@pytest.mark.parametrize(
    "command", ["NOOP", "CHECK", "STATUS Sent (MESSAGES)", 'LIST "" ""', "CREATE x", "COPY 2 Sent"]
)
def test_news_come_as_expunges_then_counts_then_keywords_then_flags(command):
    first, second = pair(MAIL, SHORT, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    second.ok("STORE 1 +FLAGS.SILENT ($New)")
    Transcript(first.store).login().append(SHORT)
    lines = [line for line in first.lines(f"1 {command}") if not line.startswith(("* STATUS", "* LIST"))]
    assert lines[:-1] == [
        "* 1 EXPUNGE",
        "* 3 EXISTS",
        "* 1 RECENT",
        f"* FLAGS ({FLAGS} $New)",
        f"* OK [PERMANENTFLAGS ({FLAGS} $New \\*)] Flags kept",
        "* 1 FETCH (FLAGS ($New))",
    ]
    assert lines[-1].startswith("1 OK")


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1 UID",
        "STORE 2 +FLAGS (x)",
        "STORE 2 +FLAGS.SILENT (x)",
        "SEARCH ALL",
        "SEARCH CHARSET X ALL",
        "STORE 9 FLAGS ()",
    ],
)
def test_no_expunge_is_told_while_numbers_are_in_use(command):
    first, second = pair(MAIL, SHORT, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    assert not any("EXPUNGE" in line for line in first.lines(f"1 {command}"))
    first.step("2 FETCH 1 UID", "* 1 FETCH (UID 1)", "2 OK <any>")
    assert "* 1 EXPUNGE" in first.ok("NOOP")


def test_uid_commands_tell_expunges_behind_their_answer():
    first, second = pair(MAIL, SHORT, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    first.step("1 UID FETCH 2 UID", "* 2 FETCH (UID 2)", "* 1 EXPUNGE", "1 OK <any>")
    first.step("2 UID FETCH 2 UID", "* 1 FETCH (UID 2)", "2 OK <any>")


def test_new_mail_is_told_with_any_command_and_before_an_expunge_that_must_wait():
    first, second = pair(MAIL, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    first.store.deliver([USER], SHORT)
    first.step("1 FETCH 2 UID", "* 2 FETCH (UID 2)", "* 3 EXISTS", "* 1 RECENT", "1 OK <any>")
    first.step("2 FETCH 3 UID", "* 3 FETCH (UID 3)", "2 OK <any>")
    first.step("3 NOOP", "* 1 EXPUNGE", "3 OK <any>")
    first.step("4 FETCH 2 UID", "* 2 FETCH (UID 3)", "4 OK <any>")


def test_what_was_expunged_elsewhere_is_readable_until_it_is_told():
    first, second = pair(MAIL, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    assert first.fetch(1, "BODY.PEEK[]") == MAIL
    first.step("1 FETCH 1 (UID FLAGS)", "* 1 FETCH (UID 1 FLAGS (\\Deleted))", "1 OK <any>")
    assert first.code("COPY 1:2 Sent").endswith(" 1:2 1:2")
    assert first.account.folder("Sent").raw(1) == MAIL
    first.step("2 FETCH 1 UID", "* 1 FETCH (UID 2)", "2 OK <any>")


def test_a_store_on_what_was_expunged_elsewhere_is_answered_as_if_it_were_there():
    first, second = pair(MAIL, SHORT)
    second.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    second.ok("EXPUNGE")
    both = ["* 1 FETCH (FLAGS (\\Seen))", "* 2 FETCH (FLAGS (\\Seen))"]
    first.step("1 STORE 1:2 FLAGS (\\Seen)", *both, "1 OK <any>")
    second.step("1 NOOP", "* 1 FETCH (FLAGS (\\Seen))", "1 OK <any>")
    first.step("2 NOOP", "* 1 EXPUNGE", "2 OK <any>")


def test_mail_that_came_and_went_is_never_told(imap):
    imap.store.deliver([USER], SHORT)
    imap.inbox.expunge(imap.inbox.uids.between(4, 4))
    imap.step("1 NOOP", "1 OK <any>")
    imap.store.deliver([USER], SHORT)
    imap.step("2 NOOP", "* 4 EXISTS", "* 1 RECENT", "2 OK <any>")
    imap.step("3 FETCH 4 UID", "* 4 FETCH (UID 5)", "3 OK <any>")


def test_own_changes_are_told_once(imap):
    imap.ok("STORE 1 +FLAGS (\\Seen)")
    imap.step("1 NOOP", "1 OK <any>")
    imap.send(b"2 FETCH 2 BODY[TEXT]\r\n")
    imap.step("3 NOOP", "3 OK <any>")


def test_own_changes_are_told_once_also_where_others_changes_wait():
    first, second = pair(MAIL, SHORT)
    second.ok("STORE 1 +FLAGS ($theirs)")
    lines = first.ok("STORE 2 +FLAGS ($mine)")
    assert [line for line in lines if " FETCH " in line] == [
        "* 2 FETCH (FLAGS ($mine))",
        "* 1 FETCH (FLAGS ($theirs))",
    ]
    first.step("1 NOOP", "1 OK <any>")


def test_a_silent_store_does_not_silence_what_others_changed():
    first, second = pair(MAIL)
    second.ok("STORE 1 +FLAGS (\\Flagged)")
    first.step("1 STORE 1 +FLAGS.SILENT (\\Seen)", "* 1 FETCH (FLAGS (\\Flagged \\Seen))", "1 OK <any>")
    second.ok("STORE 1 -FLAGS (\\Flagged)")
    first.ok("NOOP")
    first.step("2 STORE 1 +FLAGS.SILENT (\\Draft)", "2 OK <any>")


def test_changes_of_two_sessions_that_do_not_know_of_each_other_merge():
    first, second = pair(MAIL)
    first.ok("STORE 1 +FLAGS (\\Seen)")
    second.ok("NOOP")
    first.ok("STORE 1 +FLAGS (\\Draft)")
    second.ok("STORE 1 -FLAGS (\\Seen)")
    for client in (first, second):
        client.ok("CHECK")
        client.step("1 FETCH 1 FLAGS", "* 1 FETCH (FLAGS (\\Draft))", "1 OK <any>")


def test_pipelined_numbers_are_those_of_before_the_expunge(imap):
    imap.ok("STORE 1,3 +FLAGS.SILENT (\\Deleted)")
    imap.step(
        "1 FETCH 3 UID\r\n2 EXPUNGE\r\n3 FETCH 1 UID",
        "* 3 FETCH (UID 3)",
        "1 OK <any>",
        "* 3 EXPUNGE",
        "* 1 EXPUNGE",
        "2 OK <any>",
        "* 1 FETCH (UID 2)",
        "3 OK <any>",
    )


def test_a_renumbered_folder_sends_everybody_away(imap):
    imap.store.reset_uidvalidity(imap.account, "INBOX")
    imap.step("1 NOOP", "* BYE <any>")
    assert imap.closed


def test_a_reset_of_the_store_sends_everybody_away(imap):
    imap.store.reset()
    imap.told("* BYE everything was reset")


# --- IDLE ---


def test_idle_tells_news_as_they_come(imap):
    imap.step("1 IDLE", "+ idling")
    imap.store.deliver([USER], SHORT)
    imap.told("* 4 EXISTS", "* 1 RECENT")
    imap.told()
    imap.inbox.set_flags(1, {SEEN})
    imap.told("* 1 FETCH (FLAGS (\\Seen))")
    imap.inbox.expunge(imap.inbox.uids.between(1, 1))
    imap.told("* 1 EXPUNGE")
    imap.step("DONE", "1 OK <any>")
    imap.step("2 NOOP", "2 OK <any>")


def test_news_that_wait_come_at_the_begin_of_idle_and_before_its_end(imap):
    imap.store.deliver([USER], SHORT)
    imap.step("1 IDLE", "+ idling", "* 4 EXISTS", "* 1 RECENT")
    imap.store.deliver([USER], SHORT)
    imap.step("done", "* 5 EXISTS", "* 2 RECENT", "1 OK <any>")


def test_done_may_come_with_the_next_command(imap):
    imap.step("1 IDLE", "+ idling")
    imap.step("DONE\r\n2 FETCH 1 UID", "1 OK <any>", "* 1 FETCH (UID 1)", "2 OK <any>")


@pytest.mark.parametrize("line", ["2 NOOP", "", "DONE ", "DONE x"])
def test_idle_ends_with_done_alone(imap, line):
    imap.step("1 IDLE", "+ idling")
    imap.step(line, "1 BAD <any>")
    imap.step("3 NOOP", "3 OK <any>")


def test_idle_without_a_folder_waits_without_news():
    client = Transcript().login()
    client.step("1 IDLE", "+ idling")
    client.store.deliver([USER], SHORT)
    client.told()
    client.step("DONE", "1 OK <any>")


def test_who_idles_is_sent_away_when_the_folder_goes(imap):
    imap.step("1 IDLE", "+ idling")
    imap.store.reset_uidvalidity(imap.account, "INBOX")
    imap.told("* BYE <any>")
    assert imap.closed


# --- ENABLE ---


def test_enable_answers_what_it_has_enabled_and_skips_what_it_does_not_know():
    client = Transcript().login()
    client.step("1 ENABLE FOO", "* ENABLED", "1 OK <any>")
    client.step("2 ENABLE condstore FOO CONDSTORE", "* ENABLED CONDSTORE", "2 OK <any>")
    client.step("3 ENABLE QRESYNC CONDSTORE", "* ENABLED QRESYNC", "3 OK <any>")
    client.step("4 ENABLE QRESYNC", "* ENABLED", "4 OK <any>")


def test_enable_before_login_is_bad_and_after_select_it_is_fine(imap):
    Transcript().step("1 ENABLE CONDSTORE", "1 BAD <any>")
    imap.step("1 ENABLE CONDSTORE", "* ENABLED CONDSTORE", "* OK [HIGHESTMODSEQ <any>] <any>", "1 OK <any>")
    imap.step("2 ENABLE QRESYNC", "* ENABLED QRESYNC", "2 OK <any>")


@pytest.mark.parametrize("arguments", ["", " ", "CONDSTORE ", "(CONDSTORE)", '"CONDSTORE"'])
def test_a_malformed_enable_is_bad(imap, arguments):
    imap.step(f"1 ENABLE {arguments}", "1 BAD <any>")


def test_login_and_enable_and_select_may_come_in_one_segment():
    client = Transcript()
    lines = client.lines("1 LOGIN ann@example.test canary-password\r\n2 ENABLE QRESYNC\r\n3 SELECT INBOX (CONDSTORE)")
    assert [line.split()[0] for line in lines if not line.startswith("* OK")] == ["1", "*", "2", "*", "*", "*", "3"]
    assert lines[1] == "* ENABLED QRESYNC"
