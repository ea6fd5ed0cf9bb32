"""Spans of executions that were killed, made from rows, processes and the nemesis's word."""

from __future__ import annotations

import json

import pytest

from email_service import signals
from mailrig.collect import complete, synthesise
from mailrig.evidence import flatten_spans
from mailrig.history import Op

ROW = {
    "execution_id": "e-1", "job_id": "j-1", "tenant_id": "acme", "name": "email_service.tasks.send_email",
    "queue": "send", "ordinal": 1, "node": "mail@rig", "pid": 71, "process_start_ns": 5, "due_ns": 700,
    "received_ns": 900, "started_ns": 1000, "ended_ns": None, "pss_before_bytes": None,
    "outcome": "killed", "error_type": None, "trace_id": "a" * 32, "span_id": "b" * 16, "parent_span_id": "c" * 16,
}  # fmt: skip
WORKER = {"kind": "worker", "pid": 70, "started_ns": 10, "ended_ns": 9000, "exit_code": 0, "reason": "stop"}


@pytest.fixture
def run(tmp_path):
    """A folder that is complete but for spans and processes; answers its spans."""
    spans = tmp_path / "spans"
    spans.mkdir()

    def make(executions=(ROW,), *, processes=(WORKER,), history=(), files=(), finished_ns=None, **options):
        for name, rows in {
            "executions": executions,
            "jobs": [{"job_id": "j-1", "created_ns": 800, "finished_ns": finished_ns}],
        }.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for number, text in enumerate(files):
            (spans / f"mail-worker-{number}-1.jsonl").write_text(text)
        complete(tmp_path, span_dir=spans, processes=processes, history=list(history), **options)
        lines = (tmp_path / "spans.jsonl").read_text().splitlines()
        return list(flatten_spans(map(json.loads, lines)))

    return make


def op(f, time_ns, **value):
    return Op(index=0, time_ns=time_ns, process="nemesis", type="ok", f=f, value=value)


def span_line(**changes):
    return json.dumps(synthesise({**ROW, **changes}, None, end_ns=1200)) + "\n"


def test_a_killed_execution_gets_the_span_that_its_inner_spans_name(run):
    (span,) = run()
    assert (span["trace_id"], span["span_id"], span["parent_span_id"]) == ("a" * 32, "b" * 16, "c" * 16)
    assert (span["name"], span["kind"], span["status"]) == ("process send", 5, 2)
    assert span["service"] == "mail-worker"
    attributes = span["attributes"]
    assert attributes[signals.SYNTHESISED] is True
    assert attributes[signals.EXECUTION_ID] == "e-1"
    assert attributes[signals.EXECUTION_ORDINAL] == 1
    assert attributes[signals.ERROR_TYPE] == "worker-lost"


def test_an_execution_that_wrote_its_own_span_gets_no_second_one(run):
    assert len(run(files=[span_line()])) == 1


def test_an_execution_that_ended_gets_none_even_if_its_span_is_missing(run):
    assert run([{**ROW, "outcome": "succeeded", "ended_ns": 1100}]) == []


def test_an_execution_whose_process_was_killed_before_it_wrote_its_span_gets_it_as_its_row_tells(run):
    """Between the commit and the span there is a moment; a kill in it is no reason to call the execution killed."""
    ended = {**ROW, "outcome": "succeeded", "ended_ns": 1100}
    (span,) = run([ended], history=[op("kill-child", 1200, pid=71)])
    assert (span["end_ns"], span["status"], span["attributes"][signals.EXECUTION_OUTCOME]) == (1100, 0, "succeeded")
    assert signals.ERROR_TYPE not in span["attributes"]


@pytest.mark.parametrize(
    "facts",
    {
        "another process was killed": {"history": [op("kill-child", 1200, pid=72)]},
        "it was killed before": {"history": [op("kill-child", 1050, pid=71)]},
        "it lived on for long": {"history": [op("kill-child", 1100 + 2_000_000_000, pid=71)]},
        "its process went on to another one": {
            "history": [op("kill-child", 1200, pid=71)],
            "later": {"execution_id": "e-2", "job_id": "j-2", "started_ns": 1150},
        },
    }.values(),
)
def test_a_span_that_no_kill_explains_stays_missing(run, facts):
    ended = {**ROW, "outcome": "succeeded", "ended_ns": 1100}
    later = facts.pop("later", None)
    rows = [ended, {**ended, **later, "ended_ns": 1190}] if later else [ended]
    assert [s for s in run(rows, **facts) if s["attributes"][signals.EXECUTION_ID] == "e-1"] == []


def test_a_trace_that_is_not_kept_gets_no_span(run):
    assert run(keeps=lambda trace_id: trace_id != "a" * 32) == []


def test_what_the_rig_made_says_so_and_how_long_the_message_waited(run):
    (span,) = run()
    attributes = span["attributes"]
    assert attributes[signals.SYNTHESISED_BY] == "mailrig"
    assert (attributes[signals.QUEUE_TIME_S], attributes[signals.PREFETCH_WAIT_S]) == (2e-7, 1e-7)
    assert span["links"] == (("a" * 32, "c" * 16),)


def test_half_a_line_of_a_killed_process_is_left_out(run):
    other = span_line(execution_id="e-0", span_id="d" * 16)
    spans = run(files=[other + other[:40], ""])
    assert [span["attributes"][signals.EXECUTION_ID] for span in spans] == ["e-0", "e-1"]


@pytest.mark.parametrize(
    ("facts", "end_ns"),
    {
        "the nemesis killed the child": ({"history": [op("kill-child", 1500, pid=71)]}, 1500),
        "another child was killed": ({"history": [op("kill-child", 1500, pid=99)], "finished_ns": 4000}, 4000),
        "it was killed before": ({"history": [op("kill-child", 500, pid=71)]}, 1000),
        "the nemesis killed its parent": (
            {
                "history": [op("kill-parent", 1700, pid=70)],
                "processes": [{**WORKER, "ended_ns": 1750, "reason": "killed"}],
            },
            1700,
        ),
        "its parent died by itself": ({"processes": [{**WORKER, "ended_ns": 1750, "reason": "restart"}]}, 1750),
        "the next worker was killed": (
            {"processes": [{**WORKER, "started_ns": 1100, "ended_ns": 1750, "reason": "killed"}], "finished_ns": 2500},
            2500,
        ),
        "the job ran again": ({"executions": [ROW, {**ROW, "execution_id": "e-2", "started_ns": 3000}]}, 3000),
        "nothing is known": ({}, 1000),
    }.values(),
)
def test_its_end_is_the_first_known_sign_of_its_death(run, facts, end_ns):
    assert run(**facts)[0]["end_ns"] == end_ns
