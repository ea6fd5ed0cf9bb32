"""fakemail as a process of its own, with its ledger at hand."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from fakemail.client import FakeMail

DEADLINE_S = 20
USER, PASSWORD = "ann@example.test", "canary-password"
FREE_PORTS = [word for name in ("smtp", "smtps", "imap", "imaps", "control") for word in (f"--{name}-port", "0")]


@dataclass(frozen=True, kw_only=True)
class Fakes:
    """A running fakemail."""

    process: subprocess.Popen
    facts: dict
    control: FakeMail

    def address(self, name):
        return self.facts[name]["host"], self.facts[name]["port"]

    def entries(self, kind=None, **facts):
        return [
            entry for entry in self.control.ledger() if kind in {None, entry["kind"]} and facts.items() <= entry.items()
        ]

    def await_entry(self, kind, **facts):
        """The first such ledger entry, as soon as it is there."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            seq = self.control.health()["ledger_seq"]
            if found := self.entries(kind, **facts):
                return found[0]
            assert time.monotonic() < deadline, f"no {kind} entry with {facts}: {self.entries()}"
            self.control.news(after=seq, timeout_s=DEADLINE_S)


@contextlib.contextmanager
def running(*options):
    """A fakemail with these options; its standard error must stay empty."""
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.json"
        # It ends with its standard input, so that a test run that is killed leaves nothing.
        command = [sys.executable, "-m", "fakemail", *FREE_PORTS, "--ready-file", str(ready), "--stop-with-stdin"]
        command += options
        environment = os.environ | {"PYTHONWARNINGS": "error", "PYTHONPATH": os.pathsep.join(sys.path)}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        )
        try:
            deadline = time.monotonic() + DEADLINE_S
            while not ready.exists():
                assert process.poll() is None, process.stderr.read().decode()
                assert time.monotonic() < deadline, "fakemail is not ready"
                select.select([], [], [], 0.02)
            facts = json.loads(ready.read_text())
            yield Fakes(process=process, facts=facts, control=FakeMail(facts["control"]))
        finally:
            process.terminate()
            _, errors = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, errors.decode()
    assert errors.decode() == ""
