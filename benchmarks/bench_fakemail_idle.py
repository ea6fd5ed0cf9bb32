"""2,000 connections in IDLE: what they cost, and how soon all are told of a new message."""

from __future__ import annotations

import resource
import selectors
import socket
import time

import neighbours
import pytest
from neighbours import PASSWORD, USER
from resident import MIB, Peak, resident_bytes
from speed import Row, Target, percentile

CONNECTIONS, ROUNDS, DEADLINE_S = 2000, 5, 30
#: What it takes to come to IDLE: what is sent, and what ends the answer.
DIALOGUE = (
    (b"", b"\r\n"),
    (f"a LOGIN {USER} {PASSWORD}\r\n".encode(), b"a OK"),
    (b"b SELECT INBOX\r\n", b"b OK"),
    (b"c IDLE\r\n", b"+ "),
)


@pytest.fixture(scope="module")
def descriptors():
    """Room for all sockets, here and in the server, which inherits it."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(before[0], CONNECTIONS + 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, before[1])))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.fixture(scope="module")
def fakes(descriptors):  # noqa: ARG001  # the limit comes before the server
    with neighbours.fakemail() as running:
        running.control.add_user(USER, PASSWORD)
        running.control.seed(USER, count=10, seed=1)
        yield running


@pytest.fixture(scope="module")
def idlers(fakes):
    connections = [socket.create_connection(fakes.imap.address, timeout=DEADLINE_S) for _ in range(CONNECTIONS)]
    for sent, ends in DIALOGUE:
        for connection in connections:
            connection.sendall(sent)
        assert len(heard(connections, ends)) == CONNECTIONS
    yield connections
    for connection in connections:
        connection.close()


def heard(connections, ends):
    """When each was told something that has ``ends`` at the start of a line; those that weren't in time are missing."""
    deadline, at, seen = time.monotonic() + DEADLINE_S, {}, dict.fromkeys(connections, b"")
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while len(at) < len(connections) and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=1):
                seen[key.fileobj] += key.fileobj.recv(65_536)
                text = seen[key.fileobj]
                if text.endswith(b"\r\n") and (ends == b"\r\n" or b"\n" + ends in b"\n" + text):
                    at[key.fileobj] = time.perf_counter()
                    selector.unregister(key.fileobj)
    return at


@pytest.mark.benchmark(group="2,000 connections in IDLE")
def bench_idle_connections_are_told(benchmark, speeds, fakes, idlers):
    last = []

    def one_arrives():
        began = time.perf_counter()
        fakes.control.append(USER, b"From: x@y.test\r\nSubject: news\r\n\r\nHello.\r\n")
        told = heard(idlers, b"* %d EXISTS" % (11 + len(last)))
        assert len(told) == CONNECTIONS, f"{len(told)} were told"
        last.append((max(told.values()) - began) * 1000)

    held = resident_bytes(fakes.pid)
    with Peak(fakes.pid) as peak:
        benchmark.pedantic(one_arrives, rounds=ROUNDS, iterations=1)
    speeds.add(
        Row(
            key="idle-resident",
            what="2,000 connections in IDLE: resident, also while all are told of a message",
            unit="MiB",
            ours=max(held, peak.bytes) / MIB,
            target=Target(of="value", sign="<=", number=100),
        )
    )
    speeds.add(
        Row(
            key="idle-told",
            what="2,000 connections in IDLE: the last is told of a new message after",
            unit="ms",
            ours=percentile(last, 0.5),
            spread=(min(last), max(last)),
            rounds=ROUNDS,
        )
    )
