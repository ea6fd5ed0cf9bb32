"""Every fault point of the IMAP core with every action that it allows (fakemail.faults.points)."""

from __future__ import annotations

import re

import pytest
from imap_transcript import MAIL, PASSWORD, SHORT, USER, Transcript, another, plain, selected, written

from fakemail.faults import parse_faults
from fakemail.faults.garble import GARBLES
from fakemail.faults.points import MAILBOX_CHANGES, POINTS, SELECT_CODES

#: Where the shell asks, which owns sockets and TLS.
SHELL = {"imap.connect", "imap.tls"}
#: Point -> the command that meets it, and what it answers without a fault.
TRIGGERS = {
    "imap.auth": (f"LOGIN {USER} {PASSWORD}", "1 OK [CAPABILITY <any>] Logged in"),
    "imap.command": ("NOOP", "1 OK NOOP completed"),
    "imap.reply": ("NOOP", "1 OK NOOP completed"),
    "imap.idle": ("IDLE", "+ idling"),
}
ANSWERS = {"reply", "close", "drop", "stall", "delay_ms", "jitter_ms"}
LARGE = b"Subject: large\r\n\r\n" + b"0123456789" * 500
NO, BYE = "NO [UNAVAILABLE] Try (again) {later}", "BYE [UNAVAILABLE] Going down"


def fault(point, action, *, when=None, match=None, **more):
    made = {"id": "f", "point": point, "when": when or {"first": 1}, "action": action}
    return made | ({"match": match} if match else {}) | more


def client(point, action, **more):
    """One whose next event at the point is hit."""
    made = Transcript()
    made.store.store(made.inbox, SHORT)
    if point != "imap.auth":
        made.login()
    made.plan.replace(parse_faults([fault(point, action, **more)]))
    return made


def test_every_point_of_the_core_is_tried_here():
    tried = {*TRIGGERS, "imap.capability", "imap.select", "imap.message", "imap.literal"}
    assert {name for name in POINTS if name.startswith("imap.")} - SHELL == tried
    for point in TRIGGERS:
        assert set(POINTS[point].actions) >= ANSWERS
        assert set(POINTS[point].actions) - ANSWERS <= {"mailbox", "expired_token", "bytes_per_s"}
    assert set(POINTS["imap.literal"].actions) == ANSWERS - {"reply", "close"} | {"after_bytes", "bytes_per_s"}


# --- the answers that four points have in common ---


@pytest.mark.parametrize("point", ["imap.auth", "imap.command", "imap.reply"])
@pytest.mark.parametrize("reply", [NO, "BAD Authenticated but not connected.", "NO Just text"])
def test_a_reply_comes_word_for_word_under_the_commands_tag(point, reply):
    imap = client(point, {"reply": reply})
    command, usual = TRIGGERS[point]
    imap.step(f"1 {command}", f"1 {reply}")
    assert not imap.closed
    imap.step(f"1 {command}", usual)


@pytest.mark.parametrize("point", TRIGGERS)
def test_bye_is_untagged_and_ends_the_connection(point):
    imap = client(point, {"reply": BYE})
    imap.step(f"1 {TRIGGERS[point][0]}\r\n2 NOOP", f"* {BYE}")
    assert imap.closed
    assert not imap.dropped


@pytest.mark.parametrize("point", ["imap.auth", "imap.command", "imap.reply"])
def test_close_comes_after_the_reply(point):
    imap = client(point, {"reply": NO, "close": True})
    imap.step(f"1 {TRIGGERS[point][0]}\r\n2 NOOP", f"1 {NO}")
    assert imap.closed
    assert imap.send(b"3 NOOP\r\n") == b""


@pytest.mark.parametrize("point", TRIGGERS)
def test_a_drop_comes_without_a_word(point):
    imap = client(point, {"drop": True})
    imap.step(f"1 {TRIGGERS[point][0]}\r\n2 NOOP")
    assert imap.dropped


@pytest.mark.parametrize("point", TRIGGERS)
def test_a_stall_is_silence_for_ever(point):
    imap = client(point, {"stall": True})
    imap.step(f"1 {TRIGGERS[point][0]}\r\n2 NOOP")
    assert imap.stalled
    assert not imap.closed
    imap.step("3 NOOP")
    assert imap.session.state != "logout"


@pytest.mark.parametrize("point", TRIGGERS)
def test_a_delay_comes_first_and_the_command_after_it(point):
    imap = client(point, {"delay_ms": 250})
    command, usual = TRIGGERS[point]
    imap.step(f"1 {command}", usual)
    assert imap.delays_ms == [250]


@pytest.mark.parametrize("point", TRIGGERS)
def test_jitter_is_drawn_from_the_seed(point):
    drawn = []
    for _ in range(2):
        imap = client(point, {"delay_ms": 1000, "jitter_ms": 900})
        imap.send(f"1 {TRIGGERS[point][0]}\r\n".encode())
        drawn += imap.delays_ms
    assert len(drawn) == 2
    assert drawn[0] == drawn[1] != 1000
    assert 100 <= drawn[0] <= 1900


@pytest.mark.parametrize("point", TRIGGERS)
def test_a_delay_goes_before_a_drop(point):
    imap = client(point, {"delay_ms": 5, "drop": True})
    imap.step(f"1 {TRIGGERS[point][0]}")
    assert [type(event).__name__ for event in imap.events] == ["Delay", "Close"]


# --- imap.auth ---


@pytest.mark.parametrize(
    ("mechanism", "command"),
    [("LOGIN", f"LOGIN {USER} {PASSWORD}"), ("PLAIN", f"AUTHENTICATE PLAIN {plain('', USER, PASSWORD)}")],
)
def test_a_fault_at_the_login_knows_who_and_how_and_leaves_the_client_outside(mechanism, command):
    imap = client("imap.auth", {"reply": NO}, match={"user": USER, "mechanism": mechanism})
    imap.step(f"1 LOGIN {USER} wrong" if mechanism == "PLAIN" else "1 AUTHENTICATE PLAIN AGEAYg==", "1 NO [AUTH<any>")
    imap.step(f"2 {command}", f"2 {NO}")
    assert imap.session.state == "not authenticated"
    assert [note["success"] for note in imap.notes if note["kind"] == "login"] == [False, False]
    imap.step(f"3 {command}", "3 OK <any>")


def test_a_password_never_expires():
    imap = client("imap.auth", {"expired_token": True})
    imap.step(f"1 LOGIN {USER} {PASSWORD}", "1 OK <any>")


# --- imap.command and imap.reply ---


def test_a_fault_instead_of_a_command_keeps_it_from_happening_and_one_at_its_reply_does_not():
    before, after = client("imap.command", {"reply": NO}), client("imap.reply", {"reply": NO})
    for imap in (before, after):
        imap.step("1 CREATE box", f"1 {NO}")
    assert "box" not in before.account.names
    assert "box" in after.account.names


def test_a_drop_before_the_reply_of_append_leaves_the_message():
    imap = client("imap.reply", {"drop": True}, match={"command": "APPEND"})
    imap.step("1 APPEND Sent {1+}\r\nx")
    assert imap.dropped
    assert list(imap.account.folder("Sent").uids) == [1]


@pytest.mark.parametrize("point", ["imap.command", "imap.reply"])
@pytest.mark.parametrize("pattern", ["FETCH", "fetch", "UID FETCH", "*FETCH"])
def test_a_fault_for_fetch_hits_uid_fetch_too(point, pattern):
    imap = client(point, {"reply": NO}, match={"command": pattern}).select()
    assert imap.lines("1 UID FETCH 1 FLAGS")[-1] == f"1 {NO}"
    assert imap.lines("2 UID FETCH 1 FLAGS")[-1].startswith("2 OK")


@pytest.mark.parametrize("point", ["imap.command", "imap.reply"])
def test_a_fault_for_uid_fetch_leaves_fetch_alone(point):
    imap = client(point, {"reply": NO}, match={"command": "UID FETCH"}).select()
    imap.ok("FETCH 1 FLAGS")


@pytest.mark.parametrize("point", ["imap.command", "imap.reply"])
def test_a_fault_may_be_for_a_folder_or_a_user(point):
    imap = client(point, {"reply": NO}, match={"folder": "Sent", "user": "ann@*"}, when={"always": True})
    imap.select().ok("NOOP")
    imap.select("Sent").step("1 NOOP", f"1 {NO}")
    nobody = client(point, {"reply": NO}, match={"user": "bob@*"}, when={"always": True})
    nobody.ok("NOOP")


def test_a_reply_of_a_fault_comes_instead_of_news():
    imap = client("imap.reply", {"reply": NO}, match={"command": "NOOP"}).select()
    imap.store.deliver([USER], SHORT)
    imap.step("1 NOOP", f"1 {NO}")
    imap.step("2 NOOP", "* 2 EXISTS", "* 2 RECENT", "2 OK <any>")


def test_an_unknown_command_and_one_out_of_place_meet_faults_too():
    imap = client("imap.command", {"delay_ms": 250}, match={"command": "FLY"})
    imap.step("1 FLY", "1 BAD <any>")
    imap.step("2 NOOP", "2 OK <any>")
    assert imap.delays_ms == [250]


def test_what_a_fault_has_answered_is_noted_as_such():
    imap = client("imap.command", {"reply": NO}, match={"command": "CREATE"})
    imap.lines("1 CREATE x")
    assert [(note["command"], note["result"]) for note in imap.notes if note["kind"] == "served"][-1] == (
        "CREATE",
        "fault",
    )


@pytest.mark.parametrize("change", MAILBOX_CHANGES)
def test_another_client_changes_the_folder_before_the_command_goes_on(change):
    imap = client("imap.command", {"mailbox": change}, match={"command": "FETCH"}).select()
    before = (imap.inbox, imap.inbox.highestmodseq)
    lines = [line for line in imap.lines("1 FETCH 1:* UID") if "FLAGS (\\Answered" not in line]
    assert lines[0] == "* 1 FETCH (UID 1)"
    assert (imap.inbox is not before[0]) == (change == "reset-uidvalidity")
    if change == "reset-uidvalidity":
        assert lines[1:] == ["1 OK FETCH completed", "* BYE the folder's UIDs were renumbered"]
        assert imap.closed
        return
    assert imap.inbox.highestmodseq > before[1]
    if change == "flags":
        words = set(re.fullmatch(r"\* 1 FETCH \(FLAGS \((.*)\)\)", lines[-2])[1].split())
        assert words == imap.inbox.flags(1) | {"\\Recent"}
    else:
        assert lines[1:-1] == {"arrive": ["* 2 EXISTS", "* 2 RECENT"], "expunge": []}[change]
    if change == "expunge":
        imap.step("2 NOOP", "* 1 EXPUNGE", "* 0 RECENT", "2 OK <any>")


def test_a_change_of_the_folder_needs_a_selected_one():
    imap = client("imap.command", {"mailbox": "arrive"}, match={"command": "NOOP"})
    imap.ok("NOOP")
    assert list(imap.inbox.uids) == [1]


def test_a_command_is_answered_at_a_pace_and_the_next_one_is_not():
    imap = client("imap.command", {"bytes_per_s": 500}, match={"command": "NOOP"})
    imap.step("1 NOOP", "1 OK <any>")
    assert imap.paces == [500]
    imap.step("2 NOOP", "2 OK <any>")
    assert imap.paces == [500, None]


# --- imap.capability ---


def capabilities(line):
    return set(re.search(r"CAPABILITY ([^\]]*)", line)[1].split())


@pytest.mark.parametrize("name", ["SASL-IR", "CONDSTORE", "AUTH=PLAIN", "IDLE", "LITERAL+"])
def test_a_capability_is_hidden_wherever_it_would_be_announced(name):
    hidden = Transcript(faults=[fault("imap.capability", {"strip": [name]}, when={"always": True})])
    plain_one = Transcript()
    found = set()
    for say in (
        lambda imap: imap.session.greeting().decode(),
        lambda imap: imap.ok("CAPABILITY")[0],
        lambda imap: imap.code(f"LOGIN {USER} {PASSWORD}"),
        lambda imap: imap.ok("CAPABILITY")[0],
    ):
        before, after = capabilities(say(plain_one)), capabilities(say(hidden))
        assert before - {name} == after
        found |= before
    assert name in found


def test_a_capability_may_be_hidden_once_and_for_one_user():
    imap = Transcript(faults=[fault("imap.capability", {"strip": ["IDLE"]}, match={"user": USER})])
    assert "IDLE" not in capabilities(imap.code(f"LOGIN {USER} {PASSWORD}"))
    assert "IDLE" in capabilities(imap.ok("CAPABILITY")[0])
    imap.step("1 IDLE", "+ idling")


# --- imap.select ---


@pytest.mark.parametrize("how", ["SELECT", "EXAMINE"])
@pytest.mark.parametrize("code", SELECT_CODES)
def test_select_may_leave_a_code_out(how, code):
    lines = client("imap.select", {"omit": [code]}).lines(f"1 {how} INBOX")
    usual = Transcript().login().lines(f"1 {how} INBOX")
    assert not any(f"[{code}" in line for line in lines)
    if code != "UNSEEN":
        assert any(f"[{code}" in line for line in usual)
    assert lines[-1].startswith("1 OK")


def test_select_may_leave_all_of_them_out():
    imap = client("imap.select", {"omit": list(SELECT_CODES)})
    imap.step("1 SELECT INBOX", "* FLAGS (<any>)", "* 1 EXISTS", "* 1 RECENT", "1 OK [READ-WRITE] <any>")


@pytest.mark.parametrize("how", ["SELECT", "EXAMINE"])
def test_select_may_find_a_folder_renumbered(how):
    imap = client("imap.select", {"mailbox": "reset-uidvalidity"}, match={"folder": "INBOX", "user": USER})
    watching = another(imap)
    before = imap.inbox.uidvalidity
    imap.send(f"1 {how} inbox\r\n".encode())
    assert imap.session.state == "selected"
    assert imap.inbox.uidvalidity > before
    assert watching.send(b"1 NOOP\r\n").startswith(b"* BYE ")


def test_a_fault_of_one_folder_leaves_the_others_alone():
    imap = client("imap.select", {"omit": ["UIDNEXT"]}, match={"folder": "Sent"})
    assert "UIDNEXT" in str(imap.lines("1 SELECT INBOX"))
    assert "UIDNEXT" not in str(imap.lines("2 SELECT Sent"))


# --- imap.message ---


@pytest.mark.parametrize("garble", GARBLES)
def test_a_message_that_is_spoilt_is_spoilt_in_every_item_alike(garble):
    imap = client("imap.message", {"garble": garble}, when={"always": True}).select()
    imap.inbox.add(type(imap.inbox._own[1])(raw=MAIL, received_s=0))
    imap.ok("NOOP")
    spoilt = GARBLES[garble].spoil(MAIL)
    assert imap.fetch(2, "BODY.PEEK[]") == spoilt
    assert imap.fetch(2, "BODY.PEEK[HEADER]") + imap.fetch(2, "BODY.PEEK[TEXT]") == spoilt
    assert f"RFC822.SIZE {len(spoilt)}" in imap.ok("FETCH 2 RFC822.SIZE")[0]
    imap.ok("FETCH 2 (ENVELOPE BODYSTRUCTURE)")
    assert imap.inbox.raw(2) == MAIL


def test_a_message_is_spoilt_as_often_as_the_fault_says():
    imap = client("imap.message", {"garble": "truncate"}, when={"first": 1}, match={"folder": "INBOX"}).select()
    assert imap.fetch(1, "BODY.PEEK[]") != SHORT
    assert imap.fetch(1, "BODY.PEEK[]") == SHORT


# --- imap.literal ---


def cut(action, raw=LARGE, **more):
    imap = client("imap.literal", action, **more).select()
    imap.store.store(imap.inbox, raw)
    imap.ok("NOOP")
    return imap


HEAD = b"* 2 FETCH (UID 2 BODY[] {%d}\r\n" % len(LARGE)
FETCH = b"1 UID FETCH 2 BODY.PEEK[]\r\n"


@pytest.mark.parametrize(("after", "passed"), [(None, len(LARGE) // 2), (0, 0), (100, 100), (10**9, len(LARGE))])
@pytest.mark.parametrize("how", ["drop", "stall"])
def test_a_literal_is_cut_after_so_many_bytes(how, after, passed):
    imap = cut({how: True} | ({} if after is None else {"after_bytes": after}))
    assert imap.send(FETCH) == HEAD + LARGE[:passed]
    assert (imap.dropped, imap.stalled) == (how == "drop", how == "stall")
    assert imap.send(b"2 NOOP\r\n") == b""


def test_a_literal_waits_in_the_middle():
    imap = cut({"delay_ms": 300, "after_bytes": 7})
    imap.session.feed(FETCH)
    said, at = b"", None
    for event in imap.session.events():
        if (data := written(event)) is not None:
            said += data
        else:
            assert event.delay_ms == 300
            at = len(said)
    assert at == len(HEAD) + 7
    assert said == HEAD + LARGE + b")\r\n1 OK FETCH completed\r\n"


def test_a_literal_is_paced_and_what_follows_is_not():
    imap = cut({"bytes_per_s": 1000})
    imap.session.feed(FETCH)
    pieces = []
    for event in imap.session.events():
        if (data := written(event)) is not None:
            pieces[-1:] = [(pieces[-1] if pieces else b"") + data]
        else:
            pieces += [event.bytes_per_s, b""]
    assert pieces == [HEAD, 1000, LARGE, None, b")\r\n1 OK FETCH completed\r\n"]


@pytest.mark.parametrize("item", ["ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[HEADER.FIELDS (X)]"])
def test_only_a_literal_of_a_kilobyte_is_one(item):
    subject = b"Subject: " + b"x" * 900 + b"\r\nReferences: " + b"y" * 900
    content = b'Content-Type: text/plain; name="' + b"z" * 900 + b'"; other="' + b"z" * 900 + b'"'
    imap = cut({"drop": True}, subject + b"\r\n" + content + b"\r\n\r\n" + b"b" * 900)
    assert len(imap.ok(f"FETCH 2 {item}")[0]) > 20
    assert not imap.closed


def test_a_literal_that_begins_like_a_line_is_one_too():
    imap = cut({"drop": True, "after_bytes": 1}, b"* " + LARGE)
    assert imap.send(FETCH).endswith(b"}\r\n*")
    assert imap.dropped


def test_literals_are_counted_one_by_one():
    imap = cut({"drop": True}, when={"nth": 3}, match={"folder": "INBOX", "user": USER})
    imap.store.store(imap.inbox, LARGE)
    imap.ok("NOOP")
    out = imap.send(b"1 FETCH 1:3 (BODY.PEEK[] BODY.PEEK[TEXT] FLAGS)\r\n")
    assert out.count(LARGE) == 1
    assert out.count(b"FLAGS") == 2
    assert imap.dropped


# --- imap.idle ---


def test_a_fault_at_idle_may_be_for_a_folder():
    imap = client("imap.idle", {"drop": True}, match={"folder": "INBOX", "user": USER})
    imap.step("1 IDLE", "+ idling")
    imap.step("DONE", "1 OK <any>")
    imap.select().step("2 IDLE")
    assert imap.dropped


# --- several clients and schedules ---


def test_a_fault_of_each_connection_counts_for_each():
    first = client("imap.command", {"reply": NO}, match={"command": "CHECK"}, scope="connection").select()
    second = Transcript(first.store, plan=first.plan).login().select()
    for imap in (first, second):
        imap.step("1 CHECK", f"1 {NO}")
        imap.ok("CHECK")


def test_a_dropped_client_lets_go_of_its_folder():
    imap = client("imap.command", {"drop": True}, match={"command": "CHECK"}).select()
    assert len(imap.inbox.watchers) == 1
    imap.send(b"1 CHECK\r\n")
    assert not imap.inbox.watchers


def test_without_faults_no_plan_is_asked_for_each_message():
    asked = []
    imap = selected(SHORT, SHORT)
    imap.session._ask = lambda point, **_: asked.append(point)
    imap.ok("FETCH 1:* BODY.PEEK[]")
    assert asked == ["imap.command", "imap.reply"]
