"""Bring a database to the newest schema and give the three roles their passwords.

Called by ``python -m email_service migrate`` with the owner's URL. Two at once are fine: the second waits on a lock.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy import Connection, create_engine, make_url
from sqlalchemy.exc import OperationalError

from email_service.errors import ConfigError

#: Any constant that no other program uses for pg_advisory_lock.
_LOCK: Final = 0x6D61_696C
_VIEWS_ROLE: Final = "mail_audit_views"


def migrate(owner_url: str, login_urls: Iterable[str]) -> str:
    """Create or alter the login roles named in ``login_urls``, then upgrade; answers the revision reached.

    Raises:
        ConfigError: the owner's URL does not answer, or a role's URL names no user or password.
    """
    engine = create_engine(owner_url)
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            _roles(connection, login_urls)
            _upgrade(connection)
            return str(connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
    except OperationalError as err:
        raise ConfigError(f"DATABASE_OWNER_URL does not work: {str(err.orig).strip().splitlines()[0]}") from err
    finally:
        engine.dispose()


def _roles(connection: Connection, login_urls: Iterable[str]) -> None:
    raw = connection.connection.driver_connection
    with raw.cursor() as cursor:  # type: ignore[union-attr]  # psycopg's own connection composes identifiers safely
        cursor.execute("SELECT rolname FROM pg_roles")
        known = {row[0] for row in cursor.fetchall()}
        if _VIEWS_ROLE not in known:
            cursor.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(_VIEWS_ROLE)))
        cursor.execute(sql.SQL("GRANT {} TO CURRENT_USER").format(sql.Identifier(_VIEWS_ROLE)))
        for url in map(make_url, login_urls):
            if not url.username or not url.password:
                raise ConfigError("each DATABASE_*_URL must name a user and a password")
            verb = "ALTER" if url.username in known else "CREATE"
            cursor.execute(
                sql.SQL(verb + " ROLE {} LOGIN NOBYPASSRLS PASSWORD {}").format(
                    sql.Identifier(url.username), sql.Literal(url.password)
                )
            )


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
