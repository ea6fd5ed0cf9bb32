"""FETCH and UID FETCH (RFC 3501 sections 6.4.5 and 7.4.2); sections and structures are in test_mime_structure."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imap_transcript import MAIL, NOW_S, PASSWORD, SHORT, USER, Transcript, another, parsed, selected, written

from fakemail.folder import Stored
from fakemail.imap_protocol import Gather, ImapSession
from fakemail.imap_protocol.fetch import CHUNK_BYTES_FIRST, CHUNK_BYTES_MAX, _Chunk
from fakemail.imap_protocol.fetch_items import internal_date, writer
from fakemail.imap_protocol.message import Message
from fakemail.imap_protocol.messages import _date_time
from fakemail.mailbox import MailStore

HEADERS = b"X-B: 1\r\nSubject: x\r\nX-Dup: a\r\nX-Dup: b\r\n folded\r\n\r\nbody\r\n"


@pytest.fixture
def imap():
    """Selected INBOX: 1 is MAIL, 2 and 3 are SHORT; their UIDs are 1, 2 and 4."""
    client = selected(MAIL, SHORT, b"gone", SHORT)
    client.inbox.expunge(client.inbox.uids.between(3, 3))
    client.ok("NOOP")
    return client


# --- small items ---


def test_small_items_come_in_the_order_they_were_asked_for(imap):
    imap.step("1 FETCH 2 (FLAGS UID RFC822.SIZE)", "* 2 FETCH (FLAGS () UID 2 RFC822.SIZE 24)", "1 OK <any>")
    imap.step("2 FETCH 3 INTERNALDATE", '* 3 FETCH (INTERNALDATE "14-Nov-2023 22:13:20 +0000")', "2 OK <any>")
    imap.step("3 FETCH 3 (uid Flags)", "* 3 FETCH (UID 4 FLAGS ())", "3 OK <any>")


def test_a_plain_fetch_volunteers_nothing_and_uid_fetch_the_uid(imap):
    imap.step("1 FETCH 3 FLAGS", "* 3 FETCH (FLAGS ())", "1 OK <any>")
    imap.step("2 UID FETCH 4 FLAGS", "* 3 FETCH (UID 4 FLAGS ())", "2 OK <any>")
    imap.step("3 UID FETCH 4 (FLAGS UID)", "* 3 FETCH (FLAGS () UID 4)", "3 OK <any>")
    imap.step("4 UID FETCH 4 UID", "* 3 FETCH (UID 4)", "4 OK <any>")


@pytest.mark.parametrize(
    ("macro", "names"),
    [
        ("FAST", "FLAGS INTERNALDATE RFC822.SIZE"),
        ("ALL", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE"),
        ("FULL", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY"),
        ("full", "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY"),
    ],
)
def test_a_macro_is_its_items(imap, macro, names):
    (row,) = parsed(imap.send(f"1 FETCH 2 {macro}\r\n".encode()).partition(b"\r\n")[0])[3:]
    assert row[::2] == names.split()
    assert imap.ok(f"FETCH 2 {macro}") == imap.ok(f"FETCH 2 ({names})")


def test_an_item_asked_for_twice_is_told_once(imap):
    imap.step("1 FETCH 2 (FLAGS UID FLAGS UID)", "* 2 FETCH (FLAGS () UID 2)", "1 OK <any>")
    imap.step("2 FETCH 2 (UID RFC822.SIZE UID)", "* 2 FETCH (UID 2 RFC822.SIZE 24)", "2 OK <any>")


def test_every_row_is_pairs(imap):
    items = "UID FLAGS ENVELOPE BODY.PEEK[HEADER.FIELDS (To To Cc)] RFC822.SIZE BODY BODYSTRUCTURE INTERNALDATE"
    (row,) = parsed(imap.send(f"1 FETCH 1 ({items} BODY.PEEK[1])\r\n".encode()).rpartition(b"1 OK")[0])[3:]
    assert row[::2] == [
        *("UID", "FLAGS", "ENVELOPE", "BODY[HEADER.FIELDS (To To Cc)]", "RFC822.SIZE"),
        *("BODY", "BODYSTRUCTURE", "INTERNALDATE", "BODY[1]"),
    ]


# --- sets ---


@pytest.mark.parametrize(
    ("command", "numbers"),
    [
        ("FETCH 1", "1"),
        ("FETCH 3:1", "1 2 3"),
        ("FETCH *:1", "1 2 3"),
        ("FETCH 2:*", "2 3"),
        ("FETCH *", "3"),
        ("FETCH 9:*", "3"),
        ("FETCH *:9", "3"),
        ("FETCH *:*", "3"),
        ("FETCH 1,*", "1 3"),
        ("FETCH 1,1,1:2", "1 2"),
        ("FETCH 3,1", "1 3"),
        ("UID FETCH 1:4", "1 2 3"),
        ("UID FETCH 4:1", "1 2 3"),
        ("UID FETCH 3", ""),
        ("UID FETCH 3:4", "3"),
        ("UID FETCH 9", ""),
        ("UID FETCH 9:*", "3"),
        ("UID FETCH *", "3"),
        ("UID FETCH 1,*", "1 3"),
        ("UID FETCH 1:4294967295", "1 2 3"),
    ],
)
def test_a_set_names_each_message_once(imap, command, numbers):
    rows = [int(re.match(r"\* (\d+) FETCH", line)[1]) for line in imap.ok(f"{command} UID")]
    assert rows == [int(number) for number in numbers.split()]


@pytest.mark.parametrize(
    "numbers", ["0", "4", "1:4", "x", "1,,2", "*x", "1:2:3", "1,", ",1", "-1", "1 :2", "01", "", "(1)"]
)
def test_a_wrong_set_is_bad(imap, numbers):
    imap.step(f"1 FETCH {numbers} UID", "1 BAD <any>")


@pytest.mark.parametrize("numbers", ["0", "0:*", "1:0", "x"])
def test_a_wrong_set_of_uids_is_bad(imap, numbers):
    imap.step(f"1 UID FETCH {numbers} UID", "1 BAD <any>")


@pytest.mark.parametrize(
    "command", ["FETCH 1:*", "FETCH *", "FETCH *:1", "UID FETCH 1:*", "UID FETCH *", "UID FETCH 7"]
)
def test_every_message_of_an_empty_folder_is_none(command):
    selected().step(f"1 {command} UID", "1 OK <any>")


def test_a_number_in_an_empty_folder_is_bad():
    selected().step("1 FETCH 1 UID", "1 BAD <any>")


# --- sections and partials ---


@pytest.mark.parametrize(
    ("item", "answer", "text"),
    [
        ("BODY.PEEK[]", "BODY[]", SHORT),
        ("RFC822", "RFC822", SHORT),
        ("RFC822.HEADER", "RFC822.HEADER", b"Subject: short\r\n\r\n"),
        ("RFC822.TEXT", "RFC822.TEXT", b"body\r\n"),
        ("body.peek[text]", "BODY[TEXT]", b"body\r\n"),
        ("BODY.PEEK[1.mime]", "BODY[1.MIME]", b"Subject: short\r\n\r\n"),
    ],
)
def test_an_item_is_answered_under_its_name(imap, item, answer, text):
    out = imap.send(f"1 FETCH 2 {item}\r\n".encode())
    assert out.startswith(b"* 2 FETCH (%b {%d}\r\n%b" % (answer.encode(), len(text), text))


@pytest.mark.parametrize(
    ("section", "answer", "text"),
    [
        ("HEADER.FIELDS (x-dup)", "HEADER.FIELDS (x-dup)", b"X-Dup: a\r\nX-Dup: b\r\n folded\r\n\r\n"),
        ('HEADER.FIELDS (x "Y" x)', "HEADER.FIELDS (x Y x)", b"\r\n"),
        ("header.fields (SUBJECT X-B)", "HEADER.FIELDS (SUBJECT X-B)", b"X-B: 1\r\nSubject: x\r\n\r\n"),
        ("HEADER.FIELDS.NOT (X-DUP)", "HEADER.FIELDS.NOT (X-DUP)", b"X-B: 1\r\nSubject: x\r\n\r\n"),
        ("HEADER.FIELDS ({1+}\r\na)", "HEADER.FIELDS (a)", b"\r\n"),
        ("HEADER.FIELDS (NIL)", 'HEADER.FIELDS ("NIL")', b"\r\n"),
    ],
)
def test_header_fields_are_named_as_the_client_did(section, answer, text):
    imap = selected(HEADERS)
    out = imap.send(f"1 FETCH 1 BODY.PEEK[{section}]\r\n".encode())
    assert out == b"* 1 FETCH (BODY[%b] {%d}\r\n%b)\r\n1 OK FETCH completed\r\n" % (answer.encode(), len(text), text)


@pytest.mark.parametrize(
    ("partial", "answer", "text"),
    [
        ("BODY.PEEK[TEXT]<1.3>", "BODY[TEXT]<1>", b"ody"),
        ("BODY.PEEK[TEXT]<0.3>", "BODY[TEXT]<0>", b"bod"),
        ("BODY.PEEK[TEXT]<3.99>", "BODY[TEXT]<3>", b"y\r\n"),
        ("BODY.PEEK[TEXT]<6.1>", "BODY[TEXT]<6>", b""),
        ("BODY.PEEK[TEXT]<99.3>", "BODY[TEXT]<99>", b""),
        ("BODY.PEEK[]<0.20>", "BODY[]<0>", SHORT[:20]),
        ("BODY.PEEK[]<2.4294967295>", "BODY[]<2>", SHORT[2:]),
        ("BODY.PEEK[HEADER.FIELDS (SUBJECT)]<9.2>", "BODY[HEADER.FIELDS (SUBJECT)]<9>", b"sh"),
        ("BODY.PEEK[9]<0.5>", "BODY[9]<0>", b""),
    ],
)
def test_a_partial_begins_where_it_says_and_tells_where(imap, partial, answer, text):
    out = imap.send(f"1 FETCH 2 {partial}\r\n".encode())
    assert out == b"* 2 FETCH (%b {%d}\r\n%b)\r\n1 OK FETCH completed\r\n" % (answer.encode(), len(text), text)


def test_pieces_put_together_are_the_whole(imap):
    pieces = [imap.fetch(1, f"BODY.PEEK[]<{at}.100>") for at in range(0, len(MAIL), 100)]
    assert b"".join(pieces) == MAIL


@pytest.mark.parametrize(
    "item",
    [
        "", "()", "(UID", "(ALL)", "(UID ALL)", "ALL UID", "COLOUR", "(UID COLOUR)", "UID FLAGS", "BODY[", "BODY[X]",
        "BODY[MIME]", "BODY[.TEXT]", "BODY[1TEXT]", "BODY[1.]", "BODY[0]", "BODY[01]", "BODY[1.0]",
        "BODY[HEADER.FIELDS]",
        "BODY[HEADER.FIELDS ()]", "BODY[HEADER.FIELDS (a b]", "BODY[HEADER.FIELDS (:)]", 'BODY[HEADER.FIELDS ("a b")]',
        "BODY[]<>", "BODY[]<1>", "BODY[]<0.0>", "BODY[]<1.4294967296>", "BODY.PEEK", "RFC822.PEEK", "BODYSTRUCTURE[1]",
        "FLAGS ", "(UID  FLAGS)", "( UID)", "(UID )", "BINARY", "X-GM-MSGID",
    ],
)  # fmt: skip
def test_what_can_not_be_fetched_is_bad(imap, item):
    imap.step(f"1 FETCH 1 {item}", "1 BAD <any>")


# --- \\Seen ---


@pytest.mark.parametrize(
    "item", ["BODY[]", "RFC822", "RFC822.TEXT", "BODY[1]", "BODY[HEADER]", "BODY[TEXT]<3.4>", "BODY[9]"]
)
def test_reading_marks_as_seen_once_and_says_so_in_the_row(imap, item):
    def names():
        return parsed(imap.send(f"1 FETCH 2 {item}\r\n".encode()).rpartition(b"1 OK")[0])[3][::2]

    assert names()[1:] == ["FLAGS"]
    assert imap.inbox.flags(2) == {"\\Seen"}
    assert names()[1:] == []
    imap.step("2 NOOP", "2 OK <any>")


def test_flags_that_were_asked_for_are_told_once_and_already_seen(imap):
    imap.step("1 FETCH 2 (FLAGS BODY[TEXT])", "* 2 FETCH (FLAGS (\\Seen) BODY[TEXT] {6}", "body", ")", "1 OK <any>")


@pytest.mark.parametrize(
    "item", ["BODY.PEEK[]", "RFC822.HEADER", "BODY.PEEK[TEXT]", "RFC822.SIZE", "ENVELOPE", "BODY", "FULL"]
)
def test_looking_without_reading_marks_nothing(imap, item):
    imap.send(f"1 FETCH 2 {item}\r\n".encode())
    assert imap.inbox.flags(2) == frozenset()


def test_others_hear_of_what_was_read(imap):
    other = another(imap)
    imap.send(b"1 FETCH 1:* RFC822\r\n")
    other.step("1 NOOP", *(f"* {number} FETCH (FLAGS (\\Seen))" for number in (1, 2, 3)), "1 OK <any>")


# --- bytes ---


@pytest.mark.parametrize(
    "raw", [b"a", b"\r\nno header", b"\n\n", b"X: \xff\xfe\r\n\r\n\x80", b"bare\nline\nfeeds", b")\r\n* BYE x\r\n"]
)
def test_bytes_come_back_as_they_came(raw):
    imap = selected()
    imap.append(raw)
    assert imap.fetch(1, "BODY.PEEK[]") == raw
    assert imap.ok("FETCH 1 RFC822.SIZE") == [f"* 1 FETCH (RFC822.SIZE {len(raw)})"]
    assert imap.fetch(1, "BODY.PEEK[HEADER]") + imap.fetch(1, "BODY.PEEK[TEXT]") == raw


@given(st.binary(min_size=1, max_size=60))
@settings(deadline=None)
def test_any_bytes_come_back_and_everything_can_be_asked_of_them(raw):
    imap = selected()
    imap.append(raw)
    assert imap.fetch(1, "BODY.PEEK[]") == raw
    items = ["FULL", "BODYSTRUCTURE)", "BODY.PEEK[1] BODY.PEEK[1.MIME] BODY.PEEK[HEADER.FIELDS", "SUBJECT)])"]
    for item in (items[0], *(f"({item}" for item in items[1:])):
        if item.count("(") == item.count(")"):
            assert b"1 OK" in imap.send(f"1 FETCH 1 {item}\r\n".encode())


# --- INTERNALDATE ---


@pytest.mark.parametrize(
    "text",
    [
        "22-Feb-2008 17:06:23 +0200",
        "25-Mar-2007 00:00:00 +0200",
        " 1-Jan-2020 00:00:00 -1130",
        "01-Jan-1970 00:00:00 +0000",
        "31-Dec-1969 23:59:59 +0000",
        "29-Feb-2024 12:00:00 +1400",
        "01-Jan-0001 00:00:00 +0000",
        "31-Dec-9999 23:59:59 +0000",
    ],
)
def test_a_date_comes_back_with_its_zone(text):
    imap = selected()
    imap.send(f'1 APPEND INBOX "{text}" {{1+}}\r\nx\r\n'.encode())
    expected = text.replace("01-Jan-", " 1-Jan-")
    assert imap.ok("FETCH 1 INTERNALDATE") == [f'* 1 FETCH (INTERNALDATE "{expected}")']


@given(st.integers(-62_135_596_800 + 86_400, 253_402_300_799 - 86_400), st.integers(-24 * 60 + 1, 24 * 60 - 1))
def test_any_date_is_written_as_it_is_read(received_s, zone_min):
    assert _date_time(internal_date(received_s, zone_min).decode()) == (received_s, zone_min)


def test_without_a_date_a_message_came_now(imap):
    assert imap.inbox.received(1) == (NOW_S, 0)


# --- long answers ---


def chunks(client, command):
    client.session.feed(command)
    return [data for event in client.session.events() if (data := written(event)) is not None]


def test_a_long_answer_comes_in_chunks_the_first_of_which_is_small():
    imap = Transcript().login()
    imap.inbox.seed(count=2000, seed=1, profile="small")
    imap.select()
    for items in (b"BODY.PEEK[]", b"(UID FLAGS)", b"FLAGS", b"(RFC822.SIZE)"):
        told = chunks(imap, b"1 UID FETCH 1:* " + items + b"\r\n")
        assert len(told[0]) < 200_000
        assert max(map(len, told)) <= 2 * CHUNK_BYTES_MAX + 100_000
        assert b"".join(told).count(b" FETCH (") == 2000


def test_a_message_of_many_megabytes_is_handed_out_in_slices():
    imap = selected(b"Subject: x\r\n\r\n" + b"y" * 5_000_000)
    told = chunks(imap, b"1 FETCH 1 BODY.PEEK[]\r\n")
    assert max(map(len, told)) <= 2 * CHUNK_BYTES_MAX
    assert b"".join(told).count(b"y") == 5_000_000


def test_the_fast_way_and_the_long_way_say_the_same():
    imap = Transcript().login()
    inbox = imap.inbox
    inbox.seed(count=300, seed=1, profile="small", gaps=2)
    for uid in list(inbox.uids)[::9]:
        inbox.set_flags(uid, {"$x", "\\Seen"})
    inbox.expunge(inbox.uids.between(40, 60))
    inbox.add(Stored(raw=SHORT, received_s=0), ["$y"])
    imap.select(how="EXAMINE")
    recent = f"* {len(inbox.uids)} FETCH"
    for items in ("FLAGS", "UID FLAGS", "FLAGS UID"):
        slow = [line for line in imap.ok(f"FETCH 1:* ({items} RFC822.SIZE)") if not line.startswith(recent)]
        imap.session._context.view.recent = type(inbox.uids).of([])
        fast = [line for line in imap.ok(f"FETCH 1:* ({items})") if not line.startswith(recent)]
        assert [re.sub(r" RFC822.SIZE \d+", "", line) for line in slow] == fast


def test_a_keyword_that_comes_up_in_the_middle_is_named_before_the_row_that_shows_it():
    for raw, items in ((b"x" * 9000, "(FLAGS BODY.PEEK[])"), (b"x", "(FLAGS)")):
        imap = selected(*[raw] * 200)
        imap.session.feed(f"1 FETCH 1:* {items}\r\n".encode())
        said = b""
        for event in imap.session.events():
            said += written(event) or b""
            imap.inbox.set_flags(200, {"$Late"})
        assert said.index(b"* FLAGS (") < said.index(b"$Late)", said.index(b"* 200 FETCH"))
        row = re.search(rb"\* 200 FETCH \(FLAGS \(([^)]*)\)", said)
        assert (b"$Late" in row[1]) == (said.find(b"* FLAGS") < row.start())


def test_short_rows_are_put_together_once():
    imap = selected(SHORT)
    view = imap.session._context.view
    chunk, writers = _Chunk(), [writer("UID", view), writer("FLAGS", view)]
    message = Message(view.folder, 1, 1)
    for _ in range(1000):
        chunk.add(message, writers)
    # If each row copied all that came before it, a thousand rows would cost half a million.
    assert max(map(len, chunk._words)) < 20
    (whole,) = chunk.taken()
    assert written(whole) == b"* 1 FETCH (UID 1 FLAGS ())\r\n" * 1000
    assert whole.size_bytes == 28 * 1000


def test_no_more_than_a_chunk_is_made_before_something_is_said():
    store = MailStore(seed=7)
    inbox = store.add_user(USER, PASSWORD).folder("INBOX")
    largest = max(map(inbox.size, store.seed_folder(inbox, count=400)))
    session = ImapSession(
        store, note=lambda *_, **__: None, decide=lambda *_, **__: None, active=lambda _: False, gathers=True
    )
    session.feed(f"l LOGIN {USER} {PASSWORD}\r\ns SELECT INBOX\r\n".encode())
    list(session.events())
    made, pieces_of = [], inbox.raw_pieces

    def counted(uid):
        made.append(pieces_of(uid)[1])
        return pieces_of(uid)

    inbox.raw_pieces = counted
    session.feed(b"f FETCH 1:* (BODY.PEEK[])\r\n")
    between = []
    for event in session.events():
        if isinstance(event, Gather):
            between.append(sum(made))
            made.clear()
    assert sum(between) > 20 * CHUNK_BYTES_MAX
    assert max(between) < CHUNK_BYTES_MAX + largest
    assert between[0] < CHUNK_BYTES_FIRST + largest
