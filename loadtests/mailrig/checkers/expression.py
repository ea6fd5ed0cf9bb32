"""The language of gates: ``p99 < 20ms``, ``== 0``, ``max <= {contract.worker.held_max}``, ``task.e2e{queue=send}``.

    metric     = NAME [ "{" LABEL "=" VALUE { "," LABEL "=" VALUE } "}" ]
    check      = [ AGGREGATE ] OPERATOR NUMBER [ UNIT ]
               | "rate" OPERATOR NUMBER "/" TIME
               | "slope" BOUND NUMBER [ UNIT ] "/" TIME [ "confidence" SHARE ]
               | COMPARED "ratio" "baseline" BOUND NUMBER [ "confidence" SHARE ]
    AGGREGATE  = max | min | mean | sum | count | last | pN      (pN by nearest rank over all raw samples)
    COMPARED   = mean | pN
    OPERATOR   = BOUND | == | !=
    BOUND      = < | <= | >= | >
    UNIT       = ms | s | min | B | KiB | MiB | GiB
    TIME       = s | min | h
    SHARE      = 0.5 to 0.999; without it 0.95

Rule 1: a check without an aggregate wants exactly one sample; it never picks one by itself.
Rule 2: seconds and bytes are not plain numbers: a bound without a unit is refused, and so is a unit of the other kind.
Rule 3: what has a confidence breaks only when it is that sure: the near end of its one-sided interval is compared.
Pure; the caller is the package. What rates, slopes and ratios are made of is ``applying``'s.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.scenario import Contract
from mailrig.statistics import percentile

AGGREGATES: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "max": max,
    "min": min,
    "sum": math.fsum,
    "count": len,
    "mean": lambda values: math.fsum(values) / len(values),
    "last": lambda values: values[-1],
}
OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
#: Unit -> (kind, factor). A metric's samples are in the kind: seconds, bytes, or plain numbers.
UNITS: Final[Mapping[str, tuple[str, float]]] = {
    "": ("", 1.0),
    "ms": ("s", 1e-3),
    "s": ("s", 1.0),
    "min": ("s", 60.0),
    "B": ("B", 1.0),
    "KiB": ("B", 1024.0),
    "MiB": ("B", 1024.0**2),
    "GiB": ("B", 1024.0**3),
}
#: What a rate or a slope may be by: seconds.
TIMES: Final[Mapping[str, float]] = {"s": 1.0, "min": 60.0, "h": 3600.0}
#: Of samples in time; ``AGGREGATES`` are of their values alone.
RATE, SLOPE = "rate", "slope"
CONFIDENCE: Final = 0.95
GRAMMAR: Final = (
    f"[{'|'.join(AGGREGATES)}|pN] {'|'.join(OPERATORS)} NUMBER[{'|'.join(unit for unit in UNITS if unit)}], "
    f"rate OPERATOR NUMBER/{'|'.join(TIMES)}, slope <|<=|>=|> NUMBER[UNIT]/{'|'.join(TIMES)} [confidence 0.95], "
    "mean|pN ratio baseline <|<=|>=|> NUMBER [confidence 0.95]"
)
_NUMBER: Final = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_CHECK: Final = re.compile(
    r"\s*(?:(?P<aggregate>max|min|sum|count|mean|last|rate|slope|p\d{1,2}(?:\.\d+)?|p100)\s+)?"
    r"(?P<baseline>ratio\s+baseline\s*)?(?P<operator><=|<|==|!=|>=|>)\s*"
    rf"(?P<number>{_NUMBER})\s*(?P<unit>ms|s|min|B|KiB|MiB|GiB)?\s*(?:/\s*(?P<per>s|min|h))?"
    r"(?:\s+confidence\s+(?P<confidence>\d(?:\.\d+)?))?\s*",
    re.ASCII,
)
_QUANTITY: Final = re.compile(r"\s*(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|B|KiB|MiB|GiB)?\s*", re.ASCII)
_METRIC: Final = re.compile(r"\s*(?P<name>[a-z][a-z0-9_.]*)\s*(?:\{(?P<labels>[^{}]*)\})?\s*", re.ASCII)
_LABEL: Final = re.compile(r"\s*(?P<name>[a-z_]+)\s*=\s*(?P<value>[^\s,={}]+)\s*", re.ASCII)
#: Floats below this hold every whole number exactly.
_WHOLE_MAX: Final = 2.0**53
_SURE_MIN, _SURE_MAX = 0.5, 0.999
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


class CheckError(ValueError):
    """A check or a metric's name is malformed, or does not fit what it is applied to."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound on an aggregate."""

    #: A key of ``AGGREGATES``, ``pN``, ``RATE``, ``SLOPE``, or empty for the only sample.
    aggregate: str
    operator: str
    #: As written, in ``unit``, by ``per``.
    number: float
    unit: str
    #: A key of ``TIMES``, or empty.
    per: str = ""
    #: Whether the aggregate is divided by the same one of a baseline.
    baseline: bool = False
    #: How sure a slope or a ratio must be to break the bound; None where none was written.
    confidence: float | None = None

    def __str__(self) -> str:
        whole = self.number.is_integer() and abs(self.number) < _WHOLE_MAX
        number = str(int(self.number)) if whole else repr(self.number)
        words = [self.aggregate, "ratio baseline" if self.baseline else "", self.operator, number + self.unit_text]
        words += [f"confidence {self.confidence!r}"] if self.confidence is not None else []
        return " ".join(filter(None, words))

    @property
    def unit_text(self) -> str:
        """The unit as it is written."""
        return f"{self.unit}/{self.per}" if self.per else self.unit

    @property
    def factor(self) -> float:
        """What a number as written is worth in seconds, bytes or plain, by the second."""
        return UNITS[self.unit][1] / TIMES.get(self.per, 1.0)

    @property
    def bound(self) -> float:
        """The bound in seconds, bytes or plain, by the second."""
        return self.number * self.factor

    @property
    def upper(self) -> bool:
        """Whether the bound is one that must not be passed from below."""
        return self.operator.startswith("<")

    @property
    def sure(self) -> float:
        """The confidence that is meant."""
        return CONFIDENCE if self.confidence is None else self.confidence

    def observe(self, values: Sequence[float], kind: str) -> float:
        """The aggregate of ``values``, which are of ``kind`` (``s``, ``B`` or plain).

        Raises:
            CheckError: the units don't fit, or an aggregate is needed. ``count`` counts samples of any kind.
        """
        self.require_unit("" if self.aggregate == "count" else kind)
        if not self.aggregate:
            if len(values) != 1:
                raise CheckError(f"check {str(self)!r}: {len(values)} samples, say {', '.join(AGGREGATES)} or pN")
            return values[0]
        return aggregate(values, self.aggregate)

    def require_unit(self, kind: str) -> None:
        """Refuse a unit of another kind.

        Raises:
            CheckError: says which would fit.
        """
        if UNITS[self.unit][0] != kind:
            units = ", ".join(unit for unit, (of, _) in UNITS.items() if of == kind and unit) or "a plain number"
            raise CheckError(f"check {str(self)!r}: the unit does not fit this metric, use {units}")

    def holds(self, observed: float) -> bool:
        """Is ``observed`` within the bound?"""
        return OPERATORS[self.operator](observed, self.bound)


def aggregate(values: Sequence[float], name: str) -> float:
    """A key of ``AGGREGATES`` or ``pN``, of at least one value."""
    return AGGREGATES[name](values) if name in AGGREGATES else percentile(values, float(name[1:]))


def parse_check(text: str, contract: Contract) -> Check:
    """The check that ``text`` writes; ``{contract.KEY}`` stands for the contract's number.

    Raises:
        CheckError: it is malformed; says what is allowed.
        ScenarioError: the contract has no such number.
    """
    found = _CHECK.fullmatch(_PLACEHOLDER.sub(lambda match: _promised(match[1].strip(), contract), text))
    if found is None:
        raise CheckError(f"check {text!r} is malformed; allowed: {GRAMMAR}")
    check = Check(
        aggregate=found["aggregate"] or "",
        operator=found["operator"],
        number=float(found["number"]),
        unit=found["unit"] or "",
        per=found["per"] or "",
        baseline=found["baseline"] is not None,
        confidence=float(found["confidence"]) if found["confidence"] else None,
    )
    if wrong := _contradiction(check):
        raise CheckError(f"check {text!r}: {wrong}")
    return check


def _contradiction(check: Check) -> str:
    """What can't be meant, in words; empty when all of it can."""
    in_time = check.aggregate in {RATE, SLOPE}
    unsure = check.baseline or check.aggregate == SLOPE
    rules = [
        (in_time and not check.per, f"a {check.aggregate} is by a time: write NUMBER/{'|'.join(TIMES)}"),
        (not in_time and bool(check.per), f"only a rate and a slope are by a time, allowed: {RATE}, {SLOPE}"),
        (check.aggregate == RATE and bool(check.unit), "a rate counts: its number is plain, such as 10/s"),
        (check.baseline and bool(check.unit), "a ratio is a plain number, such as 1.15"),
        (check.baseline and not _is_compared(check.aggregate), "a ratio is that of mean or pN"),
        (unsure and check.operator in {"==", "!="}, "what is not exact has a bound, allowed: <, <=, >=, >"),
        (check.confidence is not None and not unsure, "only a slope and a ratio have a confidence"),
        (not _SURE_MIN <= check.sure <= _SURE_MAX, f"a confidence is from {_SURE_MIN} to {_SURE_MAX}"),
    ]
    return next((words for wrong, words in rules if wrong), "")


def _is_compared(aggregate: str) -> bool:
    return aggregate == "mean" or aggregate.startswith("p")


def parse_quantity(text: str) -> tuple[float, str]:
    """A number with its unit, such as ``10s``: in seconds, bytes or plain, and the kind.

    Raises:
        CheckError: it is malformed.
    """
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise CheckError(f"{text!r} is malformed; allowed: NUMBER[{'|'.join(unit for unit in UNITS if unit)}]")
    kind, factor = UNITS[found["unit"] or ""]
    return float(found["number"]) * factor, kind


def parse_window(text: str) -> float:
    """The seconds of a ``for``.

    Raises:
        CheckError: it is no time, or none at all.
    """
    length, kind = parse_quantity(text)
    if kind != "s" or length <= 0:
        raise CheckError(f"for {text!r} is not allowed; allowed: a time above 0, such as 10s")
    return length


def _promised(name: str, contract: Contract) -> str:
    section, _, key = name.partition(".")
    if section != "contract":
        raise CheckError(f"placeholder {{{name}}} is not known; allowed: {{contract.SECTION.KEY}}")
    return repr(contract.number(key))


def parse_metric(text: str) -> tuple[str, dict[str, str]]:
    """A metric's name and the labels that select among its samples.

    Raises:
        CheckError: it is malformed.
    """
    found = _METRIC.fullmatch(text)
    if found is None:
        raise CheckError(f"metric {text!r} is malformed; allowed: NAME or NAME{{label=value,...}}")
    labels = {}
    for part in (found["labels"] or "").split(",") if found["labels"] is not None else ():
        label = _LABEL.fullmatch(part)
        if label is None:
            raise CheckError(f"metric {text!r}: {part!r} is not label=value")
        labels[label["name"]] = label["value"]
    return found["name"], labels
