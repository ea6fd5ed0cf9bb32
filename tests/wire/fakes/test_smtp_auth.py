"""AUTH by PLAIN, LOGIN and XOAUTH2 over a raw socket and by smtplib (RFC 4954)."""

from __future__ import annotations

import json
import smtplib

import pytest
from smtp_harness import FAR, FROM, PASSWORD, RAW, TOKEN, USER, Client, b64, bearer, plain, question, serving

DONE, WRONG = "235 2.7.0 Authentication successful", "535 5.7.8 Authentication credentials invalid"


@pytest.fixture(scope="module")
def server():
    with serving(mistakes_max=1_000) as running:
        yield running


@pytest.fixture
def client(server):
    with Client(server.port) as raw:
        raw.say("EHLO client.test")
        yield raw


def test_plain_with_an_initial_response(client, server):
    assert client.say(f"AUTH PLAIN {plain()}") == DONE
    login = server.entries("login")[-1]
    assert (login["user"], login["mechanism"], login["success"]) == (USER, "PLAIN", True)


def test_plain_with_a_challenge(client):
    assert client.say("AUTH PLAIN") == "334 "
    assert client.say(plain(authorize=USER)) == DONE


def test_login_asks_twice(client):
    assert question(client.say("AUTH LOGIN")) == b"Username:"
    assert question(client.say(b64(USER))) == b"Password:"
    assert client.say(b64(PASSWORD)) == DONE


def test_login_may_know_the_user_at_once(client):
    assert question(client.say(f"AUTH LOGIN {b64(USER)}")) == b"Password:"
    assert client.say(b64(PASSWORD)) == DONE


def test_xoauth2_takes_a_token(client, server):
    assert client.say(f"AUTH XOAUTH2 {bearer()}") == DONE
    assert server.entries("login")[-1]["mechanism"] == "XOAUTH2"


def test_xoauth2_may_wait_for_a_challenge(client):
    assert client.say("AUTH XOAUTH2") == "334 "
    assert client.say(bearer()) == DONE


@pytest.mark.parametrize("answer", ["", "*", "AA=="])
def test_a_token_that_is_refused_gets_an_error_in_json_before_the_535(client, answer):
    """Google's way: the client answers the error with an empty line."""
    error = json.loads(question(client.say(f"AUTH XOAUTH2 {bearer(token='wrong')}")))
    assert error == {"status": "401", "schemes": "bearer", "scope": "https://mail.google.com/"}
    assert client.say(answer) == ("501 5.7.0 Authentication cancelled" if answer == "*" else WRONG)
    assert client.say(f"AUTH XOAUTH2 {bearer()}") == DONE


@pytest.mark.parametrize("mechanism", ["plain", "Plain", "PLAIN"])
def test_mechanisms_come_in_any_case(client, mechanism):
    assert client.say(f"AUTH {mechanism} {plain()}") == DONE


def test_a_user_comes_in_any_case(client, server):
    assert client.say(f"AUTH PLAIN {plain(user=USER.upper())}") == DONE
    assert server.entries("login")[-1]["user"] == USER


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([f"AUTH PLAIN {plain(password='no')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {plain(user='nobody@example.test')}"], "535 5.7.8"),
        ([f"AUTH PLAIN {b64(bytes([0, 255, 0, 254]))}"], "535 5.7.8"),
        (["AUTH PLAIN ="], "501 5.5.2"),
        (["AUTH PLAIN !"], "501 5.5.2"),
        ([f"AUTH PLAIN {b64('no separators')}"], "501 5.5.2"),
        (["AUTH PLAIN", "*"], "501 5.7.0"),
        (["AUTH PLAIN", "!"], "501 5.5.2"),
        (["AUTH PLAIN", "x" * 20_000], "500 5.5.6"),
        (["AUTH LOGIN", "*"], "501 5.7.0"),
        (["AUTH LOGIN", b64(USER), "*"], "501 5.7.0"),
        (["AUTH LOGIN", b64(USER), b64("no")], "535 5.7.8"),
        ([f"AUTH XOAUTH2 {b64('user=x')}"], "501 5.5.2"),
        (["AUTH XOAUTH2 ü"], "501 5.5.2"),
        (["AUTH XOAUTH2", "*"], "501 5.7.0"),
    ],
)
def test_who_does_it_wrong_may_do_it_again(client, lines, code):
    assert client.codes(*lines)[-1] == code
    assert client.say(f"AUTH PLAIN {plain()}") == DONE


def test_nobody_logs_in_twice(client):
    assert client.codes(f"AUTH PLAIN {plain()}", f"AUTH PLAIN {plain()}") == ["235 2.7.0", "503 5.5.1"]


def test_an_exchange_may_be_pipelined(client):
    client.send(f"AUTH LOGIN\r\n{b64(USER)}\r\n{b64(PASSWORD)}\r\nNOOP\r\n")
    assert [client.reply()[:3] for _ in range(4)] == ["334", "334", "235", "250"]


def test_no_secret_is_written_down_anywhere(client, server):
    client.say(f"AUTH PLAIN {plain()}", "RSET")
    with Client(server.port) as other:
        other.say("EHLO c", f"AUTH PLAIN {plain(password='wrong-canary')}", "AUTH PLAIN")
        other.say(plain(password="wrong-canary"))
        other.say(plain(password="wrong-canary"))
    with Client(server.port) as other:
        other.say("EHLO c", f"AUTH XOAUTH2 {bearer()}")
    ledger = repr(server.entries())
    assert not [secret for secret in ("canary", plain(), bearer(), plain(password="wrong-canary")) if secret in ledger]


def test_mail_before_login_is_refused_where_login_is_required():
    with serving(login_required=True) as server, Client(server.port) as client:
        client.say("EHLO client.test")
        needs = [f"MAIL FROM:<{FROM}>", f"RCPT TO:<{FAR}>", "DATA", "BDAT 0 LAST", "VRFY x"]
        assert client.codes(*needs) == ["530 5.7.0"] * len(needs)
        assert client.codes("NOOP", "RSET", "HELP", "HELO c", "EHLO c")[:3] == ["250 2.0.0", "250 2.0.0", "214 2.0.0"]
        assert client.say(f"AUTH PLAIN {plain()}") == DONE
        assert client.deliver().startswith("250 ")
        assert server.entry("accepted")["user"] == USER


def test_a_new_ehlo_does_not_log_out(client, server):
    client.say(f"AUTH PLAIN {plain()}")
    assert client.deliver().startswith("250 ")
    assert server.entries("accepted")[-1]["user"] == USER


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
@pytest.mark.parametrize("initial", [True, False])
def test_smtplib_logs_in(server, mechanism, initial):
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        client.ehlo()
        client.user, client.password = USER, PASSWORD
        name = mechanism.removeprefix("auth_")
        assert client.auth(name, getattr(client, mechanism), initial_response_ok=initial)[0] == 235
        assert client.sendmail(FROM, [FAR], RAW) == {}


def test_smtplib_logs_in_with_a_token(server):
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        client.ehlo()
        text = f"user={USER}\x01auth=Bearer {TOKEN}\x01\x01"
        assert client.auth("XOAUTH2", lambda challenge=None: "" if challenge else text)[0] == 235


def test_smtplib_sees_a_refused_token_as_an_authentication_error(server):
    with smtplib.SMTP("127.0.0.1", server.port, timeout=10) as client:
        client.ehlo()
        text = f"user={USER}\x01auth=Bearer expired\x01\x01"
        with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.auth("XOAUTH2", lambda challenge=None: "" if challenge else text)
        assert caught.value.smtp_code == 535
