"""How the report writes values: durations, sizes, times, counts, and text that came from elsewhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

#: Stands for what is not known.
NOTHING: Final = "–"  # noqa: RUF001  # an en dash is what a table shows for an empty cell
#: Each verdict of a gate and of a run, with a mark that tells it without colour.
MARKS: Final[Mapping[str, str]] = {"pass": "✓", "fail": "✗", "invalid": "⊘", "unknown": "?", "warn": "!"}
_MS: Final = 1e6
_S: Final = 1e9
_MINUTE_S: Final = 60
_GIB: Final = 2**30
_MIB: Final = 2**20
_KIB: Final = 2**10
# What no terminal, XML 1.0 or HTML document may carry: control characters but tab and line feed, halves of
# surrogate pairs (a JSON string may hold one), and the two non-characters.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_TEXT_CHARS_MAX: Final = 400


def clean(text: object, *, limit: int | None = _TEXT_CHARS_MAX) -> str:
    """Text that may be printed anywhere: unprintable characters are replaced, an end beyond ``limit`` is cut."""
    line = _UNPRINTABLE.sub("\ufffd", str(text))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def duration(nanoseconds: float | None) -> str:
    """``0.42 ms``, ``123 ms``, ``1.32 s``, ``2 min 05 s``."""
    if nanoseconds is None:
        return NOTHING
    size = abs(nanoseconds)
    if size < 10 * _MS and size:
        return f"{nanoseconds / _MS:.2f} ms"
    if size < _S - _MS / 2:  # what would be rounded to 1000 ms is 1.00 s
        return f"{nanoseconds / _MS:.0f} ms"
    if size < _MINUTE_S * _S:
        return f"{nanoseconds / _S:.2f} s"
    minutes, seconds = divmod(round(nanoseconds / _S), _MINUTE_S)
    return f"{minutes} min {seconds:02d} s"


def pair(values_ns: tuple[float, float] | None) -> tuple[str, str]:
    """Two durations, or two dashes."""
    return (duration(values_ns[0]), duration(values_ns[1])) if values_ns else (NOTHING, NOTHING)


def size(size_bytes: float | None) -> str:
    """``96.4 MiB``, ``12.0 KiB``, ``312 B``."""
    if size_bytes is None:
        return NOTHING
    if size_bytes >= _GIB:
        return f"{size_bytes / _GIB:.1f} GiB"
    if size_bytes >= _MIB:
        return f"{size_bytes / _MIB:.1f} MiB"
    return f"{size_bytes / _KIB:.1f} KiB" if size_bytes >= _KIB else f"{size_bytes:.0f} B"


def moment(time_ns: int | None) -> str:
    """``2024-06-07 09:30:00 UTC``."""
    if time_ns is None:
        return NOTHING
    return datetime.fromtimestamp(time_ns / _S, tz=UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def count(number: int, noun: str, plural: str | None = None) -> str:
    """``1 gate``, ``2 gates``, ``2 retries``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def number(value: float) -> str:
    """A number with at most six digits, whole ones in full."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def observed(gate: Mapping[str, Any]) -> str:
    """What a gate saw, with its unit."""
    value = gate.get("observed")
    if value is None:
        return "nothing"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return clean(value)
    unit = clean(gate.get("unit") or "")
    return f"{number(value)} {unit}".rstrip()


def commit(run: Mapping[str, Any]) -> str:
    """Which source ran; a tree that was not as committed says so."""
    text = clean(run.get("commit") or NOTHING, limit=13)
    return f"{text} (modified)" if run.get("modified") else text


def task(name: object) -> str:
    """A task's name without its module."""
    return clean(name).rpartition(".")[2]


def one_line(text: object, *, limit: int = _TEXT_CHARS_MAX) -> str:
    """Text without line ends."""
    return " ".join(clean(text, limit=limit).split())
