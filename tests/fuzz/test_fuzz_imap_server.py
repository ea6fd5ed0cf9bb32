"""The IMAP server as a process, under the same inputs and under clients that are slow, cut off or gone.

What must hold beside the core's rules: the process lives and tells no error, its memory does not grow with the number
of clients, and every connection that is over gives its descriptor back.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections import Counter

import fuzz_imap_cases as cases
import fuzz_imap_grammar as grammar
import pytest
from fuzz_campaign import Campaign, HangError, raw, seconds, text
from fuzz_process import ANSWER_S, MIB, await_true, running

CONFIG = "".join(
    f'[[user]]\naddress = "{user.decode()}"\npassword = "{password.decode()}"\nseed = 12\n'
    for user, password in grammar.USERS.items()
)
#: What the folders of the grammar need beside the standard ones.
FOLDERS = (b"Archive", b"Archive/2024", b"Many", b"Odd", b"Empty")
GROWTH_MIB_MAX = 24
_RST = struct.pack("ii", 1, 0)


class SocketWire:
    """One connection."""

    def __init__(self, address, *, pause_s=0.0):
        self._sock = socket.create_connection(address, timeout=ANSWER_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._pause_s = pause_s
        self._said = bytearray()
        self.closed = False

    def send(self, data):
        if self._pause_s:
            time.sleep(self._pause_s)
        try:
            self._sock.sendall(data)
        except ConnectionError:
            # What it said before is still to be read.
            self._read()

    def hear(self, enough):
        deadline = time.monotonic() + ANSWER_S
        # A question that is true of anything asks for what has come by now.
        hurry = enough(b"")
        while not self.closed and not (not hurry and enough(bytes(self._said))):
            self._sock.settimeout(0.05 if hurry else max(0.01, deadline - time.monotonic()))
            try:
                self._read()
            except TimeoutError:
                if hurry:
                    break
                raise HangError(f"nothing more in {ANSWER_S} s behind {bytes(self._said[-300:])!r}") from None
            if len(self._said) > cases.ANSWER_BYTES_MAX or (hurry and self._said.endswith(b"\r\n")):
                break
        self._sock.settimeout(ANSWER_S)
        said = bytes(self._said)
        self._said.clear()
        return said

    def _read(self):
        try:
            data = self._sock.recv(1 << 18)
        except ConnectionError:
            data = b""
        self._said += data
        self.closed = self.closed or not data

    def leave(self):
        self.closed = True
        self._sock.close()

    # --- bad manners ---

    def vanish(self, how):
        """Go away in the middle: with a reset, or by closing."""
        if how == "reset":
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
        self.leave()

    def half_close(self):
        """Say no more, and hear it out: a server that is told the end must end too."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
        read = 0
        while not self.closed and read < 8 * cases.ANSWER_BYTES_MAX:
            try:
                self._read()
            except TimeoutError:
                raise HangError("the client's end was not answered by the server's") from None
            read += len(self._said)
            self._said.clear()
        self._sock.close()


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
            players[step["session"]].play(step)
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


def settled(server):
    """The number of descriptors once no connection is left."""
    last = [server.descriptors()]

    def same():
        last.append(server.descriptors())
        return len(last) > 20 and len(set(last[-20:])) == 1

    assert await_true(same)
    return last[-1]


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
