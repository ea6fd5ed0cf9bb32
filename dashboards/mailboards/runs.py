"""The board that compares runs of the rig: over what ``mailrig export`` writes, told apart by the label run.

Each figure is that of the whole run, from the counters' last values: runs need not be of the same length. The export
lets all begin at the same time, so that their courses lie on each other. Called by ``__main__``.
"""

from __future__ import annotations

from typing import Final

from mailboards import names, promises
from mailboards.board import Board, Limit, Panel, Query, Row, Variable
from mailboards.promql import Series, over

_RUN: Final = "$run"
_WHOLE: Final = "$__range"


def _last(series: Series, by: tuple[str, ...] = ("run",), *, part: str = "", **where: str) -> str:
    """What a counter had come to at the end of its run; all runs count from zero."""
    series.check(by)
    return over("sum", by, f"max_over_time({series.select(part, run=_RUN, **where)}[{_WHOLE}])")


def _quantile(q: float, series: Series, by: tuple[str, ...] = ("run",), **where: str) -> str:
    return f"histogram_quantile({q:g}, {_last(series, ('le', *by), part='bucket', **where)})"


def _mean(series: Series, by: tuple[str, ...] = ("run",)) -> str:
    return f"{_last(series, by, part='sum')} / ({_last(series, by, part='count')} > 0)"


def _peak(function: str, by: tuple[str, ...], series: Series, **where: str) -> str:
    return over(function, by, f"max_over_time({series.select(run=_RUN, **where)}[{_WHOLE}])")


def _passed() -> str:
    return f"max_over_time({names.GATE_PASSED.select(run=_RUN)}[{_WHOLE}])"


def _gates() -> str:
    return over("count", ("run",), _passed())


_FIGURES: Final = Row(
    title="Run by run",
    panels=(
        Panel(
            title="Runs",
            look_for="Which runs these are. Only runs of one scenario can be compared; the verdict says whether a run "
            "may be believed at all.",
            kind="table",
            queries=(
                Query(expr=_peak("max", names.RUN.labels, names.RUN), legend="is there"),
                Query(expr=over("count", ("run",), f"{_passed()} == 0") + f" or {_gates()} * 0", legend="not passed"),
                Query(expr=_gates(), legend="gates"),
            ),
            columns=names.RUN.labels,
            width=24,
            height=6,
        ),
        Panel(
            title="Figures of each run",
            look_for="A row a run, figures of the whole run. Compare runs of one scenario and one machine: what "
            "differs by less than two runs of the same commit is noise.",
            kind="table",
            queries=(
                Query(expr=_last(names.SUCCESS), legend="succeeded"),
                Query(expr=f"{_last(names.FAILURE)} or {_last(names.SUCCESS)} * 0", legend="failed"),
                Query(expr=_last(names.RETRY), legend="retries"),
                Query(
                    expr=f"{_last(names.EXECUTIONS, outcome='killed')} or {_last(names.SUCCESS)} * 0", legend="killed"
                ),
                Query(expr=_last(names.RECIPIENTS, state="sent"), legend="sent"),
                Query(expr=_last(names.RECIPIENTS, state="unknown"), legend="unknown"),
                Query(expr=_quantile(0.5, names.DURATION), legend="duration p50, s"),
                Query(expr=_quantile(0.95, names.DURATION), legend="duration p95, s"),
                Query(expr=_quantile(0.95, names.QUEUE_TIME), legend="wait p95, s"),
                Query(expr=_mean(names.WORKER_TIME), legend="work per job, s"),
            ),
            columns=("run",),
            width=24,
            height=9,
        ),
    ),
)

_TIMES: Final = Row(
    title="Times",
    panels=(
        Panel(
            title="Duration p95 by queue",
            look_for="How long executions of a queue ran, run beside run.",
            kind="bars",
            queries=(Query(expr=_quantile(0.95, names.DURATION, ("queue", "run")), legend="{{queue}} {{run}}"),),
            unit="s",
        ),
        Panel(
            title="Wait p95 by queue",
            look_for="How long jobs waited for a slot. Longer with the same durations: fewer slots, or more load.",
            kind="bars",
            queries=(Query(expr=_quantile(0.95, names.QUEUE_TIME, ("queue", "run")), legend="{{queue}} {{run}}"),),
            unit="s",
        ),
        Panel(
            title="Mail steps p95",
            look_for="Which step with the mail servers makes the difference between two runs.",
            kind="bars",
            queries=(
                Query(
                    expr=_quantile(0.95, names.STEP, ("protocol", "step", "run")),
                    legend="{{protocol}} {{step}} {{run}}",
                ),
            ),
            unit="s",
        ),
    ),
)

_RESOURCES: Final = Row(
    title="Memory and backlog",
    panels=(
        Panel(
            title="Largest process",
            look_for="Peak of the proportional set size, against the budget of a process.",
            kind="bars",
            queries=(Query(expr=_peak("max", ("run",), names.MEMORY, kind="pss"), legend="{{run}}"),),
            unit="bytes",
            limits=(Limit(value=promises.PROCESS_BYTES),),
        ),
        Panel(
            title="Deepest backlog",
            look_for="Most messages ready at once, by queue.",
            kind="bars",
            queries=(
                Query(expr=_peak("max", ("queue", "run"), names.DEPTH, state="ready"), legend="{{queue}} {{run}}"),
            ),
        ),
        Panel(
            title="Oldest due job",
            look_for="The longest that a due job was seen waiting.",
            kind="bars",
            queries=(Query(expr=_peak("max", ("queue", "run"), names.OLDEST), legend="{{queue}} {{run}}"),),
            unit="s",
        ),
    ),
)

_GATES: Final = Row(
    title="Gates",
    panels=(
        Panel(
            title="What each gate observed",
            look_for="Gates side by side, in the unit of each one's check. passed: 1, or 0 for one that failed, warned "
            "or knew nothing.",
            kind="table",
            queries=(
                Query(expr=_peak("max", ("gate", "run"), names.GATE_OBSERVED), legend="observed"),
                Query(expr=_peak("max", ("gate", "run"), names.GATE_PASSED), legend="passed"),
            ),
            columns=("gate", "run"),
            width=24,
            height=12,
        ),
    ),
)

_COURSE: Final = Row(
    title="Course",
    panels=(
        Panel(
            title="Settled jobs",
            look_for="Successes so far, from the start of each run: a flat stretch is a fault at work.",
            queries=(Query(expr=over("sum", ("run",), names.SUCCESS.select(run=_RUN)), legend="{{run}}"),),
            width=12,
        ),
        Panel(
            title="Backlog",
            look_for="Ready messages from the start of each run: who builds a queue, and how fast it is worked off.",
            queries=(Query(expr=over("sum", ("run",), names.DEPTH.select(run=_RUN, state="ready")), legend="{{run}}"),),
            width=12,
        ),
    ),
)

BOARD: Final = Board(
    uid="mailrig-runs",
    title="Mail: runs of the rig",
    description="Runs side by side: what `mailrig export` wrote, loaded by `promtool tsdb create-blocks-from "
    "openmetrics`.",
    rows=(_FIGURES, _TIMES, _RESOURCES, _COURSE, _GATES),
    variables=(Variable(label="run", of=names.SUCCESS),),
    since="now-7d",
    refresh="",
)
