"""CONDSTORE and QRESYNC (RFC 7162)."""

from __future__ import annotations

import re

import pytest
from imap_transcript import FLAGS, MAIL, SHORT, USER, Transcript, another, selected

from fakemail.mailbox import DELETED


@pytest.fixture
def imap():
    """Selected INBOX with three messages; UIDs 1 to 3, mod-sequences 2 to 4."""
    client = selected(MAIL, SHORT, SHORT)
    assert [client.inbox.modseq(uid) for uid in client.inbox.uids] == [2, 3, 4]
    return client


def now(client):
    return client.inbox.highestmodseq


def resync(client, arguments, *, folder="INBOX"):
    """The lines of SELECT that speak of what changed."""
    lines = client.ok(f"SELECT {folder} (QRESYNC {arguments})")
    return [line for line in lines if "VANISHED" in line or " FETCH " in line]


# --- mod-sequences ---


def test_an_empty_folder_begins_at_one_and_its_first_message_is_above():
    client = selected()
    assert client.ok("STATUS INBOX (HIGHESTMODSEQ)")[-1] == "* STATUS INBOX (HIGHESTMODSEQ 1)"
    client.append(SHORT)
    client.step("1 SEARCH MODSEQ 1", "* SEARCH 1 (MODSEQ 2)", "1 OK <any>")


def test_every_change_raises_the_highest(imap):
    seen = [now(imap)]
    for command in (
        "STORE 1 +FLAGS (\\Seen)",
        "STORE 1 +FLAGS.SILENT (x)",
        "STORE 1:2 FLAGS (\\Deleted)",
        "COPY 3 INBOX",
        "MOVE 3 INBOX",
        "EXPUNGE",
        "APPEND INBOX {1+}\r\nx",
        "FETCH 1 RFC822",
    ):
        imap.send(f"1 {command}\r\n".encode())
        seen.append(now(imap))
    assert seen == sorted(set(seen))


def test_a_store_that_changes_nothing_raises_nothing(imap):
    before = now(imap)
    imap.ok("STORE 1 -FLAGS (x)")
    assert now(imap) == before


# --- what switches it on ---

ENABLING = {
    "ENABLE CONDSTORE": "ENABLE CONDSTORE",
    "STATUS": "STATUS INBOX (HIGHESTMODSEQ)",
    "FETCH MODSEQ": "FETCH 1 (MODSEQ)",
    "CHANGEDSINCE": "FETCH 1 (FLAGS) (CHANGEDSINCE 9999)",
    "UNCHANGEDSINCE": "STORE 1 (UNCHANGEDSINCE 0) FLAGS (x)",
    "SEARCH": "SEARCH MODSEQ 9999",
    "ENABLE QRESYNC": "ENABLE QRESYNC",
}


@pytest.mark.parametrize("way", ENABLING)
def test_the_first_command_that_needs_it_switches_it_on_and_says_the_highest_once(imap, way):
    told = f"* OK [HIGHESTMODSEQ {now(imap)}] Highest"
    assert imap.ok(ENABLING[way]).count(told) == 1
    imap.send(f"2 {ENABLING[way]}\r\n".encode())
    assert told not in imap.ok(ENABLING["STATUS"])
    imap.inbox.set_flags(2, {"\\Seen"})
    uid = "UID 2 " if way == "ENABLE QRESYNC" else ""
    imap.step("3 NOOP", f"* 2 FETCH ({uid}FLAGS (\\Seen) MODSEQ ({now(imap)}))", "3 OK <any>")


def test_select_with_condstore_switches_it_on():
    imap = selected(SHORT)
    imap.ok("SELECT INBOX (CONDSTORE)")
    imap.inbox.set_flags(1, {"\\Seen"})
    imap.step("1 NOOP", f"* 1 FETCH (FLAGS (\\Seen) MODSEQ ({now(imap)}))", "1 OK <any>")


def test_a_conditional_store_switches_it_on_even_where_nothing_may_be_stored(imap):
    imap.select(how="EXAMINE")
    imap.step("1 STORE 1 (UNCHANGEDSINCE 9) FLAGS (x)", "* OK [HIGHESTMODSEQ 4] <any>", "1 NO [READ-ONLY] <any>")
    imap.inbox.set_flags(1, {"\\Seen"})
    imap.step("2 NOOP", "* 1 FETCH (FLAGS (\\Seen) MODSEQ (5))", "2 OK <any>")


def test_where_it_is_not_on_no_modseq_is_told(imap):
    other = another(imap)
    said = []
    for command in ("STORE 1 +FLAGS (x)", "FETCH 1 (FLAGS BODY[])", "EXPUNGE", "MOVE 3 Sent", "FETCH 1:* FULL"):
        said += imap.ok(command)
        said += other.ok("NOOP")
    assert "MODSEQ" not in "".join(said)
    imap.step("1 STORE 1 +FLAGS.SILENT (\\Draft)", "1 OK <any>")


# --- where it is told ---


@pytest.fixture
def condstore(imap):
    imap.enable("CONDSTORE")
    return imap


def test_store_tells_the_modseq_even_when_silent(condstore):
    imap = condstore
    imap.step("1 STORE 1 +FLAGS (\\Seen)", "* 1 FETCH (FLAGS (\\Seen) MODSEQ (5))", "1 OK <any>")
    imap.step("2 UID STORE 2 +FLAGS (\\Seen)", "* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (6))", "2 OK <any>")
    imap.step("3 STORE 1 +FLAGS.SILENT (\\Draft)", "* 1 FETCH (MODSEQ (7))", "3 OK <any>")
    imap.step("4 UID STORE 1 +FLAGS.SILENT (\\Draft)", "* 1 FETCH (UID 1 MODSEQ (7))", "4 OK <any>")


def test_reading_a_message_tells_its_modseq_and_asking_for_flags_does_not(condstore):
    imap = condstore
    imap.step(
        "1 FETCH 2 RFC822.TEXT", "* 2 FETCH (RFC822.TEXT {6}", "body", " FLAGS (\\Seen) MODSEQ (5))", "1 OK <any>"
    )
    imap.step("2 FETCH 2 FLAGS", "* 2 FETCH (FLAGS (\\Seen))", "2 OK <any>")
    imap.step("3 FETCH 2 (FLAGS MODSEQ)", "* 2 FETCH (FLAGS (\\Seen) MODSEQ (5))", "3 OK <any>")
    imap.step(
        "4 FETCH 3 (MODSEQ RFC822.TEXT)",
        "* 3 FETCH (MODSEQ (6) RFC822.TEXT {6}",
        "body",
        " FLAGS (\\Seen))",
        "4 OK <any>",
    )


def test_expunge_and_move_tell_the_highest(condstore):
    imap = condstore
    imap.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert imap.code("EXPUNGE") == f"HIGHESTMODSEQ {now(imap)}"
    assert imap.code("EXPUNGE") == ""
    assert imap.code("MOVE 1 Sent") == f"HIGHESTMODSEQ {now(imap)}"
    assert imap.code("UID EXPUNGE 99") == ""


def test_a_new_keyword_is_named_before_the_row(condstore):
    condstore.step(
        "1 STORE 1 +FLAGS ($New)",
        f"* FLAGS ({FLAGS} $New)",
        f"* OK [PERMANENTFLAGS ({FLAGS} $New \\*)] <any>",
        "* 1 FETCH (FLAGS ($New) MODSEQ (5))",
        "1 OK <any>",
    )


# --- CHANGEDSINCE ---


def test_changed_since_tells_what_changed_later_with_its_modseq(condstore):
    imap = condstore
    imap.step("1 FETCH 1:* (FLAGS) (CHANGEDSINCE 3)", "* 3 FETCH (FLAGS () MODSEQ (4))", "1 OK <any>")
    imap.step(
        "2 UID FETCH 1:* FLAGS (CHANGEDSINCE 2)",
        *(f"* {n} FETCH (UID {n} FLAGS () MODSEQ ({n + 1}))" for n in (2, 3)),
        "2 OK <any>",
    )
    imap.step("3 FETCH 3 (FLAGS) (CHANGEDSINCE 4)", "3 OK <any>")
    imap.step("4 FETCH * (UID MODSEQ) (CHANGEDSINCE 1)", "* 3 FETCH (UID 3 MODSEQ (4))", "4 OK <any>")
    imap.step("5 FETCH 1:* (FLAGS) (CHANGEDSINCE 9223372036854775807)", "5 OK <any>")


@pytest.mark.parametrize(
    "modifiers",
    ["()", "(CHANGEDSINCE)", "(CHANGEDSINCE x)", "(CHANGEDSINCE -1)", "(CHANGEDSINCE 9223372036854775808)", "(COLOUR)",
     "(CHANGEDSINCE 1", "CHANGEDSINCE 1", "(CHANGEDSINCE 1 VANISHED)", "(VANISHED)"],
)  # fmt: skip
def test_malformed_modifiers_of_fetch_are_bad(condstore, modifiers):
    condstore.step(f"1 FETCH 1 (FLAGS) {modifiers}", "1 BAD <any>")
    condstore.step(f"2 UID FETCH 1 (FLAGS) {modifiers}", "2 BAD <any>")


# --- UNCHANGEDSINCE ---


def test_unchanged_since_stores_where_nobody_has_changed(condstore):
    imap = condstore
    imap.step(
        "1 STORE 1:3 (UNCHANGEDSINCE 3) +FLAGS (\\Seen)",
        "* 1 FETCH (FLAGS (\\Seen) MODSEQ (5))",
        "* 2 FETCH (FLAGS (\\Seen) MODSEQ (6))",
        "1 OK [MODIFIED 3] <any>",
    )
    assert imap.inbox.flags(3) == frozenset()


def test_modified_has_uids_where_the_command_had(condstore):
    imap = condstore
    imap.inbox.expunge(imap.inbox.uids.between(1, 1))
    imap.ok("NOOP")
    imap.step("1 UID STORE 2:3 (UNCHANGEDSINCE 3) +FLAGS.SILENT (x)", *["<any>"] * 3, "1 OK [MODIFIED 3] <any>")
    imap.step("2 STORE 2 (UNCHANGEDSINCE 3) +FLAGS.SILENT (x)", "2 OK [MODIFIED 2] <any>")


def test_unchanged_since_zero_never_stores(condstore):
    condstore.step("1 STORE 1:* (UNCHANGEDSINCE 0) +FLAGS (x)", "1 OK [MODIFIED 1:3] <any>")


def test_a_message_named_twice_does_not_fail_itself(condstore):
    condstore.step(
        "1 STORE 1,1,1:1 (UNCHANGEDSINCE 2) +FLAGS (\\Seen)",
        "* 1 FETCH (FLAGS (\\Seen) MODSEQ (5))",
        "1 OK STORE <any>",
    )


def test_who_lost_the_race_is_told_the_winners_flags():
    first = selected(SHORT)
    second = another(first)
    for client in (first, second):
        client.enable("CONDSTORE")
    first.ok("STORE 1 (UNCHANGEDSINCE 2) +FLAGS (\\Flagged)")
    second.step(
        "1 STORE 1 (UNCHANGEDSINCE 2) +FLAGS (\\Seen)",
        "* 1 FETCH (FLAGS (\\Flagged) MODSEQ (3))",
        "1 OK [MODIFIED 1] <any>",
    )


@pytest.mark.parametrize(
    "words", ["()", "(UNCHANGEDSINCE)", "(UNCHANGEDSINCE x)", "(COLOUR 1)", "(UNCHANGEDSINCE 1 2)", "(UNCHANGEDSINCE 1"]
)
def test_malformed_modifiers_of_store_are_bad(condstore, words):
    condstore.step(f"1 STORE 1 {words} +FLAGS (x)", "1 BAD <any>")
    assert condstore.inbox.flags(1) == frozenset()


# --- SEARCH MODSEQ ---


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("MODSEQ 3", "* SEARCH 2 3 (MODSEQ 4)"),
        ("MODSEQ 3 2", "* SEARCH 2 (MODSEQ 3)"),
        ("MODSEQ 0", "* SEARCH 1 2 3 (MODSEQ 4)"),
        ("MODSEQ 1", "* SEARCH 1 2 3 (MODSEQ 4)"),
        ("MODSEQ 5", "* SEARCH"),
        ("NOT MODSEQ 3", "* SEARCH 1 (MODSEQ 2)"),
        ("OR MODSEQ 4 1", "* SEARCH 1 3 (MODSEQ 4)"),
        ('MODSEQ "/flags/\\\\Seen" all 3', "* SEARCH 2 3 (MODSEQ 4)"),
        ('MODSEQ "/flags/\\\\draft" priv 4', "* SEARCH 3 (MODSEQ 4)"),
        ("RETURN (MIN) MODSEQ 1", '* ESEARCH (TAG "1") MIN 1 MODSEQ 2'),
        ("RETURN (MAX) MODSEQ 1", '* ESEARCH (TAG "1") MAX 3 MODSEQ 4'),
        ("RETURN (MIN MAX) MODSEQ 1", '* ESEARCH (TAG "1") MIN 1 MAX 3 MODSEQ 4'),
        ("RETURN (MIN COUNT) MODSEQ 1", '* ESEARCH (TAG "1") MIN 1 COUNT 3 MODSEQ 4'),
        ("RETURN () MODSEQ 3", '* ESEARCH (TAG "1") ALL 2:3 MODSEQ 4'),
        ("RETURN (COUNT) MODSEQ 9", '* ESEARCH (TAG "1") COUNT 0'),
        ("RETURN () ALL", '* ESEARCH (TAG "1") ALL 1:3'),
    ],
)
def test_search_by_modseq_tells_the_highest_of_what_it_shows(condstore, keys, line):
    condstore.step(f"1 SEARCH {keys}", line, "1 OK <any>")


@pytest.mark.parametrize(
    "keys",
    [
        "MODSEQ",
        "MODSEQ x",
        "MODSEQ -1",
        "MODSEQ 9223372036854775808",
        'MODSEQ "/flags/x" some 1',
        'MODSEQ "/flags/x" 1',
    ],
)
def test_a_malformed_modseq_key_is_bad(condstore, keys):
    condstore.step(f"1 SEARCH {keys}", "1 BAD <any>")


# --- QRESYNC: SELECT ---


@pytest.fixture
def changed(imap):
    """2 was expunged, 3 was flagged, 4 came: since mod-sequence 4."""
    imap.inbox.expunge(imap.inbox.uids.between(2, 2))
    imap.inbox.set_flags(3, {"$Work"})
    imap.store.deliver([USER], SHORT)
    client = Transcript(imap.store).login()
    client.enable("QRESYNC")
    return client


def uidvalidity(client):
    return client.inbox.uidvalidity


def test_select_tells_what_vanished_and_what_changed_since(changed):
    assert resync(changed, f"({uidvalidity(changed)} 4)") == [
        "* VANISHED (EARLIER) 2",
        "* 2 FETCH (UID 3 FLAGS ($Work) MODSEQ (6))",
        "* 3 FETCH (UID 4 FLAGS (\\Recent) MODSEQ (7))",
    ]


def test_keywords_are_named_before_the_rows_that_show_them(changed):
    lines = changed.ok(f"SELECT INBOX (QRESYNC ({uidvalidity(changed)} 4))")
    assert lines[0] == f"* FLAGS ({FLAGS} $Work)"


@pytest.mark.parametrize(
    ("since", "told"),
    [
        ("0", "VANISHED 2|1 3 4"),
        ("1", "VANISHED 2|1 3 4"),
        ("2", "VANISHED 2|3 4"),
        ("5", "|3 4"),
        ("6", "|4"),
        ("7", "|"),
        ("999", "|"),
    ],
)
def test_what_is_told_depends_on_the_mod_sequence(changed, since, told):
    lines = resync(changed, f"({uidvalidity(changed)} {since})")
    vanished = [line.removeprefix("* VANISHED (EARLIER) ") for line in lines if "VANISHED" in line]
    uids = " ".join(re.search(r"UID (\d+)", line)[1] for line in lines if "FETCH" in line)
    assert f"{'VANISHED ' + vanished[0] if vanished else ''}|{uids}" == told


@pytest.mark.parametrize(
    ("known", "told"),
    [("1:4", "VANISHED 2|3 4"), ("2", "VANISHED 2|"), ("1,3", "|3"), ("1", "|"), ("1:99", "VANISHED 2|3 4")],
)
def test_the_client_may_name_the_uids_that_it_knows(changed, known, told):
    lines = resync(changed, f"({uidvalidity(changed)} 4 {known})")
    vanished = [line.removeprefix("* VANISHED (EARLIER) ") for line in lines if "VANISHED" in line]
    uids = " ".join(re.search(r"UID (\d+)", line)[1] for line in lines if "FETCH" in line)
    assert f"{'VANISHED ' + vanished[0] if vanished else ''}|{uids}" == told


def test_the_client_may_name_numbers_and_their_uids(changed):
    expected = resync(changed, f"({uidvalidity(changed)} 4)")
    changed.ok("CLOSE")
    without_recent = [line.replace("\\Recent", "") for line in expected]
    assert resync(changed, f"({uidvalidity(changed)} 4 1:4 (1,3 1,3))") == without_recent
    changed.ok("CLOSE")
    assert resync(changed, f"({uidvalidity(changed)} 4 (1,3 1,3))") == without_recent


def test_another_uidvalidity_makes_it_a_plain_select(changed):
    assert resync(changed, f"({uidvalidity(changed) + 1} 4)") == []
    assert changed.session.state == "selected"


def test_examine_resynchronises_too(changed):
    lines = changed.ok(f"EXAMINE INBOX (QRESYNC ({uidvalidity(changed)} 4))")
    assert "* VANISHED (EARLIER) 2" in lines


@pytest.mark.parametrize(
    "arguments",
    ["", "()", "(1)", "1 2", "(1 x)", "(x 1)", "(1 2 *)", "(1 2 1:*)", "(1 2 $)", "(1 2 (1))", "(1 2 (1:* 1))",
     "(1 2 1 (1 1)", "(1 2 1 1)", "(1 2 (1 1) 1)", "(1 2 )", "(1 9223372036854775808)"],
)  # fmt: skip
def test_malformed_parameters_of_qresync_are_bad(changed, arguments):
    changed.step(f"1 SELECT INBOX (QRESYNC {arguments})", "1 BAD <any>")
    assert changed.session.state == "authenticated"


def test_qresync_without_enable_is_bad(imap):
    imap.enable("CONDSTORE")
    imap.step("1 SELECT INBOX (QRESYNC (1 2))", "1 BAD <any>")


def test_condstore_and_qresync_may_be_asked_for_together(changed):
    changed.ok(f"SELECT INBOX (CONDSTORE QRESYNC ({uidvalidity(changed)} 4))")


# --- QRESYNC: VANISHED ---


@pytest.fixture
def qresync(imap):
    imap.enable("QRESYNC")
    return imap


def test_own_expunges_are_vanished_in_ranges(qresync):
    imap = qresync
    imap.ok("STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    imap.step("1 EXPUNGE", "* VANISHED 1:2", "1 OK [HIGHESTMODSEQ <any>] <any>")
    imap.step("2 MOVE 1 Sent", "* OK [COPYUID <any> 3 1] <any>", "* VANISHED 3", "2 OK [HIGHESTMODSEQ <any>] <any>")


def test_others_expunges_are_vanished_too_when_they_may_be_told(qresync):
    imap = qresync
    imap.inbox.expunge(imap.inbox.uids.between(2, 2))
    imap.step("1 FETCH 3 UID", "* 3 FETCH (UID 3)", "1 OK <any>")
    imap.step("2 NOOP", "* VANISHED 2", "2 OK <any>")
    imap.step("3 IDLE", "+ idling")
    imap.inbox.expunge(imap.inbox.uids.between(3, 3))
    imap.told("* VANISHED 3")


def test_rows_that_nobody_asked_for_have_the_uid_and_plain_answers_have_not(qresync):
    imap = qresync
    imap.inbox.set_flags(2, {"\\Seen"})
    imap.step("1 NOOP", "* 2 FETCH (UID 2 FLAGS (\\Seen) MODSEQ (5))", "1 OK <any>")
    imap.step("2 STORE 2 +FLAGS (\\Draft)", "* 2 FETCH (UID 2 FLAGS (\\Draft \\Seen) MODSEQ (6))", "2 OK <any>")
    imap.step("3 STORE 2 -FLAGS.SILENT (\\Draft)", "* 2 FETCH (UID 2 MODSEQ (7))", "3 OK <any>")
    imap.step("4 FETCH 2 FLAGS", "* 2 FETCH (FLAGS (\\Seen))", "4 OK <any>")


def test_uid_fetch_tells_what_vanished_since_within_the_set(qresync):
    imap = qresync
    imap.inbox.expunge(imap.inbox.uids.between(1, 2))
    imap.ok("NOOP")
    rows = ["* 1 FETCH (UID 3 FLAGS () MODSEQ (4))", "1 OK <any>"]
    imap.step("1 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", "* VANISHED (EARLIER) 1:2", *rows)
    imap.step("1 UID FETCH 2:300 (FLAGS) (VANISHED CHANGEDSINCE 1)", "* VANISHED (EARLIER) 2", *rows)
    imap.step("2 UID FETCH 3:* (FLAGS) (CHANGEDSINCE 4 VANISHED)", "2 OK <any>")
    imap.step("3 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 99 VANISHED)", "3 OK <any>")


def test_uid_fetch_of_a_saved_result_may_tell_what_vanished(qresync):
    imap = qresync
    imap.ok("SEARCH RETURN (SAVE) 1:2")
    imap.inbox.expunge(imap.inbox.uids.between(2, 3))
    imap.ok("NOOP")
    imap.step(
        "1 UID FETCH $ (FLAGS) (CHANGEDSINCE 1 VANISHED)",
        "* VANISHED (EARLIER) 2",
        "* 1 FETCH (UID 1 FLAGS () MODSEQ (2))",
        "1 OK <any>",
    )


def test_what_the_session_was_not_told_yet_is_no_earlier_one(qresync):
    imap = qresync
    imap.inbox.expunge(imap.inbox.uids.between(2, 2))
    imap.step(
        "1 UID FETCH 1:* (UID) (CHANGEDSINCE 1 VANISHED)",
        "* 1 FETCH (UID 1 MODSEQ (2))",
        "* 3 FETCH (UID 3 MODSEQ (4))",
        "* VANISHED 2",
        "1 OK <any>",
    )


@pytest.mark.parametrize(
    "command",
    [
        "UID FETCH 1 (FLAGS) (VANISHED)",
        "FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)",
        "FETCH 1 (FLAGS) (VANISHED CHANGEDSINCE 1)",
    ],
)
def test_vanished_needs_uid_fetch_and_changed_since(qresync, command):
    qresync.step(f"1 {command}", "1 BAD <any>")


def test_vanished_needs_to_be_enabled(condstore):
    condstore.step("1 UID FETCH 1 (FLAGS) (CHANGEDSINCE 1 VANISHED)", "1 BAD <any>")


def test_enabled_comes_before_any_vanished_in_a_pipeline():
    client = selected(SHORT)
    client.inbox.set_flags(1, {DELETED})
    lines = client.lines("1 ENABLE QRESYNC\r\n2 EXPUNGE")
    assert lines.index("* ENABLED QRESYNC") < lines.index("* VANISHED 1")


def test_nothing_is_kept_on_after_the_connection_ends(qresync):
    client = another(qresync)
    client.inbox.expunge(client.inbox.uids.between(1, 1))
    client.step("1 NOOP", "* 1 EXPUNGE", "1 OK <any>")
