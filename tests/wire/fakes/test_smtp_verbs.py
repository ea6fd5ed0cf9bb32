"""The order of SMTP's verbs, and what is said to nonsense, over a raw socket."""

from __future__ import annotations

import pytest
from smtp_harness import FAR, FROM, RAW, USER, Client, serving


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.port) as raw:
        yield raw


def test_a_whole_conversation(client, server):
    assert client.say("EHLO client.test").startswith("250-localhost\n250-PIPELINING\n")
    assert client.codes(f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>", "DATA") == ["250 2.1.0", "250 2.1.5", "354 End"]
    assert client.say("Subject: x\r\n\r\nbody\r\n.") == "250 2.0.0 OK, taken"
    assert client.say("QUIT") == "221 2.0.0 Bye"
    assert client.is_over()


@pytest.mark.parametrize(
    ("before", "line", "code"),
    [
        ([], f"MAIL FROM:<{FROM}>", "503 5.5.1"),
        ([], "AUTH PLAIN", "503 5.5.1"),
        (["HELO c"], "AUTH PLAIN", "503 5.5.1"),
        (["EHLO c"], f"RCPT TO:<{FAR}>", "503 5.5.1"),
        (["EHLO c"], "DATA", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>"], "DATA", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>"], f"MAIL FROM:<{FROM}>", "503 5.5.1"),
        (["EHLO c", "MAIL FROM:<>"], "MAIL FROM:<>", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>"], "AUTH PLAIN", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>", "RSET"], f"RCPT TO:<{FAR}>", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>", "EHLO c"], f"RCPT TO:<{FAR}>", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>", "HELO c"], f"RCPT TO:<{FAR}>", "503 5.5.1"),
        (["EHLO c", f"MAIL FROM:<{FROM}>", "RCPT TO:<nonsense"], "DATA", "554 5.5.1"),
    ],
)
def test_a_verb_out_of_turn_is_refused(client, before, line, code):
    client.codes(*before)
    assert client.codes(line) == [code]
    assert client.codes("NOOP") == ["250 2.0.0"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("HELO", "501 5.5.4"),
        ("EHLO", "501 5.5.4"),
        ("MAIL", "501 5.5.4"),
        (f"MAIL TO:<{FROM}>", "501 5.5.4"),
        ("MAIL FROM:", "501 5.1.7"),
        ("MAIL FROM:bob@elsewhere.test", "501 5.1.7"),
        ("MAIL FROM:<bob@elsewhere.test", "501 5.1.7"),
        ("MAIL FROM:<bob>", "501 5.1.7"),
        (f"MAIL FROM:<{FROM}> SIZE", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> SIZE=x", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> BODY=9BIT", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> SMTPUTF8=1", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> =", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> SIZE=1 SIZE=1", "501 5.5.4"),
        (f"MAIL FROM:<{FROM}> NOSUCH=1", "555 5.5.4"),
        (f"MAIL FROM:<{FROM}> NOTIFY=NEVER", "555 5.5.4"),
        ("RSET x", "501 5.5.4"),
        ("QUIT x", "501 5.5.4"),
        ("STARTTLS x", "501 5.5.4"),
        ("AUTH", "501 5.5.4"),
        ("AUTH PLAIN x y", "501 5.5.4"),
        ("AUTH CRAM-MD5", "504 5.5.4"),
        ("VRFY", "501 5.5.4"),
        ("EXPN list", "502 5.5.1"),
        ("NOSUCH", "500 5.5.2"),
        ("", "500 5.5.2"),
        (" NOOP", "500 5.5.2"),
        ("MAIL\tFROM:<a@b.test>", "500 5.5.2"),
        (b"\x00", "500 5.5.2"),
        (b"\xff\xfe NOOP", "500 5.5.2"),
        (b"NO\xc3\x96P", "500 5.5.2"),
        (b"MAIL FROM:<\xff@b.test> SMTPUTF8", "501 5.1.7"),
        (b"MAIL FROM:<a\x00b@b.test>", "501 5.1.7"),
    ],
)
def test_nonsense_is_told_what_it_is(client, line, code):
    client.say("EHLO client.test")
    assert client.codes(line) == [code]
    assert client.codes(f"MAIL FROM:<{FROM}>") == ["250 2.1.0"]


@pytest.mark.parametrize(("line", "code"), [("RCPT TO:<>", "501 5.1.3"), ("RCPT TO:<a@b.test> X=1", "555 5.5.4"),
    ("RCPT FROM:<a@b.test>", "501 5.5.4"), ("DATA now", "501 5.5.4"), ("RCPT TO:<ü@b.test>", "553 5.6.7"),
    (b"RCPT TO:<\xff@b.test>", "501 5.1.3")])  # fmt: skip
def test_nonsense_after_mail_leaves_the_transaction_open(client, line, code):
    client.say("EHLO client.test", f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>")
    assert client.codes(line, "DATA", ".") == [code, "354 End", "250 2.0.0"]


def test_parameters_need_ehlo(client):
    client.say("HELO client.test")
    assert client.codes(f"MAIL FROM:<{FROM}> SIZE=1", f"MAIL FROM:<{FROM}>") == ["555 5.5.4", "250 2.1.0"]


@pytest.mark.parametrize(
    ("path", "mailbox"),
    [
        ("<>", ""),
        ("<Bob.Smith+tag@Elsewhere.Test>", "Bob.Smith+tag@Elsewhere.Test"),
        (" <bob@elsewhere.test>", "bob@elsewhere.test"),
        ('<"john smith"@elsewhere.test>', '"john smith"@elsewhere.test'),
        (r'<"a\"b@c>"@elsewhere.test>', r'"a\"b@c>"@elsewhere.test'),
        ("<@one.test,@two.test:bob@elsewhere.test>", "bob@elsewhere.test"),
        ("<bob@[192.0.2.1]>", "bob@[192.0.2.1]"),
        ("<bob@[IPv6:2001:db8::1]>", "bob@[IPv6:2001:db8::1]"),
        ("<!#$%&'*+-/=?^_`{|}~@elsewhere.test>", "!#$%&'*+-/=?^_`{|}~@elsewhere.test"),
    ],
)
def test_a_sender_is_kept_as_it_was_written(client, server, path, mailbox):
    client.say("EHLO client.test", f"MAIL FROM:{path}", f"RCPT TO:<{FAR}>", "DATA", ".")
    assert server.entries("accepted")[-1]["mail_from"] == mailbox


def test_postmaster_needs_no_domain(client, server):
    client.say("EHLO client.test", "MAIL FROM:<>", "RCPT TO:<PostMaster>", "DATA", ".")
    assert server.entries("accepted")[-1]["rcpt_to"] == ["PostMaster"]


def test_quotes_that_say_nothing_do_not_hide_a_user(client, server):
    before = len(server.inbox())
    client.say("EHLO c", "MAIL FROM:<>", 'RCPT TO:<"ann"@example.test>', "DATA", ".")
    assert len(server.inbox()) == before + 1


def test_verbs_come_in_any_case_and_with_spaces_behind(client):
    client.say("ehlo c")
    codes = client.codes("mail from:<a@b.test>", "rCpT tO:<a@b.test> ", "rset  ", "nOOp with words")
    assert codes == ["250 2.1.0", "250 2.1.5", "250 2.0.0", "250 2.0.0"]


def test_vrfy_tells_nothing(client):
    assert client.codes("VRFY ann@example.test", "VRFY nobody") == ["252 2.5.2", "252 2.5.2"]


def test_help_knows_every_verb(client):
    client.say("EHLO client.test")
    listed = client.say("HELP")
    assert listed.startswith("214 2.0.0 Commands: ")
    known = "AUTH BDAT DATA EHLO HELO HELP MAIL NOOP QUIT RCPT RSET STARTTLS VRFY"
    assert listed.partition(": ")[2] == known
    assert client.say("HELP mail") == "214 2.0.0 Syntax: MAIL FROM:<address> [parameters]"
    assert client.codes("HELP EXPN", "HELP NOSUCH") == ["504 5.5.4", "504 5.5.4"]


def test_help_is_short_for_old_clients(client):
    client.say("HELO client.test")
    assert client.say("HELP MAIL") == "214 2.0.0 Syntax: MAIL FROM:<address>"


def test_a_mail_after_a_mail_needs_no_rset(client, server):
    before = len(server.entries("accepted"))
    for _ in range(3):
        assert client.deliver().startswith("250 ")
    assert len(server.entries("accepted")) == before + 3
    assert server.inbox()[-1] == RAW


def test_a_line_may_be_512_octets_and_no_more(client):
    client.say("EHLO client.test")
    assert client.codes("NOOP " + "x" * 505, "NOOP " + "x" * 506) == ["250 2.0.0", "500 5.5.2"]


def test_extensions_make_room_for_their_parameters(client):
    long = "x" * 900 + "@elsewhere.test"
    assert client.codes("HELO c", f"MAIL FROM:<{long}>")[1] == "500 5.5.2"
    client.say("EHLO client.test")
    assert client.codes(f"MAIL FROM:<{long}>") == ["250 2.1.0"]
    assert client.codes(f"RCPT TO:<{'x' * 2_040}@elsewhere.test>") == ["500 5.5.2"]


def test_a_line_without_end_is_refused_once_it_ends(client):
    client.say("EHLO client.test")
    client.send(b"NOOP " + b"x" * 400_000)
    assert client.say("") == "500 5.5.2 Line too long"
    assert client.codes("NOOP") == ["250 2.0.0"]


def test_commands_do_not_end_with_a_bare_lf_or_cr(client):
    client.send(b"NOOP\nNOOP\r\n")
    assert client.reply().startswith("500 5.5.2 ")
    assert client.reply() == "250 2.0.0 OK"
    client.send(b"NOOP x\rMAIL\r\n")
    assert client.reply().startswith("500 5.5.2 ")
    assert client.codes("NOOP") == ["250 2.0.0"]


def test_what_is_no_verb_is_not_repeated_anywhere(client, server):
    """It may be a password that came at the wrong moment."""
    assert "canary" not in client.say("Y2FuYXJ5LXBhc3N3b3Jk canary")
    assert "canary" not in repr(server.entries())
    assert server.entries("refused")[-1]["command"] == "?"


def test_a_user_with_capitals_gets_mail(client, server):
    before = len(server.inbox())
    client.say("EHLO c", "MAIL FROM:<>", f"RCPT TO:<{USER.upper()}>", "DATA", ".")
    assert len(server.inbox()) == before + 1
