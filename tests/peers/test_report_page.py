"""The report in a real browser, offline."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from mailrig import report
from mailrig.checkers import judge
from mailrig.evidence import load_evidence
from mailrig.scenario import load_contract, load_scenario

TINY = Path(__file__).parents[1] / "runs" / "tiny"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


def judged_run(folder):
    """The recorded run, judged and reported in a folder of its own."""
    run = folder / "run"
    shutil.copytree(TINY, run)
    scenario, contract = load_scenario(run / "scenario.toml"), load_contract(run / "contract.toml")
    (run / "verdict.json").write_text(json.dumps(judge(scenario, contract, load_evidence(run)).to_dict()))
    report.write_reports(run)
    return run


def test_the_page_opens_offline_and_shows_its_sections(program, tmp_path):
    browser = program("chromium", "chromium", "chromium-browser", "google-chrome")
    page = judged_run(tmp_path) / "report.html"
    argv = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=90)
    assert "Uncaught" not in done.stderr
    assert len(re.findall(r"<svg\b", done.stdout)) >= 3
    for word in ("send-promise", "held", "memory", "queue"):
        assert word in done.stdout.lower()


def test_the_page_names_nothing_outside_of_itself(tmp_path):
    text = (judged_run(tmp_path) / "report.html").read_text()
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert not re.search(r"@import|url\(\s*['\"]?https?:", text)
