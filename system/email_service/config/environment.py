"""From the environment to ``Settings``: read once, checked, and all that is wrong told at once.

Called by ``__main__`` and by whoever else starts a process of the service.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from email_service.config import reading
from email_service.config.contradictions import contradictions
from email_service.config.names import overruled, unread
from email_service.config.reading import Reader
from email_service.config.settings import Settings
from email_service.config.variables import BY_NAME, FILE_SUFFIX, VARIABLES
from email_service.errors import ConfigError

#: Smallest and largest allowed MAIL_TIME_SCALE.
TIME_SCALE_RANGE: Final = (0.05, 1.0)
#: How much of a URL's login is shown: who, never with what.
_HIDDEN: Final = "***"
_KEY: Final = "CREDENTIAL_ENCRYPTION_KEY"

_T = TypeVar("_T")


def settings_from(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the environment.

    Raises:
        ConfigError: names each variable that is wrong, what it holds (unless it is a secret) and what would be right.
    """
    env = os.environ if environ is None else environ
    settings, problems = _read(env)
    if problems:
        raise ConfigError(_told(problems))
    return settings


def log_choice(env: Mapping[str, str]) -> tuple[str, Path | None]:
    """Format and folder of log lines, for a command that needs no other setting.

    Raises:
        ConfigError: the format is none.
    """
    reader = Reader(env)
    chosen = reader.one_of("MAIL_LOG_FORMAT", ("json", "text")), reader.path("MAIL_LOG_DIR")
    if reader.problems:
        raise ConfigError(_told(reader.problems))
    return chosen


def problems_of(environ: Mapping[str, str]) -> list[str]:
    """All that is wrong; empty when nothing is."""
    return _read(environ)[1]


def database_url(env: Mapping[str, str], name: str) -> str:
    """The SQLAlchemy form of a PostgreSQL URL, also for a command that needs no other setting.

    Raises:
        ConfigError: it is missing, or not a PostgreSQL URL.
    """
    reader = Reader(env)
    url = _database(reader, name)
    if reader.problems:
        raise ConfigError(_told(reader.problems))
    return url


def token_secret(env: Mapping[str, str]) -> str:
    """What tokens are signed with, for a command that needs no other setting.

    Raises:
        ConfigError: it is missing or too short.
    """
    reader = Reader(env)
    secret: str | None = _checked(
        reader, "MAIL_TOKEN_SECRET", reader.required("MAIL_TOKEN_SECRET"), reading.token_secret
    )
    if reader.problems or secret is None:
        raise ConfigError(_told(reader.problems))
    return secret


def shown(environ: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Name, value as it may be seen, and where it comes from, for each variable."""
    return [(v.name, _value_shown(environ, v.name), _origin(environ, v.name)) for v in VARIABLES]


def _value_shown(env: Mapping[str, str], name: str) -> str:
    value, default = env.get(name, ""), BY_NAME[name].default
    if BY_NAME[name].secret:
        return "set" if value or env.get(name + FILE_SUFFIX) or default else "not set"
    scheme, separator, rest = (value or default or "not set").partition("://")
    login, at, place = rest.rpartition("@")
    return scheme + separator + (_HIDDEN + at if login else "") + place


def _origin(env: Mapping[str, str], name: str) -> str:
    if env.get(name):
        return "environment"
    if BY_NAME[name].secret and env.get(name + FILE_SUFFIX):
        return f"{name}{FILE_SUFFIX}"
    return "default"


def _told(problems: Sequence[str]) -> str:
    return problems[0] if len(problems) == 1 else "\n  ".join((f"{len(problems)} problems", *problems))


def _read(env: Mapping[str, str]) -> tuple[Settings, list[str]]:
    reader = Reader(env)
    settings = Settings(**_stores(reader), **_keys(reader), **_mail(reader), **_tasks(reader), **_watching(reader))
    together = contradictions(settings, reader.refused)
    others = [] if "REDIS_URL" in reader.refused else overruled(env, settings.broker_url, settings.result_url)
    return settings, [*reader.problems, *together, *others, *unread(env)]


def _checked(reader: Reader, name: str, value: str | None, check: Callable[[str], _T]) -> Any:
    """The value once it is checked; None where there is none."""
    return reader.take(name, lambda: check(value), None) if value else None


def _stores(reader: Reader) -> dict[str, Any]:
    return {
        "database_url": _database(reader, "DATABASE_URL"),
        "database_system_url": _database(reader, "DATABASE_SYSTEM_URL"),
        "pool_size": reader.whole("DATABASE_POOL_SIZE", 1, 1000),
        "max_overflow": reader.whole("DATABASE_MAX_OVERFLOW", 0, 1000),
        "redis_url": _checked(reader, "REDIS_URL", reader.text("REDIS_URL"), reading.redis_url),
        "blob_url": _blob_url(reader),
        "keep_raw": reader.one_of("MAIL_KEEP_RAW", ("broken", "all")),
        "retention_days": reader.number("MAIL_RETENTION_DAYS", 0.01, 3650),
    }


def _database(reader: Reader, name: str) -> str:
    url: str = _checked(reader, name, reader.required(name), lambda value: reading.postgres_url(name, value))
    return url


def _blob_url(reader: Reader) -> str:
    directory = reader.optional("MAIL_BLOB_DIR")
    url = reader.optional("MAIL_BLOB_URL") if directory else reader.required("MAIL_BLOB_URL")
    return reader.take("MAIL_BLOB_URL", lambda: reading.blob_url(directory, url), "")


def _keys(reader: Reader) -> dict[str, Any]:
    current = reader.text("MAIL_CREDENTIAL_KEY_ID")
    secret, old = reader.required("MAIL_TOKEN_SECRET"), reader.text("MAIL_CREDENTIAL_KEYS_OLD")
    nothing: dict[str, bytes] = {}
    old_keys = reader.take("MAIL_CREDENTIAL_KEYS_OLD", lambda: reading.old_keys(old, current), nothing)
    key = _checked(reader, _KEY, reader.required(_KEY), lambda value: reading.key(_KEY, value))
    return {
        "credential_keys": {**old_keys, current: key},
        "credential_key_id": _checked(reader, "MAIL_CREDENTIAL_KEY_ID", current, reading.key_id),
        "token_secret": _checked(reader, "MAIL_TOKEN_SECRET", secret, reading.token_secret),
    }


def _mail(reader: Reader) -> dict[str, Any]:
    hosts = _each(reader, "MAIL_ALLOWED_HOSTS", reading.allowed_host)
    ca_file = reader.optional("MAIL_CA_FILE")
    return {
        "allowed_hosts": frozenset(hosts) - {"public"},
        "public_hosts": "public" in hosts,
        "ca_file": _checked(reader, "MAIL_CA_FILE", ca_file, lambda value: reading.ca_file(Path(value))),
        "mail_timeout_s": reader.number("MAIL_TIMEOUT_S", 0.1, 600),
        "smtp_idle_s": reader.number("MAIL_SMTP_IDLE_S", 0, 300),
        "cors_origins": _cors_origins(reader),
        "rate_limit": _checked(reader, "MAIL_RATE_LIMIT", reader.text("MAIL_RATE_LIMIT"), reading.rate_limit),
        "request_bytes_max": reader.whole("MAIL_REQUEST_BYTES_MAX", 1024, 1024**3),
    }


def _each(reader: Reader, name: str, check: Callable[[str], str]) -> tuple[str, ...]:
    """All entries of a list; each that is wrong is told."""
    return tuple(_checked(reader, name, word, check) for word in reader.words(name))


def _cors_origins(reader: Reader) -> tuple[str, ...]:
    words = reader.words("MAIL_CORS_ORIGINS")
    if words == ("*",):
        return words
    return _each(reader, "MAIL_CORS_ORIGINS", reading.origin)


def _tasks(reader: Reader) -> dict[str, Any]:
    host = socket.gethostname()
    concurrency = reader.whole("CELERYD_CONCURRENCY", 1, 256)
    return {
        "time_scale": reader.number("MAIL_TIME_SCALE", *TIME_SCALE_RANGE),
        "retry_mode": reader.one_of("MAIL_RETRY_MODE", ("row", "eta")),
        "soft_shutdown_s": reader.number("MAIL_SOFT_SHUTDOWN_S", 0, 3600),
        "concurrency": concurrency,
        "time_limit_s": reader.number("TASK_TIME_LIMIT", 1, 86_400),
        "soft_time_limit_s": reader.number("TASK_SOFT_TIME_LIMIT", 1, 86_400),
        "visibility_s": reader.number("MAIL_VISIBILITY_TIMEOUT_S", 1, 7 * 86_400),
        "prefetch_multiplier": _prefetch_multiplier(reader, concurrency),
        "tasks_per_child_max": reader.whole("WORKER_MAX_TASKS_PER_CHILD", 1, 1_000_000),
        "beat_store": Path(reader.text("MAIL_BEAT_STORE")),
        "node": _checked(reader, "MAIL_NODE", reader.optional("MAIL_NODE"), reading.node) or f"mail@{host}",
        "host": host,
    }


def _prefetch_multiplier(reader: Reader, concurrency: int) -> int:
    name = "WORKER_PREFETCH_MULTIPLIER"
    multiplier = reader.whole(name, 0, 10_000)
    return reader.take(name, lambda: reading.prefetch_multiplier(multiplier, concurrency), 1)


def _span_bytes_max(reader: Reader) -> int:
    value = reader.whole("MAIL_SPAN_BYTES_MAX", 0, 2**50)
    return reader.take("MAIL_SPAN_BYTES_MAX", lambda: reading.span_bytes_max(value), value)


def _watching(reader: Reader) -> dict[str, Any]:
    endpoint, password = reader.optional("OTEL_EXPORTER_OTLP_ENDPOINT"), reader.optional("MAIL_FLOWER_PASSWORD")
    headers = reader.optional("OTEL_EXPORTER_OTLP_HEADERS")
    return {
        "log_format": reader.one_of("MAIL_LOG_FORMAT", ("json", "text")),
        "log_dir": reader.path("MAIL_LOG_DIR"),
        "span_dir": reader.path("MAIL_SPAN_DIR"),
        "span_bytes_max": _span_bytes_max(reader),
        "trace_sample": reader.number("MAIL_TRACE_SAMPLE", 0, 1),
        "otlp_endpoint": _checked(reader, "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, reading.otlp_endpoint),
        "otlp_headers": _checked(reader, "OTEL_EXPORTER_OTLP_HEADERS", headers, reading.otlp_headers) or {},
        "task_events": reader.one_of("MAIL_TASK_EVENTS", ("0", "1")) == "1",
        "flower_store": Path(reader.text("MAIL_FLOWER_STORE")),
        "flower_user": reader.optional("MAIL_FLOWER_USER"),
        "flower_password": _checked(reader, "MAIL_FLOWER_PASSWORD", password, reading.flower_password),
    }
