"""A check applied to samples: as a whole, in windows, as a rate, as a slope, or beside a baseline.

Rule 1: a window, a process or a baseline of which nothing was seen is not known, and never holds.
Rule 2: of several windows or series the worst is told, with all that are out of bounds.
Pure. Called by the package.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailrig.checkers.expression import (
    RATE,
    SLOPE,
    UNITS,
    Check,
    CheckError,
    aggregate,
    parse_quantity,
    parse_window,
)
from mailrig.checkers.hopeless import can_abort
from mailrig.checkers.measurement import Sample
from mailrig.scenario import Gate
from mailrig.statistics import RESAMPLES, draws, percentile, redrawn, slices, slope_interval

#: Fewer samples of a series say nothing of its slope, and fewer of a run nothing of a ratio.
SLOPE_SAMPLES_MIN: Final = 8
RATIO_SAMPLES_MIN: Final = 20
#: Slices of a run's time that are drawn as one.
SLICES: Final = 20
#: Values that a bootstrap may look at.
_LOOKS_MAX: Final = 4_000_000
_RESAMPLES_MIN: Final = 200
_SEED: Final = 1


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What an earlier run says of one metric."""

    samples: Sequence[Sample]
    kind: str
    #: Whether it ran under the same schedule: then the same slices of time are drawn of both.
    same_schedule: bool
    #: What a person calls that run.
    name: str = "the baseline"


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a check saw."""

    #: What is compared with the bound, in seconds, bytes or plain, by the second.
    value: float
    holds: bool
    #: What a person should know besides.
    notes: tuple[str, ...] = ()


def apply(check: Check, gate: Gate, samples: Sequence[Sample], kind: str, baseline: Baseline | None) -> Observation:
    """What ``gate``'s check says of at least one sample.

    Raises:
        CheckError: it does not fit them, or too little was seen.
    """
    if check.baseline:
        return _beside(check, gate, samples, kind, baseline)
    if check.aggregate == SLOPE:
        return _slopes(check, samples, kind)
    if gate.window:
        return _windows(check, parse_window(gate.window), samples, kind)
    value = _rate(check, samples) if check.aggregate == RATE else check.observe([s.value for s in samples], kind)
    return Observation(value=value, holds=check.holds(value))


def check_gate(check: Check, gate: Gate) -> None:
    """Refuse what a gate says besides its check, when it can't be meant.

    Raises:
        CheckError: says what would be allowed.
    """
    if gate.window:
        parse_window(gate.window)
        if check.baseline or check.aggregate == SLOPE:
            raise CheckError("for does not go with a slope or a ratio, which are of the whole run")
        if not check.aggregate:
            raise CheckError("for needs an aggregate in its check, such as max or p95")
    if gate.min_effect:
        parse_quantity(gate.min_effect)
        if not check.baseline:
            raise CheckError("min_effect goes with a ratio to a baseline alone")
    if gate.abort and (gate.window or not can_abort(check)):
        raise CheckError("abort goes with max or count under a bound, min over one, and pN, of the whole run")


def _times(samples: Sequence[Sample], check: Check) -> list[float]:
    """Seconds of each sample since the first."""
    known = [sample.at_ns for sample in samples if sample.at_ns is not None]
    if len(known) != len(samples):
        raise CheckError(f"check {str(check)!r}: the samples of this metric have no times")
    first = min(known)
    return [(at_ns - first) / 1e9 for at_ns in known]


def _rate(check: Check, samples: Sequence[Sample]) -> float:
    """Samples by the second, from the first to the last: so many less one, because the first one only begins it."""
    length = max(_times(samples, check))
    if not length:
        raise CheckError(f"check {str(check)!r}: all samples are of one moment")
    return (len(samples) - 1) / length


# --- windows ----------------------------------------------------------------------------------------------------------


def _windows(check: Check, length_s: float, samples: Sequence[Sample], kind: str) -> Observation:
    """Each window must hold; a last one that is shorter than half belongs to the one before."""
    times = _times(samples, check)
    count = max(round(max(times) / length_s), 1)
    windows: list[list[float]] = [[] for _ in range(count)]
    for at_s, sample in zip(times, samples, strict=True):
        windows[min(int(at_s / length_s), count - 1)].append(sample.value)
    last_s = max(times) - (count - 1) * length_s
    found = [
        _window(check, values, kind, number * length_s, length_s if number < count - 1 else last_s)
        for number, values in enumerate(windows)
    ]
    return _worst(check, found)


def _window(check: Check, values: Sequence[float], kind: str, start_s: float, length_s: float) -> tuple[float, str]:
    name = f"{start_s:g} s to {start_s + length_s:.4g} s"
    if check.aggregate == RATE:
        value = len(values) / length_s if length_s else math.nan
    elif values or check.aggregate == "count":
        value = check.observe(values, kind)
    else:
        raise CheckError(f"no sample from {name}")
    return value, f"{name}: {told(check, value)}"


def told(check: Check, value: float) -> str:
    """A value in the check's unit."""
    return f"{value / check.factor:.4g} {check.unit_text}".strip()


def _worst(check: Check, found: Sequence[tuple[float, str]]) -> Observation:
    broken = [(value, note) for value, note in found if not check.holds(value)]
    broken.sort(key=lambda pair: pair[0], reverse=check.upper)
    pick: Callable[..., tuple[float, str]] = max if check.upper else min
    value, _ = broken[0] if broken else pick(found, key=lambda pair: pair[0])
    return Observation(value=value, holds=not broken, notes=tuple(note for _, note in broken))


# --- slopes -----------------------------------------------------------------------------------------------------------


def _slopes(check: Check, samples: Sequence[Sample], kind: str) -> Observation:
    """Each series by itself: samples with the same labels. What is compared is the near end of the interval."""
    check.require_unit(kind)
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = defaultdict(list)
    for at_s, sample in zip(_times(samples, check), samples, strict=True):
        series[tuple(sorted(sample.labels.items()))].append((at_s, sample.value))
    long = {labels: points for labels, points in series.items() if len(points) >= SLOPE_SAMPLES_MIN}
    if not long:
        raise CheckError(f"check {str(check)!r}: no series has {SLOPE_SAMPLES_MIN} samples")
    return _worst(check, [_slope(check, labels, points) for labels, points in sorted(long.items())])


def _slope(check: Check, labels: Sequence[tuple[str, str]], points: Sequence[tuple[float, float]]) -> tuple[float, str]:
    found = slope_interval(points, confidence=2 * check.sure - 1, seed=_SEED)
    if math.isnan(found.estimate):
        raise CheckError(f"check {str(check)!r}: all samples of a series are of one moment")
    near = found.low if check.upper else found.high
    name = ", ".join(f"{key}={value}" for key, value in labels) or "all samples"
    end = "at least" if check.upper else "at most"
    return near, f"{name}: {told(check, found.estimate)}, {end} {told(check, near)} with confidence {check.sure:g}"


# --- beside a baseline ------------------------------------------------------------------------------------------------


def _beside(check: Check, gate: Gate, samples: Sequence[Sample], kind: str, baseline: Baseline | None) -> Observation:
    """The ratio's near end, and that of the difference where a least effect was named: both must pass to break it."""
    if baseline is None:
        raise CheckError("no baseline: judge it beside one, mailrig check RUN --baseline RUN")
    if min(len(samples), len(baseline.samples)) < RATIO_SAMPLES_MIN:
        counts = f"{len(samples)} samples beside {len(baseline.samples)}"
        raise CheckError(f"check {str(check)!r}: {counts}, a ratio needs {RATIO_SAMPLES_MIN} of both")
    one, other = _redrawn(check, samples, baseline)
    here, there = (aggregate([s.value for s in each], check.aggregate) for each in (samples, baseline.samples))
    if there <= 0 or min(other) <= 0:
        raise CheckError(
            f"check {str(check)!r}: the baseline's {check.aggregate} is {there:g}, there is no ratio to it"
        )
    ratio = _near(check, [a / b for a, b in zip(one, other, strict=True)])
    effect = _near(check, [a - b for a, b in zip(one, other, strict=True)])
    least, unit = parse_quantity(gate.min_effect) if gate.min_effect else (0.0, kind)
    if unit != kind:
        raise CheckError(f"min_effect {gate.min_effect!r}: the unit does not fit this metric")
    beyond = effect > least if check.upper else -effect > least
    note = (
        f"{here / there:.3f} of {baseline.name}, {'at least' if check.upper else 'at most'} {ratio:.3f} with "
        f"confidence {check.sure:g}: {_plain(here, kind)} beside {_plain(there, kind)}"
    )
    return Observation(value=ratio, holds=check.holds(ratio) or not beyond, notes=(note,))


def _plain(value: float, kind: str) -> str:
    factor, unit = (1e-3, "ms") if kind == "s" else (UNITS["MiB"][1], "MiB") if kind == "B" else (1.0, "")
    return f"{value / factor:.4g} {unit}".strip()


def _near(check: Check, distribution: Sequence[float]) -> float:
    tail = (1 - check.sure) * 100
    return percentile(distribution, tail if check.upper else 100 - tail)


def _redrawn(check: Check, samples: Sequence[Sample], baseline: Baseline) -> tuple[list[float], list[float]]:
    """The aggregate of draws of both runs; draws of which either is empty are left out."""
    looks = len(samples) + len(baseline.samples)
    resamples = min(max(_LOOKS_MAX // looks, _RESAMPLES_MIN), RESAMPLES)
    first = draws(SLICES, resamples=resamples, seed=_SEED)
    second = first if baseline.same_schedule else draws(SLICES, resamples=resamples, seed=_SEED + 1)
    found = [
        redrawn(_sliced(check, each), indices, lambda values: aggregate(values, check.aggregate))
        for each, indices in ((samples, first), (baseline.samples, second))
    ]
    pairs = [pair for pair in zip(*found, strict=True) if not any(map(math.isnan, pair))]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _sliced(check: Check, samples: Sequence[Sample]) -> list[list[float]]:
    times = _times(samples, check)
    return slices(times, [s.value for s in samples], start=0.0, end=max(times), count=SLICES)


# --- a baseline as it is kept -----------------------------------------------------------------------------------------


def baseline_row(samples: Sequence[Sample], kind: str) -> dict[str, Any]:
    """One metric of a baseline, for a file."""
    return {"kind": kind, "samples": [[sample.at_ns, sample.value] for sample in samples]}


def read_baseline(row: Mapping[str, Any], *, same_schedule: bool, name: str) -> Baseline:
    """The same, read back."""
    samples = [Sample(value=float(value), at_ns=at_ns) for at_ns, value in row["samples"]]
    return Baseline(samples=samples, kind=str(row["kind"]), same_schedule=same_schedule, name=name)
