"""Settings that are right one by one and wrong together; each problem names both values and what would be right.

Pure. Called by ``settings`` once all values are read; a value that was refused takes part in no contradiction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final
from urllib.parse import unquote, urlsplit

from email_service import policy
from email_service.config.settings import Settings

#: A worker process uses a connection for its task and one to keep its lease.
CONNECTIONS_PER_PROCESS: Final = 2


def contradictions(settings: Settings, refused: set[str]) -> Iterator[str]:
    """All that contradict each other."""
    for names, check in _CHECKS:
        problem = None if refused & set(names) else check(settings)
        if problem:
            yield problem


def _limits(settings: Settings) -> str | None:
    if settings.soft_time_limit_s < settings.time_limit_s:
        return None
    return (
        f"TASK_SOFT_TIME_LIMIT is {settings.soft_time_limit_s:g} and TASK_TIME_LIMIT {settings.time_limit_s:g}: "
        "the soft limit must be smaller, or a task is killed before it can end"
    )


def _visibility(settings: Settings) -> str | None:
    longest_s = settings.time_limit_s + policy.BACKOFF_CAP_S
    if settings.visibility_s > longest_s:
        return None
    return (
        f"MAIL_VISIBILITY_TIMEOUT_S is {settings.visibility_s:g}, TASK_TIME_LIMIT {settings.time_limit_s:g} and the "
        f"longest backoff {policy.BACKOFF_CAP_S:g}: it must be above their sum, {longest_s:g}, or the broker gives a "
        "message to a second worker while the first still has it"
    )


def _roles(settings: Settings) -> str | None:
    one, other = (unquote(urlsplit(u).username or "") for u in (settings.database_url, settings.database_system_url))
    if not one or one != other:
        return None
    return (
        f"DATABASE_URL and DATABASE_SYSTEM_URL both name the role {one}: the first must be mail_app, which sees one "
        "tenant at a time, and the second mail_system"
    )


def _flower_login(settings: Settings) -> str | None:
    if bool(settings.flower_user) == bool(settings.flower_password):
        return None
    given, lacking = ("MAIL_FLOWER_USER", "MAIL_FLOWER_PASSWORD")
    if settings.flower_password:
        given, lacking = lacking, given
    return f"{given} is set and {lacking} is not: Flower needs both, or neither where it does not run"


def _flower_events(settings: Settings) -> str | None:
    if not settings.flower_user or settings.task_events:
        return None
    return (
        f"MAIL_FLOWER_USER is {settings.flower_user!r} and MAIL_TASK_EVENTS 0: Flower would show no task; "
        "set MAIL_TASK_EVENTS=1 (2-3 ms CPU a task), or unset MAIL_FLOWER_USER"
    )


def _connections(settings: Settings) -> str | None:
    processes = settings.concurrency + 1
    allowed, needed = settings.pool_size + settings.max_overflow, processes * CONNECTIONS_PER_PROCESS
    if allowed >= needed:
        return None
    return (
        f"CELERYD_CONCURRENCY is {settings.concurrency}, DATABASE_POOL_SIZE {settings.pool_size} and "
        f"DATABASE_MAX_OVERFLOW {settings.max_overflow}: {processes} processes need {CONNECTIONS_PER_PROCESS} "
        f"connections each, so the two must sum up to {needed} or more"
    )


_CHECKS: Final[tuple[tuple[tuple[str, ...], Callable[[Settings], str | None]], ...]] = (
    (("TASK_SOFT_TIME_LIMIT", "TASK_TIME_LIMIT"), _limits),
    (("MAIL_VISIBILITY_TIMEOUT_S", "TASK_TIME_LIMIT"), _visibility),
    (("DATABASE_URL", "DATABASE_SYSTEM_URL"), _roles),
    (("MAIL_FLOWER_USER", "MAIL_FLOWER_PASSWORD"), _flower_login),
    (("MAIL_FLOWER_USER", "MAIL_TASK_EVENTS"), _flower_events),
    (("CELERYD_CONCURRENCY", "DATABASE_POOL_SIZE", "DATABASE_MAX_OVERFLOW"), _connections),
)
