"""Small commands: nothing waits 40 ms for a delayed acknowledgement, and nobody waits for another's slow reading.

IMAPClient sends a command and its line end in two sends, imaplib does so after a literal, and neither sets
TCP_NODELAY: a server that does not acknowledge at once keeps them waiting for 40 ms. pymap, an asyncio server with the
usual options, shows that the bench would see it.
"""

from __future__ import annotations

import contextlib
import imaplib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import neighbours
import pytest
from imapclient import IMAPClient
from neighbours import PASSWORD, USER, Absent
from speed import Row, Target, percentile

from wire import RawClient

SAMPLES, COUNT = 200, 2000
SAMPLING_S_MAX = 3.0
MESSAGE = b"From: x@y.test\r\nSubject: an append\r\n\r\n" + b"A line of some length for the body.\r\n" * 500
#: How fast the slow reader reads.
SLOW_BYTES_S = 10_000
ACK_MS = 5.0
TURNS = 4


@pytest.fixture(scope="module")
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def fakes(opened):
    running = opened.enter_context(neighbours.fakemail())
    running.control.add_user(USER, PASSWORD)
    running.control.seed(USER, count=COUNT, seed=1)
    return running.imap


@pytest.fixture(scope="module")
def by_imaplib(opened, fakes):
    return commands_of_imaplib(opened, fakes)


@pytest.fixture(scope="module")
def by_imapclient(opened, fakes):
    client = IMAPClient(fakes.address[0], port=fakes.port, ssl=False, timeout=30)
    opened.callback(client.shutdown)
    client.login(USER, PASSWORD)
    client.select_folder("INBOX")
    return {
        "noop": client.noop,
        "append": lambda: client.append("Sent", MESSAGE),
        "store": lambda: client.set_flags([1], ["\\Seen"]),
        "fetch": lambda: client.fetch([1], ["FLAGS", "RFC822.SIZE"]),
        # Two sends: the command, then its line end.
        "search": lambda: client.search(["UID", "1"]),
    }


def commands_of_imaplib(opened, server):
    client = imaplib.IMAP4(*server.address, timeout=30)
    opened.callback(client.shutdown)
    client.login(USER, PASSWORD)
    # pymap has but an INBOX at first; elsewhere it is refused, and no matter.
    client.create("Sent")
    client.select("INBOX")
    return {
        "noop": client.noop,
        # Two sends: the literal, then the line end.
        "append": lambda: client.append("Sent", None, None, MESSAGE),
        "store": lambda: client.store("1", "FLAGS", "(\\Seen)"),
        "fetch": lambda: client.fetch("1", "(FLAGS RFC822.SIZE)"),
        "search": lambda: client.uid("SEARCH", "UID", "1"),
    }


def sampled(run, samples=SAMPLES):
    """Milliseconds of each call; where calls take long, as many as the time allows."""
    taken, deadline = [], time.monotonic() + SAMPLING_S_MAX
    while len(taken) < samples and time.monotonic() < deadline:
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000)
    return taken


@pytest.mark.parametrize("command", ["noop", "append", "store", "fetch", "search"])
@pytest.mark.parametrize("client", ["imaplib", "imapclient"])
@pytest.mark.benchmark(group="one small command")
def bench_no_command_waits_for_an_acknowledgement(benchmark, speeds, request, client, command):
    run = request.getfixturevalue(f"by_{client}")[command]
    taken = []
    benchmark.pedantic(lambda: taken.extend(sampled(run, samples=1)), rounds=SAMPLES, iterations=1, warmup_rounds=5)
    name = {"imaplib": "imaplib", "imapclient": "IMAPClient"}[client]
    speeds.add(
        Row(
            key=f"ack-{client}-{command}",
            what=f"{command.upper()} by {name}: 99 of 100 within (half of them within {percentile(taken, 0.5):.2f} ms)",
            unit="ms",
            ours=percentile(taken, 0.99),
            spread=(min(taken), max(taken)),
            target=Target(of="value", sign="<=", number=ACK_MS),
            rounds=SAMPLES,
        )
    )


@pytest.mark.benchmark(group="one small command")
def bench_a_delayed_acknowledgement_would_be_seen(benchmark, speeds, opened, by_imaplib):
    """The same client's APPEND on a server that sets no TCP_QUICKACK."""
    peer = neighbours.opened_or_absent(opened, neighbours.pymap(), "pymap")
    theirs = [] if isinstance(peer, Absent) else sampled(commands_of_imaplib(opened, peer)["append"], samples=40)
    taken = []
    benchmark.pedantic(lambda: taken.extend(sampled(by_imaplib["append"], samples=1)), rounds=40, iterations=1)
    speeds.add(
        Row(
            key="ack-pymap",
            what="APPEND by imaplib, median",
            unit="ms",
            ours=percentile(taken, 0.5),
            neighbour="pymap, which waits,",
            theirs=percentile(theirs, 0.5) if theirs else None,
            absent=peer.how if isinstance(peer, Absent) else "",
            rounds=40,
        )
    )


@contextlib.contextmanager
def reading_everything(server, *, bytes_s):
    """Another client, in the middle of a FETCH of everything, at a speed; 0 is as fast as it can."""
    script = Path(__file__).with_name("other_reader.py")
    argv = [sys.executable, str(script), server.address[0], str(server.port), USER, PASSWORD, str(bytes_s)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"reading\n"
        yield
        assert other.poll() is None, "it read to the end, so nothing was measured beside it"
        other.stdin.close()
        assert other.wait(timeout=10) == 0


def in_turns(server, run, *, bytes_s):
    """Milliseconds alone and beside the other reader, in turns."""
    alone, beside = [], []
    for _ in range(TURNS):
        alone += sampled(run)
        with reading_everything(server, bytes_s=bytes_s):
            beside += sampled(run)
    return alone, beside


@dataclass(frozen=True, kw_only=True)
class Reader:
    """Another connection that reads everything, and what is timed beside it."""

    key: str
    what: str
    command: str
    bytes_s: int
    target: Target | None = None


NOT_SLOWER = Target(of="ratio", sign="<=", number=1.25)
READERS = (
    Reader(
        key="slow-reader-noop",
        what="NOOP while another reads everything at 10 kB/s, median",
        command="NOOP",
        bytes_s=SLOW_BYTES_S,
        target=NOT_SLOWER,
    ),
    Reader(
        key="slow-reader-fetch",
        what="FETCH of one body meanwhile, median",
        command="FETCH 7 (BODY.PEEK[])",
        bytes_s=SLOW_BYTES_S,
        target=NOT_SLOWER,
    ),
    Reader(
        key="greedy-reader-noop",
        what="NOOP while another reads everything as fast as it can, median",
        command="NOOP",
        bytes_s=0,
    ),
)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.key)
@pytest.mark.benchmark(group="beside another reader")
def bench_a_reader_does_not_slow_others(benchmark, speeds, fakes, reader):
    with RawClient(fakes.address, user=USER, password=PASSWORD) as client:
        client.run("SELECT INBOX")
        figures = benchmark.pedantic(
            lambda: in_turns(fakes, lambda: client.run(reader.command), bytes_s=reader.bytes_s), rounds=1, iterations=1
        )
    alone, beside = figures
    ninety_nine = f"99 of 100 within {percentile(beside, 0.99):.2f} ms, alone {percentile(alone, 0.99):.2f} ms"
    speeds.add(
        Row(
            key=reader.key,
            what=f"{reader.what} ({ninety_nine})",
            unit="ms",
            ours=percentile(beside, 0.5),
            spread=(min(beside), max(beside)),
            neighbour="alone:",
            theirs=percentile(alone, 0.5),
            target=reader.target,
            rounds=TURNS,
        )
    )
