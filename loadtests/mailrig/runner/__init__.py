"""The steps of a run, and what ``mailrig up`` leaves standing.

Order of judgement: safety while it is broken, then heal, then liveness: all settled within the drain's time.
The verdict is made from the run's folder alone, so ``mailrig check`` says the same later.

    interrupts   SIGINT and SIGTERM as an exception that no cleaning-up is torn by
    screen       what the user sees while it goes on
    scratch      a folder for what a run does not keep
    facts        run.json: what was run, on what
    load         Locust as a process, and how far it is
    leaking      when a run is searched for its secrets, and which they are
    experiment   up, population, warm-up, load and nemesis, heal, drain, collect, down

Called by cli.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mailrig import report
from mailrig.checkers import Verdict, judge, validate
from mailrig.clients import Account
from mailrig.evidence import load_evidence
from mailrig.population import populate, write_stack_file
from mailrig.runner.experiment import Experiment, stack_up
from mailrig.runner.facts import facts_of, patched_service
from mailrig.runner.interrupts import Stopped, stop_on_signals
from mailrig.runner.leaking import LeakSearch
from mailrig.runner.scratch import scratch_folder
from mailrig.runner.screen import Screen
from mailrig.scenario import Mutant, Scenario, load_contract, load_mutant, load_scenario, with_overrides
from mailrig.stack import Stack, StackOptions
from mailrig.store import Run

__all__ = ["STATE_DIR", "RunOptions", "Stopped", "check", "run", "standing", "stop_on_signals"]

#: Where a rig writes down what it started.
STATE_DIR: Final = Path(".mailrig")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What ``mailrig run`` was asked for."""

    #: A scenario's name or file.
    scenario: str
    seed: int | None = None
    #: A mutant's name.
    mutant: str | None = None
    #: More faults, each ``ACTION@SECONDS``.
    nemesis: tuple[str, ...] = ()
    runs_dir: Path = Path("runs")
    #: By part; 0 takes a free one.
    ports: Mapping[str, int] = field(default_factory=dict)


def run(options: RunOptions) -> tuple[Run, Verdict]:
    """Run a scenario and judge it.

    Raises:
        RigError: something is wrong that is not the system's; the stack is down again.
    """
    scenario = with_overrides(load_scenario(options.scenario), seed=options.seed, nemesis=options.nemesis)
    contract = load_contract()
    validate(scenario, contract)
    mutant = load_mutant(options.mutant) if options.mutant else None
    screen, started = Screen(), datetime.now(UTC)
    with scratch_folder(STATE_DIR) as scratch:
        python_path = patched_service(mutant, scratch / "patched")
        folder = Run.create(options.runs_dir, scenario, contract, started=started)
        facts = facts_of(scenario, mutant, started)
        folder.write_json("run.json", facts)
        screen.step(f"{scenario.name}, seed {scenario.seed}" + (f", mutant {mutant.name}" if mutant else ""))
        stack = StackOptions(
            log_dir=folder.logs,
            span_dir=scratch / "spans",
            state_dir=STATE_DIR,
            time_scale=scenario.system.time_scale,
            concurrency=scenario.system.concurrency,
            seed=scenario.seed,
            ports=options.ports,
            environment=_environment(scenario, mutant),
            python_path=python_path,
            without=frozenset(mutant.without) if mutant else frozenset(),
        )
        span_dir = scratch / "spans"
        experiment = Experiment(
            scenario, folder, Stack(stack), spans=lambda _: span_dir, scratch=scratch, screen=screen
        )
        experiment.conduct()
        folder.write_json("run.json", {**facts, "ended_ns": time.time_ns()})
    screen.step("judging")
    return folder, _judge(folder, experiment.leaks)


def _environment(scenario: Scenario, mutant: Mutant | None) -> dict[str, str]:
    """What the service is told beyond where its neighbours are; a mutant's word counts more."""
    sample = scenario.system.trace_sample
    return {**({"MAIL_TRACE_SAMPLE": str(sample)} if sample < 1 else {}), **(mutant.environment if mutant else {})}


def _judge(folder: Run, leaks: LeakSearch) -> Verdict:
    """As ``check``; and once more if the reports that came of it hold a secret."""
    verdict = check(folder)
    return check(folder) if leaks.reports() else verdict


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
    stack_file = STATE_DIR / "stack.json"
    stack = Stack(options)
    with stack_up(stack):
        accounts = populate(stack, scenario.population, seed=scenario.seed, evidence=None)
        write_stack_file(stack_file, stack, accounts)
        try:
            yield stack, accounts
        finally:
            stack_file.unlink(missing_ok=True)
