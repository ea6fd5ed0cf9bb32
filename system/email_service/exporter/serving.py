"""The exporter over HTTP: one address, both formats; prometheus_client goes by the Accept header. Called by main."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

from email_service.errors import ConfigError
from email_service.exporter.collecting import Exporter, Inputs


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread a scrape: a client that reads slowly keeps nobody waiting."""

    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without asking the name service who we are, as the base class does; it may take long to say nothing."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    #: Seconds until a silent client is hung up on.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """No line per scrape."""


def serve(inputs: Inputs, host: str, port: int, ready: Callable[[int], None], stop: threading.Event) -> None:
    """Serve until told to stop; ``ready`` gets the port once all rows so far are counted.

    Raises:
        ConfigError: the address can't be bound.
    """
    exporter = Exporter(inputs)
    try:
        family = _Server6 if ":" in host else _Server
        server = make_server(host, port, make_wsgi_app(exporter.registry), family, handler_class=_Handler)
    except OSError as err:
        raise ConfigError(f"{host}:{port} can't be bound ({err.strerror}); choose another --port") from err
    with server:
        # Before the first scrape: a counter that jumps from nothing to everything would be taken for a rate.
        exporter.catch_up(stop)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
        thread.start()
        ready(server.server_port)
        while not stop.wait(1.0):
            # Between scrapes too, so that none of them has a backlog to wait for.
            exporter.catch_up(stop)
        server.shutdown()
        thread.join(timeout=5)
