"""What the kernel charges a process's control group, and what it allows: the figure by which a container is killed.

Both versions of control groups; page cache is in it, so that it says little of what processes need, and everything of
how near the limit is. Called by samplers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

#: Version 1 writes "no limit" as the largest multiple of a page.
_UNLIMITED: Final = 2**60
#: Of each version, where its tree stands, and the files with what is used and what is allowed.
_V1: Final = ("memory", "memory.usage_in_bytes", "memory.limit_in_bytes")
_V2: Final = ("", "memory.current", "memory.max")


def cgroup_of(pid: int, *, proc: Path = Path("/proc"), root: Path = Path("/sys/fs/cgroup")) -> dict[str, int | None]:
    """``cgroup_bytes`` and ``cgroup_limit_bytes`` (None without a limit); empty where there is no such figure."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return {}
    for version, path in _groups(lines):
        tree, used_name, limit_name = version
        # Inside a container the path may be that of the host: then the tree's root is the container's own group.
        for folder in (root / tree / path.lstrip("/"), root / tree):
            used = _number(folder / used_name)
            if used is not None:
                return {"cgroup_bytes": used, "cgroup_limit_bytes": _limit(folder / limit_name)}
    return {}


def _groups(lines: list[str]) -> list[tuple[tuple[str, str, str], str]]:
    """The versions and paths of the lines that may lead to memory (cgroups(7): ID:CONTROLLERS:PATH)."""
    found: list[tuple[tuple[str, str, str], str]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            found.insert(0, (_V1, path))
        elif not controllers:
            found.append((_V2, path))
    return found


def _limit(file: Path) -> int | None:
    limit = _number(file)
    return None if limit is None or limit >= _UNLIMITED else limit


def _number(file: Path) -> int | None:
    """Of a file with one number; None for the word ``max``, or without the file."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None
