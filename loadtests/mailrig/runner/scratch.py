"""A rig's own folder for what a run does not keep: tokens, span files, a mutant's copy of the service.

Locked while its rig lives, so that the next one can tell what a killed rig has left and remove it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "scratch-"
_LOCK: Final = "lock"


@contextmanager
def scratch_folder(state_dir: Path) -> Iterator[Path]:
    """A fresh folder, readable by its owner only, gone with the block; and the end of what others have left."""
    state_dir.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(state_dir)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=state_dir))
    lock = _take_lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _take_lock(folder: Path) -> int:
    """The kernel drops it with the process, whatever ends that; children don't inherit the descriptor.

    The file gets its name once it is locked: nobody can find it before.
    """
    nameless = folder / f"{_LOCK}.new"
    lock = os.open(nameless, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    nameless.rename(folder / _LOCK)
    return lock


def _remove_abandoned(state_dir: Path) -> None:
    # A folder without a lock is being made at this moment.
    for path in state_dir.glob(f"{_PREFIX}*/{_LOCK}"):
        with suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.parent)
            finally:
                os.close(lock)
