"""The Ledger: what the servers did, in order; the outside truth that a test compares with.

Owns: entries, their sequence numbers, their bounds. Never does: I/O, protocols. The clock is given.
Called by: imap_server and smtp_server (``record``), control (``after``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any


class Ledger:
    """What the servers did, in order: the outside truth that a test compares with.

    Rule 1: an entry is never changed once it is recorded.
    Rule 2: ``seq`` grows by one and never starts again; the oldest entries make room, and ``dropped`` counts them.
    """

    def __init__(self, *, capacity: int = 100_000, clock: Callable[[], int] = time.time_ns) -> None:
        self._entries: deque[dict[str, Any]] = deque(maxlen=capacity)
        self._clock = clock
        self._connections = 0
        #: Of the last entry; 0 before the first.
        self.seq = 0
        #: Entries that made room for later ones.
        self.dropped = 0

    def open_connection(self) -> int:
        """A number for a new connection."""
        self._connections += 1
        return self._connections

    def record(self, *, protocol: str, connection: int, kind: str, **facts: object) -> None:
        """Append an entry."""
        self.dropped += len(self._entries) == self._entries.maxlen
        self.seq += 1
        head = {"seq": self.seq, "time_ns": self._clock(), "protocol": protocol, "connection": connection, "kind": kind}
        self._entries.append(head | facts)

    def after(self, seq: int, *, limit: int) -> list[dict[str, Any]]:
        """At most ``limit`` entries that come after ``seq``, oldest first."""
        first = self._entries[0]["seq"] if self._entries else 1
        skip = max(0, seq - first + 1)
        return list(islice(self._entries, skip, skip + limit))

    def clear(self) -> None:
        """Forget the entries; numbers go on."""
        self._entries.clear()
        self.dropped = 0
