"""Row-level security and roles, on a real PostgreSQL: what each role can and can't see."""

from __future__ import annotations

import uuid

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.dialects.postgresql.base import ischema_names
from sqlalchemy.exc import ProgrammingError

from email_service import jobs
from email_service.config import database_url
from email_service.models import Base, Xid8
from email_service.tenancy import SYSTEM, Scope

ADD_CLIENT = text(
    "INSERT INTO credentials (id, tenant_id, user_id, key_id, salt, nonce, ciphertext) "
    "VALUES (gen_random_uuid(), :tenant, 'u', 'k', '', '', '')"
)
TABLES = [t.name for t in Base.metadata.sorted_tables if t.name != "tenants"]


def test_the_models_are_what_the_migrations_make(postgres, monkeypatch):
    # SQLAlchemy has no name for this type of PostgreSQL's.
    monkeypatch.setitem(ischema_names, "xid8", Xid8)
    engine = create_engine(database_url({"DATABASE_URL": postgres.owner}, "DATABASE_URL"), poolclass=NullPool)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert [d for d in difference if not (d[0] == "remove_table" and d[1].name == "alembic_version")] == []


@pytest.mark.parametrize("table", TABLES)
def test_without_a_tenant_there_are_no_rows(postgres, table):
    with psycopg.connect(postgres.app) as connection:
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_without_a_tenant_a_write_is_refused(postgres, tenant):
    with psycopg.connect(postgres.app) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(ADD_CLIENT.text.replace(":tenant", "%s"), (tenant,))


def test_a_write_under_another_tenant_is_refused(app_rows, tenant):
    with app_rows.session(Scope(tenant_id="other", user_id="u")) as session, pytest.raises(ProgrammingError):
        session.execute(ADD_CLIENT, {"tenant": tenant})


def test_a_pooled_connection_keeps_no_tenant(app_rows, tenant):
    with app_rows.session(Scope(tenant_id=tenant, user_id="u")) as session:
        session.execute(ADD_CLIENT, {"tenant": tenant})
        session.commit()
        assert session.execute(text("SELECT count(*) FROM credentials")).scalar_one() == 1
    with app_rows.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM credentials")).scalar_one() == 0


def test_the_system_role_sees_no_credential_and_no_mail(system_rows):
    for table in ("credentials", "email_messages", "recipients"):
        with system_rows.session(SYSTEM) as session, pytest.raises(ProgrammingError, match="permission denied"):
            session.execute(text(f"SELECT * FROM {table}"))


@pytest.mark.parametrize("table", TABLES)
def test_the_audit_role_reads_views_and_no_table(postgres, table):
    with psycopg.connect(postgres.audit) as connection:
        connection.execute("SELECT * FROM audit.jobs")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"SELECT * FROM {table}")


def test_the_audit_role_writes_nothing(postgres):
    with psycopg.connect(postgres.audit) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute("DELETE FROM audit.jobs")


def test_the_audit_schema_holds_its_views(postgres):
    query = "SELECT table_name FROM information_schema.views WHERE table_schema = 'audit'"
    with psycopg.connect(postgres.audit) as connection:
        names = {row[0] for row in connection.execute(query)}
    assert names == {"jobs", "executions", "recipients", "messages", "clients", "folders", "attachments"}


def test_the_audit_views_show_every_tenant(postgres, app_rows, tenant):
    scope = Scope(tenant_id=tenant, user_id="u")
    job = jobs.NewJob(id=uuid.uuid4(), name="email_service.tasks.send_email", args={})
    with app_rows.session(scope) as session:
        jobs.enqueue(session, scope, job, time_scale=1)
        session.commit()
    with psycopg.connect(postgres.audit) as connection:
        row = connection.execute("SELECT tenant_id FROM audit.jobs WHERE job_id = %s", (str(job.id),)).fetchone()
    assert row == (tenant,)
