"""What counters and histograms make of a row, and that no row makes series without end."""

from __future__ import annotations

import random

import pytest

from email_service import counting, errors, policy, signals
from email_service.counting import Counts

SEND = "email_service.tasks.send_email"
TRACE = "a" * 32


def execution(**changes):
    row = {
        "name": SEND, "queue": "send", "ordinal": 1, "outcome": "succeeded", "trace_id": TRACE, "trace_flags": "01",
        "duration_s": 0.2, "queue_s": 0.03, "error_type": None, "steps": None, "state": None, "job_error_type": None,
        "failures": 0, "worker_s": None, "recipients": None, "proven": None,
    }  # fmt: skip
    return row | changes


def apart(**changes):
    """A job that no execution settled."""
    return execution(**{"outcome": None, "ordinal": None, "duration_s": None, "queue_s": None, **changes})


def counted(*rows):
    counts = Counts()
    for row in rows:
        counts.count(row)
    return counts.samples()


def value(samples, name, **labels):
    return samples.get((name, tuple(sorted(labels.items()))), 0)


def test_each_outcome_of_an_execution_is_counted():
    samples = counted(execution(), execution(outcome="killed", duration_s=None, error_type="worker-lost"))
    where = {"task": "send_email", "queue": "send"}
    assert value(samples, "mail_executions_total", **where, outcome="succeeded") == 1
    assert value(samples, "mail_executions_total", **where, outcome="killed") == 1
    assert value(samples, "mail_execution_errors_total", **where, error_type="worker-lost") == 1


def test_a_step_is_observed_once_for_each_execution():
    samples = counted(execution(steps={"smtp.send": 0.5, "smtp.connect": 0.1}), execution(steps={"smtp.send": 1.5}))
    assert value(samples, "mail_step_seconds_count", protocol="smtp", step="send") == 2
    assert value(samples, "mail_step_seconds_sum", protocol="smtp", step="send") == 2
    assert value(samples, "mail_step_seconds_count", protocol="smtp", step="connect") == 1


def test_a_job_brings_its_recipients_when_it_is_settled_and_not_before():
    waits = execution(outcome="retry", recipients=None)
    settles = execution(state="succeeded", recipients=[["sent", 250], ["failed", 550], ["unknown", None]])
    samples = counted(waits, settles)
    assert [value(samples, "mail_recipients_total", state=s) for s in ("sent", "failed", "unknown")] == [1, 1, 1]
    assert [value(samples, "mail_smtp_replies_total", code=c) for c in ("250", "550", "none")] == [1, 1, 1]


def test_what_was_unknown_and_is_proven_is_counted_as_both():
    """A counter can't take anything back."""
    settled = execution(outcome="unknown", state="unknown", job_error_type="delivery-unknown")
    settled["recipients"] = [["unknown", None], ["sent", 250]]
    samples = counted(settled, apart(state="unknown", recipients=settled["recipients"], proven=1))
    where = {"task": "send_email", "queue": "send"}
    assert value(samples, "mail_recipients_total", state="unknown") == 1
    assert value(samples, "mail_recipients_total", state="sent") == 2
    assert value(samples, "mail_task_failure_total", **where, error_type="delivery-unknown") == 1
    assert value(samples, "mail_task_success_total", **where) == 1
    assert value(samples, "mail_smtp_replies_total", code="none") == 1
    assert value(samples, "mail_task_retries_count", task="send_email", outcome="unknown") == 1


def test_a_job_that_was_given_up_with_its_client_is_a_failure_without_an_execution():
    samples = counted(apart(state="failed", job_error_type="client-deleted", recipients=[["failed", None]]))
    where = {"task": "send_email", "queue": "send"}
    assert value(samples, "mail_task_failure_total", **where, error_type="client-deleted") == 1
    assert value(samples, "mail_recipients_total", state="failed") == 1
    assert not [name for name, _ in samples if name.startswith("mail_executions")]


@pytest.mark.parametrize(("flags", "kept"), [("01", True), ("03", True), ("00", False), ("02", False), (None, False)])
def test_only_a_trace_that_was_kept_is_an_exemplar(flags, kept):
    """A link to a trace that nobody has is worse than none."""
    counts = Counts()
    counts.count(execution(trace_flags=flags))
    found = [s.exemplar for family in counts.families() for s in family.samples if s.exemplar]
    assert bool(found) == kept


def test_the_types_of_errors_are_those_of_the_tree():
    def below(kind):
        return {kind, *(each for child in kind.__subclasses__() for each in below(child))}

    ours = {kind for kind in below(errors.MailServiceError) if kind.__module__ == errors.__name__}
    assert {kind().code for kind in ours} <= set(signals.ERROR_TYPES)
    from_outside = set(signals.ERROR_TYPES) - {kind().code for kind in ours}
    assert from_outside == {"client-deleted", "shutdown", "failed", "unknown"}


def noise(rng):
    """A row of which nothing is what it should be."""
    word = f"tenant-{rng.getrandbits(40):x}"
    return execution(
        name=f"{word}.{word}", queue=word, ordinal=rng.randrange(1, 10**6), outcome=word, error_type=word,
        steps={f"{word}.{word}": rng.random(), word: 1.0}, state=word, job_error_type=word, failures=rng.randrange(99),
        recipients=[[word, rng.randrange(1000)], ["sent", rng.randrange(1000)], ["failed", None]],
        trace_id=f"{rng.getrandbits(128):032x}",
    )  # fmt: skip


def plausible(rng):
    """A row with any combination of what there is."""
    rule = rng.choice(list(policy.TASKS.values()))
    return execution(
        name=rule.name, queue=rule.queue, ordinal=rng.randrange(1, 40), outcome=rng.choice(signals.EXECUTION_OUTCOMES),
        error_type=rng.choice(signals.ERROR_TYPES), steps={rng.choice(signals.MAIL_STEPS): rng.random()},
        state=rng.choice(signals.JOB_STATES_FINAL), job_error_type=rng.choice(signals.ERROR_TYPES),
        recipients=[[rng.choice(signals.RECIPIENT_STATES), rng.randrange(600)]],
    )  # fmt: skip


def series(counts):
    return sum(len(family.samples) for family in counts.families())


def test_a_thousand_tenants_errors_and_attempts_make_no_series_that_were_not_there():
    rng, counts = random.Random(7), Counts()
    for _ in range(20_000):
        counts.count(plausible(rng))
    for _ in range(200):
        counts.count(noise(rng))
    before = series(counts)
    for _ in range(1000):
        counts.count(noise(rng))
    assert series(counts) == before
    assert before < 3000


def test_no_label_holds_what_a_row_brought():
    rng, counts = random.Random(8), Counts()
    for _ in range(50):
        counts.count(noise(rng))
    shown = {v for family in counts.families() for s in family.samples for v in s.labels.values()}
    assert counting.OTHER in shown
    assert not [text for text in shown if "tenant" in text]
