"""Every capability switched off: what it brings is gone and not offered, and everything else works as before."""

from __future__ import annotations

import pytest
from imap_transcript import MAIL, PASSWORD, SHORT, USER, Transcript, plain, selected

from fakemail.imap_protocol import CAPABILITIES, ImapOptions, without
from fakemail.imap_protocol.offer import AFTER_LOGIN, ALWAYS, BEFORE_LOGIN, NEEDS
from fakemail.mailbox import DELETED

#: Everything but IMAP itself and what says no.
SWITCHES = sorted(set(CAPABILITIES) - {"IMAP4rev1", "LOGINDISABLED"})
#: A command that must succeed with INBOX selected, and the capabilities without which it must be BAD.
COMMANDS = [
    ("CAPABILITY", ""),
    ("NOOP", ""),
    ("ID NIL", "ID"),
    ("ENABLE FOO", "ENABLE"),
    ("ENABLE CONDSTORE", "ENABLE"),
    ("NAMESPACE", "NAMESPACE"),
    ("CREATE box", ""),
    ("CREATE box (USE (\\All))", "CREATE-SPECIAL-USE"),
    ("DELETE Trash", ""),
    ("RENAME Sent Gone", ""),
    ("SUBSCRIBE Sent", ""),
    ("UNSUBSCRIBE Sent", ""),
    ('LIST "" *', ""),
    ('LSUB "" *', ""),
    ('LIST () "" *', "LIST-EXTENDED"),
    ('LIST "" (* %)', "LIST-EXTENDED"),
    ('LIST (SUBSCRIBED) "" *', "LIST-EXTENDED"),
    ('LIST (SUBSCRIBED RECURSIVEMATCH) "" *', "LIST-EXTENDED"),
    ('LIST "" * RETURN ()', "LIST-EXTENDED"),
    ('LIST "" * RETURN (CHILDREN SUBSCRIBED)', "LIST-EXTENDED"),
    ('LIST (SPECIAL-USE) "" *', "LIST-EXTENDED SPECIAL-USE"),
    ('LIST "" * RETURN (SPECIAL-USE)', "LIST-EXTENDED SPECIAL-USE"),
    ('LIST "" * RETURN (STATUS (MESSAGES))', "LIST-EXTENDED LIST-STATUS"),
    ("STATUS INBOX (MESSAGES RECENT UIDNEXT UIDVALIDITY UNSEEN)", ""),
    ("STATUS INBOX (SIZE)", "STATUS=SIZE"),
    ("STATUS INBOX (HIGHESTMODSEQ)", "CONDSTORE"),
    ("APPEND INBOX {1+}\r\nx", "LITERAL+"),
    ("APPEND INBOX {1+}\r\nx {1+}\r\ny", "LITERAL+ MULTIAPPEND"),
    ("SELECT INBOX", ""),
    ("EXAMINE INBOX", ""),
    ("SELECT INBOX (CONDSTORE)", "CONDSTORE"),
    ("CHECK", ""),
    ("CLOSE", ""),
    ("UNSELECT", "UNSELECT"),
    ("EXPUNGE", ""),
    ("UID EXPUNGE 1", "UIDPLUS"),
    ("SEARCH ALL", ""),
    ("UID SEARCH ALL", ""),
    ("SEARCH RETURN () ALL", "ESEARCH"),
    ("SEARCH RETURN (SAVE) ALL", "ESEARCH SEARCHRES"),
    ("FETCH $ UID", "SEARCHRES"),
    ("SEARCH $", "SEARCHRES"),
    ("SEARCH UID $", "SEARCHRES"),
    ("UID STORE $ FLAGS (x)", "SEARCHRES"),
    ("COPY $ Sent", "SEARCHRES"),
    ("SEARCH MODSEQ 1", "CONDSTORE"),
    ("SORT (SIZE) UTF-8 ALL", "SORT"),
    ("UID SORT (SIZE) UTF-8 ALL", "SORT"),
    ("SORT (SIZE) UTF-8 $", "SORT SEARCHRES"),
    ("SORT (SIZE) UTF-8 MODSEQ 1", "SORT CONDSTORE"),
    ("THREAD REFERENCES UTF-8 ALL", "THREAD=REFERENCES"),
    ("UID THREAD ORDEREDSUBJECT UTF-8 ALL", "THREAD=ORDEREDSUBJECT"),
    ("FETCH 1 (FLAGS UID BODY.PEEK[])", ""),
    ("UID FETCH 1 FULL", ""),
    ("FETCH 1 MODSEQ", "CONDSTORE"),
    ("FETCH 1 BINARY.PEEK[1]", "BINARY"),
    ("FETCH 1 BINARY.SIZE[1]", "BINARY"),
    ("APPEND INBOX ~{1+}\r\nx", "LITERAL+ BINARY"),
    ("FETCH 1 FLAGS (CHANGEDSINCE 1)", "CONDSTORE"),
    ("STORE 1 +FLAGS (x)", ""),
    ("UID STORE 1 FLAGS ()", ""),
    ("STORE 1 (UNCHANGEDSINCE 1) FLAGS ()", "CONDSTORE"),
    ("COPY 1 Sent", ""),
    ("UID COPY 1 Sent", ""),
    ("MOVE 1 Sent", "MOVE"),
    ("UID MOVE 1 Sent", "MOVE"),
    ("LOGOUT", ""),
]


def client(capability):
    made = selected(MAIL, SHORT, off=[capability])
    made.inbox.set_flags(2, {DELETED})
    made.ok("NOOP")
    return made


@pytest.mark.parametrize("capability", [*SWITCHES, "NONE"])
def test_a_command_is_bad_without_a_capability_that_it_needs_and_works_without_any_other(capability):
    off = without(frozenset({capability}))
    wrong = {}
    for line, needs in COMMANDS:
        answer = client(capability).lines(f"1 {line}")[-1]
        if not answer.startswith("1 BAD" if off & set(needs.split()) else "1 OK"):
            wrong[line] = answer
    assert not wrong


@pytest.mark.parametrize("capability", SWITCHES)
def test_what_is_switched_off_is_not_offered_and_nothing_else_is_lost(capability):
    options = ImapOptions(without=without(frozenset({capability})), starttls=True)
    usual = Transcript(options=ImapOptions(starttls=True))
    less = Transcript(options=options)
    for _ in range(2):
        before, after = (set(each.ok("CAPABILITY")[0].split()) for each in (usual, less))
        assert before - after == options.without & before
        assert after <= before
        for each in (usual, less):
            if each.session.state == "not authenticated":
                each.login()


def test_every_capability_can_be_met_somewhere():
    assert set(ALWAYS) | set(BEFORE_LOGIN) | set(AFTER_LOGIN) == set(CAPABILITIES)
    needed = {name for _, needs in COMMANDS for name in needs.split()}
    elsewhere = {"SASL-IR", "STARTTLS", "AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER", "CHILDREN", "IDLE", "QRESYNC"}
    assert needed | elsewhere | {"SPECIAL-USE"} == set(SWITCHES)


def test_what_needs_another_goes_with_it():
    assert without(frozenset({"CONDSTORE"})) == {"CONDSTORE", "QRESYNC"}
    assert without(frozenset({"ENABLE"})) == {"ENABLE", "QRESYNC"}
    assert without(frozenset({"LIST-EXTENDED"})) == {"LIST-EXTENDED", "LIST-STATUS"}
    assert without(frozenset({"IDLE"})) == {"IDLE"}
    assert set(NEEDS) <= set(CAPABILITIES)


# --- those that show elsewhere ---


def test_without_idle_there_is_no_idling():
    client("IDLE").step("1 IDLE", "1 BAD <any>")
    other = client("MOVE")
    other.step("1 IDLE", "+ idling")
    other.step("DONE", "1 OK <any>")


def test_without_children_no_flag_tells_of_them_unless_asked():
    made = client("CHILDREN")
    assert "Children" not in "".join(made.ok('LIST "" *'))
    assert "\\HasNoChildren" in "".join(made.ok('LIST "" * RETURN (CHILDREN)'))


def test_without_special_use_no_flag_tells_of_it():
    assert "\\Sent" not in "".join(client("SPECIAL-USE").ok('LIST "" *'))


def test_without_uidplus_no_uids_are_told():
    made = client("UIDPLUS")
    made.step("1 APPEND INBOX {1+}\r\nx", "* 3 EXISTS", "* 1 RECENT", "1 OK APPEND <any>")
    made.step("2 COPY 1 Sent", "2 OK COPY <any>")
    made.step("3 MOVE 1 Sent", "* 1 EXPUNGE", "3 OK MOVE <any>")


@pytest.mark.parametrize("command", ["SELECT INBOX", "SELECT nowhere", "EXAMINE INBOX", "DELETE Sent"])
def test_without_condstore_nothing_speaks_of_it(command):
    made = client("CONDSTORE")
    if "DELETE" in command:
        made.select("Sent")
    said = "".join(made.lines(f"1 {command}"))
    assert "MODSEQ" not in said
    assert "CLOSED" not in said
    made.step("2 ENABLE CONDSTORE QRESYNC", "* ENABLED", "2 OK <any>")


def test_without_qresync_condstore_is_all_there():
    made = client("QRESYNC")
    made.step("1 ENABLE QRESYNC", "* ENABLED", "1 OK <any>")
    made.step("2 SELECT INBOX (QRESYNC (1 2))", "2 BAD <any>")
    made.step("3 UID FETCH 1:* (FLAGS) (CHANGEDSINCE 1 VANISHED)", "3 BAD <any>")
    made.step("4 FETCH 1 MODSEQ", "* OK [HIGHESTMODSEQ <any>] <any>", "* 1 FETCH (MODSEQ (2))", "4 OK <any>")
    made.step("5 EXPUNGE", "* 2 EXPUNGE", "5 OK <any>")


def test_with_everything_qresync_can_be_enabled():
    made = client("IDLE")
    made.ok("ENABLE QRESYNC")
    made.step("1 EXPUNGE", "* VANISHED 2", "1 OK <any>")


def test_without_sasl_ir_the_response_has_to_wait():
    made = Transcript(off=["SASL-IR"])
    made.step(f"1 AUTHENTICATE PLAIN {plain('', USER, PASSWORD)}", "1 BAD <any>")
    made.step("2 AUTHENTICATE PLAIN", "+ ")
    made.step(plain("", USER, PASSWORD), "2 OK <any>")


@pytest.mark.parametrize("mechanism", ["PLAIN", "XOAUTH2", "OAUTHBEARER"])
def test_without_a_mechanism_it_is_refused_and_others_work(mechanism):
    made = Transcript(off=[f"AUTH={mechanism}"])
    made.step(f"1 AUTHENTICATE {mechanism}", "1 NO <any>")
    made.step(f"2 AUTHENTICATE {'XOAUTH2' if mechanism == 'PLAIN' else 'PLAIN'}", "+ ")
    made.step("*", "2 BAD <any>")
    made.login()


def test_without_starttls_there_is_none():
    made = Transcript(options=ImapOptions(without=frozenset({"STARTTLS"}), starttls=True))
    made.step("1 STARTTLS", "1 BAD <any>")
    assert made.events == []
