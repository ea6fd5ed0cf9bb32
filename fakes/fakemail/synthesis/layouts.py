"""What kind of message has which UID: threads, and the shares of kinds, in blocks of sixty-four UIDs.

A block's number chooses one of sixty-four layouts, and the place in the block a slot of it: so a message knows its
ancestors without anyone having looked at them. A thread lies within one block. Never makes bytes.
Called by: source (a slot per message).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fakemail.synthesis import headers
from fakemail.synthesis.broken import BROKEN
from fakemail.synthesis.draws import Dice
from fakemail.synthesis.people import Person, daemons, robots, spammers
from fakemail.synthesis.plans import ROWS

BLOCK_BITS: Final = 6
_BLOCK: Final = 1 << BLOCK_BITS
_LAYOUTS: Final = 64
#: A thread grows no deeper, and nobody answers what is older than so many messages.
_DEPTH_MAX: Final = 9
_RECENT: Final = 14


@dataclass(frozen=True, kw_only=True, slots=True)
class Slot:
    """What is known of a message before its numbers are drawn."""

    kind: str
    #: A name in ``plans.ROWS``, and its number there.
    structure: str
    row: int
    #: How many UIDs before this one, root first, parent last.
    ancestors: tuple[int, ...]
    #: Who may have sent it; empty if it is anybody who writes in its language.
    senders: tuple[Person, ...]
    #: Sixteen, each with its line ends.
    extras: tuple[bytes, ...]
    #: Came through a mailing list.
    listed: bool
    #: A draft: without a Message-ID; without To.
    unnamed: bool
    unaddressed: bool


@dataclass(frozen=True, kw_only=True)
class Habit:
    """How a kind of folder is filled."""

    #: Of a hundred messages, so many are replies where something can be answered.
    replies: int
    #: (kind, share of a thousand of what is no reply).
    kinds: tuple[tuple[str, int], ...]


#: For each kind: (structure, share of a hundred).
_STRUCTURES: Final[Mapping[str, tuple[tuple[str, int], ...]]] = {
    "personal": (
        ("plain", 30), ("alternative", 28), ("related", 7), ("html", 3), ("mixed", 11), ("mixed-alternative", 13),
        ("mixed-two", 4), ("mixed-related", 3), ("file", 1),
    ),
    "list": (("plain", 72), ("alternative", 14), ("mixed", 14)),
    "digest": (("digest", 100),),
    "newsletter": (("html", 30), ("alternative-news", 70)),
    "notification": (("plain", 49), ("alternative", 25), ("file", 6), ("mixed", 20)),
    "calendar": (("calendar", 100),),
    "report": (("report", 70), ("receipt", 30)),
    "signed": (("smime", 50), ("pgp", 50)),
    "forward": (("forward", 70), ("forward-file", 30)),
    "spam": (("spam-html", 50), ("spam-plain", 28), ("spam-file", 12), ("spam-late", 10)),
    "draft": (("plain", 50), ("alternative", 35), ("mixed", 15)),
}  # fmt: skip
_REPLIES: Final = (("plain-reply", 42), ("alternative-reply", 36), ("plain", 4), ("mixed", 9), ("mixed-alternative", 9))
#: What is answered, and what keeps its kind in the answers.
_ANSWERED: Final = ("personal", "list")

HABITS: Final[Mapping[str, Habit]] = {
    "inbox": Habit(
        replies=38,
        kinds=(
            ("personal", 398), ("list", 113), ("digest", 12), ("newsletter", 105), ("notification", 90),
            ("calendar", 38), ("report", 22), ("signed", 34), ("forward", 38), ("spam", 126), ("broken", 24),
        ),
    ),
    "sent": Habit(
        replies=30, kinds=(("personal", 880), ("forward", 60), ("signed", 40), ("calendar", 20))
    ),
    "drafts": Habit(replies=0, kinds=(("draft", 1000),)),
    "junk": Habit(
        replies=3, kinds=(("spam", 905), ("newsletter", 45), ("personal", 20), ("notification", 15), ("broken", 15))
    ),
}  # fmt: skip
_FOLDERS: Final = {
    "sent": "sent", "sent items": "sent", "sent messages": "sent", "sent mail": "sent", "drafts": "drafts",
    "junk": "junk", "spam": "junk", "junk e-mail": "junk", "bulk mail": "junk",
}  # fmt: skip
_DELIMITERS: Final = str.maketrans({"/": ".", "\\": "."})


def habit_of(folder: str) -> str:
    """Which habit a folder follows, by the last part of its name; what is nothing special is an inbox."""
    return _FOLDERS.get(folder.translate(_DELIMITERS).rpartition(".")[2].lower(), "inbox")


@functools.cache
def slots_of(habit: str) -> tuple[Slot, ...]:
    """All slots: sixty-four layouts of sixty-four, one after the other."""
    # All ways of being broken by turns: there are few such slots, and each way should be met soon.
    broken = itertools.cycle(BROKEN)
    return tuple(slot for at in range(_LAYOUTS) for slot in _layout(habit, at, broken))


def _layout(habit: str, at: int, broken: Iterator[str]) -> list[Slot]:
    dice, slots = Dice("layout", habit, at), list[Slot]()
    #: Places of what may be answered, with the places of its ancestors.
    open_: list[tuple[int, ...]] = []
    for place in range(_BLOCK):
        recent = [chain for chain in open_[-5:] if place - chain[-1] <= _RECENT and len(chain) <= _DEPTH_MAX]
        if recent and dice.below(100) < HABITS[habit].replies:
            # The newest is answered most.
            chain = recent[-1] if dice.below(2) else dice.of(recent)
            slot = _slot(dice, habit, slots[chain[0]].kind, broken, tuple(place - each for each in chain))
            open_.append((*chain, place))
        else:
            kind = _pick(dice, HABITS[habit].kinds)
            slot = _slot(dice, habit, kind, broken)
            if kind in _ANSWERED:
                open_.append((place,))
        slots.append(slot)
    return slots


def _pick(dice: Dice, weights: Sequence[tuple[str, int]]) -> str:
    throw = dice.below(sum(weight for _, weight in weights))
    for value, weight in weights:
        throw -= weight
        if throw < 0:
            return value
    raise AssertionError("a throw is below the sum")


def _slot(dice: Dice, habit: str, kind: str, broken: Iterator[str], ancestors: tuple[int, ...] = ()) -> Slot:
    from_user = habit in {"sent", "drafts"}
    extras = {"sent": headers.SENT_EXTRAS, "drafts": headers.DRAFT_EXTRAS}.get(habit, _extras(kind))
    structure = next(broken) if kind == "broken" else _pick(dice, _REPLIES if ancestors else _STRUCTURES[kind])
    return Slot(
        kind=kind,
        structure=structure,
        row=ROWS[structure],
        ancestors=ancestors,
        senders=() if from_user else _senders(kind),
        extras=extras,
        listed=kind in {"list", "digest"},
        unnamed=kind == "draft" and dice.below(3) == 0,
        unaddressed=kind == "draft" and dice.below(4) == 0,
    )


def _senders(kind: str) -> tuple[Person, ...]:
    by_kind = {"spam": spammers, "newsletter": robots, "notification": robots, "report": daemons}
    return by_kind[kind]() if kind in by_kind else ()


def _extras(kind: str) -> tuple[bytes, ...]:
    by_kind = {
        "personal": headers.PERSONAL_EXTRAS,
        "signed": headers.PERSONAL_EXTRAS,
        "forward": headers.PERSONAL_EXTRAS,
        "newsletter": headers.NEWS_EXTRAS,
        "notification": headers.MACHINE_EXTRAS,
        "spam": headers.SPAM_EXTRAS,
    }
    return by_kind.get(kind, headers.NO_EXTRAS)
