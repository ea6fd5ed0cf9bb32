"""How much memory a worker needs: the limit to set for a concurrency and a task mix, and the other way round.

Owns the reading of a run's memory samples and executions, and the estimate. Called by asking.

    limit = (shared + n x (idle + task)) x (1 + margin)

    shared   what parent and children have in all, less what each child has for itself: PSS of all - USS of children.
             A child's own PSS won't do: the more children share a page, the less of it each is charged
    idle     what a child has for itself between tasks, once it is warm: USS
    task     what a task needs above that: the 99th percentile, of the heaviest task or of the mix

Each is taken at the upper bound of its interval.
"""

from __future__ import annotations

import bisect
import json
import math
import operator
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

from mailrig.checkers.memory import POINTS_MIN, WARM_S, after_warm, per_minute, processes
from mailrig.evidence import EvidenceError, Row
from mailrig.scenario import RigError
from mailrig.statistics import Interval, bounds, draws, percentile, redrawn, slices

MIB: Final = 2**20
#: What a folder must have, to tell anything.
SAMPLES: Final = Path("evidence/memory.jsonl")
#: Above the upper bounds: what one run did not see.
MARGIN: Final = 0.2
#: A limit is rounded up to a multiple of it.
STEP_MIB: Final = 16
_LEVEL_RANK: Final = 95.0
TASK_RANK: Final = 99.0
#: So rarely may all slots together need more than the figure for the mix.
MIX_RANK: Final = 99.9
_MIX_DRAWS: Final = 100_000
#: The sum over more slots than this follows from mean and spread.
_MANY: Final = 100
_BLOCKS: Final = 10
_RESAMPLES: Final = 400
_CONFIDENCE: Final = 0.95
_SEED: Final = 11
_CHILD: Final = "worker-child"
#: Beyond it no machine is asked.
CONCURRENCY_MAX: Final = 1024


class BudgetError(RigError):
    """A run does not tell what its workers' memory was, or not enough of it."""


@dataclass(frozen=True, kw_only=True)
class TaskPeak:
    """What one kind of task needs above an idle process, bytes."""

    name: str
    executions: int
    #: Of the time in which any task ran.
    time_share: float
    peak: Interval
    #: Each execution's, in order of size.
    peaks: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What was found in a run, bytes."""

    shared: Interval
    idle: Interval
    tasks: tuple[TaskPeak, ...]
    #: Children that were seen at once.
    children: int
    samples: int
    duration_s: float
    #: CPU time of one reading of all processes; None where the run does not tell.
    reading_s: float | None
    #: Growth of each process in bytes a minute.
    growth: Mapping[str, Interval]
    #: The most that the control group of the worker held, and what it may; None where there is none.
    cgroup_peak_bytes: int | None
    cgroup_limit_bytes: int | None

    def need(self, concurrency: int, mix: Mapping[str, float] | None = None) -> float:
        """Bytes at the upper bounds: every slot has the heaviest task, or what 99.9 % of the draws of a mix need."""
        every = self.shared.high + concurrency * self.idle.high
        return every + (self._mixed(concurrency, mix) if mix else concurrency * self.heaviest)

    @property
    def heaviest(self) -> float:
        """Upper bound of the task that needs most; 0 without any."""
        return max((task.peak.high for task in self.tasks), default=0.0)

    def limit(self, concurrency: int, *, margin: float, mix: Mapping[str, float] | None = None) -> int:
        """The limit to set, bytes."""
        return math.ceil(self.need(concurrency, mix) * (1 + margin) / (STEP_MIB * MIB)) * STEP_MIB * MIB

    def fits(self, limit_bytes: float, *, margin: float, mix: Mapping[str, float] | None = None) -> int:
        """The concurrency that a limit has room for; 0 when not even one process fits."""
        counts = range(1, CONCURRENCY_MAX + 1)
        return bisect.bisect_right(counts, limit_bytes / (1 + margin), key=lambda n: self.need(n, mix))

    def _mixed(self, concurrency: int, mix: Mapping[str, float]) -> float:
        """Sums over the slots, each with a task drawn by its share and one of that task's own peaks."""
        by_name = {task.name: task for task in self.tasks}
        drawn = [(peak, share / len(by_name[n].peaks)) for n, share in mix.items() for peak in by_name[n].peaks]
        peaks, weights = [peak for peak, _ in drawn], [weight for _, weight in drawn]
        if concurrency > _MANY:
            return _sum_of_many(peaks, weights, concurrency)
        chance = random.Random(_SEED)  # noqa: S311  # a simulation, not a secret
        sums = [sum(chance.choices(peaks, weights, k=concurrency)) for _ in range(_MIX_DRAWS // concurrency)]
        return percentile(sums, MIX_RANK)


def _sum_of_many(peaks: Sequence[float], weights: Sequence[float], count: int) -> float:
    """As good as normal."""
    in_all = math.fsum(weights)
    mean = math.fsum(map(operator.mul, peaks, weights)) / in_all
    spread = math.fsum(weight * (peak - mean) ** 2 for peak, weight in zip(peaks, weights, strict=True)) / in_all
    return count * mean + NormalDist().inv_cdf(MIX_RANK / 100) * math.sqrt(count * spread)


# --- reading ----------------------------------------------------------------------------------------------------------


def read_budget(folder: Path) -> Budget:
    """What the run in a folder says.

    Raises:
        BudgetError: too little was sampled, or this system tells no PSS.
        EvidenceError: a line is torn.
    """
    memory = list(_lines(folder / "evidence" / "memory.jsonl"))
    executions = list(_lines(folder / "evidence" / "executions.jsonl"))
    return estimate(memory, executions)


def _lines(file: Path) -> Iterator[Row]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as err:
                raise EvidenceError(f"{file}:{number}: not JSON: {err}") from err


def estimate(memory: Sequence[Row], executions: Sequence[Row]) -> Budget:
    """The budget of samples and execution rows. Pure.

    Raises:
        BudgetError: too little was sampled, or without PSS.
    """
    rows = sorted((row for row in memory if row.get("processes")), key=lambda row: row["time_ns"])
    whole, children = _whole(rows)
    uses = _uses(executions)
    shared = [(row["time_ns"] / 1e9, _shared(row)) for row in whole]
    idle = [point for points in _idle(whole, uses).values() for point in points]
    groups = [
        (p["cgroup_bytes"], p["cgroup_limit_bytes"]) for r in whole for p in r["processes"] if "cgroup_bytes" in p
    ]
    return Budget(
        shared=_level(shared, _LEVEL_RANK),
        idle=_level(idle or _own(whole), _LEVEL_RANK),
        tasks=tuple(_tasks(whole, executions, uses)),
        children=children,
        samples=len(whole),
        duration_s=(whole[-1]["time_ns"] - whole[0]["time_ns"]) / 1e9,
        reading_s=_median_of(row["read_cpu_ns"] / 1e9 for row in whole if "read_cpu_ns" in row),
        growth=dict(_growth(rows)),
        cgroup_peak_bytes=max((used for used, _ in groups), default=None),
        cgroup_limit_bytes=groups[-1][1] if groups else None,
    )


def _whole(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The samples after the start in which all processes are there: while one is replaced, too little is seen."""
    if any(p["pss_bytes"] is None for row in rows for p in row["processes"]):
        raise BudgetError("the samples of this run have no PSS, which this system does not tell: take one from Linux")
    shapes = Counter(shape for row in rows if (shape := _shape(row))[1])
    if not shapes:
        raise BudgetError("the run has no memory samples of a worker with child processes")
    usual = shapes.most_common(1)[0][0]
    from_ns = rows[0]["time_ns"] + WARM_S * 1e9
    whole = [row for row in rows if row["time_ns"] >= from_ns and _shape(row) == usual]
    if len(whole) < POINTS_MIN:
        raise BudgetError(f"{len(whole)} memory samples after the first {WARM_S:g} s; {POINTS_MIN} are needed")
    return whole, usual[1]


def _shape(row: Row) -> tuple[int, int]:
    """How many main processes and how many children a sample has."""
    children = sum(p["kind"] == _CHILD for p in row["processes"])
    return len(row["processes"]) - children, children


def _shared(row: Row) -> float:
    own = sum(p["uss_bytes"] for p in row["processes"] if p["kind"] == _CHILD)
    return float(sum(p["pss_bytes"] for p in row["processes"]) - own)


def _own(rows: Iterable[Row]) -> list[tuple[float, float]]:
    return [
        (row["time_ns"] / 1e9, float(p["uss_bytes"])) for row in rows for p in row["processes"] if p["kind"] == _CHILD
    ]


def _uses(executions: Iterable[Row]) -> dict[int, list[Row]]:
    """Ended executions by process, in order."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in executions:
        if row.get("ended_ns") is not None:
            found[row["pid"]].append(row)
    for rows in found.values():
        rows.sort(key=lambda row: row["started_ns"])
    return found


def _idle(rows: Iterable[Row], uses: Mapping[int, Sequence[Row]]) -> dict[int, list[tuple[float, float]]]:
    """USS of each child between its tasks, warm."""
    found: dict[int, list[tuple[float, float]]] = {}
    for (kind, pid), points in processes(rows, of="uss_bytes"):
        if kind == _CHILD:
            found[pid] = [p for p in after_warm(points) if not _busy(uses.get(pid, ()), p[0] * 1e9)]
    return found


def _busy(uses: Sequence[Row], time_ns: float) -> bool:
    at = bisect.bisect_right(uses, time_ns, key=lambda row: row["started_ns"])
    return at > 0 and uses[at - 1]["ended_ns"] > time_ns


def _tasks(rows: Sequence[Row], executions: Iterable[Row], uses: Mapping[int, Sequence[Row]]) -> Iterator[TaskPeak]:
    """What each kind of task needs. The first task of a process pays for what stays: it is idle memory later."""
    ended = [row for row in executions if row.get("ended_ns") is not None]
    in_all_ns = sum(row["ended_ns"] - row["started_ns"] for row in ended) or 1
    extra = _sampled(rows, uses)
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in ended:
        groups[row["name"].rpartition(".")[2]].append(row)
    for name, kind in sorted(groups.items()):
        first = {uses[pid][0]["execution_id"] for pid in {row["pid"] for row in kind}}
        judged = [row for row in kind if row["execution_id"] not in first] or kind
        points = [(row["started_ns"] / 1e9, _above(row, extra)) for row in judged]
        yield TaskPeak(
            name=name,
            executions=len(kind),
            time_share=sum(row["ended_ns"] - row["started_ns"] for row in kind) / in_all_ns,
            peak=_level(points, TASK_RANK),
            peaks=tuple(sorted(value for _, value in points)),
        )


def _above(row: Row, extra: Mapping[str, float]) -> float:
    """The more of what the row says and of what a sample saw in its time."""
    before, peak = row.get("pss_before_bytes"), row.get("pss_peak_bytes")
    said = float(peak - before) if before is not None and peak is not None else 0.0
    return max(said, extra.get(row["execution_id"], 0.0), 0.0)


def _sampled(rows: Iterable[Row], uses: Mapping[int, Sequence[Row]]) -> dict[str, float]:
    """By execution, the most that a sample in its time was above the last sample before it began."""
    found: dict[str, float] = {}
    for (kind, pid), points in processes(rows, of="uss_bytes"):
        if kind == _CHILD:
            found |= _rises(points, uses.get(pid, ()))
    return found


def _rises(points: Sequence[tuple[float, float]], uses: Sequence[Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in uses:
        # A busy process is never seen idle: what stays of the tasks before is not this one's.
        first = bisect.bisect_left(points, row["started_ns"] / 1e9, key=lambda point: point[0])
        last = bisect.bisect_left(points, row["ended_ns"] / 1e9, key=lambda point: point[0])
        if 0 < first < last:
            found[row["execution_id"]] = max(size for _, size in points[first:last]) - points[first - 1][1]
    return found


def _growth(rows: Iterable[Row]) -> Iterator[tuple[str, Interval]]:
    for (kind, pid), points in processes(rows):
        warm = after_warm(points)
        if len(warm) >= POINTS_MIN:
            yield f"{kind} {pid}", per_minute(warm)


def _level(points: Sequence[tuple[float, float]], rank: float) -> Interval:
    """A high percentile and its interval; what follows in time is drawn together."""
    times, values = [at_s for at_s, _ in points], [value for _, value in points]
    blocks = slices(times, values, start=min(times), end=max(times), count=_BLOCKS)
    found = percentile(values, rank)
    indices = draws(_BLOCKS, resamples=_RESAMPLES, seed=_SEED)
    low, high = bounds(redrawn(blocks, indices, lambda drawn: percentile(drawn, rank)), confidence=_CONFIDENCE)
    return Interval(estimate=found, low=min(low, found), high=max(high, found))


def _median_of(values: Iterable[float]) -> float | None:
    ordered = sorted(values)
    return ordered[len(ordered) // 2] if ordered else None
