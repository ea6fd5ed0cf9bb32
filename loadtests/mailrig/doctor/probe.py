"""Looks at a Celery application from inside its own process and prints what it is, as one JSON object.

Run by ``application`` as a script, with the interpreter, the working directory and the environment of the application:
it imports nothing of ours, and runs wherever Celery 5 does. What the application prints goes to stderr. Values of
settings are told by name only where a trap reads them; the URL of the broker is for ``server`` and is never printed.
"""

from __future__ import annotations

import datetime as dt
import difflib
import json
import os
import re
import resource
import sys
import traceback
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

#: Settings that traps read; no other value leaves this process.
SETTINGS = (
    "accept_content",
    "beat_scheduler",
    "beat_sync_every",
    "result_accept_content",
    "result_backend_always_retry",
    "result_backend_base_sleep_between_retries_ms",
    "result_backend_max_retries",
    "result_expires",
    "task_acks_late",
    "task_acks_on_failure_or_timeout",
    "task_acks_on_timeout",
    "task_always_eager",
    "task_create_missing_queues",
    "task_default_priority",
    "task_default_queue",
    "task_ignore_result",
    "task_inherit_parent_priority",
    "task_queue_max_priority",
    "task_reject_on_worker_lost",
    "task_retry_on_worker_lost",
    "task_serializer",
    "task_soft_time_limit",
    "task_time_limit",
    "worker_concurrency",
    "worker_disable_prefetch",
    "worker_eta_task_limit",
    "worker_max_memory_per_child",
    "worker_prefetch_multiplier",
    "worker_soft_shutdown_timeout",
)
#: Options of the transport that traps read; others may hold passwords (sentinel_kwargs).
TRANSPORT_OPTIONS = (
    "global_keyprefix",
    "priority_steps",
    "queue_order_strategy",
    "sep",
    "socket_connect_timeout",
    "socket_timeout",
    "unacked_index_key",
    "unacked_key",
    "unacked_restore_interval",
    "unacked_restore_throttle",
    "visibility_timeout",
)
#: What others than Celery read from its configuration.
EXTENSIONS = ("redbeat_", "django_celery_", "djcelery_", "flower_", "opentelemetry_", "singleton_")
#: Celery prefers these to any setting.
ENVIRONMENT = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND")
#: Modules that dbm.open tries, in its order.
DBM_MODULES = ("dbm.sqlite3", "dbm.gnu", "dbm.ndbm")
_PASSING = re.compile(r"[/\\](celery|kombu|importlib|doctor[/\\]probe\.py)")
_PASSWORD = re.compile(r"(?<=://)[^\s/@]*(?:/[^\s@]*)?@")


class Lacking(Exception):  # noqa: N818  # the reason why there is nothing to look at
    """There is no application to look at."""


def main() -> None:
    """Print the facts, or what went wrong; always ends with 0, for a failure is an answer too."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # As ``celery -A`` does it: the application is looked for from where the user stands, not beside this script.
    sys.path[0] = os.getcwd()  # noqa: PTH109  # a list of str
    try:
        answer = facts(application(sys.argv[1]))
    except Lacking as err:
        answer = {"error": masked(str(err))}
    except BaseException as err:  # noqa: BLE001  # whatever a foreign module raises at import, SystemExit included
        answer = {"error": masked(f"{sys.argv[1]} can't be imported: {_last_words(err)}")}
    json.dump(answer, out)
    out.close()


def masked(text: str) -> str:
    """A text without what stands before the @ of its URLs."""
    return _PASSWORD.sub("***@", text)


def _last_words(err: BaseException) -> str:
    # Where the application stands; the import system's and Celery's own frames say nothing.
    frames = traceback.extract_tb(err.__traceback__)
    where = [f for f in frames if not f.filename.startswith("<frozen") and not _PASSING.search(f.filename)][-1:]
    place = f" ({os.path.basename(where[0].filename)}:{where[0].lineno})" if where else ""  # noqa: PTH119  # a str
    return f"{type(err).__name__}: {err}"[:500] + place


def application(name: str) -> Any:
    """The application that ``celery -A name`` would find, with its tasks."""
    try:
        from celery import Celery  # noqa: PLC0415  # may be lacking
        from celery.app.utils import find_app  # noqa: PLC0415
    except ImportError as err:
        raise Lacking(f"Celery can't be imported by {sys.executable}: {err}") from err
    try:
        app = find_app(name)
    except AttributeError as err:
        raise Lacking(f"{name} has no Celery application: {err}") from err
    except ImportError as err:
        module, colon, attribute = name.partition(":")
        if colon and module in sys.modules:
            raise Lacking(f"{module} has no attribute {attribute}") from err
        raise
    if not isinstance(app, Celery):
        raise Lacking(f"{name} is of type {type(app).__name__}, not a Celery application (module:attribute)")
    app.finalize()
    app.loader.import_default_modules()
    return app


def facts(app: Any) -> dict[str, Any]:
    """All that the traps ask for."""
    transport, url = _broker(app)
    return {
        "name": str(app.main or "?"),
        "versions": dict(_versions()),
        "transport": transport,
        "broker_given": bool(app.conf.broker_url),
        "broker_url": url,
        "result_url": str(app.conf.result_backend or ""),
        "settings": {name: _plain(app.conf.get(name)) for name in SETTINGS},
        "given": [name for name in SETTINGS if app.conf.value_set_for(name)],
        "transport_options": _options(app.conf.broker_transport_options),
        "result_options": _options(app.conf.result_backend_transport_options),
        "unknown": _unknown(app),
        "deprecated": _deprecated(app),
        "queues": [_queue(q) for q in app.amqp.queues.values()],
        "queues_declared": bool(app.conf.task_queues),
        "tasks": [_task(app, t) for name, t in sorted(app.tasks.items()) if not name.startswith("celery.")],
        "routes": _routes(app),
        "beat": _beat(app),
        "environment": [name for name in ENVIRONMENT if os.environ.get(name)],
        "base_memory_kb": _base_memory_kb(),
    }


def _base_memory_kb() -> int:
    """The most that this process has held so far.

    Not getrusage's: on Linux that goes on from whoever started the process, across exec.
    """
    try:
        with open("/proc/self/status", encoding="ascii") as file:  # noqa: PTH123  # as small as can be
            found = next(line for line in file if line.startswith("VmHWM:"))
        return int(found.split()[1])
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


def _broker(app: Any) -> tuple[str, str]:
    connection = app.connection_for_write()
    return str(connection.transport_cls or ""), str(connection.as_uri(include_password=True))


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", ".".join(map(str, sys.version_info[:3]))
    for name in ("celery", "kombu", "billiard", "redis"):
        try:
            yield name, str(import_module(name).__version__)
        except ImportError:
            continue


def _plain(value: Any) -> Any:
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if value is None or isinstance(value, (bool, int, float, str)):
        return None if value == float("inf") else value
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    return str(type(value).__name__)


def _options(options: Any) -> dict[str, Any]:
    return {name: _plain(options[name]) for name in TRANSPORT_OPTIONS if name in (options or {})}


def _unknown(app: Any) -> list[dict[str, Any]]:
    """Settings that nobody reads, each with the nearest that somebody does."""
    from celery.app import defaults  # noqa: PLC0415  # found by now

    known = set(defaults.DEFAULTS) | {"deprecated_settings", "override_backends"}
    old = set(defaults._OLD_SETTING_KEYS)  # noqa: SLF001  # Celery has no public list of them
    rows = []
    for given, name in sorted(_names(app)):
        if name not in known and not old & {name, given} and not name.startswith(EXTENSIONS):
            near = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
            rows.append({"name": given, "near": near[0] if near else None})
    return rows


def _names(app: Any) -> Iterator[tuple[str, str]]:
    """Names as they were given, and as Celery knows them; of an object's, only what looks like a setting."""
    prefix = app.conf.prefix or ""
    # The last map is that of the defaults.
    for source in app.conf.finalize().maps[:-1]:
        for name in source:
            if prefix and name.lower().startswith(prefix.lower()):
                yield name, name[len(prefix) :].lower()
            elif isinstance(source, dict):
                # Reading a Django settings object puts nothing here but what the application says itself.
                yield name, name
            elif not prefix and _looks_like_a_setting(name, source[name]):
                yield name, name


def _looks_like_a_setting(name: str, value: Any) -> bool:
    """A configuration module holds imports and helpers as well: only names in a namespace of Celery's count."""
    spaces = ("task_", "worker_", "broker_", "result_", "beat_", "CELERY", "BROKER_")
    return name.startswith(spaces) and not isinstance(value, (ModuleType, type)) and not callable(value)


def _deprecated(app: Any) -> list[dict[str, str]]:
    from celery.app import defaults  # noqa: PLC0415  # found by now

    names = {str(name) for name in (app.conf.deprecated_settings or ())}
    # A prefix makes new names of old ones: CELERY_ACKS_LATE under CELERY is acks_late.
    return [{"name": name, "new": str(defaults._TO_NEW_KEY.get(name, "?"))} for name in sorted(names)]  # noqa: SLF001


def _queue(queue: Any) -> dict[str, Any]:
    arguments = queue.queue_arguments or {}
    return {"name": str(queue.name), "max_priority": queue.max_priority or arguments.get("x-max-priority")}


def _route(app: Any, name: str) -> dict[str, Any]:
    try:
        route = app.amqp.router.route({}, name)
    except Exception as err:  # noqa: BLE001  # a queue that is not declared, or a router of the application's own
        return {"queue": None, "priority": None, "route_error": masked(f"{type(err).__name__}: {err}"[:200])}
    queue = route.get("queue")
    return {"queue": str(getattr(queue, "name", queue)), "priority": route.get("priority"), "route_error": None}


def _task(app: Any, task: Any) -> dict[str, Any]:
    route = _route(app, task.name)
    own = getattr(task, "priority", None)
    return {
        "name": task.name,
        "queue": getattr(task, "queue", None) or route["queue"],
        "priority": own if own is not None else route["priority"],
        "route_error": route["route_error"],
        "acks_late": bool(task.acks_late),
        "acks_on_timeout": getattr(task, "acks_on_timeout", getattr(task, "acks_on_failure_or_timeout", True))
        is not False,
        "reject_on_worker_lost": bool(task.reject_on_worker_lost),
        "retry_on_worker_lost": bool(getattr(task, "retry_on_worker_lost", False)),
        "max_retries": task.max_retries,
        "default_retry_delay_s": _plain(task.default_retry_delay),
        "time_limit_s": _plain(_own_or(app, task, "time_limit")),
        "soft_time_limit_s": _plain(_own_or(app, task, "soft_time_limit")),
        "ignore_result": bool(task.ignore_result),
        **_autoretry(task),
    }


def _own_or(app: Any, task: Any, name: str) -> Any:
    """The task's own limit, or the application's: Celery 5.3 does not hand that on to its tasks."""
    own = getattr(task, name, None)
    return app.conf.get(f"task_{name}") if own is None else own


def _autoretry(task: Any) -> dict[str, Any]:
    """What ``add_autoretry_behaviour`` read (celery/app/autoretry.py)."""
    kinds = tuple(getattr(task, "autoretry_for", None) or ())
    kept = tuple(getattr(task, "dont_autoretry_for", None) or ())
    backoff = getattr(task, "retry_backoff", False)
    return {
        "autoretry_for": [kind.__name__ for kind in kinds],
        "swallows_soft_limit": _swallows(kinds, kept),
        "retry_backoff_s": float(backoff) if kinds else 0.0,
        "retry_backoff_max_s": float(getattr(task, "retry_backoff_max", 600)),
        "retry_jitter": bool(getattr(task, "retry_jitter", True)),
        "retry_countdown_s": _plain((getattr(task, "retry_kwargs", None) or {}).get("countdown")),
        "retry_kwargs_max": _plain((getattr(task, "retry_kwargs", None) or {}).get("max_retries", task.max_retries)),
    }


def _swallows(kinds: tuple[type, ...], kept: tuple[type, ...]) -> bool:
    from billiard.exceptions import SoftTimeLimitExceeded as Limit  # noqa: PLC0415  # Celery needs it

    return issubclass(Limit, kinds) and not issubclass(Limit, kept)


def _routes(app: Any) -> list[dict[str, Any]]:
    """Routes by exact name: what a producer without the tasks' code has instead of them."""
    routes = app.conf.task_routes
    names = [name for name in routes if isinstance(name, str)] if isinstance(routes, dict) else []
    exact = sorted(name for name in names if not set(name) & set("*?[") and name not in app.tasks)
    return [{"name": name, **_route(app, name)} for name in exact]


def _beat(app: Any) -> dict[str, Any]:
    schedule = app.conf.beat_schedule or {}
    path = os.path.abspath(str(app.conf.beat_schedule_filename))  # noqa: PTH100  # a str
    return {
        "entries": len(schedule),
        "tasks": sorted({str(entry.get("task")) for entry in schedule.values() if isinstance(entry, dict)}),
        "registered": sorted(app.tasks),
        "shelve": _shelves(app.conf.beat_scheduler),
        "store": path,
        "store_given": bool(app.conf.value_set_for("beat_schedule_filename")),
        "filesystem": filesystem(path),
        "dbm": _dbm(),
    }


def _shelves(scheduler: Any) -> bool | None:
    """Whether the scheduler keeps its entries in a shelve; None when it can't be imported."""
    import shelve  # noqa: PLC0415  # needed here alone

    from celery.beat import PersistentScheduler  # noqa: PLC0415  # found by now
    from celery.utils.imports import symbol_by_name  # noqa: PLC0415

    try:
        found = symbol_by_name(scheduler)
    except (ImportError, AttributeError):
        return None
    return issubclass(found, PersistentScheduler) and found.persistence is shelve


def _dbm() -> str:
    for name in DBM_MODULES:
        try:
            import_module(name)
        except ImportError:
            continue
        return name
    return "dbm.dumb"


def filesystem(path: str, mounts: str = "/proc/mounts") -> str | None:
    """The type of the filesystem that a path is on (or would be); None where there is no such list."""
    try:
        with open(mounts, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # as above
            rows = [line.split() for line in file]
    except OSError:
        return None
    points = [(row[1].replace("\\040", " "), row[2]) for row in rows if len(row) > 2]  # noqa: PLR2004  # fstab(5)
    above = [(point, kind) for point, kind in points if (path + "/").startswith(point.rstrip("/") + "/")]
    return max(above, key=lambda mount: len(mount[0]), default=("", None))[1]


if __name__ == "__main__":
    main()
