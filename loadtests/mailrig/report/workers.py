"""Which worker process ran what, and when; and how much the worker held. Pure.

A killed execution has no end: it is drawn to the last instant at which its process was surely alive.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from mailrig.report import words
from mailrig.report.folder import Row, RunFolder
from mailrig.report.timeline import Axis, Mark

KILLED: Final = "killed"
_WORKER: Final = "worker"
_CHILD: Final = "worker-child"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One execution."""

    start_ns: int
    #: Where the bar ends; certain only if ``ended``.
    end_ns: int
    ended: bool
    queue: str
    #: ``succeeded``, ``retry``, ``failed``, ``unknown``, ``killed``, or ``open`` while it has none.
    outcome: str
    #: What a reader wants to know about it, line by line.
    detail: str
    trace_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One worker process."""

    pid: int
    start_ns: int
    end_ns: int
    bars: tuple[Bar, ...]

    @property
    def killed(self) -> bool:
        """Whether it died at work."""
        return any(bar.outcome == KILLED for bar in self.bars)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A worker's main process, and its children's lanes."""

    node: str
    #: None when the main process is not known.
    pid: int | None
    start_ns: int
    end_ns: int
    #: ``stop``, ``restart``, ``killed``, or empty.
    reason: str
    lanes: tuple[Lane, ...]


def groups(folder: RunFolder, axis: Axis) -> tuple[Group, ...]:
    """Every worker process that ran something or was seen, by the main process that started it."""
    mains = sorted((row for row in folder.processes if row["kind"] == _WORKER), key=lambda row: row["started_ns"])
    starts = [row["started_ns"] for row in mains]
    children: dict[int, list[Lane]] = defaultdict(list)
    nodes: dict[int, str] = {}
    for lane, node in _lanes(folder, axis):
        # Forked before the first main process was noticed: the clock of /proc counts in hundredths of a second.
        main = max(bisect.bisect_right(starts, lane.start_ns) - 1, 0)
        children[main].append(lane)
        nodes[main] = node or nodes.get(main, "")
    return tuple(
        _group(mains, main, nodes.get(main, ""), children[main], axis)
        for main in sorted({*children, *range(len(mains))})
    )


def _group(mains: list[Row], index: int, node: str, lanes: list[Lane], axis: Axis) -> Group:
    main = mains[index] if mains else {}
    end = main.get("ended_ns")
    return Group(
        node=node or _WORKER,
        pid=main.get("pid"),
        start_ns=main.get("started_ns", axis.start_ns),
        end_ns=axis.end_ns if end is None else end,
        reason=str(main.get("reason") or ""),
        lanes=tuple(sorted(lanes, key=lambda lane: (lane.start_ns, lane.pid))),
    )


def _lanes(folder: RunFolder, axis: Axis) -> Iterable[tuple[Lane, str]]:
    """Lanes with the node that each belongs to; a process that was only seen has no node."""
    seen, deaths, ran = _seen(folder), _deaths(folder), defaultdict[tuple[int, int], list[Row]](list)
    for row in folder.executions:
        ran[row["pid"], row.get("process_start_ns") or 0].append(row)
    last_sample = max((end for _, end in seen.values()), default=0)
    for (pid, born), rows in ran.items():
        rows.sort(key=lambda row: row["started_ns"])
        bars = tuple(_bars(rows, seen.get(pid, (0, 0))[1], deaths))
        first, last = seen.get(pid, (bars[0].start_ns, 0))
        alive = last >= last_sample > 0 and bars[-1].outcome != KILLED
        end = axis.end_ns if alive else bars[-1].end_ns if bars[-1].outcome == KILLED else max(last, bars[-1].end_ns)
        yield (
            Lane(pid=pid, start_ns=min(born or first, bars[0].start_ns), end_ns=end, bars=bars),
            words.clean(rows[0].get("node") or ""),
        )
    for pid in seen.keys() - {pid for pid, _ in ran}:
        first, last = seen[pid]
        yield Lane(pid=pid, start_ns=first, end_ns=axis.end_ns if last >= last_sample else last, bars=()), ""


def _seen(folder: RunFolder) -> dict[int, tuple[int, int]]:
    """The first and the last sample in which each child was."""
    seen: dict[int, tuple[int, int]] = {}
    for sample in folder.memory:
        for process in sample["processes"]:
            if process["kind"] == _CHILD:
                first, _ = seen.get(process["pid"], (sample["time_ns"], 0))
                seen[process["pid"]] = first, sample["time_ns"]
    return seen


def kills(folder: RunFolder, axis: Axis) -> tuple[Mark, ...]:
    """A mark for each execution that died at work, whoever killed it."""
    return tuple(
        Mark(time_ns=bar.end_ns, kind="death", label="execution killed", detail=bar.detail)
        for lane, _ in _lanes(folder, axis)
        for bar in lane.bars
        if bar.outcome == KILLED
    )


def _deaths(folder: RunFolder) -> list[tuple[int, int | None]]:
    """(when, pid) of each kill that somebody saw; a main process that dies takes its children along: None is any."""
    kills = [
        (op["time_ns"], op["value"].get("pid") if op["f"] == "kill-child" else None)
        for op in folder.history
        if op["f"] in {"kill-child", "kill-parent"} and op["type"] == "ok"
    ]
    ends = [
        (row["ended_ns"], None)
        for row in folder.processes
        if row["kind"] == _WORKER and row.get("ended_ns") and row.get("reason") == KILLED
    ]
    return sorted([*kills, *ends], key=lambda death: death[0])


def _bars(rows: list[Row], last_seen_ns: int, deaths: list[tuple[int, int | None]]) -> Iterable[Bar]:
    for row, following in itertools.zip_longest(rows, rows[1:]):
        ended, start = row.get("ended_ns"), row["started_ns"]
        end = _last_alive(row, last_seen_ns, deaths) if ended is None else ended
        # A process runs one execution at a time.
        end = min(end, following["started_ns"]) if ended is None and following else end
        outcome = str(row.get("outcome") or "open")
        yield Bar(
            start_ns=start,
            end_ns=end,
            ended=ended is not None,
            queue=row["queue"],
            outcome=outcome,
            detail=_detail(row, outcome, end),
            trace_id=str(row.get("trace_id") or ""),
        )


def _last_alive(row: Row, last_seen_ns: int, deaths: list[tuple[int, int | None]]) -> int:
    """The kill itself if somebody saw it, else the last sample that has the process, else the start."""
    start: int = row["started_ns"]
    kills = [
        time_ns for time_ns, pid in deaths if time_ns > start and time_ns >= last_seen_ns and pid in {None, row["pid"]}
    ]
    return kills[0] if kills else max(start, last_seen_ns)


def _detail(row: Row, outcome: str, end: int) -> str:
    took = words.duration(end - row["started_ns"])
    error = f" ({words.clean(row['error_type'])})" if row.get("error_type") else ""
    lines = [
        f"{words.task(row['name'])}: {outcome}{error}",
        f"{took}" if row.get("ended_ns") is not None else f"no end; alive for at least {took}",
        f"task {words.clean(row['job_id'])}",
        f"execution {row.get('ordinal', '?')} · pid {row['pid']}",
    ]
    return "\n".join(lines)


def running(folder: RunFolder, axis: Axis) -> list[tuple[int, int]]:
    """How many executions run, from each instant at which it changes."""
    steps: dict[int, int] = defaultdict(int)
    for bar in (bar for lane, _ in _lanes(folder, axis) for bar in lane.bars):
        steps[bar.start_ns] += 1
        steps[bar.end_ns] -= 1
    return list(zip(sorted(steps), itertools.accumulate(steps[time] for time in sorted(steps)), strict=True))


def held(folder: RunFolder) -> list[tuple[int, int]]:
    """How many messages the worker holds at each sample: delivered to it and not acknowledged, or running.

    Entries from before the worker's last start are a dead one's: the broker keeps them, nobody holds them.
    """
    starts = sorted(row["started_ns"] for row in folder.processes if row["kind"] == _WORKER)
    ran = _running_jobs(folder)
    found = []
    for sample in sorted(folder.queues, key=lambda row: row["time_ns"]):
        time_ns = sample["time_ns"]
        position = bisect.bisect_right(starts, time_ns)
        since = starts[position - 1] if position else 0
        ids = {entry["task_id"] for entry in sample["unacked"] if entry["received_ns"] >= since}
        found.append((time_ns, len(ids | ran.at(time_ns))))
    return found


class _RunningJobs:
    """The jobs that run at ascending times."""

    def __init__(self, rows: list[tuple[int, int, str]]) -> None:
        self._pending = sorted(rows, reverse=True)
        self._open: list[tuple[int, int, str]] = []

    def at(self, time_ns: int) -> set[str]:
        while self._pending and self._pending[-1][0] <= time_ns:
            self._open.append(self._pending.pop())
        self._open = [item for item in self._open if item[1] > time_ns]
        return {job for _, _, job in self._open}


def _running_jobs(folder: RunFolder) -> _RunningJobs:
    """Only executions with an end: where a killed one ended is not known well enough to count it."""
    return _RunningJobs(
        [
            (row["started_ns"], row["ended_ns"], row["job_id"])
            for row in folder.executions
            if row.get("ended_ns") is not None
        ]
    )
