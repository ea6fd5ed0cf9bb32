"""Which mailboxes are due: read across tenants, as the system principal. Called by ``periodic_sync``."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final

from sqlalchemy import text

from email_service.service.work import Tools
from email_service.tenancy import SYSTEM, Scope

_DUE: Final = text(
    """
    SELECT c.id, c.tenant_id, c.user_id FROM email_clients c
    WHERE c.enabled AND (c.last_sync_at IS NULL
          OR c.last_sync_at + make_interval(secs => c.sync_interval_s * :scale) <= now())
      AND NOT EXISTS (SELECT 1 FROM jobs j WHERE j.client_id = c.id AND j.name = :name
                      AND j.state IN ('queued', 'waiting', 'running'))
    ORDER BY c.last_sync_at NULLS FIRST, c.id
    """
)


@dataclass(frozen=True, kw_only=True)
class DueClient:
    """A client whose interval has passed."""

    id: uuid.UUID
    scope: Scope


def due_clients(tools: Tools) -> list[DueClient]:
    """Enabled clients that are due and that no unsettled job synchronises."""
    values = {"scale": tools.settings.time_scale, "name": "email_service.tasks.sync_emails"}
    with tools.system.session(SYSTEM, read_only=True) as session:
        return [
            DueClient(id=row.id, scope=Scope(tenant_id=row.tenant_id, user_id=row.user_id))
            for row in session.execute(_DUE, values)
        ]
