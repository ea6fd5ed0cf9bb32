"""What an IMAP server's replies mean, without a server."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service.errors import ImapError
from email_service.imap import RemoteFolder, SyncToken, replies, wire
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


def test_a_flat_list_is_cut_into_replies_after_the_last_literal_of_each():
    pieces = [b"1 ()", (b"2 (A {1}", b"x"), (b" B {1}", b"y"), b")", None, b""]
    assert list(replies.replies_of(pieces)) == [[b"1 ()"], [pieces[1], pieces[2], b")"], [b""]]


def test_items_are_pairs_by_upper_case_name():
    assert replies.items_of([b"1", [b"uid", b"5", b"Flags", [b"x"], b"ODD"]]) == {b"UID": b"5", b"FLAGS": [b"x"]}
    assert replies.items_of([b"1"]) == {}


# --- messages -------------------------------------------------------------------------------------------------------


def test_a_message_has_what_the_reply_says():
    items = {b"BODY[]": b"abc", b"FLAGS": [b"\\Seen", None], b"INTERNALDATE": b" 1-jan-2026 00:00:00 +0130"}
    message = replies.message_of(7, items)
    assert (message.uid, message.raw, message.size_bytes, message.flags) == (7, b"abc", 3, ("\\Seen",))
    assert message.internal_date == datetime(2025, 12, 31, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize("items", [{}, {b"BODY[]": None}, {b"BODY[]": [b"x"]}])
def test_a_message_without_a_body_is_asked_for_again(items):
    with pytest.raises(ImapError) as caught:
        replies.message_of(7, items)
    assert caught.value.transient


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
    for part in replies.uid_set(uids).split(","):
        first, _, last = part.partition(":")
        named.extend(range(int(first), int(last or first) + 1))
    assert named == uids


def test_neighbours_are_one_range():
    assert replies.uid_set([1, 2, 3, 5, 7, 8]) == "1:3,5,7:8"


@pytest.mark.parametrize("modseq", [None, 715194045007])
def test_a_token_survives_json(modseq):
    token = SyncToken(uidvalidity=7, last_uid=9, highestmodseq=modseq)
    assert SyncToken.from_json(token.to_json()) == token
    assert SyncToken.from_json({"uidvalidity": 7, "last_uid": 9, "highestmodseq": modseq}) == token


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
    assert replies.decode_name(wire_name) == name
    assert replies.encode_name(name) == wire_name


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_every_name_comes_back(name):
    encoded = replies.encode_name(name)
    assert replies.decode_name(encoded) == name
    assert all(0x20 <= byte <= 0x7E for byte in encoded)


@pytest.mark.parametrize("name", [b"a&b", b"&!!-", b"&A-", b"&2D0-", b"&AAA-"])
def test_a_name_that_is_no_modified_utf7_stays_as_it_is(name):
    assert replies.decode_name(name) == name.decode()


def listed(*texts):
    found = [replies.listed_folder(tokens([text])) for text in texts]
    return replies.typed_folders([folder for folder in found if folder is not None])


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
    assert replies.listed_folder([[], b"/", b"a\r\nb"]) is None


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
    assert wire._is_transient(text, otherwise=otherwise) is transient


def test_an_unknown_error_of_the_library_is_not_swallowed():
    with pytest.raises(KeyError), wire.errors("LIST"):
        raise KeyError


def test_a_text_that_could_not_be_encoded_is_not_in_the_error():
    with pytest.raises(ImapError) as caught, wire.errors("LIST"):
        "canary\udc80".encode()
    assert not caught.value.transient
    assert caught.value.__cause__ is None
    assert "canary" not in str(caught.value)
