"""What a synthesised message costs, by profile and by what is asked of it; and what a seed costs once.

``bench_fakemail_synthesis`` holds the promised speeds; here the rest is looked at. A round is 1,000 messages: a median
of 10 ms is 10 µs for each.
"""

from __future__ import annotations

import pytest

from fakemail.synthesis import PROFILES, Source
from fakemail.synthesis.layouts import slots_of
from fakemail.synthesis.pools import pool_of

UIDS = range(1, 1001)


def source(profile):
    made = Source(seed=1, address="ann@example.test", folder="INBOX", profile=profile)
    for uid in UIDS:
        made.raw(uid)
    return made


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.benchmark(group="synthesis: 1,000 messages")
def bench_raw(benchmark, profile):
    made = source(profile)
    assert benchmark(lambda: sum(len(made.raw(uid)) for uid in UIDS)) > len(UIDS) * 10_000


@pytest.mark.parametrize("asked", ["header", "size", "received", "flags_index", "flags", "kind", "message_id", "facts"])
@pytest.mark.benchmark(group="synthesis: 1,000 of a message's facts")
def bench_fact(benchmark, asked):
    ask = getattr(source("small"), asked)
    assert len(benchmark(lambda: [ask(uid) for uid in UIDS])) == len(UIDS)


@pytest.mark.benchmark(group="synthesis: 1,000 of a message's facts")
def bench_flags_indexes(benchmark):
    made = source("small")
    assert len(benchmark(lambda: made.flags_indexes(UIDS))) == len(UIDS)


@pytest.mark.benchmark(group="synthesis: once")
def bench_pools_of_a_seed(benchmark):
    """Once per seed; less than 100 ms was promised."""
    assert benchmark(lambda: pool_of.__wrapped__(2)).noise.lines


@pytest.mark.benchmark(group="synthesis: once")
def bench_layouts_of_an_inbox(benchmark):
    """Once per process."""
    assert benchmark(lambda: slots_of.__wrapped__("inbox"))


@pytest.mark.benchmark(group="synthesis: once")
def bench_source(benchmark):
    """Once per folder."""
    assert benchmark(lambda: Source(seed=1, address="ann@example.test", folder="INBOX", profile="small"))
