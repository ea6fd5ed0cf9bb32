"""Time: visibility, retries and limits, and how they get in each other's way. Rows for ``findings``."""

from __future__ import annotations

from typing import Final

from mailrig.doctor.facts import App, Task, some
from mailrig.doctor.findings import Family, Seen, ok, trap, unknown

WAITING: Final = Family[App]()


def _limit_s(tasks: tuple[Task, ...]) -> float:
    return max((task.time_limit_s or 0.0 for task in tasks), default=0.0)


@WAITING.row(
    "visibility-limit",
    consequence="unacked_index holds the time of receipt and is never refreshed: a visibility of 3 s ran a task of "
    "7 s three times",
    right="broker_transport_options visibility_timeout above the hard time limit",
    issue="celery/celery#5935",
)
def _visibility_limit(app: App) -> Seen:
    late = tuple(task for task in app.all_tasks if task.acks_late)
    limit_s, visible_s = _limit_s(late), app.visibility_timeout_s
    if not app.on_redis or not late:
        return ok("nothing is acknowledged late" if app.on_redis else f"the broker is {app.transport}")
    if not limit_s:
        return unknown(f"visibility_timeout is {visible_s:g} s, and without a time limit any task may take longer")
    told = f"visibility_timeout is {visible_s:g} s and the longest time limit {limit_s:g} s"
    return (trap if visible_s <= limit_s else ok)(told)


@WAITING.row(
    "visibility-retry",
    consequence="a retry waits in a worker, unacknowledged: a visibility of 3 s ran a task with a countdown of 10 s "
    "four times",
    right="visibility_timeout above the longest countdown (retry or eta) and the time limit together",
    issue="celery/kombu#337",
)
def _visibility_retry(app: App) -> Seen:
    if not app.on_redis:
        return ok(f"the broker is {app.transport}")
    waits = {
        t.name: t.retry_delay_s_max + (t.time_limit_s or 0 if t.acks_late else 0) for t in app.all_tasks if _retries(t)
    }
    longest = max(waits, key=lambda name: waits[name], default=None)
    if longest is None:
        return ok("no task is retried")
    told = f"visibility_timeout is {app.visibility_timeout_s:g} s; {longest} may wait and run {waits[longest]:g} s"
    return (trap if app.visibility_timeout_s <= waits[longest] else ok)(told)


def _retries(task: Task) -> bool:
    return task.max_retries != 0


@WAITING.row(
    "visibility-place",
    consequence="nothing reads visibility_timeout in result_backend_transport_options: the broker's stays at 3600 s, "
    "and a killed worker's task comes back an hour later",
    right="visibility_timeout in broker_transport_options",
)
def _visibility_place(app: App) -> Seen:
    misplaced = "visibility_timeout" in app.result_options and "visibility_timeout" not in app.transport_options
    return trap("set in result_backend_transport_options alone") if misplaced else ok("not set where nothing reads it")


@WAITING.row(
    "retry-jitter",
    consequence="retry_jitter is on by default and full: each delay is anywhere from 0 to the backoff, so that a "
    "server that is down may be asked again at once",
    right="retry_jitter=False where the delays are promised, or jitter of your own above a floor",
)
def _jitter(app: App) -> Seen:
    jittered = [t.name for t in app.all_tasks if t.autoretry_for and t.retry_backoff_s and t.retry_jitter]
    return trap(f"{some(jittered)}: retry_backoff with full jitter") if jittered else ok("no backoff has full jitter")


@WAITING.row(
    "retry-unbounded",
    consequence="max_retries=None retries for ever: what can't succeed fills the workers with countdowns, which the "
    "prefetch count does not limit (503 held with 500 tasks)",
    right="a number for max_retries",
    issue="celery/celery#3640, celery/celery#9849",
)
def _unbounded(app: App) -> Seen:
    endless = [
        t.name for t in app.all_tasks if t.max_retries is None or (t.autoretry_for and t.retry_kwargs_max is None)
    ]
    return trap(f"{some(endless)}: max_retries is None") if endless else ok("every retry is bounded")


@WAITING.row(
    "autoretry-broad",
    consequence="SoftTimeLimitExceeded is an Exception: autoretry_for=(Exception,) retries a task that was told to "
    "end, six runs of 280 s each with five retries",
    right="the errors that are worth a retry, or dont_autoretry_for=(SoftTimeLimitExceeded,)",
)
def _broad(app: App) -> Seen:
    broad = [t.name for t in app.all_tasks if t.swallows_soft_limit]
    limited = [t.name for t in app.all_tasks if t.swallows_soft_limit and t.soft_time_limit_s]
    if limited:
        return trap(f"{some(limited)}: autoretry_for catches the soft time limit")
    return ok(f"{some(broad)} would, but has no soft limit" if broad else "the soft limit is not retried")


@WAITING.row(
    "no-time-limit",
    consequence="a task that waits for a silent server holds its process for ever; four of them, and a worker of 4 "
    "stands still while ping answers",
    right="task_time_limit and task_soft_time_limit",
    issue="celery/celery#8030, celery/celery#10205",
)
def _no_limit(app: App) -> Seen:
    endless = [t.name for t in app.all_tasks if not t.time_limit_s]
    return trap(f"{some(endless)}: no hard time limit") if endless else ok(f"at most {_limit_s(app.all_tasks):g} s")


@WAITING.row(
    "soft-limit",
    consequence="a soft limit at or above the hard one never comes: the process is killed without a chance to commit",
    right="task_soft_time_limit below task_time_limit, by what a task needs to end",
)
def _soft_limit(app: App) -> Seen:
    late = [
        f"{t.name} ({t.soft_time_limit_s:g} s, {t.time_limit_s:g} s)"
        for t in app.all_tasks
        if t.soft_time_limit_s and t.time_limit_s and t.soft_time_limit_s >= t.time_limit_s
    ]
    return (
        trap(f"{some(late)}: soft is not below hard") if late else ok("every soft limit comes first, or there is none")
    )
