"""What is known of a Celery application and of its broker, as values. Made by ``application`` and ``server``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self

#: kombu's own, where an application says nothing (kombu/transport/redis.py).
VISIBILITY_TIMEOUT_S: Final = 3600.0
PRIORITY_STEPS: Final = (0, 3, 6, 9)
#: What Celery waits before a retry unless a task says otherwise.
RETRY_DELAY_S: Final = 180.0
#: Transports of kombu that talk to Redis.
_REDIS: Final = ("redis", "rediss", "sentinel", "valkey", "valkeys")


@dataclass(frozen=True, kw_only=True)
class Task:
    """One task, or a route to one whose code the application lacks."""

    name: str
    queue: str | None = None
    priority: int | None = None
    #: Why no queue could be told.
    route_error: str | None = None
    acks_late: bool = False
    acks_on_timeout: bool = True
    reject_on_worker_lost: bool = False
    retry_on_worker_lost: bool = False
    #: None retries for ever.
    max_retries: int | None = 3
    default_retry_delay_s: float = RETRY_DELAY_S
    time_limit_s: float | None = None
    soft_time_limit_s: float | None = None
    ignore_result: bool = False
    autoretry_for: tuple[str, ...] = ()
    #: Whether these errors include the soft limit's.
    swallows_soft_limit: bool = False
    #: Base, ceiling and jitter of the automatic backoff; a base of 0 is none.
    retry_backoff_s: float = 0.0
    retry_backoff_max_s: float = 600.0
    retry_jitter: bool = True
    retry_countdown_s: float | None = None
    #: What the automatic retry is bounded by.
    retry_kwargs_max: int | None = 3

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From the probe's JSON."""
        known = {f.name for f in fields(cls)} & set(row)
        made: dict[str, Any] = {n: tuple(row[n]) if isinstance(row[n], list) else row[n] for n in known}
        return cls(**made)

    @property
    def retry_delay_s_max(self) -> float:
        """The longest countdown that a retry of this task may wait in a worker."""
        if not self.autoretry_for or not self.retry_backoff_s:
            return float(self.retry_countdown_s or self.default_retry_delay_s or 0)
        if self.retry_kwargs_max is None:
            return self.retry_backoff_max_s
        longest = max(1.0, self.retry_backoff_s) * 2.0 ** min(max(self.retry_kwargs_max - 1, 0), 64)
        return min(longest, self.retry_backoff_max_s)


@dataclass(frozen=True, kw_only=True)
class App:
    """One application."""

    name: str
    versions: Mapping[str, str] = field(default_factory=dict)
    transport: str = "redis"
    broker_given: bool = True
    #: With passwords, for ``server`` alone.
    broker_url: str = field(default="", repr=False)
    result_url: str = field(default="", repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    #: Settings that the application makes itself.
    given: frozenset[str] = frozenset()
    transport_options: Mapping[str, Any] = field(default_factory=dict)
    result_options: Mapping[str, Any] = field(default_factory=dict)
    unknown: tuple[Mapping[str, Any], ...] = ()
    deprecated: tuple[Mapping[str, Any], ...] = ()
    queues: tuple[Mapping[str, Any], ...] = ()
    queues_declared: bool = False
    tasks: tuple[Task, ...] = ()
    routes: tuple[Task, ...] = ()
    beat: Mapping[str, Any] = field(default_factory=dict)
    #: Celery's variables that are set in its environment.
    environment: tuple[str, ...] = ()
    #: Peak memory of a process that has imported the application, KB.
    base_memory_kb: int = 0

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From the probe's JSON."""
        made = {f.name: row[f.name] for f in fields(cls) if f.name in row}
        lists = {name: tuple(made[name]) for name in ("unknown", "deprecated", "queues", "environment")}
        rows = {name: tuple(Task.of(task) for task in made[name]) for name in ("tasks", "routes")}
        return cls(**(made | lists | rows | {"given": frozenset(made["given"])}))

    def setting(self, name: str) -> Any:
        """What holds, be it given or Celery's default."""
        return self.settings.get(name)

    @property
    def on_redis(self) -> bool:
        """Whether kombu's Redis transport carries the messages."""
        return self.transport in _REDIS

    @property
    def concurrency(self) -> int | None:
        """Processes of a worker; None where the machine decides."""
        value = self.setting("worker_concurrency")
        return value if isinstance(value, int) and value > 0 else None

    @property
    def visibility_timeout_s(self) -> float:
        """What the broker waits for an acknowledgement."""
        return float(self.transport_options.get("visibility_timeout") or VISIBILITY_TIMEOUT_S)

    @property
    def priority_steps(self) -> tuple[int, ...]:
        """The priorities that have a list of their own."""
        return tuple(self.transport_options.get("priority_steps") or PRIORITY_STEPS)

    @property
    def all_tasks(self) -> tuple[Task, ...]:
        """The tasks; one that has every default of the application, where none is known."""
        return self.tasks or (self._any_task(),)

    def _any_task(self) -> Task:
        both, timeout = self.setting("task_acks_on_failure_or_timeout"), self.setting("task_acks_on_timeout")
        return Task(
            name="any task",
            acks_late=bool(self.setting("task_acks_late")),
            acks_on_timeout=(both if timeout is None else timeout) is not False,
            reject_on_worker_lost=bool(self.setting("task_reject_on_worker_lost")),
            retry_on_worker_lost=bool(self.setting("task_retry_on_worker_lost")),
            time_limit_s=self.setting("task_time_limit"),
            soft_time_limit_s=self.setting("task_soft_time_limit"),
            ignore_result=bool(self.setting("task_ignore_result")),
        )


@dataclass(frozen=True, kw_only=True)
class Server:
    """One Redis, as it answered; None where it did not say."""

    #: Without a password.
    place: str
    version: str | None = None
    appendonly: bool | None = None
    appendfsync: str | None = None
    maxmemory_policy: str | None = None
    maxmemory_bytes: int | None = None
    used_bytes: int | None = None
    #: What its last writes to disk came to.
    write_errors: tuple[str, ...] = ()
    role: str | None = None
    #: Results that were looked at, and how many of them have no end.
    results_seen: int = 0
    results_endless: int = 0
    #: Shortest remaining life among those looked at.
    result_ttl_s_min: int | None = None


def some(names: Iterable[str], limit: int = 3) -> str:
    """A few names and how many more there are."""
    listed = sorted(set(names))
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")
