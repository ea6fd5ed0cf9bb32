"""Users, how mail gets in, limits, and what a reset leaves."""

from __future__ import annotations

import pytest

from fakemail.mailbox import (
    SEED_COUNT_MAX,
    SEEN,
    STANDARD_FOLDERS,
    Limits,
    MailboxError,
    MailStore,
    NotFoundError,
)

ADDRESS = "ann@example.test"


@pytest.fixture
def store():
    store = MailStore(seed=3, clock=lambda: 1_700_000_000_000_000_000)
    store.add_user("Ann@Example.test", "canary")
    return store


@pytest.fixture
def account(store):
    return store.user(ADDRESS)


@pytest.fixture
def inbox(account):
    return account.folder("inbox")


# --- users ---


def test_a_user_has_the_standard_folders_with_their_uses_and_subscribed(account):
    assert account.names == sorted(STANDARD_FOLDERS)
    assert account.uses == {name: use for name, use in STANDARD_FOLDERS.items() if use}
    assert account.subscribed == set(STANDARD_FOLDERS)


def test_adding_a_user_again_changes_the_password_alone(store, inbox):
    store.seed_folder(inbox, count=2)
    store.add_user(ADDRESS, "other", "token")
    assert store.login(ADDRESS, "canary") is None
    assert len(store.login("ANN@example.test", "other").folder("INBOX").uids) == 2
    assert store.login_token(ADDRESS, "token") is not None


def test_users_are_listed_by_address(store):
    store.add_user("aa@example.test", "x")
    assert [user.address for user in store.users] == ["aa@example.test", ADDRESS]
    with pytest.raises(NotFoundError):
        store.user("nobody@example.test")


@pytest.mark.parametrize("password", ["", "caf\udce9", "Canary", "canary "])
def test_a_wrong_password_of_any_characters_is_no(store, password):
    assert store.login(ADDRESS, password) is None
    assert store.login("nobody@example.test", "canary") is None


def test_a_token_is_another_secret_and_where_there_is_none_the_password_is(store):
    assert store.login_token(ADDRESS, "canary") is not None
    store.add_user("bob@example.test", "password", "token")
    assert store.login_token("BOB@example.test", "token") is not None
    assert store.login_token("bob@example.test", "password") is None
    assert store.login("bob@example.test", "token") is None
    assert store.login_token("nobody@example.test", "token") is None


def test_a_password_and_a_token_are_in_no_repr(store):
    store.add_user(ADDRESS, "canary-password", "canary-token")
    assert "canary" not in repr(store.user(ADDRESS))


@pytest.mark.parametrize("address", ["", "ann", "@x", "ann@", "a b@x.test", "å@x.test", "a@b@c"])
def test_what_is_no_address_is_refused(store, address):
    with pytest.raises(MailboxError, match="allowed: local-part@domain"):
        store.add_user(address, "x")


# --- UIDVALIDITY ---


def test_a_folder_made_again_has_a_greater_uidvalidity(store, account):
    first = store.create(account, "Projects").uidvalidity
    store.delete(account, "Projects")
    assert store.create(account, "Projects").uidvalidity > first


def test_uidvalidity_depends_on_the_seed_and_the_address_and_survives_a_reset(store, inbox):
    there = MailStore(seed=3).add_user(ADDRESS, "x").folder("INBOX").uidvalidity
    assert there == inbox.uidvalidity
    assert MailStore(seed=4).add_user(ADDRESS, "x").folder("INBOX").uidvalidity != there
    store.reset()
    assert store.add_user(ADDRESS, "x").folder("INBOX").uidvalidity > there


def test_a_renumbered_folder_has_the_same_mail_from_uid_1(store, account, inbox):
    store.seed_folder(inbox, count=100, gaps=2)
    store.store(inbox, b"own", flags=[SEEN, "$x"], received_s=9, zone_min=60)
    inbox.expunge(inbox.uids.between(1, 50))
    mail = [(inbox.raw(uid), inbox.flags(uid), inbox.received(uid)) for uid in inbox.uids]
    after = store.reset_uidvalidity(account, "inbox")
    assert account.folder("INBOX") is after
    assert after.uidvalidity > inbox.uidvalidity
    assert list(after.uids) == list(range(1, len(mail) + 1))
    assert [(after.raw(uid), after.flags(uid), after.received(uid)) for uid in after.uids] == mail
    assert (inbox.closed != "", after.closed, after.recent_from) == (True, "", after.uidnext)


def test_seeded_mail_that_comes_after_a_renumbering_is_new(store, account, inbox):
    store.seed_folder(inbox, count=10)
    inbox.expunge(inbox.uids.between(1, 4))
    for _ in range(2):
        inbox = store.reset_uidvalidity(account, "INBOX")
        store.seed_folder(inbox, count=5)
    bodies = [inbox.raw(uid) for uid in inbox.uids]
    assert len(set(bodies)) == len(bodies) == 16


# --- mail ---


def test_stored_mail_comes_after_seeded_mail_and_before_more(store, inbox):
    store.seed_folder(inbox, count=2)
    uid = store.store(inbox, b"Subject: x\r\n\r\n")
    store.seed_folder(inbox, count=1, seed=9)
    assert (uid, list(inbox.uids), inbox.uidnext) == (3, [1, 2, 3, 4], 5)
    assert (inbox.raw(3), inbox.received(3)) == (b"Subject: x\r\n\r\n", (1_700_000_000, 0))


def test_seeding_without_a_seed_takes_the_stores(store, inbox):
    store.seed_folder(inbox, count=1)
    there = MailStore(seed=3).add_user(ADDRESS, "x").folder("INBOX")
    there.seed(count=1, seed=3, profile="small")
    assert inbox.raw(1) == there.raw(1)


@pytest.mark.parametrize(("count", "profile"), [(-1, "small"), (SEED_COUNT_MAX + 1, "small"), (1, "giant")])
def test_impossible_seeds_are_refused(store, inbox, count, profile):
    with pytest.raises(MailboxError, match="allowed"):
        store.seed_folder(inbox, count=count, profile=profile)
    assert not inbox.uids


def test_more_mail_than_there_are_uids_is_refused(store, inbox):
    inbox.uidnext = 0xFFFF_FFFF - 5
    with pytest.raises(MailboxError, match="0 to 5"):
        store.seed_folder(inbox, count=6)
    with pytest.raises(MailboxError, match="0 to 2"):
        store.seed_folder(inbox, count=3, gaps=1)


def test_no_mail_is_no_change(store, inbox):
    before = inbox.highestmodseq
    assert not store.seed_folder(inbox, count=0)
    assert inbox.highestmodseq == before


def test_mail_is_delivered_to_local_users_once_and_is_recent(store, inbox):
    local = store.deliver(["ANN@example.test", ADDRESS, "far@elsewhere.test"], b"\r\nhello")
    assert local == [ADDRESS]
    assert list(inbox.uids) == [1]
    assert inbox.recent_from == 1


# --- limits and reset ---


def test_there_is_room_up_to_the_limits(store):
    store.connections["imap", ""] += 1
    store.connections["imap", ADDRESS] += 2
    store.connections["smtp", ADDRESS] += 1
    assert store.has_room("imap")
    assert store.has_room("imap", ADDRESS)
    store.limits = Limits(connections=5, connections_per_user=3)
    assert store.has_room("imap")
    assert store.has_room("imap", ADDRESS)
    store.limits = Limits(connections=4, connections_per_user=2)
    assert not store.has_room("imap")
    assert not store.has_room("imap", ADDRESS)
    assert store.has_room("smtp", ADDRESS)


def test_a_reset_forgets_users_and_limits_and_sends_sessions_away(store, inbox):
    store.limits = Limits(connections=1)
    store.reset()
    assert not store.users
    assert inbox.closed
    assert store.limits == Limits()
