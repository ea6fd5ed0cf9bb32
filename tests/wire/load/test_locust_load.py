"""The load over real HTTP. Each test is a Locust process of its own: importing Locust patches the importer."""

from __future__ import annotations

import json
import re
import signal
import socket
import sys

import pytest
from locust_bench import ARRIVALS

from mailrig.history import read_history


def ops(bench, *, f=("send", "sync"), kind="invoke"):
    return [op for op in read_history(bench.history) if op.f in f and op.type == kind]


def test_every_arrival_is_asked_at_its_time_with_its_own_key_and_trace_and_seen_to_its_end(bench):
    code, output = bench.run()
    assert code == 0, output
    invoked, accepted, completed = ops(bench), ops(bench, kind="ok"), ops(bench, f=("complete",), kind="ok")
    assert [op.value["arrival"] for op in invoked] == list(range(ARRIVALS))
    assert len(accepted) == len(bench.api.requests) == ARRIVALS
    assert {op.value["task_id"] for op in completed} == {op.value["task_id"] for op in accepted}
    assert {op.process for op in completed} == {"feed:acme", "feed:globex"}
    assert all(0 <= op.value["lag_ns"] < 500_000_000 for op in invoked)
    headers = [request["headers"] for request in bench.api.requests]
    assert len({h["Idempotency-Key"] for h in headers}) == ARRIVALS
    traces = {re.fullmatch(r"00-([0-9a-f]{32})-[0-9a-f]{16}-01", h["traceparent"])[1] for h in headers}
    assert traces == {op.value["trace_id"] for op in invoked}
    assert {h["Authorization"] for h in headers} == {"Bearer token-of-acme", "Bearer token-of-globex"}
    assert "token-of" not in bench.history.read_text() + output


def test_a_send_asks_for_what_its_history_says(bench):
    assert bench.run()[0] == 0
    by_key = {request["headers"]["Idempotency-Key"]: request for request in bench.api.requests}
    for op in ops(bench, f=("send",)):
        body = json.loads(by_key[op.value["idempotency_key"]]["body"])
        assert {role: body[role] for role in ("to", "cc", "bcc")} == {r: op.value[r] for r in ("to", "cc", "bcc")}
        assert len(body["attachment_ids"]) == op.value["attachments"]


def test_the_warm_up_is_marked_and_its_start_is_in_the_history(bench):
    bench.run()
    (start,) = [op for op in read_history(bench.history) if op.f == "phase"]
    assert start.value["name"] == "warmup"
    for op in ops(bench):
        assert op.value["warmup"] == (op.value["intended_ns"] - start.time_ns < 500_000_000)


def test_a_stalled_server_delays_no_arrival_and_shows_in_the_latency_from_the_intended_time(bench):
    bench.api.stall_s = 1.0
    code, output = bench.run()
    assert code == 0, output
    assert len(ops(bench, kind="ok")) == ARRIVALS
    assert max(op.value["lag_ns"] for op in ops(bench)) < 500_000_000
    latencies_s = [(op.time_ns - op.value["intended_ns"]) / 1e9 for op in ops(bench, kind="ok")]
    # Arrivals are spread evenly over the second of the stall: closed-loop load would have seen one slow answer.
    assert sum(latency > 0.5 for latency in latencies_s) >= 10


def test_a_refusal_is_fail_a_server_error_and_a_broken_connection_are_info_and_the_exit_code_is_0(bench):
    bench.api.answer = {3: 422, 4: 503, 5: "drop"}.get
    code, output = bench.run()
    assert code == 0, output
    (refused,) = ops(bench, kind="fail")
    assert (refused.value["status"], refused.error) == (422, "Scripted: n 3")
    unknown = ops(bench, kind="info")
    assert sorted(op.value["status"] or 0 for op in unknown) == [0, 503]
    assert len(bench.api.requests) == ARRIVALS, "a POST that may have been processed was sent again"


def test_what_never_settles_ends_with_the_drain_and_is_left_to_the_checkers(bench):
    bench.api.answer = {7: "forget"}.get
    code, output = bench.run()
    assert code == 0, output
    settled = {op.value["task_id"] for op in ops(bench, f=("complete",), kind="ok")}
    assert {op.value["task_id"] for op in ops(bench, kind="ok")} - settled == {"task-7"}


def test_what_had_ended_before_the_load_is_none_of_it(bench):
    for number in range(1200):
        bench.api.settle("acme", f"old-{number}")
    assert bench.run()[0] == 0
    assert not [op for op in ops(bench, f=("complete",), kind="ok") if op.value["task_id"].startswith("old-")]


def test_locust_shows_accept_queue_run_and_end_to_end_times(bench):
    _, output = bench.run()
    for name in ("API +accept send", "API +accept sync", "TASK +queue send", "TASK +run send", "TASK +e2e send"):
        assert re.search(name, output), name


@pytest.mark.parametrize("text", [None, "{}", "not JSON"])
def test_without_a_stack_it_says_so_in_one_line_and_exits_with_2(bench, text):
    (bench.folder / "stack.json").unlink()
    if text is not None:
        bench.write_stack(text)
    code, output = bench.run()
    assert code == 2
    assert "mailrig up" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    "history",
    [
        pytest.param("/dev/full", marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux has /dev/full")),
        "scenario.toml/history.jsonl",
    ],
)
def test_a_generator_that_breaks_exits_with_2(bench, history):
    code, output = bench.run(MAILRIG_HISTORY=history)
    assert code == 2
    assert "mailrig: the load generator failed: " in output


def test_sigterm_writes_down_what_was_under_way(bench):
    bench.api.stall_s = 30.0
    with bench.start() as process:
        while not bench.api.requests:
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    bench.api._stall_until = 1.0
    assert {op.error for op in ops(bench, kind="info")} == {"broken off"}
    assert len(ops(bench, kind="info")) == len(ops(bench))


def test_master_and_workers_share_the_schedule_out_by_its_number_modulo_theirs(bench):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    master = ("--master", "--expect-workers", "2", "--master-bind-port", port, "--master-bind-host", "127.0.0.1")
    with bench.start(*master) as head:
        workers = [bench.start("--worker", "--master-host", "127.0.0.1", "--master-port", port) for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0] for process in (head, *workers)]
    assert [process.returncode for process in (head, *workers)] == [0, 0, 0], outputs
    parts = [read_history(bench.folder / name) for name in ("history.jsonl", "history.1.jsonl")]
    for worker, part in enumerate(parts):
        invoked = [op.value["arrival"] for op in part if op.type == "invoke"]
        assert invoked == list(range(worker, ARRIVALS, 2))
    assert len(bench.api.requests) == ARRIVALS
