"""Credentials at rest: sealed with a key of their own, opened for one use, never shown.

Rule 1: a plaintext leaves this module only inside a ``Secret``, and a ``Secret`` only by ``reveal``.
Rule 2: a seal is bound to its tenant and its credential: a row copied to another owner can't be opened.
Rule 3: no error and no repr holds a plaintext or a key.
Callers: service seals, unseals and reseals; imap and smtp reveal at the moment they log in.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from email_service.errors import ConfigError, CredentialError, InvalidRequestError

#: AES-256, a salt as long as the key it spreads, and the nonce of GCM (NIST SP 800-38D section 5.2.1.1).
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 32
_NONCE_BYTES: Final = 12
#: Separates these keys from any other that is ever derived from the same master key (RFC 5869 section 3.2).
_PURPOSE: Final = b"mail credential 1"


class Secret:
    """A text that prints as stars; two are equal if their texts are."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one call that needs it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self), _bytes(other))

    # A hash of a password is worth guessing against.
    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        # Tasks travel through the broker pickled or as JSON: a secret must not.
        raise TypeError("a Secret does not leave its process")


@dataclass(frozen=True, kw_only=True)
class SealedCredential:
    """What the database keeps of a credential."""

    #: Names the master key.
    key_id: str
    #: Makes this credential's key its own.
    salt: bytes
    nonce: bytes
    #: With GCM's tag at its end.
    ciphertext: bytes = field(repr=False)


class Vault:
    """Seals under the current master key; unseals under any that it knows, so that keys can be rotated."""

    def __init__(self, keys: Mapping[str, bytes], current: str) -> None:
        if current not in keys:
            raise ConfigError(f"no credential key is named {current!r}")
        if short := [key_id for key_id, key in keys.items() if len(key) != _KEY_BYTES]:
            raise ConfigError(f"credential key {short[0]!r} must be {_KEY_BYTES} bytes")
        self._keys = dict(keys)
        self._current = current

    def __repr__(self) -> str:
        return f"Vault(keys={sorted(self._keys)}, current={self._current!r})"

    def seal(self, plaintext: str | Secret, tenant_id: str, credential_id: str) -> SealedCredential:
        """Encrypt a text so that only this tenant's credential of this id opens it.

        Raises:
            InvalidRequestError: the text is not Unicode (JSON can carry half a surrogate pair).
        """
        secret = plaintext if isinstance(plaintext, Secret) else Secret(plaintext)
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        cipher = AESGCM(_derive(self._keys[self._current], salt))
        context = _context(self._current, tenant_id, credential_id)
        try:
            clear = secret.reveal().encode("utf-8")
        except UnicodeEncodeError:
            # Without its cause, which holds the text.
            raise InvalidRequestError("the password is not valid Unicode") from None
        ciphertext = cipher.encrypt(nonce, clear, context)
        return SealedCredential(key_id=self._current, salt=salt, nonce=nonce, ciphertext=ciphertext)

    @property
    def current(self) -> str:
        """The id of the key that new seals are made with."""
        return self._current

    def reseal(self, sealed: SealedCredential, tenant_id: str, credential_id: str) -> SealedCredential:
        """The same credential under the current key, with a salt and a nonce of its own.

        Raises:
            CredentialError: as ``unseal``.
        """
        return self.seal(self.unseal(sealed, tenant_id, credential_id), tenant_id, credential_id)

    def unseal(self, sealed: SealedCredential, tenant_id: str, credential_id: str) -> Secret:
        """Decrypt what ``seal`` made for the same tenant and credential.

        Raises:
            CredentialError: no key has that id, or the seal is not for this owner, or it was altered.
        """
        master = self._keys.get(sealed.key_id)
        if master is None:
            raise CredentialError(f"credential {credential_id} is sealed with key {sealed.key_id!r}, which is not here")
        context = _context(sealed.key_id, tenant_id, credential_id)
        try:
            cipher = AESGCM(_derive(master, sealed.salt))
            return Secret(cipher.decrypt(sealed.nonce, sealed.ciphertext, context).decode("utf-8"))
        except (InvalidTag, ValueError):
            # Without its cause: a UnicodeDecodeError holds the bytes it failed on.
            raise CredentialError(f"credential {credential_id} was altered, or belongs to another owner") from None


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode("utf-8", "surrogatepass")


def _derive(master: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=SHA512(), length=_KEY_BYTES, salt=salt, info=_PURPOSE).derive(master)


def _context(key_id: str, tenant_id: str, credential_id: str) -> bytes:
    """The associated data; lengths in front keep ("ab", "c") and ("a", "bc") apart."""
    parts = [part.encode("utf-8") for part in (key_id, tenant_id, credential_id)]
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
