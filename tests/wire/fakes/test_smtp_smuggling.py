"""The end of a message is CR LF "." CR LF and nothing else (RFC 5321 section 4.1.1.4; CVE-2023-51764 and its kin)."""

from __future__ import annotations

import pytest
from smtp_harness import FROM, USER, Client, serving

SECOND = b"MAIL FROM:<evil@elsewhere.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n"


@pytest.fixture(scope="module")
def server():
    with serving(mistakes_max=1_000) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.port) as raw:
        yield raw


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r.\r", b"\r.\r\n", b"\r\n\x00.\r\n", b"\r\n.\x00\r\n",
        b"\n\n.\r\n", b"\r\r\n.\r\r\n", b"\r\n. \r\n", b"\r\n .\r\n", b"\r\n.\r\r\n", b"\n.\r", b"\r.\n", b"\x0b.\x0b",
    ],
)  # fmt: skip
def test_nothing_else_ends_a_message(client, server, end):
    """What a careless relay takes for the end, with a second message behind it, is one message here."""
    before = len(server.entries("accepted"))
    client.begin()
    body = b"Subject: one\r\n\r\nfirst" + end + SECOND + b"second\r\n"
    client.send(body + b".\r\n")
    assert client.reply() == "250 2.0.0 OK, taken"
    assert client.codes("NOOP") == ["250 2.0.0"]
    assert len(server.entries("accepted")) == before + 1
    # A dot after CR LF is a stuffed one, whatever follows it.
    assert server.inbox()[-1] == body.replace(b"\r\n.", b"\r\n")


def test_the_real_end_ends_it_and_what_follows_are_commands(client, server):
    before = len(server.entries("accepted"))
    client.begin()
    client.send(b"first\r\n.\r\n" + SECOND + b"second\r\n.\r\n")
    assert [client.reply()[:3] for _ in range(5)] == ["250", "250", "250", "354", "250"]
    senders = [entry["mail_from"] for entry in server.entries("accepted")[before:]]
    assert senders == [FROM, "evil@elsewhere.test"]


@pytest.mark.parametrize(
    ("wire", "raw"),
    [
        (b".\r\n", b""),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".x\r\n.\r\n", b"x\r\n"),
        (b"...\r\n....\r\n.\r\n", b"..\r\n...\r\n"),
        (b"a.\r\n.b.\r\n..c\r\n.\r\n", b"a.\r\nb.\r\n.c\r\n"),
        (b"a\n.b\r.c\r\n.\r\n", b"a\n.b\r.c\r\n"),
        (b"a\r\n\r\n.\r\n", b"a\r\n\r\n"),
        (b"x\r\n..\r\n.\r\n", b"x\r\n.\r\n"),
    ],
)
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 1_000])
def test_dots_at_the_beginning_of_a_line_are_transparent(client, server, wire, raw, step):
    """RFC 5321 section 4.5.2, however the octets arrive."""
    client.begin()
    for at in range(0, len(wire), step):
        client.send(wire[at : at + step])
    assert client.reply() == "250 2.0.0 OK, taken"
    assert server.inbox()[-1] == raw


def test_the_end_may_come_together_with_the_next_command(client):
    client.begin()
    client.send(b"x\r\n.\r\nNOOP\r\nQUIT\r\n")
    assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "221"]


def test_a_body_may_come_together_with_data(client, server):
    """Nobody may send it before the 354; whoever does gets the same answers in the same order."""
    client.say("EHLO client.test")
    client.send(f"MAIL FROM:<{FROM}>\r\nRCPT TO:<{USER}>\r\nDATA\r\nearly\r\n.\r\n")
    assert [client.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]
    assert server.inbox()[-1] == b"early\r\n"


def test_long_lines_come_through(client, server):
    raw = b"x" * 200_000 + b"\r\n"
    assert client.deliver(raw + b".\r\n").startswith("250 ")
    assert server.inbox()[-1] == raw


def test_twenty_megabytes_come_through(client, server):
    raw = (b"." + b"y" * 76 + b"\r\n") * 250_000
    assert client.deliver(raw.replace(b".y", b"..y") + b".\r\n").startswith("250 ")
    assert server.inbox()[-1] == raw
