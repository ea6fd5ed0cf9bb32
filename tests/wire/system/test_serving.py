"""The API's processes: a master and its workers live and die together."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress

import psutil
import pytest

DEADLINE_S = 20
PROGRAM = """
import json, pathlib, sys, threading
from flask import Flask
from email_service import serving

def application():
    app = Flask("serving")
    app.add_url_rule("/", "root", lambda: "ok")
    app.add_url_rule("/stuck", "stuck", lambda: str(threading.Event().wait(60)))
    return app

def ready(url):
    pathlib.Path(sys.argv[1]).write_text(json.dumps(url))

sys.exit(serving.serve(application, host="127.0.0.1", port=int(sys.argv[2]), workers=2, threads=2, ready=ready))
"""


def until(condition, what):
    deadline, tick = time.monotonic() + DEADLINE_S, threading.Event()
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{what} did not happen within {DEADLINE_S} s"
        tick.wait(0.02)
    return answer


def alive(pid):
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def served(folder, port=0):
    """The master's process, its workers' pids and the URL."""
    ready = folder / "ready"
    ready.unlink(missing_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    master = subprocess.Popen([sys.executable, "-c", PROGRAM, str(ready), str(port)], env=environment)
    pids = []
    try:
        url = until(lambda: ready.exists() and ready.read_text(), "the start")
        pids = until(lambda: _two(master.pid), "the second worker's fork")
        yield master, pids, json.loads(url)
    finally:
        for pid in (master.pid, *pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        master.wait()


def _two(pid):
    children = psutil.Process(pid).children()
    return [child.pid for child in children] if len(children) == 2 else None


def get(url, path="/"):
    with urllib.request.urlopen(url + path, timeout=DEADLINE_S) as answer:
        return answer.read()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's death")
def test_workers_die_with_a_master_that_is_killed_even_in_the_middle_of_a_request(tmp_path):
    with served(tmp_path) as (master, workers, url):
        assert get(url) == b"ok"
        broken = []

        def stuck():
            try:
                get(url, "/stuck")
            except (OSError, urllib.error.URLError) as err:
                broken.append(err)

        request = threading.Thread(target=stuck)
        request.start()
        until(
            lambda: any(c.status == "ESTABLISHED" for p in workers for c in psutil.Process(p).net_connections()), "it"
        )
        os.kill(master.pid, signal.SIGKILL)
        until(lambda: not any(alive(pid) for pid in workers), "the workers' end")
        request.join(DEADLINE_S)
        assert broken
        port = int(url.rpartition(":")[2])
    with served(tmp_path, port) as (_, _, again):
        assert get(again) == b"ok"


def test_a_worker_that_is_killed_is_replaced(tmp_path):
    with served(tmp_path) as (master, workers, url):
        os.kill(workers[0], signal.SIGKILL)
        until(lambda: (_two(master.pid) or workers) != workers, "another worker")
        assert get(url) == b"ok"


def test_a_master_that_is_told_to_stop_stops_with_its_workers(tmp_path):
    with served(tmp_path) as (master, workers, url):
        assert get(url) == b"ok"
        master.send_signal(signal.SIGTERM)
        assert master.wait(DEADLINE_S) == 0
        assert not any(alive(pid) for pid in workers)


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "ready"), str(port)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=DEADLINE_S,
            check=False,
        )
    assert run.returncode != 0
    assert b"choose another --port" in run.stderr
