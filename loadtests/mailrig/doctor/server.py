"""A Redis server, asked what it is. Reads only; two seconds for each answer. Called by cli."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from mailrig.doctor.facts import Server
from mailrig.doctor.findings import Finding, look_at
from mailrig.doctor.server_traps import SERVER

TIMEOUT_S: Final = 2.0
#: How many results are looked at, and how far the keys are searched for them.
RESULTS_MAX: Final = 100
_SCANS_MAX: Final = 20
_RESULT_KEYS: Final = "celery-task-meta-*"
_SCHEMES: Final = {"redis", "rediss", "unix"}


class AwayError(Exception):
    """The server can't be asked."""


def ask_server(url: str, result_url: str = "", *, timeout_s: float = TIMEOUT_S) -> Server:
    """What the broker's server says, and what the results look like where they are.

    Raises:
        AwayError: it does not answer, or is no Redis.
    """
    try:
        with connect(url, timeout_s) as client:
            facts = _facts(client)
        results = _results(result_url, timeout_s) if _is_redis(result_url) else {}
    except (redis.RedisError, OSError, ValueError) as err:
        raise AwayError(f"{place(url)} can't be asked: {reason(err, timeout_s)}") from err
    return Server(place=place(url), **facts, **results)


def server_findings(asked: Server) -> list[Finding]:
    """One finding for each trap."""
    return look_at(asked, (SERVER,))


def place(url: str) -> str:
    """A URL without its login and options."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the URL of the broker"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path.rstrip('/')}"


def _is_redis(url: str) -> bool:
    return url.partition("://")[0] in _SCHEMES


def reason(err: Exception, timeout_s: float) -> str:
    """What went wrong, without the server's own words: redis-py puts its arguments into some."""
    if isinstance(err, redis.AuthenticationError):
        return "it refuses the password"
    if isinstance(err, redis.TimeoutError):
        return f"no answer within {timeout_s:g} s"
    if isinstance(err, redis.ConnectionError | OSError):
        return "no connection"
    return type(err).__name__


def connect(url: str, timeout_s: float) -> redis.Redis:
    """A client that tries once, as kombu reads the URL.

    Raises:
        ValueError: it is no URL of a Redis.
    """
    if not _is_redis(url):
        raise ValueError
    # kombu's empty database is a path of slashes.
    scheme, _, rest = url.partition("://")
    plain = f"{scheme}://{rest.rstrip('/')}" if scheme != "unix" else url
    return redis.Redis.from_url(
        plain,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        decode_responses=True,
        encoding_errors="replace",
    )


def _facts(client: redis.Redis) -> dict[str, Any]:
    info: Any = client.info()
    config = _config(client)
    aof = info.get("aof_enabled")
    return {
        "version": str(info["redis_version"]) if "redis_version" in info else None,
        "appendonly": None if aof is None else bool(int(aof)),
        "appendfsync": config.get("appendfsync"),
        "maxmemory_policy": info.get("maxmemory_policy") or config.get("maxmemory-policy"),
        "maxmemory_bytes": info.get("maxmemory"),
        "used_bytes": info.get("used_memory"),
        "write_errors": tuple(_write_errors(info)),
        "role": info.get("role"),
    }


def _config(client: redis.Redis) -> dict[str, str]:
    """Managed servers forbid CONFIG; what INFO says is enough but for one row."""
    try:
        answer = client.config_get("appendfsync", "maxmemory-policy")
    except redis.ResponseError:
        return {}
    return {str(name): str(value) for name, value in answer.items()}


def _write_errors(info: Mapping[str, Any]) -> list[str]:
    names = {
        "rdb_last_bgsave_status": "snapshot",
        "aof_last_write_status": "append",
        "aof_last_bgrewrite_status": "rewrite",
    }
    return [text for name, text in names.items() if info.get(name, "ok") != "ok"]


def _results(url: str, timeout_s: float) -> dict[str, Any]:
    with connect(url, timeout_s) as client:
        keys = _some_results(client)
        lives = [int(client.ttl(key)) for key in keys]
    # -2 says that it has gone since.
    ending = [life for life in lives if life >= 0]
    return {
        "results_seen": len(ending) + lives.count(-1),
        "results_endless": lives.count(-1),
        "result_ttl_s_min": min(ending, default=None),
    }


def _some_results(client: redis.Redis) -> list[str]:
    """A bounded look: SCAN goes on from where it was, never KEYS, which stops the server."""
    keys: set[str] = set()
    cursor = 0
    for _ in range(_SCANS_MAX):
        cursor, found = client.scan(cursor, match=_RESULT_KEYS, count=500)
        keys.update(map(str, found))
        if not cursor or len(keys) >= RESULTS_MAX:
            break
    return sorted(keys)[:RESULTS_MAX]
