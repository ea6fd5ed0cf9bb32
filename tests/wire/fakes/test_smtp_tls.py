"""TLS from the first byte and after STARTTLS, the certificates, and what goes wrong with a handshake."""

from __future__ import annotations

import select
import smtplib
import socket
import ssl

import pytest
from smtp_harness import FAR, FROM, PASSWORD, RAW, USER, Client, serving, trusting

from fakemail.tls import CERTIFICATES, CertificateError, Certificates

ALERT = "handshake.failure"
COMPLAINTS = {"expired": "certificate has expired", "wrong-host": "Hostname mismatch", "self-signed": "self-signed"}


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running):
    running.faults()
    running.call(running.ledger.clear)
    return running


def connect(server, context=None):
    return smtplib.SMTP_SSL("localhost", server.tls_port, timeout=10, context=context or trusting(server))


def start(server, context=None):
    client = smtplib.SMTP("localhost", server.port, timeout=10)
    try:
        client.starttls(context=context or trusting(server))
    except BaseException:
        client.close()
        raise
    return client


@pytest.fixture(params=[connect, start], ids=["from the first byte", "after STARTTLS"])
def way(request):
    return request.param


def test_a_client_that_verifies_is_satisfied(server, way):
    with way(server) as client:
        client.login(USER, PASSWORD)
        assert client.sendmail(FROM, [FAR], RAW) == {}
        assert not client.has_extn("starttls")
    assert server.entry("accepted")["tls"] is True
    assert server.entry("tls")["version"] == "TLSv1.3"
    assert server.entry("disconnect")["reason"] == "quit"


def test_a_message_of_megabytes_comes_through(server, way):
    raw = (b"x" * 76 + b"\r\n") * 60_000
    with way(server) as client:
        client.sendmail(FROM, [USER], raw)
    assert server.inbox()[-1] == raw


def test_without_tls_the_ledger_says_so(server):
    with smtplib.SMTP("localhost", server.port, timeout=10) as client:
        client.sendmail(FROM, [FAR], RAW)
    assert server.entry("accepted")["tls"] is False


def test_the_authority_is_new_for_each_process_and_made_once():
    first, second = Certificates(), Certificates()
    pem = first.ca_pem
    assert first.ca_pem == pem != second.ca_pem
    assert first.context("valid") is first.context("valid")


def test_a_certificate_that_there_is_not_is_a_mistake():
    with pytest.raises(CertificateError, match="allowed: valid, expired, wrong-host, self-signed"):
        Certificates().context("nosuch")


def test_a_certificate_may_be_for_more_hosts(server):
    certificates = Certificates("mail.example.test")
    client = ssl.create_default_context(cadata=certificates.ca_pem.decode())
    assert handshake(certificates.context(), client, "mail.example.test") == "TLSv1.3"
    assert handshake(certificates.context(), client, "127.0.0.1") == "TLSv1.3"


def handshake(server_context, client_context, name):
    """Without a socket: what each says is given to the other until both are content."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=name)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client, server):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return client.version()


# --- STARTTLS ---


def test_starttls_forgets_all_that_was_said(server):
    """RFC 3207 section 4.2: the client is a stranger again."""
    with Client(server.port) as client:
        client.say("EHLO client.test", "AUTH PLAIN AGFubkBleGFtcGxlLnRlc3QAY2FuYXJ5LXBhc3N3b3Jk", f"MAIL FROM:<{FROM}>")
        client.start_tls(trusting(server))
        assert client.codes(f"MAIL FROM:<{FROM}>") == ["503 5.5.1"]
        client.say("EHLO client.test")
        assert client.codes(f"RCPT TO:<{FAR}>", f"MAIL FROM:<{FROM}> SIZE=1", f"RCPT TO:<{FAR}>", "DATA", ".") == [
            "503 5.5.1", "250 2.1.0", "250 2.1.5", "354 End", "250 2.0.0",
        ]  # fmt: skip
    assert server.entry("accepted")["user"] == ""


def test_what_is_injected_before_tls_is_never_run(server):
    """CVE-2011-0411: commands in the packet of STARTTLS came from anybody."""
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.send(f"STARTTLS\r\nEHLO evil\r\nMAIL FROM:<{FROM}>\r\nRCPT TO:<{FAR}>\r\n")
        assert client.reply().startswith("220 ")
        client.sock = trusting(server).wrap_socket(client.sock, server_hostname="localhost")
        assert client.codes("NOOP", "DATA") == ["250 2.0.0", "503 5.5.1"]
    assert server.entry("served")["commands"] == {"EHLO": 1, "STARTTLS": 1, "NOOP": 1, "DATA": 1}


def test_starttls_is_over_once_it_is_done(server):
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.start_tls(trusting(server))
        assert "STARTTLS" not in client.say("EHLO client.test")
        assert client.codes("STARTTLS") == ["503 5.5.1"]


def test_commands_may_come_with_the_end_of_the_handshake(server):
    """A client of TLS 1.3 may write before the server knows that the handshake is done."""
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.say("STARTTLS").startswith("220 ")
        raw, incoming, outgoing = client.sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = trusting(server).wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65_536))
        tls.write(b"EHLO client.test\r\nNOOP\r\n")
        # The client's last word of the handshake and its commands are one segment.
        raw.sendall(outgoing.read())
        received = b""
        while not received.endswith(b"250 2.0.0 OK\r\n"):
            incoming.write(raw.recv(65_536))
            try:
                while data := tls.read(65_536):
                    received += data
            except ssl.SSLWantReadError:
                continue
        assert received.startswith(b"250-localhost\r\n")


def test_mail_before_tls_is_refused_where_tls_is_required():
    with serving(tls_required=True) as server:
        with Client(server.port) as client:
            assert "AUTH" not in client.say("EHLO client.test")
            needs = [
                "HELO c",
                f"MAIL FROM:<{FROM}>",
                f"RCPT TO:<{FAR}>",
                "DATA",
                "AUTH PLAIN",
                "RSET",
                "VRFY x",
                "HELP",
            ]
            assert client.codes(*needs) == ["530 5.7.0"] * len(needs)
            assert client.codes("NOOP") == ["250 2.0.0"]
            client.start_tls(trusting(server))
            assert "AUTH" in client.say("EHLO client.test")
            assert client.codes(f"MAIL FROM:<{FROM}>") == ["250 2.1.0"]
        with connect(server) as client:
            assert client.sendmail(FROM, [FAR], RAW) == {}


def test_a_client_may_go_away_instead_of_starting_tls(server):
    with Client(server.port) as client:
        client.say("EHLO client.test", "STARTTLS")
    end = server.entry("disconnect")
    assert (end["reason"], end["commands"]) == ("reset by the client", 2)


# --- what goes wrong ---


@pytest.mark.parametrize("name", COMPLAINTS)
def test_a_bad_certificate_is_found_out(server, way, name):
    assert name in CERTIFICATES
    server.faults({"point": "smtp.tls", "when": {"first": 1}, "action": {"certificate": name}})
    with pytest.raises(ssl.SSLCertVerificationError, match=COMPLAINTS[name]):
        way(server)
    assert server.entry("fault")["point"] == "smtp.tls"
    server.entry("disconnect")
    with way(server) as client:
        assert client.noop()[0] == 250


def test_a_client_that_does_not_look_takes_any_certificate(server, way):
    careless = ssl.create_default_context()
    careless.check_hostname, careless.verify_mode = False, ssl.CERT_NONE
    server.faults({"point": "smtp.tls", "action": {"certificate": "self-signed"}})
    with way(server, careless) as client:
        assert client.sendmail(FROM, [FAR], RAW) == {}


def test_a_handshake_may_be_refused_with_an_alert(server, way):
    server.faults({"point": "smtp.tls", "when": {"first": 1}, "action": {"alert": True}})
    with pytest.raises(ssl.SSLError, match=f"(?i){ALERT}"):
        way(server)
    assert server.entry("disconnect")["reason"] == "fault"
    with way(server) as client:
        assert client.noop()[0] == 250


def test_a_handshake_may_be_cut(server, way):
    server.faults({"point": "smtp.tls", "when": {"first": 1}, "action": {"drop": True}})
    with pytest.raises((ssl.SSLError, ConnectionError)):
        way(server)
    assert server.entry("disconnect")["reason"] == "fault"


def test_a_handshake_may_be_late(server, way):
    server.faults({"point": "smtp.tls", "action": {"delay_ms": 30}})
    with way(server) as client:
        assert client.noop()[0] == 250
    assert server.entry("fault")["point"] == "smtp.tls"


def test_a_handshake_may_stall_and_the_end_of_the_client_is_still_seen(server):
    server.faults({"point": "smtp.tls", "when": {"first": 1}, "action": {"stall": True}})
    with socket.create_connection(("127.0.0.1", server.tls_port), timeout=10) as client:
        client.sendall(b"\x16\x03\x01\x00\x05hello")
        server.entry("fault")
        with connect(server) as other:
            assert other.noop()[0] == 250
        assert select.select([client], [], [], 0)[0] == []
        number = server.entry("fault")["connection"]
    assert server.entry("disconnect", connection=number)["commands"] == 0


def test_a_client_that_speaks_no_tls_is_noted(server):
    with socket.create_connection(("127.0.0.1", server.tls_port), timeout=10) as client:
        client.sendall(b"EHLO client.test\r\n")
        while client.recv(4096):
            pass
    assert server.entry("disconnect")["reason"].startswith("TLS failed: ")
    assert [entry["kind"] for entry in server.entries()] == ["connect", "disconnect"]


def test_a_client_that_goes_away_in_a_handshake_is_noted(server):
    socket.create_connection(("127.0.0.1", server.tls_port), timeout=10).close()
    assert server.entry("disconnect")["reason"] == "reset by the client"


def test_a_hello_in_pieces_gets_its_alert_at_the_end(server):
    server.faults({"point": "smtp.tls", "when": {"first": 1}, "action": {"alert": True}})
    hello = ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost").do_handshake()
    wire = hello.read()
    with socket.create_connection(("127.0.0.1", server.tls_port), timeout=10) as client:
        for octet in wire:
            client.sendall(bytes([octet]))
        assert client.recv(4096) == b"\x15\x03\x03\x00\x02\x02\x28"
        assert client.recv(4096) == b""


@pytest.mark.parametrize("action", [{"reply": "454 4.7.0 Not now"}, {"reply": "454 4.7.0 Off", "close": True}])
def test_starttls_may_be_refused(server, action):
    server.faults({"point": "smtp.starttls", "when": {"first": 1}, "action": action})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        assert client.say("STARTTLS") == action["reply"]
        if action.get("close"):
            assert client.is_over()
            return
        assert client.codes(f"MAIL FROM:<{FROM}>", "RSET") == ["250 2.1.0", "250 2.0.0"]
        client.start_tls(trusting(server))


def test_starttls_may_be_cut(server):
    server.faults({"point": "smtp.starttls", "action": {"drop": True}})
    with Client(server.port) as client:
        client.say("EHLO client.test")
        client.send("STARTTLS\r\n")
        assert client.is_over()


def test_starttls_may_be_stripped(server):
    server.faults({"point": "smtp.ehlo", "action": {"strip": ["STARTTLS"]}})
    with smtplib.SMTP("localhost", server.port, timeout=10) as client:
        client.ehlo()
        assert not client.has_extn("starttls")
        with pytest.raises(smtplib.SMTPNotSupportedError):
            client.starttls(context=trusting(server))
