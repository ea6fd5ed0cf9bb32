"""What an action is given, what it answers, and what there is to break. Values and one protocol; does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

#: How long an action waits for its occasion (a message to take, a task that runs), seconds.
OCCASION_S: Final = 5.0
#: How long the stack has to put right what an action broke, where that is the rig's to see.
HEAL_S: Final = 15.0
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

    def signal(self, kind: str, number: int) -> int | None:
        """Send a signal to the main process of a part; answers its pid, or None while it is down."""

    def pid(self, kind: str) -> int | None:
        """The main process of a part that is at work again: of a worker, one that has processes that run tasks."""

    def take_down(self, server: str, *, forget: bool) -> Callable[[], None]:
        """SIGKILL a server of the stack's own; what is answered starts it again, and returns when it serves.

        With ``forget`` it begins empty.
        """

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
