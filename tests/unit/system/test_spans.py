"""Spans of our own: what the API promises, what is kept of them, and which are kept at all."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import random
import resource
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from sqlalchemy import create_engine, text

from email_service import telemetry
from email_service.telemetry import collector, lines, logs, provider, spanfile
from email_service.telemetry.context import sampled
from email_service.telemetry.spanfile import SpanFile, make_room
from email_service.telemetry.spans import Span

SECRET = "canary-7f3a"
PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


@pytest.fixture
def tracing(tmp_path):
    """Tracing into a folder; answers what reads the spans back, and is told the share of traces to keep."""
    telemetry.shutdown()

    def configured(ratio=1.0):
        telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None, ratio=ratio)
        return lambda: read(tmp_path)

    yield configured
    telemetry.shutdown()


def read(folder):
    texts = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    return [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in texts]


def made(name="s", *, attributes=None, links=(), finished=lambda _: None):
    context = SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1))
    return Span(name, context, None, SpanKind.CLIENT, attributes, links, 10, "scope", finished)


def written(span):
    """The span as a reader of its line has it."""
    span.end(end_time=20)
    (resource_spans,) = json.loads(lines.head_of({"pid": 1}, "scope") + lines.span_text(span) + lines.TAIL)[
        "resourceSpans"
    ]
    return resource_spans["scopeSpans"][0]["spans"][0]


def plain(attributes):
    return {a["key"]: value_of(a["value"]) for a in attributes}


def value_of(value):
    ((kind, held),) = value.items()
    if kind == "arrayValue":
        return [value_of(v) for v in held["values"]]
    return {"intValue": int, "doubleValue": float}.get(kind, lambda v: v)(held)


NAMES = st.text(min_size=1).filter(lambda name: name not in lines._RAW)
SINGLE = st.one_of(st.text(), st.booleans(), st.integers(), st.floats(allow_nan=False))


# --- what is written


@given(name=st.text(), attributes=st.dictionaries(NAMES, st.one_of(SINGLE, st.lists(SINGLE))))
def test_a_line_is_json_that_says_what_the_span_said(name, attributes):
    span = written(made(name, attributes=attributes))
    assert span["name"] == name
    assert plain(span["attributes"]) == attributes
    assert "\n" not in lines.span_text(made(name, attributes=attributes))


@given(attributes=st.dictionaries(NAMES, SINGLE), more=st.dictionaries(NAMES, SINGLE))
def test_attributes_that_are_written_down_beforehand_read_as_any_others(attributes, more):
    constant = lines.Constant(attributes)
    span = made(attributes=constant)
    span.set_attributes(more)
    assert dict(span.attributes) == attributes | more
    assert plain(written(span)["attributes"]) == attributes | more
    assert constant == attributes


def test_what_json_has_no_number_for_is_text_and_what_is_nothing_is_left_out():
    values = {"nan": math.nan, "up": math.inf, "down": -math.inf, "none": None, "other": {"a"}, "flag": SpanKind.CLIENT}
    attributes = {a["key"]: a["value"] for a in written(made(attributes=values))["attributes"]}
    assert [attributes[k]["doubleValue"] for k in ("nan", "up", "down")] == ["NaN", "Infinity", "-Infinity"]
    assert attributes["other"] == {"stringValue": "{'a'}"}
    assert "none" not in attributes


def test_a_link_and_an_event_are_written_and_a_description_is_not():
    other = SpanContext(3, 4, is_remote=True)
    span = made(links=[Link(other)])
    span.add_link(SpanContext(5, 6, is_remote=True), {"why": "retry"})
    span.add_event("cut", {"at": 1, "exception.message": SECRET}, timestamp=15)
    span.set_status(Status(StatusCode.ERROR, SECRET))
    found = written(span)
    assert [link["spanId"] for link in found["links"]] == [f"{4:016x}", f"{6:016x}"]
    assert plain(found["links"][1]["attributes"]) == {"why": "retry"}
    assert found["events"] == [
        {"timeUnixNano": "15", "name": "cut", "attributes": [{"key": "at", "value": {"intValue": "1"}}]}
    ]
    assert found["status"] == {"code": 2}
    assert SECRET not in json.dumps(found)


# --- what the API promises


def test_a_span_ends_once_and_is_not_changed_afterwards():
    ended = []
    span = made(finished=ended.append)
    span.end()
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.update_name("late")
    span.set_status(StatusCode.ERROR)
    span.add_link(SpanContext(5, 6, is_remote=True))
    assert ended == [span]
    assert not span.is_recording()
    assert (span.name, span.own, span.events, span.status_code, span.links) == ("s", {}, [], StatusCode.UNSET, ())


def test_a_status_that_is_ok_stands_and_unset_changes_nothing():
    span = made()
    span.set_status(StatusCode.ERROR)
    span.set_status(StatusCode.UNSET)
    assert span.status_code is StatusCode.ERROR
    span.set_status(Status(StatusCode.OK))
    span.set_status(StatusCode.ERROR)
    assert span.status_code is StatusCode.OK


@pytest.mark.parametrize("tells", [True, False])
def test_an_exception_leaves_its_type_if_the_tracer_was_asked_to_tell(tracing, tells):
    spans = tracing()
    options = {"record_exception": tells, "set_status_on_exception": tells}
    with pytest.raises(ValueError, match=SECRET), telemetry.tracer("x").start_as_current_span("s", **options):
        raise ValueError(SECRET)
    with pytest.raises(ValueError, match=SECRET), telemetry.tracer("x").start_span("s", **options):
        raise ValueError(SECRET)
    for span in spans():
        assert span["status"] == {"code": 2 if tells else 0}
        assert [plain(e["attributes"]) for e in span["events"]] == ([{"exception.type": "ValueError"}] if tells else [])


def test_what_stops_a_process_is_no_error_of_its_span(tracing):
    spans = tracing()
    with pytest.raises(SystemExit), telemetry.tracer("x").start_as_current_span("s"):
        raise SystemExit
    assert [(s["status"], s["events"]) for s in spans()] == [({"code": 0}, [])]


def test_a_span_that_is_to_go_on_is_not_ended_by_its_block(tracing):
    spans = tracing()
    with telemetry.tracer("x").start_as_current_span("s", end_on_exit=False) as span:
        pass
    assert spans() == []
    assert trace.get_current_span() is not span
    with trace.use_span(span, end_on_exit=True):
        assert trace.get_current_span() is span
    assert len(spans()) == 1


# --- which are kept


@given(trace_id=st.integers(1, 2**128 - 1), ratio=st.floats(0, 1))
def test_a_trace_is_kept_by_the_rule_of_opentelemetry(trace_id, ratio):
    decision = TraceIdRatioBased(ratio).should_sample(None, trace_id, "s").decision
    assert sampled(trace_id, ratio) == decision.is_sampled()


def test_all_of_a_trace_is_kept_or_none_of_it(tracing):
    spans = tracing(ratio=0.25)
    random.seed(5)
    roots = {}
    for _ in range(400):
        with telemetry.tracer("x").start_as_current_span("root") as root:
            context = root.get_span_context()
            roots[f"{context.trace_id:032x}"] = context.trace_flags.sampled
            for _ in range(2):
                with telemetry.tracer("x").start_as_current_span("inner") as inner:
                    assert inner.get_span_context().trace_id == context.trace_id
                    assert telemetry.traceparent(inner).endswith("-01" if context.trace_flags.sampled else "-00")
    kept = [s["traceId"] for s in spans()]
    assert {t for t, sampled_ in roots.items() if sampled_} == set(kept)
    assert all(kept.count(t) == 3 for t in set(kept))
    assert all(sampled(int(t, 16), 0.25) == sampled_ for t, sampled_ in roots.items())
    assert 60 < len(set(kept)) < 140


@pytest.mark.parametrize(("flag", "kept"), [("01", 1), ("00", 0)])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_whoever_began_the_trace_has_decided(tracing, flag, kept, ratio):
    spans = tracing(ratio=ratio)
    with telemetry.publish_span("send", "job", "task", tenant_id="acme", parent=PARENT[:-2] + flag):
        pass
    assert len(spans()) == kept


def test_an_execution_that_is_not_traced_has_its_ids_in_its_log_lines(tracing):
    spans = tracing(ratio=0.0)
    options = {"queue": "send", "task_id": "j", "task_name": "t", "tenant_id": "acme", "execution_id": "e"}
    times = {"received_ns": 1, "enqueued_or_due_ns": 1, "started_ns": 1}
    creation = PARENT[:-2] + "00"
    with (
        telemetry.process_span(**options, **times, creation=creation, span_id="c" * 16, ordinal=1, node="n") as span,
        telemetry.tracer("x").start_as_current_span("inner"),
    ):
        record = logging.LogRecord("x", logging.INFO, "x.py", 1, "m", (), None)
        line = json.loads(logs.JsonLines("mail-worker").format(record))
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "c" * 16)
    assert not span.is_recording()
    assert spans() == []


def test_where_spans_go_nowhere_nothing_is_instrumented_and_a_callers_trace_goes_on():
    telemetry.shutdown()
    telemetry.configure("api", span_dir=None, otlp_endpoint=None)
    try:
        app, engine = Flask("test"), create_engine("sqlite://")
        telemetry.instrument_flask(app)
        telemetry.instrument_sqlalchemy([engine])
        assert app.before_request_funcs == {}
        with engine.connect() as connection:
            assert telemetry.begin_statement(engine, "SELECT 1") is None
            connection.execute(text("SELECT 1"))
        with telemetry.publish_span("send", "job", "task", tenant_id="acme", parent=PARENT) as span:
            assert telemetry.traceparent(span) == PARENT
        with telemetry.tracer("x").start_as_current_span("root") as span:
            assert telemetry.traceparent(span) is None
        assert provider._State.outlet is None
    finally:
        telemetry.shutdown()


# --- requests


def test_a_request_that_fails_is_an_error_by_its_status_and_by_its_defect(tracing):
    spans = tracing()
    app = Flask("test")
    app.add_url_rule("/api/v1/<tenant>/broken", "broken", lambda **_: ("no", 503))
    app.add_url_rule("/api/v1/<tenant>/defect", "defect", lambda **_: 1 // 0)
    app.add_url_rule("/api/v1/<tenant>/refused", "refused", lambda **_: ("no", 422))
    telemetry.instrument_flask(app)
    for path in ("broken", "defect", "refused"):
        app.test_client().get(f"/api/v1/acme/{path}", headers={"User-Agent": "x" * 500})
    broken, defect, refused = spans()
    assert [s["status"]["code"] for s in (broken, defect, refused)] == [2, 2, 0]
    assert plain(broken["attributes"])["error.type"] == "503"
    assert plain(defect["attributes"])["http.response.status_code"] == 500
    assert plain(refused["attributes"]) == {
        "http.request.method": "GET",
        "http.route": "/api/v1/{tenant}/refused",
        "http.response.status_code": 422,
        "url.scheme": "http",
        "user_agent.original": "x" * 100,
    }
    app.config["PROPAGATE_EXCEPTIONS"] = True
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/api/v1/acme/defect")
    assert plain(spans()[-1]["attributes"])["error.type"] == "ZeroDivisionError"
    assert trace.get_current_span() is trace.INVALID_SPAN


# --- files


def file_of(folder, name, size, age):
    path = folder / f"mail-{name}.jsonl"
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(10**18 - age, 10**18 - age))
    return path


def test_the_oldest_files_that_are_closed_make_room(tmp_path):
    oldest, held, old, new = (file_of(tmp_path, str(age), 100, age) for age in (4, 3, 2, 1))
    strange = tmp_path / "notes.jsonl"
    strange.write_bytes(b"x" * 1000)
    with held.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        make_room(tmp_path, 250)
        assert set(tmp_path.iterdir()) == {held, new, strange}
        make_room(tmp_path, 0)
        assert set(tmp_path.iterdir()) == {held, strange}
    assert not oldest.exists()
    assert not old.exists()


def test_a_writer_that_goes_on_for_weeks_keeps_its_directory_within_its_limit(tmp_path):
    writer, other = (SpanFile(tmp_path, "mail-api", {"n": n}, bytes_max=40_000) for n in (1, 2))
    other.write(made("other"))
    for number in range(1000):
        span = made(str(number))
        span.end()
        writer.write(span)
        assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 40_000 + 1_000
    names = [int(s["name"]) for s in read(tmp_path) if s["name"] != "other"]
    assert names == list(range(names[0], 1000))
    assert len(names) > 60
    assert "other" in {s["name"] for s in read(tmp_path)}


def test_a_child_does_not_hold_the_file_of_its_parent(tracing, tmp_path):
    tracing()
    with telemetry.tracer("x").start_as_current_span("s"):
        pass
    (path,) = tmp_path.iterdir()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        theirs.send(b"forked")
        theirs.recv(1)
        os._exit(0)
    theirs.close()
    assert ours.recv(6) == b"forked"
    telemetry.shutdown()
    make_room(tmp_path, 0)
    assert not path.exists()
    ours.close()
    os.waitpid(pid, 0)


def test_a_disk_that_takes_half_a_line_leaves_whole_ones(tmp_path):
    program = (
        "import sys; from pathlib import Path; from email_service import telemetry\n"
        "telemetry.configure('worker', span_dir=Path(sys.argv[1]), otlp_endpoint=None)\n"
        "for i in range(40):\n"
        "    with telemetry.tracer('x').start_as_current_span('s', attributes={'text': 'x' * 500}): pass\n"
        "telemetry.shutdown()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000)),
    )
    spans = read(tmp_path)
    assert 5 < len(spans) < 15
    assert done.stderr.splitlines() == [
        "spans can't be written (OSError)",
        f"{40 - len(spans)} spans were not written",
    ]


def test_a_directory_that_can_not_be_made_costs_spans_alone(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    writer = SpanFile(tmp_path / "file" / "spans", "mail-api", {})
    writer.write(made())
    writer.write(made())
    writer.close()
    assert writer.lost == 2
    assert [r.getMessage() for r in caplog.records] == [
        "spans can't be written (NotADirectoryError)",
        "2 spans were not written",
    ]


def test_a_directory_that_is_removed_is_made_again_for_the_next_file(tmp_path):
    writer = SpanFile(tmp_path / "spans", "mail-api", {}, bytes_max=spanfile._PARTS)
    writer.write(made())
    (only,) = (tmp_path / "spans").iterdir()
    only.unlink()
    (tmp_path / "spans").rmdir()
    writer.write(made("again"))
    assert [s["name"] for s in read(tmp_path / "spans")] == ["again"]


# --- collectors


def sent_by(exporter, spans, **options):
    way = collector.Collector(exporter, Resource({"service.name": "mail-api"}), **options)
    for span in spans:
        span.end()
        way.write(span)
    way.close()
    return way


def test_a_collector_is_sent_no_more_than_the_file_holds():
    exporter = InMemorySpanExporter()
    span = made(attributes={"http.target": "/api/v1/acme/tasks", "http.route": "/tasks"})
    span.record_exception(ValueError(SECRET))
    span.set_status(Status(StatusCode.ERROR, SECRET))
    way = sent_by(exporter, [span])
    (sent,) = exporter.get_finished_spans()
    assert (sent.name, sent.status.status_code, sent.status.description) == ("s", StatusCode.ERROR, None)
    assert dict(sent.attributes) == {"http.route": "/tasks"}
    assert (sent.start_time, sent.resource.attributes["service.name"]) == (10, "mail-api")
    assert SECRET not in sent.to_json()
    assert way.lost == 0


def test_a_collector_that_is_away_is_told_once_and_its_loss_at_the_end(caplog):
    answers = iter([SpanExportResult.FAILURE, SpanExportResult.FAILURE, SpanExportResult.SUCCESS])

    def export(spans):
        if (answer := next(answers, None)) is None:
            raise ConnectionError(SECRET)
        return answer

    counted = collector._Counted(SimpleNamespace(export=export))
    for _ in range(4):
        counted.export([made()] * 10)
    assert (counted.sent, counted.failed) == (10, 30)
    assert [r.getMessage() for r in caplog.records] == [
        "the collector takes no spans: they are lost until it does",
        "the collector takes spans again",
        "the collector takes no spans: they are lost until it does",
    ]
    assert SECRET not in caplog.text


def test_what_does_not_fit_the_queue_is_lost_and_counted(monkeypatch, caplog):
    monkeypatch.setattr(collector, "QUEUE_MAX", 600)
    exporter = SimpleNamespace(export=lambda _: SpanExportResult.FAILURE, shutdown=lambda: None)
    way = collector.Collector(exporter, Resource({}))
    monkeypatch.setattr(way._counted, "export", lambda _: SpanExportResult.FAILURE)  # as if a request took for ever
    for _ in range(700):
        way.write(made())
    assert way.lost == 100
    way.close()
    assert [r.getMessage() for r in caplog.records] == ["700 spans of 700 did not reach the collector"]
