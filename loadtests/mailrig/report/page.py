"""report.html: one page that needs nothing but itself.

Rule 1: a section that has no data says so, and one that can't be drawn says why; the rest of the page is there.
Rule 2: nothing is fetched: style, script and images are inline, and the page's own policy forbids all else, including
any script but ours.
Rule 3: big runs are thinned (charts, lanes, bundle say how), so that the page stays below 3 MB.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mailrig.report import bundle, charts, lanes, slowest, tables, words
from mailrig.report.headline import headline, named, verdict_word
from mailrig.report.markup import Child, Markup, element, join
from mailrig.report.plot import Chart
from mailrig.report.timeline import BINS_MAX, Axis
from mailrig.report.view import DAMAGE, View

_HERE: Final = Path(__file__).parent


def render(run: View) -> str:
    """The whole page."""
    drawn: list[Chart] = []
    sections = [_section(title, id_, build, run, drawn) for id_, title, build in _SECTIONS]
    scripts, style = [_asset(name) for name in ("page.js", "traces.js")], _asset("page.css") + _asset("traces.css")
    digests = " ".join(f"'{_digest(script)}'" for script in scripts)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {digests}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{verdict_word(run)}: {words.clean(named(run, 'scenario', 'run'))}"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        _PATTERNS,
        element("main", headline(run), _navigation(), sections),
        element("div", id="tip", role="status", hidden=True),
        element("script", Markup(_data(run, drawn)), type="application/json", id="data"),
        [element("script", Markup(script)) for script in scripts],
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data(run: View, drawn: Sequence[Chart]) -> str:
    """Series and traces for the scripts. ``<`` is written as an escape: the text stands inside an element."""
    axis = run.axis
    span = [axis.seconds(axis.start_ns), axis.seconds(axis.end_ns)] if axis else [0, 1]
    series = {chart.id: chart.data(axis) for chart in drawn if axis and chart.series}
    data = {"span": span, "charts": series, "traces": run.bundle.data, "jaeger": run.links.jaeger}
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


# --- sections ---------------------------------------------------------------------------------------------------------


def _gates(run: View, _drawn: list[Chart]) -> Child:
    return tables.gates(run.folder.verdict, run.links)


def _timeline(run: View, drawn: list[Chart]) -> Child:
    backdrop, folder = run.backdrop, run.folder
    if backdrop is None:
        return None
    found = [
        lanes.events(backdrop),
        charts.throughput(run.asked, backdrop),
        charts.accept_latency(run.asked, backdrop, run.links),
        charts.e2e_latency(run.asked, backdrop, run.links),
        charts.queue_depth(folder, backdrop),
        charts.held(folder, backdrop),
    ]
    missing = [
        name
        for name, chart in zip(
            ("events", "throughput", "time to accept", "time to settle", "queue depth", "held and running"),
            found,
            strict=True,
        )
        if chart is None
    ]
    note = element("p", f"Zero is the start of the warm-up, {words.moment(backdrop.axis.origin_ns)}.", class_="note")
    return [
        note,
        _figures(found, backdrop.axis, drawn),
        element("p", f"No data for: {', '.join(missing)}.", class_="nothing") if missing else None,
    ]


def _figures(found: Sequence[Chart | None], axis: Axis, drawn: list[Chart]) -> Markup:
    own = [chart for chart in found if chart is not None]
    drawn += own
    return join(chart.figure(axis) for chart in own)


def _workers(run: View, drawn: list[Chart]) -> Child:
    backdrop = run.backdrop
    chart = lanes.lanes(run.folder, backdrop, run.links.carried) if backdrop else None
    return _figures([chart], backdrop.axis, drawn) if backdrop and chart else None


def _memory(run: View, drawn: list[Chart]) -> Child:
    backdrop = run.backdrop
    if backdrop is None or not run.folder.memory:
        return None
    found = [charts.memory_total(run.folder, backdrop), charts.memory_process(run.folder, backdrop)]
    return _figures(found, backdrop.axis, drawn) if any(found) else None


def _traces(run: View, _drawn: list[Chart]) -> Child:
    return slowest.section(run.shown, len(run.folder.executions), run.wholeness, run.links)


def _outcomes(run: View, _drawn: list[Chart]) -> Child:
    found = [tables.outcomes(run.folder), tables.requests(run.folder, run.asked)]
    return found if any(found) else None


def _nemesis(run: View, _drawn: list[Chart]) -> Child:
    done, fired = tables.nemesis(run.folder, run.axis, run.links), tables.faults(run.folder, run.marks, run.axis)
    if done is None and fired is None:
        return element("p", "Nothing was done to the system in this run.", class_="nothing")
    return [done, fired]


def _tenants(run: View, _drawn: list[Chart]) -> Child:
    return tables.tenants(run.folder, run.asked)


def _leaks(run: View, _drawn: list[Chart]) -> Child:
    return tables.leaks(run.folder)


def _files(run: View, _drawn: list[Chart]) -> Child:
    return [element("p", _THINNING, class_="note"), tables.files(run.folder.path)]


_THINNING: Final = (
    "The files hold everything; this page thins big runs. Rates and percentiles are per bin, of which there are at "
    f"most {BINS_MAX}. Samples of queues and memory are the highest of each of {charts.SAMPLES_MAX:,} equal times. "
    f"Beyond {charts.DOTS_MAX:,} requests only the slowest of each bin and kind is a dot. Beyond {lanes.BARS_MAX:,} "
    "executions those that did not simply succeed are drawn first, then the longest. Of a trace's spans at most "
    f"{bundle.SPANS_MAX} are drawn, those that say something first, each with its ancestors."
)
_Build = Callable[[View, list[Chart]], Child]
_SECTIONS: Final[tuple[tuple[str, str, _Build], ...]] = (
    ("gates", "Gates", _gates),
    ("timeline", "Load over time", _timeline),
    ("workers", "Worker lanes", _workers),
    ("traces", "Slowest executions", _traces),
    ("memory", "Memory", _memory),
    ("outcomes", "Outcomes and retries", _outcomes),
    ("nemesis", "What was done to it", _nemesis),
    ("tenants", "Tenants", _tenants),
    ("leaks", "Search for secrets", _leaks),
    ("files", "Files of the run", _files),
)


def _section(title: str, id_: str, build: _Build, run: View, drawn: list[Chart]) -> Markup:
    try:
        content = build(run, drawn)
    except DAMAGE as err:
        content = element("p", f"could not be drawn: {type(err).__name__}: {err}", class_="nothing")
    shown = element("p", "no data", class_="nothing") if content is None else content
    return element("section", element("h2", title, id=f"h-{id_}"), shown, id=id_, aria_labelledby=f"h-{id_}")


def _navigation() -> Markup:
    links = [element("a", title, href=f"#{id_}") for id_, title, _ in _SECTIONS]
    return element("nav", links, aria_label="sections")


#: Hatching for what was killed; shapes of all charts refer to it.
_PATTERNS: Final = Markup(
    '<svg class="patterns" aria-hidden="true"><defs>'
    '<pattern id="hatch-killed" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="6" height="6" class="hatch-ground"/><rect width="3" height="6" class="hatch-stripe"/>'
    "</pattern></defs></svg>"
)
