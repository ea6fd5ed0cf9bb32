"""Blobs in a directory that all processes share (also over NFS): one file each.

Rule 1: a name appears when its content is on the disk: temporary file, sync, rename, sync of the directory. A batch
takes one sync for all its contents and one for all its names (Linux: syncfs); elsewhere each file takes its own.
Rule 2: who puts holds the tenant's lock together with others while it looks and while it renames, who discards holds it
alone: so a file that is found can't vanish before it is young again.
"""

# A Path for each of a batch's hundreds of names costs more than what is done with it:
# ruff: noqa: PTH104, PTH108, PTH116, PTH120

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import io
import os
import stat
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

from email_service.blobs.keys import (
    SHARD,
    TENANT,
    BlobRef,
    StoredBlob,
    check_content,
    check_tenant,
    digest_in,
    is_key,
    key_of,
    ref_of,
)
from email_service.errors import BlobError

_CHUNK_BYTES: Final = 256 * 1024
#: From so many files on, one sync of the file system costs less than one for each: 23 against 44 ms for 100 of 12 kB.
_TOGETHER_MIN: Final = 4
#: A name this young may not have reached the disk yet: whoever relies on it syncs it too.
_UNSAFE_S: Final = 60.0
#: Files that are removed under one lock.
_DISCARD_BATCH: Final = 100
_INCOMING: Final = ".incoming-"
_LOCK: Final = ".lock"
# glibc and musl have it, macOS has not; Python offers no way of its own.
_syncfs: Final[Callable[[int], int] | None] = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)


class DirectoryBlobs:
    """A store in a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, tenant: str, data: bytes | BinaryIO) -> BlobRef:
        """Store the bytes, or what is left of the stream; the same content twice is one file.

        Raises:
            BlobError: the tenant's name can't be part of a path, or the disk refused.
        """
        check_tenant(tenant)
        source = io.BytesIO(data) if isinstance(data, bytes) else data
        with _disk_errors():
            base = self._base(tenant)
            with _removing([f"{base}/{_INCOMING}{uuid.uuid4().hex}"]) as (temporary,):
                size_bytes, sha256 = _copy(temporary, source)
                # Also over an older copy: should that one be damaged, this mends it.
                self._name(base, [(temporary, key_of(tenant, sha256))], together=False)
        return BlobRef(key=key_of(tenant, sha256), size_bytes=size_bytes, sha256=sha256)

    def put_many(self, tenant: str, contents: Sequence[bytes]) -> list[BlobRef]:
        """Store all of them with two syncs; one that is there already is made young instead of written.

        Raises:
            BlobError: as ``put``; some of them may be there then, which is harmless.
        """
        check_tenant(tenant)
        refs = [ref_of(tenant, data) for data in contents]
        wanted = {ref.key: data for ref, data in zip(refs, contents, strict=True)}
        if wanted:
            with _disk_errors():
                self._put_missing(self._base(tenant), wanted)
        return refs

    def get(self, key: str, tenant: str) -> bytes:
        """The bytes that ``put`` stored for this tenant.

        Raises:
            BlobError: the key is another tenant's or not a key, the file is missing, or its content has changed.
        """
        sha256 = digest_in(key, tenant)
        with _disk_errors():
            data = _read(f"{self._root}/{key}")
        check_content(key, sha256, data)
        return data

    def exists(self, key: str, tenant: str) -> bool:
        """Whether ``get`` would find a file.

        Raises:
            BlobError: the key is another tenant's or not a key.
        """
        digest_in(key, tenant)
        return (self._root / key).is_file()

    def delete(self, key: str, tenant: str) -> None:
        """Remove the file, if it is there.

        Raises:
            BlobError: the key is another tenant's or not a key, or the disk refused.
        """
        digest_in(key, tenant)
        with _disk_errors():
            (self._root / key).unlink(missing_ok=True)

    def tenants(self) -> list[str]:
        """Who has a directory here."""
        with _disk_errors():
            return sorted(e.name for e in _entries(self._root) if TENANT.fullmatch(e.name) and e.is_dir())

    def list(self, tenant: str, *, older_than: datetime, first: str = "") -> Iterator[StoredBlob]:
        """Files that nobody has put since; shards from ``first`` on, then those before it."""
        check_tenant(tenant)
        base = self._root / tenant
        with _disk_errors():
            shards = sorted(e.name for e in _entries(base) if SHARD.fullmatch(e.name))
            for shard in sorted(shards, key=lambda name: (name < first, name)):
                yield from self._in_shard(tenant, shard, older_than)

    def discard(self, tenant: str, keys: Sequence[str], *, older_than: datetime) -> int:
        """Remove those that nobody has put since, also while others put; answers how many.

        Raises:
            BlobError: a key is another tenant's or not a key, or the disk refused.
        """
        for key in keys:
            digest_in(key, tenant)
        count = 0
        with _disk_errors():
            for start in range(0, len(keys), _DISCARD_BATCH):
                with _locked(self._base(tenant), fcntl.LOCK_EX):
                    some = keys[start : start + _DISCARD_BATCH]
                    count += sum(_remove_old(f"{self._root}/{key}", older_than) for key in some)
        return count

    def sweep(self, tenant: str, *, older_than: datetime) -> int:
        """Remove temporary files of puts that were killed; answers how many."""
        check_tenant(tenant)
        with _disk_errors():
            names = [e.path for e in _entries(self._root / tenant) if e.name.startswith(_INCOMING)]
            return sum(_remove_old(name, older_than) for name in names)

    def _base(self, tenant: str) -> str:
        base = self._root / tenant
        if not base.is_dir():
            base.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync_directory(str(self._root))
        return str(base)

    def _in_shard(self, tenant: str, shard: str, older_than: datetime) -> Iterator[StoredBlob]:
        for entry in _entries(self._root / tenant / shard):
            key = f"{tenant}/{shard}/{entry.name}"
            with suppress(FileNotFoundError):
                found = entry.stat(follow_symlinks=False)
                if is_key(key) and stat.S_ISREG(found.st_mode) and found.st_mtime < older_than.timestamp():
                    moment = datetime.fromtimestamp(found.st_mtime, UTC)
                    yield StoredBlob(key=key, size_bytes=found.st_size, modified_at=moment)

    def _put_missing(self, base: str, wanted: dict[str, bytes]) -> None:
        with _locked(base, fcntl.LOCK_SH):
            ages = {key: _made_young(f"{self._root}/{key}", len(data)) for key, data in wanted.items()}
        missing = [key for key, age_s in ages.items() if age_s is None]
        together = _syncfs is not None and len(missing) >= _TOGETHER_MIN
        batch = f"{base}/{_INCOMING}{uuid.uuid4().hex}"
        with _removing([f"{batch}-{i}" for i in range(len(missing))]) as temporaries:
            for temporary, key in zip(temporaries, missing, strict=True):
                _write(temporary, wanted[key], sync=not together)
            if together:
                _sync_file_system(base)
            self._name(base, list(zip(temporaries, missing, strict=True)), together=together)
        if not together:
            unsafe = {key for key, age_s in ages.items() if age_s is not None and age_s < _UNSAFE_S}
            _sync_directories({os.path.dirname(f"{self._root}/{key}") for key in unsafe})

    def _name(self, base: str, files: Sequence[tuple[str, str]], *, together: bool) -> None:
        """Give complete files their keys, durably."""
        if not files:
            return
        with _locked(base, fcntl.LOCK_SH):
            for temporary, key in files:
                _rename(temporary, f"{self._root}/{key}")
        if together:
            _sync_file_system(base)
        else:
            _sync_directories({os.path.dirname(f"{self._root}/{key}") for _, key in files} | {base})


def _copy(path: str, source: BinaryIO) -> tuple[int, str]:
    """Copy the stream to a new file, flushed to the disk; its size and digest."""
    digest, size_bytes = hashlib.sha256(), 0
    with os.fdopen(_create(path), "wb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return size_bytes, digest.hexdigest()


def _write(path: str, data: bytes, *, sync: bool) -> None:
    # Without a file object: for 12 kB it would cost as much as the write.
    descriptor = _create(path)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _read(path: str) -> bytes:
    # A symbolic link is never ours.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _rename(temporary: str, target: str) -> None:
    try:
        os.rename(temporary, target)
    except FileNotFoundError:
        Path(target).parent.mkdir(mode=0o700, exist_ok=True)
        os.rename(temporary, target)


def _made_young(path: str, size_bytes: int) -> float | None:
    """Seconds since a file of this size was last put, which it is again now; None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode) or found.st_size != size_bytes:
            return None
        os.utime(path)
    except FileNotFoundError:
        return None
    return time.time() - found.st_mtime


def _remove_old(path: str, older_than: datetime) -> bool:
    try:
        if os.stat(path, follow_symlinks=False).st_mtime >= older_than.timestamp():
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _entries(path: Path) -> Iterable[os.DirEntry[str]]:
    """What is in a directory; nothing if there is none."""
    with suppress(FileNotFoundError), os.scandir(path) as found:
        yield from found


@contextmanager
def _removing(temporaries: Sequence[str]) -> Iterator[Sequence[str]]:
    """Paths that do not outlive an error."""
    try:
        yield temporaries
    except BaseException:
        for path in temporaries:
            with suppress(OSError):
                os.unlink(path)
        raise


@contextmanager
def _locked(base: str, how: int) -> Iterator[None]:
    """The tenant's lock; on a file, because NFS locks no directory."""
    descriptor = os.open(f"{base}/{_LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        # Closing unlocks.
        os.close(descriptor)


def _sync_file_system(path: str) -> None:
    assert _syncfs is not None  # noqa: S101  # the callers have looked
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _sync_directories(paths: Collection[str]) -> None:
    """Make renames durable."""
    if _syncfs is not None and len(paths) >= _TOGETHER_MIN:
        _sync_file_system(next(iter(paths)))
        return
    for path in paths:
        _sync_directory(path)


def _sync_directory(path: str) -> None:
    """Some file systems can't open a directory for that, and need not."""
    with suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
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
