"""What ``deliver`` makes of servers that behave, and of those that do not."""

import base64
import socket
from types import SimpleNamespace

import pytest
import trustme
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_server import ScriptedServer, client_context, server_context

from email_service import smtp
from email_service.errors import (
    AuthenticationError,
    ConnectError,
    DatabaseError,
    DeliveryUnknownError,
    InvalidRequestError,
    SmtpError,
)
from email_service.smtp import tracing
from email_service.vault import Secret

CANARY = "canary-9f3c"
PLAIN = base64.b64encode(f"\0ann\0{CANARY}".encode()).decode()
HELLO = ("S: 220 ready", "C: EHLO [127.0.0.1]", "S: 250-here", "S: 250-SIZE 50000000", "S: 250 AUTH LOGIN PLAIN")
LOGIN = (*HELLO, f"C: AUTH PLAIN {PLAIN}", "S: 235 welcome")
MAIL = (*LOGIN, "C: mail FROM:<ann@example.org>*", "S: 250 ok")
ONE = (*MAIL, "C: rcpt TO:<bob@example.org>", "S: 250 ok")
BODY = (*ONE, "C: DATA", "S: 354 go on", "DATA")
BYE = ("C: QUIT", "S: 221 bye")
DATA = b"Subject: x\r\n\r\nhello\r\n"
BOB = ("bob@example.org",)


def deliver(server, *, recipients=BOB, data=DATA, before_data=lambda _: None, encryption="none", **options):
    endpoint = smtp.SmtpEndpoint(
        host=server.host,
        port=server.port,
        encryption=encryption,
        username=options.pop("username", "ann"),
        password=Secret(CANARY),
    )
    return smtp.deliver(
        endpoint,
        mail_from=options.pop("mail_from", "ann@example.org"),
        recipients=recipients,
        data=data,
        before_data=before_data,
        **{"timeout_s": 5.0, **options},
    )


def nowhere(host="127.0.0.1", port=1):
    return SimpleNamespace(host=host, port=port)


def test_a_message_is_delivered_and_its_reply_kept():
    with ScriptedServer(*BODY, "S: 250 2.0.0 queued as 7", *BYE) as server:
        receipt = deliver(server)
    assert receipt.accepted == BOB
    assert receipt.refused == {}
    assert (receipt.reply_code, receipt.reply_text) == (250, "2.0.0 queued as 7")
    assert server.messages == [DATA]
    assert f"SIZE={len(DATA)}".encode() in server.lines[2]


def test_a_451_at_one_of_three_recipients_is_its_own_and_the_other_two_get_the_message():
    recipients = ("a@example.org", "b@example.org", "c@example.org")
    transmitting = []
    steps = ("C: rcpt TO:<a*", "S: 250 ok", "C: rcpt TO:<b*", "S: 451 4.3.0 later", "C: rcpt TO:<c*", "S: 251 ok")
    with ScriptedServer(*MAIL, *steps, "C: DATA", "S: 354 go on", "DATA", "S: 250 ok", *BYE) as server:
        receipt = deliver(server, recipients=recipients, before_data=transmitting.append)
    assert receipt.accepted == ("a@example.org", "c@example.org")
    assert receipt.refused == {"b@example.org": (451, "4.3.0 later", True)}
    assert transmitting == [("a@example.org", "c@example.org")]


def test_a_550_at_a_recipient_is_permanent_and_a_552_is_not():
    steps = ("C: rcpt TO:<a*", "S: 550 5.1.1 unknown", "C: rcpt TO:<b*", "S: 552 too many recipients")
    with ScriptedServer(*MAIL, *steps, *BYE) as server:
        receipt = deliver(server, recipients=("a@example.org", "b@example.org"))
    assert [refusal.transient for refusal in receipt.refused.values()] == [False, True]


def test_nothing_is_sent_when_nobody_is_accepted():
    transmitting = []
    with ScriptedServer(*MAIL, "C: rcpt*", "S: 550 no", *BYE) as server:
        receipt = deliver(server, before_data=transmitting.append)
    assert (receipt.accepted, receipt.reply_code) == ((), None)
    assert transmitting == []


def test_the_caller_commits_before_data_is_said():
    seen = []
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        deliver(server, before_data=lambda _: seen.append(list(server.lines)))
    assert not any(line == b"DATA" for line in seen[0])


def test_an_error_of_the_caller_before_data_is_raised_as_it_is_and_nothing_is_sent():
    def fail(_):
        raise DatabaseError("away")

    with ScriptedServer(*ONE, "DEAF") as server, pytest.raises(DatabaseError):
        deliver(server, before_data=fail)
    assert b"DATA" not in server.lines


def test_a_drop_after_data_and_before_the_reply_is_unknown():
    with ScriptedServer(*BODY, "DROP") as server, pytest.raises(DeliveryUnknownError) as caught:
        deliver(server)
    assert (caught.value.definite, caught.value.transient) == (False, False)


def test_a_drop_within_the_final_reply_is_unknown():
    with ScriptedServer(*BODY, b"250-2.0.0 que", "DROP") as server, pytest.raises(DeliveryUnknownError):
        deliver(server)


def test_silence_after_the_final_dot_is_unknown():
    with ScriptedServer(*BODY, "DEAF") as server, pytest.raises(DeliveryUnknownError):
        deliver(server, final_reply_timeout_s=0.05)


def test_an_unreadable_reply_to_the_final_dot_is_unknown():
    with ScriptedServer(*BODY, "S: what?", "DEAF") as server, pytest.raises(DeliveryUnknownError):
        deliver(server)


def test_an_endless_reply_to_the_final_dot_is_unknown():
    with ScriptedServer(*BODY, b"250 " + b"x" * 9000, "DEAF") as server, pytest.raises(DeliveryUnknownError):
        deliver(server)


@pytest.mark.parametrize(
    "steps",
    [
        (*LOGIN, "C: mail*", "DROP"),
        (*MAIL, "C: rcpt*", "DROP"),
        (*ONE, "C: DATA", "DROP"),
        (*ONE, "C: DATA", "S: nonsense", "DEAF"),
    ],
    ids=["at MAIL", "at RCPT", "at DATA", "nonsense at DATA"],
)
def test_a_connection_that_breaks_before_the_message_is_a_definite_failure_worth_a_retry(steps):
    with ScriptedServer(*steps) as server, pytest.raises(SmtpError) as caught:
        deliver(server)
    assert (caught.value.definite, caught.value.transient, caught.value.reply_code) == (True, True, None)


def test_a_drop_within_the_body_is_a_definite_failure():
    # More than both sides' socket buffers hold, so that the client is still writing when the other side has gone.
    data = b"Subject: x\r\n\r\n" + b"x" * 76 * 400_000
    with ScriptedServer(*ONE, "C: DATA", "S: 354 go on", "DROP") as server, pytest.raises(SmtpError) as caught:
        deliver(server, data=data)
    assert (caught.value.definite, caught.value.transient) == (True, True)


@pytest.mark.parametrize(("reply", "transient"), [("421 going down", True), ("552 too big", False), ("250 ok", True)])
def test_a_server_that_answers_before_the_final_dot_does_not_have_the_message(reply, transient):
    with ScriptedServer(*ONE, "C: DATA", f"354 go\r\n{reply}\r\n".encode(), "DEAF") as server:
        with pytest.raises(SmtpError) as caught:
            deliver(server)
        assert (caught.value.definite, caught.value.transient) == (True, transient)
        assert caught.value.reply_code == int(reply[:3])


@pytest.mark.parametrize(("reply", "transient"), [("452 full", True), ("554 spam", False), ("421 closing", True)])
def test_a_refusal_of_the_message_is_definite(reply, transient):
    with ScriptedServer(*BODY, f"S: {reply}", *BYE) as server, pytest.raises(SmtpError) as caught:
        deliver(server)
    assert (caught.value.transient, caught.value.definite) == (transient, True)
    assert caught.value.reply_code == int(reply[:3])


@pytest.mark.parametrize(("reply", "transient"), [("451 later", True), ("550 never", False), ("530 login", False)])
def test_a_refusal_of_the_sender_or_of_data_says_whether_to_try_again(reply, transient):
    for steps in ((*LOGIN, "C: mail*"), (*ONE, "C: DATA")):
        with ScriptedServer(*steps, f"S: {reply}", *BYE) as server, pytest.raises(SmtpError) as caught:
            deliver(server)
        assert (caught.value.reply_code, caught.value.transient) == (int(reply[:3]), transient)


def test_a_421_at_a_recipient_ends_the_try_for_all():
    with ScriptedServer(*MAIL, "C: rcpt*", "S: 421 shutting down", *BYE) as server, pytest.raises(SmtpError) as caught:
        deliver(server)
    assert (caught.value.reply_code, caught.value.transient) == (421, True)


def test_a_server_that_breaks_off_after_its_250_has_taken_the_message():
    with ScriptedServer(*BODY, "S: 250 ok", "DROP") as server:
        assert deliver(server).accepted == BOB


@pytest.mark.parametrize(
    ("steps", "transient"),
    [
        (("S: 421 too many connections",), True),
        (("S: 554 go away",), False),
        (("DROP",), True),
        (("S: 220 hi", "C: EHLO*", "DROP"), True),
        (("S: nonsense", "DEAF"), True),
    ],
    ids=["421", "554", "drop", "drop at EHLO", "nonsense"],
)
def test_a_session_that_does_not_begin_is_a_connect_error(steps, transient):
    with ScriptedServer(*steps) as server, pytest.raises(ConnectError) as caught:
        deliver(server)
    assert (caught.value.transient, caught.value.definite) == (transient, True)


def test_a_silent_server_is_a_connect_error_after_the_timeout():
    with ScriptedServer("DEAF") as server, pytest.raises(ConnectError) as caught:
        deliver(server, timeout_s=0.05)
    assert caught.value.transient


def test_a_port_where_nobody_listens_is_a_connect_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = nowhere(port=listener.getsockname()[1])
    with pytest.raises(ConnectError) as caught:
        deliver(server)
    assert caught.value.transient


def test_a_host_that_is_no_name_is_a_permanent_connect_error():
    with pytest.raises(ConnectError) as caught:
        deliver(nowhere(host="a..b"))
    assert not caught.value.transient


@pytest.mark.parametrize(("reply", "transient"), [("535 5.7.8 bad", False), ("454 4.7.0 later", True)])
def test_a_refused_login_is_permanent_unless_the_server_says_later(reply, transient):
    steps = (*HELLO, "C: AUTH PLAIN *", f"S: {reply}", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError) as caught:
        deliver(server)
    assert caught.value.transient is transient


def test_a_password_that_the_server_repeats_is_not_in_the_error():
    reply = f"S: 535 {CANARY} {PLAIN} is wrong"
    with ScriptedServer(*HELLO, "C: AUTH*", reply, "DEAF") as server, pytest.raises(AuthenticationError) as caught:
        deliver(server)
    assert "is wrong" in str(caught.value)
    assert CANARY not in str(caught.value)
    assert PLAIN not in str(caught.value)


def test_login_is_the_second_choice():
    user, password = (base64.b64encode(text.encode()).decode() for text in ("ann", CANARY))
    hello = (*HELLO[:-1], "S: 250 AUTH LOGIN")
    dialogue = (f"C: AUTH LOGIN {user}", "S: 334 UGFzc3dvcmQ6", f"C: {password}", "S: 535 no", "DEAF")
    with ScriptedServer(*hello, *dialogue) as server, pytest.raises(AuthenticationError):
        deliver(server)


def test_a_server_without_auth_can_not_be_logged_in_to():
    steps = ("S: 220 hi", "C: EHLO*", "S: 250 here", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError) as caught:
        deliver(server)
    assert not caught.value.transient


def test_an_empty_user_name_sends_without_login():
    steps = (*HELLO, "C: mail*", "S: 250 ok", "C: rcpt*", "S: 250 ok", "C: DATA", "S: 354 go", "DATA", "S: 250 ok")
    with ScriptedServer(*steps, *BYE) as server:
        assert deliver(server, username="").accepted == BOB


def test_lines_that_begin_with_dots_arrive_as_they_were():
    data = b".first\r\n\r\n.\r\n..\r\n.x\r\nend\r\n"
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        deliver(server, data=data)
    stuffed = server.messages[0]
    assert b"".join(line.removeprefix(b".") for line in stuffed.splitlines(keepends=True)) == data


def test_a_bare_line_feed_can_not_smuggle_a_second_message():
    data = b"Subject: x\r\n\r\nhello\n.\nmail FROM:<eve@example.org>\r.\rend"
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        deliver(server, data=data)
    assert b"\n..\r\nmail FROM" in server.messages[0]
    assert server.messages[0].count(b"\n") == server.messages[0].count(b"\r\n") == server.messages[0].count(b"\r")


def test_a_line_break_in_an_address_never_reaches_a_server():
    with pytest.raises(InvalidRequestError):
        deliver(nowhere(), recipients=("bob@example.org>\r\nrcpt TO:<eve@example.org",))


def test_an_address_beyond_ascii_fails_alone_on_a_server_without_smtputf8():
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        receipt = deliver(server, recipients=("jürgen@example.org", *BOB))
    assert receipt.accepted == BOB
    refusal = receipt.refused["jürgen@example.org"]
    assert (refusal.reply_code, refusal.enhanced_code, refusal.transient) == (553, "5.6.7", False)


def test_nothing_is_said_of_a_message_whose_only_recipient_this_server_can_not_be_told():
    with ScriptedServer(*LOGIN, *BYE) as server:
        receipt = deliver(server, recipients=("jürgen@example.org",))
    assert (receipt.accepted, list(receipt.refused)) == ((), ["jürgen@example.org"])


def test_a_sender_beyond_ascii_needs_smtputf8():
    with ScriptedServer(*LOGIN, "DEAF") as server, pytest.raises(SmtpError, match="SMTPUTF8") as caught:
        deliver(server, mail_from="jürgen@example.org")
    assert (caught.value.transient, caught.value.definite) == (False, True)


def test_a_header_that_names_addresses_beyond_ascii_is_made_anew_for_a_server_without_smtputf8():
    utf8 = "To: jürgen@example.org, bob@example.org\r\n\r\nhello\r\n".encode()
    other = b"To: bob@example.org\r\n\r\nhello\r\n"
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        deliver(server, recipients=("jürgen@example.org", *BOB), data=utf8, ascii_data=lambda: other)
    assert server.messages == [other]
    with ScriptedServer(*LOGIN, "DEAF") as server, pytest.raises(SmtpError, match="SMTPUTF8"):
        deliver(server, data=utf8)


def test_an_address_beyond_ascii_is_said_where_smtputf8_is_offered():
    recipients = ("jürgen@example.org",)
    offers = (*HELLO[:3], "S: 250-SMTPUTF8", "S: 250-8BITMIME", *HELLO[4:], *LOGIN[5:])
    steps = ("C: mail*SMTPUTF8*", "S: 250 ok", "C: rcpt TO:<jürgen@*", "S: 250 ok", "C: DATA", "S: 354 go", "DATA")
    with ScriptedServer(*offers, *steps, "S: 250 ok", *BYE) as server:
        assert deliver(server, recipients=recipients).accepted == recipients


def test_smtputf8_and_8bitmime_are_not_asked_for_without_need():
    offers = (*HELLO[:3], "S: 250-SMTPUTF8", "S: 250-8BITMIME", *HELLO[4:], *LOGIN[5:])
    with ScriptedServer(*offers, *BODY[len(LOGIN) :], "S: 250 ok", *BYE) as server:
        deliver(server)
    assert server.lines[2].lower() == b"mail from:<ann@example.org>"


# --- encryption -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


STARTTLS = ("S: 220 ready", "C: EHLO*", "S: 250-here", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go on")


def test_after_starttls_all_is_said_again_under_tls(authority):
    steps = (*STARTTLS, "TLS", *BODY[1:], "S: 250 ok", *BYE)
    with ScriptedServer(*steps, tls=server_context(authority)) as server:
        assert deliver(server, encryption="starttls", tls=client_context(authority)).accepted == BOB


def test_tls_from_the_first_byte(authority):
    with ScriptedServer("TLS", *BODY, "S: 250 ok", *BYE, tls=server_context(authority)) as server:
        assert deliver(server, encryption="tls", tls=client_context(authority)).accepted == BOB


def test_a_server_without_starttls_gets_neither_password_nor_message():
    with ScriptedServer(*HELLO, "DEAF") as server, pytest.raises(ConnectError) as caught:
        deliver(server, encryption="starttls")
    assert not caught.value.transient
    assert len(server.lines) == 1


def test_a_starttls_that_is_refused_for_now_is_transient():
    steps = (*STARTTLS[:-1], "S: 454 not now", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(ConnectError) as caught:
        deliver(server, encryption="starttls")
    assert caught.value.transient


@pytest.mark.parametrize("name", ["127.0.0.1", "elsewhere.example"])
def test_a_certificate_that_is_not_trusted_or_not_for_this_host_is_permanent(authority, name):
    trust = client_context(authority if name == "elsewhere.example" else trustme.CA())
    context = server_context(authority, name)
    with ScriptedServer(*STARTTLS, "TLS", tls=context) as server, pytest.raises(ConnectError) as caught:
        deliver(server, encryption="starttls", tls=trust)
    assert not caught.value.transient
    assert server.handshake_error is not None


def test_a_handshake_that_breaks_off_is_transient(authority):
    with ScriptedServer(*STARTTLS, "DROP") as server, pytest.raises(ConnectError) as caught:
        deliver(server, encryption="starttls", tls=client_context(authority))
    assert caught.value.transient


def test_an_unknown_encryption_is_refused_before_anything_is_said():
    with pytest.raises(InvalidRequestError, match="starttls"):
        deliver(nowhere(), encryption="ssl")


# --- spans ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "TRACER", provider.get_tracer("test"))
    return exporter


def test_a_delivery_is_told_in_spans_without_addresses_or_password(spans):
    with ScriptedServer(*BODY, "S: 250 ok", *BYE) as server:
        deliver(server)
    told = spans.get_finished_spans()
    assert [span.name for span in told] == ["smtp connect", "smtp auth", "smtp send"]
    assert dict(told[-1].attributes) == {
        "mail.smtp.recipients": 1,
        "mail.smtp.reused": False,
        "mail.size_bytes": len(DATA),
        "mail.smtp.reply_code": 250,
    }
    text = "".join(span.to_json() for span in told)
    assert CANARY not in text
    assert "example.org" not in text


def test_a_refusal_is_told_by_its_kind_and_code_alone(spans):
    steps = (*BODY, "S: 554 <bob@example.org> said no", *BYE)
    with ScriptedServer(*steps) as server, pytest.raises(SmtpError):
        deliver(server)
    sent = spans.get_finished_spans()[-1]
    assert (sent.attributes["error.type"], sent.attributes["mail.smtp.reply_code"]) == ("smtp", 554)
    assert not sent.status.is_ok
    assert "example.org" not in sent.to_json()
