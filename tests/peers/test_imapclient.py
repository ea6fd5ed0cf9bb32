"""IMAPClient: the library that most Python programs use, with its own parsers."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
import time

import pytest
from imapclient import IMAPClient, SocketTimeout
from imapclient.exceptions import IMAPClientError, LoginError
from mail_clients import LETTER, sha256


@pytest.fixture
def connect(ann):
    """A connection that is closed afterwards."""
    with contextlib.ExitStack() as opened:

        def make(port="imap", **options):
            given = {"ssl": False, "timeout": SocketTimeout(connect=10, read=20), **options}
            client = IMAPClient("127.0.0.1", ann.fakes.port(port), **given)
            opened.callback(client.shutdown)
            return client

        yield make


@pytest.fixture
def client(connect, ann):
    """A connection that has logged in."""
    made = connect()
    made.login(ann.address, ann.password)
    return made


@pytest.fixture
def trust(ann):
    return ssl.create_default_context(cafile=str(ann.fakes.ca_file))


@pytest.mark.parametrize("way", ["imaps", "starttls"])
def test_tls_verifies_the_server(connect, ann, trust, way):
    made = connect("imaps", ssl=True, ssl_context=trust) if way == "imaps" else connect()
    if way == "starttls":
        made.starttls(trust)
    made.login(ann.address, ann.password)
    assert made.select_folder("INBOX")[b"EXISTS"] == 0


def test_each_way_to_log_in(connect, ann):
    connect().plain_login(ann.address, ann.password)
    connect().oauth2_login(ann.address, ann.token)
    connect().oauthbearer_login(ann.address, ann.token)
    with pytest.raises(LoginError, match="AUTHENTICATIONFAILED"):
        connect().login(ann.address, "wrong")


def test_capabilities_namespace_and_id(client):
    assert client.has_capability("UIDPLUS")
    assert client.has_capability("MOVE")
    assert client.namespace().personal[0][0] == ""
    assert client.id_({"name": "contract"})


def test_folders_are_made_listed_renamed_subscribed_and_deleted(client):
    client.create_folder("Entwürfe & mehr")
    assert client.folder_exists("Entwürfe & mehr")
    assert any(name == "Entwürfe & mehr" for _, _, name in client.list_folders())
    client.subscribe_folder("Entwürfe & mehr")
    assert any(name == "Entwürfe & mehr" for _, _, name in client.list_sub_folders())
    client.unsubscribe_folder("Entwürfe & mehr")
    client.rename_folder("Entwürfe & mehr", "Ordner")
    assert client.find_special_folder(b"\\Drafts")
    client.delete_folder("Ordner")
    assert not client.folder_exists("Ordner")
    with pytest.raises(IMAPClientError):
        client.select_folder("Ordner")


def test_status_and_select(client, ann):
    ann.letters(2)
    status = client.folder_status("INBOX")
    chosen = client.select_folder("INBOX", readonly=True)
    assert status[b"MESSAGES"] == chosen[b"EXISTS"] == 2
    assert status[b"UIDVALIDITY"] == chosen[b"UIDVALIDITY"]
    assert b"READ-ONLY" in chosen
    client.unselect_folder()


def test_append_and_fetch_give_back_what_was_given(client, ann):
    when = dt.datetime(2021, 3, 5, 10, 20, 30, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert b"APPENDUID" in client.append("INBOX", LETTER, flags=[b"\\Flagged", b"custom"], msg_time=when)
    client.select_folder("INBOX")
    (uid,) = client.search()
    row = client.fetch(uid, ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "BODY.PEEK[]", "ENVELOPE", "BODYSTRUCTURE"])[uid]
    assert row[b"BODY[]"] == LETTER
    assert row[b"RFC822.SIZE"] == len(LETTER)
    assert {b"\\Flagged", b"custom"} <= set(row[b"FLAGS"])
    assert row[b"INTERNALDATE"].timestamp() == when.timestamp()
    envelope = row[b"ENVELOPE"]
    assert (envelope.subject, envelope.message_id) == (b"a letter of mine", b"<mine@a.example>")
    assert (envelope.from_[0].mailbox, envelope.to[0].host) == (b"ann", b"b.example")
    assert [word.lower() for word in row[b"BODYSTRUCTURE"][:2]] == [b"text", b"plain"]


def test_every_structure_of_synthesised_mail_is_understood(client, ann):
    seeded = ann.seed(150)
    client.select_folder("INBOX", readonly=True)
    rows = client.fetch(client.search(), ["ENVELOPE", "BODYSTRUCTURE", "BODY.PEEK[]", "RFC822.SIZE"])
    assert [sha256(rows[uid][b"BODY[]"]) for uid in sorted(rows)] == seeded
    assert all(rows[uid][b"RFC822.SIZE"] == len(rows[uid][b"BODY[]"]) for uid in rows)
    # Every leaf tells its encoding and its octets.
    told = [(leaf[5], leaf[6]) for row in rows.values() for leaf in leaves(row[b"BODYSTRUCTURE"])]
    assert len(told) >= len(rows)
    assert all(isinstance(encoding, bytes) and octets >= 0 for encoding, octets in told)


def leaves(body):
    """The parts of a structure that hold no others."""
    if not body.is_multipart:
        yield body
        return
    for part in body[0]:
        yield from leaves(part)


def test_parts_can_be_fetched_by_their_place_in_the_structure(client, ann):
    ann.seed(40)
    client.select_folder("INBOX", readonly=True)
    for uid, row in client.fetch(client.search(), ["BODYSTRUCTURE"]).items():
        body = row[b"BODYSTRUCTURE"]
        if body.is_multipart and not body[0][0].is_multipart:
            part = client.fetch(uid, ["BODY.PEEK[1]"])[uid][b"BODY[1]"]
            assert len(part) == body[0][0][6]


def test_searches(client, ann):
    ann.letters(3)
    uids = sorted(ann.flags())
    ann.set_flags(uids[0], "\\Seen", "$Work")
    client.select_folder("INBOX")
    assert client.search("UNSEEN") == uids[1:]
    assert client.search(["KEYWORD", "$Work"]) == uids[:1]
    assert client.search(["NOT", ["SUBJECT", "nothing"], "SINCE", dt.date(2000, 1, 1)]) == uids
    assert client.search(["SUBJECT", "größe"], "UTF-8") == []
    found = client.search(["MODSEQ", "1"])
    assert list(found) == uids
    assert found.modseq > 0


def test_flags_are_added_removed_and_set(client, ann):
    ann.append(LETTER)
    client.select_folder("INBOX")
    (uid,) = client.search()
    assert set(client.add_flags(uid, [b"\\Seen", "custom"])[uid]) >= {b"\\Seen", b"custom"}
    assert b"\\Seen" not in client.remove_flags(uid, b"\\Seen")[uid]
    assert set(client.set_flags(uid, [b"\\Draft"])[uid]) - {b"\\Recent"} == {b"\\Draft"}
    assert b"\\Draft" in client.get_flags(uid)[uid]
    client.add_flags(uid, [b"\\Flagged"], silent=True)
    assert ann.flags()[uid] == {"\\Draft", "\\Flagged"}


def test_copies_moves_and_expunges(client, ann):
    ann.letters(4)
    client.create_folder("work")
    client.select_folder("INBOX")
    uids = client.search()
    client.copy(uids[:1], "work")
    client.move(uids[1:2], "work")
    client.delete_messages(uids[2:])
    client.uid_expunge(uids[2])
    assert sorted(ann.flags()) == [uids[0], uids[3]]
    client.expunge()
    assert sorted(ann.flags()) == uids[:1]
    assert len(ann.rows("work")) == 2
    client.close_folder()


def test_idle_tells_of_new_mail(client, ann):
    client.select_folder("INBOX")
    client.idle()
    ann.append(LETTER)
    news = client.idle_check(timeout=10)
    text, more = client.idle_done()
    assert (1, b"EXISTS") in [*news, *more]
    assert text


def test_noop_tells_of_flags_of_others(client, ann):
    ann.append(LETTER)
    client.select_folder("INBOX")
    (uid,) = client.search()
    ann.set_flags(uid, "\\Flagged")
    _, news = client.noop()
    ((number, kind, items),) = [row for row in news if row[1:2] == (b"FETCH",)]
    assert (number, kind) == (1, b"FETCH")
    assert b"\\Flagged" in items[items.index(b"FLAGS") + 1]


def test_changes_since_a_modseq(client, ann):
    ann.letters(3)
    client.enable("CONDSTORE")
    since = client.select_folder("INBOX")[b"HIGHESTMODSEQ"]
    uids = client.search()
    client.add_flags(uids[1], [b"\\Flagged"], silent=True)
    rows = client.fetch(uids, ["FLAGS"], [f"CHANGEDSINCE {since}"])
    assert list(rows) == [uids[1]]


def test_no_command_waits_for_an_acknowledgement(client, ann):
    """IMAPClient sends a line in two pieces: with TCP's delayed acknowledgement, a hundred would take four seconds."""
    client.select_folder("INBOX")
    started = time.monotonic()
    for _ in range(100):
        client.noop()
    assert time.monotonic() - started < 2.0
