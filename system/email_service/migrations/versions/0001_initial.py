"""The first tables, roles, policies and audit views."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the two SQL files: psycopg takes several statements in one call, if it is given no parameters at all."""
    here = Path(__file__).parent
    raw = op.get_bind().connection.driver_connection
    with raw.cursor() as cursor:  # type: ignore[union-attr]  # an online migration always has a connection
        for name in ("0001_tables.sql", "0001_security.sql"):
            cursor.execute((here / name).read_text())


def downgrade() -> None:
    """Refuse: dropping every mailbox is not a migration."""
    raise NotImplementedError("there is nothing before the first migration; drop the database instead")
