"""Making messages from nothing: no server, no socket."""

from __future__ import annotations

import time

import pytest
from speed import Row, percentile

from fakemail.synthesis import synthesise

COUNT, ROUNDS = 2000, 7


@pytest.mark.benchmark(group="synthesis")
def bench_synthesis(benchmark, speeds):
    figures = []

    def make():
        began = time.perf_counter()
        total = sum(
            len(synthesise(seed=1, address="ann@example.test", folder="INBOX", uid=uid)) for uid in range(1, COUNT + 1)
        )
        took = time.perf_counter() - began
        figures.append((COUNT / took, total / took))

    benchmark.pedantic(make, rounds=ROUNDS, iterations=1, warmup_rounds=1)
    messages, sizes = ([figure[at] for figure in figures[1:]] for at in (0, 1))
    speeds.add(
        Row(
            key="synthesis-messages",
            what="synthesis alone, messages",
            unit="msg/s",
            ours=percentile(messages, 0.5),
            spread=(min(messages), max(messages)),
            rounds=ROUNDS,
        )
    )
    speeds.add(
        Row(
            key="synthesis-bytes",
            what="synthesis alone, bytes",
            unit="MB/s",
            ours=percentile(sizes, 0.5) / 1e6,
            spread=(min(sizes) / 1e6, max(sizes) / 1e6),
            rounds=ROUNDS,
        )
    )
