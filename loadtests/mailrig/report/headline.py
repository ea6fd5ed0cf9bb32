"""The top of the page: the verdict, the numbers that everybody asks for, and what the run was."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mailrig.report import charts, tables, words
from mailrig.report.markup import Markup, element, join
from mailrig.report.timeline import percentile
from mailrig.report.view import DAMAGE, View

_HEADLINES: Final = {
    "pass": "The system did what it promises.",
    "fail": "The system broke a promise.",
    "invalid": "The measurement was no good: it says nothing about the system.",
    "unknown": "Not everything could be judged.",
}


def verdict_word(run: View) -> str:
    """The run's verdict; one that was never judged is unknown."""
    return words.clean(run.folder.verdict.get("verdict", "unknown"))


def named(run: View, key: str, otherwise: object) -> object:
    """A value of the verdict, or of run.json."""
    value = run.folder.verdict.get(key)
    value = run.folder.run.get(key) if value is None else value
    return otherwise if value is None else value


def headline(run: View) -> Markup:
    """Verdict, numbers, facts, and what was wrong with the files."""
    verdict = verdict_word(run)
    known = verdict if verdict in _HEADLINES else "unknown"
    judged = bool(run.folder.verdict)
    return element(
        "header",
        element(
            "div",
            element("span", words.MARKS[known], class_="verdict-mark", aria_hidden="true"),
            element(
                "h1", element("span", verdict, class_="verdict-word"), " ", words.clean(named(run, "scenario", "run"))
            ),
            element("p", _HEADLINES[known] if judged else "This run was never judged: there is no verdict.json."),
            element("p", _blame(run), class_="blame"),
            class_=f"verdict v-{known}",
        ),
        _guarded(_tiles, run),
        _guarded(_facts, run),
        _problems(run),
    )


def _blame(run: View) -> str:
    listed = tables.ordered(run.folder.verdict)
    bad = [gate for gate in listed if gate.get("verdict") not in {"pass", "warn"}]
    passed = sum(gate.get("verdict") == "pass" for gate in listed)
    text = f"{passed} of {words.count(len(listed), 'gate')} pass"
    return f"{text}; not: {', '.join(words.clean(gate.get('id')) for gate in bad)}" if bad else text


def _guarded(build: Callable[[View], Markup], run: View) -> Markup:
    """Part of the headline, or why it isn't there."""
    try:
        return build(run)
    except DAMAGE as err:
        return element("p", f"could not be drawn: {type(err).__name__}: {err}", class_="nothing")


def _tiles(run: View) -> Markup:
    asked, ran = run.asked, run.folder.executions
    memory, held = charts.peaks(run.folder)
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
        ("time to accept", _p95(accept), "p95 after warm-up"),
        ("time to settle a send", _p95(settle), "p95 after warm-up"),
        (
            "held",
            words.NOTHING if held is None else f"{held}",
            _of(run, "worker", "held_max", "at most, of {} allowed"),
        ),
        (
            "worker memory",
            words.NOTHING if memory is None else f"{memory:.0f} MiB",
            _of(run, "memory", "total_mib", "peak PSS, of {} MiB"),
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


def _of(run: View, section: str, key: str, text: str) -> str:
    value = run.folder.promise(section, key)
    return text.format(words.number(value)) if value is not None else text.partition(",")[0]


def _facts(run: View) -> Markup:
    folder = run.folder
    started = named(run, "started_ns", None)
    ended = folder.run.get("ended_ns")
    took = ended - started if isinstance(ended, int) and isinstance(started, int) else None
    host = folder.run.get("host")
    facts: list[tuple[str, object]] = [
        ("seed", named(run, "seed", words.NOTHING)),
        ("commit", words.commit(folder.run)),
        ("mutant", named(run, "mutant", "none")),
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
    return words.clean(", ".join(_pair(str(key), value) for key, value in values.items()) or words.NOTHING)


def _pair(key: str, value: object) -> str:
    if key.endswith("_bytes") and isinstance(value, int):
        return f"{key.removesuffix('_bytes')} {words.size(value)}"
    return f"{key} {value}"


def _problems(run: View) -> Markup | None:
    if not run.problems:
        return None
    return element(
        "div",
        element("strong", f"{words.count(len(run.problems), 'problem')} with the run's files"),
        element("ul", [element("li", problem) for problem in run.problems]),
        class_="problems",
        role="note",
    )
