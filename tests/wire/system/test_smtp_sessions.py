"""Logins, certificates, and sessions that are kept between messages: ``deliver`` against fakemail."""

import base64
import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_server import ScriptedServer

from email_service import smtp
from email_service.errors import AuthenticationError, ConnectError, SmtpError
from email_service.smtp import session as sessions
from email_service.smtp import tracing
from email_service.vault import Secret

TOKEN = "canary-token-77"
DATA = b"Subject: x\r\n\r\nhello\r\n"
BOB = ("bob@example.org",)
IDLE_S = 15.0


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def connections(clock):
    made = smtp.Connections(idle_s=IDLE_S, messages_max=3, clock=clock)
    yield made
    made.close()


@pytest.fixture
def ann(fakemail):
    fakemail.add_user("ann@example.org", "canary-password", token=TOKEN)
    return SimpleNamespace(name="ann@example.org", password="canary-password", token=TOKEN)


@pytest.fixture
def send(fakemail, ann, fakemail_tls):
    """Send one message to Bob as Ann; keywords change the endpoint, or how it is delivered."""
    endpoint_fields = ("host", "port", "encryption", "username", "password", "auth", "addresses")

    def send(**changes):
        host, port = fakemail.smtps if changes.get("encryption") == "tls" else fakemail.smtp
        account = {"host": host, "port": port, "encryption": "none", "username": ann.name, "password": ann.password}
        account |= {name: changes.pop(name) for name in endpoint_fields if name in changes}
        endpoint = smtp.SmtpEndpoint(**account | {"password": Secret(account["password"])})
        how = {"recipients": BOB, "data": DATA, "before_data": lambda _: None, "timeout_s": 5.0, "tls": fakemail_tls}
        return smtp.deliver(endpoint, mail_from=ann.name, **how | changes)

    return send


@pytest.fixture
def spans(monkeypatch):
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing, "TRACER", provider.get_tracer("test"))
    return exporter


def sessions_used(fakes):
    """The connection of each message that was taken."""
    return [entry["connection"] for entry in fakes.ledger(kind="accepted")]


def commands(fakes, sessions=1):
    """How often each verb was said in so many sessions, which have ended."""
    return sum((Counter(entry["commands"]) for entry in fakes.wait_for("served", count=sessions)), Counter())


# --- logins -----------------------------------------------------------------------------------------------------------


def mechanisms(fakes):
    return [(entry["mechanism"], entry["success"]) for entry in fakes.ledger(kind="login")]


def test_a_token_logs_in_by_xoauth2_and_a_password_by_plain(fakemail, send):
    send(auth="xoauth2", password=TOKEN)
    send()
    assert mechanisms(fakemail) == [("XOAUTH2", True), ("PLAIN", True)]


def test_a_token_that_is_longer_than_a_command_may_be_goes_on_a_line_of_its_own(fakemail, send):
    token = "t" * 2000
    fakemail.add_user("long@example.org", "pw", token=token)
    send(auth="xoauth2", username="long@example.org", password=token)
    assert mechanisms(fakemail) == [("XOAUTH2", True)]


def test_an_expired_token_is_refused_for_good_and_the_server_s_status_is_told(fakemail, send):
    fakemail.preset("expired-token")
    with pytest.raises(AuthenticationError, match=r"535 .*token: 401") as caught:
        send(auth="xoauth2", password=TOKEN)
    assert not caught.value.transient
    assert TOKEN not in str(caught.value)
    send(auth="xoauth2", password=TOKEN)


OFFER = ("S: 220 ready", "C: EHLO*", "S: 250-here")
BODY = ("C: MAIL*", "S: 250 ok", "C: RCPT*", "S: 250 ok", "C: DATA", "S: 354 go", "DATA", "S: 250 ok")
BYE = ("C: QUIT", "S: 221 bye")


def test_oauthbearer_is_the_second_choice(send):
    with ScriptedServer(
        *OFFER, "S: 250 AUTH OAUTHBEARER PLAIN", "C: AUTH OAUTHBEARER *", "S: 235 in", *BODY, *BYE
    ) as server:
        send(host=server.host, port=server.port, auth="xoauth2", username="ann,b=c", password=TOKEN)
    said = base64.b64decode(server.lines[1].split()[-1]).decode()
    assert said == f"n,a=ann=2Cb=3Dc,\1host={server.host}\1port={server.port}\1auth=Bearer {TOKEN}\1\1"


def test_a_refused_bearer_token_is_acknowledged_and_never_repeated(send):
    told = base64.b64encode(b'{"status":"invalid_token","scope":"' + TOKEN.encode() + b'"}').decode()
    steps = ("C: AUTH OAUTHBEARER *", f"S: 334 {told}", "C: AQ==", f"S: 535 {TOKEN} is bad", "DEAF")
    with (
        ScriptedServer(*OFFER, "S: 250 AUTH OAUTHBEARER", *steps) as server,
        pytest.raises(AuthenticationError, match="invalid_token") as caught,
    ):
        send(host=server.host, port=server.port, auth="xoauth2", password=TOKEN)
    assert TOKEN not in str(caught.value)


def test_a_server_without_bearer_tokens_gets_no_token(send):
    with (
        ScriptedServer(*OFFER, "S: 250 AUTH PLAIN LOGIN", "DEAF") as server,
        pytest.raises(AuthenticationError, match="neither AUTH XOAUTH2 nor AUTH OAUTHBEARER"),
    ):
        send(host=server.host, port=server.port, auth="xoauth2", password=TOKEN)
    assert len(server.lines) == 1


@pytest.mark.parametrize(("preset", "transient"), [("smtp-auth-535", False), ("smtp-auth-454", True)])
def test_a_refused_login_says_whether_to_try_again(fakemail, send, preset, transient):
    fakemail.preset(preset)
    with pytest.raises(AuthenticationError) as caught:
        send()
    assert caught.value.transient is transient


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
@pytest.mark.parametrize(
    ("preset", "says"),
    [
        ("tls-wrong-host", "IP address mismatch|[Hh]ostname mismatch"),
        ("tls-expired", "expired"),
        ("tls-self-signed", "self.signed"),
    ],
)
def test_a_certificate_that_does_not_fit_is_permanent_and_says_why(fakemail, send, encryption, preset, says):
    fakemail.preset(preset)
    with pytest.raises(ConnectError, match=f"certificate is not accepted: .*({says})") as caught:
        send(encryption=encryption)
    assert not caught.value.transient
    assert list(fakemail.ledger(kind="login")) == []


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
def test_the_name_is_verified_and_not_the_address_that_is_connected_to(fakemail, send, encryption):
    send(encryption=encryption, host="localhost", addresses=("127.0.0.1",))
    with pytest.raises(ConnectError, match="certificate is not accepted"):
        send(encryption=encryption, host="mail.example.org", addresses=("127.0.0.1",))
    assert len(sessions_used(fakemail)) == 1


def test_a_stripped_starttls_gets_neither_login_nor_message(fakemail, send):
    fakemail.preset("starttls-stripped")
    with pytest.raises(ConnectError, match="does not offer STARTTLS") as caught:
        send(encryption="starttls")
    assert not caught.value.transient
    assert set(commands(fakemail)) == {"EHLO"}


def test_a_server_that_speaks_before_tls_begins_is_not_believed(send):
    steps = (*OFFER, "S: 250 STARTTLS", "C: STARTTLS", b"220 go\r\n250 AUTH PLAIN\r\n", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(ConnectError, match="in clear text"):
        send(host=server.host, port=server.port, encryption="starttls")
    assert len(server.lines) == 2


def test_a_handshake_that_fails_is_worth_a_retry(fakemail, send):
    fakemail.preset("tls-handshake-failure")
    for _ in range(2):
        with pytest.raises(ConnectError) as caught:
            send(encryption="tls")
        assert caught.value.transient
    send(encryption="tls")


# --- addresses --------------------------------------------------------------------------------------------------------


def test_the_next_address_is_tried_when_one_does_not_answer(fakemail, send):
    # Nobody listens at the first one: the fakes are at 127.0.0.1 alone.
    send(host="localhost", addresses=("127.0.0.9", "127.0.0.1"))
    assert len(sessions_used(fakemail)) == 1


def test_a_server_that_is_shutting_down_is_passed_over_for_the_next_address(fakemail, send):
    fakemail.put_fault("smtp.connect", first=1, reply="421 4.3.2 Service not available")
    send(host="localhost", addresses=("127.0.0.1", "127.0.0.1"))
    assert len(sessions_used(fakemail)) == 1


def test_so_many_addresses_are_tried_and_no_more(send, spans):
    with pytest.raises(ConnectError) as caught:
        send(host="localhost", addresses=tuple(f"127.0.0.{n}" for n in range(2, 12)))
    assert caught.value.transient
    assert [span.name for span in spans.get_finished_spans()] == ["smtp connect"] * sessions.ADDRESSES_MAX


# --- the message ------------------------------------------------------------------------------------------------------


def test_mail_and_all_recipients_are_one_round_trip(send):
    with ScriptedServer(
        *OFFER, "S: 250-PIPELINING", "S: 250 AUTH PLAIN", "C: AUTH*", "S: 235 in",
        # Nothing is answered until all three have come.
        "C: MAIL*", "C: RCPT TO:<a@*", "C: RCPT TO:<b@*", b"250 ok\r\n550 5.1.1 no\r\n250 ok\r\n",
        "C: DATA", "S: 354 go", "DATA", "S: 250 2.0.0 queued", *BYE,
    ) as server:  # fmt: skip
        receipt = send(host=server.host, port=server.port, recipients=("a@example.org", "b@example.org"))
    assert receipt.accepted == ("b@example.org",)
    assert receipt.refused["a@example.org"].enhanced_code == "5.1.1"


def test_a_sender_who_is_refused_in_a_pipeline_is_a_refusal_of_the_message(fakemail, send):
    fakemail.put_fault("smtp.mail", reply="550 5.7.1 Sender address refused")
    with pytest.raises(SmtpError, match="Sender address refused") as caught:
        send(recipients=("a@example.org", "b@example.org"))
    assert (caught.value.reply_code, caught.value.transient) == (550, False)


def test_recipients_have_outcomes_of_their_own(fakemail, send):
    for preset in ("partial-refusal", "mailbox-full"):
        fakemail.preset(preset)
    receipt = send(recipients=("nobody@example.org", "full@example.org", "overquota@example.org", *BOB))
    assert receipt.accepted == BOB
    outcomes = {a: (r.reply_code, r.enhanced_code, r.transient) for a, r in receipt.refused.items()}
    assert outcomes == {
        "nobody@example.org": (550, "5.1.1", False),
        "full@example.org": (452, "4.2.2", True),
        "overquota@example.org": (552, "5.2.2", False),
    }


def test_a_server_without_extensions_gets_the_same_message(fakemail, send):
    fakemail.preset("no-extensions")
    assert send(recipients=("jürgen@example.org", *BOB)).accepted == BOB


# --- sessions that are kept -------------------------------------------------------------------------------------------


def test_the_next_message_to_the_same_account_goes_over_the_same_session(fakemail, send, connections):
    for _ in range(2):
        send(connections=connections)
    first, second = sessions_used(fakemail)
    assert first == second
    connections.close()
    assert commands(fakemail) == {"EHLO": 1, "AUTH": 1, "MAIL": 2, "RCPT": 2, "DATA": 2, "QUIT": 1}


@pytest.mark.parametrize("encryption", ["starttls", "tls"])
def test_an_encrypted_session_is_kept_as_well(fakemail, send, connections, encryption):
    for _ in range(2):
        send(connections=connections, encryption=encryption)
    first, second = sessions_used(fakemail)
    assert first == second


def test_another_account_or_another_trust_has_a_session_of_its_own(fakemail, send, connections):
    fakemail.add_user("eve@example.org", "pw")
    send(connections=connections)
    send(connections=connections, username="eve@example.org", password="pw")
    send(connections=connections, tls=None)
    assert len(set(sessions_used(fakemail))) == 3


def test_a_changed_password_is_not_served_by_the_session_of_the_old_one(send, connections):
    send(connections=connections)
    with pytest.raises(AuthenticationError):
        send(connections=connections, password="wrong")


def test_an_address_that_is_no_longer_permitted_is_not_used_again(fakemail, send, connections):
    send(connections=connections, host="localhost", addresses=("127.0.0.1",))
    with pytest.raises(ConnectError):
        send(connections=connections, host="localhost", addresses=("127.0.0.9",))
    assert len(sessions_used(fakemail)) == 1


def test_a_session_that_was_idle_for_too_long_is_not_used_again(fakemail, send, connections, clock):
    send(connections=connections)
    clock.now_s = IDLE_S
    send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2


def test_a_session_is_ended_in_peace_when_its_time_is_over(fakemail, send):
    send(connections=smtp.Connections(idle_s=0.01))
    assert commands(fakemail)["QUIT"] == 1


def test_a_session_is_ended_after_so_many_messages(fakemail, send, connections):
    for _ in range(4):
        send(connections=connections)
    used = sessions_used(fakemail)
    assert [used.count(each) for each in dict.fromkeys(used)] == [3, 1]
    assert commands(fakemail)["QUIT"] == 1


def test_nothing_is_kept_where_the_idle_time_is_zero(fakemail, send):
    connections = smtp.Connections(idle_s=0)
    for _ in range(2):
        send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2
    assert commands(fakemail, sessions=2)["QUIT"] == 2


def test_a_session_that_the_server_has_cut_is_opened_anew(fakemail, send, connections):
    send(connections=connections)
    fakemail.cut()
    send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2


@pytest.mark.parametrize(
    "action", [{"drop": True}, {"reply": "421 4.4.2 Idle for too long", "close": True}], ids=["drop", "421"]
)
def test_a_session_that_is_found_dead_at_mail_is_opened_anew_once(fakemail, send, connections, action):
    send(connections=connections)
    transmitting = []
    with fakemail.fault("smtp.mail", first=1, **action):
        send(connections=connections, before_data=transmitting.append)
    assert transmitting == [BOB]
    assert len(set(sessions_used(fakemail))) == 2
    with fakemail.fault("smtp.mail", first=2, **action), pytest.raises(SmtpError) as caught:
        send(connections=connections)
    assert (caught.value.transient, caught.value.definite) == (True, True)


def test_a_kept_session_that_breaks_once_mail_is_answered_is_an_error_and_no_second_try(fakemail, send, connections):
    fakemail.put_fault("smtp.ehlo", strip=["PIPELINING"])
    for point in ("smtp.rcpt", "smtp.data"):
        send(connections=connections)
        with fakemail.fault(point, first=1, drop=True), pytest.raises(SmtpError) as caught:
            send(connections=connections)
        assert (caught.value.transient, caught.value.definite) == (True, True)
    assert len(sessions_used(fakemail)) == 2


@pytest.mark.parametrize(
    ("point", "reply"),
    [("smtp.rcpt", "550 5.1.1 No such user"), ("smtp.body", "554 5.7.1 Spam"), ("smtp.data", "451 4.3.0 Later")],
)
def test_a_session_in_which_nothing_was_taken_is_not_kept(fakemail, send, connections, point, reply):
    send(connections=connections)
    with fakemail.fault(point, first=1, reply=reply), contextlib.suppress(SmtpError):
        assert send(connections=connections).accepted == ()
    send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2


def test_an_error_of_the_caller_before_data_ends_the_session(fakemail, send, connections):
    send(connections=connections)

    def fail(_):
        raise KeyError("the caller's")

    with pytest.raises(KeyError):
        send(connections=connections, before_data=fail)
    send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2


def test_closing_says_goodbye_to_all_and_what_is_sent_later_works(fakemail, send, connections):
    send(connections=connections)
    connections.close()
    assert commands(fakemail)["QUIT"] == 1
    send(connections=connections)
    assert len(set(sessions_used(fakemail))) == 2


def test_a_fork_does_not_speak_over_its_parent_s_session(fakemail, send, connections):
    send(connections=connections)
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            send(connections=connections)
            connections.close()
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    send(connections=connections)
    used = sessions_used(fakemail)
    assert used[0] == used[2] != used[1]


def test_threads_never_share_a_session(fakemail, send, connections):
    barrier = threading.Barrier(4)

    def one():
        barrier.wait()
        send(connections=connections, before_data=lambda _: barrier.wait())

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(sessions_used(fakemail))) == 4


def test_spans_say_whether_a_session_was_kept(send, connections, spans):
    for _ in range(2):
        send(connections=connections)
    told = [(span.name, span.attributes.get("mail.smtp.reused")) for span in spans.get_finished_spans()]
    assert told == [("smtp connect", None), ("smtp auth", None), ("smtp send", False), ("smtp send", True)]


def nobody_at(port):
    return smtp.SmtpEndpoint(host="127.0.0.1", port=port, encryption="none", username="", password=Secret(""))


def test_a_reply_that_drips_is_bounded_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stopping = threading.Event()

        def drip():
            connection, _ = listener.accept()
            with connection:
                while not stopping.wait(0.02):
                    try:
                        connection.sendall(b"2")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        with pytest.raises(ConnectError, match="timed out"):
            sessions.open_session(nobody_at(listener.getsockname()[1]), timeout_s=0.2, tls=None)
        stopping.set()
        thread.join()


@pytest.mark.parametrize("endless", [b"250 " + b"x" * 20_000, b"250-more\r\n" * 20_000], ids=["line", "lines"])
def test_a_reply_without_end_is_bounded_in_size(endless):
    with ScriptedServer(endless, "DEAF") as server, pytest.raises(ConnectError, match="no end"):
        sessions.open_session(nobody_at(server.port), timeout_s=5.0, tls=None)
