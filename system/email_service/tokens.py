"""Who asks: bearer tokens (RFC 6750), signed with the service's own secret.

A token that was verified is remembered for a minute, by its hash: the signature costs as much as all other checks
together, and a front end sends the same token with each request. Expiry is looked at each time.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import jwt

from email_service.scopes import Scope

JWT_ALGORITHM: Final = "HS256"
#: How long a verified token is remembered, and how many are.
_REMEMBERED_S: Final = 60.0
_REMEMBERED_MAX: Final = 1024


class TokenError(Exception):
    """The token is not good; its arguments are title and detail of the problem."""


def issue_token(secret: str, scope: Scope, *, ttl_s: int, now_s: int | None = None) -> str:
    """A bearer token for one user of one tenant (RFC 7519)."""
    now = int(time.time()) if now_s is None else now_s
    claims = {"tenant": scope.tenant_id, "sub": scope.user_id, "iat": now, "exp": now + ttl_s}
    return jwt.encode(claims, secret, algorithm=JWT_ALGORITHM)


class Tokens:
    """Verifies tokens for one process; safe for its threads."""

    def __init__(self, secret: str, *, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._clock = clock
        self._lock = threading.Lock()
        #: Hash of the token -> scope, and until when that may be believed.
        self._known: OrderedDict[bytes, tuple[Scope, float]] = OrderedDict()

    def scope(self, header: str) -> Scope:
        """Whose token an Authorization header holds.

        Raises:
            TokenError: there is none, it has expired, or it was not signed here.
        """
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenError("Token missing", "send Authorization: Bearer TOKEN")
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None and self._clock() < known[1]:
            return known[0]
        scope, expires_s = self._verified(token)
        self._remember(digest, scope, min(expires_s, self._clock() + _REMEMBERED_S))
        return scope

    def _verified(self, token: str) -> tuple[Scope, float]:
        try:
            claims = jwt.decode(
                token, self._secret, algorithms=[JWT_ALGORITHM], options={"require": ["exp", "sub", "tenant"]}
            )
        except jwt.ExpiredSignatureError:
            raise TokenError("Token expired", "ask for a new token") from None
        except jwt.InvalidTokenError:
            raise TokenError("Token not valid", "it was not signed here, or lacks tenant, sub or exp") from None
        return Scope(tenant_id=str(claims["tenant"]), user_id=str(claims["sub"])), float(claims["exp"])

    def _remember(self, digest: bytes, scope: Scope, until_s: float) -> None:
        with self._lock:
            self._known[digest] = (scope, until_s)
            self._known.move_to_end(digest)
            while len(self._known) > _REMEMBERED_MAX:
                self._known.popitem(last=False)
