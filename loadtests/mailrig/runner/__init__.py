"""The steps of a run, and what ``mailrig up`` leaves standing.

Order of judgement: safety while it is broken, then heal, then liveness: all settled within the drain's time.
The verdict is made from the run's folder alone, so ``mailrig check`` says the same later.

    interrupts   SIGINT and SIGTERM as an exception that no cleaning-up is torn by
    screen       what the user sees while it goes on
    scratch      a folder for what a run does not keep
    facts        run.json: what was run, on what
    plan         what a run will be, and why it can't
    load         Locust as a process, and how far it is
    handover     spans to Jaeger and back
    beside       an earlier run that this one is held against
    borrowed     what of a shared stack belongs to a run
    leaking      when a run is searched for its secrets, and which they are
    experiment   up, population, warm-up, load and nemesis, heal, drain, collect, down
    series       every scenario in turn

Called by cli.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from mailrig import report
from mailrig.checkers import Verdict, judge
from mailrig.clients import Account
from mailrig.evidence import EvidenceError, load_evidence
from mailrig.jaeger import JaegerError, Otlp
from mailrig.live import LiveGates
from mailrig.population import populate, write_stack_file
from mailrig.runner.beside import keep_baseline
from mailrig.runner.borrowed import Borrowed
from mailrig.runner.experiment import Experiment, stack_up
from mailrig.runner.facts import facts_of, patched_service
from mailrig.runner.handover import hand_over
from mailrig.runner.interrupts import Stopped, stop_on_signals
from mailrig.runner.leaking import LeakSearch
from mailrig.runner.load import Fleet, work_for
from mailrig.runner.plan import Plan, RunOptions, make_plan, traced
from mailrig.runner.scratch import scratch_folder
from mailrig.runner.screen import Screen
from mailrig.runner.series import Entry, run_series, worst
from mailrig.scenario import load_contract, load_scenario
from mailrig.stack import Stack, StackOptions
from mailrig.store import Run

__all__ = [
    "STATE_DIR",
    "Entry",
    "Fleet",
    "RunOptions",
    "Stopped",
    "check",
    "run",
    "run_series",
    "standing",
    "stop_on_signals",
    "traced",
    "upload",
    "work_for",
    "worst",
]

#: Where a rig writes down what it started.
STATE_DIR: Final = Path(".mailrig")


def run(options: RunOptions) -> tuple[Run, Verdict]:
    """Run a scenario and judge it.

    Raises:
        RigError: something is wrong that is not the system's; the stack is down again.
    """
    plan = make_plan(options)
    scenario, screen, started = plan.scenario, Screen(quiet=options.quiet), datetime.now(UTC)
    with scratch_folder(STATE_DIR) as scratch:
        python_path = patched_service(plan.mutant, scratch / "patched", service=plan.service)
        folder = Run.create(options.runs_dir, scenario, plan.contract, started=started)
        facts = {**facts_of(scenario, plan.mutant, started), **plan.facts}
        folder.write_json("run.json", facts)
        if options.baseline is not None:
            # Before anything is started: whatever hinders it is said now.
            keep_baseline(folder, options.baseline)
        screen.step(f"{scenario.name}, seed {scenario.seed}" + (f", mutant {plan.mutant.name}" if plan.mutant else ""))
        span_dir = scratch / "spans"
        stack = plan.stack(log_dir=folder.logs, span_dir=span_dir, state_dir=STATE_DIR, python_path=python_path)
        spans = functools.partial(_spans, plan, span_dir, screen)
        course = Experiment(
            scenario,
            folder,
            stack,
            spans=spans,
            scratch=scratch,
            screen=screen,
            fleet=plan.fleet,
            live=LiveGates(scenario, plan.contract, alone=plan.attachment is None),
            winds_down=options.winds_down,
        )
        course.conduct()
        _hand_over(plan, folder, screen)
        facts |= _cut_short(course, facts["started_ns"])
        folder.write_json("run.json", {**facts, "ended_ns": time.time_ns()})
    screen.step("judging")
    return folder, _judge(folder, course.leaks)


def _cut_short(course: Experiment, started_ns: int) -> dict[str, Any]:
    """What run.json says of a run that a gate or somebody ended early."""
    if course.interrupted_ns is None:
        return {}
    after_s = round((course.interrupted_ns - started_ns) / 1e9, 1)
    if course.aborted_by is not None:
        return {"aborted": {"gate": course.aborted_by, "after_s": after_s}}
    return {"interrupted": {"signal": "SIGINT", "after_s": after_s}}


def _judge(folder: Run, leaks: LeakSearch) -> Verdict:
    """As ``check``; and once more if the reports that came of it hold a secret."""
    verdict = check(folder)
    return check(folder) if leaks.reports() else verdict


def _spans(plan: Plan, span_dir: Path, screen: Screen, evidence: Path) -> Path | None:
    """Where the run's span files are: our own, or copies of what others have of it."""
    if plan.attachment is None:
        return span_dir
    mounted, copy = plan.attachment.span_dir, span_dir / "borrowed.jsonl"
    try:
        if mounted is not None:
            Borrowed(evidence).from_files(mounted, copy)
        elif plan.jaeger is not None:
            screen.step("reading spans from Jaeger")
            Borrowed(evidence, plan.scenario.system.keeps).from_jaeger(plan.jaeger, copy)
        else:
            return None
    except JaegerError as err:
        # The run is made, and all gates but those of traces can be judged.
        screen.step(f"{err}: gates of traces are unknown")
        return None
    return span_dir


def _hand_over(plan: Plan, folder: Run, screen: Screen) -> None:
    if plan.jaeger is None or plan.otlp is None:
        return
    try:
        looked_for, sent = hand_over(folder.evidence, plan.jaeger, plan.otlp)
        screen.step(f"Jaeger: {looked_for} spans looked for, {sent} of them sent after the run")
    except JaegerError as err:
        screen.step(f"{err}: what it has is unknown")


def check(folder: Run, *, baseline: Run | None = None) -> Verdict:
    """Judge a stored run, beside another one if one is named, and write its verdict and reports.

    Raises:
        RigError: its files can't be read, or it can't be held against ``baseline``.
    """
    if baseline is not None:
        keep_baseline(folder, baseline)
    scenario = load_scenario(folder.path / "scenario.toml")
    contract = load_contract(folder.path / "contract.toml")
    verdict = judge(scenario, contract, load_evidence(folder.path))
    folder.write_verdict(verdict.to_dict())
    report.write_reports(folder.path)
    return verdict


def upload(folder: Run, otlp: Otlp) -> int:
    """Send a stored run's spans to whoever takes OTLP; answers how many there were.

    Raises:
        RigError: nobody takes them, or the run has none.
    """
    file = folder.evidence / "spans.jsonl"
    if not file.is_file():
        raise EvidenceError(f"{folder.path} has no spans: they were not collected")
    with file.open(encoding="utf-8") as lines:
        try:
            return otlp.send(lines)
        except (ValueError, KeyError, TypeError) as err:
            raise EvidenceError(f"{file}: not OTLP JSON: {type(err).__name__}") from err


@contextmanager
def standing(
    ports: Mapping[str, int], log_dir: Path, *, time_scale: float, environment: Mapping[str, str]
) -> Iterator[tuple[Stack, list[Account]]]:
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
        environment=environment,
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
