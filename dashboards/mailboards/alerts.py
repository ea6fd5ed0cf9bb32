"""What somebody is woken for, or told in the morning: conditions, how long they must hold, and what they mean.

Pure data. Called by ``__main__`` (alerts.yml). Each has its paragraph in RUNBOOK.md, and in rules_test.yml a case in
which it fires and one in which it is silent.

Rule 1: ``critical`` is for what users notice now, or what blinds us; ``warning`` can wait for the morning.
Rule 2: a thing that should tell of itself and doesn't is an alert too, as long as its source answers: a source that is
away takes its metrics away, and that has an alert of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailboards import names, promises, promql
from mailboards.rules import FAILURE_RATIO, MEMORY

RUNBOOK: Final = "dashboards/RUNBOOK.md"
#: Three times the grace after which a message that the broker lost is published again.
SEND_AGE_S_MAX: Final = 60
#: Share of jobs that fail for good, of at least so many in five minutes: one wrong address at night is no trouble.
FAILURE_RATIO_MAX: Final = 0.05
FAILURES_MIN: Final = 5
#: Share of a memory limit that leaves room for one more message.
MEMORY_SHARE_MAX: Final = 0.9
#: Beat ticks every five seconds and the dispatcher every second; their health checks give up at 20.
SIGN_AGE_S_MAX: Final = 30
#: A scrape of the exporter's sources that is missed now and then is no outage.
_SOURCE: Final = names.SOURCE_UP
_EXPORTER: Final = names.TARGET_UP.select(job=names.EXPORTER_JOB)


@dataclass(frozen=True, kw_only=True)
class Alert:
    """One alerting rule."""

    name: str
    expr: str
    #: How long it must hold, as Prometheus writes it.
    lasting: str
    severity: str
    #: One line, with the figure.
    summary: str
    #: What it means for users.
    description: str

    @property
    def runbook(self) -> str:
        """Where its paragraph is."""
        return f"{RUNBOOK}#{self.name.lower()}"


def _silent(series: promql.Series, source: str) -> str:
    """The series is absent although its source answers."""
    return f"(absent({series.select()}) and on () {_SOURCE.select(source=source)} == 1)"


_QUEUES: Final = (
    Alert(
        name="SendsWait",
        expr=f"{names.OLDEST.select(queue='send')} > {SEND_AGE_S_MAX}",
        lasting="1m",
        severity="critical",
        summary="A send has been due for {{ $value | humanizeDuration }} and no worker has taken it.",
        description="Mail that users have sent does not leave. It is kept in the database and leaves once workers "
        "take it again.",
    ),
    Alert(
        name="QueueBehind",
        expr=f"{names.OLDEST.select()} > {promises.SYNC_EVERY_S}",
        lasting="2m",
        severity="warning",
        summary="The oldest due job of queue {{ $labels.queue }} has waited for {{ $value | humanizeDuration }}.",
        description="The queue is behind by more than one interval of the periodic sync: mailboxes show old mail, "
        "deletions and spam verdicts are late.",
    ),
    Alert(
        name="JobsFail",
        expr=f"{FAILURE_RATIO.series.select()} > {FAILURE_RATIO_MAX:g} and on (queue) "
        f"{promql.increase(names.FAILURE, ('queue',), window='5m')} >= {FAILURES_MIN}",
        lasting="2m",
        severity="warning",
        summary="{{ $value | humanizePercentage }} of the jobs of queue {{ $labels.queue }} fail for good.",
        description="Retries are over for these jobs, or an error was permanent: users see failed sends or mailboxes "
        "that do not sync.",
    ),
    Alert(
        name="SendsUnknown",
        expr=f"{promql.increase(names.RECIPIENTS, window='15m', state='unknown')} > 0",
        lasting="0m",
        severity="warning",
        summary="About {{ $value | humanize }} recipients in 15 minutes may or may not have got their mail.",
        description="A process or a connection ended between the end of the data and the server's reply. Nothing "
        "sends these again: somebody must look.",
    ),
)

_WORKERS: Final = (
    Alert(
        name="NoWorker",
        expr=_silent(names.CONCURRENCY, "broker"),
        lasting="1m",
        severity="critical",
        summary="No worker runs.",
        description="No task is done: sends, syncs and deletions wait in the database and in the broker.",
    ),
    Alert(
        name="CapacityBelowContract",
        expr=f"{promql.total(names.CAPACITY)} < {promises.CONCURRENCY}",
        lasting="2m",
        severity="critical",
        summary=f"All workers together can run {{{{ $value }}}} tasks at once; {promises.CONCURRENCY} are promised.",
        description="Sends and syncs take longer, and queues build at loads that are no trouble otherwise.",
    ),
    Alert(
        name="WorkerBelowStrength",
        expr=f"{names.CAPACITY.select()} < {names.CONCURRENCY.select()}",
        lasting="2m",
        severity="warning",
        summary="Worker {{ $labels.worker }} can run {{ $value }} tasks at once, fewer than it was started with.",
        description="Processes have died without being replaced, or the worker takes fewer messages from the broker "
        "than it has processes.",
    ),
    Alert(
        name="HeldAboveSlots",
        # What a killed worker held stays in the broker until the visibility timeout: only what lasts longer is wrong.
        expr=f"{promql.total(names.DEPTH, state='unacked')} > {promql.total(names.CONCURRENCY)} * {promises.PREFETCH}",
        lasting=f"{promises.VISIBILITY_S // 60 + 1}m",
        severity="warning",
        summary="Workers hold {{ $value }} messages, more than they have processes.",
        description="A message that a busy worker holds waits although another worker is free, and a killed worker "
        "takes it along until the visibility timeout.",
    ),
    Alert(
        name="ProcessOverBudget",
        expr=f"{names.MEMORY.select(kind='pss')} > {promises.PROCESS_BYTES}",
        lasting="5m",
        severity="warning",
        summary="Process {{ $labels.process }} of worker {{ $labels.worker }} takes {{ $value | humanize1024 }}B.",
        description=f"The budget of a process is {promises.PROCESS_BYTES // 2**20} MiB: base and one task. One that "
        "stays above it keeps what it should have let go.",
    ),
    Alert(
        name="WorkerMemoryNearLimit",
        # What the processes take, not what the control group counts: that has the page cache too, and is often full.
        expr=f"{MEMORY.series.select()} > {MEMORY_SHARE_MAX:g} * {promises.MEMORY_BYTES} or "
        f"{MEMORY.series.select()} > "
        f"{MEMORY_SHARE_MAX:g} * {promql.over('max', ('worker',), names.CGROUP.select(kind='limit'))}",
        lasting="5m",
        severity="critical",
        summary="Worker {{ $labels.worker }} takes {{ $value | humanize1024 }}B, more than nine tenths of its limit.",
        description="The kernel is about to kill its processes: tasks are cut off, and what was between the data and "
        "the reply becomes unknown.",
    ),
)

_OTHERS: Final = (
    Alert(
        name="BeatLate",
        expr=f"{names.BEAT_TICK.select()} > {SIGN_AGE_S_MAX} or {_silent(names.BEAT_TICK, 'broker')}",
        lasting="1m",
        severity="warning",
        summary="Beat has not ticked lately, or never.",
        description="No periodic sync and no cleanup is published: mailboxes that nobody syncs by hand grow old.",
    ),
    Alert(
        name="DispatcherLate",
        # Several may run: one that is alive is enough.
        expr=f"min({names.DISPATCHER_ROUND.select()}) > {SIGN_AGE_S_MAX} or "
        f"{_silent(names.DISPATCHER_ROUND, 'broker')}",
        lasting="1m",
        severity="critical",
        summary="No dispatcher has made a round lately, or ever.",
        description="Retries are not tried again, and what the broker loses stays lost, until one runs.",
    ),
    Alert(
        name="DispatcherLags",
        expr=f"{names.DISPATCHER_LAG.select()} > {SIGN_AGE_S_MAX}",
        lasting="1m",
        severity="warning",
        summary="A publish is late by {{ $value | humanizeDuration }}.",
        description="A dispatcher runs, and is slower than retries and lost messages come due, or the broker does not "
        "take what it publishes.",
    ),
    Alert(
        name="SourceAway",
        expr=f"{_SOURCE.select()} == 0",
        lasting="1m",
        severity="critical",
        summary="The exporter does not reach the {{ $labels.source }}.",
        description="Its metrics are missing, and alerts that need them are blind. The service needs it too.",
    ),
    Alert(
        name="ExporterDown",
        expr=f"{_EXPORTER} == 0 or absent({_EXPORTER})",
        lasting="1m",
        severity="critical",
        summary="Prometheus does not reach the exporter.",
        description="Nothing of the service is seen, and all alerts but this one are blind.",
    ),
    Alert(
        name="TargetDown",
        expr=f'{names.TARGET_UP.name}{{job!="{names.EXPORTER_JOB}"}} == 0',
        lasting="5m",
        severity="warning",
        summary="Prometheus does not reach {{ $labels.job }}.",
        description="What is looked at with is missing, such as Jaeger or the collector: traces may be lost. The "
        "service itself does not need it.",
    ),
)

ALERTS: Final = (*_QUEUES, *_WORKERS, *_OTHERS)
