"""Every scenario in turn: what is run again, what is kept, and how it is told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mailrig import cli, runner, telling
from mailrig.checkers import GateResult, Verdict, judge
from mailrig.evidence import load_evidence
from mailrig.runner import Entry, RunOptions, run_series, worst
from mailrig.runner.interrupts import Stopped
from mailrig.runner.series import STATE, read_state
from mailrig.scenario import RigError, load_contract, load_scenario, scenario_names
from mailrig.store import Run

TINY = Path(__file__).parents[2] / "runs" / "tiny"
NAMES = ("smoke", "observed")


def verdict(word, scenario="smoke", *, gate="held"):
    kind = "validity" if word == "invalid" else "gate"
    result = GateResult(id=gate, kind=kind, metric="m", check="== 0", observed=1.0, unit="", verdict=word)
    return Verdict(verdict=word, scenario=scenario, seed=1, mutant=None, started_ns=1, duration_s=2.0, gates=(result,))


class Rig:
    """Answers runs by a table; an exception is raised."""

    def __init__(self, **answers):
        self.answers, self.asked = answers, []

    def __call__(self, options):
        self.asked.append(options.scenario)
        answer = self.answers.get(options.scenario, "pass")
        if isinstance(answer, BaseException):
            raise answer
        word, gate = (answer, "held") if answer != "interrupted" else ("invalid", "interrupted")
        return Run(path=Path("runs") / options.scenario / "1"), verdict(word, options.scenario, gate=gate)


@pytest.fixture
def options(tmp_path):
    return RunOptions(scenario="", runs_dir=tmp_path / "runs")


def series(options, rig, *, resume=False):
    return run_series(options, NAMES, run=rig, resume=resume, tell=lambda _: None)


def test_each_is_run_once_and_written_down_at_once(options):
    rig = Rig(observed="fail")
    entries = series(options, rig)
    assert rig.asked == list(NAMES)
    assert [(e.verdict, e.exit_code, e.bad, e.run) for e in entries] == [
        ("pass", 0, (), "runs/smoke/1"),
        ("fail", 1, ("held",), "runs/observed/1"),
    ]
    assert read_state(options.runs_dir / STATE) == entries


def test_after_a_kill_only_what_was_not_run_is_run(options):
    with pytest.raises(Stopped):
        series(options, Rig(observed=Stopped(15)))
    again = Rig()
    entries = series(options, again, resume=True)
    assert again.asked == ["observed"]
    assert [e.verdict for e in entries] == ["pass", "pass"]


@pytest.mark.parametrize("word", ["invalid", "unknown"])
def test_a_run_that_says_nothing_is_made_again(options, word):
    series(options, Rig(smoke=word))
    again = Rig()
    series(options, again, resume=True)
    assert again.asked == ["smoke"]


def test_what_is_run_otherwise_is_run_again(options):
    series(options, Rig())
    again = Rig()
    run_series(
        RunOptions(scenario="", runs_dir=options.runs_dir, seed=7), NAMES, run=again, resume=True, tell=lambda _: None
    )
    assert again.asked == list(NAMES)


def test_how_it_is_told_makes_no_other_run_of_it(options):
    series(options, Rig())
    again = Rig()
    quiet = RunOptions(scenario="", runs_dir=options.runs_dir, quiet=True, winds_down=True)
    assert len(run_series(quiet, NAMES, run=again, resume=True, tell=lambda _: None)) == 2
    assert again.asked == []


def test_without_resume_all_begins_anew(options):
    series(options, Rig())
    again = Rig()
    series(options, again)
    assert again.asked == list(NAMES)


def test_what_the_rig_can_not_run_is_an_entry_and_the_next_one_is_run(options):
    rig = Rig(smoke=RigError("port 25 is taken"))
    entries = series(options, rig)
    assert rig.asked == list(NAMES)
    assert (entries[0].verdict, entries[0].error, entries[0].exit_code) == ("error", "port 25 is taken", 2)
    assert worst(entries) == 2


def test_an_interrupted_run_ends_the_series_and_loses_nothing_of_an_earlier_one(options):
    series(options, Rig(smoke="unknown"))
    rig = Rig(smoke="interrupted")
    entries = series(options, rig, resume=True)
    assert rig.asked == ["smoke"]
    assert [e.exit_code for e in entries] == [130]
    assert worst(entries) == 130
    assert [(e.scenario, e.verdict) for e in read_state(options.runs_dir / STATE)] == [
        ("smoke", "invalid"),
        ("observed", "pass"),
    ]


@pytest.mark.parametrize(("codes", "code"), [([0, 0], 0), ([0, 3], 3), ([3, 4], 4), ([4, 1], 1), ([1, 2], 2), ([], 2)])
def test_the_exit_code_is_the_worst_one_s(codes, code):
    entries = [Entry(scenario="s", digest="", verdict="pass", exit_code=number, duration_s=0.0) for number in codes]
    assert worst(entries) == code


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2, "runs": []}', '{"schema_version": 1, "runs": [{}]}'])
def test_a_broken_file_is_one_clear_line(options, text):
    options.runs_dir.mkdir()
    (options.runs_dir / STATE).write_text(text)
    with pytest.raises(RigError, match="without --resume"):
        series(options, Rig(), resume=True)


def test_an_interrupted_run_is_invalid_whatever_its_gates_say():
    evidence = load_evidence(TINY)
    scenario, contract = load_scenario(TINY / "scenario.toml"), load_contract(TINY / "contract.toml")
    assert judge(scenario, contract, evidence).verdict == "pass"
    cut = replace(evidence, run={**evidence.run, "interrupted": {"signal": "SIGINT", "after_s": 12.34}})
    told = judge(scenario, contract, cut)
    assert (told.verdict, told.failed, telling.exit_code(told, strict=False)) == ("invalid", ("interrupted",), 130)
    assert told.gates[0].detail == ("ended by SIGINT 12.3 s after its start",)


# --- how it is told ---------------------------------------------------------------------------------------------------


def test_a_series_on_the_command_line_is_a_table_with_the_worst_exit_code(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(runner, "run", Rig(smoke="fail"))
    assert cli.main(["run", "--all"]) == 1
    said = capsys.readouterr()
    assert f"== 1 of {len(scenario_names())}: " in said.err
    assert "0 of 1 gates pass; not held" in " ".join(said.out.split())
    assert all(name in said.out for name in scenario_names())


def test_a_series_for_machines_is_json_and_nothing_else(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", Rig(observed="invalid"))
    assert cli.main(["run", "--all", "--json", "--quiet"]) == 4
    said = capsys.readouterr()
    assert said.err == ""
    told = json.loads(said.out)
    assert told["exit_code"] == 4
    assert {row["scenario"]: row["verdict"] for row in told["runs"]}["observed"] == "invalid"


def test_a_quiet_run_is_a_line_and_one_for_each_bad_gate(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", Rig(smoke="fail"))
    assert cli.main(["run", "smoke", "--quiet"]) == 1
    assert capsys.readouterr().out == (
        "FAIL smoke, seed 1, 2.0 s: 0 of 1 gates pass: runs/smoke/1\n  fail held: m 1, allowed: == 0\n"
    )


def test_a_run_for_machines_says_where_it_is_and_how_it_ends(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "run", Rig(smoke="interrupted"))
    assert cli.main(["run", "smoke", "--json"]) == 130
    told = json.loads(capsys.readouterr().out)
    assert (told["run"], told["exit_code"], told["verdict"]) == ("runs/smoke/1", 130, "invalid")
    assert told["gates"][0]["id"] == "interrupted"


@pytest.mark.parametrize("arguments", [["run"], ["run", "smoke", "--all"], ["run", "smoke", "--resume"]])
def test_a_run_is_of_one_scenario_or_of_all(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert said.err == "mailrig: say which scenario to run, or --all, which --resume goes with\n"
    assert not list(tmp_path.iterdir())


def test_a_table_names_three_bad_gates_and_counts_the_others():
    bad = ("a", "b", "c", "d", "e")
    entry = Entry(
        scenario="s", digest="", verdict="fail", exit_code=1, duration_s=1.0, run="r", gates=9, passed=4, bad=bad
    )
    assert telling.series_lines([entry]) == "FAIL s, 1.0 s: 4 of 9 gates pass; not a, b, c and 2 more: r"
