"""Open-loop mail load for Locust: `locust -f loadtests/locustfile.py` against a stack from `mailrig up`.

The schedule is fixed before the first request: each arrival has its time, and neither a slow answer nor a full queue
delays the next one. One user drives all of it (its number is fixed); completions come from the feed.

MAILRIG_STACK      the stack's file (default: .mailrig/stack.json)
MAILRIG_SCENARIO   a scenario's name or file (default: smoke)
MAILRIG_HISTORY    where operations are written (default: runs/locust/<time>/history.load.jsonl)
MAILRIG_WORKERS    number of Locust workers, when distributed (default: 1); each takes arrivals k mod N
"""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gevent
from locust import FastHttpUser, constant, events, task

from mailrig.clients import STACK_FILE, Call, Feed, call_for, classify, read_target
from mailrig.history import HistoryWriter
from mailrig.scenario import RigError, load_scenario
from mailrig.schedule import Arrival, arrivals, for_worker

#: How often a feed is read, seconds. Queue and run times come from the execution's clock, so it is in none of them.
FEED_EVERY_S = 0.2


def _setup() -> tuple[Any, Any]:
    try:
        target = read_target(Path(os.environ.get("MAILRIG_STACK", STACK_FILE)))
        return target, load_scenario(os.environ.get("MAILRIG_SCENARIO", "smoke"))
    except RigError as err:
        sys.stderr.write(f"mailrig: {err}\n")
        sys.exit(2)


TARGET, SCENARIO = _setup()
WORKERS = int(os.environ.get("MAILRIG_WORKERS", "1"))


def _history() -> HistoryWriter:
    default = Path("runs/locust") / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") / "history.load.jsonl"
    path = Path(os.environ.get("MAILRIG_HISTORY", default))
    path.parent.mkdir(parents=True, exist_ok=True)
    return HistoryWriter(path, "load")


class MailLoad(FastHttpUser):  # type: ignore[misc]  # Locust is not typed for us
    """The one user, which is the whole load."""

    host = TARGET.api_url
    wait_time = constant(0)
    fixed_count = WORKERS
    concurrency = 256
    connection_timeout = 5.0
    network_timeout = 15.0

    @task  # type: ignore[untyped-decorator]  # as above
    def drive(self) -> None:
        """Send every arrival at its time, then wait for what was accepted; then the load is over."""
        runner = self.environment.runner
        drive = Drive(self, worker=max(getattr(runner, "worker_index", 0), 0))
        try:
            drive.run()
        finally:
            drive.close()
        if self.environment.parsed_options.headless:
            runner.quit()
        self.stop(force=True)


class Drive:
    """One pass through the schedule."""

    def __init__(self, user: MailLoad, *, worker: int) -> None:
        self._user = user
        self._worker = worker
        self._history = _history()
        self._session = f"{time.time_ns():x}"
        self._intended: dict[str, int] = {}
        self._seen: set[str] = set()
        schedule = arrivals(SCENARIO, [[address for _, address in a.clients] for a in TARGET.accounts])
        self._schedule = for_worker(schedule, worker=worker, workers=WORKERS)
        self._feeds = [gevent.spawn(self._poll, Feed(a)) for a in TARGET.accounts]

    def run(self) -> None:
        """The schedule, then the drain."""
        start, start_ns = time.monotonic(), time.time_ns()
        phases = [("warmup", 0.0), ("load", SCENARIO.load.warmup_s)]
        pool = []
        for arrival in self._schedule:
            self._phases(phases, arrival.at_s)
            gevent.sleep(max(0.0, start + arrival.at_s - time.monotonic()))
            pool.append(gevent.spawn(self._do, arrival, start_ns + int(arrival.at_s * 1e9)))
        self._phases(phases, SCENARIO.load.total_s)
        gevent.sleep(max(0.0, start + SCENARIO.load.total_s - time.monotonic()))
        self._history.append("info", "phase", {"name": "drain"}, process="runner")
        gevent.joinall(pool)
        deadline = time.monotonic() + SCENARIO.drain_timeout_s
        while set(self._intended) - self._seen and time.monotonic() < deadline:
            gevent.sleep(FEED_EVERY_S / 4)

    def close(self) -> None:
        """Stop reading the feeds."""
        gevent.killall(self._feeds)
        self._history.close()

    def _phases(self, phases: list[tuple[str, float]], at_s: float) -> None:
        while phases and phases[0][1] <= at_s:
            self._history.append("info", "phase", {"name": phases.pop(0)[0]}, process="runner")

    def _do(self, arrival: Arrival, intended_ns: int) -> None:
        account = TARGET.accounts[arrival.tenant]
        call = call_for(arrival, account, seed=SCENARIO.seed, intended_ns=intended_ns, session=self._session)
        now = time.time_ns()
        self._history.append("invoke", arrival.f, {**call.value, "lag_ns": now - intended_ns}, time_ns=now)
        status, body, error = self._post(call, f"POST {arrival.f}")
        kind, known, error = classify(status, body, error)
        op = self._history.append(kind, arrival.f, {**call.value, **known}, error=error)
        if kind == "ok":
            self._intended[known["task_id"]] = intended_ns
        self._fire("API", f"accept {arrival.f}", op.time_ns - intended_ns, error)

    def _post(self, call: Call, name: str) -> tuple[int | None, bytes | None, str | None]:
        answer = self._user.client.post(call.path, data=call.body, headers=dict(call.headers), name=name)
        # Locust answers status 0 for a connection that broke or timed out.
        failure = None if answer.status_code else type(answer.error).__name__
        return answer.status_code or None, answer.content, failure

    def _poll(self, feed: Feed) -> None:
        if self._worker:
            return
        while True:
            answer = self._user.client.get(feed.path, headers=feed.headers, name="GET tasks")
            if answer.status_code == 200:  # noqa: PLR2004  # any other answer is asked again
                for row in feed.absorb(answer.content):
                    self._settled(row, feed.tenant)
            gevent.sleep(FEED_EVERY_S)

    def _settled(self, row: dict[str, Any], tenant: str) -> None:
        self._history.append("ok", "complete", row, process=f"feed:{tenant}")
        self._seen.add(row["task_id"])
        queue, error = row["queue"], None if row["state"] == "succeeded" else row["state"]
        due = max(row["enqueued_ns"], row["due_ns"])
        self._fire("TASK", f"queue {queue}", row["started_ns"] - due, None)
        self._fire("TASK", f"run {queue}", row["ended_ns"] - row["started_ns"], error)
        if row["task_id"] in self._intended:
            self._fire("TASK", f"e2e {queue}", row["ended_ns"] - self._intended[row["task_id"]], error)

    def _fire(self, kind: str, name: str, duration_ns: int, error: str | None) -> None:
        self._user.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=max(duration_ns, 0) / 1e6,
            response_length=0,
            exception=RuntimeError(error) if error else None,
            context={},
        )


@events.quitting.add_listener  # type: ignore[untyped-decorator]  # as above
def _judge_elsewhere(environment: Any, **_: Any) -> None:
    """Failed requests are the checkers' to judge, not a failure of the load generator."""
    environment.process_exit_code = 0
