"""What the user sees while a run goes on: a line that changes on a terminal, a line now and then elsewhere.

Writes to stderr alone, and nothing at all when it is to be quiet. Called by runner.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from mailrig.scenario import Load

#: Between two lines of progress in a log, seconds.
LOG_EVERY_S: Final = 5.0
#: Between two looks at what costs something to look at, seconds.
GLANCE_EVERY_S: Final = 1.0
_CLEAR: Final = "\r\x1b[K"


class Screen:
    """Writes to stderr: stdout is for the verdict."""

    def __init__(
        self, out: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic, quiet: bool = False
    ) -> None:
        self._out, self._clock, self._quiet = out or sys.stderr, clock, quiet
        self._tty = self._out.isatty()
        self._start_s = self._last_s = clock()

    def step(self, text: str) -> None:
        """A step of the run has begun."""
        if not self._quiet:
            self._out.write(f"{_CLEAR if self._tty else ''}{self._line(text)}\n")
            self._out.flush()

    def progress(self, text: str) -> None:
        """How far it is; call it as often as you like."""
        if self._quiet:
            return
        if self._tty:
            # A line that wraps could not be taken back.
            self._out.write(_CLEAR + self._line(text)[: shutil.get_terminal_size().columns - 1])
            self._out.flush()
        elif self._clock() - self._last_s >= LOG_EVERY_S:
            self._last_s = self._clock()
            self.step(text)

    def _line(self, text: str) -> str:
        return f"[{self._clock() - self._start_s:5.1f} s] {text}"


class Glance:
    """A text that is made anew once a second at most, however often it is shown."""

    def __init__(self, make: Callable[[], str], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._make, self._clock = make, clock
        self._text, self._due_s = "", clock()

    def __str__(self) -> str:
        if self._clock() >= self._due_s:
            self._text, self._due_s = self._make(), self._clock() + GLANCE_EVERY_S
        return self._text


def time_left(load: Load, *, drain_s: float, gone_s: float | None) -> str:
    """The phase, and how long it will last. ``gone_s`` counts from the start of the warm-up; before it nobody knows."""
    if gone_s is None:
        return ""
    if gone_s < load.warmup_s:
        return f"warm-up, {load.warmup_s - gone_s:.0f} s left, then {load.duration_s:g} s of load"
    if gone_s < load.total_s:
        return f"load, {load.total_s - gone_s:.0f} s left"
    return f"drain, {max(load.total_s + drain_s - gone_s, 0):.0f} s left at most"
