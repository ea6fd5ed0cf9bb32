"""What the exporter's counters and histograms make of an execution that has ended: rows in, samples out.

Rule 1: a sample is a sum over executions, so those of removed rows are kept as numbers and added to later ones.
Rule 2: nothing is read or written here. Callers: exporter counts rows that are there; service.cleaning counts those
that it is about to remove.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.metrics_core import Metric as Family

from email_service import policy, signals

Row = Mapping[str, Any]
#: Name of a sample, and its labels in the order of their names.
SampleKey = tuple[str, tuple[tuple[str, str], ...]]

#: Executions with a higher number share a label: a job that is killed over and over must not make series for ever.
ATTEMPT_MAX: Final = 10
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RETRIES: Final = (0, 1, 2, 3, 4, 5)

#: What ``Counts.count`` reads of executions e and their jobs j. A job is settled by the commit that ends its last
#: execution (jobs, rule 2), and that one brings it.
COLUMNS: Final = """
    e.ended_xid::text AS xid, e.id::text AS id, e.name, e.queue, e.ordinal, e.outcome, e.trace_id,
    extract(epoch FROM e.ended_at - e.started_at)::float AS duration_s,
    extract(epoch FROM e.started_at - greatest(j.created_at, e.due_at))::float AS queue_s,
    CASE WHEN j.settled_xid = e.ended_xid THEN j.state END AS state, j.error_type, j.failures,
    CASE WHEN j.settled_xid = e.ended_xid THEN (
        SELECT sum(extract(epoch FROM x.ended_at - x.started_at))::float FROM executions x WHERE x.job_id = j.id
    ) END AS worker_s
"""


class Counts:
    """Counters and histograms of their own, from zero or from what was kept."""

    def __init__(self, kept: Mapping[SampleKey, float] | None = None) -> None:
        # They would say when this process started, not when counting did.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._counted = {m.name: _instrument(m) for m in signals.METRICS if m.kind != "gauge"}
        self._kept = dict(kept or {})
        for rule in policy.TASKS.values():
            # From zero on: a rate sees the first one only if there was something before it.
            self._counted["mail_task_success"].labels(_short(rule.name), rule.queue)
            self._counted["mail_task_retry"].labels(_short(rule.name), rule.queue)
        self._make_series()

    def count(self, row: Row) -> None:
        """Take in one execution; the one that settled its job brings the job."""
        self._count_execution(row)
        if row["state"] is not None:
            self._count_job(row)

    def families(self) -> Iterator[Family]:
        """All that is counted, with what was kept; an exemplar stays with its bucket."""
        for metric in self._counted.values():
            for family in metric.collect():
                family.samples = [s._replace(value=s.value + self._kept.get(_key(s), 0.0)) for s in family.samples]
                yield family

    def samples(self) -> dict[SampleKey, float]:
        """What is not zero, to be kept."""
        found: Iterable[Any] = (s for family in self.families() for s in family.samples)
        return {_key(s): s.value for s in found if s.value}

    def _count_execution(self, row: Row) -> None:
        task, queue, exemplar = _short(row["name"]), row["queue"], _exemplar(row)
        attempt = str(row["ordinal"]) if row["ordinal"] <= ATTEMPT_MAX else f"over {ATTEMPT_MAX}"
        waited = self._counted["mail_task_queue_time_seconds"].labels(queue, attempt)
        waited.observe(max(row["queue_s"], 0.0), exemplar)
        if row["duration_s"] is not None:
            # Nobody saw the end of one that was killed.
            ran = self._counted["mail_task_duration_seconds"].labels(task, queue, row["outcome"])
            ran.observe(max(row["duration_s"], 0.0), exemplar)
        if row["outcome"] == "retry":
            self._counted["mail_task_retry"].labels(task, queue).inc(1, exemplar)

    def _count_job(self, row: Row) -> None:
        task, queue, exemplar = _short(row["name"]), row["queue"], _exemplar(row)
        if row["state"] == "succeeded":
            self._counted["mail_task_success"].labels(task, queue).inc(1, exemplar)
        else:
            error_type = row["error_type"] or row["state"]
            self._counted["mail_task_failure"].labels(task, queue, error_type).inc(1, exemplar)
        self._counted["mail_task_retries"].labels(task, row["state"]).observe(row["failures"], exemplar)
        worked = self._counted["mail_task_worker_time_seconds"].labels(task)
        worked.observe(max(row["worker_s"] or 0.0, 0.0), exemplar)

    def _make_series(self) -> None:
        """Series that only the kept samples have: they are shown too."""
        for name, pairs in self._kept:
            labels = {k: v for k, v in pairs if k != "le"}
            for metric in self._counted.values():
                # What an earlier version kept under other labels has no place to go.
                if name.startswith(metric._name) and set(labels) == set(metric._labelnames):  # noqa: SLF001
                    metric.labels(**labels)


def _key(sample: Any) -> SampleKey:
    return sample.name, tuple(sorted(sample.labels.items()))


def _instrument(metric: signals.Metric) -> Any:
    if metric.kind == "counter":
        return Counter(metric.name, metric.help, metric.labels, registry=None)
    buckets = _RETRIES if metric.document == "task.retries" else _SECONDS
    return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=None)


def _exemplar(row: Row) -> dict[str, str] | None:
    return {"trace_id": row["trace_id"]} if row["trace_id"] else None


def _short(name: str) -> str:
    return name.rpartition(".")[2]
