"""Names of blobs, the same in every store: pure. Callers: the stores."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from email_service.errors import BlobError

TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
SHARD: Final = re.compile(r"[0-9a-f]{2}")
_KEY: Final = re.compile(r"(?P<tenant>[A-Za-z0-9][A-Za-z0-9_-]{0,62})/(?P<shard>[0-9a-f]{2})/(?P<sha256>[0-9a-f]{64})")


@dataclass(frozen=True, kw_only=True)
class BlobRef:
    """What a row keeps of a stored attachment."""

    #: Where it is, for ``get``.
    key: str
    size_bytes: int
    #: 64 hexadecimal digits.
    sha256: str


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """What a store knows of a blob without reading it."""

    key: str
    size_bytes: int
    #: When it was last put.
    modified_at: datetime


def check_tenant(tenant: str) -> None:
    """Refuse a name that could lead elsewhere.

    Raises:
        BlobError: it can't be part of a path.
    """
    if not TENANT.fullmatch(tenant):
        raise BlobError(f"tenant {tenant!r} can't name a directory")


def ref_of(tenant: str, data: bytes) -> BlobRef:
    """Where these bytes belong."""
    sha256 = hashlib.sha256(data).hexdigest()
    return BlobRef(key=key_of(tenant, sha256), size_bytes=len(data), sha256=sha256)


def key_of(tenant: str, sha256: str) -> str:
    """The key of a digest."""
    return f"{tenant}/{sha256[:2]}/{sha256}"


def digest_in(key: str, tenant: str) -> str:
    """The SHA-256 that a key of this tenant names.

    Raises:
        BlobError: the key is another tenant's or not a key.
    """
    found = _KEY.fullmatch(key)
    if found is None or found["shard"] != found["sha256"][:2]:
        raise BlobError("the key is malformed")
    if found["tenant"] != tenant:
        raise BlobError("the key belongs to another tenant")
    return found["sha256"]


def is_key(key: str) -> bool:
    """Whether ``digest_in`` would take it from its own tenant."""
    found = _KEY.fullmatch(key)
    return found is not None and found["shard"] == found["sha256"][:2]


def check_content(key: str, sha256: str, data: bytes) -> None:
    """Hold what was read against its name.

    Raises:
        BlobError: it has changed.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BlobError(f"{key} does not hold what its name says")
