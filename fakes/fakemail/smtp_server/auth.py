"""AUTH: PLAIN and LOGIN as aiosmtpd reads them, and XOAUTH2 (RFC 4954, RFC 4616, Google's and Microsoft's XOAUTH2).

Owns: the exchange of challenges and answers. Never does: passwords, tokens, faults; ``check`` is asked for those.
Called by: verbs, which inherits it.

Rule 1: credentials go from the line to ``check`` and nowhere else: no reply, no ledger entry, no log holds them.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any, Final

from aiosmtpd.smtp import AuthResult, LoginPassword

from fakemail.smtp_server.conversation import Conversation
from fakemail.smtp_server.reader import BadLine
from fakemail.smtp_server.stream import until
from fakemail.smtp_server.syntax import RefusedError

#: In the order in which they are offered.
MECHANISMS: Final = ("PLAIN", "LOGIN", "XOAUTH2")
#: What Gmail says, as a challenge, to a token that it doesn't take; the client then sends an empty line.
_TOKEN_REFUSED: Final = b'{"status":"401","schemes":"bearer","scope":"https://mail.google.com/"}'
_XOAUTH2: Final = re.compile(rb"user=([^\x01]+)\x01auth=bearer ([^\x01]+)\x01\x01", re.IGNORECASE)


class Login(Conversation):
    """The part of a connection that finds out who the client is."""

    # What other servers ask, and what a client that looks at the question expects.
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    async def check(self, mechanism: str, user: str, secret: str) -> bool:
        """Whether it is the user's password or, for XOAUTH2, token; may raise RefusedError instead."""
        raise NotImplementedError

    async def exchange(self, arg: str) -> str | None:
        """Run one exchange (RFC 4954 section 4): who the client is, or None once it has been told why not."""
        mechanism, *initial = arg.split()
        if mechanism.upper() not in MECHANISMS:
            raise RefusedError("504 5.5.4 Unrecognized authentication mechanism")
        if len(initial) > 1:
            raise RefusedError("501 5.5.4 Syntax: AUTH mechanism [initial-response]")
        # "=" is an initial response of no octets.
        arguments = [mechanism.upper(), *("" if word == "=" else word for word in initial)]
        read = getattr(self, f"auth_{arguments[0]}")
        result: AuthResult = await read(self, arguments)
        if not isinstance(result.auth_data, LoginPassword):
            return None
        login, secret = (part.decode("utf-8", errors="surrogateescape") for part in result.auth_data)
        user = str(login).lower()
        if await self.check(arguments[0], user, secret):
            return user
        if arguments[0] == "XOAUTH2":
            await self._challenge(_TOKEN_REFUSED)
        raise RefusedError("535 5.7.8 Authentication credentials invalid")

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        """Where aiosmtpd's mechanisms have read the credentials: a fault may make the check wait, so it comes later."""
        del mechanism
        return AuthResult(success=False, auth_data=auth_data)

    async def auth_XOAUTH2(self, _: Login, args: list[str]) -> AuthResult:  # noqa: N802  # aiosmtpd's way of names
        """``user=ann@example.com^Aauth=Bearer token^A^A``, as initial response or after an empty challenge."""
        given = await self.challenge_auth("") if len(args) == 1 else _decoded(args[1].encode("utf-8", "replace"))
        match = _XOAUTH2.fullmatch(given)
        if match is None:
            raise RefusedError("501 5.5.2 Can't read the XOAUTH2 response")
        return self._authenticate("XOAUTH2", LoginPassword(match[1], match[2]))

    async def challenge_auth(
        self,
        challenge: str | bytes,
        encode_to_b64: bool = True,  # noqa: FBT001, FBT002  # aiosmtpd's signature
        log_client_response: bool = False,  # noqa: FBT001, FBT002
    ) -> bytes:
        """Ask, and give back what the client answers (RFC 4954 section 4)."""
        del encode_to_b64, log_client_response
        return _decoded(await self._challenge(challenge.encode() if isinstance(challenge, str) else challenge))

    async def _challenge(self, challenge: bytes) -> bytes:
        self.put(b"334 " + base64.b64encode(challenge) + b"\r\n")
        line = await until(self.reader.line)
        if isinstance(line, BadLine):
            raise RefusedError(f"500 5.5.6 {line.problem}")
        answer = bytes(line).strip()
        if answer == b"*":
            raise RefusedError("501 5.7.0 Authentication cancelled")
        return answer


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as err:
        raise RefusedError("501 5.5.2 Can't decode base64") from err
