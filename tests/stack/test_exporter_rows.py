"""The exporter's statements, on a real PostgreSQL and as the role that runs them."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from email_service import exporter, jobs
from email_service.exporter import rows
from email_service.service.syncing import sent
from email_service.tenancy import SYSTEM, Scope

SEND = "email_service.tasks.send_email"
HOLDER = jobs.Holder(node="mail@here", host="h", pid=1, process_start_ns=5)


@pytest.fixture
def inputs(system_rows):
    return exporter.live_inputs(system_rows, "redis://127.0.0.1:1/0", "h")


@pytest.fixture
def begin(inputs):
    """The cursor behind all that other tests have left."""
    cursor = exporter.Cursor()
    while (page := inputs.ended(cursor))[0]:
        cursor = page[1]
    return page[1]


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


def lease(database, scope, job_id):
    now = datetime.now(UTC)
    delivery = jobs.Delivery(
        job_id=job_id,
        execution_id=uuid.uuid4(),
        span_id="c" * 16,
        received_at=now,
        started_at=now,
        pss_before_bytes=None,
    )
    with database.session(scope) as session:
        answer = jobs.lease(session, scope, delivery, HOLDER, trace_id="d" * 32, lease_s=310.0)
        session.commit()
    assert answer is not None
    return answer


def change(database, scope, statement, **values):
    with database.session(scope) as session:
        session.execute(text(statement), values)
        session.commit()


def end(outcome, lease):
    return jobs.Ending(outcome=outcome, ended_at=lease.started_at + timedelta(seconds=2))


def settled_xid(database, scope, job_id):
    with database.session(scope) as session:
        return session.execute(text("SELECT settled_xid::text FROM jobs WHERE id = :id"), {"id": job_id}).scalar_one()


def count_of(found, **facts):
    return sum(row["count"] for row in found if all(row[k] == v for k, v in facts.items()))


def test_the_settling_execution_brings_its_job_and_the_others_do_not(inputs, begin, app_rows, scope, job):
    first = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        jobs.reschedule(session, first, end("retry", first), delay_s=-10, failed=True)
        session.commit()
    second = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        ending = replace(end("succeeded", second), steps={"smtp.send": 0.5})
        jobs.finish(session, second, ending, state="succeeded", outcome="sent")
        session.commit()
    (retry, success), cursor = inputs.ended(begin)
    assert (retry["outcome"], retry["state"], retry["worker_s"], retry["ordinal"]) == ("retry", None, None, 1)
    assert (success["outcome"], success["state"], success["failures"]) == ("succeeded", "succeeded", 1)
    assert success["worker_s"] == pytest.approx(4.0)
    assert success["duration_s"] == pytest.approx(2.0)
    assert retry["trace_id"] == "a" * 32
    assert 0 <= retry["queue_s"] < 30
    assert (retry["trace_flags"], retry["steps"], success["steps"]) == ("01", {}, {"smtp.send": 0.5})
    assert inputs.ended(cursor)[0] == []


def test_a_row_is_not_passed_by_while_an_older_transaction_runs(inputs, begin, app_rows, scope, job):
    held = lease(app_rows, scope, job)
    with app_rows.session(scope) as open_session:
        # Has a transaction id, and holds it.
        open_session.execute(text("SELECT pg_current_xact_id()"))
        with app_rows.session(scope) as session:
            jobs.finish(session, held, end("succeeded", held), state="succeeded", outcome="sent")
            session.commit()
        found, cursor = inputs.ended(begin)
        assert found == []
        assert cursor.xid < int(settled_xid(app_rows, scope, job))
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
        # The tables are small here: nothing but the order of an index spares a sort.
        session.execute(text("SET LOCAL enable_seqscan = off"))
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        values = {"xid": "0", "id": str(uuid.UUID(int=0)), "limit": 10, "horizon": "100"}
        for statement, index in ((rows.ENDED, "executions_ended"), (rows.SETTLED_APART, "jobs_apart")):
            plan = "\n".join(session.execute(text("EXPLAIN " + statement), values).scalars())
            assert index in plan
            assert "Sort" not in plan
        for statement in (rows.OVERDUE, rows.LAG):
            plan = "\n".join(session.execute(text("EXPLAIN " + statement)).scalars())
            assert "jobs_publish" in plan


# --- what an execution did not settle, and what was settled twice


def recipient(database, scope, job_id, state, code=None):
    change(
        database, scope,
        "INSERT INTO recipients (job_id, address, tenant_id, role, state, reply_code) "
        "VALUES (:id, :who, :tenant, 'to', :state, :code)",
        id=job_id, who=f"{uuid.uuid4().hex}@b.example", tenant=scope.tenant_id, state=state, code=code,
    )  # fmt: skip


def counted(inputs):
    """What a fresh exporter tells; ``fresh`` has counted all rows by itself."""
    fresh = exporter.Exporter(inputs)
    while fresh.refresh() >= exporter.PAGE:
        pass
    return fresh._counts.samples()


def gained(before, after):
    """What a fresh exporter counts more than one before it did; and none less."""
    assert {key: value for key, value in before.items() if after.get(key, 0) < value - 1e-9} == {}
    changed = {key: round(value - before.get(key, 0), 6) for key, value in after.items()}
    return {
        (name, *(value for _, value in labels)): more
        for (name, labels), more in changed.items()
        if more and name.endswith("_total")
    }


def test_a_job_that_is_given_up_with_its_client_is_counted_although_no_execution_ends(inputs, app_rows, scope, job):
    client = uuid.uuid4()
    change(app_rows, scope, "UPDATE jobs SET client_id = :client WHERE id = :id", client=client, id=job)
    recipient(app_rows, scope, job, "queued")
    before = counted(inputs)
    with app_rows.session(scope) as session:
        jobs.abandon(session, scope, client, error_type="client-deleted")
        session.commit()
    assert gained(before, counted(inputs)) == {
        ("mail_task_failure_total", "client-deleted", "send", "send_email"): 1,
        ("mail_recipients_total", "failed"): 1,
        ("mail_smtp_replies_total", "none"): 1,
    }


def test_what_is_proven_later_is_counted_besides_and_a_restart_counts_the_same(inputs, app_rows, scope, job):
    folder, message = uuid.uuid4(), f"<{uuid.uuid4()}@test>"
    client = client_with_folder(app_rows, scope, folder)
    change(
        app_rows, scope, "UPDATE jobs SET client_id = :client, message_id = :message WHERE id = :id",
        client=client, message=message, id=job,
    )  # fmt: skip
    recipient(app_rows, scope, job, "sent", 250)
    recipient(app_rows, scope, job, "unknown")
    held = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        ending = replace(end("unknown", held), error_type="delivery-unknown")
        jobs.finish(session, held, ending, state="unknown", outcome="unknown")
        session.commit()
    running = exporter.Exporter(inputs)
    running.refresh()
    before = counted(inputs)
    copy_on_the_server(app_rows, scope, folder, client, message)
    with app_rows.session(scope) as session:
        assert sent.meet(session, replace(held, client_id=client), folder) == 1
        session.commit()
    after = counted(inputs)
    assert gained(before, after) == {
        ("mail_task_success_total", "send", "send_email"): 1,
        ("mail_recipients_total", "sent"): 1,
    }
    running.refresh()
    assert running._counts.samples() == {key: pytest.approx(value) for key, value in after.items()}


def test_an_execution_whose_death_is_told_twice_is_counted_once(inputs, app_rows, system_rows, scope, job):
    """At a hard limit Celery calls on_timeout, and on_failure for the same task; its stop puts back what is left."""
    before = counted(inputs)
    lease(app_rows, scope, job)
    for error_type in ("time-limit", "worker-lost", "shutdown"):
        with system_rows.session(SYSTEM) as session:
            jobs.cut_off(session, host="h", node="mail@here", pids=[1], error_type=error_type, publish_s=60, only=job)
            session.commit()
    assert gained(before, counted(inputs)) == {
        ("mail_executions_total", "killed", "send", "send_email"): 1,
        ("mail_execution_errors_total", "time-limit", "send", "send_email"): 1,
    }


def test_a_continuation_is_an_execution_and_a_retry_but_no_failure(inputs, app_rows, scope, job):
    before = counted(inputs)
    first = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        ending = replace(end("retry", first), error_type="time-limit")
        jobs.reschedule(session, first, ending, delay_s=-10, failed=False)
        session.commit()
    second = lease(app_rows, scope, job)
    with app_rows.session(scope) as session:
        jobs.finish(session, second, end("succeeded", second), state="succeeded", outcome="sent")
        session.commit()
    found = gained(before, counted(inputs))
    assert found["mail_task_retry_total", "send", "send_email"] == 1
    assert found["mail_task_success_total", "send", "send_email"] == 1
    (_, settled) = inputs.ended(exporter.Cursor())[0][-2:]
    assert settled["failures"] == 0


def test_the_dispatcher_s_lag_is_that_of_the_publish_that_is_due_for_longest(inputs, app_rows, scope, job):
    assert inputs.lag_s() < 3600
    change(app_rows, scope, "UPDATE jobs SET next_publish_at = now() - interval '2 hours' WHERE id = :id", id=job)
    assert 7200 <= inputs.lag_s() < 7300


def client_with_folder(database, scope, folder):
    client, credential = uuid.uuid4(), uuid.uuid4()
    change(
        database, scope,
        "INSERT INTO credentials (id, tenant_id, user_id, key_id, salt, nonce, ciphertext) "
        "VALUES (:id, :tenant, 'u', 'k', '', '', '')",
        id=credential, tenant=scope.tenant_id,
    )  # fmt: skip
    change(
        database, scope,
        "INSERT INTO email_clients (id, tenant_id, user_id, address, imap_host, imap_port, imap_encryption, smtp_host, "
        "smtp_port, smtp_encryption, username, credential_id) "
        "VALUES (:id, :tenant, 'u', 'a@b.c', 'h', 1, 'none', 'h', 1, 'none', 'a', :credential)",
        id=client, tenant=scope.tenant_id, credential=credential,
    )  # fmt: skip
    change(
        database, scope,
        "INSERT INTO email_folders (id, tenant_id, user_id, client_id, name, type) "
        "VALUES (:id, :tenant, 'u', :client, 'Sent', 'sent')",
        id=folder, tenant=scope.tenant_id, client=client,
    )  # fmt: skip
    return client


def copy_on_the_server(database, scope, folder, client, message):
    change(
        database, scope,
        "INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, uidvalidity, uid, message_id, "
        "sender, recipients_to, recipients_cc, subject, body_text, headers, flags, size_bytes) "
        "VALUES (gen_random_uuid(), :tenant, 'u', :client, :folder, 1, 1, :message, "
        "'', '[]', '[]', '', '', '[]', '[]', 0)",
        tenant=scope.tenant_id, client=client, folder=folder, message=message,
    )  # fmt: skip
