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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from mailrig.report import charts, lanes, tables, traces, words
from mailrig.report.folder import Row, RunFolder, load_spans
from mailrig.report.markup import Child, Markup, element, join
from mailrig.report.plot import Backdrop, Chart
from mailrig.report.timeline import PHASES, Axis, Mark, Request, axis, marks, percentile, phases, requests
from mailrig.report.waterfall import legend, waterfall

_T = TypeVar("_T")
_HERE: Final = Path(__file__).parent
#: What a damaged run may do to a section that expects whole rows.
_DAMAGE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_HEADLINES: Final = {
    "pass": "The system did what it promises.",
    "fail": "The system broke a promise.",
    "invalid": "The measurement was no good: it says nothing about the system.",
    "unknown": "Not everything could be judged.",
}


@dataclass(frozen=True, kw_only=True)
class _Run:
    """What all sections draw from."""

    folder: RunFolder
    axis: Axis | None
    asked: tuple[Request, ...]
    marks: tuple[Mark, ...]
    candidates: traces.Candidates
    spans: tuple[Row, ...]
    problems: tuple[str, ...]

    @property
    def backdrop(self) -> Backdrop | None:
        """What all charts have in common; None when nothing has a time."""
        if self.axis is None:
            return None
        shown = tuple(phase for phase in phases(self.folder) if phase.name in PHASES)
        return Backdrop(axis=self.axis, phases=shown, marks=self.marks)


def render(folder: RunFolder) -> str:
    """The whole page."""
    run = _prepare(folder)
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
        element("title", f"{_verdict(run)}: {words.clean(_named(run, 'scenario', 'run'))}"),
        element("style", Markup(style)),
    )
    body = element(
        "body",
        _PATTERNS,
        element("main", _headline(run), _navigation(), sections),
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


def _prepare(folder: RunFolder) -> _Run:
    """What is computed once; whatever of it a damaged run makes impossible is empty, and is named."""
    damage: list[str] = []
    found = _attempt("traces", lambda: traces.candidates(folder), traces.Candidates(), damage)
    wanted = {c.trace_id for group in (found.send[:1], found.sync[:1], found.killed[:1]) for c in group}
    spans, torn = load_spans(folder.path, wanted)
    return _Run(
        folder=folder,
        axis=_attempt("the time axis", lambda: axis(folder), None, damage),
        asked=_attempt("requests", lambda: requests(folder), (), damage),
        marks=_attempt("marks", lambda: marks(folder), (), damage),
        candidates=found,
        spans=spans,
        problems=(*folder.problems, *torn, *damage),
    )


def _attempt(what: str, compute: Callable[[], _T], empty: _T, damage: list[str]) -> _T:
    try:
        return compute()
    except _DAMAGE as err:
        damage.append(f"{what} can't be made out: {type(err).__name__}: {words.clean(err)}")
        return empty


# --- headline ---------------------------------------------------------------------------------------------------------


def _verdict(run: _Run) -> str:
    return words.clean(run.folder.verdict.get("verdict", "unknown"))


def _named(run: _Run, key: str, otherwise: object) -> object:
    """A value of the verdict, or of run.json."""
    value = run.folder.verdict.get(key)
    value = run.folder.run.get(key) if value is None else value
    return otherwise if value is None else value


def _headline(run: _Run) -> Markup:
    verdict = _verdict(run)
    known = verdict if verdict in _HEADLINES else "unknown"
    judged = bool(run.folder.verdict)
    return element(
        "header",
        element(
            "div",
            element("span", words.MARKS[known], class_="verdict-mark", aria_hidden="true"),
            element(
                "h1", element("span", verdict, class_="verdict-word"), " ", words.clean(_named(run, "scenario", "run"))
            ),
            element("p", _HEADLINES[known] if judged else "This run was never judged: there is no verdict.json."),
            element("p", _blame(run), class_="blame"),
            class_=f"verdict v-{known}",
        ),
        _guarded(_tiles, run),
        _guarded(_facts, run),
        _problems(run),
    )


def _blame(run: _Run) -> str:
    listed = tables.ordered(run.folder.verdict)
    bad = [gate for gate in listed if gate.get("verdict") not in {"pass", "warn"}]
    passed = sum(gate.get("verdict") == "pass" for gate in listed)
    text = f"{passed} of {words.count(len(listed), 'gate')} pass"
    return f"{text}; not: {', '.join(words.clean(gate.get('id')) for gate in bad)}" if bad else text


def _guarded(build: Callable[[_Run], Markup], run: _Run) -> Markup:
    """Part of the headline, or why it isn't there."""
    try:
        return build(run)
    except _DAMAGE as err:
        return element("p", f"could not be drawn: {type(err).__name__}: {err}", class_="nothing")


def _tiles(run: _Run) -> Markup:
    asked, ran = run.asked, run.folder.executions
    memory, held = charts.peaks(run.folder, run.axis)
    accept = [r.accept_ns for r in asked if r.accept_ns is not None and not r.warmup]
    settle = [r.e2e_ns for r in asked if r.e2e_ns is not None and not r.warmup and r.f == "send"]
    accepted = sum(request.answer == "ok" for request in asked)
    settled = sum(request.settled_ns is not None for request in asked)
    outcomes = [row.get("outcome") for row in ran]
    pairs = (
        ("accepted", f"{accepted:,}", f"of {len(asked):,} requests"),
        ("settled", f"{settled:,}", f"of {accepted:,} accepted"),
        (
            "executions",
            f"{len(ran):,}",
            f"{words.count(outcomes.count('retry'), 'retry', 'retries')}, {outcomes.count('killed')} killed",
        ),
        ("time to accept", _p95(accept), "p95, after the warm-up"),
        ("time to settle a send", _p95(settle), "p95, after the warm-up"),
        (
            "held",
            words.NOTHING if held is None else f"{held}",
            _of(run, "worker", "held_max", "at most, of {} allowed"),
        ),
        (
            "worker memory",
            words.NOTHING if memory is None else f"{memory:.0f} MiB",
            _of(run, "memory", "total_mib", "PSS at most, of {} MiB"),
        ),
    )
    return element(
        "dl",
        [
            element("div", element("dt", name), element("dd", value), element("dd", note, class_="chart-note"))
            for name, value, note in pairs
        ],
        class_="tiles",
    )


def _p95(values: Sequence[int]) -> str:
    return words.duration(percentile(values, 95)) if values else words.NOTHING


def _of(run: _Run, section: str, key: str, text: str) -> str:
    value = run.folder.promise(section, key)
    return text.format(words.number(value)) if value is not None else text.partition(",")[0]


def _facts(run: _Run) -> Markup:
    folder = run.folder
    started = _named(run, "started_ns", None)
    ended = folder.run.get("ended_ns")
    took = ended - started if isinstance(ended, int) and isinstance(started, int) else None
    host = folder.run.get("host")
    facts: list[tuple[str, object]] = [
        ("seed", _named(run, "seed", words.NOTHING)),
        ("commit", folder.run.get("commit") or words.NOTHING),
        ("mutant", _named(run, "mutant", "none")),
        ("began", words.moment(started if isinstance(started, int) else None)),
        ("took", words.duration(took)),
        ("host", _flat(host) if isinstance(host, Mapping) else words.clean(host or words.NOTHING)),
    ]
    versions = folder.run.get("versions")
    if isinstance(versions, Mapping) and versions:
        facts.append(("versions", _flat(versions)))
    about = folder.scenario.get("description")
    listed = element(
        "dl",
        [element("div", element("dt", key), element("dd", words.clean(value))) for key, value in facts],
        class_="facts",
    )
    return join([element("p", words.clean(about), class_="about") if about else None, listed])


def _flat(values: Mapping[str, object]) -> str:
    return words.clean(", ".join(f"{key} {value}" for key, value in values.items()) or words.NOTHING)


def _problems(run: _Run) -> Markup | None:
    if not run.problems:
        return None
    return element(
        "div",
        element("strong", f"{words.count(len(run.problems), 'problem')} with the run's files"),
        element("ul", [element("li", problem) for problem in run.problems]),
        class_="problems",
        role="note",
    )


# --- sections ---------------------------------------------------------------------------------------------------------


def _gates(run: _Run, _drawn: list[Chart]) -> Child:
    return tables.gates(run.folder.verdict)


def _timeline(run: _Run, drawn: list[Chart]) -> Child:
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


def _workers(run: _Run, drawn: list[Chart]) -> Child:
    backdrop = run.backdrop
    chart = lanes.lanes(run.folder, backdrop) if backdrop else None
    return _figures([chart], backdrop.axis, drawn) if backdrop and chart else None


def _memory(run: _Run, drawn: list[Chart]) -> Child:
    backdrop = run.backdrop
    if backdrop is None or not run.folder.memory:
        return None
    found = [charts.memory_total(run.folder, backdrop), charts.memory_process(run.folder, backdrop)]
    return _figures(found, backdrop.axis, drawn) if any(found) else None


def _traces(run: _Run, _drawn: list[Chart]) -> Child:
    found, parts, seen = run.candidates, [], set[str]()
    for title, group in (
        ("Slowest send", found.send),
        ("Slowest sync", found.sync),
        ("A killed execution", found.killed),
    ):
        if not group:
            parts.append(_no_trace(title, "none in this run"))
        elif group[0].trace_id in seen:
            parts.append(_no_trace(title, f"the trace {group[0].trace_id} above"))
        else:
            seen.add(group[0].trace_id)
            parts.append(_trace(run, title, group[0]))
    return [*parts, tables.slowest(found)] if run.candidates != traces.Candidates() else None


def _no_trace(title: str, why: str) -> Markup:
    return element("div", element("h3", title), element("p", why, class_="nothing"), class_="trace")


def _trace(run: _Run, title: str, chosen: traces.Candidate) -> Markup:
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


def _outcomes(run: _Run, _drawn: list[Chart]) -> Child:
    found = [tables.outcomes(run.folder), tables.requests(run.folder, run.asked)]
    return found if any(found) else None


def _nemesis(run: _Run, _drawn: list[Chart]) -> Child:
    done, fired = tables.nemesis(run.folder, run.axis), tables.faults(run.folder, run.marks, run.axis)
    if done is None and fired is None:
        return element("p", "Nothing was done to the system in this run.", class_="nothing")
    return [done, fired]


def _tenants(run: _Run, _drawn: list[Chart]) -> Child:
    return tables.tenants(run.folder, run.asked)


def _files(run: _Run, _drawn: list[Chart]) -> Child:
    return [element("p", _THINNING, class_="note"), tables.files(run.folder.path)]


_THINNING: Final = (
    f"The files hold everything; this page thins big runs. Rates and percentiles are per bin, of which there are at most "
    f"600. Samples of queues and memory are the highest of each of {charts.SAMPLES_MAX:,} equal times. Beyond "
    f"{charts.DOTS_MAX:,} requests only the slowest of each bin and kind is a dot. Beyond {lanes.BARS_MAX:,} executions "
    "those that did not simply succeed are drawn first, then the longest. Of a trace's spans at most 150 are drawn, "
    "those that say something first, each with its ancestors."
)
_Build = Callable[[_Run, list[Chart]], Child]
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


def _section(title: str, id_: str, build: _Build, run: _Run, drawn: list[Chart]) -> Markup:
    try:
        content = build(run, drawn)
    except _DAMAGE as err:
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
