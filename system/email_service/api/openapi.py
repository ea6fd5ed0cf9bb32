"""The OpenAPI 3.1 document, made of the table of routes and its models: what is served is what is written.

Pure: a table in, a document out. Called by ``app`` (served at /api/v1/openapi.json) and by __main__ (printed).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from email_service.api import answers, problems, schemas
from email_service.api.routing import KEY_PATTERN, PREFIX, Route

NO_QUERY: Final = schemas.Nothing
_REF: Final = "#/components/schemas/{model}"
_DESCRIPTION: Final = (
    "Reads and sends the mail of many mailboxes. What takes time is accepted with 202 and a task; the task tells what "
    "became of it. Every answer to an error is application/problem+json (RFC 9457)."
)
_TAGS: Final = {
    "clients": "Mailboxes, and their folders",
    "messages": "Messages that were read or sent",
    "attachments": "Files of messages, and uploads that wait for one",
    "mail": "Work on messages: send, delete, check for spam",
    "tasks": "What became of work",
    "service": "The service itself",
}
#: What each route may answer besides its own.
_ALWAYS: Final = (401, 403, 429, 503)
#: What a status means where HTTP's own phrase does not say it.
_MEANING: Final = {
    400: "A field, a parameter or a header is not what it must be",
    401: "No token, or one that is not good",
    403: "The tenant in the path is not the token's",
    404: "There is no such thing here, or it is somebody else's",
    409: "It is in use now",
    413: "The request is too large",
    415: "The body is not of the kind that is read here",
    422: "The idempotency key belongs to another request, or a host may not be named",
    429: "The tenant has asked too often",
    503: "The database is away",
}


@functools.cache
def text(routes: tuple[Route, ...]) -> str:
    """The document as JSON."""
    return json.dumps(document(routes), indent=1)


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        place = paths.setdefault(f"{PREFIX}/{{tenant}}{route.path}", {})
        place[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "E-mail service", "version": _version(), "description": _DESCRIPTION, "license": _LICENSE},
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": told} for name, told in _TAGS.items()],
        "security": [{"bearer": []}],
        "paths": paths | _service_paths(),
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "headers": _HEADERS,
        },
    }


_LICENSE: Final = {"name": "MIT", "identifier": "MIT"}


def _version() -> str:
    try:
        return version("mailrig")
    except PackageNotFoundError:
        # Run from a source tree that nobody installed.
        return "0"


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "tags": [route.tag],
        "parameters": _parameters(route),
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref(route.body)}}}
    if route.upload:
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD}}}
    return operation


_UPLOAD: Final = {
    "type": "object",
    "properties": {"file": {"type": "string", "contentMediaType": "application/octet-stream"}},
    "required": ["file"],
    "additionalProperties": False,
}


def _parameters(route: Route) -> list[dict[str, Any]]:
    tenant = {"type": "string", "pattern": "^[a-z][a-z0-9-]{0,62}$"}
    found = [{"name": "tenant", "in": "path", "required": True, "schema": tenant, "description": "The token's tenant"}]
    uuid = {"type": "string", "format": "uuid"}
    found += [{"name": name, "in": "path", "required": True, "schema": uuid} for name in route.ids]
    if route.query is not None:
        properties = route.query.model_json_schema()["properties"]
        found += [_parameter(name, schema) for name, schema in properties.items()]
    if route.idempotent:
        told = "The same key with the same request answers the task that it made the first time"
        schema = {"type": "string", "pattern": KEY_PATTERN, "minLength": 1, "maxLength": 255}
        found.append({"name": "Idempotency-Key", "in": "header", "schema": schema, "description": told})
    if route.cached:
        found.append({"name": "If-None-Match", "in": "header", "schema": {"type": "string"}})
    return found


def _parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter of the query; leaving it out is how it is null."""
    schema = {k: v for k, v in schema.items() if k != "title"}
    description = schema.pop("description", None)
    choices = [each for each in schema.pop("anyOf", []) if each != {"type": "null"}]
    if choices:
        schema = {**choices[0], **{k: v for k, v in schema.items() if k != "default"}}
        description = schema.pop("description", description)
    told = {"description": description} if description else {}
    return {"name": name, "in": "query", "required": False, "schema": schema, **told}


def _responses(route: Route) -> dict[str, Any]:
    found = {str(route.status): _success(route)}
    if route.cached:
        found["304"] = {"description": "The caller has it"}
    statuses = {*_ALWAYS, *route.problems, 400}
    statuses |= {404} if route.ids or route.body else set()
    statuses |= {413, 415} if route.body else {413} if route.upload else set()
    for status in sorted(statuses):
        found[str(status)] = _problem(status)
    return dict(sorted(found.items()))


def _success(route: Route) -> dict[str, Any]:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in ("RateLimit", "RateLimit-Policy")}
    if route.located is not None:
        headers["Location"] = {"$ref": "#/components/headers/Location"}
    found: dict[str, Any] = {"description": HTTPStatus(route.status).phrase, "headers": headers}
    if isinstance(route.answer, str):
        found["content"] = {route.answer: {}}
    elif route.answer is not None:
        found["content"] = {"application/json": {"schema": _ref(route.answer)}}
    return found


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": _MEANING[status],
        "content": {problems.MEDIA: {"schema": _ref(answers.Problem)}},
    }
    if status in {409, 429, 503}:
        found["headers"] = {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return found


_HEADERS: Final = {
    "Location": {"description": "Where the new thing is", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait", "schema": {"type": "string", "pattern": "^[0-9]+$"}},
    "RateLimit": {"description": "What the tenant has left: r requests in t seconds", "schema": {"type": "string"}},
    "RateLimit-Policy": {"description": "What it may: q requests in w seconds", "schema": {"type": "string"}},
}


def _service_paths() -> dict[str, Any]:
    told: dict[str, Any] = {"tags": ["service"], "security": []}
    any_object = {"application/json": {"schema": {"type": "object"}}}
    ok = {"200": {"description": "OK", "content": any_object}}
    away = {"503": {"description": "Database or broker are away", "content": any_object}}
    health = {"operationId": "health", "summary": "Whether the service can work", "responses": ok | away, **told}
    itself = {"operationId": "openapi", "summary": "This document", "responses": ok, **told}
    return {"/health": {"get": health}, f"{PREFIX}/openapi.json": {"get": itself}}


def _schemas(routes: Iterable[Route]) -> dict[str, Any]:
    bodies = {route.body for route in routes if route.body is not None}
    found = {route.answer for route in routes if isinstance(route.answer, type)} | {answers.Problem}
    wanted = [(model, "validation") for model in sorted(bodies | found, key=lambda model: model.__name__)]
    _, definitions = models_json_schema(wanted, ref_template=_REF)  # type: ignore[arg-type]  # literals in a list
    schemas_by_name: dict[str, Any] = definitions["$defs"]
    return schemas_by_name


def _ref(model: type[schemas.Model]) -> dict[str, str]:
    return {"$ref": _REF.format(model=model.__name__)}
