"""The HTTP API: authenticate, validate, enqueue, answer 202 with a task id; and show what became of it.

Every answer to an error is ``application/problem+json`` (RFC 9457). A task of another tenant is 404, as if it did not
exist. The tenant in the path must be the token's. Nothing here talks to a mail server.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import jwt
import redis
from flask import Blueprint, Flask, Response, current_app, g, request, url_for
from sqlalchemy import text
from werkzeug.exceptions import HTTPException

from email_service import jobs, message, telemetry
from email_service.celery_app import MailCelery, submit
from email_service.errors import (
    ConflictError,
    DatabaseError,
    HostNotAllowedError,
    InvalidRequestError,
    MailServiceError,
    NotFoundError,
    PermissionDeniedError,
)
from email_service.jobs import NewJob
from email_service.service import accounts, sending
from email_service.service.work import Tools, owned_client
from email_service.tenancy import SYSTEM, Scope
from email_service.vault import Secret

_log = logging.getLogger(__name__)

#: Largest request, bytes: an upload and its envelope.
REQUEST_BYTES_MAX: Final = 26 * 1024 * 1024
#: Recipients of one message (RFC 5321 section 4.5.3.1.8 asks servers for 100 at least).
RECIPIENTS_MAX: Final = 100
#: Rows of one page of the feed.
FEED_LIMIT_MAX: Final = 1000
JWT_ALGORITHM: Final = "HS256"

_STATUS: Final[tuple[tuple[type[MailServiceError], int, str], ...]] = (
    (NotFoundError, 404, "Not found"),
    (ConflictError, 422, "Idempotency key used with another request"),
    (HostNotAllowedError, 422, "Host not allowed"),
    (InvalidRequestError, 400, "Request not valid"),
    (PermissionDeniedError, 404, "Not found"),
    (DatabaseError, 503, "Database away"),
)

api = Blueprint("api", __name__, url_prefix="/api/v1/<tenant>")


def issue_token(secret: str, scope: Scope, *, ttl_s: int, now_s: int | None = None) -> str:
    """A bearer token for one user of one tenant (RFC 7519)."""
    now = int(time.time()) if now_s is None else now_s
    claims = {"tenant": scope.tenant_id, "sub": scope.user_id, "iat": now, "exp": now + ttl_s}
    return jwt.encode(claims, secret, algorithm=JWT_ALGORITHM)


def create_app(tools: Tools, celery: MailCelery) -> Flask:
    """The WSGI application; call it in the serving process, after the fork."""
    app = Flask("email_service.api")
    app.config["MAX_CONTENT_LENGTH"] = REQUEST_BYTES_MAX
    app.extensions["mail"] = (tools, celery)
    app.register_blueprint(api)
    app.add_url_rule("/health", view_func=_health)
    app.register_error_handler(MailServiceError, _on_service_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_defect)
    return app


def _tools() -> tuple[Tools, MailCelery]:
    tools, celery = current_app.extensions["mail"]
    return tools, celery


@api.before_request
def _authenticate() -> Response | None:
    tools, _ = _tools()
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return _problem(401, "Token missing", "send Authorization: Bearer TOKEN")
    try:
        claims = jwt.decode(
            token,
            tools.settings.token_secret,
            algorithms=[JWT_ALGORITHM],
            options={"require": ["exp", "sub", "tenant"]},
        )
    except jwt.ExpiredSignatureError:
        return _problem(401, "Token expired", "ask for a new token")
    except jwt.InvalidTokenError:
        return _problem(401, "Token not valid", "it was not signed here, or lacks tenant, sub or exp")
    scope = Scope(tenant_id=str(claims["tenant"]), user_id=str(claims["sub"]))
    tenant = (request.view_args or {}).pop("tenant", None)
    if tenant != scope.tenant_id:
        return _problem(403, "Another tenant", "the tenant in the path must be the token's")
    g.scope = scope
    return None


@api.post("/email/clients")
def _post_client() -> tuple[dict[str, Any], int]:
    tools, _ = _tools()
    body = _body()
    new = accounts.NewClient(
        address=message.parse_address(_text(body, "address")),
        imap=_endpoint(body, "imap"),
        smtp=_endpoint(body, "smtp"),
        username=_text(body, "username"),
        password=Secret(_text(body, "password")),
        sync_interval_s=_integer(body, "sync_interval_s", low=60, high=86_400, default=300),
    )
    with tools.database.session(g.scope) as session:
        client = accounts.create_client(session, g.scope, tools.vault, tools.settings, new)
        session.commit()
        return {"id": str(client.id), "address": client.address, "sync_interval_s": client.sync_interval_s}, 201


@api.post("/email/attachments")
def _post_attachment() -> tuple[dict[str, Any], int]:
    tools, _ = _tools()
    upload = request.files.get("file")
    if upload is None:
        raise InvalidRequestError("send multipart/form-data with one part named 'file'")
    with tools.database.session(g.scope) as session:
        row = accounts.store_attachment(
            session,
            g.scope,
            tools.blobs,
            filename=_line("filename", upload.filename or "attachment"),
            content_type=_line("content type", upload.mimetype or "application/octet-stream"),
            data=upload.stream.read(),
        )
        session.commit()
        answer = {"id": str(row.id), "filename": row.filename, "content_type": row.content_type}
        return answer | {"size_bytes": row.size_bytes, "sha256": row.sha256.hex()}, 201


@api.post("/email/send")
def _post_send() -> tuple[dict[str, Any], int]:
    tools, celery = _tools()
    body = _body()
    scope: Scope = g.scope
    job_id = uuid.uuid4()
    roles = [(role, _addresses(body, role)) for role in ("to", "cc", "bcc")]
    _check_recipients(roles)
    attachment_ids = [_uuid("attachment_ids", value) for value in _list(body, "attachment_ids")]
    with tools.database.session(scope) as session:
        client = owned_client(session, scope, _uuid("client_id", body.get("client_id")))
        accounts.owned_attachments(session, scope, attachment_ids)
    job = NewJob(
        id=job_id,
        name="email_service.tasks.send_email",
        args={
            "subject": _line("subject", _text(body, "subject", default="")),
            "text": _text(body, "text", default=""),
            "html": _text(body, "html", default=None) if body.get("html") is not None else None,
            "attachment_ids": [str(i) for i in attachment_ids],
        },
        client_id=client.id,
        message_id=message.message_id_for(job_id, client.address.rpartition("@")[2]),
        idempotency_key=_idempotency_key(),
        request=json.dumps(body, sort_keys=True).encode(),
    )
    enqueued = submit(celery, tools.database, scope, job, lambda s: sending.add_recipients(s, scope, job_id, roles))
    return _accepted(enqueued.id) | {"message_id": enqueued.message_id}, 202


@api.post("/email/clients/<client_id>/sync")
def _post_sync(client_id: str) -> tuple[dict[str, Any], int]:
    tools, celery = _tools()
    scope: Scope = g.scope
    with tools.database.session(scope) as session:
        client = owned_client(session, scope, _uuid("client", client_id))
    key = _idempotency_key()
    job = NewJob(
        id=uuid.uuid4(),
        name="email_service.tasks.sync_emails",
        args={},
        client_id=client.id,
        idempotency_key=key,
        request=str(client.id).encode() if key else None,
    )
    return _accepted(submit(celery, tools.database, scope, job).id), 202


@api.get("/tasks/<task_id>")
def _get_task(task_id: str) -> dict[str, Any]:
    tools, _ = _tools()
    try:
        job_id = uuid.UUID(task_id)
    except ValueError:
        raise NotFoundError(f"task {task_id}") from None
    with tools.database.session(g.scope) as session:
        return jobs.status(session, g.scope, job_id)


@api.get("/tasks")
def _get_tasks() -> dict[str, Any]:
    tools, _ = _tools()
    limit = _integer(dict(request.args), "limit", low=1, high=FEED_LIMIT_MAX, default=500)
    with tools.database.session(g.scope) as session:
        rows, cursor = jobs.feed(session, g.scope, after=request.args.get("after"), limit=limit)
    return {"tasks": rows, "cursor": cursor}


def _health() -> tuple[dict[str, Any], int]:
    tools, _ = _tools()
    checks = {"database": _check_database(tools), "broker": _check_broker(tools)}
    ok = all(value == "ok" for value in checks.values())
    return {"status": "ok" if ok else "unavailable", "checks": checks}, 200 if ok else 503


def _check_database(tools: Tools) -> str:
    try:
        with tools.database.session(SYSTEM) as session:
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


def _accepted(job_id: uuid.UUID) -> dict[str, Any]:
    status_url = url_for("api._get_task", tenant=g.scope.tenant_id, task_id=str(job_id))
    return {"task_id": str(job_id), "status_url": status_url}


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise InvalidRequestError("send a JSON object with Content-Type: application/json")
    return body


_ABSENT: Final = object()


def _text(body: dict[str, Any], name: str, default: Any = _ABSENT) -> Any:
    value = body.get(name, default)
    if value is _ABSENT:
        raise InvalidRequestError(f"{name} is missing: it must be a string")
    if not isinstance(value, str) and value is not default:
        raise InvalidRequestError(f"{name} must be a string, not {type(value).__name__}")
    if isinstance(value, str) and "\x00" in value:
        raise InvalidRequestError(f"{name} must not hold NUL")
    return value


def _line(name: str, value: str) -> str:
    """A text that goes into a header: what would end the header is refused where it comes in."""
    if any(c in value for c in "\r\n\x00"):
        raise InvalidRequestError(f"{name} must be one line")
    return value


def _integer(body: dict[str, Any], name: str, *, low: int, high: int, default: int) -> int:
    try:
        value = int(body.get(name, default))
    except (TypeError, ValueError):
        value = low - 1
    if not low <= value <= high:
        raise InvalidRequestError(f"{name} must be a whole number from {low} to {high}")
    return value


def _list(body: dict[str, Any], name: str) -> list[Any]:
    value = body.get(name, [])
    if not isinstance(value, list):
        raise InvalidRequestError(f"{name} must be a list")
    return value


def _addresses(body: dict[str, Any], role: str) -> list[str]:
    return [message.parse_address(value) if isinstance(value, str) else _not_text(role) for value in _list(body, role)]


def _not_text(name: str) -> str:
    raise InvalidRequestError(f"{name} must hold strings")


def _check_recipients(roles: list[tuple[str, list[str]]]) -> None:
    count = sum(len(addresses) for _, addresses in roles)
    if not 1 <= count <= RECIPIENTS_MAX:
        raise InvalidRequestError(f"to, cc and bcc name {count} addresses; they must name 1 to {RECIPIENTS_MAX}")


def _uuid(name: str, value: Any) -> uuid.UUID:
    try:
        return uuid.UUID(str(value))
    except ValueError:
        raise InvalidRequestError(f"{name} must be a UUID") from None


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 1 <= len(key) <= 255:  # noqa: PLR2004  # the draft standard's customary bound
        raise InvalidRequestError("Idempotency-Key must have 1 to 255 characters")
    return key


def _endpoint(body: dict[str, Any], name: str) -> accounts.Endpoint:
    value = body.get(name)
    if not isinstance(value, dict):
        raise InvalidRequestError(f'{name} must be an object like {{"host": ..., "port": ..., "encryption": "tls"}}')
    encryption = value.get("encryption", "tls")
    if encryption not in {"none", "starttls", "tls"}:
        raise InvalidRequestError(f"{name}.encryption must be none, starttls or tls")
    port = _integer(value, "port", low=1, high=65_535, default=0)
    return accounts.Endpoint(host=_text(value, "host"), port=port, encryption=encryption)


def _problem(status: int, title: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(body), status=status, content_type="application/problem+json")


def _on_service_error(err: MailServiceError) -> Response:
    for kind, status, title in _STATUS:
        if isinstance(err, kind):
            return _problem(status, title, err.detail)
    _log.error("request failed (%s)", err.code)
    return _problem(500, "Internal error", "it was logged")


def _on_http_error(err: HTTPException) -> Response:
    return _problem(err.code or 500, err.name, err.description or "")


def _on_defect(err: Exception) -> Response:
    _log.error("defect in a request", exc_info=err)
    return _problem(500, "Internal error", "it was logged")


def wsgi(make_tools: Callable[[], tuple[Tools, MailCelery]]) -> Flask:
    """Build the application with its telemetry in this process."""
    tools, celery = make_tools()
    app = create_app(tools, celery)
    telemetry.instrument_flask(app)
    return app
