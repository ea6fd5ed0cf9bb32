"""Timelines: the same seed, the same events, in any process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fakemail.mailbox import MailStore
from fakemail.timeline import Weights

ADDRESS = "ann@example.test"
EVERYTHING = Weights(arrive=40, flags=30, expunge=20, reset=2)

#: Run in processes of their own: strings have another hash in each.
SCRIPT = """
from fakemail.mailbox import MailStore
from fakemail.timeline import Weights
store = MailStore(seed=5)
account = store.add_user("ann@example.test", "x")
store.seed_folder(account.folder("INBOX"), count=50)
print(store.advance(account, "INBOX", 200, weights=Weights(arrive=40, flags=30, expunge=20, reset=2)))
inbox = account.folder("INBOX")
print([(uid, sorted(inbox.flags(uid)), inbox.raw(uid)[:200]) for uid in inbox.uids])
"""


def story(*, seed=5, steps=200, weights=EVERYTHING, count=50, name="INBOX"):
    store = MailStore(seed=seed)
    account = store.add_user(ADDRESS, "x")
    store.seed_folder(account.folder(name), count=count, seed=1)
    return store.advance(account, name, steps, weights=weights), account.folder(name)


def test_the_same_seed_tells_the_same_story():
    first, second = story(), story()
    assert first[0] == second[0]
    assert [(uid, first[1].flags(uid), first[1].raw(uid)) for uid in first[1].uids] == [
        (uid, second[1].flags(uid), second[1].raw(uid)) for uid in second[1].uids
    ]


@pytest.mark.parametrize("other", [{"seed": 6}, {"name": "Sent"}, {"weights": Weights()}])
def test_another_seed_folder_or_weighting_tells_another(other):
    assert story()[0] != story(**other)[0]


def test_the_story_is_the_same_in_every_process():
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert told[0] == told[1]
    assert told[0].count("Event(") == 200


def test_steps_one_by_one_are_steps_at_once():
    store = MailStore(seed=5)
    account = store.add_user(ADDRESS, "x")
    store.seed_folder(account.folder("INBOX"), count=50, seed=1)
    one_by_one = [store.advance(account, "INBOX", 1, weights=EVERYTHING)[0] for _ in range(200)]
    assert one_by_one == story()[0]
    assert [event.step for event in one_by_one] == list(range(1, 201))


def test_every_kind_of_event_happens_about_as_often_as_its_weight_says():
    events, _ = story(steps=2000, weights=Weights(arrive=50, flags=30, expunge=20, reset=0))
    counts = {kind: sum(event.kind == kind for event in events) for kind in ("arrive", "flags", "expunge", "reset")}
    assert counts["reset"] == 0
    assert 900 < counts["arrive"] < 1100
    assert 500 < counts["flags"] < 700
    assert 300 < counts["expunge"] < 500


@pytest.mark.parametrize("kind", ["arrive", "flags", "expunge", "reset"])
def test_an_event_says_what_it_did(kind):
    store = MailStore(seed=5)
    account = store.add_user(ADDRESS, "x")
    store.seed_folder(account.folder("INBOX"), count=3, seed=1)
    before = account.folder("INBOX")
    flags, uids, uidvalidity = {uid: before.flags(uid) for uid in before.uids}, before.uids, before.uidvalidity
    weights = Weights(**{each: int(each == kind) for each in ("arrive", "flags", "expunge", "reset")})
    (event,) = store.advance(account, "INBOX", 1, weights=weights)
    after = account.folder("INBOX")
    assert (event.step, event.kind) == (1, kind)
    match kind:
        case "arrive":
            assert list(after.uids) == [*uids, event.uid]
            assert after.flags(event.uid) == frozenset()
            assert after.recent_from <= event.uid
        case "flags":
            assert tuple(sorted(after.flags(event.uid))) == event.flags
            assert len(after.flags(event.uid) ^ flags[event.uid]) == 1
        case "expunge":
            assert set(uids) - set(after.uids) == {event.uid}
        case "reset":
            assert (event.uid, after.uidvalidity > uidvalidity) == (0, True)
            assert before.closed


def test_nothing_can_happen_to_the_messages_of_an_empty_folder():
    events, after = story(count=0, steps=3, weights=Weights(arrive=0, flags=1, expunge=1))
    assert [event.kind for event in events] == ["nothing"] * 3
    assert not after.uids


def test_weights_of_nothing_are_a_quiet_folder():
    events, after = story(count=1, steps=2, weights=Weights(arrive=0, flags=0, expunge=0))
    assert [event.kind for event in events] == ["nothing", "nothing"]
    assert len(after.uids) == 1


def test_a_step_goes_on_counting_after_a_reset():
    events, after = story(steps=300, weights=Weights(arrive=1, flags=1, expunge=1, reset=3))
    assert [event.step for event in events] == list(range(1, 301))
    assert after.step == 300


def test_no_message_comes_twice_not_even_after_a_renumbering():
    _, after = story(steps=400, weights=Weights(arrive=10, flags=0, expunge=5, reset=1))
    bodies = [after.raw(uid) for uid in after.uids]
    assert len(set(bodies)) == len(bodies) > 100
