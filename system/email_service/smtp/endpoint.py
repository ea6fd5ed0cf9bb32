"""A server and an account on it. Pure data; made by service, read by the rest of this package."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass
from typing import Final

from email_service.errors import InvalidRequestError
from email_service.vault import Secret

ENCRYPTIONS: Final = ("none", "starttls", "tls")
AUTHS: Final = ("password", "xoauth2")
#: Of this process alone: a fingerprint is worth nothing anywhere else.
_PROCESS_KEY: Final = os.urandom(32)


@dataclass(frozen=True, kw_only=True)
class SmtpEndpoint:
    """A server and an account on it."""

    #: TLS verifies this name, whatever address is connected to.
    host: str
    port: int
    #: none, starttls or tls.
    encryption: str
    #: Empty to send without AUTH.
    username: str
    password: Secret
    #: password, or xoauth2: the secret is a bearer token.
    auth: str = "password"
    #: Connected to in turn; empty: what the name service says of the host.
    addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise InvalidRequestError for words that mean nothing here."""
        for name, value, known in (("encryption", self.encryption, ENCRYPTIONS), ("auth", self.auth, AUTHS)):
            if value not in known:
                raise InvalidRequestError(f"{name} is {value!r}; it must be one of: {', '.join(known)}")

    @property
    def name(self) -> str:
        """Host and port, for errors."""
        return f"{self.host}:{self.port}"

    def fingerprint(self) -> bytes:
        """Tells one account on one server from another, its secret included, without holding the secret."""
        secret = self.password.reveal().encode("utf-8", "surrogatepass")
        said = [self.host, str(self.port), self.encryption, self.username, self.auth]
        return hmac.digest(
            _PROCESS_KEY, b"\0".join([*(word.encode("utf-8", "replace") for word in said), secret]), "sha256"
        )
