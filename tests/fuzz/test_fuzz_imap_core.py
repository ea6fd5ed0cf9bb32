"""The IMAP core under input of every kind: no exception, no hang, no growth, nothing malformed, nothing unanswered."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections import Counter
from pathlib import Path

import fuzz_imap_cases as cases
import fuzz_imap_grammar as grammar
import pytest
from fuzz_campaign import Campaign, load, no_hang, raw, say, seconds
from fuzz_core import CoreWire, store, uidvalidities
from fuzz_imap_replies import parse

from fakemail.faults import PRESETS, Plan, parse_faults

KIB = 1024
FOUND = sorted((Path(__file__).parent / "found").glob("imap-core-*.json"))


def check(case, seen=None):
    seen = Counter() if seen is None else seen
    mail = store()
    players = [cases.Player(CoreWire(mail), seen) for _ in range(2)]
    for player in players:
        player.greeting()
    for step in case["steps"]:
        players[step["session"]].play(step, players)
    for player in players:
        player.finish()


@pytest.mark.timeout(seconds() + 100)
def test_fuzz_imap_core_answers_everything():
    seen = Counter()
    campaign = Campaign("imap-core")
    grammar.UIDVALIDITIES[:] = uidvalidities()
    campaign.run(cases.make, lambda case: check(case, seen), at_least=400)
    told = {name: {status: seen[name, status] for status in ("OK", "NO", "BAD")} for name in grammar.COMMANDS}
    say("\n".join(f"{name:14} {counts}" for name, counts in told.items()))
    if campaign.done:
        never = [name for name, counts in told.items() if not counts["OK"]]
        assert not never, f"no {', '.join(never)} succeeded: the inputs don't reach them"


IMAP_FAULTS = [fault.as_dict() for preset in PRESETS.values() for fault in preset if fault.point.startswith("imap.")]


def make_faulty(chance):
    case = cases.make(chance)
    faults = [chance.choice(IMAP_FAULTS) | {"id": f"f{number}"} for number in range(chance.randint(1, 4))]
    return case | {"faults": faults}


def check_faulty(case):
    """Under faults a client may be told anything, at any time, or nothing; whatever is whole is still well-formed."""
    mail, plan = store(), Plan(1, parse_faults(case["faults"]))
    wires = [CoreWire(mail, plan) for _ in range(2)]
    said = [b"", b""]
    for step in case["steps"]:
        at = step["session"]
        for piece in step.get("pieces") or [step["chunks"]]:
            for chunk in piece:
                wires[at].send(raw(chunk))
            said[at] += wires[at].hear(bool)
    for wire, text in zip(wires, said, strict=True):
        if not wire.cut:
            parse(text)
        wire.leave()


@pytest.mark.timeout(seconds() + 100)
def test_fuzz_imap_core_survives_its_own_faults():
    Campaign("imap-faults").run(make_faulty, check_faulty, at_least=100)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_what_was_found_stays_harmless(path):
    with no_hang():
        check(load(path))


def logged_in(mail):
    wire = CoreWire(mail)
    wire.send(b"a LOGIN ann@example.test canary-password\r\nb SELECT Archive\r\n")
    assert b"b OK" in wire.hear(lambda _: True)
    return wire


def held_bytes(run):
    """What is held behind ``run``, and at most during it."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept = run()
    gc.collect()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return held - before, most - before


@pytest.mark.parametrize(
    ("start", "unit"),
    [
        (b"", b"a" * 65_536),
        (b'a LOGIN "', b"x" * 65_536),
        (b"a SEARCH ", b"(" * 65_536),
        (b"a FETCH ", b"1,2:3," * 10_000),
        (b"a LOGIN {99999999999+}\r\n", b"x" * 65_536),
        (b"a APPEND INBOX {99999999999+}\r\n", b"x" * 65_536),
        (b"a IDLE\r\n", b"D" * 65_536),
        (b"a AUTHENTICATE PLAIN\r\n", b"A" * 65_536),
    ],
    ids=lambda value: value[:12].decode(),
)
@pytest.mark.parametrize("login", [False, True], ids=["stranger", "user"])
def test_what_never_ends_is_not_kept(start, unit, login):
    mail = store()

    def endless():
        wire = logged_in(mail) if login else CoreWire(mail)
        wire.send(start)
        for _ in range(200):
            wire.send(unit)
        return wire

    with no_hang():
        held, most = held_bytes(endless)
    assert held < 600 * KIB
    assert most < 2048 * KIB


def test_bytes_that_come_one_by_one_cost_no_more_than_their_number():
    """A line is not searched again from its start for each byte that arrives."""
    wire = logged_in(store())
    with no_hang():
        for _ in range(60_000):
            wire.send(b"x")
        wire.send(b"\r\nz NOOP\r\n")
    assert b"z OK" in wire.hear(lambda _: True)


def test_a_session_that_is_over_leaves_nothing_behind():
    mail = store()

    def visit():
        wire = CoreWire(mail)
        wire.send(b"a LOGIN ann@example.test canary-password\r\nb EXAMINE Many\r\n")
        wire.send(b"c FETCH 1:* (FLAGS)\r\nd SEARCH ALL\r\ne NONSENSE (((\r\nf IDLE\r\n")
        assert b"d OK" in wire.hear(lambda _: True)
        wire.leave()
        return weakref.ref(wire.session)

    def visits(count):
        sessions = [visit() for _ in range(count)]
        gc.collect()
        assert not [each for each in sessions if each() is not None], "sessions are still referred to"

    visits(20)
    held, _ = held_bytes(lambda: visits(60))
    assert held < 60 * KIB
