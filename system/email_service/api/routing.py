"""One row per route: what it takes, what it answers, who carries it out. Flask and the OpenAPI document are made of it.

A handler gets a ``Call`` and the ids of the path, and answers what the row says; it never touches Flask's request.
Callers: the modules of routes fill tables, ``app`` and ``openapi`` read them.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final

from flask import Request, Response
from pydantic import ValidationError
from sqlalchemy.orm import Session
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from email_service.api.schemas import Model, wrong_fields
from email_service.celery_app import MailCelery
from email_service.errors import FieldsError, NotFoundError
from email_service.service.work import Tools
from email_service.tenancy import Scope

PREFIX: Final = "/api/v1"
#: Visible ASCII and spaces, as long as the draft standard's customary bound.
KEY_PATTERN: Final = r"^[\x20-\x7e]{1,255}$"
_KEY: Final = re.compile(KEY_PATTERN.removesuffix("$") + r"\Z")
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file that came as multipart/form-data."""

    filename: str
    content_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One authenticated request."""

    tools: Tools
    celery: MailCelery
    scope: Scope
    #: Where the tenant's paths begin, as the caller sees them.
    base: str
    #: An instance of the route's models.
    body: Any = None
    query: Any = None
    #: Reads the upload; for the one route that takes one.
    upload: Callable[[], Upload]
    idempotency_key: str | None = None
    #: What the caller has already.
    etag: str | None = None

    def session(self) -> AbstractContextManager[Session]:
        """The rows of who asks."""
        return self.tools.database.session(self.scope)

    def reading(self) -> AbstractContextManager[Session]:
        """The rows of who asks, to be looked at alone."""
        return self.tools.database.session(self.scope, read_only=True)


@dataclass(frozen=True, kw_only=True)
class Route:
    """One method of one path."""

    method: str
    #: Below /api/v1/{tenant}; ids in braces.
    path: str
    handler: Callable[..., Any]
    #: operationId, and what the document says of it.
    name: str
    summary: str
    tag: str
    query: type[Model] | None = None
    body: type[Model] | None = None
    #: multipart/form-data with one part named ``file``.
    upload: bool = False
    #: Of success, and what it holds: a model, a media type of bytes, or nothing (204).
    status: int = 200
    answer: type[Model] | str | None = None
    #: The member of the answer that says where the new thing is: an id below this path, or a path.
    located: str | None = None
    #: Takes If-None-Match.
    cached: bool = False
    #: Takes an Idempotency-Key.
    idempotent: bool = False
    #: Statuses of problems besides those that any route answers.
    problems: tuple[int, ...] = ()

    @property
    def rule(self) -> str:
        """Flask's form of the path."""
        return PREFIX + "/<tenant>" + _PARAMETER.sub(r"<\1>", self.path)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the ids in the path."""
        return tuple(_PARAMETER.findall(self.path))


class Table:
    """The routes of one subject."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        self.routes: list[Route] = []

    def route(self, method: str, path: str, **facts: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Add the decorated handler; its docstring's first line is the summary."""

        def add(handler: Callable[..., Any]) -> Callable[..., Any]:
            name = handler.__name__.removeprefix("_")
            summary = (handler.__doc__ or "").strip().partition("\n")[0].rstrip(".")
            row = Route(method=method, path=path, handler=handler, name=name, summary=summary, tag=self.tag, **facts)
            self.routes.append(row)
            return handler

        return add


def read_body(model: type[Model], request: Request) -> Model:
    """The JSON of a request.

    Raises:
        FieldsError: names each field that is wrong.
        UnsupportedMediaType: it does not say that it is JSON.
        RequestEntityTooLarge: it is larger than is read here.
    """
    if not request.is_json:
        raise UnsupportedMediaType("send a JSON object with Content-Type: application/json")
    try:
        return model.model_validate_json(_read(request))
    except ValidationError as err:
        raise _refusal(wrong_fields(err, model, where="pointer"), "pointer") from None


def _read(request: Request) -> bytes:
    data = request.get_data(cache=False)
    # Werkzeug cuts a body whose length nobody told (chunked) at the limit, without a word (3.1, LimitedStream.readall).
    if request.content_length is None and len(data) >= (request.max_content_length or math.inf):
        raise RequestEntityTooLarge
    return data


def read_query(model: type[Model], request: Request) -> Model:
    """The parameters of a request.

    Raises:
        FieldsError: names each parameter that is wrong.
    """
    try:
        return model.model_validate(request.args.to_dict())
    except ValidationError as err:
        raise _refusal(wrong_fields(err, model, where="parameter"), "parameter") from None


def read_key(request: Request) -> str | None:
    """The Idempotency-Key.

    Raises:
        FieldsError: it is empty, too long or not ASCII.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.match(key):
        detail = "must have 1 to 255 visible ASCII characters"
        raise FieldsError(f"Idempotency-Key {detail}", fields=({"header": "Idempotency-Key", "detail": detail},))
    return key


def read_ids(route: Route, texts: dict[str, str]) -> dict[str, uuid.UUID]:
    """The ids of a path; what is none names nothing that there is.

    Raises:
        NotFoundError: says which.
    """
    try:
        return {name: uuid.UUID(texts[name]) for name in route.ids}
    except ValueError:
        shown = ", ".join(f"{name.removesuffix('_id')} {texts[name][:80]!r}" for name in route.ids)
        raise NotFoundError(shown) from None


def _refusal(fields: tuple[dict[str, str], ...], where: str) -> FieldsError:
    told = "; ".join(f"{f[where].removeprefix('#/') or 'the body'}: {f['detail']}" for f in fields[:3])
    more = f"; and {len(fields) - 3} more" if len(fields) > 3 else ""  # noqa: PLR2004  # as many as were told
    return FieldsError(told + more, fields=fields[:100])


def json_answer(body: dict[str, Any], status: int) -> Response:
    """A JSON answer."""
    return Response(json.dumps(body, ensure_ascii=False), status=status, content_type="application/json")
