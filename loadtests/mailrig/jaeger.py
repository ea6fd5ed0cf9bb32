"""Jaeger as the rig sees it: spans go there as OTLP JSON over HTTP and are read back over ``/api/v3``.

Rule 1: a span is asked for as it was received (``rawTraces``): Jaeger moves spans in time that seem to begin before
their parents, and drops what it has twice. Rule 2: parameters are sent in both of Jaeger's spellings: 1.x and the
first 2.x know only ``query.start_time_min``, later ones call that deprecated and prefer ``query.startTimeMin``.
Rule 3: whatever goes wrong is a ``JaegerError`` of one line. Callers: runner and cli.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from mailrig.evidence import flatten_spans
from mailrig.scenario import RigError

#: Where OTLP over HTTP is received, on the host of the query side, unless we are told otherwise.
OTLP_PORT: Final = 4318
TIMEOUT_S: Final = 15.0
#: Bytes of one upload: receivers refuse more than 20 MiB, and a small one is soon answered.
BATCH_BYTES: Final = 2_000_000
_NOT_FOUND: Final = 404
_TOLD_CHARS: Final = 300
Row = Mapping[str, Any]


class JaegerError(RigError):
    """Jaeger, or whoever takes OTLP in its place, is away or refused what it was asked."""


class Jaeger:
    """The query side of a Jaeger."""

    def __init__(self, url: str) -> None:
        """``url`` such as ``http://127.0.0.1:16686``.

        Raises:
            JaegerError: it is not one.
        """
        self.url = checked_url(url, example="http://127.0.0.1:16686")

    def services(self) -> list[str]:
        """Who has sent spans. The cheapest question: whoever answers it is a Jaeger."""
        answer = self._get("/api/v3/services", {})
        if answer is None or not isinstance(answer[0], dict):
            raise JaegerError(f"{self.url} is no Jaeger: it has no /api/v3/services")
        return [str(name) for name in answer[0].get("services") or ()]

    def trace(self, trace_id: str) -> list[Row]:
        """All spans of a trace as flat rows (``Evidence.spans``), in no order; none when the trace is not known."""
        return _rows(self._trace(trace_id))

    def requests(self, trace_id: str) -> list[dict[str, Any]]:
        """All spans of a trace, as OTLP JSON export requests."""
        found = self._trace(trace_id)
        _rows(found)
        return found

    def _trace(self, trace_id: str) -> list[dict[str, Any]]:
        path = f"/api/v3/traces/{quote(trace_id, safe='')}"
        return _requests(self._get(path, {"rawTraces": "true", "raw_traces": "true"}) or [])

    def search(self, service: str, *, start_ns: int, end_ns: int, traces_max: int) -> list[Row]:
        """Spans of the traces of a service that began within a time, of ``traces_max`` traces at most."""
        both = {
            ("query.serviceName", "query.service_name"): service,
            ("query.startTimeMin", "query.start_time_min"): _rfc3339(start_ns),
            ("query.startTimeMax", "query.start_time_max"): _rfc3339(end_ns),
            ("query.searchDepth", "query.num_traces"): str(traces_max),
            ("query.rawTraces", "query.raw_traces"): "true",
        }
        parameters = {name: value for names, value in both.items() for name in names}
        return _rows(_requests(self._get("/api/v3/traces", parameters) or []))

    def _get(self, path: str, parameters: Mapping[str, str]) -> list[Any] | None:
        """The JSON values of an answer; None when it is 404."""
        url = f"{self.url}{path}" + (f"?{urlencode(parameters)}" if parameters else "")
        status, body = _ask(urllib.request.Request(url), self.url, what="Jaeger")  # noqa: S310  # checked_url
        if status == _NOT_FOUND:
            return None
        if status != http.client.OK:
            raise JaegerError(f"Jaeger at {self.url} answered {path} with {status}: {_told(body)}")
        try:
            return list(_values(body.decode()))
        except ValueError as err:
            raise JaegerError(f"Jaeger at {self.url} answered {path} with something that is not JSON") from err


class Otlp:
    """Whoever takes spans by OTLP/HTTP: a Jaeger, a collector."""

    def __init__(self, url: str) -> None:
        """``url`` such as ``http://127.0.0.1:4318``, with or without ``/v1/traces``.

        Raises:
            JaegerError: it is not one.
        """
        self.url = checked_url(url, example="http://127.0.0.1:4318").removesuffix("/v1/traces")

    def send(self, requests: Iterable[str]) -> int:
        """Send export requests, each a line of OTLP JSON; answers how many there were.

        Raises:
            JaegerError: nobody takes them, or not all of them.
        """
        count = 0
        for batch in _batches(requests):
            self._post([span for line in batch for span in json.loads(line)["resourceSpans"]])
            count += len(batch)
        return count

    def check(self) -> None:
        """Send nothing, to see that somebody would take it.

        Raises:
            JaegerError: nobody does.
        """
        self._post([])

    def _post(self, resource_spans: list[Any]) -> None:
        body = json.dumps({"resourceSpans": resource_spans}, separators=(",", ":")).encode()
        request = urllib.request.Request(  # noqa: S310  # checked_url
            f"{self.url}/v1/traces", data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        status, answer = _ask(request, self.url, what="OTLP over HTTP")
        if status != http.client.OK:
            raise JaegerError(f"OTLP over HTTP at {self.url} was answered with {status}: {_told(answer)}")
        try:
            partial = {} if answer.strip() in {b"", b"{}"} else json.loads(answer)["partialSuccess"] or {}
            rejected = int(partial.get("rejectedSpans") or 0)
        except (ValueError, KeyError, TypeError, AttributeError) as err:
            # Jaeger's query side answers any path with 200 and its page.
            raise JaegerError(f"{self.url} is not where OTLP over HTTP is received, such as port {OTLP_PORT}") from err
        if rejected:
            told = partial.get("errorMessage") or "it does not say why"
            raise JaegerError(f"OTLP over HTTP at {self.url}: {rejected} spans were rejected: {told}")


def otlp_beside(jaeger_url: str) -> str:
    """Where the Jaeger of this query side takes spans, unless somebody knows better."""
    parts = urlsplit(jaeger_url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{OTLP_PORT}"


def checked_url(text: str, *, example: str) -> str:
    """An address without its last slash.

    Raises:
        JaegerError: it is none of HTTP's, or it has a password, which would be shown.
    """
    try:
        parts = urlsplit(text)
        right = parts.scheme in {"http", "https"} and parts.hostname and not parts.query and not parts.fragment
        right = right and parts.port != 0  # reading it checks it
    except ValueError:
        right = False
    if not right:
        raise JaegerError(f"{text!r} is not an address such as {example}")
    if parts.username or parts.password:
        raise JaegerError(f"an address with a user or a password can't be used: give one such as {example}")
    return text.rstrip("/")


def _ask(request: urllib.request.Request, url: str, *, what: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310  # checked_url
            return answer.status, answer.read()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read()
    except (OSError, http.client.HTTPException) as err:
        reason = getattr(err, "reason", None) or err
        told = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        raise JaegerError(f"{what} at {url} does not answer: {told}") from err


def _told(body: bytes) -> str:
    """What an answer says of its error: gRPC's gateway, OTLP's status, or text."""
    text = body.decode(errors="replace").strip()
    try:
        value = json.loads(text)
        error = value.get("error", value)
        text = str(error.get("message") or text)
    except (ValueError, AttributeError):
        pass
    return " ".join(text.split())[:_TOLD_CHARS] or "nothing else"


def _values(text: str) -> Iterator[Any]:
    """JSON values one behind the other: a stream is answered in several."""
    decoder, position, text = json.JSONDecoder(), 0, text.strip()
    while position < len(text):
        value, position = decoder.raw_decode(text, position)
        yield value
        while position < len(text) and text[position].isspace():
            position += 1


def _requests(answer: Iterable[Any]) -> list[dict[str, Any]]:
    """The export requests in the envelopes of an answer. A scope whose spans were all dropped has no ``spans``."""
    found = []
    for envelope in answer:
        if not isinstance(envelope, dict) or "result" not in envelope:
            raise JaegerError(f"Jaeger broke off: {_told(json.dumps(envelope).encode())}")
        resources = envelope["result"].get("resourceSpans") or []
        for resource in resources:
            resource["scopeSpans"] = [scope for scope in resource.get("scopeSpans") or () if scope.get("spans")]
        found.append({"resourceSpans": resources})
    return found


def _rows(requests: Iterable[dict[str, Any]]) -> list[Row]:
    try:
        return list(flatten_spans(requests))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as err:
        raise JaegerError(f"Jaeger gave spans that are not OTLP JSON: {type(err).__name__}") from err


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch


def _rfc3339(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
