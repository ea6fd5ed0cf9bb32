"""How long an execution is in each step of SMTP and IMAP: seconds by name, for its row.

The spans of the same steps may be sampled, and a metric may not: so the time is taken beside them. ``service.work``
begins a collection when an execution begins, ``smtp`` and ``imap`` add to it. A step that fails
took its time too. Outside of an execution nothing is collected.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

#: A thread that reads ahead runs in a copy of its caller's context, and so adds to the same collection. One of the two
#: alone talks to the server.
_collected: Final[ContextVar[dict[str, float] | None]] = ContextVar("steps", default=None)


def begin() -> dict[str, float]:
    """A new collection, in this context, until the next one; it is filled while the caller keeps it."""
    seconds: dict[str, float] = {}
    _collected.set(seconds)
    return seconds


@contextmanager
def measured(name: str) -> Iterator[None]:
    """Add the time of the block to its step: ``smtp send`` is ``smtp.send``."""
    seconds = _collected.get()
    if seconds is None:
        yield
        return
    began_s = time.perf_counter()
    try:
        yield
    finally:
        key = name.replace(" ", ".")
        seconds[key] = seconds.get(key, 0.0) + time.perf_counter() - began_s
