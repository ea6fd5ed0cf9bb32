"""Spans and log lines: what is written, by whom, and what never is."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import fakeredis
import pytest
from celery import Celery, Task
from celery.app.task import Context
from celery.signals import task_received
from celery.worker.request import Request, create_request_cls
from flask import Flask
from opentelemetry.instrumentation.redis import RedisInstrumentor
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from email_service import signals, telemetry
from email_service.errors import SmtpError
from email_service.telemetry import logs, memory, spanfile
from email_service.telemetry.statements import summary_of

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
SECRET = "canary-7f3a"
TASK = "email_service.tasks.send_email"


@pytest.fixture
def tracing(tmp_path):
    """Tracing into a folder, as a worker; answers what reads the spans back."""
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    telemetry.shutdown()
    telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None, node="mail@here")
    yield lambda: spans_in(tmp_path)
    telemetry.shutdown()
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)


def spans_in(folder: Path):
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
    spans = []
    for line in lines:
        (resource,) = json.loads(line)["resourceSpans"]
        (scope,) = resource["scopeSpans"]
        spans.append({**scope["spans"][0], "resource": plain(resource["resource"]["attributes"])})
    return spans


def plain(attributes):
    return {a["key"]: next(iter(a["value"].values())) for a in attributes}


def process(**changes):
    options = {
        "queue": "send",
        "task_id": "job-1",
        "task_name": TASK,
        "tenant_id": "acme",
        "creation": PARENT,
        "span_id": "c" * 16,
        "execution_id": "execution-1",
        "ordinal": 2,
        "node": "mail@here",
        "received_ns": 2_000_000_000,
        "enqueued_or_due_ns": 1_000_000_000,
        "started_ns": 2_500_000_000,
    }
    return telemetry.process_span(**options | changes)


def test_a_process_span_has_the_id_that_was_chosen_for_it_and_its_children_do_not(tracing):
    with process(), telemetry.tracer("x").start_as_current_span("inner"):
        pass
    inner, outer = tracing()
    assert outer["spanId"] == inner["parentSpanId"] == "c" * 16
    assert inner["spanId"] != "c" * 16


def test_a_process_span_is_a_child_of_its_creation_and_linked_to_it(tracing):
    with process():
        pass
    (span,) = tracing()
    assert (span["name"], span["kind"]) == ("process send", 5)
    assert (span["traceId"], span["parentSpanId"]) == ("a" * 32, "b" * 16)
    assert span["links"] == [{"traceId": "a" * 32, "spanId": "b" * 16}]
    assert span["startTimeUnixNano"] == "2500000000"


def test_a_process_span_says_how_long_its_message_waited_and_for_whom_it_ran(tracing):
    with process() as span:
        telemetry.set_outcome(span, "succeeded", None, 10, 20)
    attributes = plain(tracing()[0]["attributes"])
    assert attributes[signals.QUEUE_TIME_S] == 1.5
    assert attributes[signals.PREFETCH_WAIT_S] == 0.5
    assert attributes[signals.EXECUTION_ID] == "execution-1"
    assert attributes[signals.EXECUTION_ORDINAL] == "2"
    assert attributes[signals.PSS_PEAK_BYTES] == "20"
    assert attributes[signals.TENANT_HASH] == telemetry.tenant_hash("acme")
    assert "acme" not in json.dumps(attributes)


def test_attempts_of_one_job_are_siblings_even_inside_another_span(tracing):
    with telemetry.tracer("x").start_as_current_span("elsewhere"):
        for span_id in ("1" * 16, "2" * 16):
            with process(span_id=span_id):
                pass
    first, second, _ = tracing()
    assert first["parentSpanId"] == second["parentSpanId"] == "b" * 16


def test_a_process_span_without_a_creation_is_a_root(tracing):
    with telemetry.tracer("x").start_as_current_span("elsewhere"), process(creation=None):
        pass
    assert tracing()[0]["parentSpanId"] == ""


def test_executions_of_a_job_that_nobody_traced_are_in_the_trace_that_its_rows_name(tracing):
    for span_id in ("c" * 16, "d" * 16):
        with process(creation=None, span_id=span_id) as span:
            telemetry.set_outcome(span, "succeeded", None, None, None)
    with telemetry.tracer("x").start_as_current_span("another"):
        pass
    first, second, another = tracing()
    assert first["traceId"] == second["traceId"] == telemetry.trace_id_of("job-1") != another["traceId"]


def test_an_outcome_that_was_said_is_not_replaced_by_the_exception_that_carries_it(tracing):
    class Retry(Exception):  # noqa: N818
        pass

    def attempt():
        with process() as span:
            telemetry.set_outcome(span, "retry", "smtp", None, None)
            raise Retry

    with pytest.raises(Retry):
        attempt()
    (span,) = tracing()
    assert plain(span["attributes"])[signals.ERROR_TYPE] == "smtp"
    assert span["status"] == {"code": 2}


def test_an_error_leaves_its_type_in_a_span_and_nothing_that_it_said(tracing):
    with pytest.raises(ValueError, match=SECRET), publish():
        raise ValueError(SECRET)
    with pytest.raises(SmtpError), publish():
        raise SmtpError(SECRET)
    first, second = tracing()
    assert plain(first["attributes"])[signals.ERROR_TYPE] == "ValueError"
    assert plain(second["attributes"])[signals.ERROR_TYPE] == "smtp"
    assert SECRET not in json.dumps([first, second])


def test_an_execution_whose_outcome_was_not_said_is_left_to_whoever_ends_its_row(tracing):
    with pytest.raises(ValueError, match=SECRET), process():
        raise ValueError(SECRET)
    assert tracing() == []


def test_a_foreign_instrumentation_cannot_write_what_an_exception_said(tracing):
    with pytest.raises(ValueError, match=SECRET), telemetry.tracer("x").start_as_current_span("stock"):
        raise ValueError(SECRET)
    (span,) = tracing()
    assert plain(span["events"][0]["attributes"])["exception.type"] == "ValueError"
    assert SECRET not in json.dumps(span)


def test_a_publish_is_a_producer_under_the_current_span(tracing):
    with telemetry.tracer("x").start_as_current_span("POST") as server:
        with publish() as span:
            assert telemetry.current_traceparent() == telemetry.traceparent(span)
        parent = f"{server.get_span_context().span_id:016x}"
    span = tracing()[0]
    assert (span["name"], span["kind"], span["parentSpanId"]) == ("send send", 4, parent)
    assert plain(span["attributes"])[signals.MESSAGING_SYSTEM] == "redis"


def publish(**changes):
    options = {"tenant_id": "acme", "kind": "producer", "parent": None, "link": None, "root_kind": None}
    return telemetry.publish_span("send", "job-1", TASK, **options | changes)


def test_a_publish_that_the_broker_refused_is_closed_as_an_error_and_no_longer_current(tracing):
    with pytest.raises(ConnectionError), publish():
        raise ConnectionError(SECRET)
    assert telemetry.current_traceparent() is None
    (span,) = tracing()
    assert span["status"] == {"code": 2}
    assert plain(span["attributes"])[signals.ERROR_TYPE] == "ConnectionError"


def test_a_publish_of_a_retry_is_a_client_in_the_trace_of_the_creation_with_a_link_to_its_cause(tracing):
    cause = "00-" + "a" * 32 + "-" + "e" * 16 + "-01"
    with publish(kind="client", parent=PARENT, link=cause):
        pass
    (span,) = tracing()
    assert (span["kind"], span["parentSpanId"], span["links"][0]["spanId"]) == (3, "b" * 16, "e" * 16)


def test_a_publish_by_beat_is_a_root_that_says_so(tracing):
    with telemetry.tracer("x").start_as_current_span("elsewhere"), publish(root_kind="beat"):
        pass
    span = tracing()[0]
    assert span["parentSpanId"] == ""
    assert plain(span["attributes"])[signals.ROOT_KIND] == "beat"


def test_a_copy_with_nothing_to_do_is_a_settle_span_under_its_creation(tracing):
    with telemetry.settle_span("send", "job-1", TASK, tenant_id="acme", creation=PARENT):
        pass
    (span,) = tracing()
    assert (span["name"], span["kind"], span["parentSpanId"]) == ("settle send", 3, "b" * 16)


def test_a_caller_who_does_not_sample_gets_no_spans_and_says_so_to_those_behind(tracing):
    with publish(parent=PARENT[:-2] + "00") as span:
        assert telemetry.traceparent(span).endswith("-00")
    assert tracing() == []


@pytest.mark.parametrize(
    "value", [None, "", "no", PARENT + "0", PARENT.upper(), "00-" + "0" * 32 + "-" + "b" * 16 + "-01"]
)
def test_what_is_no_traceparent_is_none(value):
    assert telemetry.parse_traceparent(value) is None


def test_a_traceparent_gives_its_two_ids():
    assert telemetry.parse_traceparent(PARENT) == ("a" * 32, "b" * 16)


def test_each_span_names_its_process_and_service(tracing):
    with publish():
        pass
    resource = tracing()[0]["resource"]
    assert resource["service.name"] == "mail-worker"
    assert resource["process.pid"] == str(os.getpid())
    assert resource[signals.WORKER_NODE] == "mail@here"
    assert "service.version" in resource


def test_without_a_configuration_nothing_is_traced_and_nothing_breaks(tracing):
    telemetry.shutdown()
    with process() as span:
        assert telemetry.traceparent(span) in {None, PARENT}
    telemetry.shutdown()
    assert tracing() == []


def test_an_id_chosen_while_tracing_is_off_is_not_given_to_a_later_span(tracing, tmp_path):
    telemetry.shutdown()
    with process():
        pass
    telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None)
    with publish():
        pass
    assert tracing()[0]["spanId"] != "c" * 16


def test_a_tracer_made_before_the_configuration_works_after_it(tmp_path, tracing):
    telemetry.shutdown()
    early = telemetry.tracer("early")
    telemetry.configure("api", span_dir=tmp_path, otlp_endpoint=None)
    with early.start_as_current_span("late"):
        pass
    assert [(s["name"], s["resource"]["service.name"]) for s in tracing()] == [("late", "mail-api")]


@pytest.mark.parametrize("again", [True, False])
def test_a_child_writes_to_a_file_of_its_own_whether_it_configures_or_not(tracing, tmp_path, again):
    with publish():
        pass
    pid = os.fork()
    if pid == 0:
        if again:
            telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None)
        with publish():
            pass
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    with publish():
        pass
    pids = [s["resource"]["process.pid"] for s in tracing()]
    assert sorted(pids) == sorted([str(os.getpid())] * 2 + [str(pid)])
    assert {p.name.split("-")[2] for p in tmp_path.iterdir()} == {str(os.getpid()), str(pid)}


def test_a_lock_held_in_the_parent_while_it_forks_does_not_stop_the_child(tracing):
    with telemetry.provider._State.lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            with publish():
                pass
            os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert len(tracing()) == 1


def test_a_sigkill_leaves_whole_lines_only(tmp_path):
    program = (
        "import sys; from pathlib import Path; from email_service import telemetry\n"
        "telemetry.configure('worker', span_dir=Path(sys.argv[1]), otlp_endpoint=None)\n"
        "for i in range(10**9):\n"
        "    with telemetry.tracer('x').start_as_current_span('s', attributes={'text': 'x' * 500}): pass\n"
        "    if i == 200: print('going', flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout.readline() == b"going\n"
        child.kill()
    (file,) = tmp_path.iterdir()
    assert file.read_bytes().endswith(b"\n")
    assert len(spans_in(tmp_path)) > 200


def test_a_full_file_is_followed_by_the_next_and_no_span_is_lost(tracing, tmp_path, monkeypatch):
    monkeypatch.setattr(spanfile, "ROTATE_BYTES", 5_000)

    def work():
        for _ in range(50):
            with publish():
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tracing()) == 200
    assert len(list(tmp_path.iterdir())) > 10


def test_a_disk_that_takes_no_spans_does_not_fail_the_work(tracing, monkeypatch, caplog):
    with publish():
        pass

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spanfile.SpanFile, "_append", full)
        for _ in range(3):
            with publish():
                pass
    assert len(tracing()) == 1
    assert [r.getMessage() for r in caplog.records] == ["spans can't be written (OSError)"]


def test_a_span_that_ends_after_the_shutdown_is_dropped(tracing):
    with publish():
        telemetry.shutdown()
    assert tracing() == []


# --- what the worker's main process tells its children


class Message:
    """A message as kombu's Redis transport gives it to the worker."""

    content_type, content_encoding = "application/json", "utf-8"
    delivery_info = {"routing_key": "send", "redelivered": False}  # noqa: RUF012
    properties = {"priority": 2}  # noqa: RUF012
    body = b'[[], {}, {"callbacks": null}]'
    payload = ([], {}, {"callbacks": None})
    headers = {"id": "job-1", "task": TASK, "traceparent": PARENT}  # noqa: RUF012


def test_the_stamp_of_the_main_process_reaches_the_task_in_the_child(tracing):
    app = Celery("stamped", broker="memory://", set_as_current=False)
    app.register_task(type("SendEmail", (Task,), {"name": TASK, "run": lambda self: None})())
    handed_over = []
    pool = SimpleNamespace(apply_async=lambda trace, args, **_: handed_over.append(args))
    cls = create_request_cls(Request, app.tasks[TASK], pool, "mail@here", None, app=app)
    request = cls(Message(), app=app, task=app.tasks[TASK], hostname="mail@here", decoded=False)
    receivers = list(task_received.receivers)
    telemetry.connect_worker_signals("mail@here")
    try:
        task_received.send(sender=None, request=request)
    finally:
        task_received.receivers[:] = receivers
    request.execute_using_pool(pool)
    in_child = Context(json.loads(json.dumps(handed_over[0][2])), args=[], kwargs={})
    received_ns, span_id = telemetry.received(in_child)
    assert received_ns == request.request_dict["mail_received_ns"] > 10**18
    assert span_id == request.request_dict["mail_span_id"]
    assert len(span_id) == 16


def test_a_task_without_a_stamp_gets_a_time_and_an_id_of_its_own():
    received_ns, span_id = telemetry.received(Context({"id": "job-1"}))
    assert received_ns > 10**18
    assert len(span_id) == 16


# --- instrumentations


def test_a_request_is_named_by_its_route_and_never_by_its_tenant(tracing):
    app = Flask("test")
    app.add_url_rule("/api/v1/<tenant>/email/clients/<uuid:client_id>/sync", "sync", lambda **_: "ok")
    app.add_url_rule("/health", "health", lambda: "ok")
    telemetry.instrument_flask(app)
    client = app.test_client()
    client.get(
        "/api/v1/acme/email/clients/01234567-0123-0123-0123-0123456789ab/sync?x=1", headers={"traceparent": PARENT}
    )
    client.get("/api/v1/acme/nothing")
    client.get("/health")
    found, missing = tracing()
    assert found["name"] == "GET /api/v1/{tenant}/email/clients/{client_id}/sync"
    assert (found["kind"], found["parentSpanId"], found["traceId"]) == (2, "b" * 16, "a" * 32)
    assert missing["name"] == "GET"
    assert "acme" not in json.dumps([found, missing])


def test_a_statement_is_a_span_without_its_values_and_a_quiet_one_is_none(tracing):
    engine = create_engine("sqlite://")
    telemetry.instrument_sqlalchemy([engine])
    with engine.connect() as connection:
        connection.execute(text("SELECT :secret"), {"secret": SECRET})
        count = len(tracing())
        with telemetry.quiet():
            connection.execute(text("SELECT 2"))
        assert len(tracing()) == count
        with pytest.raises(OperationalError):
            connection.execute(text("SELECT nothing, :secret"), {"secret": SECRET})
    spans = [plain(s["attributes"]) for s in tracing()]
    # One span a statement, and none for the loan of its connection.
    assert [s["db.query.text"] for s in spans] == ["SELECT ?", "SELECT nothing, ?"]
    assert [s.get("error.type") for s in spans] == [None, "OperationalError"]
    assert SECRET not in json.dumps(tracing())
    engine.dispose()


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT a FROM jobs WHERE id = 1", "SELECT jobs"),
        ("WITH x AS (\n UPDATE jobs SET a = 1 RETURNING id) SELECT * FROM x", "UPDATE jobs"),
        ("INSERT INTO email_messages (id) SELECT id FROM unnest(:a)", "INSERT email_messages"),
        ('DELETE FROM "email_folders"', "DELETE email_folders"),
        ("SELECT pg_notify('x', '')", "SELECT"),
        ("", "statement"),
    ],
)
def test_a_statement_is_named_by_what_it_does_and_to_what(statement, summary):
    assert summary_of(statement) == summary


# --- logs


def line_of(record_format="json", **options):
    """What the handler of that format writes for one record."""
    logs.configure_logging("worker", record_format)
    handler = logging.getLogger().handlers[-1]
    record = logging.LogRecord("email_service.x", logging.INFO, "x.py", 1, "sent %d", (3,), options.get("exc_info"))
    return handler.format(record)


def test_a_json_line_names_its_span_its_task_and_the_hash_of_its_tenant(tracing):
    with telemetry.log_context(task_id="job-1", tenant_id="acme", attempt=2), process():
        line = json.loads(line_of())
    assert line["message"] == "sent 3"
    assert (line["task_id"], line["attempt"]) == ("job-1", 2)
    assert (line["trace_id"], line["span_id"]) == ("a" * 32, "c" * 16)
    assert line["tenant"] == telemetry.tenant_hash("acme")
    assert "acme" not in json.dumps(line)
    assert "task_id" not in json.loads(line_of())


def test_the_human_format_is_the_one_of_the_document(tracing):
    assert re.fullmatch(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] INFO \[email_service\.x\] sent 3", line_of("text"))


@pytest.mark.parametrize("record_format", ["json", "text"])
def test_a_logged_error_shows_where_it_came_from_and_only_ours_say_what(tracing, record_format):
    cause = ValueError(SECRET)
    with pytest.raises(SmtpError) as caught:
        raise SmtpError("greeting") from cause
    line = line_of(record_format, exc_info=caught._excinfo)
    assert "SmtpError" in line
    assert "greeting" in line
    assert "ValueError" in line
    assert "test_telemetry.py" in line
    assert SECRET not in line


# --- memory


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_pss_is_read_again_after_a_while_and_afresh_in_a_child(monkeypatch):
    first = telemetry.pss_bytes()
    assert first > 1_000_000
    monkeypatch.setattr(memory, "_read_pss", lambda pid: pid)
    assert telemetry.pss_bytes() == first
    monkeypatch.setattr(memory, "PSS_AGE_S_MAX", -1.0)
    assert telemetry.pss_bytes() == os.getpid()
    assert telemetry.pss_bytes(1) == 1


def test_the_pss_of_no_process_is_unknown():
    assert telemetry.pss_bytes(2**22 + 1) is None


def test_redis_commands_name_their_database_once_they_are_asked_for(tracing):
    client = fakeredis.FakeRedis(db=1)
    client.set("key", SECRET)
    assert tracing() == []
    telemetry.instrument_redis()
    try:
        client.set("key", SECRET)
        with client.pipeline() as pipeline:
            pipeline.set("key", SECRET)
            pipeline.execute()
    finally:
        RedisInstrumentor().uninstrument()
    spans = [s for s in tracing() if s["name"].startswith("SET")]
    assert {plain(s["attributes"])[signals.DB_NAMESPACE] for s in spans} == {"1"}
    assert len(spans) >= 2
    assert SECRET not in json.dumps(spans)
