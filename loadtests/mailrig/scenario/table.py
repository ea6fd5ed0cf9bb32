"""A TOML table that knows the line of each key and refuses what nobody asked for. Pure but for ``read_text``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from mailrig.scenario.errors import ScenarioError

KeyPath = tuple[str | int, ...]
#: By line of a text: the file and line that it came from.
Origins = Mapping[int, tuple[Path, int]]
_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([\w.\-]+)\s*\]\]?")
_KEY: Final = re.compile(r'^\s*(?:"(?P<quoted>[^"]+)"|(?P<bare>[\w\-]+(?:\s*\.\s*[\w\-]+)*))\s*=')


def _key_lines(text: str) -> dict[KeyPath, int]:
    """The line of every table and key; the standard library's parser forgets them."""
    lines: dict[KeyPath, int] = {}
    counts: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            table = _open_table(header[2].split("."), array=header[1] == "[[", counts=counts)
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            parts = [key["quoted"]] if key["quoted"] else [part.strip() for part in key["bare"].split(".")]
            lines.setdefault((*table, *parts), number)
    return lines


def _open_table(parts: Sequence[str], *, array: bool, counts: dict[KeyPath, int]) -> KeyPath:
    path: KeyPath = ()
    for depth, part in enumerate(parts, start=1):
        path = (*path, part)
        if array and depth == len(parts):
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


class Table:
    """A TOML table that knows where it stands, and complains about what nobody asked for."""

    def __init__(
        self,
        data: Any,
        *,
        file: Path,
        lines: Mapping[KeyPath, int],
        path: KeyPath = (),
        origins: Origins = MappingProxyType({}),
    ) -> None:
        self._file, self._lines, self._path, self._origins = file, lines, path, origins
        self._asked: list[str] = []
        if not isinstance(data, dict):
            raise self.error("must be a table")
        self._data: dict[str, Any] = data

    @property
    def file(self) -> Path:
        """The file that the whole text is told to be."""
        return self._file

    def error(self, wrong: str, *, key: str | None = None, allowed: str = "") -> ScenarioError:
        """An error at a key, or at the table itself, by name."""
        path = self._path if key is None else (*self._path, key)
        name = ".".join(str(part) for part in path if isinstance(part, str))
        return self.refuse(f"{name} {wrong}".strip(), key=key, allowed=allowed)

    def refuse(self, wrong: str, *, key: str | None = None, allowed: str = "") -> ScenarioError:
        """An error at a key, or at the table itself, in words of its own."""
        file, line = self.origin(key)
        return ScenarioError(wrong, file=file, line=line, allowed=allowed)

    def origin(self, key: str | None = None) -> tuple[Path, int | None]:
        """The file and line where a key was written, where the text is made of several files."""
        line = self.line(key)
        return (self._file, line) if line is None else self._origins.get(line, (self._file, line))

    def line(self, key: str | None = None) -> int | None:
        """The line of a key, else of the nearest table around it."""
        path = self._path if key is None else (*self._path, key)
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path)

    def keys(self) -> list[str]:
        """The keys that are there."""
        return list(self._data)

    def _take(self, key: str, default: Any, needed: str) -> Any:
        self._asked.append(key)
        if key in self._data:
            return self._data[key]
        if default is None:
            raise self.error("is missing", key=key, allowed=needed)
        return default

    def text(self, key: str, *, default: str | None = None, choices: Sequence[str] = ()) -> str:
        """A string, one of ``choices`` if there are any."""
        needed = ", ".join(choices) if choices else "a string that is not empty"
        value = self._take(key, default, needed)
        if not isinstance(value, str) or (choices and value not in choices) or (not value and default is None):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed=needed)
        return value

    def number(
        self, key: str, *, default: float | None = None, minimum: float = 0, maximum: float = float("inf")
    ) -> float:
        """A number within bounds."""
        needed = f"a number from {minimum:g} to {maximum:g}" if maximum < float("inf") else f"a number >= {minimum:g}"
        value = self._take(key, default, needed)
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise self.error(f"= {value!r} is not allowed", key=key, allowed=needed)
        return value

    def integer(self, key: str, *, default: int | None = None, minimum: int = 0) -> int:
        """A whole number."""
        value = self.number(key, default=default, minimum=minimum)
        if not isinstance(value, int):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed=f"a whole number >= {minimum}")
        return value

    def flag(self, key: str) -> bool:
        """True or false; false when the key is absent."""
        value = self._take(key, default=False, needed="true or false")
        if not isinstance(value, bool):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed="true or false")
        return value

    def strings(self, key: str, *, choices: Sequence[str] = ()) -> tuple[str, ...]:
        """A list of some of ``choices``, or of any strings; empty when the key is absent."""
        needed = f"a list of {', '.join(choices) or 'strings'}"
        value = self._take(key, [], needed)
        if not isinstance(value, list) or not all(item in choices or self._is_any(item, choices) for item in value):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed=needed)
        return tuple(value)

    @staticmethod
    def _is_any(item: object, choices: Sequence[str]) -> bool:
        return not choices and isinstance(item, str)

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of numbers that are not negative."""
        value = self._take(key, None, "a list of numbers >= 0")
        if not isinstance(value, list) or not all(type(item) in {int, float} and item >= 0 for item in value):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed="a list of numbers >= 0")
        return tuple(value)

    def variables(self, key: str) -> dict[str, str]:
        """A table of strings; empty when the key is absent."""
        value = self._take(key, {}, "a table of strings")
        if not isinstance(value, dict) or not all(isinstance(word, str) for word in value.values()):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed="a table of strings")
        return value

    def words(self, key: str) -> tuple[str, ...]:
        """A list of texts, at least one, none of them empty or twice."""
        needed = "a list of one or more different texts"
        value = self._take(key, None, needed)
        texts = isinstance(value, list) and all(isinstance(item, str) and item for item in value)
        if not texts or not value or len(set(value)) < len(value):
            raise self.error(f"= {value!r} is not allowed", key=key, allowed=needed)
        return tuple(value)

    def table(self, key: str, *, optional: bool = False) -> Table:
        """A table below this one."""
        data = self._take(key, {} if optional else None, f"a table [{key}]")
        return Table(data, file=self._file, lines=self._lines, path=(*self._path, key), origins=self._origins)

    def tables(self, key: str) -> list[Table]:
        """An array of tables; empty when the key is absent."""
        data = self._take(key, [], f"[[{key}]]")
        if not isinstance(data, list):
            raise self.error("must be an array of tables", key=key, allowed=f"[[{key}]]")
        return [
            Table(item, file=self._file, lines=self._lines, path=(*self._path, key, i), origins=self._origins)
            for i, item in enumerate(data)
        ]

    def rest(self) -> dict[str, Any]:
        """What nobody asked for so far, for tables that are open on purpose."""
        extra = {key: value for key, value in self._data.items() if key not in self._asked}
        self._asked.extend(extra)
        return extra

    def done(self) -> None:
        """Refuse every key that was not asked for: a typo must not be a silent default."""
        for key in self._data:
            if key not in self._asked:
                raise self.error("is not known", key=key, allowed=", ".join(sorted(set(self._asked))))


def parse_toml(text: str, file: Path, origins: Origins = MappingProxyType({})) -> Table:
    """The top table of a TOML text; ``file``, and ``origins`` by line, are for messages."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as err:
        found = re.search(r"at line (\d+)", str(err))
        line = int(found[1]) if found else max(len(text.splitlines()), 1)
        raise ScenarioError(f"broken TOML: {err}", file=file, line=line, allowed="TOML 1.0") from err
    return Table(data, file=file, lines=_key_lines(text), origins=origins)


def read_text(file: Path) -> str:
    """A file's text; whatever hinders it becomes a ``ScenarioError``."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as err:
        raise ScenarioError("not UTF-8", file=file, allowed="TOML 1.0, which is UTF-8") from err
    except OSError as err:
        raise ScenarioError(f"can't be read: {err.strerror}", file=file) from err
