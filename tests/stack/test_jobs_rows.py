"""The contracts of job and execution rows, on a real PostgreSQL."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from email_service import jobs, policy
from email_service.errors import ConflictError, LeaseLostError, NotFoundError
from email_service.tenancy import SYSTEM, Scope

SCALE = 0.05
HOLDER = jobs.Holder(node="n", host="h", pid=1, process_start_ns=5)
SEND = "email_service.tasks.send_email"


def now():
    return datetime.now(UTC)


class Bench:
    """One scope's jobs, with what every test does to them."""

    def __init__(self, app_rows, system_rows, tenant):
        self.rows, self.system = app_rows, system_rows
        self.scope = Scope(tenant_id=tenant, user_id="u")

    def enqueue(self, **options):
        job = jobs.NewJob(id=uuid.uuid4(), name=SEND, args={"a": 1}, **options)
        with self.rows.session(self.scope) as session:
            answer = jobs.enqueue(session, self.scope, job, time_scale=SCALE)
            session.commit()
        return answer

    def lease(self, job_id):
        delivery = jobs.Delivery(
            job_id=job_id,
            execution_id=uuid.uuid4(),
            span_id="a" * 16,
            received_at=now(),
            started_at=now(),
            pss_before_bytes=None,
        )
        with self.rows.session(self.scope) as session:
            answer = jobs.lease(session, self.scope, delivery, HOLDER, trace_id="b" * 32, lease_s=policy.lease_s(SCALE))
            session.commit()
        return answer

    def finish(self, lease):
        with self.rows.session(self.scope) as session:
            ending = jobs.Ending(outcome="succeeded", ended_at=now())
            jobs.finish(session, lease, ending, state="succeeded", outcome="sent")
            session.commit()

    def reschedule(self, lease, delay_s, ended_at=None):
        with self.rows.session(self.scope) as session:
            ending = jobs.Ending(outcome="retry", ended_at=ended_at or now(), error_type="smtp")
            due = jobs.reschedule(session, lease, ending, delay_s=delay_s, failed=True)
            session.commit()
        return due

    def due(self):
        with self.system.session(SYSTEM) as session:
            batch = jobs.due(session, limit=1000, time_scale=SCALE)
            session.commit()
        return [m for m in batch if m.tenant_id == self.scope.tenant_id]

    def status(self, job_id, scope=None):
        scope = scope or self.scope
        with self.rows.session(scope) as session:
            return jobs.status(session, scope, job_id)

    def feed(self, after=None, limit=100):
        with self.rows.session(self.scope) as session:
            return jobs.feed(session, self.scope, after=after, limit=limit)

    def make_overdue(self, job_id):
        with self.system.session(SYSTEM) as session:
            session.execute(
                text(
                    "UPDATE jobs SET next_publish_at = now() - interval '1 s', lease_until = now() - interval '1 s' "
                    "WHERE id = :id"
                ),
                {"id": job_id},
            )
            session.commit()


@pytest.fixture
def bench(app_rows, system_rows, tenant):
    return Bench(app_rows, system_rows, tenant)


def test_the_same_idempotency_key_answers_the_same_job(bench):
    first = bench.enqueue(idempotency_key="k", request=b"x")
    again = bench.enqueue(idempotency_key="k", request=b"x")
    assert (again.id, again.created) == (first.id, False)


def test_the_same_key_with_another_request_is_a_conflict(bench):
    bench.enqueue(idempotency_key="k", request=b"x")
    with pytest.raises(ConflictError):
        bench.enqueue(idempotency_key="k", request=b"y")


def test_only_one_execution_takes_the_lease(bench):
    job = bench.enqueue()
    assert bench.lease(job.id).ordinal == 1
    assert bench.lease(job.id) is None


def test_a_settled_job_can_not_be_leased(bench):
    job = bench.enqueue()
    bench.finish(bench.lease(job.id))
    assert bench.lease(job.id) is None
    assert bench.status(job.id)["state"] == "succeeded"


def test_a_retry_is_due_exactly_its_delay_after_the_end_and_not_before(bench):
    job, ended = bench.enqueue(), now()
    due = bench.reschedule(bench.lease(job.id), 30.0, ended_at=ended)
    assert due - ended == timedelta(seconds=30)
    assert bench.lease(job.id) is None
    assert bench.due() == []


def test_a_due_retry_is_published_once_with_its_number_and_its_cause(bench):
    job = bench.enqueue(traceparent=f"00-{'c' * 32}-{'d' * 16}-01")
    bench.reschedule(bench.lease(job.id), 0.0)
    (message,) = bench.due()
    assert (message.id, message.failures, message.publishes) == (job.id, 1, 2)
    assert message.traceparent == f"00-{'c' * 32}-{'d' * 16}-01"
    assert message.cause == f"00-{'c' * 32}-{'a' * 16}-01"
    assert bench.due() == []
    assert bench.lease(job.id).failures == 1


def test_a_lease_that_ran_out_is_published_again_and_its_execution_is_killed(bench):
    job = bench.enqueue()
    first = bench.lease(job.id)
    bench.make_overdue(job.id)
    assert [m.id for m in bench.due()] == [job.id]
    second = bench.lease(job.id)
    assert (second.ordinal, second.lost) == (2, 1)
    with pytest.raises(LeaseLostError):
        bench.finish(first)
    bench.finish(second)
    outcomes = [e["outcome"] for e in bench.status(job.id)["executions"]]
    assert outcomes == ["killed", "succeeded"]


def test_a_job_that_nobody_leased_is_published_again_after_its_grace(bench):
    job = bench.enqueue()
    assert bench.due() == []
    bench.make_overdue(job.id)
    assert [m.id for m in bench.due()] == [job.id]


def test_the_lease_of_a_dead_process_ends_at_once_and_that_of_a_living_one_stays(bench):
    job = bench.enqueue()
    bench.lease(job.id)
    with bench.system.session(SYSTEM) as session:
        assert jobs.release_dead(session, "h", lambda _pid, _start: True, only=job.id) == 0
        assert jobs.release_dead(session, "elsewhere", lambda _pid, _start: False, only=job.id) == 0
        assert jobs.release_dead(session, "h", lambda _pid, _start: False, only=job.id) == 1
        session.commit()
    assert bench.lease(job.id).lost == 1


def test_a_lost_lease_is_seen_before_an_effect(bench):
    job = bench.enqueue()
    lease = bench.lease(job.id)
    with bench.rows.session(bench.scope) as session:
        jobs.hold(session, lease)
    bench.make_overdue(job.id)
    with bench.rows.session(bench.scope) as session, pytest.raises(LeaseLostError):
        jobs.hold(session, lease)


def test_another_tenant_and_another_user_see_no_job(bench, tenant):
    job = bench.enqueue()
    for scope in (Scope(tenant_id="other", user_id="u"), Scope(tenant_id=tenant, user_id="v")):
        with pytest.raises(NotFoundError):
            bench.status(job.id, scope)


def test_the_feed_shows_each_settled_job_once_in_pages(bench):
    ids = {str(bench.enqueue().id) for _ in range(5)}
    for job_id in ids:
        bench.finish(bench.lease(uuid.UUID(job_id)))
    seen, cursor = [], None
    for _ in range(10):
        rows, cursor = bench.feed(cursor, limit=2)
        seen += [row["task_id"] for row in rows]
    assert sorted(seen) == sorted(ids)


def test_a_commit_that_finishes_late_is_not_skipped_by_the_feed(bench):
    """The early transaction id settles last: a cursor by time would have passed it."""
    early, late = bench.enqueue(), bench.enqueue()
    early_lease, late_lease = bench.lease(early.id), bench.lease(late.id)
    with bench.rows.session(bench.scope) as session:
        ending = jobs.Ending(outcome="succeeded", ended_at=now())
        jobs.finish(session, early_lease, ending, state="succeeded", outcome="sent")
        bench.finish(late_lease)
        rows, cursor = bench.feed()
        assert rows == []
        session.commit()
    rows, _ = bench.feed(cursor)
    assert {row["task_id"] for row in rows} == {str(early.id), str(late.id)}


def test_a_beat_task_is_adopted_once(bench):
    job = jobs.NewJob(id=uuid.uuid4(), name="email_service.tasks.periodic_sync", args={})
    with bench.system.session(SYSTEM) as session:
        jobs.adopt(session, SYSTEM, job, time_scale=1)
        jobs.adopt(session, SYSTEM, job, time_scale=1)
        session.commit()
