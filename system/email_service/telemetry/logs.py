"""Log lines: JSON or text, on stderr and in a file, with the trace and the task they belong to.

Rule 1: one record is one line (text shows an error's frames below it, indented): whoever can put a line break into a
message can't forge a line. Rule 2: what others' errors say is never shown, where they went always is.
Rule 3: every line passes ``redaction`` last. Rule 4: what libraries write goes the same way: Celery's, gunicorn's,
tornado's and Alembic's lines, warnings, and errors that nobody caught.

Celery's own lines, by logger: ``celery.worker.strategy`` says each message that was received, and is shown;
``celery.app.trace`` would quote results and errors when a task ends, so its notes are ours to write (``tasklines``) and
only its complaints are shown, without what they quote; beat and the rest are shown as they are.
Called by provider and __main__; ``log_context`` by whoever runs a task.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace

from email_service import signals
from email_service.errors import MailServiceError
from email_service.telemetry.context import parse_traceparent, tenant_hash
from email_service.telemetry.logfile import LogFile
from email_service.telemetry.redaction import Redactor

_log_fields: contextvars.ContextVar[dict[str, object] | None] = contextvars.ContextVar("log_fields", default=None)

#: A chain of errors is not shown beyond this length; it may be a ring.
_CHAIN_MAX: Final = 8
#: The file of each kind of process under MAIL_LOG_DIR; the others' are named as they are.
FILES: Final = {"worker": "celery-worker.log", "beat": "celery-beat.log"}
#: Below these levels they would say each thing that we say already, or what nobody asks for.
_QUIET: Final = {
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    "urllib3": logging.WARNING,
    "celery.redirected": logging.WARNING,
    "celery.app.trace": logging.WARNING,
    "werkzeug": logging.WARNING,
    "tornado.access": logging.WARNING,
    "alembic.runtime.plugins": logging.WARNING,
}
#: Control characters, but also the separators that some programs take for a line's end (Unicode's annex 14).
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Celery names a task as name[id].
_CELERY_TASK: Final = re.compile(r"\bemail_service\.tasks\.(\w+)\[([0-9a-f]{8}-[0-9a-f-]{27})\]")


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add fields to the log lines inside; a tenant is shown hashed, a ``traceparent`` as its trace's id."""
    if "tenant_id" in fields:
        fields["tenant"] = tenant_hash(str(fields.pop("tenant_id")))
    if "traceparent" in fields:
        parsed = parse_traceparent(str(fields.pop("traceparent")))
        fields |= {"trace_id": parsed[0]} if parsed is not None else {}
    token = _log_fields.set({**(_log_fields.get() or {}), **fields})
    try:
        yield
    finally:
        _log_fields.reset(token)


# --- one record ---


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

    def told(self, record: logging.LogRecord) -> str:
        """The message; of Celery's complaints about a task only what is its own."""
        data = getattr(record, "data", None)
        if record.name == "celery.app.trace" and isinstance(data, dict):
            return f"Task {data.get('name')}[{data.get('id')}] {data.get('description', 'ended')}"
        return record.getMessage()


class JsonLines(_Careful):
    """One JSON object a line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        message = self.told(record)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": message,
            "service": self._service,
            "pid": record.process,
        }
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            line |= {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
        for fields in (_celery_fields(record, message), _log_fields.get(), getattr(record, "fields", None)):
            # Whose line it is can't be said by its context.
            line |= {name: value for name, value in (fields or {}).items() if name not in {"service", "pid"}}
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _celery_fields(record: logging.LogRecord, message: str) -> dict[str, object]:
    """The task that a line of Celery's main process is about."""
    if not record.name.startswith("celery.") or (found := _CELERY_TASK.search(message)) is None:
        return {}
    return {"task_id": found[2], "task": found[1]}


class TextLines(_Careful):
    """The lines of the architecture document."""

    def format(self, record: logging.LogRecord) -> str:
        """``[2026-01-24 12:00:00,123] INFO [sync_emails] Retrying in 5 seconds...``; beat's own without a level."""
        moment, message = self.formatTime(record), _escaped(self.told(record))
        source = getattr(record, "source", record.name)
        if not source:
            return f"[{moment.partition(',')[0]}] {message}"
        line = f"[{moment}] {record.levelname} [{_escaped(source)}] {message}"
        if record.exc_info and record.exc_info[1] is not None:
            below = self.formatException(record.exc_info).split("\n")
            line = "\n    ".join([line, *map(_escaped, below)])
        return line


def _escaped(text: str) -> str:
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


# --- where they go ---


class Lines(logging.Handler):
    """Writes each line once to stderr and, if there is one, to the file."""

    def __init__(self, formatter: logging.Formatter, redactor: Redactor, file: LogFile | None) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._redactor, self._file = redactor, file

    def format(self, record: logging.LogRecord) -> str:
        """The line as it may be seen."""
        return self._redactor(super().format(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Write it; a disk that is full costs the file's line and nothing else."""
        try:
            data = (self.format(record) + "\n").encode(errors="backslashreplace")
            _to_stderr(data)
            if self._file is not None:
                with contextlib.suppress(OSError):
                    self._file.write(data)
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001  # as every handler of the standard library: a log line stops no work
            self.handleError(record)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
        super().close()


def _to_stderr(data: bytes) -> None:
    """In one piece, or lines of a worker's processes would mix; a stream without a descriptor is a test's."""
    try:
        descriptor = sys.stderr.fileno()
    except (AttributeError, OSError, ValueError):
        sys.stderr.write(data.decode())
        return
    while data:
        data = data[os.write(descriptor, data) :]


def configure_logging(
    kind: str, log_format: str, *, log_dir: Path | None = None, secrets: Iterable[str | bytes] = ()
) -> None:
    """Send all log lines of this process, and of those it forks, to stderr and to a file of this kind of process.

    Raises:
        ConfigError: the file can't be written.
    """
    service = signals.SERVICE_NAMES.get(kind, f"mail-{kind}")
    file = None if log_dir is None else LogFile(log_dir / FILES.get(kind, f"{kind}.log"))
    formatter = JsonLines(service) if log_format == "json" else TextLines()
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, Lines):
            old.close()
    root.addHandler(Lines(formatter, Redactor(secrets), file))
    root.setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def take_over() -> None:
    """Warnings, and errors that nobody caught, become log lines of this process and of those it forks."""
    logging.captureWarnings(capture=True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback, thread=args.thread)
    sys.unraisablehook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def take_over_pool() -> None:
    """The same in a worker's children, whose library prints what its own loop did not catch."""
    from billiard import util  # noqa: PLC0415  # workers only

    def error(message: str, *args: object, **options: Any) -> bool:
        logging.getLogger("billiard").error(message, *args, **options)
        # That it was told: or billiard prints the traceback, with what the error says.
        return True

    util.error = error
    # Celery would give it handlers of its own if it had not left logging to us.
    util.get_logger().propagate = True


def _uncaught(kind: type[BaseException], err: BaseException | None, trace_: Any, *, thread: Any = None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    where = f" in thread {thread.name}" if thread is not None else ""
    log = logging.getLogger("uncaught")
    log.critical("%s was not caught%s", kind.__name__, where, exc_info=(kind, err or kind(), trace_))
