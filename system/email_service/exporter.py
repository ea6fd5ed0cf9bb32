"""/metrics: the metrics that the architecture document promises, from one process with a normal registry.

Rule 1: counters and histograms come from execution and job rows, by a cursor without gaps: exact, unsampled, and they
survive the death of any worker and of this process, which counts all rows again when it starts. What the cleanup has
removed is in ``metric_totals``, written by the same counting (``counting``).
Rule 2: gauges are read when they are asked for.
Rule 3: a source that is away takes its own metrics away and nothing else (``mail_exporter_up``).

Called by ``__main__``. Prometheus' own format and OpenMetrics, with a trace id as exemplar of each observation, are
served by the same address: prometheus_client goes by the Accept header.
"""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import threading
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import psutil
import redis
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from email_service import policy, signals, telemetry
from email_service.counting import COLUMNS, Counts, Row, SampleKey
from email_service.errors import ConfigError, MailServiceError
from email_service.tenancy import SYSTEM, Database

_log = logging.getLogger(__name__)

#: Transaction id and row id of the last row that was counted.
Cursor = tuple[str, str]
#: Before the first row.
START: Final[Cursor] = ("0", "00000000-0000-0000-0000-000000000000")
#: Rows taken in at once.
PAGE: Final = 5000
#: How long a statement may take before its source counts as away.
STATEMENT_MS_MAX: Final = 5000
#: Two readings of one process's start may differ by the clock's tick and by a correction of the boot time.
START_TOLERANCE_S: Final = 2.0
#: What says that a source is away, and not that we are wrong.
_AWAY: Final = (MailServiceError, SQLAlchemyError, redis.RedisError, OSError)
UP: Final = signals.Metric(
    name="mail_exporter_up",
    kind="gauge",
    labels=("source",),
    document="",
    help="Whether a source of these metrics answered.",
)


@dataclass(frozen=True, kw_only=True)
class Depth:
    """Messages in the broker, by queue."""

    #: Over all priority lists.
    ready: Mapping[str, int]
    #: Held by workers: taken and not yet acknowledged. A killed worker's stay here until they are given back.
    unacked: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker that runs."""

    node: str
    concurrency: int
    started_s: float
    #: Process (``main``, ``child-0``, ...) -> kind (rss, pss, uss) -> bytes; empty on another host.
    memory: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the figures come from; each may raise what ``_AWAY`` names."""

    #: Ended executions behind a cursor, and the cursor behind the last one. The one that settled its job brings it.
    ended: Callable[[Cursor], tuple[Sequence[Row], Cursor]]
    #: Names the last removal of rows, and the last transaction whose executions are among all that were removed.
    removed: Callable[[], tuple[str, str]]
    #: What removed executions had come to.
    kept: Callable[[], Mapping[SampleKey, float]]
    #: (node, name, count) of executions that run.
    running: Callable[[], Sequence[Row]]
    #: (queue, oldest_s): the oldest job that is due and that nobody has leased.
    overdue: Callable[[], Sequence[Row]]
    #: (queue, count) of jobs that wait for their due time.
    waiting: Callable[[], Sequence[Row]]
    depth: Callable[[], Depth]
    workers: Callable[[], Sequence[Worker]]


class Exporter(Collector):
    """Counts what has ended, and reads the rest when asked; ``registry`` is what is served."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._cursor = START
        self._counts = Counts()
        #: The last removal that our figures know of; None before the first look.
        self._removal: str | None = None
        self._lock = threading.Lock()
        #: Source -> whether it answered the last time.
        self._up: dict[str, bool] = {}
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def refresh(self) -> int:
        """Count what has ended since the last time; answers how many executions that were, at most ``PAGE``."""
        with self._lock:
            try:
                return self._take_in()
            except _AWAY as err:
                self._note("database", err)
                return 0

    def _take_in(self) -> int:
        if self._removal is None:
            self._begin()
        rows, cursor = self._inputs.ended(self._cursor)
        # After the rows: what was removed before they were read is then surely seen.
        removal, last_xid = self._inputs.removed()
        if removal != self._removal and int(last_xid) > int(self._cursor[0]):
            # Rows were removed that we have not counted (or not surely): they are in what is kept.
            self._begin()
            while self._take_in() == PAGE:
                # On, under the lock: nobody is shown half of it.
                pass
            return 0
        self._removal, self._cursor = removal, cursor
        for row in rows:
            self._counts.count(row)
        return len(rows)

    def _begin(self) -> None:
        """From what is kept of removed rows, on to the rows that are there."""
        removal, _ = self._inputs.removed()
        self._counts, self._cursor, self._removal = Counts(self._inputs.kept()), START, removal

    def collect(self) -> Iterator[Family]:
        """Everything, the gauges read now."""
        gauges = {m.name: _family(m) for m in (*signals.METRICS, UP) if m.kind == "gauge"}
        with self._lock:
            running = self._ask("database", lambda: self._read_rows(gauges))
            self._ask("broker", lambda: self._read_broker(gauges, running))
            for source, up in self._up.items():
                gauges[UP.name].add_metric([source], float(up))
            counted = list(self._counts.families())
        yield from gauges.values()
        yield from counted

    def describe(self) -> Iterator[Family]:
        """The names alone: registering must not read, and ``?name[]=`` must find them."""
        for metric in (*signals.METRICS, UP):
            yield Family(metric.name, metric.help, metric.kind)

    def _ask(self, source: str, read: Callable[[], int | None]) -> int | None:
        try:
            answer = read()
        except _AWAY as err:
            self._note(source, err)
            return None
        self._note(source, None)
        return answer

    def _note(self, source: str, err: BaseException | None) -> None:
        if err is not None and self._up.get(source, True):
            _log.warning("%s is away (%s)", source, type(err).__name__)
        elif err is None and not self._up.get(source, True):
            _log.info("%s is back", source)
        self._up[source] = err is None

    def _read_rows(self, gauges: Mapping[str, GaugeMetricFamily]) -> int:
        """Read the database's gauges, all or none of them; answers how many executions run."""
        running, overdue, waiting = self._inputs.running(), self._inputs.overdue(), self._inputs.waiting()
        for row in running:
            gauges["mail_tasks_active"].add_metric([row["node"], _short(row["name"])], row["count"])
        oldest_s = {row["queue"]: row["oldest_s"] for row in overdue}
        delayed = {row["queue"]: row["count"] for row in waiting}
        for queue in policy.QUEUES:
            gauges["mail_queue_oldest_age_seconds"].add_metric([queue], max(oldest_s.get(queue) or 0.0, 0.0))
            gauges["mail_queue_depth"].add_metric([queue, "delayed"], delayed.get(queue, 0))
        gauges["mail_tasks_reserved"].add_metric(["", "delayed"], sum(delayed.values()))
        return sum(row["count"] for row in running)

    def _read_broker(self, gauges: Mapping[str, GaugeMetricFamily], running: int | None) -> None:
        """Read the broker's gauges; ``running`` is None when the database did not tell."""
        depth, workers = self._inputs.depth(), self._inputs.workers()
        for state, counts in (("ready", depth.ready), ("unacked", depth.unacked)):
            for queue in policy.QUEUES:
                gauges["mail_queue_depth"].add_metric([queue, state], counts.get(queue, 0))
        if running is not None:
            # Redis does not say which worker holds a message: the sum is exact, and has no worker.
            held = max(sum(depth.unacked.values()) - running, 0)
            gauges["mail_tasks_reserved"].add_metric(["", "prefetched"], held)
        for worker in workers:
            gauges["mail_worker_concurrency"].add_metric([worker.node], worker.concurrency)
            gauges["mail_worker_start_time_seconds"].add_metric([worker.node], worker.started_s)
            for process, sizes in worker.memory.items():
                for kind, size in sizes.items():
                    gauges["mail_worker_memory_bytes"].add_metric([worker.node, process, kind], size)


def _family(metric: signals.Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


# --- the real sources -----------------------------------------------------------------------------------------------

#: No gaps: rows are ordered by the transaction that ended them and cut off at the oldest one that still runs. A job is
#: settled by the commit that ends its last execution (jobs, rule 2), so one index serves both.
_ENDED: Final = f"""
    SELECT {COLUMNS}
    FROM executions e JOIN jobs j ON j.id = e.job_id
    WHERE e.ended_xid IS NOT NULL AND (e.ended_xid, e.id) > (CAST(:xid AS xid8), CAST(:id AS uuid))
      AND e.ended_xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY e.ended_xid, e.id LIMIT :limit
"""  # noqa: S608  # constants
_REMOVED: Final = """
    SELECT coalesce((SELECT folded_xid::text FROM metric_totals ORDER BY folded_xid DESC LIMIT 1), '0') AS removal,
           coalesce((SELECT last_xid::text FROM metric_totals ORDER BY last_xid DESC LIMIT 1), '0') AS last_xid
"""
#: An execution whose lease has run out is dead, whatever its row says so far.
_RUNNING: Final = """
    SELECT e.node, e.name, count(*) AS count FROM executions e JOIN jobs j ON j.id = e.job_id
    WHERE e.outcome IS NULL AND j.lease_execution_id = e.id AND j.lease_until > clock_timestamp() GROUP BY 1, 2
"""
#: Every unsettled job has a next_publish_at (jobs, rule 3), and an index on it: settled ones are not looked at.
_OVERDUE: Final = """
    SELECT queue, max(extract(epoch FROM clock_timestamp() - greatest(due_at, lease_until)))::float AS oldest_s
    FROM jobs
    WHERE next_publish_at IS NOT NULL AND due_at <= clock_timestamp()
      AND (lease_until IS NULL OR lease_until <= clock_timestamp())
    GROUP BY queue
"""
_WAITING: Final = """
    SELECT queue, count(*) AS count FROM jobs WHERE next_publish_at IS NOT NULL AND state = 'waiting' GROUP BY queue
"""
#: In one call, so that no message moves between two of its answers. An unacknowledged one is kept as a JSON list of
#: message, exchange and routing key, which is the queue's name (kombu/transport/redis.py, QoS.append).
_DEPTH: Final = """
    local lengths, queues = {}, {}
    for i = 2, #KEYS do lengths[i - 1] = redis.call('LLEN', KEYS[i]) end
    for i, raw in ipairs(redis.call('HVALS', KEYS[1])) do
        local whole, entry = pcall(cjson.decode, raw)
        queues[i] = whole and type(entry) == 'table' and tostring(entry[3]) or ''
    end
    return {lengths, queues}
"""


def live_inputs(database: Database, broker_url: str, host: str) -> Inputs:
    """The real sources: role mail_system, Redis 0, /proc of this host."""
    client = redis.Redis.from_url(broker_url, socket_timeout=2, socket_connect_timeout=2)

    def rows(statement: str, **values: Any) -> list[Row]:
        # Quiet: a scrape is not part of anybody's trace.
        with telemetry.quiet(), database.session(SYSTEM, read_only=True) as session:
            session.execute(text(f"SET LOCAL statement_timeout = {STATEMENT_MS_MAX}"))
            return [dict(row._mapping) for row in session.execute(text(statement), values)]  # noqa: SLF001

    def ended(after: Cursor) -> tuple[Sequence[Row], Cursor]:
        found = rows(_ENDED, xid=after[0], id=after[1], limit=PAGE)
        return found, (found[-1]["xid"], found[-1]["id"]) if found else after

    def removed() -> tuple[str, str]:
        row = rows(_REMOVED)[0]
        return row["removal"], row["last_xid"]

    def kept() -> dict[SampleKey, float]:
        found = rows("SELECT sample, labels, value FROM metric_totals")
        return {(row["sample"], tuple(sorted(row["labels"].items()))): row["value"] for row in found}

    return Inputs(
        ended=ended,
        removed=removed,
        kept=kept,
        running=lambda: rows(_RUNNING),
        overdue=lambda: rows(_OVERDUE),
        waiting=lambda: rows(_WAITING),
        depth=lambda: read_depth(client),
        workers=lambda: read_workers(client, host),
    )


def read_depth(client: Any) -> Depth:
    """Messages per queue: ready ones summed over the lists that kombu keeps for its priorities, and held ones."""
    keys = [(queue, policy.priority_key(queue, step)) for queue in policy.QUEUES for step in policy.PRIORITY_STEPS]
    lengths, held = client.eval(_DEPTH, len(keys) + 1, "unacked", *(key for _, key in keys))
    ready: Tally[str] = Tally()
    for (queue, _), length in zip(keys, lengths, strict=True):
        ready[queue] += int(length)
    return Depth(ready=ready, unacked=Tally(queue.decode() for queue in held))


def read_workers(client: Any, host: str) -> list[Worker]:
    """The registered workers without those of this host that are gone: a killed one leaves its entry behind."""
    workers = []
    for field, value in sorted(client.hgetall(signals.KEY_WORKERS).items()):
        node = field.decode()
        try:
            worker = _worker(node, json.loads(value), host)
        except (ValueError, KeyError, TypeError) as err:
            _log.warning("the registry's entry of worker %s can't be read (%s)", node, type(err).__name__)
            continue
        if worker is not None:
            workers.append(worker)
    return workers


def _worker(node: str, facts: Row, host: str) -> Worker | None:
    started_s, memory = facts["started_ns"] / 1e9, {}
    if facts["host"] == host:
        try:
            main = psutil.Process(facts["pid"])
            if abs(main.create_time() - started_s) > START_TOLERANCE_S:
                return None
            # Those of now: children are replaced, the registry's are those of the start.
            children = sorted(main.children(), key=lambda child: child.pid)
        except psutil.NoSuchProcess:
            return None
        memory = {"main": memory_of(main)} | {f"child-{i}": memory_of(child) for i, child in enumerate(children)}
    return Worker(node=node, concurrency=int(facts["concurrency"]), started_s=started_s, memory=memory)


def memory_of(process: psutil.Process) -> dict[str, int]:
    """rss, pss and uss in bytes, as far as this system tells them; nothing of a process that is gone."""
    try:
        info = process.memory_full_info()
    except psutil.Error:
        return {}
    return {kind: getattr(info, kind) for kind in ("rss", "pss", "uss") if hasattr(info, kind)}


# --- serving --------------------------------------------------------------------------------------------------------


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread a scrape: a client that reads slowly keeps nobody waiting."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, as the base class does; it may take long to say nothing."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    #: Seconds until a silent client is hung up on.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """No line per scrape."""


def serve(inputs: Inputs, host: str, port: int, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Serve until told to stop; ``ready`` gets the port once all rows so far are counted.

    Raises:
        ConfigError: the address can't be bound.
    """
    exporter = Exporter(inputs)
    try:
        family = _Server6 if ":" in host else _Server
        server = make_server(host, port, make_wsgi_app(exporter.registry), family, handler_class=_Handler)
    except OSError as err:
        raise ConfigError(f"{host}:{port} can't be bound ({err.strerror}); choose another --port") from err
    with server:
        # Before the first scrape: a counter that jumps from nothing to everything would be taken for a rate.
        _catch_up(exporter, stop)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        ready(server.server_port)
        while not stop.wait(1.0):
            # Between scrapes too, so that none of them has a backlog to wait for.
            _catch_up(exporter, stop)
        server.shutdown()
        thread.join(timeout=5)


def _catch_up(exporter: Exporter, stop: threading.Event) -> None:
    while exporter.refresh() == PAGE and not stop.is_set():
        pass
