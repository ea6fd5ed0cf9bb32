"""Looks at a foreign application for a while and writes down what it sees, in a folder like that of a run.

Changes nothing of it, but for events that are switched on when asked for, and off again. Called by the package.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, Self

from mailrig.doctor.facts import App
from mailrig.runner.interrupts import Wish, listening
from mailrig.store import Run
from mailrig.watch.broker import Broker, Keys, check, ready_in_all
from mailrig.watch.judging import GIVEN, Judged, check_gates, judge_folder
from mailrig.watch.limits import load_gates
from mailrig.watch.local import memory_line
from mailrig.watch.seen import FILES
from mailrig.watch.workers import Workers

#: Reading the broker takes at most this share of its time, and of ours.
_SHARE_MAX: Final = 0.05
MEMORY_EVERY_S: Final = 1.0
_PROGRESS_EVERY_S: Final = 5.0
#: Of the facts about an application, what a watch needs; never its URLs.
_FACTS: Final = ("name", "versions", "transport", "settings", "transport_options", "queues", "tasks")


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """What to watch, and how."""

    app: str
    python: str | None
    broker: str | None
    #: None until somebody asks for the end.
    seconds: float | None
    every_s: float
    enable_events: bool
    gates: Path | None
    runs_dir: Path
    #: Where words on the way go.
    say: Callable[[str], None]


def watch(options: WatchOptions) -> tuple[Run, Judged]:
    """Look until the time is over, or until ctrl-C, and judge.

    Raises:
        RigError: there is no such application, its broker is away, or the gates are wrong.
    """
    if options.gates is not None:
        check_gates(load_gates(options.gates))
    if options.broker is not None:
        # Before the application is imported, which may take its time.
        check(options.broker)
    with ExitStack() as stack:
        workers, app = Workers.start(
            options.app,
            python=options.python,
            broker=options.broker,
            enable_events=options.enable_events,
            every_s=max(options.every_s, MEMORY_EVERY_S),
        )
        stack.callback(workers.stop)
        url = options.broker or app.broker_url
        check(url)
        broker = Broker(url, Keys.of(app))
        stack.callback(broker.close)
        run = _folder(app, options)
        options.say(f"watching {app.name} at {broker.place}: {run.path}; ctrl-C ends it and judges")
        # However it ends: what was seen can be judged (--again).
        stack.callback(_note_end, run)
        with _Files(run.evidence) as files, listening() as wish:
            _Watch(options, broker, workers, files).until(wish)
    judged = judge_folder(run.path, options.gates)
    _keep(run, judged)
    return run, judged


def _folder(app: App, options: WatchOptions) -> Run:
    tasks = [vars(task) | {"autoretry_for": list(task.autoretry_for)} for task in app.tasks]
    facts = {name: getattr(app, name) for name in _FACTS} | {"tasks": tasks}
    started = datetime.now(UTC)
    run = {
        "app": options.app,
        "every_s": options.every_s,
        "gates": GIVEN if options.gates else "declared",
        "started_ns": int(started.timestamp() * 1e9),
    }
    files = {
        "application.json": json.dumps(facts, indent=2, default=dict) + "\n",
        "run.json": json.dumps(run, indent=2) + "\n",
    }
    if options.gates is not None:
        files["gates.toml"] = load_gates(options.gates).text
    # A module's dots and colon are no harm in a name; a path's slashes would be.
    return Run.of_files(options.runs_dir, f"watch-{options.app.replace('/', '-')}", files, started=started)


def _note_end(run: Run) -> None:
    facts = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    run.write_json("run.json", facts | {"ended_ns": time.time_ns()})


def _keep(run: Run, judged: Judged) -> None:
    run.write_text("gates.toml", judged.gates_text)
    run.write_verdict(judged.verdict.to_dict())


class _Files:
    """The files of lines, open."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, IO[str]] = {name: (folder / f"{name}.jsonl").open("a") for name in FILES}

    def write(self, name: str, line: Mapping[str, Any]) -> None:
        """One line, at once: a watcher that is killed leaves whole lines."""
        self._files[name].write(json.dumps(line, separators=(",", ":")) + "\n")
        self._files[name].flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()


class _Watch:
    """The loop."""

    def __init__(self, options: WatchOptions, broker: Broker, workers: Workers, files: _Files) -> None:
        self._options, self._broker, self._workers, self._files = options, broker, workers, files
        self._nodes: Mapping[str, Mapping[str, Any]] = {}
        self._memory_due_s = self._progress_due_s = 0.0
        self._running = 0

    def until(self, wish: Wish) -> None:
        """Look until the time is over or somebody asks for the end; then hear what the workers say last."""
        begun_s = time.monotonic()
        end_s = begun_s + (self._options.seconds or float("inf"))
        while not wish.asked and time.monotonic() < end_s:
            line = self._broker.sample()
            self._files.write("queues", line)
            for heard in self._workers.take():
                self._hear(heard)
            self._now_and_then(line, time.monotonic() - begun_s)
            self._pause(line, end_s, wish)
        for heard in self._workers.stop():
            self._hear(heard)

    def _pause(self, line: Mapping[str, Any], end_s: float, wish: Wish) -> None:
        """A broker that is slow is asked less often."""
        wait_s = max(self._options.every_s, line["read_ns"] / 1e9 / _SHARE_MAX)
        due_s = min(time.monotonic() + wait_s, end_s)
        while not wish.asked and (left_s := due_s - time.monotonic()) > 0:
            time.sleep(min(left_s, 0.2))

    def _hear(self, heard: Mapping[str, Any]) -> None:
        if "workers" in heard:
            self._nodes = heard["workers"]["nodes"]
            self._files.write("workers", heard["workers"])
        elif "event" in heard:
            self._files.write("events", heard["event"])
        elif "switched" in heard:
            names = ", ".join(heard["switched"])
            self._options.say(f"events of tasks are switched on in {names}, and will be off again at the end")
        elif "restored" in heard:
            names = ", ".join(heard["restored"])
            self._options.say(f"events of tasks are off again in {names or 'none: the workers did not answer'}")

    def _now_and_then(self, line: Mapping[str, Any], at_s: float) -> None:
        if at_s >= self._memory_due_s:
            self._memory_due_s = at_s + MEMORY_EVERY_S
            self._files.write("memory", memory_line(self._nodes))
        if at_s >= self._progress_due_s:
            self._progress_due_s = at_s + _PROGRESS_EVERY_S
            self._options.say(_progress(line, self._nodes, at_s))


def _progress(line: Mapping[str, Any], nodes: Mapping[str, Mapping[str, Any]], at_s: float) -> str:
    if "error" in line:
        return f"{at_s:5.0f} s  the broker can't be asked: {line['error']}"
    slots = sum(facts["concurrency"] or 0 for facts in nodes.values())
    active = sum(len(facts["active"] or ()) for facts in nodes.values())
    return (
        f"{at_s:5.0f} s  {ready_in_all(line)} waiting, {line['unacked_count']} not acknowledged, "
        f"{active} of {slots} slots of {len(nodes)} worker{'' if len(nodes) == 1 else 's'} at work"
    )


def to_stderr(text: str) -> None:
    """What is said on the way."""
    sys.stderr.write(text + "\n")
