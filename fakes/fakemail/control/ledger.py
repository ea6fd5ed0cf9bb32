"""Endpoints for the ledger: pages, waiting, export.

Owns: filters and long polls. Never does: change an entry. Called by: the application, through ROUTES.
"""

from __future__ import annotations

import time
from typing import Any, Final

from aiohttp import web

from fakemail.control.requests import Call, Route

LIMIT_MAX: Final = 10_000
WAIT_S_MAX: Final = 60.0
_NUMBERS: Final = ("connection", "since_ns")
#: Facts that an entry may be asked for.
_FILTERS: Final = (
    "kind", "protocol", "user", "command", "fault_id", "point", "mail_from", "rcpt_to", "message_id", *_NUMBERS,
)  # fmt: skip


def _filters(call: Call) -> dict[str, Any]:
    """What entries must say; a filter that is not given fits all."""
    given = [name for name in _FILTERS if call.has(name)]
    return {name: call.whole(name) if name in _NUMBERS else call.text(name) for name in given}


async def page(call: Call) -> Any:
    """GET /ledger: as soon as ``count`` entries are there, or ``wait_s`` is over."""
    ledger, filters = call.shared.ledger, _filters(call)
    if call.has("last"):
        return _answer(call, ledger.last(call.whole("last", least=1, most=LIMIT_MAX), **filters), 0)
    after, limit = call.whole("after", 0), call.whole("limit", 1000, most=LIMIT_MAX)
    count = call.whole("count", 1, least=1, most=LIMIT_MAX)
    deadline = time.monotonic() + call.number("wait_s", 0.0, most=WAIT_S_MAX)
    entries: list[dict[str, Any]] = []
    at = after
    while True:
        # Only what is new is looked at: who waits beside a flood must not slow it down.
        entries += ledger.after(at, limit=max(limit, count) - len(entries), **filters)
        at = max(at, ledger.seq)
        left_s = deadline - time.monotonic()
        if len(entries) >= count or left_s <= 0 or call.shared.closing:
            return _answer(call, entries[:limit], after)
        await ledger.wait(left_s)


def _answer(call: Call, entries: list[dict[str, Any]], after: int) -> dict[str, Any]:
    following = entries[-1]["seq"] if entries else after
    return {"entries": entries, "next": following, "dropped": call.shared.ledger.dropped}


async def export(call: Call) -> Any:
    """GET /ledger.jsonl: what is there at this moment, an entry a line."""
    # Asked before the answer begins: what is wrong can't be told any more then.
    exported = call.shared.ledger.export(after=call.whole("after", 0), **_filters(call))
    answer = web.StreamResponse(headers={"Content-Type": "application/jsonl"})
    await answer.prepare(call.request)
    for lines in exported:
        await answer.write(lines)
    await answer.write_eof()
    return answer


ROUTES: Final = (
    Route(
        method="GET",
        path="/ledger",
        about="Entries behind `after`, oldest first, or the `last` so many; `wait_s` waits until `count` are there.",
        handler=page,
        names=("after", "limit", "last", "wait_s", "count", *_FILTERS),
    ),
    Route(
        method="GET",
        path="/ledger.jsonl",
        about="The whole ledger, an entry a line.",
        handler=export,
        names=("after", *_FILTERS),
    ),
)
