"""Alembic migrations: the tables, the roles, row-level security and the audit views."""
