"""Breaks things on schedule, and heals each of them: both are written to the history as they begin and end.

Rule 1: an action is a function that waits for its occasion, breaks one thing and says how it heals; a new one is a new
row in ``ACTIONS``. Rule 2: what has no occasion in time is ``info``: nothing was broken, and the gates that need it
say so. Rule 3: only what belongs to the stack is hurt, by pid and never by name.
Called by runner; the checkers read what was done from here, and what it did from the evidence.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import psycopg
import redis

from fakemail.client import ControlError, FakeMail
from mailrig.history import HistoryWriter
from mailrig.scenario import Nemesis, RigError

#: How long an action waits for its occasion (a message to take, a task that runs), seconds.
OCCASION_S: Final = 5.0
#: How long the stack has to put right what an action broke, where that is the rig's to see.
HEAL_S: Final = 15.0
#: Between two looks for an occasion: short, because a task that runs may be over in 10 ms.
LOOK_EVERY_S: Final = 0.002
#: What a queue's name may end in: kombu keeps a list for each priority (contract: priority).
LIST_SUFFIXES: Final = ("", *(f"\x06\x16{priority}" for priority in range(1, 10)))

Value = dict[str, Any]


class World(Protocol):
    """What there is to break. The stack's is ``StackWorld``; tests bring one without sockets."""

    def take_message(self, queue: str, timeout_s: float) -> str | None:
        """Take the next message of a queue away; answers its task id."""

    def running(self) -> Mapping[str, Any] | None:
        """An execution that runs at this moment and was not told of before: pid, task_id, execution_id."""

    def kill_child(self, pid: int) -> None:
        """SIGKILL a process that runs tasks."""

    def kill_parent(self) -> int | None:
        """SIGKILL the worker's main process; answers its pid."""

    def worker_pid(self) -> int | None:
        """The worker's main process; None until it has processes that run tasks."""

    def faults(self) -> list[Mapping[str, Any]]:
        """The faults that the fakes have."""

    def put_faults(self, faults: Sequence[Mapping[str, Any]]) -> None:
        """Replace them."""


@dataclass(frozen=True, kw_only=True)
class Injury:
    """What was broken."""

    value: Value
    #: Asked until it is true: is it whole again? None heals by the system's own means, which the checkers judge.
    healed: Callable[[], bool] | None = None
    #: How long to wait for ``healed``, seconds.
    heal_s: float = HEAL_S
    #: What the rig itself does to heal it, once ``lasts_s`` is over.
    mend: Callable[[], None] | None = None
    lasts_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Occasion:
    """What an action is given."""

    world: World
    options: Mapping[str, Any]
    #: Tells whether to go on waiting, after a short pause.
    wait: Callable[[], bool] = field(repr=False)


class Agent:
    """The thread that carries out a scenario's list."""

    def __init__(
        self,
        actions: Sequence[Nemesis],
        world: World,
        history: HistoryWriter,
        *,
        clock: Callable[[], float] = time.monotonic,
        stopping: threading.Event | None = None,
        resting: threading.Event | None = None,
    ) -> None:
        """``clock`` and the two events, by which it waits, are for tests."""
        self._actions = sorted(actions, key=lambda action: action.at_s)
        self._world, self._history = world, history
        self._clock = clock
        self._stopping = stopping or threading.Event()
        #: Never set: a healing is waited for even when no further action is wanted.
        self._resting = resting or threading.Event()
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self._start_s = 0.0

    def start(self, *, age_s: float = 0.0) -> None:
        """Begin to count; the warm-up began ``age_s`` ago."""
        self._start_s = self._clock() - age_s
        self._thread.start()

    def stop(self) -> None:
        """No further action; what is broken is mended. Waits for it."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        for turn, action in enumerate(self._actions):
            if self._stopping.wait(max(0.0, self._start_s + action.at_s - self._clock())):
                return
            if not self._is_overtaken(turn):
                self._do(action)

    def _is_overtaken(self, turn: int) -> bool:
        """Whether the same is due again already: what repeats every so often is not made up for in a burst."""
        action, now_s = self._actions[turn], self._clock() - self._start_s
        return any(
            later.at_s <= now_s and (later.action, later.options) == (action.action, action.options)
            for later in self._actions[turn + 1 :]
        )

    def _do(self, action: Nemesis) -> None:
        self._history.append("invoke", action.action, dict(action.options))
        try:
            occasion = Occasion(
                world=self._world, options=action.options, wait=self._waiter(self._stopping, OCCASION_S)
            )
            injury = ACTIONS[action.action](occasion)
            if injury is None:
                self._history.append("info", action.action, {}, error=f"no occasion within {OCCASION_S:g} s")
                return
            self._history.append("ok", action.action, injury.value)
        except _ADVERSE as err:
            self._history.append("info", action.action, {}, error=f"{type(err).__name__}: {err}")
            return
        self._heal(action, injury)

    def _heal(self, action: Nemesis, injury: Injury) -> None:
        if injury.mend is None and injury.healed is None:
            return
        value, wait = {"action": action.action, **injury.value}, self._waiter(self._resting, injury.heal_s)
        self._stopping.wait(injury.lasts_s)
        self._history.append("invoke", "heal", value)
        try:
            if injury.mend is not None:
                injury.mend()
            whole = injury.healed is None or injury.healed()
            while not whole and wait():
                whole = injury.healed is None or injury.healed()
        except _ADVERSE as err:
            self._history.append("info", "heal", value, error=f"{type(err).__name__}: {err}")
            return
        error = None if whole else f"not whole after {injury.heal_s:g} s"
        self._history.append("ok" if whole else "info", "heal", value, error=error)

    def _waiter(self, event: threading.Event, limit_s: float) -> Callable[[], bool]:
        deadline = self._clock() + limit_s
        return lambda: not event.wait(LOOK_EVERY_S) and self._clock() < deadline


_ADVERSE: Final = (OSError, redis.RedisError, psycopg.Error, ControlError, RigError)

# --- actions ----------------------------------------------------------------------------------------------------------


def _lose_message(occasion: Occasion) -> Injury | None:
    """Take the next message of a queue, as one more consumer would, and drop it. Only the job's row knows of it then.

    The broker serves waiting consumers in turn, so ours gets a message even when the worker is idle.
    """
    queue = str(occasion.options.get("queue", "send"))
    task_id = occasion.world.take_message(queue, OCCASION_S)
    return None if task_id is None else Injury(value={"task_id": task_id, "queue": queue})


def _kill_child(occasion: Occasion) -> Injury | None:
    """SIGKILL a process while it runs a task. Its lease finds the holder dead, and the job runs again."""
    found = occasion.world.running()
    while found is None:
        if not occasion.wait():
            return None
        found = occasion.world.running()
    occasion.world.kill_child(found["pid"])
    return Injury(value=dict(found))


def _kill_parent(occasion: Occasion) -> Injury | None:
    """SIGKILL the worker's main process. The stack starts it again."""
    pid = occasion.world.kill_parent()
    if pid is None:
        return None
    return Injury(value={"pid": pid}, healed=lambda: occasion.world.worker_pid() not in {None, pid})


def _put_fault(occasion: Occasion) -> Injury:
    """Give the fakes one more fault for ``for_s`` seconds; the others stay, but the fakes count them anew."""
    fault = {key: value for key, value in occasion.options.items() if key != "for_s"}
    world = occasion.world
    world.put_faults([*_without(world.faults(), fault["id"]), fault])
    return Injury(
        value={"id": fault["id"], "point": fault["point"]},
        mend=lambda: world.put_faults(_without(world.faults(), fault["id"])),
        lasts_s=float(occasion.options["for_s"]),
    )


def _clear_fault(occasion: Occasion) -> Injury:
    """Take a fault from the fakes before its time."""
    fault_id = occasion.options["id"]
    occasion.world.put_faults(_without(occasion.world.faults(), fault_id))
    return Injury(value={"id": fault_id})


def _without(faults: Sequence[Mapping[str, Any]], fault_id: str) -> list[Mapping[str, Any]]:
    return [fault for fault in faults if fault["id"] != fault_id]


#: By name; mailrig.scenario.NEMESIS_ACTIONS says which of them a scenario may name.
ACTIONS: Final[Mapping[str, Callable[[Occasion], Injury | None]]] = {
    "lose-message": _lose_message,
    "kill-child": _kill_child,
    "kill-parent": _kill_parent,
    "put-fault": _put_fault,
    "clear-fault": _clear_fault,
}

# --- the stack's world ------------------------------------------------------------------------------------------------


class Victim(Protocol):
    """What ``StackWorld`` needs of a stack."""

    redis_url: str
    audit_url: str
    control_url: str

    @property
    def worker_pid(self) -> int | None:
        """The worker's main process; None while it is down."""

    def worker_children(self) -> list[int]:
        """The processes that run tasks."""

    def kill_worker_child(self, pid: int) -> None:
        """SIGKILL one of them."""

    def kill_worker_parent(self) -> int | None:
        """SIGKILL the worker's main process."""


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
        """As the protocol says."""
        if self._rows is None:
            self._rows = psycopg.connect(self._stack.audit_url, autocommit=True, connect_timeout=5)
        row = self._rows.execute(self._RUNNING, (self._stack.worker_children(), self._told)).fetchone()
        if row is None:
            return None
        self._told.append(row[2])
        return {"pid": row[0], "task_id": row[1], "execution_id": row[2]}

    def kill_child(self, pid: int) -> None:
        """As the protocol says."""
        self._stack.kill_worker_child(pid)

    def kill_parent(self) -> int | None:
        """As the protocol says."""
        return self._stack.kill_worker_parent()

    def worker_pid(self) -> int | None:
        """As the protocol says."""
        return self._stack.worker_pid if self._stack.worker_children() else None

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
