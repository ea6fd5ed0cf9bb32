"""The IMAP server as a process, under the same inputs and under clients that are slow, cut off or gone.

What must hold beside the core's rules: the process lives and tells no error, its memory does not grow with the number
of clients, and every connection that is over gives its descriptor back.
"""

from __future__ import annotations

import random
from collections import Counter

import fuzz_imap_cases as cases
import fuzz_imap_grammar as grammar
import pytest
from fuzz_campaign import Campaign, raw, seconds, text
from fuzz_process import MIB, running
from fuzz_socket import SocketWire, settled

CONFIG = "".join(
    f'[[user]]\naddress = "{user.decode()}"\npassword = "{password.decode()}"\nseed = 12\n'
    for user, password in grammar.USERS.items()
)
#: What the folders of the grammar need beside the standard ones.
FOLDERS = (b"Archive", b"Archive/2024", b"Many", b"Odd", b"Empty")
GROWTH_MIB_MAX = 24


def make(chance):
    """A case of the core's kind, or one whose clients misbehave at the end."""
    case = cases.make(chance)
    case["pause_s"] = chance.choice((0, 0, 0, 0, 0.002))
    case["ends"] = [chance.choice(("finish", "finish", "reset", "close", "half")) for _ in range(2)]
    rest = b"".join(b"".join(grammar.command(grammar.Draft(chance=chance, tag=b"last")).pieces()) for _ in range(2))
    case["unfinished"] = text(rest[: chance.randint(0, len(rest))])
    return case


def prepare(server):
    """The same folders and mail for each case."""
    server.control.reset()
    for user, password in grammar.USERS.items():
        lines = [b"l LOGIN %s %s" % (user, password), *(b"c CREATE %s" % name for name in FOLDERS)]
        wire = SocketWire(server.port("imap"))
        wire.send(b"".join(line + b"\r\n" for line in lines))
        for message in grammar.MESSAGES:
            wire.send(b"a APPEND Odd {%d+}\r\n%s\r\n" % (len(message), message))
        wire.send(b"z LOGOUT\r\n")
        assert b"z OK" in wire.hear(lambda out: b"z OK" in out)
        wire.leave()


def check(server, case, seen):
    prepare(server)
    wires = [SocketWire(server.port("imap"), pause_s=case["pause_s"]) for _ in range(2)]
    players = [cases.Player(wire, seen) for wire in wires]
    try:
        for player in players:
            player.greeting()
        for step in case["steps"]:
            players[step["session"]].play(step, players)
        for wire, player, end in zip(wires, players, case["ends"], strict=True):
            _end(wire, player, end, raw(case["unfinished"]))
    finally:
        for wire in wires:
            wire.leave()
    server.must_be_well()


def _end(wire, player, end, unfinished):
    if end == "finish" or wire.closed:
        player.finish()
        return
    wire.send(unfinished)
    if end == "half":
        wire.half_close()
    else:
        wire.vanish(end)


@pytest.fixture(scope="module")
def server():
    with running(CONFIG) as server:
        yield server
        server.must_be_well()


@pytest.mark.timeout(seconds() + 150)
def test_fuzz_imap_server_lives_and_does_not_grow(server):
    campaign, seen = Campaign("imap-server"), Counter()
    warm_up = random.Random(campaign.seed)
    for _ in range(15):
        check(server, make(warm_up), seen)
    prepare(server)
    descriptors = settled(server)
    before = server.resident_bytes()
    campaign.run(make, lambda case: check(server, case, seen))
    prepare(server)
    assert server.await_descriptors(descriptors) <= descriptors, "connections that are over keep descriptors"
    grown = (server.resident_bytes() - before) / MIB
    assert grown < GROWTH_MIB_MAX, f"{campaign.done} cases made it grow by {grown:.0f} MiB"


def test_nonsense_instead_of_a_handshake_harms_nobody(server):
    """Whatever comes to a TLS port in place of a ClientHello."""
    chance = random.Random(1)
    for name in ("imaps", "smtps"):
        for size in (0, 1, 5, 100, 20_000):
            wire = SocketWire(server.port(name))
            wire.send(chance.randbytes(size))
            wire.vanish(chance.choice(("reset", "close")))
    wire = SocketWire(server.port("imap"))
    assert wire.hear(lambda out: out.endswith(b"\r\n")).startswith(b"* OK")
    wire.leave()
    server.must_be_well()
