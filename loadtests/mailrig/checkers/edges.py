"""Does a run show every edge of ``signals.EDGES`` that it owes? The rows say what happened, the table what that shows.

A case is one thing that the rows say: an execution or a job, and so the span at one end of an edge. Each word of the
table's ``when`` is a function here, from rows to cases; a test holds the two against each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from email_service import signals
from email_service.signals import EDGES, Edge
from mailrig.checkers.measurement import Measurement, violations
from mailrig.checkers.spans import KINDS, Kills, key, label, message_of, owed, parent_key
from mailrig.checkers.view import by_job, delivered, executions_in_order, jobs_by_id
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

_PREFIX: Final = "email_service.tasks."
#: Tasks of the ways that are named after one; the other ways are of any task.
_TASKS: Final[Mapping[str, str]] = {
    "send": "send_email",
    "sync": "sync_emails",
    "delete": "delete_emails",
    "spam": "check_spam",
    "periodic": "periodic_sync",
    "cleanup": "cleanup_stale_results",
}
#: Where a span of a case stands: which end of the edge, and whose span it is there.
Anchor: TypeAlias = tuple[str, str, str]
_ANYWHERE: Final[Anchor] = ("", "", "")


@dataclass(frozen=True, kw_only=True)
class Case:
    """Something that happened, and where an edge must show it."""

    what: str
    anchor: Anchor


def trace_edges_missing(evidence: Evidence, _contract: Contract, scenario: Scenario) -> Measurement:
    """Each edge is there for each case of it: for every execution, retry, continuation, kill, re-publish, second copy.

    What a killed process had open is nowhere; the cases of a creation that may have been lost so are left out.
    """
    run = _Run(evidence, scenario)
    found = _found(evidence)
    judged, missing = 0, []
    for edge in EDGES:
        for case in cases(edge, run):
            judged += 1
            if case.anchor not in found[edge]:
                missing.append(f"{case.what}: no {describe(edge)}")
    return violations(missing, judged=judged, of="edges that the rows name")


def edges_found(evidence: Evidence) -> frozenset[Edge]:
    """The edges that a run has anywhere."""
    return frozenset(edge for edge, anchors in _found(evidence).items() if anchors)


def describe(edge: Edge) -> str:
    """An edge for a person."""
    arrow = ">" if edge.kind == "child" else "<-link-"
    ends = f"{edge.parent} {edge.parent_kind} {arrow} {edge.child} {edge.child_kind}"
    return f"{ends} (way {edge.way}, when {edge.when})"


# --- what is there ----------------------------------------------------------------------------------------------------


def _found(evidence: Evidence) -> Mapping[Edge, set[Anchor]]:
    """For each edge the anchors of the pairs of spans that show it."""
    spans = {key(span): span for span in evidence.spans}
    by_ends: dict[tuple[str, ...], list[Edge]] = defaultdict(list)
    for edge in EDGES:
        by_ends[edge.kind, edge.parent, edge.parent_kind, edge.child, edge.child_kind].append(edge)
    found: dict[Edge, set[Anchor]] = {edge: set() for edge in EDGES}
    for span in evidence.spans:
        above = parent_key(span)
        pairs = [("child", above)] if above else []
        for kind, other in (*pairs, *(("link", link) for link in span["links"])):
            if (parent := spans.get(other)) is not None:
                for edge in by_ends.get((kind, *_end(parent), *_end(span)), ()):
                    found[edge].update(_anchors(parent, span))
    return found


def _end(span: Row) -> tuple[str, str]:
    return label(span), KINDS.get(span["kind"], "INTERNAL")


def _anchors(parent: Row, child: Row) -> Iterator[Anchor]:
    yield _ANYWHERE
    for end, span in (("parent", parent), ("child", child)):
        if (job := message_of(span)) is not None:
            yield end, "job", job
        if (execution := span["attributes"].get(signals.EXECUTION_ID)) is not None:
            yield end, "execution", str(execution)


# --- what is owed -----------------------------------------------------------------------------------------------------


class _Run:
    """The rows of a run whose traces are kept."""

    def __init__(self, evidence: Evidence, scenario: Scenario) -> None:
        self.evidence = evidence
        #: Whether every trace is kept: a session, for one, is opened once and shown in one trace.
        self.is_kept = scenario.system.trace_sample >= 1
        self.kills = Kills(evidence)
        rows = owed(evidence, scenario)
        kept = {row["trace_id"] for row in rows}
        self.jobs_by_id = jobs_by_id(evidence)
        # An execution without a job is conservation's to tell.
        self.executions = [
            row for row in rows if row["job_id"] in self.jobs_by_id and not self.kills.creation_lost(row["job_id"])
        ]
        self.jobs = [
            job for job in evidence.jobs if job["trace_id"] in kept and not self.kills.creation_lost(job["job_id"])
        ]
        self.recipients = by_job(evidence.recipients)
        self.folders: dict[str, list[Row]] = defaultdict(list)
        for folder in evidence.folders:
            self.folders[folder["client_id"]].append(folder)
        #: Executions that were followed by another one of their job.
        self.followed = {
            row["execution_id"] for ordered in executions_in_order(evidence).values() for row in ordered[:-1]
        }

    def result(self, job: Row, name: str) -> int:
        """A count that the job's task answered."""
        return int((job.get("result") or {}).get(name) or 0)

    def served(self, protocol: str, command: str) -> bool:
        """Whether the fakes were asked this by anybody."""
        return any(
            entry["kind"] == "served"
            and entry.get("protocol") == protocol
            # IMAP has an entry for each command, SMTP one for each connection.
            and command in {entry.get("command"), *(entry.get("commands") or ())}
            for entry in self.evidence.ledger
        )


def cases(edge: Edge, run: _Run) -> Iterable[Case]:
    """What the rows say that this edge must show."""
    task = _TASKS.get(edge.way)
    name = None if task is None else _PREFIX + task
    executions = [row for row in run.executions if name in {None, row["name"]}]
    jobs = [row for row in run.jobs if name in {None, row["name"]}]
    end = "parent" if edge.parent == "process" else "child"
    if (of_jobs := JOBS.get(edge.when)) is not None:
        chosen = (job for job in jobs if of_jobs(run, job))
        return (Case(what=f"job {job['job_id']}", anchor=("child", "job", job["job_id"])) for job in chosen)
    if (of_executions := EXECUTIONS.get(edge.when)) is not None:
        chosen = (row for row in executions if of_executions(run, row))
        return (_of_execution(row, edge, end) for row in chosen)
    return [Case(what="the run", anchor=_ANYWHERE)] if run.is_kept and RUNS[edge.when](run) else []


def _of_execution(row: Row, edge: Edge, end: str) -> Case:
    what = f"execution {row['execution_id']} ({row['queue']}, {row['outcome']})"
    if "process" in {edge.parent, edge.child}:
        return Case(what=what, anchor=(end, "execution", row["execution_id"]))
    # Between the job's creation and another publish.
    return Case(what=what, anchor=("child", "job", row["job_id"]))


def _retried(run: _Run, row: Row, error_type: str | None) -> bool:
    continued = row["error_type"] == "time-limit"
    return row["outcome"] == "retry" and row["execution_id"] in run.followed and continued is (error_type is not None)


def _killed(row: Row, error_type: str) -> bool:
    return bool(row["outcome"] == "killed" and row["error_type"] == error_type)


def _synced(run: _Run, row: Row) -> bool:
    job = run.jobs_by_id[row["job_id"]]
    return bool(row["outcome"] == "succeeded" and job["outcome"] == "synced")


def _transmitted(run: _Run, row: Row) -> bool:
    """It was the only execution, and somebody got the message: then it was this one that sent it."""
    states = {recipient["state"] for recipient in run.recipients.get(row["job_id"], ())}
    return row["outcome"] == "succeeded" and row["ordinal"] == 1 and "sent" in states


def _counted(run: _Run, row: Row, *counts: str) -> bool:
    """It was the only execution, so that all that the job's result counts was its doing."""
    job = run.jobs_by_id[row["job_id"]]
    alone = row["outcome"] == "succeeded" and row["ordinal"] == 1
    return alone and any(run.result(job, count) for count in counts)


def _compared(run: _Run, row: Row) -> bool:
    """Flags changed in a mailbox whose folders have no history: they were compared."""
    job = run.jobs_by_id[row["job_id"]]
    folders = run.folders.get(job["client_id"], ())
    history = any((folder["sync_token"] or {}).get("highestmodseq") for folder in folders)
    return _synced(run, row) and _counted(run, row, "flags") and bool(folders) and not history


def _is_asked_by_us(job: Row) -> bool:
    return job.get("parent_job_id") is not None


def _is_apart(run: _Run, job: Row) -> bool:
    """Whether a job has a trace of its own instead of its asker's."""
    return bool(run.jobs_by_id[job["parent_job_id"]]["trace_id"] != job["trace_id"])


def _fanned_out(run: _Run, job: Row, *, apart: bool) -> bool:
    parent = run.jobs_by_id.get(job.get("parent_job_id") or "")
    if parent is None or parent["name"] != _PREFIX + "periodic_sync":
        return False
    return _is_apart(run, job) is apart


#: Words that are true of an execution: its process span is at one end of the edge.
EXECUTIONS: Final[Mapping[str, Callable[[_Run, Row], bool]]] = {
    "executed": lambda _run, _row: True,
    "ended": lambda _run, row: row["outcome"] not in {"killed", None},
    "transmitted": _transmitted,
    "synced": _synced,
    "fetched": lambda run, row: _synced(run, row) and _counted(run, row, "messages"),
    "compared": _compared,
    "deleted": lambda run, row: _counted(run, row, "moved", "expunged"),
    "retried": lambda run, row: _retried(run, row, None),
    "continued": lambda run, row: _retried(run, row, "time-limit"),
    "lost": lambda _run, row: _killed(row, "worker-lost"),
    "cut-off": lambda run, row: _killed(row, "time-limit") and row["execution_id"] in run.followed,
    "put-back": lambda _run, row: _killed(row, "shutdown"),
}
#: Words that are true of a job: its creation, or what follows from it, is the edge's child.
JOBS: Final[Mapping[str, Callable[[_Run, Row], bool]]] = {
    "requested": lambda _run, job: not _is_asked_by_us(job),
    "arrived": lambda _run, job: _is_asked_by_us(job),
    "fanned-out": lambda run, job: _fanned_out(run, job, apart=False),
    "fanned-out-apart": lambda run, job: _fanned_out(run, job, apart=True),
    "published-again": lambda _run, job: job["publishes"] > 1,
    "refused": lambda _run, job: job["refusals"] > 0,
}
#: Words that are true of a run: the edge is somewhere.
RUNS: Final[Mapping[str, Callable[[_Run], bool]]] = {
    "connected": lambda run: bool(run.executions) and bool(delivered(run.evidence)),
    "encrypted": lambda run: run.served("smtp", "STARTTLS"),
    "authenticated": lambda run: bool(run.executions) and any(e.get("user") for e in delivered(run.evidence)),
    # Not from the result's counts: a message that no server has is moved in its row alone.
    "moved": lambda run: run.served("imap", "MOVE"),
    "expunged": lambda run: run.served("imap", "EXPUNGE"),
    "trash-made": lambda run: run.served("imap", "CREATE"),
}
