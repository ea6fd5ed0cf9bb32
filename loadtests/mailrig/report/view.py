"""A run as all forms of the report see it: what is computed once, and what a damaged run made impossible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from mailrig.report import breakdown, bundle, links, traces, words, workers
from mailrig.report.bundle import Bundle
from mailrig.report.census import census, sentence
from mailrig.report.executions import Execution, executions, picked
from mailrig.report.folder import RunFolder, load_spans
from mailrig.report.links import Links
from mailrig.report.loglines import log_lines
from mailrig.report.plot import Backdrop
from mailrig.report.slowest import ROWS_MAX, Shown
from mailrig.report.tables import details, ordered
from mailrig.report.timeline import PHASES, Axis, Mark, Request, axis, marks, phases, requests

_T = TypeVar("_T")
#: What a damaged run may do to code that expects whole rows.
DAMAGE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
#: So many spans are held in memory at most; a single trace may have more, and is then left out.
SPANS_LOADED_MAX: Final = 25_000


@dataclass(frozen=True, kw_only=True)
class View:
    """What the report is made from."""

    folder: RunFolder
    #: None when nothing in the run has a time.
    axis: Axis | None
    asked: tuple[Request, ...]
    marks: tuple[Mark, ...]
    #: Executions that are worth a row, those most worth it first.
    shown: tuple[Shown, ...] = ()
    #: The traces that go into the page.
    bundle: Bundle = field(default_factory=Bundle)
    links: Links = field(default_factory=Links)
    #: How whole the run's traces are, in a sentence.
    wholeness: str = ""
    #: All that is wrong with the run's files.
    problems: tuple[str, ...]

    @property
    def backdrop(self) -> Backdrop | None:
        """What all charts have in common; None when nothing has a time."""
        if self.axis is None:
            return None
        shown = tuple(phase for phase in phases(self.folder) if phase.name in PHASES)
        return Backdrop(axis=self.axis, phases=shown, marks=self.marks)


@dataclass(frozen=True, kw_only=True)
class _Traced:
    shown: tuple[Shown, ...] = ()
    bundle: Bundle = field(default_factory=Bundle)
    links: Links = field(default_factory=Links)
    wholeness: str = ""
    torn: tuple[str, ...] = ()


def view(folder: RunFolder) -> View:
    """What is computed once; whatever of it a damaged run makes impossible is empty, and is named."""
    damage: list[str] = []
    time = _attempt("the time axis", lambda: axis(folder), None, damage)
    none: tuple[Mark, ...] = ()
    done = _attempt("marks", lambda: marks(folder), none, damage)
    kills = _attempt("kills", lambda: workers.kills(folder, time), none, damage) if time else none
    traced = _attempt("traces", lambda: _traced(folder), _Traced(), damage)
    return View(
        folder=folder,
        axis=time,
        asked=_attempt("requests", lambda: requests(folder), (), damage),
        marks=tuple(sorted((*done, *kills), key=lambda mark: mark.time_ns)),
        shown=traced.shown,
        bundle=traced.bundle,
        links=traced.links,
        wholeness=traced.wholeness,
        problems=(*folder.problems, *traced.torn, *damage),
    )


def _attempt(what: str, compute: Callable[[], _T], empty: _T, damage: list[str]) -> _T:
    try:
        return compute()
    except DAMAGE as err:
        damage.append(f"{what} can't be made out: {type(err).__name__}: {words.clean(err)}")
        return empty


# --- the traces of a page ---------------------------------------------------------------------------------------------


def _traced(folder: RunFolder) -> _Traced:
    known = links.trace_of(folder)
    found, counted = executions(folder), census(folder.path)
    ranked = list(picked(found, _blamed(folder, known)))
    wanted = _affordable([e.trace_id for e, _ in ranked], counted.sizes)
    spans, torn = load_spans(folder.path, wanted)
    trees = traces.trees(spans)
    logs = log_lines(folder.path, {id_: trace for id_, trace in known.items() if trace in trees})
    carried = bundle.bundle(((trace, trees[trace]) for trace in wanted if trace in trees), logs)
    spent = {row.execution_id: found for rows in trees.values() for row, found in breakdown.executions(rows)}
    return _Traced(
        shown=tuple(_shown(ranked[:ROWS_MAX], spent)),
        bundle=carried,
        links=Links(known=known, carried=carried.index, jaeger=links.jaeger_url(folder.run)),
        wholeness=sentence(counted, found, _sample(folder)),
        torn=torn,
    )


def _sample(folder: RunFolder) -> float:
    value = folder.run.get("trace_sample")
    return value if isinstance(value, int | float) and not isinstance(value, bool) else 1.0


def _blamed(folder: RunFolder, known: Mapping[str, str]) -> dict[str, str]:
    """The traces that the cases of gates name which did not pass, each with its gate."""
    found: dict[str, str] = {}
    for gate in ordered(folder.verdict):
        if gate.get("verdict") != "pass":
            for trace_id in links.named(details(gate), known):
                found.setdefault(trace_id, words.clean(gate.get("id")))
    return found


def _affordable(trace_ids: Sequence[str], sizes: Mapping[str, int]) -> list[str]:
    """The first traces whose spans go into memory, each once."""
    found, spans = [], 0
    for trace_id in dict.fromkeys(trace_ids):
        size = sizes.get(trace_id, 0)
        if size and spans + size <= SPANS_LOADED_MAX:
            found.append(trace_id)
            spans += size
        if len(found) == bundle.TRACES_MAX:
            break
    return found


def _shown(ranked: Sequence[tuple[Execution, str]], spent: Mapping[str, breakdown.Breakdown]) -> Iterator[Shown]:
    """Spans know more than the row does."""
    for execution, why in ranked:
        yield Shown(execution=execution, spent=spent.get(execution.execution_id, execution.breakdown), why=why)
