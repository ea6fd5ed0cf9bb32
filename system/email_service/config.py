"""Settings: the environment, read once, checked, frozen, with units in the names.

Owns the names of the environment variables. Never reads a file and never logs a value. Called by ``__main__`` and, in
worker processes, by ``celery_app``. The table in the README is generated from ``VARIABLES``.
"""

from __future__ import annotations

import base64
import binascii
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from email_service.errors import ConfigError

#: Smallest and largest allowed MAIL_TIME_SCALE.
TIME_SCALE_RANGE: Final = (0.05, 1.0)
#: Length of CREDENTIAL_ENCRYPTION_KEY once decoded, bytes.
KEY_BYTES: Final = 32


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One environment variable."""

    name: str
    #: The default as text; None when the variable must be set by whoever needs it.
    default: str | None
    help: str


VARIABLES: Final = (
    Variable(name="DATABASE_URL", default=None, help="PostgreSQL as role mail_app: postgresql://user:password@host/db"),
    Variable(name="DATABASE_SYSTEM_URL", default=None, help="PostgreSQL as role mail_system (dispatcher, periodic)"),
    Variable(name="DATABASE_AUDIT_URL", default=None, help="PostgreSQL as role mail_audit (read by the rig alone)"),
    Variable(name="DATABASE_OWNER_URL", default=None, help="PostgreSQL as the owner of the tables (migrate alone)"),
    Variable(name="REDIS_URL", default="redis://127.0.0.1:6379", help="Broker in database 0, results in database 1"),
    Variable(name="CREDENTIAL_ENCRYPTION_KEY", default=None, help="32 bytes in base64 that seal mailbox passwords"),
    Variable(name="MAIL_CREDENTIAL_KEY_ID", default="k1", help="Name of that key, stored beside what it seals"),
    Variable(name="MAIL_TOKEN_SECRET", default=None, help="Signs bearer tokens (HS256), 32 characters or more"),
    Variable(
        name="MAIL_ALLOWED_HOSTS", default="", help="Hosts that a client may name: host or host:port, comma between"
    ),
    Variable(name="MAIL_BLOB_DIR", default=None, help="Directory of the attachments"),
    Variable(name="MAIL_TIME_SCALE", default="1", help="0.05 to 1: scales backoff, leases, grace, limits, beat, TTL"),
    Variable(name="MAIL_RETRY_MODE", default="row", help="row: retries wait in the database; eta: in the worker"),
    Variable(name="MAIL_TASK_EVENTS", default="0", help="1 sends the events that Flower needs (2-3 ms CPU a task)"),
    Variable(name="MAIL_SPAN_DIR", default=None, help="Directory of the span files; unset writes none"),
    Variable(name="OTEL_EXPORTER_OTLP_ENDPOINT", default=None, help="OTLP over HTTP; unset sends nothing"),
    Variable(name="MAIL_BEAT_STORE", default="beat-schedule.db", help="Beat's schedule, a SQLite file"),
    Variable(name="MAIL_LOG_FORMAT", default="json", help="json or text"),
    Variable(name="MAIL_NODE", default=None, help="Name of this worker; default mail@<host>"),
    Variable(name="DATABASE_POOL_SIZE", default="10", help="Connections per worker, shared out to its processes"),
    Variable(name="DATABASE_MAX_OVERFLOW", default="20", help="Further connections per worker in need"),
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process; ``repr`` shows no secret."""

    #: PostgreSQL as mail_app, and as mail_system.
    database_url: str = field(repr=False)
    database_system_url: str = field(repr=False)
    #: redis://host:port without a database.
    redis_url: str = field(repr=False)
    credential_keys: Mapping[str, bytes] = field(repr=False)
    credential_key_id: str
    token_secret: str = field(repr=False)
    #: Lower case; each is ``host`` or ``host:port``.
    allowed_hosts: frozenset[str]
    blob_dir: Path
    #: Scales backoff, leases, grace, limits, beat intervals and result TTL; never a socket timeout.
    time_scale: float
    #: ``row`` or ``eta``.
    retry_mode: str
    task_events: bool
    span_dir: Path | None
    otlp_endpoint: str | None
    beat_store: Path
    log_format: str
    node: str
    #: Names this machine in leases; a holder on the same host can be found dead at once.
    host: str
    pool_size: int
    max_overflow: int
    #: Seconds until a socket to a mail server gives up.
    mail_timeout_s: float = 30.0

    @property
    def broker_url(self) -> str:
        """Redis database 0."""
        return f"{self.redis_url}/0"

    @property
    def result_url(self) -> str:
        """Redis database 1."""
        return f"{self.redis_url}/1"

    def host_allowed(self, host: str, port: int) -> bool:
        """Whether a client may name this host and port."""
        return host.lower() in self.allowed_hosts or f"{host.lower()}:{port}" in self.allowed_hosts


def settings_from(environ: Mapping[str, str] | None = None) -> Settings:
    """Read and check the environment.

    Raises:
        ConfigError: names the variable, what it holds (unless it is a secret) and what would be right.
    """
    env = dict(os.environ if environ is None else environ)
    for variable in VARIABLES:
        if variable.default is not None:
            env.setdefault(variable.name, variable.default)
    host = socket.gethostname()
    return Settings(
        database_url=database_url(env, "DATABASE_URL"),
        database_system_url=database_url(env, "DATABASE_SYSTEM_URL"),
        redis_url=_redis_url(env["REDIS_URL"]),
        credential_keys={env["MAIL_CREDENTIAL_KEY_ID"]: _key(_required(env, "CREDENTIAL_ENCRYPTION_KEY"))},
        credential_key_id=env["MAIL_CREDENTIAL_KEY_ID"],
        token_secret=_token_secret(_required(env, "MAIL_TOKEN_SECRET")),
        allowed_hosts=frozenset(h.strip().lower() for h in env["MAIL_ALLOWED_HOSTS"].split(",") if h.strip()),
        blob_dir=Path(_required(env, "MAIL_BLOB_DIR")),
        time_scale=_number(env, "MAIL_TIME_SCALE", *TIME_SCALE_RANGE),
        retry_mode=_one_of(env, "MAIL_RETRY_MODE", ("row", "eta")),
        task_events=_one_of(env, "MAIL_TASK_EVENTS", ("0", "1")) == "1",
        span_dir=Path(env["MAIL_SPAN_DIR"]) if env.get("MAIL_SPAN_DIR") else None,
        otlp_endpoint=env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        beat_store=Path(env["MAIL_BEAT_STORE"]),
        log_format=_one_of(env, "MAIL_LOG_FORMAT", ("json", "text")),
        node=env.get("MAIL_NODE") or f"mail@{host}",
        host=host,
        pool_size=int(_number(env, "DATABASE_POOL_SIZE", 1, 1000)),
        max_overflow=int(_number(env, "DATABASE_MAX_OVERFLOW", 0, 1000)),
    )


def database_url(env: Mapping[str, str], name: str) -> str:
    """The SQLAlchemy form of a PostgreSQL URL.

    Raises:
        ConfigError: it is missing, or not a PostgreSQL URL.
    """
    value = _required(env, name)
    scheme, separator, rest = value.partition("://")
    if not separator or scheme not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ConfigError(f"{name} must look like postgresql://user:password@host:5432/database")
    return f"postgresql+psycopg://{rest}"


def _required(env: Mapping[str, str], name: str) -> str:
    value = env.get(name)
    if not value:
        wanted = next(v.help for v in VARIABLES if v.name == name)
        raise ConfigError(f"{name} is not set ({wanted})")
    return value


def _redis_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.path not in {"", "/"}:
        raise ConfigError("REDIS_URL must look like redis://host:6379, without a database number")
    return value.rstrip("/")


def _key(value: str) -> bytes:
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"CREDENTIAL_ENCRYPTION_KEY must be {KEY_BYTES} bytes in base64")
    return key


def _token_secret(value: str) -> str:
    # RFC 7518 section 3.2: a key of at least the hash's size for HS256.
    if len(value) < KEY_BYTES:
        raise ConfigError(f"MAIL_TOKEN_SECRET must have {KEY_BYTES} characters or more")
    return value


def _number(env: Mapping[str, str], name: str, low: float, high: float) -> float:
    try:
        value = float(env[name])
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise ConfigError(f"{name} is {env[name]!r}; it must be a number from {low:g} to {high:g}")
    return value


def _one_of(env: Mapping[str, str], name: str, allowed: tuple[str, ...]) -> str:
    if env[name] not in allowed:
        raise ConfigError(f"{name} is {env[name]!r}; it must be one of: {', '.join(allowed)}")
    return env[name]
