"""A finished span as one line of OTLP JSON, put together from text, without what must not leave the process. Pure.

The line is the JSON of an OTLP request with one span, so a file of them is what collectors and Jaeger's UI read.
Called by ``spanfile``; ``collector`` takes the same away from what it sends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.trace import SpanKind

from email_service import signals

if TYPE_CHECKING:
    from email_service.telemetry.spans import Span

#: What never leaves the process: what an exception said, and the address of a request, which names its tenant
#: (``http.route`` says where it went).
_RAW: Final = frozenset({
    "exception.message", "exception.stacktrace", "http.target", "http.url", "url.path", "url.query", "url.full",
})  # fmt: skip
_KINDS: Final = {
    SpanKind.INTERNAL: 1, SpanKind.SERVER: 2, SpanKind.CLIENT: 3, SpanKind.PRODUCER: 4, SpanKind.CONSUMER: 5,
}  # fmt: skip


class Constant(dict[str, Any]):
    """Attributes that many spans have in common, written down as text once; not to be changed."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        super().__init__(clean(attributes))
        self.text: Final = attributes_text(self)


def clean(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Without what must not leave."""
    return {k: v for k, v in attributes.items() if k not in _RAW and v is not None}


def head_of(resource: Mapping[str, Any], scope: str) -> str:
    """What comes before a span: whose it is."""
    whose = f'{{"attributes":[{attributes_text(resource)}]}}'
    schema = f'"schemaUrl":"{url}",' if (url := schema_of(scope)) else ""
    return (
        f'{{"resourceSpans":[{{"resource":{whose},"scopeSpans":[{{"scope":{{"name":{_quoted(scope)}}},{schema}"spans":['
    )


def schema_of(scope: str) -> str:
    """The conventions that the names of a scope's spans follow; what a foreign instrumentation follows is not known."""
    return signals.SCHEMA_URL if scope.startswith("email_service") else ""


#: What comes after it.
TAIL: Final = "]}]}]}\n"


def span_text(span: Span) -> str:
    """The span itself."""
    context, parent, events, links = span.context, span.parent, span.events, span.links
    attributes = attributes_text(span.own) if span.own else ""
    if span.constant:
        attributes = f"{span.constant.text},{attributes}" if attributes else span.constant.text
    return (
        f'{{"traceId":"{context.trace_id:032x}","spanId":"{context.span_id:016x}",'
        f'"parentSpanId":"{f"{parent.span_id:016x}" if parent else ""}","name":{_quoted(span.name)},'
        f'"kind":{_KINDS[span.kind]},"startTimeUnixNano":"{span.start_time}","endTimeUnixNano":"{span.end_time}",'
        f'"attributes":[{attributes}],"status":{{"code":{span.status_code.value}}},'
        f'"events":[{",".join(map(_event, events)) if events else ""}],'
        f'"links":[{",".join(map(_link, links)) if links else ""}]}}'
    )


def _event(event: Any) -> str:
    attributes = attributes_text(event.attributes)
    return f'{{"timeUnixNano":"{event.timestamp}","name":{_quoted(event.name)},"attributes":[{attributes}]}}'


def _link(link: Any) -> str:
    attributes = f',"attributes":[{attributes_text(link.attributes)}]' if link.attributes else ""
    return f'{{"traceId":"{link.context.trace_id:032x}","spanId":"{link.context.span_id:016x}"{attributes}}}'


def attributes_text(attributes: Mapping[str, Any]) -> str:
    """The attributes in their order, with commas between; those that are raw or None are left out."""
    return ",".join([
        _key(k) + _TEXTS.get(type(v), _other)(v) for k, v in attributes.items() if k not in _RAW and v is not None
    ])  # fmt: skip


@lru_cache(maxsize=1024)
def _key(name: str) -> str:
    return f'{{"key":{_quoted(name)},"value":'


_quoted: Final[Callable[[str], str]] = encode_basestring_ascii


def _text(value: str) -> str:
    return f'{{"stringValue":{_quoted(value)}}}}}'


def _flag(value: bool) -> str:  # noqa: FBT001  # a value among others
    return '{"boolValue":true}}' if value else '{"boolValue":false}}'


def _whole(value: int) -> str:
    return f'{{"intValue":"{int(value)}"}}}}'


def _number(value: float) -> str:
    # protobuf's JSON writes what JSON has no number for as text.
    number = repr(float(value)) if math.isfinite(value) else f'"{_BEYOND.get(value, "NaN")}"'
    return f'{{"doubleValue":{number}}}}}'


_BEYOND: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _several(values: Any) -> str:
    # Each text closes its attribute as well: that brace is not theirs here.
    inner = ",".join(_TEXTS.get(type(v), _other)(v)[:-1] for v in values)
    return f'{{"arrayValue":{{"values":[{inner}]}}}}}}'


def _other(value: Any) -> str:
    """Whatever else it is: a subclass as what it is one of, anything as its text."""
    for kind, write in _TEXTS.items():
        if isinstance(value, kind):
            return write(value)
    return _text(str(value))


_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    str: _text, bool: _flag, int: _whole, float: _number, list: _several, tuple: _several,
}  # fmt: skip
