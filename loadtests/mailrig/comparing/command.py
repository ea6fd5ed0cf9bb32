"""The arguments of ``mailrig diff``, and what it answers. Prints nothing itself. Called by cli."""

from __future__ import annotations

import argparse
from pathlib import Path

from mailrig.checkers import judge
from mailrig.comparing import facts, text
from mailrig.comparing.figures import NOISE, Side, changed_gates, compare
from mailrig.evidence import load_evidence
from mailrig.scenario import load_contract, load_scenario
from mailrig.store import Run, open_run


def add_arguments(command: argparse.ArgumentParser) -> None:
    """What can be said to it."""
    for name in ("a", "b"):
        command.add_argument(name, metavar=name.upper(), help="a run's folder, or a scenario's name for its latest run")
    command.add_argument(
        "--noise",
        type=_factor,
        metavar="FACTOR",
        help="what runs of the same code differ by on this machine "
        f"(default: {', '.join(f'{factor:g} for {name}' for name, factor in NOISE.items())})",
    )
    shape = command.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="the answer for machines")
    shape.add_argument("--markdown", action="store_true", help="the answer for a step summary")
    command.add_argument("--runs-dir", type=Path, default=Path("runs"), help="where runs are kept (default: runs)")


def act(arguments: argparse.Namespace) -> tuple[str, int]:
    """Compare; what to print, and the exit code: 1 when they differ.

    Raises:
        RigError: there is no such run, or its files are torn.
    """
    found = report(
        *(open_run(name, runs_dir=arguments.runs_dir) for name in (arguments.a, arguments.b)), noise=arguments.noise
    )
    tell = text.as_json if arguments.json else text.as_markdown if arguments.markdown else text.as_text
    return tell(found), int(found.differs)


def report(a: Run, b: Run, *, noise: float | None = None) -> text.Report:
    """All that is known of the difference of two runs.

    Raises:
        RigError: their files are torn.
    """
    one, other = _side(a), _side(b)
    return text.Report(
        a=one,
        b=other,
        rows=compare(one, other, noise=noise),
        gates=changed_gates(one.verdict, other.verdict),
        facts=facts.differing(one, other),
        lines=facts.changed_lines(one, other),
        noise=noise,
    )


def _side(run: Run) -> Side:
    scenario, contract = load_scenario(run.path / "scenario.toml"), load_contract(run.path / "contract.toml")
    evidence = load_evidence(run.path)
    return Side(
        name=run.path.name,
        scenario=scenario,
        contract=contract,
        evidence=evidence,
        verdict=judge(scenario, contract, evidence),
    )


def _factor(words: str) -> float:
    try:
        factor = float(words)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= 100:  # noqa: PLR2004  # the bounds that the message names
        raise argparse.ArgumentTypeError(f"{words!r} is not a factor from 1 to 100, such as 1.25")
    return factor
