"""What the exporter's counters and histograms make of rows that are settled: rows in, samples out.

Rule 1: a sample is a sum over executions and jobs, so those of removed rows are kept as numbers and added to later
ones.
Rule 2: a row is counted as what it was when it was settled, and its columns say so for ever: a restart counts the same.
What was unknown and is proven later stays counted as unknown, and is counted as sent, and as a success, besides.
Rule 3: a label has one of a fixed number of values, whatever a row holds: no tenant, no address, no id, no text.
Rule 4: nothing is read or written here. Callers: exporter counts rows that are there; service.cleaning counts those
that it is about to remove.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from prometheus_client import Counter, Histogram, disable_created_metrics
from prometheus_client.metrics_core import Metric as Family

from email_service import policy, signals

Row = Mapping[str, Any]
#: Name of a sample, and its labels in the order of their names.
SampleKey = tuple[str, tuple[tuple[str, str], ...]]

#: Executions with a higher number share a label: a job that is killed over and over must not make series for ever.
ATTEMPT_MAX: Final = 10
#: What a label says of a value that is not among those it may have.
OTHER: Final = "other"
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RETRIES: Final = (0, 1, 2, 3, 4, 5)
_TASKS: Final = frozenset(name.rpartition(".")[2] for name in policy.TASKS)
#: RFC 5321 section 4.2: the first digit of a final reply, and the highest second one.
_REPLY_CLASSES: Final = (2, 4, 5)
_REPLY_CATEGORY_MAX: Final = 5

#: A job j as it was when it was first settled.
_SETTLED: Final = """
    SELECT CASE WHEN j.unknown_xid IS NULL THEN j.state ELSE 'unknown' END AS state,
           CASE WHEN j.unknown_xid IS NULL THEN j.error_type ELSE j.unknown_error_type END AS job_error_type,
           j.failures,
           (SELECT sum(extract(epoch FROM x.ended_at - x.started_at))::float
            FROM executions x WHERE x.job_id = j.id) AS worker_s,
           (SELECT json_agg(json_build_array(
                CASE WHEN r.was_unknown THEN 'unknown' ELSE r.state END, r.reply_code))
            FROM recipients r WHERE r.job_id = j.id) AS recipients
"""
#: What ``Counts.count`` reads of executions e that have ended. A job is settled by the commit that ends its last
#: execution (jobs, rule 2), and that one brings it.
EXECUTIONS: Final = f"""
    SELECT e.ended_xid::text AS xid, e.id::text AS id, e.name, e.queue, e.ordinal, e.outcome, e.error_type, e.steps,
           e.trace_id, right(j.traceparent, 2) AS trace_flags,
           extract(epoch FROM e.ended_at - e.started_at)::float AS duration_s,
           extract(epoch FROM e.started_at - greatest(j.created_at, e.due_at))::float AS queue_s,
           s.state, s.job_error_type, s.failures, s.worker_s, s.recipients, NULL::bigint AS proven
    FROM executions e JOIN jobs j ON j.id = e.job_id
    LEFT JOIN LATERAL ({_SETTLED}) s ON coalesce(j.unknown_xid, j.settled_xid) = e.ended_xid
"""  # noqa: S608  # constants
#: And of jobs j that were settled, or proven, by something else: ``proven`` counts recipients that turned out sent.
APART: Final = f"""
    SELECT j.apart_xid::text AS xid, j.id::text AS id, j.name, j.queue, NULL::integer AS ordinal, NULL AS outcome,
           NULL AS error_type, NULL::jsonb AS steps, split_part(j.traceparent, '-', 2) AS trace_id,
           right(j.traceparent, 2) AS trace_flags, NULL::float AS duration_s, NULL::float AS queue_s,
           s.state, s.job_error_type, s.failures, s.worker_s, s.recipients,
           CASE WHEN j.unknown_xid IS NOT NULL THEN (
               SELECT count(*) FROM recipients r WHERE r.job_id = j.id AND r.was_unknown AND r.state = 'sent'
           ) END AS proven
    FROM jobs j CROSS JOIN LATERAL ({_SETTLED}) s
"""  # noqa: S608  # constants


class Counts:
    """Counters and histograms of their own, from zero or from what was kept."""

    def __init__(self, kept: Mapping[SampleKey, float] | None = None) -> None:
        # They would say when this process started, not when counting did.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._counted = {m.name: _instrument(m) for m in signals.METRICS if m.kind != "gauge"}
        #: Looked up twenty times a row: prometheus_client's own way there is a fifth of all counting.
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._kept = dict(kept or {})
        self._begin_at_zero()
        self._make_series()

    def count(self, row: Row) -> None:
        """Take in one row: an execution that ended, with its job if it settled it, or a job that was settled apart."""
        exemplar = _exemplar(row)
        if row["outcome"] is not None:
            self._count_execution(row, exemplar)
        if row["proven"] is not None:
            self._count_proof(row, exemplar)
        elif row["state"] is not None:
            self._count_job(row, exemplar)

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

    def _at(self, name: str, *labels: str) -> Any:
        child = self._children.get((name, labels))
        if child is None:
            child = self._children[name, labels] = self._counted[name].labels(*labels)
        return child

    def _count_execution(self, row: Row, exemplar: dict[str, str] | None) -> None:
        task, queue, outcome = _task(row), _queue(row), _one_of(signals.EXECUTION_OUTCOMES, row["outcome"])
        self._at("mail_executions", task, queue, outcome).inc(1, exemplar)
        attempt = str(row["ordinal"]) if row["ordinal"] <= ATTEMPT_MAX else f"over {ATTEMPT_MAX}"
        self._at("mail_task_queue_time_seconds", queue, attempt).observe(max(row["queue_s"], 0.0), exemplar)
        if row["duration_s"] is not None:
            # Nobody saw the end of one that was killed.
            ran = self._at("mail_task_duration_seconds", task, queue, outcome)
            ran.observe(max(row["duration_s"], 0.0), exemplar)
        if row["outcome"] == "retry":
            self._at("mail_task_retry", task, queue).inc(1, exemplar)
        if row["error_type"] is not None:
            error_type = _one_of(signals.ERROR_TYPES, row["error_type"])
            self._at("mail_execution_errors", task, queue, error_type).inc(1, exemplar)
        for step, seconds in (row["steps"] or {}).items():
            protocol, _, word = _one_of(signals.MAIL_STEPS, step).rpartition(".")
            self._at("mail_step_seconds", protocol or OTHER, word).observe(max(seconds, 0.0), exemplar)

    def _count_job(self, row: Row, exemplar: dict[str, str] | None) -> None:
        task, queue, state = _task(row), _queue(row), _one_of(signals.JOB_STATES_FINAL, row["state"])
        if state == "succeeded":
            self._at("mail_task_success", task, queue).inc(1, exemplar)
        else:
            error_type = _one_of(signals.ERROR_TYPES, row["job_error_type"] or state)
            self._at("mail_task_failure", task, queue, error_type).inc(1, exemplar)
        self._at("mail_task_retries", task, state).observe(row["failures"], exemplar)
        self._at("mail_task_worker_time_seconds", task).observe(max(row["worker_s"] or 0.0, 0.0), exemplar)
        for recipient, code in row["recipients"] or ():
            if recipient in signals.RECIPIENT_STATES_FINAL:
                self._at("mail_recipients", recipient).inc(1, exemplar)
                self._at("mail_smtp_replies", _reply(code)).inc(1, exemplar)

    def _count_proof(self, row: Row, exemplar: dict[str, str] | None) -> None:
        self._at("mail_task_success", _task(row), _queue(row)).inc(1, exemplar)
        self._at("mail_recipients", "sent").inc(row["proven"], exemplar)

    def _begin_at_zero(self) -> None:
        """A rate sees the first of something only if there was a zero before it."""
        for rule in policy.TASKS.values():
            place = (rule.name.rpartition(".")[2], rule.queue)
            self._at("mail_task_success", *place)
            self._at("mail_task_retry", *place)
            for outcome in signals.EXECUTION_OUTCOMES:
                self._at("mail_executions", *place, outcome)
        for state in signals.RECIPIENT_STATES_FINAL:
            self._at("mail_recipients", state)

    def _make_series(self) -> None:
        """Series that only the kept samples have: they are shown too."""
        for name, pairs in self._kept:
            labels = {k: v for k, v in pairs if k != "le"}
            for metric in self._counted.values():
                # What an earlier version kept under other labels has no place to go.
                if _base(name) == metric._name and set(labels) == set(metric._labelnames):  # noqa: SLF001
                    metric.labels(**labels)


def _key(sample: Any) -> SampleKey:
    return sample.name, tuple(sorted(sample.labels.items()))


def _base(sample: str) -> str:
    """The metric that a sample belongs to."""
    base, _, ending = sample.rpartition("_")
    return base if ending in {"total", "bucket", "count", "sum"} else sample


def _instrument(metric: signals.Metric) -> Any:
    make: Callable[..., Any] = Counter if metric.kind == "counter" else Histogram
    options = {} if metric.kind == "counter" else {"buckets": _buckets(metric)}
    return make(metric.name, metric.help, metric.labels, registry=None, **options)


def _buckets(metric: signals.Metric) -> tuple[float, ...]:
    return _RETRIES if metric.document == "task.retries" else _SECONDS


def _exemplar(row: Row) -> dict[str, str] | None:
    """The trace, where it was kept: bit 0 of the flags (W3C Trace Context, section 3.2.2.5)."""
    try:
        sampled = int(row["trace_flags"] or "0", 16) & 1
    except ValueError:
        return None
    return {"trace_id": row["trace_id"]} if sampled and row["trace_id"] else None


def _one_of(known: Iterable[str], value: str) -> str:
    return value if value in known else OTHER


def _task(row: Row) -> str:
    return _one_of(_TASKS, row["name"].rpartition(".")[2])


def _queue(row: Row) -> str:
    return _one_of(policy.QUEUES, row["queue"])


def _reply(code: int | None) -> str:
    if code is None:
        return "none"
    kind, category = code // 100, code // 10 % 10
    return str(code) if kind in _REPLY_CLASSES and category <= _REPLY_CATEGORY_MAX else OTHER
