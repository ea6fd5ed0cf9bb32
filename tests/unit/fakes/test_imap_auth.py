"""LOGIN, AUTHENTICATE, STARTTLS and who may come in (RFC 3501 section 6.2, RFC 4616, RFC 4959, RFC 7628, XOAUTH2)."""

from __future__ import annotations

import base64
import json

import pytest
from imap_transcript import PASSWORD, USER, Transcript, plain

from fakemail.imap_protocol import ImapOptions, StartTls
from fakemail.mailbox import Limits

TOKEN = "canary-token"
BEHIND_TLS = ImapOptions(require_tls=True, starttls=True)


@pytest.fixture
def imap():
    return Transcript()


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def xoauth2(user, token):
    return encoded(f"user={user}\1auth=Bearer {token}\1\1")


def oauthbearer(user, token):
    return encoded(f"n,a={user},\1host=mail.test\1port=143\1auth=Bearer {token}\1\1")


BEARERS = {"XOAUTH2": xoauth2, "OAUTHBEARER": oauthbearer}


def successes(client):
    return [note["success"] for note in client.notes if note["kind"] == "login"]


# --- LOGIN ---


def test_login_takes_atoms_quoted_strings_and_literals(imap):
    imap.step(f'1 login "{USER}" {{{len(PASSWORD)}}}', "+ <any>")
    imap.step(PASSWORD, "1 OK [CAPABILITY IMAP4rev1 <any>] <any>")
    assert imap.session.user == USER


def test_an_address_is_the_same_in_any_case(imap):
    imap.step(f"1 LOGIN {USER.upper()} {PASSWORD}", "1 OK <any>")
    assert imap.session.user == USER


@pytest.mark.parametrize("words", [f"{USER} wrong", "nobody@example.test x", f'{USER} ""', f"{USER} {TOKEN}", '"" ""'])
def test_a_wrong_login_is_no_and_may_be_tried_again(imap, words):
    imap.step(f"1 LOGIN {words}", "1 NO [AUTHENTICATIONFAILED] <any>")
    imap.login()
    assert successes(imap) == [False, True]


def test_a_login_that_is_not_utf8_is_no(imap):
    assert imap.send(f"1 LOGIN {USER} ".encode() + b'"\xff\xfe"\r\n').startswith(b"1 NO [AUTHENTICATIONFAILED]")


@pytest.mark.parametrize("words", ["", "a", "a b c", "(a) b", 'a "b', "a  b"])
def test_a_malformed_login_is_bad(imap, words):
    imap.step(f"1 LOGIN {words}", "1 BAD <any>")


def test_a_password_and_a_token_are_in_no_answer_and_no_note(imap):
    said = b""
    for line in (
        f'LOGIN {USER} "{PASSWORD}" more',
        f"LOGIN {PASSWORD} {PASSWORD}",
        f"AUTHENTICATE PLAIN {plain('', PASSWORD, PASSWORD, 'x')}",
        f"AUTHENTICATE XOAUTH2 {encoded(TOKEN)}",
        f"AUTHENTICATE XOAUTH2 {xoauth2('nobody@x.test', TOKEN)}\r\n",
        f"LOGIN {USER} {PASSWORD}",
    ):
        said += imap.send(f"1 {line}\r\n".encode())
    assert imap.session.user == USER
    for secret in (PASSWORD, TOKEN):
        assert secret.encode() not in said.replace(b"1 NO", b"")
    kept = [note for note in imap.notes if note.get("user") != PASSWORD]
    assert PASSWORD not in repr(kept)
    assert TOKEN not in repr(imap.notes)


# --- AUTHENTICATE PLAIN ---


def test_authenticate_plain_with_and_without_an_initial_response(imap):
    imap.step(f"1 AUTHENTICATE plain {plain('', USER, PASSWORD)}", "1 OK [CAPABILITY <any>] <any>")
    other = Transcript(imap.store)
    # A space behind the plus: some clients wait for it.
    other.step("1 AUTHENTICATE PLAIN", "+ ")
    other.step(plain("", USER, PASSWORD), "1 OK <any>")


def test_one_may_act_for_oneself_and_for_nobody_else(imap):
    imap.step(f"1 AUTHENTICATE PLAIN {plain('bob@example.test', USER, PASSWORD)}", "1 NO [AUTHENTICATIONFAILED] <any>")
    imap.step(f"2 AUTHENTICATE PLAIN {plain(USER.title(), USER, PASSWORD)}", "2 OK <any>")


@pytest.mark.parametrize(
    "response", ["*", "=", "no base64!", plain("only", "two"), plain("a", "b", "c", "d"), "", "AA="]
)
def test_a_broken_authenticate_is_bad_and_the_session_goes_on(imap, response):
    imap.step("1 AUTHENTICATE PLAIN", "+ ")
    imap.step(response, "1 BAD <any>")
    imap.login()


@pytest.mark.parametrize("words", ["CRAM-MD5", "GSSAPI", "EXTERNAL =", "X AAAA"])
def test_a_mechanism_that_is_not_offered_is_no(imap, words):
    imap.step(f"1 AUTHENTICATE {words}", "1 NO <any>")


@pytest.mark.parametrize("words", ["", " ", '"PLAIN"', "PLAIN AAAA more", "PLAIN  AAAA"])
def test_a_malformed_authenticate_is_bad(imap, words):
    imap.step(f"1 AUTHENTICATE {words}", "1 BAD <any>")


# --- tokens ---


@pytest.mark.parametrize("mechanism", BEARERS)
def test_a_token_is_taken_at_once_or_after_the_plus(imap, mechanism):
    imap.step(f"1 AUTHENTICATE {mechanism} {BEARERS[mechanism](USER, TOKEN)}", "1 OK [CAPABILITY <any>] <any>")
    assert imap.session.user == USER
    assert [(note["mechanism"], note["success"]) for note in imap.notes if note["kind"] == "login"] == [
        (mechanism, True)
    ]
    other = Transcript(imap.store)
    other.step(f"1 AUTHENTICATE {mechanism}", "+ ")
    other.step(BEARERS[mechanism](USER, TOKEN), "1 OK <any>")


@pytest.mark.parametrize("answer", ["", "AQ==", "*", "whatever"])
@pytest.mark.parametrize("mechanism", BEARERS)
def test_a_refused_token_is_explained_in_json_and_then_refused(imap, mechanism, answer):
    (line,) = imap.lines(f"1 AUTHENTICATE {mechanism} {BEARERS[mechanism](USER, PASSWORD)}")
    assert line.startswith("+ ")
    said = json.loads(base64.b64decode(line[2:]))
    assert said["status"] == {"XOAUTH2": "401", "OAUTHBEARER": "invalid_token"}[mechanism]
    assert said["schemes"] == "bearer"
    imap.step(answer, "1 NO [AUTHENTICATIONFAILED] <any>")
    imap.step(f"2 AUTHENTICATE {mechanism} {BEARERS[mechanism](USER, TOKEN)}", "2 OK <any>")
    assert successes(imap) == [False, True]


@pytest.mark.parametrize("mechanism", BEARERS)
def test_an_expired_token_is_refused_like_a_wrong_one(mechanism):
    fault = {"id": "old", "point": "imap.auth", "when": {"first": 1}, "action": {"expired_token": True}}
    client = Transcript(faults=[fault])
    assert client.lines(f"1 AUTHENTICATE {mechanism} {BEARERS[mechanism](USER, TOKEN)}")[0].startswith("+ ey")
    client.step("", "1 NO [AUTHENTICATIONFAILED] <any>")
    client.step(f"2 AUTHENTICATE {mechanism} {BEARERS[mechanism](USER, TOKEN)}", "2 OK <any>")


@pytest.mark.parametrize("mechanism", BEARERS)
@pytest.mark.parametrize(
    "message", ["", "x", f"user={USER}\1\1", f"user={USER}\1auth=Basic x\1\1", "n,,\1auth=Bearer x\1\1"]
)
def test_a_token_in_no_known_form_is_bad(imap, mechanism, message):
    imap.step(f"1 AUTHENTICATE {mechanism} {encoded(message) or '='}", "1 BAD <any>")


def test_a_user_without_a_token_may_use_the_password_as_one(imap):
    imap.store.add_user("bob@example.test", "secret")
    imap.step(f"1 AUTHENTICATE XOAUTH2 {xoauth2('bob@example.test', 'secret')}", "1 OK <any>")


def test_a_user_of_oauthbearer_may_have_commas_and_equals_signs(imap):
    imap.store.add_user("a,b=c@example.test", "secret", TOKEN)
    imap.step(f"1 AUTHENTICATE OAUTHBEARER {oauthbearer('a=2Cb=3Dc@example.test', TOKEN)}", "1 OK <any>")


# --- TLS ---


def test_before_tls_passwords_are_refused_and_no_mechanism_is_offered():
    client = Transcript(options=BEHIND_TLS)
    words = client.ok("CAPABILITY")[0].split()
    assert {"STARTTLS", "LOGINDISABLED"} <= set(words)
    assert not any(word.startswith("AUTH=") for word in words)
    client.step(f"1 LOGIN {USER} {PASSWORD}", "1 NO [PRIVACYREQUIRED] <any>")
    client.step("2 AUTHENTICATE PLAIN", "2 NO [PRIVACYREQUIRED] <any>")
    client.step(f"3 AUTHENTICATE PLAIN {plain('', USER, PASSWORD)}", "3 NO [PRIVACYREQUIRED] <any>")
    assert successes(client) == []


def test_starttls_opens_the_way():
    client = Transcript(options=BEHIND_TLS)
    client.step("1 STARTTLS", "1 OK <any>")
    assert [type(event) for event in client.events] == [StartTls]
    words = client.ok("CAPABILITY")[0].split()
    assert "AUTH=PLAIN" in words
    assert not {"STARTTLS", "LOGINDISABLED"} & set(words)
    client.step("2 STARTTLS", "2 BAD <any>")
    client.login()


@pytest.mark.parametrize(
    "injected", ["2 CAPABILITY\r\n", "2 LOGIN a {5}\r\n", "half a com", f"2 LOGIN {USER} {PASSWORD}\r\n"]
)
def test_what_was_injected_behind_starttls_in_the_clear_is_not_obeyed(injected):
    client = Transcript(options=BEHIND_TLS)
    client.step(f"1 STARTTLS\r\n{injected}", "1 OK <any>")
    assert client.session.user == ""
    client.step("3 NOOP", "3 OK <any>")


def test_starttls_without_a_certificate_does_not_exist():
    client = Transcript()
    assert "STARTTLS" not in client.ok("CAPABILITY")[0]
    client.step("1 STARTTLS", "1 BAD <any>")


def test_starttls_is_out_of_place_after_login():
    client = Transcript(options=ImapOptions(starttls=True)).login()
    assert "STARTTLS" not in client.ok("CAPABILITY")[0]
    client.step("1 STARTTLS", "1 BAD <any>")


# --- room ---


def test_a_user_may_have_so_many_connections():
    first = Transcript()
    first.store.limits = Limits(connections_per_user=2)
    first.login()
    second = Transcript(first.store).login()
    third = Transcript(first.store)
    third.step(f"1 LOGIN {USER} {PASSWORD}", "1 NO [ALERT] Too many simultaneous connections")
    assert successes(third) == [False]
    assert first.store.connections == {("imap", USER): 2, ("imap", ""): 1}
    second.leave()
    first.store.connections["imap", USER] -= 1
    third.login()


def test_a_login_moves_the_connection_from_nobody_to_the_user(imap):
    assert imap.store.connections == {("imap", ""): 1}
    imap.login()
    assert +imap.store.connections == {("imap", USER): 1}
