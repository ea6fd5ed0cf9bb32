"""Looking for what must not be there: canaries, in every form that they could have taken, in every place of a stack.

A place is a name and its bytes. ``found`` answers ``canary in place`` for each leak: an empty list is the proof.
``test_secrets`` plants leaks on purpose and sees them found.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
import redis
from psycopg import sql

Place = tuple[str, bytes]
#: Shorter pieces would be found by chance.
_PIECE_MIN: Final = 8


def forms(canary: str | bytes) -> set[bytes]:
    """What a canary looks like as it is, escaped, in hexadecimal and inside base64 of a longer text."""
    raw = canary.encode() if isinstance(canary, str) else canary
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), quote(raw, safe="").encode(), *_in_base64(raw)}
    found.add(json.dumps(raw.decode("latin-1"))[1:-1].encode())
    # As MONITOR and Python print bytes.
    found.add(repr(raw)[2:-1].encode())
    return {form for form in found if len(form) >= _PIECE_MIN}


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """The part that no neighbour changes, at each of the three places where the text can begin."""
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        inner = text[-(-shift * 4 // 3) : (shift + len(raw)) * 4 // 3]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


def found(canaries: Mapping[str, str | bytes], places: Iterable[Place]) -> list[str]:
    """Each canary's name with each place that holds it."""
    looks = {name: forms(canary) for name, canary in canaries.items()}
    return sorted(
        f"{name} in {place}"
        for place, data in places
        for name, needles in looks.items()
        if any(needle in data for needle in needles)
    )


# --- places ---------------------------------------------------------------------------------------------------------


def files(*folders: Path) -> Iterator[Place]:
    """Every file below the folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                yield f"file {path.name}", path.read_bytes()


def redis_values(url: str) -> Iterator[Place]:
    """Every key of both databases, with its value."""
    for number in (0, 1):
        with redis.Redis.from_url(f"{url}/{number}") as client:
            for key in client.scan_iter(count=1000):
                yield f"redis {number} {key!r}", key + b" " + _value(client, key)


def _value(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return client.get(key) or b""
        case b"list":
            return b" ".join(client.lrange(key, 0, -1))
        case b"hash":
            return b" ".join(part for pair in client.hgetall(key).items() for part in pair)
        case b"set":
            return b" ".join(client.smembers(key))
        case b"zset":
            return b" ".join(client.zrange(key, 0, -1))
        case b"none":
            return b""
        case kind:
            raise AssertionError(f"no test looks into a {kind!r}")


@contextmanager
def redis_commands(url: str) -> Iterator[list[str]]:
    """Every command that the broker is sent meanwhile: also of what is in no key any more when one looks."""
    seen: list[str] = []
    begun, stop = threading.Event(), threading.Event()

    def listen() -> None:
        with redis.Redis.from_url(url, socket_timeout=0.2) as client, client.monitor() as monitor:
            begun.set()
            while not stop.is_set():
                try:
                    seen.append(monitor.next_command()["command"])
                except redis.TimeoutError:
                    continue

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert begun.wait(10)
    try:
        yield seen
    finally:
        stop.set()
        listener.join(10)


def rows(url: str, tenants: Iterable[str], *, without: frozenset[tuple[str, str]] = frozenset()) -> Iterator[Place]:
    """Every value of every column of every table that the tenants have rows in, as text; bytes as hexadecimal."""
    with psycopg.connect(url) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name IN (SELECT table_name FROM information_schema.columns WHERE column_name = 'tenant_id' "
            "AND table_schema = 'public') AND table_name IN (SELECT tablename FROM pg_tables) ORDER BY 1, 2"
        ).fetchall()
        for tenant in tenants:
            connection.execute("SELECT set_config('app.tenant_id', %s, false)", (tenant,))
            for table, column in columns:
                if (table, column) not in without:
                    yield f"column {table}.{column}", _column(connection, table, column)


def _column(connection: psycopg.Connection[Any], table: str, column: str) -> bytes:
    query = sql.SQL("SELECT coalesce(string_agg({}::text, ' '), '') FROM {}")
    row = connection.execute(query.format(sql.Identifier(column), sql.Identifier(table))).fetchone()
    return str(row[0]).encode() if row else b""
