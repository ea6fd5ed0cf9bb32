"""Benchmarks held against a baseline: slower, missing and new ones are found."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "baseline.py"
SPEC = importlib.util.spec_from_file_location("bench_baseline", FILE)
baseline = importlib.util.module_from_spec(SPEC)
sys.modules["bench_baseline"] = baseline
SPEC.loader.exec_module(baseline)


def results(path, **best):
    """A results file in which the calibration took two seconds."""
    rows = {"bench_calibration": 2.0, **best}
    path.write_text(
        json.dumps(
            {
                "benchmarks": [
                    {"fullname": f"benchmarks/bench_rules.py::{name}", "stats": {"min": value, "median": 9 * value}}
                    for name, value in rows.items()
                ]
            }
        )
    )
    return str(path)


@pytest.fixture
def check(tmp_path, capsys):
    kept = tmp_path / "baseline.json"
    assert (
        baseline.main([results(tmp_path / "first.json", bench_a=1.0, bench_b=4.0), "--baseline", str(kept), "--write"])
        == 0
    )
    capsys.readouterr()

    def run(*more, **best):
        code = baseline.main([results(tmp_path / "now.json", **best), "--baseline", str(kept), *more])
        return code, "".join(capsys.readouterr())

    return run


def test_the_same_again_passes(check):
    code, told = check(bench_a=1.1, bench_b=3.9)
    assert (code, told.splitlines()[-1]) == (0, "2 benchmarks are as before")


def test_a_slower_one_fails_by_its_name(check):
    code, told = check(bench_a=1.6, bench_b=4.0)
    assert (code, told.splitlines()[-1]) == (1, "bench_rules.py::bench_a is slower")
    assert check("--margin", "2", bench_a=1.6, bench_b=4.0)[0] == 0


def test_one_that_is_gone_fails(check):
    code, told = check(bench_a=1.0)
    assert (code, told.splitlines()[-1]) == (1, "bench_rules.py::bench_b is missing")


def test_one_that_nobody_kept_fails(check):
    code, told = check(bench_a=1.0, bench_b=4.0, bench_c=1.0)
    assert (code, told.splitlines()[-1]) == (1, "bench_rules.py::bench_c is new")


def test_a_faster_one_is_told_and_passes(check):
    code, told = check(bench_a=0.1, bench_b=4.0)
    assert code == 0
    assert "faster" in told


def test_a_slow_machine_is_no_slow_down(tmp_path, capsys):
    kept = tmp_path / "baseline.json"
    baseline.main([results(tmp_path / "fast.json", bench_a=1.0), "--baseline", str(kept), "--write"])
    slow = results(tmp_path / "slow.json", bench_a=3.0, bench_calibration=6.0)
    assert baseline.main([slow, "--baseline", str(kept)]) == 0


@pytest.mark.parametrize("text", ["", "[]", '{"benchmarks": [{}]}', '{"benchmarks": []}', "null"])
def test_what_can_not_be_read_is_an_error_and_not_a_pass(tmp_path, capsys, text):
    file = tmp_path / "results.json"
    file.write_text(text)
    assert baseline.main([str(file)]) == 2
    assert capsys.readouterr().err.startswith("baseline: ")


def test_a_baseline_that_is_not_there_is_an_error(tmp_path, capsys):
    found = results(tmp_path / "now.json", bench_a=1.0)
    assert baseline.main([found, "--baseline", str(tmp_path / "none.json")]) == 2
    (tmp_path / "old.json").write_text('{"schema_version": 0}')
    assert baseline.main([found, "--baseline", str(tmp_path / "old.json")]) == 2


def test_the_baseline_that_ships_names_the_benchmarks_that_are_checked():
    kept = baseline.read_baseline(baseline.BASELINE)
    files = {name.partition("::")[0] for name in kept}
    checked = next(
        line for line in (FILE.parents[1] / "Makefile").read_text().splitlines() if line.startswith("BENCH_CHECKED")
    )
    assert files == {Path(word).name for word in checked.split()[2:]}
    assert all(value > 0 for value in kept.values())
