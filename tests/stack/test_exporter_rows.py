"""The exporter's statements, on a real PostgreSQL and as the role that runs them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from email_service import exporter, jobs
from email_service.tenancy import SYSTEM, Scope

SEND = "email_service.tasks.send_email"
HOLDER = jobs.Holder(node="mail@here", host="h", pid=1, process_start_ns=5)


@pytest.fixture
def inputs(system_rows):
    return exporter.live_inputs(system_rows, "redis://127.0.0.1:1/0", "h")


@pytest.fixture
def begin(inputs):
    """The cursor behind all that other tests have left."""
    cursor = exporter.START
    while (page := inputs.ended(cursor))[0]:
        cursor = page[1]
    return cursor


@pytest.fixture
def scope(tenant):
    return Scope(tenant_id=tenant, user_id="u")


@pytest.fixture
def job(app_rows, scope):
    wanted = jobs.NewJob(id=uuid.uuid4(), name=SEND, args={}, traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    with app_rows.session(scope) as session:
        jobs.enqueue(session, scope, wanted, time_scale=1.0)
        session.commit()
    return wanted.id


def lease(rows, scope, job_id):
    now = datetime.now(UTC)
    delivery = jobs.Delivery(
        job_id=job_id,
        execution_id=uuid.uuid4(),
        span_id="c" * 16,
        received_at=now,
        started_at=now,
        pss_before_bytes=None,
    )
    with rows.session(scope) as session:
        answer = jobs.lease(session, scope, delivery, HOLDER, trace_id="d" * 32, lease_s=310.0)
        session.commit()
    assert answer is not None
    return answer


def change(rows, scope, statement, **values):
    with rows.session(scope) as session:
        session.execute(text(statement), values)
        session.commit()


def end(outcome, lease):
    return jobs.Ending(outcome=outcome, ended_at=lease.started_at + timedelta(seconds=2))


def count_of(rows, **facts):
    return sum(row["count"] for row in rows if all(row[k] == v for k, v in facts.items()))


def test_the_settling_execution_brings_its_job_and_the_others_do_not(inputs, begin, app_rows, scope, job):
    first = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        jobs.reschedule(session, first, end("retry", first), delay_s=-10, failed=True)
        session.commit()
    second = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        jobs.finish(session, second, end("succeeded", second), state="succeeded", outcome="sent")
        session.commit()
    (retry, success), cursor = inputs.ended(begin)
    assert (retry["outcome"], retry["state"], retry["worker_s"], retry["ordinal"]) == ("retry", None, None, 1)
    assert (success["outcome"], success["state"], success["failures"]) == ("succeeded", "succeeded", 1)
    assert success["worker_s"] == pytest.approx(4.0)
    assert success["duration_s"] == pytest.approx(2.0)
    assert retry["trace_id"] == "a" * 32
    assert 0 <= retry["queue_s"] < 30
    assert inputs.ended(cursor) == ([], cursor)


def test_a_row_is_not_passed_by_while_an_older_transaction_runs(inputs, begin, app_rows, scope, job):
    held = lease(app_rows, scope, job)
    with app_rows.session(scope) as open_session:
        # Has a transaction id, and holds it.
        open_session.execute(text("SELECT pg_current_xact_id()"))
        with app_rows.session(scope) as session:
            jobs.finish(session, held, end("succeeded", held), state="succeeded", outcome="sent")
            session.commit()
        assert inputs.ended(begin) == ([], begin)
    (row,), _ = inputs.ended(begin)
    assert row["state"] == "succeeded"


def test_what_runs_is_what_holds_a_lease(inputs, app_rows, scope, job):
    before = count_of(inputs.running(), node="mail@here")
    lease(app_rows, scope, job)
    assert count_of(inputs.running(), node="mail@here", name=SEND) == before + 1
    change(app_rows, scope, "UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id", id=job)
    assert count_of(inputs.running(), node="mail@here") == before


def test_what_waits_and_what_is_overdue(inputs, app_rows, scope, job):
    waiting = count_of(inputs.waiting(), queue="send")
    change(app_rows, scope, "UPDATE jobs SET due_at = now() - interval '1 hour' WHERE id = :id", id=job)
    assert {row["queue"]: row["oldest_s"] for row in inputs.overdue()}["send"] >= 3600
    held = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        jobs.reschedule(session, held, end("retry", held), delay_s=600, failed=True)
        session.commit()
    assert count_of(inputs.waiting(), queue="send") == waiting + 1


def test_the_statements_use_indexes(system_rows):
    with system_rows.session(SYSTEM) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))
        values = {"xid": "0", "id": str(uuid.UUID(int=0)), "limit": 10}
        plan = "\n".join(session.execute(text("EXPLAIN " + exporter._ENDED), values).scalars())
        assert "executions_ended" in plan
        assert "Sort" not in plan
        plan = "\n".join(session.execute(text("EXPLAIN " + exporter._OVERDUE)).scalars())
        assert "jobs_publish" in plan
