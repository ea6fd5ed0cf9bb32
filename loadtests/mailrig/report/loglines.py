"""The log lines of some traces, out of a run's ``logs/``: those that are JSON and name a trace, or its task.

Rule 1: bounded, however many lines a trace has: its first and its last ones, and those that are louder than INFO.
Rule 2: a line is text; nothing in it is interpreted.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mailrig.report import words

FIRST_MAX: Final = 40
LAST_MAX: Final = 20
LOUD_MAX: Final = 20
_MESSAGE_CHARS_MAX: Final = 600
_EXCEPTION_CHARS_MAX: Final = 3000
_LOUD: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
#: What tells without parsing whether a line is of interest.
_IDS: Final = re.compile(rb'"(?:trace_id|task_id)":\s*"([^"\\]{1,80})"')
_US: Final = 1000


@dataclass(frozen=True, kw_only=True, order=True)
class LogLine:
    """One line."""

    time_ns: int
    #: Where it stands in its file, so that lines of one instant keep their order.
    number: int
    #: The file's name without its suffix.
    file: str
    level: str
    logger: str
    message: str
    span_id: str
    exception: str
    #: Other keys that say who wrote it.
    pid: str


@dataclass(kw_only=True)
class _Kept:
    """What is kept of one trace's lines."""

    first: list[LogLine] = field(default_factory=list)
    last: deque[LogLine] = field(default_factory=lambda: deque(maxlen=LAST_MAX))
    loud: list[LogLine] = field(default_factory=list)
    seen: int = 0

    def add(self, line: LogLine) -> None:
        self.seen += 1
        if len(self.first) < FIRST_MAX:
            self.first.append(line)
            return
        self.last.append(line)
        if line.level in _LOUD and len(self.loud) < LOUD_MAX:
            self.loud.append(line)


@dataclass(frozen=True, kw_only=True)
class Lines:
    """The lines of one trace."""

    lines: tuple[LogLine, ...] = ()
    #: How many more there are in the files.
    left: int = 0


def log_lines(path: Path, traces: Mapping[str, str]) -> dict[str, Lines]:
    """The lines of each trace. ``traces`` has the trace of each id, of a trace or a task, that is of interest."""
    kept: dict[str, _Kept] = defaultdict(_Kept)
    for file in sorted((path / "logs").glob("*.log")):
        for number, raw in enumerate(_lines(file)):
            trace_id = next((traces[i] for i in _ids(raw) if i in traces), None)
            if trace_id is not None and (line := _line(raw, file.stem, number)):
                kept[trace_id].add(line)
    return {trace_id: _told(own) for trace_id, own in kept.items()}


def _told(own: _Kept) -> Lines:
    lines = tuple(sorted({*own.first, *own.loud, *own.last}))
    return Lines(lines=lines, left=own.seen - len(lines))


def _lines(file: Path) -> Iterator[bytes]:
    try:
        with file.open("rb") as lines:
            yield from (line for line in lines if line.startswith(b"{"))
    except OSError:
        return  # a log that can't be read is no evidence, and the page lists the file


def _ids(raw: bytes) -> list[str]:
    """The trace's id first: it tells more than the task's."""
    found = list(_IDS.finditer(raw))
    found.sort(key=lambda match: not match.group().startswith(b'"trace_id'))
    return [match.group(1).decode(errors="replace") for match in found]


def _line(raw: bytes, file: str, number: int) -> LogLine | None:
    try:
        row: Any = json.loads(raw)
        time_ns = int(datetime.fromisoformat(str(row["time"])).timestamp() * 1e6) * _US
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
    return LogLine(
        time_ns=time_ns,
        number=number,
        file=words.clean(file),
        level=words.clean(row.get("level") or "", limit=12).upper(),
        logger=words.clean(row.get("logger") or "", limit=80),
        message=words.clean(row.get("message") or "", limit=_MESSAGE_CHARS_MAX),
        span_id=words.clean(row.get("span_id") or "", limit=16),
        exception=words.clean(row.get("exception") or "", limit=_EXCEPTION_CHARS_MAX),
        pid=words.clean(row.get("pid") or "", limit=12),
    )
