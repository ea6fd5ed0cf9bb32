"""One scenario's text out of several: what it extends, and what its full length changes.

Rule 1: the result is plain TOML that stands alone, so that a run keeps all of what was run in one file.
Rule 2: every line knows the file and the line it came from, so that a mistake is named where it was made.
Tables are merged key by key, and whoever extends has the last word; arrays of tables are appended, but a gate takes
the place of the one with its id. ``[full.X]`` changes keys of ``[X]``; ``[[full.X]]`` takes the place of all ``[[X]]``,
but a gate again only that of its id.
Pure; called by files, which finds and reads the bases.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([\w.\-]+)\s*\]\]?")
_KEY: Final = re.compile(r'^\s*("[^"]+"|[\w\-]+(?:\s*\.\s*[\w\-]+)*)\s*=')
_ID: Final = re.compile(r"""^\s*id\s*=\s*["']([^"']*)["']""")
_KIND: Final = re.compile(r"""^\s*f\s*=\s*["'](\w+)["']""")
_FULL: Final = "full"
#: Keys at the top that speak to this module alone.
OWN_KEYS: Final = ("extends", "without")


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line and where it came from."""

    text: str
    file: Path
    number: int


@dataclass(frozen=True, kw_only=True)
class Block:
    """A table with its header, or what stands before the first one."""

    #: Dotted; empty before the first header.
    path: str
    array: bool
    #: Comments above, the header, and what follows it up to the next block.
    lines: tuple[Line, ...]

    @property
    def gate_id(self) -> str | None:
        """Which gate it is, if it is one."""
        found = (match[1] for line in self.lines if (match := _ID.match(line.text)))
        return next(found, None) if self.array and self.path == "gate" else None

    @property
    def keys(self) -> list[str]:
        """The keys in it."""
        return [_spelt(match[1]) for line in self.lines if (match := _KEY.match(line.text))]


def blocks_of(text: str, file: Path) -> list[Block]:
    """The blocks of a TOML text that can be parsed. A comment right above a header goes with it."""
    found: list[Block] = []
    path, array, held = "", False, list[Line]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = Line(text=raw, file=file, number=number)
        if header := _HEADER.match(raw):
            cut = _comment_begins(held)
            found.append(Block(path=path, array=array, lines=tuple(held[:cut])))
            path, array, held = header[2], header[1] == "[[", held[cut:]
        held.append(line)
    return [*found, Block(path=path, array=array, lines=tuple(held))]


def _comment_begins(lines: Sequence[Line]) -> int:
    """Where the comment lines at the end begin."""
    cut = len(lines)
    while cut and lines[cut - 1].text.lstrip().startswith("#"):
        cut -= 1
    return cut


def extended(base: Sequence[Block], own: Sequence[Block], *, without: Iterable[str] = ()) -> list[Block]:
    """What ``own`` says, on top of what ``base`` says."""
    left_out = {*without, *(block.gate_id for block in own if block.gate_id is not None)}
    inherited = [block for block in base if block.path and block.gate_id not in left_out]
    merged = list(own)
    for block in inherited:
        place = None if block.array else _place(merged, block.path)
        if place is None:
            merged.append(block)
        else:
            merged[place] = _merged(block, merged[place])
    return merged


def at_full_length(blocks: Sequence[Block]) -> list[Block]:
    """The blocks with what ``[full...]`` changes."""
    changes = [replace(block, path=block.path.partition(".")[2]) for block in blocks if _is_full(block)]
    replaced = {change.path for change in changes if change.array and change.gate_id is None}
    gates = set(gate_ids(changes))
    merged = [
        block
        for block in at_usual_length(blocks)
        if block.gate_id not in gates and not any(_is_of(block, path) for path in replaced)
    ]
    for change in changes:
        own = replace(change, lines=tuple(_without_full(line) for line in change.lines))
        place = None if own.array else _place(merged, own.path)
        if place is None:
            merged.append(own)
        else:
            merged[place] = _merged(merged[place], own)
    return merged


def at_usual_length(blocks: Sequence[Block]) -> list[Block]:
    """The blocks without what changes at full length."""
    return [block for block in blocks if not _is_full(block)]


def has_full_length(blocks: Sequence[Block]) -> bool:
    """Whether there is another length."""
    return any(_is_full(block) for block in blocks)


def _is_of(block: Block, array: str) -> bool:
    """Whether it is an element of an array of tables, or a table in one."""
    return block.path.startswith(f"{array}.") or (block.array and block.path == array)


def _is_full(block: Block) -> bool:
    return block.path.split(".")[0] == _FULL


def _without_full(line: Line) -> Line:
    return replace(line, text=line.text.replace("full.", "", 1)) if _HEADER.match(line.text) else line


def without_own_keys(blocks: Sequence[Block]) -> list[Block]:
    """The blocks without what is said to this module."""
    return [_dropped(blocks[0], OWN_KEYS), *blocks[1:]] if blocks else []


def replayed(blocks: Sequence[Block], times_s: Mapping[str, Sequence[float]]) -> list[Block]:
    """The blocks with given times for each kind of request instead of rates; of two streams the first gets them."""
    left, changed = dict(times_s), []
    for block in blocks:
        if block.path == "load":
            changed.append(_with_keys(block, {"arrivals": '"replay"'}))
        elif block.path == "load.op":
            kind = next((match[1] for line in block.lines if (match := _KIND.match(line.text))), "")
            times = ", ".join(f"{at_s:.6f}" for at_s in left.pop(kind, ()))
            changed.append(_dropped(_with_keys(block, {"at_s": f"[{times}]"}), ["rate_per_s"]))
        else:
            changed.append(block)
    return changed


def _with_keys(block: Block, values: Mapping[str, str]) -> Block:
    rest = _dropped(block, values)
    place = 1 + next(n for n, line in enumerate(rest.lines) if _HEADER.match(line.text))
    added = tuple(replace(rest.lines[place - 1], text=f"{key} = {value}") for key, value in values.items())
    return replace(rest, lines=(*rest.lines[:place], *added, *rest.lines[place:]))


def _place(blocks: Sequence[Block], path: str) -> int | None:
    return next((n for n, block in enumerate(blocks) if block.path == path and not block.array), None)


def _merged(below: Block, above: Block) -> Block:
    """The lines of both, where a key of ``above`` takes the place of that of ``below``."""
    rest = _dropped(below, above.keys)
    kept = [line for line in rest.lines if not _HEADER.match(line.text)]
    return replace(above, lines=(*above.lines, *_trimmed(kept)))


def _trimmed(lines: Sequence[Line]) -> list[Line]:
    """Without comments that have lost their header, and without gaps."""
    keys = [number for number, line in enumerate(lines) if _KEY.match(line.text)]
    return [line for line in lines[keys[0] :] if line.text.strip()] if keys else []


def _dropped(block: Block, keys: Iterable[str]) -> Block:
    """The block without the lines of some keys; a value may go over several."""
    doomed, dropping, kept = set(keys), False, []
    for line in block.lines:
        if match := _KEY.match(line.text):
            dropping = _spelt(match[1]) in doomed
        elif _HEADER.match(line.text):
            dropping = False
        if not dropping:
            kept.append(line)
    return replace(block, lines=tuple(kept))


def _spelt(key: str) -> str:
    return "".join(key.split())


def joined(blocks: Sequence[Block]) -> tuple[str, tuple[Line, ...]]:
    """The text, and where each of its lines came from."""
    lines: list[Line] = []
    for block in blocks:
        # Tables of two files are kept apart by an empty line, as people do.
        if lines and block.lines and lines[-1].text.strip() and block.path:
            lines.append(replace(block.lines[0], text=""))
        lines += block.lines
    return "".join(f"{line.text}\n" for line in lines), tuple(lines)


def gate_ids(blocks: Iterable[Block]) -> list[str]:
    """The gates that are there."""
    return [block.gate_id for block in blocks if block.gate_id is not None]
