"""The kinds of harm: each a function that breaks one thing and says how that heals. The world is the caller's.

Rule: a new kind is a row of ``ACTIONS`` here and of ``scenario.NEMESIS`` there, which says what a scenario may tell it.
Called by agent.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from mailrig.nemesis.model import HEAL_S, OCCASION_S, Injury, Occasion
from mailrig.scenario import FOR_S

#: A worker that is asked to end finishes what it runs, and its successor has to come up.
DEPLOY_HEAL_S: Final = 30.0


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


def _kill(occasion: Occasion, *, kind: str) -> Injury | None:
    """SIGKILL the main process of a part. The stack starts it again."""
    return _replaced(occasion, kind, occasion.world.signal(kind, signal.SIGKILL))


def _stop_worker(occasion: Occasion) -> Injury | None:
    """Ask the worker to end, as a deployment does: it finishes what it runs. The stack starts the next one."""
    return _replaced(occasion, "worker", occasion.world.signal("worker", signal.SIGTERM), heal_s=DEPLOY_HEAL_S)


def _replaced(occasion: Occasion, kind: str, pid: int | None, *, heal_s: float = HEAL_S) -> Injury | None:
    """Healed by another process in its place; nobody's end was no occasion."""
    if pid is None:
        return None
    return Injury(value={"pid": pid}, healed=lambda: occasion.world.pid(kind) not in {None, pid}, heal_s=heal_s)


def _pause(occasion: Occasion, *, kind: str) -> Injury | None:
    """SIGSTOP the main process of a part for ``for_s`` seconds: it holds its connections, and answers nobody."""
    pid = occasion.world.signal(kind, signal.SIGSTOP)
    if pid is None:
        return None
    return Injury(
        value={"pid": pid},
        mend=lambda: _resume(occasion, kind),
        lasts_s=_for_s(occasion),
    )


def _resume(occasion: Occasion, kind: str) -> None:
    occasion.world.signal(kind, signal.SIGCONT)


def _restart(occasion: Occasion, *, server: str, forget: bool = False) -> Injury:
    """SIGKILL a server and start it again ``for_s`` seconds later; with ``forget`` without any of its data."""
    return Injury(
        value={"server": server, "data": "lost" if forget else "kept"},
        mend=occasion.world.take_down(server, forget=forget),
        lasts_s=_for_s(occasion),
    )


def _put_fault(occasion: Occasion) -> Injury:
    """Give the fakes one more fault for ``for_s`` seconds; the others stay, but the fakes count them anew."""
    fault = {key: value for key, value in occasion.options.items() if key != "for_s"}
    world = occasion.world
    world.put_faults([*_without(world.faults(), fault["id"]), fault])
    return Injury(
        value={"id": fault["id"], "point": fault["point"]},
        mend=lambda: world.put_faults(_without(world.faults(), fault["id"])),
        lasts_s=_for_s(occasion),
    )


def _clear_fault(occasion: Occasion) -> Injury:
    """Take a fault from the fakes before its time."""
    fault_id = occasion.options["id"]
    occasion.world.put_faults(_without(occasion.world.faults(), fault_id))
    return Injury(value={"id": fault_id})


def _for_s(occasion: Occasion) -> float:
    return float(occasion.options.get("for_s", FOR_S))


def _without(faults: Sequence[Mapping[str, Any]], fault_id: str) -> list[Mapping[str, Any]]:
    return [fault for fault in faults if fault["id"] != fault_id]


#: By name; ``mailrig.scenario.NEMESIS`` says which of them a scenario may name, and with what.
ACTIONS: Final[Mapping[str, Callable[[Occasion], Injury | None]]] = {
    "lose-message": _lose_message,
    "kill-child": _kill_child,
    "kill-parent": partial(_kill, kind="worker"),
    "kill-beat": partial(_kill, kind="beat"),
    "kill-dispatcher": partial(_kill, kind="dispatcher"),
    "kill-api": partial(_kill, kind="api"),
    "kill-exporter": partial(_kill, kind="exporter"),
    "stop-worker": _stop_worker,
    "pause-parent": partial(_pause, kind="worker"),
    "pause-beat": partial(_pause, kind="beat"),
    "pause-dispatcher": partial(_pause, kind="dispatcher"),
    "pause-api": partial(_pause, kind="api"),
    "pause-redis": partial(_pause, kind="valkey"),
    "restart-redis": partial(_restart, server="valkey"),
    "lose-redis": partial(_restart, server="valkey", forget=True),
    "restart-postgres": partial(_restart, server="postgres"),
    "put-fault": _put_fault,
    "clear-fault": _clear_fault,
}
