"""SIGINT, SIGTERM and SIGHUP as one exception, raised at most once and never in the middle of cleaning up.

The first signal raises ``Stopped`` in the main thread, so that every ``with`` block is left as it should be. Later ones
change nothing: what they ask for is happening. A block under ``deferred`` is finished first, and in one under
``listening`` the first SIGINT is a wish that the block itself heeds.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """Somebody wants the rig to end; like KeyboardInterrupt, it is no error that anybody should handle in passing."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        #: What shells expect of a program that a signal has ended.
        self.exit_code = 128 + number


@dataclass
class Wish:
    """Whether somebody would like an early end, and since when."""

    asked_ns: int | None = None

    @property
    def asked(self) -> bool:
        """Whether somebody has asked."""
        return self.asked_ns is not None


class _State:
    """Signals are of the process, and so is what is known about them."""

    def __init__(self) -> None:
        self.raised = False
        self.deferrals = 0
        self.pending: int | None = None
        self.wish: Wish | None = None

    def on_signal(self, number: int, _frame: object) -> None:
        if number == signal.SIGINT and self.wish is not None and not self.wish.asked:
            self.wish.asked_ns = time.time_ns()
        elif self.deferrals:
            self.pending = self.pending or number
        elif not self.raised:
            self._raise(number)

    def leave_deferral(self) -> None:
        self.deferrals -= 1
        if not self.deferrals and self.pending is not None and not self.raised:
            self._raise(self.pending)

    def _raise(self, number: int) -> None:
        self.raised = True
        raise Stopped(number)


_state = _State()


def stop_on_signals() -> None:
    """From now on a signal raises ``Stopped`` in the main thread, which must be the caller's."""
    global _state  # noqa: PLW0603  # see _State
    _state = _State()
    for number in SIGNALS:
        signal.signal(number, _state.on_signal)


@contextmanager
def deferred() -> Iterator[None]:
    """A block that no signal interrupts; one that came meanwhile is raised behind it."""
    state = _state
    state.deferrals += 1
    try:
        yield
    finally:
        state.leave_deferral()


@contextmanager
def listening() -> Iterator[Wish]:
    """A block in which the first SIGINT is a wish; the second one raises, as all other signals do."""
    state, wish = _state, Wish()
    state.wish = wish
    try:
        yield wish
    finally:
        state.wish = None
