"""Tell an IMAP server who we are: LOGIN, AUTHENTICATE PLAIN, XOAUTH2 or OAUTHBEARER, whichever it takes.

Rule 1: no error and no span holds the password or the token, in none of the forms that a server may repeat.
Rule 2: what can't be told apart from the framing of a mechanism is refused, not sent.
Called by session.
"""

from __future__ import annotations

import base64
import json
import re
from typing import Final

from email_service.errors import AuthenticationError, ConnectError
from email_service.imap.refusals import BrokenError, RefusedError, errors, is_transient
from email_service.imap.replies import NOT_QUOTABLE, quoted, readable
from email_service.imap.values import ImapEndpoint
from email_service.imap.wire import Reply, Wire

#: What separates the fields of XOAUTH2 and OAUTHBEARER (RFC 7628 section 3.1), and control characters beside it.
_NOT_BEARER: Final = re.compile(r"[\x00-\x1f\x7f]")
#: The answer to an error challenge: nothing for XOAUTH2, one separator for OAUTHBEARER (RFC 7628 section 3.2.3).
_TO_CHALLENGE: Final = {b"XOAUTH2": b"", b"OAUTHBEARER": base64.b64encode(b"\x01")}
#: Of the JSON in an error challenge: a code or a word such as invalid_token.
_STATUS: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


def log_in(wire: Wire, endpoint: ImapEndpoint) -> None:
    """Say who we are, unless the server knows, and learn what it can do for us.

    Raises:
        AuthenticationError: it refuses; permanent unless it says why it might not tomorrow.
        ConnectError: it broke off.
    """
    if not wire.is_authenticated:
        user, secret = endpoint.username, endpoint.password.reveal()
        hidden = _forms(user, secret, endpoint)
        with errors("login", broken=ConnectError, refused=AuthenticationError, hidden=hidden):
            if endpoint.auth == "xoauth2":
                replies = _bearer(wire, endpoint, user, secret, hidden)
            else:
                replies = _password(wire, user, secret)
            if wire.note_capabilities(replies):
                return
    # They differ from those before the login.
    with errors("CAPABILITY", broken=ConnectError, refused=ConnectError):
        wire.ask_capabilities()


def _password(wire: Wire, user: str, password: str) -> list[Reply]:
    plain = b"AUTH=PLAIN" in wire.capabilities
    disabled = b"LOGINDISABLED" in wire.capabilities
    both = f"{user}{password}"
    if plain and (disabled or not both.isascii() or not both.isprintable()):
        if "\0" in both:
            raise AuthenticationError("the name or the password holds a NUL, which PLAIN can't say")
        return _authenticate(wire, b"PLAIN", plain_response(user, password))
    if disabled:
        raise AuthenticationError("the server allows no login on this connection")
    if NOT_QUOTABLE.search(_utf8(both)):
        raise AuthenticationError("the name or the password holds a line break, which LOGIN can't say")
    return wire.run(b"LOGIN", quoted(_utf8(user)), quoted(_utf8(password)))


def _bearer(wire: Wire, endpoint: ImapEndpoint, user: str, token: str, hidden: tuple[str, ...]) -> list[Reply]:
    mechanism = next((m for m in (b"XOAUTH2", b"OAUTHBEARER") if b"AUTH=" + m in wire.capabilities), None)
    if mechanism is None:
        raise AuthenticationError("the server offers neither XOAUTH2 nor OAUTHBEARER on this connection")
    if _NOT_BEARER.search(f"{user}{token}"):
        raise AuthenticationError("the name or the token holds a control character")
    challenges: list[bytes] = []
    try:
        return _authenticate(wire, mechanism, bearer_response(mechanism, endpoint, user, token), challenges)
    except RefusedError as err:
        said = readable(err.text, hidden=hidden)
    status = _status(challenges)
    text = f"{said} (status {status})" if status else said
    transient = is_transient(said, otherwise=status.startswith("5") or status == "temporarily_unavailable")
    raise AuthenticationError(text, transient=transient)


def _authenticate(wire: Wire, mechanism: bytes, response: bytes, challenges: list[bytes] | None = None) -> list[Reply]:
    """AUTHENTICATE; the response goes with the command where that is allowed (RFC 4959)."""
    encoded = base64.b64encode(response)
    at_once = b"SASL-IR" in wire.capabilities
    tag = wire.send(b"AUTHENTICATE", mechanism, *([encoded] if at_once else []))
    answers = [] if at_once else [encoded]
    replies: list[Reply] = []
    for reply in wire.answer(tag):
        if reply.tag != b"+":
            replies.append(reply)
        elif answers:
            wire.send_line(answers.pop())
        elif challenges is None or challenges:
            raise BrokenError("the server asks for more than the mechanism has")
        else:
            challenges.append(reply.text)
            wire.send_line(_TO_CHALLENGE[mechanism])
    return replies


def plain_response(user: str, password: str) -> bytes:
    """The one message of PLAIN (RFC 4616)."""
    return b"\0" + _utf8(user) + b"\0" + _utf8(password)


def bearer_response(mechanism: bytes, endpoint: ImapEndpoint, user: str, token: str) -> bytes:
    """The one message of XOAUTH2 (Google's and Microsoft's), or of OAUTHBEARER (RFC 7628 section 3.1)."""
    if mechanism == b"XOAUTH2":
        return _utf8(f"user={user}\x01auth=Bearer {token}\x01\x01")
    name = user.replace("=", "=3D").replace(",", "=2C")
    return _utf8(f"n,a={name},\x01host={endpoint.host}\x01port={endpoint.port}\x01auth=Bearer {token}\x01\x01")


def _status(challenges: list[bytes]) -> str:
    """``status`` of an error challenge's JSON, empty if there is none."""
    try:
        told = json.loads(base64.b64decode(challenges[0], validate=True))
    except (IndexError, ValueError, RecursionError):
        return ""
    status = told.get("status") if isinstance(told, dict) else None
    return status if isinstance(status, str) and _STATUS.fullmatch(status) else ""


def _forms(user: str, secret: str, endpoint: ImapEndpoint) -> tuple[str, ...]:
    """What a server that repeats a line would show of the secret, longest first."""
    responses = (
        plain_response(user, secret),
        *(bearer_response(mechanism, endpoint, user, secret) for mechanism in _TO_CHALLENGE),
        _utf8(secret),
    )
    encoded = [base64.b64encode(response).decode("ascii") for response in responses]
    return *encoded, quoted(_utf8(secret)).decode("utf-8", "replace"), _utf8(secret).decode("utf-8", "replace")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
