"""One pass from up to down: up, population, warm-up, load and nemesis, heal, drain, collect, down.

Rule 1: whatever happens, the stack is down afterwards. Rule 2: each phase is an operation of the history as it begins.
Rule 3: nothing is judged here; what is left is a folder full of evidence. Called by runner.
"""

from __future__ import annotations

import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final

from fakemail.client import ControlError, FakeMail
from mailrig.clients import Account, Call, call_for, classify
from mailrig.collect import collect, complete, unsettled
from mailrig.history import HistoryWriter, merge_histories
from mailrig.live import HELD, LiveGates, summary
from mailrig.nemesis import Agent, StackWorld
from mailrig.population import HTTP_TIMEOUT_S, populate, write_stack_file
from mailrig.runner.borrowed import own_entries
from mailrig.runner.interrupts import Stopped, Wish, deferred, listening
from mailrig.runner.leaking import LeakSearch
from mailrig.runner.load import FLEET_WAIT_S, Fleet, LoadError, LoadProcess
from mailrig.runner.screen import Glance, Screen, time_left
from mailrig.scenario import RigError, Scenario
from mailrig.schedule import Arrival, arrivals
from mailrig.scraping import MetricsSampler
from mailrig.stack import MemorySampler, QueueSampler, RunningStack
from mailrig.store import Run

#: The load may take this much longer than its schedule and its drain before it is given up, seconds.
LOAD_SLACK_S: Final = 30.0
#: Syncs after the drain get this long to settle, seconds: each mailbox's mail is known but for what came last.
FINAL_SYNC_S: Final = 10.0
#: A worker gives back what a lost child held when its pool looks again (every 5 s, celery 5.7: AsynPool.timers) and a
#: second has passed, although the job was done elsewhere long ago; seconds.
GIVE_BACK_S: Final = 8.0
#: Without a dispatcher a broker that has been empty for this long stays so, seconds.
STILL_S: Final = 1.0
_TICK_S: Final = 0.1
_SETTLE_EVERY_S: Final = 0.05


#: Given the folder of evidence: where the run's span files are; None when nobody has any.
Spans = Callable[[Path], Path | None]


class FakesError(RigError):
    """The fakes' control API failed in the middle of a run."""


@contextmanager
def stack_up(stack: RunningStack) -> Iterator[None]:
    """The stack is up until the block ends; no signal interrupts the bringing down."""
    try:
        stack.start()
        yield
    except BaseException as err:
        with deferred():
            stack.stop_after(err)
        raise
    else:
        with deferred():
            stack.stop()


class Experiment:
    """One pass through a scenario."""

    def __init__(
        self,
        scenario: Scenario,
        folder: Run,
        stack: RunningStack,
        *,
        spans: Spans,
        scratch: Path,
        screen: Screen,
        fleet: Fleet | None = None,
        live: LiveGates | None = None,
        winds_down: bool = False,
    ) -> None:
        self._live, self._winds_down = live, winds_down
        #: Whether somebody wants an early end, and whether the load was cut for it.
        self._wish, self._cut = Wish(), False
        #: The gate that ended the load early.
        self.aborted_by: str | None = None
        self._scenario, self._folder, self._stack = scenario, folder, stack
        self._spans, self._screen, self._fleet = spans, screen, fleet
        #: Whose work is judged; None where nobody else has any.
        self._tenants = scenario.population.names or None
        self._started_ns = time.time_ns()
        #: Holds tokens, so it is not among what a run keeps.
        self._stack_file = scratch / "stack.json"
        # In the folder: a rig that is killed leaves at least these.
        self._load_history, self._rig_history = folder.path / "history.load.jsonl", folder.path / "history.rig.jsonl"
        self._history = HistoryWriter(self._rig_history, "runner")
        self.leaks = LeakSearch(folder.path)
        self._tick = threading.Event()
        self._drained_by_s = 0.0
        self._moved_s = float("inf")

    def conduct(self) -> None:
        """Do all of it.

        Raises:
            RigError: the experiment could not be made; its folder keeps what there is.
        """
        try:
            with self._history:
                self._phases()
        except ControlError as err:
            raise FakesError(f"fakemail: {err}") from err
        finally:
            parts = [path for path in (self._load_history, self._rig_history) if path.exists()]
            merged = merge_histories(parts, self._folder.path / "history.jsonl")
            for path in parts:
                path.unlink()
        evidence = self._folder.evidence
        span_dir = self._spans(evidence)
        complete(
            evidence,
            span_dir=span_dir,
            processes=self._stack.records,
            history=merged,
            keeps=self._scenario.system.keeps,
        )
        self.leaks.left(span_dir)

    def _phases(self) -> None:
        evidence, stack = self._folder.evidence, self._stack
        self._phase("up", "bringing the stack up")
        with stack_up(stack), ExitStack() as samplers:
            for line in stack.leftovers:
                self._screen.step(line)
            self._phase("population", "making tenants, mailboxes and mail")
            accounts = populate(stack, self._scenario.population, seed=self._scenario.seed, evidence=evidence)
            write_stack_file(self._stack_file, stack, accounts)
            queues = self._start_samplers(stack, samplers)
            with listening() if self._winds_down else nullcontext(Wish()) as self._wish:
                self._load(stack, queues)
                self._drain(stack, accounts, queues)
            self._phase("collect", "collecting")
            samplers.close()
            self._collect(stack)
            self.leaks.live(stack, accounts)
            self._phase("down", "bringing the stack down")

    def _collect(self, stack: RunningStack) -> None:
        ledger: Iterable[Mapping[str, Any]] = FakeMail(stack.control_url).ledger()
        if self._tenants is not None:
            ledger = own_entries(ledger, self._tenants, since_ns=self._started_ns)
        collect(
            self._folder.evidence,
            audit_url=stack.audit_url,
            redis_url=stack.redis_url,
            ledger=ledger,
            tenants=self._tenants,
        )

    def _phase(self, name: str, text: str, *, time_ns: int | None = None) -> None:
        self._history.append("info", "phase", {"name": name}, time_ns=time_ns)
        self._screen.step(text)

    def _start_samplers(self, stack: RunningStack, running: ExitStack) -> QueueSampler:
        queues = QueueSampler(stack.redis_url, self._folder.evidence / "queues.jsonl")
        memory = MemorySampler(
            stack.worker_memory, self._folder.evidence / "memory.jsonl", every_s=stack.memory_every_s
        )
        metrics = MetricsSampler(stack.exporter_url, self._folder.evidence / "metrics.jsonl")
        for sampler in (queues, memory, metrics):
            sampler.start()
            running.callback(sampler.stop)
        return queues

    # --- load and nemesis ---

    def _load(self, stack: RunningStack, queues: QueueSampler) -> None:
        scenario_file = self._folder.path / "scenario.toml"
        FakeMail(stack.control_url).put_faults([dict(fault) for fault in self._scenario.faults])
        with (
            HistoryWriter(self._rig_history, "nemesis") as history,
            closing(StackWorld(stack)) as world,
            ExitStack() as running,
        ):
            agent = Agent(self._scenario.nemesis, world, history)
            load = LoadProcess(
                stack,
                stack_file=self._stack_file,
                scenario_file=scenario_file,
                history=self._load_history,
                session=self._session("run"),
                fleet=self._fleet,
                live=self._live,
            )
            running.callback(load.stop)
            running.callback(agent.stop)
            self._watch(load, agent, stack, queues)

    def _watch(self, load: LoadProcess, agent: Agent, stack: RunningStack, queues: QueueSampler) -> None:
        """Until Locust ends, which is after the last completion or after the drain's time."""
        times = self._scenario.load
        deadline_s = time.monotonic() + times.total_s + self._scenario.drain_timeout_s + LOAD_SLACK_S
        deadline_s += FLEET_WAIT_S if self._fleet else 0
        steps: list[tuple[float, Callable[[], None]]] = [
            (0.0, lambda: self._begin(agent, load)),
            (times.warmup_s, lambda: self._phase("load", f"load: {times.duration_s:g} s")),
            (times.total_s, lambda: self._heal(agent, stack)),
        ]
        gates, expected = Glance(lambda: self._look(stack, queues)), self._expected()
        while load.runs:
            if stack.broken is not None:
                raise stack.broken
            if time.monotonic() > deadline_s:
                raise LoadError("Locust did not end in time")
            load.tail.read()
            self._do_due(steps, load.tail.start_ns)
            if self._nothing_moves(queues):
                load.stop()
            if self._wish.asked:
                self._wind_down(load)
            else:
                self._give_up(load, expected)
            left = time_left(times, drain_s=self._scenario.drain_timeout_s, gone_s=load.tail.gone_s)
            held = f"queued {sum(queues.ready.values())}, held {queues.unacked}"
            self._screen.progress(" · ".join(filter(None, (left, str(gates), str(load.tail), held))))
            self._tick.wait(_TICK_S)
        load.check()
        # Locust may have ended before we looked again.
        self._do_due(steps, 0)

    def _look(self, stack: RunningStack, queues: QueueSampler) -> str:
        """What can be said of the gates by now. What a dead worker has left behind is not held."""
        if self._live is None:
            return ""
        self._live.see(HELD, self._held(stack, queues))
        return summary(self._live.rows())

    @staticmethod
    def _held(stack: RunningStack, queues: QueueSampler) -> int:
        """Messages that the living worker holds."""
        starts = (record["started_ns"] for record in stack.records if record["kind"] == "worker")
        return queues.held_since(max(starts, default=0))

    def _expected(self) -> int:
        """Arrivals after the warm-up."""
        addresses = self._scenario.population.addresses()
        return sum(not arrival.warmup for arrival in arrivals(self._scenario, addresses))

    def _give_up(self, load: LoadProcess, expected: int) -> None:
        """A gate that aborts can't hold any more: as if somebody had asked, but it is known what for."""
        broken = self._live.hopeless(expected) if self._live is not None and load.tail.start_ns is not None else None
        if broken is not None:
            self.aborted_by, self._wish.asked_ns, self._cut = broken.id, time.time_ns(), True
            self._phase("aborted", f"gate {broken} can't hold any more ({broken.check}): no more load")
            load.stop()

    def _wind_down(self, load: LoadProcess) -> None:
        """Ctrl-C: no more load, but what was accepted is waited for, collected and judged."""
        if load.tail.start_ns is None:
            raise Stopped(signal.SIGINT)
        if not self._cut:
            self._cut = True
            self._phase("interrupted", "SIGINT: no more load; what was accepted is waited for (again: stop at once)")
            load.stop()

    @property
    def interrupted_ns(self) -> int | None:
        """When somebody asked for an early end; None when nobody did."""
        return self._wish.asked_ns

    @staticmethod
    def _do_due(steps: list[tuple[float, Callable[[], None]]], start_ns: int | None) -> None:
        while start_ns is not None and steps and time.time_ns() >= start_ns + steps[0][0] * 1e9:
            steps.pop(0)[1]()

    def _session(self, name: str) -> str:
        """One load on a fresh stack: keys and trace ids follow from the seed alone. Elsewhere others had that seed."""
        return name if self._tenants is None else f"{name}-{self._tenants[0]}"

    def _begin(self, agent: Agent, load: LoadProcess) -> None:
        age_s = (time.time_ns() - (load.tail.start_ns or time.time_ns())) / 1e9
        agent.start(age_s=age_s)
        self._screen.step(f"warm-up: {self._scenario.load.warmup_s:g} s")

    def _heal(self, agent: Agent, stack: RunningStack) -> None:
        """No more faults, and time to settle: safety was judged while it was broken, liveness is from here on."""
        self._phase("heal", "healing")
        agent.stop()
        FakeMail(stack.control_url).clear_faults()
        self._phase("drain", "waiting until everything is settled")
        self._drained_by_s = time.monotonic() + self._scenario.drain_timeout_s

    # --- drain ---

    def _nothing_moves(self, queues: QueueSampler) -> bool:
        """After the load: whether to wait longer would show anything new. Mutants lack a dispatcher, for example."""
        now_s = time.monotonic()
        if not self._drained_by_s or queues.unacked or any(queues.ready.values()):
            self._moved_s = now_s
        return "dispatcher" in self._stack.without and now_s - self._moved_s > STILL_S

    def _drain(self, stack: RunningStack, accounts: list[Account], queues: QueueSampler) -> None:
        """Everything that was accepted is settled, then each mailbox is read once more."""
        stuck = self._settle(stack, queues, until_s=self._drained_by_s)
        for number, (tenant, client) in enumerate(
            (tenant, client) for tenant, account in enumerate(accounts) for client in range(len(account.clients))
        ):
            # Numbers below those of the schedule; like the warm-up, these count for safety and not for latency.
            arrival = Arrival(index=-1 - number, at_s=0.0, f="sync", tenant=tenant, client=client, warmup=True)
            self._final_sync(stack, accounts[tenant], arrival)
        # Beat first: a tick between the last look at the broker and the last look at the rows would be in one only.
        stack.retire("beat")
        self._settle(stack, queues, until_s=time.monotonic() + FINAL_SYNC_S, except_for=stuck)
        self._await_given_back(stack, queues)

    def _await_given_back(self, stack: RunningStack, queues: QueueSampler) -> None:
        """All is settled, but a message may still be held for a child that was killed a moment ago."""
        until_s = time.monotonic() + GIVE_BACK_S
        while self._tenants is None and self._held(stack, queues) and time.monotonic() < until_s:
            if self._wish.asked and not self._cut:
                return
            self._screen.progress("drain: the worker gives back what a lost process held")
            self._tick.wait(_SETTLE_EVERY_S)

    def _settle(
        self, stack: RunningStack, queues: QueueSampler, *, until_s: float, except_for: frozenset[str] = frozenset()
    ) -> frozenset[str]:
        """Wait for all jobs but some; answers which are not settled at the end."""
        while (left := unsettled(stack.audit_url, self._tenants) - except_for) or self._is_busy(queues):
            if time.monotonic() >= until_s:
                break
            if stack.broken is not None:
                raise stack.broken
            # Asked for in the drain, the end of waiting is now; before it, waiting is what is left to do.
            if self._nothing_moves(queues) or (self._wish.asked and not self._cut):
                break
            left_s = max(until_s - time.monotonic(), 0)
            self._screen.progress(f"drain, {left_s:.0f} s left at most · {len(left)} jobs are not settled")
            self._tick.wait(_SETTLE_EVERY_S)
        return left

    def _is_busy(self, queues: QueueSampler) -> bool:
        """Whether a broker that others use too holds messages: theirs would look like ours at the end."""
        return self._tenants is not None and bool(queues.unacked or any(queues.ready.values()))

    def _final_sync(self, stack: RunningStack, account: Account, arrival: Arrival) -> None:
        now_ns = time.time_ns()
        call = call_for(arrival, account, seed=self._scenario.seed, intended_ns=now_ns, session=self._session("final"))
        value = {**call.value, "lag_ns": 0}
        self._history.append("invoke", arrival.f, value, time_ns=now_ns)
        kind, known, error = classify(*_send(stack.api_url, call))
        self._history.append(kind, arrival.f, {**value, **known}, error=error)


def _send(api_url: str, call: Call) -> tuple[int | None, bytes, str | None]:
    request = urllib.request.Request(  # noqa: S310  # our own API
        api_url + call.path, data=call.body, headers=dict(call.headers), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:  # noqa: S310  # as above
            return answer.status, answer.read(), None
    except urllib.error.HTTPError as err:
        return err.code, err.read(), None
    except OSError as err:
        return None, b"", type(err).__name__
