"""A real Jaeger: a run's spans go in while it goes on and are read back afterwards, those of a killed process too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import jaeger_server
import pytest
from programs import missing

from email_service import signals
from mailrig.evidence import flatten_spans, load_evidence
from mailrig.jaeger import Jaeger, Otlp

TINY = Path(__file__).parents[1] / "runs" / "tiny"
SCENARIO = """
name = "brief"
description = "Sends to a slow server; a child is killed while it waits for it."
seed = 5
[load]
arrivals = "constant"
warmup_s = 1
duration_s = 4
[[load.op]]
f = "send"
rate_per_s = 6
recipients_max = 2
[population]
tenants = 1
mailboxes = 2
messages_per_mailbox = 2
[system]
time_scale = 0.05
[[fault]]
id = "slow"
point = "smtp.data"
when = { first = 12 }
action = { delay_ms = 500 }
[[nemesis]]
at_s = 1.5
action = "kill-child"
[drain]
timeout_s = 20
[[gate]]
id = "trace-completeness"
metric = "trace.incomplete"
check = "== 0"
"""


@pytest.fixture(scope="module")
def jaeger(request, tmp_path_factory):
    try:
        path = jaeger_server.program(request.config.cache.mkdir("jaeger"))
    except jaeger_server.NoJaegerError as err:
        missing(f"no Jaeger: {err}")
    with jaeger_server.jaeger(path, tmp_path_factory.mktemp("jaeger")) as where:
        yield where


def mailrig(folder, *arguments):
    env = {k: v for k, v in os.environ.items() if k not in {"REDIS_URL", "DATABASE_URL"}}
    argv = [sys.executable, "-m", "mailrig", *arguments]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=240)
    return done.returncode, done.stdout + done.stderr


def same(rows):
    """Spans as they compare: in no order, attributes by name, and no empty status."""
    return sorted(json.dumps({**row, "links": sorted(row["links"])}, sort_keys=True) for row in rows)


def read_back(where, rows):
    asked = Jaeger(where.url)
    return [row for trace_id in sorted({row["trace_id"] for row in rows}) for row in asked.trace(trace_id)]


# The first test of all may have to build it.
@pytest.mark.timeout(jaeger_server.BUILD_S + 120)
def test_a_stored_run_is_uploaded_and_read_back_span_by_span(jaeger, tmp_path):
    run = shutil.copytree(TINY, tmp_path / "tiny")
    code, output = mailrig(tmp_path, "upload", str(run), "--otlp", jaeger.otlp)
    spans = load_evidence(run).spans
    assert (code, output) == (0, f"{len(spans)} spans are at {jaeger.otlp}\n")
    assert same(read_back(jaeger, spans)) == same(spans)


# A whole run: seconds on a machine of its own, a minute and a half on a crowded one.
@pytest.mark.timeout(300)
def test_a_run_with_a_kill_is_in_jaeger_as_it_is_in_the_span_files(jaeger, tmp_path):
    (tmp_path / "brief.toml").write_text(SCENARIO)
    code, output = mailrig(tmp_path, "run", "./brief.toml", "--jaeger", jaeger.url, "--otlp", jaeger.otlp)
    assert code == 0, output
    run = (tmp_path / "runs" / "brief" / "latest").resolve()
    evidence = load_evidence(run)
    killed = [s for s in evidence.spans if s["attributes"].get(signals.EXECUTION_OUTCOME) == "killed"]
    assert len(killed) == 1
    back = read_back(jaeger, evidence.spans)
    assert same(back) == same(evidence.spans)
    assert {row["trace_id"] for row in evidence.jaeger} == {span["trace_id"] for span in evidence.spans}
    gates = {gate["id"]: gate for gate in json.loads((run / "verdict.json").read_text())["gates"]}
    assert gates["jaeger-complete"]["verdict"] == "pass"
    assert evidence.run["jaeger_url"] == jaeger.url
    assert f'"{jaeger.url}"' in (run / "report.html").read_text()
    # Judged again without Jaeger, it says the same.
    assert mailrig(tmp_path, "check", "brief")[0] == 0


def test_a_search_finds_the_traces_of_a_service_and_a_time(jaeger):
    lines = (TINY / "evidence" / "spans.jsonl").read_text().splitlines()
    spans = list(flatten_spans(map(json.loads, lines)))
    Otlp(jaeger.otlp).send(lines)
    begins, ends = min(s["start_ns"] for s in spans), max(s["end_ns"] for s in spans)
    asked = Jaeger(jaeger.url)
    found = asked.search("mail-worker", start_ns=begins, end_ns=ends, traces_max=1000)
    worker = {s["trace_id"] for s in spans if s["service"] == "mail-worker"}
    assert {s["trace_id"] for s in found} == worker
    assert {s["span_id"] for s in found} == {s["span_id"] for s in spans if s["trace_id"] in worker}
    assert asked.search("mail-worker", start_ns=begins - 10**12, end_ns=begins - 1, traces_max=1000) == []


def test_a_span_file_is_what_jaeger_s_page_uploads(jaeger):
    """The page reads a file as JSON, else line by line, joins what is in ``resourceSpans``, and has it transformed."""
    text = (TINY / "evidence" / "spans.jsonl").read_text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    lines = [json.loads(line) for line in text.split("\n") if line.strip()]
    body = json.dumps({"resourceSpans": [resource for line in lines for resource in line["resourceSpans"]]}).encode()
    request = urllib.request.Request(
        f"{jaeger.url}/api/transform", data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        traces = json.loads(answer.read())["data"]
    spans = list(flatten_spans(lines))
    assert {span["spanID"] for trace in traces for span in trace["spans"]} == {span["span_id"] for span in spans}
    assert {trace["traceID"] for trace in traces} == {span["trace_id"] for span in spans}
