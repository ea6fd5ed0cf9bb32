"""Locust as people use it: its page, several processes of one machine, listeners of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress

from locust_bench import ARRIVALS, LOCUSTFILE

from mailrig.history import read_history

LISTENER = """
import json, pathlib
from locust import events
OUT = pathlib.Path("events.jsonl").open("a", buffering=1)
@events.request.add_listener
def note(request_type, name, response_time, context, **_):
    OUT.write(json.dumps([request_type, name, response_time, context]) + "\\n")
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return answer.read().decode()


@contextmanager
def page_of(bench, *options):
    """Locust with its page, and the page's port; whatever it has started is gone afterwards."""
    port = free_port()
    asked = ("--web-host", "127.0.0.1", "--web-port", port, "--autostart", *options)
    with bench.start(*asked, headless=False, session=True) as process:
        try:
            until(lambda: served(port), process)
            yield port, process
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=20)
            assert process.returncode == 0, output
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def served(port):
    with suppress(OSError), socket.create_connection(("127.0.0.1", int(port)), timeout=5):
        return True
    return False


def until(done, process):
    """Ask until it is so; Locust must live that long."""
    end_s, tick = time.monotonic() + 40, threading.Event()
    while not done():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end_s, "it did not come to be in 40 s"
        tick.wait(0.05)


def test_the_page_has_the_tabs_and_their_tables_after_a_test_as_well(bench):
    with page_of(bench) as (port, process):
        page = get(port, "/")
        # The start, and for each arrival what was asked, answered and completed.
        until(lambda: bench.history.exists() and len(read_history(bench.history)) == 3 * ARRIVALS + 1, process)
        shown, told = json.loads(get(port, "/stats/requests")), json.loads(get(port, "/mail"))
    arguments = json.loads(re.search(r"window\.templateArgs = (\{.*\})", page)[1])
    assert [tab["title"] for tab in arguments["extended_tabs"]] == ["Mail times", "Gates"]
    assert {part["key"] for part in shown["extended_stats"]} == {tab["key"] for tab in arguments["extended_tabs"]}
    assert not re.search(r'(?:src|href)="https?:', page), "the page asks another server"
    times = {row["name"]: row for row in told["times"]}
    # A third of the arrivals are the warm-up's. The small API says of every task that its queue is "send".
    assert {name: row["count"] for name, row in times.items() if "lag" not in name} == {
        "API accept send": 20,
        "API accept sync": 4,
        "TASK e2e send": 24,
        "TASK queue send": 24,
        "TASK run send": 24,
    }


def test_several_processes_of_one_machine_share_the_schedule_and_the_page_shows_all_of_it(bench):
    def accepted(port):
        return sum(row["count"] for row in json.loads(get(port, "/mail"))["times"] if "accept" in row["name"])

    between = free_port()
    options = ("--processes", "2", "--master-bind-port", between, "--master-port", between)
    with page_of(bench, *options) as (port, process):
        until(lambda: accepted(port) == 24, process)
    assert len(bench.api.requests) == ARRIVALS
    parts = [read_history(bench.folder / name) for name in ("history.jsonl", "history.1.jsonl")]
    asked = [op.value["arrival"] for part in parts for op in part if op.type == "invoke"]
    assert sorted(asked) == list(range(ARRIVALS))


def test_a_listener_gets_each_sample_with_its_trace_and_parts_of_a_millisecond(bench):
    listener = bench.folder / "listener.py"
    listener.write_text(LISTENER)
    code, output = bench.run(locustfiles=(LOCUSTFILE, listener))
    assert code == 0, output
    samples = [json.loads(line) for line in (bench.folder / "events.jsonl").read_text().splitlines()]
    asked = [sample for sample in samples if sample[0] == "API"]
    sent = {request["headers"]["traceparent"] for request in bench.api.requests}
    assert {context["traceparent"] for *_, context in asked} == sent
    assert all(context["traceparent"].split("-")[1] == context["trace_id"] for *_, context in asked)
    assert all(context["trace_id"] for kind, _, _, context in samples if kind == "TASK")
    assert any(ms != round(ms) for _, _, ms, _ in samples)
