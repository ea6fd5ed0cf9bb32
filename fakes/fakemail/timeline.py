"""What happens to a folder by itself: arrivals, expunges, flag changes, UIDVALIDITY resets, as a seeded sequence.

Owns: which event comes at which step. Never does: I/O, clocks, randomness of its own; who calls decides how fast steps
follow one another. Called by: mailbox (``advance``).

Rule: event number k is a function of (seed, address, folder, k) and of what the folder then holds.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import Final

from fakemail.folder import DELETED, SEEN, Folder
from fakemail.synthesis import name_hash
from fakemail.uids import UidSet

#: Flags that an event may set or clear, the likelier ones more often.
_FLAGS: Final = (SEEN, SEEN, SEEN, SEEN, "\\Flagged", "\\Answered", "$Forwarded", DELETED)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How likely each kind of event is, relative to the others."""

    arrive: int = 60
    flags: int = 30
    expunge: int = 10
    reset: int = 0


@dataclass(frozen=True, kw_only=True)
class Event:
    """One step of a timeline."""

    #: From 1 up, per folder.
    step: int
    #: arrive | flags | expunge | reset | nothing.
    kind: str
    #: The message it happened to; 0 for a reset.
    uid: int = 0
    #: Of the message afterwards, sorted.
    flags: tuple[str, ...] = ()


def next_event(folder: Folder, *, seed: int, weights: Weights, profile: str) -> Event:
    """Let the folder's next step happen, a reset apart, which is the caller's; says what it was."""
    folder.step += 1
    draw = struct.unpack(">4I", name_hash("timeline", seed, folder.address, folder.name, folder.step, size=16))
    kind = _kind(draw[0], weights)
    if kind == "reset":
        return Event(step=folder.step, kind=kind)
    if kind == "arrive":
        uids = folder.seed(count=1, seed=seed, profile=profile, recent=True)
        return Event(step=folder.step, kind=kind, uid=uids.largest)
    if not folder.uids:
        return Event(step=folder.step, kind="nothing")
    uid = folder.uids.nth(1 + draw[1] % len(folder.uids))
    if kind == "expunge":
        folder.expunge(UidSet.single([uid]))
        return Event(step=folder.step, kind=kind, uid=uid)
    flags = folder.flags(uid) ^ {_FLAGS[draw[2] % len(_FLAGS)]}
    folder.set_flags(uid, flags)
    return Event(step=folder.step, kind=kind, uid=uid, flags=tuple(sorted(flags)))


def _kind(number: int, weights: Weights) -> str:
    share = {each.name: getattr(weights, each.name) for each in fields(weights)}
    at = number % max(1, sum(share.values()))
    for name, weight in share.items():
        if at < weight:
            return name
        at -= weight
    return "nothing"
