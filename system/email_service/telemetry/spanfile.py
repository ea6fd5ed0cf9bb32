"""Finished spans on disk: each is written by one call as it ends, so that no line is torn and none is lost.

Rule 1: a file has one writer, which holds its lock (flock) while it is open; past ``ROTATE_BYTES`` it is closed, and
the next span begins another.
Rule 2: when a file is begun, the oldest closed ones are removed until the directory is within its limit: a service that
runs for weeks must not fill its disk. A file that is open is never removed.
Rule 3: a disk that is full or gone costs spans and one line in the log, never the work that they are about.

Called by ``provider``. The write is 2-3 us of a span's cost: a shared mapping would survive a SIGKILL as well and spare
half of that, for files padded with zeros and a SIGBUS on a full disk.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from email_service.telemetry import lines
from email_service.telemetry.spans import Span

_log: Final = logging.getLogger(__name__)

#: A span file is closed and the next one begun beyond this size.
ROTATE_BYTES: Final = 64 * 1024 * 1024
#: A file has at most this part of what its directory may hold, so that a removal takes few spans.
_PARTS: Final = 8


class SpanFile:
    """Appends each finished span as one line of OTLP JSON."""

    def __init__(self, directory: Path, service: str, resource: Mapping[str, Any], *, bytes_max: int = 0) -> None:
        self._directory, self._service, self._resource = directory, service, resource
        #: Of all files of the directory together; 0 for no limit.
        self._bytes_max = bytes_max
        self._rotate_bytes = min(ROTATE_BYTES, bytes_max // _PARTS) if bytes_max else ROTATE_BYTES
        self._heads: dict[str, str] = {}
        # Threads share the file: one must not write to a descriptor that another has just closed to rotate.
        self._lock = threading.Lock()
        #: Spans that could not be written.
        self.lost = 0
        self._fd, self._size, self._closed = -1, 0, False

    def write(self, span: Span) -> None:
        """Append its line."""
        head = self._heads.get(span.scope) or self._head(span.scope)
        line = (head + lines.span_text(span) + lines.TAIL).encode("ascii")
        with self._lock:
            if self._closed:
                return
            try:
                self._append(line)
            except OSError as err:
                self.lost += 1
                if self.lost == 1:
                    _log.warning("spans can't be written (%s)", type(err).__name__)

    def close(self) -> None:
        """Let go of the file; spans that end later are dropped."""
        with self._lock:
            self._closed = True
            self._end_file()
        if self.lost:
            _log.warning("%d spans were not written", self.lost)

    def abandon(self) -> None:
        """In a child, right after the fork: the file is the parent's, and so is its lock."""
        self._closed = True
        if self._fd >= 0:
            os.close(self._fd)

    def _head(self, scope: str) -> str:
        head = self._heads[scope] = lines.head_of(self._resource, scope)
        return head

    def _append(self, line: bytes) -> None:
        if self._fd < 0:
            self._begin_file()
        written = os.write(self._fd, line)
        if written < len(line):
            # The disk took a part: what follows must begin a line.
            os.ftruncate(self._fd, self._size)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        if self._size > self._rotate_bytes:
            self._end_file()

    def _begin_file(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        if self._bytes_max:
            make_room(self._directory, self._bytes_max - self._rotate_bytes)
        name = f"{self._service}-{os.getpid()}-{time.time_ns()}.jsonl"
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd, self._size = os.open(self._directory / name, flags, 0o600), 0
        _locked(self._fd)

    def _end_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def make_room(directory: Path, bytes_max: int) -> None:
    """Remove the oldest span files that nobody writes to until the rest is within the limit, or all are open."""
    files = sorted((_facts(path) for path in directory.glob("mail-*.jsonl")), key=lambda facts: facts[0])
    total = sum(size for _, size, _ in files)
    for _, size, path in files:
        if total <= bytes_max:
            return
        if _removed(path):
            total -= size


def _facts(path: Path) -> tuple[int, int, Path]:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return 0, 0, path
    return facts.st_mtime_ns, facts.st_size, path


def _removed(path: Path) -> bool:
    """Whether the file is gone now, by us or by another process that makes room."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        if closed := _locked(fd):
            path.unlink(missing_ok=True)
        return closed
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    """Whether the lock is ours; a file system without locks keeps its files."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
