"""Children: other people's servers and clients, started, waited for and ended by their process id.

Owns: what a test starts.
Never: ends a process that it did not start, or waits without a deadline.
Called by: the server modules beside this one and the tests of clients.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Fact = TypeVar("Fact")
#: How long a server may take to come up on a busy machine, and to go.
START_S, STOP_S = 40.0, 15.0
HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whom a program runs as that refuses to run as root."""

    #: Numbers of the user and the group.
    uid: int
    gid: int

    @property
    def user(self) -> str:
        """The user's name."""
        return pwd.getpwuid(self.uid).pw_name

    @property
    def group(self) -> str:
        """The group's name."""
        return grp.getgrgid(self.gid).gr_name

    def own(self, folder: Path) -> None:
        """Hand a folder over, with all that is in it."""
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.gid)

    def options(self) -> dict[str, Any]:
        """What ``subprocess`` must be told; nothing for a test that is not root."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if os.geteuid() == 0 else {}


def normal_user() -> Identity:
    """Oneself; ``nobody`` where the test is root."""
    if os.geteuid() != 0:
        return Identity(uid=os.getuid(), gid=os.getgid())
    nobody = pwd.getpwnam("nobody")
    return Identity(uid=nobody.pw_uid, gid=nobody.pw_gid)


@contextlib.contextmanager
def short_folder(prefix: str) -> Iterator[Path]:
    """A folder that goes away, near the root: pytest's own has a path too long for sockets, and is closed to nobody."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


class StartError(Exception):
    """A server did not come up; its log says why."""


def free_ports(count: int) -> list[int]:
    """So many ports that are free now; all of them are held until the last one is known."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            listener = held.enter_context(socket.socket())
            listener.bind((HOST, 0))
            ports.append(listener.getsockname()[1])
        return ports


def until(fact: Callable[[], Fact | None], *, deadline_s: float, what: str) -> Fact:
    """The first thing that ``fact`` finds; asks again, a few hundred times a second at most, until the deadline."""
    end, tick = time.monotonic() + deadline_s, threading.Event()
    while True:
        found = fact()
        if found is not None and found is not False:
            return found
        if time.monotonic() > end:
            raise StartError(f"{what}: not within {deadline_s:g} s")
        tick.wait(0.005)


def listens(port: int) -> bool:
    """Whether something takes connections there."""
    with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    log: Path,
    ready: Callable[[], object],
    identity: Identity | None = None,
    utc: bool = False,
) -> Iterator[subprocess.Popen]:
    """A server from the moment it serves until it and its children are gone; ``utc``: its days begin in Greenwich."""
    options = identity.options() if identity else {}
    if utc:
        options["env"] = {**os.environ, "TZ": "UTC"}
    with log.open("ab") as out:
        child = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options
        )
    try:
        _wait(child, ready, log)
        yield child
    finally:
        _end(child)


def _wait(child: subprocess.Popen, ready: Callable[[], object], log: Path) -> None:
    def serves():
        if child.poll() is not None:
            raise StartError(f"{child.args[0]} ended with {child.returncode}:\n{log.read_text(errors='replace')}")
        return ready()

    try:
        until(serves, deadline_s=START_S, what=f"{child.args[0]} serves")
    except StartError as err:
        raise StartError(f"{err}\n{log.read_text(errors='replace')[-4000:]}") from err


def _end(child: subprocess.Popen) -> None:
    """SIGTERM, and SIGKILL for what stays; the session that the child leads must be empty in the end."""
    if child.poll() is None:
        child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=STOP_S)
    if child.poll() is None or not _group_ends(child.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    child.wait(timeout=STOP_S)
    assert _group_ends(child.pid), f"{child.args[0]} left children behind"


def _group_ends(group: int) -> bool:
    with contextlib.suppress(StartError):
        return until(lambda: not _group_lives(group), deadline_s=STOP_S, what="the children end")
    return False


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        # macOS answers EPERM for a group of zombies alone.
        return False
    return True
