"""Was the load what the scenario says, and how long did things take? Warm-up is left out of all of it.

Latency counts from the intended time: a generator that is late, or a server that stalls, can't hide it.
"""

from __future__ import annotations

import itertools
from typing import Final

from mailrig.checkers.measurement import Measurement, Sample, nothing, series, violations
from mailrig.checkers.view import FINAL, Request, completions, jobs_by_id, requests, stolen
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Scenario
from mailrig.schedule import arrivals

#: An arrival that comes later than this did not come as scheduled.
_LATE_NS_MAX: Final = 1_000_000_000
_PHASES: Final = ("warmup", "load", "drain")


def schedule_lag(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How late the generator was: from the intended time to the invocation."""
    samples = [
        Sample(
            value=max(request.invoke.time_ns - request.intended_ns, 0) / 1e9,
            labels={"f": request.f},
            note=f"arrival {request.invoke.value['arrival']} ({request.f})",
            at_ns=request.intended_ns,
        )
        for request in requests(evidence, warmup=False)
    ]
    return series(samples, kind="s", of="requests")


def achieved_ratio(evidence: Evidence, _contract: Contract, scenario: Scenario) -> Measurement:
    """The share of scheduled arrivals that were invoked within a second of their time."""
    scheduled = sum(not arrival.warmup for arrival in arrivals(scenario, scenario.population.addresses()))
    sent = requests(evidence, warmup=False)
    if not sent or not scheduled:
        return nothing("no requests" if scheduled else "nothing is scheduled after the warm-up")
    in_time = {r.invoke.value["arrival"] for r in sent if r.invoke.time_ns - r.intended_ns <= _LATE_NS_MAX}
    note = f"{len(in_time)} of {scheduled} scheduled arrivals"
    return Measurement(samples=(Sample(value=len(in_time) / scheduled, note=note),), examples=(note,))


def unfinished(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Arrivals that nobody knows enough of to count them.

    No HTTP answer; or accepted, and the feed never showed the end. What the rows say is not settled, or is no row at
    all, is no fault of the measurement but of the system: ``jobs.unbalanced``, ``jobs.missing`` and
    ``nemesis.lost_messages`` judge it, and such a run fails instead of being invalid.
    """
    asked, ends, jobs = requests(evidence, warmup=False), completions(evidence), jobs_by_id(evidence)
    elsewhere = set(stolen(evidence)) | {task for task, row in jobs.items() if row["state"] not in FINAL}
    known = set(jobs) if jobs else None
    return violations(
        (case for request in asked if (case := _unfinished(request, set(ends) | elsewhere, known))),
        judged=len(asked),
        of="requests",
    )


def _unfinished(request: Request, accounted: set[str], known: set[str] | None) -> str:
    arrival = f"arrival {request.invoke.value['arrival']} ({request.f})"
    if request.answer is None:
        return f"{arrival} was never answered, and nobody gave up on it"
    if request.answer.type == "info" and request.value.get("status") is None:
        return f"{arrival} got no HTTP answer: {request.answer.error}"
    if request.accepted and (task := request.value["task_id"]) not in accounted and (known is None or task in known):
        return f"{arrival}: the feed never showed the end of task {task}"
    return ""


def sample_gap(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """The time between two samples of the broker, from the start of the warm-up to that of the drain.

    The phases bound it, so that a sampler that never began or that stopped half way shows as one long gap.
    """
    if not evidence.queues:
        return nothing("no queue samples")
    times = sorted(row["time_ns"] for row in evidence.queues)
    phases = [op.time_ns for op in evidence.history if op.f == "phase" and op.value.get("name") in _PHASES]
    if phases:
        times = [min(phases), *(t for t in times if min(phases) < t < max(phases)), max(phases)]
    return series(
        [
            Sample(value=(after - before) / 1e9, note=f"from {before} to {after}", at_ns=before)
            for before, after in itertools.pairwise(times)
        ],
        kind="s",
        of="pairs of queue samples",
    )


def http_accept(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """From the intended time to the 202."""
    samples = [
        Sample(
            value=(request.answer.time_ns - request.intended_ns) / 1e9,
            labels={"f": request.f, "tenant": request.value["tenant"]},
            note=f"task {request.value['task_id']}",
            at_ns=request.intended_ns,
        )
        for request in requests(evidence, warmup=False)
        if request.answer is not None and request.accepted
    ]
    return series(samples, kind="s", of="accepted requests")


def task_e2e(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """From the intended time to the end of the job, as its row has it: the poll interval of the feed is not in it."""
    ends = completions(evidence)
    samples = [
        Sample(
            value=(ends[task].value["ended_ns"] - request.intended_ns) / 1e9,
            labels={
                "queue": ends[task].value["queue"],
                "outcome": str(ends[task].value["state"]),
                "tenant": request.value["tenant"],
            },
            note=f"task {task} trace {ends[task].value['trace_id']}",
            at_ns=request.intended_ns,
        )
        for request in requests(evidence, warmup=False)
        if request.accepted and (task := request.value["task_id"]) in ends
    ]
    return series(samples, kind="s", of="completed tasks")


def task_queue_time(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """From max(enqueued, due) to the start, per execution."""
    jobs, warm = jobs_by_id(evidence), _warmup_tasks(evidence)
    samples = [
        Sample(
            value=(row["started_ns"] - max(jobs[row["job_id"]]["created_ns"], row["due_ns"])) / 1e9,
            labels={"queue": row["queue"], "attempt": str(row["ordinal"]), "tenant": str(row.get("tenant_id"))},
            note=f"execution {row['execution_id']}",
            at_ns=row["started_ns"],
        )
        for row in evidence.executions
        if row["job_id"] in jobs and row["job_id"] not in warm
    ]
    return series(samples, kind="s", of="executions")


def task_run_time(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How long each execution ran, if it ended."""
    warm = _warmup_tasks(evidence)
    samples = [
        Sample(
            value=(row["ended_ns"] - row["started_ns"]) / 1e9,
            labels={"queue": row["queue"], "outcome": str(row["outcome"])},
            note=f"execution {row['execution_id']}",
            at_ns=row["started_ns"],
        )
        for row in evidence.executions
        if row["ended_ns"] is not None and row["job_id"] not in warm
    ]
    return series(samples, kind="s", of="ended executions")


def _warmup_tasks(evidence: Evidence) -> set[str]:
    return {r.value["task_id"] for r in requests(evidence) if r.warmup and r.accepted}
