"""Samples of metrics as a scrape has them, as the evidence keeps them, and as they are exported."""

from __future__ import annotations

import json

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from mailrig.cli import main
from mailrig.samples import difference, is_counted, parse, replay
from mailrig.scraping import metrics_url

SENT = 'mail_recipients_total{state="sent"}'
EXPOSITION = f"""# HELP mail_recipients Recipients.
# TYPE mail_recipients counter
{SENT} 7.0 # {{trace_id="aa"}} 1.0
# TYPE mail_queue_depth gauge
mail_queue_depth{{queue="a b",state="ready"}} 3.0
mail_dispatcher_lag_seconds 0.25
# EOF
"""


def test_a_scrape_is_its_samples_without_their_exemplars():
    assert parse(EXPOSITION) == {
        SENT: 7.0,
        'mail_queue_depth{queue="a b",state="ready"}': 3.0,
        "mail_dispatcher_lag_seconds": 0.25,
    }


@pytest.mark.parametrize("text", ["", EXPOSITION.removesuffix("# EOF\n"), "<html>\n# EOF\n"])
def test_an_answer_that_was_cut_off_or_is_something_else_is_none(text):
    with pytest.raises(ValueError, match=r"EOF|could not convert"):
        parse(text)


def test_a_line_says_what_has_changed_and_all_of_them_together_everything():
    scrapes = [{"a": 1.0, "b": 2.0}, {"a": 1.0, "b": 3.0, "c": 1.0}, {"c": 1.0}]
    lines, known = [], {}
    for time_ns, samples in enumerate(scrapes):
        lines.append({"time_ns": time_ns, **difference(known, samples)})
        known = samples
    assert lines[1] == {"time_ns": 1, "set": {"b": 3.0, "c": 1.0}, "gone": []}
    assert lines[2]["gone"] == ["a", "b"]
    assert [(time_ns, dict(samples)) for time_ns, samples in replay(lines)] == list(enumerate(scrapes))


def test_a_scrape_that_failed_is_no_scrape():
    lines = [{"time_ns": 1, "set": {"a": 1.0}, "gone": []}, {"time_ns": 2, "error": "URLError"}]
    assert [time_ns for time_ns, _ in replay(lines)] == [1]


@pytest.mark.parametrize(
    ("name", "counts"),
    [(SENT, True), ('mail_step_seconds_bucket{le="1.0"}', True), ("mail_worker_capacity", False), ("mail_x_sum", True)],
)
def test_what_counts_is_told_by_its_name(name, counts):
    assert is_counted(name) == counts


@pytest.mark.parametrize("url", ["http://h:9540", "http://h:9540/", "http://h:9540/metrics"])
def test_the_exporter_may_be_named_by_its_root(url):
    assert metrics_url(url).endswith("/metrics")


# --- mailrig export


def exported(capsys, *arguments):
    assert main(["export", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def moved(tiny, seconds):
    """The same run at another time."""
    file = tiny / "evidence" / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["time_ns"] += int(seconds * 1e9)
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def families(text):
    """All families of each moment: prometheus_client 0.26 takes a second time in a histogram for a duplicate."""
    lines = text.splitlines()
    times = sorted({line.rpartition(" ")[2] for line in lines if not line.startswith("#")})
    for time_s in times:
        of_then = [line for line in lines if line.startswith("#") or line.endswith(f" {time_s}")]
        yield from parse_openmetrics("\n".join(of_then) + "\n")


def points(text, name, **labels):
    """(run, time, value) of one series."""
    found = [s for family in families(text) for s in family.samples if s.name == name]
    return [(s.labels["run"], float(s.timestamp), s.value) for s in found if labels.items() <= s.labels.items()]


def test_an_export_is_openmetrics_with_a_time_and_a_run_at_each_sample(tiny, capsys):
    text = exported(capsys, tiny)
    found = list(families(text))
    assert all(s.labels["run"] == "tiny/1" and s.timestamp is not None for f in found for s in f.samples)
    assert {f.name: f.type for f in found}["mail_step_seconds"] == "histogram"
    sent = points(text, "mail_recipients_total", state="sent")
    assert [value for _, _, value in sent] == sorted(value for _, _, value in sent)
    assert sent[-1][2] == 19


def test_runs_begin_together_when_the_latest_began(tiny, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    for file in tiny.rglob("*"):
        if file.is_file():
            target = other / file.relative_to(tiny)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    moved(other, 5000)
    together = points(exported(capsys, tiny, other), "mail_build_info")
    first = {run: min(t for r, t, _ in together if r == run) for run in ("tiny/1", "tiny/2")}
    assert first["tiny/1"] == first["tiny/2"]
    apart = points(exported(capsys, tiny, other, "--keep-times"), "mail_build_info")
    assert max(t for r, t, _ in apart if r == "tiny/2") - max(t for r, t, _ in apart if r == "tiny/1") == 5000


def test_an_export_says_what_the_run_was_and_what_its_gates_said(tiny, capsys):
    verdict = {
        "verdict": "fail",
        "gates": [
            {"id": "held", "observed": 5.0, "verdict": "fail"},
            {"id": "running", "observed": 4.0, "verdict": "pass"},
            {"id": "memory", "observed": None, "verdict": "unknown"},
        ],
    }
    (tiny / "verdict.json").write_text(json.dumps(verdict))
    text = exported(capsys, tiny)
    assert points(text, "mailrig_run_info", scenario="tiny", verdict="fail", seed="3")
    assert {v for _, _, v in points(text, "mailrig_gate_observed", gate="held")} == {5.0}
    assert {v for _, _, v in points(text, "mailrig_gate_passed", gate="held")} == {0.0}
    assert {v for _, _, v in points(text, "mailrig_gate_passed", gate="running")} == {1.0}
    assert points(text, "mailrig_gate_observed", gate="memory") == []


def test_a_run_without_scrapes_can_not_be_exported(tiny, tmp_path, capsys):
    (tiny / "evidence" / "metrics.jsonl").write_text("")
    assert main(["export", str(tiny), "-o", str(tmp_path / "out")]) == 2
    assert "has no scrapes" in capsys.readouterr().err


def test_a_file_that_can_not_be_written_is_named(tiny, tmp_path, capsys):
    assert main(["export", str(tiny), "-o", str(tmp_path)]) == 2
    assert f"{tmp_path} can't be written" in capsys.readouterr().err
