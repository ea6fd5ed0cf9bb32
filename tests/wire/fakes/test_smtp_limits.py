"""Limits of an SMTP server, clients that misbehave or vanish, and what the ledger says of their end."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import time

import pytest
from smtp_harness import FAR, FROM, RAW, USER, WIRE, Client, plain, serving, trusting


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running):
    running.faults()
    running.call(running.ledger.clear)
    return running


def limit(server, **limits):
    def put():
        for name, value in {"connections": None, "connections_per_user": None, **limits}.items():
            setattr(server.store.limits, name, value)

    server.call(put)


# --- connections ---


def test_connections_beyond_the_limit_are_refused_at_the_door():
    with serving() as server:
        limit(server, connections=2)
        with Client(server.port) as first, Client(server.port) as second:
            with Client(server.port, greeting=False) as third:
                assert third.reply() == "421 4.7.0 Too many connections"
                assert third.is_over()
            assert first.codes("NOOP") == second.codes("NOOP") == ["250 2.0.0"]
            first.say("QUIT")
            server.entry("disconnect", reason="quit")
            with Client(server.port) as fourth:
                assert fourth.codes("NOOP") == ["250 2.0.0"]
        assert server.entry("refused")["reply_code"] == 421


def test_a_user_beyond_the_limit_is_refused_at_login():
    with serving() as server:
        server.call(server.store.add_user, "eve@example.test", "canary-password")
        limit(server, connections_per_user=1)
        with Client(server.port) as first, Client(server.port) as second, Client(server.port) as third:
            for client in (first, second, third):
                client.say("EHLO client.test")
            assert first.say(f"AUTH PLAIN {plain()}").startswith("235 ")
            assert third.say(f"AUTH PLAIN {plain(user='eve@example.test')}").startswith("235 ")
            assert second.say(f"AUTH PLAIN {plain()}") == "421 4.7.0 Too many connections of this user"
            assert second.is_over()
            first.say("QUIT")
            server.entry("disconnect", reason="quit")
            with Client(server.port) as fourth:
                fourth.say("EHLO client.test")
                assert fourth.say(f"AUTH PLAIN {plain()}").startswith("235 ")


def test_the_count_comes_back_to_nothing():
    with serving() as server:
        for n in range(5):
            with Client(server.port) as client:
                client.say("EHLO client.test")
                if n % 2:
                    client.say(f"AUTH PLAIN {plain()}")
                if n == 3:
                    client.start_tls(trusting(server))
                    client.say("EHLO client.test")
                    assert server.call(lambda: +server.store.connections) == {("smtp", ""): 1}
            server.entry("disconnect", connection=n + 1)
        assert server.call(lambda: +server.store.connections) == {}


def test_idle_connections_cost_no_task(server):
    def tasks():
        return len(asyncio.all_tasks(server.loop))

    before = server.call(tasks)
    clients = [Client(server.port) for _ in range(200)]
    for client in clients[::3]:
        client.begin()
    assert server.call(tasks) == before
    for client in clients:
        client.sock.close()


# --- patience ---


def test_silence_ends_the_connection():
    with serving(idle_s=0.1) as server, Client(server.port) as client:
        assert client.reply() == "421 4.4.2 Timeout"
        assert client.is_over()
        assert server.entry("disconnect")["reason"] == "refused"


@pytest.mark.parametrize("lines", [["AUTH PLAIN"], [f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>", "DATA"]])
def test_silence_in_the_middle_ends_it_too(lines):
    with serving(idle_s=0.1) as server, Client(server.port) as client:
        client.say("EHLO client.test", *lines)
        assert client.reply() == "421 4.4.2 Timeout"
        assert client.is_over()


def test_a_client_that_does_not_read_its_last_reply_is_not_kept_for_ever():
    with serving(idle_s=0.2) as server, Client(server.port) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        with contextlib.suppress(ConnectionError):
            assert client.flood(b"HELP\r\n" * 10_000)
        assert server.entry("refused")["reply"] == "421 4.4.2 Timeout"
        server.entry("disconnect")


def test_whom_we_keep_waiting_is_not_idle():
    with serving(idle_s=0.1) as server, Client(server.port) as client:
        server.faults({"point": "smtp.mail", "action": {"delay_ms": 300}})
        client.say("EHLO client.test")
        assert client.codes(f"MAIL FROM:<{FROM}>") == ["250 2.1.0"]


def test_who_says_something_now_and_then_is_not_idle():
    with serving(idle_s=0.3) as server, Client(server.port) as client:
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            assert client.codes("NOOP") == ["250 2.0.0"]
            # Nothing is there to be read: this is how long the client takes to think.
            select.select([client.sock], [], [], 0.05)


def test_too_many_mistakes_end_the_connection():
    with serving(mistakes_max=3) as server, Client(server.port) as client:
        assert client.codes("A", "B", "C") == ["500 5.5.2"] * 3
        assert client.codes("D") == ["500 5.5.2"]
        assert client.reply() == "421 4.7.0 Too many mistakes"
        assert client.is_over()


def test_a_mistake_in_a_while_is_forgiven():
    with serving(mistakes_max=3) as server, Client(server.port) as client:
        for _ in range(3):
            assert client.codes("A", "B", "C") == ["500 5.5.2"] * 3
            assert client.deliver().startswith("250 ")


def test_refused_recipients_are_no_mistakes():
    with serving(mistakes_max=3, refused_domains=frozenset({"x.test"})) as server, Client(server.port) as client:
        client.say("EHLO client.test", f"MAIL FROM:<{FROM}>")
        assert client.codes(*[f"RCPT TO:<{n}@x.test>" for n in range(20)]) == ["550 5.7.1"] * 20


# --- clients that don't read, don't wait, or go away ---


def test_a_client_that_reads_nothing_is_not_read_from(server):
    """Its replies must not pile up here."""
    with Client(server.port) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        assert client.flood(b"HELP\r\n" * 10_000)
        with Client(server.port) as other:
            assert other.deliver().startswith("250 ")
        for _ in range(100):
            assert client.reply().startswith("214 ")


def test_a_client_that_is_kept_waiting_and_goes_on_sending_is_stopped(server):
    server.faults({"point": "smtp.mail", "action": {"delay_ms": 1_000}, "when": {"first": 1}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.send(f"MAIL FROM:<{FROM}>\r\n")
        assert client.flood(b"NOOP\r\n" * 10_000)
        assert client.reply().startswith("250 2.1.0")
        for _ in range(1_000):
            assert client.reply() == "250 2.0.0 OK"


def reset(sock):
    """Gone without a goodbye."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


STEPS = {
    "": [],
    "EHLO": ["EHLO c"],
    "AUTH": ["EHLO c", "AUTH LOGIN"],
    "MAIL": ["EHLO c", f"MAIL FROM:<{FROM}>"],
    "RCPT": ["EHLO c", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>"],
    "DATA": ["EHLO c", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>", "DATA"],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("way", [socket.socket.close, reset])
@pytest.mark.parametrize("rest", [b"", b"half a li", WIRE[:30]])
def test_a_client_that_vanishes_is_noted_wherever_it_was(server, step, way, rest):
    with Client(server.port) as client:
        client.say(*STEPS[step])
        if rest:
            client.send(rest)
        way(client.sock)
    end = server.entry("disconnect")
    assert end["reason"] in {"closed by the client", "reset by the client"}
    # These two wait for more; a whole line is an answer to AUTH, if a wrong one.
    waiting = step == "DATA" or (step == "AUTH" and b"\r\n" not in rest)
    assert end["command"] == (step if waiting else "")
    assert server.entries("accepted") == []


def test_half_a_message_is_no_message(server):
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE[:-3])
    server.entry("disconnect")
    assert server.entries("accepted") == []


def test_a_client_may_say_it_all_and_shut_its_side(server):
    """As nc does."""
    with Client(server.port) as client:
        client.send(b"EHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<far@x.test>\r\nDATA\r\n" + WIRE + b"QUIT\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.reply()[:3] for _ in range(6)] == ["250", "250", "250", "354", "250", "221"]
        assert client.is_over()
    assert server.entry("accepted")["sha256"]


def test_a_client_that_shuts_its_side_without_quit_gets_its_answers(server):
    with Client(server.port) as client:
        client.send(b"EHLO c\r\nNOOP\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.reply()[:3] for _ in range(2)] == ["250", "250"]
        assert client.is_over()
    assert server.entry("disconnect")["reason"] == "closed by the client"


# --- the 40 ms of a delayed acknowledgement ---


def test_a_command_in_two_writes_does_not_wait_for_an_acknowledgement(server):
    """A client with Nagle's algorithm on keeps the CR LF back until the first write is acknowledged."""
    took = []
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        for _ in range(50):
            began = time.monotonic()
            client.sock.sendall(b"NOOP")
            client.sock.sendall(b"\r\n")
            assert client.reply() == "250 2.0.0 OK"
            took.append(time.monotonic() - began)
    assert sorted(took)[25] < 0.02, took


# --- the ledger ---


def test_the_story_of_a_connection(server):
    with Client(server.port) as client:
        client.say("EHLO client.test", f"AUTH PLAIN {plain()}")
        client.deliver()
        client.deliver()
        client.say("NOSUCH", "QUIT")
    end = server.entry("disconnect")
    assert [entry["kind"] for entry in server.entries()] == [
        "connect", "login", "accepted", "accepted", "refused", "served", "disconnect",
    ]  # fmt: skip
    assert server.entry("served")["commands"] == {
        "EHLO": 3, "AUTH": 1, "MAIL": 2, "RCPT": 2, "DATA": 2, "?": 1, "QUIT": 1,
    }  # fmt: skip
    assert (end["user"], end["reason"], end["commands"], end["messages"]) == (USER, "quit", 12, 2)
    assert end["duration_ms"] > 0
    assert {entry["connection"] for entry in server.entries()} == {end["connection"]}
    assert server.entry("connect")["peer"].startswith("127.0.0.1:")


def test_an_accepted_message_is_described(server):
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.say(f"MAIL FROM:<{FROM}> BODY=8BITMIME", f"RCPT TO:<{USER}>", f"RCPT TO:<{FAR}>", "DATA")
        client.send(WIRE)
        client.reply()
    entry = server.entry("accepted")
    kept = {"mail_from", "rcpt_to", "size_bytes", "message_id", "replied", "user", "tls", "body", "smtputf8", "dsn"}
    assert {name: entry[name] for name in kept} == {
        "mail_from": FROM, "rcpt_to": [USER, FAR], "size_bytes": len(RAW), "message_id": "<1@example.test>",
        "replied": True, "user": "", "tls": False, "body": "8BITMIME", "smtputf8": False, "dsn": {},
    }  # fmt: skip
    assert entry["header"] == RAW.decode().partition("\r\n\r\n")[0] + "\r\n\r\n"
    assert entry["duration_ms"] > 0


def test_a_huge_header_is_kept_in_part(server):
    raw = b"Subject: x\r\n" + b"X-Long: " + b"y" * 50_000 + b"\r\n\r\nbody\r\n"
    with Client(server.port) as client:
        client.deliver(raw + b".\r\n")
    entry = server.entry("accepted")
    assert (len(entry["header"]), entry["size_bytes"]) == (16_384, len(raw))


# --- trace headers ---


def test_bytes_stay_what_was_sent_unless_traces_are_wanted(server):
    before = len(server.inbox())
    with Client(server.port) as client:
        client.deliver()
    assert server.inbox()[before:] == [RAW]


def test_traces_say_how_a_message_came():
    with serving(trace_headers=True, hostname="mx.example.test") as server:
        with Client(server.port) as client:
            client.say("HELO old (client)")
            client.say(f"MAIL FROM:<{FROM}>", f"RCPT TO:<{USER}>", "DATA")
            client.send(WIRE)
            client.reply()
            client.say("EHLO client.test")
            client.start_tls(trusting(server))
            client.say("EHLO client.test", f"AUTH PLAIN {plain()}")
            client.say("MAIL FROM:<> SMTPUTF8", f"RCPT TO:<{USER}>", "DATA")
            client.send(WIRE)
            client.reply()
        first, second = server.inbox()
    assert first.startswith(
        b"Return-Path: <bob@elsewhere.test>\r\nReceived: from old ?client? ([127.0.0.1])\r\n"
        b"\tby mx.example.test with SMTP id 1;\r\n\t"
    )
    assert second.startswith(b"Return-Path: <>\r\n")
    assert b"with UTF8SMTPSA id 1;" in second
    assert first.endswith(RAW)
    assert second.endswith(RAW)
    assert first.partition(b";\r\n\t")[2].partition(b"\r\n")[0].endswith(b" +0000")
