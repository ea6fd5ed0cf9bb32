"""Are the traces whole? What must be there comes from the execution rows, never from the spans themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from email_service import signals
from mailrig.checkers.measurement import Measurement, nothing, violations
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

#: OTLP's number for a span that answers a remote call: its parent may be anywhere.
_SERVER: Final = 2
_PROCESS: Final = signals.SPAN_PROCESS.partition("{")[0]
_BEAT: Final = "beat"
_Key = tuple[str, str]


def trace_incomplete(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Each execution is exactly one process span, whose ancestors reach an HTTP server span or a beat root.

    Besides: no process span without an execution, no span twice, no span whose parent was never written. The parent of
    a server span is the caller's. A span that was open when its process was killed can't be written, so spans of a
    killed execution's trace that began during it may miss theirs.
    """
    spans = {_key(span): span for span in evidence.spans}
    if "spans.jsonl" in evidence.missing:
        return nothing("no spans were collected")
    cases = [
        *_executions(evidence, spans),
        *_unexpected(evidence),
        *_twice(evidence),
        *_orphans(evidence, spans),
    ]
    return violations(cases, judged=len(evidence.executions), of="executions")


def _key(span: Row) -> _Key:
    return span["trace_id"], span["span_id"]


def _processes(evidence: Evidence) -> list[Row]:
    return [span for span in evidence.spans if span["name"].startswith(_PROCESS)]


def _executions(evidence: Evidence, spans: Mapping[_Key, Row]) -> Iterator[str]:
    found: dict[str, list[Row]] = defaultdict(list)
    for span in _processes(evidence):
        found[str(span["attributes"].get(signals.EXECUTION_ID))].append(span)
    for row in evidence.executions:
        name = f"execution {row['execution_id']} ({row['queue']})"
        own = found.get(row["execution_id"], [])
        if len(own) != 1:
            yield f"{name} has {len(own)} process spans"
        elif _key(own[0]) != (row["trace_id"], row["span_id"]):
            yield f"{name} is span {row['span_id']} in its row and {own[0]['span_id']} in trace {own[0]['trace_id']}"
        elif not _is_root(top := _top(own[0], spans)):
            yield f"{name}: its trace {row['trace_id']} ends at {top['name']!r}, not at an HTTP or beat root"


def _top(span: Row, spans: Mapping[_Key, Row]) -> Row:
    """The highest ancestor that was written; a loop of parents ends where it closes."""
    seen: set[_Key] = set()
    while span["kind"] != _SERVER and span["parent_span_id"] is not None and _key(span) not in seen:
        seen.add(_key(span))
        parent = spans.get((span["trace_id"], span["parent_span_id"]))
        if parent is None:
            break
        span = parent
    return span


def _is_root(span: Row) -> bool:
    if span["kind"] == _SERVER:
        return True
    return span["parent_span_id"] is None and span["attributes"].get(signals.ROOT_KIND) == _BEAT


def _unexpected(evidence: Evidence) -> Iterator[str]:
    known = {row["execution_id"] for row in evidence.executions}
    for span in _processes(evidence):
        execution = span["attributes"].get(signals.EXECUTION_ID)
        if execution not in known:
            yield f"span {span['span_id']} ({span['name']}) is of execution {execution}, which has no row"


def _twice(evidence: Evidence) -> Iterator[str]:
    for (trace_id, span_id), count in Counter(_key(span) for span in evidence.spans).items():
        if count > 1:
            yield f"span {span_id} of trace {trace_id} is there {count} times"


def _orphans(evidence: Evidence, spans: Mapping[_Key, Row]) -> Iterator[str]:
    killed: dict[str, int] = {}
    for row in evidence.executions:
        if row["outcome"] == "killed":
            killed[row["trace_id"]] = min(row["started_ns"], killed.get(row["trace_id"], row["started_ns"]))
    for span in evidence.spans:
        if span["kind"] == _SERVER or span["parent_span_id"] is None:
            continue
        if (span["trace_id"], span["parent_span_id"]) in spans:
            continue
        if span["start_ns"] < killed.get(span["trace_id"], span["start_ns"] + 1):
            yield f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']} has no parent that was written"
