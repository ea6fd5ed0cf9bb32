"""The exporter's real sources, put together. Called by ``__main__``."""

from __future__ import annotations

import redis

from email_service.exporter import broker, rows
from email_service.exporter.collecting import Inputs
from email_service.tenancy import Database


def live_inputs(database: Database, broker_url: str, host: str) -> Inputs:
    """PostgreSQL as mail_system, Redis 0, /proc of this host."""
    client = redis.Redis.from_url(broker_url, socket_timeout=2, socket_connect_timeout=2)
    asked = rows.Rows(database)
    return Inputs(
        ended=asked.ended,
        removed=asked.removed,
        kept=asked.kept,
        running=lambda: asked.ask(rows.RUNNING),
        overdue=lambda: asked.ask(rows.OVERDUE),
        waiting=lambda: asked.ask(rows.WAITING),
        lag_s=asked.lag_s,
        depth=lambda: broker.read_depth(client),
        workers=lambda: broker.read_workers(client, host),
        ages=lambda: broker.read_ages(client),
    )
