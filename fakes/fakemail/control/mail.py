"""Endpoints for users, folders and messages.

Owns: what an answer about mail shows. Never does: more than a few milliseconds between two looks at the sockets.
Called by: the application, through ROUTES.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from fakemail.control.loading import load
from fakemail.control.requests import Call, RequestError, Route
from fakemail.mailbox import Account, Folder, NotFoundError
from fakemail.mime import field_value, header_block
from fakemail.uids import UID_MAX, UidSet

#: Rows in one answer; more are had page by page.
ROWS_MAX: Final = 10_000
#: Digests of so many messages in one answer, where they are asked for.
DIGESTS_MAX: Final = 100_000
#: Rows that are made between two looks at the sockets: a quarter of a millisecond without digests.
_SLICE: Final = 32


def account_of(call: Call) -> Account:
    """The user that the path names."""
    return call.shared.store.user(call.path["address"])


def folder_of(call: Call) -> Folder:
    """The folder that the parameters name: INBOX if they don't."""
    return account_of(call).folder(call.text("folder", "INBOX"))


async def add_user(call: Call) -> Any:
    """POST /users."""
    token = call.text("token") if call.has("token") else None
    account = call.shared.store.add_user(call.text("address"), call.text("password"), token)
    return {"address": account.address, "folders": account.names}


async def list_users(call: Call) -> Any:
    """GET /users."""
    return {"users": [{"address": each.address, "folders": each.names} for each in call.shared.store.users]}


async def remove_user(call: Call) -> Any:
    """DELETE /mailboxes/{address}."""
    call.shared.store.remove_user(account_of(call).address)
    return {}


async def show_mailbox(call: Call) -> Any:
    """GET /mailboxes/{address}."""
    account = account_of(call)
    folders = []
    for name in account.names:
        if (folder := account.folders.get(name)) is not None:
            listed = folder.uids if len(folder.uids) <= ROWS_MAX else folder.uids.between(1, folder.uids.nth(ROWS_MAX))
            folders.append(facts(folder) | {"messages": await rows(folder, listed)})
    return {"address": account.address, "folders": folders}


def facts(folder: Folder) -> dict[str, Any]:
    """A folder without its messages."""
    return {
        "name": folder.name,
        "uidvalidity": folder.uidvalidity,
        "uidnext": folder.uidnext,
        "highestmodseq": folder.highestmodseq,
        "count": len(folder.uids),
    }


async def rows(folder: Folder, uids: Iterable[int], *, digests: bool = False) -> list[dict[str, Any]]:
    """The messages of these UIDs; one that is expunged meanwhile is left out."""
    made: list[dict[str, Any]] = []
    for number, uid in enumerate(uids):
        if number % _SLICE == 0:
            await asyncio.sleep(0)
        if uid in folder.uids:
            made.append(_row(folder, uid, digest=digests))
    return made


def _row(folder: Folder, uid: int, *, digest: bool) -> dict[str, Any]:
    raw = folder.raw(uid) if digest else b""
    header = header_block(raw) if digest else folder.header(uid)
    row: dict[str, Any] = {
        "uid": uid,
        "message_id": field_value(header, "message-id"),
        "size_bytes": folder.size(uid),
        "received_s": folder.received(uid)[0],
        "flags": sorted(folder.flags(uid)),
    }
    return row | ({"sha256": hashlib.sha256(raw).hexdigest()} if digest else {})


async def create_folder(call: Call) -> Any:
    """POST /mailboxes/{address}/folders."""
    account = account_of(call)
    folder = call.shared.store.create(account, call.text("folder"))
    account.subscribed.add(folder.name)
    return facts(folder)


async def delete_folder(call: Call) -> Any:
    """DELETE /mailboxes/{address}/folders."""
    call.shared.store.delete(account_of(call), call.text("folder"))
    return {}


async def seed(call: Call) -> Any:
    """POST /mailboxes/{address}/seed: with rows for at most 10,000 messages, unless ``digests`` says otherwise."""
    folder, store = folder_of(call), call.shared.store
    count, number = call.whole("count"), call.whole("seed", store.seed, least=None)
    wanted = call.truth("digests")
    shown = count <= ROWS_MAX if wanted is None else wanted
    if shown and count > DIGESTS_MAX:
        allowed = f"true for at most {DIGESTS_MAX} messages; GET .../messages has them page by page"
        raise RequestError(where="digests", problem=f"true given with count {count}", allowed=allowed)
    profile, gaps = call.text("profile", "small"), call.whole("gaps", 0, most=1000)
    uids = store.seed_folder(folder, count=count, seed=number, profile=profile, gaps=gaps)
    answer = {"uidvalidity": folder.uidvalidity, "count": len(uids), "first": uids.smallest, "last": uids.largest}
    return answer | {"messages": await rows(folder, uids, digests=True) if shown else []}


async def load_files(call: Call) -> Any:
    """POST /mailboxes/{address}/load: a path on the server's machine."""
    folder = folder_of(call)
    count = load(call.shared.store, folder, Path(call.text("path")))
    return facts(folder) | {"loaded": count}


async def reset_uidvalidity(call: Call) -> Any:
    """POST /mailboxes/{address}/uidvalidity."""
    account = account_of(call)
    return facts(call.shared.store.reset_uidvalidity(account, call.text("folder", "INBOX")))


async def list_messages(call: Call) -> Any:
    """GET /mailboxes/{address}/messages."""
    folder = folder_of(call)
    after, limit = call.whole("after_uid", 0, most=UID_MAX), call.whole("limit", 1000, least=1, most=ROWS_MAX)
    rest = folder.uids.between(after + 1, UID_MAX)
    page = rest.between(1, rest.nth(limit)) if len(rest) > limit else rest
    messages = await rows(folder, page, digests=bool(call.truth("digests")))
    return facts(folder) | {"messages": messages, "next": page.largest or after, "more": len(rest) > limit}


async def append(call: Call) -> Any:
    """POST /mailboxes/{address}/messages."""
    folder = folder_of(call)
    if not call.body:
        raise RequestError(where="body", problem="empty", allowed="a message (RFC 5322)")
    flags = [_flag(each) for each in call.texts("flag")]
    received_s = call.whole("received_s", most=253_402_300_799) if call.has("received_s") else None
    uid = call.shared.store.store(folder, call.body, flags=flags, received_s=received_s)
    return {"uidvalidity": folder.uidvalidity, "uid": uid}


def _flag(text: str) -> str:
    """A system flag or a keyword: an atom (RFC 3501 section 9)."""
    if not re.fullmatch(r'\\?[^\x00-\x20\x7f-\uffff(){%*"\\\]]{1,100}', text) or text.lower() == "\\recent":
        raise RequestError(where="flags", problem=f"{text!r} given", allowed=r"\Seen and the like, or a keyword")
    return text


def _uid(call: Call) -> tuple[Folder, int]:
    """The folder and a message that is in it."""
    folder, text = folder_of(call), call.path["uid"]
    uid = int(text) if re.fullmatch(r"[0-9]{1,10}", text) else 0
    if uid not in folder.uids:
        raise NotFoundError(f"{folder.address} {folder.name} holds no UID {text[:20]!r}")
    return folder, uid


async def show_message(call: Call) -> Any:
    """GET /mailboxes/{address}/messages/{uid}."""
    folder, uid = _uid(call)
    return web.Response(body=folder.raw(uid), content_type="message/rfc822")


async def set_flags(call: Call) -> Any:
    """PATCH /mailboxes/{address}/messages/{uid}."""
    folder, uid = _uid(call)
    if not call.has("flags"):
        raise RequestError(where="flags", problem="missing", allowed="a list of texts")
    folder.set_flags(uid, frozenset(_flag(each) for each in call.texts("flags")))
    return _row(folder, uid, digest=False)


async def expunge(call: Call) -> Any:
    """DELETE /mailboxes/{address}/messages."""
    folder = folder_of(call)
    gone = folder.expunge(_uids(call.text("uids")))
    return {"expunged": len(gone), "count": len(folder.uids)}


def _uids(text: str) -> UidSet:
    """``1,5,7:9`` or ``1:*``, as IMAP writes sets (RFC 3501 section 9)."""
    ranges = []
    for part in text.split(","):
        if not (found := re.fullmatch(r"([0-9]{1,10})(?::([0-9]{1,10}|\*))?", part)):
            raise RequestError(where="uids", problem=f"{text[:80]!r} given", allowed="UIDs such as 1,5,7:9 or 1:*")
        low, high = int(found[1]), UID_MAX if found[2] == "*" else int(found[2] or found[1])
        if not 1 <= low <= high <= UID_MAX:
            raise RequestError(where="uids", problem=f"{part!r} given", allowed=f"1 to {UID_MAX}, ascending")
        ranges.append((low, high))
    return UidSet.of(ranges)


_BOX: Final = "/mailboxes/{address}"
ROUTES: Final = (
    Route(method="GET", path="/users", about="All users and their folders.", handler=list_users),
    Route(
        method="POST",
        path="/users",
        about="Make a user with INBOX, Sent, Drafts, Trash and Junk, or set the password of one.",
        handler=add_user,
        names=("address", "password", "token"),
        body="object",
        status=201,
    ),
    Route(method="GET", path=_BOX, about="All folders, each with its first 10,000 messages.", handler=show_mailbox),
    Route(method="DELETE", path=_BOX, about="Forget a user with all mail.", handler=remove_user),
    Route(
        method="POST",
        path=f"{_BOX}/folders",
        about="Make a folder.",
        handler=create_folder,
        names=("folder",),
        body="object",
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{_BOX}/folders",
        about="Take a folder away with its mail.",
        handler=delete_folder,
        names=("folder",),
    ),
    Route(
        method="POST",
        path=f"{_BOX}/seed",
        about="Put `count` synthesised messages into a folder; answers digests of up to 10,000, or as `digests` says.",
        handler=seed,
        names=("folder", "count", "seed", "profile", "gaps", "digests"),
        body="object",
        status=201,
    ),
    Route(
        method="POST",
        path=f"{_BOX}/load",
        about="Load a Maildir or an mbox file that lies on the server's machine.",
        handler=load_files,
        names=("folder", "path"),
        body="object",
        status=201,
    ),
    Route(
        method="POST",
        path=f"{_BOX}/uidvalidity",
        about="Renumber a folder from UID 1 under a new UIDVALIDITY.",
        handler=reset_uidvalidity,
        names=("folder",),
        body="object",
    ),
    Route(
        method="GET",
        path=f"{_BOX}/messages",
        about="The messages of a folder, page by page.",
        handler=list_messages,
        names=("folder", "after_uid", "limit", "digests"),
    ),
    Route(
        method="POST",
        path=f"{_BOX}/messages",
        about="Put one message into a folder.",
        handler=append,
        names=("folder", "flag", "received_s"),
        body="raw",
        status=201,
    ),
    Route(
        method="DELETE",
        path=f"{_BOX}/messages",
        about="Expunge messages, as another client would; `uids` as in IMAP: `1,5,7:9`.",
        handler=expunge,
        names=("folder", "uids"),
    ),
    Route(
        method="GET",
        path=f"{_BOX}/messages/{{uid}}",
        about="One message, byte for byte.",
        handler=show_message,
        names=("folder",),
    ),
    Route(
        method="PATCH",
        path=f"{_BOX}/messages/{{uid}}",
        about="Replace a message's flags, as another client would.",
        handler=set_flags,
        names=("flags", "folder"),
        body="object",
    ),
)
