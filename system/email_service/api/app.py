"""Flask around the table of routes: who asks, how often, what is wrong with it; headers, health, the document.

Every answer to an error is a problem (``problems``). The tenant in the path must be the token's.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

import redis
from flask import Flask, Response, request
from sqlalchemy import text
from werkzeug.exceptions import HTTPException

from email_service import telemetry
from email_service.api import access, clients, cors, limits, messages, openapi, problems, work
from email_service.api.routing import (
    PREFIX,
    Call,
    Route,
    Upload,
    json_answer,
    read_body,
    read_ids,
    read_key,
    read_query,
)
from email_service.celery_app import MailCelery
from email_service.errors import DatabaseError, FieldsError, MailServiceError, RateLimitError
from email_service.service.work import Tools
from email_service.tenancy import SYSTEM, Scope
from email_service.tokens import TokenError, Tokens

TABLES: Final = (clients.table, work.sync, messages.table, messages.uploads, work.mail, work.tasks)
ROUTES: Final = tuple(route for table in TABLES for route in table.routes)
#: Characters of an upload's name and type.
_FILENAME_MAX: Final = 255
_MEDIA_MAX: Final = 200


def create_app(tools: Tools, celery: MailCelery, *, rate_limit: limits.RateLimit | None = None) -> Flask:
    """The WSGI application; call it in the serving process, after the fork.

    Raises:
        ConfigError: MAIL_RATE_LIMIT is malformed.
    """
    settings = tools.settings
    if rate_limit is None and settings.rate_limit is not None:
        rate_limit = limits.shared(settings.rate_limit, settings.broker_url)
    door = _Door(tools, celery, rate_limit)
    app = Flask("email_service.api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.request_bytes_max
    for route in ROUTES:
        app.add_url_rule(route.rule, route.name, functools.partial(door.serve, route), methods=[route.method])
    app.add_url_rule("/health", "health", functools.partial(_health, tools))
    app.add_url_rule(f"{PREFIX}/openapi.json", "openapi", _document)
    for kind, handler in (
        (MailServiceError, problems.on_service_error),
        (HTTPException, problems.on_http_error),
        (Exception, problems.on_defect),
    ):
        app.register_error_handler(kind, handler)
    access.install(app)
    cors.install(app, settings.cors_origins)
    app.after_request(_careful)
    return app


def wsgi(make_tools: Callable[[], tuple[Tools, MailCelery]]) -> Flask:
    """Build the application with its telemetry in this process."""
    tools, celery = make_tools()
    app = create_app(tools, celery)
    telemetry.instrument_flask(app)
    return app


class _Door:
    """What stands before every handler."""

    def __init__(self, tools: Tools, celery: MailCelery, rate_limit: limits.RateLimit | None) -> None:
        self._tools = tools
        self._celery = celery
        self._tokens = Tokens(tools.settings.token_secret)
        self._rate_limit = rate_limit

    def serve(self, route: Route, tenant: str, **texts: str) -> Response:
        """One request."""
        try:
            scope = self._tokens.scope(request.headers.get("Authorization", ""))
        except TokenError as err:
            title, detail = err.args
            return problems.problem(401, title, detail, headers={"WWW-Authenticate": "Bearer"})
        if tenant != scope.tenant_id:
            return problems.problem(403, "Another tenant", "the tenant in the path must be the token's")
        if self._rate_limit is None:
            return self._answer(route, scope, texts)
        try:
            standing = self._rate_limit.take(scope.tenant_id)
        except RateLimitError as err:
            answer = problems.on_service_error(err)
            answer.headers.update(self._rate_limit.spent(err.retry_after_s).headers())
            return answer
        answer = self._answer(route, scope, texts)
        if standing is not None:
            answer.headers.update(standing.headers())
        return answer

    def _answer(self, route: Route, scope: Scope, texts: dict[str, str]) -> Response:
        ids = read_ids(route, texts)
        call = Call(
            tools=self._tools,
            celery=self._celery,
            scope=scope,
            base=f"{request.script_root}{PREFIX}/{scope.tenant_id}",
            query=read_query(route.query or openapi.NO_QUERY, request),
            body=read_body(route.body, request) if route.body else None,
            upload=_upload,
            idempotency_key=read_key(request) if route.idempotent else None,
            etag=request.headers.get("If-None-Match") if route.cached else None,
        )
        value = route.handler(call, **ids)
        if isinstance(value, Response):
            return value
        if value is None:
            return Response(status=route.status)
        answer = json_answer(value, route.status)
        if route.located is not None:
            place = value[route.located]
            answer.headers["Location"] = place if place.startswith("/") else f"{call.base}{route.path}/{place}"
        return answer


def _upload() -> Upload:
    file = request.files.get("file")
    if file is None or len(request.files) + len(request.form) > 1:
        detail = "send multipart/form-data with one part named 'file'"
        raise FieldsError(detail, fields=({"pointer": "#/file", "detail": detail},))
    return Upload(
        filename=_line("file name", file.filename or "attachment", _FILENAME_MAX),
        content_type=_line("content type", file.mimetype or "application/octet-stream", _MEDIA_MAX),
        data=file.stream.read(),
    )


def _line(name: str, value: str, characters_max: int) -> str:
    """A text that goes into a header: what would end the header is refused where it comes in."""
    if len(value) > characters_max or any(c < " " or c == "\x7f" for c in value):
        detail = f"its {name} must be one line of at most {characters_max} characters"
        raise FieldsError(f"file: {detail}", fields=({"pointer": "#/file", "detail": detail},))
    return value


def _careful(answer: Response) -> Response:
    """Mail is nobody else's: not a cache's, and not a browser's to guess what it is."""
    answer.headers.setdefault("Cache-Control", "no-store")
    answer.headers["X-Content-Type-Options"] = "nosniff"
    return answer


def _document() -> Response:
    return Response(openapi.text(ROUTES), content_type="application/json")


def _health(tools: Tools) -> tuple[dict[str, Any], int]:
    checks = {"database": _check_database(tools), "broker": _check_broker(tools)}
    ok = all(value == "ok" for value in checks.values())
    return {"status": "ok" if ok else "unavailable", "checks": checks}, 200 if ok else 503


def _check_database(tools: Tools) -> str:
    try:
        with tools.database.session(SYSTEM, read_only=True) as session:
            session.execute(text("SELECT 1"))
    except DatabaseError as err:
        return err.code
    return "ok"


def _check_broker(tools: Tools) -> str:
    try:
        with redis.Redis.from_url(tools.settings.broker_url, socket_timeout=2, socket_connect_timeout=2) as client:
            client.ping()
    except redis.RedisError as err:
        return type(err).__name__
    return "ok"
