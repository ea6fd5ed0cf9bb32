"""report.html in a real browser: Debian's ``chromium``, headless, from a file and without a network."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mailrig.report import write_reports

SECTIONS = ("gates", "timeline", "workers", "memory", "traces", "outcomes", "nemesis", "tenants", "files")
_SYNTHETIC = Path(__file__).parents[1] / "unit" / "report" / "synthetic.py"
_CONSOLE = re.compile(r"CONSOLE[:(]\d+[)\]]+ (.*)")
#: Stands where a browser's own traffic (updates, sign-in) names who asked; a page's requests name the page.
_NO_PAGE = "not an origin"
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND"),
    *("--enable-logging=stderr", "--virtual-time-budget=3000", "--window-size=1280,4000", "--dump-dom"),
)


@dataclass(frozen=True, kw_only=True)
class Visit:
    """What a browser made of a page."""

    #: The document after its scripts ran.
    dom: str
    #: What stands in the console.
    console: list[str]
    #: Addresses that the page asked the network for.
    requested: list[str]


@pytest.fixture(scope="session")
def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None and os.environ.get("CI"):
        pytest.fail("no browser: install the Debian package chromium")
    if found is None:
        pytest.skip("no browser: install the Debian package chromium")
    return found


@pytest.fixture
def visit(chromium, tmp_path):
    def open_page(page: Path) -> Visit:
        log = tmp_path / "net.json"
        options = (f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", page.as_uri())
        done = subprocess.run([chromium, *_FLAGS, *options], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return Visit(dom=done.stdout, console=_CONSOLE.findall(done.stderr), requested=_requested(log))

    return open_page


def _requested(log: Path) -> list[str]:
    data = json.loads(log.read_text())
    kind = data["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    begun = [event["params"] for event in data["events"] if event["type"] == kind and "url" in event.get("params", {})]
    return [params["url"] for params in begun if params["initiator"] != _NO_PAGE]


@pytest.fixture(scope="session")
def page(tmp_path_factory) -> Path:
    """A page with everything on it, drawn from the synthetic run of the unit tests."""
    spec = importlib.util.spec_from_file_location("synthetic", _SYNTHETIC)
    synthetic = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("synthetic", synthetic)
    spec.loader.exec_module(synthetic)
    builder = synthetic.Builder(sends_per_s=6, syncs_per_s=0.5, kill_parent=True)
    folder = builder.write(tmp_path_factory.mktemp("page") / "run with a space")
    synthetic.write_verdict(folder, synthetic.MIXED)
    write_reports(folder)
    return folder / "report.html"


def test_the_page_opens_from_a_file_without_errors_and_without_asking_the_network(visit, page):
    seen = visit(page)
    assert seen.console == []
    assert seen.requested == []
    for section in SECTIONS:
        assert f'<section id="{section}"' in seen.dom or re.search(rf'<section [^>]*id="{section}"', seen.dom), section


def test_the_script_names_the_charts_for_those_who_can_not_see_them(visit, page):
    dom = visit(page).dom
    plots = re.findall(r'<svg class="plot"[^>]*>', dom)
    assert len(plots) == 9
    assert all("aria-label=" in plot and "aria-description=" in plot for plot in plots)


def test_the_cursor_tells_the_values_of_a_chart_and_stands_in_all_of_them(visit, page, tmp_path):
    moved = """<script>
    const plot = document.querySelector('[data-chart="held"]');
    plot.scrollIntoView();
    const box = plot.getBoundingClientRect();
    const at = {clientX: box.left + box.width / 2, clientY: box.top + 20, bubbles: true};
    plot.dispatchEvent(new PointerEvent("pointermove", at));
    </script>"""
    copy = tmp_path / "moved.html"
    # The page's own policy would forbid this script.
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy.write_text(text.replace("</body>", moved + "</body>"))
    seen = visit(copy)
    assert seen.console == []
    tip = re.search(r'<div id="tip"[^>]*>([^<]*)</div>', seen.dom)
    assert "hidden" not in tip.group(0).partition(">")[0]
    assert re.search(r"^at 1\d\.\d\d s$", tip.group(1), re.MULTILINE)
    assert "held: " in tip.group(1)
    assert seen.dom.count('x1="50%"') >= 9


def test_this_browser_would_have_told_of_errors_and_of_requests(visit, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://mail.invalid/x.png'><script>throw new Error('boom')</script>")
    seen = visit(bad)
    assert any("boom" in line for line in seen.console)
    assert seen.requested == ["http://mail.invalid/x.png"]


def test_a_script_that_got_into_the_page_would_not_run(visit, page, tmp_path):
    copy = tmp_path / "injected.html"
    copy.write_text(page.read_text().replace("</h1>", "</h1><script>document.title = 'taken'</script>"))
    seen = visit(copy)
    assert "<title>taken" not in seen.dom
    assert any("Content Security Policy" in line for line in seen.console)
