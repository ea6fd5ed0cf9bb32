"""Breaks things on schedule: each action is written to the history as it begins, as it ends, and as it is healed.

Called by runner with a stack; the checkers read what was done from the history, and what it did from the evidence.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import psycopg
import redis

from mailrig.history import HistoryWriter
from mailrig.scenario import Nemesis, RigError
from mailrig.stack.samplers import STEPS

#: How long an action waits for its occasion (a message to take, a task that runs).
OCCASION_S: Final = 5.0


class Victim(Protocol):
    """What the nemesis needs of a stack."""

    redis_url: str
    audit_url: str

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one process that runs tasks."""

    def kill_worker_parent(self) -> int | None:
        """SIGKILL the worker's main process."""

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""


class Agent:
    """The thread that carries out a scenario's list."""

    def __init__(self, actions: tuple[Nemesis, ...], victim: Victim, history: HistoryWriter) -> None:
        self._actions = sorted(actions, key=lambda a: a.at_s)
        self._victim = victim
        self._history = history
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self._start_s = 0.0

    def start(self) -> None:
        """Begin to count: now is the start of the warm-up."""
        self._start_s = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """No further action; waits for the one that runs."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        for action in self._actions:
            if self._stop.wait(max(0.0, self._start_s + action.at_s - time.monotonic())):
                return
            self._do(action)

    def _do(self, action: Nemesis) -> None:
        self._history.append("invoke", action.action, dict(action.options))
        try:
            value = ACTIONS[action.action](self._victim, action.options, self._stop)
        except (OSError, redis.RedisError, psycopg.Error, RigError) as err:
            self._history.append("info", action.action, {}, error=f"{type(err).__name__}: {err}")
            return
        kind = "ok" if value else "info"
        error = None if value else f"no occasion within {OCCASION_S:g} s"
        self._history.append(kind, action.action, value or {}, error=error)


def _lose_message(victim: Victim, options: Mapping[str, Any], _stop: threading.Event) -> dict[str, Any] | None:
    """Take the next message of a queue as a competing consumer would, and drop it. Healed by the dispatcher."""
    queue = str(options.get("queue", "send"))
    url = victim.redis_url + "/0"
    with redis.Redis.from_url(url, socket_timeout=OCCASION_S + 2, socket_connect_timeout=2) as client:
        taken = client.brpop([queue + step for step in STEPS], timeout=OCCASION_S)
    if not taken:
        return None
    return {"task_id": json.loads(taken[1])["headers"]["id"], "queue": queue}


def _kill_child(victim: Victim, _options: Mapping[str, Any], stop: threading.Event) -> dict[str, Any] | None:
    """SIGKILL a process while it runs a task. Healed by the lease: the next execution finds its holder dead."""
    query = (
        "SELECT pid, job_id, execution_id FROM audit.executions WHERE outcome IS NULL AND pid = ANY(%s) "
        "ORDER BY started_ns DESC LIMIT 1"
    )
    deadline = time.monotonic() + OCCASION_S
    with psycopg.connect(victim.audit_url, autocommit=True, connect_timeout=5) as rows:
        while time.monotonic() < deadline and not stop.is_set():
            found = rows.execute(query, (victim.worker_children(),)).fetchone()
            if found is not None:
                victim.kill_worker_child(found[0])
                return {"pid": found[0], "task_id": found[1], "execution_id": found[2]}
            stop.wait(0.002)
    return None


def _kill_parent(victim: Victim, _options: Mapping[str, Any], _stop: threading.Event) -> dict[str, Any] | None:
    """SIGKILL the worker's main process. Healed by the stack, which starts it again."""
    pid = victim.kill_worker_parent()
    return None if pid is None else {"pid": pid}


#: By name; mailrig.scenario.NEMESIS_ACTIONS lists the same names, and a test holds the two together.
ACTIONS: Final[dict[str, Callable[[Victim, Mapping[str, Any], threading.Event], dict[str, Any] | None]]] = {
    "lose-message": _lose_message,
    "kill-child": _kill_child,
    "kill-parent": _kill_parent,
}
