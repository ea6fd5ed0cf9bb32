"""Trials as JSON lines: written as they come, so that a campaign that was stopped goes on. Called by campaign."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Self

from mailrig.mutation.matrix import Trial
from mailrig.scenario import RigError


class ResultsError(RigError):
    """A file of results is not what a campaign wrote."""


class Results:
    """One campaign's file. What is run again is a new line; the last one counts."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._trials = {trial.digest: trial for trial in _read(file)}

    @classmethod
    def begin(cls, folder: Path, now: datetime) -> Self:
        """A file of its own for a new campaign: an older one's is never touched."""
        return cls(folder / f"{now:%Y%m%dT%H%M%S}.jsonl")

    @classmethod
    def latest(cls, folder: Path) -> Self | None:
        """The last campaign's, if there was one."""
        files = sorted(folder.glob("*.jsonl"))
        return cls(files[-1]) if files else None

    def find(self, digest: str) -> Trial | None:
        """The last trial of exactly this."""
        return self._trials.get(digest)

    def add(self, trial: Trial) -> None:
        """Keep a trial: on disk before the next one begins."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(trial.to_dict(), sort_keys=True) + "\n")
            out.flush()
            os.fsync(out.fileno())
        self._trials[trial.digest] = trial


def _read(file: Path) -> Iterator[Trial]:
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    # What follows the last line end was being written when the rig was killed: that trial was not kept.
    *lines, torn = text.split("\n")
    if torn:
        file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    for number, line in enumerate(lines, start=1):
        try:
            yield Trial.from_dict(json.loads(line))
        except (ValueError, TypeError) as err:
            raise ResultsError(f"{file}:{number}: not a trial; allowed: a line that `mailrig mutants` wrote") from err
