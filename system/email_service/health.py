"""Whether one process of the service does its work: ``python -m email_service health KIND``, for Compose and clusters.

A process that runs is not enough, and one that answers isn't either: a worker answers pings while its consumer takes
no messages (celery#8030), so it must also begin tasks while some wait and processes are free. Beat and the dispatcher
tell the time of their last round in Redis. Nothing here judges a database or a server that is away but by what the
process itself says: a restart would not mend it.

Compose runs a check twice a minute in every container, so each imports what it needs and no more: with the whole
service it would cost a second of CPU.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from email_service import policy, signals
from email_service.config import Settings

#: Compose gives a check 10 seconds; what is stuck is told before.
TIMEOUT_S: Final = 8.0
#: Beat ticks every 5 seconds at least, the dispatcher makes a round every second.
AGE_S_MAX: Final = 20.0
#: Default ports of the kinds that serve HTTP, and what is asked there.
PAGES: Final = {"api": (5000, "/health"), "exporter": (9540, "/metrics"), "flower": (5555, "/healthcheck")}
_POLL_S: Final = 0.2


@dataclass(frozen=True, kw_only=True)
class Health:
    """The verdict on one process."""

    healthy: bool
    #: One line, for ``docker inspect`` and for people.
    reason: str


def worker(settings: Settings, *, timeout_s: float) -> Health:
    """It answers, and it begins tasks if some wait and it has a process for them."""
    from redis import RedisError

    deadline = time.monotonic() + timeout_s
    try:
        with _redis(settings) as client:
            concurrency, queues = _facts(client, settings)
            return _begins(settings, client, concurrency=concurrency, queues=queues, deadline=deadline)
    except RedisError as err:
        return _broker_is_away(err)


def _begins(settings: Settings, client: Any, *, concurrency: int, queues: Sequence[str], deadline: float) -> Health:
    control, node = _control(settings), settings.node
    tick, began = threading.Event(), time.monotonic()
    first: int | None = None
    while True:
        now = _progress(control, node, timeout_s=max(deadline - time.monotonic(), _POLL_S))
        if now is None:
            return Health(healthy=False, reason=f"{node} does not answer within {time.monotonic() - began:.0f} s")
        waiting, free = now["held"] + _ready(client, queues), concurrency - now["active"]
        first = now["begun"] if first is None else first
        if waiting == 0 or free <= 0 or now["begun"] != first:
            return Health(healthy=True, reason=f"{node} answers; {waiting} tasks wait, {now['active']} run")
        if time.monotonic() + _POLL_S >= deadline:
            wedged = f"{waiting} tasks wait and {free} of its {concurrency} processes are free, but it begins none"
            return Health(healthy=False, reason=f"{node} answers, but {wedged}")
        tick.wait(_POLL_S)


def _control(settings: Settings) -> Any:
    """Celery's remote control, without the tables and queues of the whole application."""
    from celery import Celery

    app = Celery(broker=settings.broker_url, set_as_current=False)
    app.conf.broker_transport_options = {"socket_timeout": 5, "socket_connect_timeout": 2}
    return app.control


def _progress(control: Any, node: str, *, timeout_s: float) -> dict[str, int] | None:
    # With a destination and a limit the first answer is enough; without them, any node's answer would count.
    answers = control.broadcast(signals.CONTROL_PROGRESS, destination=[node], reply=True, timeout=timeout_s, limit=1)
    return next((answer[node] for answer in answers or [] if "begun" in answer.get(node, {})), None)


def _facts(client: Any, settings: Settings) -> tuple[int, list[str]]:
    """How many processes the worker has and which queues it is there for, as it told when it became ready."""
    stored = client.hget(signals.KEY_WORKERS, settings.node)
    facts = json.loads(stored) if stored else {}
    return facts.get("concurrency", settings.concurrency), facts.get("queues", list(policy.QUEUES))


def _ready(client: Any, queues: Sequence[str]) -> int:
    pipe = client.pipeline(transaction=False)
    for queue in queues:
        for step in policy.PRIORITY_STEPS:
            pipe.llen(policy.priority_key(queue, step))
    return sum(pipe.execute())


def beat(settings: Settings, *, age_s_max: float) -> Health:
    """It has ticked lately."""
    return _told(settings, signals.KEY_BEAT_TICK, "beat has not ticked", age_s_max)


def dispatcher(settings: Settings, *, age_s_max: float) -> Health:
    """One on this host has looked for due jobs lately."""
    key = signals.KEY_DISPATCHER_ROUND.format(host=settings.host)
    return _told(settings, key, f"no dispatcher on {settings.host} made a round", age_s_max)


def _told(settings: Settings, key: str, what: str, age_s_max: float) -> Health:
    from redis import RedisError

    try:
        with _redis(settings) as client:
            stored: Any = client.get(key)
    except RedisError as err:
        return _broker_is_away(err)
    if stored is None:
        return Health(healthy=False, reason=f"{what} yet")
    age_s = (time.time_ns() - int(stored)) / 1e9
    if age_s > age_s_max:
        return Health(healthy=False, reason=f"{what} for {age_s:.0f} s; {age_s_max:g} s are allowed")
    return Health(healthy=True, reason=f"last sign of life {max(age_s, 0):.1f} s ago")


def page(kind: str, *, port: int | None, timeout_s: float) -> Health:
    """It answers on its port with 200; the API says itself what is wrong if not."""
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    default, path = PAGES[kind]
    url = f"http://127.0.0.1:{port or default}{path}"
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:  # our own scheme
            return Health(healthy=True, reason=f"{url} answers {answer.status}")
    except urllib.error.HTTPError as err:
        with err:
            return Health(healthy=False, reason=f"{url} answers {err.code}: {_first_line(err.read(500))}")
    except (OSError, HTTPException) as err:
        return Health(healthy=False, reason=f"{url} does not answer ({getattr(err, 'reason', None) or err})")


def _first_line(body: bytes) -> str:
    return " ".join(body.decode(errors="replace").split())


def _redis(settings: Settings) -> Any:
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Without its retries, which multiply the timeouts.
    return Redis.from_url(settings.broker_url, socket_timeout=2, socket_connect_timeout=2, retry=Retry(NoBackoff(), 0))


def _broker_is_away(err: Exception) -> Health:
    return Health(healthy=False, reason=f"the broker does not answer ({type(err).__name__})")


#: What there is a check for.
KINDS: Final = ("worker", "beat", "dispatcher", *PAGES)


def check(kind: str, settings: Settings, *, timeout_s: float, age_s_max: float, port: int | None) -> Health:
    """The health of one kind of process on this host."""
    if kind == "worker":
        return worker(settings, timeout_s=timeout_s)
    if kind == "beat":
        return beat(settings, age_s_max=age_s_max)
    if kind == "dispatcher":
        return dispatcher(settings, age_s_max=age_s_max)
    return page(kind, port=port, timeout_s=timeout_s)
