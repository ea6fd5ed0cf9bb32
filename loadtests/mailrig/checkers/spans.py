"""A run's spans: which are owed, who is whose parent, and what a kill excuses. Pure; used by traces and edges."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

from email_service import signals
from mailrig.checkers.view import executions_in_order
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Scenario

Key: TypeAlias = tuple[str, str]
#: OTLP's numbers for a span that answers a remote call, asks for one, hands a message over, or works on one.
SERVER, CLIENT, PRODUCER, CONSUMER = 2, 3, 4, 5
KINDS: Final[Mapping[int, str]] = {SERVER: "SERVER", CLIENT: "CLIENT", PRODUCER: "PRODUCER", CONSUMER: "CONSUMER"}
#: Spans that speak of a message; their names end in its queue.
_MESSAGING: Final = frozenset(
    name.partition(" ")[0] for name in (signals.SPAN_SEND, signals.SPAN_PROCESS, signals.SPAN_SETTLE)
)
#: Outcomes of executions that nobody lived to end.
_DEAD: Final = frozenset({"killed", None})
_NEVER: Final = 2**63


def key(span: Row) -> Key:
    """A span's trace and id."""
    return span["trace_id"], span["span_id"]


def parent_key(span: Row) -> Key | None:
    """That of its parent."""
    return None if span["parent_span_id"] is None else (span["trace_id"], span["parent_span_id"])


def label(span: Row) -> str:
    """Its name as ``signals.EDGES`` has it: without queue, route or statement."""
    if span["kind"] == SERVER:
        return "SERVER"
    if signals.DB_SYSTEM in span["attributes"]:
        return "SQL"
    first = span["name"].partition(" ")[0]
    return first if first in _MESSAGING else str(span["name"])


def message_of(span: Row) -> str | None:
    """The job that a messaging span speaks of."""
    value = span["attributes"].get(signals.MESSAGING_MESSAGE_ID)
    return None if value is None else str(value)


def owed(evidence: Evidence, scenario: Scenario) -> list[Row]:
    """The executions whose trace is kept."""
    return [row for row in evidence.executions if scenario.system.keeps(row["trace_id"])]


class Kills:
    """What a killed process could not write: the spans that were open in it, and in no other process."""

    def __init__(self, evidence: Evidence) -> None:
        killed = [row for row in evidence.executions if row["outcome"] in _DEAD]
        self._starts: dict[tuple[str, int], list[int]] = defaultdict(list)
        for row in killed:
            self._starts[row["trace_id"], row["pid"]].append(row["started_ns"])
        self._creations = frozenset(_last_asked(evidence))

    def excuse(self, orphan: Row) -> bool:
        """Whether the parent of this span was open in a process that was killed.

        The parent of an inner span is open in the span's own process; that of a message's span is the job's creation,
        which only an execution of the job that asked for it can have had open.
        """
        if label(orphan) in _MESSAGING and orphan["kind"] != PRODUCER:
            return self.creation_lost(message_of(orphan))
        began = self._starts.get((orphan["trace_id"], orphan["pid"]), ())
        return any(started_ns <= orphan["start_ns"] for started_ns in began)

    def creation_lost(self, job_id: str | None) -> bool:
        """Whether the execution that asked for this job may have been killed while the job's creation was open."""
        return job_id in self._creations


def _last_asked(evidence: Evidence) -> Iterator[str]:
    """The last job that each killed execution asked for: it asks for one after the other."""
    asked: dict[str, list[Row]] = defaultdict(list)
    for job in evidence.jobs:
        if job.get("parent_job_id") is not None:
            asked[job["parent_job_id"]].append(job)
    for asker, rows in executions_in_order(evidence).items():
        ends = [*(row["started_ns"] for row in rows[1:]), _NEVER]
        for row, end_ns in zip(rows, ends, strict=True):
            mine = [job for job in asked.get(asker, ()) if row["started_ns"] <= job["created_ns"] < end_ns]
            if mine and row["outcome"] in _DEAD:
                yield str(max(mine, key=lambda job: job["created_ns"])["job_id"])
