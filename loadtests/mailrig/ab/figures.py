"""What is compared: one number of a run each, with the margin and the floor below which a difference is none.

Never decides. Called by course (reads runs), decision and table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mailrig.checkers import METRICS
from mailrig.checkers.expression import AGGREGATES, CheckError, parse_metric
from mailrig.evidence import Evidence
from mailrig.scenario import Contract, RigError, Scenario
from mailrig.statistics import percentile

#: What is ignored beside the margin: seconds, bytes, or plain numbers.
FLOORS: Final[Mapping[str, float]] = {"s": 0.001, "B": 4 * 2.0**20, "": 0.5}
MARGIN: Final = 0.05
_RANK: Final = re.compile(r"p(\d{1,2}(?:\.\d+)?|100)", re.ASCII)


class FigureError(RigError):
    """A figure can't be read, or a run does not have it."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number of a run; more of it is worse."""

    #: As a gate names it, with labels.
    metric: str
    #: As a gate writes it: ``p95``, ``mean``, ``max``; empty for the only sample.
    aggregate: str
    #: Share by which the second side may be worse.
    margin: float = MARGIN
    #: By so much it may be worse in any case, in seconds, bytes or plain; None for what is usual for the kind.
    floor: float | None = None

    def __str__(self) -> str:
        return f"{self.metric} {self.aggregate}".strip()


#: From the steadiest to the one that matters most and varies most.
FIGURES: Final = (
    Figure(metric="worker.cpu_per_execution", aggregate="", floor=0.0002),
    Figure(metric="task.run_time{queue=send}", aggregate="p50"),
    Figure(metric="task.e2e{queue=send}", aggregate="p95", margin=0.1, floor=0.005),
    Figure(metric="memory.total", aggregate="max"),
)


def parse_figure(text: str) -> Figure:
    """``METRIC[{LABEL=VALUE}] [AGGREGATE]``; one that is compared anyway keeps its margin and floor.

    Raises:
        FigureError: it is malformed, or no metric has that name.
    """
    metric, _, aggregate = text.strip().partition(" ")
    aggregate = aggregate.strip()
    try:
        name, _ = parse_metric(metric)
    except CheckError as err:
        raise FigureError(str(err)) from err
    if name not in METRICS:
        raise FigureError(f"metric {name!r} is not known; allowed: {', '.join(sorted(METRICS))}")
    if aggregate and aggregate not in AGGREGATES and not _RANK.fullmatch(aggregate):
        raise FigureError(f"figure {text!r}: {aggregate!r} is not known; allowed: {', '.join(AGGREGATES)}, pN")
    usual = next((figure for figure in FIGURES if (figure.metric, figure.aggregate) == (metric, aggregate)), None)
    return usual or Figure(metric=metric, aggregate=aggregate)


def with_margin(figures: Sequence[Figure], margin: float | None) -> tuple[Figure, ...]:
    """The figures with another margin, if one is given."""
    return tuple(figures) if margin is None else tuple(replace(figure, margin=margin) for figure in figures)


def read_figure(figure: Figure, evidence: Evidence, contract: Contract, scenario: Scenario) -> tuple[float, str]:
    """What a run says, and of which kind it is.

    Raises:
        FigureError: the run has no such samples, or more than the figure picks from.
    """
    name, labels = parse_metric(figure.metric)
    found = METRICS[name](evidence, contract, scenario)
    values = [s.value for s in found.samples if all(s.labels.get(key) == value for key, value in labels.items())]
    if not values:
        raise FigureError(f"{figure}: {found.reason or 'no sample has these labels'}")
    if not figure.aggregate and len(values) > 1:
        raise FigureError(f"{figure}: {len(values)} samples, say {', '.join(AGGREGATES)} or pN")
    rank = _RANK.fullmatch(figure.aggregate)
    if rank:
        return percentile(values, float(rank[1])), found.kind
    return float(AGGREGATES[figure.aggregate or "max"](values)), found.kind
