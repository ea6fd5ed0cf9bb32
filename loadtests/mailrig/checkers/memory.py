"""Does a worker's memory grow? The slope of each process, with an interval. Pure.

A process that has just started grows while it fills its caches: what it does in the first third of its life, and at
least in its first seconds, is left out. One that is recycled begins anew, so that a leak is looked for in each alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mailrig.checkers.measurement import Measurement, Sample, nothing, series
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario
from mailrig.statistics import Interval, slope_interval

Point = tuple[float, float]
#: Fewer samples of a process say nothing about an interval.
POINTS_MIN: Final = 8
#: What a process does at first is no leak, seconds.
WARM_S: Final = 3.0
_WARM_SHARE: Final = 1 / 3
_MINUTE_S: Final = 60.0
_CONFIDENCE: Final = 0.95
_SEED: Final = 7


def memory_slope(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Growth of each worker process in bytes a minute, by ``bound``: ``low``, ``middle`` and ``high``.

    A gate on ``{bound=low}`` fails only what certainly leaks; one on ``{bound=high}``, or on no bound, passes only what
    certainly does not.
    """
    return slopes(evidence.memory)


def slopes(memory: Sequence[Row]) -> Measurement:
    """The samples of ``memory_slope``, of any worker's memory lines."""
    if not memory:
        return nothing("no memory samples")
    samples = [
        sample for (kind, pid), points in processes(memory) for sample in _samples(kind, pid, after_warm(points))
    ]
    return series(samples, kind="B", of=f"process with {POINTS_MIN} memory samples after its warm-up")


def processes(memory: Iterable[Row], *, of: str = "pss_bytes") -> Iterator[tuple[tuple[str, int], list[Point]]]:
    """Each process, by kind and pid, with its (seconds, bytes); none where the system does not tell."""
    found: dict[tuple[str, int], list[Point]] = defaultdict(list)
    for row in sorted(memory, key=lambda row: row["time_ns"]):
        for process in row["processes"]:
            if process.get(of) is not None:
                found[process["kind"], process["pid"]].append((row["time_ns"] / 1e9, process[of]))
    yield from sorted(found.items())


def after_warm(points: list[Point]) -> list[Point]:
    """What is left once the beginning is left out."""
    if not points:
        return []
    first_s, last_s = points[0][0], points[-1][0]
    warm_s = max(WARM_S, (last_s - first_s) * _WARM_SHARE)
    return [point for point in points if point[0] - first_s >= warm_s]


def _samples(kind: str, pid: int, points: list[Point]) -> Iterator[Sample]:
    if len(points) < POINTS_MIN:
        return
    minute = per_minute(points)
    note = f"{kind} {pid}: {told(minute)} over {points[-1][0] - points[0][0]:.0f} s"
    for bound, value in {"low": minute.low, "middle": minute.estimate, "high": minute.high}.items():
        yield Sample(value=value, labels={"kind": kind, "pid": str(pid), "bound": bound}, note=note)


def per_minute(points: list[Point]) -> Interval:
    """The slope of (seconds, value), and the bounds that hold it in 95 of 100 cases."""
    found = slope_interval(points, confidence=_CONFIDENCE, seed=_SEED)
    return Interval(estimate=found.estimate * _MINUTE_S, low=found.low * _MINUTE_S, high=found.high * _MINUTE_S)


def told(minute: Interval) -> str:
    """A slope of bytes and its interval, for a person."""
    low, middle, high = (value / 2**20 for value in (minute.low, minute.estimate, minute.high))
    return f"{middle:+.2f} MiB/min (95 %: {low:+.2f} to {high:+.2f})"
