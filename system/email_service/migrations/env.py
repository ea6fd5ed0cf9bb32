"""Alembic's entry: runs on the connection that ``email_service.migrations.runner`` hands over."""

from __future__ import annotations

from alembic import context

from email_service.models import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
