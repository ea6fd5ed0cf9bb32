"""smtplib against the real thing on a socket."""

import hashlib
import smtplib
import socket
import ssl

import pytest
from fakemail_harness import PASSWORD, USER

FROM, FAR = "bob@elsewhere.test", "far@elsewhere.test"
RAW = b"From: bob@elsewhere.test\r\nSubject: hello\r\nMessage-ID: <1@example.test>\r\n\r\n.dot\r\nbody\r\n"


@pytest.fixture
def smtp(fakes):
    client = smtplib.SMTP(*fakes.address("smtp"), timeout=10, local_hostname="client.test")
    yield client
    client.close()


def inbox(fakes):
    return next(f for f in fakes.control.mailbox(USER)["folders"] if f["name"] == "INBOX")["messages"]


def fault(**changes):
    return {"id": "f", "point": "smtp.rcpt", "when": {"first": 1}} | changes


def test_what_is_sent_is_in_the_ledger_and_in_the_inbox(smtp, fakes):
    assert smtp.sendmail(FROM, [USER, FAR], RAW) == {}
    entry = fakes.entries("accepted")[0]
    assert entry["mail_from"] == FROM
    assert entry["rcpt_to"] == [USER, FAR]
    assert entry["sha256"] == hashlib.sha256(RAW).hexdigest()
    assert (entry["size_bytes"], entry["message_id"], entry["replied"]) == (len(RAW), "<1@example.test>", True)
    assert entry["header"] == RAW.decode().partition("\r\n\r\n")[0] + "\r\n\r\n"
    assert [row["message_id"] for row in inbox(fakes)] == ["<1@example.test>"]


def test_what_is_offered_works(smtp):
    smtp.ehlo()
    offered = "pipelining size 8bitmime smtputf8 enhancedstatuscodes dsn chunking starttls auth help"
    assert set(smtp.esmtp_features) == set(offered.split())
    assert set(smtp.esmtp_features["auth"].split()) == {"PLAIN", "LOGIN", "XOAUTH2"}


def test_an_answer_of_many_lines_is_one_write(fakes):
    client = socket.create_connection(fakes.address("smtp"), timeout=10)
    client.recv(4096)
    client.sendall(b"EHLO client.test\r\n")
    assert client.recv(4096).endswith(b"250 HELP\r\n")
    client.close()


@pytest.mark.parametrize("mechanism", ["auth_plain", "auth_login"])
def test_a_user_may_log_in(smtp, fakes, mechanism):
    smtp.ehlo()
    smtp.user, smtp.password = USER, PASSWORD
    code, _ = smtp.auth(mechanism.removeprefix("auth_"), getattr(smtp, mechanism), initial_response_ok=True)
    assert code == 235
    assert fakes.entries("login")[0]["user"] == USER
    assert PASSWORD not in repr(fakes.entries())
    assert smtp.sendmail(USER, FAR, RAW) == {}


def test_a_wrong_password_is_refused(smtp, fakes):
    with pytest.raises(smtplib.SMTPAuthenticationError) as caught:
        smtp.login(USER, "wrong-canary")
    assert caught.value.smtp_code == 535
    assert fakes.entries("refused")[0]["reply_code"] == 535
    assert "wrong-canary" not in repr(fakes.entries())


def test_non_ascii_addresses_and_bodies(smtp, fakes):
    raw = "Subject: Grüße\r\n\r\nschön\r\n".encode()
    smtp.sendmail("björn@elsewhere.test", ["åsa@elsewhere.test"], raw, mail_options=["SMTPUTF8", "BODY=8BITMIME"])
    entry = fakes.entries("accepted")[0]
    assert (entry["mail_from"], entry["rcpt_to"]) == ("björn@elsewhere.test", ["åsa@elsewhere.test"])
    assert "Grüße" in entry["header"]


def test_a_null_sender_is_accepted(smtp, fakes):
    smtp.sendmail("", [USER], RAW)
    assert fakes.entries("accepted")[0]["mail_from"] in {"", "<>"}


def test_a_declared_size_beyond_the_limit_is_refused(smtp, fakes):
    smtp.ehlo()
    code, _ = smtp.mail(FROM, options=["SIZE=999999999"])
    assert code == 552
    assert fakes.entries("refused")[0]["command"] == "MAIL"


def test_the_first_are_refused_then_all_is_well(smtp, fakes):
    """Greylisting: 451 for the first two, then fine."""
    fakes.control.put_faults([fault(when={"first": 2}, action={"reply": "451 4.7.1 Try again later"})])
    for _ in range(2):
        with pytest.raises(smtplib.SMTPRecipientsRefused) as caught:
            smtp.sendmail(FROM, [FAR], RAW)
        assert caught.value.recipients[FAR] == (451, b"4.7.1 Try again later")
    assert smtp.sendmail(FROM, [FAR], RAW) == {}
    refused = fakes.entries("refused")
    assert [(e["command"], e["recipient"], e["reply_code"]) for e in refused] == [("RCPT", FAR, 451)] * 2
    assert len(fakes.entries("fault", fault_id="f", point="smtp.rcpt")) == 2
    assert len(fakes.entries("accepted")) == 1


def test_one_recipient_of_many_may_be_refused(smtp, fakes):
    fakes.control.put_faults(
        [fault(when={"every": 1}, match={"recipient": "far@*"}, action={"reply": "550 5.1.1 No such user"})]
    )
    assert smtp.sendmail(FROM, [USER, FAR], RAW) == {FAR: (550, b"5.1.1 No such user")}
    assert fakes.entries("accepted")[0]["rcpt_to"] == [USER]


def test_a_drop_after_data_leaves_an_accepted_message_without_a_reply(smtp, fakes):
    fakes.control.put_faults([fault(point="smtp.accepted", action={"drop": True})])
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        smtp.sendmail(FROM, [USER], RAW)
    entry = fakes.await_entry("accepted")
    assert entry["replied"] is False
    assert entry["rcpt_to"] == [USER]
    assert len(inbox(fakes)) == 1
    assert fakes.await_entry("disconnect")["connection"] == entry["connection"]


def test_a_refusal_after_the_message_is_stored_is_seen_as_both(smtp, fakes):
    """The server keeps the message and says it didn't: what a client then sends again is there twice."""
    fakes.control.put_faults([fault(point="smtp.accepted", action={"reply": "451 4.3.0 Lost my mind"})])
    with pytest.raises(smtplib.SMTPDataError) as caught:
        smtp.sendmail(FROM, [USER], RAW)
    assert caught.value.smtp_code == 451
    assert fakes.entries("accepted")[0]["replied"] is True
    assert fakes.entries("refused")[0]["reply_code"] == 451
    assert len(inbox(fakes)) == 1


@pytest.mark.parametrize(("point", "error"), [
    ("smtp.mail", smtplib.SMTPSenderRefused),
    ("smtp.rcpt", smtplib.SMTPRecipientsRefused),
    ("smtp.data", smtplib.SMTPDataError),
])  # fmt: skip
def test_each_verb_may_be_refused(smtp, fakes, point, error):
    fakes.control.put_faults([fault(point=point, action={"reply": "452 4.3.1 Full"})])
    with pytest.raises(error):
        smtp.sendmail(FROM, [FAR], RAW)
    assert fakes.entries("accepted") == []
    # smtplib leaves the transaction open where DATA itself is refused.
    smtp.rset()
    assert smtp.sendmail(FROM, [FAR], RAW) == {}


@pytest.mark.parametrize("point", ["smtp.mail", "smtp.rcpt", "smtp.data"])
def test_a_drop_before_the_message_leaves_nothing(smtp, fakes, point):
    fakes.control.put_faults([fault(point=point, action={"drop": True})])
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        smtp.sendmail(FROM, [USER], RAW)
    assert fakes.await_entry("disconnect")
    assert fakes.entries("accepted") == []
    assert inbox(fakes) == []


@pytest.mark.parametrize("action", [{"reply": "421 4.7.0 Too many connections"}, {"drop": True}])
def test_a_connection_may_be_refused(fakes, action):
    fakes.control.put_faults([fault(point="smtp.connect", action=action)])
    with pytest.raises((smtplib.SMTPConnectError, smtplib.SMTPServerDisconnected, ConnectionResetError)):
        smtplib.SMTP(*fakes.address("smtp"), timeout=10)
    smtplib.SMTP(*fakes.address("smtp"), timeout=10).close()


def test_a_421_ends_the_connection(fakes):
    """RFC 5321 section 3.8: the server closes the channel after it."""
    fakes.control.put_faults([fault(point="smtp.mail", action={"reply": "421 4.3.2 Shutting down"})])
    client = socket.create_connection(fakes.address("smtp"), timeout=10)
    client.sendall(b"EHLO client.test\r\nMAIL FROM:<bob@elsewhere.test>\r\n")
    received = b""
    while data := client.recv(4096):
        received += data
    client.close()
    assert received.endswith(b"421 4.3.2 Shutting down\r\n")


def test_a_fault_may_name_the_user_who_logged_in(smtp, fakes):
    fakes.control.put_faults([fault(point="smtp.mail", match={"user": "ann@*"}, action={"reply": "452 4.3.1 Full"})])
    assert smtp.sendmail(FROM, [FAR], RAW) == {}
    smtp.login(USER, PASSWORD)
    with pytest.raises(smtplib.SMTPSenderRefused):
        smtp.sendmail(FROM, [FAR], RAW)


def test_a_delay_is_a_delay(smtp, fakes):
    fakes.control.put_faults([fault(point="smtp.accepted", action={"delay_ms": 50})])
    assert smtp.sendmail(FROM, [USER], RAW) == {}
    assert fakes.entries("accepted")[0]["replied"] is True


def test_long_and_short_options_of_two_clients_do_not_mix(fakes):
    """aiosmtpd keeps limits on the class: one client's EHLO must not change another's."""
    first, second = (smtplib.SMTP(*fakes.address("smtp"), timeout=10) for _ in range(2))
    for client in (first, second, first, second):
        client.ehlo()
        assert client.sendmail(f"{'x' * 400}@elsewhere.test", [FAR], RAW) == {}
    first.close()
    second.close()


def trusting(fakes):
    return ssl.create_default_context(cadata=fakes.control.ca_pem())


def test_tls_is_offered_on_its_own_port(fakes):
    client = smtplib.SMTP_SSL(*fakes.address("smtps"), timeout=10, context=trusting(fakes))
    assert client.sendmail(FROM, [FAR], RAW) == {}
    client.quit()
    assert fakes.entries("accepted")[0]["tls"] is True


def test_tls_may_begin_after_starttls(smtp, fakes):
    smtp.starttls(context=trusting(fakes))
    smtp.login(USER, PASSWORD)
    assert smtp.sendmail(FROM, [FAR], RAW) == {}
    entry = fakes.entries("accepted")[0]
    assert (entry["tls"], entry["user"]) == (True, USER)


@pytest.mark.parametrize("name", ["expired", "wrong-host", "self-signed"])
def test_a_certificate_may_be_one_that_nobody_should_trust(fakes, name):
    fakes.control.put_faults([fault(point="smtp.tls", action={"certificate": name})])
    with pytest.raises(ssl.SSLCertVerificationError):
        smtplib.SMTP_SSL(*fakes.address("smtps"), timeout=10, context=trusting(fakes))
    smtplib.SMTP_SSL(*fakes.address("smtps"), timeout=10, context=trusting(fakes)).close()
