"""What the whole service needs: folder counts, spam scores, results, reply texts, and the rights of the cleanup."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file: psycopg takes several statements in one call, if it is given no parameters at all."""
    raw = op.get_bind().connection.driver_connection
    with raw.cursor() as cursor:  # type: ignore[union-attr]  # an online migration always has a connection
        cursor.execute((Path(__file__).parent / "0002_whole_service.sql").read_text())


def downgrade() -> None:
    """Refuse: what was learnt since would be dropped."""
    raise NotImplementedError("restore a backup instead: the columns of 0002 hold what no older version can keep")
