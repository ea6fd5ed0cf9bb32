"""Log in: PLAIN and LOGIN with a password, XOAUTH2 and OAUTHBEARER with a bearer token (RFC 4954, 4616, 7628).

Rule: no error holds the secret, however the server repeats it. Called by session.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from email_service.errors import AuthenticationError
from email_service.signals import SMTP_REPLY_CODE, SPAN_SMTP_AUTH
from email_service.smtp.endpoint import SmtpEndpoint
from email_service.smtp.replies import AUTHENTICATED, CONTINUE, Reply, readable
from email_service.smtp.tracing import client_span
from email_service.smtp.wire import Wire

#: RFC 5321 section 4.5.3.1.4, without CRLF: a longer initial response goes on a line of its own (RFC 4954 section 4).
_COMMAND_BYTES_MAX: Final = 510


def authenticate(wire: Wire, endpoint: SmtpEndpoint, offered: Sequence[str]) -> None:
    """Log in with the best mechanism that the server offers.

    Raises:
        AuthenticationError: it offers none of ours, or refused; transient on a 4xx.
    """
    with client_span(SPAN_SMTP_AUTH, endpoint) as span:
        known = _MECHANISMS[endpoint.auth]
        name = next((each for each in known if each in offered), None)
        if name is None:
            raise AuthenticationError(f"{endpoint.name} offers {_words('neither', 'nor', known)}")
        reply = known[name](wire, endpoint)
        span.set_attribute(SMTP_REPLY_CODE, reply.code)
    if reply.code != AUTHENTICATED:
        said = readable(" ".join(reply.lines), hidden=_hidden(endpoint))
        raise AuthenticationError(f"{endpoint.name} answered {reply.code} {said}", transient=reply.transient)


def _words(first: str, then: str, mechanisms: Mapping[str, object]) -> str:
    one, other = mechanisms
    return f"{first} AUTH {one} {then} AUTH {other}"


def _plain(wire: Wire, endpoint: SmtpEndpoint) -> Reply:
    """RFC 4616; our own hands, as a library's UnicodeEncodeError would hold the password."""
    return _initial(wire, "PLAIN", _plain_response(endpoint))


def _login(wire: Wire, endpoint: SmtpEndpoint) -> Reply:
    reply = _initial(wire, "LOGIN", _base64(endpoint.username))
    return _say(wire, _base64(endpoint.password.reveal())) if reply.code == CONTINUE else reply


def _xoauth2(wire: Wire, endpoint: SmtpEndpoint) -> Reply:
    """Google's and Microsoft's: a refusal is a challenge that holds JSON, and an empty line asks for the real reply."""
    return _bearer(wire, "XOAUTH2", _xoauth2_response(endpoint), acknowledgement="")


def _oauthbearer(wire: Wire, endpoint: SmtpEndpoint) -> Reply:
    """As XOAUTH2, but a refusal is acknowledged by an octet (RFC 7628 section 3.2.3)."""
    return _bearer(wire, "OAUTHBEARER", _oauthbearer_response(endpoint), acknowledgement=_base64("\1"))


def _plain_response(endpoint: SmtpEndpoint) -> str:
    return _base64(f"\0{endpoint.username}\0{endpoint.password.reveal()}")


def _xoauth2_response(endpoint: SmtpEndpoint) -> str:
    return _base64(f"user={endpoint.username}\1auth=Bearer {endpoint.password.reveal()}\1\1")


def _oauthbearer_response(endpoint: SmtpEndpoint) -> str:
    """RFC 7628 section 3.1; a comma and an equals sign in the name are written out (RFC 5801 section 4)."""
    user = endpoint.username.replace("=", "=3D").replace(",", "=2C")
    server = f"\1host={endpoint.host}\1port={endpoint.port}"
    return _base64(f"n,a={user},{server}\1auth=Bearer {endpoint.password.reveal()}\1\1")


def _bearer(wire: Wire, mechanism: str, response: str, *, acknowledgement: str) -> Reply:
    challenge = _initial(wire, mechanism, response)
    if challenge.code != CONTINUE:
        return challenge
    reply = _say(wire, acknowledgement)
    status = _status(challenge)
    return Reply(code=reply.code, lines=(*reply.lines, f"(token: {status})")) if status else reply


def _status(challenge: Reply) -> str:
    """What the server says of the token (RFC 7628 section 3.2.2); nothing else of it is repeated."""
    try:
        told = json.loads(base64.b64decode(" ".join(challenge.lines), validate=True))
    except (binascii.Error, ValueError):
        return ""
    status = told.get("status") if isinstance(told, dict) else None
    return status[:40] if isinstance(status, str) and status.isprintable() else ""


def _initial(wire: Wire, mechanism: str, response: str) -> Reply:
    """Say AUTH with the response, or with the response on the next line where it is too long for a command."""
    line = f"AUTH {mechanism} {response}"
    if len(line) <= _COMMAND_BYTES_MAX:
        return _say(wire, line)
    reply = _say(wire, f"AUTH {mechanism}")
    return _say(wire, response) if reply.code == CONTINUE else reply


def _say(wire: Wire, line: str) -> Reply:
    wire.send(f"{line}\r\n".encode("ascii"))
    return wire.reply()


def _hidden(endpoint: SmtpEndpoint) -> tuple[str, ...]:
    """All forms in which the secret may have gone out; the longest first, as one may be within another."""
    secret = endpoint.password.reveal()
    responses = (_plain_response(endpoint), _xoauth2_response(endpoint), _oauthbearer_response(endpoint))
    return tuple(sorted((*responses, _base64(secret), secret), key=len, reverse=True))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


#: By endpoint.auth, in the order of preference.
_MECHANISMS: Final[Mapping[str, Mapping[str, Callable[[Wire, SmtpEndpoint], Reply]]]] = {
    "password": {"PLAIN": _plain, "LOGIN": _login},
    "xoauth2": {"XOAUTH2": _xoauth2, "OAUTHBEARER": _oauthbearer},
}
