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

from email_service import policy
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
    Variable(name="DATABASE_POOL_SIZE", default="10", help="Connections per worker, shared out to its processes"),
    Variable(name="DATABASE_MAX_OVERFLOW", default="20", help="Further connections per worker in need"),
    Variable(name="REDIS_URL", default="redis://127.0.0.1:6379", help="Broker in database 0, results in database 1"),
    Variable(name="CREDENTIAL_ENCRYPTION_KEY", default=None, help="32 bytes in base64 that seal mailbox passwords"),
    Variable(name="MAIL_CREDENTIAL_KEY_ID", default="k1", help="Name of that key, stored beside what it seals"),
    Variable(
        name="MAIL_CREDENTIAL_KEYS_OLD",
        default="",
        help="Earlier keys that still open credentials: id=base64, comma between; rotate-keys makes them unneeded",
    ),
    Variable(name="MAIL_TOKEN_SECRET", default=None, help="Signs bearer tokens (HS256), 32 characters or more"),
    Variable(
        name="MAIL_ALLOWED_HOSTS",
        default="public",
        help="Mail hosts that a client may name: host, host:port, *.domain, comma between; the word public allows "
        "every host whose addresses are all public, on the ports of mail",
    ),
    Variable(name="MAIL_CA_FILE", default=None, help="PEM file of further authorities that mail servers may use"),
    Variable(name="MAIL_TIMEOUT_S", default="30", help="Seconds until a silent mail server is given up"),
    Variable(name="MAIL_SMTP_IDLE_S", default="15", help="Seconds that a process keeps an SMTP session open; 0: none"),
    Variable(name="MAIL_BLOB_URL", default=None, help="Attachments: file:///directory or s3://bucket/prefix (AWS_*)"),
    Variable(name="MAIL_BLOB_DIR", default=None, help="Attachments in a directory; the short form of MAIL_BLOB_URL"),
    Variable(name="MAIL_KEEP_RAW", default="broken", help="Which messages are also kept as they came: broken or all"),
    Variable(name="MAIL_RETENTION_DAYS", default="30", help="Days until a settled job and its executions are removed"),
    Variable(name="MAIL_CORS_ORIGINS", default="", help="Origins of front ends, comma between; * allows any"),
    Variable(name="MAIL_RATE_LIMIT", default="6000/minute", help="Requests that a tenant may make; off for no limit"),
    Variable(name="MAIL_REQUEST_BYTES_MAX", default="27262976", help="Largest request: an upload and its envelope"),
    Variable(name="MAIL_TIME_SCALE", default="1", help="0.05 to 1: scales backoff, leases, grace, limits, beat, TTL"),
    Variable(name="MAIL_RETRY_MODE", default="row", help="row: retries wait in the database; eta: in the worker"),
    Variable(name="MAIL_TASK_EVENTS", default="0", help="1 sends the events that Flower needs (2-3 ms CPU a task)"),
    Variable(name="MAIL_SOFT_SHUTDOWN_S", default="290", help="Seconds that a stopping worker gives running tasks"),
    Variable(name="CELERYD_CONCURRENCY", default="4", help="Processes of a worker that run tasks"),
    Variable(name="TASK_TIME_LIMIT", default="300", help="Seconds until a task's process is killed, before scaling"),
    Variable(name="TASK_SOFT_TIME_LIMIT", default="280", help="Seconds until a task is told to end, before scaling"),
    Variable(name="WORKER_PREFETCH_MULTIPLIER", default="1", help="Messages that a worker holds per process"),
    Variable(name="WORKER_MAX_TASKS_PER_CHILD", default="1000", help="Tasks after which a process is replaced"),
    Variable(name="MAIL_SPAN_DIR", default=None, help="Directory of the span files; unset writes none"),
    Variable(name="OTEL_EXPORTER_OTLP_ENDPOINT", default=None, help="OTLP over HTTP; unset sends nothing"),
    Variable(name="MAIL_BEAT_STORE", default="beat-schedule.db", help="Beat's schedule, a SQLite file"),
    Variable(name="MAIL_FLOWER_STORE", default="flower.db", help="Flower's history"),
    Variable(name="MAIL_FLOWER_USER", default=None, help="Who may look at Flower"),
    Variable(name="MAIL_FLOWER_PASSWORD", default=None, help="That user's password, 12 characters or more"),
    Variable(name="MAIL_LOG_FORMAT", default="json", help="json or text"),
    Variable(name="MAIL_NODE", default=None, help="Name of this worker; default mail@<host>"),
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
    #: Whether hosts that are not listed may be named, if all their addresses are public.
    public_hosts: bool
    #: Further authorities for TLS to mail servers.
    ca_file: Path | None
    #: Seconds until a socket to a mail server gives up.
    mail_timeout_s: float
    smtp_idle_s: float
    #: file:///directory or s3://bucket/prefix.
    blob_url: str
    #: ``broken`` or ``all``.
    keep_raw: str
    retention_days: float
    #: Origins, or the one word ``*``.
    cors_origins: tuple[str, ...]
    #: As ``limits`` writes them (``6000/minute``); None for none.
    rate_limit: str | None
    request_bytes_max: int
    #: Scales backoff, leases, grace, limits, beat intervals and result TTL; never a socket timeout.
    time_scale: float
    #: ``row`` or ``eta``.
    retry_mode: str
    task_events: bool
    #: Not scaled: how long a stopping worker waits for its tasks.
    soft_shutdown_s: float
    concurrency: int
    #: Hard and soft limit of a task, before scaling.
    time_limit_s: float
    soft_time_limit_s: float
    prefetch_multiplier: int
    tasks_per_child_max: int
    span_dir: Path | None
    otlp_endpoint: str | None
    beat_store: Path
    flower_store: Path
    flower_user: str | None
    flower_password: str | None = field(repr=False)
    log_format: str
    node: str
    #: Names this machine in leases; a holder on the same host can be found dead at once.
    host: str
    pool_size: int
    max_overflow: int

    @property
    def broker_url(self) -> str:
        """Redis database 0."""
        return f"{self.redis_url}/0"

    @property
    def result_url(self) -> str:
        """Redis database 1."""
        return f"{self.redis_url}/1"

    @property
    def limits_s(self) -> tuple[float, float]:
        """Hard and soft time limit of a task, scaled."""
        return policy.limits_s(self.time_scale, hard_s=self.time_limit_s, soft_s=self.soft_time_limit_s)

    @property
    def lease_s(self) -> float:
        """Seconds that an execution owns its job unless it ends sooner."""
        return policy.lease_s(self.time_scale, hard_s=self.time_limit_s, soft_s=self.soft_time_limit_s)

    def host_listed(self, host: str, port: int) -> bool:
        """Whether the operator names this host: whatever its addresses are, a client may name it too."""
        name = host.lower().rstrip(".")
        names = {name, f"{name}:{port}"}
        labels = name.split(".")
        names |= {f"*.{'.'.join(labels[k:])}" for k in range(1, len(labels))}
        return not names.isdisjoint(self.allowed_hosts)


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
    hosts = frozenset(h.strip().lower() for h in env["MAIL_ALLOWED_HOSTS"].split(",") if h.strip())
    soft_time_limit_s = _number(env, "TASK_SOFT_TIME_LIMIT", 1, 86_400)
    time_limit_s = _number(env, "TASK_TIME_LIMIT", 1, 86_400)
    if soft_time_limit_s >= time_limit_s:
        raise ConfigError(
            f"TASK_SOFT_TIME_LIMIT is {soft_time_limit_s:g} and TASK_TIME_LIMIT {time_limit_s:g}: "
            "the soft limit must be smaller, or a task is killed before it can end"
        )
    return Settings(
        database_url=database_url(env, "DATABASE_URL"),
        database_system_url=database_url(env, "DATABASE_SYSTEM_URL"),
        redis_url=_redis_url(env["REDIS_URL"]),
        credential_keys=_keys(env),
        credential_key_id=env["MAIL_CREDENTIAL_KEY_ID"],
        token_secret=_token_secret(_required(env, "MAIL_TOKEN_SECRET")),
        allowed_hosts=hosts - {"public"},
        public_hosts="public" in hosts,
        ca_file=_path(env, "MAIL_CA_FILE"),
        mail_timeout_s=_number(env, "MAIL_TIMEOUT_S", 0.1, 600),
        smtp_idle_s=_number(env, "MAIL_SMTP_IDLE_S", 0, 300),
        blob_url=_blob_url(env),
        keep_raw=_one_of(env, "MAIL_KEEP_RAW", ("broken", "all")),
        retention_days=_number(env, "MAIL_RETENTION_DAYS", 0.01, 3650),
        cors_origins=tuple(o.strip() for o in env["MAIL_CORS_ORIGINS"].split(",") if o.strip()),
        rate_limit=None if env["MAIL_RATE_LIMIT"] == "off" else env["MAIL_RATE_LIMIT"],
        request_bytes_max=int(_number(env, "MAIL_REQUEST_BYTES_MAX", 1024, 1024**3)),
        time_scale=_number(env, "MAIL_TIME_SCALE", *TIME_SCALE_RANGE),
        retry_mode=_one_of(env, "MAIL_RETRY_MODE", ("row", "eta")),
        task_events=_one_of(env, "MAIL_TASK_EVENTS", ("0", "1")) == "1",
        soft_shutdown_s=_number(env, "MAIL_SOFT_SHUTDOWN_S", 0, 3600),
        concurrency=int(_number(env, "CELERYD_CONCURRENCY", 1, 256)),
        time_limit_s=time_limit_s,
        soft_time_limit_s=soft_time_limit_s,
        prefetch_multiplier=int(_number(env, "WORKER_PREFETCH_MULTIPLIER", 1, 1)),
        tasks_per_child_max=int(_number(env, "WORKER_MAX_TASKS_PER_CHILD", 1, 1_000_000)),
        span_dir=_path(env, "MAIL_SPAN_DIR"),
        otlp_endpoint=env.get("OTEL_EXPORTER_OTLP_ENDPOINT") or None,
        beat_store=Path(env["MAIL_BEAT_STORE"]),
        flower_store=Path(env["MAIL_FLOWER_STORE"]),
        flower_user=env.get("MAIL_FLOWER_USER") or None,
        flower_password=env.get("MAIL_FLOWER_PASSWORD") or None,
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


def _keys(env: Mapping[str, str]) -> dict[str, bytes]:
    """The current key and the earlier ones, by id."""
    keys = {}
    for entry in filter(None, (e.strip() for e in env["MAIL_CREDENTIAL_KEYS_OLD"].split(","))):
        key_id, _, value = entry.partition("=")
        keys[key_id] = _key("MAIL_CREDENTIAL_KEYS_OLD", value)
    if env["MAIL_CREDENTIAL_KEY_ID"] in keys:
        raise ConfigError("MAIL_CREDENTIAL_KEYS_OLD names the current MAIL_CREDENTIAL_KEY_ID: a new key needs a new id")
    keys[env["MAIL_CREDENTIAL_KEY_ID"]] = _key("CREDENTIAL_ENCRYPTION_KEY", _required(env, "CREDENTIAL_ENCRYPTION_KEY"))
    return keys


def _key(name: str, value: str) -> bytes:
    try:
        key = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{name} must be {KEY_BYTES} bytes in base64")
    return key


def _path(env: Mapping[str, str], name: str) -> Path | None:
    return Path(env[name]) if env.get(name) else None


def _blob_url(env: Mapping[str, str]) -> str:
    directory, url = env.get("MAIL_BLOB_DIR"), env.get("MAIL_BLOB_URL")
    if directory and url:
        raise ConfigError("MAIL_BLOB_DIR and MAIL_BLOB_URL are both set; one of them says where attachments are")
    if directory:
        return Path(directory).absolute().as_uri()
    url = _required(env, "MAIL_BLOB_URL")
    parts = urlsplit(url)
    if (parts.scheme, bool(parts.netloc), parts.path.startswith("/")) not in {
        ("file", False, True),
        ("s3", True, True),
        ("s3", True, False),
    }:
        raise ConfigError("MAIL_BLOB_URL must look like file:///directory or s3://bucket/prefix")
    return url


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
