"""A running stack as something to break: its processes, its broker, its audit views, its fakes. Called by runner."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, Protocol

import psycopg
import redis

from fakemail.client import FakeMail
from mailrig.nemesis.model import LIST_SUFFIXES


class Victim(Protocol):
    """What ``StackWorld`` needs of a stack."""

    redis_url: str
    audit_url: str
    control_url: str

    @property
    def pids(self) -> dict[str, int]:
        """The main process of each part that runs."""

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one of them."""

    def signal_part(self, kind: str, number: int) -> int | None:
        """Send a signal to the main process of a part; answers its pid, or None while it is down."""

    def server_down(self, kind: str, *, forget: bool = False) -> AbstractContextManager[None]:
        """SIGKILL a server of the stack's own; behind the block it serves again."""


class StackWorld:
    """A running stack, its broker and its audit views."""

    _RUNNING: Final = (
        "SELECT pid, job_id, execution_id FROM audit.executions WHERE outcome IS NULL AND ended_ns IS NULL "
        "AND pid = ANY(%s) AND NOT execution_id = ANY(%s) ORDER BY started_ns DESC LIMIT 1"
    )

    def __init__(self, stack: Victim) -> None:
        self._stack = stack
        self._fakes = FakeMail(stack.control_url)
        self._rows: psycopg.Connection[Any] | None = None
        #: Executions that were told of: a process that was killed just now may not be gone from rows and children.
        self._told: list[str] = []

    def take_message(self, queue: str, timeout_s: float) -> str | None:
        """As the protocol says."""
        url = self._stack.redis_url + "/0"
        with redis.Redis.from_url(url, socket_timeout=timeout_s + 2, socket_connect_timeout=2) as client:
            taken: Any = client.brpop([queue + suffix for suffix in LIST_SUFFIXES], timeout=timeout_s)
        return str(json.loads(taken[1])["headers"]["id"]) if taken else None

    def running(self) -> Mapping[str, Any] | None:
        """As the protocol says; None also while the database is away."""
        try:
            row = self._query()
        except psycopg.OperationalError:
            # A server that was started again has forgotten our connection.
            self.close()
            return None
        if row is None:
            return None
        self._told.append(row[2])
        return {"pid": row[0], "task_id": row[1], "execution_id": row[2]}

    def _query(self) -> tuple[Any, ...] | None:
        if self._rows is None:
            self._rows = psycopg.connect(self._stack.audit_url, autocommit=True, connect_timeout=5)
        return self._rows.execute(self._RUNNING, (self._stack.worker_children(), self._told)).fetchone()

    def kill_child(self, pid: int) -> None:
        """As the protocol says."""
        self._stack.kill_worker_child(pid)

    def signal(self, kind: str, number: int) -> int | None:
        """As the protocol says."""
        return self._stack.signal_part(kind, number)

    def pid(self, kind: str) -> int | None:
        """As the protocol says."""
        if kind == "worker" and not self._stack.worker_children():
            return None
        return self._stack.pids.get(kind)

    def take_down(self, server: str, *, forget: bool) -> Callable[[], None]:
        """As the protocol says."""
        down = ExitStack()
        down.enter_context(self._stack.server_down(server, forget=forget))
        return down.close

    def faults(self) -> list[Mapping[str, Any]]:
        """As the protocol says."""
        return list(self._fakes.faults())

    def put_faults(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """As the protocol says."""
        self._fakes.put_faults(faults)

    def close(self) -> None:
        """Give the connection back."""
        if self._rows is not None:
            self._rows.close()
            self._rows = None
