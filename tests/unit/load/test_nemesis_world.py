"""A stack as something to break: what reaches it, and what is looked for again once a server was away."""

from __future__ import annotations

import signal
from contextlib import contextmanager

import psycopg
import pytest

from mailrig.nemesis import StackWorld, world


class Stack:
    """Writes down what is done to it."""

    redis_url, audit_url, control_url = "redis://127.0.0.1:1", "postgresql://127.0.0.1:1/x", "http://127.0.0.1:1"

    def __init__(self):
        self.pids = {"worker": 7, "beat": 8}
        self.children, self.done = [71], []

    def worker_children(self):
        return self.children

    def kill_worker_child(self, pid):
        self.done.append(("kill", pid))

    def signal_part(self, kind, number):
        self.done.append((kind, number))
        return self.pids.get(kind)

    @contextmanager
    def server_down(self, kind, *, forget=False):
        self.done.append(("down", kind, forget))
        yield
        self.done.append(("up", kind))


class Rows:
    """A connection of which the server may have forgotten."""

    def __init__(self, *answers):
        self.answers, self.closed = list(answers), False

    def execute(self, *_):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.row = answer
        return self

    def fetchone(self):
        return self.row

    def close(self):
        self.closed = True


def test_a_server_is_down_until_it_is_mended():
    stack = Stack()
    mend = StackWorld(stack).take_down("valkey", forget=True)
    assert stack.done == [("down", "valkey", True)]
    mend()
    assert stack.done[1:] == [("up", "valkey")]


def test_a_worker_is_at_work_again_only_with_processes_that_run_tasks():
    stack = Stack()
    assert (StackWorld(stack).pid("worker"), StackWorld(stack).pid("beat"), StackWorld(stack).pid("api")) == (
        7,
        8,
        None,
    )
    stack.children = []
    assert (StackWorld(stack).pid("worker"), StackWorld(stack).pid("beat")) == (None, 8)


def test_a_signal_reaches_the_part_and_nobody_else():
    stack = Stack()
    assert StackWorld(stack).signal("beat", signal.SIGSTOP) == 8
    assert stack.done == [("beat", signal.SIGSTOP)]


def test_who_works_is_asked_again_of_a_database_that_was_started_anew(monkeypatch):
    gone, fresh = Rows(psycopg.OperationalError("terminated")), Rows((71, "task", "execution"))
    connections = [gone, fresh]
    monkeypatch.setattr(world.psycopg, "connect", lambda *_, **__: connections.pop(0))
    stack = StackWorld(Stack())
    assert stack.running() is None
    assert gone.closed
    assert stack.running() == {"pid": 71, "task_id": "task", "execution_id": "execution"}
    stack.close()
    assert fresh.closed


def test_a_database_that_is_away_has_nobody_at_work(monkeypatch):
    def refuse(*_, **__):
        raise psycopg.OperationalError("refused")

    monkeypatch.setattr(world.psycopg, "connect", refuse)
    assert StackWorld(Stack()).running() is None


def test_another_error_of_the_database_is_no_silence(monkeypatch):
    monkeypatch.setattr(world.psycopg, "connect", lambda *_, **__: Rows(psycopg.ProgrammingError("no such view")))
    with pytest.raises(psycopg.ProgrammingError):
        StackWorld(Stack()).running()
