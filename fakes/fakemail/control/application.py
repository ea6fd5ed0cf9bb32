"""The control API as an aiohttp application, and the list of its endpoints.

Owns: which endpoints there are. Never does: anything to mail or faults by itself.
Called by: serving, once the control is wanted. The README's table of endpoints is ``endpoint_table()``.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from fakemail.control import faults, ledger, mail, server, timelines
from fakemail.control.requests import RAW_BYTES_MAX, SHARED, Call, Route, errors
from fakemail.control.shared import Shared


async def index(call: Call) -> Any:
    """GET /."""
    servers = {name: {"host": host, "port": port} for name, (host, port) in call.shared.servers.items()}
    endpoints = [{"method": each.method, "path": each.path, "about": each.about} for each in ROUTES]
    return {"name": "fakemail", "version": call.shared.version, "servers": servers, "endpoints": endpoints}


ROUTES: Final[tuple[Route, ...]] = (
    Route(method="GET", path="/", about="Version, servers with host and port, all endpoints.", handler=index),
    *server.ROUTES,
    *mail.ROUTES,
    *timelines.ROUTES,
    *faults.ROUTES,
    *ledger.ROUTES,
)


def application(shared: Shared) -> web.Application:
    """The control API as an aiohttp application."""
    app = web.Application(client_max_size=RAW_BYTES_MAX, middlewares=[errors])
    app[SHARED] = shared
    app.add_routes([web.route(route.method, route.path, route.serve) for route in ROUTES])
    app.on_shutdown.append(_let_go)
    return app


async def _let_go(app: web.Application) -> None:
    await app[SHARED].close()


def endpoint_table() -> str:
    """All endpoints as a Markdown table."""
    lines = ["| endpoint | parameters | what it does |", "|---|---|---|"]
    for route in ROUTES:
        names = ", ".join(f"`{name}`" for name in route.names)
        body = {"raw": "the message as body", "document": "a JSON document as body"}.get(route.body, "")
        parameters = "; ".join(part for part in (names, body) if part)
        lines.append(f"| `{route.method} {route.path}` | {parameters} | {route.about} |")
    return "\n".join(lines) + "\n"
