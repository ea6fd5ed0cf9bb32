"""Answers that are no success: ``application/problem+json`` (RFC 9457), one form for all of them.

A task or a client of another tenant is 404, as if it did not exist. Fields that are wrong are listed under ``errors``.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from typing import Any, Final

from flask import Response
from werkzeug.exceptions import HTTPException

from email_service.errors import (
    BlobError,
    ConflictError,
    ConnectError,
    DatabaseError,
    HostNotAllowedError,
    InUseError,
    InvalidRequestError,
    MailServiceError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
)

_log = logging.getLogger(__name__)

MEDIA: Final = "application/problem+json"
#: The first that fits says the status and the title.
_STATUS: Final[tuple[tuple[type[MailServiceError], int, str], ...]] = (
    (NotFoundError, 404, "Not found"),
    (InUseError, 409, "In use"),
    (ConflictError, 422, "Idempotency key used with another request"),
    (HostNotAllowedError, 422, "Host not allowed"),
    (RateLimitError, 429, "Too many requests"),
    (InvalidRequestError, 400, "Request not valid"),
    (PermissionDeniedError, 404, "Not found"),
    (ConnectError, 422, "Host not found"),
    (DatabaseError, 503, "Database away"),
)
#: Seconds after which a request that met a passing obstacle may be sent again.
_RETRY_AFTER_S: Final = {409: 5, 503: 2}


def problem(
    status: int, title: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """One answer."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **members}
    answer = Response(json.dumps(body), status=status, content_type=MEDIA)
    answer.headers.update(headers or {})
    return answer


def on_service_error(err: MailServiceError) -> Response:
    """What the service refused."""
    for kind, status, title in _STATUS:
        if isinstance(err, kind):
            fields = getattr(err, "fields", ())
            return problem(
                status, title, err.detail, headers=_headers(err, status), **({"errors": fields} if fields else {})
            )
    if isinstance(err, BlobError):
        return _on_blob_error(err)
    return on_defect(err)


def _on_blob_error(err: BlobError) -> Response:
    _log.error("an attachment can't be stored or read (%s)", err.detail)
    if err.transient:
        return problem(503, "Attachments away", "try again", headers={"Retry-After": "2"})
    return problem(500, "Internal error", "it was logged")


def _headers(err: MailServiceError, status: int) -> dict[str, str]:
    if isinstance(err, RateLimitError):
        return {"Retry-After": str(max(1, math.ceil(err.retry_after_s)))}
    return {"Retry-After": str(_RETRY_AFTER_S[status])} if status in _RETRY_AFTER_S else {}


def on_http_error(err: HTTPException) -> Response:
    """What routing or the reading of the request refused; ``Allow`` stays."""
    headers = {
        name: value for name, value in err.get_headers() if name.lower() not in {"content-type", "content-length"}
    }
    return problem(err.code or 500, err.name, err.description or "", headers=headers)


def on_defect(err: Exception) -> Response:
    """What nobody expected."""
    _log.error("defect in a request", exc_info=err)
    return problem(500, "Internal error", "it was logged")
