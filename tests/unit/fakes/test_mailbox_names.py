"""Folder names: how they are written on the wire, which there may be, and the tree that they make."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakemail.imap_protocol import mutf7
from fakemail.mailbox import (
    SPECIAL_USES,
    STANDARD_FOLDERS,
    ConflictError,
    MailboxError,
    MailStore,
    NotFoundError,
    canonical,
)

ADDRESS = "ann@example.test"


@pytest.fixture
def store():
    store = MailStore(seed=3)
    store.add_user(ADDRESS, "canary")
    return store


@pytest.fixture
def account(store):
    return store.user(ADDRESS)


# --- modified UTF-7 (RFC 3501 section 5.1.3) ---


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("", ""),
        ("plain", "plain"),
        ("a & b", "a &- b"),
        ("&", "&-"),
        ("Entwürfe", "Entw&APw-rfe"),
        ("L\xff", "L&AP8-"),
        ("~peter/mail/台北/日本語", "~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
        ("🙂", "&2D3eQg-"),
        ("☺!", "&Jjo-!"),
        ("tab\t", "tab&AAk-"),
        ('quote" and \\', 'quote" and \\'),
    ],
)
def test_a_name_is_written_as_the_rfc_says_and_read_back(name, wire):
    assert mutf7.encode(name) == wire
    assert mutf7.decode(wire) == name


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_every_name_is_printable_ascii_on_the_wire_and_comes_back(name):
    wire = mutf7.encode(name)
    assert all(" " <= each <= "~" for each in wire)
    assert mutf7.decode(wire) == name


@pytest.mark.parametrize(
    "wire",
    [
        "a & b",
        "&",
        "&&",
        "&AP8",
        "&A-",
        "&AP/8-",
        "&2D0-",
        "&AGE-",
        "&Jjo-&Jjo-",
        "&AP8=-",
        "caf\udce9",
    ],
)
def test_what_is_no_modified_utf7_or_not_its_one_form_is_refused(wire):
    with pytest.raises(ValueError, match="modified UTF-7"):
        mutf7.decode(wire)


def test_a_name_in_utf8_is_taken_as_it_stands():
    assert mutf7.decode("Entwürfe") == "Entwürfe"


@given(st.text(st.sampled_from("&-A8PJjo,/+ab "), max_size=12))
def test_a_wire_form_that_is_read_is_the_only_one_of_its_name(wire):
    try:
        name = mutf7.decode(wire)
    except ValueError:
        return
    assert mutf7.encode(name) == wire


# --- which names there may be ---


@pytest.mark.parametrize(
    "name",
    ['q"uote', "back\\slash", "123", "two words", "&- &JiI-", "Entwürfe/ä", "a" * 255, "In", "(", "{5}", "~", "NIL"],
)
def test_a_name_may_have_almost_any_character(store, account, name):
    assert store.create(account, name).name == name
    assert name in account.names


@pytest.mark.parametrize("name", ["", "/", "a*", "50%", "/a", "a//b", "a//", "x" * 256, "a\nb", "a\0", "\x7f"])
def test_what_is_no_folder_name_is_refused(store, account, name):
    with pytest.raises(MailboxError, match="is no folder name"):
        store.create(account, name)
    assert set(account.names) == set(STANDARD_FOLDERS)


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [("inbox", "INBOX"), ("InBox/Lists", "INBOX/Lists"), ("inboxes", "inboxes"), ("x/inbox", "x/inbox"), ("x", "x")],
)
def test_inbox_is_inbox_in_any_case(given_name, kept):
    assert canonical(given_name) == kept


def test_a_separator_at_the_end_only_says_that_names_will_come_below(store, account):
    assert store.create(account, "z/").name == "z"
    store.create(account, "z/x")
    with pytest.raises(ConflictError):
        store.create(account, "z/")


# --- the tree ---


def test_the_names_above_a_new_one_are_made_too(store, account):
    store.create(account, "p/q/r")
    assert {"p", "p/q", "p/q/r"} <= account.folders.keys()
    assert account.below("p") == ["p/q", "p/q/r"]


def test_a_folder_that_is_deleted_keeps_the_names_below_it(store, account):
    store.create(account, "p/q/r")
    store.delete(account, "p")
    assert account.placeholders == {"p"}
    assert account.below("p") == ["p/q", "p/q/r"]
    with pytest.raises(ConflictError):
        store.delete(account, "p")
    store.delete(account, "p/q")
    store.delete(account, "p/q/r")
    assert not account.placeholders
    assert set(account.names) == set(STANDARD_FOLDERS)


def test_a_placeholder_can_be_made_a_folder_again_with_a_greater_uidvalidity(store, account):
    first = store.create(account, "p").uidvalidity
    store.create(account, "p/q")
    store.delete(account, "p")
    assert store.create(account, "p").uidvalidity > first
    assert not account.placeholders


def test_a_rename_takes_along_what_is_below_the_use_and_no_subscription(store, account):
    store.create(account, "p/q/r", use="\\Archive")
    store.delete(account, "p/q")
    account.subscribed.add("p/q/r")
    folder = account.folder("p/q/r")
    store.rename(account, "p", "new/deep")
    assert account.below("new") == ["new/deep", "new/deep/q", "new/deep/q/r"]
    assert account.folder("new/deep/q/r") is folder
    assert (folder.name, account.uses["new/deep/q/r"]) == ("new/deep/q/r", "\\Archive")
    assert account.placeholders == {"new/deep/q"}
    assert "p/q/r" in account.subscribed
    assert "p" not in account.names


def test_a_rename_of_inbox_moves_the_mail_alone(store, account):
    inbox = account.folder("INBOX")
    store.create(account, "INBOX/below")
    store.store(inbox, b"one", flags=["$x"], received_s=9, zone_min=60)
    store.rename(account, "inbox", "Old")
    assert account.folder("INBOX") is inbox
    assert not inbox.uids
    assert account.below("INBOX") == ["INBOX/below"]
    old = account.folder("Old")
    assert (old.raw(1), old.flags(1), old.received(1)) == (b"one", {"$x"}, (9, 60))
    assert inbox.uidnext == 2


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("nowhere", "x", NotFoundError),
        ("Sent", "Trash", ConflictError),
        ("Sent", "inbox", ConflictError),
        ("Sent", "Sent", ConflictError),
        ("Sent", "Sent/below", MailboxError),
        ("Sent", "a*", MailboxError),
        ("INBOX", "Trash", ConflictError),
    ],
)
def test_an_impossible_rename_changes_nothing(store, account, old, new, error):
    before = account.names
    with pytest.raises(error):
        store.rename(account, old, new)
    assert account.names == before


def test_inbox_can_not_be_deleted_and_not_be_made_again(store, account):
    with pytest.raises(ConflictError):
        store.delete(account, "inbox")
    with pytest.raises(ConflictError):
        store.create(account, "Inbox")


def test_special_uses_are_those_of_the_rfc():
    assert set(SPECIAL_USES) >= {use for use in STANDARD_FOLDERS.values() if use}


TREE = ("a", "b", "a/a", "a/b", "a/b/a", "b/a", "INBOX", "INBOX/a")
DEEDS = st.lists(
    st.tuples(st.sampled_from(["create", "delete", "rename"]), st.sampled_from(TREE), st.sampled_from(TREE)),
    max_size=25,
)


@given(DEEDS)
@settings(deadline=None)
def test_whatever_is_done_the_tree_stays_a_tree_and_no_name_has_a_uidvalidity_twice(deeds):
    store = MailStore(seed=3)
    account = store.add_user(ADDRESS, "x")
    seen: dict[tuple[str, int], object] = {}
    for what, first, second in deeds:
        names = (account, first, second) if what == "rename" else (account, first)
        try:
            getattr(store, what)(*names)
        except MailboxError:
            continue
        assert "INBOX" in account.folders
        assert not account.placeholders & account.folders.keys()
        assert all(account.below(name) for name in account.placeholders)
        assert all(name == folder.name for name, folder in account.folders.items())
        for name in account.names:
            above = name.rpartition("/")[0]
            assert not above or above in account.names
        for name, folder in account.folders.items():
            assert seen.setdefault((name, folder.uidvalidity), folder) is folder
