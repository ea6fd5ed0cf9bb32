"""The course of a run where it goes wrong: what is kept, and that everything is brought down."""

from __future__ import annotations

import io
import signal
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mailrig.history import HistoryWriter, read_history
from mailrig.runner import experiment
from mailrig.runner.interrupts import Stopped, Wish
from mailrig.runner.screen import Screen
from mailrig.scenario import load_contract, load_scenario
from mailrig.stack import StackError
from mailrig.store import Run


class Stack:
    """Comes up unless it is told what to raise; keeps what was done to it."""

    error: BaseException | None = None

    def __init__(self):
        self.done, self.broken = [], None
        self.leftovers, self.records, self.without = [], [], frozenset()
        type(self).last = self

    def start(self):
        self.done.append("start")
        if self.error is not None:
            raise self.error

    def stop(self):
        self.done.append("stop")

    def stop_after(self, _):
        self.stop()


@pytest.fixture
def made(monkeypatch, tmp_path):
    """An experiment with the stack above."""
    monkeypatch.setattr(Stack, "error", None)
    scenario = load_scenario("smoke")
    folder = Run.create(tmp_path / "runs", scenario, load_contract(), started=datetime.now(UTC))
    stack, screen = Stack(), Screen(io.StringIO())
    course = experiment.Experiment(
        scenario, folder, stack, spans=lambda _: tmp_path / "spans", scratch=tmp_path, screen=screen
    )
    return course, folder


@pytest.mark.parametrize("error", [StackError("port taken"), Stopped(signal.SIGINT), AssertionError("a defect")])
def test_whatever_happens_the_stack_is_down_and_the_history_is_kept(monkeypatch, made, error):
    monkeypatch.setattr(Stack, "error", error)
    conduct, folder = made
    with pytest.raises(type(error)):
        conduct.conduct()
    assert Stack.last.done == ["start", "stop"]
    assert [op.value["name"] for op in read_history(folder.path / "history.jsonl")] == ["up"]
    assert not list(folder.path.glob("history.*.jsonl"))


def test_the_load_s_half_written_history_is_no_reason_to_lose_the_error(monkeypatch, made):
    monkeypatch.setattr(Stack, "error", StackError("valkey ended"))
    conduct, folder = made
    with HistoryWriter(folder.path / "history.load.jsonl", "load") as history:
        history.append("invoke", "send", {"arrival": 0})
    with pytest.raises(StackError):
        conduct.conduct()
    assert {op.f for op in read_history(folder.path / "history.jsonl")} == {"phase", "send"}


def test_steps_are_done_once_each_when_they_are_due():
    done = []
    steps = [(0.0, lambda: done.append("begin")), (3.0, lambda: done.append("load")), (1e6, lambda: done.append("x"))]
    experiment.Experiment._do_due(steps, None)
    assert done == []
    start_ns = time.time_ns() - 5 * 10**9
    experiment.Experiment._do_due(steps, start_ns)
    experiment.Experiment._do_due(steps, start_ns)
    assert done == ["begin", "load"]


def test_what_does_not_settle_in_time_is_named_and_not_waited_for_again(monkeypatch, made):
    conduct, _ = made
    monkeypatch.setattr(experiment, "unsettled", lambda *_: frozenset({"stuck"}))
    stack, queues = SimpleNamespace(broken=None, audit_url=""), SimpleNamespace(unacked=0, ready={})
    stuck = conduct._settle(stack, queues, until_s=time.monotonic() - 1)
    assert stuck == {"stuck"}
    assert conduct._settle(stack, queues, until_s=time.monotonic() + 60, except_for=stuck) == frozenset()


class Load:
    """A load that has begun, or not."""

    def __init__(self, start_ns):
        self.tail, self.stops = SimpleNamespace(start_ns=start_ns), 0

    def stop(self):
        self.stops += 1


def test_ctrl_c_during_the_load_ends_it_once_and_what_was_accepted_is_waited_for(monkeypatch, made):
    conduct, _ = made
    load, said = Load(start_ns=1), []
    monkeypatch.setattr(conduct, "_phase", lambda name, text: said.append((name, text)))
    conduct._wish = Wish(asked_ns=5)
    conduct._wind_down(load)
    conduct._wind_down(load)
    assert (load.stops, [name for name, _ in said], conduct.interrupted_ns) == (1, ["interrupted"], 5)
    looks = iter([frozenset({"job"}), frozenset({"job"}), frozenset()])
    monkeypatch.setattr(experiment, "unsettled", lambda *_: next(looks))
    queues = SimpleNamespace(unacked=0, ready={})
    assert conduct._settle(SimpleNamespace(broken=None, audit_url=""), queues, until_s=time.monotonic() + 60) == set()


def test_ctrl_c_before_the_load_has_begun_leaves_nothing_to_judge(made):
    conduct, _ = made
    conduct._wish = Wish(asked_ns=5)
    with pytest.raises(Stopped):
        conduct._wind_down(Load(start_ns=None))


def test_ctrl_c_during_the_drain_ends_the_waiting(monkeypatch, made):
    conduct, _ = made
    monkeypatch.setattr(experiment, "unsettled", lambda *_: frozenset({"slow"}))
    conduct._wish = Wish(asked_ns=5)
    stack, queues = SimpleNamespace(broken=None, audit_url=""), SimpleNamespace(unacked=0, ready={})
    assert conduct._settle(stack, queues, until_s=time.monotonic() + 60) == {"slow"}


def test_a_stack_that_breaks_while_it_is_waited_for_ends_the_waiting(monkeypatch, made):
    conduct, _ = made
    monkeypatch.setattr(experiment, "unsettled", lambda *_: frozenset({"job"}))
    stack = SimpleNamespace(broken=StackError("api gave up"), audit_url="")
    queues = SimpleNamespace(unacked=0, ready={})
    with pytest.raises(StackError, match="api gave up"):
        conduct._settle(stack, queues, until_s=time.monotonic() + 60)
