"""Shell completion: what it offers, asked of bash itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from mailrig import cli, completion
from mailrig.scenario import mutant_names, scenario_names

NAMES = {"scenario": scenario_names(), "mutate": mutant_names()}


def made(shell):
    return completion.script(cli._parser(), shell, NAMES)


def offered(folder, *words):
    """What bash offers for the last word."""
    (folder / "script").write_text(made("bash"))
    code = 'source ./script; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _mailrig; printf "%s\\n" "${COMPREPLY[@]}"'
    argv = [shutil.which("bash"), "--norc", "-c", code, "bash", "mailrig", *words]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_offers_the_commands(tmp_path):
    assert offered(tmp_path, "") == {c.name for c in completion.commands_of(cli._parser(), NAMES)} | {"--help"}
    assert offered(tmp_path, "comp") == {"completion"}


def test_bash_offers_scenarios_and_files_for_a_run_and_options_after_a_hyphen(tmp_path):
    (tmp_path / "mine.toml").touch()
    assert offered(tmp_path, "run", "") == {*scenario_names(), "mine.toml", "script"}
    assert offered(tmp_path, "run", "smo") == {"smoke"}
    assert {"--all", "--resume", "--seed"} <= offered(tmp_path, "run", "--")


def test_bash_offers_what_an_option_may_have(tmp_path):
    assert offered(tmp_path, "run", "smoke", "--mutate", "") == set(mutant_names())
    assert offered(tmp_path, "logs", "smoke", "--level", "W") == {"WARNING"}
    assert offered(tmp_path, "run", "--seed", "") == set()


def test_bash_offers_the_runs_that_there_are(tmp_path):
    (tmp_path / "runs" / "smoke").mkdir(parents=True)
    assert offered(tmp_path, "check", "sm") == {"smoke"}
    assert offered(tmp_path, "check", "ru") == {"runs"}


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_option_of_every_command_is_in_the_script(shell):
    script = made(shell)
    for command in completion.commands_of(cli._parser(), NAMES):
        assert command.name in script
        for option in command.options:
            flag = option.flags[-1]
            assert (f"-l {flag[2:]} " if shell == "fish" else flag) in script


def test_a_text_with_quotes_stays_within_its_own():
    assert completion._quoted("it's") == "'it'\\''s'"
    assert completion._fish_quoted("it's \\") == "'it\\'s \\\\'"
    assert completion._colons("a:b") == "a\\:b"


def test_the_command_prints_it(capsys):
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == made("bash")
