"""What the user sees while a run goes on: a line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

#: Between two lines of progress in a log, seconds.
LOG_EVERY_S: Final = 5.0
_CLEAR: Final = "\r\x1b[K"


class Screen:
    """Writes to stderr: stdout is for the verdict."""

    def __init__(self, out: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out or sys.stderr, clock
        self._tty = self._out.isatty()
        self._start_s = self._last_s = clock()

    def step(self, text: str) -> None:
        """A step of the run has begun."""
        self._out.write(f"{_CLEAR if self._tty else ''}{self._line(text)}\n")
        self._out.flush()

    def progress(self, text: str) -> None:
        """How far it is; call it as often as you like."""
        if self._tty:
            # A line that wraps could not be taken back.
            self._out.write(_CLEAR + self._line(text)[: shutil.get_terminal_size().columns - 1])
            self._out.flush()
        elif self._clock() - self._last_s >= LOG_EVERY_S:
            self._last_s = self._clock()
            self.step(text)

    def _line(self, text: str) -> str:
        return f"[{self._clock() - self._start_s:5.1f} s] {text}"
