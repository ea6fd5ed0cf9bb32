"""The board of the queues: how much waits, in which state, for how long, and in which order it is served.

Called by ``__main__``.
"""

from __future__ import annotations

from typing import Final

from mailboards import names, promises, rules
from mailboards.alerts import SEND_AGE_S_MAX
from mailboards.board import Board, Limit, Panel, Query, Row, Variable
from mailboards.promql import over, quantile, ranked, rate, total

_QUEUE: Final = "$queue"
_BY: Final = ("queue",)


def _column(expr: str, legend: str) -> Query:
    # Nothing but the queue: what else a series is told apart by would be a column of its own.
    return Query(expr=ranked(over("max", _BY, expr), promises.QUEUES), legend=legend)


_ORDER: Final = Row(
    title="In the order in which they are served",
    panels=(
        Panel(
            title="Queues by priority",
            look_for="The number is the priority on the wire, 0 first. A wait that grows downwards is the order at "
            "work; one that is long at the top is a lack of slots. Seconds, of the last five minutes.",
            kind="table",
            queries=(
                _column(names.DEPTH.select(queue=_QUEUE, state="ready"), "ready"),
                _column(names.DEPTH.select(queue=_QUEUE, state="unacked"), "held"),
                _column(names.DEPTH.select(queue=_QUEUE, state="delayed"), "delayed"),
                _column(names.OLDEST.select(queue=_QUEUE), "oldest, s"),
                _column(rules.LATENCY_MEAN.series.select(queue=_QUEUE), "wait mean, s"),
                _column(rules.LATENCY_P95.series.select(queue=_QUEUE), "wait p95, s"),
                _column(rules.THROUGHPUT.series.select(queue=_QUEUE), "settled per s"),
            ),
            columns=("served", "queue"),
            width=24,
        ),
    ),
)

_DEPTH: Final = Row(
    title="Depth and age",
    panels=(
        *(
            Panel(
                title=title,
                look_for=look_for,
                queries=(Query(expr=total(names.DEPTH, _BY, queue=_QUEUE, state=state), legend="{{queue}}"),),
                stacked=True,
            )
            for state, title, look_for in (
                ("ready", "Ready", "In the broker, for any worker to take. Growing steadily: too few slots."),
                ("unacked", "Held", "Taken by a worker and not yet acknowledged."),
                (
                    "delayed",
                    "Delayed",
                    "Retries that wait for their due time. A wall: a mail server is down, and all come back at once.",
                ),
            )
        ),
        Panel(
            title="Age of the oldest",
            look_for="Of the jobs that are due and that no worker has taken. The lines are those of the alerts "
            "SendsWait and QueueBehind.",
            queries=(Query(expr=names.OLDEST.select(queue=_QUEUE), legend="{{queue}}"),),
            unit="s",
            limits=(Limit(value=SEND_AGE_S_MAX, colour="orange"), Limit(value=promises.SYNC_EVERY_S)),
            width=12,
        ),
        Panel(
            title="Throughput",
            look_for="Jobs that settle in a second. Flat at its top while the depth grows: all that the slots can do.",
            queries=(Query(expr=rules.THROUGHPUT.series.select(queue=_QUEUE), legend="{{queue}}"),),
            unit="ops",
            stacked=True,
            width=12,
        ),
    ),
)

_WAIT: Final = Row(
    title="Wait",
    panels=(
        *(
            Panel(
                title=f"Wait p{q * 100:g}",
                look_for="From when a job was due to the start of its execution. The dots lead to traces.",
                queries=(Query(expr=quantile(q, names.QUEUE_TIME, _BY, queue=_QUEUE), legend="{{queue}}"),),
                unit="s",
                exemplars=True,
            )
            for q in (0.5, 0.95)
        ),
        Panel(
            title="Wait p95 by attempt",
            look_for="Later attempts wait for the dispatcher as well: longer by seconds is a dispatcher that lags.",
            queries=(Query(expr=quantile(0.95, names.QUEUE_TIME, ("attempt",), queue=_QUEUE), legend="{{attempt}}"),),
            unit="s",
        ),
        Panel(
            title="Waits",
            look_for="How many executions waited how long. Two bands are two kinds of jobs: first attempts and "
            "retries, or served first and served last.",
            kind="heatmap",
            queries=(
                Query(
                    expr=rate(names.QUEUE_TIME, ("le",), part="bucket", queue=_QUEUE),
                    legend="{{le}}",
                ),
            ),
            unit="s",
            exemplars=True,
            width=16,
        ),
        Panel(
            title="Wait, mean and p95 of five minutes",
            look_for="The document's latency. A p95 far above the mean: few jobs wait very long.",
            queries=(
                Query(expr=rules.LATENCY_MEAN.series.select(queue=_QUEUE), legend="{{queue}} mean"),
                Query(expr=rules.LATENCY_P95.series.select(queue=_QUEUE), legend="{{queue}} p95"),
            ),
            unit="s",
        ),
    ),
)

BOARD: Final = Board(
    uid="mailrig-queue",
    title="Mail: queues",
    description="How much waits, in which state, for how long, and in which order it is served.",
    rows=(_ORDER, _DEPTH, _WAIT),
    variables=(Variable(label="queue", of=names.DEPTH),),
)
