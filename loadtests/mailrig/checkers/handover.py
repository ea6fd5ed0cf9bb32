"""Does Jaeger have what the span files have? Read back per trace after the run (``jaeger.jsonl``). Pure."""

from __future__ import annotations

from mailrig.checkers.measurement import Measurement, nothing, violations
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Scenario


def jaeger_missing(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Spans of the span files that Jaeger did not give back, once what it lacked had been sent again."""
    if "jaeger.jsonl" in evidence.missing:
        return nothing("no Jaeger was asked: mailrig run --jaeger URL")
    cases = (
        f"span {span_id} of trace {row['trace_id']} is not in Jaeger"
        for row in evidence.jaeger
        for span_id in row["missing"]
    )
    return violations(cases, judged=sum(row["spans"] for row in evidence.jaeger), of="spans")
