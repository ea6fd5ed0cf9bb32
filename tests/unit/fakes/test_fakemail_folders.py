"""Users, folders and the ledger."""

import pytest

from fakemail.ledger import Ledger
from fakemail.mailbox import DELETED, SEEN, ConflictError, MailboxError, MailStore, NotFoundError
from fakemail.synthesis import synthesise


@pytest.fixture
def store():
    store = MailStore(seed=3, clock=lambda: 1_700_000_000_000_000_000)
    store.add_user("Ann@Example.test", "canary")
    return store


@pytest.fixture
def inbox(store):
    return store.user("ann@example.test").folder("inbox")


def test_a_user_has_the_standard_folders(store):
    assert sorted(store.user("ann@example.test").folders) == ["Drafts", "INBOX", "Junk", "Sent", "Trash"]


def test_adding_a_user_again_changes_the_password_alone(store, inbox):
    inbox.seed(count=2, seed=1, profile="small")
    store.add_user("ann@example.test", "other")
    assert store.login("ann@example.test", "canary") is None
    assert len(store.login("ANN@example.test", "other").folder("INBOX").uids) == 2


def test_a_wrong_password_of_any_characters_is_no(store):
    assert store.login("ann@example.test", "") is None
    assert store.login("ann@example.test", "caf\udce9") is None
    assert store.login("nobody@example.test", "canary") is None


def test_a_password_is_in_no_repr(store):
    assert "canary" not in repr(store.user("ann@example.test"))


@pytest.mark.parametrize("address", ["", "ann", "@x", "ann@", "a b@x.test", "å@x.test", "a@b@c"])
def test_what_is_no_address_is_refused(store, address):
    with pytest.raises(MailboxError, match="allowed: local-part@domain"):
        store.add_user(address, "x")


def test_seeded_mail_is_what_its_name_says(inbox):
    uids = inbox.seed(count=3, seed=11, profile="small")
    assert list(uids) == [1, 2, 3]
    assert inbox.mail(2).raw == synthesise(seed=11, address="ann@example.test", folder="INBOX", uid=2)


def test_stored_mail_comes_after_seeded_mail_and_before_more(store, inbox):
    inbox.seed(count=2, seed=1, profile="small")
    uid = store.store(inbox, b"Subject: x\r\n\r\n")
    inbox.seed(count=1, seed=2, profile="small")
    assert (uid, inbox.uids, inbox.uidnext) == (3, [1, 2, 3, 4], 5)
    assert inbox.mail(3).raw == b"Subject: x\r\n\r\n"
    assert inbox.mail(3).received.isoformat() == "2023-11-14T22:13:20+00:00"


def test_an_expunged_uid_is_never_used_again(inbox):
    inbox.seed(count=3, seed=1, profile="small")
    inbox.expunge([3, 99])
    assert inbox.mail(3) is None
    assert inbox.flags(3) == frozenset()
    inbox.set_flags(3, frozenset({SEEN}))
    assert inbox.flags(3) == frozenset()
    assert list(inbox.seed(count=1, seed=1, profile="small")) == [4]


def test_a_folder_tells_which_flags_changed_since(inbox):
    inbox.seed(count=3, seed=1, profile="small")
    version = inbox.version
    inbox.set_flags(2, frozenset({SEEN}))
    inbox.set_flags(2, frozenset({SEEN}))
    assert inbox.version == version + 1
    assert inbox.flagged_since(version) == [2]
    assert inbox.flagged_since(inbox.version) == []


def test_a_folder_made_again_has_a_greater_uidvalidity(store):
    account = store.user("ann@example.test")
    first = store.create(account, "Projects").uidvalidity
    store.delete(account, "Projects")
    assert store.create(account, "Projects").uidvalidity > first


def test_uidvalidity_depends_on_the_seed_alone_and_survives_no_reset(store):
    other = MailStore(seed=3)
    there = other.add_user("ann@example.test", "x").folder("INBOX").uidvalidity
    assert there == store.user("ann@example.test").folder("INBOX").uidvalidity
    store.reset()
    assert store.add_user("ann@example.test", "x").folder("INBOX").uidvalidity > there


@pytest.mark.parametrize("name", ["", "a*", "50%", "/a", "a/", 'q"', "b\\", "ü", "x" * 256, "a\nb"])
def test_what_is_no_folder_name_is_refused(store, name):
    with pytest.raises(MailboxError, match="is no folder name"):
        store.create(store.user("ann@example.test"), name)


def test_inbox_exists_once_and_for_ever(store):
    account = store.user("ann@example.test")
    with pytest.raises(ConflictError):
        store.create(account, "Inbox")
    with pytest.raises(ConflictError):
        store.delete(account, "INBOX")
    with pytest.raises(NotFoundError):
        account.folder("nowhere")


@pytest.mark.parametrize(("count", "profile"), [(-1, "small"), (1_000_001, "small"), (1, "giant")])
def test_impossible_seeds_are_refused(store, inbox, count, profile):
    with pytest.raises(MailboxError, match="allowed"):
        store.seed_folder(inbox, count=count, seed=None, profile=profile)


def test_mail_is_delivered_to_local_users_once(store, inbox):
    local = store.deliver(["ANN@example.test", "ann@example.test", "far@elsewhere.test"], b"\r\nhello")
    assert local == ["ann@example.test"]
    assert len(inbox.uids) == 1


def test_watchers_hear_of_every_change(store, inbox):
    heard = []
    store.watchers.add(lambda: heard.append(inbox.version))
    inbox.seed(count=1, seed=1, profile="small")
    inbox.set_flags(1, frozenset({DELETED}))
    inbox.expunge([1])
    inbox.expunge([1])
    assert len(heard) == 3


def ledger_of(count, capacity=5):
    ledger = Ledger(capacity=capacity, clock=lambda: 42)
    for number in range(count):
        ledger.record(protocol="smtp", connection=1, kind="accepted", number=number)
    return ledger


def test_an_entry_has_its_place_and_time():
    assert ledger_of(1).after(0, limit=9) == [
        {"seq": 1, "time_ns": 42, "protocol": "smtp", "connection": 1, "kind": "accepted", "number": 0}
    ]


def test_entries_come_after_a_seq_page_by_page():
    ledger = ledger_of(5)
    assert [e["seq"] for e in ledger.after(0, limit=2)] == [1, 2]
    assert [e["seq"] for e in ledger.after(2, limit=2)] == [3, 4]
    assert ledger.after(5, limit=2) == []
    assert ledger.after(99, limit=2) == []


def test_the_oldest_entries_make_room_and_are_counted():
    ledger = ledger_of(8)
    assert ledger.dropped == 3
    assert [e["seq"] for e in ledger.after(1, limit=9)] == [4, 5, 6, 7, 8]


def test_numbers_go_on_after_clear():
    ledger = ledger_of(3)
    ledger.clear()
    ledger.record(protocol="imap", connection=2, kind="connect")
    assert [e["seq"] for e in ledger.after(0, limit=9)] == [4]
    assert ledger.dropped == 0
