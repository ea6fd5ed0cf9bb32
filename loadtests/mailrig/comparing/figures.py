"""Percentiles of two runs and the interval of their ratio. Pure.

Slices of time are drawn, not samples, because latencies in a queue follow one another; under the same schedule the same
slices of both. All intervals together hold in 95 of 100 comparisons (Bonferroni). That covers what varies within a run.
What varies from run to run it can't see, so a difference counts only beyond what runs of the same code differ by.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.checkers import METRICS, GateResult, Verdict
from mailrig.checkers.measurement import Measurement, Sample
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Scenario
from mailrig.statistics import Interval, bounds, draws, mean, percentile, redrawn, slices

CONFIDENCE: Final = 0.95
#: Runs of the same code differ by up to so much on shared cores: times on the clock, CPU time, memory.
NOISE: Final[Mapping[str, float]] = {"time": 2.0, "CPU time": 1.5, "memory": 1.1}
#: Fewer say nothing of a percentile.
SAMPLES_MIN: Final = 20
SLICES: Final = 20
_RESAMPLES: Final = 400
_SEED: Final = 1
#: What is compared, and the label by which it is taken apart.
SERIES: Final[Mapping[str, str]] = {
    "http.accept": "f",
    "task.e2e": "queue",
    "task.queue_time": "queue",
    "task.run_time": "queue",
    "schedule_lag": "",
    "memory.total": "",
}
#: One number a run, without an interval.
NUMBERS: Final = ("worker.cpu_per_execution",)
_RANKS: Final = (50.0, 95.0)
#: Differences, from none to one that counts.
SAME, WITHIN, MORE, LESS, UNKNOWN = "same", "within", "more", "less", "unknown"


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two runs."""

    name: str
    scenario: Scenario
    contract: Contract
    evidence: Evidence
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of both runs; None where a run does not have it."""

    name: str
    kind: str
    a: float | None
    b: float | None
    #: B over A; None where there are too few samples or no ratio.
    ratio: Interval | None
    #: ``SAME``: the interval holds 1. ``WITHIN``: it does not, but runs of the same code differ as much. ``MORE`` and
    #: ``LESS``: beyond that. ``UNKNOWN``: a run does not tell.
    difference: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """A gate that both runs have and judge differently, or that only one of them has."""

    id: str
    a: GateResult | None
    b: GateResult | None


def compare(a: Side, b: Side, *, noise: float | None = None) -> list[Row]:
    """All figures that either run has; ``noise`` stands for every factor of ``NOISE``."""
    pairs = {name: _measured(name, a, b) for name in (*SERIES, *NUMBERS)}
    parts = [part for name, label in SERIES.items() for part in _parts(name, pairs[name], label)]
    same_schedule = a.scenario.text == b.scenario.text
    each = 1 - (1 - CONFIDENCE) / max(len(parts), 1)
    rows = []
    for part in parts:
        ratio = _ratio(part, each, same_schedule=same_schedule)
        rows.append(
            Row(
                name=part.name,
                kind=part.kind,
                a=part.a,
                b=part.b,
                ratio=ratio,
                difference=_told(ratio, noise or _noise(part.series)),
            )
        )
    return [*rows, *(row for name in NUMBERS if (row := _number(name, pairs[name], noise or _noise(name))) is not None)]


def _measured(name: str, a: Side, b: Side) -> tuple[Measurement, Measurement]:
    one, other = (METRICS[name](side.evidence, side.contract, side.scenario) for side in (a, b))
    return one, other


@dataclass(frozen=True, kw_only=True)
class _Part:
    """One percentile of one series of both runs."""

    series: str
    rank: float
    kind: str
    samples: tuple[list[Sample], list[Sample]]

    @property
    def name(self) -> str:
        return f"{self.series} p{self.rank:g}"

    @property
    def a(self) -> float | None:
        return self._of(0)

    @property
    def b(self) -> float | None:
        return self._of(1)

    def _of(self, index: int) -> float | None:
        samples = self.samples[index]
        return percentile([sample.value for sample in samples], self.rank) if samples else None


def _parts(name: str, pair: tuple[Measurement, Measurement], label: str) -> Iterator[_Part]:
    """The samples of both, by the value of a label."""
    found: dict[str, tuple[list[Sample], list[Sample]]] = defaultdict(lambda: ([], []))
    for index, measurement in enumerate(pair):
        for sample in measurement.samples:
            found[sample.labels.get(label, "")][index].append(sample)
    for value, samples in sorted(found.items()):
        series = f"{name}{{{label}={value}}}" if value else name
        for rank in _RANKS:
            yield _Part(series=series, rank=rank, kind=pair[0].kind or pair[1].kind, samples=samples)


def _ratio(part: _Part, confidence: float, *, same_schedule: bool) -> Interval | None:
    """The interval of B over A; None where there are too few samples, or no ratio."""
    a, b = part.a, part.b
    if not a or not b or min(map(len, part.samples)) < SAMPLES_MIN:
        return None
    first = draws(SLICES, resamples=_RESAMPLES, seed=_SEED)
    second = first if same_schedule else draws(SLICES, resamples=_RESAMPLES, seed=_SEED + 1)
    one, other = (
        redrawn(_sliced(samples), indices, lambda values: percentile(values, part.rank))
        for samples, indices in zip(part.samples, (first, second), strict=True)
    )
    ratios = [y / x if x > 0 else math.nan for x, y in zip(one, other, strict=True)]
    low, high = bounds(ratios, confidence=confidence)
    return Interval(estimate=b / a, low=min(low, b / a), high=max(high, b / a))


def _sliced(samples: Sequence[Sample]) -> list[list[float]]:
    times = [(sample.at_ns or 0) / 1e9 for sample in samples]
    return slices(times, [s.value for s in samples], start=min(times), end=max(times), count=SLICES)


def _noise(series: str) -> float:
    return NOISE["CPU time" if series in NUMBERS else "memory" if series.startswith("memory.") else "time"]


def _told(ratio: Interval | None, noise: float) -> str:
    if ratio is None:
        return UNKNOWN
    if not ratio.beyond(1.0):
        return SAME
    if ratio.low > noise:
        return MORE
    return LESS if ratio.high < 1 / noise else WITHIN


def _number(name: str, pair: tuple[Measurement, Measurement], noise: float) -> Row | None:
    """Without an interval it is not known to be the same: it is within noise or beyond it."""
    a, b = (mean([s.value for s in each.samples]) if each.samples else None for each in pair)
    if a is None and b is None:
        return None
    difference = UNKNOWN
    if a and b:
        difference = MORE if b / a > noise else LESS if b / a < 1 / noise else WITHIN
    return Row(name=name, kind=pair[0].kind or pair[1].kind, a=a, b=b, ratio=None, difference=difference)


def changed_gates(a: Verdict, b: Verdict) -> list[Change]:
    """Gates that say something else, in the order of B's; then those that only A has."""
    before, now = ({gate.id: gate for gate in verdict.gates} for verdict in (a, b))
    found = [Change(id=name, a=before.get(name), b=now.get(name)) for name in {**now, **before}]
    return [change for change in found if _verdict(change.a) != _verdict(change.b)]


def _verdict(gate: GateResult | None) -> str | None:
    return None if gate is None else gate.verdict
