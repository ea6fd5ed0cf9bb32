"""Spans of this package: an error is told by its kind, as texts of servers name addresses. Called by its neighbours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from email_service.errors import SmtpError
from email_service.signals import ERROR_TYPE, SERVER_ADDRESS, SERVER_PORT, SMTP_REPLY_CODE
from email_service.smtp.endpoint import SmtpEndpoint
from email_service.steps import measured

TRACER = trace.get_tracer("email_service.smtp")


@contextmanager
def client_span(
    name: str, endpoint: SmtpEndpoint | None = None, *, attributes: Mapping[str, str | int | bool] | None = None
) -> Iterator[Span]:
    """A CLIENT span around one exchange."""
    peer: dict[str, str | int | bool] = {}
    if endpoint is not None:
        peer = {SERVER_ADDRESS: endpoint.host, SERVER_PORT: endpoint.port}
    with (
        measured(name),
        TRACER.start_as_current_span(
            name,
            kind=SpanKind.CLIENT,
            attributes={**peer, **(attributes or {})},
            record_exception=False,
            set_status_on_exception=False,
        ) as span,
    ):
        try:
            yield span
        except Exception as err:
            span.set_attribute(ERROR_TYPE, getattr(err, "code", type(err).__name__))
            if isinstance(err, SmtpError) and err.reply_code is not None:
                span.set_attribute(SMTP_REPLY_CODE, err.reply_code)
            span.set_status(StatusCode.ERROR)
            raise
