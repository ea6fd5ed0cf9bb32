"""Faults as data, and the plan that decides when each happens.

Owns: what a fault may say (points, schedules, actions, matches, scopes, presets), its validation and the counting.
Never does: I/O, sleeping, randomness of its own. The servers carry a decision out.
Called by: imap_server, smtp_server (``Plan.decide``), imap_protocol (``spoil``), control, config and the rig
(``parse_faults``), and whoever writes faults. ``python -m fakemail.faults`` prints the whole catalogue.

errors < checks < points garble < actions schedules scopes < model < parse plan < presets < lists table
"""

from __future__ import annotations

from fakemail.faults.actions import ACTIONS, Action, ActionKind
from fakemail.faults.errors import FaultError
from fakemail.faults.garble import GARBLES, spoil
from fakemail.faults.lists import parse_faults, preset
from fakemail.faults.model import Fault
from fakemail.faults.parse import parse_fault
from fakemail.faults.plan import Plan
from fakemail.faults.points import IMAP_CAPABILITIES, POINTS, SMTP_KEYWORDS, Point
from fakemail.faults.presets import PRESETS, Preset
from fakemail.faults.schedules import SCHEDULES, When
from fakemail.faults.scopes import SCOPES

__all__ = [
    "ACTIONS",
    "GARBLES",
    "IMAP_CAPABILITIES",
    "POINTS",
    "PRESETS",
    "SCHEDULES",
    "SCOPES",
    "SMTP_KEYWORDS",
    "Action",
    "ActionKind",
    "Fault",
    "FaultError",
    "Plan",
    "Point",
    "Preset",
    "When",
    "parse_fault",
    "parse_faults",
    "preset",
    "spoil",
]
