"""Start, watch and end processes, so that none outlives the rig.

Rule 1: a child is started by one long-lived thread, because the kernel's parent-death signal follows the thread that
forked (prctl(2), PR_SET_PDEATHSIG). Rule 2: a process is known by pid and start time, never by its name.
Rule 3: what was started is written down before it is needed, so that the next rig can end what a killed one left.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from mailrig.scenario import RigError

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
#: Two readings of one process's start may differ by a clock tick.
START_TOLERANCE_S: Final = 0.05
#: Lines of a log that an error shows.
TAIL_LINES: Final = 8


class StackError(RigError):
    """A part of the stack did not come up, or a setting of it can't work."""


@dataclass(kw_only=True)
class Part:
    """One started process."""

    #: valkey, postgres, fakemail, api, worker, beat, dispatcher or exporter.
    kind: str
    popen: subprocess.Popen[bytes]
    started_ns: int
    #: Start time as the kernel has it, seconds since the epoch.
    create_time: float
    log: Path
    ended_ns: int | None = None
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """The line of processes.jsonl."""
        return {
            "kind": self.kind,
            "pid": self.popen.pid,
            "started_ns": self.started_ns,
            "ended_ns": self.ended_ns,
            "exit_code": self.popen.returncode,
            "reason": self.reason,
        }


@dataclass(frozen=True, kw_only=True)
class Command:
    """What to start."""

    kind: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    log: Path
    #: What the process gets when the rig dies; PostgreSQL's fast shutdown is SIGINT.
    death_signal: int = signal.SIGKILL
    #: Run as this user; None runs as the rig's own.
    user: str | None = None
    cwd: Path | None = None


class Spawner:
    """The thread that forks."""

    def __init__(self) -> None:
        self._requests: queue.Queue[tuple[Command, Future[Part]] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="spawner", daemon=True)
        self._thread.start()

    def start(self, command: Command) -> Part:
        """Start a process; returns once it has been forked and recorded.

        Raises:
            StackError: the program can't be run.
        """
        future: Future[Part] = Future()
        self._requests.put((command, future))
        return future.result()

    def close(self) -> None:
        """End the thread. Whatever still runs gets its death signal: stop the parts first."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            command, future = request
            try:
                future.set_result(_start(command))
            except (OSError, subprocess.SubprocessError, psutil.Error) as err:
                future.set_exception(StackError(f"{command.kind} can't be started: {err}"))


def _start(command: Command) -> Part:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    with command.log.open("ab") as log:
        popen = subprocess.Popen(
            command.argv,
            env=dict(command.env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=command.cwd,
            start_new_session=True,
            user=command.user,
            # After the change of user, which would clear the signal again.
            preexec_fn=_death_signal(command.death_signal, os.getpid()),  # noqa: PLW1509  # no other way before exec
        )
    return Part(
        kind=command.kind,
        popen=popen,
        started_ns=time.time_ns(),
        create_time=psutil.Process(popen.pid).create_time(),
        log=command.log,
    )


def _death_signal(number: int, parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return before_exec


def tail(log: Path) -> str:
    """The end of a log, for an error."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "".join(f"\n    {line[:300]}" for line in lines[-TAIL_LINES:])


def await_file(part: Part, path: Path, *, deadline_s: float) -> dict[str, Any]:
    """Wait for a ready file.

    Raises:
        StackError: the process ended, or the deadline passed; with the end of its log.
    """
    deadline = time.monotonic() + deadline_s
    tick = threading.Event()
    while not path.exists():
        if part.popen.poll() is not None:
            raise StackError(f"{part.kind} ended with exit code {part.popen.returncode}:{tail(part.log)}")
        if time.monotonic() > deadline:
            raise StackError(f"{part.kind} was not ready after {deadline_s:g} s:{tail(part.log)}")
        tick.wait(0.01)
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


def end(parts: Iterable[Part], *, reason: str, grace_s: float, first: int = signal.SIGTERM) -> None:
    """Ask all to end, wait, then kill whatever is left of their sessions."""
    parts = list(parts)
    for part in parts:
        if part.popen.poll() is None:
            part.popen.send_signal(signal.SIGCONT)
            part.popen.send_signal(first)
    deadline = time.monotonic() + grace_s
    for part in parts:
        try:
            part.popen.wait(timeout=max(0.05, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            part.popen.kill()
            part.popen.wait()
        kill_session(part.popen.pid, part.create_time)
        note_end(part, reason)


def note_end(part: Part, reason: str) -> None:
    """Write down that a part has ended, once."""
    if part.ended_ns is None:
        part.ended_ns, part.reason = time.time_ns(), reason


def kill_session(session: int, not_before: float) -> int:
    """Kill every process of a session that started after its leader; answers how many."""
    count = 0
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.create_time() >= not_before - START_TOLERANCE_S:
                process.kill()
                count += 1
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue
    return count


class StateFile:
    """What this rig has started, on disk; and the ends of what dead rigs have left."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._path = directory / f"rig-{os.getpid()}.json"
        self._folders: list[str] = []
        self._parts: list[dict[str, Any]] = []

    def add(self, part: Part) -> None:
        """Remember a process."""
        self._parts.append({"pid": part.popen.pid, "create_time": part.create_time, "kind": part.kind})
        self._write()

    def add_folder(self, folder: Path) -> None:
        """Remember a temporary folder."""
        self._folders.append(str(folder))
        self._write()

    def clear(self) -> None:
        """All has ended."""
        self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        me = {"pid": os.getpid(), "create_time": psutil.Process().create_time()}
        body = json.dumps({"rig": me, "parts": self._parts, "folders": self._folders})
        descriptor, name = tempfile.mkstemp(dir=self._directory)
        with os.fdopen(descriptor, "w") as file:
            file.write(body)
        Path(name).replace(self._path)

    def end_leftovers(self) -> list[str]:
        """End what rigs that are gone have started here; answers a line for each process."""
        told: list[str] = []
        for path in self._directory.glob("rig-*.json"):
            try:
                state = json.loads(path.read_text())
            except (OSError, ValueError):
                continue
            if _runs(state["rig"]):
                continue
            for part in state["parts"]:
                count = kill_session(part["pid"], part["create_time"])
                if count:
                    told.append(f"ended {part['kind']} (pid {part['pid']}), left by a rig that was killed")
            for folder in state["folders"]:
                shutil.rmtree(folder, ignore_errors=True)
            path.unlink(missing_ok=True)
        return told


def _runs(known: Mapping[str, Any]) -> bool:
    try:
        process = psutil.Process(known["pid"])
        same = abs(process.create_time() - known["create_time"]) < START_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
