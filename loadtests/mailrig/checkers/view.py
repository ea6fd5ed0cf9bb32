"""Indexes over evidence: requests with their answers, rows by job, what the nemesis did, who was alive when. Pure.

Times are nanoseconds since the epoch, all from one host's clock.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mailrig.evidence import Evidence, Row
from mailrig.history import Op

SEND_TASK: Final = "email_service.tasks.send_email"
#: States of a job that are final (the audit view's words; the judge has its own copy on purpose).
FINAL: Final = frozenset({"succeeded", "failed", "unknown"})
#: Tasks that commit what they have done as they go (decision 16).
_RESUMING: Final = frozenset({"sync_emails", "delete_emails"})
_TIME_LIMIT: Final = "time-limit"
_LOADS: Final = frozenset({"send", "sync", "delete"})


@dataclass(frozen=True, kw_only=True)
class Request:
    """One arrival of the load and its answer."""

    invoke: Op
    #: None when the generator never heard, nor gave up.
    answer: Op | None

    @property
    def f(self) -> str:
        """``send``, ``sync`` or ``delete``."""
        return self.invoke.f

    @property
    def warmup(self) -> bool:
        """Left out of validity and latency."""
        return bool(self.invoke.value.get("warmup", False))

    @property
    def accepted(self) -> bool:
        """Answered by 202: from then on the system owes it."""
        return self.answer is not None and self.answer.type == "ok"

    @property
    def value(self) -> Mapping[str, Any]:
        """What is known of it: the answer's value when there is one."""
        return self.invoke.value if self.answer is None else self.answer.value

    @property
    def intended_ns(self) -> int:
        """When it was due; latency counts from here."""
        return int(self.invoke.value["intended_ns"])


def requests(evidence: Evidence, *, warmup: bool = True) -> list[Request]:
    """The load's requests in the order of their invocation; ``warmup`` False leaves the warm-up out."""
    ops = [op for op in evidence.history if op.f in _LOADS]
    answers = {op.value["arrival"]: op for op in ops if op.type != "invoke"}
    found = [Request(invoke=op, answer=answers.get(op.value["arrival"])) for op in ops if op.type == "invoke"]
    return [request for request in found if warmup or not request.warmup]


def accepted(evidence: Evidence, f: str | None = None) -> list[Request]:
    """The requests that were answered by 202, warm-up included: each must be kept."""
    return [request for request in requests(evidence) if request.accepted and f in {None, request.f}]


def completions(evidence: Evidence) -> dict[str, Op]:
    """What the feed showed, by task id."""
    return {op.value["task_id"]: op for op in evidence.history if op.f == "complete" and op.type == "ok"}


def stolen(evidence: Evidence) -> dict[str, Op]:
    """The tasks whose message the nemesis took out of the broker."""
    return {
        op.value["task_id"]: op
        for op in evidence.history
        if op.f == "lose-message" and op.type == "ok" and op.value.get("task_id")
    }


def jobs_by_id(evidence: Evidence) -> dict[str, Row]:
    """Job rows by id; of two with one id the last (``jobs.missing`` reports those)."""
    return {row["job_id"]: row for row in evidence.jobs}


def by_job(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows of executions or recipients, grouped by job."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["job_id"]].append(row)
    return groups


def executions_in_order(evidence: Evidence) -> dict[str, list[Row]]:
    """Each job's executions by ordinal."""
    return {
        job: sorted(rows, key=lambda row: (row["ordinal"], row["started_ns"]))
        for job, rows in by_job(evidence.executions).items()
    }


def is_retry(row: Row) -> bool:
    """Whether an execution failed and the job was tried again. One that went on behind its soft limit did not fail."""
    return row["outcome"] == "retry" and not is_continued(row)


def is_continued(row: Row) -> bool:
    """Whether an execution kept what it had done at its soft time limit, and the job went on in the next one.

    Only tasks with checkpoints do so; of any other the limit is a failure like others.
    """
    resumes = row["name"].rpartition(".")[2] in _RESUMING
    return row["outcome"] == "retry" and (row["error_type"] is None or (resumes and row["error_type"] == _TIME_LIMIT))


def delivered(evidence: Evidence) -> list[Row]:
    """Ledger entries of mail that was taken, the lost 250 included: the recipient has it."""
    return [entry for entry in evidence.ledger if entry["kind"] == "accepted"]


def address_set(addresses: Iterable[str]) -> frozenset[str]:
    """Addresses as they compare: no mail host of ours tells upper from lower case."""
    return frozenset(address.lower() for address in addresses)


def wanted(value: Mapping[str, Any]) -> dict[str, list[str]]:
    """The recipients of a request's value, by role."""
    return {role: list(value.get(role) or ()) for role in ("to", "cc", "bcc")}


def worker_starts(evidence: Evidence) -> list[int]:
    """When a worker's main process started, in order."""
    return sorted(row["started_ns"] for row in evidence.processes if row["kind"] == "worker")


def worker_deaths(evidence: Evidence) -> int:
    """How many main processes of a worker ended other than by the final stop."""
    return sum(
        row["ended_ns"] is not None and row.get("reason") != "stop"
        for row in evidence.processes
        if row["kind"] == "worker"
    )


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A time during which an execution was certainly running: [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    row: Row


def intervals(evidence: Evidence) -> list[Interval]:
    """When each execution certainly ran.

    A killed one has no end. It is counted up to the last instant at which its process was still seen: the kill itself
    when the nemesis did it, else the last memory sample that has the process, else its own start. A later bound, such
    as the worker's end, would count a dead execution beside the one that took its slot. A process runs one execution
    at a time, so the next start in the same process ends it in any case.
    """
    last_seen = _last_seen(evidence)
    following = _next_starts(evidence.executions)
    return [
        Interval(start_ns=row["started_ns"], end_ns=_certain_end(row, last_seen, following), row=row)
        for row in evidence.executions
    ]


def _certain_end(row: Row, last_seen: Mapping[int, int], following: Mapping[str, int]) -> int:
    if row["ended_ns"] is not None:
        return int(row["ended_ns"])
    end = max(int(row["started_ns"]), last_seen.get(row["pid"], 0))
    return min(end, following.get(row["execution_id"], end))


def _last_seen(evidence: Evidence) -> dict[int, int]:
    """The last instant at which each process was alive."""
    seen: dict[int, int] = {}
    for sample in evidence.memory:
        for process in sample["processes"]:
            seen[process["pid"]] = max(seen.get(process["pid"], 0), sample["time_ns"])
    for op in evidence.history:
        if op.f == "kill-child" and op.type == "ok" and "pid" in op.value:
            seen[op.value["pid"]] = op.time_ns
    return seen


def _next_starts(executions: Iterable[Row]) -> dict[str, int]:
    """For each execution the start of the next one in the same process."""
    processes: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in executions:
        processes[row["pid"], row["process_start_ns"]].append(row)
    starts: dict[str, int] = {}
    for rows in processes.values():
        rows.sort(key=lambda row: row["started_ns"])
        starts |= {row["execution_id"]: after["started_ns"] for row, after in itertools.pairwise(rows)}
    return starts
