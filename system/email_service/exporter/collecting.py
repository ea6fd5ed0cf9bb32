"""Counts what has ended, and reads the rest when asked. Knows no SQL, no Redis and no HTTP. Called by serving."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import redis
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from email_service import policy, signals
from email_service.counting import Counts, Row, SampleKey
from email_service.errors import MailServiceError
from email_service.exporter.broker import Ages, Depth
from email_service.registry import Worker

_log = logging.getLogger(__name__)

#: Transaction id and row id.
Place = tuple[str, str]
_NOWHERE: Final[Place] = ("0", "00000000-0000-0000-0000-000000000000")
#: Rows of one stream that are taken in at once.
PAGE: Final = 5000
#: What says that a source is away, and not that we are wrong.
_AWAY: Final = (MailServiceError, SQLAlchemyError, redis.RedisError, OSError)
#: The distribution whose version is told.
_DISTRIBUTION: Final = "mailrig"
UP: Final = signals.Metric(
    name="mail_exporter_up",
    kind="gauge",
    labels=("source",),
    document="",
    help="Whether a source of these metrics answered.",
)


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """Behind the last row that was counted of each stream; the default is before the first."""

    #: Executions that ended.
    executions: Place = _NOWHERE
    #: Jobs that something else than an execution settled.
    apart: Place = _NOWHERE

    @property
    def xid(self) -> int:
        """All that transactions up to this one have ended is counted."""
        return min(int(self.executions[0]), int(self.apart[0]))


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Where the figures come from; each may raise what ``_AWAY`` names."""

    #: What has ended behind a cursor, at most ``PAGE`` rows a stream, and the cursor behind the last of it.
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
    #: By how many seconds the most overdue publish is late.
    lag_s: Callable[[], float]
    depth: Callable[[], Depth]
    workers: Callable[[], Sequence[Worker]]
    ages: Callable[[], Ages]


class Exporter(Collector):
    """Counts what has ended, and reads the rest when asked; ``registry`` is what is served."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._cursor = Cursor()
        self._counts = Counts()
        #: The last removal that our figures know of; None before the first look.
        self._removal: str | None = None
        self._lock = threading.Lock()
        #: Source -> whether it answered the last time.
        self._up: dict[str, bool] = {}
        self._version = _version()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def refresh(self) -> int:
        """Count what has ended since the last time; answers how many rows that were. Fewer than ``PAGE`` are all."""
        with self._lock:
            return self._refresh()

    def catch_up(self, stop: threading.Event) -> None:
        """Count all that has ended, unless told to stop in the midst of it."""
        while self.refresh() >= PAGE and not stop.is_set():
            pass

    def _refresh(self) -> int:
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
        if removal != self._removal and int(last_xid) > self._cursor.xid:
            # Rows were removed that we have not counted (or not surely): they are in what is kept.
            self._begin()
            while self._take_in() >= PAGE:
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
        self._counts, self._cursor, self._removal = Counts(self._inputs.kept()), Cursor(), removal

    def collect(self) -> Iterator[Family]:
        """Everything as of now; only a backlog of more than a page is left to ``catch_up``."""
        gauges = {m.name: _family(m) for m in (*signals.METRICS, UP) if m.kind == "gauge"}
        gauges["mail_build_info"].add_metric([self._version], 1)
        with self._lock:
            running = self._ask("database", lambda: self._read_rows(gauges))
            if running is not None:
                self._refresh()
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
        lag_s = self._inputs.lag_s()
        for row in running:
            gauges["mail_tasks_active"].add_metric([row["node"], _short(row["name"])], row["count"])
        oldest_s = {row["queue"]: row["oldest_s"] for row in overdue}
        delayed = {row["queue"]: row["count"] for row in waiting}
        for queue in policy.QUEUES:
            gauges["mail_queue_oldest_age_seconds"].add_metric([queue], max(oldest_s.get(queue) or 0.0, 0.0))
            gauges["mail_queue_depth"].add_metric([queue, "delayed"], delayed.get(queue, 0))
        gauges["mail_tasks_reserved"].add_metric(["", "delayed"], sum(delayed.values()))
        gauges["mail_dispatcher_lag_seconds"].add_metric([], max(lag_s, 0.0))
        return sum(row["count"] for row in running)

    def _read_broker(self, gauges: Mapping[str, GaugeMetricFamily], running: int | None) -> None:
        """Read the broker's gauges; ``running`` is None when the database did not tell."""
        depth, workers, ages = self._inputs.depth(), self._inputs.workers(), self._inputs.ages()
        for state, counts in (("ready", depth.ready), ("unacked", depth.unacked)):
            for queue in policy.QUEUES:
                gauges["mail_queue_depth"].add_metric([queue, state], counts.get(queue, 0))
        if running is not None:
            # Redis does not say which worker holds a message: the sum is exact, and has no worker.
            held = max(sum(depth.unacked.values()) - running, 0)
            gauges["mail_tasks_reserved"].add_metric(["", "prefetched"], held)
        for worker in workers:
            _show(worker, gauges)
        if ages.beat_s is not None:
            gauges["mail_beat_tick_age_seconds"].add_metric([], ages.beat_s)
        for host, age_s in ages.dispatchers_s.items():
            gauges["mail_dispatcher_round_age_seconds"].add_metric([host], age_s)


def _show(worker: Worker, gauges: Mapping[str, GaugeMetricFamily]) -> None:
    gauges["mail_worker_concurrency"].add_metric([worker.node], worker.concurrency)
    gauges["mail_worker_start_time_seconds"].add_metric([worker.node], worker.started_s)
    if worker.capacity is not None:
        gauges["mail_worker_capacity"].add_metric([worker.node], worker.capacity)
    for process, sizes in worker.memory.items():
        for kind, size in sizes.items():
            gauges["mail_worker_memory_bytes"].add_metric([worker.node, process, kind], size)
    for kind, size in worker.cgroup.items():
        gauges["mail_worker_cgroup_bytes"].add_metric([worker.node, kind], size)


def _family(metric: signals.Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)


def _short(name: str) -> str:
    return name.rpartition(".")[2]


def _version() -> str:
    try:
        return importlib.metadata.version(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        # The sources alone, on a path.
        return "unknown"
