"""A database of an older version, with rows in it, becomes one of this version."""

from __future__ import annotations

import uuid
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import create_engine

from email_service import exporter, migrations
from email_service.config import database_url
from email_service.tenancy import Database

SEND = "email_service.tasks.send_email"


@pytest.fixture
def older(postgres):
    """A database as migration 0002 left it; its URLs as owner and as mail_system."""
    name = f"older_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    owner, system = (psycopg.conninfo.make_conninfo(url, dbname=name) for url in (postgres.owner, postgres.system))
    upgrade(owner, "0002")
    yield owner, system
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def sqlalchemy_url(conninfo):
    parts = psycopg.conninfo.conninfo_to_dict(conninfo)
    url = "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**{"password": "", **parts})
    return database_url({"DATABASE_URL": url}, "DATABASE_URL")


def upgrade(conninfo, revision):
    engine = create_engine(sqlalchemy_url(conninfo))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def job(connection, state, *, error_type=None, settled_later=False, outcome=None):
    """A job with one execution, written as version 0002 did; in transactions of their own."""
    job_id = uuid.uuid4()
    with connection.transaction():
        connection.execute(
            "INSERT INTO jobs (id, tenant_id, user_id, name, queue, args, state, error_type, traceparent, settled_xid) "
            "VALUES (%s, 'system', 'u', %s, 'send', '{}', %s, %s, %s, pg_current_xact_id())",
            (job_id, SEND, outcome or state, error_type, f"00-{'a' * 32}-{'b' * 16}-01"),
        )
        if outcome is not None:
            connection.execute(
                "INSERT INTO executions (id, job_id, tenant_id, name, queue, ordinal, node, host, pid, "
                "process_start_ns, due_at, received_at, started_at, ended_at, outcome, error_type, trace_id, span_id, "
                "ended_xid) VALUES (gen_random_uuid(), %s, 'system', %s, 'send', 1, 'n', 'h', 1, 1, now(), now(), "
                "now(), now(), %s, %s, %s, 'b', pg_current_xact_id())",
                (job_id, SEND, outcome, error_type, "a" * 32),
            )
    if settled_later:
        with connection.transaction():
            connection.execute(
                "UPDATE jobs SET state = %s, error_type = NULL, settled_xid = pg_current_xact_id() WHERE id = %s",
                (state, job_id),
            )
    return job_id


def test_rows_of_the_version_before_are_kept_and_counted_as_what_they_first_were(older):
    owner, system = older
    with psycopg.connect(owner, autocommit=True) as connection:
        plain = job(connection, "succeeded", outcome="succeeded")
        proven = job(connection, "succeeded", error_type="delivery-unknown", outcome="unknown", settled_later=True)
        given_up = job(connection, "failed", error_type="client-deleted")
        upgrade(owner, "head")
        found = connection.execute(
            "SELECT id, apart_xid IS NOT NULL, unknown_xid IS NOT NULL, unknown_error_type FROM jobs"
        ).fetchall()
        tables = ["jobs", "executions", "recipients"]
        query = "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relkind = 'r' AND relname = ANY(%s)"
        forced = connection.execute(query, (tables,)).fetchone()
    assert set(found) == {
        (plain, False, False, None),
        (proven, True, True, "delivery-unknown"),
        (given_up, True, False, None),
    }
    assert forced == (True,)
    database = Database(sqlalchemy_url(system), pool_size=1, max_overflow=0, application_name="test")
    served = exporter.Exporter(exporter.live_inputs(database, "redis://127.0.0.1:1/0", "h"))
    assert served.refresh() == 4
    database.dispose()
    where = {"task": "send_email", "queue": "send"}
    counted = served._counts.samples()

    def value(name, **labels):
        return counted[name, tuple(sorted({**where, **labels}.items()))]

    assert value("mail_task_success_total") == 2
    assert value("mail_task_failure_total", error_type="delivery-unknown") == 1
    assert value("mail_task_failure_total", error_type="client-deleted") == 1
