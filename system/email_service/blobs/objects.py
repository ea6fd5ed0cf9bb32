"""Blobs in an S3 bucket, of any vendor: one object each, under the same keys as in a directory.

Rule 1: an object appears whole: one request puts it, and S3 shows it to everyone from its answer on.
Rule 2: S3 can't delete what nobody has put since. So who discards holds the tenant's lock object while it looks and
deletes, and who makes an old object young looks for that lock after it has put: if it is there, the object may be gone,
and is put again. Whichever comes first, one of the two sees the other.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from os import environ
from typing import Any, BinaryIO, Final, TypeVar

from obstore import exceptions
from obstore.store import S3Store

from email_service.blobs.keys import TENANT, BlobRef, StoredBlob, check_content, check_tenant, digest_in, is_key, ref_of
from email_service.errors import BlobError, ConfigError

_T = TypeVar("_T")

#: The store retries by itself, for this long at most: the task has its own retries.
_RETRY: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_CLIENT: Final = {"timeout": timedelta(seconds=30), "connect_timeout": timedelta(seconds=5)}
#: Requests at once.
_TOGETHER: Final = 16
#: An object that was put within this time need not be put again; far below every grace of a ``discard``.
_YOUNG: Final = timedelta(hours=1)
_LOCK: Final = ".discarding"
#: Who holds the lock deletes within the first of these, or not at all; after the second nobody believes in it.
_HELD_S: Final = 30.0
_STALE: Final = timedelta(seconds=90)
_POLL_S: Final = 0.2
_DISCARD_BATCH: Final = 100
_STATUS: Final = re.compile(r"status code: (\d{3})")
#: Refusals that say: not now.
_LATER: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
_ELSEWHERE: Final = "the bucket is in another region: set AWS_REGION"
#: The variables that name the server, the more special first.
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def open_bucket(bucket: str, prefix: str) -> ObjectBlobs:
    """A store in a bucket, below a prefix; ``AWS_*`` say where it is and who asks.

    Raises:
        ConfigError: what they say can't be used.
    """
    endpoint = next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    allow_http = endpoint is not None and endpoint.startswith("http://")
    if endpoint is not None and not endpoint.startswith(("http://", "https://")):
        raise ConfigError("AWS_ENDPOINT_URL must begin with https:// or http://")
    config: Any = {} if endpoint is None else {"endpoint": endpoint}
    client: Any = {**_CLIENT, "allow_http": allow_http}
    retry: Any = _RETRY
    try:
        store = S3Store(bucket, prefix=prefix or None, config=config, client_options=client, retry_config=retry)
    except exceptions.BaseError as err:
        raise ConfigError(f"the bucket of MAIL_BLOB_URL can't be used ({type(err).__name__})") from None
    return ObjectBlobs(store)


class ObjectBlobs:
    """A store in a bucket."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    def put(self, tenant: str, data: bytes | BinaryIO) -> BlobRef:
        """Store the bytes, or what is left of the stream; over an older copy, so that a damaged one is mended.

        Raises:
            BlobError: the tenant's name can't be part of a key, or the server refused.
        """
        check_tenant(tenant)
        content = data if isinstance(data, bytes) else data.read()
        ref = ref_of(tenant, content)
        _run(self._put_safely(tenant, {ref.key: content}))
        return ref

    def put_many(self, tenant: str, contents: Sequence[bytes]) -> list[BlobRef]:
        """Store all of them, many at once; one that is there and young is not sent again.

        Raises:
            BlobError: as ``put``; some of them may be there then, which is harmless.
        """
        check_tenant(tenant)
        refs = [ref_of(tenant, data) for data in contents]
        _run(self._put_missing(tenant, {ref.key: data for ref, data in zip(refs, contents, strict=True)}))
        return refs

    def get(self, key: str, tenant: str) -> bytes:
        """The bytes that ``put`` stored for this tenant.

        Raises:
            BlobError: the key is another tenant's or not a key, there is no such object, or its content has changed.
        """
        sha256 = digest_in(key, tenant)
        with _server_errors():
            data = bytes(self._store.get(key).bytes())
        check_content(key, sha256, data)
        return data

    def exists(self, key: str, tenant: str) -> bool:
        """Whether ``get`` would find an object.

        Raises:
            BlobError: the key is another tenant's or not a key, or the server did not say.
        """
        digest_in(key, tenant)
        return _run(self._head(key)) is not None

    def delete(self, key: str, tenant: str) -> None:
        """Remove the object, if it is there.

        Raises:
            BlobError: the key is another tenant's or not a key, or the server refused.
        """
        digest_in(key, tenant)
        with _server_errors():
            self._store.delete(key)

    def tenants(self) -> list[str]:
        """Who has objects here."""
        with _server_errors():
            prefixes = self._store.list_with_delimiter()["common_prefixes"]
        return sorted(name for name in (p.rstrip("/") for p in prefixes) if TENANT.fullmatch(name))

    def list(self, tenant: str, *, older_than: datetime, first: str = "") -> Iterator[StoredBlob]:
        """Objects that nobody has put since; shards from ``first`` on, then those before it."""
        check_tenant(tenant)
        start = f"{tenant}/{first}"
        with _server_errors():
            for page in self._store.list(f"{tenant}/", offset=start, chunk_size=1000):
                yield from _old_ones(page, older_than)
            if not first:
                return
            for page in self._store.list(f"{tenant}/", chunk_size=1000):
                yield from (blob for blob in _old_ones(page, older_than) if blob.key < start)
                if page and page[-1]["path"] > start:
                    return

    def discard(self, tenant: str, keys: Sequence[str], *, older_than: datetime) -> int:
        """Remove those that nobody has put since, also while others put; answers how many.

        ``older_than`` must lie hours back: who puts trusts an object that is younger than one.

        Raises:
            BlobError: a key is another tenant's or not a key, or the server refused.
        """
        for key in keys:
            digest_in(key, tenant)
        return _run(self._discard(tenant, keys, older_than))

    def sweep(self, tenant: str, *, older_than: datetime) -> int:  # noqa: ARG002  # the interface's names
        """Nothing: a put that was cut off leaves no object."""
        return 0

    async def _put_missing(self, tenant: str, wanted: dict[str, bytes]) -> None:
        metas = await _together(self._head, wanted)
        since = datetime.now(UTC) - _YOUNG
        missing, old = {}, {}
        for (key, data), meta in zip(wanted.items(), metas, strict=True):
            if meta is None:
                missing[key] = data
            elif meta["size"] != len(data) or meta["last_modified"] < since:
                old[key] = data
        await self._put_all(missing)
        await self._put_safely(tenant, old)

    async def _put_safely(self, tenant: str, wanted: dict[str, bytes]) -> None:
        """Put over what may be there and old (rule 2)."""
        until = time.monotonic() + 2 * _STALE.total_seconds()
        while wanted:
            await self._put_all(wanted)
            if not await self._is_locked(tenant):
                return
            while await self._is_locked(tenant):
                if time.monotonic() > until:
                    raise BlobError("the store is being cleaned up", transient=True)
                await asyncio.sleep(_POLL_S)

    async def _put_all(self, wanted: dict[str, bytes]) -> None:
        async def put(key: str) -> None:
            await self._store.put_async(key, wanted[key], use_multipart=False)

        await _together(put, wanted)

    async def _head(self, key: str) -> Any:
        """What the server knows of an object; None if there is none."""
        try:
            return await self._store.head_async(key)
        except (exceptions.NotFoundError, FileNotFoundError):
            return None

    async def _is_locked(self, tenant: str) -> bool:
        lock = await self._head(f"{tenant}/{_LOCK}")
        return lock is not None and lock["last_modified"] > datetime.now(UTC) - _STALE

    async def _discard(self, tenant: str, keys: Sequence[str], older_than: datetime) -> int:
        count = 0
        for start in range(0, len(keys), _DISCARD_BATCH):
            async with self._lock(tenant) as until:
                if until is None:
                    return count
                some = keys[start : start + _DISCARD_BATCH]
                metas = await _together(self._head, some)
                old = [k for k, m in zip(some, metas, strict=True) if m is not None and m["last_modified"] < older_than]
                if old and time.monotonic() < until:
                    await self._store.delete_async(old)
                    count += len(old)
        return count

    @asynccontextmanager
    async def _lock(self, tenant: str) -> AsyncIterator[float | None]:
        """Hold the tenant's lock; gives the moment until which it may be relied on, None if another has it."""
        path, until = f"{tenant}/{_LOCK}", time.monotonic() + _HELD_S
        if await self._head(path) is not None and not await self._is_locked(tenant):
            await self._store.delete_async(path)
        try:
            await self._store.put_async(path, b"", mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            yield None
            return
        try:
            yield until
        finally:
            await self._store.delete_async(path)


def _old_ones(page: Sequence[Any], older_than: datetime) -> Iterator[StoredBlob]:
    for meta in page:
        if is_key(meta["path"]) and meta["last_modified"] < older_than:
            yield StoredBlob(key=meta["path"], size_bytes=meta["size"], modified_at=meta["last_modified"])


async def _together(work: Callable[[str], Awaitable[_T]], keys: Sequence[str] | dict[str, bytes]) -> list[_T]:
    """The answers in the order of the keys; the first error cancels what has not begun."""
    gate = asyncio.Semaphore(_TOGETHER)

    async def one(key: str) -> _T:
        async with gate:
            return await work(key)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(key)) for key in keys]
    return [task.result() for task in tasks]


def _run(work: Coroutine[Any, Any, _T]) -> _T:
    """A loop for each call: callers are threads of an API process, or worker processes without a loop of their own."""
    with _server_errors():
        try:
            return asyncio.run(work)
        except BaseExceptionGroup as group:
            raise _first(group) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


@contextmanager
def _server_errors() -> Iterator[None]:
    """Of the server's words only the kind goes on: they quote headers, and access keys with them."""
    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError):
        raise BlobError("there is no such object, or no such bucket") from None
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError, PermissionError):
        raise BlobError("the object store refused access") from None
    except (exceptions.InvalidPathError, exceptions.NotSupportedError) as err:
        raise BlobError(f"the object store can't do this ({type(err).__name__})") from None
    except exceptions.BaseError as err:
        raise _judged(str(err)) from None


def _judged(words: str) -> BlobError:
    """What the library sorts into no kind: its text alone says what the server answered."""
    status = _STATUS.search(words)
    if status is None:
        redirected = "redirect" in words.partition("\n")[0]
        return BlobError(_ELSEWHERE if redirected else "the object store did not answer", transient=not redirected)
    code = int(status[1])
    refused = HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR and code not in _LATER
    return BlobError(f"the object store answered {code}", transient=not refused)
