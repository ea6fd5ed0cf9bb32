"""The thread that carries out a scenario's list: when it is due, and until it is healed. Called by runner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import psycopg
import redis

from fakemail.client import ControlError
from mailrig.history import HistoryWriter
from mailrig.nemesis.actions import ACTIONS
from mailrig.nemesis.model import OCCASION_S, Injury, Occasion, World
from mailrig.scenario import Nemesis, RigError

#: Between two looks for an occasion: short, because a task that runs may be over in 10 ms.
LOOK_EVERY_S: Final = 0.002


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
