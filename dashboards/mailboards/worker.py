"""The board of the workers: what they run and hold against their slots, their memory against the budget, their deaths.

Called by ``__main__``.
"""

from __future__ import annotations

from typing import Final

from mailboards import names, promises, rules
from mailboards.board import Board, Limit, Panel, Query, Row, Variable
from mailboards.promql import increase, over, rate, total

_WORKER: Final = "$worker"
_TASK: Final = "$task"
_SUM: Final = "worker {{worker}}"

_LANES: Final = Row(
    title="Lanes",
    panels=(
        Panel(
            title="Running",
            look_for="Executions that run, by worker and task. At the height of the capacity for long: all slots are "
            "taken, and the wait grows.",
            queries=(
                Query(
                    expr=total(names.ACTIVE, ("worker", "task"), worker=_WORKER, task=_TASK),
                    legend="{{worker}} {{task}}",
                ),
            ),
            stacked=True,
            width=12,
        ),
        Panel(
            title="Slots in use",
            look_for="Share of the promised slots that worked, on average over the window. Near 1: every further job "
            "waits.",
            queries=(
                Query(
                    expr=f"{rate(names.DURATION, part='sum')} / {total(names.CAPACITY)}",
                    legend="busy",
                ),
            ),
            unit="percentunit",
            limits=(Limit(value=0.9),),
            width=6,
        ),
        Panel(
            title="Capacity",
            look_for="What each worker can run now, and what it was started with. Lower for more than a moment: "
            "processes are not replaced, or it takes fewer messages than it has processes.",
            queries=(
                Query(expr=names.CAPACITY.select(worker=_WORKER), legend="{{worker}} can run"),
                Query(expr=names.CONCURRENCY.select(worker=_WORKER), legend="{{worker}} was started with"),
            ),
            width=6,
            limits=(Limit(value=promises.CONCURRENCY, colour="green"),),
        ),
        Panel(
            title="Held: prefetched and running",
            look_for=f"Messages taken and not acknowledged; at most {promises.HELD_MAX} a worker. What a killed worker "
            "held stays here until it is given back.",
            queries=(
                Query(expr=total(names.RESERVED, kind="prefetched"), legend="prefetched"),
                Query(expr=total(names.ACTIVE), legend="running"),
            ),
            stacked=True,
            limits=(Limit(value=promises.HELD_MAX + 1),),
            width=12,
        ),
        Panel(
            title="Held of the allowed",
            look_for=f"Held messages by the slots of all workers, times {promises.PREFETCH}. Above 1 for longer than "
            "the visibility timeout: messages wait in a worker while another is free.",
            queries=(
                Query(
                    expr=f"{total(names.DEPTH, state='unacked')} / ({total(names.CONCURRENCY)} * {promises.PREFETCH})",
                    legend="held",
                ),
            ),
            unit="percentunit",
            limits=(Limit(value=1.001),),
            width=12,
        ),
    ),
)

_MEMORY: Final = Row(
    title="Memory",
    panels=(
        Panel(
            title="Worker against its limit",
            look_for="Proportional set size of a worker's processes together: pages that they share count once.",
            queries=(Query(expr=rules.MEMORY.series.select(worker=_WORKER), legend=_SUM),),
            unit="bytes",
            width=6,
            limits=(Limit(value=promises.MEMORY_BYTES),),
        ),
        Panel(
            title="Process against its budget",
            look_for="One line a process. One that grows from task to task keeps something; a step down is a "
            "replacement.",
            queries=(Query(expr=names.MEMORY.select(worker=_WORKER, kind="pss"), legend="{{worker}} {{process}}"),),
            unit="bytes",
            width=6,
            limits=(Limit(value=promises.PROCESS_BYTES),),
        ),
        Panel(
            title="Control group",
            look_for="What the kernel counts, and the limit. The page cache is in it and goes first: near the limit by "
            "itself is no danger. Without a control group there is nothing here.",
            queries=(
                Query(
                    expr=names.CGROUP.select(worker=_WORKER),
                    legend="{{worker}} {{kind}}",
                    needs=names.CGROUP,
                ),
            ),
            unit="bytes",
            width=6,
        ),
        Panel(
            title="Three ways to count",
            look_for="Resident, proportional and unique memory of all processes. Resident grows and unique does not: "
            "shared pages, no leak.",
            queries=(
                Query(expr=total(names.MEMORY, ("worker", "kind"), worker=_WORKER), legend="{{worker}} {{kind}}"),
            ),
            unit="bytes",
            width=6,
        ),
    ),
)

_LIVES: Final = Row(
    title="Starts and deaths",
    panels=(
        Panel(
            title="Uptime",
            look_for="A saw is a worker that is started over and over.",
            queries=(Query(expr=rules.UPTIME.series.select(worker=_WORKER), legend=_SUM),),
            unit="s",
        ),
        Panel(
            title="Starts in the shown time",
            look_for="Beyond the first: a deploy, or a death.",
            kind="stat",
            queries=(
                Query(
                    expr=over("sum", ("worker",), f"changes({names.STARTED.select(worker=_WORKER)}[$__range])"),
                    legend=_SUM,
                ),
            ),
            limits=(Limit(value=1, colour="orange"),),
        ),
        Panel(
            title="Killed executions",
            look_for="Executions whose process was taken away, by task, in the shown time. They are done again; after "
            "three losses a job is given up.",
            kind="bars",
            queries=(
                Query(
                    expr=increase(names.EXECUTIONS, ("task",), window="$__range", outcome="killed", task=_TASK),
                    legend="{{task}}",
                ),
            ),
            decimals=0,
            limits=(Limit(value=1, colour="orange"),),
        ),
    ),
)

BOARD: Final = Board(
    uid="mailrig-worker",
    title="Mail: workers",
    description="What workers run and hold against their slots, their memory against the budget, and their deaths.",
    rows=(_LANES, _MEMORY, _LIVES),
    variables=(Variable(label="worker", of=names.CONCURRENCY), Variable(label="task", of=names.SUCCESS)),
)
