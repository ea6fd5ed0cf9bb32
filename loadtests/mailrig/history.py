"""The history of a run: what was asked, what was answered, and when, one JSON line per operation.

Rule 1: a line is one ``write`` to a file opened for appending, so a killed writer leaves whole lines behind.
Rule 2: an answer is ``ok``, ``fail`` (it surely did not happen) or ``info`` (nobody knows).
Rule 3: nothing here judges. Callers: clients and nemesis write, the runner merges, evidence reads.
"""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

#: Types of an operation's lines.
TYPES: Final = ("invoke", "ok", "fail", "info")
_FIELDS: Final = ("index", "time_ns", "process", "type", "f", "value", "error")


class HistoryError(ValueError):
    """A history file has a line that is not an operation. ``evidence`` turns it into an error of the rig."""


@dataclass(frozen=True, kw_only=True)
class Op:
    """One line: an invocation, or its answer."""

    #: Position in its file; merging counts anew.
    index: int
    #: When it was written, in nanoseconds since the epoch.
    time_ns: int
    #: Who acted: ``user:7``, ``feed:acme``, ``nemesis``, ``runner``.
    process: str
    #: One of ``TYPES``.
    type: str
    #: What was done: ``send``, ``sync``, ``complete``, ``phase``, or a nemesis action.
    f: str
    #: The operation's own data.
    value: Mapping[str, Any] = field(default_factory=dict)
    #: Why it failed or is not known.
    error: str | None = None

    def to_line(self) -> str:
        """One line of JSON, without its line end."""
        return json.dumps({name: getattr(self, name) for name in _FIELDS}, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> Self:
        """The operation of a line.

        Raises:
            ValueError: it is torn, or not an operation; says which.
        """
        data = json.loads(line)
        if not isinstance(data, dict) or not isinstance(data.get("value"), dict):
            raise ValueError("not an operation: a JSON object with an object as its value is needed")  # noqa: TRY004  # one type for a bad line
        missing = [name for name in _FIELDS if name not in data]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        if data["type"] not in TYPES:
            raise ValueError(f"type {data['type']!r} is not known; allowed: {', '.join(TYPES)}")
        return cls(**{name: data[name] for name in _FIELDS})


class _History:
    """Takes operations, and counts them."""

    def __init__(self, process: str) -> None:
        self._process = process
        self._indices = itertools.count()

    def append(
        self,
        type: str,  # noqa: A002  # the field's name
        f: str,
        value: Mapping[str, Any],
        *,
        error: str | None = None,
        process: str | None = None,
        time_ns: int | None = None,
    ) -> Op:
        """Write one operation; the time is now unless given."""
        op = Op(
            index=next(self._indices),
            time_ns=time.time_ns() if time_ns is None else time_ns,
            process=self._process if process is None else process,
            type=type,
            f=f,
            value=value,
            error=error,
        )
        self._put(op.to_line() + "\n")
        return op

    def _put(self, line: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """No operation follows."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HistoryWriter(_History):
    """Appends operations to a file; safe to share among threads and greenlets of one process."""

    def __init__(self, path: Path, process: str) -> None:
        """Open or create ``path``; ``process`` is the default name of who acts."""
        super().__init__(process)
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def put(self, lines: str) -> None:
        """Whole lines that another writer made, with a single system call."""
        data = lines.encode()
        if os.write(self._fd, data) != len(data):
            raise OSError("the history could not be written in full: is the disk full?")

    def _put(self, line: str) -> None:
        self.put(line)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class HistoryRelay(_History):
    """Keeps lines until they are sent to where the file is: by ``flush``, or at the end."""

    def __init__(self, process: str, send: Callable[[str], None]) -> None:
        super().__init__(process)
        self._send = send
        self._lines: list[str] = []

    def _put(self, line: str) -> None:
        self._lines.append(line)

    def flush(self) -> None:
        """Send what has come up; greenlets may go on writing meanwhile."""
        lines, self._lines = self._lines, []
        if lines:
            self._send("".join(lines))

    def close(self) -> None:
        """Send the rest."""
        self.flush()


def read_history(path: Path) -> list[Op]:
    """The operations of a file, in the order of their lines.

    Raises:
        HistoryError: a line is torn or not an operation; names file and line.
    """
    ops = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                ops.append(Op.from_line(line))
            except ValueError as err:
                raise HistoryError(f"{path}:{number}: {err}") from err
    return ops


def merge_histories(paths: Iterable[Path], out: Path) -> list[Op]:
    """Write the operations of all files to ``out`` in the order of their time, counted anew.

    ``out`` may be one of them; lines of one process with the same time keep their order.
    """
    ops = [op for path in paths for op in read_history(path)]
    ops.sort(key=lambda op: (op.time_ns, op.process, op.index))
    merged = [replace(op, index=index) for index, op in enumerate(ops)]
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text("".join(op.to_line() + "\n" for op in merged), encoding="utf-8")
    temporary.replace(out)
    return merged
