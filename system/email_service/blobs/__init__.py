"""Attachments, kept by what they hold: one blob per tenant and SHA-256, in a directory or in an S3 bucket.

Rule 1: a key is ``<tenant>/<two digits>/<sha256>``; any other text never becomes a path (``keys``).
Rule 2: a blob is complete and safe before anyone hears of its key.
Rule 3: what is read back is checked against its name.
Rule 4: a blob that was put (again) after ``older_than`` survives ``discard``, whatever their order: a row that is
written after its blob never lacks it, as long as it is committed within the grace that the caller of ``discard`` gives.

Callers: api stores uploads, service stores what it synchronised, reads what it sends and discards what no row names.
The stores' own modules are ``directory`` and ``objects``; the second is imported only where a bucket is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from email_service.blobs.directory import DirectoryBlobs
from email_service.blobs.keys import BlobRef, StoredBlob
from email_service.errors import ConfigError

__all__ = ["BlobRef", "Blobs", "DirectoryBlobs", "StoredBlob", "open_store"]


class Blobs(Protocol):
    """A store that all processes share. Every method raises BlobError, whose ``transient`` says if a retry may help."""

    def put(self, tenant: str, data: bytes | BinaryIO) -> BlobRef:
        """Store the bytes, or what is left of the stream; over an older copy, so that a damaged one is mended."""

    def put_many(self, tenant: str, contents: Sequence[bytes]) -> list[BlobRef]:
        """Store all, or raise; a blob of the same key and size is not written again, only made young."""

    def get(self, key: str, tenant: str) -> bytes:
        """The bytes that were stored for this tenant, checked against the key."""

    def exists(self, key: str, tenant: str) -> bool:
        """Whether there is such a blob."""

    def delete(self, key: str, tenant: str) -> None:
        """Remove the blob, if it is there."""

    def tenants(self) -> list[str]:
        """Who has blobs, in order."""

    def list(self, tenant: str, *, older_than: datetime, first: str = "") -> Iterator[StoredBlob]:
        """Blobs that nobody has put since; shards from ``first`` (two digits) on, then those before it."""

    def discard(self, tenant: str, keys: Sequence[str], *, older_than: datetime) -> int:
        """Remove those that nobody has put since, also while others put; answers how many."""

    def sweep(self, tenant: str, *, older_than: datetime) -> int:
        """Remove what puts that were cut off left behind; answers how many."""


def open_store(url: str) -> Blobs:
    """The store of a URL: ``file:///directory``, or ``s3://bucket/prefix`` with the usual ``AWS_*`` variables.

    Raises:
        ConfigError: it is neither, or the variables contradict themselves.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        return DirectoryBlobs(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        from email_service.blobs.objects import open_bucket  # noqa: PLC0415  # 20 MB that a directory never needs

        return open_bucket(parts.netloc, unquote(parts.path).strip("/"))
    raise ConfigError("MAIL_BLOB_URL must look like file:///directory or s3://bucket/prefix")
