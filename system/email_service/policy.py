"""The rules of the queue: who goes where, in which order, how often and how long until the next try.

Pure data and functions: no clock, no environment. Callers: celery_app (routes), tasks (decide), jobs (leases), and the
rig's digital twin. The rig's checkers never read this file: they hold it against ``loadtests/contract.toml``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from email_service.errors import MailServiceError

#: Message priorities that Redis keeps apart; 0 is served first (celery-redis: values floor to the step below).
PRIORITY_STEPS: Final = (0, 2, 5, 7)
#: kombu's separator between a queue's name and its priority step.
PRIORITY_SEPARATOR: Final = "\x06\x16"


@dataclass(frozen=True, kw_only=True)
class QueueRule:
    """A queue, with both of its numbers."""

    #: Queue and routing key.
    name: str
    #: The architecture document's priority: 10 is the highest.
    document_priority: int

    @property
    def message_priority(self) -> int:
        """The priority on the wire, where 0 is the highest."""
        return 10 - self.document_priority


@dataclass(frozen=True, kw_only=True)
class TaskRule:
    """A task, its queue and its number of retries."""

    #: Full Celery name.
    name: str
    queue: str
    #: Retries after the first execution; n retries are n + 1 executions.
    max_retries: int
    #: Runs under the system principal, without a tenant.
    system: bool = False
    #: Commits checkpoints: at the soft time limit it continues in a new execution, which is no failure.
    resumes: bool = False


QUEUES: Final = {
    rule.name: rule
    for rule in (
        QueueRule(name="sync", document_priority=10),
        QueueRule(name="send", document_priority=8),
        QueueRule(name="delete", document_priority=5),
        QueueRule(name="spam", document_priority=3),
        QueueRule(name="periodic", document_priority=10),
    )
}

_PREFIX: Final = "email_service.tasks."
TASKS: Final = {
    rule.name: rule
    for rule in (
        TaskRule(name=_PREFIX + "sync_emails", queue="sync", max_retries=5, resumes=True),
        TaskRule(name=_PREFIX + "send_email", queue="send", max_retries=3),
        TaskRule(name=_PREFIX + "delete_emails", queue="delete", max_retries=2, resumes=True),
        TaskRule(name=_PREFIX + "check_spam", queue="spam", max_retries=2),
        TaskRule(name=_PREFIX + "periodic_sync", queue="periodic", max_retries=1, system=True),
        TaskRule(name=_PREFIX + "cleanup_stale_results", queue="periodic", max_retries=0, system=True),
    )
}

#: Seconds before the first retry, the factor of each further one, and the ceiling.
BACKOFF_BASE_S: Final = 5.0
BACKOFF_CAP_S: Final = 600.0
#: Hard and soft time limit of a task.
TIME_LIMIT_S: Final = 300.0
SOFT_TIME_LIMIT_S: Final = 280.0
#: However small the time scale, the task keeps this long to commit after its soft limit.
LIMIT_GAP_S_MIN: Final = 2.0
#: A lease outlives the hard limit by this much, so that a live execution is never taken for a dead one.
LEASE_MARGIN_S: Final = 10.0
#: A published job that no worker has leased is published again after this long, then twice as long, and so on.
PUBLISH_GRACE_S: Final = 20.0
PUBLISH_GRACE_CAP_S: Final = 600.0
#: How often an execution may vanish (its process killed) before the job is given up.
LOST_EXECUTIONS_MAX: Final = 3


@dataclass(frozen=True, kw_only=True)
class RetryIn:
    """Try again after this long."""

    delay_s: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Do not try again."""

    reason: str


def backoff_s(retry: int) -> float:
    """Seconds before the retry with this number, counted from 0: 5, 10, 20, 40, 80, ... 600."""
    return float(min(BACKOFF_BASE_S * 2.0**retry, BACKOFF_CAP_S))


def decide(error: BaseException, *, attempt: int, max_retries: int) -> RetryIn | GiveUp:
    """What follows an execution that failed with ``error``; ``attempt`` counts failed executions before it from 0."""
    if not isinstance(error, MailServiceError):
        return GiveUp(reason="internal-error")
    if not error.transient:
        return GiveUp(reason=error.code)
    if attempt >= max_retries:
        return GiveUp(reason="retries-exhausted")
    return RetryIn(delay_s=backoff_s(attempt))


def publish_grace_s(publishes: int) -> float:
    """Seconds that a message may stay unleased after it was published for the nth time (n >= 1)."""
    return float(min(PUBLISH_GRACE_S * 2.0 ** (max(publishes, 1) - 1), PUBLISH_GRACE_CAP_S))


def limits_s(
    time_scale: float, *, hard_s: float = TIME_LIMIT_S, soft_s: float = SOFT_TIME_LIMIT_S
) -> tuple[float, float]:
    """Hard and soft time limit under a time scale; their gap never shrinks below ``LIMIT_GAP_S_MIN``."""
    soft = soft_s * time_scale
    return max(hard_s * time_scale, soft + LIMIT_GAP_S_MIN), soft


def lease_s(time_scale: float, *, hard_s: float = TIME_LIMIT_S, soft_s: float = SOFT_TIME_LIMIT_S) -> float:
    """Seconds that an execution owns its job unless it ends sooner."""
    return limits_s(time_scale, hard_s=hard_s, soft_s=soft_s)[0] + LEASE_MARGIN_S * max(time_scale, 0.2)


def priority_key(queue: str, priority: int) -> str:
    """The Redis list that holds a queue's messages of a priority (kombu/transport/redis.py: _q_for_pri)."""
    step = max(s for s in PRIORITY_STEPS if s <= priority)
    return queue if step == 0 else f"{queue}{PRIORITY_SEPARATOR}{step}"
