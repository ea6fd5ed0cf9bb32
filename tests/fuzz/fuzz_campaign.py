"""How long to fuzz, from which seed, and what becomes of an input that fails.

Owns: the budget (FUZZ_SECONDS, all targets together), the seed (FUZZ_SEED), the file of a failing input with the
command that runs it again (FUZZ_REPLAY).
Never does: make inputs, or judge them.
Called by: every target here.

Rule 1: case n of a seed is the same on every machine, however long the run is.
Rule 2: without FUZZ_SECONDS a run is a few seconds long and its seed is fixed, so it is a test like any other.
"""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

#: All targets together, where FUZZ_SECONDS does not say otherwise.
SECONDS_SHORT: Final = 12.0
#: What each target gets of it.
SHARES: Final = {
    "imap-core": 0.3, "imap-faults": 0.05, "imap-server": 0.15, "smtp-server": 0.15, "mail": 0.1, "faults": 0.06,
    "config": 0.04, "api": 0.15,
}  # fmt: skip
#: One case may use so much of the processor: a machine that is busy with other things is no hang.
CASE_CPU_S: Final = 5.0
Case = dict[str, Any]


class HangError(Exception):
    """One case used more of the processor than it may."""


def seconds() -> float:
    """Of all targets together."""
    return float(os.environ.get("FUZZ_SECONDS", SECONDS_SHORT))


@functools.cache
def seed() -> int:
    """FUZZ_SEED; else a fixed one in a short run, and in a long run a new one for all targets."""
    if named := os.environ.get("FUZZ_SEED"):
        return int(named)
    return int.from_bytes(os.urandom(4)) if "FUZZ_SECONDS" in os.environ else 1


class Campaign:
    """The cases of one target."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.seed = seed()
        self.seconds = seconds() * SHARES[target]
        self.done = 0
        say(f"\nfuzz {target}: FUZZ_SEED={self.seed}, {self.seconds:.0f} s")

    def run(self, make: Callable[[random.Random], Case], check: Callable[[Case], None], *, at_least: int = 20) -> None:
        """Make and check cases until the time is over; a failing one is made smaller, saved and raised.

        In a run with FUZZ_REPLAY the saved case alone is checked, if it is of this target.
        """
        if replayed := _replayed(self.target):
            check(replayed)
            return
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline or self.done < at_least:
            case = make(self.random(self.done))
            self.done += 1
            try:
                with no_hang():
                    check(case)
            except Exception as err:
                raise AssertionError(self._told(self._smaller(case, check, type(err)), check)) from err
        say(f"fuzz {self.target}: {self.done} cases")

    def random(self, number: int) -> random.Random:
        """Chance for a case."""
        return random.Random(f"{self.target}:{self.seed}:{number}")

    def _smaller(self, case: Case, check: Callable[[Case], None], error: type[Exception]) -> Case:
        """Leave out steps as long as it still fails in the same way; bounded in time."""
        deadline, size = time.monotonic() + 10, max(1, len(case["steps"]) // 2)
        while size and time.monotonic() < deadline:
            at = 0
            while at < len(case["steps"]) and time.monotonic() < deadline:
                fewer = case | {"steps": case["steps"][:at] + case["steps"][at + size :]}
                if _fails(fewer, check) is error:
                    case = fewer
                else:
                    at += size
            size //= 2
        return case

    def _told(self, case: Case, check: Callable[[Case], None]) -> str:
        try:
            with no_hang():
                check(case)
            reason = "it did not fail a second time"
        except Exception:  # noqa: BLE001  # whatever it is, it is what was found
            reason = traceback.format_exc(limit=-4)
        return self.keep(case, reason)

    def keep(self, case: Case, reason: str) -> str:
        """Save a failing input; answers what to tell."""
        folder = Path(os.environ.get("FUZZ_FAILURES", "runs/fuzz"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.target}-{self.seed}-{self.done}.json"
        path.write_text(json.dumps({"target": self.target, "reason": reason} | case, indent=1), encoding="ascii")
        again = f"FUZZ_REPLAY={path} pytest tests/fuzz -k {self.target.replace('-', '_')}"
        return f"case {self.done} of seed {self.seed} failed\ninput: {path}\nagain: {again}\n{reason}"


def load(path: Path) -> Case:
    """A case that was saved."""
    case: Case = json.loads(path.read_text(encoding="ascii"))
    return case


def _replayed(target: str) -> Case | None:
    path = os.environ.get("FUZZ_REPLAY")
    case = load(Path(path)) if path else None
    return case if case is not None and case["target"] == target else None


def _fails(case: Case, check: Callable[[Case], None]) -> type[Exception] | None:
    try:
        with no_hang():
            check(case)
    except Exception as err:  # noqa: BLE001  # the kind is all that matters
        return type(err)
    return None


@contextmanager
def no_hang() -> Iterator[None]:
    """Raise HangError in code that keeps the processor for too long; to be used in the main thread."""

    def ring(_number: int, _frame: object) -> None:
        raise HangError(f"still at work after {CASE_CPU_S} s of processor time")

    before = signal.signal(signal.SIGVTALRM, ring)
    signal.setitimer(signal.ITIMER_VIRTUAL, CASE_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def say(line: str) -> None:
    """Tell the person at the terminal (pytest -s)."""
    sys.stdout.write(line + "\n")


def text(data: bytes) -> str:
    """Bytes as JSON can hold them, legible where they are ASCII."""
    return data.decode("latin-1")


def raw(data: str) -> bytes:
    """The bytes again."""
    return data.encode("latin-1")
