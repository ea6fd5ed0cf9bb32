"""The two sides of a comparison: copies of the service as it was at a revision or as it stands, and settings.

Owns how a side is named, made and known again. A copy is made even of what stands in the working tree, so that edits
during a long comparison are not in it. The rig itself is the same for both. Called by course and cli.
"""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mailrig.runner.facts import service_package
from mailrig.scenario import RigError

#: The service as it stands.
HERE: Final = "."
_PACKAGE: Final = "email_service"
_GIT_TIMEOUT_S: Final = 60
_SETTING: Final = re.compile(r"(MAIL_[A-Z0-9_]+)=(.*)", re.ASCII | re.DOTALL)
#: run.json has the settings, so none of them is a secret; and where the neighbours are is the rig's own to say.
_NOT_TOLD: Final = re.compile(r"SECRET|PASSWORD|TOKEN|KEY|URL|DIR$|_STORE$|_HOSTS$|TIME_SCALE")

#: Where a task's body begins and ends, and what is put around it: as much CPU time again as the share says.
_BODY: Final = "            return self.use_case(self.app, work)\n"
_SLOW_BODY: Final = """\
            import time

            began_s = time.thread_time()
            settled = self.use_case(self.app, work)
            until_s = time.thread_time() + {share} * (time.thread_time() - began_s)
            while time.thread_time() < until_s:
                pass
            return settled
"""


class SideError(RigError):
    """A side can't be made."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two, ready to run."""

    #: What was asked for: a revision, or ``HERE``.
    revision: str
    #: A folder with the package in it.
    folder: Path
    #: Of the package's files: who has the same runs the same code.
    digest: str
    settings: Mapping[str, str] = field(default_factory=dict)
    mutant: str | None = None
    #: Percent of CPU time that is put on top of each task's body.
    plant_percent: int = 0

    @property
    def label(self) -> str:
        """What a person calls it."""
        extra = [f"{name}={value}" for name, value in self.settings.items()]
        extra += [f"mutant {self.mutant}"] if self.mutant else []
        extra += [f"{self.plant_percent} % more CPU in each task"] if self.plant_percent else []
        return " + ".join(["as it stands" if self.revision == HERE else self.revision, *extra])

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a comparison to go on."""
        return {"digest": self.digest, "settings": dict(self.settings), "mutant": self.mutant}


def parse_setting(text: str) -> tuple[str, str]:
    """``NAME=VALUE`` of the service's settings.

    Raises:
        SideError: it is none, or one that the rig sets itself, or a secret.
    """
    found = _SETTING.fullmatch(text)
    if found is None:
        raise SideError(f"setting {text.partition('=')[0]!r} is not allowed; allowed: MAIL_NAME=VALUE")
    if _NOT_TOLD.search(found[1]):
        raise SideError(f"setting {found[1]} is not allowed: it is a secret, or the rig sets it itself")
    return found[1], found[2]


def make_side(
    revision: str,
    target: Path,
    *,
    settings: Mapping[str, str] | None = None,
    mutant: str | None = None,
    plant_percent: int = 0,
) -> Side:
    """The service of a revision, copied to ``target``, which must not exist.

    Raises:
        SideError: git has no such revision, the service is not in it, or nothing can be planted in it.
    """
    if revision == HERE:
        shutil.copytree(service_package(), target / _PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        _checkout(revision, target)
    if plant_percent:
        _plant(target / _PACKAGE, plant_percent)
    return Side(
        revision=revision,
        folder=target,
        digest=_digest(target / _PACKAGE),
        settings=settings or {},
        mutant=mutant,
        plant_percent=plant_percent,
    )


def _plant(package: Path, percent: int) -> None:
    file = package / "tasks.py"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if text.count(_BODY) != 1:
        raise SideError("the tasks of that revision have another shape: no slow-down can be planted in them")
    file.write_text(text.replace(_BODY, _SLOW_BODY.format(share=percent / 100)), encoding="utf-8")


def _checkout(revision: str, target: Path) -> None:
    """Unpack the package alone; nothing is left in the repository, whatever ends us."""
    package = service_package()
    top = Path(_git(package, "rev-parse", "--show-toplevel").decode().strip())
    inside = package.resolve().relative_to(top.resolve())
    commit = _git(package, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not commit:
        raise SideError(f"git has no revision {revision!r} here")
    archive = _git(top, "archive", "--format=tar", commit.decode().strip(), "--", inside.as_posix())
    if not archive:
        raise SideError(f"revision {revision!r} has no {inside}")
    unpacked = target.with_name(f"{target.name}-unpacked")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(unpacked, filter="data")
    target.mkdir(parents=True)
    (unpacked / inside).rename(target / _PACKAGE)


def _git(folder: Path, *arguments: str) -> bytes:
    argv = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, check=False, timeout=_GIT_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as err:
        raise SideError(f"git can't be asked: {err}; without it only {HERE!r} can be compared") from err
    if done.returncode and arguments[:2] == ("rev-parse", "--show-toplevel"):
        raise SideError(f"{folder} is in no git repository: only {HERE!r} can be compared")
    return done.stdout if done.returncode == 0 else b""


def _digest(package: Path) -> str:
    found = hashlib.sha256()
    for file in sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        found.update(f"{file.relative_to(package).as_posix()}\0{file.stat().st_size}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
