"""Instrumentations of others, with what they get wrong for us put right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace

from email_service import signals


def instrument_redis() -> None:
    """CLIENT spans of Redis commands, with the database's index, which the conventions have dropped.

    Off by default, and never for workers: their BRPOP would make a span every second, and each message about ten.
    """
    from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415  # for looking closer only

    def name_database(span: trace.Span, client: Any, *_: Any) -> None:
        span.set_attribute(signals.DB_NAMESPACE, str(client.connection_pool.connection_kwargs.get("db") or 0))

    instrumentor = RedisInstrumentor()
    if not instrumentor.is_instrumented_by_opentelemetry:
        provider = trace.get_tracer_provider()
        # A pipeline tells the response hook alone.
        instrumentor.instrument(tracer_provider=provider, request_hook=name_database, response_hook=name_database)


@contextmanager
def quiet() -> Iterator[None]:
    """No spans of database and Redis inside: for what polls."""
    from opentelemetry.instrumentation.utils import suppress_instrumentation  # noqa: PLC0415  # not for every process

    with suppress_instrumentation():
        yield
