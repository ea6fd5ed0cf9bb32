"""Values from JSON or TOML, checked one by one.

Owns: the smallest questions (is it text, a count, a table with these keys), each of which raises FaultError and says
where. Never does: knowing what a value is for. Called by: points, actions, schedules, parse, and config.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import Final

from fakemail.faults.errors import FaultError, suggestion

_HUGE: Final = 1e15


def kind_of(value: object) -> str:
    """What a value is, for people."""
    return {dict: "a table", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))


def table(
    value: object, *, where: str, required: Collection[str] = (), optional: Collection[str] = (), allowed: str = ""
) -> dict[str, object]:
    """A table that has all required keys and none but these; ``allowed`` says that in words of its own."""
    if not isinstance(value, dict):
        raise FaultError(where=where, problem=f"{kind_of(value)} given", allowed="a table of keys and values")
    known = [*required, *optional]
    names = allowed or ", ".join(known)
    if missing := [key for key in required if key not in value]:
        slip = next((f" (is {key!r} meant to be it?)" for key in value if _near(key, missing[0], known)), "")
        raise FaultError(where=where, problem=f"{missing[0]!r} is missing{slip}", allowed=names)
    if unknown := [str(key) for key in value if key not in known]:
        problem = f"unknown key {unknown[0]!r}{suggestion(unknown[0], known)}"
        raise FaultError(where=where, problem=problem, allowed=names, key=unknown[0])
    return value


def _near(key: object, missing: str, known: Iterable[str]) -> bool:
    return isinstance(key, str) and key not in known and bool(suggestion(key, [missing]))


def only_entry(value: object, *, where: str, known: Collection[str]) -> tuple[str, object]:
    """The one entry of a table."""
    found = table(value, where=where, optional=known)
    if len(found) != 1:
        raise FaultError(where=where, problem=f"{len(found)} keys given", allowed=f"one of {', '.join(known)}")
    return next(iter(found.items()))


def text(value: object, *, where: str) -> str:
    """Text that is not empty."""
    if not isinstance(value, str) or not value:
        raise FaultError(where=where, problem=f"{value!r} given", allowed="text that is not empty")
    return value


def count(value: object, *, where: str, least: int, most: int | None = None) -> int:
    """A whole number within bounds."""
    allowed = f"a whole number from {least} " + ("up" if most is None else f"to {most}")
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        raise FaultError(where=where, problem=f"{value!r} given", allowed=allowed)
    return value


def number(value: object, *, where: str, least: float, most: float = math.inf, above: bool = False) -> float:
    """A number within bounds; ``above`` leaves the lower one out."""
    span = "a number " + (f"above {least:g}" if above else f"from {least:g}")
    allowed = span + (f" to {most:g}" if most < math.inf else "" if above else " up")
    # NaN fits no comparison; an infinity, and a whole number that no float can hold, fits not this one.
    if not isinstance(value, int | float) or isinstance(value, bool) or not -_HUGE <= value <= _HUGE:
        raise FaultError(where=where, problem=f"{value!r} given", allowed=allowed)
    if not least <= value <= most or (above and value == least):
        raise FaultError(where=where, problem=f"{value!r} given", allowed=allowed)
    return value


def yes(value: object, *, where: str) -> bool:
    """``true``: what does not happen is left out instead."""
    if value is not True:
        raise FaultError(where=where, problem=f"{value!r} given", allowed="true")
    return True


def switch(value: object, *, where: str) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise FaultError(where=where, problem=f"{value!r} given", allowed="true or false")
    return value


def one_of(value: object, *, where: str, known: Collection[str]) -> str:
    """One of some names."""
    name = text(value, where=where)
    if name not in known:
        problem = f"unknown {where.rpartition('.')[2]} {name!r}{suggestion(name, known)}"
        raise FaultError(where=where, problem=problem, allowed=", ".join(known))
    return name


def some_of(value: object, *, where: str, known: Collection[str]) -> tuple[str, ...]:
    """Some of some names, in any case of letters; answers them as they are known, each once."""
    if not isinstance(value, list) or not value:
        problem = f"{kind_of(value) if value != [] else 'an empty list'} given"
        raise FaultError(where=where, problem=problem, allowed=f"a list of {', '.join(known)}")
    by_upper = {name.upper(): name for name in known}
    found = []
    for index, each in enumerate(value):
        name = text(each, where=f"{where}[{index}]")
        if name.upper() not in by_upper:
            problem = f"unknown name {name!r}{suggestion(name, known)}"
            raise FaultError(where=f"{where}[{index}]", problem=problem, allowed=", ".join(known))
        found.append(by_upper[name.upper()])
    return tuple(dict.fromkeys(found))


def pair(value: object, *, where: str) -> tuple[object, object]:
    """A list of two."""
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004  # a pair is two
        raise FaultError(where=where, problem=f"{value!r} given", allowed="a list of two, [from, to]")
    return value[0], value[1]
