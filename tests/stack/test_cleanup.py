"""The hourly cleanup on real rows and files: what goes, what stays, and what it tells."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, text
from use_cases import HOLDER, settings, tools
from waiting import until

from email_service import exporter, jobs
from email_service.service import cleaning
from email_service.service.work import Work
from email_service.tenancy import SYSTEM, Database, Scope

SEND = "email_service.tasks.send_email"
CLEANUP = "email_service.tasks.cleanup_stale_results"
DAY = timedelta(days=1)


class Yard:
    """One tenant's rows and files, of any age, and the cleanup over them."""

    def __init__(self, hands, tenant):
        self.tools, self.scope = hands, Scope(tenant_id=tenant, user_id="u")

    def sql(self, statement, **values):
        with self.tools.database.session(self.scope) as session:
            answer = session.execute(text(statement), values)
            rows = answer.all() if answer.returns_rows else []
            session.commit()
        return rows

    def count(self, table, **values):
        where = " AND ".join(f"{k} = :{k}" for k in values) or "true"
        return self.sql(f"SELECT count(*) FROM {table} WHERE {where}", **values)[0][0]

    def job(self, name=SEND, scope=None, **args):
        scope = scope or self.scope
        job = jobs.NewJob(id=uuid.uuid4(), name=name, args=args)
        with self.rows(scope).session(scope) as session:
            jobs.enqueue(session, scope, job, time_scale=1.0)
            session.commit()
        return job.id

    def rows(self, scope):
        return self.tools.system if scope == SYSTEM else self.tools.database

    def lease(self, job_id, scope=None):
        scope, now = scope or self.scope, datetime.now(UTC)
        delivery = jobs.Delivery(
            job_id=job_id, execution_id=uuid.uuid4(), span_id="a" * 16, received_at=now, started_at=now,
            pss_before_bytes=None,
        )  # fmt: skip
        with self.rows(scope).session(scope) as session:
            lease = jobs.lease(session, scope, delivery, HOLDER, trace_id="b" * 32, lease_s=300)
            session.commit()
        return lease

    def settled(self, *, age, state="succeeded"):
        """A job with one execution and one recipient, settled so long ago."""
        job_id = self.job(attachment_ids=[])
        self.sql(
            "INSERT INTO recipients (job_id, address, tenant_id, role, state) VALUES (:id, 'a@b.c', :t, 'to', 'sent')",
            id=job_id, t=self.scope.tenant_id,
        )  # fmt: skip
        lease = self.lease(job_id)
        ended = datetime.now(UTC)
        with self.tools.database.session(self.scope) as session:
            jobs.finish(session, lease, jobs.Ending(outcome=state, ended_at=ended), state=state, outcome="sent")
            session.commit()
        self.sql("UPDATE jobs SET finished_at = now() - :age WHERE id = :id", id=job_id, age=age)
        return job_id

    def upload(self, data, *, age, message_id=None):
        """An upload of this age; its file is as old."""
        ref = self.tools.blobs.put(self.scope.tenant_id, data)
        self.make_old(ref.key, age)
        return self.sql(
            "INSERT INTO email_attachments (id, tenant_id, user_id, message_id, blob_key, filename, content_type, "
            "size_bytes, sha256, created_at) VALUES (gen_random_uuid(), :t, 'u', :message, :key, 'f', 'a/b', :size, "
            "'', now() - :age) RETURNING id, blob_key",
            t=self.scope.tenant_id, message=message_id, key=ref.key, size=ref.size_bytes, age=age,
        )[0]  # fmt: skip

    def make_old(self, key, age):
        moment = (datetime.now(UTC) - age).timestamp()
        os.utime(self.tools.blobs._root / key, (moment, moment))

    def credential(self, *, age):
        return self.sql(
            "INSERT INTO credentials (id, tenant_id, user_id, key_id, salt, nonce, ciphertext, created_at) "
            "VALUES (gen_random_uuid(), :t, 'u', 'k', '', '', '', now() - :age) RETURNING id",
            t=self.scope.tenant_id, age=age,
        )[0][0]  # fmt: skip

    def client(self, *, lease_until=None, execution_id=None):
        return self.sql(
            "INSERT INTO email_clients (id, tenant_id, user_id, address, imap_host, imap_port, imap_encryption, "
            "smtp_host, smtp_port, smtp_encryption, username, credential_id, sync_execution_id, sync_lease_until) "
            "VALUES (gen_random_uuid(), :t, 'u', 'a@b.c', 'h', 1, 'none', 'h', 1, 'none', 'a', :credential, "
            ":execution, now() + CAST(:until AS interval)) RETURNING id",
            t=self.scope.tenant_id, credential=self.credential(age=2 * DAY), execution=execution_id, until=lease_until,
        )[0][0]  # fmt: skip

    def message(self):
        client_id = self.client()
        return self.sql(
            "WITH folder AS (INSERT INTO email_folders (id, tenant_id, user_id, client_id, name, type) "
            "VALUES (gen_random_uuid(), :t, 'u', :client, 'INBOX', 'inbox') RETURNING id) "
            "INSERT INTO email_messages (id, tenant_id, user_id, client_id, folder_id, sender, recipients_to, "
            "recipients_cc, subject, body_text, headers, flags, size_bytes) SELECT gen_random_uuid(), :t, 'u', "
            ":client, folder.id, '', '[]', '[]', '', '', '[]', '[]', 0 FROM folder RETURNING id",
            t=self.scope.tenant_id, client=client_id,
        )[0][0]  # fmt: skip

    def clean(self, **options):
        return cleaning.clean(self.tools, **({"budget_s": 60.0} | options))

    def exists(self, key):
        return self.tools.blobs.exists(key, self.scope.tenant_id)


@pytest.fixture
def hands(postgres, app_rows, system_rows, tmp_path):
    return tools(settings(postgres, tmp_path), app_rows, system_rows, tmp_path)


@pytest.fixture
def yard(hands, tenant):
    made = Yard(hands, tenant)
    # What other tests have left is not ours to count.
    made.clean()
    return made


def test_a_settled_job_goes_after_the_retention_with_all_that_hangs_on_it(yard):
    old = [yard.settled(age=31 * DAY, state=state) for state in ("succeeded", "failed", "unknown")]
    young = yard.settled(age=29 * DAY)
    told = yard.clean(batch=2)
    assert (told["jobs"], told["executions"], told["complete"]) == (3, 3, True)
    assert [yard.count("jobs", id=i) for i in old] == [0, 0, 0]
    for table in ("executions", "recipients"):
        assert [yard.count(table, job_id=i) for i in (*old, young)] == [0, 0, 0, 1]


@pytest.mark.parametrize("state", ["queued", "waiting", "running"])
def test_an_unsettled_job_stays_however_old_it_is(yard, state):
    job_id = yard.job(attachment_ids=[])
    if state == "running":
        yard.lease(job_id)
    yard.sql(
        "UPDATE jobs SET state = :state, created_at = now() - :age, finished_at = now() - :age WHERE id = :id",
        age=365 * DAY, id=job_id, state=state,
    )  # fmt: skip
    assert yard.clean()["jobs"] == 0
    assert yard.count("jobs", id=job_id) == 1


def test_the_exporter_counts_after_a_removal_what_it_counted_before(yard, system_rows):
    def counted():
        served = exporter.Exporter(exporter.live_inputs(system_rows, "redis://127.0.0.1:1/0", "h"))
        while served.refresh() == exporter.PAGE:
            pass
        return {
            (s.name, *sorted(s.labels.items())): pytest.approx(s.value)
            for family in served._counts.families()
            for s in family.samples
        }

    for state in ("succeeded", "failed", "succeeded"):
        yard.settled(age=40 * DAY, state=state)
    before = counted()
    assert yard.clean(batch=2)["executions"] == 3
    assert counted() == before
    yard.settled(age=40 * DAY)
    before = counted()
    yard.clean()
    assert counted() == before


def test_an_upload_goes_after_a_day_and_its_file_with_it(yard):
    old, young = yard.upload(b"old", age=1.1 * DAY), yard.upload(b"young", age=0.9 * DAY)
    taken = yard.upload(b"taken", age=9 * DAY, message_id=yard.message())
    told = yard.clean()
    assert (told["uploads"], told["blobs"]) == (1, 1)
    assert [yard.count("email_attachments", id=a.id) for a in (old, young, taken)] == [0, 1, 1]
    assert [yard.exists(a.blob_key) for a in (old, young, taken)] == [False, True, True]


def test_an_upload_that_an_unsettled_send_names_stays_until_it_is_settled(yard):
    attached, inline = yard.upload(b"attached", age=2 * DAY), yard.upload(b"inline", age=2 * DAY)
    job_id = yard.job(
        attachment_ids=[str(attached.id)], inline=[{"attachment_id": str(inline.id), "content_id": "c"}], subject="s"
    )
    yard.job(attachment_ids="damaged", inline=None)
    assert yard.clean()["uploads"] == 0
    yard.sql("UPDATE jobs SET state = 'failed', next_publish_at = NULL WHERE id = :id", id=job_id)
    assert yard.clean()["uploads"] == 2


def test_an_upload_whose_send_is_accepted_while_it_is_removed_stays(yard):
    upload = yard.upload(b"just in time", age=2 * DAY)

    engine = yard.tools.system.engine

    def accept(_connection, _cursor, statement, *_):
        # Between the removal and its last look; the connection is another one.
        if statement.startswith("SELECT 1 FROM wanted_uploads"):
            yard.job(attachment_ids=[str(upload.id)])

    event.listen(engine, "before_cursor_execute", accept)
    assert yard.clean()["uploads"] == 0
    event.remove(engine, "before_cursor_execute", accept)
    assert yard.count("email_attachments", id=upload.id) == 1


def test_a_file_that_no_row_names_goes_after_a_day(yard):
    blobs, tenant = yard.tools.blobs, yard.scope.tenant_id
    orphan, young = (ref.key for ref in blobs.put_many(tenant, [b"orphan", b"young"]))
    yard.make_old(orphan, 2 * DAY)
    yard.make_old(young, 0.9 * DAY)
    left = blobs._root / tenant / ".incoming-0"
    left.write_bytes(b"half")
    os.utime(left, (1, 1))
    told = yard.clean()
    assert (told["blobs"], told["temporaries"]) == (1, 1)
    assert [yard.exists(orphan), yard.exists(young), left.exists()] == [False, True, False]


def test_a_file_that_is_put_again_after_the_rows_were_read_stays(yard, monkeypatch):
    blobs, tenant = yard.tools.blobs, yard.scope.tenant_id
    ref = blobs.put(tenant, b"wanted again")
    yard.make_old(ref.key, 2 * DAY)
    discard = blobs.discard

    def late(tenant, keys, *, older_than):
        if ref.key in keys:
            blobs.put_many(tenant, [b"wanted again"])
        return discard(tenant, keys, older_than=older_than)

    monkeypatch.setattr(blobs, "discard", late)
    assert yard.clean()["blobs"] == 0
    assert yard.exists(ref.key)


def test_many_files_are_looked_up_in_batches(yard):
    refs = yard.tools.blobs.put_many(yard.scope.tenant_id, [b"%d" % i for i in range(25)])
    kept = yard.upload(b"7", age=2 * DAY, message_id=yard.message())
    for ref in refs:
        yard.make_old(ref.key, 2 * DAY)
    assert yard.clean(batch=4, first="80")["blobs"] == 24
    assert yard.exists(kept.blob_key)


def test_a_credential_without_a_client_goes_after_a_day(yard):
    old, young = yard.credential(age=2 * DAY), yard.credential(age=0.9 * DAY)
    yard.client()
    assert yard.clean()["credentials"] == 1
    assert [yard.count("credentials", id=i) for i in (old, young)] == [0, 1]
    assert yard.count("credentials") == 2


def test_a_clients_lease_is_freed_when_its_holder_is_gone(yard):
    job_id = yard.job("email_service.tasks.sync_emails")
    running = yard.lease(job_id).execution_id
    expired = yard.client(lease_until="-1 s", execution_id=running)
    nobody = yard.client(lease_until="1 hour", execution_id=uuid.uuid4())
    held = yard.client(lease_until="1 hour", execution_id=running)
    assert yard.clean()["client_leases"] == 2
    free = {row.id for row in yard.sql("SELECT id FROM email_clients WHERE sync_lease_until IS NULL")}
    assert free & {expired, nobody, held} == {expired, nobody}


def test_leases_that_ran_out_are_counted_and_left_to_the_dispatcher(yard):
    before = yard.clean()["overdue_leases"]
    job_id = yard.job(attachment_ids=[])
    yard.lease(job_id)
    yard.sql("UPDATE jobs SET lease_until = now() - interval '1 s' WHERE id = :id", id=job_id)
    assert yard.clean()["overdue_leases"] == before + 1
    assert yard.count("jobs", id=job_id, state="running") == 1


def test_a_second_cleanup_finds_nothing(yard):
    yard.settled(age=31 * DAY)
    yard.upload(b"old", age=2 * DAY)
    yard.credential(age=2 * DAY)
    yard.clean()
    told = yard.clean()
    assert {name: n for name, n in told.items() if n and name not in {"complete", "overdue_leases"}} == {}


def test_a_cleanup_that_has_no_time_left_says_so_and_leaves_the_rest(yard):
    job_id = yard.settled(age=31 * DAY)
    told = yard.clean(budget_s=0.0)
    assert told["complete"] is False
    assert yard.count("jobs", id=job_id) == 1


def test_the_task_settles_its_job_with_the_counts(yard):
    yard.settled(age=31 * DAY)
    job_id = yard.job(CLEANUP, SYSTEM)
    settled = cleaning.clean_up(Work(tools=yard.tools, lease=yard.lease(job_id, SYSTEM)))
    assert (settled.state, settled.outcome, settled.result["jobs"]) == ("succeeded", "cleaned", 1)
    with yard.tools.system.session(SYSTEM) as session:
        row = session.execute(text("SELECT state, outcome, result FROM jobs WHERE id = :id"), {"id": job_id}).one()
    assert (row.state, row.outcome, row.result) == ("succeeded", "cleaned", settled.result)


def test_a_worker_runs_it_as_the_system_principal(live):
    """Beat's message, the dispatcher's way: the row alone is written, the rest is the system's own."""
    job = jobs.NewJob(id=uuid.uuid4(), name=CLEANUP, args={})
    database = Database(live.stack._env["DATABASE_SYSTEM_URL"].replace("postgresql://", "postgresql+psycopg://", 1),
                        pool_size=1, max_overflow=0, application_name="test")  # fmt: skip
    try:
        with database.session(SYSTEM) as session:
            jobs.enqueue(session, SYSTEM, job, time_scale=0.05, publish=False)
            session.commit()
        query = "SELECT outcome, result FROM audit.jobs WHERE job_id = %s AND state = 'succeeded'"
        (row,) = until(lambda: live.rows(query, str(job.id)), what="the cleanup's end")
    finally:
        database.dispose()
    assert (row["outcome"], row["result"]["complete"]) == ("cleaned", True)
