"""How whole a run's traces are: what the rows expect and what the span file has, counted in one pass over it.

The judge has its own, stricter count (``checkers.traces``); this one is for the reader of a page.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from email_service import signals
from mailrig.evidence import flatten_spans
from mailrig.report import words
from mailrig.report.executions import Execution
from mailrig.report.folder import TRACE_ID, raw_lines
from mailrig.report.traces import CONSUMER
from mailrig.scenario import System

_EXECUTION: Final = f'"{signals.EXECUTION_ID}"'.encode()


@dataclass(frozen=True, kw_only=True)
class Census:
    """What the span file has."""

    #: Spans of each trace.
    sizes: Counter[str] = field(default_factory=Counter)
    #: Process spans of each execution.
    processes: Counter[str] = field(default_factory=Counter)
    #: Executions whose span was made from their row, by the service and by this rig.
    made: frozenset[str] = frozenset()
    made_here: frozenset[str] = frozenset()


def census(path: Path) -> Census:
    """Count the spans of a run's folder; a torn line counts for nothing."""
    sizes, processes = Counter[bytes](), Counter[str]()
    made: dict[bool, set[str]] = {True: set(), False: set()}
    for line in raw_lines(path, "evidence/spans.jsonl"):
        sizes.update(TRACE_ID.findall(line))
        for attributes in _processes(line) if _EXECUTION in line else ():
            execution = str(attributes[signals.EXECUTION_ID])
            processes[execution] += 1
            if attributes.get(signals.SYNTHESISED):
                made[signals.SYNTHESISED_BY in attributes].add(execution)
    return Census(
        sizes=Counter({trace_id.decode(): number for trace_id, number in sizes.items()}),
        processes=processes,
        made=frozenset(made[False]),
        made_here=frozenset(made[True]),
    )


def _processes(line: bytes) -> Iterator[dict[str, Any]]:
    try:
        spans = list(flatten_spans([json.loads(line)]))
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        return
    for span in spans:
        if span["kind"] == CONSUMER and signals.EXECUTION_ID in span["attributes"]:
            yield span["attributes"]


def sentence(counted: Census, found: Sequence[Execution], sample: float) -> str:
    """What is there of what should be."""
    system = System(time_scale=1, concurrency=1, trace_sample=sample)
    owed = [one.execution_id for one in found if _kept(system, one.trace_id)]
    lost = sum(counted.processes[execution] == 0 for execution in owed)
    twice = sum(counted.processes[execution] > 1 for execution in owed)
    made, made_here = (len(group.intersection(owed)) for group in (counted.made, counted.made_here))
    share = f" ({100 * lost / len(owed):.2g} %)" if lost else ""
    parts = [
        f"{counted.sizes.total():,} spans in {words.count(len(counted.sizes), 'trace')}",
        f"process spans: {len(owed):,} expected, {len(owed) - lost:,} found, {lost:,} lost{share}",
        f"{made + made_here:,} made from the row after a kill"
        + f", {made_here:,} of them by this rig" * bool(made_here),
        f"{twice:,} there twice" if twice else "",
        f"traces sampled: {100 * sample:g} %" if sample < 1 else "",
    ]
    return " · ".join(part for part in parts if part) + "."


def _kept(system: System, trace_id: str) -> bool:
    try:
        return system.keeps(trace_id)
    except ValueError:  # no trace id
        return False
