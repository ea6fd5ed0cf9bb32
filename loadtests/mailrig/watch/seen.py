"""What was seen of a foreign application: its evidence, and the indexes over it. Pure but for ``load_seen``.

Rule 1: only what is certain counts. An execution is known by its events, or by having been told to run; from the last
sign of life on it is not known to run.
Rule 2: workers, broker and watcher may have clocks of their own. What one clock says is held against another's only
after it was shortened by what the two may differ.

    evidence/queues.jsonl    the broker (``broker``)          evidence/events.jsonl   events of tasks (``bridge.heard``)
    evidence/workers.jsonl   what the workers said            evidence/memory.jsonl   their processes (``local``)
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from mailrig.evidence import EvidenceError, Row

FILES: Final = ("queues", "workers", "events", "memory")
#: What ends an execution. A retry ends one, too; a rejected message was never begun, or is put back.
ENDS: Final = frozenset({"task-succeeded", "task-failed", "task-retried", "task-revoked", "task-rejected"})
#: Clocks of one host are read at different moments of one thing.
MARGIN_NS: Final = 20_000_000
#: A worker says when it was ready in whole seconds.
_UPTIME_NS: Final = 2_000_000_000


@dataclass(frozen=True, kw_only=True)
class Execution:
    """A time in which a task certainly ran: [start_ns, end_ns)."""

    task_id: str
    name: str
    node: str
    start_ns: int
    end_ns: int


@dataclass(frozen=True, kw_only=True)
class Retry:
    """One retry: the execution that asked for it has ended, and its message is due later."""

    task_id: str
    name: str
    #: From 0.
    number: int
    delay_s: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """All lines of a watch, and application.json."""

    queues: tuple[Row, ...] = ()
    workers: tuple[Row, ...] = ()
    events: tuple[Row, ...] = ()
    memory: tuple[Row, ...] = ()
    application: Row

    @cached_property
    def samples(self) -> tuple[Row, ...]:
        """The broker's samples that succeeded, in order."""
        found = (row for row in self.queues if "error" not in row)
        return tuple(sorted(found, key=lambda row: row["time_ns"]))

    @cached_property
    def last_ns(self) -> int:
        """The last sign of the watcher itself, which may have been killed."""
        return max((row["time_ns"] for row in (*self.queues, *self.workers, *self.memory)), default=0)

    @cached_property
    def task_names(self) -> frozenset[str]:
        """The application's tasks, and those of Celery itself."""
        return frozenset(task["name"] for task in self.application["tasks"])

    def is_ours(self, entry: Row) -> bool:
        """Whether a message is of this application: others may use the same database."""
        name = entry.get("name")
        return name is None or name in self.task_names or str(name).startswith("celery.")

    @cached_property
    def nodes(self) -> dict[str, Row]:
        """Each worker as it was told last."""
        return {node: facts for row in self.workers for node, facts in row["nodes"].items()}

    @cached_property
    def since_ns(self) -> int:
        """When the oldest worker that was seen was ready: what was received before is left over from the dead."""
        starts = [
            row["time_ns"] - int(facts["uptime_s"]) * 10**9
            for row in self.workers
            for facts in row["nodes"].values()
            if facts.get("uptime_s") is not None
        ]
        return min(starts, default=0) - _UPTIME_NS

    @cached_property
    def eventful(self) -> frozenset[str]:
        """Workers that send events of tasks."""
        return frozenset(row["node"] for row in self.events if "node" in row and row["type"] != "task-sent")

    @cached_property
    def executions(self) -> tuple[Execution, ...]:
        """In the order of their starts."""
        found = [*self._by_events(), *self._by_word()]
        return tuple(sorted(found, key=lambda one: (one.start_ns, one.task_id)))

    def _by_events(self) -> Iterator[Execution]:
        for (node, task_id), rows in self._histories().items():
            for row, after in itertools.zip_longest(rows, rows[1:]):
                if row["type"] != "task-started":
                    continue
                # Without an end it may have died at once; a connection that broke may have lost the end.
                end_ns = after["time_ns"] if after and after["type"] in ENDS else row["time_ns"]
                end_ns = max(end_ns, self._told(node, task_id, row["time_ns"], end_ns))
                name = self._names.get(task_id, "?")
                yield Execution(task_id=task_id, name=name, node=node, start_ns=row["time_ns"], end_ns=end_ns)

    def _histories(self) -> Mapping[tuple[str, str], list[Row]]:
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.events:
            if row["type"] in ENDS or row["type"] == "task-started":
                found[row["node"], row["task_id"]].append(row)
        for rows in found.values():
            rows.sort(key=lambda row: row["time_ns"])
        return found

    @cached_property
    def _names(self) -> dict[str, str]:
        return {row["task_id"]: row["name"] for row in self.events if "name" in row}

    def _told(self, node: str, task_id: str, start_ns: int, end_ns: int) -> int:
        """The last time at which the worker itself said that this one runs, if its end was not heard."""
        if end_ns != start_ns:
            return end_ns
        following = [row["time_ns"] for row in self._histories_of(task_id) if row["time_ns"] > start_ns]
        until_ns = min(following, default=None)
        times = [
            at for at in self._words.get((node, task_id), ()) if at >= start_ns and (not until_ns or at < until_ns)
        ]
        return max(times, default=end_ns)

    def _histories_of(self, task_id: str) -> Iterable[Row]:
        return self._by_task.get(task_id, ())

    @cached_property
    def _by_task(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.events:
            if "task_id" in row:
                found[row["task_id"]].append(row)
        return found

    @cached_property
    def _words(self) -> dict[tuple[str, str], list[int]]:
        """When a worker said that a task runs."""
        found: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in self.workers:
            for node, facts in row["nodes"].items():
                for task in facts["active"] or ():
                    found[node, task["id"]].append(self._certainly(row["time_ns"]))
        return found

    def _by_word(self) -> Iterator[Execution]:
        """Executions whose start was not heard: without events, or begun before the watch."""
        heard = {(row["node"], row["task_id"]) for row in self.events if row["type"] == "task-started"}
        spans: dict[tuple[str, str, int], tuple[str, int]] = {}
        for row in self.workers:
            for node, facts in row["nodes"].items():
                for task in facts["active"] or ():
                    if task["started_ns"] and (node, task["id"]) not in heard:
                        spans[node, task["id"], task["started_ns"]] = (
                            str(task["name"]),
                            self._certainly(row["time_ns"]),
                        )
        for (node, task_id, start_ns), (name, end_ns) in spans.items():
            yield Execution(task_id=task_id, name=name, node=node, start_ns=start_ns, end_ns=max(start_ns, end_ns))

    @cached_property
    def retries(self) -> tuple[Retry, ...]:
        """Retries whose next message was received by a worker that sends events, or was seen in the broker."""
        return tuple(self._retries())

    def _retries(self) -> Iterator[Retry]:
        due = self._due()
        for (_, task_id), rows in self._histories().items():
            start_ns = None
            for row in rows:
                start_ns = row["time_ns"] if row["type"] == "task-started" else start_ns
                if row["type"] != "task-retried" or start_ns is None:
                    continue
                number = self._number(task_id, start_ns, due)
                after_ns = due.get((task_id, number + 1)) if number is not None else None
                if number is not None and after_ns is not None:
                    delay_s = (after_ns - row["time_ns"]) / 1e9
                    yield Retry(task_id=task_id, name=self._names.get(task_id, "?"), number=number, delay_s=delay_s)

    def _number(self, task_id: str, start_ns: int, due: Mapping[tuple[str, int], int]) -> int | None:
        """Which execution of a task it is that started then, from 0: the last one that was due by then.

        Not by the order of events: a child publishes its retry before the worker tells of it, so that the next message
        is often received first. None when its beginning was not heard.
        """
        numbers = [number for (task, number), at_ns in due.items() if task == task_id and at_ns <= start_ns]
        if numbers:
            return max(numbers)
        first = (row for row in self._by_task.get(task_id, ()) if row["type"] == "task-received")
        return 0 if any(not row.get("retries") for row in first) else None

    def _due(self) -> dict[tuple[str, int], int]:
        """When each retry is due, by task and number."""
        seen = [entry for row in self.samples for entry in row["unacked"]]
        heard = [row for row in self.events if row["type"] == "task-received"]
        return {
            (row["task_id"], int(row["retries"])): row["eta_ns"]
            for row in (*seen, *heard)
            if row.get("retries") and row.get("eta_ns")
        }

    def _certainly(self, asked_ns: int) -> int:
        """A time of the watcher's clock, by the workers' clocks: surely not too late."""
        return asked_ns + self._broker_ahead_ns - self.clock_error_ns

    @cached_property
    def _broker_ahead_ns(self) -> int:
        """How far the broker's clock is ahead of the watcher's, at least."""
        return min((row["time_ns"] - row["asked_ns"] for row in self.samples if "asked_ns" in row), default=0)

    @cached_property
    def clock_error_ns(self) -> int:
        """How far a worker's clock and the broker's certainly differ.

        A message that is new in a sample was received between the sample before and this one; its time is the worker's.
        """
        wrong = 0
        for before, row in itertools.pairwise(self.samples):
            known = {(entry["task_id"], entry["received_ns"]) for entry in before["unacked"]}
            for entry in row["unacked"]:
                if (entry["task_id"], entry["received_ns"]) not in known:
                    at = entry["received_ns"]
                    wrong = max(wrong, at - row["time_ns"], before["time_ns"] - at)
        return wrong


def load_seen(folder: Path) -> Seen:
    """The evidence of a watch's folder.

    Raises:
        EvidenceError: a line is torn, or application.json is missing.
    """
    file = folder / "application.json"
    try:
        application = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as err:
        raise EvidenceError(f"{file} can't be read: {folder} is no folder of a watch") from err
    lines: dict[str, Any] = {name: tuple(_lines(folder / "evidence" / f"{name}.jsonl")) for name in FILES}
    return Seen(application=application, **lines)


def _lines(file: Path) -> Iterator[Row]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except ValueError as err:
                raise EvidenceError(f"{file}:{number}: not JSON: {err}") from err
