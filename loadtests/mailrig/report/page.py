"""report.html: one page that needs nothing but itself.

Rule 1: a section that has no data says so, and one that can't be drawn says why; the rest of the page is there.
Rule 2: nothing is fetched: style, script and images are inline, and the page's own policy forbids all else, including
any script but ours.
Rule 3: big runs are thinned (charts, lanes, waterfall say how), so that the page stays below 3 MB.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mailrig.report import charts, lanes, tables, traces, words
from mailrig.report.headline import headline, named, verdict_word
from mailrig.report.markup import Child, Markup, element, join
from mailrig.report.plot import Chart
from mailrig.report.timeline import BINS_MAX, Axis
from mailrig.report.view import DAMAGE, View
from mailrig.report.waterfall import SPANS_MAX, legend, waterfall

_HERE: Final = Path(__file__).parent


def render(run: View) -> str:
    """The whole page."""
    drawn: list[Chart] = []
    sections = [_section(title, id_, build, run, drawn) for id_, title, build in _SECTIONS]
    script, style = _asset("page.js"), _asset("page.css")
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src '{_digest(script)}'"
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
        element("script", Markup(_data(run.axis, drawn)), type="application/json", id="data"),
        element("script", Markup(script)),
    )
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _asset(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _data(axis: Axis | None, drawn: Sequence[Chart]) -> str:
    """The series for the script. ``<`` is written as an escape: the text stands inside an element."""
    span = [axis.seconds(axis.start_ns), axis.seconds(axis.end_ns)] if axis else [0, 1]
    data = {"span": span, "charts": {chart.id: chart.data(axis) for chart in drawn if axis and chart.series}}
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


# --- sections ---------------------------------------------------------------------------------------------------------


def _gates(run: View, _drawn: list[Chart]) -> Child:
    return tables.gates(run.folder.verdict)


def _timeline(run: View, drawn: list[Chart]) -> Child:
    backdrop, folder = run.backdrop, run.folder
    if backdrop is None:
        return None
    found = [
        lanes.events(backdrop),
        charts.throughput(run.asked, backdrop),
        charts.accept_latency(run.asked, backdrop),
        charts.e2e_latency(run.asked, backdrop),
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
    chart = lanes.lanes(run.folder, backdrop) if backdrop else None
    return _figures([chart], backdrop.axis, drawn) if backdrop and chart else None


def _memory(run: View, drawn: list[Chart]) -> Child:
    backdrop = run.backdrop
    if backdrop is None or not run.folder.memory:
        return None
    found = [charts.memory_total(run.folder, backdrop), charts.memory_process(run.folder, backdrop)]
    return _figures(found, backdrop.axis, drawn) if any(found) else None


def _traces(run: View, _drawn: list[Chart]) -> Child:
    found, parts, seen = run.candidates, [], set[str]()
    for title, group in (
        ("Slowest send", found.send),
        ("Slowest sync", found.sync),
        ("A killed execution", found.killed),
    ):
        # A killed execution often is the slowest send as well: another one tells more than the same again.
        chosen = (
            next((c for c in group if c.trace_id not in seen), None)
            if group is found.killed
            else next(iter(group), None)
        )
        if chosen is None:
            parts.append(_no_trace(title, f"the trace {group[0].trace_id} above" if group else "none in this run"))
        else:
            seen.add(chosen.trace_id)
            parts.append(_trace(run, title, chosen))
    return [*parts, tables.slowest(found)] if run.candidates != traces.Candidates() else None


def _no_trace(title: str, why: str) -> Markup:
    return element("div", element("h3", title), element("p", why, class_="nothing"), class_="trace")


def _trace(run: View, title: str, chosen: traces.Candidate) -> Markup:
    rows = traces.tree(run.spans, chosen.trace_id)
    if not rows:
        return _no_trace(title, f"trace {chosen.trace_id} has no spans")
    note = f"{words.duration(chosen.took_ns)} from the intended time to the end of the job"
    if chosen in run.candidates.killed:
        note = f"{chosen.what}; {words.duration(chosen.took_ns)} from the job's creation to its end"
    return element(
        "div",
        element("h3", title, " ", element("span", note, class_="chart-note")),
        element(
            "p",
            "trace ",
            element("code", chosen.trace_id),
            " · task ",
            element("code", chosen.task_id),
            " · ",
            words.count(len(rows), "span"),
            class_="note",
        ),
        legend(rows),
        waterfall(rows),
        class_="trace",
    )


def _outcomes(run: View, _drawn: list[Chart]) -> Child:
    found = [tables.outcomes(run.folder), tables.requests(run.folder, run.asked)]
    return found if any(found) else None


def _nemesis(run: View, _drawn: list[Chart]) -> Child:
    done, fired = tables.nemesis(run.folder, run.axis), tables.faults(run.folder, run.marks, run.axis)
    if done is None and fired is None:
        return element("p", "Nothing was done to the system in this run.", class_="nothing")
    return [done, fired]


def _tenants(run: View, _drawn: list[Chart]) -> Child:
    return tables.tenants(run.folder, run.asked)


def _files(run: View, _drawn: list[Chart]) -> Child:
    return [element("p", _THINNING, class_="note"), tables.files(run.folder.path)]


_THINNING: Final = (
    "The files hold everything; this page thins big runs. Rates and percentiles are per bin, of which there are at "
    f"most {BINS_MAX}. Samples of queues and memory are the highest of each of {charts.SAMPLES_MAX:,} equal times. "
    f"Beyond {charts.DOTS_MAX:,} requests only the slowest of each bin and kind is a dot. Beyond {lanes.BARS_MAX:,} "
    "executions those that did not simply succeed are drawn first, then the longest. Of a trace's spans at most "
    f"{SPANS_MAX} are drawn, those that say something first, each with its ancestors."
)
_Build = Callable[[View, list[Chart]], Child]
_SECTIONS: Final[tuple[tuple[str, str, _Build], ...]] = (
    ("gates", "Gates", _gates),
    ("timeline", "Load over time", _timeline),
    ("workers", "Worker lanes", _workers),
    ("memory", "Memory", _memory),
    ("traces", "Waterfalls", _traces),
    ("outcomes", "Outcomes and retries", _outcomes),
    ("nemesis", "What was done to it", _nemesis),
    ("tenants", "Tenants", _tenants),
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
