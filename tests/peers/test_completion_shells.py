"""The scripts of ``mailrig completion`` in the shells that they are for; bash is asked by the unit tests."""

from __future__ import annotations

import subprocess

import pytest
from programs import find_program

from mailrig import cli
from mailrig.scenario import mutant_names, scenario_names


@pytest.fixture
def ask(tmp_path, capsys):
    """Runs a line of a shell that has read its script, in a folder with a run."""
    (tmp_path / "runs" / "smoke").mkdir(parents=True)

    def ask(shell, *options, line):
        program = find_program(shell, shell)
        cli.main(["completion", shell])
        (tmp_path / "script").write_text(capsys.readouterr().out)
        argv = [program, *options, "-c", line]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return ask


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("comp", {"completion"}),
        ("run --mutate ", set(mutant_names())),
        ("run --res", {"--resume"}),
        ("run smo", {"smoke"}),
        ("check smo", {"smoke"}),
        ("logs smoke --level W", {"WARNING"}),
    ],
)
def test_fish_offers_what_may_follow(ask, words, offered):
    told = ask("fish", "--no-config", line=f"source ./script; complete -C 'mailrig {words}'")
    assert {line.partition("\t")[0] for line in told.splitlines()} == offered


def test_fish_offers_scenarios_and_files(ask):
    told = ask("fish", "--no-config", line="source ./script; complete -C 'mailrig run '")
    assert {line.partition("\t")[0] for line in told.splitlines()} == {*scenario_names(), "script", "runs/"}


def test_zsh_takes_the_script_and_completes_the_command_by_it(ask):
    """``_arguments`` itself refuses a specification that is malformed: its words are handed to it outside of a line."""
    line = (
        "autoload -U compinit; compinit -u -D; source ./script; print -- $_comps[mailrig]; "
        '_arguments() { zmodload zsh/computil; comparguments() { :; }; print -- "${#@}"; }; '
        "words=(run); _describe() { :; }; state=rest; _mailrig"
    )
    told = ask("zsh", "-f", line=line).split()
    assert told[0] == "_mailrig"
    assert len(told) > 1
