"""The SMTP server as a process, under clients of every manner.

What must hold beside the rules of the cases: the process lives and tells no error, the ledger knows each confirmed
message by its bytes and no other, memory does not grow, and a connection that is over gives its descriptor back.
"""

from __future__ import annotations

import random

import fuzz_smtp_cases as cases
import pytest
from fuzz_campaign import Campaign, seconds
from fuzz_process import MIB, await_true, running
from fuzz_socket import SocketWire, settled

CONFIG = f'[[user]]\naddress = "{cases.USER.decode()}"\npassword = "{cases.PASSWORD.decode()}"\n'
GROWTH_MIB_MAX = 24


def check(server, case):
    server.control.reset()
    before = server.ledger_seq()
    wire = SocketWire(server.port("smtp"))
    player = cases.Player(wire)
    try:
        player.greeting()
        for step in case["steps"]:
            player.play(step)
        if case["end"] == "quit" or wire.closed:
            player.quit()
        elif case["end"] == "half":
            wire.half_close()
    finally:
        wire.vanish(case["end"])
    if player.sure and not player.lost:
        compare(server, player.taken, before)
    server.must_be_well()


def compare(server, taken, before):
    """The ledger has what was confirmed, in order, and nothing else."""

    def known():
        entries = server.control.ledger(after=before)
        return [(each["sha256"], each["size_bytes"]) for each in entries if each["kind"] == "accepted"]

    expected = [(each.sha256, each.size_bytes) for each in taken]
    assert known() == expected, "the ledger and the client disagree"


@pytest.fixture(scope="module")
def server():
    with running(CONFIG) as server:
        yield server
        server.must_be_well()


@pytest.mark.timeout(seconds() + 150)
def test_fuzz_smtp_server_takes_what_it_confirms_and_nothing_else(server):
    campaign = Campaign("smtp-server")
    warm_up = random.Random(campaign.seed)
    for _ in range(20):
        check(server, cases.make(warm_up))
    server.control.reset()
    descriptors = settled(server)
    before = server.resident_bytes()
    campaign.run(cases.make, lambda case: check(server, case))
    server.control.reset()
    assert server.await_descriptors(descriptors) <= descriptors, "connections that are over keep descriptors"
    grown = (server.resident_bytes() - before) / MIB
    assert grown < GROWTH_MIB_MAX, f"{campaign.done} cases made it grow by {grown:.0f} MiB"


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        (b"", b"x" * 65_536),
        (b"NOOP ", b"\x00" * 65_536),
        (b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<ann@example.test>\r\nBDAT 99999999999\r\n", b"x" * 65_536),
        (b"EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<ann@example.test>\r\nDATA\r\n", b"\r\n." * 20_000),
    ],
    ids=["line", "nul", "chunk", "message"],
)
def test_what_never_ends_is_not_kept(server, start, unit):
    """160 MB of one line, one chunk, one message: more than any limit."""
    descriptors, before = settled(server), server.resident_bytes()
    wire = SocketWire(server.port("smtp"))
    wire.send(start)
    highest = 0
    for _ in range(2500):
        if wire.closed:
            break
        wire.send(unit)
        highest = max(highest, server.resident_bytes())
    wire.vanish("reset")
    assert server.await_descriptors(descriptors) <= descriptors
    # A message may be kept up to its limit of 50 MB and a third of it in dots, and once more while it is joined.
    assert (highest - before) / MIB < 150
    assert await_true(lambda: (server.resident_bytes() - before) / MIB < GROWTH_MIB_MAX)
    server.must_be_well()
