"""Two runs beside each other: what is told of the same twice, of a slower one, and of one that lacks something."""

import argparse
import json
import random
import shutil

import pytest
from recorded import RUNS

from mailrig.checkers.measurement import Measurement, Sample
from mailrig.comparing import act, add_arguments, figures, text
from mailrig.comparing.command import report
from mailrig.comparing.figures import LESS, MORE, SAME, UNKNOWN, WITHIN, Side, compare
from mailrig.evidence import Evidence
from mailrig.scenario import load_contract, load_scenario
from mailrig.store import Run, RunError

SMOKE = load_scenario("smoke")


def answer(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return act(parser.parse_args([str(word) for word in words]))


def latencies(seed, *, factor=1.0, count=400):
    rng = random.Random(seed)
    return [
        Sample(value=factor * rng.lognormvariate(-3, 0.3), labels={"queue": "send"}, at_ns=i * 10**8)
        for i in range(count)
    ]


def told(monkeypatch, one, other, *, kind="s", noise=1.25, **metrics):
    """What a comparison says of the end-to-end time when two runs measured this."""
    runs = {id(each): Measurement(samples=tuple(each), kind=kind) for each in (one, other)}
    sides = [
        Side(name="x", scenario=SMOKE, contract=load_contract(), evidence=Evidence(run={"key": id(each)}), verdict=None)
        for each in (one, other)
    ]
    known = {name: lambda *_: Measurement(reason="nothing") for name in (*figures.SERIES, *figures.NUMBERS)}
    monkeypatch.setattr(
        figures, "METRICS", {**known, "task.e2e": lambda evidence, *_: runs[evidence.run["key"]]} | metrics
    )
    return {row.name: row for row in compare(*sides, noise=noise)}


def test_the_same_again_is_within_its_interval(monkeypatch):
    rows = told(monkeypatch, latencies(1), latencies(2))
    assert {row.difference for row in rows.values()} == {SAME}
    assert list(rows) == ["task.e2e{queue=send} p50", "task.e2e{queue=send} p95"]


def test_half_as_slow_again_is_more_and_back_again_is_less(monkeypatch):
    row = told(monkeypatch, latencies(1), latencies(2, factor=1.6))["task.e2e{queue=send} p50"]
    assert row.difference == MORE
    assert 1.25 < row.ratio.low < row.ratio.estimate < row.ratio.high
    back = told(monkeypatch, latencies(2, factor=1.6), latencies(1))["task.e2e{queue=send} p50"]
    assert back.difference == LESS


def test_what_runs_of_the_same_code_differ_by_does_not_count(monkeypatch):
    """Surely another median, and no sure sign of another code."""
    row = told(monkeypatch, latencies(1, count=4000), latencies(2, factor=1.12, count=4000))
    assert row["task.e2e{queue=send} p50"].difference == WITHIN
    row = told(monkeypatch, latencies(1, count=4000), latencies(2, factor=1.12, count=4000), noise=1.01)
    assert row["task.e2e{queue=send} p50"].difference == MORE


def test_times_memory_and_cpu_time_have_noise_of_their_own(monkeypatch):
    """A time that grew by 1.6 is within what the machine does to it; memory is not."""
    row = told(monkeypatch, latencies(1), latencies(2, factor=1.6), noise=None)["task.e2e{queue=send} p50"]
    assert row.difference == WITHIN
    assert figures._noise("memory.total") < figures._noise("worker.cpu_per_execution") < figures._noise("task.e2e")


def test_few_samples_are_shown_and_not_judged(monkeypatch):
    row = told(monkeypatch, latencies(1, count=19), latencies(2, factor=9))["task.e2e{queue=send} p95"]
    assert (row.difference, row.ratio) == (UNKNOWN, None)
    assert row.a is not None
    row = told(monkeypatch, [], latencies(2))["task.e2e{queue=send} p95"]
    assert (row.difference, row.a) == (UNKNOWN, None)


def test_false_alarms_of_all_rows_together_are_as_rare_as_promised(monkeypatch):
    """Of 40 pairs of the same, with no allowance for what varies between runs."""
    wrong = sum(
        any(
            row.difference != SAME
            for row in told(
                monkeypatch, latencies(2 * n, count=200), latencies(2 * n + 1, count=200), noise=1.0
            ).values()
        )
        for n in range(40)
    )
    assert wrong <= 6, f"{wrong} of 40 pairs of the same were told apart, 2 are promised"


def test_a_run_beside_itself_has_no_difference(tmp_path):
    words, code = answer(RUNS / "tiny", RUNS / "tiny")
    assert code == 0
    assert words.splitlines()[-1] == (
        "no difference beyond noise (runs of the same code differ by a factor of up to "
        "2 (time), 1.5 (CPU time), 1.1 (memory))"
    )


def test_a_gate_that_changed_is_told_with_what_was_observed(tiny):
    file = tiny / "evidence" / "ledger.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    accepted = next(row for row in rows if row["kind"] == "accepted")
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, accepted]))
    words, code = answer(RUNS / "tiny", tiny)
    assert code == 1
    assert "gate send-promise: pass (0, == 0) -> fail (4, == 0)" in words
    assert "gate send-promise changed" in words.splitlines()[-1]


def test_what_was_not_the_same_is_told(tiny, tmp_path):
    other = shutil.copytree(tiny, tmp_path / "other")
    facts = json.loads((other / "run.json").read_text())
    facts |= {"seed": 5, "settings": {"MAIL_LOG_LEVEL": "DEBUG"}}
    (other / "run.json").write_text(json.dumps(facts))
    scenario = other / "scenario.toml"
    scenario.write_text(scenario.read_text().replace("[drain]", "[drain]  # longer"))
    found = report(Run(path=tiny), Run(path=other))
    assert {fact.name: fact.b for fact in found.facts} == {"seed": "5", "settings.MAIL_LOG_LEVEL": "DEBUG"}
    assert found.lines == {"scenario.toml": ["-[drain]", "+[drain]  # longer"]}
    words = text.as_text(found)
    assert "settings.MAIL_LOG_LEVEL: - -> DEBUG" in words
    assert "  +[drain]  # longer" in words


def test_a_run_that_can_not_be_believed_is_named(tiny):
    (tiny / "evidence" / "queues.jsonl").write_text("")
    words, code = answer(RUNS / "tiny", tiny)
    assert code == 1
    assert words.endswith("B can't be believed, it is no valid run")


def test_machines_and_step_summaries_get_the_same(tiny):
    words, _ = answer(tiny, tiny, "--json")
    data = json.loads(words)
    assert (data["differs"], data["gates"], data["runs"]["a"]["verdict"]) == (False, [], "pass")
    assert data["figures"]
    words, _ = answer(tiny, tiny, "--markdown")
    assert words.startswith("**no difference beyond noise")
    assert "| figure | A | B |" in words


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunError, match="no run 'smoke'"):
        answer("smoke", "smoke", "--runs-dir", tmp_path)
