"""Beat's schedule in a SQLite file: it survives restarts, and a second beat on the same file is refused.

Celery's own store is a ``shelve``, which two beats can open at once and then send everything twice (celery#8037).
Its ``PersistentScheduler`` would take another store, but answers any error while opening it by removing the file, also
when that error says that another beat has it: hence the plain ``Scheduler`` below. Only what must survive is stored, as
text and numbers, nothing pickled: when each entry last ran, and how often. What it is comes from the configuration.
Celery loads ``SqliteScheduler`` by name (``beat_scheduler``).
"""

from __future__ import annotations

import logging
import sqlite3
import sys
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import redis
from celery.beat import ScheduleEntry, Scheduler, SchedulingError

from email_service import policy, signals, telemetry
from email_service.errors import ConfigError

_log = logging.getLogger(__name__)

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS entries (name TEXT PRIMARY KEY, task TEXT NOT NULL, "
    "last_run_at TEXT NOT NULL, total_run_count INTEGER NOT NULL)"
)
_ROWS: Final = "SELECT name, task, last_run_at, total_run_count FROM entries"
#: One row: name, task, last run in ISO 8601, number of runs.
Row = tuple[str, str, str, int]


class ScheduleStore:
    """The file, held exclusively from ``__init__`` to ``close``.

    Raises:
        ConfigError: another beat holds it, it can't be written here, or it is a database of something else.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._db = self._open()
        except sqlite3.OperationalError as err:
            raise ConfigError(f"{path}: {_reason(err)}") from err
        except (sqlite3.DatabaseError, ValueError) as err:
            self._move_aside(err)
            self._db = self._open()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            # In exclusive mode the first write takes the lock, and it is kept until the file is closed.
            db.execute("BEGIN EXCLUSIVE")
            db.execute(_TABLE)
            db.execute("COMMIT")
            # Damage behind the first page shows when it is read.
            for row in db.execute(_ROWS):
                _when(row[2])
        except (sqlite3.Error, ValueError):
            db.close()
            raise
        return db

    def _move_aside(self, err: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.corrupt-{time.time_ns()}")
        _log.error("%s is damaged (%s): moved aside to %s", self._path, err, aside.name)
        self._path.replace(aside)
        # What a crash left for the old file must not be played into the new one.
        journal = self._path.with_name(f"{self._path.name}-journal")
        if journal.exists():
            journal.replace(aside.with_name(f"{aside.name}-journal"))

    def read(self) -> list[Row]:
        """All rows."""
        return list(self._db.execute(_ROWS))

    def write(self, rows: list[Row]) -> None:
        """Replace all rows, in one transaction."""
        if self._db.in_transaction:
            # Beat's signal handler writes too: it may have come between the lines below.
            self._db.execute("ROLLBACK")
        try:
            self._db.execute("BEGIN")
            self._db.execute("DELETE FROM entries")
            self._db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.Error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


def _reason(err: sqlite3.OperationalError) -> str:
    if err.sqlite_errorcode == sqlite3.SQLITE_BUSY:
        return "another beat holds it; run one beat per schedule, or give this one another MAIL_BEAT_STORE"
    return f"can't be used as beat's schedule ({err})"


def _when(stored: str) -> datetime:
    moment = datetime.fromisoformat(stored)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class SqliteScheduler(Scheduler):  # type: ignore[misc]  # Celery ships no types
    """Beat's scheduler: durable after every publish, each publish the root of a trace.

    ``on_tick`` is called after each round with the time in nanoseconds; the default tells Redis.
    """

    on_tick: Callable[[int], None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._path = Path(kwargs.pop("schedule_filename"))
        self._store: ScheduleStore | None = None
        self._redis: Any = None
        self.on_tick = kwargs.pop("on_tick", None) or self._tell
        super().__init__(*args, **kwargs)

    def setup_schedule(self) -> None:
        """Take the file and bring what ran before together with what is configured now."""
        self._store = ScheduleStore(self._path)
        # Not Celery's own default entry, a daily clean-up of results: Redis lets them expire.
        self.merge_inplace(self.app.conf.beat_schedule)
        for name, _, last_run_at, total_run_count in self._store.read():
            entry = self.data.get(name)
            if entry is not None:
                # One tick makes up for a downtime of many intervals: only the last run is known. One in the future is
                # from a clock that was wrong; it would silence the entry until then.
                entry.last_run_at = min(_when(last_run_at), datetime.now(UTC))
                entry.total_run_count = total_run_count
        self.sync()

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **_: Any) -> Any:  # noqa: FBT001, FBT002  # Celery's signature
        """Publish one entry under a root span of its own.

        Raises:
            SchedulingError: the broker did not take it; the entry runs at its next time.
        """
        entry = self.reserve(entry) if advance else entry
        task_id = str(uuid.uuid4())
        try:
            with telemetry.publish_span(
                policy.TASKS[entry.task].queue,
                task_id,
                entry.task,
                tenant_id="system",
                kind="producer",
                parent=None,
                link=None,
                root_kind=signals.ROOT_BEAT,
            ) as span:
                told = {"task_id": task_id, "task": entry.task.rpartition(".")[2], "entry": entry.name}
                # As the architecture document has it: no level, no source.
                _log.info("Scheduler: Triggering task '%s'", entry.task, extra={"source": "", "fields": told})
                headers = {"celery_beat_task": True, "traceparent": telemetry.traceparent(span)}
                options = {
                    **entry.options,
                    "headers": {**entry.options.get("headers", {}), **headers},
                    "argsrepr": "()",
                    "kwargsrepr": "{}",
                }
                return self.send_task(
                    entry.task, entry.args, entry.kwargs, task_id=task_id, producer=producer, **options
                )
        except Exception as err:  # whatever it was, beat goes on with the next entry
            message = f"{entry.name} was not published ({type(err).__name__})"
            raise SchedulingError(message).with_traceback(sys.exc_info()[2]) from err
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """One round; then say that beat is alive."""
        wait_s = super().tick(*args, **kwargs)
        self.on_tick(time.time_ns())
        return float(wait_s)

    def _tell(self, now_ns: int) -> None:
        try:
            if self._redis is None:
                url = self.app.settings.broker_url
                self._redis = redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1)
            self._redis.set(signals.KEY_BEAT_TICK, now_ns)
        except redis.RedisError as err:
            _log.warning("the tick can't be told (%s)", type(err).__name__)

    def sync(self) -> None:
        """Write what ran; called after each publish (``beat_sync_every=1``) and at the end.

        A disk that is full does not stop the schedule: it costs the memory of this run if beat dies now.
        """
        if self._store is None:
            return
        rows = [(name, e.task, e.last_run_at.isoformat(), e.total_run_count) for name, e in self.data.items()]
        try:
            self._store.write(rows)
        except sqlite3.Error as err:
            _log.error("%s can't be written (%s)", self._path, err)

    def close(self) -> None:
        """Write once more, give the file back and let go of the broker; beat calls it twice when it is told to stop."""
        super().close()
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def info(self) -> str:
        """For beat's banner."""
        return f"    . db -> {self._path}"
