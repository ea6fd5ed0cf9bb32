"""Every SMTP preset plays what its sentence says over a real connection, and heals where it says so."""

import base64
import smtplib
import ssl
import time

import pytest
from smtp_harness import DEADLINE_S, FAR, FROM, PASSWORD, TOKEN, USER, WIRE, Client, serving, trusting

from fakemail.faults import PRESETS, preset

PLAYED = set()


@pytest.fixture(scope="module")
def shared():
    with serving() as server:
        yield server


@pytest.fixture
def server(shared, request):
    """The server with the preset that the test names."""
    shared.call(shared.plan.replace, preset(request.param))
    shared.call(shared.ledger.clear)
    yield shared
    shared.call(shared.plan.replace, ())


def plays(name):
    PLAYED.add(name)
    return pytest.mark.parametrize("server", [name], indirect=True, ids=[name])


def greeting(server):
    with Client(server.port, greeting=False) as client:
        return client.reply()


def said(server, *lines):
    """What a new client is answered to each line after EHLO."""
    with Client(server.port) as client:
        client.say("EHLO client.test")
        return [client.say(line) for line in lines]


MAIL = f"MAIL FROM:<{FROM}>"


def rcpt(address):
    return f"RCPT TO:<{address}>"


@plays("greylisting")
def test_each_pair_is_put_off_once(server):
    answers = said(server, MAIL, rcpt(USER), rcpt(USER), rcpt(FAR))
    assert answers[1] == "451 4.7.1 Greylisted, please try again later"
    assert [answer[:3] for answer in answers] == ["250", "451", "250", "451"]
    assert [answer[:3] for answer in said(server, MAIL, rcpt(FAR))] == ["250", "250"]
    assert [answer[:3] for answer in said(server, "MAIL FROM:<c@d.test>", rcpt(FAR))] == ["250", "451"]


@plays("smtp-rate-limit")
def test_ten_messages_at_once_are_enough(server):
    answers = []
    while not answers or answers[-1].startswith("250"):
        assert len(answers) < 100, "five per second can't be outrun by a loop"
        answers.append(said(server, MAIL)[0])
    assert len(answers) > 10
    assert answers[-1] == "421 4.7.0 Too many messages, slow down"


@plays("smtp-connection-rate")
def test_ten_connections_at_once_are_enough(server):
    answers = []
    while not answers or answers[-1].startswith("220"):
        assert len(answers) < 100
        answers.append(greeting(server))
    assert len(answers) > 10
    assert answers[-1] == "421 4.7.0 Too many connections, slow down"


@plays("smtp-connection-drops")
def test_two_connections_are_cut_and_the_third_is_served(server):
    assert [greeting(server)[:3] for _ in range(3)] == ["", "", "220"]


@plays("smtp-unavailable")
def test_three_connections_meet_a_server_that_shuts_down(server):
    assert [greeting(server)[:3] for _ in range(4)] == ["421", "421", "421", "220"]


def auth():
    return f"AUTH PLAIN {base64.b64encode(f'{chr(0)}{USER}{chr(0)}{PASSWORD}'.encode()).decode()}"


@plays("smtp-auth-535")
def test_no_password_is_right(server):
    assert said(server, auth(), auth()) == ["535 5.7.8 Authentication credentials invalid"] * 2


@plays("smtp-auth-454")
def test_two_logins_meet_a_database_that_is_down(server):
    refused = "454 4.7.0 Temporary authentication failure"
    *answers, last = said(server, auth(), auth(), auth())
    assert answers == [refused, refused]
    assert last.startswith("235 ")


@plays("expired-token")
def test_the_first_token_has_expired(server):
    token = base64.b64encode(f"user={USER}\1auth=Bearer {TOKEN}\1\1".encode()).decode()
    challenge, refusal, again = said(server, f"AUTH XOAUTH2 {token}", "", f"AUTH XOAUTH2 {token}")
    assert b'"status"' in base64.b64decode(challenge.removeprefix("334 "))
    assert refusal.startswith("535 ")
    assert again.startswith("235 ")


@plays("sender-refused")
def test_a_sender_may_not_send(server):
    refusal, taken = said(server, "MAIL FROM:<refused1@x.test>", MAIL)
    assert refusal == "550 5.7.1 Sender address refused"
    assert taken.startswith("250 ")


@plays("partial-refusal")
def test_one_recipient_is_refused_and_the_other_gets_the_mail(server):
    client = smtplib.SMTP("127.0.0.1", server.port, timeout=DEADLINE_S)
    refused = client.sendmail(FROM, [USER, "nobody@x.test"], b"Subject: x\r\n\r\nx\r\n")
    client.quit()
    assert refused == {"nobody@x.test": (550, b"5.1.1 No such user here")}
    assert server.entry("accepted")["rcpt_to"] == [USER]


@plays("mailbox-full")
def test_one_mailbox_is_full_today_and_one_for_ever(server):
    answers = said(server, MAIL, rcpt("full1@x.test"), rcpt("overquota@x.test"), rcpt(USER))
    assert [answer[:9] for answer in answers] == ["250 2.1.0", "452 4.2.2", "552 5.2.2", "250 2.1.5"]


@plays("spam-refused")
def test_every_third_message_is_refused_and_not_kept(server):
    answers = []
    for _ in range(3):
        with Client(server.port) as client:
            answers.append(client.deliver()[:9])
    assert answers == ["250 2.0.0", "250 2.0.0", "554 5.7.1"]
    assert len(server.entries("accepted")) == 2


@plays("slow-smtp")
def test_every_verb_waits(server):
    started = time.monotonic()
    said(server, MAIL)
    assert time.monotonic() - started >= 0.2, "two verbs, a tenth of a second each at least"


@plays("slow-data")
def test_a_message_is_read_slowly(server):
    with Client(server.port) as client:
        client.begin()
        started = time.monotonic()
        client.send(b"x" * 62 + b"\r\n" + b"y" * 1_982 + b"\r\n.\r\n")
        assert client.reply().startswith("250 ")
    assert time.monotonic() - started >= 0.3, "2 kB at 4 kB per second"


@plays("drop-before-data")
def test_the_first_data_finds_a_cut_line(server):
    with Client(server.port) as client:
        client.say("EHLO client.test", MAIL, rcpt(USER))
        assert client.say("DATA") == ""
    with Client(server.port) as client:
        assert client.deliver().startswith("250 ")
    assert len(server.entries("accepted")) == 1


@plays("drop-in-body")
def test_the_line_breaks_in_the_first_message(server):
    wire = b"x" * 500 + b"\r\n" + WIRE
    with Client(server.port) as client:
        client.begin()
        client.send(wire[:400])
        assert client.is_over()
    with Client(server.port) as client:
        assert client.deliver(wire).startswith("250 ")
    assert len(server.entries("accepted")) == 1


@plays("drop-after-data")
def test_the_first_message_is_taken_and_nobody_says_so(server):
    with Client(server.port) as client:
        assert client.deliver() == ""
    assert server.entry("accepted")["replied"] is False
    with Client(server.port) as client:
        assert client.deliver().startswith("250 ")
    assert [entry["replied"] for entry in server.entries("accepted")] == [False, True]


@plays("stall-after-data")
def test_the_first_message_is_taken_and_the_reply_never_comes(server):
    with Client(server.port) as client:
        client.begin()
        client.send(WIRE)
        assert server.entry("accepted")["replied"] is False
        assert client.is_silent()


@plays("starttls-refused")
def test_starttls_is_offered_and_refused(server):
    hello, refusal = said(server, "EHLO client.test", "STARTTLS")
    assert "STARTTLS" in hello
    assert refusal == "454 4.7.0 TLS not available due to temporary reason"


@plays("starttls-stripped")
def test_starttls_is_not_offered(server):
    assert "STARTTLS" not in said(server, "EHLO client.test")[0]


@plays("no-extensions")
def test_ehlo_offers_next_to_nothing(server):
    offered = {line.split()[0].partition("-")[2] for line in said(server, "EHLO client.test")[0].splitlines()[1:]}
    assert not offered & {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"}


def handshake(server, context):
    client = smtplib.SMTP_SSL("127.0.0.1", server.tls_port, context=context, timeout=DEADLINE_S)
    client.quit()


@plays("tls-handshake-failure")
def test_two_handshakes_break_off_with_an_alert(server):
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            handshake(server, trusting(server))
    handshake(server, trusting(server))


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("tls-wrong-host", "(?i)mismatch|not valid for"),
        ("tls-expired", "expired"),
        ("tls-self-signed", "(?i)self.signed"),
    ],
    indirect=["server"],
)
def test_a_certificate_is_not_to_be_trusted(server, words):
    with pytest.raises(ssl.SSLCertVerificationError, match=words):
        handshake(server, trusting(server))


def test_every_smtp_preset_is_played():
    smtp = {name for name, each in PRESETS.items() if any(fault.point.startswith("smtp.") for fault in each)}
    assert smtp - PLAYED == {"tls-wrong-host", "tls-expired", "tls-self-signed"}
