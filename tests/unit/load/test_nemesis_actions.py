"""What the nemesis does and writes down, in a world without sockets or time."""

from __future__ import annotations

import signal
import threading

import pytest

from fakemail.client import ControlError
from mailrig.history import HistoryWriter, read_history
from mailrig.nemesis import ACTIONS, HEAL_S, OCCASION_S, Agent
from mailrig.scenario import FOR_S, NEMESIS_ACTIONS, Nemesis, RigError


class Time:
    """A clock that moves by being waited for."""

    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s

    def event(self):
        return _Event(self)


class _Event(threading.Event):
    def __init__(self, time):
        super().__init__()
        self._time = time

    def wait(self, timeout=None):
        if not self.is_set():
            self._time.now_s += timeout
        return self.is_set()


class World:
    """Keeps what was done; ``occasions`` counts down until there is something to take or to kill."""

    def __init__(self, *, occasions=0):
        self.done, self.looks = [], occasions
        self.pids = [7]
        self.set_faults = [{"id": "greylist", "point": "smtp.rcpt"}]

    def _there(self):
        self.looks -= 1
        return self.looks < 0

    def take_message(self, queue, timeout_s):
        self.done.append(("take", queue, timeout_s))
        return "task-1" if self._there() else None

    def running(self):
        return {"pid": 71, "task_id": "task-2", "execution_id": "execution-2"} if self._there() else None

    def kill_child(self, pid):
        self.done.append(("kill-child", pid))

    def signal(self, kind, number):
        self.done.append((kind, signal.Signals(number).name))
        return self.pids[0]

    def pid(self, kind):
        self.done.append(("pid", kind)) if ("pid", kind) not in self.done else None
        return self.pids.pop(0) if len(self.pids) > 1 else self.pids[0]

    def take_down(self, server, *, forget):
        self.done.append(("down", server, forget))
        return lambda: self.done.append(("up", server))

    def faults(self):
        return self.set_faults

    def put_faults(self, faults):
        self.set_faults = list(faults)
        self.done.append(("faults", [fault["id"] for fault in faults]))


def conduct(tmp_path, world, *actions, stop_first=False):
    """Run all actions to their end; the operations they wrote, and when each was written."""
    time, path = Time(), tmp_path / "history.jsonl"
    stopping = time.event()
    with HistoryWriter(path, "nemesis") as history:
        agent = Agent(actions, world, history, clock=time, stopping=stopping, resting=time.event())
        if stop_first:
            stopping.set()
        agent.start()
        agent._thread.join()
    return time.now_s - 100, [(op.type, op.f, dict(op.value), op.error) for op in read_history(path)]


def action(name, at_s=0.0, **options):
    return Nemesis(at_s=at_s, action=name, options=options)


def test_every_action_can_be_named_by_a_scenario():
    assert set(NEMESIS_ACTIONS) == set(ACTIONS)


def test_a_lost_message_is_named_by_its_task_and_heals_by_the_system(tmp_path):
    world = World()
    _, ops = conduct(tmp_path, world, action("lose-message", queue="sync"))
    assert world.done == [("take", "sync", OCCASION_S)]
    assert ops == [
        ("invoke", "lose-message", {"queue": "sync"}, None),
        ("ok", "lose-message", {"task_id": "task-1", "queue": "sync"}, None),
    ]


def test_without_a_message_nothing_was_broken_and_it_says_so(tmp_path):
    _, ops = conduct(tmp_path, World(occasions=9), action("lose-message"))
    assert ops[-1] == ("info", "lose-message", {}, "no occasion within 5 s")


def test_a_child_is_killed_only_while_it_runs_a_task(tmp_path):
    world = World(occasions=3)
    took_s, ops = conduct(tmp_path, world, action("kill-child"))
    assert world.done == [("kill-child", 71)]
    assert ops[-1][2] == {"pid": 71, "task_id": "task-2", "execution_id": "execution-2"}
    assert took_s == pytest.approx(0.006)


def test_an_idle_worker_keeps_its_children(tmp_path):
    world = World(occasions=10_000)
    took_s, ops = conduct(tmp_path, world, action("kill-child"))
    assert (world.done, ops[-1][0]) == ([], "info")
    assert took_s == pytest.approx(OCCASION_S, abs=0.1)


def test_a_killed_parent_is_healed_when_another_one_is_there(tmp_path):
    world = World()
    world.pids = [7, None, None, 8]
    _, ops = conduct(tmp_path, world, action("kill-parent"))
    assert [(kind, f) for kind, f, *_ in ops] == [
        ("invoke", "kill-parent"),
        ("ok", "kill-parent"),
        ("invoke", "heal"),
        ("ok", "heal"),
    ]
    assert ops[-1][2] == {"action": "kill-parent", "pid": 7}


def test_a_parent_that_never_comes_back_is_not_called_healed(tmp_path):
    took_s, ops = conduct(tmp_path, World(), action("kill-parent"))
    assert ops[-1] == ("info", "heal", {"action": "kill-parent", "pid": 7}, "not whole after 15 s")
    assert took_s == pytest.approx(HEAL_S, abs=0.1)


@pytest.mark.parametrize(
    ("name", "kind", "number"),
    [
        ("kill-parent", "worker", "SIGKILL"),
        ("kill-beat", "beat", "SIGKILL"),
        ("kill-dispatcher", "dispatcher", "SIGKILL"),
        ("kill-api", "api", "SIGKILL"),
        ("kill-exporter", "exporter", "SIGKILL"),
        ("stop-worker", "worker", "SIGTERM"),
    ],
)
def test_a_part_that_ends_is_healed_by_the_next_one_of_its_kind(tmp_path, name, kind, number):
    world = World()
    world.pids = [7, 7, None, 8]
    _, ops = conduct(tmp_path, world, action(name))
    assert world.done == [(kind, number), ("pid", kind)]
    assert [(type_, f) for type_, f, *_ in ops][1:] == [("ok", name), ("invoke", "heal"), ("ok", "heal")]


@pytest.mark.parametrize("name", sorted(set(ACTIONS) - {"kill-child", "lose-message", "put-fault", "clear-fault"}))
def test_a_part_that_is_not_there_is_not_hurt(tmp_path, name):
    world = World()
    world.pids = [None]
    world.take_down = lambda *_, **__: (_ for _ in ()).throw(RigError("no server of the stack's own"))
    _, ops = conduct(tmp_path, world, action(name))
    assert [(type_, f) for type_, f, *_ in ops] == [("invoke", name), ("info", name)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pause-redis", "valkey"),
        ("pause-parent", "worker"),
        ("pause-beat", "beat"),
        ("pause-dispatcher", "dispatcher"),
        ("pause-api", "api"),
    ],
)
def test_what_is_paused_goes_on_after_its_time(tmp_path, name, kind):
    world = World()
    took_s, ops = conduct(tmp_path, world, action(name, for_s=6))
    assert world.done == [(kind, "SIGSTOP"), (kind, "SIGCONT")]
    assert took_s == pytest.approx(6)
    assert ops[-1] == ("ok", "heal", {"action": name, "pid": 7}, None)


@pytest.mark.parametrize(
    ("name", "server", "forget"),
    [("restart-redis", "valkey", False), ("lose-redis", "valkey", True), ("restart-postgres", "postgres", False)],
)
def test_a_server_is_away_for_its_time_and_comes_back_with_its_data_or_without(tmp_path, name, server, forget):
    world = World()
    took_s, ops = conduct(tmp_path, world, action(name))
    assert world.done == [("down", server, forget), ("up", server)]
    assert took_s == pytest.approx(FOR_S)
    assert ops[1] == ("ok", name, {"server": server, "data": "lost" if forget else "kept"}, None)


def test_what_is_down_when_the_end_comes_is_started_again_at_once(tmp_path):
    """The run's end asks for all healings, whatever time they had left."""
    world, stopping = World(), threading.Event()
    world.take_down = lambda server, **_: stopping.set() or (lambda: world.done.append(("up", server)))
    path = tmp_path / "history.jsonl"
    with HistoryWriter(path, "nemesis") as history:
        agent = Agent([action("lose-redis", for_s=3600)], world, history, stopping=stopping)
        agent.start()
        agent._thread.join(10)
    assert world.done == [("up", "valkey")]


def test_a_fault_is_put_beside_the_others_and_taken_away_after_its_time(tmp_path):
    world = World()
    fault = action("put-fault", id="outage", point="smtp.connect", when={"every": 1}, action={"drop": True}, for_s=4)
    took_s, ops = conduct(tmp_path, world, fault)
    assert world.done == [("faults", ["greylist", "outage"]), ("faults", ["greylist"])]
    assert [(kind, f) for kind, f, *_ in ops][2:] == [("invoke", "heal"), ("ok", "heal")]
    assert took_s == pytest.approx(4)


def test_a_fault_can_be_cleared_before_its_time(tmp_path):
    world = World()
    conduct(tmp_path, world, action("clear-fault", id="greylist"))
    assert world.set_faults == []


def test_actions_happen_in_the_order_of_their_times(tmp_path):
    took_s, ops = conduct(tmp_path, World(), action("kill-child", 8), action("lose-message", 2))
    assert [f for kind, f, *_ in ops if kind == "ok"] == ["lose-message", "kill-child"]
    assert took_s == pytest.approx(8)


def test_what_repeats_is_not_made_up_for_in_a_burst(tmp_path):
    """A parent that is slow to come back holds up the kills of children; those that were missed are missed."""
    world = World()
    kills = [action("kill-child", at_s) for at_s in (1, 2, 3, 4, 16.5, 18)]
    took_s, ops = conduct(tmp_path, world, action("kill-parent", 1.5), *kills)
    assert took_s == pytest.approx(18, abs=0.1)
    # The parent's healing is waited for from 1.5 to 16.5.
    assert [f for kind, f, *_ in ops if kind == "ok"] == ["kill-child", "kill-parent", "kill-child", "kill-child"]


def test_after_the_stop_nothing_more_is_broken(tmp_path):
    world = World()
    assert conduct(tmp_path, world, action("kill-child", 5), stop_first=True)[1] == []
    assert world.done == []


def test_a_world_that_refuses_is_info_and_the_next_action_happens_all_the_same(tmp_path):
    world = World()

    def refuse(*_):
        raise ControlError("PUT /faults: 500")

    world.put_faults = refuse
    _, ops = conduct(tmp_path, world, action("clear-fault", id="x"), action("lose-message", 1))
    assert ops[1] == ("info", "clear-fault", {}, "ControlError: PUT /faults: 500")
    assert ops[-1][:2] == ("ok", "lose-message")
