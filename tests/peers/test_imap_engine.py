"""The service's IMAP engine against other servers: with the same mail all of them end in the same rows."""

from __future__ import annotations

import contextlib
import hashlib
import imaplib
import itertools
import random
import re
from unittest import mock

import pytest
from imap_replica import Replica

from email_service import imap
from email_service.errors import AuthenticationError
from email_service.imap import wire
from email_service.vault import Secret

#: What the client does without, so that a server that can all is asked in every way.
WAYS = {
    "qresync": frozenset(),
    "condstore": frozenset({b"QRESYNC"}),
    "comparison": frozenset({b"QRESYNC", b"CONDSTORE"}),
}
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "\\Draft")
_COUNT = itertools.count(1)
_PASSWORD = "secret-of-nobody"  # of users that live for a test


@pytest.fixture
def box(peer):
    """A user of this test's own, and another client of theirs."""
    address = f"engine{next(_COUNT)}@example.com"
    peer.add_user(address, _PASSWORD)
    with imaplib.IMAP4(peer.host, peer.port, timeout=20) as other:
        other.login(address, _PASSWORD)
        yield Box(peer, address, other)


class Box:
    """A mailbox on a peer, as another client changes and sees it."""

    def __init__(self, peer, address, other):
        self.peer, self.address, self.other = peer, address, other
        self._made = 0

    @contextlib.contextmanager
    def session(self, way="qresync", *, without=(), **options):
        endpoint = imap.ImapEndpoint(
            **{
                "host": self.peer.host,
                "port": self.peer.port,
                "encryption": "none",
                "username": self.address,
                "password": Secret(_PASSWORD),
            }
            | options
        )
        with _without(WAYS[way] | {*without}), imap.open_session(endpoint, 20.0, message_bytes_max=20_000) as session:
            yield session

    def append(self, *, flags=(), raw=None):
        self._made += 1
        made = b"Message-ID: <%d@example.com>\r\nSubject: %d\r\n\r\nbody\r\n" % (self._made, self._made)
        self._ok(self.other.append("INBOX", f"({' '.join(flags)})", None, raw or made))

    def truth(self, folder="INBOX"):
        """UID -> flags and digest, read by the other client and taken apart by its own means."""
        self._ok(self.other.select(folder))
        found = {}
        for piece in self._ok(self.other.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])")):
            if isinstance(piece, tuple):
                uid, flags = re.search(rb"UID (\d+)", piece[0]), re.search(rb"FLAGS \(([^)]*)\)", piece[0])
                words = frozenset(flags[1].decode().split()) - {"\\Recent"}
                found[int(uid[1])] = (words, hashlib.sha256(piece[1]).hexdigest())
        return found

    def uids(self):
        self._ok(self.other.select("INBOX"))
        return [int(word) for word in (self._ok(self.other.uid("SEARCH", "ALL"))[0] or b"").split()]

    def set_flags(self, uids, flags):
        self._ok(self.other.select("INBOX"))
        self._ok(self.other.uid("STORE", ",".join(map(str, uids)), "FLAGS", f"({' '.join(flags)})"))

    def expunge(self, uids):
        """Whatever is flagged as deleted goes with them."""
        self._ok(self.other.select("INBOX"))
        self._ok(self.other.uid("STORE", ",".join(map(str, uids)), "+FLAGS", "(\\Deleted)"))
        self._ok(self.other.expunge())

    def happen(self, chance):
        uids = self.uids()
        some = sorted(chance.sample(uids, min(len(uids), chance.randint(1, 3))))
        event = chance.choice(("arrive", "arrive", "flags", "flags", "expunge")) if some else "arrive"
        if event == "arrive":
            self.append(flags=chance.sample(FLAGS, chance.randint(0, 2)))
        elif event == "flags":
            self.set_flags(some, chance.sample(FLAGS, chance.randint(0, 3)))
        else:
            self.expunge(some)

    @staticmethod
    def _ok(answer):
        kind, data = answer
        assert kind == "OK", data
        return data


@contextlib.contextmanager
def _without(lacking):
    """The client does not see these in what the server offers."""
    read = wire._capabilities_in

    def less(reply):
        told = read(reply)
        return None if told is None else told - lacking

    with mock.patch.object(wire, "_capabilities_in", less):
        yield


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_every_way_ends_in_the_same_state_after_any_history(box, seed):
    chance = random.Random(seed)
    replicas = {way: Replica("INBOX") for way in WAYS}
    for _ in range(10):
        for _ in range(chance.randint(1, 3)):
            box.happen(chance)
        for way, replica in replicas.items():
            if chance.random() < 0.6:
                with box.session(way) as session:
                    replica.synchronise(session, batch=chance.randint(1, 4), stop_after=chance.choice((None, None, 1)))
    for way, replica in replicas.items():
        with box.session(way) as session:
            replica.synchronise(session)
        assert replica.rows == box.truth(), way


@pytest.mark.parametrize("way", WAYS)
def test_what_happens_while_a_folder_is_read_is_neither_lost_nor_doubled(box, way):
    chance = random.Random(7)
    replica = Replica("INBOX")
    for _ in range(9):
        box.append()
    for between in (lambda: box.happen(chance), lambda: None):
        with box.session(way) as session:
            replica.synchronise(session, batch=2, between=between)
    assert replica.rows == box.truth()


def _lacks(request, peer, what):
    """A declared lack of a peer: one that suddenly can is told."""
    if peer.name == "greenmail":
        request.applymarker(pytest.mark.xfail(reason=what, strict=True))


@pytest.mark.parametrize("way", ["qresync", "condstore"])
def test_rows_are_not_asked_for_where_the_server_can_tell(request, box, peer, way):
    _lacks(request, peer, "GreenMail keeps no modification sequences")
    for _ in range(5):
        box.append()
    replica = Replica("INBOX")
    with box.session(way) as session:
        replica.synchronise(session)
    box.set_flags([2, 3], ["\\Seen", "\\Flagged"])
    with box.session(way) as session:
        replica.synchronise(session)
    assert replica.rows == box.truth()
    assert replica.asked == []


def test_a_folder_in_which_nothing_happened_need_not_be_opened(request, box, peer):
    _lacks(request, peer, "GreenMail's list tells no status")
    for _ in range(3):
        box.append()
    replica = Replica("INBOX")
    with box.session() as session:
        replica.synchronise(session)
        folders = {folder.name: folder for folder in session.folders()}
        assert replica.token.is_current(folders["INBOX"].status)
    box.set_flags([2], ["\\Flagged"])
    with box.session() as session:
        folders = {folder.name: folder for folder in session.folders()}
        assert not replica.token.is_current(folders["INBOX"].status)


def test_a_large_message_is_described_and_the_others_are_read(box):
    box.append()
    box.append(raw=b"Subject: large\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y" * 30_000 + b"\r\n")
    box.append()
    replica = Replica("INBOX")
    with box.session() as session:
        replica.synchronise(session)
    assert sorted(replica.rows) == [1, 2, 3]
    # GreenMail leaves out the empty line.
    assert replica.unreadable[2].header.startswith(b"Subject: large\r\n")
    assert replica.unreadable[2].size_bytes > 30_000


# --- writing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [(), (b"MOVE",), (b"MOVE", b"UIDPLUS")], ids=["MOVE", "UIDPLUS", "neither"])
def test_messages_are_moved_and_expunged_and_no_others(box, without):
    for _ in range(6):
        box.append()
    box.set_flags([6], ["\\Deleted"])
    with box.session(without=without) as session:
        (batch,) = session.changes_since("INBOX", None, lambda _first, _last: {})
        trash = session.ensure_folder("trash", "Trash")
        moved = session.move("INBOX", batch.uidvalidity, [1, 3, 99], trash.name)
        gone = session.expunge("INBOX", batch.uidvalidity, [2, 99])
        again = session.move("INBOX", batch.uidvalidity, [1, 3], trash.name)
    assert (moved.done, moved.gone) == ((1, 3), (99,))
    assert (gone.done, gone.gone) == ((2,), (99,))
    assert (again.done, again.gone) == ((), (1, 3))
    digests = {message.uid: hashlib.sha256(message.raw).hexdigest() for message in batch.messages}
    left = box.truth()
    assert {uid: digest for uid, (_, digest) in left.items()} == {uid: digests[uid] for uid in (4, 5, 6)}
    assert "\\Deleted" in left[6][0]
    there = box.truth(trash.name)
    assert sorted(digest for _, digest in there.values()) == sorted(digests[uid] for uid in (1, 3))
    for old, new in moved.uids.items():
        assert there[new][1] == digests[old]


# --- logging in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("without", [(), (b"AUTH=XOAUTH2",), (b"SASL-IR",)], ids=["XOAUTH2", "OAUTHBEARER", "asked"])
def test_a_token_opens_the_mailbox_and_a_wrong_one_does_not(request, box, peer, without):
    if without:
        _lacks(request, peer, "GreenMail takes tokens by XOAUTH2 within the command alone")
    options = {"without": without, "auth": "xoauth2"}
    with box.session(**options, password=Secret(peer.token(box.address, _PASSWORD))) as session:
        assert any(folder.type == "inbox" for folder in session.folders())
    with pytest.raises(AuthenticationError) as caught, box.session(**options, password=Secret("ya29.wrong-canary")):
        pass
    assert not caught.value.transient
    assert "wrong-canary" not in str(caught.value)
