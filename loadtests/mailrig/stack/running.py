"""What a run needs of a stack, whoever started it: ours (``Stack``), or one that runs already (``AttachedStack``).

Called by: population, the runner and its load, which know no more of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from mailrig.stack.processes import Part, StackError


class RunningStack(Protocol):
    """All parts of the service and its neighbours, between ``start`` and ``stop``."""

    #: What was done about rigs that were killed, a line each.
    leftovers: list[str]
    #: Set when the stack can't be kept alive: the run is given up.
    broken: StackError | None
    api_url: str
    control_url: str
    exporter_url: str
    redis_url: str
    audit_url: str
    #: As the service reaches them.
    smtp: tuple[str, int]
    imap: tuple[str, int]
    #: Parts that nobody runs.
    without: frozenset[str]
    #: Between two readings of the workers' memory that are worth taking, seconds.
    memory_every_s: float

    def start(self) -> None:
        """Be there, or say in a ``StackError`` what is missing."""

    def stop(self) -> None:
        """End what was started; safe to call twice."""

    def stop_after(self, err: BaseException) -> None:
        """As ``stop``, without losing what went wrong first."""

    def create_tenant(self, name: str) -> None:
        """Make a tenant, by the service's own command."""

    def token(self, tenant: str, user: str) -> str:
        """A bearer token, by the service's own command."""

    def run_tool(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Part:
        """Start a program that must not outlive the rig."""

    def retire(self, kind: str) -> None:
        """End one part for good, before the others; without effect where the parts are not ours."""

    def worker_memory(self) -> list[dict[str, Any]]:
        """A row for each process of the workers: pid, kind and its sizes in bytes."""

    @property
    def pids(self) -> dict[str, int]:
        """The main process of each part, where they are ours."""

    @property
    def records(self) -> list[dict[str, Any]]:
        """All processes that ever were, for processes.jsonl."""

    @property
    def told(self) -> Mapping[str, str]:
        """Variables of the service that hold its secrets, as far as they are known here; never to be written down."""

    @property
    def broker_dir(self) -> Path | None:
        """Where the broker keeps its log of commands, if that is ours to read."""

    # --- hurting: where the processes are not ours, there are none ---

    @property
    def worker_pid(self) -> int | None:
        """The worker's main process; None while it is down."""

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one of them."""

    def kill_worker_parent(self) -> int | None:
        """SIGKILL the worker's main process."""

    def signal_part(self, kind: str, number: int) -> int | None:
        """Send a signal to the main process of a part; answers its pid, or None when it does not run."""

    def server_down(self, kind: str, *, forget: bool = False) -> AbstractContextManager[None]:
        """SIGKILL a server of the stack's own; behind the block it serves again, with ``forget`` without its data."""
