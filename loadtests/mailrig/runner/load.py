"""Locust as a process of its own, for it patches the one that it is in; and how far it is, read from its history."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from mailrig.clients import Tally, Timing
from mailrig.live import LiveGates
from mailrig.scenario import RigError
from mailrig.stack import Part, RunningStack, end

#: Locust gets this long to write down what was under way, seconds.
STOP_GRACE_S: Final = 3.0
#: So long a master waits until all of its workers are there, seconds.
FLEET_WAIT_S: Final = 120
_PACKAGE: Final = Path(__file__).parents[1]
_LOG_TAIL_CHARS: Final = 300


class LoadError(RigError):
    """The load generator did not do its work."""


class HistoryTail:
    """Counts of a history that another process is writing; and what it says of gates that can be seen already."""

    def __init__(self, path: Path, live: LiveGates | None = None) -> None:
        self._path, self._live, self._tally = path, live, Tally()
        self._position = 0
        self._counts: Counter[str] = Counter()
        #: When the schedule began, nanoseconds since the epoch; None until the load says so.
        self.start_ns: int | None = None
        self.scheduled = 0

    def read(self) -> None:
        """Take in what is new; a line that is not whole yet waits."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._position += whole
        for line in data[:whole].splitlines():
            self._take(json.loads(line))

    def _take(self, op: Mapping[str, Any]) -> None:
        if op["f"] == "phase":
            self.start_ns, self.scheduled = op["time_ns"], op["value"]["scheduled"]
        elif op["f"] == "complete":
            self._counts["settled" if op["value"]["state"] == "succeeded" else "failed"] += 1
        else:
            self._counts[op["type"]] += 1
        if self._live is not None:
            self._tell(op, self._live)

    def _tell(self, op: Mapping[str, Any], live: LiveGates) -> None:
        value = op["value"]
        if op["f"] == "complete":
            live.time(self._tally.settled(value))
            # Only a success ends when its execution does: what ends a dead one's row may come much later.
            if value["state"] == "succeeded" and value["started_ns"] is not None:
                live.ran(value["started_ns"], value["ended_ns"])
        elif op["f"] != "phase" and op["type"] in {"invoke", "ok"}:
            word = "lag" if op["type"] == "invoke" else "accept"
            late_ns = max(op["time_ns"] - value["intended_ns"], 0)
            live.time([Timing(kind="API", name=f"{word} {op['f']}", duration_ns=late_ns, warmup=value["warmup"])])
            if op["type"] == "ok":
                live.time(self._tally.accepted(value["task_id"], value["intended_ns"], warmup=value["warmup"]))

    @property
    def gone_s(self) -> float | None:
        """Since the start of the warm-up; None before it."""
        return None if self.start_ns is None else (time.time_ns() - self.start_ns) / 1e9

    def __str__(self) -> str:
        if self.start_ns is None:
            return "starting the load"
        counts = self._counts
        text = f"asked {counts['invoke']} of {self.scheduled}, accepted {counts['ok']}, settled {counts['settled']}"
        for name, count in (("failed", counts["failed"]), ("refused", counts["fail"]), ("unclear", counts["info"])):
            text += f", {name} {count}" if count else ""
        return text


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Load workers elsewhere, each a ``mailrig load-worker``."""

    #: How many are waited for.
    workers: int
    #: Where the master listens for them.
    host: str
    port: int


class LoadProcess:
    """A headless Locust that runs a scenario against a stack: alone, or as the master of a fleet."""

    def __init__(
        self,
        stack: RunningStack,
        *,
        stack_file: Path,
        scenario_file: Path,
        history: Path,
        session: str,
        fleet: Fleet | None = None,
        live: LiveGates | None = None,
    ) -> None:
        env = {
            **os.environ,
            "MAILRIG_STACK": str(stack_file.absolute()),
            "MAILRIG_SCENARIO": str(scenario_file.absolute()),
            "MAILRIG_HISTORY": str(history.absolute()),
            "MAILRIG_SESSION": session,
        }
        argv = locust_argv("--headless", "--only-summary")
        if fleet is not None:
            env["MAILRIG_REMOTE"] = "1"
            argv += ["--master", "--master-bind-host", fleet.host, "--master-bind-port", str(fleet.port)]
            argv += ["--expect-workers", str(fleet.workers), "--expect-workers-max-wait", str(FLEET_WAIT_S)]
        self._part: Part = stack.run_tool("locust", argv, env)
        self.tail = HistoryTail(history, live)

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._part.popen.poll() is None

    def stop(self) -> None:
        """End it, if it has not ended by itself."""
        end([self._part], reason="stop", grace_s=STOP_GRACE_S)

    def check(self) -> None:
        """After its end: did it do its work?

        Raises:
            LoadError: it did not; with what it said last.
        """
        self.tail.read()
        code = self._part.popen.returncode
        if code != 0 or self.tail.start_ns is None:
            lines = self._part.log.read_text(errors="replace").strip().splitlines()
            told = next((line for line in reversed(lines) if line.startswith("mailrig: ")), lines[-1] if lines else "")
            raise LoadError(
                f"Locust ended with exit code {code}: {told[:_LOG_TAIL_CHARS] or 'it said nothing'} "
                f"(log: {self._part.log})"
            )


def locust_argv(*options: str) -> list[str]:
    """A command line that runs the load."""
    return [sys.executable, "-m", "locust", "-f", str(locustfile()), *options]


def work_for(host: str, port: int) -> NoReturn:
    """Become a load worker of the master there: it says what to load, and where.

    Locust knocks for five minutes. The process itself becomes Locust, so that signals reach it.
    """
    argv = locust_argv("--worker", "--master-host", host, "--master-port", str(port))
    os.execve(argv[0], argv, {**os.environ, "MAILRIG_REMOTE": "1"})  # noqa: S606  # our own interpreter, no shell


def locustfile() -> Path:
    """In the source tree beside the package, in an installed one within it."""
    for path in (_PACKAGE.parent / "locustfile.py", _PACKAGE / "data" / "locustfile.py"):
        if path.is_file():
            return path
    raise LoadError("locustfile.py is not where it should be: install mailrig again")
