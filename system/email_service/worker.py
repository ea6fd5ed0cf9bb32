"""The Celery worker as a process: what runs in the main process, what in each child, and in which order.

The main process opens no database pool that a child could inherit; a child makes its tools once, after its fork.

Stopping: SIGTERM takes no more messages and lets the running tasks end; the worker is gone with the last of them. What
has not ended after MAIL_SOFT_SHUTDOWN_S, or at a second signal, is cut off and put back: its message returns to the
queue and its execution ends as ``shutdown``, which the job is not blamed for. Celery's own soft shutdown sleeps its
whole time in a signal handler, however soon the tasks end, and acknowledges none of them meanwhile (celery 5.7,
WorkController.wait_for_soft_shutdown): hence the alarm here. Exit codes: 0, or 1 if something was cut off.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final

import psutil
from celery.signals import (
    worker_before_create_process,
    worker_process_init,
    worker_process_shutdown,
    worker_ready,
    worker_shutting_down,
)
from celery.worker import state as celery_state
from celery.worker.control import inspect_command

from email_service import heartbeat, jobs, losses, policy, signals, tasks, telemetry
from email_service.celery_app import MailCelery
from email_service.config import Settings
from email_service.errors import DatabaseError
from email_service.service.work import Tools
from email_service.tenancy import SYSTEM

_log = logging.getLogger(__name__)

#: Two readings of one process's start may differ by the clock's tick and by a correction of the boot time.
START_TOLERANCE_NS: Final = 2_000_000_000
#: How long a child that was told to end may take before it is killed.
KILL_AFTER_S: Final = 3.0
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
        this_process().tools.smtp.close()
        telemetry.shutdown()

    def on_ready(sender: Any, **_: Any) -> None:
        stopping.take_over()
        registration.ready(sender)
        ready()

    stopping = _Stopping(app.settings.soft_shutdown_s)
    consumed = queues.split(",") if queues else list(policy.QUEUES)
    registration = heartbeat.Registration(app.settings, concurrency=concurrency, queues=consumed)
    heartbeat.install(app, registration)
    tasks.register(app, this_process, request=losses.JobRequest)
    telemetry.connect_worker_signals(app.settings.node)
    telemetry.take_over_pool()
    worker_before_create_process.connect(_share_memory, weak=False)
    worker_process_init.connect(on_child_start, weak=False)
    worker_process_shutdown.connect(on_child_stop, weak=False)
    worker_ready.connect(on_ready, weak=False)
    worker_shutting_down.connect(stopping.told, weak=False)
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
    try:
        worker.start()
    finally:
        # Not on a signal of Celery's: it sends none when it is stopped hard.
        signal.setitimer(signal.ITIMER_REAL, 0)
        _kill_children()
        cut = losses.put_back(app.settings, alive)
        registration.remove()
        telemetry.shutdown()
    return 1 if cut else int(worker.exitcode or 0)


class _Stopping:
    """What follows a signal to stop. Everything here runs inside signal handlers: no lock, no thread, no output."""

    def __init__(self, soft_shutdown_s: float) -> None:
        self._soft_shutdown_s = soft_shutdown_s
        self._warm = False

    def take_over(self) -> None:
        """Once Celery has its handlers: SIGQUIT passes here first, as Celery's own waits for all children in it."""
        cold: Any = signal.getsignal(signal.SIGQUIT)

        def quit_(*arguments: object) -> None:
            # Celery tells those children to end of which it knows that they have begun, and waits for the others too.
            self._alarm(KILL_AFTER_S, _kill_children)
            cold(*arguments)

        signal.signal(signal.SIGQUIT, quit_)

    def told(self, how: str, **_: Any) -> None:
        """Celery's handler has begun: Warm waits for the running tasks; a second one cuts them off."""
        if how != "Warm":
            return
        again, self._warm = self._warm, True
        if again:
            _go_cold()
        else:
            self._alarm(self._soft_shutdown_s, _go_cold)

    @staticmethod
    def _alarm(after_s: float, act: Callable[..., None]) -> None:
        signal.signal(signal.SIGALRM, act)
        # Zero would switch it off.
        signal.setitimer(signal.ITIMER_REAL, max(after_s, 0.001))


def _go_cold(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGQUIT)


def _kill_children(*_: object) -> None:
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def _share_memory(**_: Any) -> None:
    """Before a fork: what is here now is not looked at by the collector again, so that its pages stay shared."""
    # What an earlier fork has frozen may be garbage by now.
    gc.unfreeze()
    gc.collect()
    gc.freeze()


@inspect_command(name=signals.CONTROL_PROGRESS)  # type: ignore[untyped-decorator]  # Celery ships no types
def _progress(_state: Any) -> dict[str, int]:
    """For the health check: tasks begun since the start, running now, and held without running."""
    active = len(celery_state.active_requests)
    return {
        "begun": int(celery_state.all_total_count[0]),
        "active": active,
        "held": max(0, len(celery_state.reserved_requests) - active),
    }


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
