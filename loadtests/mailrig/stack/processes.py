"""Start, watch and end processes, so that none outlives the rig.

Rule 1: a child is started by one long-lived thread, because the kernel's parent-death signal follows the thread that
forked (prctl(2), PR_SET_PDEATHSIG). Rule 2: a process is known by pid and birth, never by its name, and what it started
by its session. Rule 3: what was started is written down at once (leftovers), so that the next rig can end what a killed
one left. Called by the other modules of this package; ``end`` by runner as well.
"""

from __future__ import annotations

import ctypes
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import psutil

from mailrig.scenario import RigError

#: Every process of a rig has it in its environment, with the rig's own mark as the value.
MARK_VARIABLE: Final = "MAILRIG_MARK"
#: Lines of a log that an error shows.
TAIL_LINES: Final = 8
#: How long what was killed may take to be gone.
GONE_TIMEOUT_S: Final = 5.0
_TICK_S: Final = 0.01
_CANCEL_EVERY_S: Final = 0.2
_PR_SET_PDEATHSIG: Final = 1


def _find_prctl() -> Callable[..., int] | None:
    """The function, looked up before any fork: the loader's lock may be held by another thread at that moment."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    answer: Callable[..., int] = prctl
    return answer


_PRCTL: Final = _find_prctl()


def new_mark() -> str:
    """What tells one rig's processes from all others."""
    return secrets.token_hex(16)


class StackError(RigError):
    """A part of the stack did not come up, or a setting of it can't work."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A process that no later one can be taken for."""

    pid: int
    #: See ``birth``.
    born: int

    def alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        return birth(self.pid) == self.born and not _is_zombie(self.pid)


@dataclass(kw_only=True)
class Part:
    """One started process."""

    #: valkey, postgres, fakemail, api, worker, beat, dispatcher or exporter; or the name of a tool.
    kind: str
    popen: subprocess.Popen[bytes]
    identity: Identity
    #: The rig's mark in its environment.
    mark: str
    started_ns: int
    log: Path
    #: What it was started by.
    command: Command = field(repr=False)
    ended_ns: int | None = None
    #: stop, restart (it ended by itself) or killed; None while it runs.
    reason: str | None = None

    def record(self) -> dict[str, Any]:
        """The line of processes.jsonl."""
        return {
            "kind": self.kind,
            "pid": self.identity.pid,
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
    #: Takes what the process prints; not with ``capture``, because a printed token is a secret.
    log: Path
    capture: bool = False
    #: What the process gets when the rig dies; PostgreSQL's fast shutdown is SIGINT.
    death_signal: int = signal.SIGKILL
    #: Run as this user and its group, without further groups; None runs as the rig's own.
    user: tuple[int, int] | None = None
    cwd: Path | None = None


class Spawner:
    """The thread that forks."""

    def __init__(self, record: Callable[[Part], None] | None = None, *, mark: str | None = None) -> None:
        self._record = record
        self._mark = mark or new_mark()
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
        try:
            return future.result()
        except (OSError, subprocess.SubprocessError, psutil.Error) as err:
            raise StackError(f"{command.kind} can't be started: {err}") from err

    def run(self, command: Command, *, timeout_s: float, cancel: threading.Event) -> tuple[int, str, str]:
        """Run a process to its end; exit code, and what it printed on stdout and stderr if it is captured.

        Raises:
            StackError: the program can't be run, takes too long, or is not wanted any more.
        """
        part = self.start(command)
        try:
            out, err = _communicate(part, time.monotonic() + timeout_s, cancel)
        finally:
            end([part], reason="stop", grace_s=0)
            _close(part.popen)
        return part.popen.returncode, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")

    def close(self) -> None:
        """End the thread. Whatever still runs gets its death signal: stop the parts first."""
        if self._thread.is_alive():
            self._requests.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (request := self._requests.get()) is not None:
            command, future = request
            try:
                future.set_result(self._start_recorded(command))
            except BaseException as err:  # noqa: BLE001  # the caller's to handle; this thread's end would kill them all
                future.set_exception(err)

    def _start_recorded(self, command: Command) -> Part:
        part = _start(command, self._mark)
        try:
            if self._record is not None:
                self._record(part)
        except BaseException:
            end([part], reason="stop", grace_s=0)
            raise
        return part


def _start(command: Command, mark: str) -> Part:
    command.log.parent.mkdir(parents=True, exist_ok=True)
    uid, gid = command.user or (None, None)
    with open(os.devnull if command.capture else command.log, "ab") as log:  # noqa: PTH123  # either of the two
        target: IO[bytes] | int = subprocess.PIPE if command.capture else log
        popen = subprocess.Popen(
            command.argv,
            env={**command.env, MARK_VARIABLE: mark},
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=target,
            cwd=command.cwd,
            start_new_session=True,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
            # Runs after the change of user, which clears the signal (prctl(2)).
            preexec_fn=_death_signal(command.death_signal, os.getpid()),  # noqa: PLW1509  # no other way before exec
        )
    # Not reaped before this function returns, so the number is still its own.
    born = birth(popen.pid)
    return Part(
        kind=command.kind,
        popen=popen,
        identity=Identity(pid=popen.pid, born=-1 if born is None else born),
        mark=mark,
        started_ns=time.time_ns(),
        log=command.log,
        command=command,
    )


def _death_signal(number: int, parent: int) -> Callable[[], None] | None:
    """What a child does between fork and exec; it must not take a lock that another thread may hold."""
    if _PRCTL is None:
        return None
    prctl = _PRCTL

    def before_exec() -> None:
        prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
        # A parent that died before the call sends no signal any more.
        if os.getppid() != parent:
            os._exit(1)

    return before_exec


def _communicate(part: Part, deadline: float, cancel: threading.Event) -> tuple[bytes | None, bytes | None]:
    while True:
        try:
            return part.popen.communicate(timeout=_CANCEL_EVERY_S)
        except subprocess.TimeoutExpired:
            if cancel.is_set():
                raise StackError(f"{part.kind} was given up") from None
            if time.monotonic() > deadline:
                raise StackError(f"{part.kind} did not end in time") from None


def _close(popen: subprocess.Popen[bytes]) -> None:
    for stream in (popen.stdout, popen.stderr):
        if stream is not None:
            stream.close()


# --- who is who ---


def birth(pid: int) -> int | None:
    """When a process started, in the kernel's clock ticks since boot; None when there is none.

    Not psutil's create_time: that is derived from the wall clock at boot, which shifts when the clock is set.
    macOS has no such field, and there it is create_time, in hundredths of a second.
    """
    if sys.platform != "linux":
        try:
            return round(psutil.Process(pid).create_time() * 100)
        except psutil.Error:
            return None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # proc_pid_stat(5): the name stands in brackets and may hold anything; what follows the last one begins at field 3.
    return int(stat.rpartition(")")[2].split()[19])


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def members(leader: Identity, mark: str) -> list[psutil.Process]:
    """What still runs of a session, the leader included.

    The kernel gives a number to nobody else while a session has it. So if the number is now another process's, nothing
    of ours is left; if it is nobody's, then what has that session is ours, or the heir of a later holder of the number,
    who has not our mark.
    """
    born = birth(leader.pid)
    if born is not None and born != leader.born:
        return []
    return [
        process
        for process in _in_session(leader.pid)
        if (birth(process.pid) or -1) >= leader.born and (born is not None or _has_mark(process, mark))
    ]


def children(pid: int) -> list[int]:
    """The processes that a process has started and that still run; none when it is gone.

    Asked every few milliseconds by whoever waits for a task to run, and psutil reads every process of the machine.
    """
    try:
        # Each thread has the children that it forked (proc_tid_children(5)).
        texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        texts = []
    if texts:
        return [int(word) for text in texts for word in text.split()]
    try:
        return [child.pid for child in psutil.Process(pid).children()]
    except psutil.Error:
        return []


def _in_session(session: int) -> Iterable[psutil.Process]:
    for pid in psutil.pids():
        try:
            if os.getsid(pid) == session and not _is_zombie(pid):
                yield psutil.Process(pid)
        except (psutil.Error, OSError):
            continue


def _has_mark(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK_VARIABLE) == mark
    except (psutil.Error, OSError):
        return False


# --- waiting ---


def tail(log: Path) -> str:
    """The end of a log, for an error."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return "".join(f"\n    {line[:300]}" for line in lines[-TAIL_LINES:])


def death(part: Part) -> StackError:
    """What is said of a part that ended by itself."""
    code = part.popen.returncode
    how = f"was ended by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    return StackError(f"{part.kind} {how}:{tail(part.log) or ' it wrote nothing'}")


def wait_until(ready: Callable[[], bool], part: Part, *, deadline_s: float, cancel: threading.Event) -> None:
    """Wait until a part serves.

    Raises:
        StackError: the process ended, the deadline passed (both with the end of its log), or another part failed.
    """
    deadline = time.monotonic() + deadline_s
    while not ready():
        if part.popen.poll() is not None:
            raise death(part)
        if time.monotonic() > deadline:
            raise StackError(f"{part.kind} was not ready after {deadline_s:g} s:{tail(part.log)}")
        if cancel.wait(_TICK_S):
            raise StackError(f"{part.kind} was given up")
    # A stranger may answer on a port that ours could not get.
    if part.popen.poll() is not None:
        raise death(part)


def await_file(part: Part, path: Path, *, deadline_s: float, cancel: threading.Event) -> dict[str, Any]:
    """Wait for a ready file, and read it.

    Raises:
        StackError: as ``wait_until``.
    """
    wait_until(path.exists, part, deadline_s=deadline_s, cancel=cancel)
    answer: dict[str, Any] = json.loads(path.read_text())
    return answer


# --- ending ---


def end(parts: Iterable[Part], *, reason: str, grace_s: float, first: int = signal.SIGTERM) -> None:
    """Ask all to end, wait, then kill whatever is left of their sessions."""
    left = list(parts)
    for part in left:
        if part.popen.poll() is None:
            # A paused process would take the other signal only after this one.
            part.popen.send_signal(signal.SIGCONT)
            part.popen.send_signal(first)
    deadline, tick = time.monotonic() + grace_s, threading.Event()
    while left:
        for part in [part for part in left if part.popen.poll() is not None]:
            left.remove(part)
            note_end(part, reason)
            kill_session(part.identity, part.mark)
        if left and time.monotonic() >= deadline:
            for part in left:
                part.popen.kill()
                part.popen.wait()
        elif left:
            tick.wait(_TICK_S)


def note_end(part: Part, reason: str) -> None:
    """Write down that a part has ended, once."""
    if part.ended_ns is None:
        part.ended_ns, part.reason = time.time_ns(), reason


def kill_session(leader: Identity, mark: str) -> int:
    """Kill a session and wait until it is gone; answers how many processes that were."""
    doomed = members(leader, mark)
    for process in doomed:
        try:
            process.kill()
        except psutil.Error:
            continue
    _wait_gone(doomed)
    return len(doomed)


def _wait_gone(processes: Iterable[psutil.Process]) -> None:
    """Until each is gone, or a zombie: those of a dead rig are init's to reap, and some inits in containers don't."""
    deadline, tick = time.monotonic() + GONE_TIMEOUT_S, threading.Event()
    for process in processes:
        while process.is_running() and not _is_zombie(process.pid) and time.monotonic() < deadline:
            tick.wait(_TICK_S)
