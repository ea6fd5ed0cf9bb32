"""One folder: what it holds, when it changed, what a copy keeps, and how little a million messages take."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakemail.folder import DELETED, SEEN, Folder, Stored, sizes, unseen
from fakemail.mailbox import MailStore
from fakemail.synthesis import synthesise
from fakemail.uids import UidSet, batches, pieces

ADDRESS = "ann@example.test"


def folder(name="INBOX"):
    return Folder(address=ADDRESS, name=name, uidvalidity=7)


def seeded(count, *, gaps=0, recent=False):
    made = folder()
    made.seed(count=count, seed=3, profile="small", gaps=gaps, recent=recent)
    return made


def mixed():
    """Seeded mail with and without holes, mail from outside between, some of it changed, some gone."""
    made = seeded(40)
    made.add(Stored(raw=b"Subject: own\r\n\r\nx", received_s=1_700_000_000, zone_min=-330), ["$Own", SEEN])
    made.seed(count=150, seed=3, profile="small", gaps=4)
    made.add(Stored(raw=b"\r\nno header", received_s=5))
    for uid in list(made.uids)[::7]:
        made.set_flags(uid, {"\\Answered", "$seventh"})
    made.expunge(UidSet.single(list(made.uids)[::5]))
    return made


def contents(of):
    """All that a copy must keep, in order."""
    return [(of.raw(uid), of.header(uid), of.size(uid), of.received(uid), of.flags(uid)) for uid in of.uids]


# --- messages ---


def test_seeded_mail_is_what_its_name_says():
    made = seeded(3)
    assert list(made.uids) == [1, 2, 3]
    assert made.raw(2) == synthesise(seed=3, address=ADDRESS, folder="INBOX", uid=2)


@given(st.integers(1, 400))
@settings(max_examples=30)
def test_header_and_size_are_those_of_the_message(uid):
    made = seeded(400)
    raw = made.raw(uid)
    assert raw.startswith(made.header(uid))
    assert made.size(uid) == len(raw)


def test_mail_from_outside_keeps_its_bytes_its_date_and_its_zone():
    made = folder()
    uid = made.add(Stored(raw=b"a\n\xff\0", received_s=-5, zone_min=90), [SEEN, "$x"])
    assert (made.raw(uid), made.header(uid), made.size(uid)) == (b"a\n\xff\0", b"a\n\xff\0", 4)
    assert made.received(uid) == (-5, 90)
    assert made.flags(uid) == {SEEN, "$x"}


def test_a_message_that_never_was_is_a_key_error():
    with pytest.raises(KeyError):
        seeded(2).raw(3)


def test_an_expunged_uid_is_never_used_again():
    made = seeded(3)
    assert list(made.expunge(UidSet.single([3, 99]))) == [3]
    assert list(made.seed(count=1, seed=3, profile="small")) == [4]
    assert list(made.uids) == [1, 2, 4]


def test_gaps_leave_holes_of_their_width_and_come_from_the_seed_alone():
    made = seeded(500, gaps=3)
    assert len(made.uids) == 500
    ranges = list(made.uids.ranges())
    holes = {after[0] - before[1] - 1 for before, after in itertools.pairwise(ranges)}
    assert holes == {1, 2, 3}
    assert all(high - low < 32 for low, high in ranges)
    assert made.uids == seeded(500, gaps=3).uids


# --- flags ---


def test_a_block_of_flags_is_the_flags_of_each():
    made = mixed()
    for low, high in made.uids.ranges():
        assert list(made.flags_block(low, high)) == [made.flags(uid) for uid in range(low, high + 1)]


def test_a_block_may_span_ranges_and_mail_from_outside():
    made = seeded(10)
    made.add(Stored(raw=b"x", received_s=0), [DELETED])
    made.seed(count=10, seed=9, profile="small")
    made.set_flags(15, {SEEN})
    assert list(made.flags_block(1, 21)) == [made.flags(uid) for uid in range(1, 22)]
    assert made.flags_block(11, 11) == [{DELETED}]


def test_flags_are_set_only_where_there_is_a_message_and_a_change():
    made = seeded(2)
    before = made.highestmodseq
    assert not made.set_flags(3, {SEEN})
    assert not made.set_flags(1, made.flags(1))
    assert made.highestmodseq == before
    assert made.set_flags(1, made.flags(1) ^ {"\\Flagged"})
    assert made.highestmodseq == before + 1


def test_a_flag_has_one_spelling():
    made = folder()
    uid = made.add(Stored(raw=b"x", received_s=0), ["\\SEEN", "$Work"])
    assert made.flags(uid) == {SEEN, "$Work"}
    assert not made.set_flags(uid, ["\\seen", "$WORK"])
    assert list(made.keywords.values()) == ["$Work"]


def test_every_keyword_that_seeded_mail_may_have_is_known_from_the_start():
    made = seeded(1)
    table = {flag for uid in range(1, 2000) for flag in seeded(2000).flags(uid)} - {"\\Seen", "\\Answered", "\\Flagged"}
    assert {flag for flag in table if flag[0] != "\\"} <= set(made.keywords.values())


def test_counts_in_parts_are_counts():
    made = mixed()
    assert sum(unseen(made)) == sum(SEEN not in made.flags(uid) for uid in made.uids)
    assert sum(sizes(made)) == sum(map(made.size, made.uids))


@given(st.sets(st.integers(1, 60)), st.integers(1, 9))
def test_batches_hold_everything_once_and_are_of_a_size(numbers, length):
    uids = UidSet.single(numbers)
    found = [[each for low, high in batch for each in range(low, high + 1)] for batch in batches(uids, length=length)]
    assert [each for batch in found for each in batch] == sorted(numbers)
    assert all(length <= len(batch) < 2 * length for batch in found[:-1])
    assert all(high - low < length for low, high in pieces(uids, length=length))


# --- history ---

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["seed", "gaps", "many", "add", "flags", "expunge", "copy"]),
        st.integers(0, 1000),
        st.integers(0, 1000),
    ),
    max_size=12,
)


def some(uids, first, second):
    """A part of a set, of a few or of many."""
    if not uids:
        return uids
    low, high = sorted((uids.nth(1 + first % len(uids)), uids.nth(1 + second % len(uids))))
    return uids.between(low, high)


def happen(made, what, first, second):
    """Let something happen; the UIDs that changed or came, and those that went."""
    chosen = some(made.uids, first, second)
    if what == "expunge":
        return (), made.expunge(chosen)
    ways = {
        "seed": lambda: made.seed(count=1 + first % 5, seed=first % 2, profile="small"),
        "gaps": lambda: made.seed(count=1 + first % 80, seed=1, profile="small", gaps=1 + second % 3),
        "many": lambda: made.seed(count=65 + first % 20, seed=1, profile="small"),
        "add": lambda: [made.add(Stored(raw=b"%d" % first, received_s=first), ["$own"] * (second % 2))],
        "flags": lambda: [uid for uid in chosen if made.set_flags(uid, made.flags(uid) ^ {SEEN})],
        "copy": lambda: made.take(made, chosen),
    }
    return ways[what](), ()


@given(OPERATIONS)
@settings(deadline=None)
def test_what_changed_and_what_vanished_is_what_a_plain_log_says(operations):
    made = folder()
    changed, gone, marks = {}, {}, [made.highestmodseq]
    for what, first, second in operations:
        touched, lost = happen(made, what, first, second)
        now = made.highestmodseq
        changed.update(dict.fromkeys(touched, now))
        gone.update(dict.fromkeys(lost, now))
        assert (now > marks[-1]) == bool(list(touched) or list(lost))
        marks.append(now)
    alive = set(made.uids)
    assert alive == changed.keys() - gone.keys()
    for mark in marks:
        assert set(made.changed_since(mark)) == {uid for uid, when in changed.items() if when > mark and uid in alive}
        assert set(made.vanished_since(mark)) == {uid for uid, when in gone.items() if when > mark}
        assert {uid for uid in alive if made.modseq(uid) > mark} == set(made.changed_since(mark))
    assert all(made.modseq(uid) <= made.highestmodseq for uid in alive)


def test_nothing_has_changed_since_the_highest_of_all():
    made = mixed()
    assert not made.changed_since(made.highestmodseq)
    assert not made.vanished_since(made.highestmodseq)
    assert made.changed_since(0) == made.uids
    assert folder().highestmodseq == 1


# --- watchers and what they are still shown ---


class Watching:
    def __init__(self, of):
        self.told, self.heard = of.highestmodseq, 0
        of.watchers.add(self)

    def wake(self):
        self.heard += 1


def test_watchers_hear_of_every_change_and_of_nothing_else():
    made = seeded(3)
    watcher = Watching(made)
    changes = [
        lambda: made.set_flags(1, {"\\Flagged", "$a"}),
        lambda: made.add(Stored(raw=b"x", received_s=0)),
        lambda: made.seed(count=1, seed=1, profile="small"),
        lambda: made.take(made, made.uids),
        lambda: made.expunge(made.uids),
        lambda: made.close("because"),
    ]
    for number, change in enumerate(changes, 1):
        change()
        assert watcher.heard == number
    made.expunge(UidSet.single([1]))
    made.take(made, UidSet.of(()))
    made.set_flags(1, {SEEN})
    assert watcher.heard == len(changes)
    assert made.closed == "because"


def test_an_expunged_message_is_readable_until_every_watcher_was_told():
    made = folder()
    uid = made.add(Stored(raw=b"mine", received_s=0), ["$kept"])
    slow, quick = Watching(made), Watching(made)
    made.expunge(made.uids)
    quick.told = made.highestmodseq
    made.tidy()
    assert (made.raw(uid), made.flags(uid)) == (b"mine", {"$kept"})
    slow.told = made.highestmodseq
    made.tidy()
    with pytest.raises(KeyError):
        made.raw(uid)


def test_what_is_done_to_an_expunged_message_is_seen_by_who_is_still_shown_it_and_is_no_change():
    made = seeded(2)
    watcher = Watching(made)
    made.expunge(UidSet.single([2]))
    before = made.highestmodseq
    assert not made.set_flags(2, {"$late"})
    assert made.flags(2) == {"$late"}
    assert made.highestmodseq == before
    assert not made.changed_since(1) & UidSet.single([2])
    watcher.told = made.highestmodseq
    made.tidy()
    assert made.flags(2) != {"$late"}


# --- copies ---


def test_a_copy_keeps_bytes_flags_and_dates_and_gets_uids_in_order():
    source, target = mixed(), folder("Work")
    target.add(Stored(raw=b"before", received_s=0))
    new = target.take(source, source.uids)
    assert len(new) == len(source.uids)
    assert new.smallest == 2
    assert contents(target)[1:] == contents(source)
    assert target.changed_since(2) == new
    assert set(target.keywords.values()) >= {"$Own", "$seventh"}


def test_a_copy_of_a_copy_and_of_a_part_keeps_them_too():
    source, work, home = mixed(), folder("Work"), folder("Home")
    work.take(source, source.uids.between(30, 120))
    home.take(work, work.uids - UidSet.single([5, 6, 7]))
    expected = [row for row, uid in zip(contents(work), work.uids, strict=True) if uid not in {5, 6, 7}]
    assert contents(home) == expected
    work.take(work, work.uids)
    half = len(work.uids) // 2
    assert contents(work)[:half] == contents(work)[half:]


def test_a_copy_is_a_message_of_its_own():
    source, target = seeded(3), folder("Work")
    target.take(source, source.uids)
    kept = contents(target)
    source.set_flags(1, {"$later"})
    source.expunge(source.uids)
    assert contents(target) == kept


def test_an_expunged_message_that_is_still_shown_can_be_copied():
    source, target = folder(), folder("Work")
    uid = source.add(Stored(raw=b"going", received_s=9), ["$x"])
    Watching(source)
    source.expunge(source.uids)
    target.take(source, UidSet.single([uid]))
    assert (target.raw(1), target.flags(1), target.received(1)) == (b"going", {"$x"}, (9, 0))


def test_single_copies_of_neighbours_share_one_range():
    source, target = seeded(100), folder("Work")
    for uid in source.uids:
        target.take(source, UidSet.single([uid]))
    assert len(target._segments) == 1
    assert contents(target) == contents(source)
    assert len({target.modseq(uid) for uid in target.uids}) == 100


# --- a million messages ---

MILLION = 1_000_000


def measured(work):
    tracemalloc.start()
    kept = work()
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept
    return size_bytes


def big(count=MILLION, gaps=0):
    store = MailStore(seed=3)
    account = store.add_user(ADDRESS, "x")
    store.seed_folder(account.folder("INBOX"), count=count, gaps=gaps)
    return store, account


def test_a_million_messages_take_no_memory():
    big()  # tables that are made once are not the folder's
    assert measured(big) < 100_000


def test_a_million_messages_take_no_memory_after_they_were_renamed_copied_and_renumbered():
    store, account = big()
    first = account.folder("INBOX").raw(999_999)

    def work():
        store.rename(account, "INBOX", "Old")
        store.rename(account, "Old", "Older")
        older = account.folder("Older")
        account.folder("Sent").take(older, older.uids)
        store.reset_uidvalidity(account, "Older")
        return account.folder("Older")

    assert measured(work) < 100_000
    assert account.folder("Older").raw(999_999) == account.folder("Sent").raw(999_999) == first


def test_messages_with_gaps_take_few_bytes_each_also_renumbered():
    count = MILLION // 10
    store, account = big(count, gaps=3)
    size_bytes = measured(lambda: store.reset_uidvalidity(account, "INBOX"))
    assert list(account.folder("INBOX").uids.ranges()) == [(1, count)]
    assert size_bytes < 30 * count


def test_changes_of_a_few_among_a_million_are_found_at_once():
    _, account = big()
    inbox = account.folder("INBOX")
    mark = inbox.highestmodseq
    inbox.set_flags(500_000, {"$x"})
    inbox.expunge(UidSet.single([7]))
    assert str(inbox.changed_since(mark)) == "500000"
    assert str(inbox.vanished_since(mark)) == "7"
