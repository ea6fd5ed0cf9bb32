"""Beat's schedule in a SQLite file: it survives restarts, and a second beat on the same file is refused.

Celery's own store is a ``shelve``, which two beats can open at once and then send everything twice (celery#8037).
Only what must survive is stored: when each entry last ran, and how often. What it is comes from the configuration.
Celery loads ``SqliteScheduler`` by name (``beat_scheduler``).
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import redis
from celery.beat import ScheduleEntry, Scheduler, SchedulingError

from email_service import policy, telemetry
from email_service.errors import ConfigError

_log = logging.getLogger(__name__)

#: Redis key with the time of beat's last tick, in nanoseconds: the store is locked by its owner.
TICK_KEY: Final = "mail:beat:tick"
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, task TEXT NOT NULL, "
    "last_run_at TEXT NOT NULL, total_run_count INTEGER NOT NULL)"
)
#: One row: name, task, last run in ISO 8601, number of runs.
Row = tuple[str, str, str, int]


class ScheduleStore:
    """The file, held exclusively from ``__init__`` to ``close``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = self._open()
        except sqlite3.OperationalError as err:
            raise ConfigError(f"{path}: another beat holds it, or it can't be written ({err})") from err
        except sqlite3.DatabaseError as err:
            aside = path.with_name(f"{path.name}.corrupt-{time.time_ns()}")
            _log.warning("%s is not a SQLite file (%s): moved aside to %s", path, err, aside.name)
            path.replace(aside)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # In exclusive mode the first write takes the lock, and it is kept until the file is closed.
            db.execute("BEGIN EXCLUSIVE")
            db.execute(_TABLE)
            db.execute("COMMIT")
        except sqlite3.Error:
            db.close()
            raise
        return db

    def read(self) -> list[Row]:
        """All rows."""
        return list(self._db.execute("SELECT name, task, last_run_at, total_run_count FROM entries"))

    def write(self, rows: list[Row]) -> None:
        """Replace all rows, in one transaction."""
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM entries")
        self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


class SqliteScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    """Beat's scheduler: durable after every tick, each publish the root of a trace."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._path = Path(kwargs.pop("schedule_filename"))
        self._store: ScheduleStore | None = None
        self._redis: Any = None
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the file and bring what ran before together with what is configured now."""
        self._store = ScheduleStore(self._path)
        self.install_default_entries(self.data)
        ran = {row[0]: row for row in self._store.read()}
        self.merge_inplace(self.app.conf.beat_schedule)
        for name, entry in self.data.items():
            if name in ran:
                # One tick makes up for a downtime of many intervals: only the last run is known.
                entry.last_run_at = datetime.fromisoformat(ran[name][2])
                entry.total_run_count = ran[name][3]
        self.sync()

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **_: Any) -> Any:  # noqa: FBT001, FBT002  # Celery's signature
        """Publish one entry under a root span of its own.

        Raises:
            SchedulingError: the broker did not take it; the entry runs at its next time.
        """
        entry = self.reserve(entry) if advance else entry
        task_id, queue = str(uuid.uuid4()), policy.TASKS[entry.task].queue
        try:
            with telemetry.publish_span(
                queue,
                task_id,
                entry.task,
                tenant_id="system",
                kind="producer",
                parent=None,
                link=None,
                root_kind="beat",
            ) as span:
                headers = {"celery_beat_task": True, "traceparent": telemetry.traceparent(span)}
                options = {**entry.options, "headers": headers, "argsrepr": "()", "kwargsrepr": "{}"}
                return self.send_task(entry.task, task_id=task_id, producer=producer, **options)
        except Exception as err:  # whatever it was, beat goes on with the next entry
            message = f"{entry.name} was not published ({type(err).__name__})"
            raise SchedulingError(message).with_traceback(sys.exc_info()[2]) from err
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One round; then tell Redis that beat is alive."""
        wait_s = super().tick(*args, **kwargs)
        self._tell()
        return float(wait_s)

    def _tell(self) -> None:
        try:
            if self._redis is None:
                url = self.app.settings.broker_url
                self._redis = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
            self._redis.set(TICK_KEY, time.time_ns())
        except redis.RedisError as err:
            _log.warning("the tick can't be told (%s)", type(err).__name__)

    def sync(self) -> None:
        """Write what ran; called after each publish (``beat_sync_every=1``) and at the end."""
        if self._store is not None:
            entries = self.data.items()
            self._store.write([(name, e.task, e.last_run_at.isoformat(), e.total_run_count) for name, e in entries])

    def close(self) -> None:
        """Write once more and give the file back."""
        self.sync()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def info(self) -> str:
        """For beat's banner."""
        return f"    . db -> {self._path}"
