"""/metrics: the metrics that the architecture document promises, from one process with a normal registry.

Rule 1: counters and histograms come from execution and job rows, by a cursor without gaps: exact, unsampled, and they
survive the death of any worker. Rule 2: gauges are read when they are asked for. Rule 3: a source that is away takes
its own metrics away and nothing else (``mail_exporter_up``).
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import redis
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text

from email_service import policy, signals
from email_service.celery_app import WORKERS_KEY
from email_service.errors import ConfigError, DatabaseError
from email_service.tenancy import SYSTEM, Database

_log = logging.getLogger(__name__)

Row = Mapping[str, Any]
Cursor = tuple[str, str]
#: Before the first row.
START: Final[Cursor] = ("0", "00000000-0000-0000-0000-000000000000")
#: Rows taken in at one scrape; a longer backlog is caught up with by the next ones.
PAGE: Final = 5000
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_RETRIES: Final = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the figures come from; each may raise DatabaseError or redis.RedisError."""

    #: Ended executions, and settled jobs, behind a cursor; with the cursor behind the last one.
    ended: Callable[[Cursor], tuple[Sequence[Row], Cursor]]
    settled: Callable[[Cursor], tuple[Sequence[Row], Cursor]]
    #: Rows of (node, name, count) of running executions; of (queue, count, oldest_s) of jobs that wait for a worker;
    #: of (queue, count) of jobs that wait for their due time.
    running: Callable[[], Sequence[Row]]
    queued: Callable[[], Sequence[Row]]
    waiting: Callable[[], Sequence[Row]]
    #: Messages per queue over all priority lists, and unacknowledged ones.
    ready: Callable[[], Mapping[str, int]]
    unacked: Callable[[], int]
    #: Node -> facts of a running worker (see worker).
    workers: Callable[[], Mapping[str, Row]]
    #: Bytes by kind of a process of this host; empty when it is gone or elsewhere.
    memory: Callable[[Row, int], Mapping[str, int]]


class Exporter(Collector):
    """Feeds a registry; ``registry`` is what is served."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._ended, self._settled = START, START
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self._up = Gauge("mail_exporter_up", "Whether a source answered.", ["source"], registry=self.registry)
        self._metrics = {m.name: self._make(m) for m in signals.METRICS if m.kind != "gauge"}
        self.registry.register(self)

    def _make(self, metric: signals.Metric) -> Any:
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, metric.labels, registry=self.registry)
        buckets = _RETRIES if metric.document == "task.retries" else _SECONDS
        return Histogram(metric.name, metric.help, metric.labels, buckets=buckets, registry=self.registry)

    def refresh(self) -> None:
        """Take in what has ended since the last time."""
        with self._lock:
            try:
                rows, self._ended = self._inputs.ended(self._ended)
                for row in rows:
                    self._count_execution(row)
                rows, self._settled = self._inputs.settled(self._settled)
                for row in rows:
                    self._count_job(row)
            except DatabaseError as err:
                self._down("database", err)

    def _count_execution(self, row: Row) -> None:
        task, queue = _short(row["name"]), row["queue"]
        exemplar = {"trace_id": row["trace_id"]} if row["trace_id"] else None
        wait = self._metrics["mail_task_queue_time_seconds"].labels(queue, str(row["ordinal"]))
        wait.observe(max(row["queue_s"], 0.0), exemplar)
        if row["duration_s"] is not None:
            duration = self._metrics["mail_task_duration_seconds"].labels(task, queue, row["outcome"])
            duration.observe(max(row["duration_s"], 0.0), exemplar)
        if row["outcome"] == "retry":
            self._metrics["mail_task_retry"].labels(task, queue).inc()

    def _count_job(self, row: Row) -> None:
        task, queue = _short(row["name"]), row["queue"]
        if row["state"] == "succeeded":
            self._metrics["mail_task_success"].labels(task, queue).inc()
        else:
            self._metrics["mail_task_failure"].labels(task, queue, row["error_type"] or row["state"]).inc()
        self._metrics["mail_task_retries"].labels(task, row["state"]).observe(row["failures"])
        self._metrics["mail_task_worker_time_seconds"].labels(task).observe(max(row["worker_s"] or 0.0, 0.0))

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, read now."""
        gauges = {
            m.name: GaugeMetricFamily(m.name, m.help, labels=m.labels) for m in signals.METRICS if m.kind == "gauge"
        }
        for source, read in (("database", self._read_rows), ("broker", self._read_broker)):
            try:
                read(gauges)
                self._up.labels(source).set(1)
            except (DatabaseError, redis.RedisError) as err:
                self._down(source, err)
        yield from gauges.values()

    def describe(self) -> Iterable[Any]:
        """Nothing ahead of time: registering must not read."""
        return ()

    def _down(self, source: str, err: Exception) -> None:
        _log.warning("%s is away (%s)", source, type(err).__name__)
        self._up.labels(source).set(0)

    def _read_rows(self, gauges: Mapping[str, GaugeMetricFamily]) -> None:
        for row in self._inputs.running():
            gauges["mail_tasks_active"].add_metric([row["node"], _short(row["name"])], row["count"])
        oldest = {row["queue"]: row["oldest_s"] for row in self._inputs.queued()}
        waiting = {row["queue"]: row["count"] for row in self._inputs.waiting()}
        for queue in policy.QUEUES:
            gauges["mail_queue_oldest_age_seconds"].add_metric([queue], max(oldest.get(queue) or 0.0, 0.0))
            gauges["mail_queue_depth"].add_metric([queue, "delayed"], waiting.get(queue, 0))
        gauges["mail_tasks_reserved"].add_metric(["", "delayed"], sum(waiting.values()))

    def _read_broker(self, gauges: Mapping[str, GaugeMetricFamily]) -> None:
        for queue, count in self._inputs.ready().items():
            gauges["mail_queue_depth"].add_metric([queue, "ready"], count)
        unacked, workers = self._inputs.unacked(), self._inputs.workers()
        gauges["mail_queue_depth"].add_metric(["", "unacked"], unacked)
        for node, facts in workers.items():
            gauges["mail_worker_concurrency"].add_metric([node], facts["concurrency"])
            gauges["mail_worker_start_time_seconds"].add_metric([node], facts["started_ns"] / 1e9)
            # Redis does not say who holds a message, so it is exact for one worker and an upper bound for several.
            gauges["mail_tasks_reserved"].add_metric([node, "prefetched"], max(unacked - facts["concurrency"], 0))
            for pid in (facts["pid"], *facts["children"]):
                for kind, size in self._inputs.memory(facts, pid).items():
                    gauges["mail_worker_memory_bytes"].add_metric([node, str(pid), kind], size)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


_ENDED: Final = """
    SELECT ended_xid::text AS xid, id::text AS id, name, queue, ordinal, outcome, trace_id,
           extract(epoch FROM ended_at - started_at)::float AS duration_s,
           extract(epoch FROM started_at - due_at)::float AS queue_s
    FROM executions
    WHERE ended_xid IS NOT NULL AND (ended_xid, id) > (CAST(:xid AS xid8), CAST(:id AS uuid))
      AND ended_xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY executions.ended_xid, executions.id LIMIT :limit
"""
_SETTLED: Final = """
    SELECT settled_xid::text AS xid, id::text AS id, name, queue, state, error_type, failures,
           (SELECT sum(extract(epoch FROM e.ended_at - e.started_at))::float FROM executions e
            WHERE e.job_id = jobs.id) AS worker_s
    FROM jobs
    WHERE settled_xid IS NOT NULL AND (settled_xid, id) > (CAST(:xid AS xid8), CAST(:id AS uuid))
      AND settled_xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY jobs.settled_xid, jobs.id LIMIT :limit
"""
_RUNNING: Final = "SELECT node, name, count(*) AS count FROM executions WHERE outcome IS NULL GROUP BY 1, 2"
_QUEUED: Final = """
    SELECT queue, count(*) AS count, extract(epoch FROM clock_timestamp() - min(due_at))::float AS oldest_s
    FROM jobs WHERE state = 'queued' GROUP BY queue
"""
_WAITING: Final = "SELECT queue, count(*) AS count FROM jobs WHERE state = 'waiting' GROUP BY queue"


def live_inputs(database: Database, broker_url: str, host: str) -> Inputs:
    """The real sources: role mail_system, Redis 0, /proc."""
    # Any: redis-py types its two worlds as one.
    client: Any = redis.Redis.from_url(broker_url, socket_timeout=2, socket_connect_timeout=2)

    def rows(statement: str, **values: Any) -> list[Row]:
        with database.session(SYSTEM) as session:
            return [dict(row._mapping) for row in session.execute(text(statement), values)]  # noqa: SLF001

    def paged(statement: str) -> Callable[[Cursor], tuple[Sequence[Row], Cursor]]:
        def page(after: Cursor) -> tuple[Sequence[Row], Cursor]:
            found = rows(statement, xid=after[0], id=after[1], limit=PAGE)
            return found, (found[-1]["xid"], found[-1]["id"]) if found else after

        return page

    return Inputs(
        ended=paged(_ENDED),
        settled=paged(_SETTLED),
        running=lambda: rows(_RUNNING),
        queued=lambda: rows(_QUEUED),
        waiting=lambda: rows(_WAITING),
        ready=lambda: ready_messages(client),
        unacked=lambda: int(client.hlen("unacked")),
        workers=lambda: {k.decode(): json.loads(v) for k, v in client.hgetall(WORKERS_KEY).items()},
        memory=lambda facts, pid: memory_of(pid) if facts["host"] == host else {},
    )


def ready_messages(client: Any) -> dict[str, int]:
    """Messages per queue, summed over the lists that kombu keeps for its priorities."""
    pipeline = client.pipeline(transaction=False)
    for queue in policy.QUEUES:
        for step in policy.PRIORITY_STEPS:
            pipeline.llen(policy.priority_key(queue, step))
    lengths, steps = pipeline.execute(), len(policy.PRIORITY_STEPS)
    return {queue: sum(lengths[i * steps : (i + 1) * steps]) for i, queue in enumerate(policy.QUEUES)}


def memory_of(pid: int) -> dict[str, int]:
    """rss, pss and uss of a process in bytes, as far as this system tells them."""
    import psutil  # noqa: PLC0415  # only where a worker is on this host

    try:
        info = psutil.Process(pid).memory_full_info()
    except psutil.Error:
        return {}
    return {kind: getattr(info, kind) for kind in ("rss", "pss", "uss") if hasattr(info, kind)}


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """No line per scrape."""


def serve(inputs: Inputs, host: str, port: int, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Serve until told to stop; ``ready`` gets the port.

    Raises:
        ConfigError: the address can't be bound.
    """
    exporter = Exporter(inputs)
    app = make_wsgi_app(exporter.registry)

    def fresh(environ: Any, start_response: Any) -> Any:
        exporter.refresh()
        return app(environ, start_response)

    try:
        server = make_server(host, port, fresh, WSGIServer, handler_class=_Quiet)
    except OSError as err:
        raise ConfigError(f"{host}:{port} can't be bound ({err.strerror}); choose another --port") from err
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    ready(server.server_port)
    while not stop.wait(1.0):
        # Rows are taken in between scrapes too, so that none of them has a backlog to wait for.
        exporter.refresh()
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)
