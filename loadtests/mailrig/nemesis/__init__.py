"""Breaks things on schedule, and heals each of them: both are written to the history as they begin and end.

Rule 1: an action is a function that waits for its occasion, breaks one thing and says how it heals; a new one is a new
row in ``ACTIONS``. Rule 2: what has no occasion in time is ``info``: nothing was broken, and the gates that need it
say so. Rule 3: only what belongs to the stack is hurt, by pid and never by name.

    model     what an action is given and what it answers; what there is to break
    actions   one function for each kind of harm
    agent     the thread that carries out a scenario's list
    world     a running stack as something to break

Called by runner; the checkers read what was done from here, and what it did from the evidence.
"""

from __future__ import annotations

from mailrig.nemesis.actions import ACTIONS
from mailrig.nemesis.agent import Agent
from mailrig.nemesis.model import HEAL_S, LIST_SUFFIXES, OCCASION_S, Injury, Occasion, World
from mailrig.nemesis.world import StackWorld, Victim

__all__ = [
    "ACTIONS",
    "HEAL_S",
    "LIST_SUFFIXES",
    "OCCASION_S",
    "Agent",
    "Injury",
    "Occasion",
    "StackWorld",
    "Victim",
    "World",
]
