"""What only shows while something is wrong: was it broken at all, in which order is work done, how often is it tried?

Most of these guard a scenario against proving nothing: a run in which nothing was broken, nothing was retried or nobody
waited passes every other gate. Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from mailrig.checkers.measurement import Measurement, Sample, nothing, series, violations
from mailrig.checkers.outages import outages
from mailrig.checkers.view import (
    accepted,
    completions,
    executions_in_order,
    is_continued,
    is_retry,
    jobs_by_id,
    requests,
)
from mailrig.evidence import Evidence, Row
from mailrig.scenario import NEMESIS, Contract, Scenario

_BEAT: Final = frozenset({"kill-beat", "pause-beat", "restart-postgres", *(a for a in NEMESIS if "redis" in a)})
_TICK: Final = "email_service.tasks.periodic_sync"
#: Beat is a process of Python on a machine that is busy: a tick comes so much late, and its row is written later still.
_TICK_SLACK_S: Final = 2.0
#: How much of a beat's interval must lie between two ticks that are not one and the same.
_TICK_PART_MIN: Final = 0.8


def nemesis_undone(evidence: Evidence, _contract: Contract, scenario: Scenario) -> Measurement:
    """What was planned and not done or not healed: whoever was never hurt has proven nothing."""
    ops = [op for op in evidence.history if op.process == "nemesis"]
    planned = {action.action for action in scenario.nemesis}
    done = {op.f for op in ops if op.type == "ok"}
    cases = [
        *(f"{name} was never done" for name in sorted(planned - done)),
        *(f"{op.value.get('action', op.f)} ({op.f}): {op.error}" for op in ops if op.type == "info"),
    ]
    judged = sum(op.type == "invoke" for op in ops)
    return violations(cases, judged=judged, of="actions of the nemesis")


def executions_killed(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Executions that nobody lived to end."""
    return violations(
        (
            f"execution {row['execution_id']} of job {row['job_id']} was killed"
            for row in evidence.executions
            if row["outcome"] == "killed"
        ),
        judged=len(evidence.executions),
        of="executions",
    )


def worker_children(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How many processes have run tasks on each node: more than there are slots once processes are recycled."""
    nodes: dict[str, set[tuple[int, int]]] = defaultdict(set)
    for row in evidence.executions:
        nodes[row["node"]].add((row["pid"], row["process_start_ns"]))
    found = [Sample(value=len(seen), labels={"node": n}, note=f"{n}: {len(seen)}") for n, seen in sorted(nodes.items())]
    return series(found, kind="", of="executions")


def load_accepted(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How many requests of each kind were answered by 202, as one sample each: a scenario says how many it needs."""
    counts: dict[str, int] = defaultdict(int)
    for request in accepted(evidence):
        counts[request.f] += 1
    found = [Sample(value=n, labels={"f": f}, note=f"{n} of {f}") for f, n in sorted(counts.items())]
    return series(found, kind="", of="accepted requests")


def queue_depth(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How many messages each queue had ready at each sample."""
    return series(
        [
            Sample(value=count, labels={"queue": queue}, note=f"{queue} at {row['time_ns']}")
            for row in evidence.queues
            for queue, count in row.get("ready", {}).items()
        ],
        kind="",
        of="queue samples",
    )


# --- tries ------------------------------------------------------------------------------------------------------------


def retry_depth(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How often each job that failed was tried again."""
    found = []
    for job, rows in executions_in_order(evidence).items():
        retries = sum(is_retry(row) for row in rows)
        if retries:
            found.append(
                Sample(value=retries, labels={"queue": rows[0]["queue"]}, note=f"job {job}: {retries} retries")
            )
    return series(found, kind="", of="jobs that were retried")


def task_continued(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How often a job went on in a new execution because its soft time limit was over: once for each such job."""
    found = []
    for job, rows in executions_in_order(evidence).items():
        times = sum(is_continued(row) for row in rows)
        if times:
            found.append(Sample(value=times, labels={"queue": rows[0]["queue"]}, note=f"job {job}: {times} times"))
    return series(found, kind="", of="jobs that were continued")


# --- order ------------------------------------------------------------------------------------------------------------


def priority_overtaken(evidence: Evidence, contract: Contract, _scenario: Scenario) -> Measurement:
    """For each first execution: how long had a message of higher priority been ready that started only after it?

    Zero where none was. The ready time is the later of the job's creation and its due time, so the broker's part of the
    way is in it. Only first executions: a message that comes a second time is in no order.
    """
    jobs = jobs_by_id(evidence)
    firsts = [rows[0] for rows in executions_in_order(evidence).values() if rows[0]["job_id"] in jobs]
    ranked = [(contract.number(f"priority.{row['queue']}"), row) for row in firsts]
    waiting = sorted((_ready_ns(row, jobs), row["started_ns"], rank) for rank, row in ranked)
    ready_times = [ready_ns for ready_ns, _, _ in waiting]
    found = []
    for rank, row in ranked:
        before = waiting[: bisect.bisect_left(ready_times, row["started_ns"])]
        passed = [ready_ns for ready_ns, started_ns, other in before if other < rank and started_ns > row["started_ns"]]
        waited_s = (row["started_ns"] - min(passed)) / 1e9 if passed else 0.0
        note = f"job {row['job_id']} ({row['queue']}) went before one that had waited {waited_s:.3f} s"
        found.append(Sample(value=waited_s, labels={"queue": row["queue"]}, note=note))
    return series(found, kind="s", of="executions")


def _ready_ns(row: Row, jobs: dict[str, Row]) -> int:
    return max(int(jobs[row["job_id"]]["created_ns"]), int(row["due_ns"]))


# --- beat -------------------------------------------------------------------------------------------------------------


def beat_ticks_wrong(evidence: Evidence, contract: Contract, scenario: Scenario) -> Measurement:
    """Ticks of the periodic synchronisation that came twice, or not at all while nothing was in their way.

    After an outage there is one tick that makes up for those that were missed, and the next one an interval later.
    """
    ticks = sorted(row["created_ns"] for row in evidence.jobs if row["name"] == _TICK)
    interval_s = contract.number("beat.periodic_sync_s") * scenario.system.time_scale
    away = [(outage.start_ns, outage.end_ns) for outage in outages(evidence, _BEAT)]
    cases = []
    for before, after in itertools.pairwise(ticks):
        gap_s = (after - before) / 1e9
        excused_s = sum(max(0, min(end, after) - max(start, before)) for start, end in away) / 1e9
        if gap_s < _TICK_PART_MIN * interval_s:
            cases.append(f"a tick at {after} came {gap_s:.1f} s after the one before, the interval is {interval_s:g} s")
        elif gap_s > interval_s + excused_s + _TICK_SLACK_S:
            cases.append(f"between {before} and {after} there was no tick for {gap_s:.1f} s, of {interval_s:g} s")
    return violations(cases, judged=max(len(ticks) - 1, 0), of="pairs of ticks")


# --- capacity ---------------------------------------------------------------------------------------------------------


def capacity_per_s(evidence: Evidence, contract: Contract, scenario: Scenario) -> Measurement:
    """The highest rate of a stage of the load at which the 95th percentile of sends end to end keeps its limit.

    A send that never ended counts as slower than any limit, and a stage counts only if all before it kept the limit:
    the backlog of one is in the times of the next.
    """
    limit_s = contract.number("capacity.e2e_s_p95")
    stages = list(_stages(evidence, scenario))
    kept = list(itertools.takewhile(lambda stage: stage[1] <= limit_s, stages))
    if not stages:
        return nothing("the load has no stages with sends in them")
    notes = tuple(f"{rate:g}/s: p95 {p95_s:.2f} s" for rate, p95_s in stages)
    return Measurement(samples=(Sample(value=kept[-1][0] if kept else 0.0, note=notes[-1]),), examples=notes)


def _stages(evidence: Evidence, scenario: Scenario) -> Iterator[tuple[float, float]]:
    """Rate, and 95th percentile of sends by their intended time, of each stage after the warm-up."""
    ends = completions(evidence)
    sends = [request for request in requests(evidence, warmup=False) if request.f == "send"]
    start_ns = next((op.time_ns for op in evidence.history if op.value.get("name") == "warmup"), 0)
    rate, at_s = sum(op.rate_per_s for op in scenario.load.ops if op.f == "send"), 0.0
    for stage in scenario.load.stages:
        due = [r for r in sends if at_s <= (r.intended_ns - start_ns) / 1e9 < at_s + stage.duration_s]
        at_s += stage.duration_s
        times = sorted(
            (ends[task].value["ended_ns"] - r.intended_ns) / 1e9
            if r.accepted and (task := r.value["task_id"]) in ends
            else float("inf")
            for r in due
        )
        if times:
            yield rate * stage.factor, times[max(0, -(-len(times) * 95 // 100) - 1)]
