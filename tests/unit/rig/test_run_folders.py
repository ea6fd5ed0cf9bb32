"""Run folders and verdicts: found by path or by name, written whole or not at all."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest

from mailrig.checkers import GateResult, Verdict, VerdictError
from mailrig.scenario import load_contract, load_scenario
from mailrig.store import Run, RunError, open_run

SMOKE, CONTRACT = load_scenario("smoke"), load_contract()
NOON = datetime(2024, 6, 7, 12, 0, 0, tzinfo=UTC)
GATE = GateResult(
    id="held", kind="gate", metric="worker.held", check="max <= 4", observed=8.0, unit="", verdict="fail", detail=("x",)
)
VERDICT = Verdict(
    verdict="fail", scenario="smoke", seed=1, mutant="early-ack", started_ns=1, duration_s=2.5, gates=(GATE,)
)


def create(runs_dir, started=NOON):
    return Run.create(runs_dir, SMOKE, CONTRACT, started=started)


def test_a_run_has_a_folder_with_what_was_run(tmp_path):
    run = create(tmp_path, NOON.astimezone(timezone(timedelta(hours=2))))
    assert run.path == tmp_path / "smoke" / "20240607T120000Z"
    assert load_scenario(run.path / "scenario.toml").gates == SMOKE.gates
    assert load_contract(run.path / "contract.toml").values == CONTRACT.values
    assert run.evidence.is_dir()
    assert run.logs.is_dir()


def test_latest_points_to_the_newest_run_and_leaves_nothing_else_behind(tmp_path):
    create(tmp_path)
    second = create(tmp_path, NOON + timedelta(seconds=1))
    assert (tmp_path / "smoke" / "latest").resolve() == second.path
    assert not (tmp_path / "smoke" / "latest").readlink().is_absolute()
    assert len(list((tmp_path / "smoke").iterdir())) == 3


def test_two_runs_within_a_second_have_folders_of_their_own(tmp_path):
    assert create(tmp_path).path != create(tmp_path).path


def test_a_run_is_found_by_folder_by_latest_and_by_name(tmp_path):
    run = create(tmp_path)
    for name in (run.path, tmp_path / "smoke" / "latest", tmp_path / "smoke", "smoke", "smoke/20240607T120000Z"):
        assert open_run(name, runs_dir=tmp_path).path == run.path.resolve()


def test_a_run_that_is_not_there_says_which_are(tmp_path):
    with pytest.raises(RunError, match=r"no run 'smoke': .* has no runs yet"):
        open_run("smoke", runs_dir=tmp_path)
    create(tmp_path)
    with pytest.raises(RunError, match=r"no run 'steady': .* has runs of smoke"):
        open_run("steady", runs_dir=tmp_path)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path):
    (tmp_path / "smoke").write_text("in the way")
    with pytest.raises(RunError, match=r"smoke can't be written: (Not a directory|File exists)"):
        create(tmp_path)


def test_a_file_is_replaced_whole(tmp_path):
    run = create(tmp_path)
    run.write_text("report.md", "old")
    with pytest.raises(TypeError):
        run.write_json("report.md", {"x": object()})
    assert (run.path / "report.md").read_text() == "old"
    run.write_text("report.md", "new")
    assert (run.path / "report.md").read_text() == "new"
    assert not list(run.path.glob("*.tmp"))
    assert not list(run.path.glob(".*"))


def test_a_verdict_survives_its_file(tmp_path):
    run = create(tmp_path)
    run.write_verdict(VERDICT.to_dict())
    assert Verdict.from_dict(run.read_verdict()) == VERDICT
    stored = json.loads((run.path / "verdict.json").read_text())
    assert stored["schema_version"] == 1
    assert stored["gates"][0]["detail"] == ["x"]
    assert set(stored) == {
        "schema_version", "verdict", "scenario", "seed", "mutant", "started_ns", "duration_s", "gates",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "message"), [("[]", "is not a JSON object"), ("[", "can't be read")])
def test_a_verdict_that_cannot_be_read_is_one_clear_error(tmp_path, text, message):
    run = create(tmp_path)
    with pytest.raises(RunError, match="has no verdict yet"):
        run.read_verdict()
    (run.path / "verdict.json").write_text(text)
    with pytest.raises(RunError, match=rf"verdict\.json {message}"):
        run.read_verdict()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "schema version None; this version reads 1"),
        (VERDICT.to_dict() | {"schema_version": 2}, "schema version 2"),
        ({"schema_version": 1}, "a broken verdict: KeyError: 'gates'"),
    ],
)
def test_a_verdict_of_another_time_is_one_clear_error(data, message):
    with pytest.raises(VerdictError, match=message):
        Verdict.from_dict(data)


@pytest.mark.parametrize(
    ("verdict", "gates", "strict", "code"),
    [
        ("pass", "pass", True, 0),
        ("pass", "warn", False, 0),
        ("pass", "warn", True, 3),
        ("fail", "warn", True, 1),
        ("invalid", "invalid", False, 4),
        ("unknown", "unknown", True, 4),
    ],
)
def test_exit_codes(verdict, gates, strict, code):
    judged = replace(VERDICT, verdict=verdict, gates=(replace(GATE, verdict=gates),))
    assert judged.exit_code(strict=strict) == code


def test_an_observation_is_text_for_a_person():
    assert GATE.observed_text == "8"
    assert replace(GATE, observed=12.3456789, unit="ms").observed_text == "12.3457 ms"
    assert replace(GATE, observed=None).observed_text == "nothing"
