"""How much memory a process has."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

#: A reading costs 0.35 to 2 ms for a worker process (it walks the page tables), so tasks that follow one another within
#: this time share one; what runs longer has its own at its end. At a quarter of a second it was a tenth of a send.
PSS_AGE_S_MAX: Final = 1.0
_last_pss: tuple[int, float, int | None] = (0, 0.0, None)


def pss_bytes(pid: int | None = None) -> int | None:
    """Proportional set size of a process: shared pages counted once for all who share them. None where unknown.

    Without a pid it is this process's, at most ``PSS_AGE_S_MAX`` old.
    """
    global _last_pss  # noqa: PLW0603  # one process, one last reading
    if pid is not None:
        return _read_pss(pid)
    process, read_at, size = _last_pss
    if process != os.getpid() or time.monotonic() - read_at > PSS_AGE_S_MAX:
        size = _read_pss(os.getpid())
        _last_pss = (os.getpid(), time.monotonic(), size)
    return size


def _read_pss(pid: int) -> int | None:
    try:
        with Path(f"/proc/{pid}/smaps_rollup").open("rb") as file:
            return next((int(line.split()[1]) * 1024 for line in file if line.startswith(b"Pss:")), None)
    except OSError:
        return None
