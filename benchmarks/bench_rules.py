"""What pure rules cost: retry policy, the judge over a recorded run, a slope; and a loop that all are counted in."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from email_service import policy
from email_service.errors import SmtpError
from mailrig.checkers import judge
from mailrig.evidence import load_evidence
from mailrig.scenario import load_contract, load_scenario
from mailrig.statistics import slope_interval

RUN = Path(__file__).parents[1] / "tests" / "runs" / "tiny"


@pytest.mark.benchmark(group="calibration")
def bench_calibration(benchmark):
    """Plain Python that nobody changes: what the interpreter and the machine are worth today."""

    def loop():
        found = {}
        for number in range(20_000):
            found[number % 97] = found.get(number % 97, 0) + number
        return found

    assert len(benchmark(loop)) == 97


@pytest.mark.benchmark(group="policy")
def bench_policy_thousand_decisions(benchmark):
    error = SmtpError("451 try again", transient=True)

    def decide():
        return [policy.decide(error, attempt=attempt % 5, max_retries=5) for attempt in range(1000)]

    assert benchmark(decide)[0].delay_s == policy.backoff_s(0)


@pytest.mark.benchmark(group="checkers")
def bench_judge_a_run(benchmark):
    scenario, contract = load_scenario(RUN / "scenario.toml"), load_contract(RUN / "contract.toml")
    evidence = load_evidence(RUN)
    assert benchmark(lambda: judge(scenario, contract, evidence)).verdict == "pass"


@pytest.mark.benchmark(group="checkers")
def bench_slope_of_a_soak(benchmark):
    rng = random.Random(1)  # noqa: S311  # a seed must repeat it
    points = [(float(second), rng.gauss(0, 1)) for second in range(3600)]
    assert not benchmark(lambda: slope_interval(points, confidence=0.95, seed=1)).beyond(0)
