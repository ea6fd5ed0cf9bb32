"""Where in a TOML file something is said: the standard library's parser forgets it.

Owns: the line of each table and key. Never does: reading values. Called by: reading.

A key inside an inline table or an inline list has the line of what it is in. Text over several lines that looks like a
key or a table can mislead it; then the line is wrong and the message still right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

#: ``user[0].folder[1].seed`` is ("user", 0, "folder", 1, "seed").
Path = tuple[str | int, ...]
_HEAD: Final = re.compile(r"\s*(\[\[?)\s*([\w.\s\"'-]+?)\s*\]")
_KEY: Final = re.compile(r"\s*([\w\"'-]+(?:\s*\.\s*[\w\"'-]+)*)\s*=")


class Lines:
    """The lines of one file."""

    def __init__(self, text: str) -> None:
        self._at: dict[Path, int] = {}
        for path, number in _places(text):
            for depth in range(1, len(path) + 1):
                self._at.setdefault(path[:depth], number)

    def find(self, where: str, key: str = "") -> int:
        """The line of ``user[0].folder[1].seed``, or of a key below it: if it is not found, of what it is in."""
        path = _path(where) + ((key,) if key else ())
        while path and path not in self._at:
            path = path[:-1]
        return self._at.get(path, 1)


def _path(where: str) -> Path:
    return tuple(int(index) if index else name for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", where))


def _places(text: str) -> Iterator[tuple[Path, int]]:
    table: Path = ()
    counts: Counter[Path] = Counter()
    for number, line in enumerate(text.splitlines(), start=1):
        if head := _HEAD.match(line):
            table = _table(_parts(head[2]), array=head[1] == "[[", counts=counts)
            yield table, number
        elif key := _KEY.match(line):
            yield (*table, *_parts(key[1])), number


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in dotted.split(".")]


def _table(parts: list[str], *, array: bool, counts: Counter[Path]) -> Path:
    """The path of a table: each array of tables on the way stands for its last element."""
    path: Path = ()
    for depth, part in enumerate(parts, start=1):
        path = (*path, part)
        if array and depth == len(parts):
            counts[path] += 1
        if counts[path]:
            path = (*path, counts[path] - 1)
    return path
