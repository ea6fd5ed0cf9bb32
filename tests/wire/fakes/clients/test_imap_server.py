"""The shell around the IMAP core: TLS, limits, pace, turns, and clients that behave badly."""

import base64
import contextlib
import imaplib
import re
import socket
import ssl

import pytest
from fakemail_harness import DEADLINE_S, PASSWORD, USER, running

LOGIN = f"l LOGIN {USER} {PASSWORD}\r\n".encode()


class Raw:
    """A socket that reads up to what a test waits for."""

    def __init__(self, address, *, tls=None):
        self.socket = socket.create_connection(address, timeout=DEADLINE_S)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.read = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def until(self, pattern):
        """All that has come up to the end of this pattern; it leaves the rest for the next call."""
        while (match := re.search(pattern, self.read)) is None:
            data = self.socket.recv(65_536)
            assert data, f"closed before {pattern}: {self.read[-500:]}"
            self.read += data
        told, self.read = self.read[: match.end()], self.read[match.end() :]
        return told

    def rest(self):
        """All that comes before the connection ends."""
        with contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65_536):
                self.read += data
        return self.read


def connected(fakes, name="imap", **options):
    raw = Raw(fakes.address(name), **options)
    raw.until(rb"\* OK [^\r]*\r\n")
    return raw


def logged_in(fakes, *, folder="INBOX"):
    raw = connected(fakes)
    raw.send(LOGIN + f"s SELECT {folder}\r\n".encode()).until(rb"s OK [^\r]*\r\n")
    return raw


@pytest.fixture
def trust(fakes):
    return ssl.create_default_context(cadata=fakes.control.ca_pem())


# TLS ------------------------------------------------------------------------------------------------------------------


def test_starttls_is_verified_and_offered_once(fakes, trust):
    with imaplib.IMAP4("localhost", fakes.address("imap")[1], timeout=DEADLINE_S) as client:
        assert "STARTTLS" in client.capabilities
        client.starttls(trust)
        assert "STARTTLS" not in client.capabilities
        assert client.login(USER, PASSWORD)[0] == "OK"
        assert client.select()[0] == "OK"


def test_what_was_sent_ahead_of_tls_is_forgotten(fakes, trust):
    """The attack of CVE-2011-0411: a command in the clear that would run as if it had come encrypted."""
    with connected(fakes) as raw:
        raw.send(b"a STARTTLS\r\n" + LOGIN).until(rb"a OK [^\r]*\r\n")
        secure = Raw.__new__(Raw)
        secure.socket, secure.read = trust.wrap_socket(raw.socket, server_hostname="localhost"), b""
        with secure:
            told = secure.send(b"b NOOP\r\n").until(rb"b OK [^\r]*\r\n")
            assert b"l OK" not in told
            assert b"c BAD" in secure.send(b"c SELECT INBOX\r\n").until(rb"c [^\r]*\r\n")


def test_passwords_may_be_taken_behind_tls_alone():
    with running("--require-tls", "--user", f"{USER}:{PASSWORD}") as fakes:
        trust = ssl.create_default_context(cadata=fakes.control.ca_pem())
        with connected(fakes) as raw:
            assert b"LOGINDISABLED" in raw.send(b"a CAPABILITY\r\n").until(rb"a OK [^\r]*\r\n")
            assert b"l NO [PRIVACYREQUIRED]" in raw.send(LOGIN).until(rb"l [^\r]*\r\n")
        with connected(fakes, "imaps", tls=trust) as raw:
            assert b"LOGINDISABLED" not in raw.send(b"a CAPABILITY\r\n").until(rb"a OK [^\r]*\r\n")
            assert b"l OK" in raw.send(LOGIN).until(rb"l [^\r]*\r\n")


@pytest.mark.parametrize("certificate", ["expired", "wrong-host", "self-signed"])
def test_a_bad_certificate_is_noticed_by_a_client_that_verifies(fakes, trust, certificate):
    fakes.control.put_faults(
        [{"id": "bad", "point": "imap.tls", "when": {"first": 1}, "action": {"certificate": certificate}}]
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(fakes, "imaps", tls=trust)
    connected(fakes, "imaps", tls=trust).__exit__()


@pytest.mark.parametrize("action", [{"alert": True}, {"drop": True}])
def test_a_handshake_may_fail_and_the_next_one_does_not(fakes, trust, action):
    fakes.control.put_faults([{"id": "tls", "point": "imap.tls", "when": {"first": 1}, "action": action}])
    with pytest.raises(OSError, match=r".*"):
        connected(fakes, "imaps", tls=trust)
    connected(fakes, "imaps", tls=trust).__exit__()
    assert fakes.await_entry("fault", point="imap.tls")["fault_id"] == "tls"


# Logins ---------------------------------------------------------------------------------------------------------------


def test_an_oauth_token_is_taken_and_a_wrong_one_is_explained(fakes):
    fakes.control.add_user(USER, PASSWORD, token="canary-token")

    def authenticate(token):
        client = imaplib.IMAP4(*fakes.address("imap"), timeout=DEADLINE_S)
        told = []

        def answer(challenge):
            told.append(challenge)
            return f"user={USER}\1auth=Bearer {token}\1\1".encode() if len(told) == 1 else b""

        try:
            client.authenticate("XOAUTH2", answer)
        finally:
            client.shutdown()
        return told

    assert authenticate("canary-token") == [b""]
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        authenticate("another")
    ledger = str(fakes.entries())
    assert "XOAUTH2" in ledger
    assert "canary" not in ledger.replace(USER, "")


def test_a_server_may_be_full():
    with running("--connections", "2", "--user", f"{USER}:{PASSWORD}") as fakes:
        with connected(fakes), connected(fakes), Raw(fakes.address("imap")) as third:
            assert third.rest().startswith(b"* BYE [UNAVAILABLE] ")
        fakes.await_entry("disconnect", why="too many connections")
        # Those who leave make room.
        for _ in range(2):
            fakes.await_entry("disconnect")
        connected(fakes).__exit__()


def test_a_user_may_have_so_many_connections():
    with running("--connections-per-user", "1", "--user", f"{USER}:{PASSWORD}") as fakes:
        with logged_in(fakes), connected(fakes) as second:
            assert b"l NO [ALERT] Too many simultaneous connections" in second.send(LOGIN).until(rb"l [^\r]*\r\n")
        fakes.await_entry("disconnect", user=USER)
        logged_in(fakes).__exit__()


def test_whoever_says_nothing_is_logged_out():
    with running("--idle-timeout", "1", "--user", f"{USER}:{PASSWORD}") as fakes, logged_in(fakes) as raw:
        assert raw.rest() == b"* BYE Idle for too long\r\n"


# Faults that the shell carries out ------------------------------------------------------------------------------------


def put(fakes, point, action, **more):
    fakes.control.put_faults([{"id": "it", "point": point, "when": {"first": 1}, "action": action, **more}])


def seeded(fakes, count=3):
    return fakes.control.seed(USER, count=count, seed=5)["messages"]


def test_a_connection_is_cut_inside_a_literal(fakes):
    size = seeded(fakes)[0]["size_bytes"]
    put(fakes, "imap.literal", {"drop": True, "after_bytes": 700})
    with logged_in(fakes) as raw:
        told = raw.send(b"f FETCH 1 (BODY.PEEK[])\r\n").rest()
    head, _, literal = told.partition(b"}\r\n")
    assert head.endswith(b"{%d" % size)
    assert len(literal) == 700
    with logged_in(fakes) as raw:
        assert len(raw.send(b"f FETCH 1 (BODY.PEEK[])\r\n").until(rb"f OK [^\r]*\r\n")) > size


def test_a_connection_is_cut_when_the_work_is_done(fakes):
    """The case in which only the ledger, or another look, can say what happened."""
    put(fakes, "imap.reply", {"drop": True}, match={"command": "APPEND"})
    with logged_in(fakes) as raw:
        assert raw.send(b"a APPEND Sent {11+}\r\nA: b\r\n\r\nhey\r\n").rest() == b""
    with logged_in(fakes, folder="Sent") as raw:
        assert b"* SEARCH 1\r\n" in raw.send(b"b SEARCH ALL\r\n").until(rb"b OK [^\r]*\r\n")


def test_a_stalled_command_holds_up_nobody_else(fakes):
    put(fakes, "imap.command", {"stall": True}, match={"command": "NOOP"})
    with logged_in(fakes) as stalled, logged_in(fakes) as other:
        stalled.send(b"n NOOP\r\n")
        fakes.await_entry("fault", fault_id="it")
        assert b"m OK" in other.send(b"m NOOP\r\n").until(rb"m [^\r]*\r\n")
        stalled.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            stalled.socket.recv(1)


def test_a_paced_answer_is_whole_and_the_next_one_is_fast(fakes):
    size = seeded(fakes)[0]["size_bytes"]
    put(fakes, "imap.command", {"bytes_per_s": 40 * size}, match={"command": "FETCH"})
    with logged_in(fakes) as raw:
        first = raw.send(b"f FETCH 1 (BODY.PEEK[])\r\n").until(rb"f OK [^\r]*\r\n")
        second = raw.send(b"g FETCH 1 (BODY.PEEK[])\r\n").until(rb"g OK [^\r]*\r\n")
    assert first.replace(b"f OK", b"g OK") == second


def test_renumbering_sends_the_sessions_of_the_folder_away(fakes):
    seeded(fakes)
    with logged_in(fakes) as idle, logged_in(fakes, folder="Sent") as other:
        idle.send(b"i IDLE\r\n").until(rb"\+ idling\r\n")
        before = other.send(b"a STATUS INBOX (UIDVALIDITY)\r\n").until(rb"a OK [^\r]*\r\n")
        put(fakes, "imap.select", {"mailbox": "reset-uidvalidity"}, match={"folder": "INBOX"})
        with logged_in(fakes):
            assert idle.rest().startswith(b"* BYE ")
        after = other.send(b"b STATUS INBOX (UIDVALIDITY)\r\n").until(rb"b OK [^\r]*\r\n")
        assert re.search(rb"UIDVALIDITY (\d+)", before)[1] != re.search(rb"UIDVALIDITY (\d+)", after)[1]


# Clients that behave badly --------------------------------------------------------------------------------------------


def test_a_client_that_sends_far_ahead_is_answered_in_order(fakes):
    count = 30_000
    with logged_in(fakes) as raw:
        raw.send(b"".join(b"t%d NOOP\r\n" % number for number in range(count)))
        told = raw.until(rb"t%d OK [^\r]*\r\n" % (count - 1))
    assert re.findall(rb"(?m)^t(\d+) OK", told) == [b"%d" % number for number in range(count)]


def test_a_client_that_never_reads_does_not_stop_the_others(fakes):
    seeded(fakes, 2000)
    with logged_in(fakes) as deaf, logged_in(fakes) as other:
        deaf.send(b"f FETCH 1:* (BODY.PEEK[])\r\n")
        for number in range(20):
            assert b"OK" in other.send(b"n%d NOOP\r\n" % number).until(rb"n%d OK [^\r]*\r\n" % number)
        answer = other.send(b"g FETCH 1:100 (BODY.PEEK[])\r\n").until(rb"g OK [^\r]*\r\n")
        assert answer.count(b" FETCH (") >= 100


@pytest.mark.parametrize(
    "last",
    [
        b"a APPEND INBOX {100}\r\nonly this",
        b"a APPEND INBOX {100+}\r\nonly this",
        b"a FETCH 1:* (BODY[])\r\n",
        b"a IDLE\r\n",
        b"a LOGIN {5",
        b"\x00\xff\r\n",
    ],
)
def test_a_client_that_vanishes_is_forgotten(fakes, last):
    seeded(fakes, 200)
    with logged_in(fakes) as raw:
        raw.send(last)
        # A reset instead of an orderly end.
        raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    fakes.await_entry("disconnect", user=USER)
    with logged_in(fakes) as other:
        assert b"n OK" in other.send(b"n NOOP\r\n").until(rb"n [^\r]*\r\n")


def test_a_plain_login_may_come_as_an_initial_response(fakes):
    text = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
    with connected(fakes) as raw:
        assert b"a OK [CAPABILITY " in raw.send(b"a AUTHENTICATE PLAIN " + text + b"\r\n").until(rb"a [^\r]*\r\n")
