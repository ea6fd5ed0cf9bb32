"""What EHLO offers, and that each of it works, is refused when it is not offered, and can be left out."""

from __future__ import annotations

import smtplib

import pytest
from smtp_harness import FAR, FROM, RAW, USER, WIRE, Client, serving

from fakemail.smtp_server import KEYWORDS, SmtpOptionError, SmtpOptions

BEGIN = [f"MAIL FROM:<{FROM}>", f"RCPT TO:<{USER}>"]


@pytest.fixture(scope="module")
def server():
    with serving(size_bytes_max=100_000, refused_domains=frozenset({"closed.test"}), recipients_max=1_000) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.port) as raw:
        raw.say("EHLO client.test")
        yield raw


def offered(reply):
    return [line[4:].split(" ")[0] for line in reply.split("\n")][1:]


# --- EHLO ---


def test_everything_is_offered_in_one_write(client):
    assert offered(client.say("EHLO client.test")) == list(KEYWORDS)
    assert client.reads == 1


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_can_be_left_out(keyword):
    with serving(without=frozenset({keyword})) as server, Client(server.port) as client:
        assert offered(client.say("EHLO client.test")) == [name for name in KEYWORDS if name != keyword]


@pytest.mark.parametrize(
    ("keyword", "lines", "code"),
    [
        ("SIZE", [f"MAIL FROM:<{FROM}> SIZE=1"], "555 5.5.4"),
        ("8BITMIME", [f"MAIL FROM:<{FROM}> BODY=8BITMIME"], "555 5.5.4"),
        ("SMTPUTF8", [f"MAIL FROM:<{FROM}> SMTPUTF8"], "555 5.5.4"),
        ("DSN", [f"MAIL FROM:<{FROM}> RET=HDRS"], "555 5.5.4"),
        ("DSN", [f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}> NOTIFY=NEVER"], "555 5.5.4"),
        ("CHUNKING", [*BEGIN, "BDAT 0 LAST"], "502 5.5.1"),
        ("STARTTLS", ["STARTTLS"], "502 5.5.1"),
        ("AUTH", ["AUTH PLAIN"], "502 5.5.1"),
        ("AUTH", [f"MAIL FROM:<{FROM}> AUTH=<>"], "555 5.5.4"),
    ],
)
def test_what_is_not_offered_is_not_done(keyword, lines, code):
    with serving(without=frozenset({keyword})) as server, Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.codes(*lines)[-1] == code


def test_a_keyword_that_nobody_knows_is_a_mistake():
    with pytest.raises(SmtpOptionError, match=r"NOSUCH.*allowed: PIPELINING"):
        SmtpOptions(without=frozenset({"NOSUCH"}))


def test_without_enhanced_codes_there_are_none():
    with serving(without=frozenset({"ENHANCEDSTATUSCODES"})) as server, Client(server.port) as client:
        client.say("EHLO client.test")
        replies = [client.say(line) for line in [*BEGIN, "NOSUCH", "DATA", ".", "QUIT"]]
    assert replies == ["250 Sender OK", "250 Recipient OK", "500 Command not recognized",
        "354 End data with <CR><LF>.<CR><LF>", "250 OK, taken", "221 Bye"]  # fmt: skip


def test_without_tls_to_offer_starttls_is_unknown():
    with serving(with_tls=False) as server, Client(server.port) as client:
        assert "STARTTLS" not in offered(client.say("EHLO client.test"))
        assert client.codes("STARTTLS") == ["502 5.5.1"]
        assert "STARTTLS" not in client.say("HELP")


# --- PIPELINING (RFC 2920) ---


def test_commands_that_came_together_are_answered_together(client):
    client.send("".join(f"{line}\r\n" for line in [*BEGIN, f"RCPT TO:<{FAR}>", "DATA"]))
    assert [client.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
    assert client.reads == 1


def test_messages_may_follow_one_another_without_a_pause(client, server):
    before = len(server.entries("accepted"))
    one = "".join(f"{line}\r\n" for line in [*BEGIN, "DATA"]).encode() + WIRE
    client.send(one * 50 + b"QUIT\r\n")
    replies = [client.reply()[:3] for _ in range(50 * 4 + 1)]
    assert replies == ["250", "250", "354", "250"] * 50 + ["221"]
    assert client.is_over()
    assert len(server.entries("accepted")) == before + 50


def test_a_partial_refusal_in_a_pipeline_keeps_the_order(client, server):
    client.send(
        "MAIL FROM:<>\r\nRCPT TO:<a@closed.test>\r\nRCPT TO:<b@open.test>\r\nRCPT TO:<c@closed.test>\r\nDATA\r\n"
    )
    assert [client.reply()[:9] for _ in range(5)] == [
        "250 2.1.0", "550 5.7.1", "250 2.1.5", "550 5.7.1", "354 End d",
    ]  # fmt: skip
    client.say(".")
    assert server.entries("accepted")[-1]["rcpt_to"] == ["b@open.test"]


def test_a_pipeline_whose_recipients_are_all_refused_ends_with_554(client):
    client.send("MAIL FROM:<>\r\nRCPT TO:<a@closed.test>\r\nDATA\r\nRSET\r\n")
    assert [client.reply()[:9] for _ in range(4)] == ["250 2.1.0", "550 5.7.1", "554 5.5.1", "250 2.0.0"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_commands_may_come_in_any_pieces(client, size):
    wire = "".join(f"{line}\r\n" for line in [*BEGIN, "DATA"]).encode() + WIRE + b"NOOP\r\n"
    for at in range(0, len(wire), size):
        client.send(wire[at : at + size])
    assert [client.reply()[:3] for _ in range(5)] == ["250", "250", "354", "250", "250"]


# --- SIZE (RFC 1870) ---


def test_the_limit_is_told(client):
    assert "250-SIZE 100000" in client.say("EHLO client.test").split("\n")


def test_a_declared_size_is_believed(client):
    assert client.codes(f"MAIL FROM:<{FROM}> SIZE=100001", f"MAIL FROM:<{FROM}> SIZE=100000") == [
        "552 5.3.4", "250 2.1.0",
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "code"), [(100_000, "250"), (100_001, "552"), (3_000_000, "552")])
def test_a_message_beyond_the_limit_is_read_and_refused(client, server, size, code):
    lines = (b"x" * 98 + b"\r\n") * (size // 100)
    body = b"x" * (size - len(lines)) + lines
    before = len(server.entries("accepted"))
    assert client.deliver(body + b".\r\n")[:3] == code
    assert client.codes("NOOP") == ["250 2.0.0"]
    assert len(server.entries("accepted")) == before + (code == "250")


def test_stuffed_dots_do_not_count(client):
    body = b".\r\n" * 33_333
    assert len(body) == 99_999
    assert client.deliver(b".." + body[1:].replace(b"\r\n.", b"\r\n..") + b".\r\n").startswith("250 ")


# --- 8BITMIME (RFC 6152), SMTPUTF8 (RFC 6531) ---


@pytest.mark.parametrize("body", ["7BIT", "8BITMIME"])
def test_the_body_type_is_in_the_ledger(client, server, body):
    client.say(f"MAIL FROM:<{FROM}> BODY={body}", BEGIN[1], "DATA", ".")
    assert server.entries("accepted")[-1]["body"] == body


def test_eight_bits_and_nuls_come_through(client, server):
    every = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"") * 4
    raw = b"Subject: x\r\n\r\n" + every + b"\r\n"
    assert client.deliver(raw + b".\r\n").startswith("250 ")
    assert server.inbox()[-1] == raw


def test_addresses_beyond_ascii_need_smtputf8(client, server):
    assert client.codes("MAIL FROM:<björn@elsewhere.test>") == ["553 5.6.7"]
    client.say("MAIL FROM:<björn@elsewhere.test> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<用户@例子.test>", "DATA", ".")
    entry = server.entries("accepted")[-1]
    assert (entry["mail_from"], entry["rcpt_to"]) == ("björn@elsewhere.test", ["用户@例子.test"])
    assert (entry["smtputf8"], entry["body"]) == (True, "8BITMIME")


# --- DSN (RFC 3461) ---


def test_dsn_parameters_are_in_the_ledger(client, server):
    codes = client.codes(
        f"MAIL FROM:<{FROM}> RET=hdrs ENVID=QQ+2B314",
        f"RCPT TO:<{USER}> NOTIFY=success,DELAY ORCPT=rfc822;Ann+40example.test",
        f"RCPT TO:<{FAR}> NOTIFY=NEVER",
        "RCPT TO:<quiet@elsewhere.test>",
    )
    assert codes == ["250 2.1.0"] + ["250 2.1.5"] * 3
    client.say("DATA", ".")
    assert server.entries("accepted")[-1]["dsn"] == {
        "ret": "HDRS",
        "envid": "QQ+314",
        "recipients": {
            USER: {"notify": ["SUCCESS", "DELAY"], "orcpt": "rfc822;Ann@example.test"},
            FAR: {"notify": ["NEVER"], "orcpt": ""},
        },
    }


def test_who_says_nothing_of_notifications_has_nothing_in_the_ledger(client, server):
    client.deliver()
    assert server.entries("accepted")[-1]["dsn"] == {}


@pytest.mark.parametrize("parameter", ["RET=ALL", "RET", "ENVID=", "ENVID=a+zz", f"ENVID={'x' * 101}", "AUTH=a=b"])
def test_a_broken_dsn_parameter_of_mail_is_refused(client, parameter):
    assert client.codes(f"MAIL FROM:<{FROM}> {parameter}") == ["501 5.5.4"]


@pytest.mark.parametrize(
    "parameter",
    ["NOTIFY=", "NOTIFY=NEVER,DELAY", "NOTIFY=SOON", "NOTIFY=DELAY,DELAY", "ORCPT=x", "ORCPT=;x", "ORCPT=a;"],
)
def test_a_broken_dsn_parameter_of_rcpt_is_refused(client, parameter):
    client.say(BEGIN[0])
    assert client.codes(f"RCPT TO:<{FAR}> {parameter}") == ["501 5.5.4"]


def test_a_recipient_of_another_script_may_be_named_in_orcpt(client, server):
    client.say(BEGIN[0], f"RCPT TO:<{FAR}> ORCPT=utf-8;用户@例子.test", "DATA", ".")
    assert server.entries("accepted")[-1]["dsn"]["recipients"][FAR]["orcpt"] == "utf-8;用户@例子.test"


# --- CHUNKING (RFC 3030) ---


def test_a_message_may_come_in_chunks(client, server):
    client.say(*BEGIN)
    assert client.say(b"BDAT 10\r\n" + RAW[:8]) == "250 2.0.0 10 octets received"
    assert client.say(b"BDAT %d LAST\r\n" % (len(RAW) - 10) + RAW[10:-2]) == "250 2.0.0 OK, taken"
    assert server.inbox()[-1] == RAW[:8] + b"\r\n" + RAW[10:]


def test_chunks_may_be_pipelined_and_end_with_nothing(client, server):
    client.send(f"{BEGIN[0]}\r\n{BEGIN[1]}\r\nBDAT {len(RAW)}\r\n".encode() + RAW + b"BDAT 0 LAST\r\n")
    assert [client.reply()[:3] for _ in range(4)] == ["250"] * 4
    assert client.reads == 1
    assert server.inbox()[-1] == RAW


def test_octets_of_a_chunk_are_never_commands_nor_dots(client, server):
    body = b"QUIT\r\n.\r\nDATA\r\n..\r\n"
    client.say(*BEGIN)
    assert client.say(b"BDAT %d LAST\r\n" % len(body) + body[:-2]).startswith("250 ")
    assert server.inbox()[-1] == body


def test_a_chunk_out_of_turn_is_read_and_refused(client):
    client.send(b"BDAT 6\r\nQUIT\r\nNOOP\r\n")
    assert [client.reply()[:9] for _ in range(2)] == ["503 5.5.1", "250 2.0.0"]


def test_data_and_bdat_do_not_mix(client):
    client.say(*BEGIN)
    client.say(b"BDAT 2\r\n")
    assert client.codes("DATA", f"RCPT TO:<{FAR}>") == ["503 5.5.1", "503 5.5.1"]
    assert client.codes("RSET", *BEGIN, "DATA", ".")[-1] == "250 2.0.0"


def test_chunks_together_have_the_limit_of_a_message(client, server):
    before = len(server.entries("accepted"))
    client.say(*BEGIN)
    big = b"x" * 60_000
    assert client.say(b"BDAT 60000\r\n" + big[:-2])[:3] == "250"
    client.send(b"BDAT 60000\r\n" + big)
    assert client.reply()[:9] == "552 5.3.4"
    client.send(b"BDAT 3 LAST\r\nabc")
    assert client.reply()[:9] == "503 5.5.1"
    assert len(server.entries("accepted")) == before


@pytest.mark.parametrize("line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 1 FIRST", "BDAT 99999999999999999999"])
def test_a_chunk_without_a_size_ends_the_connection(client, line):
    """Where its octets would end, nobody can know."""
    assert client.codes(line) == ["501 5.5.4"]
    assert client.is_over()


# --- limits ---


def test_a_thousand_recipients_are_enough(client):
    client.say(BEGIN[0])
    client.send("".join(f"RCPT TO:<r{n}@elsewhere.test>\r\n" for n in range(1_001)))
    assert [client.reply()[:9] for _ in range(1_001)] == ["250 2.1.5"] * 1_000 + ["452 4.5.3"]
    assert client.codes("DATA", ".") == ["354 End", "250 2.0.0"]


def test_domains_may_be_refused(client):
    client.say(BEGIN[0])
    assert client.codes("RCPT TO:<a@Closed.Test>", "RCPT TO:<a@not.closed.test>") == ["550 5.7.1", "250 2.1.5"]


def test_smtplib_finds_all_of_it(server):
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "100000"
        assert client.esmtp_features["auth"].split() == ["PLAIN", "LOGIN", "XOAUTH2"]
        refused = client.sendmail(FROM, [USER, "a@closed.test"], RAW, mail_options=["RET=FULL"])
    assert refused == {"a@closed.test": (550, b"5.7.1 Mail for this domain is not taken here")}
