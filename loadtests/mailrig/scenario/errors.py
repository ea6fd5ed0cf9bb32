"""What can be wrong with what the rig was given. The tree stands in the package's docstring."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar


class RigError(Exception):
    """The rig can't do what was asked."""

    exit_code: ClassVar[int] = 2


class ScenarioError(RigError):
    """A scenario, contract or mutant file is wrong."""

    def __init__(self, wrong: str, *, file: Path, line: int | None = None, allowed: str = "") -> None:
        where = f"{file}:{line}" if line else f"{file}"
        super().__init__(f"{where}: {wrong}" + (f"; allowed: {allowed}" if allowed else ""))
        self.file, self.line, self.wrong, self.allowed = file, line, wrong, allowed


class UnknownNameError(RigError):
    """No scenario or mutant has this name."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        super().__init__(f"no {kind} {name!r}; known: {', '.join(known) or 'none'}")
        self.known = tuple(known)


class MutantError(RigError):
    """A mutant does not apply to the source."""
