"""A run's folder as the report reads it: whatever is there, and a list of what is wrong with it.

Rule 1: nothing that lies in the folder can make the reading fail: a file that is missing is empty and named in
``missing``; a line that is torn, or lacks what every reader needs, is left out and named in ``problems``.
Rule 2: nothing here judges. The judge reads strictly (``mailrig.evidence``); a report of half a run still helps.
Spans are read by trace, since a long run has more of them than memory.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from mailrig.evidence import flatten_spans
from mailrig.report.words import clean

Row: TypeAlias = Mapping[str, Any]

#: Files under evidence/, and the keys without which a line is of no use, with their types.
_TABLES: Final[Mapping[str, Mapping[str, type]]] = {
    "jobs": {"job_id": str, "name": str, "queue": str, "state": str},
    "executions": {
        "execution_id": str, "job_id": str, "name": str, "queue": str, "pid": int, "started_ns": int,
    },
    "recipients": {"state": str},
    "messages": {"tenant_id": str},
    "clients": {"tenant_id": str},
    "ledger": {"time_ns": int, "kind": str},
    "processes": {"kind": str, "pid": int, "started_ns": int},
    "queues": {"time_ns": int, "ready": dict, "unacked": list},
    "memory": {"time_ns": int, "processes": list},
    "leaks": {"sink": str},
}  # fmt: skip
_HISTORY: Final[Mapping[str, type]] = {"time_ns": int, "type": str, "f": str, "value": dict}
#: Finds a span's trace without parsing its line.
TRACE_ID: Final = re.compile(rb'"traceId":\s*"([0-9a-fA-F]+)"')
_PROBLEMS_MAX: Final = 20


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """What a run left behind."""

    path: Path
    run: Row = field(default_factory=dict)
    #: verdict.json; empty when the run was never judged.
    verdict: Row = field(default_factory=dict)
    #: scenario.toml and contract.toml as TOML, not validated.
    scenario: Row = field(default_factory=dict)
    contract: Row = field(default_factory=dict)
    history: tuple[Row, ...] = ()
    jobs: tuple[Row, ...] = ()
    executions: tuple[Row, ...] = ()
    recipients: tuple[Row, ...] = ()
    messages: tuple[Row, ...] = ()
    clients: tuple[Row, ...] = ()
    ledger: tuple[Row, ...] = ()
    processes: tuple[Row, ...] = ()
    queues: tuple[Row, ...] = ()
    memory: tuple[Row, ...] = ()
    #: A row for each sink that was searched for secrets.
    leaks: tuple[Row, ...] = ()
    #: What could not be read, in the order of the files.
    problems: tuple[str, ...] = ()
    #: Files that were not there.
    missing: frozenset[str] = frozenset()

    def promise(self, section: str, key: str) -> float | None:
        """A number of the contract, or None."""
        value = self.contract.get(section, {})
        value = value.get(key) if isinstance(value, dict) else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def load_folder(path: Path) -> RunFolder:
    """Read everything but the spans."""
    reader = _Reader(path)
    objects: dict[str, Any] = {name: reader.parsed(f"{name}.json", json.loads) for name in ("run", "verdict")}
    tables: dict[str, Any] = {name: reader.parsed(f"{name}.toml", tomllib.loads) for name in ("scenario", "contract")}
    lines: dict[str, Any] = {name: reader.lines(f"evidence/{name}.jsonl", keys) for name, keys in _TABLES.items()}
    lines["history"] = reader.lines("history.jsonl", _HISTORY)
    return RunFolder(path=path, **objects, **tables, **lines, problems=reader.told(), missing=frozenset(reader.missing))


def load_spans(path: Path, trace_ids: Collection[str]) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """The spans of these traces (flat, as ``mailrig.evidence`` has them), and what could not be read."""
    reader, wanted, spans = _Reader(path), {trace_id.encode() for trace_id in trace_ids}, []
    for number, line in reader.raw_lines("evidence/spans.jsonl"):
        if line.endswith(b"}") and wanted.isdisjoint(TRACE_ID.findall(line)):
            continue
        try:
            spans += [span for span in flatten_spans([json.loads(line)]) if span["trace_id"] in trace_ids]
        except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as err:
            reader.problem(f"evidence/spans.jsonl:{number}: not OTLP JSON ({type(err).__name__})")
    return tuple(spans), reader.told()


def raw_lines(path: Path, name: str) -> Iterator[bytes]:
    """The lines of a file as they are, without a word about what is wrong with it."""
    return (line for _, line in _Reader(path).raw_lines(name))


class _Reader:
    """Reads files of one folder and keeps a list of what was wrong with them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems: list[str] = []
        self.missing: set[str] = set()

    def problem(self, text: str) -> None:
        self._problems.append(clean(text))

    def told(self) -> tuple[str, ...]:
        """The problems, but no page full of them."""
        more = len(self._problems) - _PROBLEMS_MAX
        return (*self._problems[:_PROBLEMS_MAX], *([f"and {more} more"] if more > 0 else []))

    def parsed(self, name: str, parse: Callable[[str], Any]) -> Row:
        """A file that is one object, or an empty one."""
        file = self._path / name
        if not file.is_file():
            self.missing.add(name)
            return {}
        try:
            value = parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            self.problem(f"{name}: can't be read: {err}")
            return {}
        if not isinstance(value, dict):
            self.problem(f"{name}: not an object")
            return {}
        return value

    def lines(self, name: str, keys: Mapping[str, type]) -> tuple[Row, ...]:
        """The usable objects of a file of JSON lines."""
        rows = []
        for number, line in self.raw_lines(name):
            try:
                row = json.loads(line)
            except ValueError:
                self.problem(f"{name}:{number}: torn: not JSON")
                continue
            if wrong := _wrong(row, keys):
                self.problem(f"{name}:{number}: {wrong}")
            else:
                rows.append(row)
        return tuple(rows)

    def raw_lines(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Numbered lines that are not empty, without their line ends."""
        try:
            with (self._path / name).open("rb") as lines:
                for number, line in enumerate(lines, start=1):
                    if text := line.strip():
                        yield number, text
        except FileNotFoundError:
            self.missing.add(name)
        except OSError as err:
            self.problem(f"{name}: can't be read: {err.strerror}")


def _wrong(row: Any, keys: Mapping[str, type]) -> str:
    """Why a line is of no use, or an empty text."""
    if not isinstance(row, dict):
        return "not an object"
    for key, kind in keys.items():
        # bool is an int to isinstance, and never a time or a process id.
        if not isinstance(row.get(key), kind) or isinstance(row[key], bool):
            return f"{key} is missing or of another type"
    return ""
