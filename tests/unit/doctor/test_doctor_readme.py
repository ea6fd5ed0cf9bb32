"""The README's example of the doctor is what the doctor says."""

from __future__ import annotations

import re
from pathlib import Path

from mailrig import cli

README = (Path(__file__).parents[3] / "README.md").read_text()


def test_the_pasted_answer_is_the_answer(tmp_path, monkeypatch, capsys):
    section = README.partition("## The traps of Celery on Redis")[2].partition("\n## ")[0]
    source, pasted = re.findall(r"```(?:python|console)\n(.*?)```", section, re.DOTALL)
    (tmp_path / "shop.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "118")
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    command, *lines = pasted.splitlines()
    assert cli.main(command.removeprefix("$ mailrig ").split()) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in told] == []
    assert [line for line in told if line.startswith("TRAP")] == [line for line in lines if line.startswith("TRAP")]
