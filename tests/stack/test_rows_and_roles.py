"""Row-level security and roles, on a real PostgreSQL: what each role can and can't see.

The tables are those of the catalogue, not of a list here: a new table without a policy fails.
"""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import errors, sql
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
#: Of no tenant, and the application's role has nothing to do with them: a table gets in here with a reason.
OF_NO_TENANT = {
    "alembic_version",  # the owner's note of the schema's revision
    "metric_totals",  # sums over all tenants, for the exporter
}
MADE_UP: dict[str, Any] = {
    "uuid": "gen_random_uuid()", "text": "''", "int4": "1", "int8": "1", "float8": "0", "bool": "false",
    "bytea": "''", "jsonb": "'[]'", "timestamptz": "now()", "xid8": "pg_current_xact_id()",
}  # fmt: skip


@pytest.fixture(scope="module")
def owner(postgres):
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def tables(owner):
    """Every table of the service."""
    found = owner.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return sorted(row[0] for row in found)


@pytest.fixture(scope="module")
def of_tenants(tables):
    return [name for name in tables if name not in OF_NO_TENANT | {"tenants"}]


@pytest.fixture(scope="module")
def columns(owner, tables):
    """Table -> (column, type) of those that an INSERT has to name."""
    query = (
        "SELECT table_name, column_name, udt_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND is_nullable = 'NO' AND column_default IS NULL ORDER BY ordinal_position"
    )
    found = {name: [] for name in tables}
    for table, column, kind in owner.execute(query):
        if table in found:
            found[table].append((column, kind))
    return found


def insert(table, columns, tenant):
    """A statement that writes a row of this tenant; foreign keys are deferred to whoever runs it."""
    names = [column for column, _ in columns[table]]
    values = [
        sql.Literal(tenant) if column == "tenant_id" else sql.SQL(MADE_UP[kind]) for column, kind in columns[table]
    ]
    return sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, names)), sql.SQL(", ").join(values)
    )


@pytest.fixture(scope="module")
def filled(owner, of_tenants, columns):
    """A tenant with a row in every table; written past all checks by the cluster's superuser."""
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    owner.execute("SET session_replication_role = replica")
    owner.execute("SET row_security = off")
    owner.execute("INSERT INTO tenants (id) VALUES (%s)", (tenant,))
    for table in of_tenants:
        owner.execute(insert(table, columns, tenant))
    yield tenant
    for table in of_tenants:
        owner.execute(sql.SQL("DELETE FROM {} WHERE tenant_id = %s").format(sql.Identifier(table)), (tenant,))
    owner.execute("RESET row_security")
    owner.execute("RESET session_replication_role")


def as_app(postgres, tenant):
    """A connection as mail_app, inside a transaction of this tenant."""
    connection = psycopg.connect(postgres.app)
    if tenant is not None:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (tenant,))
    return connection


def run(connection, template, table):
    return connection.execute(sql.SQL(template).format(sql.Identifier(table)))


def test_the_models_are_what_the_migrations_make(postgres, monkeypatch):
    # SQLAlchemy has no name for this type of PostgreSQL's.
    monkeypatch.setitem(ischema_names, "xid8", Xid8)
    engine = create_engine(database_url({"DATABASE_URL": postgres.owner}, "DATABASE_URL"), poolclass=NullPool)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert [d for d in difference if not (d[0] == "remove_table" and d[1].name == "alembic_version")] == []


# --- mail_app: one tenant at a time ---------------------------------------------------------------------------------


def test_every_table_has_row_level_security_that_its_owner_obeys_too(owner, tables):
    found = owner.execute(
        "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace "
        "AND relrowsecurity AND relforcerowsecurity"
    )
    assert {row[0] for row in found} == set(tables) - {"alembic_version"}


def test_every_table_of_a_tenant_names_it_in_a_column_that_is_never_empty(of_tenants, columns):
    assert [name for name in of_tenants if ("tenant_id", "text") not in columns[name]] == []


def test_no_login_role_can_pass_by_row_level_security(owner, postgres):
    logins = {psycopg.conninfo.conninfo_to_dict(url)["user"] for url in (postgres.app, postgres.system, postgres.audit)}
    found = owner.execute(
        "SELECT r.rolname FROM pg_roles r WHERE (r.rolname = ANY(%s) OR r.rolname IN "
        "('mail_app', 'mail_system', 'mail_audit', 'mail_audit_views')) AND (r.rolsuper OR r.rolbypassrls)",
        (list(logins),),
    ).fetchall()
    assert found == []
    owned = owner.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tableowner IN "
        "('mail_app', 'mail_system', 'mail_audit', 'mail_audit_views')"
    ).fetchall()
    assert owned == []


@pytest.mark.parametrize("tenant", [None, "", "somebody-else"])
def test_without_the_tenant_no_row_is_seen_changed_or_removed(postgres, of_tenants, filled, tenant):
    with as_app(postgres, tenant) as connection:
        for table in of_tenants:
            seen = run(connection, "SELECT count(*) FROM {} WHERE tenant_id = current_tenant()", table).fetchone()
            mine = connection.execute(
                sql.SQL("SELECT count(*) FROM {} WHERE tenant_id = %s").format(sql.Identifier(table)), (filled,)
            ).fetchone()
            changed = run(connection, "UPDATE {} SET tenant_id = tenant_id", table).rowcount
            removed = run(connection, "DELETE FROM {}", table).rowcount
            assert (table, seen, mine, changed, removed) == (table, (0,), (0,), 0, 0)
        connection.rollback()


def test_with_the_tenant_its_rows_are_there(postgres, of_tenants, filled):
    """Or the test above would prove nothing."""
    with as_app(postgres, filled) as connection:
        for table in of_tenants:
            assert (table, run(connection, "SELECT count(*) FROM {}", table).fetchone()) == (table, (1,))
        for table in of_tenants:
            assert (table, run(connection, "UPDATE {} SET tenant_id = tenant_id", table).rowcount) == (table, 1)
        connection.rollback()


@pytest.mark.parametrize("tenant", [None, "", "somebody-else"])
def test_a_row_of_another_tenant_is_refused_by_every_table(postgres, of_tenants, columns, filled, tenant):
    for table in of_tenants:
        with as_app(postgres, tenant) as connection, pytest.raises(errors.InsufficientPrivilege, match="row-level"):
            connection.execute(insert(table, columns, filled))


def test_no_row_can_be_given_to_another_tenant(postgres, of_tenants, filled):
    for table in of_tenants:
        with as_app(postgres, filled) as connection, pytest.raises(errors.InsufficientPrivilege, match="row-level"):
            run(connection, "UPDATE {} SET tenant_id = 'system'", table)


def test_a_table_of_no_tenant_is_none_of_the_applications(postgres, tables):
    for table in sorted(OF_NO_TENANT & set(tables)):
        with as_app(postgres, None) as connection, pytest.raises(errors.InsufficientPrivilege):
            run(connection, "SELECT * FROM {}", table)


def test_a_tenant_sees_its_own_name_alone_and_can_not_make_one(postgres, filled):
    with as_app(postgres, filled) as connection:
        assert connection.execute("SELECT id FROM tenants").fetchall() == [(filled,)]
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("INSERT INTO tenants (id) VALUES ('another')")


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


def test_the_owner_obeys_the_policies_too(owner, of_tenants, filled):
    """FORCE: whoever owns the tables but is no superuser sees nothing, as no policy names it."""
    role = f"owner_{uuid.uuid4().hex[:8]}"
    with owner.transaction(force_rollback=True):
        owner.execute("SET LOCAL row_security = on")
        owner.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        owner.execute(sql.SQL("GRANT ALL ON SCHEMA public TO {}").format(sql.Identifier(role)))
        for table in of_tenants:
            owner.execute(sql.SQL("ALTER TABLE {} OWNER TO {}").format(sql.Identifier(table), sql.Identifier(role)))
        owner.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        for table in of_tenants:
            assert (table, run(owner, "SELECT count(*) FROM {}", table).fetchone()) == (table, (0,))


# --- mail_system: work, never what is in it -------------------------------------------------------------------------

#: All that mail_system may read of other tenants' rows; anything else must be refused.
SYSTEM_READS = {
    "tenants": {"id", "created_at"},
    "jobs": {column.name for column in Base.metadata.tables["jobs"].columns} - {"args"},
    "executions": {column.name for column in Base.metadata.tables["executions"].columns},
    "email_clients": {
        "id", "tenant_id", "user_id", "enabled", "sync_interval_s", "last_sync_at", "created_at", "sync_lease_until",
        "sync_execution_id",
    },
    "email_attachments": {"id", "tenant_id", "message_id", "blob_key", "created_at"},
    "metric_totals": {"sample", "labels", "value", "last_xid", "folded_xid"},
    "recipients": {"job_id", "state", "reply_code", "was_unknown"},
}  # fmt: skip


def columns_with(owner, tables, role, privilege):
    """Table -> columns that a role has a privilege on; tables without any are left out."""
    found = owner.execute(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid "
        "WHERE c.relnamespace = 'public'::regnamespace AND c.relname = ANY(%s) AND a.attnum > 0 "
        "AND has_column_privilege(%s, c.oid, a.attnum, %s)",
        (tables, role, privilege),
    ).fetchall()
    return {table: {column for t, column in found if t == table} for table in {t for t, _ in found}}


def test_the_system_role_reads_columns_that_are_listed_here_and_no_other(owner, tables):
    assert columns_with(owner, tables, "mail_system", "SELECT") == SYSTEM_READS


@pytest.mark.parametrize("table", ["credentials", "email_messages", "recipients", "email_folders"])
def test_the_system_role_sees_no_credential_and_no_mail(system_rows, table):
    with system_rows.session(SYSTEM) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(text(f"SELECT * FROM {table}"))


def test_the_system_role_does_not_read_what_a_send_says(system_rows):
    with system_rows.session(SYSTEM) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(text("SELECT args FROM jobs"))


def test_the_system_role_learns_which_uploads_are_wanted_and_nothing_else_of_a_send(app_rows, system_rows, tenant):
    scope = Scope(tenant_id=tenant, user_id="u")
    args = {"subject": "canary", "attachment_ids": ["one"], "inline": [{"attachment_id": "two", "content_id": "c"}]}
    job = jobs.NewJob(id=uuid.uuid4(), name="email_service.tasks.send_email", args=args)
    with app_rows.session(scope) as session:
        jobs.enqueue(session, scope, job, time_scale=1)
        session.commit()
    query = text("SELECT * FROM wanted_uploads WHERE tenant_id = :tenant ORDER BY id")
    with system_rows.session(SYSTEM) as session:
        rows = session.execute(query, {"tenant": tenant}).all()
    assert [tuple(row) for row in rows] == [(tenant, "one"), (tenant, "two")]
    with app_rows.session(scope) as session, pytest.raises(ProgrammingError, match="permission denied"):
        session.execute(query, {"tenant": tenant})


def test_the_system_role_changes_no_mail_and_no_client_but_its_lease(owner, tables):
    changed = columns_with(owner, tables, "mail_system", "UPDATE")
    assert set(changed) == {"jobs", "executions", "email_clients", "metric_totals"}
    assert changed["email_clients"] == {"sync_execution_id", "sync_lease_until"}
    assert changed["jobs"].isdisjoint({"id", "tenant_id", "user_id", "name", "args", "client_id"})
    removed = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname = ANY(%s) "
        "AND has_table_privilege('mail_system', oid, 'DELETE, TRUNCATE') ORDER BY 1",
        (tables,),
    ).fetchall()
    assert removed == [("email_attachments",), ("jobs",)]


# --- mail_audit: views ----------------------------------------------------------------------------------------------


def test_the_audit_role_reads_views_and_no_table(postgres, tables):
    for table in tables:
        with psycopg.connect(postgres.audit) as connection:
            connection.execute("SELECT * FROM audit.jobs")
            with pytest.raises(errors.InsufficientPrivilege):
                run(connection, "SELECT * FROM {}", table)


def test_the_audit_role_writes_nothing(owner):
    found = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'audit'::regnamespace) "
        "AND relkind IN ('r', 'p', 'v') AND (has_any_column_privilege('mail_audit', oid, 'INSERT, UPDATE, REFERENCES') "
        "OR has_table_privilege('mail_audit', oid, 'DELETE, TRUNCATE, TRIGGER'))"
    ).fetchall()
    assert found == []


def test_the_audit_schema_holds_its_views(postgres):
    query = "SELECT table_name FROM information_schema.views WHERE table_schema = 'audit'"
    with psycopg.connect(postgres.audit) as connection:
        names = {row[0] for row in connection.execute(query)}
    assert names == {"jobs", "executions", "recipients", "messages", "clients", "folders", "attachments"}


def test_no_audit_view_shows_a_secret_or_what_mail_says(owner):
    found = owner.execute("SELECT column_name FROM information_schema.columns WHERE table_schema = 'audit'").fetchall()
    content = {"ciphertext", "nonce", "salt", "username", "credential_id", "args", "subject", "body_text", "body_html"}
    content |= {"headers", "raw", "filename", "error_detail", "reply_text", "sender", "spam_indicators"}
    assert {row[0] for row in found} & content == set()


def test_the_audit_views_show_every_tenant(postgres, app_rows, tenant):
    scope = Scope(tenant_id=tenant, user_id="u")
    job = jobs.NewJob(id=uuid.uuid4(), name="email_service.tasks.send_email", args={})
    with app_rows.session(scope) as session:
        jobs.enqueue(session, scope, job, time_scale=1)
        session.commit()
    with psycopg.connect(postgres.audit) as connection:
        row = connection.execute("SELECT tenant_id FROM audit.jobs WHERE job_id = %s", (str(job.id),)).fetchone()
    assert row == (tenant,)
