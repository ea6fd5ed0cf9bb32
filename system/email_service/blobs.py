"""Attachments, kept by what they hold: one file per tenant and SHA-256, in a directory.

Rule 1: a key is ``<tenant>/<two digits>/<sha256>``; any other text never becomes a path.
Rule 2: a key is complete and on disk before anyone hears of it: temporary file, fsync, rename, fsync of the directory.
Rule 3: what is read back is checked against its name.
Callers: api stores uploads, service stores what it synchronised and reads what it sends.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from email_service.errors import BlobError

_TENANT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_KEY: Final = re.compile(r"(?P<tenant>[A-Za-z0-9][A-Za-z0-9_-]{0,62})/(?P<shard>[0-9a-f]{2})/(?P<sha256>[0-9a-f]{64})")
_CHUNK_BYTES: Final = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class BlobRef:
    """What a row keeps of a stored attachment."""

    #: Where it is, for ``get``.
    key: str
    size_bytes: int
    #: 64 hexadecimal digits.
    sha256: str


class DirectoryBlobs:
    """A store in a directory that all processes share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, tenant: str, data: bytes | BinaryIO) -> BlobRef:
        """Store the bytes, or what is left of the stream; the same content twice is one file.

        Raises:
            BlobError: the tenant's name can't be part of a path, or the disk refused.
        """
        if not _TENANT.fullmatch(tenant):
            raise BlobError(f"tenant {tenant!r} can't name a directory")
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        with _disk_errors():
            return self._store(tenant, source)

    def get(self, key: str, tenant: str) -> bytes:
        """The bytes that ``put`` stored for this tenant.

        Raises:
            BlobError: the key is another tenant's or not a key, the file is missing, or its content has changed.
        """
        path, sha256 = self._locate(key, tenant)
        with _disk_errors():
            data = _read(path)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise BlobError(f"{key} does not hold what its name says")
        return data

    def exists(self, key: str, tenant: str) -> bool:
        """Whether ``get`` would find a file.

        Raises:
            BlobError: the key is another tenant's or not a key.
        """
        return self._locate(key, tenant)[0].is_file()

    def _locate(self, key: str, tenant: str) -> tuple[Path, str]:
        found = _KEY.fullmatch(key)
        if found is None or found["shard"] != found["sha256"][:2]:
            raise BlobError("the key is malformed")
        if found["tenant"] != tenant:
            raise BlobError("the key belongs to another tenant")
        return self._root / key, found["sha256"]

    def _store(self, tenant: str, source: BinaryIO) -> BlobRef:
        base = self._root / tenant
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = base / f".incoming-{uuid.uuid4().hex}"
        try:
            size_bytes, sha256 = _write(temporary, source)
            target = base / sha256[:2] / sha256
            target.parent.mkdir(mode=0o700, exist_ok=True)
            # Also over an older copy: should that one be damaged, this mends it.
            temporary.rename(target)
            for directory in (target.parent, base):
                _sync_directory(directory)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return BlobRef(key=f"{tenant}/{sha256[:2]}/{sha256}", size_bytes=size_bytes, sha256=sha256)


def _write(path: Path, source: BinaryIO) -> tuple[int, str]:
    """Copy the stream to a new file, flushed to the disk; its size and digest."""
    digest, size_bytes = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size_bytes, digest.hexdigest()


def _read(path: Path) -> bytes:
    # A symbolic link is never ours.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _sync_directory(path: Path) -> None:
    """Make a rename durable; some file systems can't open a directory for that, and need not."""
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """A missing file stays missing; a full or failing disk may be mended by the next try."""
    try:
        yield
    except FileNotFoundError as err:
        raise BlobError("there is no such file") from err
    except OSError as err:
        raise BlobError(os.strerror(err.errno) if err.errno else type(err).__name__, transient=True) from err
