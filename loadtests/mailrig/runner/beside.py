"""A run held against an earlier one: what that says of the metrics whose ratio is asked, kept in the run's folder.

It is copied, so that the run can be judged again without the other. Called by runner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mailrig.checkers import METRICS, Verdict, baseline_row, parse_metric
from mailrig.evidence import load_evidence
from mailrig.scenario import RigError, Scenario, load_contract, load_scenario
from mailrig.store import Run

FILE: Final = "baseline.json"
_RATIO: Final = "baseline"


class BaselineError(RigError):
    """A run can't be held against another one."""


def keep_baseline(folder: Run, baseline: Run) -> None:
    """Write down what ``baseline`` says of the metrics that gates of the run in ``folder`` compare.

    Raises:
        BaselineError: no gate compares any, it is of another scenario, or it can't be believed itself.
    """
    scenario = load_scenario(folder.path / "scenario.toml")
    other = load_scenario(baseline.path / "scenario.toml")
    if other.name != scenario.name:
        raise BaselineError(f"{baseline.path} is a run of {other.name}, and this one is of {scenario.name}")
    asked = sorted({gate.metric for gate in scenario.gates if _RATIO in gate.check.split()})
    if not asked:
        raise BaselineError(f"no gate of {scenario.name} has a ratio to a baseline, such as p95 ratio baseline <= 1.15")
    _require_judged(baseline)
    folder.write_json(
        FILE,
        {
            "run": baseline.path.name,
            # The same text and seed are the same schedule, so that the two may be compared slice by slice.
            "text": other.text,
            "metrics": dict(_metrics(baseline, other, asked)),
        },
    )


def _require_judged(baseline: Run) -> None:
    """Its own ratios may be unknown: the first run of all has nothing to be held against."""
    verdict = Verdict.from_dict(baseline.read_verdict())
    weak = [
        gate.id
        for gate in verdict.gates
        if (gate.kind == "validity" and gate.verdict != "pass")
        or (gate.verdict == "unknown" and _RATIO not in gate.check.split())
    ]
    if weak or not verdict.gates:
        named = f" ({', '.join(weak)})" if weak else ""
        raise BaselineError(f"{baseline.path} can't be believed itself{named}: no run can be held against it")


def _metrics(baseline: Run, scenario: Scenario, asked: list[str]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    evidence, contract = load_evidence(baseline.path), load_contract(baseline.path / "contract.toml")
    for metric in asked:
        name, labels = parse_metric(metric)
        found = METRICS[name](evidence, contract, scenario)
        samples = [s for s in found.samples if all(s.labels.get(key) == value for key, value in labels.items())]
        yield metric, baseline_row(samples, found.kind)
