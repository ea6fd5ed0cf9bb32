"""The Celery worker as a process: what runs in the main process, what in each child, and in which order.

The main process opens no database pool that a child could inherit; a child makes its tools once, after its fork.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import psutil
import redis
from celery.signals import worker_process_init, worker_process_shutdown, worker_ready, worker_shutdown

from email_service import jobs, tasks, telemetry
from email_service.celery_app import WORKERS_KEY, MailCelery
from email_service.config import Settings
from email_service.errors import DatabaseError
from email_service.service.work import Tools
from email_service.tenancy import SYSTEM

_log = logging.getLogger(__name__)

#: Two readings of one process's start may differ by the clock's tick and by a correction of the boot time.
START_TOLERANCE_NS: Final = 2_000_000_000
_PR_SET_PDEATHSIG: Final = 1


def holder(settings: Settings) -> jobs.Holder:
    """This process, as leases name it."""
    start_ns = int(psutil.Process().create_time() * 1e9)
    return jobs.Holder(node=settings.node, host=settings.host, pid=os.getpid(), process_start_ns=start_ns)


def alive(pid: int, process_start_ns: int) -> bool:
    """Whether the process with this pid and start still runs; one that waits to be reaped does not."""
    try:
        process = psutil.Process(pid)
        started_ns = int(process.create_time() * 1e9)
        return abs(started_ns - process_start_ns) < START_TOLERANCE_NS and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def run(
    app: MailCelery, make_tools: Callable[[], Tools], *, concurrency: int, queues: str | None, ready: Callable[[], None]
) -> int:
    """Run the worker until it is told to stop; answers its exit code."""
    runtime: dict[int, tasks.Runtime] = {}

    def this_process() -> tasks.Runtime:
        # Keyed by pid: whatever the main process held is not a child's.
        if os.getpid() not in runtime:
            runtime.clear()
            runtime[os.getpid()] = tasks.Runtime(tools=make_tools(), holder=holder(app.settings), alive=alive)
        return runtime[os.getpid()]

    def on_child_start(**_: Any) -> None:
        _die_with_parent()
        this_process()

    def on_child_stop(**_: Any) -> None:
        telemetry.shutdown()

    def on_ready(**_: Any) -> None:
        _register(app, concurrency)
        ready()

    def on_stop(**_: Any) -> None:
        _unregister(app)
        telemetry.shutdown()

    tasks.register(app, this_process)
    telemetry.connect_worker_signals(app.settings.node)
    worker_process_init.connect(on_child_start, weak=False)
    worker_process_shutdown.connect(on_child_stop, weak=False)
    worker_ready.connect(on_ready, weak=False)
    worker_shutdown.connect(on_stop, weak=False)
    _void_dead_leases(make_tools, app.settings)
    worker = app.Worker(
        hostname=app.settings.node,
        concurrency=concurrency,
        pool="prefork",
        queues=queues,
        loglevel="INFO",
        quiet=True,
        # Nobody listens to what they cost: workers here do not talk to each other.
        without_gossip=True,
        without_mingle=True,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _die_with_parent() -> None:
    """A child whose main process was killed must not go on: its result could reach nobody, and it would never end.

    billiard's children notice only when they next read from a pipe that their siblings hold open as well.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _void_dead_leases(make_tools: Callable[[], Tools], settings: Settings) -> None:
    """A worker that was killed left leases behind: those of this host's dead processes end now, not at their time."""
    tools = make_tools()
    try:
        with tools.system.session(SYSTEM) as session:
            count = jobs.release_dead(session, settings.host, alive)
            session.commit()
        if count:
            _log.warning("voided the leases of %d executions whose process is gone", count)
    except DatabaseError as err:
        _log.warning("database is away (%s): leases of dead processes end by themselves", err.code)
    finally:
        tools.database.dispose()
        tools.system.dispose()


def _register(app: MailCelery, concurrency: int) -> None:
    """Tell the exporter where this worker is."""
    facts = {
        "pid": os.getpid(),
        "host": app.settings.host,
        "started_ns": int(psutil.Process().create_time() * 1e9),
        "ready_ns": time.time_ns(),
        "concurrency": concurrency,
        "children": [child.pid for child in psutil.Process().children()],
    }
    _registry(app, lambda client: client.hset(WORKERS_KEY, app.settings.node, json.dumps(facts)))


def _unregister(app: MailCelery) -> None:
    _registry(app, lambda client: client.hdel(WORKERS_KEY, app.settings.node))


def _registry(app: MailCelery, change: Callable[[Any], Any]) -> None:
    try:
        with redis.Redis.from_url(app.settings.broker_url, socket_timeout=2, socket_connect_timeout=2) as client:
            change(client)
    except redis.RedisError as err:
        _log.warning("the registry of workers can't be written (%s)", type(err).__name__)
