"""A message that can't be had never stops a folder: it is found, described, and passed."""

from datetime import UTC, datetime

import pytest
from imap_dialogue import LOGIN, LOGOUT, body, changes, fetch, flags, folder, opened, search, sizes, token
from imap_replica import Replica
from scripted_server import ScriptedServer

from email_service import imap
from email_service.errors import ImapError
from email_service.imap import reading, wire
from email_service.vault import Secret

DATE = "17-Jul-1996 02:44:25 -0700"
HEADER = b"Subject: large\r\n\r\n"


def facts(uid, size, *, flags="\\Seen"):
    """The dialogue that asks for all but the body."""
    return (
        f"C: * UID FETCH {uid} (UID FLAGS INTERNALDATE RFC822.SIZE)",
        f'S: * 1 FETCH (UID {uid} FLAGS ({flags}) INTERNALDATE "{DATE}" RFC822.SIZE {size})',
        "S: TAG OK done",
    )


def header(uid, raw=HEADER):
    return (
        f"C: * UID FETCH {uid} (UID BODY.PEEK[HEADER]<0.262144>)",
        b"* 1 FETCH (UID %d BODY[HEADER]<0> {%d}\r\n" % (uid, len(raw)) + raw + b")\r\n",
        "S: TAG OK done",
    )


def refused(uid_set, *bodies, said="NO some could not be read"):
    return (*fetch(uid_set, *bodies)[:-1], f"S: TAG {said}")


def there(*uids):
    known = (
        ",".join(map(str, uids)) if len(uids) < 2 or uids[-1] != uids[0] + len(uids) - 1 else f"{uids[0]}:{uids[-1]}"
    )
    return flags(known, *(f"S: * 1 FETCH (UID {uid} FLAGS ())" for uid in uids))


def beginning(*uids, size=1):
    first, last = uids[0], uids[-1]
    return (
        *LOGIN,
        *folder(),
        *search(1, "".join(f" {uid}" for uid in uids)),
        *sizes(f"{first}:{last}" if first != last else first, **{f"u{uid}": size for uid in uids}),
    )


def test_one_that_is_larger_than_is_read_is_described_and_never_asked_for():
    steps = (*folder(), *search(1, " 1 2"), *sizes("1:2", u1=2_000_000, u2=1))
    whole = (*fetch("2", body(2, b"b")), *facts(1, 2_000_000), *header(1), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps, *whole) as server:
        (batch,) = changes(server, message_bytes_max=1_000_000)
    assert [message.uid for message in batch.messages] == [2]
    (large,) = batch.unreadable
    assert (large.uid, large.flags, large.size_bytes, large.header) == (1, ("\\Seen",), 2_000_000, HEADER)
    assert large.internal_date == datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC)
    assert "1000000" in large.reason
    assert batch.token == token(2, messages=2)


def test_one_that_is_larger_than_the_server_says_is_read_past_and_the_session_goes_on():
    whole = (*fetch("1", body(1, b"x" * 3000)), *facts(1, 10), *header(1), *LOGOUT)
    with ScriptedServer(*beginning(1), *whole) as server:
        (batch,) = changes(server, message_bytes_max=2000)
    assert [message.uid for message in batch.unreadable] == [1]
    assert "3000 bytes" in batch.unreadable[0].reason


def test_messages_that_are_larger_than_the_server_says_do_not_fill_the_memory(monkeypatch):
    """Their sizes are a lie: what does not fit is read past, and asked for in smaller parts."""
    monkeypatch.setattr(reading, "BATCH_BYTES_MAX", 1000)
    raws = {uid: bytes([96 + uid]) * 900 for uid in (1, 2, 3, 4)}
    group = fetch("1:4", *(body(uid, raw) for uid, raw in raws.items()))
    rest = (*there(3, 4), *fetch("3", body(3, raws[3])), *fetch("4", body(4, raws[4])), *LOGOUT)
    with ScriptedServer(*beginning(1, 2, 3, 4), *group, *rest) as server:
        (batch,) = changes(server)
    assert {message.uid: message.raw for message in batch.messages} == raws


def test_one_that_the_server_refuses_is_found_by_halves():
    steps = (
        *refused("1:4"),
        *there(1, 2, 3, 4),
        *fetch("1:2", body(1, b"a"), body(2, b"b")),
        *refused("3:4"),
        *there(3, 4),
        *refused("3", said="NO [SERVERBUG] it is damaged"),
        *facts(3, 10),
        *header(3),
        *fetch("4", body(4, b"d")),
    )
    with ScriptedServer(*beginning(1, 2, 3, 4), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == [1, 2, 4]
    (damaged,) = batch.unreadable
    assert (damaged.uid, damaged.header, damaged.size_bytes) == (3, HEADER, 10)
    assert "it is damaged" in damaged.reason
    assert batch.token == token(4, messages=4)


def test_what_came_before_a_refusal_is_kept():
    steps = (
        *refused("1:3", body(1, b"a"), body(2, b"b"), said="BAD cannot parse the message"),
        *there(3),
        *refused("3", said="BAD cannot parse the message"),
        *facts(3, 10),
        *header(3),
    )
    with ScriptedServer(*beginning(1, 2, 3), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == [1, 2]
    assert [message.uid for message in batch.unreadable] == [3]


def test_one_that_comes_without_its_body_is_asked_for_alone_and_not_passed_over():
    nothing = "S: * 1 FETCH (UID 1 FLAGS ())"
    nil = "S: * 1 FETCH (UID 1 FLAGS () BODY[] NIL)"
    steps = (*fetch("1:2", nothing, body(2, b"b")), *there(1), *fetch("1", nil), *facts(1, 9), *header(1))
    with ScriptedServer(*beginning(1, 2), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == [2]
    assert [(message.uid, message.size_bytes) for message in batch.unreadable] == [(1, 9)]


def test_one_whose_reply_can_not_be_read_is_asked_for_alone():
    broken = b"* 1 FETCH (UID 1 FLAGS ( BODY[] {1}\r\na)\r\n"
    steps = (*fetch("1:2", broken, body(2, b"b")), *there(1), *fetch("1", body(1, b"a")))
    with ScriptedServer(*beginning(1, 2), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == [1, 2]
    assert batch.unreadable == ()


def test_one_that_was_expunged_meanwhile_is_no_message_that_can_not_be_had():
    """RFC 2180 section 4.1.1: a server may refuse a FETCH because of it."""
    steps = (*refused("1", said="NO [EXPUNGEISSUED] it is gone"), *facts(1, 1)[:1], "S: TAG OK done")
    with ScriptedServer(*beginning(1), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert (batch.messages, batch.unreadable, batch.token) == ((), (), token(1, messages=0))


def test_a_header_and_facts_that_are_refused_too_leave_the_flags():
    steps = (
        *refused("1"),
        *facts(1, 1)[:1],
        "S: TAG NO cannot open it",
        *flags("1", "S: * 1 FETCH (UID 1 FLAGS (\\Flagged))"),
        *header(1)[:1],
        "S: TAG NO cannot open it",
    )
    with ScriptedServer(*beginning(1), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    (damaged,) = batch.unreadable
    assert (damaged.flags, damaged.header, damaged.size_bytes) == (("\\Flagged",), b"", None)
    assert damaged.internal_date is None


@pytest.mark.parametrize("said", ["NO [UNAVAILABLE] the store is away", "NO [INUSE] locked", "NO Temporary failure"])
def test_a_server_in_trouble_is_a_transient_error_and_no_damaged_message(said):
    with ScriptedServer(*beginning(1), *refused("1", said=said), "DEAF") as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert caught.value.transient


def test_a_server_that_hands_out_nothing_at_all_is_in_trouble(monkeypatch):
    """A store that is away behind an index that is there: nothing is marked, and a later try reads it all."""
    monkeypatch.setattr(reading, "_REFUSED_IN_A_ROW_MAX", 2)
    one = lambda uid: (*refused(uid), *facts(uid, 1), *header(uid))  # noqa: E731  # three times in one dialogue
    halves = (*refused("1:3"), *there(1, 2, 3), *refused("1:2"), *there(1, 2), *one(1), *one(2))
    taken = []
    with (
        ScriptedServer(*beginning(1, 2, 3), *halves, *one(3), "DEAF") as server,
        pytest.raises(ImapError, match="no message any more") as caught,
        opened(server) as mailbox,
    ):
        taken.extend(mailbox.changes_since("INBOX", None, lambda _first, _last: {}))
    assert caught.value.transient
    assert taken == []


def test_a_literal_without_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(wire, "_SKIPPED_BYTES_MAX", 10_000)
    with (
        ScriptedServer(*beginning(1), "C: * UID FETCH*", b"* 1 FETCH (UID 1 BODY[] {10001}\r\n", "DEAF") as server,
        pytest.raises(ImapError) as caught,
    ):
        changes(server, message_bytes_max=1000)
    assert not caught.value.transient


# --- against a server that behaves otherwise ------------------------------------------------------------------------


@pytest.fixture
def mailbox_session(mailbox):
    def opening(**options):
        host, port = mailbox.imap
        endpoint = imap.ImapEndpoint(
            host=host, port=port, encryption="none", username=mailbox.address, password=Secret(mailbox.password)
        )
        return imap.open_session(endpoint, 10.0, **options)

    return opening


def test_a_folder_with_large_messages_in_it_is_read_to_its_end(mailbox, mailbox_session):
    for size in (10, 5000, 20, 6000, 30):
        mailbox.append(b"Subject: %d\r\n\r\n" % size + b"x" * size)
    replica = Replica("INBOX")
    with mailbox_session(message_bytes_max=1000) as session:
        replica.synchronise(session, batch=2)
        assert replica.token.is_current(next(f.status for f in session.folders() if f.name == "INBOX"))
    assert sorted(replica.rows) == [1, 2, 3, 4, 5]
    assert {uid: found.header for uid, found in replica.unreadable.items()} == {
        2: b"Subject: 5000\r\n\r\n",
        4: b"Subject: 6000\r\n\r\n",
    }


@pytest.mark.parametrize("preset", ["bad-base64", "broken-mime", "bad-charset", "wrong-size"])
def test_broken_mime_is_read_as_it_is(fakemail, mailbox, mailbox_session, preset):
    mailbox.seed(9, seed=1)
    fakemail.preset(preset)
    replica = Replica("INBOX")
    with mailbox_session() as session:
        replica.synchronise(session, batch=4)
    assert sorted(replica.rows) == list(range(1, 10))
    assert replica.unreadable == {}
