"""What a metric answers: samples, and the concrete cases behind them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Scenario


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One number, with what it belongs to."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    #: Which message, execution or instant it is, for a person.
    note: str = ""
    #: When it was so, or was due; None where that says nothing. Windows, rates, slopes and ratios need it.
    at_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A metric's samples. None at all means that nothing could be observed."""

    samples: tuple[Sample, ...] = ()
    #: ``s``, ``B``, or empty for plain numbers.
    kind: str = ""
    #: Concrete cases of what was counted, or of what else the reader should know.
    examples: tuple[str, ...] = ()
    #: Why there are no samples.
    reason: str = ""


#: Factor and unit by kind, from the finest.
_UNITS: Final[Mapping[str, Sequence[tuple[float, str]]]] = {
    "s": ((1e-3, "ms"), (1.0, "s")),
    "B": ((2.0**10, "KiB"), (2.0**20, "MiB"), (2.0**30, "GiB")),
    "": ((1.0, ""),),
}


def quantity(value: float, kind: str) -> str:
    """A number of a kind, in the unit that suits it."""
    factor, unit = next(((f, u) for f, u in reversed(_UNITS[kind]) if abs(value) >= f), _UNITS[kind][0])
    return f"{value / factor:.4g}{unit and ' ' + unit}"


Metric: TypeAlias = Callable[[Evidence, Contract, Scenario], Measurement]


def violations(found: Iterable[str], *, judged: int, of: str) -> Measurement:
    """How many violations there are among ``judged`` things. None of none is not a good sign but no sign at all."""
    if judged == 0:
        return nothing(f"no {of} to judge")
    cases = tuple(found)
    return Measurement(samples=(Sample(value=len(cases), note=f"{judged} {of} judged"),), examples=cases)


def nothing(reason: str) -> Measurement:
    """No samples, and why."""
    return Measurement(reason=reason)


def series(samples: Sequence[Sample], *, kind: str, of: str) -> Measurement:
    """Samples of one kind."""
    return Measurement(samples=tuple(samples), kind=kind, reason="" if samples else f"no {of}")
