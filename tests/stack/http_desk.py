"""The API without sockets: the WSGI application over real rows, its broker in this process's memory."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from typing import Any

from kombu.transport import memory
from use_cases import settings, tools

from email_service.api import create_app, issue_token
from email_service.celery_app import celery_for
from email_service.models import EmailFolder, EmailMessage
from email_service.tenancy import Scope

SERVER = {"host": "127.0.0.1", "port": 3143, "encryption": "none"}
PASSWORD = "canary-of-the-front-end"


def application(postgres, app_rows, system_rows, folder, *, rate_limit=None, **variables):
    """The Flask application, and the tools that it works with."""
    made = settings(postgres, folder, **({"MAIL_RATE_LIMIT": "off"} | variables))
    celery = celery_for(made)
    celery.conf.broker_url = "memory://"
    # The transport's queues belong to the process: what an earlier test left is not ours.
    for queue in memory.Channel.queues.values():
        queue.queue.clear()
    hands = tools(made, app_rows, system_rows, folder)
    return create_app(hands, celery, rate_limit=rate_limit), hands


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    headers: Any
    data: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """One user of one tenant, at the API."""

    app: Any
    tools: Any
    scope: Scope

    @classmethod
    def open(cls, app, hands, tenant, user="u"):
        return cls(app=app, tools=hands, scope=Scope(tenant_id=tenant, user_id=user))

    @property
    def token(self):
        return issue_token(self.tools.settings.token_secret, self.scope, ttl_s=600)

    @property
    def base(self):
        return f"/api/v1/{self.scope.tenant_id}"

    def call(self, method, path, *, headers=None, **options) -> Answer:
        """One request; ``path`` is below the tenant unless it begins with /api."""
        whole = path if path.startswith("/api") else self.base + path
        sent = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        answer = self.app.test_client().open(whole, method=method, headers=sent, **options)
        return Answer(status=answer.status_code, headers=answer.headers, data=answer.data)

    def client(self, **overrides) -> dict[str, Any]:
        """Add a mailbox."""
        body = {"address": "ann@example.test", "username": "ann", "password": PASSWORD, "imap": SERVER, "smtp": SERVER}
        answer = self.call("POST", "/email/clients", json=body | overrides)
        assert answer.status == 201, answer.data
        return answer.json

    def upload(self, data=b"bytes", filename="report.pdf", content_type="application/pdf") -> dict[str, Any]:
        """Upload a file."""
        form = {"file": (io.BytesIO(data), filename, content_type)}
        answer = self.call("POST", "/email/attachments", data=form)
        assert answer.status == 201, answer.data
        return answer.json

    def session(self):
        return self.tools.database.session(self.scope)

    def message(self, client_id, **columns) -> str:
        """Write a message as a synchronisation would."""
        row = {
            "client_id": uuid.UUID(client_id), "message_id": f"<{uuid.uuid4()}@example.test>",
            "sender": "bob@example.test", "recipients_to": ["ann@example.test"], "recipients_cc": [], "subject": "s",
            "body_text": "text", "headers": [], "flags": [], "size_bytes": 10, "uidvalidity": 1,
            "uid": uuid.uuid4().int % 2**31,
        }  # fmt: skip
        row |= {"id": uuid.uuid4(), "tenant_id": self.scope.tenant_id, "user_id": self.scope.user_id} | columns
        with self.session() as session:
            session.add(EmailMessage(**row))
            session.commit()
        return str(row["id"])

    def folder(self, client_id, name="INBOX", kind="inbox") -> uuid.UUID:
        """Write a folder as a synchronisation would."""
        folder_id = uuid.uuid4()
        owner = {"tenant_id": self.scope.tenant_id, "user_id": self.scope.user_id}
        with self.session() as session:
            session.add(EmailFolder(id=folder_id, client_id=uuid.UUID(client_id), name=name, type=kind, **owner))
            session.commit()
        return folder_id
