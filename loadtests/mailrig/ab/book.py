"""What was run so far: ``ab.json`` in a comparison's folder, written whole after each run.

A comparison that was cut off goes on where it was, if what is to be compared is still the same. Called by course.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Self

from mailrig.scenario import RigError

SCHEMA_VERSION: Final = 1
_FILE: Final = "ab.json"


class BookError(RigError):
    """There is nothing to go on with, or it can't be read."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A run that has its place in the order."""

    block: int
    #: Its place in the block, from 0.
    place: int
    #: ``base`` or ``head``.
    side: str


def order(blocks: int) -> list[Turn]:
    """ABBA, BAAB, ABBA, ...: a drift of the machine meets both sides alike, and so does whatever follows a start."""
    patterns = (("base", "head", "head", "base"), ("head", "base", "base", "head"))
    return [
        Turn(block=block, place=place, side=side)
        for block in range(blocks)
        for place, side in enumerate(patterns[block % 2])
    ]


class Book:
    """The runs of a comparison."""

    def __init__(self, path: Path, plan: Mapping[str, Any], runs: Sequence[Mapping[str, Any]] = ()) -> None:
        self.path, self.plan = path, plan
        self._runs = [dict(run) for run in runs]

    @classmethod
    def begin(cls, folder: Path, plan: Mapping[str, Any]) -> Self:
        """A new one in a folder of its own."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        path = folder / stamp
        path.mkdir(parents=True)
        book = cls(path, plan)
        book.save()
        return book

    @classmethod
    def go_on(cls, folder: Path, plan: Mapping[str, Any]) -> Self:
        """The latest one, if it compares the same.

        Raises:
            BookError: there is none, or it compares something else: says what.
        """
        file = max(folder.glob(f"*/{_FILE}"), default=None)
        if file is None:
            raise BookError(f"{folder} has no comparison to go on with: leave out --resume")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["schema_version"] != SCHEMA_VERSION:
                raise BookError(
                    f"{file}: of schema version {data['schema_version']!r}; this one reads {SCHEMA_VERSION}"
                )
            book = cls(file.parent, data["plan"], data["runs"])
        except (ValueError, KeyError, TypeError) as err:
            raise BookError(f"{file} can't be read: {type(err).__name__}") from err
        if changed := [key for key in plan if plan[key] != book.plan.get(key)]:
            raise BookError(
                f"{file} compares something else (another {', another '.join(changed)}): leave out --resume"
            )
        return book

    def save(self) -> None:
        """The old or the new one is there, never half of it."""
        file = self.path / _FILE
        temporary = file.with_name(f".{_FILE}.tmp")
        temporary.write_text(
            json.dumps({"schema_version": SCHEMA_VERSION, "plan": self.plan, "runs": self._runs}, indent=1) + "\n"
        )
        temporary.replace(file)

    def add(self, turn: Turn, run: Mapping[str, Any]) -> None:
        """Write a run down."""
        self._runs.append({"block": turn.block, "place": turn.place, "side": turn.side, **run})
        self.save()

    def left(self, turns: Sequence[Turn]) -> Iterator[Turn]:
        """The turns that have no run that counts."""
        had = {(run["block"], run["place"]) for run in self._runs if run["counts"]}
        return (turn for turn in turns if (turn.block, turn.place) not in had)

    @property
    def runs(self) -> list[dict[str, Any]]:
        """All of them, in the order of their making."""
        return list(self._runs)
