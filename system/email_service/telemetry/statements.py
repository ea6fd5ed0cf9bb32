"""CLIENT spans of SQL statements: a name that people can read, the text without its values, and little else to pay for.

The stock instrumentation takes twice the time, names every span after its first word, and stops at SQLAlchemy 2.1.
Called by ``__main__``, once for each process's engines.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import SpanKind, Status, StatusCode
from sqlalchemy import event

from email_service import signals

#: Where a span waits for its statement's end.
_SPAN: Final = "_mail_span"
#: The effect that comes first, and its table: of a statement that begins with WITH, what its first part does.
_EFFECT: Final = re.compile(r"\b(INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)", re.IGNORECASE)
_READ: Final = re.compile(r"\bSELECT\b.*?\bFROM\s+\"?(\w+)", re.IGNORECASE | re.DOTALL)
_FIRST_WORD: Final = re.compile(r"\w+")
_SPACES: Final = re.compile(r"\s+")
#: Longer statements are cut: their beginning tells which one it is.
_TEXT_CHARACTERS_MAX: Final = 400


def instrument_sqlalchemy(engines: list[Any]) -> None:
    """A span for each statement of these engines, and of no others; values are never in them, as all are bound."""
    for engine in engines:
        _instrument(engine)


def _instrument(engine: Any) -> None:
    tracer = trace.get_tracer("email_service.sql")
    peer: dict[str, str | int] = {
        signals.DB_SYSTEM: engine.dialect.name,
        signals.DB_NAMESPACE: engine.url.database or "",
    }
    if engine.url.host:
        peer |= {signals.SERVER_ADDRESS: engine.url.host, signals.SERVER_PORT: engine.url.port or 5432}

    @lru_cache(maxsize=512)
    def described(statement: str) -> tuple[str, dict[str, str | int]]:
        summary = summary_of(statement)
        text = _SPACES.sub(" ", statement).strip()[:_TEXT_CHARACTERS_MAX]
        return summary, peer | {signals.DB_QUERY_SUMMARY: summary, signals.DB_QUERY_TEXT: text}

    def before(_connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, *_: Any) -> None:
        if is_instrumentation_enabled():
            name, attributes = described(statement)
            setattr(context, _SPAN, tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes))

    def after(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, *_: Any) -> None:
        if (span := context.__dict__.pop(_SPAN, None)) is not None:
            span.end()

    def failed(error: Any) -> None:
        span = error.execution_context.__dict__.pop(_SPAN, None) if error.execution_context is not None else None
        if span is not None:
            span.set_status(Status(StatusCode.ERROR))
            span.set_attribute(signals.ERROR_TYPE, type(error.original_exception).__name__)
            if code := getattr(error.original_exception, "sqlstate", None):
                span.set_attribute(signals.DB_STATUS_CODE, code)
            span.end()

    event.listen(engine, "before_cursor_execute", before)
    event.listen(engine, "after_cursor_execute", after)
    event.listen(engine, "handle_error", failed)


def summary_of(statement: str) -> str:
    """``UPDATE jobs``: what a statement does and to what, in few words and few different ones."""
    if found := _EFFECT.search(statement):
        return f"{found[1].split()[0].upper()} {found[2].lower()}"
    if found := _READ.search(statement):
        return f"SELECT {found[1].lower()}"
    word = _FIRST_WORD.search(statement)
    return word[0].upper() if word else "statement"
