"""Executions as the report lists them, and which of them are worth a place on a page. Pure.

Rule 1: what the rows say is enough: an execution without a span (not sampled, or lost) is listed all the same.
Rule 2: what a failed gate names comes first, then what went wrong, then the slowest, then the typical; the rest fills
what room there is.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mailrig.report import words
from mailrig.report.breakdown import Breakdown
from mailrig.report.folder import Row, RunFolder

SLOWEST: Final = 15
TYPICAL: Final = 3
TROUBLED: Final = 60
NAMED: Final = 40
_PLAIN: Final = "succeeded"
#: Digits of ``mail.tenant.hash``, as spans and log lines have it.
_HASH_DIGITS: Final = 16


@dataclass(frozen=True, kw_only=True)
class Execution:
    """One execution, from its row."""

    execution_id: str
    task_id: str
    #: Empty when the row has none.
    trace_id: str
    task: str
    queue: str
    ordinal: int | None
    #: ``open`` while it has none.
    outcome: str
    error_type: str
    #: As spans and log lines name the tenant.
    tenant_hash: str
    node: str
    pid: int
    due_ns: int
    received_ns: int
    started_ns: int
    ended_ns: int | None

    @property
    def total_ns(self) -> int:
        """From due to its end, or to its start if nobody knows the end."""
        return (self.ended_ns or self.started_ns) - self.due_ns

    @property
    def breakdown(self) -> Breakdown:
        """What the row knows of where its time went."""
        return Breakdown(
            queue=self.queue,
            queue_ns=self.received_ns - self.due_ns,
            held_ns=self.started_ns - self.received_ns,
            run_ns=None if self.ended_ns is None else self.ended_ns - self.started_ns,
        )


def executions(folder: RunFolder) -> tuple[Execution, ...]:
    """All of them, in the order of the rows."""
    created = {row["job_id"]: row.get("created_ns") for row in folder.jobs}
    return tuple(_execution(row, created.get(row["job_id"])) for row in folder.executions)


def _execution(row: Row, created_ns: object) -> Execution:
    started, ended = row["started_ns"], row.get("ended_ns")
    due = max((time for time in (row.get("due_ns"), created_ns) if isinstance(time, int)), default=started)
    due = min(due, started)
    received = row.get("received_ns")
    tenant = str(row.get("tenant_id") or "")
    return Execution(
        execution_id=words.clean(row["execution_id"]),
        task_id=words.clean(row["job_id"]),
        trace_id=words.clean(row.get("trace_id") or ""),
        task=words.task(row["name"]),
        queue=words.clean(row["queue"]),
        ordinal=row.get("ordinal") if isinstance(row.get("ordinal"), int) else None,
        outcome=words.clean(row.get("outcome") or "open"),
        error_type=words.clean(row.get("error_type") or ""),
        tenant_hash=hashlib.sha256(tenant.encode(errors="replace")).hexdigest()[:_HASH_DIGITS] if tenant else "",
        node=words.clean(row.get("node") or ""),
        pid=row["pid"],
        due_ns=due,
        received_ns=min(max(received, due), started) if isinstance(received, int) else started,
        started_ns=started,
        ended_ns=max(ended, started) if isinstance(ended, int) else None,
    )


def picked(found: Sequence[Execution], named: Mapping[str, str]) -> Iterator[tuple[Execution, str]]:
    """All executions, those most worth a place first, each with the reason; empty for what only fills the room.

    ``named`` has, by trace, the gate that did not pass and names it.
    """
    seen: set[str] = set()
    for execution, why in _ranked(found, named):
        if execution.execution_id not in seen:
            seen.add(execution.execution_id)
            yield execution, why


def _ranked(found: Sequence[Execution], named: Mapping[str, str]) -> Iterator[tuple[Execution, str]]:
    slow = sorted(found, key=lambda e: (-e.total_ns, e.started_ns, e.execution_id))
    of_gates = [e for e in slow if e.trace_id in named]
    yield from ((e, f"named by {named[e.trace_id]}") for e in of_gates[:NAMED])
    yield from ((e, e.outcome) for e in _spread([e for e in slow if e.outcome not in {_PLAIN, "retry"}], TROUBLED))
    by_task: dict[str, list[Execution]] = defaultdict(list)
    for execution in slow:
        by_task[execution.task].append(execution)
    for own in by_task.values():
        yield from ((e, "slowest") for e in own[:SLOWEST])
        yield from ((e, "longest run") for e in _most(own, lambda e: (e.ended_ns or e.started_ns) - e.started_ns))
        yield from ((e, "longest wait") for e in _most(own, lambda e: e.started_ns - e.due_ns))
        middle = len(own) // 2
        yield from ((e, "typical") for e in own[max(middle - TYPICAL // 2, 0) :][:TYPICAL])
    yield from ((e, "") for e in slow)


def _spread(found: Sequence[Execution], limit: int) -> Iterable[Execution]:
    """At most so many, taken in turn from each outcome and task: a flood of one hides no other."""
    kinds: dict[tuple[str, str], list[Execution]] = defaultdict(list)
    for execution in found:
        kinds[execution.outcome, execution.task].append(execution)
    turns = [(turn, index, e) for index, own in enumerate(kinds.values()) for turn, e in enumerate(own[:limit])]
    return [e for _, _, e in sorted(turns, key=lambda item: item[:2])[:limit]]


def _most(own: Sequence[Execution], value: Callable[[Execution], int]) -> Iterable[Execution]:
    return sorted(own, key=value, reverse=True)[: SLOWEST // 3]
