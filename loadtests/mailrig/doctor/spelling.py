"""Names that do not do what they seem to: settings, queues, content types, variables. Rows for ``findings``."""

from __future__ import annotations

from typing import Final

from mailrig.doctor.facts import App, some
from mailrig.doctor.findings import Family, Seen, ok, trap

SPELLING: Final = Family[App]()
#: Serializers that run what a message says.
_CODE: Final = {"pickle", "application/x-python-serialize", "yaml", "application/x-yaml"}


@SPELLING.row(
    "unknown-setting",
    consequence="Celery ignores a setting that it doesn't know, silently: the default holds",
    right="the name as Celery has it; a test that holds yours against celery.app.defaults",
)
def _unknown(app: App) -> Seen:
    rows = [f"{row['name']} ({row['near']}?)" if row["near"] else str(row["name"]) for row in app.unknown]
    return trap(some(rows, 5)) if rows else ok("Celery knows every setting that is made")


@SPELLING.row(
    "deprecated-setting",
    consequence="names of Celery 3 go with Celery 6; old and new ones in one configuration are refused at start",
    right="celery upgrade settings MODULE",
)
def _deprecated(app: App) -> Seen:
    rows = [f"{row['name']} (now {row['new']})" for row in app.deprecated]
    return trap(some(rows, 5)) if rows else ok("every name is a current one")


@SPELLING.row(
    "unsafe-content",
    consequence="who can write to the broker can run code in the workers: pickle and yaml make objects of what is read",
    right="accept_content=['json']",
)
def _content(app: App) -> Seen:
    accepted = [*(app.setting("accept_content") or ()), *(app.setting("result_accept_content") or ())]
    unsafe = {str(name) for name in (*accepted, app.setting("task_serializer"))} & _CODE
    return trap(f"{some(unsafe)} is accepted or written") if unsafe else ok(f"accepted: {some(map(str, accepted))}")


@SPELLING.row(
    "missing-queues",
    consequence="a queue with a slip in its name is made on the spot: what is sent there waits for a worker that "
    "nobody starts",
    right="task_create_missing_queues=False beside task_queues",
)
def _missing_queues(app: App) -> Seen:
    astray = [task.name for task in (*app.tasks, *app.routes) if task.route_error]
    if astray:
        return trap(f"{some(astray)} goes to a queue that is not declared, and its publish fails")
    if not app.queues_declared:
        return ok("no queue is declared, so none is missing")
    if app.setting("task_create_missing_queues"):
        return trap("queues are declared, and task_create_missing_queues is on")
    return ok("only declared queues exist")


@SPELLING.row(
    "broker-environment",
    consequence="Celery prefers CELERY_BROKER_URL, CELERY_BROKER_READ_URL, CELERY_BROKER_WRITE_URL and "
    "CELERY_RESULT_BACKEND to any setting: a process that has one of them talks to another Redis than its neighbours",
    right="these variables unset wherever the application sets its own URLs",
)
def _environment(app: App) -> Seen:
    return trap(f"{some(app.environment, 4)} is set here") if app.environment else ok("none of them is set here")
