"""The Ledger: what the servers did, in order; the outside truth that a test compares with.

Owns: entries, their sequence numbers, their bounds, the questions about them. Never does: I/O, protocols. The clock is
given. Called by: imap_server, smtp_server and control (``record``), control (``after``, ``last``, ``export``).

Rule 1: an entry is never changed once it is recorded; what is read is a copy that JSON can hold.
Rule 2: ``seq`` grows by one and never starts again; the oldest entries make room, and ``dropped`` counts them.
Rule 3: entries that come in floods never push out those that prove something: each ring has room of its own.
Rule 4: no password and no token ever enters: a fact that could hold one is refused.
"""

from __future__ import annotations

import heapq
import json
import marshal
import math
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

#: Kinds of entries by ring, with the share of the memory that each ring has for itself.
RINGS: Final[Mapping[str, tuple[tuple[str, ...], float]]] = {
    "mail": (("accepted",), 0.5),
    "refusals": (("refused",), 0.1),
    "faults": (("fault",), 0.1),
    "changes": (("timeline",), 0.1),
    "sessions": (("connect", "disconnect", "login"), 0.1),
    # Every other kind too.
    "commands": (("served",), 0.1),
}
_RING_OF: Final = {kind: name for name, (kinds, _) in RINGS.items() for kind in kinds}
#: What an entry of a kind may say, where that is limited.
_ONLY: Final[Mapping[str, frozenset[str]]] = {"login": frozenset({"user", "mechanism", "success"})}
_SECRET: Final = frozenset({"password", "token", "secret", "credentials", "authorization", "initial_response"})
_HEAD: Final = frozenset({"seq", "time_ns", "protocol", "connection", "kind"})
#: Facts that are compared in any case of letters.
_LOOSE: Final = frozenset({"user", "command"})
#: Bytes of an entry beside its facts: a tuple, its numbers, the head of a bytes object, its place in the ring.
_ENTRY_BYTES: Final = 240
#: Entries that an export reads at once.
_PAGE: Final = 500

#: (seq, time_ns, connection, number of its shape, the values of its facts, packed): a tuple of what the garbage
#: collector need not look into, for there are many.
_Entry = tuple[int, int, int, int, bytes]


@dataclass(slots=True, kw_only=True)
class _Ring:
    """Entries of some kinds, oldest first, within bounds."""

    capacity: int
    bytes_max: int
    size_bytes: int = 0
    dropped: int = 0
    entries: deque[_Entry] = field(default_factory=deque)

    def append(self, entry: _Entry) -> None:
        self.entries.append(entry)
        self.size_bytes += _ENTRY_BYTES + len(entry[4])
        while self.entries and (self.size_bytes > self.bytes_max or len(self.entries) > self.capacity):
            self.size_bytes -= _ENTRY_BYTES + len(self.entries.popleft()[4])
            self.dropped += 1

    def after(self, seq: int) -> Iterator[_Entry]:
        return islice(self.entries, bisect_left(self.entries, (seq + 1,)), None)

    def clear(self) -> None:
        self.entries.clear()
        self.size_bytes = self.dropped = 0


@dataclass(slots=True, kw_only=True)
class _Shape:
    """What entries from one place in the servers have in common, so that each holds no more than its values."""

    number: int
    protocol: str
    kind: str
    #: Of the facts, in order.
    names: tuple[str, ...]
    ring: _Ring
    count: int = 0


class Ledger:
    """What the servers did, in order; ``capacity`` bounds each ring, ``bytes_max`` all of them."""

    def __init__(
        self, *, capacity: int = 100_000, bytes_max: int = 64 * 1024 * 1024, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self._rings = {
            name: _Ring(capacity=capacity, bytes_max=int(bytes_max * share)) for name, (_, share) in RINGS.items()
        }
        self._shapes: list[_Shape] = []
        self._by_names: dict[tuple[str, ...], _Shape] = {}
        self._clock = clock
        self._connections = 0
        #: Of the last entry; 0 before the first.
        self.seq = 0

    # --- what happens ---

    def open_connection(self) -> int:
        """A number for a new connection."""
        self._connections += 1
        return self._connections

    def record(self, *, protocol: str, connection: int, kind: str, **facts: object) -> None:
        """Append an entry. What a list or a table holds is copied, so the caller may go on with it."""
        shape = self._by_names.get((protocol, kind, *facts))
        if shape is None:
            shape = self._learn(protocol, kind, tuple(facts))
        # Packing copies, tells the size and takes less memory, all at once and faster than looking at each value.
        values: tuple[Any, ...] = tuple(facts.values())
        try:
            packed = marshal.dumps(values) if values else b""
        except ValueError:
            packed = marshal.dumps(tuple(map(_plain, values)))
        self.seq = seq = self.seq + 1
        shape.count += 1
        shape.ring.append((seq, self._clock(), connection, shape.number, packed))

    def _learn(self, protocol: str, kind: str, names: tuple[str, ...]) -> _Shape:
        """The shape of entries that say these facts."""
        allowed = _ONLY.get(kind, names)
        if wrong := [name for name in names if name in _SECRET | _HEAD or name not in allowed]:
            raise ValueError(f"an entry of kind {kind!r} must not say {wrong[0]!r}")
        ring = self._rings[_RING_OF.get(kind, "commands")]
        shape = _Shape(number=len(self._shapes), protocol=protocol, kind=kind, names=names, ring=ring)
        self._shapes.append(shape)
        self._by_names[(protocol, kind, *names)] = shape
        return shape

    def clear(self) -> None:
        """Forget the entries and the counts; numbers go on."""
        for ring in self._rings.values():
            ring.clear()
        for shape in self._shapes:
            shape.count = 0

    # --- how much there is ---

    @property
    def dropped(self) -> int:
        """Entries that made room for later ones."""
        return sum(ring.dropped for ring in self._rings.values())

    @property
    def dropped_by_ring(self) -> dict[str, int]:
        """The same for each ring."""
        return {name: ring.dropped for name, ring in self._rings.items()}

    @property
    def counts(self) -> dict[str, int]:
        """How many entries of each kind were recorded since the last ``clear``, also those that made room."""
        found: dict[str, int] = {}
        for shape in self._shapes:
            if shape.count:
                found[shape.kind] = found.get(shape.kind, 0) + shape.count
        return found

    @property
    def size_bytes(self) -> int:
        """What the entries take, by estimate."""
        return sum(ring.size_bytes for ring in self._rings.values())

    # --- questions ---

    def after(self, seq: int, *, limit: int, **filters: Any) -> list[dict[str, Any]]:
        """At most ``limit`` entries that come after ``seq`` and fit all filters, oldest first.

        A filter is ``kind``, ``protocol``, ``connection``, ``since_ns``, or any fact by its name; ``user`` and
        ``command`` in any case of letters; of a list one that is equal is enough. None fits everything.
        """
        wanted = _given(filters)
        lines = [ring.after(seq) for ring in self._rings_of(wanted)]
        return self._read(heapq.merge(*lines), wanted, limit)

    def last(self, count: int, **filters: Any) -> list[dict[str, Any]]:
        """The last ``count`` entries that fit all filters, oldest first."""
        wanted = _given(filters)
        lines = [reversed(ring.entries) for ring in self._rings_of(wanted)]
        return self._read(heapq.merge(*lines, reverse=True), wanted, count)[::-1]

    def export(self, *, after: int = 0, **filters: Any) -> Iterator[bytes]:
        """Everything that is there now and fits, as JSON lines in chunks; entries may be recorded meanwhile."""
        until = self.seq
        while after < until:
            page = self.after(after, limit=_PAGE, **filters)
            lines = [json.dumps(entry).encode() + b"\n" for entry in page if entry["seq"] <= until]
            if not lines:
                return
            yield b"".join(lines)
            after = page[-1]["seq"]

    def _rings_of(self, wanted: Mapping[str, Any]) -> Iterable[_Ring]:
        if "kind" in wanted:
            return (self._rings[_RING_OF.get(wanted["kind"], "commands")],)
        return self._rings.values()

    def _read(self, entries: Iterable[_Entry], wanted: Mapping[str, Any], limit: int) -> list[dict[str, Any]]:
        heads = {name: value for name, value in wanted.items() if name in _HEAD or name == "since_ns"}
        facts = {name: value for name, value in wanted.items() if name not in heads}
        fitting = (row for entry in entries if (row := self._fit(entry, heads, facts)) is not None)
        return list(islice(fitting, limit))

    def _fit(self, entry: _Entry, heads: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry as it is read, if it fits."""
        seq, time_ns, connection, number, packed = entry
        shape = self._shapes[number]
        row: dict[str, Any] = {
            "seq": seq, "time_ns": time_ns, "protocol": shape.protocol, "connection": connection, "kind": shape.kind,
        }  # fmt: skip
        if heads and not all(
            time_ns >= value if name == "since_ns" else row[name] == value for name, value in heads.items()
        ):
            return None
        # Facts that entries of this shape never say need no unpacking.
        if facts and not facts.keys() <= set(shape.names):
            return None
        if packed:
            # Nothing but ``record`` packs what is unpacked here.
            values = marshal.loads(packed)  # noqa: S302
            row.update(zip(shape.names, map(_safe, values), strict=True))
        return row if all(_says(row[name], value, name) for name, value in facts.items()) else None


def _given(filters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in filters.items() if value is not None}


def _says(said: Any, value: Any, name: str) -> bool:
    if name in _LOOSE and isinstance(said, str):
        return said.lower() == str(value).lower()
    return bool(said == value) or (isinstance(said, list | dict) and value in said)


def _plain(value: Any) -> Any:
    """A value that can be packed: what is of no plain type becomes the one it is made from, or text."""
    if value is None or isinstance(value, bool | bytes):
        return value
    for plain in (int, float, str):
        if isinstance(value, plain):
            return plain(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    return str(value)


def _safe(value: Any) -> Any:
    """The value as JSON and UTF-8 can hold it."""
    if isinstance(value, str):
        # What a client sent as bytes that are no UTF-8 is kept readable: \udcff.
        return value if value.isascii() else value.encode("utf-8", errors="backslashreplace").decode("utf-8")
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="backslashreplace")
    if isinstance(value, list | tuple | set | frozenset):
        safe = [_safe(each) for each in value]
        return sorted(safe, key=str) if isinstance(value, set | frozenset) else safe
    if isinstance(value, dict):
        return {str(_safe(key)): _safe(each) for key, each in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
