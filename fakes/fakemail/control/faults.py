"""Endpoints for faults: all at once, one by one, by the name of a well-known trouble.

Owns: ids for faults that come without. Never does: decide what a fault may say, which is faults' parser's.
Called by: the application, through ROUTES.
"""

from __future__ import annotations

from typing import Any, Final

from fakemail.control.requests import Call, RequestError, Route
from fakemail.faults import PRESETS, parse_fault, parse_faults, preset
from fakemail.mailbox import NotFoundError


async def show(call: Call) -> Any:
    """GET /faults."""
    plan = call.shared.plan
    # The counters stand beside the faults, so that what was got can be put again.
    return {"faults": [fault.as_dict() for fault in plan.faults], "counters": plan.counters}


async def replace(call: Call) -> Any:
    """PUT /faults."""
    call.shared.plan.replace(parse_faults(call.body))
    return await show(call)


async def put(call: Call) -> Any:
    """POST /faults."""
    if not isinstance(call.body, dict):
        raise RequestError(where="body", problem="no object", allowed="one fault")
    plan = call.shared.plan
    fault = parse_fault({"id": _unused(call, str(call.body.get("point")))} | call.body, where="fault")
    plan.put(fault)
    return fault.as_dict()


def _unused(call: Call, point: str) -> str:
    """An id for a fault that came without: its point and a number."""
    taken = {fault.id for fault in call.shared.plan.faults}
    return next(name for number in range(1, len(taken) + 2) if (name := f"{point}-{number}") not in taken)


async def clear(call: Call) -> Any:
    """DELETE /faults."""
    call.shared.plan.replace(())
    return {"faults": []}


async def remove(call: Call) -> Any:
    """DELETE /faults/{id}."""
    wanted = call.path["id"]
    if wanted not in {fault.id for fault in call.shared.plan.faults}:
        raise NotFoundError(f"no fault {wanted[:80]!r} is set; allowed: those that GET /faults lists")
    call.shared.plan.remove(wanted)
    return await show(call)


async def list_presets(_: Call) -> Any:
    """GET /presets."""
    rows = [
        {"name": name, "about": each.sentence, "from": each.report, "faults": [fault.as_dict() for fault in each]}
        for name, each in PRESETS.items()
    ]
    return {"presets": rows}


async def put_preset(call: Call) -> Any:
    """POST /presets/{name}."""
    faults = preset(call.path["name"], where="name")
    for fault in faults:
        call.shared.plan.put(fault)
    return {"faults": [fault.as_dict() for fault in faults]}


ROUTES: Final = (
    Route(method="GET", path="/faults", about="The faults that are set, and how often each was reached.", handler=show),
    Route(
        method="PUT",
        path="/faults",
        about="Replace all faults by this list; counts begin anew.",
        handler=replace,
        body="document",
    ),
    Route(
        method="POST",
        path="/faults",
        about="Add one fault, or replace the one of its id; an id is made up where none is given.",
        handler=put,
        body="document",
        status=201,
    ),
    Route(method="DELETE", path="/faults", about="Heal everything.", handler=clear),
    Route(method="DELETE", path="/faults/{id}", about="Heal one.", handler=remove),
    Route(
        method="GET", path="/presets", about="Well-known troubles and the faults they stand for.", handler=list_presets
    ),
    Route(method="POST", path="/presets/{name}", about="Add the faults of a preset.", handler=put_preset, status=201),
)
