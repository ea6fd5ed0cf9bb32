"""Every fault at every point of SMTP, as a client sees it and as the ledger tells it."""

from __future__ import annotations

import time

import pytest
from smtp_harness import (
    FAR,
    FROM,
    PASSWORD,
    RAW,
    TOKEN,
    USER,
    WIRE,
    Client,
    bearer,
    plain,
    question,
    serving,
)

from fakemail.faults import POINTS, Action, Fault, parse_fault

BIG = b"Subject: big\r\n\r\n" + (b"x" * 78 + b"\r\n") * 5_000
#: What brings a client to each point that can be answered: lines before, and the line that meets the fault.
LINES = {
    "smtp.ehlo": ([], "EHLO client.test"),
    "smtp.auth": (["EHLO c"], f"AUTH PLAIN {plain()}"),
    "smtp.starttls": (["EHLO c"], "STARTTLS"),
    "smtp.command": (["EHLO c"], "NOOP"),
    "smtp.mail": (["EHLO c"], f"MAIL FROM:<{FROM}>"),
    "smtp.rcpt": (["EHLO c", f"MAIL FROM:<{FROM}>"], f"RCPT TO:<{FAR}>"),
    "smtp.data": (["EHLO c", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>"], "DATA"),
    "smtp.accepted": (["EHLO c", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>", "DATA"], "."),
    "smtp.quit": (["EHLO c"], "QUIT"),
}
#: Its usual answer.
USUAL = {
    "smtp.ehlo": "250-", "smtp.auth": "235", "smtp.starttls": "220", "smtp.command": "250", "smtp.mail": "250",
    "smtp.rcpt": "250", "smtp.data": "354", "smtp.accepted": "250", "smtp.quit": "221",
}  # fmt: skip


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running):
    running.faults()
    running.call(running.ledger.clear)
    return running


def put(server, point, action, **more):
    """Put the fault, at NOOP alone where every command would meet it."""
    match = {"match": {"command": "NOOP"}} if point == "smtp.command" else {}
    server.faults({"point": point, "action": action} | match | more)


@pytest.fixture(params=LINES)
def point(request):
    return request.param


def to(client, point):
    """Go to the point; answers the line that meets it."""
    before, line = LINES[point]
    client.say(*before)
    return line


# --- at every point that is a verb ---


def test_every_point_is_tried_here():
    assert set(LINES) == {name for name in POINTS if name.startswith("smtp.")} - {
        "smtp.connect", "smtp.tls", "smtp.body",
    }  # fmt: skip


def test_a_reply_takes_the_place_of_the_usual_one(server, point):
    put(server, point, {"reply": "451 4.3.0 Not now"}, when={"first": 1})
    with Client(server.port) as client:
        line = to(client, point)
        assert client.say(line) == "451 4.3.0 Not now"
        assert client.codes("NOOP") == ["250 2.0.0"]
    fault, refused = server.entry("fault"), server.entry("refused")
    assert (fault["fault_id"], fault["point"], fault["command"]) == ("f0", point, refused["command"])
    assert (refused["reply_code"], refused["reply"]) == (451, "451 4.3.0 Not now")
    assert refused["connection"] == fault["connection"]


def test_after_the_fault_everything_is_as_before(server, point):
    put(server, point, {"reply": "451 4.3.0 Not now"}, when={"first": 1})
    with Client(server.port) as client:
        client.say(to(client, point))
    with Client(server.port) as client:
        assert client.say(to(client, point)).startswith(USUAL[point])


def test_a_reply_may_be_the_last(server, point):
    put(server, point, {"reply": "550 5.7.1 Go away", "close": True})
    with Client(server.port) as client:
        assert client.say(to(client, point)) == "550 5.7.1 Go away"
        assert client.is_over()
    assert server.entry("disconnect")["reason"] == "refused"


def test_a_421_is_the_last_of_itself(server, point):
    """RFC 5321 section 3.8."""
    put(server, point, {"reply": "421 4.3.2 Shutting down"})
    with Client(server.port) as client:
        assert client.say(to(client, point)) == "421 4.3.2 Shutting down"
        assert client.is_over()


def test_the_line_may_be_cut(server, point):
    put(server, point, {"drop": True})
    with Client(server.port) as client:
        client.send(to(client, point) + "\r\n")
        assert client.is_over()
    end = server.entry("disconnect")
    assert end["reason"] == "fault"
    assert end["command"] == server.entry("fault")["command"]


def test_a_reply_may_be_late(server, point):
    put(server, point, {"delay_ms": 40})
    with Client(server.port) as client:
        line = to(client, point)
        began = time.monotonic()
        assert client.say(line).startswith(USUAL[point])
        assert time.monotonic() - began >= 0.04


def test_a_late_refusal_is_both(server, point):
    put(server, point, {"delay_ms": 20, "reply": "451 4.3.0 Not now"}, when={"first": 1})
    with Client(server.port) as client:
        line = to(client, point)
        began = time.monotonic()
        assert client.say(line) == "451 4.3.0 Not now"
        assert time.monotonic() - began >= 0.02


def test_the_line_may_fall_silent(server, point):
    put(server, point, {"stall": True}, when={"first": 1})
    with Client(server.port) as client:
        client.send(to(client, point) + "\r\nNOOP\r\n" * 3)
        server.entry("fault")
        with Client(server.port) as other:
            assert other.deliver().startswith("250 ")
        assert client.is_silent()
        number = server.entry("fault")["connection"]
    assert server.entry("disconnect", connection=number)["reason"] == "closed by the client"


def test_what_was_answered_before_the_fault_arrives(server):
    """Replies that were due are not held back by what a later verb of the pipeline meets."""
    put(server, "smtp.rcpt", {"stall": True})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.send(f"MAIL FROM:<{FROM}>\r\nNOOP\r\nRCPT TO:<{FAR}>\r\nNOOP\r\n")
        assert [client.reply()[:3] for _ in range(2)] == ["250", "250"]
        server.entry("fault")
        assert client.is_silent()


def test_a_delay_in_a_pipeline_keeps_the_order(server):
    put(server, "smtp.rcpt", {"delay_ms": 20}, when={"every": 2})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.send(f"MAIL FROM:<{FROM}>\r\n" + f"RCPT TO:<{FAR}>\r\n" * 4 + "DATA\r\n")
        assert [client.reply()[:3] for _ in range(6)] == ["250"] * 5 + ["354"]


# --- connect ---


@pytest.mark.parametrize("reply", ["421 4.7.0 Too many connections", "554 5.7.1 Nobody is at home"])
def test_a_client_may_be_refused_at_the_door(server, reply):
    put(server, "smtp.connect", {"reply": reply}, when={"first": 1})
    with Client(server.port, greeting=False) as client:
        assert client.reply() == reply
        assert client.is_over()
    assert server.entry("refused")["command"] == "connect"
    with Client(server.port) as client:
        assert client.codes("NOOP") == ["250 2.0.0"]


def test_the_door_may_stay_shut(server):
    put(server, "smtp.connect", {"drop": True}, when={"first": 1})
    with Client(server.port, greeting=False) as client:
        assert client.is_over()
    assert server.entry("disconnect")["reason"] == "fault"


def test_the_greeting_may_be_late_and_early_commands_wait_for_it(server):
    put(server, "smtp.connect", {"delay_ms": 30})
    with Client(server.port, greeting=False) as client:
        client.send("EHLO client.test\r\nNOOP\r\n")
        began = time.monotonic()
        assert [client.reply()[:3] for _ in range(3)] == ["220", "250", "250"]
        assert time.monotonic() - began >= 0.02


def test_the_greeting_may_never_come(server):
    put(server, "smtp.connect", {"stall": True}, when={"first": 1})
    with Client(server.port, greeting=False) as client:
        server.entry("fault")
        with Client(server.port) as other:
            assert other.codes("NOOP") == ["250 2.0.0"]
        assert client.is_silent()


# --- who is meant ---


@pytest.mark.parametrize(
    ("point", "match", "hit"),
    [
        ("smtp.rcpt", {"recipient": "far@*"}, [False, True]),
        ("smtp.rcpt", {"recipient": "*@EXAMPLE.test"}, [True, False]),
        ("smtp.rcpt", {"sender": FROM}, [True, True]),
        ("smtp.rcpt", {"sender": "other@*"}, [False, False]),
        ("smtp.rcpt", {"user": "*"}, [False, False]),
        ("smtp.command", {"command": "RCPT"}, [True, True]),
        ("smtp.command", {"command": "DATA"}, [False, False]),
    ],
)
def test_a_fault_may_look_at_what_is_said(server, point, match, hit):
    server.faults({"point": point, "match": match, "action": {"reply": "550 5.7.1 No"}})
    with Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>")
        codes = client.codes(f"RCPT TO:<{USER}>", f"RCPT TO:<{FAR}>")
    assert [code[:3] == "550" for code in codes] == hit


def test_a_fault_may_look_at_who_logged_in(server):
    server.faults({"point": "smtp.mail", "match": {"user": USER}, "action": {"reply": "452 4.3.1 Full"}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.codes(f"MAIL FROM:<{FROM}>", "RSET", f"AUTH PLAIN {plain()}", f"MAIL FROM:<{FROM}>") == [
            "250 2.1.0", "250 2.0.0", "235 2.7.0", "452 4.3.1",
        ]  # fmt: skip


@pytest.mark.parametrize("match", [{"user": USER}, {"mechanism": "PLAIN"}, {}])
def test_a_login_may_be_put_off(server, match):
    server.faults({"point": "smtp.auth", "match": match, "when": {"first": 1}, "action": {"reply": "454 4.7.0 Later"}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.codes(f"AUTH PLAIN {plain()}", f"AUTH PLAIN {plain()}") == ["454 4.7.0", "235 2.7.0"]
    assert [entry["success"] for entry in server.entries("login")] == [True]


def test_another_mechanism_is_not_meant(server):
    server.faults({"point": "smtp.auth", "match": {"mechanism": "XOAUTH2"}, "action": {"reply": "454 4.7.0 Later"}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.codes(f"AUTH PLAIN {plain()}") == ["235 2.7.0"]


def test_a_token_may_have_expired(server):
    server.faults({"point": "smtp.auth", "when": {"first": 1}, "action": {"expired_token": True}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert b'"401"' in question(client.say(f"AUTH XOAUTH2 {bearer()}"))
        assert client.codes("", f"AUTH XOAUTH2 {bearer()}") == ["535 5.7.8", "235 2.7.0"]
    assert not [secret for secret in (PASSWORD, TOKEN) if secret in repr(server.entries())]


@pytest.mark.parametrize("keyword", ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "AUTH", "CHUNKING", "DSN"])
def test_a_keyword_may_be_stripped(server, keyword):
    server.faults({"point": "smtp.ehlo", "when": {"first": 1}, "action": {"strip": [keyword]}})
    with Client(server.port) as client:
        assert keyword not in client.say("EHLO client.test")
        assert keyword in client.say("EHLO client.test")


# --- greylisting, partial refusals ---


def test_greylisting_lets_the_second_attempt_through(server):
    server.faults({"point": "smtp.rcpt", "scope": "sender-recipient", "when": {"first": 1},
                   "action": {"reply": "451 4.7.1 Greylisted"}})  # fmt: skip
    with Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>")
        assert client.codes(f"RCPT TO:<{USER}>", f"RCPT TO:<{FAR}>") == ["451 4.7.1"] * 2
        assert client.codes(f"RCPT TO:<{USER}>", f"RCPT TO:<{FAR}>") == ["250 2.1.5"] * 2
    assert [entry["recipient"] for entry in server.entries("refused")] == [USER, FAR]


def test_some_recipients_may_be_refused(server):
    server.faults({"point": "smtp.rcpt", "when": {"nth": 2}, "action": {"reply": "550 5.1.1 No such user"}})
    with Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>")
        codes = client.codes("RCPT TO:<a@x.test>", "RCPT TO:<b@x.test>", "RCPT TO:<c@x.test>", "DATA", ".")
    assert codes == ["250 2.1.5", "550 5.1.1", "250 2.1.5", "354 End", "250 2.0.0"]
    assert server.entry("accepted")["rcpt_to"] == ["a@x.test", "c@x.test"]


def test_counts_of_a_connection_go_with_it(server):
    server.faults(
        {"point": "smtp.mail", "scope": "connection", "when": {"first": 1}, "action": {"reply": "450 4.3.0 x"}}
    )
    for _ in range(2):
        with Client(server.port) as client:
            client.say("EHLO client.test")
            assert client.codes(f"MAIL FROM:<{FROM}>", f"MAIL FROM:<{FROM}>") == ["450 4.3.0", "250 2.1.0"]
    assert server.call(lambda: server.plan.counters) == {"f0": {"seen": 4, "fired": 2}}


# --- the message under way ---


def test_a_message_may_be_lost_at_its_beginning(server):
    put(server, "smtp.body", {"drop": True})
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE)
        assert client.is_over()
    assert server.entries("accepted") == []
    assert server.entry("disconnect")["command"] == "DATA"


@pytest.mark.parametrize("after_bytes", [0, 1, 10_000, len(BIG)])
def test_a_message_may_be_lost_in_its_middle(server, after_bytes):
    put(server, "smtp.body", {"drop": True, "after_bytes": after_bytes})
    with Client(server.port) as client:
        client.begin()
        sent = BIG[: max(after_bytes, 1)]
        client.send(sent[:-1])
        if after_bytes > 1:
            # One octet less is not enough.
            with Client(server.port) as other:
                assert other.codes("NOOP") == ["250 2.0.0"]
            assert client.is_silent()
        client.send(sent[-1:])
        assert client.is_over()
    assert server.entries("accepted") == []


def test_a_message_shorter_than_what_may_pass_is_lost_at_its_end(server):
    """A fault that was counted as fired has fired."""
    put(server, "smtp.body", {"drop": True, "after_bytes": 1_000_000})
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE)
        assert client.is_over()
    assert server.entries("accepted") == []


def test_a_message_may_be_read_half_and_no_further(server):
    put(server, "smtp.body", {"stall": True, "after_bytes": 100}, when={"first": 1})
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE * 3)
        server.entry("fault")
        with Client(server.port) as other:
            assert other.deliver().startswith("250 ")
        assert client.is_silent()


def test_a_message_may_be_read_slowly(server):
    put(server, "smtp.body", {"bytes_per_s": 2_000_000}, when={"first": 1})
    with Client(server.port) as client:
        for at_least_s in (len(BIG) / 2_000_000, 0):
            client.begin()
            began = time.monotonic()
            client.send(BIG + b".\r\n")
            assert client.reply().startswith("250 ")
            assert time.monotonic() - began >= at_least_s
            assert server.inbox()[-1] == BIG
    assert server.entries("accepted")[0]["duration_ms"] >= 1_000 * len(BIG) / 2_000_000


def test_others_are_served_while_one_is_read_slowly(server):
    put(server, "smtp.body", {"bytes_per_s": 100}, match={"sender": "slow@*"})
    with Client(server.port) as client:
        client.say("EHLO client.test", "MAIL FROM:<slow@elsewhere.test>", f"RCPT TO:<{FAR}>", "DATA")
        client.send(WIRE)
        with Client(server.port) as other:
            assert other.deliver().startswith("250 ")
        assert client.is_silent()


@pytest.mark.parametrize("last", [True, False])
def test_chunks_meet_the_same_fault_as_a_message(server, last):
    put(server, "smtp.body", {"drop": True, "after_bytes": 15})
    with Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>")
        assert client.say(b"BDAT 10\r\n" + b"x" * 8).startswith("250 ")
        client.send(b"BDAT 10 LAST\r\n" if last else b"BDAT 10\r\n")
        client.send(b"x" * 5)
        assert client.is_over()
    assert server.entries("accepted") == []


def test_a_chunk_may_be_refused_before_it_is_read(server):
    put(server, "smtp.data", {"reply": "451 4.3.0 Not now"}, when={"first": 1})
    with Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>")
        client.send(b"BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n")
        assert [client.reply()[:3] for _ in range(2)] == ["451", "250"]
    assert server.entry("accepted")["size_bytes"] == 6


def test_a_message_may_be_read_whole_and_not_taken(server):
    """Refused for what is in it: unlike at smtp.accepted the server keeps nothing."""
    refused = Action(fault_id="spam", reply="554 5.7.1 Looks like spam")
    when = parse_fault({"id": "x", "point": "smtp.mail", "when": {"first": 1}, "action": {"drop": True}}).when
    server.call(server.plan.replace, [Fault(id="spam", point="smtp.body", when=when, action=refused)])
    with Client(server.port) as client:
        assert client.deliver() == "554 5.7.1 Looks like spam"
        assert server.entries("accepted") == []
        assert client.deliver().startswith("250 ")


# --- the message that has arrived ---


@pytest.mark.parametrize("action", [{"drop": True}, {"stall": True}])
def test_a_message_may_be_taken_without_a_word(server, action):
    """The client can't know; the ledger does."""
    before = len(server.inbox())
    put(server, "smtp.accepted", action, when={"first": 1})
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE)
        entry = server.entry("accepted")
        if "drop" in action:
            assert client.is_over()
    assert (entry["replied"], entry["rcpt_to"]) == (False, [USER])
    assert server.inbox()[before:] == [RAW]
    server.entry("disconnect")
    assert [entry["kind"] for entry in server.entries()] == ["connect", "fault", "accepted", "served", "disconnect"]


def test_a_message_may_be_taken_and_refused(server):
    before = len(server.inbox())
    put(server, "smtp.accepted", {"reply": "451 4.3.0 Lost my mind"}, when={"first": 1})
    with Client(server.port) as client:
        assert client.deliver() == "451 4.3.0 Lost my mind"
        assert client.deliver().startswith("250 ")
    assert [entry["replied"] for entry in server.entries("accepted")] == [True, True]
    assert server.inbox()[before:] == [RAW, RAW]


def test_a_late_250_is_told_as_a_reply(server):
    put(server, "smtp.accepted", {"delay_ms": 10})
    with Client(server.port) as client:
        assert client.deliver().startswith("250 ")
    assert server.entry("accepted")["replied"] is True


# --- a real limiter ---


def test_messages_beyond_a_rate_are_refused_until_time_has_passed(server):
    """A bucket that holds three and, for the length of a test, gets no more."""
    server.faults({"point": "smtp.mail", "when": {"bucket": {"capacity": 3, "per_s": 0.001}},
                   "action": {"reply": "450 4.7.1 Slow down"}})  # fmt: skip
    with Client(server.port) as client:
        client.say("EHLO client.test")
        codes = []
        for _ in range(5):
            codes += client.codes(f"MAIL FROM:<{FROM}>")
            client.say("RSET")
    assert codes == ["250 2.1.0"] * 3 + ["450 4.7.1"] * 2


def test_the_same_seed_and_the_same_client_give_the_same_ledger(server):
    """Everything but times."""

    def run():
        flip = {"probability": 0.4}
        server.faults(
            {"point": "smtp.rcpt", "when": flip, "action": {"reply": "450 4.2.0 Busy"}},
            {"point": "smtp.accepted", "when": flip, "action": {"reply": "451 4.3.0 Not now"}},
        )
        server.call(server.ledger.clear)
        with Client(server.port) as client:
            client.say("EHLO client.test")
            for n in range(30):
                client.say(f"MAIL FROM:<{FROM}>", f"RCPT TO:<r{n}@x.test>", "RCPT TO:<all@x.test>", "DATA")
                client.say(".")
                client.say("RSET")
            client.say("QUIT")
        server.entry("disconnect")
        volatile = {"seq", "time_ns", "connection", "duration_ms", "peer"}
        return [{k: v for k, v in entry.items() if k not in volatile} for entry in server.entries()]

    assert run() == run()


def test_what_a_point_may_do_is_what_is_tried_here():
    """A new action at a point of SMTP needs a test; jitter is drawn by the plan."""
    tried = {"reply", "close", "drop", "stall", "delay_ms", "strip", "expired_token", "after_bytes", "bytes_per_s"}
    tls = {"alert", "certificate"}
    allowed = {action for name, each in POINTS.items() if name.startswith("smtp.") for action in each.actions}
    assert allowed - {"jitter_ms"} == tried | tls
