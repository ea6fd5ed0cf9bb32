"""What is kept where: sockets to the broker, results, memory, beat's schedule. Rows for ``findings``."""

from __future__ import annotations

from typing import Any, Final

from mailrig.doctor.facts import App, some
from mailrig.doctor.findings import Family, Seen, ok, trap, unknown

KEEPING: Final = Family[App]()
_IN_MEMORY: Final = ("tmpfs", "ramfs")
#: Filesystems of a container's own layer: they go with the container.
_LAYERS: Final = ("overlay", "aufs")


@KEEPING.row(
    "broker-socket-timeout",
    consequence="a publish to a Redis that is frozen hangs for more than 25 s; with 2 s it fails after 10.6 s (and "
    "the message may be queued all the same)",
    right="broker_transport_options={'socket_timeout': 10, 'socket_connect_timeout': 5}",
    issue="celery/celery#4296",
)
def _socket_timeout(app: App) -> Seen:
    timeout_s = app.transport_options.get("socket_timeout")
    if not app.on_redis:
        return ok(f"the broker is {app.transport}")
    return ok(f"socket_timeout is {timeout_s:g} s") if timeout_s else trap("socket_timeout is unset: no limit")


def _has_results(app: App) -> bool:
    kept = app.result_url and not app.result_url.startswith("disabled")
    return bool(kept) and not all(task.ignore_result for task in app.all_tasks)


@KEEPING.row(
    "result-ttl",
    consequence="without result_expires every result stays in Redis for ever; one that is gone before a lost message "
    "comes back can't be told from one that never was",
    right="result_expires above visibility_timeout, and a record of your own for what must outlive it",
)
def _result_ttl(app: App) -> Seen:
    expires_s = app.setting("result_expires")
    if not _has_results(app):
        return ok("no result is kept")
    if not expires_s:
        return trap("result_expires is off: results are kept for ever")
    if app.on_redis and expires_s <= app.visibility_timeout_s:
        return trap(f"result_expires is {expires_s:g} s, visibility_timeout {app.visibility_timeout_s:g} s")
    return ok(f"result_expires is {expires_s:g} s")


@KEEPING.row(
    "result-write",
    consequence="when the write of a result fails, a task whose work succeeded is logged as failed; the default base "
    "of 10 ms spends five tries in 0.7 s",
    right="result_backend_always_retry=True, result_backend_max_retries=5, "
    "result_backend_base_sleep_between_retries_ms=200",
)
def _result_write(app: App) -> Seen:
    base_ms = app.setting("result_backend_base_sleep_between_retries_ms") or 0
    tries = app.setting("result_backend_max_retries")
    if not _has_results(app):
        return ok("no result is kept")
    if not app.setting("result_backend_always_retry"):
        return trap("result_backend_always_retry is off")
    # Doubling from the base: what all tries together can outlast.
    outlasts_s = float("inf") if tries is None else base_ms * (2 ** min(tries, 32) - 1) / 1000
    told = f"{tries or 'endless'} tries from {base_ms:g} ms"
    return ok(told) if outlasts_s >= 1 else trap(f"{told}: spent within a second")


@KEEPING.row(
    "memory-limit",
    consequence="worker_max_memory_per_child is KB of ru_maxrss, which counts what a child inherits: below the base "
    "it silently replaces the child after every task (1 s or more each)",
    right="above the main process's own memory by what a task needs",
    issue="celery/celery#4125",
)
def _memory(app: App) -> Seen:
    limit = app.setting("worker_max_memory_per_child")
    if not limit:
        return ok("there is no limit")
    told = f"the limit is {int(limit):,} KB; a process that has imported the application, {app.base_memory_kb:,} KB"
    return (trap if int(limit) <= app.base_memory_kb else ok)(told)


@KEEPING.row(
    "task-always-eager",
    consequence="every task runs in the caller's process: nothing is queued, nothing is retried elsewhere",
    right="task_always_eager=False outside of unit tests",
)
def _eager(app: App) -> Seen:
    return trap("task_always_eager is on") if app.setting("task_always_eager") else ok("tasks are queued")


def _schedule(app: App) -> dict[str, Any]:
    return dict(app.beat) if app.beat.get("entries") else {}


@KEEPING.row(
    "beat-store",
    consequence="Celery's store is a shelve without a lock: two beats send everything twice, with gdbm the second "
    "deletes the first one's file; dbm.dumb, what many builds of Python have, can be left half written",
    right="a scheduler whose store refuses a second beat (SQLite, redbeat, a database)",
    issue="celery/celery#8037",
)
def _beat_store(app: App) -> Seen:
    beat = _schedule(app)
    if not beat or beat["shelve"] is False:
        return ok("there is no schedule" if not beat else f"kept by {app.setting('beat_scheduler')}")
    if beat["shelve"] is None:
        return unknown(f"{app.setting('beat_scheduler')} can't be imported")
    return trap(f"{beat['entries']} entries in a shelve ({beat['dbm']} here)")


@KEEPING.row(
    "beat-store-volatile",
    consequence="with its schedule gone, beat counts every interval anew from its start: what is due less often than "
    "it restarts never runs",
    right="beat_schedule_filename on a volume",
)
def _beat_volatile(app: App) -> Seen:
    beat = _schedule(app)
    if not beat or not (beat["shelve"] or beat["store_given"]):
        return ok("there is no file")
    kind = beat["filesystem"]
    if kind in _IN_MEMORY:
        return trap(f"{beat['store']} is on {kind}")
    if kind is None or kind in _LAYERS:
        return unknown(f"{beat['store']} is on {kind or 'a filesystem that this system does not name'}")
    return ok(f"{beat['store']} is on {kind}")


@KEEPING.row(
    "beat-sync",
    consequence="the stock scheduler writes every 3 minutes: a SIGKILL loses what was sent since, and it is sent again",
    right="beat_sync_every=1",
)
def _beat_sync(app: App) -> Seen:
    beat = _schedule(app)
    if not beat or not beat["shelve"]:
        return ok("there is no schedule" if not beat else f"kept by {app.setting('beat_scheduler')}")
    every = app.setting("beat_sync_every")
    return ok("written after each send") if every == 1 else trap(f"beat_sync_every is {every}")


@KEEPING.row(
    "beat-unknown-task",
    consequence="a worker discards the message of a task that it doesn't know, with one line in its log",
    right="the task's full name, and its module among the imports",
)
def _beat_task(app: App) -> Seen:
    beat = _schedule(app)
    strange = set(beat.get("tasks", ())) - set(beat.get("registered", ()))
    if not strange:
        return ok("every entry names a task" if beat else "there is no schedule")
    if not app.tasks:
        return unknown(f"{some(strange)}: the application knows no task from here")
    return trap(f"{some(strange)} is scheduled and not registered")


@KEEPING.row(
    "broker-default",
    consequence="without a broker Celery tries amqp://guest@localhost, and says only that the connection is refused",
    right="broker_url",
)
def _broker_default(app: App) -> Seen:
    return ok(f"the broker is {app.transport}") if app.broker_given else trap("no broker_url is set")
