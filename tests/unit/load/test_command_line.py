"""The command line: what it accepts, what it says when it can't, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
import yaml

from mailrig import cli, runner
from mailrig.runner.interrupts import SIGNALS, Stopped
from mailrig.scenario import mutant_names, scenario_names
from mailrig.stack import StackError

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "runs" / "tiny"


@pytest.fixture(autouse=True)
def _handlers_and_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = [signal.getsignal(number) for number in SIGNALS]
    yield
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


def fail_with(monkeypatch, error):
    def run(_):
        raise error

    monkeypatch.setattr(runner, "run", run)


@pytest.mark.parametrize(
    ("arguments", "told"),
    {
        "a scenario that does not exist": (
            ["run", "smok"],
            f"no scenario 'smok'; known: {', '.join(scenario_names())}",
        ),
        "a file that does not exist": (["run", "./mine.toml"], "mine.toml: can't be read"),
        "a mutant that does not exist": (
            ["run", "smoke", "--mutate", "x"],
            "no mutant 'x'; known: accepted-not-kept, ",
        ),
        "an action that does not exist": (["run", "smoke", "--nemesis", "x@1"], "nemesis 'x@1' is not allowed"),
        "a run that does not exist": (["check", "smoke"], "no run 'smoke'"),
        "a trace of no run": (["trace", "smoke"], "no run 'smoke'"),
        "an upload of no run": (["upload", "smoke", "--otlp", "http://127.0.0.1:1"], "no run 'smoke'"),
        "an upload to no address": (["upload", "smoke", "--otlp", "here"], "'here' is not an address such as http"),
        "a Jaeger that is away": (
            ["run", "smoke", "--jaeger", "http://127.0.0.1:1"],
            "Jaeger at http://127.0.0.1:1 does not answer: Connection refused",
        ),
        "a Jaeger with a password": (["run", "smoke", "--jaeger", "http://a:b@h:1"], "can't be used: give one such as"),
        "nothing to attach to": (["run", "smoke", "--attach"], "--attach needs MAILRIG_API_URL, MAILRIG_CONTROL_URL"),
        "a report of no run": (["report", "smoke"], "no run 'smoke'"),
    }.values(),
)
def test_wrong_use_is_one_clear_line_and_exit_code_2(arguments, told, capsys):
    assert cli.main(arguments) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.startswith("mailrig: ")
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not Path("runs").exists()


def test_broken_toml_is_told_with_file_line_and_what_is_allowed(capsys):
    Path("mine.toml").write_text('name = "mine"\nseed = \n')
    assert cli.main(["run", "./mine.toml"]) == 2
    assert "mine.toml:2: broken TOML" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["dance"],
        ["run", "smoke", "--seed", "x"],
        ["run", "smoke", "--api-port", "70000"],
        ["up", "--smtp-port", "x"],
        ["up", "--time-scale", "2"],
        ["run", "smoke", "--locust-workers", "0"],
        ["run", "smoke", "--locust-bind", "host:port"],
        ["load-worker"],
        ["load-worker", "--master", ":5557"],
        ["upload", "smoke"],
    ],
)
def test_what_the_parser_refuses_is_exit_code_2_too(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: mailrig" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[], ["run"], ["up"], ["check"], ["report"], ["trace"], ["upload"], ["load-worker"], ["doctor"]]
)
def test_every_help_names_the_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    # A line may break between any two words.
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert all(word in told for word in ("0 pass", "1 a gate failed", "2 wrong", "3 warnings", "4 invalid", "143"))


def test_the_help_of_run_names_scenarios_mutants_and_ports(capsys):
    with pytest.raises(SystemExit):
        cli.main(["run", "--help"])
    # Without all spaces: argparse breaks a line behind a hyphen, too.
    told = "".join(capsys.readouterr().out.split())
    for word in (*scenario_names(), *mutant_names(), "--api-port", "--smtp-port", "--postgres-port"):
        assert word in told


def test_an_error_s_notes_are_told_as_well(monkeypatch, capsys):
    error = StackError("port 25 (smtp) can't be used")
    error.add_note("database mailrig_x stays on the server")
    fail_with(monkeypatch, error)
    assert cli.main(["run", "smoke"]) == 2
    assert capsys.readouterr().err == (
        "mailrig: port 25 (smtp) can't be used\nmailrig: database mailrig_x stays on the server\n"
    )


def test_a_folder_that_may_not_be_written_is_one_line(monkeypatch, capsys):
    fail_with(monkeypatch, PermissionError(13, "Permission denied", ".mailrig"))
    assert cli.main(["run", "smoke"]) == 2
    assert capsys.readouterr().err == "mailrig: .mailrig: Permission denied\n"


def test_a_defect_of_the_rig_is_never_taken_for_a_failed_gate(monkeypatch, capsys):
    fail_with(monkeypatch, ZeroDivisionError("oops"))
    assert cli.main(["run", "smoke"]) == 2
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith("mailrig: this is a defect of mailrig itself\n")


def test_a_signal_ends_with_its_code(monkeypatch, capsys):
    fail_with(monkeypatch, Stopped(signal.SIGTERM))
    assert cli.main(["run", "smoke"]) == 143
    assert capsys.readouterr().err == "mailrig: SIGTERM: everything is stopped\n"


def test_a_stored_run_is_judged_again_by_its_folder_or_its_scenario_s_name(tmp_path, capsys):
    shutil.copytree(TINY, tmp_path / "runs" / "tiny" / "latest")
    assert cli.main(["check", "tiny"]) == 0
    assert "PASS" in capsys.readouterr().out
    folder = tmp_path / "runs" / "tiny" / "latest"
    assert {"verdict.json", "junit.xml", "report.md", "report.html"} <= {path.name for path in folder.iterdir()}
    (folder / "evidence" / "jobs.jsonl").write_text("")
    assert cli.main(["check", str(folder)]) in {1, 4}


def test_a_stored_run_is_judged_for_a_log_and_for_a_machine(tmp_path, capsys):
    folder = tmp_path / "mine"
    shutil.copytree(TINY, folder)
    assert cli.main(["check", "mine", "--quiet"]) == 0
    said = capsys.readouterr()
    assert re.fullmatch(r"PASS tiny, seed \d+, [\d.]+ s: (\d+) of \1 gates pass: \S+/mine\n", said.out)
    assert said.err == ""
    assert cli.main(["check", "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {k: v for k, v in told.items() if k not in {"run", "exit_code"}} == json.loads(
        (folder / "verdict.json").read_text()
    )


def test_reports_of_a_stored_run_are_written_again_and_named(tmp_path, capsys):
    shutil.copytree(TINY, tmp_path / "mine")
    assert cli.main(["report", "mine"]) == 0
    assert {Path(line).name for line in capsys.readouterr().out.split()} == {"junit.xml", "report.md", "report.html"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("load", ("load", 5557)),
        ("load:9", ("load", 9)),
        ("[::1]:9", ("::1", 9)),
        ("[::1]", ("::1", 5557)),
        ("10.0.0.1:65535", ("10.0.0.1", 65_535)),
    ],
)
def test_a_master_is_a_host_and_maybe_a_port(text, address):
    assert cli._address(text) == address


def test_a_load_worker_becomes_locust_and_waits_for_its_master_s_word(monkeypatch):
    found = {}

    def become(*words):
        found.update(zip(("file", "argv", "env"), words, strict=True))
        raise SystemExit

    monkeypatch.setattr(os, "execve", become)
    with pytest.raises(SystemExit):
        cli.main(["load-worker", "--master", "load:9"])
    assert found["file"] == sys.executable
    assert found["argv"][-5:] == ["--worker", "--master-host", "load", "--master-port", "9"]
    assert found["env"]["MAILRIG_REMOTE"] == "1"


def test_the_workflow_of_gates_calls_commands_and_scenarios_that_there_are():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "gates.yml").read_text())
    asked = workflow["jobs"]["gate"]["strategy"]["matrix"]["scenario"]
    assert set(asked) <= set(scenario_names())
    commands = [
        step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "mailrig " in step.get("run", "")
    ]
    lines = re.findall(r"mailrig ([a-z][^>;|}]*)", "\n".join(commands))
    assert {line.split()[0] for line in lines} == {"run", "ab"}
    for line in lines:
        words = re.sub(r"\$\{.*", "", line).replace('"$SCENARIO"', asked[0]).replace('"$BASE"', "HEAD").split()
        assert cli._parser().parse_args(words)


def test_no_password_is_printed_with_an_address():
    assert cli._without_password("postgresql://mail_audit:pa@ss@127.0.0.1:5/x") == "postgresql://127.0.0.1:5/x"
    assert cli._without_password("redis://127.0.0.1:6379") == "redis://127.0.0.1:6379"
