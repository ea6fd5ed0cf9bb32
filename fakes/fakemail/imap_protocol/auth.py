"""LOGIN and AUTHENTICATE (RFC 3501 section 6.2, RFC 4616, RFC 4959, XOAUTH2). Called by: table.

A password or a token never leaves this module: the ledger learns who, how and whether.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from typing import Final

from fakemail.imap_protocol.context import AUTHENTICATED, Answer, Context, Ok, Refused, Request
from fakemail.imap_protocol.events import Line, Steps
from fakemail.imap_protocol.faulty import spoilt
from fakemail.imap_protocol.offer import announced
from fakemail.imap_protocol.syntax import SyntaxFault
from fakemail.mailbox import Account

#: What is told behind the ``+`` before the NO: as Google and Microsoft do, and by RFC 7628 section 3.2.2.
_TOKEN_REFUSED: Final = {
    mechanism: base64.b64encode(json.dumps({"status": status, "schemes": "bearer", "scope": "https://mail/"}).encode())
    for mechanism, status in (("XOAUTH2", "401"), ("OAUTHBEARER", "invalid_token"))
}


def login(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.2.3."""
    cursor = request.cursor
    cursor.space()
    user = cursor.text()
    cursor.space()
    password = cursor.text()
    cursor.end()
    _need_tls(context)
    yield from _faulty(context, request.tag, user, "LOGIN")
    account = context.mail.login(user, password)
    return _enter(context, user, "LOGIN", account)


def authenticate(context: Context, request: Request) -> Answer:
    """RFC 3501 section 6.2.2; initial response by RFC 4959 section 3."""
    cursor = request.cursor
    cursor.space()
    name = cursor.word()
    mechanism = _MECHANISMS.get(name) if context.has(f"AUTH={name}") else None
    first = None
    if not cursor.done:
        cursor.space()
        first = cursor.data[cursor.at :]
        if not context.has("SASL-IR"):
            raise SyntaxFault("an initial response is not offered")
    if mechanism is None:
        raise Refused("this mechanism is not offered")
    _need_tls(context)
    if first is None:
        yield b"+ \r\n"
        first = yield Line()
    return (yield from mechanism(context, request.tag, _decoded(first)))


def _decoded(text: bytes) -> bytes:
    if text == b"*":
        raise SyntaxFault("AUTHENTICATE was cancelled")
    # A lone equals sign is an initial response of no bytes (RFC 4959 section 3).
    try:
        return base64.b64decode(b"" if text == b"=" else text, validate=True)
    except binascii.Error as err:
        raise SyntaxFault("base64 expected") from err


def _plain(context: Context, tag: bytes, data: bytes) -> Answer:
    """RFC 4616 section 2: authzid NUL authcid NUL password."""
    parts = data.decode("utf-8", errors="surrogateescape").split("\0")
    if len(parts) != 3:  # noqa: PLR2004  # the three that are named above
        raise SyntaxFault("authzid NUL authcid NUL password expected")
    authzid, user, password = parts
    yield from _faulty(context, tag, user, "PLAIN")
    account = context.mail.login(user, password)
    if account is not None and authzid and authzid.lower() != account.address:
        # Nobody may act for another user.
        account = None
    return _enter(context, user, "PLAIN", account)


def _xoauth2(context: Context, tag: bytes, data: bytes) -> Answer:
    """``user=U^Aauth=Bearer T^A^A``; a refused token is told in JSON behind ``+`` before the NO."""
    parts = data.decode("utf-8", errors="surrogateescape").split("\1")
    fields = dict(part.partition("=")[::2] for part in parts if part)
    kind, _, token = fields.get("auth", "").partition(" ")
    if "user" not in fields or kind.lower() != "bearer":
        raise SyntaxFault("user and auth=Bearer expected")
    return (yield from _bearer(context, tag, "XOAUTH2", fields["user"], token))


def _oauthbearer(context: Context, tag: bytes, data: bytes) -> Answer:
    """RFC 7628 section 3.1: a GS2 header with the user, then fields as above."""
    header, *fields = data.decode("utf-8", errors="surrogateescape").split("\1")
    users = [part[2:] for part in header.split(",") if part.startswith("a=")]
    pairs = dict(part.partition("=")[::2] for part in fields if part)
    kind, _, token = pairs.get("auth", "").partition(" ")
    if not users or kind.lower() != "bearer":
        raise SyntaxFault("a GS2 header with the user and auth=Bearer expected")
    user = users[0].replace("=2C", ",").replace("=3D", "=")
    return (yield from _bearer(context, tag, "OAUTHBEARER", user, token))


def _bearer(context: Context, tag: bytes, mechanism: str, user: str, token: str) -> Answer:
    expired = yield from _faulty(context, tag, user, mechanism)
    account = None if expired else context.mail.login_token(user, token)
    if account is None:
        yield b"+ " + _TOKEN_REFUSED[mechanism] + b"\r\n"
        # Clients answer with an empty line, with ^A or with what they were told: the NO comes all the same.
        yield Line()
    return _enter(context, user, mechanism, account)


_MECHANISMS: Final[dict[str, Callable[[Context, bytes, bytes], Answer]]] = {
    "PLAIN": _plain,
    "XOAUTH2": _xoauth2,
    "OAUTHBEARER": _oauthbearer,
}


def _need_tls(context: Context) -> None:
    if context.options.require_tls and not context.tls:
        raise Refused("passwords are taken behind TLS alone", code="PRIVACYREQUIRED")


def _faulty(context: Context, tag: bytes, user: str, mechanism: str) -> Steps[bool]:
    """What a fault does instead of the check; True if it says that the token has expired."""
    action = context.decide("imap.auth", user=user.lower(), mechanism=mechanism)
    if action is not None and action.reply is not None:
        context.note("login", user=user.lower(), mechanism=mechanism, success=False)
    yield from spoilt(action, tag)
    return action is not None and action.expired_token


def _enter(context: Context, user: str, mechanism: str, account: Account | None) -> Ok:
    room = account is None or context.mail.has_room("imap", account.address)
    context.note("login", user=user.lower(), mechanism=mechanism, success=account is not None and room)
    if account is None:
        raise Refused("wrong user or password", code="AUTHENTICATIONFAILED")
    if not room:
        # As Gmail says it at the sixteenth connection.
        raise Refused("Too many simultaneous connections", code="ALERT")
    context.account, context.state = account, AUTHENTICATED
    connections = context.mail.connections
    connections["imap", ""] -= 1
    connections["imap", account.address] += 1
    return Ok(text="Logged in", code=f"CAPABILITY {announced(context)}")
