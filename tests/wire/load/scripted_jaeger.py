"""Answers as a Jaeger does: recorded ones by path, and spans that it keeps, some of which it may lose."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit


class ScriptedJaeger:
    """Both sides at one address: ``/api/v3`` and ``/v1/traces``."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, list[str]]]] = []
        self.posts: list[int] = []
        #: Answers that were recorded, by path: status and body.
        self.recorded: dict[str, tuple[int, bytes]] = {}
        #: Whether it keeps a span that it was sent.
        self.keeps: Callable[[dict[str, Any]], bool] = lambda _: True
        self._spans: dict[str, list[dict[str, Any]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=lambda: self._server.serve_forever(poll_interval=0.01))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, body: bytes) -> tuple[int, bytes]:
        self.posts.append(len(body))
        for resource in json.loads(body)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in filter(self.keeps, scope["spans"]):
                    alone = {"resource": resource["resource"], "scopeSpans": [{"scope": {}, "spans": [span]}]}
                    self._spans.setdefault(span["traceId"], []).append(alone)
        return 200, b'{"partialSuccess":{}}'

    def tell(self, path: str) -> tuple[int, bytes]:
        if path == "/api/v3/services":
            return 200, b'{"services":["mail-api"]}'
        resources = self._spans.get(path.rpartition("/")[2])
        if resources is None:
            return 404, b'{"error":{"httpCode":404,"message":"No traces found"}}'
        # A stream: one envelope a span, one behind the other.
        return 200, b"\n".join(json.dumps({"result": {"resourceSpans": [r]}}).encode() for r in resources)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        jaeger = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                jaeger.requests.append((parts.path, parse_qs(parts.query)))
                self._reply(*(jaeger.recorded.get(parts.path) or jaeger.tell(parts.path)))

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self._reply(*(jaeger.recorded.get(self.path) or jaeger.take(body)))

            def _reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """A test's output is the test's."""

        return Handler
