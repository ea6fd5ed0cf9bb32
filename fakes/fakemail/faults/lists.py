"""A list of faults from JSON or TOML: faults, and names of presets.

Owns: the form of the list. Never does: files. Called by: config, control, and whoever writes faults in Python.
"""

from __future__ import annotations

from fakemail.faults import checks
from fakemail.faults.errors import FaultError, suggestion
from fakemail.faults.model import Fault
from fakemail.faults.parse import parse_fault
from fakemail.faults.presets import PRESETS


def parse_faults(value: object, *, where: str = "faults") -> tuple[Fault, ...]:
    """A list of faults; a text in it names a preset, and stands for the faults of that. Raises FaultError."""
    if not isinstance(value, list):
        raise FaultError(where=where, problem=f"{checks.kind_of(value)} given", allowed="a list of faults")
    faults: dict[str, Fault] = {}
    for index, each in enumerate(value):
        place = f"{where}[{index}]"
        some = preset(each, where=place) if isinstance(each, str) else (parse_fault(each, where=place),)
        for fault in some:
            if fault.id in faults:
                raise FaultError(where=f"{place}.id", problem=f"{fault.id!r} is taken", allowed="an id of its own")
            faults[fault.id] = fault
    return tuple(faults.values())


def preset(name: str, *, where: str = "preset") -> tuple[Fault, ...]:
    """The faults of a preset; raises FaultError for a name that there is not."""
    if name not in PRESETS:
        problem = f"unknown preset {name!r}{suggestion(name, PRESETS)}"
        raise FaultError(where=where, problem=problem, allowed=", ".join(PRESETS))
    return PRESETS[name].faults
