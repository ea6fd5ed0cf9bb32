"""Whatever happens to a folder, and whatever the server can tell of it, rows end as the folder is.

Every test runs against fakemail, with capabilities taken away as another server would lack them.
"""

import contextlib
import random
import socket
import threading
from dataclasses import replace

import pytest
from imap_replica import Replica

from email_service import imap
from email_service.vault import Secret

#: What is stripped from the server's offer, by the way that is left.
WAYS = {
    "qresync": (),
    "qresync without ESEARCH": ("ESEARCH", "LIST-STATUS"),
    "condstore": ("QRESYNC",),
    "comparison": ("QRESYNC", "CONDSTORE"),
    "comparison without ESEARCH": ("QRESYNC", "CONDSTORE", "ESEARCH", "LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE"),
}
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Deleted", "$Work", "custom")
STEPS = 12


@pytest.fixture
def server(fakemail, mailbox):
    return Server(fakemail, mailbox)


class Server:
    """A mailbox, and what other clients do to it."""

    def __init__(self, fakes, mailbox):
        self.fakes, self.mailbox = fakes, mailbox
        self._made = 0

    def session(self, way="qresync", *, address=None, **options):
        self.fakes.clear_faults()
        if WAYS[way]:
            self.fakes.put_fault("imap.capability", strip=list(WAYS[way]))
        host, port = address or self.mailbox.imap
        endpoint = imap.ImapEndpoint(
            host=host,
            port=port,
            encryption="none",
            username=self.mailbox.address,
            password=Secret(self.mailbox.password),
        )
        return imap.open_session(endpoint, 10.0, **options)

    def append(self, *, flags=(), folder="INBOX", size_bytes=20):
        self._made += 1
        raw = b"Message-ID: <%d@example.com>\r\n\r\n" % self._made + b"x" * size_bytes + b"\r\n"
        return self.fakes.append(self.mailbox.address, raw, folder, flags=flags)["uid"]

    def uids(self, folder="INBOX"):
        return [row["uid"] for row in self.fakes.messages(self.mailbox.address, folder)]

    def truth(self, folder="INBOX"):
        rows = self.fakes.messages(self.mailbox.address, folder, digests=True)
        return {row["uid"]: (frozenset(row["flags"]) - {"\\Recent"}, row["sha256"]) for row in rows}

    def happen(self, chance, events):
        """One thing that another client might do."""
        getattr(self, f"_{chance.choice(events)}")(chance)

    def _arrive(self, chance):
        for _ in range(chance.randint(1, 5)):
            self.append(flags=chance.sample(FLAGS, chance.randint(0, 2)))

    def _flag(self, chance):
        for uid in some(chance, self.uids()):
            self.fakes.set_flags(self.mailbox.address, uid, chance.sample(FLAGS, chance.randint(0, 3)))

    def _expunge(self, chance):
        if gone := some(chance, self.uids()):
            self.fakes.expunge(self.mailbox.address, gone)

    def _move(self, chance):
        uids = some(chance, self.uids())
        with self.session(chance.choice(list(WAYS))) as session:
            uidvalidity = next(iter(session.changes_since("INBOX", None, lambda _first, _last: {}))).uidvalidity
            assert session.move("INBOX", uidvalidity, uids, "Trash").done == tuple(uids)

    def _reset(self, _chance):
        self.fakes.reset_uidvalidity(self.mailbox.address)


def some(chance, uids):
    return sorted(chance.sample(uids, min(len(uids), chance.randint(1, 4))))


# --- histories ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(1, 5))
def test_every_way_ends_in_the_same_state_after_any_history(server, seed):
    """The seed is in the test's name; syncs are broken off at random, and go on from the last token."""
    chance = random.Random(seed)
    replicas = {way: Replica("INBOX") for way in WAYS}
    server.mailbox.seed(chance.randint(0, 12), seed=seed)
    for _ in range(STEPS):
        for _ in range(chance.randint(0, 3)):
            server.happen(chance, ("arrive", "arrive", "flag", "flag", "expunge", "move", "reset"))
        for way, replica in replicas.items():
            if chance.random() < 0.4:
                continue
            is_whole = chance.random() < 0.6
            with server.session(way) as session:
                replica.synchronise(session, batch=chance.randint(1, 4), stop_after=None if is_whole else 1)
            if is_whole:
                assert replica.rows == server.truth(), way
    for way, replica in replicas.items():
        with server.session(way) as session:
            replica.synchronise(session)
        assert replica.rows == server.truth(), way


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_happens_while_a_folder_is_read_is_neither_lost_nor_doubled(server, way, seed):
    chance = random.Random(seed)
    replica = Replica("INBOX")
    for _ in range(8):
        server.append()

    def meddle():
        server.happen(chance, ("arrive", "flag", "flag", "expunge"))

    for _ in range(4):
        with server.session(way) as session:
            replica.synchronise(session, batch=2, between=meddle)
    with server.session(way) as session:
        replica.synchronise(session)
    assert replica.rows == server.truth()
    assert len(replica.handed_out) == len(set(replica.handed_out))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("preset", ["arrive-between-search-and-fetch", "expunge-between-search-and-fetch"])
def test_news_between_search_and_fetch_are_told_the_next_time(server, way, preset):
    server.mailbox.seed(6, seed=1)
    replica = Replica("INBOX")
    for fault in (preset, None):
        with server.session(way) as session:
            if fault:
                server.fakes.preset(fault)
            replica.synchronise(session, batch=2)
    assert replica.rows == server.truth()


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_in_several_windows_is_the_same(server, way, monkeypatch):
    """Windows are of 20,000 messages otherwise."""
    monkeypatch.setattr("email_service.imap.changes._WINDOW_MESSAGES", 3)
    monkeypatch.setattr("email_service.imap.changes._FLAGS_AT_ONCE", 2)
    server.mailbox.seed(20, seed=1)
    replica = Replica("INBOX")
    with server.session(way) as session:
        replica.synchronise(session, batch=7)
    server.fakes.expunge(server.mailbox.address, [2, 3, 20])
    for uid in (1, 5, 6, 7, 19):
        server.fakes.set_flags(server.mailbox.address, uid, ["\\Flagged", "new"])
    server.append()
    with server.session(way) as session:
        assert replica.synchronise(session) > 1
    assert replica.rows == server.truth()


@pytest.mark.parametrize("way", ["qresync", "condstore"])
def test_rows_are_not_asked_for_where_the_server_can_tell(server, way):
    server.mailbox.seed(20, seed=1)
    replica = Replica("INBOX")
    with server.session(way) as session:
        replica.synchronise(session)
        server.fakes.set_flags(server.mailbox.address, 7, ["\\Seen"])
        server.append()
        replica.synchronise(session)
    assert replica.rows == server.truth()
    assert replica.asked == []


@pytest.mark.parametrize("way", WAYS)
def test_rows_that_were_lost_are_read_again_when_the_folder_is_compared(server, way):
    server.mailbox.seed(10, seed=1)
    replica = Replica("INBOX")
    with server.session(way) as session:
        replica.synchronise(session)
        del replica.rows[3], replica.rows[9]
        server.fakes.expunge(server.mailbox.address, [5])
        replica.synchronise(session, batch=1)
    # With QRESYNC nothing makes us look at them.
    expected = {uid: row for uid, row in server.truth().items() if "qresync" not in way or uid not in {3, 9}}
    assert replica.rows == expected


@pytest.mark.parametrize("way", WAYS)
def test_uids_far_apart_are_read_as_any_others(server, way):
    for uid in range(40):
        server.append()
        if uid % 10:
            server.fakes.expunge(server.mailbox.address, [uid])
    replica = Replica("INBOX")
    with server.session(way) as session:
        replica.synchronise(session, batch=2)
        server.fakes.expunge(server.mailbox.address, [server.uids()[1]])
        replica.synchronise(session)
    assert replica.rows == server.truth()


def test_the_flags_of_a_message_that_changes_while_it_is_read_are_right_in_the_end(server):
    """The token's modification sequence is the one from before the flags were read."""
    server.mailbox.seed(4, seed=1)
    replica = Replica("INBOX")
    with server.session() as session:
        batches = session.changes_since("INBOX", None, replica.known, batch=2)
        replica.apply(next(batches))
        server.fakes.set_flags(server.mailbox.address, 1, ["\\Flagged"])
        server.fakes.set_flags(server.mailbox.address, 4, ["\\Answered"])
        replica.apply(next(batches))
        assert replica.rows != server.truth()
        replica.synchronise(session)
    assert replica.rows == server.truth()


# --- folders in which nothing happened ------------------------------------------------------------------------------


class Relay:
    """Passes one connection on, and keeps what went by."""

    def __init__(self, address):
        self._address = address
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.address = self._listener.getsockname()
        self.said, self.heard = bytearray(), bytearray()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _run(self):
        client, _ = self._listener.accept()
        with client, socket.create_connection(self._address) as server:
            back = threading.Thread(target=self._pass, args=(server, client, self.heard), daemon=True)
            back.start()
            self._pass(client, server, self.said)
            back.join(10)

    @staticmethod
    def _pass(source, target, kept):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                kept.extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def settled(server, way, count):
    """A token of a folder that was read to its end, without reading 400 MB for it."""
    server.mailbox.seed(count, seed=1)
    with server.session(way) as session:
        batch = next(session.changes_since("INBOX", None, lambda _first, _last: {}, batch=1))
    return replace(batch.token, last_uid=count, messages=count, uidnext=count + 1)


@pytest.mark.parametrize("way", ["qresync", "qresync without ESEARCH", "condstore"])
def test_a_synchronisation_without_news_moves_less_than_a_kilobyte(server, way):
    """Of 20,000 messages: the list of folders says enough, or the opening of this one does."""
    token = settled(server, way, 20_000)
    with Relay(server.mailbox.imap) as relay, server.session(way, address=relay.address) as session:
        said, heard = len(relay.said), len(relay.heard)
        inbox = next(folder for folder in session.folders() if folder.name == "INBOX")
        if "LIST-STATUS" in WAYS[way]:
            assert inbox.status is None
            (batch,) = session.changes_since("INBOX", token, lambda _first, _last: {})
            assert (batch.messages, batch.flags, batch.vanished, batch.token) == ((), {}, (), token)
        else:
            assert token.is_current(inbox.status)
        words, moved = bytes(relay.said[said:]), len(relay.said) - said + len(relay.heard) - heard
    assert moved <= 1000
    assert b"SEARCH" not in words
    assert b"FETCH" not in words


@pytest.mark.parametrize("way", ["qresync", "condstore"])
def test_opening_a_folder_without_news_needs_no_search_and_no_fetch(server, way):
    token = settled(server, way, 20_000)
    with Relay(server.mailbox.imap) as relay, server.session(way, address=relay.address) as session:
        said, heard = len(relay.said), len(relay.heard)
        (batch,) = session.changes_since("INBOX", token, lambda _first, _last: {})
        words, moved = bytes(relay.said[said:]), len(relay.said) - said + len(relay.heard) - heard
    assert (batch.messages, batch.flags, batch.vanished, batch.token) == ((), {}, (), token)
    assert moved <= 1000
    assert b"SEARCH" not in words
    assert b"FETCH" not in words


def test_a_folder_in_which_something_happened_is_not_current(server):
    server.mailbox.seed(5, seed=1)
    replica = Replica("INBOX")
    events = (
        server.append,
        lambda: server.fakes.set_flags(server.mailbox.address, 2, ["$new"]),
        lambda: server.fakes.expunge(server.mailbox.address, [3]),
        lambda: server.fakes.expunge(server.mailbox.address, [6]),
        lambda: server.fakes.reset_uidvalidity(server.mailbox.address),
    )
    for event in events:
        with server.session() as session:
            replica.synchronise(session)
        assert replica.token.is_current(status_of(server))
        event()
        assert not replica.token.is_current(status_of(server))


def test_a_folder_that_was_not_read_to_its_end_is_not_current(server):
    server.mailbox.seed(5, seed=1)
    replica = Replica("INBOX")
    with server.session() as session:
        replica.synchronise(session, batch=2, stop_after=1)
    assert not replica.token.is_current(status_of(server))


def status_of(server):
    with server.session() as session:
        return next(folder.status for folder in session.folders() if folder.name == "INBOX")
