"""The numbers of a run that are not gates: outcomes by task, latencies, what was done and healed, tenants. Pure.

Page and Markdown show the same figures, so they are computed once, here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mailrig.report import words
from mailrig.report.folder import Row, RunFolder
from mailrig.report.timeline import Axis, Mark, Request, percentile

_FINAL: Final = ("succeeded", "failed", "unknown")
_UNFINISHED: Final = "unfinished"
_RESULTS: Final = ("ok", "info")
#: Titles of the numbers of a task, and of its times, wherever they are listed.
COUNTS: Final = ("jobs", *_FINAL, _UNFINISHED, "executions", "retries", "killed")
TIMES: Final = ("queue p50", "queue p95", "run p50", "run p95")
#: Those of them that should be none.
COUNTS_BAD: Final = frozenset({"failed", "unknown", _UNFINISHED, "killed"})


@dataclass(frozen=True, kw_only=True)
class TaskFigures:
    """What became of the jobs of one task."""

    name: str
    jobs: int
    #: Jobs by state; the final ones, and ``unfinished`` for all others.
    states: Mapping[str, int]
    executions: int
    retries: int
    killed: int
    #: Executions of the job that had most.
    executions_max: int
    #: From due to start, and from start to end: p50 and p95, None without an execution.
    queue_ns: tuple[float, float] | None
    run_ns: tuple[float, float] | None
    #: Error types of executions, with how often.
    errors: tuple[tuple[str, int], ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Its numbers, as ``COUNTS`` names them."""
        states = (self.states.get(state, 0) for state in (*_FINAL, _UNFINISHED))
        return (self.jobs, *states, self.executions, self.retries, self.killed)


@dataclass(frozen=True, kw_only=True)
class Injury:
    """Something that the nemesis did, with its healing."""

    action: str
    at: str
    #: What it took, or why it could not.
    detail: str
    #: When all was well again, and by what that is known.
    healed: str


@dataclass(frozen=True, kw_only=True)
class FaultFigures:
    """A fault of the mail servers, as the scenario has it and as it fired."""

    name: str
    rule: str
    fired: int
    #: First and last time, or a dash.
    when: str


@dataclass(frozen=True, kw_only=True)
class TenantFigures:
    """One tenant's share."""

    name: str
    mailboxes: int
    requests: int
    accepted: int
    settled: int
    e2e_ns: tuple[float, float] | None
    messages: int


def pair(values: Sequence[float]) -> tuple[float, float] | None:
    """p50 and p95, or None of nothing."""
    return (percentile(values, 50), percentile(values, 95)) if values else None


def tasks(folder: RunFolder) -> tuple[TaskFigures, ...]:
    """Figures by task, in the order of their names."""
    jobs, ran = defaultdict[str, list[Row]](list), defaultdict[str, list[Row]](list)
    for row in folder.jobs:
        jobs[row["name"]].append(row)
    for row in folder.executions:
        ran[row["name"]].append(row)
    created = {row["job_id"]: row.get("created_ns") for row in folder.jobs}
    return tuple(_task(name, jobs[name], ran[name], created) for name in sorted({*jobs, *ran}))


def _task(name: str, jobs: list[Row], ran: list[Row], created: Mapping[str, Any]) -> TaskFigures:
    states = Counter(row["state"] if row["state"] in _FINAL else _UNFINISHED for row in jobs)
    outcomes = Counter(row.get("outcome") for row in ran)
    errors = Counter(words.clean(row["error_type"]) for row in ran if row.get("error_type"))
    return TaskFigures(
        name=words.task(name),
        jobs=len(jobs),
        states=states,
        executions=len(ran),
        retries=outcomes["retry"],
        killed=outcomes["killed"],
        executions_max=max(Counter(row["job_id"] for row in ran).values(), default=0),
        queue_ns=pair([row["started_ns"] - due for row in ran if (due := _due(row, created)) is not None]),
        run_ns=pair([row["ended_ns"] - row["started_ns"] for row in ran if row.get("ended_ns") is not None]),
        errors=tuple(errors.most_common(5)),
    )


def _due(row: Row, created: Mapping[str, Any]) -> int | None:
    """When an execution could have begun: its job was there, and it was due."""
    times = [time for time in (row.get("due_ns"), created.get(row["job_id"])) if isinstance(time, int)]
    # The row of what beat began is made by the execution itself: it did not wait.
    return min(max(times), row["started_ns"]) if times else None


def recipients(folder: RunFolder) -> Counter[str]:
    """Recipients by state."""
    return Counter(words.clean(row["state"]) for row in folder.recipients)


def tenants(folder: RunFolder, asked: Sequence[Request]) -> tuple[TenantFigures, ...]:
    """Figures by tenant; latencies without the warm-up."""
    boxes = Counter(row["tenant_id"] for row in folder.clients)
    rows = Counter(row["tenant_id"] for row in folder.messages)
    by_tenant = defaultdict[str, list[Request]](list)
    for request in asked:
        by_tenant[request.tenant].append(request)
    return tuple(
        TenantFigures(
            name=words.clean(name),
            mailboxes=boxes[name],
            requests=len(own),
            accepted=sum(request.answer == "ok" for request in own),
            settled=sum(request.settled_ns is not None for request in own),
            e2e_ns=pair([r.e2e_ns for r in own if r.e2e_ns is not None and not r.warmup]),
            messages=rows[name],
        )
        for name in sorted({*by_tenant, *boxes})
        for own in [by_tenant[name]]
    )


# --- what was done, and what healed it --------------------------------------------------------------------------------


def injuries(folder: RunFolder, axis: Axis | None) -> tuple[Injury, ...]:
    """What the nemesis did, in the order of time."""
    done = [op for op in folder.history if op.get("process") == "nemesis" and op["f"] != "heal"]
    found = []
    for position, op in enumerate(done):
        if op["type"] == "invoke" and any(
            later["f"] == op["f"] and later["type"] != "invoke" for later in done[position + 1 :]
        ):
            continue  # its answer tells more
        found.append(
            Injury(
                action=words.clean(op["f"]) + {"invoke": " (no answer)", "fail": " (failed)"}.get(op["type"], ""),
                at=_at(axis, op["time_ns"]),
                detail=_data(op),
                healed=_healed(folder, op, axis),
            )
        )
    return tuple(found)


def _data(op: Row) -> str:
    parts = [f"{key} {value}" for key, value in op["value"].items()]
    return words.clean(", ".join(parts) + (f" · {op['error']}" if op.get("error") else ""))


def _healed(folder: RunFolder, op: Row, axis: Axis | None) -> str:
    """By an operation of the nemesis, by the worker's next start, or by the end of the job that was hit."""
    action, since, value = op["f"], op["time_ns"], op["value"]
    for heal in folder.history:
        if (
            heal["f"] == "heal"
            and heal["type"] in _RESULTS
            and heal["time_ns"] >= since
            and action in {None, _of(heal, action)}
        ):
            return f"{_at(axis, heal['time_ns'])} (healed)"
    if action == "kill-parent":
        starts = [
            row["started_ns"] for row in folder.processes if row["kind"] == "worker" and row["started_ns"] > since
        ]
        return f"{_at(axis, min(starts))} (a worker started)" if starts else "never: no worker started"
    for row in folder.jobs:
        if value.get("task_id") and row["job_id"] == value["task_id"]:
            finished = row.get("finished_ns")
            return (
                f"{_at(axis, finished)} (its job {row['state']})" if finished else f"never: its job is {row['state']}"
            )
    return words.NOTHING


def _of(heal: Row, action: str) -> str:
    """Which action a healing is for; one that doesn't say is for any."""
    return str(heal["value"].get("action") or heal["value"].get("of") or action)


def _at(axis: Axis | None, time_ns: int) -> str:
    return axis.label(time_ns) if axis else words.moment(time_ns)


def faults(folder: RunFolder, marks: Iterable[Mark], axis: Axis | None) -> tuple[FaultFigures, ...]:
    """Each fault of the scenario, then those that only fired."""
    fired = defaultdict[str, list[int]](list)
    for mark in marks:
        if mark.kind == "fault":
            fired[mark.label].append(mark.time_ns)
    rules = dict(_rules(folder))
    return tuple(
        FaultFigures(
            name=name,
            rule=rules.get(name, "not in the scenario"),
            fired=len(fired[name]),
            when=_when(sorted(fired[name]), axis),
        )
        for name in [*rules, *sorted(fired.keys() - rules.keys())]
    )


def _when(times: Sequence[int], axis: Axis | None) -> str:
    if not times:
        return words.NOTHING
    ends = [_at(axis, times[0]), _at(axis, times[-1])]
    return " to ".join(dict.fromkeys(ends))


def _rules(folder: RunFolder) -> Iterator[tuple[str, str]]:
    listed = folder.scenario.get("fault", [])
    for fault in listed if isinstance(listed, list) else []:
        when, action = _inline(fault.get("when")), _inline(fault.get("action"))
        yield words.clean(fault.get("id", "fault")), words.clean(f"{fault.get('point', '?')}, {when}: {action}")


def _inline(table: object) -> str:
    if not isinstance(table, dict):
        return words.NOTHING
    return ", ".join(f"{key} {value}" for key, value in table.items())
