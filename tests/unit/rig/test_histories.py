"""Histories and evidence: whole lines, one order, and a clear word for anything else."""

import json
import os

import pytest

from mailrig.evidence import EvidenceError, load_evidence
from mailrig.history import HistoryError, HistoryWriter, Op, merge_histories, read_history


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, "user:1") as writer:
        first = writer.append("invoke", "send", {"arrival": 0, "to": ["ü@example"]})
        second = writer.append("info", "send", {"arrival": 0}, error="timeout", process="user:2", time_ns=5)
    assert read_history(path) == [first, second]
    assert (first.index, first.process, second.index, second.process, second.time_ns) == (0, "user:1", 1, "user:2", 5)


def test_each_operation_is_one_system_call(tmp_path, monkeypatch):
    written = []
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: written.append(data) or real(fd, data))
    with HistoryWriter(tmp_path / "h.jsonl", "p") as writer:
        writer.append("ok", "send", {"text": "a\nb"})
        writer.append("ok", "send", {})
    assert [data.count(b"\n") for data in written] == [1, 1]


def test_a_line_that_was_not_written_in_full_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "write", lambda *_: 3)
    with HistoryWriter(tmp_path / "h.jsonl", "p") as writer, pytest.raises(OSError, match="is the disk full"):
        writer.append("ok", "send", {})


def test_two_writers_may_share_a_file(tmp_path):
    path = tmp_path / "h.jsonl"
    with HistoryWriter(path, "a") as one, HistoryWriter(path, "b") as two:
        for _ in range(3):
            one.append("ok", "send", {})
            two.append("ok", "send", {})
    assert [op.process for op in read_history(path)] == ["a", "b"] * 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"index":1,"time_', r"h\.jsonl:2: Unterminated string"),
        ("[]", r"h\.jsonl:2: not an operation"),
        ('{"value":{}}', r"h\.jsonl:2: index, time_ns, process, type, f, error missing"),
        (
            '{"index":0,"time_ns":1,"process":"p","type":"done","f":"send","value":{},"error":null}',
            r"h\.jsonl:2: type 'done' is not known; allowed: invoke, ok, fail, info",
        ),
    ],
)
def test_a_torn_line_is_named_with_its_number(tmp_path, line, message):
    path = tmp_path / "h.jsonl"
    with HistoryWriter(path, "p") as writer:
        writer.append("ok", "send", {})
    with path.open("a") as out:
        out.write(line)
    with pytest.raises(HistoryError, match=message):
        read_history(path)


def test_merging_orders_by_time_and_counts_anew(tmp_path):
    for name, times in (("a", (10, 30)), ("b", (20, 20))):
        with HistoryWriter(tmp_path / name, name) as writer:
            for time_ns in times:
                writer.append("ok", "send", {}, time_ns=time_ns)
    out = tmp_path / "a"
    merged = merge_histories([tmp_path / "a", tmp_path / "b"], out)
    assert [(op.index, op.time_ns, op.process) for op in merged] == [
        (0, 10, "a"),
        (1, 20, "b"),
        (2, 20, "b"),
        (3, 30, "a"),
    ]
    assert read_history(out) == merged
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_an_operation_survives_its_line():
    op = Op(index=3, time_ns=4, process="nemesis", type="invoke", f="kill-child", value={"pid": 7}, error=None)
    assert Op.from_line(op.to_line()) == op
    assert json.loads(op.to_line())["error"] is None


def test_evidence_says_which_files_are_missing(tmp_path):
    evidence = load_evidence(tmp_path)
    assert evidence.jobs == ()
    assert evidence.contract is None
    assert {"jobs.jsonl", "broker.json", "history.jsonl", "run.json"} <= evidence.missing


def test_spans_are_flat_and_their_numbers_are_numbers(tiny):
    evidence = load_evidence(tiny)
    server = evidence.spans[0]
    assert (server["name"], server["kind"], server["service"]) == ("POST /api/v1/{tenant}/email/send", 2, "mail-api")
    assert server["end_ns"] - server["start_ns"] == 8_000_000
    assert evidence.spans[2]["attributes"]["mail.execution.id"] == "execution-0-1"
    beat = next(span for span in evidence.spans if span["service"] == "mail-beat")
    assert beat["parent_span_id"] is None
    assert evidence.missing == {"jaeger.jsonl"}, "no Jaeger was asked"
    assert evidence.contract is not None


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("evidence/jobs.jsonl", '{"job_id":', r"jobs\.jsonl:1: not JSON"),
        ("evidence/jobs.jsonl", "[]\n", r"jobs\.jsonl:1: not a JSON object"),
        ("evidence/spans.jsonl", '{"resourceSpans":[{}]}\n', r"spans\.jsonl: not OTLP JSON: KeyError"),
        ("evidence/broker.json", "", r"broker\.json: not JSON"),
        ("history.jsonl", "x\n", r"history\.jsonl:1: Expecting value"),
    ],
)
def test_a_torn_file_of_evidence_is_named_with_its_line(tiny, name, text, message):
    (tiny / name).write_text(text)
    with pytest.raises(EvidenceError, match=message):
        load_evidence(tiny)
