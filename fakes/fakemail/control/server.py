"""Endpoints for the process itself: is it well, who is connected, what are its limits, how does it begin anew.

Owns: what a connection looks like from outside. Never does: mail, faults, the ledger's entries.
Called by: the application, through ROUTES.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fakemail.control.requests import Call, Route
from fakemail.mailbox import Limits, NotFoundError

_LIMITS: Final = tuple(each.name for each in fields(Limits))


async def health(call: Call) -> Any:
    """GET /health."""
    ledger = call.shared.ledger
    return {"status": "ok", "ledger_seq": ledger.seq, "ledger_dropped": ledger.dropped}


async def stats(call: Call) -> Any:
    """GET /stats."""
    shared = call.shared
    users = shared.store.users
    folders = [folder for user in users for folder in user.folders.values()]
    return {
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - shared.started_s, 3),
        "rss_bytes": _rss_bytes(),
        "users": len(users),
        "folders": len(folders),
        "messages": sum(len(folder.uids) for folder in folders),
        "connections": dict(Counter(str(facts["protocol"]) for facts, _ in _of_user(call))),
        "timelines": shared.clocks,
        "faults": shared.plan.counters,
        "ledger": {"seq": shared.ledger.seq, "dropped": shared.ledger.dropped, "counts": dict(shared.ledger.counts)},
    }


def _rss_bytes() -> int | None:
    """Resident memory; None where the system has no /proc to tell (macOS)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


async def ca_pem(call: Call) -> Any:
    """GET /ca.pem."""
    return web.Response(text=call.shared.ca_pem(), content_type="application/x-pem-file")


def _of_user(call: Call) -> list[tuple[dict[str, Any], asyncio.Transport]]:
    """The connections of the user that is named, or all; in the order in which they came."""
    user = call.text("user").lower() if call.has("user") else None
    found = [(call.shared.connection_facts(each), each) for each in call.shared.connections]
    chosen = [(facts, each) for facts, each in found if user in {None, facts["user"].lower()}]
    return sorted(chosen, key=lambda pair: int(pair[0]["connection"]))


async def list_connections(call: Call) -> Any:
    """GET /connections."""
    return {"connections": [facts for facts, _ in _of_user(call)]}


async def cut_connections(call: Call) -> Any:
    """DELETE /connections."""
    return {"cut": await call.shared.cut(transport for _, transport in _of_user(call))}


async def cut_connection(call: Call) -> Any:
    """DELETE /connections/{connection}."""
    wanted = call.path["connection"]
    chosen = [transport for facts, transport in _of_user(call) if str(facts["connection"]) == wanted]
    if not chosen:
        raise NotFoundError(f"no connection {wanted[:20]!r} is open; allowed: those that GET /connections lists")
    return {"cut": await call.shared.cut(chosen)}


async def show_limits(call: Call) -> Any:
    """GET /limits."""
    return asdict(call.shared.store.limits)


async def set_limits(call: Call) -> Any:
    """PATCH /limits."""
    for name in call.given:
        value = call.given[name]
        if value is not None:
            value = call.whole(name, least=1, most=1_000_000)
        setattr(call.shared.store.limits, name, value)
    return await show_limits(call)


async def reset(call: Call) -> Any:
    """POST /reset."""
    shared = call.shared
    await shared.stop_clocks()
    if call.truth("connections", default=False):
        await shared.cut(shared.connections)
    shared.store.reset()
    shared.plan.replace(())
    shared.ledger.clear()
    if call.truth("to_start", default=False):
        shared.restore()
    return {"status": "ok"}


ROUTES: Final = (
    Route(method="GET", path="/health", about="Answers when it serves.", handler=health),
    Route(
        method="GET",
        path="/stats",
        about="Users, messages, connections, ledger entries by kind, resident memory.",
        handler=stats,
    ),
    Route(method="GET", path="/ca.pem", about="The authority that signed for the TLS ports, as PEM.", handler=ca_pem),
    Route(
        method="GET",
        path="/connections",
        about="Who is connected.",
        handler=list_connections,
        names=("user",),
    ),
    Route(
        method="DELETE",
        path="/connections",
        about="Cut all connections, or those of a user.",
        handler=cut_connections,
        names=("user",),
    ),
    Route(method="DELETE", path="/connections/{connection}", about="Cut one connection.", handler=cut_connection),
    Route(method="GET", path="/limits", about="The limits in force; null is none.", handler=show_limits),
    Route(
        method="PATCH",
        path="/limits",
        about="Set or lift (null) limits; what is not named stays.",
        handler=set_limits,
        names=_LIMITS,
        body="object",
    ),
    Route(
        method="POST",
        path="/reset",
        about="Forget users, mail, faults, limits, ledger; `to_start` brings the start back, `connections` cuts all.",
        handler=reset,
        names=("to_start", "connections"),
        body="object",
    ),
)
