"""One log line a request: method, route, status, duration, and the trace that it is in. None for the health check.

Never the path, the query or a header: they name tenants, mailboxes and tokens. Called by app.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Final

from flask import Flask, Response, g, request

from email_service import telemetry

_log = logging.getLogger(__name__)

_UNLOGGED: Final = "health"
_PARAMETER: Final = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
_REFUSED, _BROKEN = 400, 500
#: Answers to those who are not who they say: the tenant in their path is anybody's.
_STRANGERS: Final = frozenset({401, 403})


def install(app: Flask) -> None:
    """Add the line to an application."""
    app.before_request(_begin)
    app.after_request(_told)


def _begin() -> None:
    g.begun_s = time.perf_counter()


def _told(answer: Response) -> Response:
    """Until the answer is made: its way over the wire is not in the duration."""
    if request.endpoint == _UNLOGGED:
        return answer
    status, duration_s = answer.status_code, time.perf_counter() - g.get("begun_s", time.perf_counter())
    method = request.method if request.method.isalpha() and len(request.method) < 10 else "?"  # noqa: PLR2004  # RFC 9110's are shorter
    route = _route()
    fields: dict[str, object] = {
        "method": method, "route": route, "status": status, "duration_s": round(duration_s, 6),
    }  # fmt: skip
    tenant = (request.view_args or {}).get("tenant")
    if tenant and status not in _STRANGERS:
        fields["tenant"] = telemetry.tenant_hash(str(tenant))
    _log.log(_level(status), "%s %s %d in %.1f ms", method, route, status, duration_s * 1e3, extra={"fields": fields})
    return answer


def _route() -> str:
    """As spans name it; what no rule fits is not repeated."""
    return "-" if request.url_rule is None else _PARAMETER.sub(r"{\1}", request.url_rule.rule)


def _level(status: int) -> int:
    if status < _REFUSED:
        return logging.INFO
    return logging.WARNING if status < _BROKEN else logging.ERROR
