"""The names of the environment variables, their defaults and what they are for: the one table.

Never reads a value. Called by ``reading`` and ``__main__``; a test holds the README's table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

#: What a secret's name ends with when its value is in a file: docker and Kubernetes mount secrets so.
FILE_SUFFIX: Final = "_FILE"


@dataclass(frozen=True, kw_only=True)
class Variable:
    """One environment variable."""

    name: str
    #: The default as text; None when the variable must be set by whoever needs it.
    default: str | None
    help: str
    #: Never shown; may be given as ``<name>_FILE``, the path of a file that holds it.
    secret: bool = False


_STORES: Final = (
    Variable(
        name="DATABASE_URL",
        default=None,
        help="PostgreSQL as role mail_app: postgresql://user:password@host/db",
        secret=True,
    ),
    Variable(
        name="DATABASE_SYSTEM_URL",
        default=None,
        help="PostgreSQL as role mail_system (dispatcher, periodic)",
        secret=True,
    ),
    Variable(
        name="DATABASE_AUDIT_URL",
        default=None,
        help="PostgreSQL as role mail_audit (read by the rig alone)",
        secret=True,
    ),
    Variable(
        name="DATABASE_OWNER_URL",
        default=None,
        help="PostgreSQL as the owner of the tables (migrate alone)",
        secret=True,
    ),
    Variable(name="DATABASE_POOL_SIZE", default="10", help="Connections per worker, shared out to its processes"),
    Variable(name="DATABASE_MAX_OVERFLOW", default="20", help="Further connections per worker in need"),
    Variable(
        name="REDIS_URL",
        default="redis://127.0.0.1:6379",
        help="Broker in database 0, results in database 1",
        secret=True,
    ),
    Variable(name="MAIL_BLOB_URL", default=None, help="Attachments: file:///directory or s3://bucket/prefix (AWS_*)"),
    Variable(name="MAIL_BLOB_DIR", default=None, help="Attachments in a directory; the short form of MAIL_BLOB_URL"),
    Variable(name="MAIL_KEEP_RAW", default="broken", help="Which messages are also kept as they came: broken or all"),
    Variable(name="MAIL_RETENTION_DAYS", default="30", help="Days until a settled job and its executions are removed"),
)

_KEYS: Final = (
    Variable(
        name="CREDENTIAL_ENCRYPTION_KEY",
        default=None,
        help="32 bytes in base64 that seal mailbox passwords",
        secret=True,
    ),
    Variable(name="MAIL_CREDENTIAL_KEY_ID", default="k1", help="Name of that key, stored beside what it seals"),
    Variable(
        name="MAIL_CREDENTIAL_KEYS_OLD",
        default="",
        help="Earlier keys that still open credentials: id=base64, comma between; rotate-keys makes them unneeded",
        secret=True,
    ),
    Variable(
        name="MAIL_TOKEN_SECRET",
        default=None,
        help="Signs bearer tokens (HS256), 32 characters or more",
        secret=True,
    ),
)

_MAIL: Final = (
    Variable(
        name="MAIL_ALLOWED_HOSTS",
        default="public",
        help="Mail hosts that a client may name: host, host:port, *.domain, comma between; the word public allows "
        "every host whose addresses are all public, on the ports of mail",
    ),
    Variable(name="MAIL_CA_FILE", default=None, help="PEM file of further authorities that mail servers may use"),
    Variable(name="MAIL_TIMEOUT_S", default="30", help="Seconds until a silent mail server is given up"),
    Variable(name="MAIL_SMTP_IDLE_S", default="15", help="Seconds that a process keeps an SMTP session open; 0: none"),
)

_API: Final = (
    Variable(name="MAIL_CORS_ORIGINS", default="", help="Origins of front ends, comma between; * allows any"),
    Variable(name="MAIL_RATE_LIMIT", default="6000/minute", help="Requests that a tenant may make; off for no limit"),
    Variable(name="MAIL_REQUEST_BYTES_MAX", default="27262976", help="Largest request: an upload and its envelope"),
)

_TASKS: Final = (
    Variable(name="CELERYD_CONCURRENCY", default="4", help="Processes of a worker that run tasks"),
    Variable(name="WORKER_PREFETCH_MULTIPLIER", default="1", help="Messages that a worker holds per process"),
    Variable(name="WORKER_MAX_TASKS_PER_CHILD", default="1000", help="Tasks after which a process is replaced"),
    Variable(name="TASK_TIME_LIMIT", default="300", help="Seconds until a task's process is killed, before scaling"),
    Variable(name="TASK_SOFT_TIME_LIMIT", default="280", help="Seconds until a task is told to end, before scaling"),
    Variable(
        name="MAIL_VISIBILITY_TIMEOUT_S",
        default="1200",
        help="Seconds until the broker gives an unacknowledged message to another worker, before scaling",
    ),
    Variable(name="MAIL_TIME_SCALE", default="1", help="0.05 to 1: scales backoff, leases, grace, limits, beat, TTL"),
    Variable(name="MAIL_RETRY_MODE", default="row", help="row: retries wait in the database; eta: in the worker"),
    Variable(name="MAIL_SOFT_SHUTDOWN_S", default="290", help="Seconds that a stopping worker gives running tasks"),
    Variable(name="MAIL_NODE", default=None, help="Name of this worker; default mail@<host>"),
    Variable(name="MAIL_BEAT_STORE", default="beat-schedule.db", help="Beat's schedule, a SQLite file"),
)

_WATCHING: Final = (
    Variable(name="MAIL_LOG_FORMAT", default="json", help="json or text"),
    Variable(
        name="MAIL_LOG_DIR",
        default=None,
        help="Directory of log files beside stderr, 3 of 10 MB a kind (celery-worker.log); unset writes none",
    ),
    Variable(name="MAIL_SPAN_DIR", default=None, help="Directory of the span files; unset writes none"),
    Variable(
        name="MAIL_SPAN_BYTES_MAX",
        default="4294967296",
        help="Size of that directory beyond which the oldest closed files are removed; 0: no limit",
    ),
    Variable(name="MAIL_TRACE_SAMPLE", default="1", help="0 to 1: share of the traces begun here that are kept"),
    Variable(name="OTEL_EXPORTER_OTLP_ENDPOINT", default=None, help="OTLP over HTTP; unset sends nothing"),
    Variable(
        name="OTEL_EXPORTER_OTLP_HEADERS",
        default=None,
        help="What the collector wants to be shown: name=value, comma between, values URL-encoded",
        secret=True,
    ),
    Variable(name="MAIL_TASK_EVENTS", default="0", help="1 sends the events that Flower needs (2-3 ms CPU a task)"),
    Variable(name="MAIL_FLOWER_STORE", default="flower.db", help="Flower's history"),
    Variable(name="MAIL_FLOWER_USER", default=None, help="Who may look at Flower"),
    Variable(
        name="MAIL_FLOWER_PASSWORD",
        default=None,
        help="That user's password, 12 characters or more",
        secret=True,
    ),
)

#: By theme, in the order of the table.
GROUPS: Final = {
    "Stores": _STORES,
    "Keys": _KEYS,
    "Mail servers": _MAIL,
    "API": _API,
    "Tasks": _TASKS,
    "Watching": _WATCHING,
}
VARIABLES: Final = tuple(variable for group in GROUPS.values() for variable in group)
BY_NAME: Final = {variable.name: variable for variable in VARIABLES}
#: Every name that may be set: the variables, and the files of the secret ones.
NAMES: Final = frozenset(BY_NAME) | {v.name + FILE_SUFFIX for v in VARIABLES if v.secret}


def markdown() -> str:
    """The table as the README has it."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    yield "| variable | default | what |"
    yield "|---|---|---|"
    for theme, variables in GROUPS.items():
        yield f"| **{theme}** |  |  |"
        for variable in variables:
            default = f"`{variable.default}`" if variable.default else ""
            yield f"| `{variable.name}`{' †' if variable.secret else ''} | {default} | {variable.help} |"
