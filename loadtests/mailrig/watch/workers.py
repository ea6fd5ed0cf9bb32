"""The bridge's process: starts it, hears what it says, ends it. Called by watching.

What was heard is kept until it is taken, so that the watcher writes it down in its own time.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from mailrig.doctor.application import IMPORT_TIMEOUT_S
from mailrig.doctor.facts import App
from mailrig.scenario import RigError

_BRIDGE: Final = Path(__file__).with_name("bridge.py")
_PROBE: Final = Path(__file__).parents[1] / "doctor" / "probe.py"
#: What the bridge needs to put the workers back as they were.
_END_S: Final = 5.0


class BridgeError(RigError):
    """The application can't be imported, or its interpreter can't be run: exit code 2."""


class Workers:
    """What an application's workers say, from a process of its own interpreter."""

    def __init__(self, popen: subprocess.Popen[str], app_name: str) -> None:
        self._popen, self._name = popen, app_name
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen, name="bridge", daemon=True)
        self._thread.start()

    @classmethod
    def start(
        cls, app: str, *, python: str | None, broker: str | None, enable_events: bool, every_s: float
    ) -> tuple[Self, App]:
        """The workers, and the application's facts.

        Raises:
            BridgeError: there is no application to look at.
        """
        try:
            popen = subprocess.Popen(
                [python or sys.executable, os.fspath(_BRIDGE)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                # What an application prints may hold anything.
                stderr=subprocess.DEVNULL,
                text=True,
                # Ctrl-C is for us: it has to put the workers back first.
                start_new_session=True,
            )
        except OSError as err:
            raise BridgeError(f"{python}: {err.strerror}") from err
        workers = cls(popen, app)
        # By stdin, because anybody may read arguments: the URL may hold a password.
        workers._order(app=app, probe=os.fspath(_PROBE), broker=broker, enable_events=enable_events, every_s=every_s)
        try:
            return workers, App.of(workers._facts())
        except BaseException:
            workers.stop()
            raise

    def _order(self, **order: Any) -> None:
        assert self._popen.stdin is not None  # noqa: S101  # it is a pipe
        with suppress(BrokenPipeError):  # it has ended: _facts says so
            self._popen.stdin.write(json.dumps(order) + "\n")
            self._popen.stdin.flush()

    def _facts(self) -> Mapping[str, Any]:
        try:
            line = self._heard.get(timeout=IMPORT_TIMEOUT_S)
        except queue.Empty as err:
            raise BridgeError(f"{self._name} is not imported after {IMPORT_TIMEOUT_S:g} s") from err
        if "error" in line:
            raise BridgeError(str(line["error"]))
        if "facts" not in line:
            raise BridgeError(f"{self._name} can't be looked at: its process ended with {self._popen.wait()} at import")
        facts: Mapping[str, Any] = line["facts"]
        return facts

    def _listen(self) -> None:
        assert self._popen.stdout is not None  # noqa: S101  # it is a pipe
        for line in self._popen.stdout:
            # A line is torn only when its writer was killed.
            with suppress(ValueError):
                self._heard.put(json.loads(line))
        self._heard.put({"ended": True})

    def take(self) -> list[dict[str, Any]]:
        """What has been heard since the last time.

        Raises:
            BridgeError: the process has ended by itself.
        """
        lines: list[dict[str, Any]] = []
        while True:
            try:
                line = self._heard.get_nowait()
            except queue.Empty:
                return lines
            if "ended" in line:
                raise BridgeError(f"the process that asks the workers of {self._name} has ended: {self._popen.wait()}")
            lines.append(line)

    def stop(self) -> list[dict[str, Any]]:
        """End it, once it has put the workers back; what it said last. Safe to call twice."""
        if self._popen.stdin is not None and not self._popen.stdin.closed:
            with suppress(BrokenPipeError):
                self._popen.stdin.close()
        try:
            self._popen.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self._thread.join(_END_S)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        lines: list[dict[str, Any]] = []
        with suppress(queue.Empty):
            while True:
                lines.append(self._heard.get_nowait())
        return [line for line in lines if "ended" not in line]
