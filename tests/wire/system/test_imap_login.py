"""Who says what before a session begins: passwords, tokens, encryption, addresses."""

import base64
import json

import pytest
import trustme
from imap_dialogue import CANARY, CAPABILITY, GREETING, LOGIN, LOGOUT, WELCOME, endpoint_of, opened
from scripted_server import ScriptedServer, client_context, server_context

from email_service import imap
from email_service.errors import AuthenticationError, ConnectError, InvalidRequestError
from email_service.vault import Secret

# --- passwords ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        ("NO [AUTHENTICATIONFAILED] Invalid credentials", False),
        ("NO bad password", False),
        ("NO [UNAVAILABLE] the directory is away", True),
        ("NO [ALERT] Too many simultaneous connections. (Failure)", True),
        ("BAD what?", False),
    ],
)
def test_a_refused_login_says_whether_to_try_again(reply, transient):
    steps = (*GREETING, "C: * LOGIN*", f"S: TAG {reply}", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError) as caught, opened(server):
        pass
    assert caught.value.transient is transient


def test_a_drop_or_a_bye_at_login_is_no_refusal():
    for answer in ("DROP", "S: * BYE shutting down"):
        with (
            ScriptedServer(*GREETING, "C: * LOGIN*", answer) as server,
            pytest.raises(ConnectError) as caught,
            opened(server),
        ):
            pass
        assert caught.value.transient


@pytest.mark.parametrize("reply", ["NO", "BAD", "XX"])
def test_a_password_that_the_server_repeats_is_not_in_the_error(reply):
    password = 'canary "9f3c"'
    steps = (*GREETING, "C: * LOGIN*", f'S: TAG {reply} {password} and "canary \\"9f3c\\"" are wrong', "DEAF")
    with (
        ScriptedServer(*steps) as server,
        pytest.raises((AuthenticationError, ConnectError)) as caught,
        opened(server, password=password, timeout_s=0.2),
    ):
        pass
    assert "9f3c" not in str(caught.value)
    assert caught.value.__cause__ is None or "9f3c" not in str(caught.value.__cause__)


def test_a_password_beyond_ascii_goes_by_authenticate_plain():
    token = base64.b64encode("\0ann\0pässwörd".encode()).decode()
    steps = (*GREETING, "C: * AUTHENTICATE PLAIN", "S: + ", f"C: {token}", *WELCOME, *LOGOUT)
    with ScriptedServer(*steps) as server, opened(server, password="pässwörd"):
        pass


def test_quotes_and_backslashes_in_a_password_are_escaped():
    steps = (*GREETING, 'C: * LOGIN "ann" "a\\"b\\\\c"', *WELCOME, *LOGOUT)
    with ScriptedServer(*steps) as server, opened(server, password='a"b\\c'):
        pass


def test_a_server_that_knows_us_already_is_not_told_a_password():
    with ScriptedServer("S: * PREAUTH hello ann", *CAPABILITY, *CAPABILITY, *LOGOUT) as server, opened(server):
        pass


def test_a_server_that_forbids_login_is_not_told_a_password():
    steps = ("S: * OK hi", "C: * CAPABILITY", "S: * CAPABILITY IMAP4rev1 LOGINDISABLED", "S: TAG OK done", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError), opened(server):
        pass
    assert len(server.lines) == 1


# --- tokens ---------------------------------------------------------------------------------------------------------

TOKEN = "ya29.canary-9f3c"  # nobody's
XOAUTH2 = base64.b64encode(f"user=ann\x01auth=Bearer {TOKEN}\x01\x01".encode()).decode()


def offering(*capabilities):
    return ("S: * OK ready", "C: * CAPABILITY", f"S: * CAPABILITY IMAP4rev1 {' '.join(capabilities)}", "S: TAG OK done")


def with_token(server, *, token=TOKEN, **options):
    return opened(server, password=token, auth="xoauth2", **options)


def challenge(**told):
    return "S: + " + base64.b64encode(json.dumps(told).encode()).decode()


def test_a_token_goes_with_the_command_where_that_is_allowed():
    steps = (*offering("AUTH=XOAUTH2", "SASL-IR"), f"C: * AUTHENTICATE XOAUTH2 {XOAUTH2}", *WELCOME, *LOGOUT)
    with ScriptedServer(*steps) as server, with_token(server):
        pass


def test_a_token_waits_to_be_asked_for_elsewhere():
    steps = (*offering("AUTH=XOAUTH2"), "C: * AUTHENTICATE XOAUTH2", "S: + ", f"C: {XOAUTH2}", *WELCOME, *LOGOUT)
    with ScriptedServer(*steps) as server, with_token(server):
        pass


def test_oauthbearer_is_used_where_nothing_else_takes_a_token():
    steps = (*offering("AUTH=OAUTHBEARER", "SASL-IR"), "C: * AUTHENTICATE OAUTHBEARER *", *WELCOME, *LOGOUT)
    with ScriptedServer(*steps) as server, with_token(server):
        pass
    response = base64.b64decode(server.lines[1].split(b" ")[-1]).decode()
    assert response == f"n,a=ann,\x01host={server.host}\x01port={server.port}\x01auth=Bearer {TOKEN}\x01\x01"


@pytest.mark.parametrize(
    ("mechanism", "answer"), [("XOAUTH2", ""), ("OAUTHBEARER", base64.b64encode(b"\x01").decode())]
)
def test_an_error_challenge_is_answered_so_that_the_refusal_can_come(mechanism, answer):
    steps = (
        *offering(f"AUTH={mechanism}", "SASL-IR"),
        f"C: * AUTHENTICATE {mechanism} *",
        challenge(status="invalid_token", schemes="bearer"),
        f"C: {answer}",
    )
    refusal = "S: A2 NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)"
    with (
        ScriptedServer(*steps, refusal, "DEAF") as server,
        pytest.raises(AuthenticationError) as caught,
        with_token(server),
    ):
        pass
    assert not caught.value.transient
    assert "invalid_token" in str(caught.value)


@pytest.mark.parametrize(
    ("status", "reply", "transient"),
    [
        ("400", "NO SASL authentication failed", False),
        ("401", "NO [UNAVAILABLE] the directory is away", True),
        ("503", "NO failed", True),
        ("temporarily_unavailable", "NO failed", True),
        ("503", "NO [AUTHENTICATIONFAILED] no", False),
    ],
)
def test_an_expired_token_is_permanent_unless_the_server_says_otherwise(status, reply, transient):
    steps = (*offering("AUTH=XOAUTH2", "SASL-IR"), "C: * AUTHENTICATE *", challenge(status=status), "C: ")
    with (
        ScriptedServer(*steps, f"S: A2 {reply}", "DEAF") as server,
        pytest.raises(AuthenticationError) as caught,
        with_token(server),
    ):
        pass
    assert caught.value.transient is transient


@pytest.mark.parametrize(
    "said", ["+ no base64!", "+ " + base64.b64encode(b"[1]").decode(), "+ " + base64.b64encode(b"{").decode(), "+"]
)
def test_a_challenge_that_can_not_be_read_is_answered_all_the_same(said):
    steps = (
        *offering("AUTH=XOAUTH2", "SASL-IR"),
        "C: * AUTHENTICATE *",
        f"S: {said}",
        "C: ",
        "S: A2 NO failed",
        "DEAF",
    )
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError, match="failed"), with_token(server):
        pass


def test_a_server_that_asks_on_and_on_is_left():
    steps = (
        *offering("AUTH=XOAUTH2", "SASL-IR"),
        "C: * AUTHENTICATE *",
        challenge(status="400"),
        "C: ",
        "S: + ",
        "DEAF",
    )
    with ScriptedServer(*steps) as server, pytest.raises(ConnectError), with_token(server):
        pass


def test_a_server_that_takes_no_token_is_not_told_one():
    with (
        ScriptedServer(*offering("AUTH=PLAIN"), "DEAF") as server,
        pytest.raises(AuthenticationError) as caught,
        with_token(server),
    ):
        pass
    assert not caught.value.transient
    assert len(server.lines) == 1


def test_a_token_that_would_end_its_field_is_not_sent():
    with (
        ScriptedServer(*offering("AUTH=XOAUTH2"), "DEAF") as server,
        pytest.raises(AuthenticationError, match="control character"),
        with_token(server, token="a\x01host=b"),
    ):
        pass
    assert len(server.lines) == 1


@pytest.mark.parametrize("form", [TOKEN, XOAUTH2, base64.b64encode(TOKEN.encode()).decode()])
@pytest.mark.parametrize("reply", ["A2 NO", "A2 BAD", "* BYE", "A2 XX", "?"])
def test_a_token_that_the_server_repeats_is_not_in_the_error(form, reply):
    steps = (*offering("AUTH=XOAUTH2", "SASL-IR"), "C: * AUTHENTICATE *", f"S: {reply} {form} is wrong", "DEAF")
    with (
        ScriptedServer(*steps) as server,
        pytest.raises((AuthenticationError, ConnectError)) as caught,
        with_token(server, timeout_s=0.2),
    ):
        pass
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert form not in told
    assert TOKEN not in told


def test_an_unknown_way_to_log_in_is_refused_before_anything_is_said():
    endpoint = imap.ImapEndpoint(
        host="127.0.0.1", port=1, encryption="none", username="a", password=Secret("b"), auth="kerberos"
    )
    with pytest.raises(InvalidRequestError, match="xoauth2"), imap.open_session(endpoint, 1.0):
        pass


def test_what_the_server_can_do_after_the_login_is_what_counts():
    asked = ("C: * CAPABILITY", "S: * CAPABILITY IMAP4rev1 LIST-STATUS", "S: TAG OK done")
    listing = ("C: * LIST * RETURN (STATUS *", "S: TAG OK done")
    with (
        ScriptedServer(*LOGIN[:-1], "S: TAG OK welcome", *asked, *listing, *LOGOUT) as server,
        opened(server) as mailbox,
    ):
        assert mailbox.folders() == []


# --- addresses ------------------------------------------------------------------------------------------------------


def test_the_addresses_are_tried_in_turn():
    """Nobody listens on 127.0.0.2 at that port; the name is not asked for again."""
    with (
        ScriptedServer(*LOGIN, *LOGOUT) as server,
        opened(server, host="mail.invalid", addresses=("127.0.0.2", server.host)),
    ):
        pass


def test_no_address_that_answers_is_a_connect_error():
    with ScriptedServer("DEAF") as server:
        with pytest.raises(ConnectError) as caught, opened(server, addresses=("127.0.0.2", "127.0.0.3")):
            pass
        with pytest.raises(ConnectError), opened(server, timeout_s=0.05):
            pass
    assert caught.value.transient


def test_tls_verifies_the_name_and_not_the_address(authority):
    context = server_context(authority, "mail.example.com")
    options = {"encryption": "tls", "tls": client_context(authority)}
    with (
        ScriptedServer("TLS", *LOGIN, *LOGOUT, tls=context) as server,
        opened(server, host="mail.example.com", addresses=(server.host,), **options),
    ):
        pass
    with (
        ScriptedServer("TLS", tls=context) as server,
        pytest.raises(ConnectError) as caught,
        opened(server, host="mail.example.net", addresses=(server.host,), **options),
    ):
        pass
    assert not caught.value.transient


def test_an_endpoint_does_not_show_its_secret():
    with ScriptedServer("DEAF") as server:
        assert CANARY not in repr(endpoint_of(server))
        with pytest.raises(ConnectError), opened(server, timeout_s=0.05):
            pass


# --- encryption -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


STARTTLS = (
    "S: * OK ready",
    "C: * CAPABILITY",
    "S: * CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED",
    "S: TAG OK done",
    "C: * STARTTLS",
)


def test_after_starttls_the_capabilities_are_asked_for_again(authority):
    steps = (*STARTTLS, "S: TAG OK go on", "TLS", *CAPABILITY, *LOGIN[len(GREETING) :], *LOGOUT)
    with (
        ScriptedServer(*steps, tls=server_context(authority)) as server,
        opened(server, encryption="starttls", tls=client_context(authority)),
    ):
        pass


def test_tls_from_the_first_byte(authority):
    with (
        ScriptedServer("TLS", *LOGIN, *LOGOUT, tls=server_context(authority)) as server,
        opened(server, encryption="tls", tls=client_context(authority)),
    ):
        pass


def test_a_server_without_starttls_is_not_told_a_password():
    with (
        ScriptedServer(*GREETING, "DEAF") as server,
        pytest.raises(ConnectError) as caught,
        opened(server, encryption="starttls"),
    ):
        pass
    assert not caught.value.transient
    assert len(server.lines) == 1


def test_a_certificate_that_is_not_trusted_is_permanent(authority):
    for steps, encryption in (((*STARTTLS, "S: TAG OK go on", "TLS"), "starttls"), (("TLS",), "tls")):
        with (
            ScriptedServer(*steps, tls=server_context(authority)) as server,
            pytest.raises(ConnectError) as caught,
            opened(server, encryption=encryption, tls=client_context(trustme.CA())),
        ):
            pass
        assert not caught.value.transient
        assert server.handshake_error is not None


def test_an_unknown_encryption_is_refused_before_anything_is_said():
    endpoint = imap.ImapEndpoint(host="127.0.0.1", port=1, encryption="ssl", username="a", password=Secret("b"))
    with pytest.raises(InvalidRequestError, match="starttls"), imap.open_session(endpoint, 1.0):
        pass


def test_a_greeting_that_would_keep_the_session_in_clear_is_refused():
    """RFC 9051 section 11.1: PREAUTH leaves no state in which STARTTLS is allowed."""
    with (
        ScriptedServer("S: * PREAUTH hello ann", "DEAF") as server,
        pytest.raises(ConnectError) as caught,
        opened(server, encryption="starttls"),
    ):
        pass
    assert not caught.value.transient
    assert server.lines == []


def test_what_was_said_in_clear_before_the_handshake_is_forgotten(authority):
    """An attacker may add replies to the one that begins the handshake."""
    forged = b"A2 OK go on\r\n* CAPABILITY IMAP4rev1 FORGED\r\nA3 OK done\r\n"
    steps = (*STARTTLS[:4], "C: A2 STARTTLS", forged, "TLS", *CAPABILITY, *LOGIN[len(GREETING) :], *LOGOUT)
    with (
        ScriptedServer(*steps, tls=server_context(authority)) as server,
        opened(server, encryption="starttls", tls=client_context(authority)) as mailbox,
    ):
        assert b"FORGED" not in mailbox._wire.capabilities
