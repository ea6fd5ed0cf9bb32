"""The matrix in fakes/README.md says what the contract's suite holds to be so."""

from __future__ import annotations

import matrix
import pytest
from contract.cases import CASES


def test_the_readme_shows_what_the_suite_expects():
    """After a change: python tests/peers/matrix.py --write."""
    assert matrix.between(matrix.README.read_text()) == matrix.table(matrix.declared())


def test_the_table_counts_by_area_and_names_the_lacks():
    told = matrix.table(matrix.declared() | {("dovecot", "noop_is_fine_in_every_state"): "sleeps"})
    session = sum(case.area == "session" for case in CASES.values())
    row = next(line for line in told.splitlines() if line.startswith("| session |"))
    assert f"| {session}/{session} | {session - 1}/{session} |" in row
    assert "- session: sleeps" in told


def test_every_case_is_in_the_sum():
    last = next(line for line in matrix.table(matrix.declared()).splitlines() if line.startswith("| **all** |"))
    assert f"| {len(CASES)}/{len(CASES)} |" in last


def test_a_table_is_put_between_the_markers_and_found_again():
    text = f"before\n{matrix.BEGIN}\nold\n{matrix.END}\nafter\n"
    new = matrix.inserted(text, "| a |\n")
    assert new == f"before\n{matrix.BEGIN}\n\n| a |\n\n{matrix.END}\nafter\n"
    assert matrix.between(new) == "| a |\n"
    assert matrix.inserted(new, "| a |\n") == new


def test_a_readme_without_markers_is_left_alone():
    with pytest.raises(matrix.MatrixError, match="missing"):
        matrix.inserted("no markers here", "| a |\n")


def _report(*, kind: str, leave_out: int = 0) -> str:
    rows = []
    for (peer, case), lack in list(matrix.declared().items())[leave_out:]:
        inner = f'<skipped type="{kind}" message="{lack}"/>' if lack else ""
        rows.append(f'<testcase name="test_asked[{peer}-{case}]">{inner}</testcase>')
    return f'<testsuites><testsuite><testcase name="test_other"/>{"".join(rows)}</testsuite></testsuites>'


def test_a_runs_report_is_read_as_results():
    assert matrix.read(_report(kind="pytest.xfail")) == matrix.declared()


def test_a_run_that_has_left_something_out_makes_no_table():
    with pytest.raises(matrix.MatrixError, match="3 cases were not asked"):
        matrix.read(_report(kind="pytest.xfail", leave_out=3))
    with pytest.raises(matrix.MatrixError, match="was not asked"):
        matrix.read(_report(kind="pytest.skip"))
