"""A run as all forms of the report see it: what is computed once, and what a damaged run made impossible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from mailrig.report import traces, words, workers
from mailrig.report.folder import Row, RunFolder, load_spans
from mailrig.report.plot import Backdrop
from mailrig.report.timeline import PHASES, Axis, Mark, Request, axis, marks, phases, requests

_T = TypeVar("_T")
#: What a damaged run may do to code that expects whole rows.
DAMAGE: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, kw_only=True)
class View:
    """What the report is made from."""

    folder: RunFolder
    #: None when nothing in the run has a time.
    axis: Axis | None
    asked: tuple[Request, ...]
    marks: tuple[Mark, ...]
    candidates: traces.Candidates
    #: Of the traces that may be drawn: the slowest ones, and the first that were killed.
    spans: tuple[Row, ...]
    #: All that is wrong with the run's files.
    problems: tuple[str, ...]

    @property
    def backdrop(self) -> Backdrop | None:
        """What all charts have in common; None when nothing has a time."""
        if self.axis is None:
            return None
        shown = tuple(phase for phase in phases(self.folder) if phase.name in PHASES)
        return Backdrop(axis=self.axis, phases=shown, marks=self.marks)


def view(folder: RunFolder) -> View:
    """What is computed once; whatever of it a damaged run makes impossible is empty, and is named."""
    damage: list[str] = []
    found = _attempt("traces", lambda: traces.candidates(folder), traces.Candidates(), damage)
    wanted = {c.trace_id for group in (found.send[:1], found.sync[:1], found.killed[:3]) for c in group}
    spans, torn = load_spans(folder.path, wanted)
    time = _attempt("the time axis", lambda: axis(folder), None, damage)
    none: tuple[Mark, ...] = ()
    done = _attempt("marks", lambda: marks(folder), none, damage)
    kills = _attempt("kills", lambda: workers.kills(folder, time), none, damage) if time else none
    return View(
        folder=folder,
        axis=time,
        asked=_attempt("requests", lambda: requests(folder), (), damage),
        marks=tuple(sorted((*done, *kills), key=lambda mark: mark.time_ns)),
        candidates=found,
        spans=spans,
        problems=(*folder.problems, *torn, *damage),
    )


def _attempt(what: str, compute: Callable[[], _T], empty: _T, damage: list[str]) -> _T:
    try:
        return compute()
    except DAMAGE as err:
        damage.append(f"{what} can't be made out: {type(err).__name__}: {words.clean(err)}")
        return empty
