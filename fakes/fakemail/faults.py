"""A fault as data, and the plan that decides when it happens.

Owns: what a fault may say (points, schedules, actions, matches), its validation and the counting.
Never does: I/O, clocks, sleeping, randomness of its own. Probability is a hash of seed, fault and count, so the same
seed and the same order of events give the same faults. The servers carry a decision out.
Called by: imap_server, smtp_server (``decide``), control and __main__ (``parse_faults``), and whoever writes faults.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from fakemail import FakemailError


class FaultError(FakemailError):
    """A fault description can't be understood."""

    def __init__(self, *, where: str, problem: str, allowed: str) -> None:
        super().__init__(f"{where}: {problem}; allowed: {allowed}")
        #: Path of the offending value, such as ``faults[1].when``.
        self.where = where


@dataclass(frozen=True, kw_only=True)
class Point:
    """A protocol event at which a fault may happen."""

    #: The event, in words.
    event: str
    #: Keys that a fault's ``match`` may use here.
    match: frozenset[str]
    #: What a ``reply`` must look like here.
    reply: re.Pattern[str]
    #: The same for people.
    reply_form: str


_SMTP_REPLY: Final = re.compile(r"[45]\d\d [\x20-\x7e]*[\x21-\x7e]")
_SMTP_FORM: Final = "a 4xx or 5xx reply with text, such as '451 4.3.0 Try again later'"
_ENVELOPE: Final = frozenset({"recipient", "sender", "user"})
_IMAP_REPLY: Final = re.compile(r"(NO|BAD|BYE) (\[[^\]\r\n]+\] )?[\x20-\x7e]*[\x21-\x7e]")

#: Every point. A new one is a row here and one ``decide`` call in a server.
POINTS: Final[Mapping[str, Point]] = {
    "smtp.connect": Point(
        event="a client has connected, before the 220", match=frozenset(), reply=_SMTP_REPLY, reply_form=_SMTP_FORM
    ),
    "smtp.mail": Point(
        event="MAIL FROM", match=frozenset({"sender", "user"}), reply=_SMTP_REPLY, reply_form=_SMTP_FORM
    ),
    "smtp.rcpt": Point(event="RCPT TO", match=_ENVELOPE, reply=_SMTP_REPLY, reply_form=_SMTP_FORM),
    "smtp.data": Point(event="DATA, before the 354", match=_ENVELOPE, reply=_SMTP_REPLY, reply_form=_SMTP_FORM),
    "smtp.accepted": Point(
        event="the message is stored, before the 250", match=_ENVELOPE, reply=_SMTP_REPLY, reply_form=_SMTP_FORM
    ),
    "imap.connect": Point(
        event="a client has connected, before the greeting",
        match=frozenset(),
        reply=re.compile(r"BYE [\x20-\x7e]*[\x21-\x7e]"),
        reply_form="BYE with text, such as 'BYE [UNAVAILABLE] Too many connections'",
    ),
    "imap.command": Point(
        event="a whole command has arrived, before it runs",
        match=frozenset({"command", "user"}),
        reply=_IMAP_REPLY,
        reply_form="NO, BAD or BYE with text, such as 'NO [UNAVAILABLE] Try again later'",
    ),
}


@dataclass(frozen=True, kw_only=True)
class When:
    """At which of the matching events a fault fires."""

    #: first | nth | every | probability.
    kind: str
    #: A count from 1 up, or a probability from 0 to 1.
    value: int | float

    def fires(self, count: int, chance: Callable[[], float]) -> bool:
        """Say whether the event number ``count`` (from 1 up) is hit; ``chance`` is asked for probability alone."""
        return _SCHEDULES[self.kind](count, self.value, chance)


#: How each schedule reads (count, value, chance).
_SCHEDULES: Final[Mapping[str, Callable[[int, int | float, Callable[[], float]], bool]]] = {
    "first": lambda count, value, _: count <= value,
    "nth": lambda count, value, _: count == value,
    "every": lambda count, value, _: count % value == 0,
    "probability": lambda _, value, chance: chance() < value,
}


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a server does: exactly one of reply, drop and delay."""

    #: The fault that says so.
    fault_id: str
    #: Sent instead of the usual reply.
    reply: str | None = None
    #: The connection is cut without a word.
    drop: bool = False
    #: Waited before going on as usual.
    delay_ms: int = 0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to misbehave: where, when, for whom, what."""

    #: Unique in its plan.
    id: str
    #: A key of ``POINTS``.
    point: str
    when: When
    action: Action
    #: Patterns (shell style, case-insensitive) that the event must fit, by key.
    match: Mapping[str, str] = field(default_factory=dict)

    def applies(self, context: Mapping[str, str | Sequence[str]]) -> bool:
        """Say whether the event fits every pattern; of several recipients one is enough."""
        return all(_fits(context.get(key, ()), pattern) for key, pattern in self.match.items())

    def as_dict(self) -> dict[str, object]:
        """The form that ``parse_fault`` reads."""
        action: dict[str, object] = {"delay_ms": self.action.delay_ms}
        if self.action.reply is not None:
            action = {"reply": self.action.reply}
        elif self.action.drop:
            action = {"drop": True}
        result: dict[str, object] = {
            "id": self.id,
            "point": self.point,
            "when": {self.when.kind: self.when.value},
            "action": action,
        }
        return result | ({"match": dict(self.match)} if self.match else {})


def _fits(value: str | Sequence[str], pattern: str) -> bool:
    values = (value,) if isinstance(value, str) else value
    return any(fnmatch.fnmatchcase(each.lower(), pattern.lower()) for each in values)


@dataclass(kw_only=True)
class _Counter:
    """How often a fault's events were seen, and how often it fired."""

    seen: int = 0
    fired: int = 0


class Plan:
    """The faults in force and their counts.

    Rule 1: every fault counts each event that it matches, whether or not another fault fires there.
    Rule 2: the first in the list that fires wins.
    """

    def __init__(self, seed: int, faults: Iterable[Fault] = ()) -> None:
        self._seed = seed
        self._faults: tuple[Fault, ...] = ()
        self._at: dict[str, list[Fault]] = {}
        self._counters: dict[str, _Counter] = {}
        self.replace(faults)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults in force, in order."""
        return self._faults

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """By fault id: how many events it saw and how often it fired."""
        return {name: {"seen": each.seen, "fired": each.fired} for name, each in self._counters.items()}

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put other faults in force; all counting starts anew."""
        self._faults = tuple(faults)
        self._at = {point: [fault for fault in self._faults if fault.point == point] for point in POINTS}
        self._counters = {fault.id: _Counter() for fault in self._faults}

    def decide(self, point: str, **context: str | Sequence[str]) -> Action | None:
        """Count the event and say what shall go wrong, if anything."""
        matching = [fault for fault in self._at[point] if fault.applies(context)]
        for fault in matching:
            self._counters[fault.id].seen += 1
        hit = next((fault for fault in matching if self._fires(fault)), None)
        if hit is None:
            return None
        self._counters[hit.id].fired += 1
        return hit.action

    def _fires(self, fault: Fault) -> bool:
        count = self._counters[fault.id].seen
        return fault.when.fires(count, lambda: self._chance(fault.id, count))

    def _chance(self, fault_id: str, count: int) -> float:
        """A number in [0, 1) that depends on nothing but the seed, the fault and the count."""
        digest = hashlib.blake2b(f"{self._seed}\x1f{fault_id}\x1f{count}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64


def parse_faults(value: object, *, where: str = "faults") -> tuple[Fault, ...]:
    """Faults from JSON or TOML; raises FaultError, which says where it is wrong and what is allowed."""
    if not isinstance(value, list):
        raise FaultError(where=where, problem=f"{_kind(value)} given", allowed="a list of faults")
    faults: dict[str, Fault] = {}
    for index, each in enumerate(value):
        fault = parse_fault(each, where=f"{where}[{index}]")
        if fault.id in faults:
            raise FaultError(where=f"{where}[{index}].id", problem=f"{fault.id!r} is taken", allowed="an id of its own")
        faults[fault.id] = fault
    return tuple(faults.values())


def parse_fault(value: object, *, where: str = "fault") -> Fault:
    """One fault from JSON or TOML; raises FaultError."""
    table = _table(value, where=where, required={"id", "point", "when", "action"}, optional={"match"})
    fault_id = _text(table["id"], where=f"{where}.id")
    point = _text(table["point"], where=f"{where}.point")
    if point not in POINTS:
        raise FaultError(where=f"{where}.point", problem=f"unknown point {point!r}", allowed=", ".join(POINTS))
    return Fault(
        id=fault_id,
        point=point,
        when=_when(table["when"], where=f"{where}.when"),
        action=_action(table["action"], where=f"{where}.action", fault_id=fault_id, point=POINTS[point]),
        match=_match(table.get("match", {}), where=f"{where}.match", allowed=POINTS[point].match),
    )


def _when(value: object, *, where: str) -> When:
    kind, number = _only_entry(value, where=where, allowed=_SCHEDULES)
    if kind == "probability":
        if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number <= 1:
            raise FaultError(where=f"{where}.{kind}", problem=f"{number!r} given", allowed="a number from 0 to 1")
        return When(kind=kind, value=number)
    return When(kind=kind, value=_count(number, where=f"{where}.{kind}", least=1))


def _action(value: object, *, where: str, fault_id: str, point: Point) -> Action:
    kind, argument = _only_entry(value, where=where, allowed=("reply", "drop", "delay_ms"))
    where = f"{where}.{kind}"
    if kind == "delay_ms":
        return Action(fault_id=fault_id, delay_ms=_count(argument, where=where, least=0))
    if kind == "drop":
        if argument is not True:
            raise FaultError(where=where, problem=f"{argument!r} given", allowed="true")
        return Action(fault_id=fault_id, drop=True)
    reply = _text(argument, where=where)
    # The pattern keeps line breaks out as well: a reply is one line.
    if not point.reply.fullmatch(reply):
        raise FaultError(where=where, problem=f"{reply!r} given", allowed=point.reply_form)
    return Action(fault_id=fault_id, reply=reply)


def _match(value: object, *, where: str, allowed: frozenset[str]) -> dict[str, str]:
    table = _table(value, where=where, required=set(), optional=set(allowed))
    return {key: _text(pattern, where=f"{where}.{key}") for key, pattern in table.items()}


def _table(value: object, *, where: str, required: set[str], optional: set[str]) -> dict[str, object]:
    if not isinstance(value, dict):
        raise FaultError(where=where, problem=f"{_kind(value)} given", allowed="a table of keys and values")
    names = ", ".join(sorted(required | optional)) or "nothing at this point"
    if unknown := sorted(set(value) - required - optional):
        raise FaultError(where=where, problem=f"unknown key {unknown[0]!r}", allowed=names)
    if missing := sorted(required - set(value)):
        raise FaultError(where=where, problem=f"{missing[0]!r} is missing", allowed=names)
    return value


def _only_entry(value: object, *, where: str, allowed: Iterable[str]) -> tuple[str, object]:
    names = set(allowed)
    table = _table(value, where=where, required=set(), optional=names)
    if len(table) != 1:
        raise FaultError(where=where, problem=f"{len(table)} keys given", allowed=f"one of {', '.join(sorted(names))}")
    return next(iter(table.items()))


def _text(value: object, *, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise FaultError(where=where, problem=f"{value!r} given", allowed="text that is not empty")
    return value


def _count(value: object, *, where: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise FaultError(where=where, problem=f"{value!r} given", allowed=f"a whole number from {least} up")
    return value


def _kind(value: object) -> str:
    return {dict: "a table", list: "a list", str: "text", type(None): "nothing"}.get(type(value), repr(value))
