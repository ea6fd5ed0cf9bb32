"""One fault from JSON or TOML.

Owns: the form of a fault. Never does: files. A mistake is a FaultError that says where it is, what was given and what
would be right. Called by: lists, presets, control, the rig's scenarios, and whoever writes faults in Python.
"""

from __future__ import annotations

from fakemail.faults import checks
from fakemail.faults.actions import read_action
from fakemail.faults.errors import FaultError, suggestion
from fakemail.faults.model import Fault
from fakemail.faults.points import POINTS
from fakemail.faults.schedules import read_when
from fakemail.faults.scopes import SCOPES

_REQUIRED = ("id", "point", "when", "action")


def parse_fault(value: object, *, where: str = "fault") -> Fault:
    """One fault; raises FaultError."""
    given = checks.table(value, where=where, required=_REQUIRED, optional=("match", "scope"))
    fault_id = checks.text(given["id"], where=f"{where}.id")
    name = checks.text(given["point"], where=f"{where}.point")
    if name not in POINTS:
        problem = f"unknown point {name!r}{suggestion(name, POINTS)}"
        raise FaultError(where=f"{where}.point", problem=problem, allowed=", ".join(POINTS))
    return Fault(
        id=fault_id,
        point=name,
        when=read_when(given["when"], where=f"{where}.when"),
        action=read_action(given["action"], where=f"{where}.action", fault_id=fault_id, point=name, at=POINTS[name]),
        match=_match(given.get("match", {}), where=f"{where}.match", point=name),
        scope=_scope(given.get("scope", "server"), where=f"{where}.scope", point=name),
    )


def _match(value: object, *, where: str, point: str) -> dict[str, str]:
    known = POINTS[point].match
    given = checks.table(value, where=where, optional=known, allowed="" if known else "nothing at this point")
    patterns = {}
    for key, pattern in given.items():
        # An empty pattern is one: it fits the null reverse-path, and nobody.
        if not isinstance(pattern, str):
            raise FaultError(
                where=f"{where}.{key}",
                problem=f"{checks.kind_of(pattern)} given",
                allowed="a pattern, such as '*@x.test'",
            )
        patterns[key] = pattern
    return patterns


def _scope(value: object, *, where: str, point: str) -> str:
    name = checks.one_of(value, where=where, known=tuple(SCOPES))
    told = POINTS[point].match
    if not set(SCOPES[name].needs) <= set(told):
        usable = [scope for scope, each in SCOPES.items() if set(each.needs) <= set(told)]
        raise FaultError(where=where, problem=f"{name!r} is not known at {point}", allowed=", ".join(usable))
    return name
