"""A log file that several processes write to, bounded in size: ``name``, ``name.1``, ``name.2``.

Rule 1: a line is one ``write`` to a file opened for appending, so that lines of different processes never mix.
Rule 2: whoever finds the file full turns it over, under a lock; the others see by its inode that it is another one now.
A line that was being written meanwhile goes to the file that has just been turned over, and is not lost. The lock is
taken on a descriptor of its own each time, because a child that was forked shares its parent's.
Called by logs.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

from email_service.errors import ConfigError

BYTES_MAX: Final = 10_000_000
FILES_MAX: Final = 3


class LogFile:
    """One of the processes' hold on the file.

    Raises:
        ConfigError: it can't be written.
    """

    def __init__(self, path: Path, *, bytes_max: int = BYTES_MAX, files_max: int = FILES_MAX) -> None:
        self._path, self._bytes_max, self._files_max = path, bytes_max, files_max
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = self._open()
        except OSError as err:
            raise ConfigError(f"MAIL_LOG_DIR: {path} can't be written ({err.strerror}); name another folder") from err

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def write(self, line: bytes) -> None:
        """Append a line.

        Raises:
            OSError: the disk is full, for example.
        """
        if self._is_turned():
            self._reopen()
        if os.fstat(self._fd).st_size + len(line) > self._bytes_max:
            self._turn(len(line))
        os.write(self._fd, line)

    def _is_turned(self) -> bool:
        """Whether the name means another file by now, or none."""
        try:
            named = os.stat(self._path)  # noqa: PTH116  # for each line: Path.stat costs twice as much
        except FileNotFoundError:
            return True
        ours = os.fstat(self._fd)
        return (named.st_ino, named.st_dev) != (ours.st_ino, ours.st_dev)

    def _reopen(self) -> None:
        fresh = self._open()
        old, self._fd = self._fd, fresh
        os.close(old)

    def _turn(self, bytes_next: int) -> None:
        lock = os.open(self._path.with_name(f".{self._path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Another process may have done it while we waited.
            if self._is_turned():
                self._reopen()
            size = os.fstat(self._fd).st_size
            if size and size + bytes_next > self._bytes_max:
                self._shift()
                self._reopen()
        finally:
            os.close(lock)

    def _shift(self) -> None:
        names = [self._path, *(self._path.with_name(f"{self._path.name}.{k}") for k in range(1, self._files_max))]
        if len(names) == 1:
            self._path.unlink()
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)

    def close(self) -> None:
        """Close this process's hold; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
