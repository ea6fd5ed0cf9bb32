"""Reading 2,000 messages of 20 kB: beside Dovecot through a raw socket, beside pymap and Dovecot through imaplib.

Dovecot keeps the same bytes in mdbox with CRLF line ends, of its three stores the one that was fastest when all were
measured in turns (Maildir with CRLF was as fast within the noise, sdbox and Maildir as packaged were slower); nothing
waits for the disk, and everything was read once before. The second row has the Maildir of an untouched configuration.
"""

from __future__ import annotations

import contextlib
import imaplib
import time

import neighbours
import pytest
from neighbours import PASSWORD, USER, Absent
from speed import Target, compared, duel

from wire import RawClient

COUNT, BATCH, SEED = 2000, 100, 1
RAW = "UID FETCH 1:* (FLAGS BODY.PEEK[])"


@pytest.fixture(scope="module")
def opened():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def fakes(opened):
    running = opened.enter_context(neighbours.fakemail())
    running.control.add_user(USER, PASSWORD)
    running.control.seed(USER, count=COUNT, seed=SEED)
    return running.imap


@pytest.fixture(scope="module")
def mail(opened, fakes):
    """The messages as fakemail serves them."""
    found = selected(opened, fakes).messages()
    assert len(found) == COUNT
    assert 15_000 < sum(map(len, found)) / COUNT < 25_000, "the mean is 20 kB"
    return found


@pytest.fixture(scope="module")
def dovecot(opened, mail):
    return loaded(opened, neighbours.dovecot(store="mdbox"), "Dovecot", mail)


@pytest.fixture(scope="module")
def dovecot_as_packaged(opened, mail):
    return loaded(opened, neighbours.dovecot(store="maildir", crlf=False), "Dovecot", mail)


@pytest.fixture(scope="module")
def pymap(opened, mail):
    return loaded(opened, neighbours.pymap(), "pymap", mail)


@pytest.fixture(scope="module")
def prepared(opened, mail):
    return opened.enter_context(neighbours.replay(mail))


def loaded(opened, runner, name, mail):
    """A peer with the same mail in its INBOX."""
    server = neighbours.opened_or_absent(opened, runner, name)
    if not isinstance(server, Absent):
        with RawClient(server.address, user=USER, password=PASSWORD) as client:
            client.append("INBOX", mail)
    return server


def selected(opened, server):
    client = opened.enter_context(RawClient(server.address, user=USER, password=PASSWORD))
    client.run("SELECT INBOX")
    return client


def raw_speed(opened, server):
    """Messages a second, of one command; None for a server that is absent."""
    if isinstance(server, Absent):
        return None
    client = selected(opened, server)

    def measure():
        answer = client.run(RAW)
        # Flags differ (\Recent), messages don't.
        assert answer.bytes_read > COUNT * 15_000
        return COUNT / answer.whole_s

    return measure


def imaplib_speed(opened, server):
    """Messages a second, in batches."""
    if isinstance(server, Absent):
        return None
    client = imaplib.IMAP4(*server.address, timeout=60)
    opened.callback(client.shutdown)
    client.login(USER, PASSWORD)
    client.select("INBOX", readonly=True)
    uids = client.uid("SEARCH", "ALL")[1][0].decode().split()
    assert len(uids) == COUNT
    ranges = [f"{uids[at]}:{uids[at + BATCH - 1]}" for at in range(0, COUNT, BATCH)]

    def measure():
        began, seen = time.perf_counter(), 0
        for each in ranges:
            kind, data = client.uid("FETCH", each, "(FLAGS BODY.PEEK[])")
            assert kind == "OK"
            seen += sum(isinstance(piece, tuple) for piece in data)
        assert seen == COUNT
        return COUNT / (time.perf_counter() - began)

    return measure


def facts(server, note):
    """How a row names its neighbour."""
    if isinstance(server, Absent):
        return {"neighbour": server.name, "absent": server.how}
    return {"neighbour": f"{server.name}{note}"}


@pytest.mark.benchmark(group="read 2,000 messages of 20 kB, raw")
def bench_raw_fetch_beside_dovecot(benchmark, speeds, opened, fakes, dovecot):
    figures = duel(benchmark, raw_speed(opened, fakes), raw_speed(opened, dovecot), rounds=15)
    speeds.add(
        compared(
            key="fetch-raw",
            what="`UID FETCH 1:* (FLAGS BODY.PEEK[])`, 2,000 x 20 kB, raw socket",
            unit="msg/s",
            figures=figures,
            target=Target(of="ratio", sign=">=", number=1.2),
            **facts(dovecot, " (mdbox, CRLF)"),
        )
    )


@pytest.mark.benchmark(group="read 2,000 messages of 20 kB, raw")
def bench_raw_fetch_beside_dovecot_as_packaged(benchmark, speeds, opened, fakes, dovecot_as_packaged):
    figures = duel(benchmark, raw_speed(opened, fakes), raw_speed(opened, dovecot_as_packaged), rounds=9)
    speeds.add(
        compared(
            key="fetch-raw-as-packaged",
            what="the same, Dovecot's store as packaged",
            unit="msg/s",
            figures=figures,
            **facts(dovecot_as_packaged, " (Maildir, LF)"),
        )
    )


@pytest.mark.benchmark(group="read 2,000 messages of 20 kB, imaplib")
def bench_imaplib_beside_pymap(benchmark, speeds, opened, fakes, pymap):
    figures = duel(benchmark, imaplib_speed(opened, fakes), imaplib_speed(opened, pymap), rounds=11)
    speeds.add(
        compared(
            key="fetch-imaplib",
            what="2,000 x 20 kB by imaplib, 100 a command",
            unit="msg/s",
            figures=figures,
            target=Target(of="ratio", sign=">=", number=10),
            **facts(pymap, " (dict)"),
        )
    )


@pytest.mark.benchmark(group="read 2,000 messages of 20 kB, imaplib")
def bench_imaplib_beside_dovecot(benchmark, speeds, opened, fakes, dovecot):
    figures = duel(benchmark, imaplib_speed(opened, fakes), imaplib_speed(opened, dovecot), rounds=9)
    speeds.add(
        compared(
            key="fetch-imaplib-dovecot",
            what="2,000 x 20 kB by imaplib, 100 a command",
            unit="msg/s",
            figures=figures,
            **facts(dovecot, " (mdbox, CRLF)"),
        )
    )


@pytest.mark.benchmark(group="read 2,000 messages of 20 kB, imaplib")
def bench_imaplib_beside_its_own_ceiling(benchmark, speeds, opened, fakes, prepared):
    """What imaplib reads from a process that only sends bytes made beforehand: no server can be faster through it."""
    figures = duel(benchmark, imaplib_speed(opened, fakes), imaplib_speed(opened, prepared), rounds=9)
    speeds.add(
        compared(
            key="fetch-imaplib-ceiling",
            what="2,000 x 20 kB by imaplib, 100 a command",
            unit="msg/s",
            figures=figures,
            **facts(prepared, ", the most that imaplib can read,"),
        )
    )
