"""A fakemail process under fire: started, watched, ended.

Owns: the process, its standard error, its descriptors and its memory.
Never does: judge a conversation.
Called by: the targets with a socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from fakemail.client import FakeMail

START_S = 20.0
#: How long a server may take to say something, also on a busy machine.
ANSWER_S = 20.0
MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Server:
    """A fakemail that serves."""

    process: subprocess.Popen[bytes]
    control: FakeMail
    ports: dict[str, int]
    errors: Path

    def port(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", self.ports[name]

    def must_be_well(self) -> None:
        """It lives, and nothing went wrong inside that it had to tell."""
        assert self.process.poll() is None, f"it ended with {self.process.returncode}: {self.told()}"
        assert not self.told(), self.told()

    def told(self) -> str:
        """Its standard error."""
        return self.errors.read_text(errors="replace")[-3000:]

    def descriptors(self) -> int:
        return psutil.Process(self.process.pid).num_fds()

    def ledger_seq(self) -> int:
        """Of the last entry."""
        return int(self.control.health()["ledger_seq"])

    def resident_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def await_descriptors(self, most: int) -> int:
        """Their number, once it is no more than ``most`` or the time is over."""
        await_true(lambda: self.descriptors() <= most)
        return self.descriptors()


@contextlib.contextmanager
def running(config: str) -> Iterator[Server]:
    """A fakemail with this configuration; its end must be in order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fakes.toml").write_text(config)
        ready = folder / "ready.json"
        argv = [sys.executable, "-W", "error", "-m", "fakemail", "--ready-file", str(ready)]
        argv += ["--config", str(folder / "fakes.toml")]
        for port in ("smtp", "smtps", "imap", "imaps", "control"):
            argv += [f"--{port}-port", "0"]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with (folder / "errors").open("wb") as errors:
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        try:
            assert await_true(ready.exists, seconds=START_S), (folder / "errors").read_text()
            facts = json.loads(ready.read_text())
            ports = {each: facts[each]["port"] for each in ("smtp", "smtps", "imap", "imaps")}
            control = FakeMail(facts["control"])
            yield Server(process=process, control=control, ports=ports, errors=folder / "errors")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=20)


def await_true(holds: Callable[[], object], *, seconds: float = ANSWER_S) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        select.select([], [], [], 0.01)
    return True
