"""A whole SMTP connection on a transport in memory: what it says does not depend on how the bytes arrive."""

from __future__ import annotations

import asyncio
import gc
import itertools
import re
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakemail.faults import Plan, parse_faults
from fakemail.ledger import Ledger
from fakemail.mailbox import MailStore
from fakemail.smtp_server import Handler, SmtpConnection, SmtpOptions

REPLY = re.compile(rb"(?:[2345]\d\d-[ -~]*\r\n)*[2345]\d\d [ -~]*\r\n")
#: Codes that must not have an enhanced one (RFC 2034 section 4), and those of EHLO and HELO.
BARE_CODES = {b"220", b"334", b"354"}


class Memory(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self):
        super().__init__({"peername": ("192.0.2.1", 4025)})
        self.writes, self.closing, self.paused = [], False, False

    def write(self, data):
        assert data
        self.writes.append(bytes(data))

    def close(self):
        self.closing = True

    def abort(self):
        self.closing = True

    def is_closing(self):
        return self.closing

    def pause_reading(self):
        self.paused = True

    def resume_reading(self):
        self.paused = False


@pytest.fixture(scope="module")
def loop():
    loop = asyncio.new_event_loop()
    problems = []
    loop.set_exception_handler(lambda _, context: problems.append(context))
    yield loop
    loop.close()
    assert problems == []


class Rig:
    """One connection."""

    def __init__(self, loop, faults=(), **options):
        store = MailStore(seed=1)
        store.add_user("ann@x.test", "secret")
        self.ledger, self.transport = Ledger(), Memory()
        self.plan = Plan(1, parse_faults(list(faults)))
        self.handler = Handler(
            store, self.ledger, self.plan, options=SmtpOptions(**{"mistakes_max": 10_000, **options})
        )
        self.connection = SmtpConnection(self.handler, loop)
        self.connection.connection_made(self.transport)

    def feed(self, *parts):
        for part in parts:
            for at in range(0, len(part), len(self.handler.buffer)):
                piece = part[at : at + len(self.handler.buffer)]
                self.handler.buffer[: len(piece)] = piece
                self.connection.buffer_updated(len(piece))
        return self

    @property
    def said(self):
        return b"".join(self.transport.writes)

    def end(self, error=None):
        self.connection.connection_lost(error)
        return self

    def entries(self, kind=None):
        return self.ledger.after(0, limit=10_000, kind=kind)


LINES = """
EHLO c|HELO c|MAIL FROM:<a@x.test>|MAIL FROM:<> SIZE=5|RCPT TO:<ann@x.test>|RCPT TO:<b@y.test>|RCPT TO:<nonsense|DATA|.
..|.x|text||RSET|NOOP|HELP|HELP MAIL|VRFY x|EXPN x|STARTTLS|BDAT 4|BDAT 7 LAST|BDAT 0 LAST|AUTH PLAIN|AUTH LOGIN|*
AUTH PLAIN AGFubkB4LnRlc3QAc2VjcmV0|YW5uQHgudGVzdA==|c2VjcmV0|AUTH XOAUTH2 dXNlcj1hAWF1dGg9QmVhcmVyIHgBAQ==
MAIL FROM:<ü@x.test> SMTPUTF8 BODY=8BITMIME RET=FULL ENVID=x|RCPT TO:<b@y.test> NOTIFY=NEVER
"""
LINES = [line.encode() for row in LINES.strip().split("\n") for line in row.split("|")] + [b"\xff\x00", b"x" * 600]
dialogues = st.lists(
    st.tuples(st.sampled_from(LINES), st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b""])).map(b"".join), max_size=30
)
cuts = st.lists(st.integers(0, 2_000))


@given(dialogue=dialogues, where=cuts)
@settings(deadline=None)
def test_property_what_is_said_does_not_depend_on_the_pieces(loop, dialogue, where):
    wire = b"".join(dialogue)
    edges = sorted({0, len(wire), *(cut % (len(wire) + 1) for cut in where)})
    whole = Rig(loop).feed(wire)
    parts = Rig(loop).feed(*(wire[a:b] for a, b in itertools.pairwise(edges)))
    assert parts.said == whole.said
    assert parts.transport.closing == whole.transport.closing
    volatile = {"time_ns", "duration_ms"}
    told = [[{k: v for k, v in e.items() if k not in volatile} for e in rig.end().entries()] for rig in (whole, parts)]
    assert told[0] == told[1]
    # The greeting, then one write for all that came at once.
    assert len(whole.transport.writes) <= 2


@given(dialogue=dialogues)
@settings(deadline=None)
def test_property_every_reply_is_well_formed(loop, dialogue):
    rig = Rig(loop).feed(b"".join(dialogue)).end()
    assert re.fullmatch(b"(?:" + REPLY.pattern + b")*", rig.said)
    hello = b"localhost"
    for line in rig.said.split(b"\r\n")[:-1]:
        if line[:3] in BARE_CODES or line[4:] == hello or line[3:4] == b"-" or line == b"250 HELP":
            continue
        assert re.match(rb"([245])\d\d \1\.\d+\.\d+ ", line), line


@given(junk=st.lists(st.binary(max_size=300), max_size=5))
@settings(deadline=None)
def test_property_no_bytes_do_harm(loop, junk):
    rig = Rig(loop).feed(b"EHLO c\r\n", *junk, b"\r\n.\r\nQUIT\r\n").end()
    assert re.fullmatch(b"(?:" + REPLY.pattern + b")*", rig.said)
    assert rig.entries("disconnect")


def test_every_verb_is_our_own():
    """aiosmtpd finds verbs by name: one that a later version adds would run beside our data path."""
    verbs = SmtpConnection._smtp_methods
    known = "AUTH BDAT DATA EHLO EXPN HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS VRFY"
    assert " ".join(sorted(verbs)) == known
    assert all(verb.__module__.startswith("fakemail.") for verb in verbs.values())


def test_no_verb_keeps_a_connection_alive_that_has_ended(loop):
    for line in (b"AUTH LOGIN\r\n", b"MAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nDATA\r\nhalf"):
        rig = Rig(loop).feed(b"EHLO c\r\n" + line).end(ConnectionResetError())
        assert rig.connection._work is None
        assert rig.entries("disconnect")[0]["reason"] == "reset by the client"
        assert rig.handler.connections == set()


@pytest.mark.parametrize("action", [{"drop": True, "after_bytes": 1_000}, {"bytes_per_s": 1_000}, {"stall": True}])
def test_a_connection_that_has_ended_needs_no_garbage_collector(loop, action):
    rig = Rig(loop, [{"id": "f", "point": "smtp.body", "when": {"always": True}, "action": action}])
    rig.feed(b"EHLO c\r\nAUTH LOGIN\r\n*\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nDATA\r\nhalf", b"more").end()
    gone = weakref.ref(rig.connection)
    gc.collect()
    gc.disable()
    try:
        del rig
        assert gone() is None
    finally:
        gc.enable()


def test_a_client_is_not_read_from_while_it_does_not_read(loop):
    rig = Rig(loop)
    rig.connection.pause_writing()
    assert rig.transport.paused
    rig.connection.resume_writing()
    assert not rig.transport.paused


def test_a_pause_for_one_reason_outlasts_the_end_of_another(loop):
    rig = Rig(loop)
    rig.connection.pause_writing()
    rig.connection.hold("pace")
    rig.connection.resume_writing()
    assert rig.transport.paused
    rig.connection.release("pace")
    assert not rig.transport.paused


def test_a_mistake_of_ours_ends_the_connection_and_is_told(loop):
    rig, problems = Rig(loop), []
    loop.set_exception_handler(lambda _, context: problems.append(context["exception"]))
    rig.handler.take = None
    rig.feed(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\nDATA\r\n.\r\nNOOP\r\n")
    assert rig.said.endswith(b"421 4.3.0 Internal error\r\n")
    assert rig.transport.closing
    assert [type(problem) for problem in problems] == [TypeError]


def test_verbs_of_nobody_are_counted_without_their_text(loop):
    rig = Rig(loop).feed(b"SECRET\r\nEHLO c\r\nsecret\r\n").end()
    assert rig.entries("served")[0]["commands"] == {"?": 2, "EHLO": 1}


def test_the_buffer_of_a_slow_reader_is_small(loop):
    fault = {"id": "f", "point": "smtp.body", "when": {"always": True}, "action": {"bytes_per_s": 1_000}}
    rig = Rig(loop, [fault]).feed(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<a@x.test>\r\n")
    assert len(rig.connection.get_buffer(-1)) == len(rig.handler.buffer)
    rig.feed(b"DATA\r\n")
    assert len(rig.connection.get_buffer(-1)) == 50
    rig.feed(b"text\r\n.\r\n")
    assert rig.transport.paused
    assert not rig.entries("accepted")
    rig.connection._arrive()
    assert rig.entries("accepted")
    assert not rig.transport.paused
    assert len(rig.connection.get_buffer(-1)) == len(rig.handler.buffer)
    rig.end()


def test_a_client_that_sends_while_it_waits_is_stopped_in_time(loop):
    fault = {"id": "f", "point": "smtp.mail", "when": {"always": True}, "action": {"delay_ms": 1_000}}
    rig = Rig(loop, [fault]).feed(b"EHLO c\r\nMAIL FROM:<>\r\n")
    sent = 0
    while not rig.transport.paused:
        rig.feed(b"NOOP\r\n" * 10_000)
        sent += 10_000
        assert sent <= 200_000
    rig.connection._resume()
    assert not rig.transport.paused
    assert rig.said.count(b"250 2.0.0 OK") == sent
    rig.end()


def test_counts_of_a_connection_go_with_it(loop):
    fault = {"id": "f", "point": "smtp.mail", "scope": "connection", "when": {"nth": 2}, "action": {"drop": True}}
    rig = Rig(loop, [fault]).feed(b"EHLO c\r\nMAIL FROM:<>\r\n")
    (armed,) = rig.plan._by_connection
    assert len(armed.tallies) == 1
    rig.end()
    assert armed.tallies == {}
