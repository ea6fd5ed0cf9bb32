"""What is asked of a foreign application's workers, what comes back, and what never does."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from mailrig.doctor.facts import App
from mailrig.watch import bridge
from mailrig.watch.broker import Keys
from mailrig.watch.local import memory_line

SECRET = "s3cret-argument"


class Control:
    """Remote control of workers, by what each has switched on."""

    def __init__(self, **events_on: bool) -> None:
        self.events_on = events_on
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.away = False

    def inspect(self, destination=None, timeout=None):
        nodes = destination or list(self.events_on)
        stats = {n: {"pid": 5, "pool": {"max-concurrency": 2, "processes": [6, 7]}, "prefetch_count": 2} for n in nodes}
        active = {
            "id": "a",
            "name": "shop.work",
            "time_start": 3.5,
            "args": [SECRET],
            "kwargs": {"k": SECRET},
            "hostname": "h",
        }
        later = {"eta": "2026-01-01T00:00:00+00:00", "request": {"id": "c", "args": [SECRET]}}
        return SimpleNamespace(
            ping=lambda: {node: {"ok": "pong"} for node in nodes},
            stats=lambda: stats,
            active=lambda safe: {n: [active] for n in nodes},
            reserved=lambda safe: {n: [{"id": "b", "kwargs": SECRET}] for n in nodes},
            scheduled=lambda: {n: [later] for n in nodes},
        )

    def broadcast(self, command, destination, **_):
        if self.away:
            raise ConnectionError(SECRET)
        self.sent.append((command, tuple(destination)))
        wanted = command == "enable_events"
        changed = {node: self.events_on[node] is not wanted for node in destination}
        self.events_on |= dict.fromkeys(destination, wanted)
        word = "enabled" if wanted else "disabled"
        return [
            {n: {"ok": f"task events {word}" if new else f"task events already {word}"}} for n, new in changed.items()
        ]


@pytest.fixture
def said() -> list[dict[str, Any]]:
    return []


def desk(control: Control, said: list[dict[str, Any]], *, enable_events: bool) -> bridge.Desk:
    return bridge.Desk(SimpleNamespace(control=control), lambda **line: said.append(line), enable_events=enable_events)


def test_events_are_switched_off_again_only_where_they_were_off(said):
    control = Control(quiet=False, eager=True)
    asked = desk(control, said, enable_events=True)
    asked.ask()
    asked.ask()
    asked.restore()
    assert control.events_on == {"quiet": False, "eager": True}
    assert control.sent == [("enable_events", ("eager", "quiet")), ("disable_events", ("quiet",))]
    assert {"switched": ["quiet"]} in said
    assert said[-1] == {"restored": ["quiet"]}


def test_nothing_is_switched_unless_it_was_asked_for(said):
    control = Control(quiet=False)
    asked = desk(control, said, enable_events=False)
    asked.ask()
    asked.restore()
    assert control.sent == []


def test_workers_that_can_t_be_restored_are_told_of(said):
    control = Control(quiet=False)
    asked = desk(control, said, enable_events=True)
    asked.ask()
    control.away = True
    asked.restore()
    assert said[-1] == {"restored": [], "away": "ConnectionError"}
    assert SECRET not in json.dumps(said)


def test_what_tasks_were_given_does_not_leave_the_application(said):
    desk(Control(one=True), said, enable_events=False).ask()
    told = said[-1]["workers"]["nodes"]["one"]
    assert told["active"] == [{"id": "a", "name": "shop.work", "started_ns": 3_500_000_000}]
    assert (told["reserved"], told["scheduled"]) == (["b"], [{"id": "c", "eta_ns": 1767225600 * 10**9}])
    assert SECRET not in json.dumps(said)


def test_an_event_is_told_without_arguments_results_and_errors():
    event = {
        "type": "task-failed",
        "uuid": "i",
        "hostname": "celery@h",
        "timestamp": 12.25,
        "args": SECRET,
        "result": SECRET,
        "exception": SECRET,
        "traceback": SECRET,
    }
    assert bridge.heard(event) == {"type": "task-failed", "task_id": "i", "node": "celery@h", "time_ns": 12_250_000_000}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1970-01-01T00:00:01.500000+00:00", 1_500_000_000),
        ("1970-01-01T00:00:01", 1_000_000_000),
        ("1970-01-01T02:00:00+02:00", 0),
        ("soon", None),
        (None, None),
    ],
)
def test_a_due_time_is_read_in_any_zone(text, found):
    assert bridge.nanoseconds(text) == found


def test_an_address_of_the_user_s_replaces_the_environment_s(monkeypatch):
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://other")
    changed: dict[str, str] = {}
    bridge._redirect(SimpleNamespace(conf=SimpleNamespace(update=changed.update)), "redis://mine")
    assert set(changed.values()) == {"redis://mine"}
    assert "CELERY_BROKER_URL" not in os.environ


def test_messages_are_looked_for_where_the_application_keeps_them():
    plain = App(name="a", queues=({"name": "b"}, {"name": "a"}))
    assert Keys.of(plain).lists[:4] == ("a", "a\x06\x163", "a\x06\x166", "a\x06\x169")
    assert (Keys.of(plain).index, Keys.of(plain).messages) == ("unacked_index", "unacked")
    options = {"global_keyprefix": "x-", "sep": "|", "priority_steps": [0, 5], "unacked_key": "held"}
    own = Keys.of(App(name="a", queues=({"name": "q"},), transport_options=options))
    assert (own.lists, own.index, own.messages) == (("x-q", "x-q|5"), "x-unacked_index", "x-held")


# --- memory -----------------------------------------------------------------------------------------------------------


def here(**more: Any) -> dict[str, Any]:
    return {"pid": os.getpid(), "uptime_s": 0, "processes": [os.getpid()], "pool": "solo"} | more


def test_a_worker_of_this_machine_is_weighed_and_says_what_that_took():
    line = memory_line({"celery@here": here()})
    assert [(p["pid"], p["node"], p["kind"]) for p in line["processes"]] == [
        (os.getpid(), "celery@here", "worker-main")
    ]
    assert line["read_cpu_ns"] > 0
    assert "away" not in line


@pytest.mark.parametrize(
    "other",
    [
        {"pid": 2**22 + 1},
        {"pid": None},
        # Some other process has that number here: it is no father of the pool's children.
        {"pool": "prefork", "processes": [os.getppid()]},
        # It is older than this process: the worker is elsewhere.
        {"uptime_s": 10**6},
    ],
)
def test_a_worker_of_another_machine_is_not_taken_for_a_process_of_this_one(other):
    line = memory_line({"celery@there": here(**other)})
    assert line["processes"] == []
    assert "not on this machine" in line["away"]["celery@there"]
