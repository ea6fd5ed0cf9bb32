"""The span of an execution is written once: by its process, or by whoever ends its row instead."""

from __future__ import annotations

import json
import os

import pytest

from email_service import signals, telemetry
from email_service.errors import DatabaseError, LeaseLostError, SmtpError
from mailrig.evidence import flatten_spans

CREATION = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
EXECUTION = {
    "queue": "send",
    "task_id": "job-1",
    "task_name": "email_service.tasks.send_email",
    "tenant_id": "acme",
    "creation": CREATION,
    "span_id": "c" * 16,
    "execution_id": "execution-1",
    "ordinal": 2,
    "node": "mail@here",
    "received_ns": 2_000_000_000,
    "enqueued_or_due_ns": 1_000_000_000,
    "started_ns": 2_500_000_000,
}


@pytest.fixture
def written(tmp_path):
    """Tracing into a folder; answers the spans that are in it."""
    telemetry.shutdown()
    telemetry.configure("worker", span_dir=tmp_path, otlp_endpoint=None, node="mail@here")

    def read():
        lines = [line for file in sorted(tmp_path.glob("*.jsonl")) for line in file.read_text().splitlines()]
        return list(flatten_spans(map(json.loads, lines)))

    yield read
    telemetry.shutdown()


def dead(**changes):
    ending = {"ended_ns": 4_000_000_000, "outcome": "killed", "error_type": "worker-lost", "pss_before": 7}
    telemetry.dead_span(**EXECUTION | ending | changes)


def test_a_dead_execution_is_an_error_with_its_id_its_times_and_its_waits(written):
    dead()
    (span,) = written()
    assert (span["trace_id"], span["parent_span_id"], span["span_id"]) == ("a" * 32, "b" * 16, "c" * 16)
    assert (span["name"], span["kind"], span["status"]) == ("process send", 5, 2)
    assert (span["start_ns"], span["end_ns"]) == (2_500_000_000, 4_000_000_000)
    assert span["links"] == (("a" * 32, "b" * 16),)
    said = span["attributes"]
    assert (said[signals.QUEUE_TIME_S], said[signals.PREFETCH_WAIT_S]) == (1.5, 0.5)
    assert (said[signals.EXECUTION_OUTCOME], said[signals.ERROR_TYPE]) == ("killed", "worker-lost")
    assert said[signals.SYNTHESISED] is True
    assert signals.SYNTHESISED_BY not in said
    assert said[signals.TENANT_HASH] == telemetry.tenant_hash("acme")


def test_it_says_what_a_living_one_says_and_that_it_was_made(written):
    with telemetry.process_span(**EXECUTION) as span:
        telemetry.set_outcome(span, "succeeded", None, 7, None)
    dead(span_id="d" * 16, outcome="succeeded", error_type=None)
    own, made = (span["attributes"] for span in written())
    assert made == own | {signals.SYNTHESISED: True}


def test_the_dead_of_a_trace_that_is_not_kept_are_not_told(written):
    dead(creation=CREATION[:-2] + "00")
    assert written() == []


@pytest.mark.parametrize("error", [LeaseLostError("job"), DatabaseError("away"), SystemExit(0), KeyboardInterrupt()])
def test_a_process_that_did_not_end_its_row_leaves_the_span_to_who_does(written, error):
    with pytest.raises(type(error)), telemetry.process_span(**EXECUTION):
        raise error
    assert written() == []
    dead()
    assert [span["span_id"] for span in written()] == ["c" * 16]


def test_a_process_that_ended_its_row_writes_the_span_whatever_is_raised_then(written):
    def fail_for_good():
        with telemetry.process_span(**EXECUTION) as span:
            telemetry.set_outcome(span, "failed", "smtp", None, None)
            raise SmtpError("x", transient=False)

    with pytest.raises(SmtpError):
        fail_for_good()
    (span,) = written()
    assert (span["status"], span["attributes"][signals.EXECUTION_OUTCOME]) == (2, "failed")


def test_spans_inside_the_one_that_is_left_are_below_it(written):
    def lose_it():
        with telemetry.process_span(**EXECUTION):
            with telemetry.tracer("email_service").start_as_current_span("smtp send"):
                pass
            raise LeaseLostError("job")

    with pytest.raises(LeaseLostError):
        lose_it()
    assert [span["parent_span_id"] for span in written()] == ["c" * 16]


def test_whether_a_dead_process_wrote_its_span_is_told_by_its_file(written):
    assert not telemetry.wrote(os.getpid(), "c" * 16)
    with telemetry.process_span(**EXECUTION):
        pass
    assert telemetry.wrote(os.getpid(), "c" * 16)
    assert not telemetry.wrote(os.getpid(), "d" * 16)
    assert not telemetry.wrote(os.getpid() + 1, "c" * 16)


def test_without_files_nothing_is_known_to_be_written():
    telemetry.shutdown()
    assert not telemetry.wrote(os.getpid(), "c" * 16)
