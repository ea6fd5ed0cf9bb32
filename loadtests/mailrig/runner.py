"""The steps of a run: up, population, warm-up, load and nemesis, heal, drain, collect, down, check, report.

Order of judgement: safety while it is broken, then heal, then liveness: all settled within the drain's time.
The verdict is made from the run's folder alone, so ``mailrig check`` says the same later. Called by cli.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import psutil

from fakemail.client import FakeMail
from mailrig import collect, report
from mailrig.checkers import Verdict, judge, validate
from mailrig.clients import Account
from mailrig.evidence import load_evidence
from mailrig.history import HistoryWriter, merge_histories, read_history
from mailrig.nemesis import Agent
from mailrig.population import populate, post, write_stack_file
from mailrig.scenario import (
    Mutant,
    RigError,
    Scenario,
    apply_patches,
    load_contract,
    load_mutant,
    load_scenario,
    with_overrides,
)
from mailrig.stack import MemorySampler, Part, QueueSampler, Stack, StackOptions, end
from mailrig.store import Run

#: Where a rig writes down what it started.
STATE_DIR: Final = Path(".mailrig")
#: The load may take this much longer than its schedule and its drain before it is given up.
LOAD_SLACK_S: Final = 30.0
_PACKAGES: Final = ("mailrig", "celery", "kombu", "redis", "sqlalchemy", "psycopg", "flask", "gunicorn", "locust")


class LoadError(RigError):
    """The load generator did not do its work."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What ``mailrig run`` was asked for."""

    scenario: str
    seed: int | None = None
    mutant: str | None = None
    nemesis: tuple[str, ...] = ()
    runs_dir: Path = Path("runs")
    ports: Mapping[str, int] = field(default_factory=dict)


class Screen:
    """What the user sees while a run goes on: a line that changes on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._start = time.monotonic()
        self._last = 0.0

    def step(self, text: str) -> None:
        """A step of the run has begun."""
        clear = "\r\x1b[K" if self._tty else ""
        print(f"{clear}[{time.monotonic() - self._start:5.1f} s] {text}", file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """How far the load is."""
        now = time.monotonic()
        if self._tty:
            print(f"\r\x1b[K[{now - self._start:5.1f} s] {text}", end="", file=sys.stderr, flush=True)
        elif now - self._last >= 5:  # noqa: PLR2004  # seconds between two lines in a log
            self._last = now
            self.step(text)


def run(options: RunOptions) -> tuple[Run, Verdict]:
    """Run a scenario and judge it.

    Raises:
        RigError: something of the rig's own is wrong; the stack is down again.
    """
    scenario = with_overrides(load_scenario(options.scenario), seed=options.seed, nemesis=options.nemesis)
    contract = load_contract()
    validate(scenario, contract)
    mutant = load_mutant(options.mutant) if options.mutant else None
    started = datetime.now(UTC)
    screen = Screen()
    with tempfile.TemporaryDirectory(prefix="mailrig-mutant-") as scratch:
        patched = _patched(mutant, Path(scratch))
        folder = Run.create(options.runs_dir, scenario, contract, started=started)
        facts = _facts(scenario, mutant, started)
        folder.write_json("run.json", facts)
        screen.step(f"{scenario.name}, seed {scenario.seed}" + (f", mutant {mutant.name}" if mutant else ""))
        _Experiment(scenario, mutant, patched, folder, options.ports, screen).conduct()
        folder.write_json("run.json", {**facts, "ended_ns": time.time_ns()})
    screen.step("judging")
    return folder, check(folder)


def check(folder: Run) -> Verdict:
    """Judge a stored run, and write its verdict and reports."""
    scenario = load_scenario(folder.path / "scenario.toml")
    contract = load_contract(folder.path / "contract.toml")
    verdict = judge(scenario, contract, load_evidence(folder.path))
    folder.write_verdict(verdict.to_dict())
    report.write_reports(folder.path)
    return verdict


@contextmanager
def standing(ports: Mapping[str, int], log_dir: Path, *, time_scale: float) -> Iterator[tuple[Stack, list[Account]]]:
    """A stack with the population of the smoke scenario, until the block ends."""
    scenario = load_scenario("smoke")
    options = StackOptions(
        log_dir=log_dir,
        span_dir=log_dir / "spans",
        state_dir=STATE_DIR,
        time_scale=time_scale,
        concurrency=scenario.system.concurrency,
        seed=scenario.seed,
        ports=ports,
    )
    with Stack(options) as stack:
        accounts = populate(stack, scenario.population, seed=scenario.seed, evidence=None)
        write_stack_file(STATE_DIR / "stack.json", stack, accounts)
        try:
            yield stack, accounts
        finally:
            (STATE_DIR / "stack.json").unlink(missing_ok=True)


def _patched(mutant: Mutant | None, scratch: Path) -> Path | None:
    """A folder with a patched copy of the service, for a mutant that has patches."""
    if mutant is None or not mutant.patches:
        return None
    spec = find_spec("email_service")
    if spec is None or not spec.submodule_search_locations:
        raise RigError("email_service is not installed: pip install 'mailrig[system]'")
    apply_patches(mutant, Path(spec.submodule_search_locations[0]), scratch / "patched" / "email_service")
    return scratch / "patched"


def _facts(scenario: Scenario, mutant: Mutant | None, started: datetime) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "commit": _commit(),
        "started_ns": int(started.timestamp() * 1e9),
        "ended_ns": None,
        "mutant": mutant.name if mutant else None,
        "host": {
            "system": platform.system(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
        "versions": {name: metadata.version(name) for name in _PACKAGES},
    }


def _commit() -> str | None:
    argv = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


class _Experiment:
    """One pass from up to down; leaves a folder full of evidence."""

    def __init__(  # noqa: PLR0917  # made in one place
        self,
        scenario: Scenario,
        mutant: Mutant | None,
        patched: Path | None,
        folder: Run,
        ports: Mapping[str, int],
        screen: Screen,
    ) -> None:
        self._scenario = scenario
        self._folder = folder
        self._screen = screen
        self._spans = folder.path / "spans"
        self._options = StackOptions(
            log_dir=folder.logs,
            span_dir=self._spans,
            state_dir=STATE_DIR,
            time_scale=scenario.system.time_scale,
            concurrency=scenario.system.concurrency,
            seed=scenario.seed,
            ports=ports,
            environment=mutant.environment if mutant else {},
            python_path=patched,
            without=frozenset(mutant.without) if mutant else frozenset(),
        )
        self._rig_history = folder.path / "history.rig.jsonl"
        self._load_history = folder.path / "history.load.jsonl"
        self._stack_file = folder.path / ".stack.json"
        self._history = HistoryWriter(self._rig_history, "runner")

    def conduct(self) -> None:
        """Do all of it; whatever happens, the stack is down afterwards."""
        evidence = self._folder.evidence
        self._phase("up", "bringing the stack up")
        with Stack(self._options) as stack:
            for line in stack.leftovers:
                self._screen.step(line)
            self._phase("population", "making tenants, mailboxes and mail")
            accounts = populate(stack, self._scenario.population, seed=self._scenario.seed, evidence=evidence)
            write_stack_file(self._stack_file, stack, accounts)
            fakes = FakeMail(stack.control_url)
            fakes.put_faults([dict(fault) for fault in self._scenario.faults])
            queues = QueueSampler(stack.redis_url, evidence / "queues.jsonl")
            memory = MemorySampler(stack.worker_processes, evidence / "memory.jsonl")
            queues.start()
            memory.start()
            self._load(stack, queues)
            self._phase("heal", "healing")
            fakes.clear_faults()
            self._drain(stack, accounts)
            self._phase("collect", "collecting")
            queues.stop()
            memory.stop()
            collect.collect_broker(stack.redis_url, evidence / "broker.json")
            collect.collect_rows(stack.audit_url, evidence)
            collect.write_lines(evidence / "ledger.jsonl", fakes.ledger())
            self._phase("down", "bringing the stack down")
        self._stack_file.unlink(missing_ok=True)
        self._history.close()
        self._gather(stack)

    def _phase(self, name: str, text: str) -> None:
        self._history.append("info", "phase", {"name": name})
        self._screen.step(text)

    def _load(self, stack: Stack, queues: QueueSampler) -> None:
        """Locust as a process of its own, for it patches the one that it is in; the nemesis beside it."""
        agent_history = HistoryWriter(self._rig_history, "nemesis")
        agent = Agent(self._scenario.nemesis, stack, agent_history)
        locust = self._start_locust(stack)
        try:
            self._watch(locust, agent, stack, queues)
        finally:
            agent.stop()
            end([locust], reason="stop", grace_s=0.5)
            agent_history.close()

    def _start_locust(self, stack: Stack) -> Part:
        env = {
            **os.environ,
            "MAILRIG_STACK": str(self._stack_file),
            "MAILRIG_SCENARIO": str(self._folder.path / "scenario.toml"),
            "MAILRIG_HISTORY": str(self._load_history),
        }
        argv = [sys.executable, "-m", "locust", "-f", str(_locustfile()), "--headless", "-u", "1", "-r", "1"]
        argv += ["--only-summary", "--host", stack.api_url, "--skip-log-setup"]
        return stack.run_tool("locust", argv, env)

    def _watch(self, locust: Part, agent: Agent, stack: Stack, queues: QueueSampler) -> None:
        load, begun = self._scenario.load, False
        deadline = time.monotonic() + load.total_s + self._scenario.drain_timeout_s + LOAD_SLACK_S
        tick, counts = threading.Event(), _Counts(self._load_history)
        while locust.popen.poll() is None:
            if stack.broken is not None:
                raise stack.broken
            if time.monotonic() > deadline:
                raise LoadError(f"Locust did not end in time; see {locust.log}")
            counts.read()
            if counts.begun and not begun:
                begun = True
                self._screen.step(f"load: {load.warmup_s:g} s of warm-up and {load.duration_s:g} s")
                agent.start()
            depth = sum(queues.ready.values())
            self._screen.progress(f"{counts} · queued {depth}, held {queues.unacked}")
            tick.wait(0.1)
        if locust.popen.returncode != 0 or not begun:
            last = (locust.log.read_text(errors="replace").strip().splitlines() or ["no output"])[-1]
            raise LoadError(f"Locust ended with exit code {locust.popen.returncode}: {last[:300]}")

    def _drain(self, stack: Stack, accounts: list[Account]) -> None:
        """Everything that was accepted is settled, then each mailbox is read once more."""
        self._phase("drain", "waiting until everything is settled")
        self._settle(stack)
        for account in accounts:
            for client_id, _ in account.clients:
                path = f"/api/v1/{account.tenant}/email/clients/{client_id}/sync"
                answer = post(stack.api_url, path, account.token, b"", {})
                value = {"tenant": account.tenant, "client_id": client_id, "task_id": answer["task_id"]}
                self._history.append("ok", "final-sync", value)
        # Beat first: a tick between the last look at the broker and the last look at the rows would be in one only.
        stack.retire("beat")
        self._settle(stack)

    def _settle(self, stack: Stack) -> None:
        deadline, tick = time.monotonic() + self._scenario.drain_timeout_s, threading.Event()
        while (left := collect.unsettled(stack.audit_url)) and time.monotonic() < deadline:
            if "dispatcher" in self._options.without and self._only_lost(stack, left):
                return
            self._screen.progress(f"{left} jobs are not settled")
            tick.wait(0.05)

    def _only_lost(self, stack: Stack, left: int) -> bool:
        """Whether nothing moves any more: the broker is empty, so only a dispatcher could settle what is left."""
        sample = QueueSampler(stack.redis_url, self._folder.evidence / "unused").sample()
        return left > 0 and not sum(sample["ready"].values()) and not sample["unacked"]

    def _gather(self, stack: Stack) -> None:
        evidence = self._folder.evidence
        collect.write_lines(evidence / "processes.jsonl", stack.records)
        histories = [p for p in (self._load_history, self._rig_history) if p.exists()]
        merged = merge_histories(histories, self._folder.path / "history.jsonl")
        for path in histories:
            path.unlink()
        ops = [{"f": op.f, "type": op.type, "time_ns": op.time_ns} for op in merged]
        collect.collect_spans(self._spans, evidence, ops)
        for path in self._spans.glob("*.jsonl"):
            path.unlink()
        self._spans.rmdir()


class _Counts:
    """How many operations the load has written so far, read as it goes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0
        self.begun = False
        self._counts = {"invoke": 0, "ok": 0, "fail": 0, "info": 0, "complete": 0}

    def read(self) -> None:
        """Take in what is new; a line that is not whole yet waits."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._position += whole
        for line in data[:whole].splitlines():
            op = json.loads(line)
            if op["f"] == "phase":
                self.begun = True
            elif op["f"] == "complete":
                self._counts["complete"] += 1
            else:
                self._counts[op["type"]] += 1

    def __str__(self) -> str:
        c = self._counts
        lost = c["fail"] + c["info"]
        return f"asked {c['invoke']}, accepted {c['ok']}, settled {c['complete']}" + (
            f", refused {lost}" if lost else ""
        )


def _locustfile() -> Path:
    package = Path(__file__).parent
    for path in (package.parent / "locustfile.py", package / "data" / "locustfile.py"):
        if path.is_file():
            return path
    raise RigError("locustfile.py is not where it should be: reinstall mailrig")


def stop_on_signals() -> None:
    """Turn SIGTERM into an exception, so that every block is left as it should be; SIGINT already is one."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)


def history_of(folder: Run) -> list[Any]:
    """All operations of a stored run."""
    return list(read_history(folder.path / "history.jsonl"))
