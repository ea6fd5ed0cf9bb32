"""How many messages a worker holds, and what becomes of them when it dies. Rows for ``findings``."""

from __future__ import annotations

from typing import Final

from mailrig.doctor.facts import App, some
from mailrig.doctor.findings import Family, Seen, ok, trap

HOLDING: Final = Family[App]()


def _early(app: App) -> list[str]:
    return [task.name for task in app.all_tasks if not task.acks_late]


def _late(app: App) -> list[str]:
    return [task.name for task in app.all_tasks if task.acks_late]


@HOLDING.row(
    "early-ack-prefetch",
    consequence="a worker of 4 with multiplier 1 holds 8 messages, not 4: 4 run and 4 wait behind them, out of reach "
    "of idle workers; a killed worker loses those it runs",
    right="task_acks_late=True with worker_prefetch_multiplier=1, or worker_disable_prefetch=True (Redis only)",
)
def _early_ack_prefetch(app: App) -> Seen:
    early, multiplier = _early(app), app.setting("worker_prefetch_multiplier")
    if not early or app.setting("worker_disable_prefetch"):
        return ok("every task is acknowledged late" if not early else "worker_disable_prefetch is on")
    held = f"(1 + {multiplier}) x {app.concurrency or 'its processes'}"
    return trap(f"{some(early)}: acknowledged before it runs; a worker holds {held} messages")


@HOLDING.row(
    "prefetch-multiplier",
    consequence="each process has that many messages set aside: short tasks wait behind a long one while other "
    "workers are idle",
    right="worker_prefetch_multiplier=1",
)
def _multiplier(app: App) -> Seen:
    multiplier = app.setting("worker_prefetch_multiplier")
    if app.setting("worker_disable_prefetch"):
        return ok("worker_disable_prefetch is on")
    given = "" if "worker_prefetch_multiplier" in app.given else " (Celery's default)"
    return (trap if multiplier and multiplier > 1 else ok)(f"worker_prefetch_multiplier is {multiplier}{given}")


@HOLDING.row(
    "prefetch-unlimited",
    consequence="0 means no limit: the first worker takes every message that waits, and none is left for the others",
    right="worker_prefetch_multiplier=1",
)
def _unlimited(app: App) -> Seen:
    none = app.setting("worker_prefetch_multiplier") == 0 and not app.setting("worker_disable_prefetch")
    return trap("worker_prefetch_multiplier is 0") if none else ok("there is a limit")


@HOLDING.row(
    "eta-task-limit",
    consequence="kombu clamps increments of the prefetch count and not decrements (kombu/common.py, 5.7.0): after 40 "
    "countdown tasks with a limit of 10 it drifts from 4 to 1, and four processes run one task at a time "
    "(12 tasks of 1 s: 3.03 s before, 12.05 s after)",
    right="worker_eta_task_limit unset",
)
def _eta_limit(app: App) -> Seen:
    limit = app.setting("worker_eta_task_limit")
    return ok("worker_eta_task_limit is unset") if limit is None else trap(f"worker_eta_task_limit is {limit}")


@HOLDING.row(
    "worker-lost",
    consequence="SIGKILL of a child (the kernel's OOM killer) ends the task as FAILURE WorkerLostError, although its "
    "message was not acknowledged: it is not run again",
    right="task_reject_on_worker_lost=True (again, unbounded) or task_retry_on_worker_lost=True (bounded, from 5.7)",
    issue="celery/celery#1628",
)
def _worker_lost(app: App) -> Seen:
    lost = [t.name for t in app.all_tasks if t.acks_late and not (t.reject_on_worker_lost or t.retry_on_worker_lost)]
    if lost:
        return trap(f"{some(lost)}: acknowledged late, neither rejected nor retried when the child is lost")
    return ok("a lost child's message comes back" if _late(app) else "nothing is acknowledged late")


@HOLDING.row(
    "worker-lost-delay",
    consequence="the retry of a lost child's task waits default_retry_delay, 180 s unless it is set, whatever the "
    "task's own backoff is",
    right="default_retry_delay set to the shortest backoff, or task_reject_on_worker_lost=True instead",
)
def _worker_lost_delay(app: App) -> Seen:
    slow = [t.name for t in app.all_tasks if t.retry_on_worker_lost and t.default_retry_delay_s >= 180]  # noqa: PLR2004  # Celery's
    if slow:
        return trap(f"{some(slow)}: task_retry_on_worker_lost with the default delay of 180 s")
    return ok("no lost child's task waits for the default delay")


@HOLDING.row(
    "acks-on-timeout",
    consequence="a task that the hard time limit kills is put back and run again: an endless loop",
    right="task_acks_on_timeout=True (the default)",
)
def _acks_on_timeout(app: App) -> Seen:
    loops = [t.name for t in app.all_tasks if t.acks_late and not t.acks_on_timeout]
    return trap(f"{some(loops)}: not acknowledged at the hard limit") if loops else ok("a task that times out is done")


@HOLDING.row(
    "early-ack-shutdown",
    consequence="a soft shutdown puts back what is not acknowledged; with early ack two running tasks were lost",
    right="task_acks_late=True beside worker_soft_shutdown_timeout",
)
def _early_ack_shutdown(app: App) -> Seen:
    timeout_s, early = app.setting("worker_soft_shutdown_timeout") or 0, _early(app)
    if timeout_s and early:
        return trap(f"worker_soft_shutdown_timeout is {timeout_s:g}, and {some(early)} is acknowledged before it runs")
    return ok("what is cut short is put back" if timeout_s else "there is no soft shutdown")
