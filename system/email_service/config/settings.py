"""Settings: what one process was told, frozen, with units in the names.

Never reads the environment and never logs a value. Made by ``environment`` alone, read by everybody.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from email_service import policy

#: However small the time scale, the broker waits this much longer than a task may run.
VISIBILITY_MARGIN_S: Final = 60.0


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
    #: Number of requests and time (``6000/minute``, ``100/10seconds``), lower case; None for none.
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
    #: Seconds until the broker gives an unacknowledged message to another worker, before scaling.
    visibility_s: float
    prefetch_multiplier: int
    tasks_per_child_max: int
    span_dir: Path | None
    #: Of all span files together; 0 for no limit.
    span_bytes_max: int
    #: Share of the traces begun here that are kept.
    trace_sample: float
    #: May hold a login.
    otlp_endpoint: str | None = field(repr=False)
    otlp_headers: Mapping[str, str] = field(repr=False)
    beat_store: Path
    flower_store: Path
    flower_user: str | None
    flower_password: str | None = field(repr=False)
    log_format: str
    #: Where log files go beside stderr.
    log_dir: Path | None
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
    def secrets(self) -> tuple[str | bytes, ...]:
        """What no log line may hold: keys, and the passwords in URLs, as they are and as the URL has them."""
        urls = (self.database_url, self.database_system_url, self.redis_url, self.otlp_endpoint or "")
        in_urls = [urlsplit(url).password or "" for url in urls]
        others = (self.token_secret, self.flower_password or "", *self.otlp_headers.values())
        texts = [text for text in (*in_urls, *map(unquote, in_urls), *others) if text]
        return (*texts, *self.credential_keys.values())

    @property
    def limits_s(self) -> tuple[float, float]:
        """Hard and soft time limit of a task, scaled."""
        return policy.limits_s(self.time_scale, hard_s=self.time_limit_s, soft_s=self.soft_time_limit_s)

    @property
    def lease_s(self) -> float:
        """Seconds that an execution owns its job unless it ends sooner."""
        return policy.lease_s(self.time_scale, hard_s=self.time_limit_s, soft_s=self.soft_time_limit_s)

    @property
    def visibility_timeout_s(self) -> float:
        """The same, scaled; however small the time scale, it outlasts the hard limit by a minute."""
        return max(self.visibility_s * self.time_scale, self.limits_s[0] + VISIBILITY_MARGIN_S)

    def host_listed(self, host: str, port: int) -> bool:
        """Whether the operator names this host: whatever its addresses are, a client may name it too."""
        name = host.lower().rstrip(".")
        names = {name, f"{name}:{port}"}
        labels = name.split(".")
        names |= {f"*.{'.'.join(labels[k:])}" for k in range(1, len(labels))}
        return not names.isdisjoint(self.allowed_hosts)
