"""Who is served first: on Redis 0, and only what has a step of its own is kept apart. Rows for ``findings``."""

from __future__ import annotations

import re
from typing import Final

from mailrig.doctor.facts import App, Task, some
from mailrig.doctor.findings import Family, Seen, ok, trap, unknown

ORDER: Final = Family[App]()
#: Redis has ten priorities; kombu clamps whatever is above.
PRIORITY_MAX: Final = 9
_URGENT: Final = re.compile(r"(?<![a-z])(high|highest|urgent|critical|fast|interactive|realtime)(?![a-z])")
_PATIENT: Final = re.compile(r"(?<![a-z])(low|lowest|bulk|slow|background|batch|default)(?![a-z])")


def _ranked(app: App) -> list[Task]:
    return [task for task in (*app.tasks, *app.routes) if task.priority is not None]


def _step(app: App, priority: int) -> int:
    wanted = min(max(priority, 0), PRIORITY_MAX)
    return max((step for step in app.priority_steps if step <= wanted), default=min(app.priority_steps))


def _used(app: App) -> list[int]:
    return sorted({task.priority for task in _ranked(app) if task.priority is not None})


@ORDER.row(
    "queue-priority",
    consequence="the priority of a queue is RabbitMQ's: kombu's Redis transport never reads it, and drains the queues "
    "round-robin",
    right="a priority for each message, in task_routes",
)
def _queue_priority(app: App) -> Seen:
    ranked = [str(queue["name"]) for queue in app.queues if queue["max_priority"] is not None]
    if not app.on_redis:
        return ok(f"the broker is {app.transport}")
    if app.setting("task_queue_max_priority") is not None:
        ranked = ranked or ["task_queue_max_priority"]
    return trap(f"a priority is set on {some(ranked)}") if ranked else ok("no queue has a priority of its own")


@ORDER.row(
    "priority-inverted",
    consequence="0 is served first on Redis: with RabbitMQ's numbers the order is upside down",
    right="the smallest number for what is urgent: on Redis, 9 minus RabbitMQ's",
    issue="celery/celery#4599",
)
def _inverted(app: App) -> Seen:
    ranked = _ranked(app)
    if not app.on_redis or not ranked:
        return ok("no message has a priority" if not ranked else f"the broker is {app.transport}")
    urgent, patient = (_by_word(ranked, pattern) for pattern in (_URGENT, _PATIENT))
    if urgent and patient and max(urgent.values()) > min(patient.values()):
        worst, best = max(urgent, key=lambda n: urgent[n]), min(patient, key=lambda n: patient[n])
        return trap(f"{best} ({patient[best]}) is served before {worst} ({urgent[worst]})")
    if (urgent and patient) or "priority_steps" in app.transport_options:
        return ok(_order(ranked))
    return unknown(f"{_order(ranked)}: whether that is what is meant can't be told")


def _by_word(tasks: list[Task], pattern: re.Pattern[str]) -> dict[str, int]:
    """Priorities of what is called so, by its queue's name or its own."""
    named = ((word, task.priority) for task in tasks for word in (task.queue, task.name) if word)
    return {word: rank for word, rank in named if rank is not None and pattern.search(word.lower().replace("_", "-"))}


def _order(tasks: list[Task]) -> str:
    rows = sorted((task.priority or 0, task.name.rpartition(".")[2]) for task in tasks)
    return "served first to last: " + ", ".join(f"{name} {priority}" for priority, name in rows[:6])


@ORDER.row(
    "priority-clamped",
    consequence="kombu clamps to 0-9: 10 and 9 share the last list, so RabbitMQ's highest becomes the very last",
    right="priorities from 0 to 9",
    issue="celery/celery#8967",
)
def _clamped(app: App) -> Seen:
    beyond = [p for p in _used(app) if not 0 <= p <= PRIORITY_MAX]
    if app.on_redis and beyond:
        return trap(f"priorities {', '.join(map(str, beyond))} are out of range")
    return ok("all are from 0 to 9" if _used(app) else "no message has a priority")


@ORDER.row(
    "priority-steps-missing",
    consequence="without priority_steps kombu keeps 0, 3, 6 and 9 apart: every other number becomes the one below",
    right="broker_transport_options={'priority_steps': [each number in use]}, in publisher, worker and Flower alike",
)
def _steps_missing(app: App) -> Seen:
    between = [p for p in _used(app) if p not in app.priority_steps]
    if not app.on_redis or "priority_steps" in app.transport_options or not between:
        return ok("the steps are given" if "priority_steps" in app.transport_options else "the default steps suffice")
    return trap(f"priorities {', '.join(map(str, between))} are in use, and priority_steps is unset")


@ORDER.row(
    "priority-steps-merge",
    consequence="two priorities in one step share one list: the default steps merge send (2) with sync (0)",
    right="a step for each priority in use",
)
def _steps_merge(app: App) -> Seen:
    by_step: dict[int, set[int]] = {}
    for priority in _used(app):
        by_step.setdefault(_step(app, priority), set()).add(priority)
    merged = [
        f"{', '.join(map(str, sorted(group)))} become {step}" for step, group in by_step.items() if len(group) > 1
    ]
    if app.on_redis and merged:
        return trap(f"with the steps {list(app.priority_steps)}, priorities {'; '.join(merged)}")
    return ok("each priority in use has a list of its own")


@ORDER.row(
    "priority-absent",
    consequence="a message without a priority has 0 and overtakes all that have one",
    right="task_default_priority, or a priority for every task",
)
def _absent(app: App) -> Seen:
    unranked = [task.name for task in app.tasks if task.priority is None]
    if app.on_redis and unranked and any(_used(app)):
        return trap(f"{some(unranked)} without a priority, beside others that have one")
    return ok("all or none have one")
