"""Executions that end without a word, as their worker's main process sees them: it alone knows of a death at once.

A child that is gone can't end its execution, and its lease would hold the job until it ran out: on another host nobody
could tell that it is dead. So the main process does it: for a child that was lost, for one that it kills at the hard
time limit, and for what a stopping worker cuts off. It opens a connection for that and closes it again, because a child
that is forked later must not inherit one. A database that is away costs the wait for the lease, no more. The dead wrote
no span of their execution either: it is written here, once its row is ended.
Called by Celery (``JobRequest``) and by worker.
"""

from __future__ import annotations

import logging
import os
import signal
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from billiard.einfo import ExceptionWithTraceback
from billiard.exceptions import WorkerLostError
from celery.worker import state as celery_state
from celery.worker.request import Request
from sqlalchemy import text
from sqlalchemy.orm import Session

from email_service import jobs, policy, telemetry
from email_service.config import Settings
from email_service.errors import DatabaseError
from email_service.jobs import Dead
from email_service.tenancy import SYSTEM, Database

_log = logging.getLogger(__name__)

#: The killed child's own transaction may hold the row until the server has seen that its connection is gone.
_LOCK_TIMEOUT: Final = "2s"


class JobRequest(Request):  # type: ignore[misc]  # Celery ships no types
    """A message in the worker's main process."""

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: FBT001  # Celery's signature
        """At the hard limit: the process first, then its execution, then what Celery does.

        Celery would answer the broker while the process still runs, and could run the job twice at once.
        """
        with self._told():
            if not soft:
                _kill(self.worker_pid)
                # The message is acknowledged, so the dispatcher has to send another one: now.
                self._end_execution("time-limit", publish_s=0.0)
            super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:  # noqa: FBT001, FBT002  # as above
        """A child that was lost: its execution ends before the message is back in the queue."""
        # What a stop cuts off is put back when all children are gone, by ``put_back``.
        stopping = celery_state.should_terminate or celery_state.should_stop is not None
        with self._told():
            if _is_death(exc_info.exception) and not stopping:
                settings: Settings = self._app.settings
                self._end_execution("worker-lost", publish_s=policy.publish_grace_s(1) * settings.time_scale)
            return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _told(self) -> AbstractContextManager[None]:
        """What the main process logs inside, Celery's own lines too, is of this task and its trace."""
        return telemetry.log_context(
            task_id=self.id,
            task=self.name.rpartition(".")[2],
            traceparent=self.request_dict.get("traceparent"),
            tenant_id=(self.kwargs or {}).get("tenant_id") or SYSTEM.tenant_id,
            child_pid=self.worker_pid,
        )

    def _end_execution(self, error_type: str, *, publish_s: float) -> None:
        settings: Settings = self._app.settings

        job_id, where = uuid.UUID(self.id), {"host": settings.host, "node": settings.node}

        def end(session: Session) -> Sequence[Dead]:
            cut = jobs.cut_off(
                session, **where, pids=[self.worker_pid], error_type=error_type, publish_s=publish_s, only=job_id
            )
            return cut or _unwritten(jobs.last_of(session, job_id, **where, pid=self.worker_pid))

        with telemetry.log_context(error_type=error_type):
            _log.error("%s lost its process (%s)", self.name, error_type)
            jobs.tell(_commit(settings, end))


def put_back(settings: Settings, alive: Callable[[int, int], bool]) -> int:
    """A worker has stopped: what it cut off is due at once, for others; answers how many executions that were."""

    def free(session: Session) -> Sequence[Dead]:
        left = session.execute(
            text(
                "SELECT pid, process_start_ns FROM executions WHERE outcome IS NULL AND host = :host AND node = :node"
            ),
            {"host": settings.host, "node": settings.node},
        )
        dead = [row.pid for row in left if not alive(row.pid, row.process_start_ns)]
        return jobs.cut_off(
            session, host=settings.host, node=settings.node, pids=dead, error_type="shutdown", publish_s=0.0
        )

    cut = _commit(settings, free)
    jobs.tell(cut)
    if cut:
        _log.warning("put back %d tasks that this worker could not finish", len(cut))
    return len(cut)


def _unwritten(last: Dead | None) -> Sequence[Dead]:
    """An execution whose process died after its commit and before its span's end: known to have ended, not seen to."""
    return () if last is None or telemetry.wrote(last.pid, last.span_id) else (last,)


def _commit(settings: Settings, change: Callable[[Session], Sequence[Dead]]) -> Sequence[Dead]:
    """Change rows on a connection of its own; a database that is away is logged and no more."""
    name = f"mailrig:{os.getpid()}"
    database = Database(settings.database_system_url, pool_size=1, max_overflow=0, application_name=name)
    try:
        with database.session(SYSTEM) as session:
            session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            ended = change(session)
            session.commit()
    except DatabaseError as err:
        _log.warning("database is away (%s): the leases of dead processes end by themselves", err.code)
        return ()
    finally:
        database.dispose()
    return ended


def _is_death(err: BaseException) -> bool:
    """Whether a child told its main process nothing but that it is gone."""
    if isinstance(err, ExceptionWithTraceback):
        err = err.exc
    return isinstance(err, WorkerLostError | SystemExit | KeyboardInterrupt)


def _kill(pid: int) -> None:
    """End a child of this process, which has not reaped it: the number is still its own."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        _log.info("process %d ended by itself at its limit", pid)
