"""CLIENT spans of SQL statements: a name that people can read, the text without its values, and little else to pay for.

The stock instrumentation takes twice the time, names every span after its first word, and stops at SQLAlchemy 2.1.
Called by ``__main__``, once for each process's engines.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from sqlalchemy import event

from email_service import signals
from email_service.telemetry.lines import Constant
from email_service.telemetry.provider import tracing

#: Where a span waits for its statement's end.
_SPAN: Final = "_mail_span"
#: The effect that comes first, and its table: of a statement that begins with WITH, what its first part does.
_EFFECT: Final = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)", re.IGNORECASE)
_READ: Final = re.compile(r"\bSELECT\b.*?\bFROM\s+\"?(\w+)", re.IGNORECASE | re.DOTALL)
_FIRST_WORD: Final = re.compile(r"\w+")
_SPACES: Final = re.compile(r"\s+")
#: Longer statements are cut: their beginning tells which one it is.
_TEXT_CHARACTERS_MAX: Final = 400


#: What an instrumented engine's spans are made of.
_tracers: Final[WeakKeyDictionary[Any, Callable[[str], Span]]] = WeakKeyDictionary()


def instrument_sqlalchemy(engines: list[Any]) -> None:
    """A span for each statement of these engines, and of no others, where spans go anywhere.

    Values are never in them, as all are bound.
    """
    for engine in engines if tracing() else ():
        _tracers[engine] = _spans_of(engine)
        event.listen(engine, "before_cursor_execute", _before)
        event.listen(engine, "after_cursor_execute", _after)
        event.listen(engine, "handle_error", _failed)


def begin_statement(engine: Any, statement: str) -> Span | None:
    """The span of a statement that begins now; None where nothing is traced."""
    start = _tracers.get(engine)
    return start(statement) if start is not None and is_instrumentation_enabled() else None


def end_statement(span: Span | None, error: BaseException | None = None) -> None:
    """The statement has ended; an error is told by its kind and its SQLSTATE."""
    if span is None:
        return
    if error is not None:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute(signals.ERROR_TYPE, type(error).__name__)
        if code := getattr(error, "sqlstate", None):
            span.set_attribute(signals.DB_STATUS_CODE, code)
    span.end()


def _spans_of(engine: Any) -> Callable[[str], Span]:
    tracer, url = trace.get_tracer("email_service.sql"), engine.url
    peer: dict[str, str | int] = {signals.DB_SYSTEM: engine.dialect.name, signals.DB_NAMESPACE: url.database or ""}
    if url.host:
        peer |= {signals.SERVER_ADDRESS: url.host, signals.SERVER_PORT: url.port or 5432}

    @lru_cache(maxsize=512)
    def described(statement: str) -> tuple[str, Constant]:
        summary = summary_of(statement)
        text = _SPACES.sub(" ", statement).strip()[:_TEXT_CHARACTERS_MAX]
        return summary, Constant(peer | {signals.DB_QUERY_SUMMARY: summary, signals.DB_QUERY_TEXT: text})

    def start(statement: str) -> Span:
        name, attributes = described(statement)
        return tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    return start


def _before(connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, *_: Any) -> None:
    setattr(context, _SPAN, begin_statement(connection.engine, statement))


def _after(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, *_: Any) -> None:
    end_statement(context.__dict__.pop(_SPAN, None))


def _failed(error: Any) -> None:
    if error.execution_context is not None:
        end_statement(error.execution_context.__dict__.pop(_SPAN, None), error.original_exception)


def summary_of(statement: str) -> str:
    """``UPDATE jobs``: what a statement does and to what, in few words and few different ones."""
    if found := _EFFECT.search(statement):
        return f"{found[1].split()[0].upper()} {found[2].lower()}"
    if found := _READ.search(statement):
        return f"SELECT {found[1].lower()}"
    word = _FIRST_WORD.search(statement)
    return word[0].upper() if word else "statement"
