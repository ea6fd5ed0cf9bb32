"""Threads: who answers what, and that header fields say so."""

import email
import email.policy
from collections import Counter

import pytest

from fakemail.synthesis import Source

UID_MAX = (1 << 32) - 1
RANGES = [range(1, 600), range(UID_MAX - 200, UID_MAX + 1)]


def source(folder="INBOX", seed=7):
    return Source(seed=seed, address="ann@example.test", folder=folder, profile="small")


def header(made, uid):
    return email.message_from_bytes(made.header(uid), policy=email.policy.default)


@pytest.mark.parametrize("uids", RANGES)
@pytest.mark.parametrize("folder", ["INBOX", "Sent", "Junk"])
def test_a_reply_names_its_ancestors_and_they_are_earlier_messages(folder, uids):
    made, replies = source(folder), 0
    for uid in uids:
        facts, fields = made.facts(uid), header(made, uid)
        names = [made.message_id(each).decode() for each in facts.ancestors]
        assert fields["References"] == (" ".join(names) if names else None)
        assert fields["In-Reply-To"] == (names[-1] if names else None)
        assert all(0 < each < uid for each in facts.ancestors)
        assert list(facts.ancestors) == sorted(facts.ancestors)
        assert facts.parent == (facts.ancestors[-1] if facts.ancestors else None)
        replies += bool(names)
    assert replies


@pytest.mark.parametrize("uids", RANGES)
def test_the_ancestors_of_a_parent_are_those_of_its_child(uids):
    made = source()
    for uid in uids:
        *earlier, parent = made.facts(uid).ancestors or (None,)
        if parent is not None:
            assert list(made.facts(parent).ancestors) == earlier
            assert header(made, parent)["Message-ID"] == header(made, uid)["In-Reply-To"]


@pytest.mark.parametrize("uids", RANGES)
def test_a_reply_has_the_subject_and_the_language_of_its_root(uids):
    made = source()
    for uid in uids:
        facts = made.facts(uid)
        if facts.ancestors:
            root = made.facts(facts.ancestors[0])
            assert root.subject == str(header(made, facts.ancestors[0])["Subject"])
            assert str(header(made, uid)["Subject"]) == f"Re: {root.subject}"
            assert (facts.language, facts.charset, facts.kind) == (root.language, root.charset, root.kind)


def test_message_ids_are_unique_within_a_folder_and_between_folders():
    sources = [
        source(),
        source("Sent"),
        source(seed=8),
        Source(seed=7, address="b@c.test", folder="INBOX", profile="small"),
    ]
    names = [made.message_id(uid) for made in sources for uid in [*range(1, 3000), *range(UID_MAX - 50, UID_MAX + 1)]]
    assert len(set(names)) == len(names)


def test_the_message_id_in_the_header_is_the_one_that_is_told():
    made = source()
    for uid in range(1, 1500):
        assert b"\r\nMessage-ID: " + made.message_id(uid) + b"\r\n" in made.header(uid)


def test_a_third_of_an_inbox_answers_something_and_some_threads_are_long():
    made = source()
    depths = Counter(len(made.facts(uid).ancestors) for uid in range(1, 20_001))
    assert 0.30 < 1 - depths[0] / 20_000 < 0.42
    assert sum(depths[depth] for depth in range(5, 10)) > 200
    assert max(depths) <= 9


def test_some_messages_are_answered_more_than_once():
    made = source()
    parents = Counter(made.facts(uid).parent for uid in range(1, 2000))
    del parents[None]
    assert max(parents.values()) >= 3


def test_only_honest_mail_is_answered():
    made = source()
    kinds = {made.kind(parent) for uid in range(1, 5000) if (parent := made.facts(uid).parent)}
    assert kinds == {"personal", "list"}


def test_who_answers_belongs_to_the_thread():
    """A thread has at most four people, who sit side by side in the table of its language."""
    made, people = source(), {}
    for uid in range(1, 2000):
        facts = made.facts(uid)
        if facts.ancestors:
            sender = header(made, uid)["From"].addresses[0].addr_spec
            people.setdefault(facts.ancestors[0], set()).add(sender)
    assert max(map(len, people.values())) <= 4
    assert sum(len(each) > 1 for each in people.values()) > 20
