"""Answers the load as the API of the product does: accepts, settles, tells by the feed; misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, dict[str, Any]]


class SmallApi:
    """Accepts every POST, unless ``answer`` says otherwise for the nth; what was accepted is settled at once."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        #: Given the number of a POST: a status to answer with, "drop" to hang up, "forget" to accept and never settle.
        self.answer: Callable[[int], int | str | None] = lambda _: None
        #: Seconds during which nothing is answered, from the first POST on.
        self.stall_s = 0.0
        self._stall_until = 0.0
        self._lock = threading.Lock()
        self._settled: dict[str, list[dict[str, Any]]] = {}
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

    def settle(self, tenant: str, task_id: str) -> None:
        """Put a task at the end of a tenant's feed."""
        now = time.time_ns()
        row = {"task_id": task_id, "name": "email_service.tasks.send_email", "queue": "send", "state": "succeeded"}
        row |= {"outcome": None, "trace_id": "0" * 32, "enqueued_ns": now, "due_ns": now, "started_ns": now}
        with self._lock:
            self._settled.setdefault(tenant, []).append(row | {"ended_ns": now, "executions": 1})

    def post(self, handler: BaseHTTPRequestHandler) -> Answer | None:
        with self._lock:
            number = len(self.requests)
            self._stall_until = self._stall_until or time.monotonic() + self.stall_s
            length = int(handler.headers.get("Content-Length") or 0)
            body = handler.rfile.read(length)
            self.requests.append({"path": handler.path, "headers": dict(handler.headers), "body": body})
        threading.Event().wait(max(0.0, self._stall_until - time.monotonic()))
        special = self.answer(number)
        if special == "drop":
            return None
        if isinstance(special, int):
            return special, {"type": "about:blank", "title": "Scripted", "status": special, "detail": f"n {number}"}
        task_id = f"task-{number}"
        if special != "forget":
            self.settle(handler.path.split("/")[3], task_id)
        return 202, {"task_id": task_id, "message_id": f"<{task_id}@acme.example>", "status_url": "/"}

    def feed(self, path: str) -> Answer:
        parts = urlsplit(path)
        query = parse_qs(parts.query)
        after, limit = int(query.get("after", ["0"])[0]), int(query["limit"][0])
        with self._lock:
            rows = self._settled.get(parts.path.split("/")[3], [])[after : after + limit]
        return 200, {"tasks": rows, "cursor": str(after + len(rows)) if after + len(rows) else None}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self._reply(api.post(self))

            def do_GET(self) -> None:
                self._reply(api.feed(self.path))

            def _reply(self, answer: Answer | None) -> None:
                if answer is None:
                    self.close_connection = True
                    return
                status, value = answer
                body = json.dumps(value).encode()
                head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                self.wfile.write(head.encode() + body)

            def log_message(self, *_: object) -> None:
                """A test's output is the test's."""

        return Handler
