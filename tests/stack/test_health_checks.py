"""The health checks tell the truth about real processes: at work, frozen, and wedged while they still answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import pytest
from service_processes import RIG, celery_of, deaf
from waiting import until

from email_service import health


def check(live, kind, *, timeout_s=3.0, age_s_max=20.0, port=None):
    settings = celery_of(live, MAIL_NODE=RIG).settings
    return health.check(kind, settings, timeout_s=timeout_s, age_s_max=age_s_max, port=port)


@contextmanager
def frozen(*pids):
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            # What was frozen past its time limit has been killed.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("kind", ["worker", "beat", "dispatcher", "api", "exporter"])
def test_what_does_its_work_is_healthy(live, kind):
    port = {"api": urlsplit(live.stack.api_url).port, "exporter": urlsplit(live.stack.exporter_url).port}.get(kind)
    found = until(lambda: (h := check(live, kind, port=port)).healthy and h, what=f"a healthy {kind}")
    assert found.reason


def test_a_frozen_worker_is_unhealthy_and_well_again_when_it_thaws(live):
    with frozen(live.stack.worker_pid):
        found = check(live, "worker", timeout_s=1.0)
        assert (found.healthy, "does not answer" in found.reason) == (False, True)
    assert until(lambda: check(live, "worker").healthy, what="the thaw")


def test_a_consumer_that_takes_nothing_is_unhealthy_although_it_answers_pings(live):
    """celery#8030, by its symptom: the queue is not empty, processes are free, and the node says pong."""
    app = celery_of(live)
    with deaf(app, "send"):
        answer = live.send(live.accounts[0])
        assert app.control.ping(destination=[RIG], timeout=2.0) == [{RIG: {"ok": "pong"}}]
        # Beat's own tasks, on other queues, may begin meanwhile: then it is not deaf to all.
        found = until(lambda: not (h := check(live, "worker", timeout_s=1.5)).healthy and h, what="the verdict")
        assert "but it begins none" in found.reason
    live.settled(live.accounts[0], answer["task_id"])
    assert check(live, "worker").healthy


def test_processes_that_do_not_take_what_their_worker_holds_are_unhealthy(live):
    sent = []

    def verdict():
        # All of them at once: one that is being replaced would take the message.
        children = live.stack.worker_children()
        if len(children) != 4:
            return None
        with frozen(*children):
            sent.append(live.send(live.accounts[0]))
            found = check(live, "worker", timeout_s=1.5)
        return None if found.healthy else found

    assert "begins none" in until(verdict, what="the verdict").reason
    for answer in sent:
        live.settled(live.accounts[0], answer["task_id"])


def test_a_dispatcher_that_makes_no_rounds_is_unhealthy(live):
    assert check(live, "dispatcher", age_s_max=5.0).healthy
    with frozen(live.stack.pids["dispatcher"]):
        found = until(
            lambda: not (h := check(live, "dispatcher", age_s_max=2.5)).healthy and h, what="the age", deadline_s=10
        )
    assert "made a round for" in found.reason


def test_a_port_where_nobody_listens_is_unhealthy(live):
    found = check(live, "api", port=9)
    assert (found.healthy, "does not answer" in found.reason) == (False, True)


def command(live, *arguments):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "email_service", "health", *arguments],
        env=live.stack._env | {"MAIL_NODE": RIG},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_the_command_says_why_in_one_line_and_by_its_exit_code(live):
    code, said = command(live, "worker")
    assert (code, said.startswith("worker is healthy: mail@rig answers")) == (0, True), said
    code, said = command(live, "worker", "--node", "mail@nowhere", "--timeout-s", "1")
    assert (code, len(said.splitlines())) == (1, 1)
    assert said.startswith("worker is unhealthy: mail@nowhere does not answer")
    code, said = command(live, "kitchen")
    assert code == 2


def test_the_documents_own_command_works_beside_it(live, request):
    """``celery -A tasks.celery_app inspect ping``, with the package that the image has for it."""
    docker = request.config.rootpath / "system" / "docker"
    path = os.pathsep.join([str(docker), live.stack._env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks.celery_app", "inspect", "ping", "-d", RIG, "--timeout", "3"],
        env=live.stack._env | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        cwd=request.config.rootpath / "loadtests",
    )
    assert done.returncode == 0, done.stderr
    assert f"{RIG}: OK" in done.stdout
    assert "pong" in done.stdout
