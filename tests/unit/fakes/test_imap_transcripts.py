"""The IMAP core, word for word. A failing step tells its own file and line."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imap_transcript import PASSWORD, USER, Transcript

from fakemail.imap_protocol import TRANSITIONS
from fakemail.mailbox import DELETED, SEEN

MAIL = (
    b"From: Ann =?utf-8?q?M=C3=BCller?= <ann@example.test>\r\nTo: bob@example.test, Carl <carl@example.test>\r\n"
    b'Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= "quoted"\r\nDate: Mon, 01 Jan 2024 10:00:00 +0000\r\n'
    b"Message-ID: <1@example.test>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n\r\n"
    b"--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\n\r\nwithin\r\n\r\n--b--\r\n"
)
SHORT = b"Subject: short\r\n\r\nbody\r\n"


@pytest.fixture
def fresh():
    return Transcript()


@pytest.fixture
def imap(fresh):
    """Selected INBOX: 1 is MAIL, 2 and 3 are SHORT."""
    for raw in (MAIL, SHORT, SHORT):
        fresh.store.store(fresh.inbox, raw)
    return fresh.login().select()


def second_client(first):
    return Transcript(first.store).login().select()


# --- login and states ---


def test_capabilities_differ_before_and_after_login(fresh):
    assert b"AUTH=PLAIN" in fresh.session.greeting()
    fresh.step("1 CAPABILITY", "* CAPABILITY IMAP4rev1 <any> AUTH=PLAIN", "1 OK <any>")
    fresh.login()
    fresh.step("2 CAPABILITY", "* CAPABILITY IMAP4rev1 <any>SPECIAL-USE", "2 OK <any>")


def test_login_takes_atoms_quoted_strings_and_literals(fresh):
    fresh.step(f'1 login "{USER}" {{{len(PASSWORD)}}}', "+ <any>")
    fresh.step(PASSWORD, "1 OK <any>")
    assert fresh.session.user == USER


def test_a_literal_plus_needs_no_leave(fresh):
    fresh.step(f"1 LOGIN {USER} {{{len(PASSWORD)}+}}\r\n{PASSWORD}", "1 OK <any>")


@pytest.mark.parametrize("words", [f"{USER} wrong", "nobody@example.test x", f'{USER} ""'])
def test_a_wrong_login_is_no_and_may_be_tried_again(fresh, words):
    fresh.step(f"1 LOGIN {words}", "1 NO [AUTHENTICATIONFAILED] <any>")
    fresh.login()
    assert [note["success"] for note in fresh.notes if note["kind"] == "login"] == [False, True]


def test_a_password_is_in_no_answer_and_no_note(fresh):
    answer = fresh.send(f'1 LOGIN {USER} "{PASSWORD}" more\r\n'.encode())
    assert answer.startswith(b"1 BAD")
    assert PASSWORD.encode() not in answer
    assert PASSWORD not in repr(fresh.login().notes)


def test_a_login_that_is_not_utf8_is_no(fresh):
    assert fresh.send(f"1 LOGIN {USER} ".encode() + b'"\xff\xfe"\r\n').startswith(b"1 NO")


def plain(*parts):
    return base64.b64encode("\0".join(parts).encode()).decode()


def test_authenticate_plain_with_and_without_an_initial_response(fresh):
    fresh.step(f"1 AUTHENTICATE PLAIN {plain('', USER, PASSWORD)}", "1 OK <any>")
    other = Transcript(fresh.store)
    other.step("1 AUTHENTICATE PLAIN", "+ ")
    other.step(plain("", USER, PASSWORD), "1 OK <any>")


@pytest.mark.parametrize("response", ["*", "=", "no base64!", plain("only", "two"), ""])
def test_a_broken_authenticate_is_bad_and_the_session_goes_on(fresh, response):
    fresh.step("1 AUTHENTICATE PLAIN", "+ ")
    fresh.step(response, "1 BAD <any>")
    fresh.login()


def test_only_plain_is_offered(fresh):
    fresh.step("1 AUTHENTICATE CRAM-MD5", "1 NO <any>")


@pytest.mark.parametrize("command", sorted(TRANSITIONS))
def test_a_command_out_of_its_state_is_bad(command):
    states = {"not authenticated": Transcript(), "authenticated": Transcript().login()}
    states["selected"] = Transcript().login().select()
    for state, client in states.items():
        if state not in TRANSITIONS[command]:
            client.step(f"1 {command}", "1 BAD <any>")


def test_logout_says_goodbye_and_closes(fresh):
    fresh.step("1 LOGOUT", "* BYE <any>", "1 OK <any>")
    assert fresh.closed
    assert fresh.send(b"2 NOOP\r\n") == b""


def test_small_commands(fresh):
    fresh.step('1 ID ("name" "test" "version" NIL)', '* ID ("name" "fakemail")', "1 OK <any>")
    fresh.login()
    fresh.step("2 NAMESPACE", '* NAMESPACE (("" "/")) NIL NIL', "2 OK <any>")
    fresh.step("3 ENABLE CONDSTORE", "* ENABLED", "3 OK <any>")
    fresh.step("4 NOOP", "4 OK <any>")


# --- malformed input ---


@pytest.mark.parametrize(
    "line", ["", " ", "1", "1 ", "+ NOOP", "1 NOOP extra", "1 FLY", "1 LOGIN a", "1 UID FLY", "1  NOOP", "é NOOP"]
)
def test_a_malformed_line_is_bad_and_the_session_goes_on(fresh, line):
    answer = fresh.send(line.encode() + b"\r\n")
    assert b" BAD " in answer
    assert answer.count(b"\r\n") == 1
    fresh.login()


def test_bytes_may_arrive_one_by_one(fresh):
    out = b"".join(fresh.send(bytes([byte])) for byte in f"1 LOGIN {USER} {PASSWORD}\r\n2 NOOP\r\n".encode())
    assert [line.split()[:2] for line in out.splitlines()] == [[b"1", b"OK"], [b"2", b"OK"]]


def test_pipelined_commands_are_answered_in_order(imap):
    out = imap.send(b"1 NOOP\r\n2 UID SEARCH ALL\r\n3 CHECK\r\n")
    assert [line.split()[0] for line in out.splitlines()] == [b"1", b"*", b"2", b"3"]


def test_a_line_without_end_is_refused(fresh):
    assert b"1 BAD" in fresh.send(b"1 NOOP " + b"x" * 70_000)
    assert fresh.closed


def test_a_line_without_end_is_refused_in_authenticate_and_idle(fresh):
    fresh.step("1 AUTHENTICATE PLAIN", "+ ")
    assert b"1 BAD" in fresh.send(b"x" * 70_000)
    idle = Transcript().login()
    idle.step("2 IDLE", "+ idling")
    assert b"2 BAD" in idle.send(b"x" * 70_000)


def test_a_giant_literal_is_refused_before_it_is_sent(fresh):
    assert b"1 BAD" in fresh.send(b"1 LOGIN a {999999999999}\r\n")
    assert fresh.closed


def test_literals_have_a_limit_together(fresh):
    sent = fresh.send(b"1 LOGIN {40000000+}\r\n" + b"x" * 40_000_000 + b" {40000000+}\r\n")
    assert b"1 BAD" in sent


WORDS = b"""1 ( ) " * : BODY[ ] <0.1> \\Seen FETCH UID SEARCH NOT OR STORE FLAGS APPEND LIST INBOX HEADER.FIELDS MIME
    1.2 0 99999999999 STATUS COPY MESSAGES 1:* BODYSTRUCTURE""".split()
SCRAPS = [*WORDS, b" ", b" ", b"{3}\r\n", b"{3+}\r\n", b"\r\n", b"\xff", b"\0"]


@given(st.lists(st.sampled_from(SCRAPS), max_size=14))
def test_no_input_breaks_the_core(words):
    client = Transcript()
    client.store.store(client.inbox, MAIL)
    client.login().select()
    client.send(b"x " + b"".join(words) + b"\r\n")


# --- folders ---


def test_select_says_all_that_a_client_needs_with_text_after_each_code(imap):
    flags = "\\Answered \\Deleted \\Draft \\Flagged \\Seen"
    imap.inbox.set_flags(1, frozenset({SEEN}))
    imap.step(
        "1 SELECT inbox",
        f"* FLAGS ({flags})",
        "* 3 EXISTS",
        "* 0 RECENT",
        "* OK [UNSEEN 2] <any>",
        f"* OK [UIDVALIDITY {imap.inbox.uidvalidity}] <any>",
        "* OK [UIDNEXT 4] <any>",
        f"* OK [PERMANENTFLAGS ({flags} \\*)] <any>",
        "1 OK [READ-WRITE] <any>",
    )


def test_examine_changes_nothing(imap):
    imap.send(b"1 EXAMINE INBOX\r\n")
    imap.step("2 STORE 1 +FLAGS (\\Seen)", "2 NO <any>")
    imap.step("3 EXPUNGE", "3 NO <any>")
    imap.step("4 FETCH 2 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", ")", "4 OK <any>")
    assert imap.inbox.flags(2) == frozenset()


def test_a_failed_select_leaves_nothing_selected(imap):
    imap.step("1 SELECT nowhere", "1 NO [NONEXISTENT] <any>")
    imap.step("2 FETCH 1 FLAGS", "2 BAD <any>")


def test_close_expunges_silently_and_unselect_does_not(imap):
    imap.inbox.set_flags(1, frozenset({DELETED}))
    imap.step("1 UNSELECT", "1 OK <any>")
    assert imap.inbox.uids == [1, 2, 3]
    imap.select().step("2 CLOSE", "2 OK <any>")
    assert imap.inbox.uids == [2, 3]


def test_list_shows_special_use_and_knows_wildcards(fresh):
    fresh.login()
    fresh.step(
        '1 LIST "" *',
        '* LIST (\\HasNoChildren \\Drafts) "/" "Drafts"',
        '* LIST (\\HasNoChildren) "/" "INBOX"',
        '* LIST (\\HasNoChildren \\Junk) "/" "Junk"',
        '* LIST (\\HasNoChildren \\Sent) "/" "Sent"',
        '* LIST (\\HasNoChildren \\Trash) "/" "Trash"',
        "1 OK <any>",
    )
    fresh.step('2 LIST "" ""', '* LIST (\\Noselect) "/" ""', "2 OK <any>")
    fresh.step('3 LIST "" inbox', '* LIST (\\HasNoChildren) "/" "INBOX"', "3 OK <any>")
    fresh.step("4 CREATE Work/2024/", "4 OK <any>")
    fresh.step("5 CREATE Work", "5 OK <any>")
    fresh.step('6 LIST "" "W%"', '* LIST (\\HasChildren) "/" "Work"', "6 OK <any>")
    fresh.step('7 LIST Work/ "*"', '* LIST (\\HasNoChildren) "/" "Work/2024"', "7 OK <any>")


def test_list_selects_by_special_use(fresh):
    fresh.login()
    fresh.step('1 LIST (SPECIAL-USE) "" "*t"', '* LIST (\\HasNoChildren \\Sent) "/" "Sent"', "1 OK <any>")
    fresh.step('2 LIST "" "Sent" RETURN (SPECIAL-USE)', '* LIST (\\HasNoChildren \\Sent) "/" "Sent"', "2 OK <any>")
    fresh.step('3 LIST (RECURSIVEMATCH) "" "*"', "3 BAD <any>")


def test_folders_are_made_subscribed_and_removed(fresh):
    fresh.login()
    fresh.step("1 CREATE Work", "1 OK <any>")
    fresh.step("2 CREATE Work", "2 NO <any>")
    fresh.step("3 UNSUBSCRIBE Work", "3 OK <any>")
    fresh.step('4 LSUB "" W*', "4 OK <any>")
    fresh.step("5 SUBSCRIBE Work", "5 OK <any>")
    fresh.step('6 LSUB "" W*', '* LSUB (\\HasNoChildren) "/" "Work"', "6 OK <any>")
    fresh.step("7 DELETE Work", "7 OK <any>")
    fresh.step("8 DELETE Work", "8 NO [NONEXISTENT] <any>")
    fresh.step("9 SUBSCRIBE Work", "9 NO [NONEXISTENT] <any>")
    fresh.step("10 DELETE INBOX", "10 NO <any>")
    fresh.step("11 SUBSCRIBE Sent extra", "11 BAD <any>")


def test_status_counts(imap):
    imap.step(
        "1 STATUS inbox (MESSAGES UNSEEN UIDNEXT RECENT)",
        '* STATUS "INBOX" (MESSAGES 3 UNSEEN 3 UIDNEXT 4 RECENT 0)',
        "1 OK <any>",
    )
    imap.step("2 STATUS INBOX (COLOUR)", "2 BAD <any>")


def test_append_keeps_flags_date_and_bytes(fresh):
    fresh.login().step('1 APPEND Sent (\\seen $Label) "02-Feb-2024 10:00:00 +0100" {5}', "+ <any>")
    fresh.step("a\r\nbc", f"1 OK [APPENDUID {fresh.store.user(USER).folder('Sent').uidvalidity} 1] <any>")
    folder = fresh.store.user(USER).folder("Sent")
    assert folder.mail(1).raw == b"a\r\nbc"
    assert folder.flags(1) == {SEEN, "$Label"}
    assert folder.mail(1).received.isoformat() == "2024-02-02T10:00:00+01:00"


def test_append_to_nowhere_says_how_to_help(fresh):
    fresh.login().step("1 APPEND nowhere {1+}\r\nx", "1 NO [TRYCREATE] <any>")
    fresh.step('2 APPEND Sent "99-Feb-2024 10:00:00 +0100" {1+}\r\nx', "2 BAD <any>")
    fresh.step('3 APPEND Sent "quoted is no message"', "3 BAD <any>")


# --- FETCH ---


def test_fetch_of_small_items(imap):
    imap.step("1 FETCH 2 (FLAGS UID RFC822.SIZE)", "* 2 FETCH (FLAGS () UID 2 RFC822.SIZE 24)", "1 OK <any>")
    imap.step("2 FETCH 1:* UID", *(f"* {n} FETCH (UID {n})" for n in (1, 2, 3)), "2 OK <any>")
    imap.step("3 UID FETCH 3 FLAGS", "* 3 FETCH (UID 3 FLAGS ())", "3 OK <any>")
    imap.step("4 UID FETCH 9:* UID", "* 3 FETCH (UID 3)", "4 OK <any>")
    imap.step("5 UID FETCH 77 FLAGS", "5 OK <any>")
    imap.step("6 FETCH 3 INTERNALDATE", '* 3 FETCH (INTERNALDATE "14-Nov-2023 22:13:20 +0000")', "6 OK <any>")


@pytest.mark.parametrize("macro", ["FAST", "ALL", "FULL"])
def test_macros(imap, macro):
    assert b"* 2 FETCH (FLAGS () INTERNALDATE" in imap.send(f"1 FETCH 2 {macro}\r\n".encode())


def test_envelope(imap):
    who = '("Ann =?utf-8?q?M=C3=BCller?=" NIL "ann" "example.test")'
    imap.step(
        "1 FETCH 1 ENVELOPE",
        '* 1 FETCH (ENVELOPE ("Mon, 01 Jan 2024 10:00:00 +0000" "=?utf-8?q?Gr=C3=BC=C3=9Fe?= \\"quoted\\"" '
        f'({who}) ({who}) ({who}) ((NIL NIL "bob" "example.test")("Carl" NIL "carl" "example.test")) NIL NIL NIL '
        '"<1@example.test>"))',
        "1 OK <any>",
    )


def test_bodystructure(imap):
    text = '("text" "plain" ("charset" "utf-8") NIL NIL "7bit" 7 1'
    inner = '("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 8 1'
    envelope = '(NIL "inner" NIL NIL NIL NIL NIL NIL NIL NIL)'
    message = '("message" "rfc822" NIL NIL NIL "7bit" 26'
    imap.step(
        "1 FETCH 1 BODY",
        f'* 1 FETCH (BODY ({text}){message} {envelope} {inner}) 3) "mixed"))',
        "1 OK <any>",
    )
    tail = " NIL NIL NIL NIL)"
    imap.step(
        "2 FETCH 1 BODYSTRUCTURE",
        f"* 1 FETCH (BODYSTRUCTURE ({text}{tail}{message} {envelope} {inner}{tail} 3{tail} "
        '"mixed" ("boundary" "b") NIL NIL NIL))',
        "2 OK <any>",
    )


def test_a_multipart_without_parts_is_shown_with_an_empty_one(imap):
    imap.store.store(imap.inbox, b"Content-Type: multipart/mixed\r\n\r\nx")
    imap.send(b"0 NOOP\r\n")
    imap.step(
        "1 FETCH 4 BODY",
        '* 4 FETCH (BODY (("text" "plain" NIL NIL NIL "7bit" 0 0) "mixed"))',
        "1 OK <any>",
    )


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ("", MAIL),
        ("HEADER", MAIL[: MAIL.index(b"\r\n\r\n") + 4]),
        ("TEXT", MAIL[MAIL.index(b"\r\n\r\n") + 4 :]),
        ("HEADER.FIELDS (MESSAGE-ID X)", b"Message-ID: <1@example.test>\r\n\r\n"),
        ("HEADER.FIELDS.NOT (FROM TO SUBJECT DATE MIME-VERSION CONTENT-TYPE)", b"Message-ID: <1@example.test>\r\n\r\n"),
        ("1", b"hello\r\n"),
        ("1.MIME", b"Content-Type: text/plain; charset=utf-8\r\n\r\n"),
        ("2", b"Subject: inner\r\n\r\nwithin\r\n"),
        ("2.MIME", b"Content-Type: message/rfc822\r\n\r\n"),
        ("2.HEADER", b"Subject: inner\r\n\r\n"),
        ("2.TEXT", b"within\r\n"),
        ("2.1", b"within\r\n"),
    ],
)
def test_sections(imap, section, expected):
    answer = imap.send(f"1 FETCH 1 BODY.PEEK[{section}]\r\n".encode())
    head = f"* 1 FETCH (BODY[{section}] {{{len(expected)}}}\r\n".encode()
    assert answer.startswith(head + expected + b")\r\n1 OK")
    assert imap.inbox.flags(1) == frozenset()


@pytest.mark.parametrize("section", ["3", "1.1", "1.HEADER", "2.2", "0"])
def test_a_part_that_does_not_exist_is_nil(imap, section):
    imap.step(f"1 FETCH 1 BODY.PEEK[{section}]", f"* 1 FETCH (BODY[{section}] NIL)", "1 OK <any>")


@pytest.mark.parametrize(
    "item",
    [
        "BODY[X]",
        "BODY[MIME]",
        "BODY[.TEXT]",
        "BODY[1TEXT]",
        "BODY[1.]",
        "COLOUR",
        "()",
        "",
        "(UID",
        "BODY[",
        "BODY[HEADER.FIELDS ()]",
    ],
)
def test_what_can_not_be_fetched_is_bad(imap, item):
    imap.step(f"1 FETCH 1 {item}", "1 BAD <any>")


@pytest.mark.parametrize("numbers", ["0", "4", "1:4", "x", "1,,2", "*x", "1:2:3"])
def test_message_numbers_must_exist(imap, numbers):
    imap.step(f"1 FETCH {numbers} UID", "1 BAD <any>")


def test_every_message_of_an_empty_folder_is_none(fresh):
    fresh.login().select().step("1 FETCH 1:* UID", "1 OK <any>")
    fresh.step("2 UID FETCH 1:* UID", "2 OK <any>")


def test_partial_fetch(imap):
    imap.step("1 FETCH 2 BODY.PEEK[TEXT]<1.3>", "* 2 FETCH (BODY[TEXT]<1> {3}", "ody)", "1 OK <any>")
    imap.step("2 FETCH 2 BODY.PEEK[TEXT]<99.3>", "* 2 FETCH (BODY[TEXT]<99> {0}", ")", "2 OK <any>")


def test_reading_marks_as_seen_once_and_says_so(imap):
    imap.step("1 FETCH 2 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", " FLAGS (\\Seen))", "1 OK <any>")
    imap.step("2 FETCH 2 BODY[TEXT]", "* 2 FETCH (BODY[TEXT] {6}", "body", ")", "2 OK <any>")
    imap.step("3 NOOP", "3 OK <any>")


# --- STORE, COPY, MOVE, EXPUNGE ---


def test_store_tells_the_new_flags_once(imap):
    imap.step("1 STORE 1 FLAGS (\\seen $Work)", "* 1 FETCH (FLAGS ($Work \\Seen))", "1 OK <any>")
    imap.step("2 UID STORE 1 -FLAGS \\Seen", "* 1 FETCH (UID 1 FLAGS ($Work))", "2 OK <any>")
    imap.step("3 STORE 1:2 +FLAGS.SILENT (\\Flagged)", "3 OK <any>")
    imap.step("4 NOOP", "4 OK <any>")
    assert imap.inbox.flags(1) == {"$Work", "\\Flagged"}


@pytest.mark.parametrize(
    "words", ["1 FLAGS", "1 COLOUR (x)", "1 FLAGS (\\Odd)", "1 FLAGS (\\Recent)", "1 FLAGS (a", "1 +FLAGS"]
)
def test_a_malformed_store_changes_nothing(imap, words):
    imap.step(f"1 STORE {words}", "1 BAD <any>")
    assert imap.inbox.flags(1) == frozenset()


def test_flags_of_another_client_are_told(imap):
    other = second_client(imap)
    other.send(b"1 STORE 2 +FLAGS (\\Seen)\r\n")
    imap.step("1 NOOP", "* 2 FETCH (UID 2 FLAGS (\\Seen))", "1 OK <any>")
    imap.step("2 NOOP", "2 OK <any>")


def test_expunge_numbers_are_told_from_the_end(imap):
    imap.send(b"1 STORE 1,3 +FLAGS.SILENT (\\Deleted)\r\n")
    imap.step("2 EXPUNGE", "* 3 EXPUNGE", "* 1 EXPUNGE", "2 OK <any>")
    imap.step("3 FETCH 1 UID", "* 1 FETCH (UID 2)", "3 OK <any>")


def test_uid_expunge_removes_only_what_is_named_and_marked(imap):
    imap.send(b"1 STORE 1,2 +FLAGS.SILENT (\\Deleted)\r\n")
    imap.step("2 UID EXPUNGE 2:3", "* 2 EXPUNGE", "2 OK <any>")
    assert imap.inbox.uids == [1, 3]


def test_no_expunge_is_told_while_numbers_are_in_use(imap):
    second_client(imap).send(b"1 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n2 EXPUNGE\r\n")
    assert b"EXPUNGE" not in imap.send(b"1 FETCH 1:* UID\r\n")
    assert b"EXPUNGE" not in imap.send(b"2 SEARCH ALL\r\n")
    assert b"EXPUNGE" not in imap.send(b"3 STORE 2 +FLAGS (\\Seen)\r\n")
    imap.step("4 NOOP", "* 1 EXPUNGE", "4 OK <any>")
    imap.step("5 FETCH 1 UID", "* 1 FETCH (UID 2)", "5 OK <any>")


def test_new_mail_is_told(imap):
    imap.store.deliver([USER], SHORT)
    imap.step("1 NOOP", "* 4 EXISTS", "1 OK <any>")


def test_mail_that_came_and_went_is_not_told(imap):
    imap.store.deliver([USER], SHORT)
    imap.inbox.expunge([4])
    imap.step("1 NOOP", "1 OK <any>")


def test_copy_keeps_flags_and_says_the_new_uids(imap):
    imap.inbox.set_flags(1, frozenset({SEEN}))
    sent = imap.store.user(USER).folder("Sent")
    imap.send(b"0 NOOP\r\n")
    imap.step("1 UID COPY 1,3 Sent", f"1 OK [COPYUID {sent.uidvalidity} 1,3 1,2] <any>")
    assert sent.mail(1).raw == MAIL
    assert sent.flags(1) == {SEEN}
    imap.step("2 COPY 1 nowhere", "2 NO [TRYCREATE] <any>")
    imap.step("3 UID COPY 99 Sent", "3 OK <any>")


def test_move_says_the_new_uids_and_expunges(imap):
    trash = imap.store.user(USER).folder("Trash")
    imap.step("1 MOVE 2 Trash", f"* OK [COPYUID {trash.uidvalidity} 2 1] <any>", "* 2 EXPUNGE", "1 OK <any>")
    assert (imap.inbox.uids, trash.uids) == ([1, 3], [1])


def test_a_copy_of_seeded_mail_has_the_same_bytes(fresh):
    fresh.inbox.seed(count=1, seed=1, profile="small")
    raw = fresh.inbox.mail(1).raw
    fresh.login().select().send(b"1 MOVE 1 Trash\r\n")
    assert fresh.store.user(USER).folder("Trash").mail(1).raw == raw


# --- SEARCH ---


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("ALL", "1 2 3"),
        ("2:*", "2 3"),
        ("UID 3", "3"),
        ("UID 1,9", "1"),
        ("SEEN", "2"),
        ("UNSEEN", "1 3"),
        ("DELETED", ""),
        ("FLAGGED", "3"),
        ("KEYWORD $work", "3"),
        ("UNKEYWORD $Work", "1 2"),
        ("SUBJECT short", "2 3"),
        ("SUBJECT grüße", "1"),
        ('FROM "müller"', "1"),
        ("TO carl", "1"),
        ("HEADER Message-ID 1@example", "1"),
        ('HEADER Message-ID ""', "1"),
        ("SINCE 14-Nov-2023", "1 2 3"),
        ("BEFORE 14-Nov-2023", ""),
        ("ON 14-nov-2023", "1 2 3"),
        ("SENTON 1-Jan-2024", "1"),
        ("SENTBEFORE 2-Jan-2024", "1"),
        ("SMALLER 25", "2 3"),
        ("LARGER 24", "1"),
        ("NOT SEEN", "1 3"),
        ("OR SEEN FLAGGED", "2 3"),
        ("(SEEN) SUBJECT short", "2"),
        ("NOT (OR SEEN FLAGGED)", "1"),
        ("BODY within", "1"),
        ("TEXT short", "2 3"),
        ("CHARSET UTF-8 ALL", "1 2 3"),
        ("charset utf-8 all", "1 2 3"),
    ],
)
def test_search(imap, keys, expected):
    imap.inbox.set_flags(2, frozenset({SEEN}))
    imap.inbox.set_flags(3, frozenset({"\\Flagged", "$Work"}))
    imap.send(b"0 NOOP\r\n")
    imap.step(f"1 SEARCH {keys}", f"* SEARCH {expected}".rstrip(), "1 OK <any>")


@pytest.mark.parametrize(
    "keys",
    ["", "COLOUR", "NOT", "OR SEEN", "(SEEN", "SINCE yesterday", "SINCE 31-Feb-2024", "LARGER x", "7", "0", "(" * 100],
)
def test_a_malformed_search_is_bad(imap, keys):
    imap.step(f"1 SEARCH {keys}", "1 BAD <any>")


def test_nesting_by_not_has_an_end(imap):
    imap.step("1 SEARCH " + "NOT " * 5000 + "SEEN", "1 BAD <any>")


def test_search_in_an_unknown_charset(imap):
    imap.step("1 SEARCH CHARSET KOI8-R ALL", "1 NO [BADCHARSET <any>] <any>")


def test_uid_search_gives_uids(imap):
    imap.inbox.expunge([1])
    imap.send(b"0 NOOP\r\n")
    imap.step("1 UID SEARCH ALL", "* SEARCH 2 3", "1 OK <any>")


# --- IDLE ---


def test_idle_tells_news_as_they_come(imap):
    imap.step("1 IDLE", "+ idling")
    imap.store.deliver([USER], SHORT)
    assert imap.pull() == b"* 4 EXISTS\r\n"
    assert imap.pull() == b""
    imap.step("DONE", "1 OK <any>")
    imap.step("2 NOOP", "2 OK <any>")


def test_idle_ends_with_done_alone(imap):
    imap.step("1 IDLE", "+ idling")
    imap.step("2 NOOP", "1 BAD <any>")
    imap.step("3 NOOP", "3 OK <any>")


# --- faults ---


def faulty(command, action, when=None):
    fault = {"id": "f", "point": "imap.command", "when": when or {"first": 1}, "match": {"command": command}}
    client = Transcript(faults=[fault | {"action": action}])
    client.store.store(client.inbox, SHORT)
    return client.login()


def test_a_fault_replies_instead_of_the_command(fresh):
    client = faulty("SELECT", {"reply": "NO [UNAVAILABLE] Try again later"})
    client.step("1 SELECT INBOX", "1 NO [UNAVAILABLE] Try again later")
    client.select()


@pytest.mark.parametrize("pattern", ["FETCH", "fetch", "UID FETCH", "*FETCH"])
def test_a_fault_for_fetch_hits_uid_fetch_too(pattern):
    client = faulty(pattern, {"reply": "NO [UNAVAILABLE] Try again later"}).select()
    client.step("1 UID FETCH 1 FLAGS", "1 NO [UNAVAILABLE] <any>")
    client.step("2 UID FETCH 1 FLAGS", "* 1 FETCH (UID 1 FLAGS ())", "2 OK <any>")


def test_a_fault_says_bye_and_closes():
    client = faulty("NOOP", {"reply": "BYE [UNAVAILABLE] Going down"})
    client.step("1 NOOP", "* BYE [UNAVAILABLE] Going down")
    assert client.closed


def test_a_fault_drops_without_a_word():
    client = faulty("NOOP", {"drop": True})
    client.step("1 NOOP")
    assert client.events[-1].abrupt


def test_a_fault_delays_before_the_command():
    client = faulty("NOOP", {"delay_ms": 250})
    client.step("1 NOOP", "1 OK <any>")
    assert client.delays_ms == [250]
    client.step("2 NOOP", "2 OK <any>")
    assert client.delays_ms == [250]


def test_a_delay_before_a_command_out_of_state_is_not_left_over():
    client = faulty("FLY", {"delay_ms": 250})
    client.step("1 FLY", "1 BAD <any>")
    client.step("2 NOOP", "2 OK <any>")
    assert client.delays_ms == [250]
