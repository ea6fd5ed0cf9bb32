"""The exporter over HTTP."""

from __future__ import annotations

import socket
import threading
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from email_service import exporter, signals
from email_service.errors import ConfigError, DatabaseError
from email_service.exporter import Cursor, Inputs
from email_service.exporter.broker import Ages, Depth

TRACE = "a" * 32
ROW = {
    "xid": "10", "id": "1", "name": "email_service.tasks.send_email", "queue": "send", "ordinal": 1,
    "outcome": "succeeded", "trace_id": TRACE, "trace_flags": "01", "duration_s": 0.2, "queue_s": 0.03,
    "error_type": None, "steps": None, "state": "succeeded", "job_error_type": None, "failures": 0, "worker_s": 0.2,
    "recipients": None, "proven": None,
}  # fmt: skip


BEHIND = Cursor(executions=("10", "1"))


def inputs(**changes):
    options = {
        "ended": lambda after: ([ROW], BEHIND) if after == Cursor() else ([], after),
        "removed": lambda: ("0", "0"),
        "kept": dict,
        "running": list,
        "overdue": list,
        "waiting": list,
        "depth": lambda: Depth(ready={}, unacked={}),
        "workers": list,
        "lag_s": float,
        "ages": lambda: Ages(dispatchers_s={}),
    }
    return Inputs(**options | changes)


@pytest.fixture
def start():
    """Serves until the test ends; answers the port."""
    stop, threads = threading.Event(), []

    def serve(sources, host="127.0.0.1"):
        ready, ports = threading.Event(), []

        def announce(port):
            ports.append(port)
            ready.set()

        threads.append(threading.Thread(target=exporter.serve, args=(sources, host, 0, announce, stop)))
        threads[-1].start()
        assert ready.wait(10)
        return ports[0]

    yield serve
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def get(port, host="127.0.0.1", **headers):
    request = urllib.request.Request(f"http://{host}:{port}/metrics", headers=headers)
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


def test_prometheus_gets_openmetrics_with_the_trace_as_exemplar_when_it_asks(start):
    kind, body = get(start(inputs()), Accept="application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = {f.name: f for f in parse_openmetrics(body)}
    assert {m.name for m in signals.METRICS} <= set(families)
    buckets = families["mail_task_duration_seconds"].samples
    assert [s.exemplar.labels for s in buckets if s.exemplar] == [{"trace_id": TRACE}]


def test_anyone_else_gets_the_classic_format(start):
    kind, body = get(start(inputs()))
    assert kind.startswith("text/plain")
    assert {m.name for m in signals.METRICS} <= {f.name for f in parse_text(body)}


def test_the_first_scrape_has_all_that_was_there_before_it(start):
    _, body = get(start(inputs()))
    assert 'mail_task_success_total{queue="send",task="send_email"} 1.0' in body


def test_a_scrape_succeeds_with_every_source_away(start):
    def away(*_):
        raise DatabaseError("away")

    sources = inputs(ended=away, running=away, depth=away)
    _, body = get(start(sources))
    assert 'mail_exporter_up{source="database"} 0.0' in body
    assert 'mail_exporter_up{source="broker"} 0.0' in body


def test_one_family_may_be_asked_for_alone(start):
    port = start(inputs())
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics?name[]=mail_exporter_up", timeout=10) as response:
        names = {f.name for f in parse_text(response.read().decode())}
    assert names == {"mail_exporter_up"}


def test_a_client_that_says_nothing_keeps_nobody_waiting(start):
    port = start(inputs())
    with socket.create_connection(("127.0.0.1", port)):
        assert get(port)[1]


def test_a_port_that_is_taken_is_a_clear_error():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} can't be bound"):
            exporter.serve(inputs(), "127.0.0.1", port, lambda _: None, threading.Event())
