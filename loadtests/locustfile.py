"""Open-loop mail load for Locust: ``locust -f loadtests/locustfile.py`` against a stack from ``mailrig up``.

Rule 1: the schedule is fixed before the first request. Each arrival has its time and a greenlet of its own, so neither
a slow answer nor a full queue delays the next one, and nothing is dropped. Rule 2: each process drives its part of the
schedule itself, from the start of the test; Locust's user is only what makes its state "running". Users would land on
whichever workers Locust likes, while the parts (arrivals k mod N) must land on all of them.
Rule 3: failed requests are for the checkers to judge. The exit code is 0 unless the generator itself broke (2).

Locust's page has two more tabs: how long mail waits and takes, from raw samples, and which gates hold so far; /mail
has both as JSON. Each sample's request event carries its trace id and, where it is a request, its traceparent.

MAILRIG_STACK      the stack's file (default: .mailrig/stack.json)
MAILRIG_SCENARIO   a scenario's name or file (default: smoke)
MAILRIG_HISTORY    where operations are written (default: runs/locust/<time>/history.jsonl; worker k > 0 adds .k)
MAILRIG_SESSION    keeps idempotency keys and traces of several loads on one stack apart (default: the time)
MAILRIG_REMOTE     1 in a worker that has none of these: its master, which has 1 too, sends it stack and scenario with
                   its part, and writes down what it tells. Tokens and history go over Locust's own connection, so
                   workers need nothing but the master's address: no folder that both see, and no clock but the host's
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import gevent
from gevent.pool import Group
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, events, log, task
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner

from mailrig.clients import (
    FEED_LIMIT,
    STACK_FILE,
    Account,
    Call,
    Feed,
    Tally,
    Target,
    Timing,
    call_for,
    classify,
    listed_message,
    listing_path,
    pace,
    read_target,
    target_of,
)
from mailrig.history import HistoryRelay, HistoryWriter
from mailrig.scenario import RigError, Scenario, load_contract, load_scenario, parse_scenario
from mailrig.schedule import Arrival, arrivals, for_worker
from mailrig.tab import Board

#: How often a feed is read, seconds. Queue and run times come from the execution's clock, so it is in none of them.
FEED_EVERY_S: Final = 0.2
#: So many rows of a feed are taken in before arrivals have their turn.
ROWS_AT_ONCE: Final = 5
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 10.0
#: A server that trickles its answer meets this one.
REQUEST_TIMEOUT_S: Final = 15.0
#: From the start of the test to the first instant of the schedule: greenlets and pools are made in it.
LEAD_S: Final = 0.25
#: With workers elsewhere, which get their parts over the net and read the feeds first.
REMOTE_LEAD_S: Final = 2.0
#: How often a worker elsewhere sends what it has to tell, seconds.
TELL_EVERY_S: Final = 0.2
_OK: Final = 200
_PART, _DONE, _LINES = "mailrig-part", "mailrig-done", "mailrig-lines"
_REMOTE: Final = os.environ.get("MAILRIG_REMOTE") == "1"
_log = logging.getLogger("mailrig.load")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to load and how. ``repr`` shows no token."""

    target: Target
    scenario: Scenario
    session: str
    #: As texts, for workers elsewhere.
    stack_text: str = field(repr=False)

    @classmethod
    def from_environment(cls) -> Order:
        """What the variables above say."""
        stack_file = Path(os.environ.get("MAILRIG_STACK", STACK_FILE))
        target = read_target(stack_file)
        return cls(
            target=target,
            scenario=load_scenario(os.environ.get("MAILRIG_SCENARIO", "smoke")),
            session=os.environ.get("MAILRIG_SESSION", f"{time.time_ns():x}"),
            stack_text=stack_file.read_text(),
        )

    def to_message(self) -> dict[str, str]:
        """For a worker elsewhere."""
        scenario = {"scenario": self.scenario.text, "scenario_file": str(self.scenario.file)}
        return {"stack": self.stack_text, "session": self.session, **scenario}

    @classmethod
    def from_message(cls, data: Mapping[str, str]) -> Order:
        """What the master says."""
        return cls(
            target=target_of(data["stack"]),
            scenario=parse_scenario(data["scenario"], Path(data["scenario_file"])),
            session=data["session"],
            stack_text=data["stack"],
        )


def _setup() -> Order | None:
    if _REMOTE and "--worker" in sys.argv:
        return None
    try:
        return Order.from_environment()
    except RigError as err:
        sys.stderr.write(f"mailrig: {err}\n")
        sys.exit(2)


#: None in a worker that waits for its master's word.
ORDER: Final = _setup()


class _TooSlowError(Exception):
    """The answer was not complete in time."""


class Http:
    """A pool of connections that is never the bottleneck: as large as there can be requests at once."""

    def __init__(self, url: str, *, connections: int) -> None:
        self._client = HTTPClient.from_url(
            url, concurrency=connections, connection_timeout=CONNECT_TIMEOUT_S, network_timeout=READ_TIMEOUT_S
        )

    def send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int | None, bytes, str | None]:
        """Status, body and error; without a status nobody knows what the server did."""
        try:
            with gevent.Timeout(REQUEST_TIMEOUT_S, _TooSlowError):
                answer = self._client.request(method, path, body=body, headers=dict(headers))
                return answer.status_code, answer.read(), None
        except (OSError, HTTPParseError, _TooSlowError) as err:
            return None, b"", type(err).__name__

    def close(self) -> None:
        """Close what is idle."""
        self._client.close()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Which arrivals are whose."""

    worker: int = 0
    workers: int = 1
    #: The first instant of the schedule where the master sets it; None where each process sets its own.
    start_ns: int | None = None


class Load:
    """One pass of one process through its part of the schedule."""

    def __init__(
        self,
        environment: Any,
        order: Order,
        part: Part,
        *,
        history: HistoryWriter | HistoryRelay,
        board: Board,
        on_done: Callable[[str | None], None],
    ) -> None:
        self._environment, self._order, self._part, self._board = environment, order, part, board
        self._history, self._on_done = history, on_done
        self._accounts = order.target.accounts
        self._schedule = for_worker(schedule_of(order), worker=part.worker, workers=part.workers)
        self._posts = Http(order.target.api_url, connections=max(1, len(self._schedule)))
        # An idempotent request is sent again as often as there are connections: few, then.
        self._gets = Http(order.target.api_url, connections=len(self._accounts))
        self._tally, self._requests, self._feeds = Tally(), Group(), Group()
        self._greenlet: Any = gevent.spawn(self._run)

    def stop(self) -> None:
        """Break off; requests that are under way are written down as not known."""
        if not self._greenlet.dead:
            self._greenlet.kill()

    def _run(self) -> None:
        failure = None
        try:
            self._drive()
        except Exception as err:  # noqa: BLE001  # Locust would swallow it and go on without a load
            _log.exception("the load generator failed")
            failure = f"{type(err).__name__}: {err}"
        finally:
            self._requests.kill()
            self._feeds.kill()
            for part in (self._posts, self._gets, self._history):
                part.close()
        # Not from here: what follows ends the test, and with it this greenlet.
        gevent.spawn(self._on_done, failure)

    def _drive(self) -> None:
        if isinstance(self._history, HistoryRelay):
            self._feeds.spawn(self._tell, self._history).link_exception(self._broken)
        for account in self._accounts:
            feed = Feed(account)
            self._read_pages(feed, lambda _: None)  # what ended before us is none of ours
            self._feeds.spawn(self._follow, feed).link_exception(self._broken)
        start_ns = self._part.start_ns or time.time_ns() + int(LEAD_S * 1e9)
        if self._part.start_ns is None and self._part.worker == 0:
            write_start(self._history, len(self._schedule), start_ns)
        pace(self._schedule, start_ns=start_ns, now_ns=time.time_ns, sleep=gevent.sleep, spawn=self._spawn)
        end_s = start_ns / 1e9 + self._order.scenario.load.total_s
        gevent.sleep(max(0.0, end_s - time.time()))
        self._requests.join()
        deadline = max(end_s, time.time()) + self._order.scenario.drain_timeout_s
        while self._tally.unsettled and time.time() < deadline:
            gevent.sleep(FEED_EVERY_S / 4)

    @staticmethod
    def _tell(history: HistoryRelay) -> None:
        while True:
            gevent.sleep(TELL_EVERY_S)
            history.flush()

    # --- requests ---

    def _spawn(self, arrival: Arrival, intended_ns: int) -> None:
        self._requests.spawn(self._do, arrival, intended_ns).link_exception(self._broken)

    def _do(self, arrival: Arrival, intended_ns: int) -> None:
        account, order = self._accounts[arrival.tenant], self._order
        user, now_ns = f"user:{arrival.index}", time.time_ns()
        call = call_for(
            arrival,
            account,
            seed=order.scenario.seed,
            intended_ns=intended_ns,
            session=order.session,
            keeps=order.scenario.system.keeps,
            message_id=self._message(account) if arrival.f == "delete" else None,
        )
        value = {**call.value, "lag_ns": now_ns - intended_ns}
        self._history.append("invoke", arrival.f, value, process=user, time_ns=now_ns)
        lag = Timing(kind="API", name=f"lag {arrival.f}", duration_ns=value["lag_ns"], warmup=arrival.warmup)
        self._board.add([lag])
        kind, known, error = classify(*self._send(call))
        op = self._history.append(kind, arrival.f, {**value, **known}, error=error, process=user)
        latency_ns = op.time_ns - intended_ns
        accept = Timing(
            kind="API",
            name=f"accept {arrival.f}",
            duration_ns=latency_ns,
            error=error,
            trace_id=call.value["trace_id"],
            warmup=arrival.warmup,
        )
        self._fire(accept, traceparent=call.headers["traceparent"])
        if kind == "ok":
            early = self._tally.early(known["task_id"])
            if early is not None and self._part.workers > 1:
                self._complete(early)
            self._fire(*self._tally.accepted(known["task_id"], intended_ns, warmup=arrival.warmup))

    def _message(self, account: Account) -> str | None:
        """Something to delete; without it the request says so itself, and is refused."""
        _, body, _ = self._gets.send("GET", listing_path(account), {"Authorization": f"Bearer {account.token}"}, b"")
        return listed_message(body)

    def _send(self, call: Call) -> tuple[int | None, bytes, str | None]:
        try:
            return self._posts.send("POST", call.path, call.headers, call.body)
        except gevent.GreenletExit:
            return None, b"", "broken off"

    def _broken(self, greenlet: Any) -> None:
        """A defect in one of our greenlets is the generator's, and ends it."""
        gevent.kill(self._greenlet, greenlet.exception)

    # --- completions ---

    def _follow(self, feed: Feed) -> None:
        while True:
            gevent.sleep(FEED_EVERY_S)
            self._read_pages(feed, self._settled)

    def _read_pages(self, feed: Feed, use: Callable[[Mapping[str, Any]], None]) -> None:
        """All pages that there are now. A feed that fails is read again in its next turn: the cursor stands."""
        full = True
        while full:
            status, body, error = self._gets.send("GET", feed.path, feed.headers, b"")
            try:
                rows = feed.absorb(body) if status == _OK else []
            except ValueError as err:
                status, error, rows = None, str(err), []
            if status != _OK:
                self._fire(Timing(kind="API", name="feed", duration_ns=0, error=error or f"status {status}"))
            for number, row in enumerate(rows, start=1):
                use(row)
                if number % ROWS_AT_ONCE == 0:
                    # A page of five hundred rows would hold up all arrivals that are due meanwhile.
                    gevent.sleep(0)
            full = len(rows) >= FEED_LIMIT

    def _settled(self, row: Mapping[str, Any]) -> None:
        timings = self._tally.settled(row)
        # Each of several workers sees all of a feed, and tells of its own tasks: each end is told once.
        if timings or self._part.workers == 1:
            self._complete(row)
        self._fire(*timings)

    def _complete(self, row: Mapping[str, Any]) -> None:
        self._history.append("ok", "complete", row, process=f"feed:{row['tenant']}")

    def _fire(self, *timings: Timing, traceparent: str | None = None) -> None:
        self._board.add(timings)
        for timing in timings:
            self._environment.events.request.fire(
                request_type=timing.kind,
                name=timing.name,
                response_time=max(timing.duration_ns, 0) / 1e6,
                response_length=0,
                exception=RuntimeError(timing.error) if timing.error else None,
                context={"trace_id": timing.trace_id, "traceparent": traceparent},
            )


def schedule_of(order: Order) -> list[Arrival]:
    """The arrivals of all workers."""
    return arrivals(order.scenario, [[address for _, address in a.clients] for a in order.target.accounts])


def write_start(history: HistoryWriter | HistoryRelay, scheduled: int, start_ns: int) -> None:
    """The first operation of a load's history."""
    value = {"name": "warmup", "scheduled": scheduled}
    history.append("info", "phase", value, process="runner", time_ns=start_ns)


def _history_path(worker: int) -> Path:
    default = Path("runs/locust") / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ") / "history.jsonl"
    path = Path(os.environ.get("MAILRIG_HISTORY", default))
    path.parent.mkdir(parents=True, exist_ok=True)
    return path if worker == 0 else path.with_name(f"{path.stem}.{worker}{path.suffix}")


#: What a load needs to begin; without an order nobody knows what to load.
_Beginning = tuple[Order | None, Part, HistoryWriter | HistoryRelay]


class Conductor:
    """Starts the load where the test starts: here, or on all workers; and ends the test when all of it is done."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment
        self._load: Load | None = None
        #: Where the master writes down what workers elsewhere tell.
        self._history: HistoryWriter | None = None
        self._waiting: set[str] = set()
        self._running = False
        self.board = Board(ORDER.scenario if ORDER is not None else None, load_contract())
        self.failure: str | None = None

    @property
    def _runner(self) -> Any:
        return self._environment.runner

    def test_start(self, **_: Any) -> None:
        """Locust's event; on a worker the master's word is what counts."""
        self._running = True
        self.board.reset()
        if isinstance(self._runner, MasterRunner):
            self._share_out()
        elif not isinstance(self._runner, WorkerRunner):
            self._begin(lambda: (ORDER, Part(), HistoryWriter(_history_path(0), "load")), self._finish)

    def _begin(self, begin: Callable[[], _Beginning], on_done: Callable[[str | None], None]) -> None:
        """Locust logs what a listener raises and goes on: without a load it would wait for ever."""
        try:
            order, part, history = begin()
            if order is None:
                raise RigError("the master says neither stack nor scenario: start it with MAILRIG_REMOTE=1")  # noqa: TRY301  # told as the others are
            self._load = Load(self._environment, order, part, history=history, board=self.board, on_done=on_done)
        except (OSError, RigError, KeyError, ValueError, TypeError) as err:
            gevent.spawn(on_done, f"{type(err).__name__}: {err}")

    def test_stop(self, **_: Any) -> None:
        """Locust's event: the end, or somebody's wish."""
        self._waiting.clear()
        if self._load is not None:
            self._load.stop()

    # --- between master and workers ---

    def _share_out(self) -> None:
        clients = sorted(client.id for client in self._runner.clients.ready)
        self._waiting = set(clients)
        order: Mapping[str, Any] = {}
        if _REMOTE and ORDER is not None:
            start_ns = time.time_ns() + int(REMOTE_LEAD_S * 1e9)
            self._history = HistoryWriter(_history_path(0), "load")
            write_start(self._history, len(schedule_of(ORDER)), start_ns)
            order = {"start_ns": start_ns, **ORDER.to_message()}
        for worker, client in enumerate(clients):
            self._runner.send_message(_PART, {"worker": worker, "workers": len(clients), **order}, client_id=client)
        gevent.spawn(self._watch_workers)

    def on_part(self, msg: Any, **_: Any) -> None:
        """A worker gets its part, and what it does not know of itself."""
        data = msg.data
        part = Part(worker=data["worker"], workers=data["workers"], start_ns=data.get("start_ns"))
        if "stack" in data:
            self._begin(lambda: (Order.from_message(data), part, HistoryRelay("load", self._relay)), self._report)
        else:
            self._begin(lambda: (ORDER, part, HistoryWriter(_history_path(part.worker), "load")), self._report)

    def _relay(self, lines: str) -> None:
        self._runner.send_message(_LINES, {"lines": lines})

    def on_lines(self, msg: Any, **_: Any) -> None:
        """The master writes down what a worker tells."""
        if self._history is not None:
            self._history.put(msg.data["lines"])

    def _report(self, failure: str | None) -> None:
        self.failure = failure
        self._runner.send_message(_DONE, {"failure": failure})

    def on_done(self, msg: Any, **_: Any) -> None:
        """The master hears that a worker is through."""
        self._waiting.discard(msg.node_id)
        self.failure = self.failure or msg.data["failure"]
        if not self._waiting:
            gevent.spawn(self._finish, self.failure)

    def _watch_workers(self) -> None:
        """A worker that is lost takes its arrivals with it: that load was not the scenario's."""
        while self._waiting:
            alive = {client.id for client in self._runner.clients.all if client.state != STATE_MISSING}
            if lost := self._waiting - alive:
                self._finish(f"{len(lost)} workers were lost")
            gevent.sleep(1)

    def _finish(self, failure: str | None) -> None:
        if not self._running:
            return
        self._running, self.failure = False, failure
        self._waiting.clear()
        if self._history is not None:
            self._history.close()
            self._history = None
        if failure:
            sys.stderr.write(f"mailrig: the load generator failed: {failure}\n")
        if self._environment.parsed_options.headless:
            self._runner.quit()
        else:
            self._runner.stop()

    def quitting(self, environment: Any, **_: Any) -> None:
        """Locust's event; without this, each failed request would make the exit code 1."""
        environment.process_exit_code = 2 if self.failure or log.unhandled_greenlet_exception else 0


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust is not typed for us
def _init(environment: Any, runner: Any, **_: Any) -> None:
    conductor = Conductor(environment)
    environment.events.test_start.add_listener(conductor.test_start)
    environment.events.test_stop.add_listener(conductor.test_stop)
    environment.events.quitting.add_listener(conductor.quitting)
    environment.events.reset_stats.add_listener(conductor.board.reset)
    if environment.web_ui is not None:
        conductor.board.show(environment.web_ui)
    if isinstance(runner, MasterRunner):
        conductor.board.hear_workers(environment.events)
        runner.register_message(_DONE, conductor.on_done)
        runner.register_message(_LINES, conductor.on_lines)
    elif isinstance(runner, WorkerRunner):
        conductor.board.tell_master(environment.events)
        runner.register_message(_PART, conductor.on_part)


class MailLoad(User):  # type: ignore[misc]  # as above
    """Stands for the load in Locust's state and web UI; see rule 2."""

    host = ORDER.target.api_url if ORDER is not None else "http://the-master-knows.invalid"
    fixed_count = 1

    @task  # type: ignore[untyped-decorator]  # as above
    def stand(self) -> None:
        """Be there until the test stops."""
        gevent.sleep(3600)
