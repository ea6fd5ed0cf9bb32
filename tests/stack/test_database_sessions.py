"""Sessions of a scope on a real PostgreSQL: how they begin, and what a connection that died does to them."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import text

from email_service.config import database_url
from email_service.errors import DatabaseError
from email_service.tenancy import Database, Scope

SCOPE = Scope(tenant_id="t-1", user_id="u")
TENANT = text("SELECT current_setting('app.tenant_id', true)")


def _end_all(postgres):
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE usename = 'mail_app' AND pid <> pg_backend_pid()"
        )


def test_every_transaction_of_a_session_has_its_tenant(app_rows):
    with app_rows.session(SCOPE) as session:
        for _ in range(2):
            assert session.execute(TENANT).scalar_one() == "t-1"
            session.commit()


def test_a_quote_in_a_tenants_name_stays_a_name(app_rows):
    with app_rows.session(Scope(tenant_id="x', true); SELECT ('", user_id="u")) as session:
        assert session.execute(TENANT).scalar_one() == "x', true); SELECT ('"


def test_what_was_not_committed_is_rolled_back(app_rows, system_rows, tenant):
    scope = Scope(tenant_id=tenant, user_id="u")
    insert = text(
        "INSERT INTO credentials (id, tenant_id, user_id, key_id, salt, nonce, ciphertext) "
        "VALUES (gen_random_uuid(), :tenant, 'u', 'k', '', '', '')"
    )
    with app_rows.session(scope) as session:
        session.execute(insert, {"tenant": tenant})
    with app_rows.session(scope) as session:
        assert session.execute(text("SELECT count(*) FROM credentials")).scalar_one() == 0


def test_connections_that_died_while_pooled_cost_nothing(postgres, app_rows):
    with app_rows.session(SCOPE) as one, app_rows.session(SCOPE) as other:
        assert one.execute(TENANT).scalar_one() == other.execute(TENANT).scalar_one()
    _end_all(postgres)
    for _ in range(3):
        with app_rows.session(SCOPE) as session:
            assert session.execute(TENANT).scalar_one() == "t-1"


def test_a_connection_that_dies_within_a_transaction_is_told(postgres, app_rows):
    def interrupted():
        with app_rows.session(SCOPE) as session:
            session.execute(TENANT)
            _end_all(postgres)
            session.execute(TENANT)

    with pytest.raises(DatabaseError):
        interrupted()


def test_a_server_that_is_not_there_is_told():
    url = database_url({"DATABASE_URL": "postgresql://mail_app:x@127.0.0.1:1/mail"}, "DATABASE_URL")
    database = Database(url, pool_size=1, max_overflow=0, application_name="test")
    with pytest.raises(DatabaseError), database.session(SCOPE):
        pass
