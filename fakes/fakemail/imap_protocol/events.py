"""What the protocol core asks of the shell around it. Pure. Called by: every module here, imap_server."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeVar

Piece = bytes | memoryview


@dataclass(frozen=True, kw_only=True, slots=True)
class Gather:
    """Bytes to write, in pieces that need not be put together first."""

    parts: list[Piece]
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Delay:
    """Wait so long before going on."""

    delay_ms: int


@dataclass(frozen=True, kw_only=True)
class Close:
    """End the connection; ``abrupt`` as if the cable was cut."""

    abrupt: bool = False


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Ask for events again when bytes arrive or mail changes."""


@dataclass(frozen=True, kw_only=True)
class Pause:
    """A long answer is being worked out: let others have a turn."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """From here on write so many bytes a second; None: as fast as it goes."""

    bytes_per_s: int | None


@dataclass(frozen=True, kw_only=True)
class Stall:
    """Say nothing more, and keep the connection."""


@dataclass(frozen=True, kw_only=True)
class StartTls:
    """Begin the TLS handshake (RFC 3501 section 6.2.1)."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """From a command to its session alone: the next line that the client sends is for it."""

    #: Tell the news while it waits (RFC 2177).
    idle: bool = False


Event = bytes | Gather | Delay | Close | Wait | Pause | Pace | Stall | StartTls | Line
_T = TypeVar("_T")
#: Yields events on the way to a value.
Steps = Generator[Event, None, _T]


def paused(parts: Iterable[_T]) -> Steps[list[_T]]:
    """Work in parts, with a pause between any two of them."""
    found: list[_T] = []
    for part in parts:
        if found:
            yield Pause()
        found.append(part)
    return found
