"""What was run, on what: run.json; and the service as a mutant changes it. No host name, no path, no secret."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil

from mailrig.scenario import Mutant, RigError, Scenario, apply_patches

_PACKAGES: Final = (
    "mailrig", "celery", "kombu", "redis", "sqlalchemy", "psycopg", "flask", "gunicorn", "locust", "gevent",
)  # fmt: skip
_GIT_TIMEOUT_S: Final = 5


def facts_of(scenario: Scenario, mutant: Mutant | None, started: datetime) -> dict[str, Any]:
    """run.json at the beginning of a run; its end is not known yet."""
    here = Path(__file__).parents[1]
    commit = commit_of(here)
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "commit": commit,
        # Files that are not as the commit has them; what was run is only known by it if there are none.
        "modified": commit is not None and _git(here, "status", "--porcelain", "--untracked-files=no") is not None,
        "started_ns": int(started.timestamp() * 1e6) * 1000,
        "ended_ns": None,
        "mutant": mutant.name if mutant else None,
        "trace_sample": scenario.system.trace_sample,
        "host": {
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "versions": {name: version for name in _PACKAGES if (version := _version(name)) is not None},
    }


def commit_of(folder: Path) -> str | None:
    """The commit that a folder's files are from; None when they are in no repository of their own.

    An installed package may lie, untracked, in the working tree of somebody else: that commit says nothing about it.
    """
    if not _git(folder, "ls-files", "--", "__init__.py"):
        return None
    return _git(folder, "rev-parse", "HEAD")


def _git(folder: Path, *arguments: str) -> str | None:
    argv = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def patched_service(mutant: Mutant | None, target: Path, *, service: Path | None = None) -> Path | None:
    """A folder with the service as it is to run: ``service``, or a patched copy for a mutant that has patches.

    None stands for the one that is installed.

    Raises:
        MutantError: a patch does not apply any more.
    """
    if mutant is None or not mutant.patches:
        return service
    apply_patches(mutant, service / "email_service" if service else service_package(), target / "email_service")
    return target


def service_package() -> Path:
    """The installed service's folder.

    Raises:
        RigError: it is not installed.
    """
    spec = find_spec("email_service")
    if spec is None or not spec.submodule_search_locations:
        raise RigError("email_service is not installed: pip install 'mailrig[system]'")
    return Path(next(iter(spec.submodule_search_locations)))
