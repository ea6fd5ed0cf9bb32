"""Run folders: ``runs/<scenario>/<UTC time>/`` and ``runs/<scenario>/latest``.

Owns where a run's files are and that each appears whole or not at all. Never reads what is in them but the names.
Callers: runner, cli, report.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from mailrig.scenario import Contract, RigError, Scenario

LATEST: Final = "latest"
_MARK: Final = "scenario.toml"


class RunError(RigError):
    """No such run, or it can't be written."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run's folder."""

    path: Path

    @classmethod
    def create(cls, runs_dir: Path, scenario: Scenario, contract: Contract, *, started: datetime) -> Self:
        """A new folder with the scenario and the contract in it; ``latest`` points to it.

        Raises:
            RunError: it can't be written.
        """
        files = {_MARK: scenario.text, "contract.toml": contract.text}
        return cls.of_files(runs_dir, scenario.name, files, started=started)

    @classmethod
    def of_files(cls, runs_dir: Path, name: str, files: Mapping[str, str], *, started: datetime) -> Self:
        """A new folder of a name with these files in it; ``latest`` points to it.

        Raises:
            RunError: it can't be written.
        """
        stamp = started.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        try:
            run = cls(path=_new_folder(runs_dir / name, stamp))
            run.evidence.mkdir()
            run.logs.mkdir()
            for file, text in files.items():
                run.write_text(file, text)
            _point_latest(run.path)
        except OSError as err:
            raise RunError(f"{runs_dir / name} can't be written: {err.strerror}") from err
        return run

    @property
    def evidence(self) -> Path:
        """Where ``evidence.collect`` writes."""
        return self.path / "evidence"

    @property
    def logs(self) -> Path:
        """One log per process."""
        return self.path / "logs"

    def write_text(self, name: str, text: str) -> Path:
        """Write a file of the run: its old or its new text is there, never half of it."""
        file = self.path / name
        temporary = file.with_name(f".{file.name}.tmp")
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(file)
        return file

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a file of the run as JSON."""
        return self.write_text(name, json.dumps(value, indent=2, sort_keys=False) + "\n")

    def write_verdict(self, verdict: Mapping[str, Any]) -> Path:
        """Write ``verdict.json`` (``Verdict.to_dict``); a run that is judged again gets a new one."""
        return self.write_json("verdict.json", verdict)

    def read_verdict(self) -> dict[str, Any]:
        """The verdict that was written last, for ``Verdict.from_dict``.

        Raises:
            RunError: the run was never judged, or the file is broken.
        """
        file = self.path / "verdict.json"
        try:
            verdict = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as err:
            raise RunError(f"{self.path} has no verdict yet: mailrig check {self.path}") from err
        except (OSError, ValueError) as err:
            raise RunError(f"{file} can't be read: {err}") from err
        if not isinstance(verdict, dict):
            raise RunError(f"{file} is not a JSON object")
        return verdict


def open_run(name_or_path: str | Path, *, runs_dir: Path) -> Run:
    """The run of a folder, of a scenario's folder (its latest), or of a scenario's name (its latest).

    Raises:
        RunError: there is none; says which there are.
    """
    given = Path(name_or_path)
    for folder in (given, given / LATEST, runs_dir / given, runs_dir / given / LATEST):
        if (folder / _MARK).is_file():
            return Run(path=folder.resolve())
    names = run_names(runs_dir)
    known = f"runs of {', '.join(names)}" if names else "no runs yet"
    raise RunError(f"no run {str(name_or_path)!r}: not a folder with a {_MARK}, and {runs_dir} has {known}")


def run_names(runs_dir: Path) -> list[str]:
    """The scenarios that have runs."""
    return sorted({file.parent.parent.name for file in runs_dir.glob(f"*/*/{_MARK}")})


def _new_folder(parent: Path, stamp: str) -> Path:
    for attempt in range(1, 100):
        # Two runs may start within a second.
        folder = parent / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise RunError(f"{parent / stamp} and 98 more are there already")


def _point_latest(folder: Path) -> None:
    """Rename a fresh link over the old one: ``latest`` is never missing."""
    link = folder.parent / f".{LATEST}.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(folder.parent / LATEST)
