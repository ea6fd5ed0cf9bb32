"""Are the traces whole? What must be there comes from the execution rows, never from the spans themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Final

from email_service import signals
from mailrig.checkers.measurement import Measurement, Sample, nothing, violations
from mailrig.checkers.spans import SERVER, Key, Kills, key, owed, parent_key
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

_PROCESS: Final = signals.SPAN_PROCESS.partition("{")[0]
_NEVER: Final = 2**63
#: OTLP's number for a span that failed.
_ERROR: Final = 2


def trace_incomplete(evidence: Evidence, _contract: Contract, scenario: Scenario) -> Measurement:
    """Each execution is exactly one process span, whose ancestors reach an HTTP server span or a beat root.

    Besides: no process span without an execution, no span twice, no span whose parent was never written. The parent of
    a server span is the caller's. A span that was open when its own process was killed can't be written, so those that
    it was the parent of may miss it. Of a trace that is not kept (the scenario's ``trace_sample``) there is no span.
    """
    rows = owed(evidence, scenario)
    trace = _Trace(evidence)
    cases = [
        *_executions(rows, trace),
        *_unexpected(evidence, scenario),
        *_twice(evidence),
        *trace.orphans(),
    ]
    return violations(cases, judged=len(rows), of="executions")


def trace_loss_percent(evidence: Evidence, _contract: Contract, scenario: Scenario) -> Measurement:
    """How many of the spans that the rows name the service did not write: each execution's own, and its job's creation.

    One that the rig had to make is lost all the same: in production nobody would have made it.
    """
    found = {key(span) for span in evidence.spans if signals.SYNTHESISED_BY not in span["attributes"]}
    named = {(row["trace_id"], row["span_id"]) for row in owed(evidence, scenario)}
    named |= {(row["trace_id"], row["parent_span_id"]) for row in owed(evidence, scenario) if row["parent_span_id"]}
    if not named:
        return nothing("no executions to judge")
    lost = len(named - found)
    note = f"{lost} of {len(named)} spans that the rows name are lost"
    return Measurement(samples=(Sample(value=100.0 * lost / len(named), note=note),))


def _processes(evidence: Evidence) -> list[Row]:
    return [span for span in evidence.spans if span["name"].startswith(_PROCESS)]


class _Trace:
    """Who is below whom, and what a kill excuses."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence, self._kills = evidence, Kills(evidence)
        self._spans: Mapping[Key, Row] = {key(span): span for span in evidence.spans}
        self.own: dict[str, list[Row]] = defaultdict(list)
        for span in _processes(evidence):
            self.own[str(span["attributes"].get(signals.EXECUTION_ID))].append(span)

    def has_root(self, span: Row) -> bool:
        """Whether its ancestors reach an HTTP request or beat, or its creation was lost with a killed process."""
        top = self.top(span)
        if top["kind"] == SERVER:
            return True
        if top["parent_span_id"] is None:
            return bool(top["attributes"].get(signals.ROOT_KIND) == signals.ROOT_BEAT)
        return self._kills.excuse(top)

    def top(self, span: Row) -> Row:
        """The highest ancestor that was written; a loop of parents ends where it closes.

        A job of a wide fan-out begins a trace of its own: there the way goes on by the link to who asked for it.
        """
        seen: set[Key] = set()
        while span["kind"] != SERVER and key(span) not in seen:
            seen.add(key(span))
            above = parent_key(span) or _asker(span)
            if above is None or above not in self._spans:
                break
            span = self._spans[above]
        return span

    def orphans(self) -> Iterator[str]:
        """Spans whose parent was never written, and for which no kill is to blame."""
        for span in self._evidence.spans:
            above = parent_key(span)
            if span["kind"] == SERVER or above is None or above in self._spans or self._kills.excuse(span):
                continue
            yield f"span {span['span_id']} ({span['name']}) of trace {span['trace_id']} has no parent that was written"


def _asker(span: Row) -> Key | None:
    if span["attributes"].get(signals.ROOT_KIND) != signals.ROOT_FAN_OUT:
        return None
    return next(iter(span["links"]), None)


def _executions(rows: list[Row], trace: _Trace) -> Iterator[str]:
    for row in rows:
        name = f"execution {row['execution_id']} ({row['queue']})"
        own = trace.own.get(row["execution_id"], [])
        if len(own) != 1:
            yield f"{name} has {len(own)} process spans"
        elif key(own[0]) != (row["trace_id"], row["span_id"]):
            yield f"{name} is span {row['span_id']} in its row and {own[0]['span_id']} in trace {own[0]['trace_id']}"
        elif row["outcome"] == "killed" and own[0]["status"] != _ERROR:
            yield f"{name} was killed, and its span is no error"
        elif not trace.has_root(own[0]):
            top = trace.top(own[0])
            yield f"{name}: its trace {row['trace_id']} ends at {top['name']!r}, not at an HTTP or beat root"


def _unexpected(evidence: Evidence, scenario: Scenario) -> Iterator[str]:
    known = {row["execution_id"] for row in evidence.executions}
    read_ns = _rows_read_ns(evidence)
    for span in _processes(evidence):
        execution = span["attributes"].get(signals.EXECUTION_ID)
        if execution not in known and span["start_ns"] < read_ns:
            yield f"span {span['span_id']} ({span['name']}) is of execution {execution}, which has no row"
    for trace_id in sorted({span["trace_id"] for span in evidence.spans}):
        if not scenario.system.keeps(trace_id):
            yield f"trace {trace_id} has spans, and is none of those that are kept"


def _rows_read_ns(evidence: Evidence) -> int:
    """When the rows were read: beat goes on, and what began later is in no row that we have."""
    phases = (op for op in evidence.history if op.f == "phase" and op.value.get("name") == "collect")
    return next((op.time_ns for op in phases), _NEVER)


def _twice(evidence: Evidence) -> Iterator[str]:
    for (trace_id, span_id), count in Counter(key(span) for span in evidence.spans).items():
        if count > 1:
            yield f"span {span_id} of trace {trace_id} is there {count} times"
