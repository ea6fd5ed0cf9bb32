"""Use cases run here, without a broker and without a worker: real rows, a real mail server, one execution at a time."""

from __future__ import annotations

import base64
import imaplib
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from email_service import jobs, policy, smtp
from email_service.blobs import DirectoryBlobs
from email_service.config import Settings, database_url, settings_from
from email_service.errors import TimeLimitError
from email_service.migrations.runner import migrate
from email_service.service import syncing
from email_service.service.accounts import Endpoint, NewClient, create_client
from email_service.service.work import Settled, Tools, Work
from email_service.tenancy import SYSTEM, Database, Scope
from email_service.vault import Secret, Vault
from fakemail.client import FakeMail
from mailrig.stack import parts
from mailrig.stack.processes import Spawner, end

KEY = base64.b64encode(b"k" * 32).decode()
PASSWORD = "canary-of-the-desk"
HOLDER = jobs.Holder(node="desk", host="desk", pid=1, process_start_ns=5)


def settings(postgres: Any, folder: Path, **variables: str) -> Settings:
    """Settings that allow every server of this machine."""
    return settings_from(
        {
            "DATABASE_URL": postgres.app,
            "DATABASE_SYSTEM_URL": postgres.system,
            "REDIS_URL": "redis://127.0.0.1:1",
            "CREDENTIAL_ENCRYPTION_KEY": KEY,
            "MAIL_TOKEN_SECRET": "canary-secret-" * 3,
            "MAIL_BLOB_DIR": str(folder / "blobs"),
            "MAIL_ALLOWED_HOSTS": "127.0.0.1",
            "MAIL_TIMEOUT_S": "10",
            **variables,
        }
    )


def tools(made: Settings, database: Database, system: Database, folder: Path) -> Tools:
    """One process's tools, over sessions that a fixture made."""
    return Tools(
        settings=made,
        database=database,
        system=system,
        vault=Vault(made.credential_keys, made.credential_key_id),
        blobs=DirectoryBlobs(folder / "blobs"),
        tls=None,
        smtp=smtp.Connections(idle_s=1.0),
        clock=lambda: datetime.now(UTC),
        pss_bytes=lambda: None,
    )


@contextmanager
def workbench(folder: Path, tenant: str) -> Iterator[Tools]:
    """Tools over a PostgreSQL of their own, with one tenant: for those who have no fixture of the stack tests."""
    with ExitStack() as stack:
        data, spawner = Path(parts.data_folder()), Spawner()
        stack.callback(shutil.rmtree, data, ignore_errors=True)
        stack.callback(spawner.close)
        part, owner = parts.start_postgres(spawner, data / "postgres", folder, parts.free_port())
        stack.callback(end, [part], reason="stop", grace_s=10, first=2)
        roles = parts.role_urls(owner)
        migrate(database_url({"DATABASE_URL": owner}, "DATABASE_URL"), roles.values())
        urls = SimpleNamespace(app=roles["DATABASE_URL"], system=roles["DATABASE_SYSTEM_URL"])
        app, system = (_database(url) for url in (urls.app, urls.system))
        stack.callback(app.dispose)
        stack.callback(system.dispose)
        with system.session(SYSTEM) as session:
            session.execute(text("INSERT INTO tenants (id) VALUES (:id)"), {"id": tenant})
            session.commit()
        yield tools(settings(urls, folder), app, system, folder)


def _database(url: str) -> Database:
    address = database_url({"DATABASE_URL": url}, "DATABASE_URL")
    return Database(address, pool_size=2, max_overflow=1, application_name="workbench")


@dataclass(frozen=True, kw_only=True)
class Desk:
    """One client, its mailbox, and the work that is done for it."""

    tools: Tools
    scope: Scope
    client_id: uuid.UUID
    address: str
    fakes: FakeMail = field(repr=False)

    @classmethod
    def open(cls, tools: Tools, tenant: str, *, address: str, fakes: FakeMail, password: str = PASSWORD) -> Desk:
        """Add the client of a mailbox that the fakes have."""
        scope = Scope(tenant_id=tenant, user_id="u")
        new = NewClient(
            address=address,
            imap=Endpoint(host=fakes.imap.host, port=fakes.imap.port, encryption="none"),
            smtp=Endpoint(host=fakes.smtp.host, port=fakes.smtp.port, encryption="none"),
            username=address,
            password=Secret(password),
            sync_interval_s=300,
        )
        with tools.database.session(scope) as session:
            client = create_client(session, scope, tools.vault, tools.settings, new)
            session.commit()
        return cls(tools=tools, scope=scope, client_id=client.id, address=address, fakes=fakes)

    def with_settings(self, **changes: Any) -> Desk:
        """The same, where other settings hold."""
        return replace(self, tools=replace(self.tools, settings=replace(self.tools.settings, **changes)))

    def sync(self) -> dict[str, Any]:
        """One synchronisation from its beginning to its end; what it answers."""
        return self.run_sync(self.enqueue("sync_emails"))

    def run_sync(self, job_id: uuid.UUID) -> dict[str, Any]:
        """One execution of a synchronisation; what it answers."""
        return self.run(syncing.sync_mailbox, job_id).result

    @contextmanager
    def imap(self) -> Iterator[imaplib.IMAP4]:
        """Another client of the same mailbox."""
        with imaplib.IMAP4(self.fakes.imap.host, self.fakes.imap.port) as client:
            client.login(self.address, PASSWORD)
            yield client

    def enqueue(self, name: str, **args: Any) -> uuid.UUID:
        """Write a job."""
        job = jobs.NewJob(id=uuid.uuid4(), name=f"email_service.tasks.{name}", args=args, client_id=self.client_id)
        with self.tools.database.session(self.scope) as session:
            jobs.enqueue(session, self.scope, job, time_scale=1.0)
            session.commit()
        return job.id

    def lease(self, job_id: uuid.UUID) -> Work:
        """Begin an execution, as a worker does."""
        moment = datetime.now(UTC)
        delivery = jobs.Delivery(
            job_id=job_id,
            execution_id=uuid.uuid4(),
            span_id="a" * 16,
            received_at=moment,
            started_at=moment,
            pss_before_bytes=None,
        )
        with self.tools.database.session(self.scope) as session:
            lease = jobs.lease(session, self.scope, delivery, HOLDER, trace_id="b" * 32, lease_s=policy.lease_s(1.0))
            session.commit()
        assert lease is not None, "somebody else has the lease, or the job is settled"
        return Work(tools=self.tools, lease=lease)

    def run(self, use_case: Callable[[Work], Settled], job_id: uuid.UUID) -> Settled:
        """One execution; a time limit ends it so that the next goes on.

        Raises:
            Exception: what the use case raised; the execution has ended in a retry.
        """
        work = self.lease(job_id)
        try:
            return use_case(work)
        except Exception as err:
            self.put_back(work, failed=not isinstance(err, TimeLimitError))
            raise

    def put_back(self, work: Work, *, failed: bool = True) -> None:
        """End the execution; its job is due at once."""
        ending = replace(work.ending("retry", "test"), ended_at=datetime.now(UTC) - timedelta(seconds=1))
        with self.tools.database.session(self.scope) as session:
            jobs.reschedule(session, work.lease, ending, delay_s=0, failed=failed)
            session.commit()

    def kill(self, work: Work) -> None:
        """The execution's process is gone; its lease has run out."""
        over = "UPDATE jobs SET lease_until = clock_timestamp() - interval '1 s' WHERE id = :id"
        self.change(over, id=work.lease.job_id)

    def rows(self, query: str, **values: Any) -> list[dict[str, Any]]:
        """Rows of this tenant."""
        with self.tools.database.session(self.scope) as session:
            return [dict(row) for row in session.execute(text(query), values).mappings()]

    def change(self, statement: str, **values: Any) -> None:
        """Change rows of this tenant."""
        with self.tools.database.session(self.scope) as session:
            session.execute(text(statement), values)
            session.commit()

    def job(self, job_id: uuid.UUID) -> dict[str, Any]:
        """The job as the API shows it."""
        with self.tools.database.session(self.scope) as session:
            return jobs.status(session, self.scope, job_id)

    def feed(self, seen: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
        """The settled jobs of this scope, in the feed's order; without the places that were seen."""
        with self.tools.database.session(self.scope) as session:
            tasks, _cursor = jobs.feed(session, self.scope, after=None, limit=1000)
        return [task for task in tasks if task not in seen]

    def messages(self, folder: str = "INBOX") -> list[dict[str, Any]]:
        """The messages of a folder, by UID."""
        return self.rows(
            "SELECT m.* FROM email_messages m JOIN email_folders f ON f.id = m.folder_id "
            "WHERE f.client_id = :client AND f.name = :name ORDER BY m.uid",
            client=self.client_id,
            name=folder,
        )

    def state(self, folder: str = "INBOX") -> list[tuple[int, list[str], str]]:
        """What the rows say of a folder: UID, flags and digest of each message."""
        return [(m["uid"], m["flags"], m["sha256"].hex()) for m in self.messages(folder)]

    def server_state(self, folder: str = "INBOX") -> list[tuple[int, list[str], str]]:
        """The same of the server."""
        rows = self.fakes.messages(self.address, folder, digests=True)
        return [(m["uid"], sorted(set(m["flags"]) - {"\\Recent"}), m["sha256"]) for m in rows]

    def folder(self, name: str = "INBOX") -> dict[str, Any]:
        """A folder's row."""
        (row,) = self.rows(
            "SELECT * FROM email_folders WHERE client_id = :client AND name = :name", client=self.client_id, name=name
        )
        return row


@contextmanager
def statements():
    """What is said to PostgreSQL in this process meanwhile, by whatever way, but for what begins a transaction."""
    said, execute = [], psycopg.Cursor.execute

    def noting(cursor, query, *args, **kwargs):
        words = (query if isinstance(query, str) else bytes(query).decode()).split()
        if words[0] != "BEGIN":
            said.append(" ".join(words)[:60])
        return execute(cursor, query, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", noting)
        yield said
