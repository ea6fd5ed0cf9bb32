"""Looking for what must not be there, with the rig's own search (``mailrig.leaks``); and what the broker is told.

A place is a name and its bytes. ``found`` answers ``canary in place`` for each leak: an empty list is the proof.
``test_secrets`` plants leaks on purpose and sees them found.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis

from mailrig.leaks import Searcher, Tables, column_pieces, file_pieces, redis_pieces

Place = tuple[str, bytes]


def found(canaries: Mapping[str, str | bytes], places: Iterable[Place]) -> list[str]:
    """Each canary's name with each place that holds it."""
    return Searcher(canaries).found_in(places)


def files(*folders: Path) -> Iterator[Place]:
    """Every file below the folders."""
    for name, data in file_pieces(*folders):
        yield f"file {Path(name).name}", data


def redis_values(url: str) -> Iterator[Place]:
    """Every key of every database, with its value."""
    return redis_pieces(url)


def rows(url: str, tenants: Iterable[str], *, without: frozenset[tuple[str, str]] = frozenset()) -> Iterator[Place]:
    """Every column that can hold a text, of every table that the role may read, with the tenants' rows."""
    return column_pieces(Tables(url=url, schema="public", tenants=tuple(tenants)), without=without)


@contextmanager
def redis_commands(url: str) -> Iterator[list[str]]:
    """Every command that the broker is sent meanwhile: also of what is in no key any more when one looks."""
    seen: list[str] = []
    begun, stop = threading.Event(), threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(url) as client, client.monitor() as monitor:
            begun.set()
            while not stop.is_set():
                # Not by the socket's timeout, at which the client drops the connection.
                if monitor.connection.can_read(timeout=0.2):
                    seen.append(monitor.next_command()["command"])

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert begun.wait(10)
    try:
        yield seen
    finally:
        stop.set()
        listener.join(10)
