"""What the main process of a worker does to the rows of the dead, on a real PostgreSQL."""

from __future__ import annotations

import base64
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text
from use_cases import HOLDER

from email_service import jobs, losses, policy, tasks
from email_service.config import settings_from
from email_service.tenancy import SYSTEM, Scope

SEND = "email_service.tasks.send_email"


class Bench:
    def __init__(self, app_rows, system_rows, tenant):
        self.rows, self.system, self.scope = app_rows, system_rows, Scope(tenant_id=tenant, user_id="u")
        self.holder = jobs.Holder(node=f"mail@{tenant}", host=f"host-{tenant}", pid=100, process_start_ns=5)

    def begin(self, job_id=None, *, pid=100):
        """A job with an execution that runs in that process."""
        job = jobs.NewJob(id=job_id or uuid.uuid4(), name=SEND, args={})
        holder = jobs.Holder(node=self.holder.node, host=self.holder.host, pid=pid, process_start_ns=5)
        moment = datetime.now(UTC)
        delivery = jobs.Delivery(
            job_id=job.id,
            execution_id=uuid.uuid4(),
            span_id="a" * 16,
            received_at=moment,
            started_at=moment,
            pss_before_bytes=None,
        )
        with self.rows.session(self.scope) as session:
            if job_id is None:
                jobs.enqueue(session, self.scope, job, time_scale=1)
            lease = jobs.lease(session, self.scope, delivery, holder, trace_id="b" * 32, lease_s=300)
            session.commit()
        return lease

    def cut_off(self, *pids, node=None, error_type="worker-lost", publish_s=0.0, only=None):
        with self.system.session(SYSTEM) as session:
            freed = jobs.cut_off(
                session,
                host=self.holder.host,
                node=node or self.holder.node,
                pids=pids,
                error_type=error_type,
                publish_s=publish_s,
                only=only,
            )
            session.commit()
        return freed

    def run_out(self, job_id):
        with self.rows.session(self.scope) as session:
            query = text("UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE id = :id")
            session.execute(query, {"id": job_id})
            session.commit()

    def last_of(self, job_id):
        with self.system.session(SYSTEM) as session:
            return jobs.last_of(session, job_id, host=self.holder.host, node=self.holder.node, pid=100)

    def executions(self, job_id):
        with self.rows.session(self.scope) as session:
            return [(e["outcome"], e["error_type"]) for e in jobs.status(session, self.scope, job_id)["executions"]]

    def publish_in_s(self, job_id):
        with self.system.session(SYSTEM) as session:
            query = text("SELECT extract(epoch FROM next_publish_at - clock_timestamp()) FROM jobs WHERE id = :id")
            return float(session.execute(query, {"id": job_id}).scalar_one())


@pytest.fixture
def bench(app_rows, system_rows, tenant):
    return Bench(app_rows, system_rows, tenant)


def test_a_dead_process_frees_its_job_at_once_and_no_other(bench):
    dead, living = bench.begin(pid=100), bench.begin(pid=101)
    assert [one.job_id for one in bench.cut_off(100)] == [dead.job_id]
    assert bench.executions(dead.job_id) == [("killed", "worker-lost")]
    assert bench.executions(living.job_id) == [(None, None)]
    assert bench.begin(dead.job_id).ordinal == 2
    assert bench.begin(living.job_id) is None


def test_a_lease_tells_once_of_the_dead_that_it_ended(bench):
    """With all that a span needs, as the dead wrote none."""
    first = bench.begin()
    bench.run_out(first.job_id)
    second = bench.begin(first.job_id)
    (dead,) = second.vanished
    assert (dead.execution_id, dead.ordinal, dead.outcome, dead.error_type) == (
        first.execution_id,
        1,
        "killed",
        "worker-lost",
    )
    assert (dead.span_id, dead.tenant_id, dead.pid) == ("a" * 16, bench.scope.tenant_id, 100)
    assert dead.started_at <= dead.ended_at
    bench.run_out(first.job_id)
    assert [one.execution_id for one in bench.begin(first.job_id).vanished] == [second.execution_id]


def test_what_a_dead_process_had_ended_is_known_and_what_was_ended_for_it_is_not_its_own(bench):
    lease = bench.begin()
    assert bench.last_of(lease.job_id) is None
    with bench.rows.session(bench.scope) as session:
        ending = jobs.Ending(outcome="succeeded", ended_at=datetime.now(UTC))
        jobs.finish(session, lease, ending, state="succeeded", outcome="sent")
        session.commit()
    last = bench.last_of(lease.job_id)
    assert (last.outcome, last.error_type, last.ended_at) == ("succeeded", None, ending.ended_at)
    killed = bench.begin()
    bench.cut_off(100)
    assert bench.last_of(killed.job_id) is None


def test_a_namesake_on_another_node_is_left_alone(bench):
    """Two containers may have the same pids."""
    lease = bench.begin(pid=100)
    assert not bench.cut_off(100, node="mail@other")
    assert bench.executions(lease.job_id) == [(None, None)]


def test_an_execution_that_ended_by_itself_stays_what_it_was(bench):
    lease = bench.begin()
    with bench.rows.session(bench.scope) as session:
        ending = jobs.Ending(outcome="succeeded", ended_at=datetime.now(UTC))
        jobs.finish(session, lease, ending, state="succeeded", outcome="sent")
        session.commit()
    assert not bench.cut_off(100)
    assert bench.executions(lease.job_id) == [("succeeded", None)]


def test_the_message_that_goes_back_by_itself_has_its_grace_and_the_others_are_due(bench):
    back, away = bench.begin(pid=100), bench.begin(pid=101)
    bench.cut_off(100, publish_s=20.0)
    bench.cut_off(101, error_type="time-limit")
    assert 15 < bench.publish_in_s(back.job_id) <= 20
    assert bench.publish_in_s(away.job_id) <= 0


def test_losses_count_against_a_job_and_stops_do_not(bench):
    lease = bench.begin()
    for error_type, lost in (("worker-lost", 1), ("shutdown", 1), ("time-limit", 2), ("shutdown", 2)):
        bench.cut_off(100, error_type=error_type)
        lease = bench.begin(lease.job_id)
        assert lease.lost == lost


def settings(postgres, bench, **changes):
    made = settings_from(
        {
            "DATABASE_URL": postgres.app,
            "DATABASE_SYSTEM_URL": postgres.system,
            "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
            "MAIL_TOKEN_SECRET": "x" * 40,
            "MAIL_BLOB_DIR": "/blobs",
            "MAIL_NODE": bench.holder.node,
            **changes,
        }
    )
    object.__setattr__(made, "host", bench.holder.host)
    return made


def test_a_worker_that_has_stopped_puts_back_what_its_dead_had_and_leaves_the_living(postgres, bench):
    dead, living = bench.begin(pid=100), bench.begin(pid=101)
    assert losses.put_back(settings(postgres, bench), lambda pid, _start: pid == 101) == 1
    assert bench.executions(dead.job_id) == [("killed", "shutdown")]
    assert bench.executions(living.job_id) == [(None, None)]


def test_a_database_that_is_away_costs_a_line_and_not_the_stop(postgres, bench, caplog):
    away = "postgresql://mail_system:x@127.0.0.1:9/none"
    assert losses.put_back(settings(postgres, bench, DATABASE_SYSTEM_URL=away), lambda _pid, _start: False) == 0
    assert "database is away" in caplog.text


def test_a_row_that_the_dead_still_hold_is_not_waited_for_long(postgres, bench, caplog, monkeypatch):
    """The server may not have seen yet that the killed child's connection is gone."""
    monkeypatch.setattr(losses, "_LOCK_TIMEOUT", "50ms")
    lease = bench.begin()
    with bench.rows.session(bench.scope) as session:
        jobs.hold(session, lease)
        assert losses.put_back(settings(postgres, bench), lambda _pid, _start: False) == 0
    assert losses.put_back(settings(postgres, bench), lambda _pid, _start: False) == 1


def test_an_execution_that_takes_over_from_a_dead_one_starts_after_its_death(desk):
    """Its first try may have waited long for what the dead had locked."""
    work = desk.lease(desk.enqueue("sync_emails"))
    moments = [work.lease.started_at + timedelta(seconds=n) for n in (10, 20)]
    readings = iter(moments)
    runtime = tasks.Runtime(
        tools=replace(desk.tools, clock=lambda: next(readings)), holder=HOLDER, alive=lambda _pid, _start: False
    )
    rule = policy.TASKS["email_service.tasks.sync_emails"]
    request = SimpleNamespace(id=str(work.lease.job_id))
    lease = tasks._lease(runtime, rule, desk.scope, request, received_ns=0, span_id="c" * 16)
    assert [one.execution_id for one in lease.vanished] == [work.lease.execution_id]
    assert lease.started_at == moments[1]
    query = "SELECT started_at FROM executions WHERE id = :id"
    assert desk.rows(query, id=lease.execution_id) == [{"started_at": moments[1]}]
