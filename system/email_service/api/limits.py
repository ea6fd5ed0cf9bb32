"""How often a tenant may ask: a count in Redis that all processes share, in windows that begin by the clock.

A process takes permits in blocks of a five-hundredth of the limit, so that most requests ask nobody: a limit is never
exceeded, and what a process did not spend of its last block is lost to the others with the window.
A broker that is away limits nobody: mail is accepted without it too (the dispatcher publishes later). That is logged
once a minute, and Redis is then left alone for a few seconds, so that a frozen one does not hold up each request.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import redis
from limits import parse
from limits.storage import RedisStorage

from email_service.errors import ConfigError, RateLimitError

_log = logging.getLogger(__name__)

_TIMEOUT_S: Final = 0.25
_LEFT_ALONE_S: Final = 5.0
_LOGGED_EVERY_S: Final = 60.0
#: A block is this part of the limit: one for small limits, which are exact.
_BLOCKS: Final = 500
#: Tenants whose permits a process remembers.
_TENANTS_MAX: Final = 10_000


class Counter(Protocol):
    """The one thing that is asked of a store (limits.storage.Storage)."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Add to a count that is forgotten after ``expiry`` seconds; answers the count."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What a tenant has left in the window."""

    limit: int
    remaining: int
    window_s: int
    reset_s: int

    def headers(self) -> dict[str, str]:
        """As of draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"tenant";q={self.limit};w={self.window_s}',
            "RateLimit": f'"tenant";r={self.remaining};t={self.reset_s}',
        }


@dataclass(kw_only=True)
class _Held:
    """Permits of one tenant that this process has taken."""

    window: int
    left: int
    #: What the store has left for all.
    shared: int


class RateLimit:
    """Counts the requests of each tenant; one per process."""

    def __init__(self, rule: str, counter: Counter, *, clock: Callable[[], float] = time.time) -> None:
        try:
            item = parse(rule)
        except ValueError as err:
            raise ConfigError(f"MAIL_RATE_LIMIT is {rule!r}; it must look like 6000/minute, or be off") from err
        self._limit, self._window_s = item.amount, item.get_expiry()
        self._counter = counter
        self._clock = clock
        self._block = max(1, self._limit // _BLOCKS)
        self._lock = threading.Lock()
        self._held: dict[str, _Held] = {}
        self._left_alone_until_s = 0.0
        self._logged_s = float("-inf")

    def take(self, tenant_id: str) -> Standing | None:
        """Count one request; None while nobody can count.

        Raises:
            RateLimitError: the tenant has asked too often.
        """
        now_s = self._clock()
        window, passed_s = divmod(now_s, self._window_s)
        reset_s = max(1, round(self._window_s - passed_s))
        with self._lock:
            held = self._spend(tenant_id, int(window))
        if held is None:
            if now_s < self._left_alone_until_s:
                return None
            try:
                held = self._draw(tenant_id, int(window))
            except redis.RedisError as err:
                self._failed(err, now_s)
                return None
        if held < 0:
            raise RateLimitError(f"{self._limit} requests in {self._window_s} s are allowed", retry_after_s=reset_s)
        return Standing(limit=self._limit, remaining=held, window_s=self._window_s, reset_s=reset_s)

    def _spend(self, tenant_id: str, window: int) -> int | None:
        """What is left behind a permit that this process has; None if it has none."""
        held = self._held.get(tenant_id)
        if held is None or held.window != window or not held.left:
            return None
        held.left -= 1
        return held.left + held.shared

    def _draw(self, tenant_id: str, window: int) -> int:
        """Take a block and spend the first permit of it; negative if there is none left."""
        count = self._counter.incr(f"rate:{tenant_id}:{window}", self._window_s, self._block)
        granted = min(self._block, self._limit - (count - self._block))
        if granted < 1:
            return -1
        shared = max(0, self._limit - count)
        with self._lock:
            if len(self._held) >= _TENANTS_MAX:
                self._held.clear()
            held = self._held.setdefault(tenant_id, _Held(window=window, left=0, shared=0))
            # Another thread may have drawn meanwhile: its permits are good as long as the window is.
            held.left = granted - 1 + (held.left if held.window == window else 0)
            held.window, held.shared = window, shared
            return held.left + held.shared

    def spent(self, retry_after_s: float) -> Standing:
        """The standing of who was refused."""
        return Standing(limit=self._limit, remaining=0, window_s=self._window_s, reset_s=round(retry_after_s))

    def _failed(self, err: redis.RedisError, now_s: float) -> None:
        self._left_alone_until_s = now_s + _LEFT_ALONE_S
        if now_s - self._logged_s >= _LOGGED_EVERY_S:
            self._logged_s = now_s
            _log.warning("no rate is limited while the broker is away (%s)", type(err).__name__)


def shared(rule: str, broker_url: str) -> RateLimit:
    """A limit that all processes of the service share.

    Raises:
        ConfigError: the rule is malformed.
    """
    store = RedisStorage(broker_url, key_prefix="mail", socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S)
    return RateLimit(rule, store)
