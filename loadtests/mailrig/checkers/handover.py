"""Whether there are spans to judge, and whether Jaeger has what the span files have (``jaeger.jsonl``). Pure."""

from __future__ import annotations

from mailrig.checkers.measurement import Measurement, Metric, nothing, violations
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Scenario


def of_spans(metric: Metric) -> Metric:
    """The metric, of which nothing is known where no spans were collected: a stack of others' may show none."""

    def judged(evidence: Evidence, contract: Contract, scenario: Scenario) -> Measurement:
        if "spans.jsonl" in evidence.missing:
            return nothing("no spans were collected")
        return metric(evidence, contract, scenario)

    return judged


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
