"""The log lines of a run: of whom, in which order, and what is said when there are none."""

import json

import pytest

from mailrig import cli
from mailrig.logs import LogsError, as_json, as_text, read_lines

TASK, OTHER = "6aed7ce2-e8a5-4fee-b06d-ae3a432becc8", "6aed9999-e8a5-4fee-b06d-ae3a432becc8"
TRACE, FANNED = "a" * 32, "b" * 32
FIRST, SECOND = "1250fd5c-0000-4fee-b06d-ae3a432becc8", "981ef734-0000-4fee-b06d-ae3a432becc8"


def line(second, message, service="mail-worker", **fields):
    row = {
        "time": f"2026-11-25T10:00:{second:09.6f}+00:00", "level": "INFO", "logger": "x", "message": message,
        "service": service, "pid": 7,
    }  # fmt: skip
    return json.dumps({**row, **fields}) + "\n"


@pytest.fixture
def run(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (tmp_path / "scenario.toml").touch()
    (logs / "api.log").write_text(
        line(1.0, "POST accepted", "mail-api", trace_id=TRACE) + line(1.5, "GET", "mail-api", trace_id=FANNED)
    )
    (logs / "worker.log").write_text(
        line(2.0, "received", task_id=TASK)
        + line(3.0, "starting", task_id=TASK, trace_id=TRACE, execution_id=FIRST)
        + line(3.5, "another", task_id=OTHER, trace_id=FANNED)
        + line(4.0, "failed", task_id=TASK, trace_id=TRACE, execution_id=FIRST, level="ERROR", exception="a.py\nEr\x1b")
        + line(5.0, "starting again", task_id=TASK, trace_id=TRACE, execution_id=SECOND)
        + line(2.5, "written late by another process", task_id=TASK, trace_id=TRACE, execution_id=FIRST)
        + '{"torn": '
    )
    (logs / "postgres.log").write_text("2026-11-25 10:00:02.250 UTC [29] FATAL:  it is starting up\n\tbelow\n")
    (logs / "valkey.log").write_text("29495:M 25 Nov 2026 18:34:20.135 # WARNING memory\n")
    (logs / "locust.log").write_text("[2026-11-25 18:34:26,796] vm/INFO/locust.main: Starting\n")
    (logs / "celery-beat.log").write_text(
        "[2026-11-25 18:34:26] celery beat v5.7.0\n[2026-11-25 18:34:26,001] ERROR [x] text\n"
    )
    return tmp_path


def messages(lines):
    return [line.row["message"] for line in lines]


def test_a_task_s_lines_come_from_all_processes_in_order_of_time(run):
    assert messages(read_lines(run, task=TASK)) == [
        "POST accepted",
        "received",
        "written late by another process",
        "starting",
        "failed",
        "starting again",
    ]


def test_a_trace_s_lines_include_those_that_name_only_its_task(run):
    assert "received" in messages(read_lines(run, trace=TRACE))
    assert messages(read_lines(run, trace=FANNED)) == ["GET", "another"]


def test_an_execution_s_lines_leave_out_those_of_the_next_one(run):
    assert messages(read_lines(run, execution=SECOND)) == ["received", "starting again"]


def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one(run):
    assert messages(read_lines(run, execution="1250")) == messages(read_lines(run, execution=FIRST))
    with pytest.raises(LogsError, match="is the beginning of 2: "):
        read_lines(run, task="6aed")
    with pytest.raises(LogsError, match="give 4 characters"):
        read_lines(run, task="6")
    with pytest.raises(LogsError, match=r"no line in .* is of trace ffff"):
        read_lines(run, trace="ffff")


def test_a_level_leaves_out_what_is_less_bad(run):
    assert messages(read_lines(run, task=TASK, level="ERROR")) == ["failed"]


def test_lines_of_other_programs_have_their_time_and_level_too(run):
    by_file = {}
    for one in read_lines(run):
        by_file.setdefault(one.file, []).append(one)
    postgres, below = by_file["postgres"]
    assert (postgres.row["level"], postgres.row["pid"], postgres.time_ns % 10**9) == ("CRITICAL", 29, 250_000_000)
    assert below.time_ns == postgres.time_ns
    assert (by_file["valkey"][0].row["level"], by_file["valkey"][0].row["message"]) == ("WARNING", "WARNING memory")
    assert by_file["locust"][0].row["message"] == "locust.main: Starting"
    beat, text = by_file["celery-beat"]
    assert (beat.row["message"], text.row["level"]) == ("celery beat v5.7.0", "ERROR")
    assert all(one.time_ns for one in by_file["locust"] + by_file["valkey"])


def test_a_line_for_people_says_who_and_what_and_obeys_no_control_character(run):
    first, *_ = as_text(read_lines(run, execution=FIRST, level="ERROR"))
    assert first.startswith("10:00:04.000000 mail-worker[7] ERROR failed  task_id=6aed7ce2 trace_id=aaaaaaaa")
    below = list(as_text(read_lines(run, level="ERROR", task=TASK)))[1:]
    assert below == ["    a.py", "    Er\\x1b"]


def test_a_line_for_machines_is_an_object_with_its_file(run):
    rows = [json.loads(text) for text in as_json(read_lines(run))]
    assert {row["file"] for row in rows} >= {"api.log", "worker.log", "postgres.log"}
    assert all({"time", "message", "file"} <= set(row) for row in rows)


def test_the_command_prints_them_or_says_in_one_line_why_not(run, capsys):
    assert cli.main(["logs", str(run), "--task", TASK, "--level", "error", "--json"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["message"] == "failed"
    assert cli.main(["logs", str(run), "--trace", "ffff"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_run_without_logs_says_so(tmp_path):
    with pytest.raises(LogsError, match="has no logs"):
        read_lines(tmp_path)
