"""Stands in a foreign application's own interpreter and tells what its workers and their events say, as JSON lines.

Run by ``workers`` as a script: it imports nothing of ours but the doctor's probe, which is a script too. One JSON
object on stdin says what to do. The end of stdin, which comes also when the watcher is killed, ends it, and what it has
switched on in the workers is switched off again. Arguments and results of tasks never leave this process.

    in    {"app", "probe", "broker" or null, "enable_events", "every_s"}
    out   {"facts"} or {"error"}, once; then {"workers"}, {"event"}, {"switched"}, {"away"} as they come; {"restored"}
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

#: How long an answer of the workers is waited for, and how often new workers are looked for, seconds.
ANSWER_S = 1.0
LOOK_EVERY_S = 5.0
#: Asking takes at most this share of a worker's time, but is never put off for long.
SHARE_MAX = 0.2
WAIT_S_MAX = 5.0
ENABLED = "task events enabled"
Say = Callable[..., None]


def main() -> None:
    """Obey until stdin ends."""
    order = json.loads(sys.stdin.readline())
    say = _mouth()
    sys.path[0] = os.getcwd()  # noqa: PTH109  # as ``celery -A`` looks for it
    probe = _script(order["probe"])
    try:
        app = probe.application(order["app"])
        _redirect(app, order["broker"])
        say(facts=probe.facts(app))
    except BaseException as err:  # noqa: BLE001  # whatever a foreign module raises at import, SystemExit included
        words = str(err) if type(err).__name__ == "Lacking" else f"{order['app']}: {type(err).__name__}: {err}"[:500]
        say(error=probe.masked(words))
        return
    _attend(app, order, say)


def _mouth() -> Say:
    """What writes lines where stdout was; whatever the application prints goes to stderr."""
    out, lock = os.fdopen(os.dup(1), "w", encoding="utf-8"), threading.Lock()
    os.dup2(2, 1)

    def say(**line: Any) -> None:
        with lock:
            out.write(json.dumps(line, separators=(",", ":")) + "\n")
            out.flush()

    return say


def _script(path: str) -> Any:
    spec = importlib.util.spec_from_file_location("doctor_probe", path)
    assert spec is not None and spec.loader is not None  # noqa: S101, PT018  # a file of ours
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _redirect(app: Any, broker: str | None) -> None:
    """Another broker than the application's own; Celery prefers the environment's to any setting."""
    if broker is None:
        return
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        os.environ.pop(name, None)
    app.conf.update(broker_url=broker, broker_read_url=broker, broker_write_url=broker)


def _attend(app: Any, order: dict[str, Any], say: Say) -> None:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    ears, desk = Ears(app, say), Desk(app, say, enable_events=order["enable_events"])
    thread = threading.Thread(target=ears.listen, daemon=True)
    thread.start()
    wait_s = 0.0
    while not stopped.is_set() and not _ended(wait_s):
        wait_s = max(order["every_s"], min(desk.ask() / SHARE_MAX, WAIT_S_MAX))
    desk.restore()
    ears.stop()
    # Closing its connection takes its queue away; without an event it looks up once a second.
    thread.join(2 * ANSWER_S)


def _ended(wait_s: float) -> bool:
    """Whether stdin has ended within a time."""
    return bool(select.select([sys.stdin], [], [], wait_s)[0])


class Desk:
    """Asks workers by remote control."""

    def __init__(self, app: Any, say: Say, *, enable_events: bool) -> None:
        self._app, self._say, self._enable = app, say, enable_events
        self._nodes: list[str] = []
        self._looked_s = -LOOK_EVERY_S
        #: Whose events were asked for, and whose were off before.
        self._asked: set[str] = set()
        self._switched: list[str] = []

    def ask(self) -> float:
        """Tell what the workers say now; answers for how long they were busy with it."""
        begun_s = time.monotonic()
        try:
            self._look(begun_s)
            # Looking waits for who may be there; it keeps nobody busy.
            begun_s = time.monotonic()
            if self._nodes:
                self._tell()
            else:
                self._say(workers={"time_ns": time.time_ns(), "nodes": {}})
        except Exception as err:  # noqa: BLE001  # the broker is away, in the words of any transport: ask again later
            self._say(away=type(err).__name__)
            time.sleep(ANSWER_S)
        return time.monotonic() - begun_s

    def _look(self, now_s: float) -> None:
        if self._nodes and now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self._nodes = sorted(self._app.control.inspect(timeout=ANSWER_S).ping() or {})
        if self._enable:
            self._switch_on([node for node in self._nodes if node not in self._asked])

    def _switch_on(self, nodes: list[str]) -> None:
        if not nodes:
            return
        answers = self._broadcast("enable_events", nodes)
        changed = [node for answer in answers for node, told in answer.items() if told.get("ok") == ENABLED]
        self._asked.update(node for answer in answers for node in answer)
        self._switched += changed
        if changed:
            self._say(switched=changed)

    def _broadcast(self, command: str, nodes: list[str]) -> Iterable[dict[str, Any]]:
        answers = self._app.control.broadcast(
            command, destination=nodes, reply=True, timeout=ANSWER_S, limit=len(nodes)
        )
        return list(answers or ())

    def _tell(self) -> None:
        inspect = self._app.control.inspect(destination=self._nodes, timeout=ANSWER_S)
        stats = inspect.stats() or {}
        asked_ns = time.time_ns()
        active = inspect.active(safe=True) or {}
        reserved, scheduled = inspect.reserved(safe=True) or {}, inspect.scheduled() or {}
        nodes = {
            node: _node(told, active.get(node), reserved.get(node), scheduled.get(node))
            for node, told in stats.items()
            if isinstance(told, dict)
        }
        # Who does not answer any more is looked for again; the others are not kept waiting for it.
        self._nodes = sorted(nodes)
        self._say(workers={"time_ns": asked_ns, "nodes": nodes})

    def restore(self) -> None:
        """Leave the workers as they were."""
        if not self._switched:
            return
        try:
            answers = self._broadcast("disable_events", self._switched)
        except Exception as err:  # noqa: BLE001  # as in ask; the user is told that it was not done
            self._say(restored=[], away=type(err).__name__)
            return
        self._say(restored=sorted(node for answer in answers for node in answer))


def _node(told: dict[str, Any], active: Any, reserved: Any, scheduled: Any) -> dict[str, Any]:
    """One worker, without what its tasks were given; None where it did not say."""
    pool = told.get("pool") or {}
    processes = pool.get("processes")
    return {
        "pid": told.get("pid"),
        "uptime_s": told.get("uptime"),
        "pool": str(pool.get("implementation") or "?").rpartition(":")[0].rpartition(".")[2],
        "concurrency": pool.get("max-concurrency"),
        "processes": processes if isinstance(processes, list) else [],
        "prefetch_count": told.get("prefetch_count"),
        "active": None if active is None else [_running(row) for row in active],
        "reserved": None if reserved is None else [row.get("id") for row in reserved],
        "scheduled": None if scheduled is None else [_waiting(row) for row in scheduled],
    }


def _running(row: dict[str, Any]) -> dict[str, Any]:
    start_s = row.get("time_start")
    return {"id": row.get("id"), "name": row.get("name"), "started_ns": int(start_s * 1e9) if start_s else None}


def _waiting(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": (row.get("request") or {}).get("id"), "eta_ns": nanoseconds(row.get("eta"))}


class Ears:
    """Hears the events of tasks."""

    def __init__(self, app: Any, say: Say) -> None:
        self._app, self._say = app, say
        self._stopped = threading.Event()
        self._receiver: Any = None

    def listen(self) -> None:
        """Until stopped; a connection that breaks is made again, and both are told: what came between is lost."""
        while not self._stopped.is_set():
            try:
                with self._app.connection_for_read() as connection:
                    self._hear(connection)
            except Exception as err:  # noqa: BLE001  # as in Desk.ask
                self._say(event={"type": "deaf", "time_ns": time.time_ns(), "error": type(err).__name__})
                self._stopped.wait(ANSWER_S)

    def _hear(self, connection: Any) -> None:
        receiver = self._app.events.Receiver(connection, handlers={"*": self._tell})
        # Celery's own would move the workers' times by the difference of time zones.
        receiver.event_from_message = lambda body, **_: (body["type"], body)
        self._receiver = receiver
        receiver.on_consume_ready = lambda *_, **__: self._say(event={"type": "listening", "time_ns": time.time_ns()})
        receiver.capture(limit=None, timeout=None, wakeup=False)

    def _tell(self, event: dict[str, Any]) -> None:
        kind = str(event.get("type"))
        if kind.startswith("task-") and event.get("uuid"):
            self._say(event=heard(event))

    def stop(self) -> None:
        """Hear no more."""
        self._stopped.set()
        if self._receiver is not None:
            self._receiver.should_stop = True


def heard(event: dict[str, Any]) -> dict[str, Any]:
    """An event without arguments, results and texts of errors."""
    row = {
        "type": event["type"],
        "time_ns": int(float(event["timestamp"]) * 1e9),
        "task_id": str(event["uuid"]),
        "node": str(event.get("hostname")),
        "name": event.get("name"),
        "retries": event.get("retries"),
        "eta_ns": nanoseconds(event.get("eta")),
    }
    return {name: value for name, value in row.items() if value is not None}


def nanoseconds(text: Any) -> int | None:
    """The time that an ISO 8601 text says; without a zone it is UTC, as Celery writes it."""
    try:
        at = dt.datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return int((at if at.tzinfo else at.replace(tzinfo=dt.timezone.utc)).timestamp() * 1_000_000) * 1000  # noqa: UP017  # runs on old Pythons too


if __name__ == "__main__":
    main()
