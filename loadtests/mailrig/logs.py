"""The log lines of a run in order of time, of all its processes: all of them, or those of one trace, task or execution.

Owns how the lines of each part are read: the service's JSON and its text, and those of Valkey, PostgreSQL and Locust.
What has no time of its own follows the line before it. A line that names a task but no trace, such as Celery's
"received", belongs to the task's trace; one that names a trace but no task, such as the API's, to all tasks in it.
Called by cli.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mailrig.scenario import RigError

LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
#: What can be asked for, and the key that holds it.
IDS: Final = {"trace": "trace_id", "task": "task_id", "execution": "execution_id"}
#: Fewer characters would be anybody's beginning.
_PREFIX_MIN: Final = 4
_SHOWN: Final = frozenset({"time", "level", "logger", "message", "service", "pid", "exception", "file"})
#: Ids are shown by their beginnings, the rest as it is.
_SHORT: Final = frozenset({*IDS.values(), "span_id"})
_LEVEL_WORDS: Final = {
    "LOG": "INFO", "FATAL": "CRITICAL", "PANIC": "CRITICAL", "HINT": "INFO", "DETAIL": "INFO", "STATEMENT": "INFO",
    "#": "WARNING", "*": "INFO", "-": "DEBUG", ".": "DEBUG",
}  # fmt: skip
#: Time, level and message of who writes no JSON.
_FORMS: Final = (
    (re.compile(r"\[(?P<t>[\d-]{10} [\d:]{8},\d+)\] (?P<l>[A-Z]+) (?P<m>\[.*)"), "%Y-%m-%d %H:%M:%S,%f"),
    (re.compile(r"\[(?P<t>[\d-]{10} [\d:]{8})\] (?P<m>.*)"), "%Y-%m-%d %H:%M:%S"),
    (re.compile(r"\[(?P<t>[\d-]{10} [\d:]{8},\d+)\] \S*?/(?P<l>[A-Z]+)/(?P<m>.*)"), "%Y-%m-%d %H:%M:%S,%f"),
    (re.compile(r"(?P<p>\d+):\w (?P<t>\d\d \w{3} \d{4} [\d:.]+) (?P<l>[#*.-]) (?P<m>.*)"), "%d %b %Y %H:%M:%S.%f"),
    (re.compile(r"(?P<t>[\d-]{10} [\d:.]+ UTC) \[(?P<p>\d+)\] (?P<l>\w+): +(?P<m>.*)"), "%Y-%m-%d %H:%M:%S.%f UTC"),
)


class LogsError(RigError):
    """There is no such line."""


@dataclass(frozen=True, kw_only=True, order=True)
class Line:
    """One line."""

    time_ns: int
    file: str
    number: int
    row: Mapping[str, Any] = field(compare=False)

    @property
    def level(self) -> int:
        """How bad it is, as a number."""
        name = str(self.row.get("level", "INFO"))
        return LEVELS.index(name) if name in LEVELS else LEVELS.index("INFO")


def read_lines(folder: Path, *, level: str = "DEBUG", **wanted: str | None) -> list[Line]:
    """The lines of a run's folder in order of time; ``wanted`` may name one id, or its beginning, of ``IDS``.

    Raises:
        LogsError: there are no logs, or no line has that id, or several ids begin so.
    """
    files = sorted((folder / "logs").glob("*.log"))
    if not files:
        raise LogsError(f"{folder / 'logs'} has no logs")
    asked = [(kind, text) for kind, text in wanted.items() if text]
    lines = sorted(line for file in files for line in _lines_of(file))
    for kind, text in asked:
        lines = _of(lines, kind, text, folder)
    return [line for line in lines if line.level >= LEVELS.index(level)]


# --- reading ---


def _lines_of(file: Path) -> Iterator[Line]:
    time_ns = 0
    with file.open(encoding="utf-8", errors="replace") as texts:
        for number, text in enumerate(texts):
            row = _read(text.rstrip("\n"), file.stem)
            time_ns = row.pop("time_ns", None) or time_ns
            yield Line(time_ns=time_ns, file=file.stem, number=number, row=row)


def _read(text: str, part: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            row = json.loads(text)
            moment = datetime.fromisoformat(row["time"])
        except (ValueError, KeyError, TypeError):
            return {"service": part, "message": text}
        return {**row, "time_ns": _ns(moment)}
    return _read_other(text, part)


def _read_other(text: str, part: str) -> dict[str, Any]:
    for expression, form in _FORMS:
        if found := expression.fullmatch(text):
            groups = found.groupdict()
            moment, level = _moment(groups["t"], form), groups.get("l", "INFO")
            level = _LEVEL_WORDS.get(level, level)
            about = {"pid": int(groups["p"])} if groups.get("p") else {}
            return {"level": level, "service": part, **about, "message": groups["m"], "time_ns": _ns(moment)}
    return {"service": part, "message": text}


def _moment(text: str, form: str) -> datetime:
    """Local time, unless it says that it is not."""
    moment = datetime.strptime(text, form)  # noqa: DTZ007  # the next line's
    return moment.replace(tzinfo=UTC) if form.endswith("UTC") else moment.astimezone()


def _ns(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6) * 1000


# --- choosing ---


def _of(lines: list[Line], kind: str, text: str, folder: Path) -> list[Line]:
    key = IDS[kind]
    wanted = _whole(lines, kind, text, folder)
    own = [line for line in lines if line.row.get(key) == wanted]
    tasks = {line.row["task_id"] for line in own if "task_id" in line.row}
    traces = {line.row["trace_id"] for line in own if "trace_id" in line.row}
    related: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "trace": lambda row: "trace_id" not in row and row.get("task_id") in tasks,
        "task": lambda row: "task_id" not in row and row.get("trace_id") in traces,
        "execution": lambda row: "execution_id" not in row and row.get("task_id") in tasks,
    }
    return [line for line in lines if line.row.get(key) == wanted or related[kind](line.row)]


def _whole(lines: Iterable[Line], kind: str, text: str, folder: Path) -> str:
    if len(text) < _PREFIX_MIN:
        raise LogsError(f"{kind} {text!r}: give {_PREFIX_MIN} characters of its id or more")
    found = sorted({i for line in lines if (i := str(line.row.get(IDS[kind], ""))).startswith(text.lower())})
    if not found:
        raise LogsError(f"no line in {folder / 'logs'} is of {kind} {text}")
    if len(found) > 1:
        raise LogsError(f"{kind} {text!r} is the beginning of {len(found)}: {', '.join(found[:3])} ...")
    return found[0]


# --- showing ---


def as_text(lines: Iterable[Line]) -> Iterator[str]:
    """For people: time, who, how bad, what, and what else the line says."""
    for line in lines:
        row = line.row
        pid = f"[{row['pid']}]" if "pid" in row else ""
        facts = " ".join(f"{name}={_fact(name, row[name])}" for name in row if name not in _SHOWN)
        head = f"{_clock(line.time_ns)} {row.get('service') or line.file}{pid} {row.get('level', '-')}"
        yield _printable(f"{head} {row.get('message', '')}" + (f"  {facts}" if facts else ""))
        for below in str(row.get("exception", "")).splitlines():
            yield _printable(f"    {below}")


def _fact(name: str, value: object) -> str:
    return str(value)[:8] if name in _SHORT else str(value)


def _clock(time_ns: int) -> str:
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%H:%M:%S.%f") if time_ns else "--:--:--.------"


def _printable(text: str) -> str:
    """A terminal obeys control characters; a log's are only shown."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(lines: Iterable[Line]) -> Iterator[str]:
    """For machines: the line's object with the file that it is in."""
    for line in lines:
        moment = datetime.fromtimestamp(line.time_ns / 1e9, UTC).isoformat() if line.time_ns else None
        yield json.dumps({"time": moment, **line.row, "file": f"{line.file}.log"})
