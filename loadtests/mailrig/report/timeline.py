"""A run on its time axis: phases, marks of what was done to it, and requests with what became of them. Pure.

Times are nanoseconds since the epoch. Zero of the axis is the start of the warm-up, as in a scenario's ``at_s``.
"""

from __future__ import annotations

import bisect
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mailrig.report import words
from mailrig.report.folder import Row, RunFolder

#: The phases in which the system is loaded or settles; those before and after are of no interest to a chart.
PHASES: Final = ("warmup", "load", "heal", "drain")
_FEED: Final = "complete"
_LOADS: Final = ("send", "sync")
_FINAL: Final = frozenset({"succeeded", "failed", "unknown"})
#: A chart has at most this many bins over time.
BINS_MAX: Final = 600
_BIN_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600)
_S: Final = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The time axis that all charts share."""

    #: Where the labels count from.
    origin_ns: int
    start_ns: int
    end_ns: int

    def share(self, time_ns: float) -> float:
        """Where a time is, from 0 to 1; beyond the axis it is at its end."""
        return min(max((time_ns - self.start_ns) / (self.end_ns - self.start_ns), 0.0), 1.0)

    def percent(self, time_ns: float) -> float:
        """Where a time is, from 0 to 100."""
        return 100 * self.share(time_ns)

    def seconds(self, time_ns: float) -> float:
        """A time as the labels have it."""
        return (time_ns - self.origin_ns) / _S

    def label(self, time_ns: float) -> str:
        """A time for a tooltip: ``12.34 s``."""
        return f"{self.seconds(time_ns):.2f} s"

    def covers(self, time_ns: float) -> bool:
        """Whether a time is on the axis."""
        return self.start_ns <= time_ns <= self.end_ns

    @property
    def bin_ns(self) -> int:
        """How long one bin of a rate or a percentile is."""
        length_s = (self.end_ns - self.start_ns) / _S
        fits = (seconds for seconds in _BIN_SECONDS if length_s / seconds <= BINS_MAX)
        return next(fits, math.ceil(length_s / BINS_MAX)) * _S

    def bins(self) -> list[int]:
        """The start of each bin; one begins at the origin."""
        first = self.origin_ns - math.ceil((self.origin_ns - self.start_ns) / self.bin_ns) * self.bin_ns
        return list(range(first, self.end_ns, self.bin_ns))


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of the run."""

    name: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something that was done to the system at an instant."""

    time_ns: int
    #: ``nemesis``, ``fault`` or ``death``.
    kind: str
    label: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Request:
    """An arrival of the load, its answer and what became of its job."""

    f: str
    tenant: str
    warmup: bool
    intended_ns: int
    #: When the answer came; None without one.
    answered_ns: int | None
    #: ``ok``, ``fail``, ``info``, or ``none`` when nothing was heard.
    answer: str
    task_id: str | None
    trace_id: str | None
    #: When its job ended, by the feed or else by its row.
    settled_ns: int | None
    #: The job's state, if known.
    state: str | None

    @property
    def accept_ns(self) -> int | None:
        """From the intended time to the 202."""
        return self.answered_ns - self.intended_ns if self.answer == "ok" and self.answered_ns is not None else None

    @property
    def e2e_ns(self) -> int | None:
        """From the intended time to the end of the job."""
        return None if self.settled_ns is None else self.settled_ns - self.intended_ns


def requests(folder: RunFolder) -> tuple[Request, ...]:
    """The load's requests, in the order of their invocation."""
    loads = [op for op in folder.history if op["f"] in _LOADS]
    answers = {op["value"].get("arrival"): op for op in loads if op["type"] != "invoke"}
    ends = _ends(folder)
    return tuple(
        _request(op, answers.get(op["value"].get("arrival")), ends)
        for op in loads
        if op["type"] == "invoke" and isinstance(op["value"].get("intended_ns"), int)
    )


def _ends(folder: RunFolder) -> dict[str, tuple[int | None, str]]:
    """When each job ended, and how."""
    rows = {row["job_id"]: (row.get("finished_ns"), row["state"]) for row in folder.jobs}
    feed = {
        op["value"].get("task_id"): (op["value"].get("ended_ns"), str(op["value"].get("state")))
        for op in folder.history
        if op["f"] == _FEED and op["type"] == "ok"
    }
    return rows | feed


def _request(op: Row, answer: Row | None, ends: dict[str, tuple[int | None, str]]) -> Request:
    value = op["value"] if answer is None else op["value"] | answer["value"]
    task_id = value.get("task_id")
    settled_ns, state = ends.get(task_id, (None, None)) if task_id else (None, None)
    return Request(
        f=op["f"],
        tenant=str(value.get("tenant", "")),
        warmup=bool(value.get("warmup", False)),
        intended_ns=value["intended_ns"],
        answered_ns=answer["time_ns"] if answer else None,
        answer=answer["type"] if answer else "none",
        task_id=task_id,
        trace_id=value.get("trace_id"),
        settled_ns=settled_ns if state in _FINAL else None,
        state=state,
    )


def phases(folder: RunFolder) -> tuple[Phase, ...]:
    """All phases; the last one ends with the run."""
    begins = [
        (op["time_ns"], str(op["value"].get("name"))) for op in folder.history if op["f"] == "phase"
    ]  # already in the order of time
    ended = folder.run.get("ended_ns")
    last = max([ended if isinstance(ended, int) else 0, *(time_ns for time_ns, _ in begins)])
    ends = [*(time_ns for time_ns, _ in begins), last][1:]
    return tuple(Phase(name=name, start_ns=start, end_ns=end) for (start, name), end in zip(begins, ends, strict=True))


def axis(folder: RunFolder) -> Axis | None:
    """From the warm-up (or an earlier execution) to the end of the drain (or a later execution)."""
    shown = [phase for phase in phases(folder) if phase.name in PHASES]
    starts = [row["started_ns"] for row in folder.executions]
    ends = [row["ended_ns"] for row in folder.executions if isinstance(row.get("ended_ns"), int)]
    asked = [op["time_ns"] for op in folder.history if op["f"] in _LOADS]
    samples = [] if shown else [row["time_ns"] for row in (*folder.queues, *folder.memory)]
    times = [*(time for phase in shown for time in (phase.start_ns, phase.end_ns)), *starts, *ends, *asked, *samples]
    if not times or min(times) == max(times):
        return None
    origin = shown[0].start_ns if shown else min(times)
    return Axis(origin_ns=origin, start_ns=min(times), end_ns=max(times))


def marks(folder: RunFolder) -> tuple[Mark, ...]:
    """What the nemesis did, which faults fired and which processes died, in the order of time."""
    found = [*_nemesis(folder), *_faults(folder), *_deaths(folder)]
    return tuple(sorted(found, key=lambda mark: mark.time_ns))


def _nemesis(folder: RunFolder) -> Iterable[Mark]:
    for op in folder.history:
        if op.get("process") == "nemesis" and op["type"] != "invoke":
            data = ", ".join(f"{key} {value}" for key, value in op["value"].items())
            detail = " · ".join(part for part in (data, op.get("error") or "") if part)
            yield Mark(time_ns=op["time_ns"], kind="nemesis", label=words.clean(op["f"]), detail=words.clean(detail))


def _faults(folder: RunFolder) -> Iterable[Mark]:
    for row in folder.ledger:
        if row["kind"] == "fault":
            label = words.clean(row.get("fault_id") or "fault")
            yield Mark(time_ns=row["time_ns"], kind="fault", label=label, detail=words.clean(row.get("point") or ""))


def _deaths(folder: RunFolder) -> Iterable[Mark]:
    for row in folder.processes:
        if row.get("ended_ns") is not None and row.get("reason") == "killed":
            yield Mark(
                time_ns=row["ended_ns"],
                kind="death",
                label=f"{words.clean(row['kind'])} killed",
                detail=f"pid {row['pid']}, exit code {words.clean(row.get('exit_code'))}",
            )


_T = TypeVar("_T")


def by_bin(axis: Axis, items: Iterable[_T], time_ns: Callable[[_T], int | None]) -> dict[int, list[_T]]:
    """Items by the start of their bin; those without a time, or beyond the axis, are in none."""
    starts, groups = axis.bins(), defaultdict[int, list[_T]](list)
    for item in items:
        time = time_ns(item)
        if time is not None and axis.covers(time):
            groups[starts[bisect.bisect_right(starts, time) - 1]].append(item)
    return groups


def percentile(values: Sequence[float], rank: float) -> float:
    """By nearest rank, as the judge does."""
    ordered = sorted(values)
    return ordered[max(math.ceil(rank / 100 * len(ordered)), 1) - 1]


def answers(asked: Iterable[Request]) -> Counter[tuple[str, str]]:
    """How many requests of each kind got which answer."""
    return Counter((request.f, request.answer) for request in asked)
