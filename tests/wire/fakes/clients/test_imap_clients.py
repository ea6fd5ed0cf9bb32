"""imaplib and IMAPClient against the real thing on a socket."""

import contextlib
import email
import hashlib
import imaplib
import socket
import ssl
import threading
import time

import pytest
from fakemail_harness import PASSWORD, USER
from imapclient import IMAPClient

RAW = b"Subject: hello\r\nMessage-ID: <1@example.test>\r\n\r\nbody\r\n"


@pytest.fixture
def inbox(fakes):
    return fakes.control.seed(USER, count=30, seed=5)["messages"]


@pytest.fixture
def client(fakes):
    host, port = fakes.address("imap")
    with IMAPClient(host, port=port, ssl=False, timeout=10) as client:
        client.login(USER, PASSWORD)
        yield client


@pytest.fixture
def plain(fakes):
    client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    client.login(USER, PASSWORD)
    yield client
    # Some tests end the connection themselves.
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        client.logout()


def test_imaplib_reads_what_was_seeded(plain, inbox):
    assert plain.select("INBOX") == ("OK", [b"30"])
    _, data = plain.uid("FETCH", "1:*", "(BODY.PEEK[])")
    bodies = [part[1] for part in data if isinstance(part, tuple)]
    assert [hashlib.sha256(raw).hexdigest() for raw in bodies] == [row["sha256"] for row in inbox]
    assert [len(raw) for raw in bodies] == [row["size_bytes"] for row in inbox]
    assert [email.message_from_bytes(raw)["Message-ID"] for raw in bodies] == [row["message_id"] for row in inbox]


def test_imaplib_appends_searches_copies_and_expunges(plain, fakes):
    assert plain.append("INBOX", r"(\Seen)", imaplib.Time2Internaldate(0), RAW)[0] == "OK"
    plain.select("INBOX")
    assert plain.search(None, "SEEN", "SUBJECT", '"hello"') == ("OK", [b"1"])
    assert plain.copy("1", "Trash")[0] == "OK"
    plain.store("1", "+FLAGS", r"(\Deleted)")
    assert plain.expunge() == ("OK", [b"1"])
    folders = {folder["name"]: folder for folder in fakes.control.mailbox(USER)["folders"]}
    assert folders["INBOX"]["messages"] == []
    assert folders["Trash"]["messages"][0]["flags"] == ["\\Seen"]
    assert folders["Trash"]["messages"][0]["message_id"] == "<1@example.test>"


def test_imaplib_may_authenticate(fakes):
    client = imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    assert client.authenticate("PLAIN", lambda _: f"\0{USER}\0{PASSWORD}".encode())[0] == "OK"
    client.logout()


def test_imapclient_finds_folders_by_their_use(client):
    names = {name: flags for flags, _, name in client.list_folders()}
    assert b"\\Sent" in names["Sent"]
    assert client.find_special_folder(b"\\Trash") == "Trash"
    assert client.namespace().personal == (("", "/"),)
    assert client.folder_status("INBOX", ["MESSAGES", "UIDNEXT"]) == {b"MESSAGES": 0, b"UIDNEXT": 1}


def test_imapclient_reads_envelope_and_structure(client, inbox):
    facts = client.select_folder("INBOX", readonly=True)
    assert (facts[b"EXISTS"], facts[b"UIDNEXT"], facts[b"READ-ONLY"]) == (30, 31, [b""])
    rows = client.fetch(
        [row["uid"] for row in inbox], ["ENVELOPE", "BODYSTRUCTURE", "RFC822.SIZE", "INTERNALDATE", "FLAGS"]
    )
    assert {uid: row[b"RFC822.SIZE"] for uid, row in rows.items()} == {r["uid"]: r["size_bytes"] for r in inbox}
    assert {uid: row[b"ENVELOPE"].message_id.decode() for uid, row in rows.items()} == {
        r["uid"]: r["message_id"] for r in inbox
    }
    assert any(row[b"BODYSTRUCTURE"].is_multipart for row in rows.values())


def test_imapclient_moves_and_sets_flags(client, inbox):
    client.select_folder("INBOX")
    before = set(client.get_flags([1])[1])
    assert set(client.add_flags([1], [b"\\Flagged", b"odd"])[1]) == before | {b"\\Flagged", b"odd"}
    assert client.search(["FLAGGED", "KEYWORD", "odd"]) == [1]
    client.move([1, 2], "Trash")
    assert client.search(["ALL"]) == [row["uid"] for row in inbox[2:]]


def test_idle_wakes_a_waiting_client(client, fakes):
    client.select_folder("INBOX")
    client.idle()
    fakes.control.append(USER, RAW)
    told = client.idle_check(timeout=10)
    told += client.idle_done()[1]
    assert told == [(1, b"EXISTS"), (1, b"RECENT")]


def test_a_long_answer_to_a_slow_reader_is_whole_and_blocks_no_one(fakes, client):
    """More than socket buffers hold is asked for and not read, while another client works."""
    rows = fakes.control.seed(USER, count=800, seed=5)["messages"]
    slow = socket.create_connection(fakes.address("imap"), timeout=10)
    slow.sendall(f"1 LOGIN {USER} {PASSWORD}\r\n2 EXAMINE INBOX\r\n3 UID FETCH 1:* BODY.PEEK[]\r\n".encode())
    client.select_folder("INBOX")
    assert len(client.search(["ALL"])) == 800
    received = bytearray()
    while b"\r\n3 OK" not in received[-100:]:
        received += slow.recv(1 << 20)
    slow.close()
    assert len(received) > sum(row["size_bytes"] for row in rows)
    assert received.count(b" FETCH (") == 800


def test_tls_is_offered_on_its_own_port(fakes):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = imaplib.IMAP4_SSL(*fakes.address("imaps"), ssl_context=context, timeout=10)
    client.login(USER, PASSWORD)
    assert client.select("INBOX")[0] == "OK"
    client.logout()


def test_a_command_in_two_writes_costs_no_delayed_acknowledgement(fakes):
    """IMAPClient sends a command and its line end apart: without TCP_QUICKACK that costs 40 ms each time."""
    client = socket.create_connection(fakes.address("imap"), timeout=10)
    reader = client.makefile("rb")
    reader.readline()
    started = time.monotonic()
    for number in range(25):
        client.sendall(f"{number} NOOP".encode())
        client.sendall(b"\r\n")
        assert reader.readline().startswith(f"{number} OK".encode())
    taken_s = time.monotonic() - started
    reader.close()
    client.close()
    # 25 x 40 ms would be a second.
    assert taken_s < 0.7


def test_the_ledger_tells_a_session(plain, fakes):
    plain.select("INBOX")
    plain.noop()
    plain.logout()
    end = fakes.await_entry("disconnect", protocol="imap")
    story = [entry for entry in fakes.entries() if entry["connection"] == end["connection"]]
    served = [(entry["command"], entry["result"]) for entry in story if entry["kind"] == "served"]
    assert served == [(word, "OK") for word in ("CAPABILITY", "LOGIN", "SELECT", "NOOP", "LOGOUT")]
    others = [entry for entry in story if entry["kind"] != "served"]
    assert [entry["kind"] for entry in others] == ["connect", "login", "disconnect"]
    assert others[1]["user"] == USER
    assert PASSWORD not in repr(story)


def fault(**changes):
    return {"id": "f", "point": "imap.command", "when": {"first": 1}} | changes


def test_a_fault_refuses_then_all_is_well(plain, fakes):
    fakes.control.put_faults([fault(match={"command": "SELECT"}, action={"reply": "NO [UNAVAILABLE] Later"})])
    assert plain.select("INBOX") == ("NO", [b"[UNAVAILABLE] Later"])
    assert plain.select("INBOX")[0] == "OK"
    assert fakes.entries("fault")[0]["fault_id"] == "f"


def test_a_fault_drops_the_connection(plain, fakes):
    fakes.control.put_faults([fault(match={"command": "NOOP"}, action={"drop": True})])
    with pytest.raises((imaplib.IMAP4.abort, OSError)):
        plain.noop()
    plain.shutdown()


def test_a_fault_refuses_a_connection(fakes):
    fakes.control.put_faults([fault(point="imap.connect", action={"reply": "BYE Too many connections"})])
    with pytest.raises(imaplib.IMAP4.error, match="Too many"):
        imaplib.IMAP4(*fakes.address("imap"), timeout=10)
    imaplib.IMAP4(*fakes.address("imap"), timeout=10).logout()


def test_a_delay_holds_up_its_own_client_alone(plain, client, fakes):
    fakes.control.put_faults([fault(match={"command": "CHECK"}, action={"delay_ms": 600})])
    client.select_folder("INBOX")
    plain.select("INBOX")
    done = []
    waiting = threading.Thread(target=lambda: done.append(plain.check()))
    waiting.start()
    fakes.await_entry("fault")
    client.noop()
    assert done == []
    waiting.join(timeout=10)
    assert done[0][0] == "OK"
