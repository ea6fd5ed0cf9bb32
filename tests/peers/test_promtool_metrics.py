"""Prometheus' own tool on what the exporter serves and on what a run is exported as."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from programs import find_program
from prometheus_client import generate_latest

from email_service import policy, signals
from email_service.exporter import Cursor, Exporter, Inputs
from email_service.exporter.broker import Ages, Depth
from email_service.registry import Worker
from mailrig.cli import main

TINY = Path(__file__).parents[1] / "runs" / "tiny"


@pytest.fixture(scope="module")
def promtool():
    return find_program("prometheus", "promtool")


def run(*argv, stdin=None):
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)


def row(rule, outcome, error_type, step):
    return {
        "name": rule.name, "queue": rule.queue, "ordinal": 1, "outcome": outcome, "trace_id": "a" * 32,
        "trace_flags": "01", "duration_s": 0.2, "queue_s": 0.03, "error_type": error_type, "steps": {step: 0.1},
        "state": "failed", "job_error_type": error_type, "failures": 1, "worker_s": 0.2,
        "recipients": [["sent", 250], ["failed", 550], ["unknown", None]], "proven": None,
    }  # fmt: skip


def everything():
    """An exporter that shows each metric at least once."""
    rules = list(policy.TASKS.values())
    rows = [
        row(rules[i % len(rules)], signals.EXECUTION_OUTCOMES[i % 5], signals.ERROR_TYPES[i % 29], step)
        for i, step in enumerate(signals.MAIL_STEPS * 5)
    ]
    sizes = {"rss": 1, "pss": 2, "uss": 3}
    worker = Worker(
        node="mail@h",
        concurrency=4,
        started_s=1.0,
        capacity=4,
        memory={"main": sizes},
        cgroup={"current": 1, "limit": 2},
    )
    served = Exporter(
        Inputs(
            ended=lambda after: (rows if after == Cursor() else [], Cursor(executions=("1", "1"))),
            removed=lambda: ("0", "0"),
            kept=dict,
            running=lambda: [{"node": "mail@h", "name": rules[0].name, "count": 1}],
            overdue=list,
            waiting=list,
            lag_s=float,
            depth=lambda: Depth(ready={}, unacked={}),
            workers=lambda: [worker],
            ages=lambda: Ages(beat_s=1.0, dispatchers_s={"h": 1.0}),
        )
    )
    served.refresh()
    return served


def test_promtool_finds_nothing_to_say_about_the_metrics(promtool):
    text = generate_latest(everything().registry).decode()
    assert all(f"# TYPE {metric.name}" in text for metric in signals.METRICS)
    done = run(promtool, "check", "metrics", stdin=text)
    assert (done.returncode, done.stderr + done.stdout) == (0, "")


def test_promtool_makes_blocks_of_exported_runs(promtool, tmp_path):
    text, blocks = tmp_path / "runs.om", tmp_path / "blocks"
    assert main(["export", str(TINY), str(TINY), "-o", str(text)]) == 0
    done = run(promtool, "tsdb", "create-blocks-from", "openmetrics", str(text), str(blocks))
    assert done.returncode == 0, done.stderr
    listed = run(promtool, "tsdb", "list", str(blocks))
    # Both runs are in it, each with all of its samples.
    samples = sum(not line.startswith("#") for line in text.read_text().splitlines())
    assert sum(int(line.split()[4]) for line in listed.stdout.splitlines()[1:]) == samples
