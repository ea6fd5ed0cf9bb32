"""A PostgreSQL of our own, migrated: for the stack tests and for the fuzzing of the API."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from email_service.config import database_url
from email_service.migrations.runner import migrate
from mailrig.stack import parts
from mailrig.stack.processes import Spawner, end


@dataclass(frozen=True, kw_only=True)
class Urls:
    owner: str
    app: str
    system: str
    audit: str


@contextmanager
def database_server(logs: Path) -> Iterator[Urls]:
    """A migrated database of the embedded server, with the service's roles."""
    folder = Path(parts.data_folder())
    spawner = Spawner()
    part, owner = parts.start_postgres(spawner, folder / "postgres", logs, parts.free_port())
    try:
        roles = parts.role_urls(owner)
        migrate(database_url({"DATABASE_URL": owner}, "DATABASE_URL"), roles.values())
        yield Urls(
            owner=owner,
            app=roles["DATABASE_URL"],
            system=roles["DATABASE_SYSTEM_URL"],
            audit=roles["DATABASE_AUDIT_URL"],
        )
    finally:
        end([part], reason="stop", grace_s=10, first=2)
        spawner.close()
        shutil.rmtree(folder, ignore_errors=True)
