"""report.html in a real browser: Debian's ``chromium``, headless, from a file and without a network.

Pictures of each page, in each width and scheme, lie in the tests' temporary folder: ``pytest --basetemp=FOLDER``.
"""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from browser import Browser
from programs import find_program

from mailrig.report import write_reports

SECTIONS = ("gates", "timeline", "workers", "traces", "memory", "outcomes", "nemesis", "tenants", "leaks", "files")
CHARTS = 9
JAEGER = "http://127.0.0.1:16686"
_TESTS = Path(__file__).parents[1]
#: Body text at WCAG's AA; what is drawn large or is decoration is not asked for.
_CONTRAST_MIN = 4.5
#: The lowest contrast of any visible text that has an opaque ground, with the text; and how far the page is too wide.
_CONTRAST = """(() => {
  const level = (c) => c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (css) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = rgb(getComputedStyle(at).backgroundColor);
      if (found[3] === 255) return found.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.textContent.trim();
    if (!text || element.closest("script, [hidden], [aria-hidden]") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element);
    const ink = level(rgb(element.closest("svg") ? style.fill : style.color).slice(0, 3));
    const behind = level(ground(element));
    const ratio = (Math.max(ink, behind) + 0.05) / (Math.min(ink, behind) + 0.05);
    found.push([Math.round(ratio * 100) / 100, element.className.baseVal ?? element.className, text.slice(0, 60)]);
  }
  return found.sort((one, other) => one[0] - other[0]).slice(0, 5);
})()"""
#: What sticks out of the page at its sides, though nothing scrolls it.
_WIDE = """(() => {
  const scrolls = (element) => element.closest(".scroll, nav, .logs ol");
  const out = [...document.querySelectorAll("main *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && box.right > innerWidth + 0.5 && !scrolls(element) && element.checkVisibility();
  });
  const told = out.slice(0, 5).map((e) => `${e.tagName} ${e.textContent.slice(0, 40)}`);
  return [document.documentElement.scrollWidth - innerWidth, told];
})()"""
_VIEWER = """(() => {
  const viewer = document.getElementById("viewer");
  const visible = (one) => one && one.checkVisibility() && one.getBoundingClientRect().height > 0;
  return {
    trace: viewer.querySelector("h3 code")?.textContent,
    spans: [...viewer.querySelectorAll(".waterfall tbody tr")].filter(visible).length,
    bars: [...viewer.querySelectorAll(".track b")].filter(visible).length,
    logs: [...viewer.querySelectorAll(".logs li")].filter(visible).map((line) => line.textContent),
    runs: [...viewer.querySelectorAll(".runs li")].map((line) => line.textContent),
    top: viewer.getBoundingClientRect().top,
    focused: document.activeElement?.tagName,
  };
})()"""


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    with Browser(find_program("chromium", "chromium", "chromium-browser"), tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="session")
def synthetic():
    """The maker of runs of the unit tests."""
    name = "synthetic"
    spec = importlib.util.spec_from_file_location(name, _TESTS / "unit" / "report" / "synthetic.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run(synthetic, tmp_path_factory) -> Path:
    """A run with everything in it: kills, retries, a gate that names the killed task, a Jaeger, a leak."""
    builder = synthetic.Builder(sends_per_s=6, syncs_per_s=0.5, kill_parent=True)
    folder = builder.write(tmp_path_factory.mktemp("page") / "run with a space")
    task = next(row["job_id"] for row in builder.executions if row["outcome"] == "killed")
    named = synthetic.gate("named", "fail", metric="jobs.failed", observed=1, detail=[f"task {task} was lost"])
    synthetic.write_verdict(folder, {**synthetic.MIXED, "gates": [*synthetic.MIXED["gates"], named]})
    searched = {
        "sink": "worker.log",
        "bytes": 225_607,
        "secrets_searched": 96,
        "hits": [{"secret": "mailbox 3", "where": "l. 12"}],
    }
    synthetic.write_lines(folder / "evidence" / "leaks.jsonl", [searched])
    about = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(about | {"jaeger_url": JAEGER}))
    write_reports(folder)
    return folder


@pytest.fixture(scope="session")
def page(run) -> str:
    return (run / "report.html").as_uri()


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> str:
    """The page of a run that a real stack made."""
    folder = Path(shutil.copytree(_TESTS / "runs" / "real", tmp_path_factory.mktemp("recorded") / "real"))
    write_reports(folder)
    return (folder / "report.html").as_uri()


@pytest.fixture
def open_run(browser, request):
    """Opens the page of a run, by its fixture's name."""
    return lambda which, **window: browser.open(request.getfixturevalue(which), **window)


# --- the page as a whole ----------------------------------------------------------------------------------------------


def test_the_page_opens_from_a_file_without_errors_and_without_asking_the_network(browser, page):
    tab = browser.open(page)
    assert tab.told() == []
    assert tab.requested() == []
    assert tab.ask("[...document.querySelectorAll('main > section')].map((one) => one.id)") == list(SECTIONS)


def test_the_script_names_the_charts_for_those_who_can_not_see_them(browser, page):
    tab = browser.open(page)
    drawn = tab.ask(
        "[...document.querySelectorAll('svg.plot')].map((plot) => [plot.getAttribute('aria-label'),"
        " plot.getAttribute('aria-description'), plot.querySelectorAll('path, rect, circle').length])"
    )
    assert len(drawn) == CHARTS
    assert all(name and text and shapes for name, text, shapes in drawn)


def test_the_cursor_tells_the_values_of_a_chart_and_stands_in_all_of_them(browser, page):
    tab = browser.open(page)
    tab.click('[data-chart="held"] .grid line')
    tip = tab.ask("document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent")
    assert re.search(r"^at 1\d\.\d\d s$", tip, re.MULTILINE)
    assert "held: " in tip
    assert tab.ask("document.querySelectorAll('.cursor[x1=\"50%\"]').length") >= CHARTS


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("which", ["page", "recorded"])
def test_a_page_fits_its_width_and_can_be_read(open_run, tmp_path, which, width, scheme):
    tab = open_run(which, width=width, dark=scheme == "dark")
    tab.click("#executions tbody tr[data-t] a")
    tab.click("#viewer .span-name")
    tab.shoot(tmp_path / f"{which}-{width}-{scheme}.png")
    assert tab.told() == []
    assert tab.ask(_WIDE) == [0, []]
    worst = tab.ask(_CONTRAST)
    assert worst[0][0] >= _CONTRAST_MIN, worst
    drawn = tab.ask("getComputedStyle(document.body).backgroundColor")
    assert drawn == ("rgb(20, 23, 28)" if scheme == "dark" else "rgb(255, 255, 255)"), (
        "not the scheme that was asked for"
    )


# --- from the slow execution to its log lines -------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["page", "recorded"])
def test_three_clicks_lead_from_the_top_to_the_slowest_executions_spans_and_log_lines(open_run, which):
    tab = open_run(which)
    tab.click('nav a[href="#traces"]')
    tab.click("#executions tbody tr[data-t] a")
    seen = tab.ask(_VIEWER)
    first = tab.ask("document.querySelector('#executions tbody tr[data-t]').dataset.ids")
    assert seen["trace"] in first.split()
    assert seen["spans"] == seen["bars"] > 3
    assert any("queue" in line and "held" in line and "ran" in line for line in seen["runs"])
    assert any("starting" in line for line in seen["logs"])
    assert 0 <= seen["top"] < 900
    assert seen["focused"] == "H3"
    tab.click("#viewer .waterfall tr:not(.facts-row) .span-name")
    assert "span " in tab.ask("document.querySelector('.facts-row').textContent")


def test_a_failed_gates_case_leads_to_the_trace_it_names(browser, page):
    tab = browser.open(page)
    tab.click('.cases a[href^="#trace-"]')
    seen = tab.ask(_VIEWER)
    assert any("killed" in line for line in seen["runs"])
    assert any("was lost" in line for line in seen["logs"]), "a line that names the task alone is its own too"
    links = tab.ask("[...document.querySelectorAll('.viewer-head a')].map((link) => link.href)")
    assert links == [f"{JAEGER}/trace/{seen['trace']}"]


def test_a_bar_of_a_lane_opens_its_trace(browser, page):
    tab = browser.open(page)
    tab.click("svg.plot .bar.o-killed")
    assert any("killed" in line for line in tab.ask(_VIEWER)["runs"])


def test_a_trace_opens_by_its_address_and_by_the_keyboard_and_closes_again(browser, page):
    tab = browser.open(page)
    link = tab.ask("document.querySelector('#executions tbody a').hash")
    assert tab.ask("document.querySelector('#viewer h3') === null")
    tab.ask("document.querySelector('#executions tbody a').focus()")
    tab.press("Enter", 13)
    assert f"#trace-{tab.ask(_VIEWER)['trace']}" == link
    tab.ask("document.querySelector('#viewer .close').focus()")
    tab.press("Enter", 13)
    assert tab.ask("document.querySelector('#viewer h3') === null && document.activeElement.hash") == link
    again = browser.open(page + link)
    assert f"#trace-{again.ask(_VIEWER)['trace']}" == link


def test_the_table_is_filtered_by_any_word_and_ordered_by_any_column(browser, page):
    tab = browser.open(page)
    tab.ask("document.getElementById('filter').value = 'killed send_email'")
    tab.ask("document.getElementById('filter').dispatchEvent(new Event('input'))")
    left = "[...document.querySelectorAll('#executions tbody tr:not([hidden])')]"
    outcomes = tab.ask(f"{left}.map((row) => row.cells[6].dataset.value)")
    assert outcomes
    assert set(outcomes) == {"killed"}
    tab.ask("document.getElementById('filter').value = ''")
    tab.ask("document.getElementById('filter').dispatchEvent(new Event('input'))")
    tab.click("#executions thead th:nth-child(3) button")
    waits = tab.ask(f"{left}.map((row) => Number(row.cells[2].dataset.value))")
    assert waits == sorted(waits, reverse=True)
    tab.click("#executions thead th:nth-child(3) button")
    assert tab.ask(f"{left}.map((row) => Number(row.cells[2].dataset.value))") == sorted(waits)


# --- what the page forbids --------------------------------------------------------------------------------------------


def test_this_browser_would_have_told_of_errors_and_of_requests(browser, tmp_path):
    bad = tmp_path / "bad.html"
    bad.write_text("<img src='http://mail.invalid/x.png'><script>throw new Error('boom')</script>")
    tab = browser.open(bad.as_uri())
    assert any("boom" in line for line in tab.told())
    assert tab.requested() == ["http://mail.invalid/x.png"]


def test_these_checks_would_have_found_faint_text_and_a_page_that_is_too_wide(browser, tmp_path):
    bad = tmp_path / "bad.html"
    faint, wide = "<p style='color:#999'>faint</p>", "<div style='width:900px'>wide</div>"
    bad.write_text(f"<body style='background:#fff'><main>{faint}{wide}</main>")
    tab = browser.open(bad.as_uri(), width=400)
    assert tab.ask(_CONTRAST)[0] == [2.85, "", "faint"]
    too_wide, out = tab.ask(_WIDE)
    assert too_wide > 0
    assert out == ["DIV wide"]


def test_a_script_that_got_into_the_page_would_not_run(browser, run, tmp_path):
    copy = tmp_path / "injected.html"
    text = (run / "report.html").read_text()
    copy.write_text(text.replace("</h1>", "</h1><script>document.title = 'taken'</script>"))
    tab = browser.open(copy.as_uri())
    assert tab.ask("document.title") != "taken"
    assert any("Content Security Policy" in line for line in tab.told())
