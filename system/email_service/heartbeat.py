"""A worker tells the registry what it is: when it is ready, every few seconds from then on, and once more at its end.

Rule 1: in the main process's own loop, by Celery's timer: a thread could hold a lock while a child is forked.
Rule 2: it never holds the loop up for long and never ends it: a broker that does not take the entry within
``TIMEOUT_S`` is left alone for ``PAUSE_S``.
Called by worker.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import psutil
import redis
from celery import bootsteps
from redis.backoff import NoBackoff
from redis.retry import Retry

from email_service import registry, signals
from email_service.celery_app import MailCelery
from email_service.config import Settings

_log = logging.getLogger(__name__)

TIMEOUT_S: Final = 0.5
PAUSE_S: Final = 30.0


class Registration:
    """This worker's entry in the registry."""

    def __init__(self, settings: Settings, *, concurrency: int, queues: Sequence[str]) -> None:
        self._settings = settings
        self._basics = {
            "pid": os.getpid(),
            "host": settings.host,
            "started_ns": int(psutil.Process().create_time() * 1e9),
            "concurrency": concurrency,
            "queues": list(queues),
        }
        self._ready_ns: int | None = None
        self._silent_until_s = 0.0
        # Without its own retries, which multiply the timeout.
        self._client = redis.Redis.from_url(
            settings.broker_url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )

    def ready(self, consumer: Any) -> None:
        """The worker takes messages from now on; what others have left behind long ago is cleared away."""
        self._ready_ns = time.time_ns()
        self.tell(consumer)
        self._write(self._clear_away)

    def tell(self, consumer: Any) -> None:
        """How the worker is now, once it is ready."""
        if self._ready_ns is None or time.monotonic() < self._silent_until_s:
            return
        children = [process.pid for process in consumer.pool._pool._pool]  # noqa: SLF001  # Celery shows them nowhere else
        state = registry.state(os.getpid(), children, prefetch=consumer.qos.value, now_ns=time.time_ns())
        entry = json.dumps(self._basics | {"ready_ns": self._ready_ns, "children": children} | state)
        self._write(lambda client: client.hset(signals.KEY_WORKERS, self._settings.node, entry))

    def remove(self) -> None:
        """The worker has stopped."""
        self._ready_ns, self._silent_until_s = None, 0.0
        self._write(lambda client: client.hdel(signals.KEY_WORKERS, self._settings.node))
        self._client.close()

    @staticmethod
    def _clear_away(client: Any) -> None:
        old = registry.forgotten(client.hgetall(signals.KEY_WORKERS), now_ns=time.time_ns())
        if old:
            client.hdel(signals.KEY_WORKERS, *old)

    def _write(self, change: Callable[[Any], Any]) -> None:
        try:
            change(self._client)
        except redis.RedisError as err:
            self._silent_until_s = time.monotonic() + PAUSE_S
            _log.warning("the registry of workers can't be written (%s)", type(err).__name__)


def install(app: MailCelery, registration: Registration) -> None:
    """Let each consumer of this application tell how it is; Celery makes a new one's timers after each reconnection."""

    class Heartbeat(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
        requires = ("celery.worker.consumer.tasks:Tasks",)
        timer: Any = None

        def start(self, consumer: Any) -> None:
            # At once too: a broker that was away may have come back empty.
            registration.tell(consumer)
            self.timer = consumer.timer.call_repeatedly(registry.EVERY_S, registration.tell, (consumer,))

        def stop(self, _consumer: Any) -> None:
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None

    app.steps["consumer"].add(Heartbeat)
