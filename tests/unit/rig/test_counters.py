"""The judge's own count of the rows, where a recorded run has none of it: what was unknown and is proven."""

from __future__ import annotations

import pytest
from scraped import told

from email_service.counting import Counts
from mailrig.checkers.counters import metrics_fell, metrics_mismatch
from mailrig.evidence import Evidence

SEND = "email_service.tasks.send_email"
PLACE = {"name": SEND, "queue": "send", "trace_id": "a" * 32, "trace_flags": "01"}
EXECUTION = {
    "execution_id": "e", "job_id": "j", "name": SEND, "queue": "send", "ordinal": 1, "due_ns": 0,
    "started_ns": 2 * 10**9, "ended_ns": 3 * 10**9, "outcome": "unknown", "error_type": "delivery-unknown",
    "steps": {"smtp.send": 0.25},
}  # fmt: skip
JOB = {
    "job_id": "j", "name": SEND, "queue": "send", "state": "succeeded", "error_type": None, "failures": 0,
    "created_ns": 10**9, "was_unknown": True, "unknown_error_type": "delivery-unknown",
}  # fmt: skip
RECIPIENTS = (
    {"job_id": "j", "state": "sent", "reply_code": None, "was_unknown": True},
    {"job_id": "j", "state": "sent", "reply_code": 250, "was_unknown": False},
)
SETTLED = {
    "state": "unknown", "job_error_type": "delivery-unknown", "failures": 0, "worker_s": 1.0,
    "recipients": [["unknown", None], ["sent", 250]],
}  # fmt: skip


def scraped(*rows):
    counts = Counts()
    for row in rows:
        counts.count(PLACE | row)
    return {"time_ns": 1, "set": told(counts), "gone": [], "last": True}


FIRST = {
    "ordinal": 1, "outcome": "unknown", "error_type": "delivery-unknown", "steps": {"smtp.send": 0.25},
    "duration_s": 1.0, "queue_s": 1.0, "proven": None, **SETTLED,
}  # fmt: skip
PROOF = {"outcome": None, "proven": 1, **SETTLED}


def evidence(*metrics):
    return Evidence(jobs=(JOB,), executions=(EXECUTION,), recipients=RECIPIENTS, metrics=metrics)


def test_what_was_proven_is_counted_as_unknown_and_as_sent():
    assert metrics_mismatch(evidence(scraped(FIRST, PROOF)), None, None).examples == ()


@pytest.mark.parametrize(
    ("rows", "sample"),
    [
        ((FIRST,), "mail_recipients_total{state=sent} is 1; the rows make it 2"),
        ((PROOF,), "mail_recipients_total{state=unknown} is 0; the rows make it 1"),
    ],
)
def test_a_proof_that_was_not_counted_or_was_counted_alone_is_told(rows, sample):
    assert sample in metrics_mismatch(evidence(scraped(*rows)), None, None).examples


def test_a_counter_that_went_away_between_two_scrapes_has_fallen():
    line = scraped(FIRST)
    gone = {"time_ns": 2, "set": {}, "gone": ['mail_recipients_total{state="sent"}']}
    (said,) = metrics_fell(evidence(line, gone), None, None).examples
    assert said == 'mail_recipients_total{state="sent"} was 1 and is gone'


def test_a_gauge_may_fall():
    lines = [{"time_ns": n, "set": {"mail_worker_capacity": 4.0 - n}, "gone": []} for n in range(3)]
    measured = metrics_fell(evidence(*lines), None, None)
    assert (measured.examples, measured.samples[0].value) == ((), 0)
