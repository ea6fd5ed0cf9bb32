"""Endpoints for what happens to a folder by itself.

Owns: how a request says which events are likely, and how fast they come. Never does: decide an event.
Called by: the application, through ROUTES.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Final

from fakemail.control.mail import account_of, facts, folder_of
from fakemail.control.requests import Call, RequestError, Route
from fakemail.control.shared import event_row
from fakemail.synthesis import PROFILES
from fakemail.timeline import Weights

STEPS_MAX: Final = 100_000
PER_S_MAX: Final = 1_000.0
_KINDS: Final = tuple(each.name for each in fields(Weights))


def _weights(call: Call) -> Weights | None:
    given = call.given.get("weights")
    if given is None:
        return None
    if not isinstance(given, dict) or not given.keys() <= set(_KINDS):
        raise RequestError(where="weights", problem=f"{given!r:.80} given", allowed=f"an object of {', '.join(_KINDS)}")
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= PER_S_MAX:
            allowed = f"a whole number from 0 to {PER_S_MAX:g}"
            raise RequestError(where=f"weights.{name}", problem=f"{value!r:.80} given", allowed=allowed)
    return Weights(**given)


def _profile(call: Call) -> str:
    profile = call.text("profile", "small")
    if profile not in PROFILES:
        raise RequestError(where="profile", problem=f"{profile!r} given", allowed=", ".join(PROFILES))
    return profile


async def advance(call: Call) -> Any:
    """POST /mailboxes/{address}/timeline."""
    address, name = account_of(call).address, folder_of(call).name
    steps = call.whole("steps", 1, most=STEPS_MAX)
    events = await call.shared.advance(address, name, steps, weights=_weights(call), profile=_profile(call))
    return facts(folder_of(call)) | {"events": [event_row(event) for event in events]}


async def run(call: Call) -> Any:
    """PUT /mailboxes/{address}/timeline."""
    address, name = account_of(call).address, folder_of(call).name
    per_s = call.number("per_s", 1.0, most=PER_S_MAX)
    call.shared.set_clock(address, name, per_s, weights=_weights(call), profile=_profile(call))
    return {"address": address, "folder": name, "per_s": per_s}


ROUTES: Final = (
    Route(
        method="POST",
        path="/mailboxes/{address}/timeline",
        about="Let the next `steps` of a folder's timeline happen: arrivals, flag changes, expunges, resets.",
        handler=advance,
        names=("folder", "steps", "weights", "profile"),
        body="object",
    ),
    Route(
        method="PUT",
        path="/mailboxes/{address}/timeline",
        about="Let the timeline run by itself, `per_s` steps a second; 0 stops it.",
        handler=run,
        names=("folder", "per_s", "weights", "profile"),
        body="object",
    ),
)
