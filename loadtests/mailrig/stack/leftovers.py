"""What a rig has started, on disk; and the end of what dead rigs have left.

One file per rig, readable by its owner only, written whole or not at all. A rig is dead when no process has its pid and
birth. Files of others, and folders that no rig marked as its own, are never touched: the files lie in the working
directory, and so could come from anywhere. Called by Stack.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mailrig.stack.processes import Identity, Part, birth, kill_session, new_mark

#: A rig's folder holds a file of this name with the rig's mark, so that nothing else is ever removed.
MARK_FILE: Final = ".mailrig-mark"
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE: Final = "/proc/self/ns/pid"


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What was found of dead rigs."""

    #: A line for each process that was ended.
    told: tuple[str, ...]
    #: Databases on a server of the user's that dead rigs made, by the file that says so.
    databases: tuple[tuple[Path, str], ...]


class StateFile:
    """What this rig has started."""

    def __init__(self, directory: Path) -> None:
        #: In the environment of this rig's processes, and in its folders.
        self.mark: Final = new_mark()
        self._directory = directory
        self._path = self._directory / f"rig-{os.getpid()}-{self.mark[:8]}.json"
        self._lock = threading.Lock()
        self._state: dict[str, Any] = {
            "rig": _identity_row(Identity(pid=os.getpid(), born=birth(os.getpid()) or 0)),
            "place": _place(),
            "mark": self.mark,
            "parts": [],
            "folders": [],
            "databases": [],
        }

    def add(self, part: Part) -> None:
        """Remember a process."""
        self._append("parts", {**_identity_row(part.identity), "kind": part.kind})

    def add_folder(self, folder: Path) -> None:
        """Remember a temporary folder, and mark it as ours."""
        (folder / MARK_FILE).write_text(self.mark)
        self._append("folders", str(folder))

    def add_database(self, name: str) -> None:
        """Remember a database on a server that is not ours."""
        self._append("databases", name)

    def clear(self) -> None:
        """All has ended."""
        self._path.unlink(missing_ok=True)

    def _append(self, key: str, value: Any) -> None:
        with self._lock:
            self._directory.mkdir(parents=True, exist_ok=True)
            self._state[key].append(value)
            _write(self._path, self._state)

    def end_leftovers(self) -> Leftovers:
        """End what rigs that are gone have started with this state folder."""
        told: list[str] = []
        databases: list[tuple[Path, str]] = []
        for path, state in _dead_rigs(self._directory):
            if state["place"]["boot"] == _place()["boot"]:
                told += _end_processes(state)
            for folder in state["folders"]:
                _remove_folder(Path(folder), state["mark"])
            databases += [(path, name) for name in state["databases"]]
            if not state["databases"]:
                path.unlink(missing_ok=True)
        return Leftovers(told=tuple(told), databases=tuple(databases))


def _write(path: Path, state: dict[str, Any]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".rig-")  # mode 0600
    with os.fdopen(descriptor, "w") as file:
        json.dump(state, file)
    Path(name).replace(path)


def _identity_row(identity: Identity) -> dict[str, int]:
    return {"pid": identity.pid, "born": identity.born}


def _place() -> dict[str, str]:
    """Where process ids mean something: a boot of a machine, and a namespace of it."""
    try:
        return {"boot": _BOOT_ID.read_text().strip(), "namespace": str(Path(_PID_NAMESPACE).readlink())}
    except OSError:  # macOS: births are wall-clock times there, and no boot repeats them
        return {"boot": "", "namespace": ""}


def _dead_rigs(directory: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    here = _place()
    for path in sorted(directory.glob("rig-*.json")):
        state = _read(path)
        if state is None:
            continue
        place = state["place"]
        if place["boot"] == here["boot"] and place["namespace"] != here["namespace"]:
            continue  # of another container: its pids say nothing here
        if place["boot"] == here["boot"] and Identity(**state["rig"]).alive():
            continue
        yield path, state


def _read(path: Path) -> dict[str, Any] | None:
    """A state file, if this user wrote it and nobody else could."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor) as file:
            facts = os.fstat(file.fileno())
            if facts.st_uid != os.geteuid() or facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return None
            state = json.load(file)
    except (OSError, ValueError):
        return None
    keys = {"rig", "place", "mark", "parts", "folders", "databases"}
    return state if isinstance(state, dict) and keys <= state.keys() else None


def _end_processes(state: dict[str, Any]) -> Iterator[str]:
    for row in state["parts"]:
        identity = Identity(pid=row["pid"], born=row["born"])
        if kill_session(identity, state["mark"]):
            yield f"ended {row['kind']} (pid {identity.pid}), left by a rig that was killed"


def _remove_folder(folder: Path, mark: str) -> None:
    try:
        ours = (folder / MARK_FILE).read_text() == mark and folder.lstat().st_uid == os.geteuid()
    except OSError:
        return
    if ours and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)


def forget_databases(found: Iterable[tuple[Path, str]]) -> None:
    """Those databases are gone: nothing needs to be remembered of their rigs."""
    for path in {path for path, _ in found}:
        path.unlink(missing_ok=True)
