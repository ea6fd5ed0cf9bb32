"""What the architecture document claims, held against recorded runs."""

from __future__ import annotations

import ast
import json
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from mailrig import claims, cli
from mailrig.claims import BROKEN, HOLDS, UNMEASURED, ClaimsError, load_claims, measure
from mailrig.scenario import ScenarioError, load_contract
from mailrig.store import Run

ROOT = Path(__file__).parents[3]
RUNS = ROOT / "tests" / "runs"
HEAD = "schema_version = 1\n"
HELD = """
[[claim]]
id = "held"
says = "one | task"
where = "Worker <b>"
metric = "worker.held"
check = "max <= {contract.worker.held_max}"
"""


@pytest.fixture
def tiny(tmp_path):
    folder = tmp_path / "runs" / "tiny" / "20250101T000000Z"
    shutil.copytree(RUNS / "tiny", folder)
    return Run(path=folder)


def claims_of(tmp_path, text):
    (tmp_path / "claims.toml").write_text(HEAD + text)
    return load_claims(tmp_path / "claims.toml")


def set_run(run, **facts):
    file = run.path / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **facts}))


@cache
def functions(path):
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


# --- the claims that ship ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", [claim for claim in load_claims() if claim.by], ids=lambda claim: claim.id)
def test_what_is_said_to_show_a_claim_exists(claim):
    path, _, name = claim.by.partition("::")
    assert (ROOT / path).is_file()
    assert not name or name in functions(ROOT / path)


def test_each_claim_has_an_id_of_its_own():
    ids = [claim.id for claim in load_claims()]
    assert len(ids) == len(set(ids)) > 25


def test_a_good_run_breaks_no_claim_and_measures_some(tiny):
    page = measure(load_claims(), [tiny])
    assert page.counts[BROKEN] == 0
    assert page.counts[HOLDS] >= 5
    assert list(page.runs) == ["tiny/20250101T000000Z"]


def test_every_number_of_the_contract_is_in_some_row(tiny):
    page = measure(load_claims(), [tiny])
    about = {key for row in page.rows for key in row.claim.promises} | {row.claim.id for row in page.rows}
    assert about >= load_contract().values.keys()


# --- judging ----------------------------------------------------------------------------------------------------------


def test_one_run_is_enough_to_show_that_a_claim_is_not_so(tiny, tmp_path):
    held = claims_of(tmp_path, HELD)
    assert measure(held, [tiny]).rows[0].verdict == HOLDS
    bad = Run(path=tmp_path / "runs" / "tiny" / "bad")
    shutil.copytree(tiny.path, bad.path)
    contract = (bad.path / "contract.toml").read_text()
    # The contract that the run was made under counts, not the one of today.
    (bad.path / "contract.toml").write_text(re.sub(r"held_max = \d+", "held_max = 0", contract))
    row = measure(held, [tiny, bad]).rows[0]
    assert (row.verdict, [figure.holds for figure in row.figures]) == (BROKEN, [True, False])


def test_a_ceiling_that_nothing_came_near_shows_nothing(tiny, tmp_path):
    (claim,) = claims_of(tmp_path, HELD + 'needs = "max >= 100"\n')
    row = measure([claim], [tiny]).rows[0]
    assert row.verdict == UNMEASURED
    assert row.reason.startswith("max >= 100 was not seen, but ")


def test_a_claim_that_is_not_so_needs_nothing_else(tiny, tmp_path):
    text = HELD.replace("{contract.worker.held_max}", "-1") + 'needs = "max >= 100"\n'
    assert measure(claims_of(tmp_path, text), [tiny]).rows[0].verdict == BROKEN


def test_without_evidence_a_claim_is_not_measured_and_the_reason_is_told(tiny, tmp_path):
    (tiny.path / "evidence" / "memory.jsonl").unlink(missing_ok=True)
    text = HELD.replace('"worker.held"', '"memory.total"').replace("{contract.worker.held_max}", "1GiB")
    row = measure(claims_of(tmp_path, text), [tiny]).rows[0]
    assert (row.verdict, bool(row.reason)) == (UNMEASURED, True)


def test_only_the_scenarios_that_can_show_a_claim_are_asked(tiny, tmp_path):
    text = HELD + 'only = ["other"]\n'
    row = measure(claims_of(tmp_path, text), [tiny]).rows[0]
    assert (row.verdict, row.reason) == (UNMEASURED, "no run of other")


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"mutant": "early-ack"}, "of the mutant early-ack"),
        ({"interrupted": {"signal": "SIGINT", "after_s": 3.0}}, "invalid: interrupted"),
    ],
)
def test_a_run_of_a_mutant_or_an_invalid_one_shows_nothing(tiny, tmp_path, facts, why):
    good = Run(path=tmp_path / "runs" / "tiny" / "good")
    shutil.copytree(tiny.path, good.path)
    set_run(tiny, **facts)
    page = measure(load_claims(), [tiny, good])
    assert page.left_out == {"tiny/20250101T000000Z": why}
    assert list(page.runs) == ["tiny/good"]
    with pytest.raises(ClaimsError, match=re.escape(why)):
        measure(load_claims(), [tiny])


# --- reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (HELD + "colour = 1\n", "claims.toml:3: claim.colour is not known|claims.toml:9: claim.colour is not known"),
        (HELD.replace('"worker.held"', '"worker.hold"'), "metric 'worker.hold' is not known"),
        (HELD.replace("<=", "<<"), "is malformed"),
        (HELD.replace("worker.held_max", "worker.hold_max"), "hold_max"),
        (HELD + 'keys = ["a.b"]\n', "a.b"),
        (HELD + 'by = "x"\n', "claim has no measure; allowed: metric and check, or by"),
        ('[[claim]]\nid = "a"\nsays = "b"\nwhere = "c"\n', "claim has no measure"),
        ('[[claim]]\nid = "a"\n', "claim.says is missing"),
    ],
)
def test_a_wrong_file_is_told_with_its_line(tmp_path, text, told):
    with pytest.raises(ScenarioError, match=told) as found:
        claims_of(tmp_path, text)
    assert re.match(r".*claims\.toml:\d+: |.*contract\.toml", str(found.value))


# --- pages ------------------------------------------------------------------------------------------------------------


def test_runs_with_one_figure_are_named_together_and_by_their_time_where_a_scenario_has_two(tiny, tmp_path):
    other = Run(path=tmp_path / "runs" / "tiny" / "20250102T000000Z")
    shutil.copytree(tiny.path, other.path)
    held = claims_of(tmp_path, HELD)
    assert "(tiny) | holds" in claims.markdown(measure(held, [tiny]))
    both = claims.markdown(measure(held, [tiny, other]))
    assert "(tiny/20250101T000000Z, tiny/20250102T000000Z) | holds" in both


def test_text_of_a_claim_is_never_markup(tiny, tmp_path):
    page = measure(claims_of(tmp_path, HELD), [tiny])
    assert "one \\| task" in claims.markdown(page)
    assert "Worker <b>" not in claims.markdown(page)
    html = claims.html(page)
    assert "Worker &lt;b&gt;" in html
    assert not re.search(r"(?:src|href)=", html)


def test_the_command_prints_markdown_and_writes_what_is_asked_for(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["claims", str(tiny.path)]) == 0
    assert capsys.readouterr().out.startswith(f"# {claims.TITLE}\n")
    assert cli.main(["claims", str(tiny.path), "-o", "a.html", "-o", "b.md", "-o", "c.json"]) == 0
    assert capsys.readouterr().out == ""
    told = json.loads(Path("c.json").read_text())
    assert told["counts"][HOLDS] == sum(row["verdict"] == HOLDS for row in told["claims"])
    assert Path("a.html").read_text().startswith("<!doctype html>")
    assert Path("b.md").read_text().count("\n| ") == len(told["claims"]) + 1


def test_an_ending_that_is_no_format_is_told_before_anything_is_judged(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["claims", "x", "-o", "page.pdf"]) == 2
    assert capsys.readouterr().err == "mailrig: page.pdf: .pdf is no format; allowed: .md, .html, .json\n"


def test_a_broken_claim_is_exit_code_1(tiny, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    broken = claims_of(tmp_path, HELD.replace("{contract.worker.held_max}", "-1"))
    monkeypatch.setattr(claims, "load_claims", lambda: broken)
    assert cli.main(["claims", str(tiny.path), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["claims"][0]["verdict"] == BROKEN
