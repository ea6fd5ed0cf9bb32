"""Waiting with a deadline."""

from __future__ import annotations

import threading
import time

#: How long a test waits for the system before it fails.
DEADLINE_S = 30.0


def until(condition, *, what, deadline_s=DEADLINE_S):
    """The first true answer of ``condition``; a deadline, never a fixed sleep."""
    deadline, tick = time.monotonic() + deadline_s, threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {deadline_s:g} s"
        tick.wait(0.02)
    return answer
