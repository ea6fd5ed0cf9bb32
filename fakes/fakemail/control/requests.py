"""What a request says, checked; what an answer says, also when it is an error.

Owns: the shape of a route, the reading of parameters with bounds, errors as JSON. Never does: mail, faults, the ledger.
Called by: every other module of this package.

Rule 1: a parameter that a route does not name is an error, not a wish that is lost.
Rule 2: every error is JSON with ``error`` (what), ``where`` and ``allowed``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from fakemail import FakemailError
from fakemail.control.shared import Shared
from fakemail.mailbox import ConflictError, NotFoundError

#: Largest message that can be put into a mailbox; the application's ``client_max_size``.
RAW_BYTES_MAX: Final = 64 * 1024 * 1024
#: Largest JSON document: a few thousand faults.
JSON_BYTES_MAX: Final = 1024 * 1024


class RequestError(FakemailError):
    """A request says what can't be understood or done."""

    def __init__(self, *, where: str, problem: str, allowed: str) -> None:
        super().__init__(f"{where}: {problem}; allowed: {allowed}")
        #: The parameter.
        self.where = where
        #: What would have been right.
        self.allowed = allowed


class TooLongError(RequestError):
    """The body is longer than is allowed."""

    def __init__(self, size_bytes_max: int) -> None:
        super().__init__(where="body", problem="too long", allowed=f"{size_bytes_max} bytes")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One request to one route."""

    shared: Shared
    #: From the path.
    path: Mapping[str, str]
    #: From the query, or from a JSON object.
    given: Mapping[str, Any]
    #: A message, or a JSON document that is no object; None where the route has none.
    body: Any
    request: web.Request

    def has(self, name: str) -> bool:
        """Whether the parameter was given at all."""
        return name in self.given

    def text(self, name: str, default: str | None = None) -> str:
        """Text that is not empty; without a default it must be there."""
        value = self.given.get(name, default)
        if not isinstance(value, str) or not value:
            raise RequestError(where=name, problem=_wrong(value), allowed="text that is not empty")
        return value

    def whole(self, name: str, default: int | None = None, *, least: int | None = 0, most: int | None = None) -> int:
        """A whole number within bounds; without a default it must be there."""
        value = self.given.get(name, default)
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
            value = int(value)
        inside = (
            isinstance(value, int)
            and not isinstance(value, bool)
            and (least is None or value >= least)
            and (most is None or value <= most)
        )
        if not inside:
            bounds = f"{'' if least is None else f' from {least}'}{'' if most is None else f' to {most}'}"
            raise RequestError(where=name, problem=_wrong(value), allowed=f"a whole number{bounds}")
        return int(value)

    def number(self, name: str, default: float, *, most: float) -> float:
        """A number from 0 to ``most``."""
        value = self.given.get(name, default)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,12})?", value):
            value = float(value)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise RequestError(where=name, problem=_wrong(value), allowed=f"a number from 0 to {most:g}")
        return float(value)

    def truth(self, name: str, *, default: bool | None = None) -> bool | None:
        """Yes or no: true and false, or 1 and 0 in a query."""
        value = self.given.get(name, default)
        if value is None or isinstance(value, bool):
            return value
        # A tuple: what is given may be a list, and no list is in a set.
        if value not in ("0", "1", "true", "false"):
            raise RequestError(where=name, problem=_wrong(value), allowed="true or false")
        return value in ("1", "true")

    def texts(self, name: str) -> list[str]:
        """Any number of texts: a JSON list, or a parameter that is repeated."""
        value = self.given.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
            raise RequestError(where=name, problem=_wrong(value), allowed="a list of texts")
        return value


Handler = Callable[[Call], Awaitable[Any]]


@dataclass(frozen=True, kw_only=True)
class Route:
    """One endpoint: as it is served, as ``GET /`` lists it, as the README's table shows it."""

    method: str
    path: str
    #: One sentence.
    about: str
    handler: Handler
    #: Parameters that may be given: in the query, and in the JSON object where ``body`` says so.
    names: tuple[str, ...] = ()
    #: "" none, "object" (holds ``names``), "document" (any JSON) or "raw" (a message; ``names`` are in the query).
    body: str = ""
    status: int = 200

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Read, check, do, answer."""
        size_bytes_max = RAW_BYTES_MAX if self.body == "raw" else JSON_BYTES_MAX
        if (request.content_length or 0) > size_bytes_max:
            raise TooLongError(size_bytes_max)
        given = {name: _one(request.query.getall(name)) for name in request.query}
        body: Any = None
        if self.body == "object":
            given |= await _object(request)
        else:
            body = await self._body(request)
        if unknown := sorted(given.keys() - set(self.names)):
            allowed = ", ".join(self.names) or "no parameters"
            raise RequestError(where=unknown[0], problem="not known here", allowed=allowed)
        shared = request.app[SHARED]
        call = Call(shared=shared, path=request.match_info, given=given, body=body, request=request)
        answer = await self.handler(call)
        return answer if isinstance(answer, web.StreamResponse) else web.json_response(answer, status=self.status)

    async def _body(self, request: web.Request) -> Any:
        if self.body == "raw":
            return await request.read()
        return await _json(request) if self.body == "document" else None


SHARED: Final = web.AppKey("shared", Shared)


def _one(values: list[str]) -> Any:
    return values[0] if len(values) == 1 else values


def _wrong(value: object) -> str:
    return (
        "missing"
        if value is None
        else f"{str(value)[:80]!r} given"
        if isinstance(value, str)
        else f"{value!r:.80} given"
    )


async def _json(request: web.Request) -> Any:
    text = bytearray()
    async for piece in request.content.iter_any():
        text += piece
        if len(text) > JSON_BYTES_MAX:
            raise TooLongError(JSON_BYTES_MAX)
    try:
        return json.loads(text)
    # RecursionError: a document of ten thousand brackets.
    except (ValueError, RecursionError) as err:
        raise RequestError(where="body", problem=f"no JSON ({err})", allowed="a JSON document") from err


async def _object(request: web.Request) -> dict[str, Any]:
    body = await _json(request) if request.can_read_body else {}
    if not isinstance(body, dict):
        raise RequestError(where="body", problem="no object", allowed="a JSON object")
    return body


#: Everything else that a user did wrong is 400.
_STATUS: Final[Mapping[type[FakemailError], int]] = {NotFoundError: 404, ConflictError: 409, TooLongError: 413}


@web.middleware
async def errors(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Any:
    """Every error is JSON that says what was wrong, where, and what is allowed."""
    try:
        return await handler(request)
    except FakemailError as err:
        status = next((code for kind, code in _STATUS.items() if isinstance(err, kind)), 400)
        return _told(str(err), status=status, where=getattr(err, "where", ""))
    except web.HTTPMethodNotAllowed as err:
        allowed = ", ".join(sorted(err.allowed_methods))
        return _told(f"{request.method} {request.path}: no such method; allowed: {allowed}", status=405)
    except web.HTTPNotFound:
        return _told(f"no endpoint {request.path}; allowed: those that GET / lists", status=404)
    except web.HTTPRequestEntityTooLarge:
        # It came in chunks, and only the message of ``raw`` is read by aiohttp.
        return _told(str(TooLongError(RAW_BYTES_MAX)), status=413, where="body")


def _told(text: str, *, status: int, where: str = "") -> web.Response:
    allowed = text.partition("; allowed: ")[2]
    named = where or (found[1] if (found := re.match(r"(\w+): .*; allowed: ", text)) else "")
    return web.json_response({"error": text, "where": named, "allowed": allowed}, status=status)
