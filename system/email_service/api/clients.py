"""Routes of clients and their folders."""

from __future__ import annotations

import uuid
from typing import Any

from email_service.api import answers, schemas
from email_service.api.routing import Call, Table
from email_service.service import accounts, reading
from email_service.service.work import owned_client

table = Table("clients")


@table.route(
    "POST", "/email/clients", body=schemas.NewClient, status=201, answer=answers.Client, problems=(422,), located="id"
)
def add_client(call: Call) -> dict[str, Any]:
    """Add a mailbox."""
    body: schemas.NewClient = call.body
    new = accounts.NewClient(
        address=body.address,
        imap=_endpoint(body.imap),
        smtp=_endpoint(body.smtp),
        username=body.username,
        password=body.secret,
        auth=body.auth,
        enabled=body.enabled,
        sync_interval_s=body.sync_interval_s,
        spam_check=body.spam_check,
    )
    with call.session() as session:
        client = accounts.create_client(session, call.scope, call.tools.vault, call.tools.settings, new)
        session.commit()
        return reading.client(client, now=call.tools.clock())


@table.route("GET", "/email/clients", query=schemas.Page, answer=answers.Clients)
def list_clients(call: Call) -> dict[str, Any]:
    """List the mailboxes, the oldest first."""
    page: schemas.Page = call.query
    with call.reading() as session:
        return reading.clients(session, call.scope, limit=page.limit, cursor=page.cursor, now=call.tools.clock())


@table.route("GET", "/email/clients/{client_id}", answer=answers.Client)
def get_client(call: Call, client_id: uuid.UUID) -> dict[str, Any]:
    """Show a mailbox."""
    with call.reading() as session:
        return reading.client(owned_client(session, call.scope, client_id), now=call.tools.clock())


@table.route("PATCH", "/email/clients/{client_id}", body=schemas.ClientChange, answer=answers.Client, problems=(422,))
def change_client(call: Call, client_id: uuid.UUID) -> dict[str, Any]:
    """Change a mailbox: its servers, login, secret, interval; or switch it off."""
    body: schemas.ClientChange = call.body
    given = body.model_fields_set
    change = accounts.ClientChange(
        imap=_endpoint(body.imap) if "imap" in given else None,
        smtp=_endpoint(body.smtp) if "smtp" in given else None,
        password=body.password or body.token,
        plain={name: getattr(body, name) for name in given - {"imap", "smtp", "password", "token"}},
    )
    with call.session() as session:
        client = owned_client(session, call.scope, client_id)
        body.check_secret(client.auth)
        accounts.update_client(session, call.scope, call.tools.vault, call.tools.settings, client, change)
        session.commit()
        return reading.client(client, now=call.tools.clock())


@table.route("DELETE", "/email/clients/{client_id}", status=204, problems=(409,))
def delete_client(call: Call, client_id: uuid.UUID) -> None:
    """Remove a mailbox with all that was read from it; refused while one of its tasks runs."""
    with call.session() as session:
        client = owned_client(session, call.scope, client_id)
        accounts.delete_client(session, call.scope, client)
        session.commit()


@table.route("GET", "/email/clients/{client_id}/folders", answer=answers.Folders)
def list_folders(call: Call, client_id: uuid.UUID) -> dict[str, Any]:
    """List the folders of a mailbox."""
    with call.reading() as session:
        owned_client(session, call.scope, client_id)
        return {"folders": reading.folders(session, call.scope, client_id)}


def _endpoint(body: schemas.Endpoint) -> accounts.Endpoint:
    return accounts.Endpoint(host=body.host, port=body.port, encryption=body.encryption)
