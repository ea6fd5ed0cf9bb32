"""What a session makes of servers that behave, and of those that do not."""

import socket
from datetime import UTC, datetime

import pytest
from imap_dialogue import (
    CANARY,
    GREETING,
    LOGIN,
    LOGOUT,
    Rows,
    body,
    changes,
    fetch,
    flags,
    folder,
    opened,
    search,
    sizes,
    token,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_server import ScriptedServer

from email_service.errors import AuthenticationError, ConnectError, ImapError
from email_service.imap import RemoteFolder, reading, refusals, wire

# --- what is new ----------------------------------------------------------------------------------------------------


def test_a_first_synchronisation_reads_all_and_says_that_it_is_the_first():
    raw = b"Subject: x\r\n\r\nhello\r\n"
    bodies = (body(3, raw, flags="\\Seen $Work"), body(9, b"y"))
    steps = (*folder(), *search(1, " 3 9"), *sizes("3,9", u3=21, u9=1), *fetch("3,9", *bodies), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server:
        (batch,) = changes(server)
    assert (batch.uidvalidity, batch.reset, batch.more) == (7, True, False)
    assert batch.token == token(9, messages=2)
    first, second = batch.messages
    assert (first.uid, first.raw, first.size_bytes, first.flags) == (3, raw, len(raw), ("\\Seen", "$Work"))
    assert first.internal_date == datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC)
    assert second.uid == 9


def test_a_later_synchronisation_fetches_what_is_new_alone():
    steps = (*folder(), *search(10, " 12"), *flags("1:9", "S: * 1 FETCH (UID 9 FLAGS ())"))
    new = (*sizes("12", u12=1), *fetch("12", body(12, b"z")), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps, *new) as server:
        (batch,) = changes(server, token(9), Rows(u9=[]))
    assert (batch.reset, [message.uid for message in batch.messages]) == (False, [12])
    assert batch.token == token(12, messages=2)


def test_the_last_message_that_a_search_beyond_the_end_returns_is_not_new():
    known = flags("1:9", "S: * 1 FETCH (UID 3 FLAGS ())", "S: * 2 FETCH (UID 9 FLAGS ())")
    with ScriptedServer(*LOGIN, *folder(), *search(10, " 9"), *known, *LOGOUT) as server:
        (batch,) = changes(server, token(9), Rows(u3=[], u9=[]))
    assert (batch.messages, batch.token) == ((), token(9, messages=2))
    assert (batch.reset, batch.more, batch.flags, batch.vanished) == (False, False, {}, ())


@pytest.mark.parametrize("reply", ["", " "])
def test_an_empty_folder_gives_one_batch_without_messages_and_a_token(reply):
    with ScriptedServer(*LOGIN, *folder(), *search(1, reply), *LOGOUT) as server:
        (batch,) = changes(server)
    assert (batch.messages, batch.token, batch.reset, batch.more) == ((), token(0, messages=0), True, False)


def test_a_search_without_a_reply_found_nothing():
    steps = ("C: * UID SEARCH*", "S: TAG OK done")
    with ScriptedServer(*LOGIN, *folder(), *steps, *LOGOUT) as server:
        (batch,) = changes(server)
    assert batch.messages == ()


def test_another_uidvalidity_resets_and_begins_at_the_beginning():
    steps = (*folder(8), *search(1, " 1 2"), *sizes("1:2", u1=1, u2=1), *fetch("1", body(1, b"a")))
    with ScriptedServer(*LOGIN, *steps, *fetch("2", body(2, b"b")), *LOGOUT) as server:
        first, second = changes(server, token(900), batch=1)
    assert (first.reset, first.more, first.token) == (True, True, token(1, uidvalidity=8, messages=1))
    assert (second.reset, second.more, second.token) == (False, False, token(2, uidvalidity=8, messages=2))


def test_a_batch_is_asked_for_while_the_one_before_is_stored_and_no_further():
    steps = (*folder(), *search(1, " 1 2 3"), *sizes("1:3", u1=1, u2=1, u3=1), *fetch("1", body(1, b"a")))
    with ScriptedServer(*LOGIN, *steps, "C: * UID FETCH 2 *", "DEAF") as server, opened(server) as mailbox:
        batch = next(mailbox.changes_since("INBOX", None, Rows(), batch=1))
    assert batch.token == token(1, messages=1)


def test_an_answer_that_nobody_came_back_for_is_read_past():
    steps = (*folder(), *search(1, " 1 2"), *sizes("1:2", u1=1, u2=1), *fetch("1", body(1, b"a")))
    following = (*fetch("2", body(2, b"b" * 2000)), *folder(8, name="Other"), *search(1, ""), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps, *following) as server, opened(server) as mailbox:
        next(mailbox.changes_since("INBOX", None, Rows(), batch=1))
        (batch,) = mailbox.changes_since("Other", None, Rows())
    assert batch.token == token(0, uidvalidity=8, messages=0)


def test_a_refusal_that_nobody_came_back_for_is_read_past_as_well():
    steps = (*folder(), *search(1, " 1 2"), *sizes("1:2", u1=1, u2=1), *fetch("1", body(1, b"a")))
    following = ("C: * UID FETCH 2 *", "S: TAG NO not now", *folder(8, name="Other"), *search(1, ""), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps, *following) as server, opened(server) as mailbox:
        next(mailbox.changes_since("INBOX", None, Rows(), batch=1))
        (batch,) = mailbox.changes_since("Other", None, Rows())
    assert batch.uidvalidity == 8


def test_a_generator_that_was_overtaken_says_so():
    steps = (*folder(), *search(1, " 1 2"), *sizes("1:2", u1=1, u2=1), *fetch("1", body(1, b"a")))
    with (
        ScriptedServer(*LOGIN, *steps, *fetch("2", body(2, b"b")), "C: * LIST*", "S: TAG OK done", *LOGOUT) as server,
        opened(server) as mailbox,
    ):
        batches = mailbox.changes_since("INBOX", None, Rows(), batch=1)
        next(batches)
        mailbox.folders()
        with pytest.raises(AssertionError, match="another command"):
            next(batches)


def test_a_batch_ends_before_it_holds_too_many_bytes(monkeypatch):
    monkeypatch.setattr(reading, "BATCH_BYTES_MAX", 100)
    steps = (*folder(), *search(1, " 1 2 3"), *sizes("1:3", u1=60, u2=60, u3=40))
    fetches = (*fetch("1", body(1, b"a")), *fetch("2:3", body(2, b"b"), body(3, b"c", sequence=3)))
    with ScriptedServer(*LOGIN, *steps, *fetches, *LOGOUT) as server:
        batches = changes(server)
    assert [len(batch.messages) for batch in batches] == [1, 2]


def test_a_literal_may_hold_what_looks_like_the_end_of_the_reply():
    raw = b') "\r\n* 2 FETCH (UID 99 BODY[] {3}\r\nTAG OK done\r\n'
    steps = (*folder(), *search(1, " 1"), *sizes("1", u1=len(raw)), *fetch("1", body(1, raw)), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server:
        (batch,) = changes(server)
    assert [(message.uid, message.raw) for message in batch.messages] == [(1, raw)]


def test_news_among_the_replies_is_not_taken_for_an_answer():
    bodies = (
        "S: * 5 EXISTS",
        "S: * 4 FETCH (FLAGS (\\Deleted))",
        body(1, b"a", flags=""),
        "S: * 1 FETCH (UID 1 FLAGS (\\Seen))",
        "S: * 3 FETCH (UID 77 FLAGS (\\Seen))",
    )
    steps = (*folder(), *search(1, " 1"), *sizes("1", u1=1), *fetch("1", *bodies), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server:
        (batch,) = changes(server)
    assert [(message.uid, message.flags) for message in batch.messages] == [(1, ("\\Seen",))]


def test_messages_that_vanish_between_search_and_fetch_are_passed_over():
    bodies = (body(3, b"c"), "S: * 2 FETCH (UID 2 BODY[] NIL)")
    steps = (*folder(), *search(1, " 1 2 3"), *sizes("1:3", u3=1), *fetch("1:3", *bodies), *flags("1:2"), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == [3]
    assert (batch.unreadable, batch.token) == ((), token(3, messages=1))


def test_a_folder_without_uidvalidity_can_not_be_synchronised():
    steps = ("C: * EXAMINE*", "S: * 0 EXISTS", "S: * NO [UIDNOTSTICKY] sorry", "S: TAG OK open", "DEAF")
    with ScriptedServer(*LOGIN, *steps) as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert not caught.value.transient


# --- folders --------------------------------------------------------------------------------------------------------


def test_folders_have_types_by_flag_then_by_name_and_decoded_names():
    listing = (
        'S: * LIST (\\HasNoChildren) "/" INBOX',
        'S: * LIST (\\Noselect) "/" "[Gmail]"',
        'S: * LIST (\\HasNoChildren \\Sent) "/" "[Gmail]/Verschickt"',
        'S: * LIST (\\HasNoChildren) "/" Sent',
        'S: * LIST (\\HasNoChildren) "." "INBOX.Drafts"',
        'S: * LIST (\\Junk) "/" "Gr&APwA3w-e"',
        b'* LIST () NIL {9}\r\nweird ")(\r\n',
        'S: * LIST () "/" "a\\"b\\\\c"',
    )
    with (
        ScriptedServer(*LOGIN, 'C: * LIST "" [*]', *listing, "S: TAG OK done", *LOGOUT) as server,
        opened(server) as mailbox,
    ):
        folders = mailbox.folders()
    assert folders == [
        RemoteFolder(name="INBOX", type="inbox"),
        RemoteFolder(name="[Gmail]/Verschickt", type="sent"),
        RemoteFolder(name="Sent", type="custom"),
        RemoteFolder(name="INBOX.Drafts", type="drafts"),
        RemoteFolder(name="Grüße", type="spam"),
        RemoteFolder(name='weird ")(', type="custom"),
        RemoteFolder(name='a"b\\c', type="custom"),
    ]


def test_a_folder_is_opened_by_the_name_that_the_server_gave_it():
    opening = folder(7, name="Gr&APwA3w-e")
    with ScriptedServer(*LOGIN, *opening, *search(1, ""), *LOGOUT) as server:
        assert changes(server, name="Grüße")[0].messages == ()
    # Not as RFC 3501 would have it, but it is what the server calls it.
    listing = ("C: * LIST*", b'* LIST () "/" "a&b"\r\n', "S: TAG OK done")
    with (
        ScriptedServer(*LOGIN, *listing, *folder(7, name="a&b"), *search(1, ""), *LOGOUT) as server,
        opened(server) as mailbox,
    ):
        (remote,) = mailbox.folders()
        assert next(mailbox.changes_since(remote.name, None, Rows())).messages == ()


# --- errors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "transient"),
    [
        (("S: * BYE [ALERT] Too many simultaneous connections",), True),
        (("DROP",), True),
        (("S: * OK hi", "C: * CAPABILITY", "DROP"), True),
        (("S: hello, this is no IMAP", "DEAF"), True),
    ],
    ids=["BYE", "drop", "drop at CAPABILITY", "nonsense"],
)
def test_a_session_that_does_not_begin_is_a_connect_error(steps, transient):
    with ScriptedServer(*steps) as server, pytest.raises(ConnectError) as caught, opened(server):
        pass
    assert (caught.value.transient, caught.value.definite) == (transient, True)


def test_a_silent_server_is_a_connect_error_after_the_timeout():
    with ScriptedServer("DEAF") as server, pytest.raises(ConnectError) as caught, opened(server, timeout_s=0.05):
        pass
    assert caught.value.transient


def test_a_port_where_nobody_listens_is_a_connect_error():
    with ScriptedServer("DEAF") as server, socket.create_connection((server.host, server.port)):
        pass
    with pytest.raises(ConnectError) as caught, opened(server):
        pass
    assert caught.value.transient


@pytest.mark.parametrize(
    ("reply", "transient"),
    [
        ("NO [UNAVAILABLE] try later", True),
        ("NO [INUSE] locked", True),
        ("NO something went wrong", True),
        ("NO [NONEXISTENT] no such folder", False),
        ("NO [NOPERM] not yours", False),
        ("BAD unknown command", False),
        ("BAD User is authenticated but not connected.", True),
    ],
)
def test_a_refused_command_says_whether_to_try_again(reply, transient):
    steps = ("C: * EXAMINE*", f"S: TAG {reply}", "DEAF")
    with ScriptedServer(*LOGIN, *steps) as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert caught.value.transient is transient


@pytest.mark.parametrize(
    "steps",
    [
        ("DROP",),
        ("S: * BYE maintenance",),
        (b"* 1 FETCH (UID 1 BODY[] {100}\r\nonly so mu", "DROP"),
        (b"* 1 FETCH (UID 1 BODY[] {3}\r\nabc", "DROP"),
        (body(1, b"a"), "S: * BYE maintenance"),
        (body(1, b"a"), "S: TAG NO [UNAVAILABLE] the disk is away", "DEAF"),
    ],
    ids=["drop", "BYE", "drop in a literal", "drop after a literal", "BYE after a message", "NO after a message"],
)
def test_a_fetch_that_breaks_off_is_transient_and_gives_no_batch(steps):
    dialogue = (*LOGIN, *folder(), *search(1, " 1 2"), *sizes("1:2", u1=1, u2=1), "C: * UID FETCH*")
    taken = []
    with ScriptedServer(*dialogue, *steps) as server, pytest.raises(ImapError) as caught, opened(server) as mailbox:
        taken.extend(mailbox.changes_since("INBOX", None, Rows()))
    assert caught.value.transient
    assert taken == []


def test_a_server_that_falls_silent_is_a_transient_error():
    steps = (*LOGIN, *folder(), "C: * UID SEARCH*", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(ImapError) as caught:
        changes(server, timeout_s=0.2)
    assert caught.value.transient


@pytest.mark.parametrize(
    "reply",
    [
        b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\n",
        b"* 1 FETCH (UID 1 (\r\n",
        b'* 1 FETCH (UID "1)\r\n',
        b"* 1 FETCH )\r\n",
    ],
    ids=["an enormous literal", "an open list", "an open string", "a closed list"],
)
def test_a_reply_that_can_not_be_read_is_a_permanent_error(reply):
    steps = (*LOGIN, *folder(), *search(1, " 1"), "C: * UID FETCH*", reply, "S: TAG OK done", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert not caught.value.transient


def test_an_endless_line_is_not_read_to_its_end(monkeypatch):
    monkeypatch.setattr(wire, "_LINE_BYTES_MAX", 1000)
    steps = (*LOGIN, *folder(), "C: * UID SEARCH*", b"* SEARCH" + b" 1" * 1000, "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert not caught.value.transient


def test_an_error_of_the_caller_passes_and_closes_the_connection():
    with ScriptedServer(*LOGIN, "DEAF") as server, pytest.raises(KeyError), opened(server):
        raise KeyError


def test_a_server_that_breaks_off_at_logout_has_broken_nothing():
    with ScriptedServer(*LOGIN, "C: * LOGOUT", "DROP") as server, opened(server):
        pass


# --- spans ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def spans(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(refusals, "_TRACER", provider.get_tracer("test"))
    return exporter


def test_a_synchronisation_is_told_in_spans_without_the_password(spans):
    steps = (*folder(), *search(1, " 1"), *sizes("1", u1=5), *fetch("1", body(1, b"12345")), *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server:
        changes(server)
    told = spans.get_finished_spans()
    assert [span.name for span in told] == ["imap connect", "imap login", "imap select", "imap fetch"]
    assert dict(told[-1].attributes) == {"mail.imap.folder": "INBOX", "mail.imap.messages": 1, "mail.imap.bytes": 5}
    assert CANARY not in "".join(span.to_json() for span in told)


def test_what_is_asked_and_what_is_done_have_spans_of_their_own(spans):
    compared = (*folder(), *search(10, ""), *flags("1:9"))
    opening = ('C: * SELECT "INBOX"', *folder()[1:-1], "S: TAG OK [READ-WRITE] open")
    move = (*opening, "C: * UID SEARCH *", "S: * SEARCH 1", "S: TAG OK done", "C: * UID STORE *", "S: TAG OK done")
    gone = ("C: * UID SEARCH DELETED", "S: TAG OK done", "C: * EXPUNGE", "S: TAG OK done", "C: * UID SEARCH *")
    listing = ("C: * LIST*", "S: TAG OK done")
    with (
        ScriptedServer(*LOGIN, *listing, *compared, *move, *gone, "S: TAG OK done", *LOGOUT) as server,
        opened(server) as mailbox,
    ):
        mailbox.folders()
        list(mailbox.changes_since("INBOX", token(9), Rows()))
        mailbox.expunge("INBOX", 7, [1])
    names = [span.name for span in spans.get_finished_spans()][2:]
    assert names == ["imap list", "imap select", "imap changes", "imap select", "imap expunge"]


def test_a_refusal_is_told_by_its_kind_alone(spans):
    steps = (*GREETING, "C: * LOGIN*", "S: TAG NO ann@example.org may not", "DEAF")
    with ScriptedServer(*steps) as server, pytest.raises(AuthenticationError), opened(server):
        pass
    login = spans.get_finished_spans()[-1]
    assert login.attributes["error.type"] == "authentication"
    assert "example.org" not in login.to_json()
