"""Looking for what must be nowhere: the run's secrets, in every form they could have taken, in everything it left.

Owns which places are searched (sinks) and what a secret may look like there. Every mailbox has a canary for a password;
tokens, keys and the databases' passwords are searched for as well. Rule 1: a row says how much was searched and for how
many secrets, so that nobody takes "found nothing" for "looked at nothing"; a sink that can't be searched says why.
Rule 2: no secret is written down, not even here: a hit has its name and the beginning of its hash.
Rule 3: everything streams. Not seen: what lived in Redis and was gone before the end, unless the broker's own log of
commands is at hand; and in an attached stack the columns that neither ``mail_audit`` nor ``mail_system`` may read.
Called by runner; the tests of the service search with the same forms.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.parse import quote

import psutil
import psycopg
import redis
from psycopg import sql

from mailrig.clients import Account

Secret: TypeAlias = str | bytes
#: A place's name and a piece of what is in it; pieces of one name follow each other.
Piece: TypeAlias = tuple[str, bytes]
Pieces: TypeAlias = Iterable[Piece]
Row: TypeAlias = dict[str, Any]

#: Shorter forms would be found by chance.
FORM_BYTES_MIN: Final = 8
#: Hits that a row shows; all are counted.
HITS_MAX: Final = 50
_CHUNK_BYTES: Final = 1 << 20
_KEYS_AT_ONCE: Final = 500
_TIMEOUT_S: Final = 10.0
#: Columns that can hold a text.
_TEXTS: Final = ("text", "character varying", "character", "json", "jsonb", "bytea", "ARRAY", "name", "USER-DEFINED")


def forms(secret: Secret) -> frozenset[bytes]:
    """What a secret looks like: as it is, escaped, in a URL, in hexadecimal, and inside base64 of a longer text.

    AUTH PLAIN and XOAUTH2 are base64 of a longer text.
    """
    raw = secret.encode() if isinstance(secret, str) else secret
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), *_in_base64(raw)}
    found |= {quote(raw, safe=safe).encode() for safe in ("", "/")}
    found.add(json.dumps(raw.decode("latin-1"))[1:-1].encode())
    # As MONITOR and Python print bytes.
    found.add(repr(raw)[2:-1].encode())
    return frozenset(form for form in found if len(form) >= FORM_BYTES_MIN)


def _in_base64(raw: bytes) -> Iterator[bytes]:
    """The part that no neighbour changes, at each of the three places where the text can begin."""
    for shift in range(3):
        text = base64.b64encode(b"\0" * shift + raw)
        inner = text[-(-shift * 4 // 3) : (shift + len(raw)) * 4 // 3]
        yield inner
        yield inner.replace(b"+", b"-").replace(b"/", b"_")


class Searcher:
    """Searches places for some secrets."""

    def __init__(self, secrets: Mapping[str, Secret]) -> None:
        self._forms = {name: sorted(forms(secret)) for name, secret in secrets.items()}
        self._forms = {name: found for name, found in self._forms.items() if found}
        self._hashes = {name: _hash(secrets[name]) for name in self._forms}
        # What a form that stands across two pieces may have in the first of them.
        self._carried = max((len(f) for found in self._forms.values() for f in found), default=1) - 1

    def __repr__(self) -> str:
        return f"Searcher({len(self._forms)} secrets)"

    def search(self, sink: str, pieces: Pieces, *, unseen: str = "") -> Row:
        """A line of ``leaks.jsonl``; ``unseen`` says what of the sink is out of reach."""
        row: Row = {"sink": sink, "bytes": 0, "places": 0, "secrets_searched": len(self._forms), "hits": []}
        found: Counter[tuple[str, str]] = Counter()
        lines: dict[tuple[str, str], int] = {}
        error = None
        try:
            for name, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
                row["places"] += 1
                row["bytes"] += self._search_place(name, (data for _, data in group), found, lines)
        except (OSError, redis.RedisError, psycopg.Error, psutil.Error) as err:
            # Never its words: they may quote what was searched.
            error = type(err).__name__
        row["hits"] = [
            {
                "secret": secret,
                "sha256": self._hashes[secret],
                "where": where,
                "line": lines[secret, where],
                "count": count,
            }
            for (secret, where), count in sorted(found.items())[:HITS_MAX]
        ]
        return {**row, "hits_total": len(found), "error": error, "unseen": unseen}

    def _search_place(
        self,
        name: str,
        datas: Iterable[bytes],
        found: Counter[tuple[str, str]],
        lines: dict[tuple[str, str], int],
    ) -> int:
        size, tail, line = 0, b"", 1
        for data in datas:
            size += len(data)
            window = tail + data
            for secret, needles in self._forms.items():
                # What ends in the tail was counted with the piece before.
                count = sum(_count(window, needle, after=len(tail)) for needle in needles)
                if count:
                    found[secret, name] += count
                    first = min(place for needle in needles if (place := window.find(needle)) >= 0)
                    lines.setdefault((secret, name), line + window.count(b"\n", 0, first))
            tail = window[-self._carried :] if self._carried else b""
            line += window.count(b"\n", 0, len(window) - len(tail))
        return size

    def found_in(self, pieces: Pieces) -> list[str]:
        """``secret in place`` for each leak, for tests."""
        row = self.search("any", pieces)
        if row["error"]:
            raise AssertionError(f"a place could not be searched: {row['error']}")
        return [f"{hit['secret']} in {hit['where']}" for hit in row["hits"]]


def _count(window: bytes, needle: bytes, *, after: int) -> int:
    start = max(0, after - len(needle) + 1)
    return window.count(needle, start) if needle in window else 0


def _hash(secret: Secret) -> str:
    """Enough to compare two rows, too little to try passwords against."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()[:8]


# --- places -----------------------------------------------------------------------------------------------------------


def file_pieces(*roots: Path, without: Callable[[Path], bool] = lambda _: False) -> Iterator[Piece]:
    """Every file at or below the roots, with its place below the root's parent."""
    for root in roots:
        for path in sorted(root.rglob("*") if root.is_dir() else [root]):
            if path.is_file() and not path.is_symlink() and not without(path):
                name = str(path.relative_to(root)) if path != root else path.name
                with path.open("rb") as file:
                    yield from ((name, data) for data in iter(lambda: file.read(_CHUNK_BYTES), b""))


def redis_pieces(url: str) -> Iterator[Piece]:
    """Every key of every database of a server, with its value. The URL names no database."""
    for number in _databases(url):
        with redis.Redis.from_url(f"{url}/{number}", socket_timeout=_TIMEOUT_S) as client:
            for keys in _batched(client.scan_iter(count=1000), _KEYS_AT_ONCE):
                for key, value in zip(keys, _values(client, keys), strict=True):
                    yield f"redis {number} {key.decode('ascii', 'backslashreplace')}", key + b" " + value


def _databases(url: str) -> list[int]:
    with redis.Redis.from_url(f"{url}/0", socket_timeout=_TIMEOUT_S) as client:
        return sorted(int(name.removeprefix("db")) for name in client.info("keyspace"))


def _values(client: Any, keys: Sequence[bytes]) -> list[bytes]:
    """What is behind the keys, in two round trips; what has just expired is empty."""
    kinds = _pipelined(client, [("TYPE", key) for key in keys])
    reading = {
        b"string": ("GET",), b"list": ("LRANGE", 0, -1), b"hash": ("HGETALL",), b"set": ("SMEMBERS",),
        b"zset": ("ZRANGE", 0, -1), b"stream": ("XRANGE", "-", "+"),
    }  # fmt: skip
    asked = [(key, reading.get(_bytes(kind), ("EXISTS",))) for key, kind in zip(keys, kinds, strict=True)]
    return [_flat(answer) for answer in _pipelined(client, [(c[0], key, *c[1:]) for key, c in asked])]


def _pipelined(client: Any, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for command in commands:
            pipe.execute_command(*command)
        # A key that became another kind meanwhile answers an error, in its place.
        answers: list[Any] = pipe.execute(raise_on_error=False)
    return answers


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _flat(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return b" ".join(_flat(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return b" ".join(_flat(part) for part in value)
    return b"" if value is None else _bytes(value)


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What a role may read of a schema."""

    url: str = field(repr=False)
    schema: str
    #: Whose rows: row-level security shows one tenant's at a time. Empty where the role sees those of all.
    tenants: tuple[str, ...] = ()


def column_pieces(tables: Tables, *, without: frozenset[tuple[str, str]] = frozenset()) -> Iterator[Piece]:
    """Every column that can hold a text, of every table and view that the role may read, in PostgreSQL's binary form.

    In it texts and bytes are as they were stored, without an escape.
    """
    with psycopg.connect(tables.url, connect_timeout=5) as connection:
        columns = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns "
            "WHERE table_schema = %s AND data_type = ANY(%s) "
            # A column that the role may only write is listed, too.
            "AND has_column_privilege(format('%%I.%%I', table_schema, table_name), column_name::text, 'SELECT') "
            "ORDER BY 1, ordinal_position",
            (tables.schema, list(_TEXTS)),
        ).fetchall()
        for tenant in tables.tenants or (None,):
            if tenant is not None:
                connection.execute("SELECT set_config('app.tenant_id', %s, false)", (tenant,))
            for table, column in columns:
                if (table, column) not in without:
                    yield from _column(connection, tables.schema, table, column)


def _column(connection: psycopg.Connection[Any], schema: str, table: str, column: str) -> Iterator[Piece]:
    query = sql.SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT binary)").format(
        sql.Identifier(column), sql.Identifier(schema, table)
    )
    name, parts, size = f"column {table}.{column}", [], 0
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        for data in copy:
            parts.append(bytes(data))
            size += len(data)
            if size > _CHUNK_BYTES:
                yield name, b"".join(parts)
                parts, size = [], 0
    yield name, b"".join(parts)


def page_pieces(name: str, url: str, token: str | None = None) -> Iterator[Piece]:
    """What a server answers to a GET."""
    request = urllib.request.Request(url)  # noqa: S310  # our own servers
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310  # as above
        yield name, answer.read()


def answer_pieces(api_url: str, accounts: Sequence[Account]) -> Iterator[Piece]:
    """What the API tells each tenant of its clients and its tasks."""
    for account in accounts:
        for path in ("email/clients", "tasks?limit=200", "email/messages?limit=50"):
            where = f"GET {path} of {account.tenant}"
            yield from page_pieces(where, f"{api_url}/api/v1/{account.tenant}/{path}", account.token)


def command_lines(pids: Mapping[str, int]) -> Iterator[Piece]:
    """What any user of the machine sees of our processes."""
    for kind, pid in pids.items():
        yield f"command line of {kind}", "\0".join(psutil.Process(pid).cmdline()).encode()


def _batched(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
