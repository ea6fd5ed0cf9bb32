"""Start and stop a fakemail process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time


def start(folder, *arguments):
    ready = folder / "ready.json"
    argv = [sys.executable, "-m", "fakemail", "--ready-file", str(ready)]
    for name in ("smtp", "smtps", "imap", "imaps", "control"):
        argv += [f"--{name}-port", "0"]
    process = subprocess.Popen([*argv, *arguments], stdout=subprocess.DEVNULL)
    deadline, tick = time.monotonic() + 20, threading.Event()
    while not ready.exists():
        assert process.poll() is None, "fakemail ended at its start"
        assert time.monotonic() < deadline, "fakemail was not ready in time"
        tick.wait(0.01)
    return process, json.loads(ready.read_text())


def stop(process):
    process.terminate()
    assert process.wait(timeout=10) == 0
