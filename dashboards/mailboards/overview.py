"""The first board: is anything wrong, and in which queue. Rate, errors and duration of each, and signs of life.

Called by ``__main__``.
"""

from __future__ import annotations

from typing import Final

from mailboards import names, promises, rules
from mailboards.alerts import FAILURE_RATIO_MAX, SEND_AGE_S_MAX, SIGN_AGE_S_MAX
from mailboards.board import Board, Limit, Panel, Query, Row, Variable
from mailboards.promql import increase, over, quantile, rate, total

_QUEUE: Final = "$queue"
_BY: Final = ("queue",)

_HEALTH: Final = Row(
    title="Is anything wrong?",
    panels=(
        Panel(
            title="Alerts",
            look_for="Anything but 0: open the list of alerts in Prometheus; each names its paragraph of the runbook.",
            kind="stat",
            queries=(Query(expr=f"count({names.ALERTS.select(alertstate='firing')}) or vector(0)", legend="firing"),),
            limits=(Limit(value=1),),
            width=4,
            height=4,
        ),
        Panel(
            title="Settled per second",
            look_for="Jobs that came to their end, good or bad. A fall to 0 while the depth grows: nobody works.",
            kind="stat",
            queries=(Query(expr=f"sum({rules.THROUGHPUT.series.select()})", legend="jobs"),),
            unit="ops",
            width=4,
            height=4,
        ),
        Panel(
            title="Failed for good",
            look_for="Share of the jobs of the last five minutes. Above the limit: the mail board says which error.",
            kind="stat",
            queries=(
                Query(
                    expr=f"sum({rules.FAILURES.series.select()}) / (sum({rules.THROUGHPUT.series.select()}) > 0)",
                    legend="failed",
                ),
            ),
            unit="percentunit",
            limits=(Limit(value=FAILURE_RATIO_MAX),),
            width=4,
            height=4,
        ),
        Panel(
            title="Oldest due job",
            look_for="How long the job waits that is due and that no worker has taken. Growing at the pace of the "
            "clock: nobody takes any.",
            kind="stat",
            queries=(Query(expr=f"max({names.OLDEST.select()})", legend="age"),),
            unit="s",
            limits=(Limit(value=SEND_AGE_S_MAX),),
            width=4,
            height=4,
        ),
        Panel(
            title="Capacity",
            look_for=f"Tasks that all workers together can run at once. {promises.CONCURRENCY} are promised.",
            kind="stat",
            queries=(Query(expr=total(names.CAPACITY), legend="slots"),),
            limits=(Limit(value=promises.CONCURRENCY, colour="green"),),
            width=4,
            height=4,
        ),
        Panel(
            title="Unknown recipients",
            look_for="In the shown time. Each may or may not have got its mail, and nothing sends it again: runbook, "
            "SendsUnknown.",
            kind="stat",
            queries=(Query(expr=increase(names.RECIPIENTS, window="$__range", state="unknown"), legend="recipients"),),
            decimals=0,
            limits=(Limit(value=1),),
            width=4,
            height=4,
        ),
    ),
)

_RED: Final = Row(
    title="Rate, errors and duration of each queue",
    panels=(
        Panel(
            title="Rate",
            look_for="Jobs that settle in a second, by queue: as many as come in, unless a queue is behind.",
            queries=(Query(expr=rules.THROUGHPUT.series.select(queue=_QUEUE), legend="{{queue}}"),),
            unit="ops",
        ),
        Panel(
            title="Errors",
            look_for="Failures for good, and executions that will be tried again. Many retries without failures: a "
            "mail server is in trouble, and the backoff bridges it.",
            queries=(
                Query(expr=rules.FAILURES.series.select(queue=_QUEUE), legend="{{queue}} failed"),
                Query(expr=rate(names.RETRY, _BY, queue=_QUEUE), legend="{{queue}} retried"),
            ),
            unit="ops",
            exemplars=True,
        ),
        Panel(
            title="Failure ratio",
            look_for="Share of jobs that failed for good; the alert JobsFail is at the line.",
            queries=(Query(expr=rules.FAILURE_RATIO.series.select(queue=_QUEUE), legend="{{queue}}"),),
            unit="percentunit",
            limits=(Limit(value=FAILURE_RATIO_MAX),),
        ),
        *(
            Panel(
                title=f"Duration p{q * 100:g}",
                look_for="How long one execution runs. The dots are single executions: a click leads to the trace. A "
                "p99 far from the p50 is one slow mailbox or server, all three together are the database or a "
                "machine without CPU.",
                queries=(Query(expr=quantile(q, names.DURATION, _BY, queue=_QUEUE), legend="{{queue}}"),),
                unit="s",
                exemplars=True,
            )
            for q in (0.5, 0.95, 0.99)
        ),
        Panel(
            title="Queue wait p95",
            look_for="From when a job was due to the start of its execution. Growing for one queue only: those served "
            "before it take all slots; for all: too few slots, or slower mail servers.",
            queries=(Query(expr=quantile(0.95, names.QUEUE_TIME, _BY, queue=_QUEUE), legend="{{queue}}"),),
            unit="s",
            exemplars=True,
        ),
        Panel(
            title="Ready messages",
            look_for="What waits in the broker for a worker.",
            queries=(Query(expr=total(names.DEPTH, _BY, queue=_QUEUE, state="ready"), legend="{{queue}}"),),
            stacked=True,
        ),
        Panel(
            title="Ended executions",
            look_for="By outcome. Killed ones had their process taken away: memory, a time limit, a restart.",
            queries=(Query(expr=rate(names.EXECUTIONS, ("outcome",), queue=_QUEUE), legend="{{outcome}}"),),
            unit="ops",
            stacked=True,
        ),
    ),
)

_SIGNS: Final = Row(
    title="Signs of life",
    panels=(
        Panel(
            title="Beat and dispatcher",
            look_for=f"Since the last tick or round. Above {SIGN_AGE_S_MAX} s its process hangs or is gone: no "
            "periodic sync without beat, no retry without a dispatcher.",
            queries=(
                Query(expr=names.BEAT_TICK.select(), legend="beat"),
                Query(expr=names.DISPATCHER_ROUND.select(), legend="dispatcher on {{host}}"),
            ),
            unit="s",
            limits=(Limit(value=SIGN_AGE_S_MAX),),
        ),
        Panel(
            title="Dispatcher lag",
            look_for="By how much the publish that has been due for longest is late.",
            queries=(Query(expr=names.DISPATCHER_LAG.select(), legend="lag"),),
            unit="s",
            limits=(Limit(value=SIGN_AGE_S_MAX),),
        ),
        Panel(
            title="What the figures come from",
            look_for="1: the exporter reaches the source, Prometheus the target. At 0 the figures of the other panels "
            "are missing or old.",
            queries=(
                Query(expr=names.SOURCE_UP.select(), legend="{{source}}"),
                Query(expr=names.TARGET_UP.select(job=names.EXPORTER_JOB), legend="exporter"),
            ),
            width=4,
        ),
        Panel(
            title="Version",
            look_for="What runs. Two at once: a deploy is under way, or stuck.",
            kind="name",
            queries=(Query(expr=over("count", ("version",), names.BUILD.select()), legend="{{version}}"),),
            width=4,
        ),
    ),
)

BOARD: Final = Board(
    uid="mailrig-overview",
    title="Mail: overview",
    description="Is anything wrong, and in which queue? Rate, errors, duration and wait of each queue, and signs of "
    "life of what keeps it going.",
    rows=(_HEALTH, _RED, _SIGNS),
    variables=(Variable(label="queue", of=names.DEPTH),),
)
