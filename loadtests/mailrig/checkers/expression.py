"""The language of gates: ``p99 < 20ms``, ``== 0``, ``max <= {contract.worker.held_max}``, ``task.e2e{queue=send}``.

    metric  = NAME [ "{" LABEL "=" VALUE { "," LABEL "=" VALUE } "}" ]
    check   = [ AGGREGATE ] OPERATOR NUMBER [ UNIT ]
    AGGREGATE = max | min | mean | sum | count | last | pN      (pN by nearest rank over all raw samples)
    OPERATOR  = < | <= | == | != | >= | >
    UNIT      = ms | s | min | B | KiB | MiB | GiB

Rule 1: a check without an aggregate wants exactly one sample; it never picks one by itself.
Rule 2: seconds and bytes are not plain numbers: a bound without a unit is refused, and so is a unit of the other kind.
Pure; the caller is the package.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.scenario import Contract

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
GRAMMAR: Final = f"[{'|'.join(AGGREGATES)}|pN] {'|'.join(OPERATORS)} NUMBER[{'|'.join(unit for unit in UNITS if unit)}]"
_CHECK: Final = re.compile(
    r"\s*(?:(?P<aggregate>max|min|sum|count|mean|last|p\d{1,2}(?:\.\d+)?|p100)\s+)?(?P<operator><=|<|==|!=|>=|>)\s*"
    r"(?P<number>[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*(?P<unit>ms|s|min|B|KiB|MiB|GiB)?\s*",
    re.ASCII,
)
_METRIC: Final = re.compile(r"\s*(?P<name>[a-z][a-z0-9_.]*)\s*(?:\{(?P<labels>[^{}]*)\})?\s*", re.ASCII)
_LABEL: Final = re.compile(r"\s*(?P<name>[a-z_]+)\s*=\s*(?P<value>[^\s,={}]+)\s*", re.ASCII)
#: Floats below this hold every whole number exactly.
_WHOLE_MAX: Final = 2.0**53
_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")


class CheckError(ValueError):
    """A check or a metric's name is malformed, or does not fit what it is applied to."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A bound on an aggregate."""

    #: A key of ``AGGREGATES``, ``pN``, or empty for the only sample.
    aggregate: str
    operator: str
    #: As written, in ``unit``.
    number: float
    unit: str

    def __str__(self) -> str:
        whole = self.number.is_integer() and abs(self.number) < _WHOLE_MAX
        bound = f"{self.operator} {int(self.number) if whole else self.number!r}{self.unit}"
        return f"{self.aggregate} {bound}" if self.aggregate else bound

    @property
    def bound(self) -> float:
        """The bound in seconds, bytes or plain."""
        return self.number * UNITS[self.unit][1]

    def observe(self, values: Sequence[float], kind: str) -> float:
        """The aggregate of ``values``, which are of ``kind`` (``s``, ``B`` or plain).

        Raises:
            CheckError: the units don't fit, or an aggregate is needed. ``count`` counts samples of any kind.
        """
        wanted = "" if self.aggregate == "count" else kind
        if UNITS[self.unit][0] != wanted:
            units = ", ".join(unit for unit, (of, _) in UNITS.items() if of == wanted and unit) or "a plain number"
            raise CheckError(f"check {str(self)!r}: the unit does not fit this metric, use {units}")
        if not self.aggregate:
            if len(values) != 1:
                raise CheckError(f"check {str(self)!r}: {len(values)} samples, say {', '.join(AGGREGATES)} or pN")
            return values[0]
        if self.aggregate in AGGREGATES:
            return AGGREGATES[self.aggregate](values)
        return percentile(values, float(self.aggregate[1:]))

    def holds(self, observed: float) -> bool:
        """Is ``observed`` within the bound?"""
        return OPERATORS[self.operator](observed, self.bound)


def percentile(values: Sequence[float], rank: float) -> float:
    """The nearest-rank percentile of raw samples: always a value that was seen."""
    ordered = sorted(values)
    return ordered[max(math.ceil(rank / 100 * len(ordered)), 1) - 1]


def parse_check(text: str, contract: Contract) -> Check:
    """The check that ``text`` writes; ``{contract.KEY}`` stands for the contract's number.

    Raises:
        CheckError: it is malformed; says what is allowed.
        ScenarioError: the contract has no such number.
    """
    found = _CHECK.fullmatch(_PLACEHOLDER.sub(lambda match: _promised(match[1].strip(), contract), text))
    if found is None:
        raise CheckError(f"check {text!r} is malformed; allowed: {GRAMMAR}")
    return Check(
        aggregate=found["aggregate"] or "",
        operator=found["operator"],
        number=float(found["number"]),
        unit=found["unit"] or "",
    )


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
