"""Instrumentations of others, each with what it gets wrong for us put right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry import trace

from email_service import signals

_FLASK_PARAMETER: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")


def instrument_flask(app: Any) -> None:
    """SERVER spans named by method and route: ``POST /api/v1/{tenant}/email/send``; none for the health check."""
    from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415  # only the API has Flask

    FlaskInstrumentor().instrument_app(
        app,
        tracer_provider=trace.get_tracer_provider(),
        excluded_urls="/health$",
        # Comments in SQL would make each request's statements differ.
        enable_commenter=False,
    )
    # Runs right after the instrumentation's own, which has started the span.
    app.before_request(_name_by_route)


def _name_by_route() -> None:
    from flask import request  # noqa: PLC0415  # only the API has Flask

    span = trace.get_current_span()
    method = request.method if request.method in _METHODS else "HTTP"
    if request.url_rule is None:
        # The path would name a tenant, or whatever a stranger asked for.
        span.update_name(method)
        return
    route = _FLASK_PARAMETER.sub(r"{\1}", request.url_rule.rule)
    span.update_name(f"{method} {route}")
    span.set_attribute("http.route", route)


_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


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
