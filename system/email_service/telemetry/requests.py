"""SERVER spans of HTTP requests: ``POST /api/v1/{tenant}/email/send``, below the caller's span or as a trace's root.

The path is never in them, for it names a tenant; none for the health check. The stock instrumentation takes half a
millisecond a request, a tenth of what the API does for one. Called by the API, once in each process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from email_service import signals
from email_service.telemetry.context import under
from email_service.telemetry.provider import tracer, tracing

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FLASK_PARAMETER: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_HEALTH: Final = "/health"
_USER_AGENT_CHARACTERS_MAX: Final = 100
_SERVER_ERROR: Final = 500

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def instrument_flask(app: Any) -> None:
    """A span around each request of this application, where spans go anywhere."""
    if tracing():
        app.wsgi_app = _Traced(app.wsgi_app)
        app.before_request(_name_by_route)


class _Traced:
    """The application, with a span around it."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._tracer = tracer("email_service.http")

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == _HEALTH:
            return self._app(environ, start_response)
        method = environ.get("REQUEST_METHOD", "")
        # The name is the route's, once that is known.
        span = self._tracer.start_span(
            method if method in _METHODS else "HTTP",
            context=under(environ.get("HTTP_TRACEPARENT")) or otel_context.Context(),
            kind=SpanKind.SERVER,
            attributes=_asked(environ, method),
        )

        def respond(status: str, *rest: Any) -> Any:
            _answered(span, int(status[:3]))
            return start_response(status, *rest)

        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            return self._app(environ, respond)
        except Exception as err:
            span.set_attribute(signals.ERROR_TYPE, type(err).__name__)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            otel_context.detach(token)
            span.end()


def _asked(environ: Environ, method: str) -> dict[str, str]:
    return {
        signals.HTTP_METHOD: method if method in _METHODS else "_OTHER",
        signals.URL_SCHEME: environ["wsgi.url_scheme"],
        signals.USER_AGENT: environ.get("HTTP_USER_AGENT", "")[:_USER_AGENT_CHARACTERS_MAX],
    }


def _answered(span: trace.Span, status: int) -> None:
    span.set_attribute(signals.HTTP_STATUS, status)
    if status >= _SERVER_ERROR:
        span.set_attribute(signals.ERROR_TYPE, str(status))
        span.set_status(StatusCode.ERROR)


def _name_by_route() -> None:
    from flask import request  # noqa: PLC0415  # only the API has Flask

    # What no route matches keeps the method as its name: the path would be whatever a stranger asked for.
    if request.url_rule is not None:
        span, route = trace.get_current_span(), _route(request.url_rule.rule)
        span.update_name(f"{request.method} {route}")
        span.set_attribute(signals.HTTP_ROUTE, route)


@lru_cache(maxsize=256)
def _route(rule: str) -> str:
    return _FLASK_PARAMETER.sub(r"{\1}", rule)
