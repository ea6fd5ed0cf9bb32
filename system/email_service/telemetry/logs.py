"""Log lines: JSON or text on stderr, with the trace and the task they belong to, without what others' errors say."""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from opentelemetry import trace

from email_service.errors import MailServiceError
from email_service.telemetry.context import tenant_hash

_log_fields: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("log_fields", default=None)


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add fields to the log lines inside; a tenant is shown hashed."""
    if "tenant_id" in fields:
        fields["tenant"] = tenant_hash(str(fields.pop("tenant_id")))
    token = _log_fields.set({**(_log_fields.get() or {}), **fields})
    try:
        yield
    finally:
        _log_fields.reset(token)


class _Careful(logging.Formatter):
    """Shows where an exception went, and what ours say; what others say may hold an address, a row or a password."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  # the base class's name
        """The chain of errors, the cause first: frames, then the type."""
        lines: list[str] = []
        err: BaseException | None = ei[1]
        while err is not None and len(lines) < _CHAIN_MAX:
            said = f": {err}" if isinstance(err, MailServiceError) else ""
            lines.insert(0, "".join(traceback.format_tb(err.__traceback__)) + type(err).__qualname__ + said)
            err = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
        return "\n".join(lines)


#: A chain of errors is not shown beyond this length; it may be a ring.
_CHAIN_MAX: Final = 8


class _JsonLines(_Careful):
    def format(self, record: logging.LogRecord) -> str:
        context = trace.get_current_span().get_span_context()
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **(_log_fields.get() or {}),
        }
        if context.is_valid:
            line |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(log_format: str) -> None:
    """Send all log lines of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    text = _Careful("[%(asctime)s] %(levelname)s [%(name)s] %(message)s")
    handler.setFormatter(_JsonLines() if log_format == "json" else text)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for noisy in (
        "kombu",
        "amqp",
        "urllib3",
        "alembic",
        "celery.redirected",
        "celery.app.trace",
        "celery.worker.strategy",
    ):
        logging.getLogger(noisy).setLevel(logging.WARNING)
