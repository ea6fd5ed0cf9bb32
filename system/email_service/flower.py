"""Flower, the dashboard over the worker: to look at, never to act with.

Owns how it is set up: a password, nothing that changes anything, and a history that survives a restart. Flower listens
to events, which workers send only with MAIL_TASK_EVENTS=1; it is not told to switch them on behind the operator's back
(2-3 ms of CPU a task). /healthcheck and /metrics need no password. What it shows is for people: events are lost while
it is away, and the truth is in the rows. Called by __main__.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import Any, Final

from flower.app import Flower
from flower.options import options
from flower.urls import settings as flower_settings

from email_service.celery_app import MailCelery
from email_service.config import Settings
from email_service.errors import ConfigError

_log = logging.getLogger(__name__)

#: Tasks that it remembers; each takes about 2 kB of memory and is written at every save.
TASKS_MAX: Final = 10_000
#: What a SIGKILL may cost of the history.
SAVE_EVERY_MS: Final = 30_000


def serve(app: MailCelery, *, host: str, port: int, ready: Callable[[int], None]) -> int:
    """Serve until SIGTERM or SIGINT; ``ready`` gets the port.

    Raises:
        ConfigError: there is no password, or the address can't be bound.
    """
    _set_options(app.settings, host=host, port=port)
    if not app.settings.task_events:
        _log.warning("MAIL_TASK_EVENTS is 0: workers send no events, and Flower shows queues but no task")
    dashboard = Flower(capp=app, options=options, **flower_settings)
    try:
        bound = dashboard.start_http_server()
    except OSError as err:
        raise ConfigError(f"{host}:{port} can't be bound ({err.strerror}); choose another --port") from err
    _stop_on_signals(dashboard)
    dashboard.io_loop.add_callback(ready, bound)
    try:
        dashboard.start()
    finally:
        # Writes the history.
        dashboard.stop()
    return 0


def _set_options(settings: Settings, *, host: str, port: int) -> None:
    """Flower has one set of options per process; FLOWER_* variables and configuration files are not read."""
    if not settings.flower_user or not settings.flower_password:
        raise ConfigError("Flower needs MAIL_FLOWER_USER and MAIL_FLOWER_PASSWORD: it shows every tenant's tasks")
    settings.flower_store.parent.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Any] = {
        "address": host,
        "port": port,
        "basic_auth": [f"{settings.flower_user}:{settings.flower_password}"],
        "read_only": True,
        "persistent": True,
        "db": os.fspath(settings.flower_store),
        "state_save_interval": SAVE_EVERY_MS,
        "max_tasks": TASKS_MAX,
        "enable_events": False,
    }
    for name, value in chosen.items():
        setattr(options, name, value)
    flower_settings["debug"] = False


def _stop_on_signals(dashboard: Any) -> None:
    def stop(*_: object) -> None:
        dashboard.io_loop.add_callback_from_signal(dashboard.io_loop.stop)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
