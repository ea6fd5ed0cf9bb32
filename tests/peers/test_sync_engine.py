"""The same mail in Dovecot and in fakemail gives the same rows, and mbsync fetches what they say."""

from __future__ import annotations

import contextlib
import imaplib
import itertools
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import dovecot_server
import fakemail_server
import pytest
from mail_clients import Maildir, as_sent, run, sha256
from programs import find_program, missing

from fakemail.synthesis import synthesise

sys.path.append(str(Path(__file__).parents[1] / "stack"))
import use_cases  # the desk of the stack tests, over servers of the peers
from use_cases import PASSWORD, Desk

TENANT, COUNT = "peers", 40
#: What the same message must say in each column, wherever it lies; identities differ, and when it came.
SAME = (
    "uid", "message_id", "sender", "recipients_to", "recipients_cc", "subject", "body_text", "body_html", "headers",
    "flags", "size_bytes", "sha256", "raw", "sent_at", "attachment_count", "is_broken",
)  # fmt: skip
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    with use_cases.workbench(tmp_path_factory.mktemp("rows"), TENANT) as made:
        yield made


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Both at once: only here are two compared."""
    program = find_program(dovecot_server.PACKAGE, "dovecot")
    version = dovecot_server.version(program)
    if not version.startswith(f"{dovecot_server.SERIES}."):
        missing(f"Dovecot {version} is installed; its configuration here is for {dovecot_server.SERIES}")
    with (
        dovecot_server.dovecot(program) as dovecot,
        fakemail_server.fakemail(tmp_path_factory.mktemp("fakemail")) as fakes,
    ):
        yield dovecot, fakemail_server.as_peer(fakes)


class Box:
    """A mailbox on a server: another client of it, and the rows that ours makes of it."""

    def __init__(self, peer, tools, other, address):
        self.peer, self.address, self.other = peer, address, other
        where = SimpleNamespace(host=peer.host, port=peer.port)
        self.desk = Desk.open(tools, TENANT, address=address, fakes=SimpleNamespace(imap=where, smtp=where))

    def do(self, verb, *args):
        """One command of the other client."""
        kind, data = getattr(self.other, verb)(*args)
        assert kind == "OK", (self.peer.name, verb, data)
        return data

    def append(self, raw, folder="INBOX", flags=""):
        self.do("append", folder, flags, time.time(), raw)

    def rows(self):
        self.desk.sync()
        names = self.desk.rows("SELECT name, type FROM email_folders WHERE client_id = :id", id=self.desk.client_id)
        return {
            name["type"]: [{column: row[column] for column in SAME} for row in self.desk.messages(name["name"])]
            for name in names
        }


@pytest.fixture
def boxes(servers, tools):
    """The same mail on both."""
    with contextlib.ExitStack() as stack:
        made = []
        for peer in servers:
            address = f"sync{next(_NUMBERS)}@example.com"
            peer.add_user(address, PASSWORD)
            other = stack.enter_context(imaplib.IMAP4(peer.host, peer.port, timeout=20))
            other.login(address, PASSWORD)
            made.append(Box(peer, tools, other, address))
            fill(made[-1])
        yield made


def letter(number):
    raw = synthesise(seed=5, address="ann@example.com", folder="INBOX", uid=number)
    return b"\r\n".join(raw.splitlines()) + b"\r\n"


def fill(box):
    for number in range(COUNT):
        box.append(letter(number + 1), flags=("", "\\Seen", "\\Seen \\Flagged", "\\Answered")[number % 4])
    for number in range(5):
        box.append(letter(100 + number), "Sent", "\\Seen")
    box.append(b"Content-Type: multipart/mixed\r\n\r\nno boundary, no end", "Junk")
    box.append(
        b"Subject: \xff\xfe 8-bit\r\nContent-Type: text/plain; charset=none\r\n\r\n\xff\r\n", "Drafts", "\\Draft"
    )


def equal(boxes):
    dovecot, fakemail = (box.rows() for box in boxes)
    # Dovecot has a folder more.
    assert dovecot.pop("archive") == []
    assert dovecot == fakemail
    return fakemail


def test_the_same_mail_gives_the_same_rows(boxes):
    rows = equal(boxes)
    assert {kind: len(found) for kind, found in rows.items()} == {
        "inbox": COUNT,
        "sent": 5,
        "drafts": 1,
        "spam": 1,
        "trash": 0,
    }
    assert [row["is_broken"] for row in rows["spam"] + rows["drafts"]] == [True, True]


def test_the_same_changes_give_the_same_rows(boxes):
    equal(boxes)
    for box in boxes:
        box.do("select", "INBOX")
        box.do("uid", "STORE", "3:9", "FLAGS", "(\\Flagged $Work)")
        box.do("uid", "STORE", "11,13,20:25", "+FLAGS", "(\\Deleted)")
        box.do("expunge")
        box.do("uid", "COPY", "1:4", "Trash")
        box.append(letter(200))
    rows = equal(boxes)
    assert (len(rows["inbox"]), len(rows["trash"])) == (COUNT - 8 + 1, 4)
    for box in boxes:
        box.do("uid", "STORE", "1:*", "+FLAGS", "(\\Deleted)")
        box.do("expunge")
    assert equal(boxes)["inbox"] == []


def test_mbsync_fetches_what_the_rows_say(boxes, tmp_path):
    program = find_program("isync", "mbsync")
    for box in boxes:
        rows = box.rows()["inbox"]
        found = {row["sha256"].hex() for row in rows}
        assert pulled(program, box, tmp_path / box.peer.name) == sorted(
            sha256(as_sent(letter(number + 1))) for number in range(COUNT)
        )
        assert found == {sha256(letter(number + 1)) for number in range(COUNT)}


def pulled(program, box, folder):
    """Digests of what mbsync brings into a new Maildir."""
    folder.mkdir()
    config = folder / "mbsyncrc"
    config.write_text(
        f"IMAPAccount far\nHost {box.peer.host}\nPort {box.peer.port}\nUser {box.address}\nPass {PASSWORD}\n"
        "SSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount far\n\n"
        f"MaildirStore near\nPath {folder}/\nInbox {folder}/INBOX\n\n"
        "Channel all\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Near\nSync Pull\nSyncState *\n"
    )
    run(program, "-c", str(config), "all")
    return Maildir(path=folder / "INBOX").digests()
