"""Publishes what is due (retries) and what is overdue (lost messages, dead workers). Several may run.

Wakes at the next due time, at a NOTIFY, or after ``IDLE_S_MAX``; takes batches with SKIP LOCKED, so that two
dispatchers share the work instead of doubling it. Marks first, commits, publishes then: a crash in between costs one
grace.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from typing import Final

import psycopg
import redis
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from email_service import jobs, signals
from email_service.celery_app import MailCelery, republish
from email_service.errors import DatabaseError
from email_service.tenancy import SYSTEM, Database

_log = logging.getLogger(__name__)

#: Messages published in one go.
BATCH: Final = 200
#: How long it sleeps when nothing is due; also how soon it sees that a process of this host has died.
IDLE_S_MAX: Final = 1.0
#: How soon it tries again what the broker did not take.
BROKER_RETRY_S: Final = 1.0
#: How often it says that it is alive.
TELL_EVERY_S: Final = 1.0


class Dispatcher:
    """The loop; ``run`` returns when ``stop`` is set."""

    def __init__(
        self, app: MailCelery, database: Database, *, listen_url: str, alive: Callable[[int, int], bool]
    ) -> None:
        self._app = app
        self._database = database
        self._listen_url = listen_url
        self._alive = alive
        self._scale = app.settings.time_scale
        self._redis = redis.Redis.from_url(app.settings.broker_url, socket_timeout=1, socket_connect_timeout=1)
        self._key = signals.KEY_DISPATCHER_ROUND.format(host=app.settings.host)
        self._told_at = -TELL_EVERY_S

    def run(self, stop: threading.Event) -> None:
        """Publish until told to stop; a database or broker that is away is waited for."""
        while not stop.is_set():
            try:
                with psycopg.connect(self._listen_url, autocommit=True, connect_timeout=5) as listener:
                    listener.execute(f"LISTEN {jobs.CHANNEL}")
                    while not stop.is_set():
                        self._round(listener)
            except (DatabaseError, psycopg.OperationalError) as err:
                _log.warning("database is away (%s)", type(err).__name__)
                stop.wait(BROKER_RETRY_S)

    def _round(self, listener: psycopg.Connection) -> None:
        published = self.publish_due()
        self._tell()
        if published == BATCH:
            return
        wait_s = self._sleep_s()
        if wait_s > 0:
            # Ends at the first notification, or after the wait.
            for _ in listener.notifies(timeout=wait_s, stop_after=1):
                pass

    def publish_due(self) -> int:
        """One batch; answers how many messages it had."""
        with self._database.session(SYSTEM) as session:
            dead = jobs.release_dead(session, self._app.settings.host, self._alive)
            batch = jobs.due(session, limit=BATCH, time_scale=self._scale)
            session.commit()
        if dead:
            _log.warning("voided the leases of %d executions whose process is gone", dead)
        for position, message in enumerate(batch):
            try:
                republish(self._app, message)
            except (OperationalError, RedisError) as err:
                _log.warning("broker did not take task %s (%s)", message.id, type(err).__name__)
                self._hasten([m.id for m in batch[position:]])
                break
        return len(batch)

    def _tell(self) -> None:
        """A round is done: the database answered, and the broker took what there was or refused it."""
        if time.monotonic() - self._told_at < TELL_EVERY_S:
            return
        self._told_at = time.monotonic()
        try:
            self._redis.set(self._key, time.time_ns())
        except RedisError as err:
            _log.warning("the round can't be told (%s)", type(err).__name__)

    def _hasten(self, job_ids: list[uuid.UUID]) -> None:
        with self._database.session(SYSTEM) as session:
            jobs.hasten(session, job_ids, after_s=BROKER_RETRY_S)
            session.commit()

    def _sleep_s(self) -> float:
        with self._database.session(SYSTEM, read_only=True) as session:
            due_in_s = jobs.next_due_in_s(session)
        return IDLE_S_MAX if due_in_s is None else min(max(due_in_s, 0.0), IDLE_S_MAX)
