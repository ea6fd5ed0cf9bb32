"""Do the metrics say what the rows say? Counters and histograms are read back after the drain and counted again here.

The judge counts by itself, from the audit views: none of the exporter's code is used. The edges of histograms are those
that were scraped. Pure.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from email_service import signals
from mailrig.checkers.measurement import Measurement, nothing, violations
from mailrig.checkers.view import FINAL, by_job, jobs_by_id
from mailrig.evidence import Evidence, Row
from mailrig.samples import is_counted, replay
from mailrig.scenario import Contract, Scenario

#: A series: the name without its ending, and its labels in the order of their names.
_Series = tuple[str, tuple[tuple[str, str], ...]]
_LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
#: Attempts with a higher number share a label.
_ATTEMPT_MAX: Final = 10
#: Sums of microseconds, added in another order.
_SUM_TOLERANCE: Final = 1e-6


def metrics_mismatch(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Every counter, and every count, sum and bucket of a histogram, against what the rows come to, by label."""
    last = [line for line in evidence.metrics if line.get("last")]
    if not last:
        return nothing("no scrape of the metrics after the drain")
    if not evidence.executions:
        return nothing("no executions to count")
    scraped = {_read(name): value for name, value in last[-1]["set"].items() if is_counted(name)}
    expected = _Expected(evidence)
    return violations(expected.differences(scraped), judged=len(scraped), of="samples")


def metrics_fell(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """A counter that falls, or goes away, between two scrapes: a restart of the exporter must not show."""
    scrapes = sum("error" not in line for line in evidence.metrics)
    return violations(_falls(evidence.metrics), judged=max(scrapes - 1, 0), of="pairs of scrapes")


def _falls(lines: Iterable[Row]) -> Iterator[str]:
    before: dict[str, float] = {}
    for _, samples in replay(lines):
        now = {name: value for name, value in samples.items() if is_counted(name)}
        for name, value in before.items():
            if name not in now:
                yield f"{name} was {value:g} and is gone"
            elif now[name] < value:
                yield f"{name} fell from {value:g} to {now[name]:g}"
        before = now


def _read(sample: str) -> _Series:
    name, _, labels = sample.partition("{")
    return name, tuple(sorted(_LABEL.findall(labels)))


class _Expected:
    """What the rows come to."""

    def __init__(self, evidence: Evidence) -> None:
        self._counters: Counter[_Series] = Counter()
        self._histograms: dict[_Series, list[float]] = defaultdict(list)
        jobs, recipients = jobs_by_id(evidence), by_job(evidence.recipients)
        worked: dict[str, int] = defaultdict(int)
        for row in evidence.executions:
            if row["ended_ns"] is not None:
                worked[row["job_id"]] += row["ended_ns"] - row["started_ns"]
            if row["outcome"] is not None:
                self._execution(row, jobs.get(row["job_id"], {}))
        for job in jobs.values():
            if job["state"] in FINAL:
                self._job(job, recipients.get(job["job_id"], []), worked[job["job_id"]] / 1e9)

    def differences(self, scraped: Mapping[_Series, float]) -> Iterator[str]:
        """Each sample that is not what it should be."""
        wanted: dict[_Series, float] = dict(self._counters)
        for (name, labels), values in self._histograms.items():
            wanted |= {(f"{name}_count", labels): len(values), (f"{name}_sum", labels): math.fsum(values)}
        for series in sorted(scraped.keys() | wanted.keys()):
            want = self._bucket(series) if series[0].endswith("_bucket") else wanted.get(series, 0.0)
            got = scraped.get(series)
            # A series that was never touched may be missing or zero.
            if not _equal(series[0], got or 0.0, want):
                yield f"{_shown(series)} is {'not there' if got is None else f'{got:g}'}; the rows make it {want:g}"

    def _bucket(self, series: _Series) -> float:
        name, labels = series[0].removesuffix("_bucket"), dict(series[1])
        edge = float(labels.pop("le"))
        return sum(value <= edge for value in self._histograms.get((name, tuple(labels.items())), []))

    def _add(self, name: str, count: int = 1, **labels: str) -> None:
        self._counters[f"{name}_total", tuple(sorted(labels.items()))] += count

    def _observe(self, name: str, value: float, **labels: str) -> None:
        self._histograms[name, tuple(sorted(labels.items()))].append(max(value, 0.0))

    def _execution(self, row: Row, job: Row) -> None:
        task, queue, outcome = _short(row["name"]), row["queue"], row["outcome"]
        self._add("mail_executions", task=task, queue=queue, outcome=outcome)
        due_ns = max(row["due_ns"], job.get("created_ns", 0))
        attempt = str(row["ordinal"]) if row["ordinal"] <= _ATTEMPT_MAX else f"over {_ATTEMPT_MAX}"
        self._observe("mail_task_queue_time_seconds", (row["started_ns"] - due_ns) / 1e9, queue=queue, attempt=attempt)
        if row["ended_ns"] is not None:
            ran_s = (row["ended_ns"] - row["started_ns"]) / 1e9
            self._observe("mail_task_duration_seconds", ran_s, task=task, queue=queue, outcome=outcome)
        if outcome == "retry":
            self._add("mail_task_retry", task=task, queue=queue)
        if row["error_type"] is not None:
            self._add("mail_execution_errors", task=task, queue=queue, error_type=row["error_type"])
        for step, seconds in (row["steps"] or {}).items():
            protocol, _, word = step.partition(".")
            self._observe("mail_step_seconds", seconds, protocol=protocol, step=word)

    def _job(self, job: Row, recipients: Iterable[Row], worked_s: float) -> None:
        task, queue = _short(job["name"]), job["queue"]
        first = "unknown" if job["was_unknown"] else job["state"]
        if job["state"] == "succeeded":
            # Also if it was unknown before it was proven.
            self._add("mail_task_success", task=task, queue=queue)
        if first != "succeeded":
            error_type = job["unknown_error_type"] if job["was_unknown"] else job["error_type"]
            self._add("mail_task_failure", task=task, queue=queue, error_type=error_type or first)
        self._observe("mail_task_retries", job["failures"], task=task, outcome=first)
        self._observe("mail_task_worker_time_seconds", worked_s, task=task)
        for row in recipients:
            if row["state"] not in signals.RECIPIENT_STATES_FINAL:
                continue
            for state in {row["state"], "unknown" if row["was_unknown"] else row["state"]}:
                self._add("mail_recipients", state=state)
            self._add("mail_smtp_replies", code="none" if row["reply_code"] is None else str(row["reply_code"]))


def _equal(name: str, got: float, want: float) -> bool:
    if name.endswith("_sum"):
        return math.isclose(got, want, rel_tol=_SUM_TOLERANCE, abs_tol=_SUM_TOLERANCE)
    return got == want


def _shown(series: _Series) -> str:
    name, labels = series
    return name + (f"{{{', '.join(f'{k}={v}' for k, v in labels)}}}" if labels else "")


def _short(name: str) -> str:
    return str(name).rpartition(".")[2]
