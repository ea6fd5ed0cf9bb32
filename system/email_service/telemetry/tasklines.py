"""The life of a task as lines of the log, in the words of the architecture document.

One place for them, so that who reads a log finds the same four lines in both formats: starting, completed, what
failed, retrying. What the text leaves out is in the fields of the JSON line: how long it waited, ran and will wait.
Nothing that a server or a library said is ever in them: that is in the row, for the tenant. Called by tasks.
"""

from __future__ import annotations

import logging
from typing import Final

from email_service.errors import ConnectError, MailServiceError, SmtpError

_log = logging.getLogger("email_service.tasks")

#: What the operating system says of a connection, and our word for it.
_REASONS: Final = {
    "timed out": "timeout",
    "Connection refused": "refused",
    "Connection reset": "reset",
    "No route to host": "no route",
    "Network is unreachable": "no network",
    "certificate": "certificate",
}


def task_starting(task: str, task_id: str, **fields: object) -> None:
    """An execution has begun; ``fields`` say how long it waited, seconds."""
    _log.info("Task %s starting (task_id=%s)", task, task_id, extra=_extra("task_prerun_handler", fields))


def task_completed(task: str, **fields: object) -> None:
    """An execution has ended well; ``fields`` say how, and how long it ran, seconds."""
    _log.info("Task %s completed", task, extra=_extra("task_postrun_handler", fields))


def task_retries(task: str, err: MailServiceError, *, delay_s: float, failed: bool, **fields: object) -> None:
    """An execution has ended, and another follows; one that only ran into its soft limit has not failed."""
    if failed:
        _log.error("%s", reason(err), extra=_extra(task, {"error_type": err.code, **fields}))
    _log.info("Retrying in %g seconds...", delay_s, extra=_extra(task, {"delay_s": delay_s, "error_type": err.code}))


def reason(err: MailServiceError) -> str:
    """What went wrong, in our own words alone: ``Connection failed: timeout``."""
    what = "Connection failed" if isinstance(err, ConnectError) else str(type(err)()).rstrip(".")
    known = next((word for said, word in _REASONS.items() if said in err.detail), None)
    code = err.reply_code if isinstance(err, SmtpError) else None
    return ": ".join(str(part) for part in (what, code or known) if part)


def _extra(source: str, fields: dict[str, object]) -> dict[str, object]:
    return {"source": source, "fields": fields}
