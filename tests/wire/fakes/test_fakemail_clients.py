"""The stock clients against a fakemail process."""

from __future__ import annotations

import hashlib
import imaplib
import smtplib
import ssl
from email import message_from_bytes, policy

import pytest
from imapclient import IMAPClient

from fakemail.client import ControlError

ANN, PASSWORD = "ann@a.example", "canary-password"
MAIL = (
    b"From: x@y.example\r\nTo: ann@a.example\r\nSubject: hello\r\nMessage-ID: <one@y.example>\r\n\r\nbody\r\n.dot\r\n"
)


@pytest.fixture
def box(clean):
    clean.control.add_user(ANN, PASSWORD)
    return clean.control.seed(ANN, count=12, seed=7)


@pytest.fixture
def imap(clean, box):
    with imaplib.IMAP4(*clean.imap, timeout=10) as client:
        client.login(ANN, PASSWORD)
        yield client


def test_a_wrong_password_is_refused(clean, box):
    with (
        imaplib.IMAP4(*clean.imap, timeout=10) as client,
        pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"),
    ):
        client.login(ANN, "wrong")


def test_plain_authentication_and_tls_work(clean, box):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with imaplib.IMAP4_SSL(*clean.imaps, ssl_context=context, timeout=10) as client:
        client.authenticate("PLAIN", lambda _: f"\0{ANN}\0{PASSWORD}".encode())
        assert client.state == "AUTH"


def test_what_is_fetched_is_what_was_seeded(imap, box):
    imap.select("INBOX")
    _, data = imap.uid("FETCH", "1:*", "(UID RFC822.SIZE BODY.PEEK[])")
    bodies = [row[1] for row in data if isinstance(row, tuple)]
    assert [hashlib.sha256(b).hexdigest() for b in bodies] == [m["sha256"] for m in box["messages"]]
    assert [len(b) for b in bodies] == [m["size_bytes"] for m in box["messages"]]


def test_the_structure_agrees_with_the_bytes(clean, box):
    with IMAPClient(clean.imap[0], port=clean.imap[1], ssl=False, timeout=10) as client:
        client.login(ANN, PASSWORD)
        client.select_folder("INBOX")
        for uid in (m["uid"] for m in box["messages"]):
            row = client.fetch([uid], ["BODYSTRUCTURE", "ENVELOPE", "BODY.PEEK[]"])[uid]
            parsed = message_from_bytes(row[b"BODY[]"], policy=policy.default)
            assert row[b"BODYSTRUCTURE"].is_multipart == parsed.is_multipart()
            assert row[b"ENVELOPE"].message_id.decode() == parsed["Message-ID"]


def test_search_store_copy_move_and_expunge(imap, box):
    imap.select("INBOX")
    imap.uid("STORE", "1:2", "+FLAGS", r"(\Deleted)")
    assert imap.uid("SEARCH", "DELETED")[1] == [b"1 2"]
    assert imap.uid("SEARCH", "NOT", "DELETED", "UID", "1:4")[1] == [b"3 4"]
    imap.send(b"x UID COPY 3 Trash\r\n")
    assert b"x OK [COPYUID" in imap.readline()
    imap.uid("MOVE", "4", "Trash")
    imap.expunge()
    assert imap.uid("SEARCH", "ALL")[1] == [b"3 5 6 7 8 9 10 11 12"]
    assert imap.status("Trash", "(MESSAGES)")[1] == [b"Trash (MESSAGES 2)"]


def test_an_appended_message_comes_back_byte_for_byte(imap):
    imap.append("Sent", r"(\Seen)", None, MAIL)
    imap.select("Sent")
    assert imap.fetch("1", "(BODY[])")[1][0][1] == MAIL
    assert imap.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")[1][0][1] == b"Subject: hello\r\n\r\n"
    assert imap.fetch("1", "(BODY[TEXT]<2.3>)")[1][0][1] == b"dy\r"


def test_special_folders_say_what_they_are(imap):
    names = b"\n".join(imap.list()[1])
    assert all(use in names for use in (b"\\Sent", b"\\Trash", b"\\Junk", b"\\Drafts"))


def test_idle_tells_of_a_delivery(clean, box):
    with IMAPClient(clean.imap[0], port=clean.imap[1], ssl=False, timeout=10) as client:
        client.login(ANN, PASSWORD)
        client.select_folder("INBOX")
        client.idle()
        clean.control.append(ANN, MAIL)
        assert (13, b"EXISTS") in client.idle_check(timeout=10)
        client.idle_done()


@pytest.mark.parametrize(
    "line",
    [
        b"a",
        b"a FETCH 1",
        b"a NOSUCH",
        b"a LOGIN x",
        b"a UID FETCH 1 (NOSUCH)",
        b"\x00\xff \xfe",
        b"a SEARCH ((((",
        b"+ x y",
    ],
)
def test_nonsense_gets_bad_and_the_connection_lives(clean, box, line):
    with imaplib.IMAP4(*clean.imap, timeout=10) as client:
        client.login(ANN, PASSWORD)
        client.select("INBOX")
        client.send(line + b"\r\n")
        assert b"BAD" in client.readline()
        assert client.noop()[0] == "OK"


def test_a_mail_is_in_the_ledger_and_in_the_mailbox(clean, box):
    with smtplib.SMTP(*clean.smtp, timeout=10) as client:
        client.sendmail("x@y.example", [ANN, "somebody@else.example"], MAIL)
    (entry,) = [e for e in clean.control.ledger() if e["kind"] == "accepted"]
    assert (entry["mail_from"], entry["rcpt_to"]) == ("x@y.example", [ANN, "somebody@else.example"])
    assert (entry["message_id"], entry["replied"]) == ("<one@y.example>", True)
    assert entry["sha256"] == hashlib.sha256(MAIL).hexdigest()
    assert "Subject: hello" in entry["header"]
    inbox = next(f for f in clean.control.mailbox(ANN)["folders"] if f["name"] == "INBOX")
    assert inbox["messages"][-1]["message_id"] == "<one@y.example>"


def test_the_first_n_are_refused_and_then_all_is_well(clean):
    reply = "451 4.7.1 Try again later"
    clean.control.put_faults([{"id": "grey", "point": "smtp.rcpt", "when": {"first": 2}, "action": {"reply": reply}}])
    codes = []
    with smtplib.SMTP(*clean.smtp, timeout=10) as client:
        client.ehlo()
        client.mail("x@y.example")
        codes = [client.rcpt(f"r{n}@y.example")[0] for n in range(4)]
    assert codes == [451, 451, 250, 250]
    assert [e["fault_id"] for e in clean.control.ledger() if e["kind"] == "fault"] == ["grey", "grey"]


def test_a_drop_before_the_250_leaves_the_mail_taken_and_the_client_unsure(clean):
    fault = {"id": "cut", "point": "smtp.accepted", "when": {"nth": 1}, "action": {"drop": True}}
    clean.control.put_faults([fault])
    with pytest.raises(smtplib.SMTPServerDisconnected):
        smtplib.SMTP(*clean.smtp, timeout=10).sendmail("x@y.example", ["r@y.example"], MAIL)
    (entry,) = [e for e in clean.control.ledger() if e["kind"] == "accepted"]
    assert entry["replied"] is False


def test_a_fault_that_makes_no_sense_is_refused_with_what_is_allowed(clean):
    with pytest.raises(ControlError, match=r"allowed"):
        clean.control.put_faults([{"id": "x", "point": "smtp.nowhere", "when": {"first": 1}, "action": {"drop": True}}])


def test_an_imap_fault_answers_instead_of_the_command(clean, box):
    action = {"reply": "NO [UNAVAILABLE] Try again later"}
    fault = {
        "id": "away",
        "point": "imap.command",
        "when": {"nth": 1},
        "action": action,
        "match": {"command": "SELECT"},
    }
    clean.control.put_faults([fault])
    with imaplib.IMAP4(*clean.imap, timeout=10) as client:
        client.login(ANN, PASSWORD)
        assert client.select("INBOX")[0] == "NO"
        assert client.select("INBOX")[0] == "OK"
