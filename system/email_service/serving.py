"""The API under gunicorn: the master binds and forks; telemetry and pools are made in each worker after its fork."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final

from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from email_service import telemetry
from email_service.errors import ConfigError

#: Linux' prctl(2).
_PR_SET_PDEATHSIG: Final = 1


class _Propagated(Logger):  # type: ignore[misc]  # as below
    """gunicorn's lines go the way of all others: no handler of their own."""

    def setup(self, cfg: Any) -> None:
        """Take the level alone."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Server(BaseApplication):  # type: ignore[misc]  # gunicorn ships no types
    def __init__(self, application: Callable[[], Flask], options: dict[str, Any]) -> None:
        self._application = application
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        """Hand over the options; gunicorn reads no file and no command line of its own."""
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Called in each worker process, after the fork, as nothing is preloaded."""
        return self._application()


def serve(
    application: Callable[[], Flask], *, host: str, port: int, workers: int, threads: int, ready: Callable[[str], None]
) -> int:
    """Serve until SIGTERM or SIGINT. ``ready`` is called with the URL once the first worker has built its application.

    Raises:
        ConfigError: the address can't be bound.
    """
    listener = _bind(host, port)
    url = f"http://{host}:{listener.getsockname()[1]}"
    options = {
        "bind": f"fd://{listener.fileno()}",
        "workers": workers,
        "threads": threads,
        "worker_class": "gthread",
        "preload_app": False,
        "graceful_timeout": 10,
        "keepalive": 75,
        "accesslog": None,
        "loglevel": "warning",
        "logger_class": _Propagated,
        "proc_name": "mail-api",
        "control_socket_disable": True,
        "post_fork": _die_with_master,
        "post_worker_init": lambda worker: ready(url) if worker.age == 1 else None,
        "worker_exit": lambda _server, _worker: telemetry.shutdown(),
    }
    _Server(application, options).run()
    return 0


def _die_with_master(master: Any, _worker: Any) -> None:
    """A worker whose master was killed ends at once, whatever it does: the port is free for the next master.

    gunicorn's own looks for its parent between two requests only.
    """
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != master.pid:
        # It died before it could be asked for.
        os.kill(os.getpid(), signal.SIGKILL)


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as err:
        listener.close()
        raise ConfigError(f"{host}:{port} can't be bound ({err.strerror}); choose another --port") from err
    listener.listen(512)
    listener.set_inheritable(True)
    return listener
