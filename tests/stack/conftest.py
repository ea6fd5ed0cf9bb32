"""Real parts for the stack tests: one PostgreSQL for the whole session, and one whole stack."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from database_server import Urls, database_server
from psycopg.rows import dict_row
from sqlalchemy import text
from use_cases import PASSWORD, Desk, settings, tools
from waiting import until

from email_service.config import database_url
from email_service.tenancy import SYSTEM, Database
from fakemail.client import FakeMail
from mailrig.clients import Account
from mailrig.population import populate
from mailrig.scenario import Population
from mailrig.stack import Stack, StackOptions


@pytest.fixture(scope="session")
def postgres(tmp_path_factory) -> Iterator[Urls]:
    """A migrated database of the embedded server, with the service's roles."""
    with database_server(tmp_path_factory.mktemp("logs")) as urls:
        yield urls


def _database(url: str) -> Database:
    sqlalchemy_url = database_url({"DATABASE_URL": url}, "DATABASE_URL")
    return Database(sqlalchemy_url, pool_size=2, max_overflow=2, application_name="test")


@pytest.fixture
def app_rows(postgres) -> Iterator[Database]:
    """Sessions as mail_app."""
    database = _database(postgres.app)
    yield database
    database.dispose()


@pytest.fixture
def system_rows(postgres) -> Iterator[Database]:
    """Sessions as mail_system."""
    database = _database(postgres.system)
    yield database
    database.dispose()


@pytest.fixture
def tenant(system_rows) -> str:
    """A fresh tenant."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    with system_rows.session(SYSTEM) as session:
        session.execute(text("INSERT INTO tenants (id) VALUES (:id)"), {"id": name})
        session.commit()
    return name


@pytest.fixture
def desk(postgres, app_rows, system_rows, tenant, fakemail, tmp_path) -> Desk:  # noqa: PLR0917  # fixtures
    """A client with a mailbox on a fakemail, and its work done here: no broker, no worker."""
    fakemail.add_user("ann@example.test", PASSWORD)
    made = tools(settings(postgres, tmp_path), app_rows, system_rows, tmp_path)
    return Desk.open(made, tenant, address="ann@example.test", fakes=fakemail)


@dataclass(frozen=True, kw_only=True)
class Live:
    """A whole stack, with two tenants of one mailbox each."""

    stack: Stack
    accounts: list[Account]
    fakes: FakeMail

    def call(
        self, method: str, path: str, *, token: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of one request."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.stack.api_url + path, data=data, method=method)
        for name, value in {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as err:
            with err:
                return err.code, json.loads(err.read())

    def send(self, account: Account, **overrides: Any) -> dict[str, Any]:
        """Accept one send; the 202's body."""
        headers = overrides.pop("headers", None)
        body = {"client_id": account.clients[0][0], "to": ["somebody@outside.example"], "subject": "s", "text": "t\n"}
        status, answer = self.call(
            "POST", f"/api/v1/{account.tenant}/email/send", token=account.token, body=body | overrides, headers=headers
        )
        assert status == 202, answer
        return answer

    def sync(self, account: Account) -> dict[str, Any]:
        """Accept one sync; the 202's body."""
        path = f"/api/v1/{account.tenant}/email/clients/{account.clients[0][0]}/sync"
        status, answer = self.call("POST", path, token=account.token)
        assert status == 202, answer
        return answer

    def task(self, account: Account, task_id: str) -> dict[str, Any]:
        """The job as the API shows it."""
        status, answer = self.call("GET", f"/api/v1/{account.tenant}/tasks/{task_id}", token=account.token)
        assert status == 200, answer
        return answer

    def settled(self, account: Account, task_id: str) -> dict[str, Any]:
        """The job once it is settled."""

        def final():
            task = self.task(account, task_id)
            return task if task["state"] in {"succeeded", "failed", "unknown"} else None

        return until(final, what=f"the end of task {task_id}")

    def rows(self, query: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of an audit view."""
        with psycopg.connect(self.stack.audit_url, row_factory=dict_row) as connection:
            return connection.execute(query, values).fetchall()

    def accepted(self, message_id: str) -> list[dict[str, Any]]:
        """What the fake SMTP server took with this Message-ID."""
        return [e for e in self.fakes.ledger() if e["kind"] == "accepted" and e["message_id"] == message_id]


@contextmanager
def whole_stack(folder: Path) -> Iterator[Live]:
    """The whole system at a twentieth of its waits, on servers of its own."""
    options = StackOptions(
        log_dir=folder / "logs", span_dir=folder / "spans", state_dir=folder / "state", time_scale=0.05
    )
    clean = {k: os.environ.pop(k) for k in ("REDIS_URL", "DATABASE_URL") if k in os.environ}
    try:
        with Stack(options) as stack:
            population = Population(tenants=2, mailboxes=2, messages_per_mailbox=12, profile="small")
            accounts = populate(stack, population, seed=5, evidence=None)
            yield Live(stack=stack, accounts=accounts, fakes=FakeMail(stack.control_url))
    finally:
        os.environ.update(clean)


@pytest.fixture(scope="session")
def live(tmp_path_factory) -> Iterator[Live]:
    """A whole stack that tests share."""
    with whole_stack(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture(scope="module")
def battered(tmp_path_factory) -> Iterator[Live]:
    """A whole stack for those who kill its servers."""
    with whole_stack(tmp_path_factory.mktemp("battered")) as live:
        yield live


@pytest.fixture
def no_faults(live):
    """Whatever a test breaks is whole again after it."""
    yield
    live.fakes.clear_faults()
