"""Spans over HTTP: to a collector that takes them, one that refuses, and one that swallows everything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from email_service import telemetry
from email_service.telemetry import collector

SECRET = "canary-7f3a"


class Receiver(ThreadingHTTPServer):
    """A collector that notes what it is sent, and answers with one status."""

    def __init__(self, status):
        super().__init__(("127.0.0.1", 0), Receiver.Handler)
        self.status, self.requests = status, []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.requests.append((self.path, self.headers, ExportTraceServiceRequest.FromString(body)))
            self.send_response(self.server.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    @property
    def names(self):
        return sorted(
            span.name
            for _, _, request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        )


@pytest.fixture
def receiver(request):
    with Receiver(getattr(request, "param", 200)) as server:
        yield server
        server.shutdown()


@pytest.fixture
def black_hole():
    """Connections are taken and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def untraced():
    telemetry.shutdown()
    yield
    telemetry.shutdown()


def test_a_collector_gets_every_span_with_its_header_and_its_service(receiver, caplog):
    telemetry.configure("api", span_dir=None, otlp_endpoint=receiver.url, otlp_headers={"x-key": SECRET})
    for number in range(600):
        with telemetry.tracer("x").start_as_current_span(str(number), attributes={"n": number, "few": ("a", "b")}):
            pass
    telemetry.shutdown()
    assert receiver.names == sorted(map(str, range(600)))
    path, headers, request = receiver.requests[0]
    assert (path, headers["x-key"]) == ("/v1/traces", SECRET)
    (resource,) = request.resource_spans
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "mail-api"
    assert caplog.records == []


def test_a_span_goes_to_the_file_and_to_the_collector(receiver, tmp_path):
    telemetry.configure("api", span_dir=tmp_path, otlp_endpoint=receiver.url)
    with telemetry.tracer("x").start_as_current_span("both"):
        pass
    telemetry.shutdown()
    assert receiver.names == ["both"]
    (file,) = tmp_path.iterdir()
    assert '"name":"both"' in file.read_text()


@pytest.mark.parametrize("receiver", [503], indirect=True)
def test_a_collector_that_refuses_is_asked_seldom_and_told_of_in_one_line(receiver, monkeypatch, caplog):
    monkeypatch.setattr(collector, "_REQUEST_S", 0.5)
    telemetry.configure("api", span_dir=None, otlp_endpoint=receiver.url, otlp_headers={"x-key": SECRET})
    for _ in range(3):
        with telemetry.tracer("x").start_as_current_span("s"):
            pass
    telemetry.shutdown()
    assert 1 <= len(receiver.requests) <= 3
    assert [r.getMessage() for r in caplog.records] == [
        "the collector takes no spans: they are lost until it does",
        "3 spans of 3 did not reach the collector",
    ]
    assert SECRET not in caplog.text


def test_a_collector_that_swallows_everything_holds_up_neither_work_nor_the_end_of_a_child(black_hole):
    program = (
        "import os, sys; from email_service import telemetry\n"
        "telemetry.configure('worker', span_dir=None, otlp_endpoint=sys.argv[1])\n"
        "def work():\n"
        "    for _ in range(5000):\n"
        "        with telemetry.tracer('x').start_as_current_span('s'): pass\n"
        "    telemetry.shutdown()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    work(); os._exit(7)\n"
        "work()\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
    )
    # The SDK's own processor would wait for 30 s, and send nothing in that time.
    done = subprocess.run(
        [sys.executable, "-c", program, black_hole], capture_output=True, text=True, timeout=25, check=True
    )
    assert done.stderr.splitlines() == ["5000 spans of 5000 did not reach the collector"] * 2


def test_a_child_sends_its_own_spans_and_not_what_its_parent_has_waiting(receiver):
    telemetry.configure("worker", span_dir=None, otlp_endpoint=receiver.url)
    with telemetry.tracer("x").start_as_current_span("parent"):
        pass
    pid = os.fork()
    if pid == 0:
        with telemetry.tracer("x").start_as_current_span("child"):
            pass
        telemetry.shutdown()
        os._exit(0)
    os.waitpid(pid, 0)
    telemetry.shutdown()
    assert receiver.names == ["child", "parent"]
