"""What an IMAP server's replies mean, without a server."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service.errors import ImapError
from email_service.imap import FolderStatus, RemoteFolder, SyncToken, names, refusals, replies
from email_service.imap.replies import tokens

# --- tokens ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"", []),
        (b"12 (UID 5 FLAGS ())", [b"12", [b"UID", b"5", b"FLAGS", []]]),
        (b"(\\Seen $Work \\*)", [[b"\\Seen", b"$Work", b"\\*"]]),
        (b'"a b" "" "q\\"b\\\\s"', [b"a b", b"", b'q"b\\s']),
        (b"NIL nil NILS", [None, None, b"NILS"]),
        (b'"NIL"', [b"NIL"]),
        (b"BODY[HEADER.FIELDS (TO CC)]<0> x", [b"BODY[HEADER.FIELDS (TO CC)]<0>", b"x"]),
        (b"([odd] odd] [odd)", [[b"[odd]", b"odd]", b"[odd"]]),
        (b'(a(b"c"))', [[b"a", [b"b", b"c"]]]),
        (b"  ( a )  ", [[b"a"]]),
    ],
)
def test_a_reply_is_values_and_lists(text, values):
    assert tokens([text]) == values


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_literal_is_a_value_whatever_it_holds(first, second):
    pieces = [
        (b"1 (BODY[] {%d}" % len(first), first),
        (b" X {%d}" % len(second), second),
        b" UID 7)",
    ]
    assert tokens(pieces) == [b"1", [b"BODY[]", first, b"X", second, b"UID", b"7"]]


@pytest.mark.parametrize("text", [b"(", b")", b"(()", b'"open', b"a) (b", b'"a\\"'])
def test_what_is_no_reply_is_a_permanent_error(text):
    with pytest.raises(ImapError) as caught:
        tokens([text])
    assert not caught.value.transient


@given(st.binary(max_size=100))
def test_no_bytes_do_worse_than_that(text):
    try:
        tokens([text])
    except ImapError as err:
        assert not err.transient  # noqa: PT017  # most inputs raise nothing


def test_a_deep_list_takes_no_stack():
    nested = tokens([b"(" * 100_000 + b")" * 100_000])
    assert len(nested) == 1


def test_items_are_pairs_by_upper_case_name():
    assert replies.items_of([b"1", [b"uid", b"5", b"Flags", [b"x"], b"ODD"]]) == {b"UID": b"5", b"FLAGS": [b"x"]}
    assert replies.items_of([b"1"]) == {}


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_message_has_what_the_reply_says():
    items = {b"BODY[]": b"abc", b"FLAGS": [b"\\Seen", None], b"INTERNALDATE": b" 1-jan-2026 00:00:00 +0130"}
    message = replies.message_of(7, items)
    assert (message.uid, message.raw, message.size_bytes, message.flags) == (7, b"abc", 3, ("\\Seen",))
    assert message.internal_date == datetime(2025, 12, 31, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize("body", [{}, {b"BODY[]": None}, {b"BODY[]": [b"x"]}, {b"BODY[]": replies.Skipped(9)}])
def test_without_a_body_there_is_no_message(body):
    assert replies.message_of(7, body) is None


@pytest.mark.parametrize(
    "pieces",
    [
        [b"* 1 FETCH (UID 7 RFC822.SIZE 99)\r\n"],
        [b"* 1 FETCH (RFC822.SIZE 99 UID 7)\r\n"],
        [(b'* 1 FETCH (UID 7 FLAGS (\\Seen $x) INTERNALDATE "a" BODY[] {1}\r\n', b")"), b")\r\n"],
        [(b"* 1 FETCH (UID 7 BODY[] {1}\r\n", b")"), b" FLAGS (\\Seen))\r\n"],
    ],
)
def test_a_reply_that_is_as_usual_reads_as_any_other(pieces):
    assert replies.fetched(pieces) == replies.items_of(tokens(pieces))


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b"* 1 FETCH (UID 7 FLAGS (\\Seen $Work))\r\n", (7, ("\\Seen", "$Work"))),
        (b"* 1 FETCH (FLAGS () UID 7)\r\n", (7, ())),
        (b"* 1 FETCH (UID 7 MODSEQ (9) FLAGS (\\Recent a))\r\n", (7, ("a",))),
        (b"* 1 FETCH (UID 7 FLAGS (UID 8) MODSEQ (9))\r\n", (7, ("UID", "8"))),
        (b"* 1 FETCH (FLAGS (UID 8))\r\n", None),
        (b"* 1 FETCH (UID 7 FLAGS () UID 8)\r\n", None),
        (b"* 1 FETCH (UID 7 FLAGS () X)\r\n", None),
    ],
)
def test_a_line_of_flags_is_read_at_once_or_not_at_all(line, read):
    assert replies.flags_line(line) == read


def test_recent_is_no_flag_of_the_message():
    assert replies.flags_of([b"\\recent", b"\\Seen", b"\\RECENT"]) == ("\\Seen",)


def test_flags_beyond_measure_are_not_kept():
    words = [b"x%d" % number for number in range(1000)]
    assert len(replies.flags_of(words)) == 1000
    assert replies._flag_words.cache_info().currsize <= 4096


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        (b"3", [range(3, 4)]),
        (b"7:5,1", [range(1, 2), range(5, 8)]),
        (b"1:4294967295", [range(1, 101)]),
        (b"100:200", [range(100, 101)]),
        (b"101", []),
    ],
)
def test_a_set_of_uids_is_ranges_and_never_a_list(text, ranges):
    assert replies.uid_ranges(text, 100) == ranges


@pytest.mark.parametrize("text", [b"", b"*", b"1:*", b"1,,2", b"1:2:3", b"99999999999", b"x"])
def test_what_is_no_set_of_uids_is_a_permanent_error(text):
    with pytest.raises(ImapError) as caught:
        replies.uid_ranges(text, 100)
    assert not caught.value.transient


def test_a_search_is_read_without_its_modification_sequence():
    assert [run.start for run in replies.searched(b"2 5 11 (MODSEQ 917162500)")] == [2, 5, 11]
    assert list(replies.searched(b"")) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"today",
        b"31-Feb-2026 00:00:00 +0000",
        b"01-Foo-2026 00:00:00 +0000",
        b"01-Jan-2026 25:00:00 +0000",
        b"01-Jan-2026 00:00:00 +9900",
        b"01-Jan-0001 00:00:00 +1400",
    ],
)
def test_a_date_that_is_none_is_none(text):
    assert replies.internal_date(text) is None


@given(st.sets(st.integers(1, 2**32 - 1), min_size=1, max_size=50).map(sorted))
def test_a_set_of_uids_names_each_and_no_other(uids):
    named = []
    for part in replies.uid_set(uids).decode().split(","):
        first, _, last = part.partition(":")
        named.extend(range(int(first), int(last or first) + 1))
    assert named == uids


def test_neighbours_are_one_range():
    assert replies.uid_set([1, 2, 3, 5, 7, 8]) == b"1:3,5,7:8"


@pytest.mark.parametrize("modseq", [None, 715194045007])
def test_a_token_survives_json(modseq):
    token = SyncToken(uidvalidity=7, last_uid=9, highestmodseq=modseq)
    assert SyncToken.from_json(token.to_json()) == token
    assert SyncToken.from_json({"uidvalidity": 7, "last_uid": 9, "highestmodseq": modseq}) == token


STATUS = FolderStatus(uidvalidity=7, uidnext=10, messages=3, highestmodseq=5)
WHOLE = SyncToken(uidvalidity=7, last_uid=9, highestmodseq=5, uidnext=10, messages=3)


@pytest.mark.parametrize(
    ("change", "is_current"),
    [
        ({}, True),
        ({"last_uid": 7}, True),
        ({"uidvalidity": 8}, False),
        ({"highestmodseq": 4}, False),
        ({"highestmodseq": None}, False),
        ({"uidnext": 9}, False),
        ({"uidnext": None}, False),
        ({"messages": 4}, False),
        ({"messages": None}, False),
    ],
    ids=str,
)
def test_a_folder_is_unchanged_only_if_all_that_is_told_says_so(change, is_current):
    assert replace(WHOLE, **change).is_current(STATUS) is is_current
    assert not replace(WHOLE, **change).is_current(None)


def test_a_folder_without_modification_sequences_is_never_unchanged():
    untold = replace(STATUS, highestmodseq=None)
    assert not replace(WHOLE, highestmodseq=None).is_current(untold)


def test_a_status_is_read_and_zero_is_no_modification_sequence():
    values = tokens([b"messages 3 UIDNEXT 10 UIDVALIDITY 7 HIGHESTMODSEQ 5 X y"])
    assert names.folder_status(values) == STATUS
    assert names.folder_status(tokens([b"HIGHESTMODSEQ 0"])).highestmodseq is None


# --- folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire_name", "name"),
    [
        (b"INBOX", "INBOX"),
        (b"Gr&APwA3w-e", "Grüße"),
        (b"&U,BTFw-", "\u53f0\u5317"),
        (b"a &- b", "a & b"),
        (b"&2D3eAA-", "\U0001f600"),
    ],
)
def test_names_are_modified_utf7(wire_name, name):
    assert names.decode_name(wire_name) == name
    assert names.encode_name(name) == wire_name


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_every_name_comes_back(name):
    encoded = names.encode_name(name)
    assert names.decode_name(encoded) == name
    assert all(0x20 <= byte <= 0x7E for byte in encoded)


@pytest.mark.parametrize("name", [b"a&b", b"&!!-", b"&A-", b"&2D0-", b"&AAA-"])
def test_a_name_that_is_no_modified_utf7_stays_as_it_is(name):
    assert names.decode_name(name) == name.decode()


def listed(*texts):
    found = [names.listed_folder(tokens([text])) for text in texts]
    return names.typed_folders([folder for folder in found if folder is not None])


def test_a_flag_beats_a_name_and_each_type_is_given_once():
    assert listed(
        b'() "/" inbox',
        b'() "/" Sent',
        b'() "/" "Sent Items"',
        b'(\\Sent) "/" Gesendet',
        b'() "/" Work/Drafts',
        b'() "/" Drafts',
        b'() "." "INBOX.Junk E-mail"',
        b'() NIL "All Mail"',
    ) == [
        RemoteFolder(name="inbox", type="inbox"),
        RemoteFolder(name="Sent", type="custom"),
        RemoteFolder(name="Sent Items", type="custom"),
        RemoteFolder(name="Gesendet", type="sent"),
        RemoteFolder(name="Work/Drafts", type="drafts"),
        RemoteFolder(name="Drafts", type="custom"),
        RemoteFolder(name="INBOX.Junk E-mail", type="spam"),
        RemoteFolder(name="All Mail", type="archive"),
    ]


@pytest.mark.parametrize(
    ("flag", "kind"),
    [
        (b"\\Sent", "sent"),
        (b"\\DRAFTS", "drafts"),
        (b"\\Trash", "trash"),
        (b"\\Junk", "spam"),
        (b"\\Archive", "archive"),
        (b"\\All", "archive"),
        (b"\\Flagged", "custom"),
    ],
)
def test_special_use_flags_are_types(flag, kind):
    assert listed(b'(\\HasNoChildren %b) "/" x' % flag) == [RemoteFolder(name="x", type=kind)]


@pytest.mark.parametrize(
    "text", [b'(\\Noselect) "/" a', b'(\\NonExistent) "/" a', b'() "/"', b'x "/" a', b'() "/" NIL']
)
def test_what_can_not_be_opened_is_not_listed(text):
    assert listed(text) == []


def test_a_name_that_no_command_can_say_is_not_listed():
    assert names.listed_folder([[], b"/", b"a\r\nb"]) is None


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "otherwise", "transient"),
    [
        ("[AUTHENTICATIONFAILED] try again", True, False),
        ("[UNAVAILABLE] x", False, True),
        ("[ALERT] Too many simultaneous connections. (Failure)", False, True),
        ("[ALERT] account disabled", False, False),
        ("[OVERQUOTA] Account exceeded command or bandwidth limits", False, True),
        ("temporary failure", False, True),
        ("no", True, True),
        ("no", False, False),
    ],
)
def test_a_response_code_decides_then_the_text_then_the_command(text, otherwise, transient):
    assert refusals.is_transient(text, otherwise=otherwise) is transient


def test_an_unknown_error_of_the_library_is_not_swallowed():
    with pytest.raises(KeyError), refusals.errors("LIST"):
        raise KeyError


def test_a_text_that_could_not_be_encoded_is_not_in_the_error():
    with pytest.raises(ImapError) as caught, refusals.errors("LIST"):
        "canary\udc80".encode()
    assert not caught.value.transient
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
