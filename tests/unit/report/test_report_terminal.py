"""What a terminal shows."""

import json

import pytest
from synthetic import MIXED, gate, span_line, verdict, write_lines

from mailrig.report import terminal_verdict, terminal_waterfall
from mailrig.scenario import RigError


def traces_of(folder) -> list[str]:
    lines = (folder / "evidence" / "jobs.jsonl").read_text().splitlines()
    return [json.loads(line)["trace_id"] for line in lines]


# --- verdict ----------------------------------------------------------------------------------------------------------


def test_validity_comes_first_then_the_gates_then_the_verdict_and_the_report(tmp_path):
    lines = terminal_verdict(MIXED, width=100, color=False, report=tmp_path / "report.html").splitlines()
    starts = [
        next(i for i, line in enumerate(lines) if line.startswith(w)) for w in ("validity", "gate", "✗ FAIL", "report:")
    ]
    assert starts == sorted(starts)
    assert str(tmp_path / "report.html") in "".join(lines[starts[-1] :])


def test_a_row_has_the_gate_what_is_allowed_what_was_observed_and_the_verdict():
    text = terminal_verdict(MIXED, width=100, color=False)
    row = next(line for line in text.splitlines() if line.startswith("schedule_lag"))
    assert row.split() == ["schedule_lag", "p99", "<", "100ms", "12.3456", "ms", "✓", "pass"]


def test_cases_are_shown_for_gates_that_do_not_pass_only():
    text = terminal_verdict(MIXED, width=100, color=False)
    assert "  · <2@x> to c@d: sent twice" in text
    assert "312 of 312 scheduled arrivals" not in text


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width):
    text = terminal_verdict(MIXED, width=width, color=False)
    assert max(map(len, text.splitlines())) <= max(width, 40)


def test_colour_is_there_when_it_is_asked_for_and_only_then(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" in terminal_verdict(MIXED, width=100, color=True)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" not in terminal_verdict(MIXED, width=100, color=False)


def test_text_from_outside_is_neither_markup_nor_a_control_sequence():
    hostile = verdict(gate("[red]x[/red]", "fail", detail=["\x1b[2J[bold]:smile:\x07"]), scenario="[/]")
    text = terminal_verdict(hostile, width=100, color=False)
    assert "[red]x[/red]" in text
    assert "[bold]:smile:" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_run_that_was_never_judged_says_so():
    assert "never judged" in terminal_verdict({}, width=80, color=False)


# --- waterfall --------------------------------------------------------------------------------------------------------


def test_without_an_id_what_is_worth_a_look_is_listed_and_the_slowest_send_is_drawn(run_dir):
    text = terminal_waterfall(run_dir, None, width=120, color=False)
    for words in ("slowest send 1", "slowest sync 1", "killed: send_email"):
        assert words in text
    slowest = next(line for line in text.splitlines() if line.startswith("slowest send 1")).split()[5]
    assert f"trace {slowest}" in text
    assert "POST /api/v1/{tenant}/email/send" in text


def test_a_waterfall_is_a_tree_with_service_bar_duration_and_offset(run_dir):
    text = terminal_waterfall(run_dir, None, width=120, color=False)
    root = next(line for line in text.splitlines() if "POST" in line)
    inner = next(line for line in text.splitlines() if "smtp send" in line)
    assert root.startswith("api ")
    assert root.rstrip().endswith("0 ms")
    assert inner.startswith("worker ")
    assert "├─smtp send [reply 250]" in inner
    assert "█" in inner


def test_a_killed_execution_is_marked(run_dir):
    text = terminal_waterfall(run_dir, None, width=160, color=False)
    line = next(line for line in text.splitlines() if "[killed" in line)
    assert "✗ process send [killed, worker-lost, synthesised]" in line
    assert "░" in line


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_line_of_a_waterfall_is_wider_than_the_terminal(run_dir, width):
    text = terminal_waterfall(run_dir, None, width=width, color=False)
    assert max(map(len, text.splitlines())) <= width


def test_the_beginning_of_an_id_is_enough_and_so_is_a_tasks_id(run_dir):
    jobs = [json.loads(line) for line in (run_dir / "evidence" / "jobs.jsonl").read_text().splitlines()]
    job = jobs[0]
    whole = terminal_waterfall(run_dir, job["trace_id"], width=100, color=False)
    assert terminal_waterfall(run_dir, job["trace_id"][:8].upper(), width=100, color=False) == whole
    assert terminal_waterfall(run_dir, job["job_id"], width=100, color=False) == whole


def test_an_unknown_id_names_the_nearest_ones(run_dir):
    known = traces_of(run_dir)[3]
    wrong = known[:6] + ("0" if known[6] != "0" else "1") + known[7:]
    with pytest.raises(RigError, match=f"no trace, task or execution '{wrong}' .* nearest: {known}"):
        terminal_waterfall(run_dir, wrong, width=80, color=False)


def test_a_beginning_that_fits_several_names_them(run_dir):
    spans = [span_line(trace_id=f"ab{n}", span_id="1", name="x", start=1, end=2) for n in range(3)]
    write_lines(run_dir / "evidence" / "spans.jsonl", spans)
    with pytest.raises(RigError, match="'ab' could be any of ab0, ab1, ab2"):
        terminal_waterfall(run_dir, "ab", width=80, color=False)


def test_a_folder_without_anything_has_no_traces(tmp_path):
    with pytest.raises(RigError, match="has no traces"):
        terminal_waterfall(tmp_path, None, width=80, color=False)
    with pytest.raises(RigError, match="there are no spans"):
        terminal_waterfall(tmp_path, "abc", width=80, color=False)


def test_a_torn_span_file_draws_what_is_whole_and_says_what_is_not(run_dir):
    with (run_dir / "evidence" / "spans.jsonl").open("a") as file:
        file.write('{"resourceSpans": [{"reso')
    text = terminal_waterfall(run_dir, None, width=100, color=False)
    assert "POST" in text
    assert "evidence/spans.jsonl:" in text


def test_each_execution_tells_its_waits_and_steps_above_the_waterfall(run_dir):
    rows = [json.loads(line) for line in (run_dir / "evidence" / "executions.jsonl").read_text().splitlines()]
    retried = next(row for row in rows if row["outcome"] == "retry")
    lines = terminal_waterfall(run_dir, retried["job_id"], width=200, color=False).splitlines()
    told = [line.strip() for line in lines if "waited" in line]
    own = [row for row in rows if row["job_id"] == retried["job_id"]]
    assert len(told) == len(own) > 1
    assert told[0].startswith("send_email, execution 1: retry (smtp-transient) · waited ")
    assert all("in queue send · held" in line and "ran" in line and "smtp connect" in line for line in told)
    assert lines.index(next(line for line in lines if "waited" in line)) < lines.index(
        next(line for line in lines if line.startswith("service"))
    )


def test_an_executions_id_finds_its_trace_and_a_jaeger_is_named(run_dir):
    run = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps(run | {"jaeger_url": "http://127.0.0.1:16686"}))
    row = json.loads((run_dir / "evidence" / "executions.jsonl").read_text().splitlines()[0])
    text = terminal_waterfall(run_dir, row["execution_id"], width=80, color=False)
    assert f"http://127.0.0.1:16686/trace/{row['trace_id']}" in text
    assert text == terminal_waterfall(run_dir, row["trace_id"], width=80, color=False)


@pytest.mark.parametrize("nonsense", ["", "zzz", "'; drop", "x" * 500, "\x1b[31mred\n\n", "%s{0}[red]"])
def test_nonsense_is_answered_with_one_line(run_dir, nonsense):
    with pytest.raises(RigError) as told:
        terminal_waterfall(run_dir, nonsense, width=80, color=False)
    assert len(str(told.value).splitlines()) == 1
    assert "\x1b" not in str(told.value)
    assert len(str(told.value)) < 500
