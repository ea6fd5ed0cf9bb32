"""Resident memory of a process that we started, as the kernel counts it.

Owns: the figure now, and the highest since a moment.
Called by: the benches of large mailboxes and many connections.
"""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

MIB: Final = 1024 * 1024
_SAMPLE_S: Final = 0.02


def resident_bytes(pid: int) -> int:
    """What the process and its children hold now."""
    process = psutil.Process(pid)
    return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))


class Peak:
    """The highest figure during a ``with`` block.

    Linux keeps a high-water mark for each process; elsewhere, and for a family of processes, it is sampled.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._alone = not psutil.Process(pid).children()
        self._done = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.bytes = 0

    def __enter__(self) -> Self:
        self.bytes = resident_bytes(self._pid)
        if self._kernel:
            # Section 5 of proc(5): 5 sets the high-water mark back to what is resident now.
            Path(f"/proc/{self._pid}/clear_refs").write_text("5")
        else:
            self._sampler.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._kernel:
            self.bytes = high_water_bytes(self._pid)
            return
        self._done.set()
        self._sampler.join()

    @staticmethod
    def kernel_keeps_a_mark() -> bool:
        """Whether this system has ``high_water_bytes``."""
        return Path("/proc/self/clear_refs").exists()

    @property
    def _kernel(self) -> bool:
        return self._alone and self.kernel_keeps_a_mark()

    def _sample(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.bytes = max(self.bytes, resident_bytes(self._pid))


def high_water_bytes(pid: int) -> int:
    """VmHWM of proc(5): the most that was ever resident, or since the mark was set back."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
