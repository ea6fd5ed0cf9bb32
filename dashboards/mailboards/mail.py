"""The board of the mail servers: what each step with them takes, what they refuse, and what became of recipients.

Called by ``__main__``.
"""

from __future__ import annotations

from typing import Final

from mailboards import names
from mailboards.board import Board, Limit, Panel, Query, Row, Variable
from mailboards.promql import increase, mean, over, quantile, rate

_TASK: Final = "$task"

_STEPS: Final = Row(
    title="Steps with the mail servers",
    panels=(
        *(
            Panel(
                title=f"{protocol.upper()} p95 by step",
                look_for=look_for,
                queries=(Query(expr=quantile(0.95, names.STEP, ("step",), protocol=protocol), legend="{{step}}"),),
                unit="s",
                exemplars=True,
                width=12,
            )
            for protocol, look_for in (
                (
                    "smtp",
                    "Connect: network or TLS. Auth: throttled logins. Send: a slow server, or large messages.",
                ),
                (
                    "imap",
                    "Login alone: throttled. Select and changes: large folders. Fetch: large mail, or a slow server.",
                ),
            )
        ),
        Panel(
            title="Time spent by step",
            look_for="Seconds of work in a second: where the slots' time goes. Above 1: more than one slot.",
            queries=(Query(expr=rate(names.STEP, ("protocol", "step"), part="sum"), legend="{{protocol}} {{step}}"),),
            stacked=True,
            width=12,
        ),
        Panel(
            title="Steps per second",
            look_for="Connects as many as sends: sessions are not kept, each mail pays for its own.",
            queries=(Query(expr=rate(names.STEP, ("protocol", "step"), part="count"), legend="{{protocol}} {{step}}"),),
            unit="ops",
            width=12,
        ),
    ),
)

_REFUSALS: Final = Row(
    title="What goes wrong",
    panels=(
        Panel(
            title="SMTP replies by code",
            look_for="Recipients by the reply that decided: 250 is good, 4xx was tried until the retries were over, "
            "5xx was final. A jump of one code is one server's policy.",
            queries=(Query(expr=rate(names.REPLIES, ("code",)), legend="{{code}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            title="Errors by type",
            look_for="Executions that ended with an error, those that are tried again included.",
            queries=(Query(expr=rate(names.ERRORS, ("error_type",), task=_TASK), legend="{{error_type}}"),),
            unit="ops",
            stacked=True,
            exemplars=True,
        ),
        Panel(
            title="Errors in the shown time",
            look_for="The same as totals, by task: the longest bar is what to look at first.",
            kind="bars",
            queries=(
                Query(
                    expr=increase(names.ERRORS, ("task", "error_type"), window="$__range", task=_TASK),
                    legend="{{task}} {{error_type}}",
                ),
            ),
            decimals=0,
        ),
        Panel(
            title="Retries per second",
            look_for="By task. A wave that comes back at 5, 10, 20 s is the backoff of jobs that failed together.",
            queries=(Query(expr=rate(names.RETRY, ("task",), task=_TASK), legend="{{task}}"),),
            unit="ops",
            exemplars=True,
        ),
        Panel(
            title="Retries until settled",
            look_for="Mean number of retries of the jobs that settled, by task and outcome. Near the task's limit with "
            "outcome succeeded: the backoff is just long enough.",
            queries=(
                Query(
                    expr=mean(names.RETRIES, ("task", "outcome"), task=_TASK),
                    legend="{{task}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Failed for good by type",
            look_for="Jobs, by the error that ended them.",
            kind="bars",
            queries=(
                Query(
                    # The first of a kind is a series that begins at 1, which no increase can see.
                    expr=over(
                        "sum", ("task", "error_type"), f"max_over_time({names.FAILURE.select(task=_TASK)}[$__range])"
                    ),
                    legend="{{task}} {{error_type}}",
                    needs=names.FAILURE,
                ),
            ),
            decimals=0,
            limits=(Limit(value=1, colour="orange"),),
        ),
    ),
)

_OUTCOMES: Final = Row(
    title="What became of it",
    panels=(
        Panel(
            title="Recipients by state",
            look_for="Final states in a second: sent, failed, unknown.",
            queries=(Query(expr=rate(names.RECIPIENTS, ("state",)), legend="{{state}}"),),
            unit="ops",
            stacked=True,
        ),
        Panel(
            title="Recipients in the shown time",
            look_for="Unknown ones may or may not have got their mail: runbook, SendsUnknown.",
            kind="stat",
            queries=(Query(expr=increase(names.RECIPIENTS, ("state",), window="$__range"), legend="{{state}}"),),
            decimals=0,
        ),
        Panel(
            title="Work per job",
            look_for="Mean time on a worker, summed over a job's executions: what a job really costs, retries "
            "included.",
            queries=(Query(expr=mean(names.WORKER_TIME, ("task",), task=_TASK), legend="{{task}}"),),
            unit="s",
        ),
    ),
)

BOARD: Final = Board(
    uid="mailrig-mail",
    title="Mail: mail servers",
    description="What each step with the mail servers takes, what they refuse, and what became of the recipients.",
    rows=(_STEPS, _REFUSALS, _OUTCOMES),
    variables=(Variable(label="task", of=names.SUCCESS),),
)
