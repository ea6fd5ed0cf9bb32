"""A campaign makes the runs that are lacking, keeps each as it ends, and goes on where it was stopped."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailrig import cli, runner
from mailrig.checkers import GateResult, Verdict
from mailrig.mutation import Campaign, Results, Trial, chosen, without_mutant
from mailrig.scenario import MutantError, Patch, RigError, UnknownNameError, load_mutant, load_scenario, mutant_names

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PAIR = ["early-ack", "killed-untold"]


def verdict_of(scenario, *red):
    gates = tuple(
        GateResult(
            id=gate.id,
            kind=gate.kind,
            metric=gate.metric,
            check=gate.check,
            observed=0.0,
            unit="",
            verdict="fail" if gate.id in red else "pass",
        )
        for gate in load_scenario(scenario).gates
    )
    return Verdict(
        verdict="fail" if red else "pass",
        scenario=scenario,
        seed=1,
        mutant=None,
        started_ns=0,
        duration_s=1.0,
        gates=gates,
    )


class Rig:
    """Answers verdicts without running anything; a mutant breaks just what it must."""

    def __init__(self, **others):
        self.made, self.others = [], others

    def __call__(self, scenario, mutant):
        self.made.append((scenario, mutant))
        answer = self.others.get((mutant or scenario).replace("-", "_"))
        if isinstance(answer, BaseException):
            raise answer
        red = answer if answer is not None else load_mutant(mutant).expected_gates if mutant else ()
        return Path("runs") / scenario, verdict_of(scenario, *red)


@pytest.fixture
def results(tmp_path):
    return Results.begin(tmp_path / "mutants", NOW)


def conduct(rig, results, names=PAIR):
    said = []
    matrix = Campaign(chosen(names, []), results).conduct(rig, said.append)
    return matrix, said


def statuses(matrix):
    return {row.mutant.name: row.status for row in matrix.rows}


def test_the_healthy_service_is_run_first_in_each_scenario(results):
    rig = Rig()
    matrix, said = conduct(rig, results)
    assert rig.made == [("observed", None), ("observed", "killed-untold"), ("smoke", None), ("smoke", "early-ack")]
    assert statuses(matrix) == {"killed-untold": "killed", "early-ack": "killed"}
    assert matrix.exit_code == 0
    assert "1 of 4: the healthy service in observed, about 3 min left" in said
    assert "early-ack in smoke: killed (held)" in said


def test_what_was_run_is_not_run_again(results):
    conduct(Rig(), results)
    again = Rig()
    matrix, _ = conduct(again, Results(results.file))
    assert again.made == []
    assert matrix.exit_code == 0


def test_a_campaign_that_was_stopped_goes_on_with_what_is_left(results):
    with pytest.raises(KeyboardInterrupt):
        conduct(Rig(smoke=KeyboardInterrupt()), results)
    again = Rig()
    matrix, _ = conduct(again, Results(results.file))
    assert again.made == [("smoke", None), ("smoke", "early-ack")]
    assert matrix.exit_code == 0


def test_a_survivor_is_told_and_not_run_again(results):
    matrix, said = conduct(Rig(early_ack=()), results)
    assert statuses(matrix)["early-ack"] == "survived"
    assert matrix.exit_code == 1
    assert "early-ack in smoke: survived (held is pass)" in said
    again = Rig()
    assert conduct(again, Results(results.file))[0].exit_code == 1
    assert again.made == []


def test_a_run_that_was_not_made_leaves_its_mutant_unjudged_and_is_made_again(results):
    matrix, _ = conduct(Rig(early_ack=RigError("beat ended:\n  it said this")), results)
    assert matrix.rows[1].why == "the mutant could not be run in smoke: beat ended: it said this"
    assert statuses(matrix) == {"killed-untold": "killed", "early-ack": "unjudged"}
    assert matrix.exit_code == 4
    again = Rig()
    assert conduct(again, Results(results.file))[0].exit_code == 0
    assert again.made == [("smoke", "early-ack")]


def test_a_healthy_run_that_fails_is_made_again(results):
    assert conduct(Rig(smoke=("held",)), results)[0].exit_code == 4
    again = Rig()
    assert conduct(again, Results(results.file))[0].exit_code == 0
    # Its mutant was run before, and is judged by the new one.
    assert again.made == [("smoke", None)]


def test_a_mutant_that_was_changed_is_another_one(results):
    conduct(Rig(), results, ["early-ack"])
    changed = replace(load_mutant("early-ack"), environment={"MAIL_TIMEOUT_S": "20"})
    rig = Rig()
    Campaign([changed], Results(results.file)).conduct(rig, lambda _: None)
    assert rig.made == [("smoke", "early-ack")]


def test_a_patch_that_does_not_apply_is_told_before_anything_is_run(results):
    broken = replace(load_mutant("early-ack"), patches=(Patch(file="celery_app.py", old="not there", new=""),))
    with pytest.raises(MutantError, match=r"'not there' is 0 times in celery_app\.py, not once"):
        Campaign([load_mutant("bcc-leak"), broken], results)
    assert not results.file.exists()


def test_a_line_that_was_being_written_when_the_rig_was_killed_is_left_out(results):
    conduct(Rig(), results)
    whole = results.file.read_text()
    results.file.write_text(whole[:-20])
    again = Rig()
    assert conduct(again, Results(results.file))[0].exit_code == 0
    assert again.made == [("smoke", "early-ack")]
    assert results.file.read_text().count("\n") == whole.count("\n")


def test_a_file_that_no_campaign_wrote_is_refused_with_its_line(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text('{"scenario": "smoke"}\n')
    with pytest.raises(RigError, match=r"x\.jsonl:1: not a trial"):
        Results(file)


def test_the_last_campaign_is_the_one_that_is_gone_on_with(tmp_path):
    assert Results.latest(tmp_path) is None
    for second in (1, 2):
        Results.begin(tmp_path, NOW.replace(second=second)).add(Trial(scenario="s", mutant=None, digest=f"{second}"))
    latest = Results.latest(tmp_path)
    assert latest is not None
    assert latest.file.name == "20260102T030402.jsonl"
    assert latest.find("2") is not None
    assert latest.find("1") is None


def test_mutants_are_chosen_by_name_and_by_scenario():
    assert [m.name for m in chosen([], [])] == sorted(mutant_names(), key=lambda n: (load_mutant(n).scenario, n))
    assert [m.name for m in chosen(PAIR, ["observed"])] == ["killed-untold"]
    with pytest.raises(UnknownNameError, match="no mutant 'x'"):
        chosen(["x"], [])
    with pytest.raises(UnknownNameError, match="no scenario of these mutants 'smok'; known: observed, smoke"):
        chosen(PAIR, ["smok"])


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "stop_on_signals", lambda: None)

    def command_(rig, *words):
        def run(options):
            path, verdict = rig(options.scenario, options.mutant)
            return type("Folder", (), {"path": path})(), verdict

        monkeypatch.setattr(runner, "run", run)
        code = cli.main(["mutants", *words])
        return code, capsys.readouterr()

    return command_


def test_the_command_runs_what_was_asked_for_and_answers_by_its_exit_code(command):
    rig = Rig()
    code, said = command(rig, "--only", "early-ack")
    assert (code, rig.made) == (0, [("smoke", None), ("smoke", "early-ack")])
    assert "1 mutant: 1 killed" in said.out
    assert "after a stop: --resume" in said.err
    rig = Rig()
    code, said = command(rig, "--only", *PAIR, "--resume", "--markdown")
    assert (code, rig.made) == (0, [("observed", None), ("observed", "killed-untold")])
    assert "| `early-ack` | smoke | killed |" in said.out


def test_the_command_fails_when_a_mutant_survives(command):
    code, said = command(Rig(early_ack=()), "--only", "early-ack", "--json")
    assert code == 1
    assert '"status": "survived"' in said.out


def test_the_command_lists_without_running(command, tmp_path):
    rig = Rig()
    code, said = command(rig, "--list")
    assert (code, rig.made) == (0, [])
    assert all(f"{name}  (" in said.out for name in mutant_names())
    assert f"gates without a mutant: {', '.join(without_mutant()) or 'none'}" in said.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("words", [["--only", "x"], ["--scenario", "x"]])
def test_a_name_that_is_not_there_is_one_line_and_exit_code_2(command, tmp_path, words):
    code, said = command(Rig(), *words)
    assert code == 2
    assert said.err.count("\n") == 1
    assert "known: " in said.err
    assert not (tmp_path / "runs").exists()
