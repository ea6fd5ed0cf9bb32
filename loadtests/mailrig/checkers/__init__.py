"""The judge: a pure function of scenario, contract and evidence.

Rule 1: no clock, no socket, no file, and none of the system's rules: the numbers come from the contract. The system's
``signals`` are read for the names of spans only.
Rule 2: a metric without samples is ``unknown``, and so is a checker that crashes; neither is ever a pass.
Rule 3: a new gate is a new row in ``METRICS`` and one function; each has a recorded run that it fails (tests/runs).

    applying      checks in windows, as slopes and beside a baseline
    hopeless      checks that can't hold any more
    expression    the language of checks           mail      promise, envelopes, Bcc, synced rows, tenants
    measurement   what a metric answers            work      held, running, retries, conservation, memory
    view          indexes over evidence            traces    completeness of traces, by spans and edges
    verdict       what a judgement says            load      validity and latency
                                                   counters  metrics against rows
    leaks         secrets in any place             handover  whose spans there are, what Jaeger has
    outages       when a server was away           adversity what shows only while something is wrong
    cost          CPU time by execution            memory    whether a process grows

Callers: runner, cli, report; the digital twin's evidence is judged by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from mailrig.checkers import adversity, cost, counters, edges, handover, leaks, load, mail, memory, traces, work
from mailrig.checkers.applying import Baseline, apply, baseline_row, check_gate, read_baseline
from mailrig.checkers.expression import RATE, SLOPE, Check, CheckError, parse_check, parse_metric
from mailrig.checkers.measurement import Measurement, Metric, Sample
from mailrig.checkers.verdict import GateResult, Verdict, VerdictError, conclude
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, Gate, Scenario, ScenarioError

__all__ = [
    "INTERRUPTED",
    "METRICS",
    "GateResult",
    "Measurement",
    "Metric",
    "Sample",
    "Verdict",
    "VerdictError",
    "baseline_row",
    "conclude",
    "judge",
    "judge_gates",
    "parse_metric",
    "validate",
    "validate_gates",
]

METRICS: Final[Mapping[str, Metric]] = {
    # validity
    "schedule_lag": load.schedule_lag,
    "achieved_ratio": load.achieved_ratio,
    "unfinished": load.unfinished,
    "sample_gap": load.sample_gap,
    "saturation": work.worker_held,  # as validity: "at most four" means something once four were seen
    "nemesis.undone": adversity.nemesis_undone,
    # mail
    "jobs.missing": mail.jobs_missing,
    "jobs.failed": mail.jobs_failed,
    "http.refused": mail.http_refused,
    "send.promise_broken": mail.send_promise_broken,
    "send.envelope_wrong": mail.envelope_wrong,
    "send.bcc_leaks": mail.bcc_leaks,
    "sync.rows_wrong": mail.sync_rows_wrong,
    "tenant.leaks": mail.tenant_leaks,
    "secrets.leaks": leaks.secrets_leaked,
    # work
    "worker.held": work.worker_held,
    "worker.running": work.worker_running,
    "jobs.overlaps": work.jobs_overlaps,
    "jobs.unbalanced": work.jobs_unbalanced,
    "nemesis.lost_messages": work.lost_messages,
    "retry.delay_error": work.retry_delay_error,
    "retry.over_limit": work.retry_over_limit,
    "memory.process": work.memory_process,
    "memory.total": work.memory_total,
    "worker.cpu_per_execution": cost.cpu_per_execution,
    "memory.slope": memory.memory_slope,
    # what only shows while something is wrong
    "executions.killed": adversity.executions_killed,
    "worker.children": adversity.worker_children,
    "load.accepted": adversity.load_accepted,
    "queue.depth": adversity.queue_depth,
    "retry.depth": adversity.retry_depth,
    "task.continued": adversity.task_continued,
    "priority.overtaken": adversity.priority_overtaken,
    "beat.ticks_wrong": adversity.beat_ticks_wrong,
    "capacity.per_s": adversity.capacity_per_s,
    # traces
    "trace.incomplete": handover.of_spans(traces.trace_incomplete),
    "trace.edges_missing": handover.of_spans(edges.trace_edges_missing),
    "trace.loss_percent": handover.of_spans(traces.trace_loss_percent),
    "trace.jaeger_missing": handover.jaeger_missing,
    # metrics
    "metrics.mismatch": counters.metrics_mismatch,
    "metrics.fell": counters.metrics_fell,
    # latency
    "http.accept": load.http_accept,
    "task.e2e": load.task_e2e,
    "task.queue_time": load.task_queue_time,
    "task.run_time": load.task_run_time,
}
#: The gate of a run that was ended early; no scenario names it.
INTERRUPTED: Final = "interrupted"
_DETAILS_MAX: Final = 10


def validate(scenario: Scenario, contract: Contract) -> None:
    """Refuse a gate that could never be judged, before anything is started.

    Raises:
        ScenarioError: a metric or a check is not known, at its gate's line.
    """
    validate_gates(scenario.gates, contract, file=scenario.file, known=METRICS)


def validate_gates(gates: Sequence[Gate], contract: Contract, *, file: Path, known: Iterable[str]) -> None:
    """Refuse a gate that could never be judged by the metrics of these names.

    Raises:
        ScenarioError: a metric or a check is not known, at its gate's line.
    """
    names = sorted(known)
    for gate in gates:
        try:
            name, _ = parse_metric(gate.metric)
            check_gate(parse_check(gate.check, contract), gate)
        except CheckError as err:
            raise ScenarioError(f"gate {gate.id}: {err}", file=gate.file or file, line=gate.line) from err
        if name not in names:
            wrong = f"gate {gate.id}: metric {name!r} is not known"
            raise ScenarioError(wrong, file=gate.file or file, line=gate.line, allowed=", ".join(names))


def judge(scenario: Scenario, contract: Contract, evidence: Evidence) -> Verdict:
    """Judge a run by the scenario's gates."""
    cache: dict[str, Measurement] = {}

    def measure(name: str) -> Measurement:
        if name not in METRICS:
            raise CheckError(f"metric {name!r} is not known; allowed: {', '.join(sorted(METRICS))}")
        if name not in cache:
            cache[name] = METRICS[name](evidence, contract, scenario)
        return cache[name]

    def beside(gate: Gate) -> Baseline | None:
        return _baseline(evidence, scenario, gate)

    gates = (*_cut_short(evidence), *judge_gates(scenario.gates, contract, measure, beside=beside))
    started_ns, ended_ns = evidence.run.get("started_ns"), evidence.run.get("ended_ns")
    return Verdict(
        verdict=conclude(gates, aborted_by=(evidence.run.get("aborted") or {}).get("gate")),
        scenario=scenario.name,
        seed=evidence.run.get("seed", scenario.seed),
        mutant=evidence.run.get("mutant"),
        started_ns=started_ns,
        duration_s=(ended_ns - started_ns) / 1e9 if started_ns and ended_ns else 0.0,
        gates=gates,
    )


def _cut_short(evidence: Evidence) -> tuple[GateResult, ...]:
    """A run that somebody ended early is invalid, however good what it had seen by then."""
    cut = evidence.run.get("interrupted")
    if cut is None:
        return ()
    gate = Gate(id=INTERRUPTED, kind="validity", metric="run.interrupted", check="== 0")
    detail = (f"ended by {cut['signal']} {cut['after_s']:.1f} s after its start",)
    return (_result(gate, gate.check, unit="", verdict="invalid", detail=detail, observed=1.0),)


def _baseline(evidence: Evidence, scenario: Scenario, gate: Gate) -> Baseline | None:
    """What the run that this one is held against says of the gate's metric."""
    kept = evidence.baseline
    row = kept.get("metrics", {}).get(gate.metric)
    if row is None:
        return None
    return read_baseline(row, same_schedule=kept.get("text") == scenario.text, name=f"run {kept.get('run')}")


def judge_gates(
    gates: Sequence[Gate],
    contract: Contract,
    measure: Callable[[str], Measurement],
    *,
    beside: Callable[[Gate], Baseline | None] = lambda _: None,
) -> tuple[GateResult, ...]:
    """Each gate by what its metric measures; others than runs of the service have metrics of their own."""
    return tuple(_judge_gate(gate, contract, measure, beside) for gate in gates)


def _judge_gate(
    gate: Gate,
    contract: Contract,
    measure: Callable[[str], Measurement],
    beside: Callable[[Gate], Baseline | None],
) -> GateResult:
    try:
        name, labels = parse_metric(gate.metric)
        check = parse_check(gate.check, contract)
        measurement = measure(name)
        samples = _select(measurement, labels)
        if not samples:
            reason = measurement.reason or f"no sample has {labels}"
            return _result(gate, str(check), unit=check.unit_text, verdict="unknown", detail=(reason,))
        seen = apply(check, gate, samples, measurement.kind, beside(gate) if check.baseline else None)
    except Exception as err:  # noqa: BLE001  # whatever breaks in a checker, the run is not known to be good
        return _result(gate, gate.check, unit="", verdict="unknown", detail=(f"{type(err).__name__}: {err}",))
    return _result(
        gate,
        _as_judged(check, gate),
        observed=seen.value / check.factor,
        unit=check.unit_text,
        verdict="pass" if seen.holds else _broken(gate),
        detail=(*seen.notes, *_detail(measurement, samples, check, holds=seen.holds)),
    )


def _as_judged(check: Check, gate: Gate) -> str:
    """The check with the numbers in it, and what else the gate says."""
    words = [str(check)]
    words += [f"for {gate.window}"] if gate.window else []
    words += [f"min effect {gate.min_effect}"] if gate.min_effect else []
    return ", ".join(words)


def _select(measurement: Measurement, labels: Mapping[str, str]) -> list[Sample]:
    return [s for s in measurement.samples if all(s.labels.get(name) == value for name, value in labels.items())]


def _broken(gate: Gate) -> str:
    return "invalid" if gate.kind == "validity" else gate.severity


def _detail(measurement: Measurement, samples: list[Sample], check: Check, *, holds: bool) -> tuple[str, ...]:
    """The cases behind a broken gate: what was counted, else the samples that are out of bounds, worst first."""
    if holds or measurement.examples:
        return measurement.examples
    if check.baseline or check.aggregate in {RATE, SLOPE}:
        return ()
    outside = [sample for sample in samples if sample.note and not check.holds(sample.value)]
    outside.sort(key=lambda sample: sample.value, reverse=check.operator.startswith("<"))
    return tuple(sample.note for sample in outside)


def _result(
    gate: Gate, check: str, *, unit: str, verdict: str, detail: tuple[str, ...], observed: float | None = None
) -> GateResult:
    return GateResult(
        id=gate.id,
        kind=gate.kind,
        metric=gate.metric,
        check=check,
        observed=observed,
        unit=unit,
        verdict=verdict,
        detail=detail[:_DETAILS_MAX],
    )
