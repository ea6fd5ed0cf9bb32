"""A watch in which everything is right, and how to spoil it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mailrig.watch.judging import Judged, judge
from mailrig.watch.limits import GateFile
from mailrig.watch.seen import FILES, Seen

NODE = "celery@shop"
SECOND_NS = 10**9
#: When the watch begins; its worker has been ready for 100 s.
START_S = 1000.0
RUN = {"every_s": 0.1, "started_ns": 1000 * SECOND_NS, "ended_ns": 1020 * SECOND_NS}


def ns(at_s: float) -> int:
    """Nanoseconds since the epoch of a second of the watch."""
    return round((START_S + at_s) * 1e9)


def application(**settings: Any) -> dict[str, Any]:
    """Two tasks: one that is not retried, and one with a backoff of 2, 4, 8 s."""
    plain = {
        "name": "shop.work",
        "autoretry_for": [],
        "retry_backoff_s": 0.0,
        "retry_backoff_max_s": 600.0,
        "retry_jitter": True,
        "retry_countdown_s": None,
        "default_retry_delay_s": 180.0,
    }
    flaky = plain | {"name": "shop.flaky", "autoretry_for": ["OSError"], "retry_backoff_s": 2.0, "retry_jitter": False}
    return {
        "name": "shop",
        "tasks": [plain, flaky],
        "settings": {"worker_prefetch_multiplier": 1, "worker_disable_prefetch": False} | settings,
    }


def message(task_id: str, at_s: float = 0.0, **more: Any) -> dict[str, Any]:
    """An entry of what is not acknowledged."""
    return {"task_id": task_id, "name": "shop.work", "received_ns": ns(at_s), **more}


def sample(at_s: float, *held: dict[str, Any], waiting: int = 5) -> dict[str, Any]:
    """A sample of the broker."""
    return {"time_ns": ns(at_s), "ready": {"celery": waiting}, "unacked_count": len(held), "unacked": list(held)}


def worker(at_s: float, *active: tuple[str, float], node: str = NODE, **more: Any) -> dict[str, Any]:
    """What a worker of two processes said: ids and starts of what it runs."""
    facts = {
        "pid": 50,
        "uptime_s": round(100 + at_s),
        "pool": "prefork",
        "concurrency": 2,
        "processes": [51, 52],
        "prefetch_count": 2,
        "active": [{"id": i, "name": "shop.work", "started_ns": ns(start_s)} for i, start_s in active],
        "reserved": [],
        "scheduled": [],
    }
    return {"time_ns": ns(at_s), "nodes": {node: facts | more}}


def event(kind: str, task_id: str, at_s: float, *, node: str = NODE, **more: Any) -> dict[str, Any]:
    """An event of a task."""
    return {"type": f"task-{kind}", "time_ns": ns(at_s), "task_id": task_id, "node": node, **more}


def ran(task_id: str, start_s: float, end_s: float, **more: Any) -> list[dict[str, Any]]:
    """The events of an execution that succeeded."""
    return [
        event("received", task_id, start_s - 0.01, name="shop.work", retries=0, **more),
        event("started", task_id, start_s, **more),
        event("succeeded", task_id, end_s, **more),
    ]


def late_samples(seconds: int = 20) -> list[dict[str, Any]]:
    """Late acknowledgement: task 2k and 2k+1 run from second k to k+1, and are held as long as they run."""
    return [
        sample(i / 10, message(f"t{i // 10 * 2}", i // 10), message(f"t{i // 10 * 2 + 1}", i // 10))
        for i in range(seconds * 10)
    ]


def late_events(seconds: int = 20) -> list[dict[str, Any]]:
    """The events of that."""
    return [e for k in range(seconds) for i in (0, 1) for e in ran(f"t{2 * k + i}", k + 0.005, k + 0.99)]


def right(**changes: Any) -> Seen:
    """The watch in which everything is right."""
    lines: dict[str, Any] = {
        "queues": late_samples(),
        "workers": [worker(s + 0.5, (f"t{2 * s}", s + 0.005), (f"t{2 * s + 1}", s + 0.005)) for s in range(20)],
        "events": late_events(),
        "memory": [],
    }
    lines = {name: tuple(rows) for name, rows in (lines | changes).items() if name != "application"}
    return Seen(application=changes.get("application", application()), **lines)


def judged(given: GateFile | None = None, **changes: Any) -> Judged:
    """The watch with changes, judged."""
    return judge(right(**changes), RUN, given)


def verdicts(found: Judged) -> dict[str, str]:
    """Each gate's verdict by its id."""
    return {gate.id: gate.verdict for gate in found.verdict.gates}


def write(folder: Path, seen: Seen, **run: Any) -> Path:
    """A watch's folder, as the watcher leaves it."""
    (folder / "evidence").mkdir(parents=True)
    for name in FILES:
        text = "".join(json.dumps(row) + "\n" for row in getattr(seen, name))
        (folder / "evidence" / f"{name}.jsonl").write_text(text)
    (folder / "application.json").write_text(json.dumps(seen.application))
    (folder / "run.json").write_text(json.dumps({"every_s": 0.1, "started_ns": ns(0), "gates": "declared"} | run))
    return folder
