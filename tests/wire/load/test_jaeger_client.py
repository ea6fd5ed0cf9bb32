"""Jaeger's client, by answers that a real one gave (v1.76.0); a run's spans handed over to one that loses some."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path

import pytest
from scripted_jaeger import ScriptedJaeger

from mailrig import jaeger as client
from mailrig.evidence import flatten_spans, load_evidence
from mailrig.jaeger import Jaeger, JaegerError, Otlp
from mailrig.runner.borrowed import Borrowed
from mailrig.runner.handover import hand_over

TINY = Path(__file__).parents[2] / "runs" / "tiny"
TRACE = "c1b8d9a8321b94736195f013a386299c"
#: Of a trace that had been sent twice: Jaeger dropped the second of each span and left the scope.
RECORDED = (
    b'{"result":{"resourceSpans":[{"resource":{"attributes":[{"key":"process.pid","value":{"intValue":"29541"}},'
    b'{"key":"service.name","value":{"stringValue":"mail-api"}}]},"scopeSpans":[{"scope":{"name":"email_service.sql"},'
    b'"spans":[{"traceId":"c1b8d9a8321b94736195f013a386299c","spanId":"0836f41616c7d969","parentSpanId":'
    b'"19e43428c14ecf0d","name":"INSERT credentials","kind":3,"startTimeUnixNano":"1795631666086049965",'
    b'"endTimeUnixNano":"1795631666088698651","attributes":[{"key":"server.port","value":{"intValue":"51789"}},'
    b'{"key":"mail.queue_time_s","value":{"doubleValue":0}}],"status":{}}]}]},{"resource":{"attributes":[]},'
    b'"scopeSpans":[{"scope":{"name":"email_service.sql"}}]}]}}'
)
HTML = b"<!DOCTYPE html><title>Jaeger</title>"


@pytest.fixture
def jaeger():
    with ScriptedJaeger() as server:
        yield server


@pytest.fixture
def evidence(tmp_path):
    return Path(shutil.copytree(TINY, tmp_path / "tiny")) / "evidence"


def spans_of(evidence):
    return list(flatten_spans(map(json.loads, (evidence / "spans.jsonl").read_text().splitlines())))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_a_trace_is_read_back_as_rows_of_evidence(jaeger):
    jaeger.recorded[f"/api/v3/traces/{TRACE}"] = (200, RECORDED)
    (row,) = Jaeger(jaeger.url + "/").trace(TRACE)
    assert row["attributes"] == {"server.port": 51789, "mail.queue_time_s": 0.0}
    assert (row["service"], row["kind"], row["status"], row["parent_span_id"]) == ("mail-api", 3, 0, "19e43428c14ecf0d")
    assert row["end_ns"] - row["start_ns"] == 2_648_686
    assert jaeger.requests == [(f"/api/v3/traces/{TRACE}", {"rawTraces": ["true"], "raw_traces": ["true"]})]


def test_a_stream_of_several_envelopes_is_one_trace_and_a_trace_that_is_not_there_is_empty(jaeger):
    jaeger.recorded[f"/api/v3/traces/{TRACE}"] = (200, RECORDED + b"\n" + RECORDED + b"\n")
    assert len(Jaeger(jaeger.url).trace(TRACE)) == 2
    assert Jaeger(jaeger.url).trace("0" * 32) == []


def test_a_search_is_asked_in_both_spellings_and_to_the_nanosecond(jaeger):
    jaeger.recorded["/api/v3/traces"] = (200, RECORDED)
    rows = Jaeger(jaeger.url).search("mail-api", start_ns=1_795_631_666_086_049_965, end_ns=10**18, traces_max=7)
    assert [row["trace_id"] for row in rows] == [TRACE]
    ((_, asked),) = jaeger.requests
    assert asked["query.start_time_min"] == asked["query.startTimeMin"] == ["2026-11-25T18:34:26.086049965Z"]
    assert asked["query.start_time_max"] == asked["query.startTimeMax"] == ["2001-09-09T01:46:40.000000000Z"]
    assert asked["query.num_traces"] == asked["query.searchDepth"] == ["7"]
    assert asked["query.service_name"] == asked["query.serviceName"] == ["mail-api"]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            400,
            b'{"error":{"httpCode":400,"message":"query.start_time_min and query.start_time_max are required"}}',
            "with 400: query.start_time_min and query.start_time_max are required",
        ),
        (500, b"", "with 500: nothing else"),
        (502, b"<html>\n<p>Bad Gateway</p>", "with 502: <html> <p>Bad Gateway</p>"),
        (200, HTML, "something that is not JSON"),
        (200, RECORDED[:-9], "something that is not JSON"),
        (200, b"\xff\xfe", "something that is not JSON"),
        (200, RECORDED + b'\n{"error":{"message":"the store went away"}}', "Jaeger broke off: the store went away"),
        (200, b'{"result":{"resourceSpans":[{"scopeSpans":[{"spans":[{}]}]}]}}', "spans that are not OTLP"),
    ],
)
def test_whatever_is_wrong_with_an_answer_is_one_line(jaeger, status, body, told):
    jaeger.recorded[f"/api/v3/traces/{TRACE}"] = (status, body)
    with pytest.raises(JaegerError) as refused:
        Jaeger(jaeger.url).trace(TRACE)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_who_is_no_jaeger_is_found_out(jaeger):
    jaeger.recorded["/api/v3/services"] = (404, b"not found")
    with pytest.raises(JaegerError, match="is no Jaeger"):
        Jaeger(jaeger.url).services()
    jaeger.recorded["/api/v3/services"] = (200, HTML)
    with pytest.raises(JaegerError, match="not JSON"):
        Jaeger(jaeger.url).services()


# --- sending ----------------------------------------------------------------------------------------------------------


def test_spans_are_sent_in_batches_that_a_receiver_takes(jaeger, evidence, monkeypatch):
    lines = (evidence / "spans.jsonl").read_text().splitlines()
    monkeypatch.setattr(client, "BATCH_BYTES", 4_000)
    assert Otlp(jaeger.url + "/v1/traces").send(lines) == len(lines)
    assert len(jaeger.posts) > 2
    assert max(jaeger.posts) < 5_000


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}', "2 spans were rejected: too old"),
        (200, HTML, "is not where OTLP over HTTP is received"),
        (200, b"[]", "is not where OTLP over HTTP is received"),
        (404, b"404 page not found\n", "was answered with 404: 404 page not found"),
        (400, b'{"code":3,"message":"ReadUint64: unsupported value"}', "with 400: ReadUint64: unsupported value"),
    ],
)
def test_what_is_not_taken_is_one_line(jaeger, status, body, told):
    jaeger.recorded["/v1/traces"] = (status, body)
    with pytest.raises(JaegerError) as refused:
        Otlp(jaeger.url).check()
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_empty_answer_is_success(jaeger):
    for body in (b"", b"{}", b'{"partialSuccess":null}'):
        jaeger.recorded["/v1/traces"] = (200, body)
        Otlp(jaeger.url).check()


# --- handing over -----------------------------------------------------------------------------------------------------


def rows_of(evidence):
    return load_evidence(evidence.parent).jaeger


def test_what_died_with_its_process_is_sent_after_the_run_and_found(jaeger, evidence):
    spans = spans_of(evidence)
    lines = (evidence / "spans.jsonl").read_text().splitlines()
    Otlp(jaeger.url).send(lines[:-5])
    assert hand_over(evidence, Jaeger(jaeger.url), Otlp(jaeger.url)) == (len(spans), 5)
    rows = rows_of(evidence)
    assert sum(row["spans"] for row in rows) == len(spans)
    assert sum(row["uploaded"] for row in rows) == 5
    assert not any(row["missing"] for row in rows)
    assert len(jaeger.posts) == 2


def test_what_a_jaeger_does_not_keep_is_missing_by_name(jaeger, evidence):
    lost = spans_of(evidence)[7]
    jaeger.keeps = lambda span: span["spanId"] != lost["span_id"]
    hand_over(evidence, Jaeger(jaeger.url), Otlp(jaeger.url), within_s=0.1)
    found = [(row["trace_id"], row["missing"]) for row in rows_of(evidence) if row["missing"]]
    assert found == [(lost["trace_id"], [lost["span_id"]])]


def test_of_very_many_traces_those_with_a_kill_and_some_others_are_read_back(jaeger, evidence, monkeypatch):
    monkeypatch.setattr("mailrig.runner.handover.TRACES_MAX", 3)
    file = evidence / "spans.jsonl"
    lines = file.read_text().splitlines()
    made = json.loads(lines[-1])["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"]
    lines[-1] = lines[-1].replace(
        '"attributes":[', '"attributes":[{"key":"mail.synthesised","value":{"boolValue":true}},'
    )
    file.write_text("".join(line + "\n" for line in lines))
    hand_over(evidence, Jaeger(jaeger.url), Otlp(jaeger.url))
    assert len(rows_of(evidence)) == 3
    assert made in {row["trace_id"] for row in rows_of(evidence)}


def test_a_jaeger_that_goes_away_leaves_nothing_that_could_be_judged(jaeger, evidence):
    jaeger.recorded["/v1/traces"] = (503, b"shutting down")
    with pytest.raises(JaegerError, match="503: shutting down"):
        hand_over(evidence, Jaeger(jaeger.url), Otlp(jaeger.url))
    assert not (evidence / "jaeger.jsonl").exists()


# --- a stack of others' -----------------------------------------------------------------------------------------------


def test_spans_of_a_stack_of_others_are_read_by_the_rows_traces_once_they_have_come(jaeger, evidence, tmp_path):
    lines = (evidence / "spans.jsonl").read_text().splitlines()
    Otlp(jaeger.url).send(lines[:20])
    # The rest comes with the service's next batch.
    late = threading.Timer(0.2, lambda: Otlp(jaeger.url).send(lines[20:]))
    late.start()
    Borrowed(evidence).from_jaeger(Jaeger(jaeger.url), tmp_path / "out" / "spans.jsonl")
    late.join()
    executions = [json.loads(line) for line in (evidence / "executions.jsonl").read_text().splitlines()]
    read = list(flatten_spans(map(json.loads, (tmp_path / "out" / "spans.jsonl").read_text().splitlines())))
    wanted = {row["span_id"] for row in executions if row["outcome"] not in {"killed", None}}
    assert wanted <= {span["span_id"] for span in read}


def test_span_files_of_others_give_the_run_s_traces_and_no_half_line(evidence, tmp_path):
    folder = tmp_path / "mounted"
    (folder / "worker").mkdir(parents=True)
    text = (evidence / "spans.jsonl").read_text()
    (folder / "worker" / "a.jsonl").write_text(text + text.splitlines()[0][:200])
    strange = text.splitlines()[0].replace(spans_of(evidence)[0]["trace_id"], "f" * 32)
    (folder / "b.jsonl").write_text(strange + "\n")
    Borrowed(evidence).from_files(folder, tmp_path / "spans.jsonl")
    rows = list(flatten_spans(map(json.loads, (tmp_path / "spans.jsonl").read_text().splitlines())))
    traces = {json.loads(line)["trace_id"] for line in (evidence / "executions.jsonl").read_text().splitlines()}
    assert {row["trace_id"] for row in rows} == traces
    assert len(rows) == sum(span["trace_id"] in traces for span in spans_of(evidence))
