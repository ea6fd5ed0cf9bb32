"""Sessions of a scope: the only door to rows.

Rule 1: no code reaches a tenant's rows but through a session that ``Database.session`` made for a scope.
Rule 2: the tenant is set inside each transaction (never on the connection), so a pooled connection keeps nothing.
Rule 3: row-level security is the net under this door, not the door: queries filter by tenant and user as well.
It guards against forgotten filters under the application's role, not against SQL injection that sets another tenant.
Rule 4: an error that leaves this door repeats nothing of a row: SQLAlchemy would quote parameters, PostgreSQL the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from sqlalchemy import Connection, Engine, TextClause, create_engine, event
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from email_service import telemetry
from email_service.errors import DatabaseError
from email_service.scopes import SYSTEM, Scope

__all__ = ["SYSTEM", "Database", "Scope", "run"]

#: Classes of SQLSTATE whose first line quotes a value: data exceptions, and what a function raises.
_QUOTING: Final = ("22", "P0")
_CANCEL_TIMEOUT_S: Final = 2.0
_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]
#: One statement, one round trip, and no span: a transaction of ours always begins like this.
_BEGIN: Final = "BEGIN {mode}; SET LOCAL app.tenant_id = {tenant}"


class Database:
    """One role's connections in one process. Make it after the fork."""

    def __init__(self, url: str, *, pool_size: int, max_overflow: int, application_name: str) -> None:
        self.engine: Engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=10,
            pool_recycle=1800,
            # A ping would cost every transaction a round trip; ``_begun`` finds out with the one that begins it.
            pool_pre_ping=False,
            # psycopg would send a BEGIN of its own, a round trip before ours; commit and rollback still end what
            # ``after_begin`` began.
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
            connect_args={"connect_timeout": 5, "application_name": application_name},
        )

    @contextmanager
    def session(self, scope: Scope, *, read_only: bool = False) -> Iterator[Session]:
        """Rows of one scope; rolls back what was not committed.

        What only reads should say so: it ends by a commit. After a rollback psycopg forgets all that it has prepared,
        and the next statements are planned anew: three times their cost.

        Raises:
            DatabaseError: PostgreSQL is away or dropped the connection.
        """
        try:
            with self._begun(scope, read_only=read_only) as session, _no_query_left(session):
                yield session
                if read_only:
                    session.commit()
        except DBAPIError as err:
            raise _translated(err) from err
        except _BeginError as err:
            raise DatabaseError(str(err)) from err

    def _begun(self, scope: Scope, *, read_only: bool) -> Session:
        """A session in its first transaction. A pooled connection that died since its last use costs nothing."""
        for last in (False, True):
            session = _ScopedSession(
                self.engine, expire_on_commit=False, info={"begin": _begin_statement(scope.tenant_id, read_only)}
            )
            try:
                session.connection()
            except _BeginError:
                session.close()
                if last:
                    raise
                # Whatever ended this one has ended the others: a restart of the server, most likely.
                self.engine.dispose()
            except BaseException:
                session.close()
                raise
            else:
                return session
        raise AssertionError("unreachable")

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def run(session: Session, statement: TextClause, values: Mapping[str, Any]) -> list[Any]:
    """Execute one statement of the hot path by psycopg itself; its rows as named tuples.

    The same transaction, span and errors as by ``session.execute``, without the third of a millisecond that SQLAlchemy
    takes for what these statements don't need.

    Raises:
        DBAPIError: as SQLAlchemy would.
    """
    if not session.in_transaction():
        session.connection()
    raw: psycopg.Connection[Any] = session.info["connection"]
    query, documents = _compiled(statement)
    bound = {**values, **{name: Jsonb(values[name]) for name in documents if values[name] is not None}}
    span = telemetry.begin_statement(session.get_bind(), statement.text)
    try:
        cursor = raw.cursor(row_factory=namedtuple_row)
        cursor.execute(query, bound)
        rows: list[Any] = cursor.fetchall() if cursor.description is not None else []
    except psycopg.Error as err:
        telemetry.end_statement(span, err)
        if raw.closed:
            session.connection().invalidate(err)
        made = DBAPIError.instance(
            statement.text, None, err, psycopg.Error, hide_parameters=True, connection_invalidated=raw.closed
        )
        raise made from err
    telemetry.end_statement(span)
    return rows


@lru_cache(maxsize=256)
def _compiled(statement: TextClause) -> tuple[str, tuple[str, ...]]:
    """The statement as psycopg wants it, and which of its values are documents."""
    compiled = statement.compile(dialect=_DIALECT)
    return str(compiled), tuple(name for name, bound in compiled.binds.items() if isinstance(bound.type, JSONB))


class _BeginError(Exception):
    """A transaction could not begin: nothing was done."""


class _ScopedSession(Session):
    """A session that knows whose rows it may see."""


@event.listens_for(_ScopedSession, "after_begin")
def _begin(session: Session, _transaction: object, connection: Connection) -> None:
    raw = session.info["connection"] = connection.connection.driver_connection
    try:
        raw.execute(session.info["begin"])  # type: ignore[union-attr]  # psycopg's own
    except psycopg.OperationalError as err:
        connection.invalidate(err)
        raise _BeginError(type(err).__name__) from err


@contextmanager
def _no_query_left(session: Session) -> Iterator[None]:
    """A signal (the soft time limit) may strike in the midst of a query, which would go on and keep its locks."""
    try:
        yield
    except BaseException:
        raw: psycopg.Connection | None = session.info.get("connection") if session.in_transaction() else None
        if raw is not None and raw.info.transaction_status == TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                raw.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            session.invalidate()
        raise


@lru_cache(maxsize=1024)
def _begin_statement(tenant_id: str, read_only: bool) -> bytes:  # noqa: FBT001  # a key of the cache
    mode = sql.SQL("READ ONLY" if read_only else "READ WRITE")
    return sql.SQL(_BEGIN).format(mode=mode, tenant=sql.Literal(tenant_id)).as_bytes(None)


def _translated(err: DBAPIError) -> Exception:
    """Only what a retry can mend becomes ours; a broken constraint is a defect and stays what it is."""
    if isinstance(err, OperationalError | InterfaceError) or err.connection_invalidated:
        return DatabaseError(type(err.orig).__name__)
    return _silenced(err)


def _silenced(err: DBAPIError) -> DBAPIError:
    """The error without PostgreSQL's DETAIL, which quotes the failing row; of bad data only its SQLSTATE stays."""
    if not isinstance(err.orig, psycopg.Error):
        return err
    primary, state = err.orig.diag.message_primary, err.orig.sqlstate or ""
    quotes = primary is None or state.startswith(_QUOTING)
    words = f"SQLSTATE {state or 'unknown'}" if quotes else primary
    err.orig.args, err.args = (words,), (f"({type(err.orig).__name__}) {words}",)
    return err
