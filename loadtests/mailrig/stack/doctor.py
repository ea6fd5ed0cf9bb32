"""What this machine has and lacks, each with what to do about it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mailrig.stack.parts import postgres_bin, valkey_binary
from mailrig.stack.processes import StackError

Finding = tuple[str, bool, str]
_DISK_BYTES_MIN: Final = 500_000_000


def doctor() -> list[Finding]:
    """Name, whether it is right, and what was found or what to do."""
    return [
        _python(),
        _part("broker", "REDIS_URL", lambda: str(Path(valkey_binary()).name)),
        _part("database", "DATABASE_URL", lambda: f"PostgreSQL in {postgres_bin().parent.name}"),
        _package("locust", "mailrig[rig]"),
        _package("celery", "mailrig[system]"),
        _package("aiosmtpd", "mailrig"),
        _memory(),
        _disk(),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return "python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)"


def _part(name: str, variable: str, find: Callable[[], str]) -> Finding:
    if os.environ.get(variable):
        return name, True, f"{variable} is set and is used"
    try:
        return name, True, find()
    except StackError as err:
        return name, False, str(err)


def _package(name: str, extra: str) -> Finding:
    found = find_spec(name) is not None
    return name, found, "installed" if found else f"pip install '{extra}'"


def _memory() -> Finding:
    readable = os.access("/proc/self/smaps_rollup", os.R_OK)
    return "memory", True, "PSS from /proc" if readable else "no PSS on this system: the memory gates will be unknown"


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    return "disk", free > _DISK_BYTES_MIN, f"{free // 1_000_000} MB free here (500 MB are needed)"
