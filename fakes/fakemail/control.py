"""HTTP control of the fakes: seed mail, put and clear faults, read the ledger, reset. Never for a network."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from aiohttp import web

from fakemail import FakemailError
from fakemail.faults import FaultError, Plan, parse_faults
from fakemail.ledger import Ledger
from fakemail.mailbox import ConflictError, Folder, MailStore, NotFoundError
from fakemail.mime import field_value, header_block

#: Largest message that can be put into a mailbox, bytes.
_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
_PAGE_MAX: Final = 10_000
_SEED_KEYS: Final = ("folder", "count", "seed", "profile")


def application(store: MailStore, ledger: Ledger, plan: Plan) -> web.Application:
    """The control API as an aiohttp application."""
    control = _Control(store, ledger, plan)
    app = web.Application(client_max_size=_BODY_BYTES_MAX, middlewares=[_errors])
    app.add_routes(
        [
            web.get("/health", control.health),
            web.post("/users", control.post_user),
            web.post("/mailboxes/{address}/seed", control.post_seed),
            web.get("/mailboxes/{address}", control.get_mailbox),
            web.post("/mailboxes/{address}/messages", control.post_message),
            web.get("/faults", control.get_faults),
            web.put("/faults", control.put_faults),
            web.delete("/faults", control.delete_faults),
            web.get("/ledger", control.get_ledger),
            web.post("/reset", control.post_reset),
        ]
    )
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every error is JSON that says what was wrong."""
    try:
        answer: web.StreamResponse = await handler(request)
    except NotFoundError as err:
        return web.json_response({"error": str(err)}, status=404)
    except ConflictError as err:
        return web.json_response({"error": str(err)}, status=409)
    except FakemailError as err:
        return web.json_response({"error": str(err)}, status=400)
    except web.HTTPException as err:
        return web.json_response({"error": err.reason}, status=err.status)
    return answer


class _Control:
    def __init__(self, store: MailStore, ledger: Ledger, plan: Plan) -> None:
        self._store, self._ledger, self._plan = store, ledger, plan

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"status": "ok", "ledger_seq": self._ledger.seq, "ledger_dropped": self._ledger.dropped}
        )

    async def post_user(self, request: web.Request) -> web.Response:
        body = await _object(request)
        account = self._store.add_user(_text(body, "address"), _text(body, "password"))
        return web.json_response({"address": account.address, "folders": sorted(account.folders)}, status=201)

    async def post_seed(self, request: web.Request) -> web.Response:
        body = await _object(request)
        if unknown := sorted(body.keys() - _SEED_KEYS):
            raise FaultError(where="body", problem=f"unknown key {unknown[0]!r}", allowed=", ".join(_SEED_KEYS))
        folder = self._folder(request, body.get("folder", "INBOX"))
        count, seed = _whole(body, "count", None), _whole(body, "seed", self._store.seed)
        uids = self._store.seed_folder(folder, count=count, seed=seed, profile=str(body.get("profile", "small")))
        rows = [_message(folder, uid, digest=True) for uid in uids]
        return web.json_response({"uidvalidity": folder.uidvalidity, "messages": rows}, status=201)

    async def get_mailbox(self, request: web.Request) -> web.Response:
        account = self._store.user(request.match_info["address"])
        folders = [
            {
                "name": folder.name,
                "uidvalidity": folder.uidvalidity,
                "uidnext": folder.uidnext,
                "messages": [_message(folder, uid, digest=False) for uid in folder.uids],
            }
            for folder in account.folders.values()
        ]
        return web.json_response({"address": account.address, "folders": folders})

    async def post_message(self, request: web.Request) -> web.Response:
        folder = self._folder(request, request.query.get("folder", "INBOX"))
        uid = self._store.store(folder, await request.read())
        return web.json_response({"uidvalidity": folder.uidvalidity, "uid": uid}, status=201)

    async def get_faults(self, _: web.Request) -> web.Response:
        counters = self._plan.counters
        # The counters stand beside the faults, so that what was got can be put again.
        return web.json_response({"faults": [f.as_dict() for f in self._plan.faults], "counters": counters})

    async def put_faults(self, request: web.Request) -> web.Response:
        self._plan.replace(parse_faults(await _json(request)))
        return await self.get_faults(request)

    async def delete_faults(self, _: web.Request) -> web.Response:
        self._plan.replace(())
        return web.json_response({"faults": []})

    async def get_ledger(self, request: web.Request) -> web.Response:
        after, limit = _query(request, "after", 0), min(_query(request, "limit", 1000), _PAGE_MAX)
        entries = self._ledger.after(after, limit=limit)
        following = entries[-1]["seq"] if entries else after
        return web.json_response({"entries": entries, "next": following, "dropped": self._ledger.dropped})

    async def post_reset(self, _: web.Request) -> web.Response:
        self._store.reset()
        self._ledger.clear()
        self._plan.replace(())
        return web.json_response({"status": "ok"})

    def _folder(self, request: web.Request, name: Any) -> Folder:
        return self._store.user(request.match_info["address"]).folder(str(name))


def _message(folder: Folder, uid: int, *, digest: bool) -> dict[str, Any]:
    mail = folder.mail(uid)
    raw = mail.raw if mail is not None else b""
    row: dict[str, Any] = {
        "uid": uid,
        "message_id": field_value(header_block(raw), "message-id"),
        "size_bytes": len(raw),
    }
    return row | ({"sha256": hashlib.sha256(raw).hexdigest()} if digest else {"flags": sorted(folder.flags(uid))})


async def _json(request: web.Request) -> Any:
    try:
        return await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as err:
        raise FaultError(where="body", problem=f"not JSON ({err})", allowed="a JSON document") from err


async def _object(request: web.Request) -> dict[str, Any]:
    body = await _json(request)
    if not isinstance(body, dict):
        raise FaultError(where="body", problem="not an object", allowed="a JSON object")
    return body


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise FaultError(where=name, problem="missing or no text", allowed="a string that is not empty")
    return value


def _whole(body: dict[str, Any], name: str, default: int | None) -> int:
    value = body.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise FaultError(where=name, problem="missing or no whole number", allowed="a whole number")
    return value


def _query(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isdecimal():
        raise FaultError(where=name, problem=f"{text!r} given", allowed="a whole number from 0")
    return int(text)
