"""Proofs of the alerts, for ``promtool test rules``: series, and which alert they make fire or leave silent.

Every alert has a case of each; where its data may be missing, one for that too. Pure data; ``__main__`` writes it as
rules_test.yml. A sample every 15 seconds: ``0+15x20`` is an age that grows with the clock for five minutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mailboards import names, promises, rules
from mailboards.alerts import ALERTS
from mailboards.rules import Rule

_SAMPLE_EVERY: Final = "15s"
_READ_AT: Final = "10m"
_BY_NAME: Final = {alert.name: alert for alert in ALERTS}
_MIB: Final = 2**20


@dataclass(frozen=True, kw_only=True)
class Case:
    """One alert and the series that it sees."""

    alert: str
    #: What the case shows, as a sentence.
    shows: str
    #: Selector -> values, as promtool writes them.
    series: Mapping[str, str]
    at: str
    #: Labels of each alert that fires, with its summary; none that fires is silence.
    fires: tuple[tuple[Mapping[str, str], str], ...] = field(default=())


def _broker(value: int) -> dict[str, str]:
    return {names.SOURCE_UP.select(source="broker"): f"{value}x120"}


def _failures(good: str, bad: str) -> dict[str, str]:
    return {
        names.SUCCESS.select(task="send_email", queue="send"): good,
        names.FAILURE.select(task="send_email", queue="send", error_type="smtp-refused"): bad,
    }


def _pss(values: Mapping[str, str], kind: str = "pss") -> dict[str, str]:
    return {names.MEMORY.select(worker="mail@a", process=process, kind=kind): v for process, v in values.items()}


_SEND_OLDEST: Final = names.OLDEST.select(queue="send")
_SPAM_OLDEST: Final = names.OLDEST.select(queue="spam")
_UNKNOWN: Final = names.RECIPIENTS.select(state="unknown")
_UNACKED: Final = names.DEPTH.select(queue="send", state="unacked")
_A: Final = {"worker": "mail@a"}

_QUEUES: Final = (
    Case(
        alert="SendsWait",
        shows="a send that nobody takes",
        series={_SEND_OLDEST: "0+15x20"},
        at="4m",
        fires=(({"queue": "send"}, "A send has been due for 4m 0s and no worker has taken it."),),
    ),
    Case(alert="SendsWait", shows="sends that are taken in time", series={_SEND_OLDEST: "50x20"}, at="4m"),
    Case(
        alert="SendsWait",
        shows="a stall that is over within a minute",
        series={_SEND_OLDEST: "0 0 0 0 61 76 91 1x12"},
        at="90s",
    ),
    Case(alert="SendsWait", shows="another queue", series={_SPAM_OLDEST: "0+15x20"}, at="4m"),
    Case(
        alert="QueueBehind",
        shows="a queue that nobody serves",
        series={_SPAM_OLDEST: "0+15x40"},
        at="9m",
        fires=(({"queue": "spam"}, "The oldest due job of queue spam has waited for 9m 0s."),),
    ),
    Case(alert="QueueBehind", shows="a wait below one interval", series={_SPAM_OLDEST: "290x40"}, at="9m"),
    Case(
        alert="JobsFail",
        shows="one of four jobs fails",
        series=_failures("0+3x40", "0+1x40"),
        at="8m",
        fires=(({"queue": "send"}, "25% of the jobs of queue send fail for good."),),
    ),
    Case(alert="JobsFail", shows="one of a hundred fails", series=_failures("0+99x40", "0+1x40"), at="8m"),
    Case(
        alert="JobsFail",
        shows="a single wrong address at night",
        series=_failures("0x40", "0x10 1x30"),
        at="4m30s",
    ),
    Case(
        alert="JobsFail",
        shows="nothing has ever failed",
        series={names.SUCCESS.select(task="send_email", queue="send"): "0+3x40"},
        at="8m",
    ),
    Case(
        alert="SendsUnknown",
        shows="a recipient becomes unknown",
        series={_UNKNOWN: "0x20 2x40"},
        at="10m",
        fires=(({}, "About 2 recipients in 15 minutes may or may not have got their mail."),),
    ),
    Case(alert="SendsUnknown", shows="unknown ones of last week", series={_UNKNOWN: "2x60"}, at="10m"),
    Case(
        alert="SendsUnknown",
        shows="the exporter starts again and has counted all rows",
        series={_UNKNOWN: "2x20 _x4 2x30"},
        at="10m",
    ),
)

_WORKERS: Final = (
    Case(
        alert="NoWorker",
        shows="the broker answers, and knows of no worker",
        series=_broker(1),
        at="3m",
        fires=(({}, "No worker runs."),),
    ),
    Case(
        alert="NoWorker",
        shows="a worker runs",
        series={**_broker(1), names.CONCURRENCY.select(**_A): "4x20"},
        at="3m",
    ),
    Case(alert="NoWorker", shows="the broker is away, so nobody can know", series=_broker(0), at="3m"),
    Case(
        alert="CapacityBelowContract",
        shows="one of four slots is gone",
        series={names.CAPACITY.select(**_A): "4x4 3x20"},
        at="5m",
        fires=(({}, f"All workers together can run 3 tasks at once; {promises.CONCURRENCY} are promised."),),
    ),
    Case(
        alert="CapacityBelowContract",
        shows="two workers together have what is promised",
        series={names.CAPACITY.select(**_A): "2x20", names.CAPACITY.select(worker="mail@b"): "2x20"},
        at="5m",
    ),
    Case(alert="CapacityBelowContract", shows="no figures at all", series=_broker(0), at="5m"),
    Case(
        alert="WorkerBelowStrength",
        shows="the slots drift to one",
        series={names.CAPACITY.select(**_A): "4x4 1x20", names.CONCURRENCY.select(**_A): "4x24"},
        at="5m",
        fires=((_A, "Worker mail@a can run 1 tasks at once, fewer than it was started with."),),
    ),
    Case(
        alert="WorkerBelowStrength",
        shows="a killed process is replaced within a minute",
        series={names.CAPACITY.select(**_A): "4x4 3x4 4x16", names.CONCURRENCY.select(**_A): "4x24"},
        at="2m",
    ),
    Case(
        alert="HeldAboveSlots",
        shows="eight held by four for longer than the visibility timeout",
        series={_UNACKED: "8x120", names.CONCURRENCY.select(**_A): "4x120"},
        at="25m",
        fires=(({}, "Workers hold 8 messages, more than they have processes."),),
    ),
    Case(
        alert="HeldAboveSlots",
        shows="what a killed worker held is given back",
        series={_UNACKED: "8x76 4x44", names.CONCURRENCY.select(**_A): "4x120"},
        at="18m",
    ),
    Case(
        alert="ProcessOverBudget",
        shows="one process keeps what it should let go",
        series=_pss({"child-0": f"{200 * _MIB}x40", "child-1": f"{90 * _MIB}x40"}),
        at="8m",
        fires=(({**_A, "process": "child-0", "kind": "pss"}, "Process child-0 of worker mail@a takes 200MiB."),),
    ),
    Case(
        alert="ProcessOverBudget",
        shows="shared pages make the resident size large",
        series=_pss({"child-0": f"{200 * _MIB}x40"}, kind="rss") | _pss({"child-0": f"{90 * _MIB}x40"}),
        at="8m",
    ),
    Case(
        alert="WorkerMemoryNearLimit",
        shows="all processes together",
        series=_pss({f"child-{i}": f"{125 * _MIB}x40" for i in range(4)}),
        at="8m",
        fires=((_A, "Worker mail@a takes 500MiB, more than nine tenths of its limit."),),
    ),
    Case(
        alert="WorkerMemoryNearLimit",
        shows="a control group with a lower limit",
        series=_pss({f"child-{i}": f"{60 * _MIB}x40" for i in range(4)})
        | {names.CGROUP.select(**_A, kind="limit"): f"{256 * _MIB}x40"},
        at="8m",
        fires=((_A, "Worker mail@a takes 240MiB, more than nine tenths of its limit."),),
    ),
    Case(
        alert="WorkerMemoryNearLimit",
        shows="a control group that is full of page cache",
        series=_pss({f"child-{i}": f"{60 * _MIB}x40" for i in range(4)})
        | {names.CGROUP.select(**_A, kind=kind): f"{512 * _MIB}x40" for kind in ("current", "limit")},
        at="8m",
    ),
    Case(
        alert="WorkerMemoryNearLimit",
        shows="room for more, and no control group",
        series=_pss({f"child-{i}": f"{90 * _MIB}x40" for i in range(4)}),
        at="8m",
    ),
)

_ROUND_A: Final = names.DISPATCHER_ROUND.select(host="a")
_ROUND_B: Final = names.DISPATCHER_ROUND.select(host="b")
_EXPORTER: Final = names.TARGET_UP.select(job=names.EXPORTER_JOB, instance="exporter:9540")
_JAEGER: Final = names.TARGET_UP.select(job="jaeger", instance="jaeger:8888")
_NO_EXPORTER: Final = "Prometheus does not reach the exporter."
_LATE_BEAT: Final = "Beat has not ticked lately, or never."
_LATE_ROUND: Final = "No dispatcher has made a round lately, or ever."

_OTHERS: Final = (
    Case(
        alert="BeatLate",
        shows="the last tick grows old",
        series={**_broker(1), names.BEAT_TICK.select(): "0+15x20"},
        at="4m",
        fires=(({}, _LATE_BEAT),),
    ),
    Case(alert="BeatLate", shows="no tick was ever told", series=_broker(1), at="4m", fires=(({}, _LATE_BEAT),)),
    Case(alert="BeatLate", shows="it ticks", series={**_broker(1), names.BEAT_TICK.select(): "4x20"}, at="4m"),
    Case(alert="BeatLate", shows="the broker is away, so nobody can know", series=_broker(0), at="4m"),
    Case(
        alert="DispatcherLate",
        shows="none of two makes rounds",
        series={**_broker(1), _ROUND_A: "0+15x20", _ROUND_B: "0+15x20"},
        at="4m",
        fires=(({}, _LATE_ROUND),),
    ),
    Case(
        alert="DispatcherLate",
        shows="none has ever made one",
        series=_broker(1),
        at="4m",
        fires=(({}, _LATE_ROUND),),
    ),
    Case(
        alert="DispatcherLate",
        shows="one of two is enough",
        series={**_broker(1), _ROUND_A: "0+15x20", _ROUND_B: "1x20"},
        at="4m",
    ),
    Case(alert="DispatcherLate", shows="the broker is away, so nobody can know", series=_broker(0), at="4m"),
    Case(
        alert="DispatcherLags",
        shows="publishes come later and later",
        series={names.DISPATCHER_LAG.select(): "0+15x20"},
        at="4m",
        fires=(({}, "A publish is late by 4m 0s."),),
    ),
    Case(alert="DispatcherLags", shows="a second late", series={names.DISPATCHER_LAG.select(): "1x20"}, at="4m"),
    Case(
        alert="SourceAway",
        shows="the database does not answer",
        series={names.SOURCE_UP.select(source="database"): "1x4 0x20", **_broker(1)},
        at="4m",
        fires=(({"source": "database"}, "The exporter does not reach the database."),),
    ),
    Case(
        alert="SourceAway",
        shows="one scrape is missed",
        series={names.SOURCE_UP.select(source="database"): "1x8 0 1x12", **_broker(1)},
        at="135s",
    ),
    Case(
        alert="ExporterDown",
        shows="it does not answer",
        series={_EXPORTER: "0x20"},
        at="4m",
        fires=(({"job": names.EXPORTER_JOB, "instance": "exporter:9540"}, _NO_EXPORTER),),
    ),
    Case(
        alert="ExporterDown",
        shows="there is no such target any more",
        series={_JAEGER: "1x20"},
        at="4m",
        fires=(({"job": names.EXPORTER_JOB}, _NO_EXPORTER),),
    ),
    Case(alert="ExporterDown", shows="it answers", series={_EXPORTER: "1x20"}, at="4m"),
    Case(alert="ExporterDown", shows="one scrape is missed", series={_EXPORTER: "1x8 0 1x12"}, at="135s"),
    Case(alert="ExporterDown", shows="something else is down", series={_EXPORTER: "1x20", _JAEGER: "0x20"}, at="4m"),
    Case(
        alert="TargetDown",
        shows="Jaeger does not answer",
        series={_JAEGER: "0x40"},
        at="8m",
        fires=(({"job": "jaeger", "instance": "jaeger:8888"}, "Prometheus does not reach jaeger."),),
    ),
    Case(alert="TargetDown", shows="the exporter, which has its own", series={_EXPORTER: "0x40"}, at="8m"),
    Case(alert="TargetDown", shows="it answers", series={_JAEGER: "1x40"}, at="8m"),
)

CASES: Final = (*_QUEUES, *_WORKERS, *_OTHERS)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A recording rule, the series that it sees, and what it makes of them."""

    rule: Rule
    shows: str
    series: Mapping[str, str]
    labels: Mapping[str, str]
    value: float


_SEND: Final = {"queue": "send"}
_WAITS: Final = {
    # Ten observations each fifteen seconds: nine below a second, one below five.
    names.QUEUE_TIME.select("bucket", **_SEND, attempt="1", le="1"): "0+9x40",
    names.QUEUE_TIME.select("bucket", **_SEND, attempt="1", le="5"): "0+10x40",
    names.QUEUE_TIME.select("bucket", **_SEND, attempt="1", le="+Inf"): "0+10x40",
    names.QUEUE_TIME.select("sum", **_SEND, attempt="1"): "0+5x40",
    names.QUEUE_TIME.select("count", **_SEND, attempt="1"): "0+10x40",
}

READINGS: Final = (
    Reading(
        rule=rules.UPTIME,
        shows="seconds since the start",
        series={names.STARTED.select(**_A): "120x40"},
        labels=_A,
        value=480,
    ),
    Reading(
        rule=rules.THROUGHPUT,
        shows="successes and failures",
        series=_failures("0+12x40", "0+3x40"),
        labels=_SEND,
        value=1,
    ),
    Reading(
        rule=rules.FAILURES,
        shows="zero where nothing has ever failed",
        series={names.SUCCESS.select(task="send_email", queue="send"): "0+3x40"},
        labels=_SEND,
        value=0,
    ),
    Reading(
        rule=rules.FAILURE_RATIO,
        shows="a fifth",
        series=_failures("0+12x40", "0+3x40"),
        labels=_SEND,
        value=0.2,
    ),
    Reading(rule=rules.LATENCY_MEAN, shows="sum by count", series=_WAITS, labels=_SEND, value=0.5),
    Reading(rule=rules.LATENCY_P95, shows="half way into the last bucket", series=_WAITS, labels=_SEND, value=3),
    Reading(
        rule=rules.MEMORY,
        shows="all processes, shared pages once",
        series=_pss({"main": "100x40", "child-0": "50x40"}) | _pss({"main": "900x40"}, kind="rss"),
        labels=_A,
        value=150,
    ),
)


def document() -> dict[str, Any]:
    """All cases, as promtool reads them."""
    tests = [*map(_test, CASES), *map(_reading, READINGS)]
    return {"rule_files": ["rules.yml", "alerts.yml"], "evaluation_interval": _SAMPLE_EVERY, "tests": tests}


def _test(case: Case) -> dict[str, Any]:
    alert = _BY_NAME[case.alert]
    told = {"description": alert.description, "runbook_url": alert.runbook}
    expected = [
        {"exp_labels": {**labels, "severity": alert.severity}, "exp_annotations": {"summary": summary, **told}}
        for labels, summary in case.fires
    ]
    return {
        **_given(f"{case.alert} {'fires' if case.fires else 'is silent'}: {case.shows}", case.series),
        "alert_rule_test": [{"eval_time": case.at, "alertname": case.alert, "exp_alerts": expected}],
    }


def _reading(reading: Reading) -> dict[str, Any]:
    name = reading.rule.series.name
    labels = ", ".join(f'{label}="{value}"' for label, value in reading.labels.items())
    found = {"labels": f"{name}{{{labels}}}", "value": reading.value}
    return {
        **_given(f"{name}: {reading.shows}", reading.series),
        "promql_expr_test": [{"expr": name, "eval_time": _READ_AT, "exp_samples": [found]}],
    }


def _given(name: str, series: Mapping[str, str]) -> dict[str, Any]:
    inputs = [{"series": selector, "values": values} for selector, values in series.items()]
    return {"name": name, "interval": _SAMPLE_EVERY, "input_series": inputs}
