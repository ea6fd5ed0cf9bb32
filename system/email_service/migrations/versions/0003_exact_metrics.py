"""What exact metrics need: the steps of an execution, and what a job was before something else settled it."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Run the SQL file: psycopg takes several statements in one call, if it is given no parameters at all."""
    raw = op.get_bind().connection.driver_connection
    with raw.cursor() as cursor:  # type: ignore[union-attr]  # an online migration always has a connection
        cursor.execute((Path(__file__).parent / "0003_exact_metrics.sql").read_text())


def downgrade() -> None:
    """Refuse: what was learnt since would be dropped."""
    raise NotImplementedError("restore a backup instead: the columns of 0003 hold what no older version can keep")
