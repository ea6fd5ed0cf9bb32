"""What a run will be, before anything of it is started: whatever is wrong is said now.

Owns: what ``mailrig run`` was asked for, and what follows from it and from the environment. Starts nothing; asks only
whether a Jaeger that was named is there. Called by runner.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mailrig.checkers import validate
from mailrig.history import HistoryError, read_history
from mailrig.jaeger import Jaeger, Otlp, otlp_beside
from mailrig.live import require_visible
from mailrig.runner.load import Fleet
from mailrig.scenario import (
    OPS,
    Contract,
    Mutant,
    RigError,
    Scenario,
    load_contract,
    load_mutant,
    load_scenario,
    with_overrides,
)
from mailrig.stack import AttachedStack, Attachment, RunningStack, Stack, StackOptions
from mailrig.store import Run

#: What may be done to a stack of others': it needs none of their processes.
DISTANT_ACTIONS: Final = frozenset({"lose-message", "put-fault", "clear-fault"})
#: Judged when a Jaeger is asked; part of the run's scenario then, so that it is judged again with it.
JAEGER_GATE: Final = '\n[[gate]]\nid = "jaeger-complete"\nmetric = "trace.jaeger_missing"\ncheck = "== 0"\n'


class PlanError(RigError):
    """What was asked for can't be done."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What ``mailrig run`` was asked for."""

    #: A scenario's name or file.
    scenario: str
    seed: int | None = None
    #: At its full length.
    full: bool = False
    #: A history whose arrivals are repeated.
    replay: Path | None = None
    #: A mutant's name.
    mutant: str | None = None
    #: More faults, each ``ACTION@SECONDS``.
    nemesis: tuple[str, ...] = ()
    runs_dir: Path = Path("runs")
    #: By part; 0 takes a free one.
    ports: Mapping[str, int] = field(default_factory=dict)
    #: The query side of a Jaeger, and where spans are received if not beside it.
    jaeger: str | None = None
    otlp: str | None = None
    #: Take the stack that the environment names instead of bringing one up.
    attach: bool = False
    #: Load workers elsewhere.
    fleet: Fleet | None = None
    #: An earlier run that gates with a ratio compare with.
    baseline: Run | None = None
    #: A folder with another copy of the package ``email_service``, and a word for it in run.json.
    service: Path | None = None
    service_name: str | None = None
    #: Settings of the service, none of them a secret: run.json has them.
    settings: Mapping[str, str] = field(default_factory=dict)
    #: Say nothing on the way.
    quiet: bool = False
    #: The first SIGINT ends the load and not the run: what there is then is drained, collected and judged (invalid).
    winds_down: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run to be made."""

    scenario: Scenario
    contract: Contract
    mutant: Mutant | None
    #: None where the stack is ours.
    attachment: Attachment | None
    jaeger: Jaeger | None
    #: Where a reader finds that Jaeger.
    jaeger_link: str | None
    otlp: Otlp | None
    ports: Mapping[str, int]
    fleet: Fleet | None
    #: As in ``RunOptions``.
    service: Path | None = None
    service_name: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json says besides what was run."""
        facts: dict[str, Any] = {"attached": self.attachment is not None}
        if self.scenario.full:
            facts["full"] = True
        if self.jaeger_link is not None:
            facts["jaeger_url"] = self.jaeger_link
        if self.fleet is not None:
            facts["load_workers"] = self.fleet.workers
        if self.service_name is not None:
            facts["service"] = self.service_name
        if self.settings:
            facts["settings"] = dict(self.settings)
        return facts

    def environment(self) -> dict[str, str]:
        """What our own service is told beyond where its neighbours are; a mutant's word counts more."""
        found = dict(self.scenario.system.environment)
        if self.scenario.system.trace_sample < 1:
            found["MAIL_TRACE_SAMPLE"] = str(self.scenario.system.trace_sample)
        if self.otlp is not None:
            found["OTEL_EXPORTER_OTLP_ENDPOINT"] = self.otlp.url
        return {**found, **self.settings, **(self.mutant.environment if self.mutant else {})}

    def stack(self, *, log_dir: Path, span_dir: Path, state_dir: Path, python_path: Path | None) -> RunningStack:
        """The stack of the run, not yet started."""
        if self.attachment is not None:
            return AttachedStack(self.attachment, log_dir=log_dir, state_dir=state_dir)
        return Stack(
            StackOptions(
                log_dir=log_dir,
                span_dir=span_dir,
                state_dir=state_dir,
                time_scale=self.scenario.system.time_scale,
                concurrency=self.scenario.system.concurrency,
                seed=self.scenario.seed,
                ports=self.ports,
                environment=self.environment(),
                python_path=python_path,
                without=frozenset(self.mutant.without) if self.mutant else frozenset(),
            )
        )


def make_plan(options: RunOptions) -> Plan:
    """The plan of a run.

    Raises:
        RigError: it can't be made as asked; one line says why.
    """
    _check_combination(options)
    attachment = Attachment.read(os.environ) if options.attach else None
    jaeger_url = options.jaeger or (attachment.jaeger_url if attachment else None)
    contract, asked = load_contract(), load_scenario(options.scenario, full=options.full)
    # Before anything is written into its text: here a gate's line is still that of its file.
    validate(asked, contract)
    scenario = with_overrides(
        asked,
        seed=options.seed,
        replay=_recorded(options.replay) if options.replay else {},
        nemesis=options.nemesis,
        system=_as_it_runs(attachment) if attachment else {},
        gates=JAEGER_GATE if jaeger_url and (attachment is None or attachment.span_dir) else "",
    )
    validate(scenario, contract)
    require_visible(scenario)
    if attachment is not None:
        scenario = _among_others(scenario)
    jaeger = Jaeger(jaeger_url) if jaeger_url else None
    otlp_url = options.otlp or (otlp_beside(jaeger.url) if jaeger else None)
    plan = Plan(
        scenario=scenario,
        contract=contract,
        mutant=load_mutant(options.mutant) if options.mutant else None,
        attachment=attachment,
        jaeger=jaeger,
        jaeger_link=options.jaeger or (attachment.jaeger_link if attachment else None),
        otlp=Otlp(otlp_url) if otlp_url else None,
        ports=options.ports,
        fleet=options.fleet,
        service=options.service,
        service_name=options.service_name,
        settings=options.settings,
    )
    _knock(plan.jaeger, plan.otlp)
    return plan


def _check_combination(options: RunOptions) -> None:
    if options.attach and options.mutant:
        raise PlanError("--mutate changes a service that the rig starts, and with --attach it starts none")
    if options.attach and (named := [part for part, port in options.ports.items() if port]):
        raise PlanError(f"--{named[0]}-port is for a part that the rig starts, and with --attach it starts none")


def _recorded(history: Path) -> dict[str, list[float]]:
    """When each kind of request was due in a run, seconds after the start of its warm-up.

    Raises:
        PlanError: there is no such history, or no load in it.
    """
    try:
        ops = read_history(history)
    except (OSError, HistoryError) as err:
        raise PlanError(f"--replay: {err}") from err
    start_ns = next((op.time_ns for op in ops if op.f == "phase" and op.value.get("name") == "warmup"), None)
    times: dict[str, list[float]] = {}
    for op in ops:
        if op.type == "invoke" and op.f in OPS and op.value["arrival"] >= 0 and start_ns is not None:
            times.setdefault(op.f, []).append((op.value["intended_ns"] - start_ns) / 1e9)
    if not times:
        raise PlanError(f"--replay: {history} has no load in it")
    return times


def traced(jaeger_url: str | None, otlp_url: str | None) -> dict[str, str]:
    """What the service is told so that its spans go to a Jaeger, if it is there.

    Raises:
        JaegerError: it is not.
    """
    jaeger = Jaeger(jaeger_url) if jaeger_url else None
    where = otlp_url or (otlp_beside(jaeger.url) if jaeger else None)
    otlp = Otlp(where) if where else None
    _knock(jaeger, otlp)
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": otlp.url} if otlp else {}


def _knock(jaeger: Jaeger | None, otlp: Otlp | None) -> None:
    """Before a stack is started: is anybody there?"""
    if jaeger is not None:
        jaeger.services()
    if otlp is not None:
        otlp.check()


def _as_it_runs(attachment: Attachment) -> dict[str, float]:
    """What the stack was told by whoever started it, whatever the scenario would tell one."""
    return {"time_scale": attachment.time_scale, "trace_sample": attachment.trace_sample}


def _among_others(scenario: Scenario) -> Scenario:
    """The scenario with tenants that nobody has, and nothing that needs processes of ours.

    Raises:
        PlanError: it would hurt processes, or wants them to be started with variables of its own.
    """
    if scenario.system.environment:
        raise PlanError(
            f"{scenario.file}: {', '.join(scenario.system.environment)} is for processes that the rig starts, and with "
            "--attach it starts none"
        )
    for action in scenario.nemesis:
        if action.action not in DISTANT_ACTIONS:
            raise PlanError(
                f"{scenario.file}: {action.action} at {action.at_s:g} s needs the stack's processes, and with --attach "
                f"they are not ours; allowed: {', '.join(sorted(DISTANT_ACTIONS))}"
            )
    mark = secrets.token_hex(4)
    names = tuple(f"t-{mark}-{number}" for number in range(scenario.population.tenants))
    return replace(scenario, population=replace(scenario.population, names=names))
