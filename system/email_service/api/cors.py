"""Which front ends of other origins may call (the Fetch standard's CORS protocol).

Tokens travel in a header, never in a cookie, so credentials are never allowed, and ``*`` is no danger by itself.
A preflight carries no token: it is answered before anybody is asked who they are.
"""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

_REQUEST_HEADERS: Final = "Authorization, Content-Type, Idempotency-Key, If-None-Match, traceparent, tracestate"
_SHOWN_HEADERS: Final = "Location, Retry-After, RateLimit, RateLimit-Policy, ETag, Content-Disposition"
_METHODS: Final = "GET, POST, PATCH, DELETE"
#: Seconds that a browser may remember the answer to a preflight.
_REMEMBERED_S: Final = 7200


def install(app: Flask, origins: tuple[str, ...]) -> None:
    """Answer preflights and mark answers; does nothing without origins."""
    if not origins:
        return
    anyone, known = "*" in origins, frozenset(origins)

    def allowed() -> str | None:
        origin = request.headers.get("Origin")
        if origin is None or not (anyone or origin in known):
            return None
        return "*" if anyone else origin

    def preflight() -> Response | None:
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in request.headers or not allowed():
            return None
        answer = Response(status=204)
        answer.headers["Access-Control-Allow-Methods"] = _METHODS
        answer.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
        answer.headers["Access-Control-Max-Age"] = str(_REMEMBERED_S)
        return answer

    def mark(answer: Response) -> Response:
        if not anyone:
            answer.headers.add("Vary", "Origin")
        if origin := allowed():
            answer.headers["Access-Control-Allow-Origin"] = origin
            answer.headers["Access-Control-Expose-Headers"] = _SHOWN_HEADERS
        return answer

    app.before_request(preflight)
    app.after_request(mark)
