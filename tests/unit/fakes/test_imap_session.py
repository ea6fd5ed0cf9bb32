"""States, tags, pipelining and the small commands of the IMAP core (RFC 3501 sections 3, 5.5, 6.1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imap_transcript import MAIL, PASSWORD, SHORT, USER, Transcript, another, selected

from fakemail.imap_protocol import COMMANDS, TRANSITIONS

NOT_AUTHENTICATED, AUTHENTICATED, SELECTED = "not authenticated", "authenticated", "selected"
STATES = {
    NOT_AUTHENTICATED: Transcript,
    AUTHENTICATED: lambda: Transcript().login(),
    SELECTED: lambda: selected(MAIL, SHORT),
}
#: Each command with arguments that make it succeed.
COMPLETE = {
    "CAPABILITY": "CAPABILITY",
    "NOOP": "NOOP",
    "LOGOUT": "LOGOUT",
    "ID": "ID NIL",
    "LOGIN": f"LOGIN {USER} {PASSWORD}",
    "ENABLE": "ENABLE CONDSTORE",
    "SELECT": "SELECT INBOX",
    "EXAMINE": "EXAMINE INBOX",
    "CREATE": "CREATE box",
    "DELETE": "DELETE Trash",
    "RENAME": "RENAME Sent Gone",
    "SUBSCRIBE": "SUBSCRIBE INBOX",
    "UNSUBSCRIBE": "UNSUBSCRIBE INBOX",
    "LIST": 'LIST "" *',
    "LSUB": 'LSUB "" *',
    "STATUS": "STATUS INBOX (MESSAGES)",
    "APPEND": "APPEND INBOX {1+}\r\nx",
    "NAMESPACE": "NAMESPACE",
    "CHECK": "CHECK",
    "CLOSE": "CLOSE",
    "UNSELECT": "UNSELECT",
    "EXPUNGE": "EXPUNGE",
    "SEARCH": "SEARCH ALL",
    "SORT": "SORT (ARRIVAL) UTF-8 ALL",
    "THREAD": "THREAD REFERENCES UTF-8 ALL",
    "FETCH": "FETCH 1 FLAGS",
    "STORE": "STORE 1 +FLAGS (x)",
    "COPY": "COPY 1 Sent",
    "MOVE": "MOVE 1 Sent",
    "UID": "UID FETCH 1 FLAGS",
}
#: Those that need a second line or a server that can more.
ELSEWHERE = {"AUTHENTICATE", "STARTTLS", "IDLE"}


def test_every_command_of_the_table_is_tried():
    assert COMPLETE.keys() | ELSEWHERE == TRANSITIONS.keys()
    assert all(row.section.startswith("RFC ") for row in COMMANDS.values())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", sorted(COMPLETE))
def test_a_command_works_in_its_states_and_is_bad_in_any_other(command, state):
    client = STATES[state]()
    answer = client.lines(f"1 {COMPLETE[command]}")[-1]
    assert answer.split()[:2] == ["1", "OK" if state in TRANSITIONS[command] else "BAD"], answer
    if command != "LOGOUT":
        assert client.lines("2 NOOP")[-1].startswith("2 OK ")


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("command", sorted(TRANSITIONS))
def test_a_command_out_of_its_state_is_bad_before_its_arguments_are_looked_at(command, state):
    client = STATES[state]()
    if state not in TRANSITIONS[command]:
        client.step(f"1 {command}", "1 BAD <any>")
        client.step(f'1 {command} ((( "', "1 BAD <any>")
        assert client.session.state == state


#: Those whose last argument may go on.
OPEN_ENDED = {"LOGIN", "APPEND", "LOGOUT", "FETCH", "STORE", "ENABLE", "SEARCH", "SORT", "THREAD"}


@pytest.mark.parametrize("command", sorted(set(COMPLETE) - OPEN_ENDED))
def test_a_word_too_many_is_bad_and_nothing_happens(command):
    state = next(state for state in reversed(STATES) if state in TRANSITIONS[command])
    client = STATES[state]()
    before = (client.account.names, client.account.subscribed, client.inbox.uids, client.session.state)
    client.step(f"1 {COMPLETE[command]} more", "1 BAD <any>")
    assert before == (client.account.names, client.account.subscribed, client.inbox.uids, client.session.state)


# --- greeting, capability, logout, id ---


def test_the_greeting_names_the_capabilities():
    greeting = Transcript().session.greeting()
    assert greeting.startswith(b"* OK [CAPABILITY IMAP4rev1 ")
    assert greeting.endswith(b"] fakemail is ready\r\n")


def test_capabilities_differ_before_and_after_login():
    client = Transcript()
    before = client.ok("CAPABILITY")[0].split()[2:]
    after = client.login().ok("CAPABILITY")[0].split()[2:]
    assert {"IMAP4rev1", "LITERAL+", "SASL-IR", "AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER"} <= set(before)
    assert {"IMAP4rev1", "LITERAL+", "IDLE", "CONDSTORE", "QRESYNC", "MOVE", "LIST-STATUS"} <= set(after)
    assert not any(name.startswith("AUTH=") for name in after)
    assert "IDLE" not in before
    assert len(set(after)) == len(after)


def test_the_code_of_the_login_is_the_list_after_login():
    client = Transcript()
    code = client.code(f"LOGIN {USER} {PASSWORD}")
    assert client.ok("CAPABILITY") == [f"* {code}"]


def test_logout_says_goodbye_before_its_ok_and_closes():
    client = selected(SHORT)
    client.step("1 LOGOUT", "* BYE <any>", "1 OK <any>")
    assert client.closed
    assert not client.dropped
    assert not client.inbox.watchers
    assert client.send(b"2 NOOP\r\n") == b""


def test_what_is_pipelined_behind_logout_is_not_obeyed():
    client = Transcript().login()
    client.step("1 LOGOUT\r\n2 CREATE late", "* BYE <any>", "1 OK <any>")
    assert "late" not in client.account.names


@pytest.mark.parametrize("fields", ["NIL", '("name" "test" "version" NIL)', "()", '("a" {1+}\r\nx)', '( "a" "b" )'])
def test_id_is_answered_before_and_after_login(fields):
    client = Transcript()
    client.step(f"1 ID {fields}", '* ID ("name" "fakemail")', "1 OK <any>")
    client.login().step(f"2 ID {fields}", '* ID ("name" "fakemail")', "2 OK <any>")


def test_who_the_client_says_it_is_is_noted():
    client = Transcript()
    client.ok('ID ("name" "test" "version" NIL)')
    assert client.notes[-1]["client"] == {"name": "test", "version": None}


@pytest.mark.parametrize(
    "fields", ["", "x", "(x y)", '("a")', '("a" "b"', '("a" ("b"))', '("a" "b""c" "d")', '(  "a" "b")']
)
def test_a_malformed_id_is_bad(fields):
    Transcript().step(f"1 ID {fields}", "1 BAD <any>")


def test_id_has_at_most_thirty_fields():
    fields = " ".join(f'"k{number}" NIL' for number in range(30))
    client = Transcript()
    client.ok(f"ID ({fields})")
    client.step(f'1 ID ({fields} "more" NIL)', "1 BAD <any>")


def test_namespace_is_one_personal_one_without_a_prefix():
    Transcript().login().step("1 NAMESPACE", '* NAMESPACE (("" "/")) NIL NIL', "1 OK <any>")


# --- tags, case, malformed input ---


@pytest.mark.parametrize("tag", ["1", "a", "12.345", "A-b_c/d", "x" * 1000, "]"])
def test_a_tag_comes_back_as_it_was(tag):
    Transcript().step(f"{tag} NOOP", f"{tag} OK <any>")


@pytest.mark.parametrize(
    "line",
    ["", " ", "1", "+ NOOP", "a+b NOOP", "* NOOP", "( NOOP", '" NOOP', "é NOOP", "\\ NOOP", "x" * 1001 + " NOOP"],
)
def test_a_line_without_a_tag_is_untagged_bad(line):
    client = Transcript()
    client.step(line, "* BAD <any>")
    client.login()


@pytest.mark.parametrize(
    "line", ["1 NOOP extra", "1 NOOP ", "1 FLY", "1 LOGIN a", "1 UID FLY", "1  NOOP", "1 UID", "1 NOOP\r"]
)
def test_a_malformed_command_is_tagged_bad_and_the_session_goes_on(line):
    client = Transcript()
    client.step(line, "1 BAD <any>")
    client.login()


@pytest.mark.parametrize(
    "words", ['"', "(", "{", '{5}"x', "\\", 'x "y', "%", "]", "[x]", "''", "\x01", "\u00e9", "* {3}x"]
)
def test_text_for_people_has_nothing_that_a_parser_trips_over(words):
    client = Transcript().login()
    for command in ("FLY", "SELECT", "CREATE a*", "UID", "SEARCH", "LIST", "STATUS"):
        for line in client.lines(f"1 {command} {words}") if "{5}" not in words else ():
            text = line.partition("] ")[2] or line
            assert not set('"(){}[]\\%*') & set(text.partition(" ")[2]), line
            assert line.isascii()


def test_commands_are_understood_in_any_case():
    client = Transcript()
    client.step(f'1 lOgIn "{USER}" {PASSWORD}', "1 OK <any>")
    client.step("2 seLECT inbox", *["<any>"] * 7, "2 OK [READ-WRITE] <any>")
    client.step("3 uid search all", "* SEARCH", "3 OK <any>")


def test_every_ok_is_followed_by_text():
    for state in (AUTHENTICATED, SELECTED):
        for command in COMPLETE.values():
            lines = STATES[state]().lines(f"1 {command}")
            for line in lines:
                words = line.split()
                if words[1] == "OK":
                    text = line.partition("] ")[2] if words[2].startswith("[") else line.partition(" OK ")[2]
                    assert text.strip(), line


# --- arrival ---

CONVERSATION = (
    f'1 LOGIN "{USER}" {{{len(PASSWORD)}+}}\r\n{PASSWORD}\r\n2 SELECT INBOX\n3 UID SEARCH ALL\r\n'
    "4 APPEND Sent {3+}\r\na\r\n\r\n5 FETCH 1:* (FLAGS UID)\r\n6 FLY\r\n\r\n7 CREATE {1+}\r\nx\r\n"
    "8 IDLE\r\nDONE\r\n9 NOOP\r\n"
).encode()


def answer_in_pieces(*pieces):
    client = Transcript()
    client.store.store(client.inbox, SHORT)
    return b"".join(client.send(piece) for piece in pieces)


def test_however_the_bytes_arrive_the_answer_is_the_same():
    whole = answer_in_pieces(CONVERSATION)
    assert [line[:1] for line in whole.splitlines() if line[:1].isdigit()] == [b"%d" % n for n in range(1, 10)]
    for at in range(1, len(CONVERSATION)):
        assert answer_in_pieces(CONVERSATION[:at], CONVERSATION[at:]) == whole
    assert answer_in_pieces(*(bytes([byte]) for byte in CONVERSATION)) == whole


def test_pipelined_commands_are_answered_in_order_and_a_failure_stops_none():
    client = selected(SHORT)
    out = client.lines("1 NOOP\r\n2 UID SEARCH ALL\r\n3 CREATE INBOX\r\n4 FLY\r\n5 CHECK")
    assert [line.split()[0] for line in out] == ["1", "*", "2", "3", "4", "5"]


def test_a_literal_that_waits_gets_leave_each_time():
    client = Transcript().login()
    client.step("1 RENAME {4}", "+ <any>")
    client.step("Sent {3}", "+ <any>")
    client.step("Old", "1 OK <any>")
    client.step("2 RENAME {3+}\r\nOld {4+}\r\nSent", "2 OK <any>")


def test_no_news_come_between_the_leave_and_the_literal():
    client = selected(SHORT)
    client.step("1 APPEND Sent {5}", "+ <any>")
    client.store.deliver([USER], SHORT)
    client.told()
    client.step("hello", "* 2 EXISTS", "* 1 RECENT", "1 OK [APPENDUID <any>] <any>")


# --- whatever comes ---

WORDS = b"""1 ( ) " * : $ BODY[ ] <0.1> \\Seen FETCH UID SEARCH NOT OR STORE FLAGS APPEND LIST INBOX HEADER.FIELDS MIME
    1.2 0 99999999999 STATUS COPY MESSAGES 1:* BODYSTRUCTURE RETURN MODSEQ CHANGEDSINCE VANISHED QRESYNC SELECT ENABLE
    CONDSTORE SAVE ALL MIN (SUBSCRIBED) % MOVE EXPUNGE CREATE RENAME USE AUTHENTICATE IDLE DONE ID NIL CHARSET UTF-8
    SENTON 1-Jan-2024 KEYWORD UNCHANGEDSINCE +FLAGS.SILENT (x) ENVELOPE CLOSE UNSELECT &- &AP8-""".split()
SCRAPS = [*WORDS, b" ", b" ", b"{3}\r\n", b"{3+}\r\n", b"\r\n", b"\xff", b"\0"]


@given(st.lists(st.lists(st.sampled_from(SCRAPS), max_size=14), max_size=3))
@settings(deadline=None)
def test_no_input_breaks_the_core(lines):
    client = selected(MAIL, SHORT)
    client.enable("QRESYNC")
    for words in lines:
        client.send(b"x " + b" ".join(words) + b"\r\n")
        client.send(b"y " + b"".join(words) + b"\r\n")


@given(st.sampled_from(sorted(COMPLETE)), st.lists(st.sampled_from(WORDS), max_size=6))
@settings(deadline=None, max_examples=300)
def test_no_arguments_break_a_command(command, words):
    if command == "LOGOUT":
        return
    client = selected(MAIL, SHORT)
    client.enable("QRESYNC")
    client.send(b" ".join([b"x", command.encode(), *words]) + b"\r\n")
    client.send(b"\r\n\r\n")
    assert b"y OK" in client.send(b"\r\nDONE\r\ny NOOP\r\n")


def test_another_client_of_the_same_folder_is_never_disturbed_by_nonsense():
    first = selected(MAIL)
    second = another(first)
    first.send(b"x FETCH 1:* (((\r\n\r\n\x00\xff\r\n{5}\r\n")
    second.step("1 NOOP", "1 OK <any>")
