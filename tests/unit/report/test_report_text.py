"""junit.xml and report.md."""

import json
import re
from xml.etree import ElementTree as ET

import pytest
from synthetic import MIXED, gate, verdict, write_verdict

from mailrig.report import write_reports

NASTY = "a|b\n<script>`*_[x](y)\\ \x00\x1b[31m\ud800 & # ]]>"


def junit_of(folder):
    write_reports(folder)
    return ET.parse(folder / "junit.xml").getroot()


def markdown_of(folder):
    write_reports(folder)
    return (folder / "report.md").read_text(encoding="utf-8")


# --- JUnit ------------------------------------------------------------------------------------------------------------


def test_junit_has_a_test_case_per_gate_in_a_suite_for_validity_and_one_for_the_gates(run_dir):
    suites = junit_of(run_dir).findall("testsuite")
    cases = {suite.get("name"): [case.get("name") for case in suite.findall("testcase")] for suite in suites}
    assert cases == {
        "synthetic.validity": ["schedule_lag", "achieved_ratio", "saturation"],
        "synthetic.gate": ["send-promise", "held", "traces", "memory-total", "send-e2e-p95"],
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("pass", None),
        ("fail", "failure"),
        ("invalid", "error"),
        ("unknown", "error"),
        ("warn", "skipped"),
        ("?", "error"),
    ],
)
def test_a_gates_verdict_becomes_an_element_of_its_test_case(run_dir, word, expected):
    write_verdict(run_dir, verdict(gate("one", word, detail=["a case"])))
    root = junit_of(run_dir)
    found = [child.tag for child in root.find("testsuite/testcase") if child.tag in {"failure", "error", "skipped"}]
    assert found == ([expected] if expected else [])
    assert "a case" in "".join(root.itertext())


def test_junit_counts_agree_with_its_elements(run_dir):
    root = junit_of(run_dir)
    for holder in (root, *root.findall("testsuite")):
        cases = list(holder.iter("testcase"))
        assert int(holder.get("tests")) == len(cases)
        for attribute, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(holder.get(attribute)) == sum(case.find(tag) is not None for case in cases)


def test_a_failure_tells_what_was_observed_and_what_is_allowed(run_dir):
    failure = junit_of(run_dir).find(".//failure")
    assert failure.get("message") == "fail: send.promise_broken: 2, allowed: == 0"
    assert "<2@x> to c@d: sent twice" in failure.text


@pytest.mark.parametrize("content", [None, {}, {"verdict": "pass", "gates": []}, {"gates": "none"}])
def test_a_run_without_gates_is_an_error_and_not_an_empty_success(run_dir, content):
    (run_dir / "verdict.json").unlink()
    if content is not None:
        write_verdict(run_dir, content)
    root = junit_of(run_dir)
    assert root.get("errors") == "1"


def test_junit_is_xml_whatever_a_gate_says(run_dir):
    write_verdict(run_dir, verdict(gate(NASTY, "fail", metric=NASTY, observed=NASTY, detail=[NASTY]), scenario=NASTY))
    case = junit_of(run_dir).find(".//testcase")
    assert case.get("name").startswith("a|b")
    assert "]]>" in case.find("failure").text


# --- Markdown ---------------------------------------------------------------------------------------------------------


def cells(line):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_markdown_table_has_a_row_per_gate_with_as_many_cells_as_its_head(run_dir):
    lines = markdown_of(run_dir).splitlines()
    start = lines.index("| gate | allowed | observed | verdict |")
    rows = [cells(line) for line in lines[start + 2 : start + 2 + len(MIXED["gates"])]]
    assert [row[0] for row in rows[:2]] == [r"schedule\_lag", r"achieved\_ratio"]
    assert {len(row) for row in rows} == {4}
    assert lines[start + 2 + len(MIXED["gates"])] == ""
    assert rows[3] == ["send-promise", r"send.promise\_broken == 0", "2", "✗ fail"]


def test_markdown_says_what_became_of_the_work(run_dir):
    text = markdown_of(run_dir)
    for words in (
        "# FAIL: synthetic",
        "- commit: 62efc7f",
        "## Cases",
        "## Slowest executions",
        "in queue send · held",
        "## Outcomes",
        "| send\\_email |",
        "## Tenants",
        "| acme |",
        "## Nemesis",
        "kill-child",
    ):
        assert words in text


def test_text_from_outside_is_no_markdown(run_dir):
    write_verdict(run_dir, verdict(gate(NASTY, "fail", check=NASTY, detail=[NASTY]), scenario=NASTY, mutant=NASTY))
    text = markdown_of(run_dir)
    assert not re.search(r"(?<!\\)<", text)
    assert not re.search(r"(?<!\\)`", text)
    assert "\x1b" not in text
    row = next(line for line in text.splitlines() if line.startswith(r"| a\|b"))
    assert len(cells(row)) == 4


def test_an_empty_folder_gives_a_markdown_that_says_so(tmp_path):
    text = markdown_of(tmp_path)
    assert "# NOT JUDGED: run" in text
    assert "No gates: the run was never judged." in text


def test_a_trace_is_a_link_where_a_jaeger_has_it(run_dir):
    run = json.loads((run_dir / "run.json").read_text())
    assert "](http" not in markdown_of(run_dir)
    (run_dir / "run.json").write_text(json.dumps(run | {"jaeger_url": "http://127.0.0.1:16686"}))
    assert re.search(r"\| \[([0-9a-f]{32})\]\(http://127\.0\.0\.1:16686/trace/\1\) \|", markdown_of(run_dir))
