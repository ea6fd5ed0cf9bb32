"""What Prometheus computes ahead: the document's uptime, throughput and latency, and what alerts and panels share.

Pure data. Called by ``__main__`` (rules.yml), alerts and the boards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mailboards import names, promql
from mailboards.promql import Series

WINDOW: Final = "5m"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A series that is computed from others."""

    series: Series
    expr: str
    #: The architecture document's name for it, or nothing.
    document: str = ""


def _rule(name: str, labels: tuple[str, ...], expr: str, document: str = "") -> Rule:
    return Rule(series=Series(name=name, labels=labels), expr=expr, document=document)


UPTIME: Final = _rule(
    "worker:mail_worker_uptime:seconds",
    ("worker",),
    f"time() - {names.STARTED.select()}",
    "worker.uptime",
)
#: The labels of successes and failures differ, so ``or`` keeps all of both.
THROUGHPUT: Final = _rule(
    "queue:mail_task_settled:rate5m",
    ("queue",),
    promql.over(
        "sum",
        ("queue",),
        f"rate({names.SUCCESS.select()}[{WINDOW}]) or rate({names.FAILURE.select()}[{WINDOW}])",
    ),
    "queue.throughput",
)
FAILURES: Final = _rule(
    "queue:mail_task_failure:rate5m",
    ("queue",),
    # No failure yet is no series yet: that is a rate of zero wherever a success is counted.
    f"{promql.rate(names.FAILURE, ('queue',), window=WINDOW)} or "
    f"{promql.over('sum', ('queue',), names.SUCCESS.select())} * 0",
)
FAILURE_RATIO: Final = _rule(
    "queue:mail_task_failure:ratio5m",
    ("queue",),
    f"{FAILURES.series.select()} / ({THROUGHPUT.series.select()} > 0)",
)
LATENCY_MEAN: Final = _rule(
    "queue:mail_task_queue_time_seconds:mean5m",
    ("queue",),
    promql.mean(names.QUEUE_TIME, ("queue",), window=WINDOW),
    "queue.latency",
)
LATENCY_P95: Final = _rule(
    "queue:mail_task_queue_time_seconds:p95_5m",
    ("queue",),
    promql.quantile(0.95, names.QUEUE_TIME, ("queue",), window=WINDOW),
    "queue.latency",
)
MEMORY: Final = _rule(
    "worker:mail_worker_memory_pss_bytes:sum",
    ("worker",),
    promql.total(names.MEMORY, ("worker",), kind="pss"),
)

RULES: Final = (UPTIME, THROUGHPUT, FAILURES, FAILURE_RATIO, LATENCY_MEAN, LATENCY_P95, MEMORY)
