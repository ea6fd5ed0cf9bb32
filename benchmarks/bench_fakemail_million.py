"""A mailbox of a million synthesised messages: what it costs to hold, to search and to list.

Memory is the kernel's high-water mark of the server's process: from its start to the SELECT, then set back before each
command.
"""

from __future__ import annotations

import neighbours
import pytest
from neighbours import PASSWORD, USER
from resident import MIB, Peak, high_water_bytes, resident_bytes
from speed import Row, Target, percentile

from wire import RawClient

COUNT, SIZES, ROUNDS = 1_000_000, 100_000, 5
CONFIG = f"""
[[user]]
address = "{USER}"
password = "{PASSWORD}"
seed = {COUNT}
"""
FLAGS = "FETCH 1:* (FLAGS)"


@pytest.fixture(scope="module")
def fakes():
    with neighbours.fakemail(config=CONFIG) as running:
        yield running


@pytest.fixture(scope="module")
def client(fakes):
    with RawClient(fakes.imap.address, user=USER, password=PASSWORD) as client:
        assert b"* %d EXISTS" % COUNT in client.read("SELECT INBOX")
        yield client


def memory(key, what, peak_bytes, rounds=1):
    target = Target(of="value", sign="<=", number=64)
    return Row(key=key, what=what, unit="MiB", ours=peak_bytes / MIB, target=target, rounds=rounds)


@pytest.mark.benchmark(group="a mailbox of 1,000,000")
def bench_select(benchmark, speeds, fakes, client):
    """The first of all: no other has set the high-water mark back."""
    benchmark.pedantic(lambda: client.run("SELECT INBOX"), rounds=ROUNDS, iterations=1)
    peak = high_water_bytes(fakes.pid) if Peak.kernel_keeps_a_mark() else resident_bytes(fakes.pid)
    what = "a mailbox of 1,000,000: resident at most from the start to its SELECT"
    speeds.add(memory("million-resident", what, peak))


@pytest.mark.benchmark(group="a mailbox of 1,000,000")
def bench_search_all(benchmark, speeds, fakes, client):
    with Peak(fakes.pid) as peak:
        answers = []
        benchmark.pedantic(lambda: answers.append(client.run("SEARCH ALL")), rounds=ROUNDS, iterations=1)
    expected = len(b"* SEARCH") + sum(len(b" %d" % n) for n in range(1, COUNT + 1))
    assert all(expected <= answer.bytes_read <= expected + 100 for answer in answers)
    speeds.add(memory("million-resident-search", "the same during its `SEARCH ALL`", peak.bytes, ROUNDS))


@pytest.mark.benchmark(group="a mailbox of 1,000,000")
def bench_flags_of_all(benchmark, speeds, fakes, client):
    answers = []
    with Peak(fakes.pid) as peak:
        benchmark.pedantic(
            lambda: answers.append(client.run(FLAGS, count_lines=True)), rounds=ROUNDS, iterations=1, warmup_rounds=1
        )
    # The first of all was the warm-up.
    answers = answers[1:]
    assert all(answer.head.startswith(b"* 1 FETCH (") for answer in answers)
    assert all(COUNT < answer.lines < COUNT + 10 for answer in answers)
    speeds.add(memory("million-resident-fetch", f"the same during its `{FLAGS}`", peak.bytes, ROUNDS))
    first = [answer.first_s * 1000 for answer in answers]
    speeds.add(
        Row(
            key="million-first-row",
            what="first row of `FETCH 1:* (FLAGS)`",
            unit="ms",
            ours=percentile(first, 0.5),
            spread=(min(first), max(first)),
            target=Target(of="value", sign="<=", number=10),
            rounds=ROUNDS,
        )
    )
    rows = [COUNT / answer.whole_s for answer in answers]
    speeds.add(
        Row(
            key="million-rows",
            what="all rows of `FETCH 1:* (FLAGS)`",
            unit="rows/s",
            ours=percentile(rows, 0.5),
            spread=(min(rows), max(rows)),
            target=Target(of="value", sign=">=", number=500_000),
            rounds=ROUNDS,
        )
    )


@pytest.mark.benchmark(group="a mailbox of 1,000,000")
def bench_sizes_of_all(benchmark, speeds, client):
    """RFC822.SIZE without making the messages: of a part, which bounds the time of a server that makes them."""
    command, answers = f"FETCH 1:{SIZES} (RFC822.SIZE)", []
    benchmark.pedantic(lambda: answers.append(client.run(command, count_lines=True)), rounds=3, iterations=1)
    assert all(SIZES < answer.lines < SIZES + 10 for answer in answers)
    rows = [SIZES / answer.whole_s for answer in answers]
    speeds.add(
        Row(
            key="synthesis-sizes",
            what="`FETCH 1:100000 (RFC822.SIZE)` of 1,000,000",
            unit="rows/s",
            ours=percentile(rows, 0.5),
            spread=(min(rows), max(rows)),
            rounds=3,
        )
    )
