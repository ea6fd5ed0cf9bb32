"""The recorded metrics of runs, as OpenMetrics text with timestamps: for Prometheus, where runs can be compared.

``promtool tsdb create-blocks-from openmetrics`` makes blocks of it. Each sample has the label ``run``, which is
``<scenario>/<n>``, and all runs begin at the same time, that of the latest, unless they are to keep their own.
Besides: ``mailrig_run_info``, and what each gate observed and whether it passed. Called by cli.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from email_service import signals
from mailrig.evidence import Row, load_evidence
from mailrig.samples import replay
from mailrig.scenario import RigError
from mailrig.store import Run, RunError

#: What tells the buckets of one histogram apart.
_EDGE: Final = re.compile(r'le="[^"]*",?')
_ENDINGS: Final = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ("",)}
_OURS: Final = (
    signals.Metric(
        name="mailrig_run_info",
        kind="gauge",
        labels=("run", "scenario", "seed", "commit", "verdict"),
        document="",
        help="1, with what the run was.",
    ),
    signals.Metric(
        name="mailrig_gate_observed",
        kind="gauge",
        labels=("run", "gate"),
        document="",
        help="What a gate observed, in the unit of its check.",
    ),
    signals.Metric(
        name="mailrig_gate_passed",
        kind="gauge",
        labels=("run", "gate"),
        document="",
        help="1 for a gate that passed, 0 for one that failed, warned or knew nothing.",
    ),
)
#: Time in seconds and value.
_Points = list[tuple[float, float]]


class ExportError(RigError):
    """A run has nothing to export."""


@dataclass(frozen=True, kw_only=True)
class _Recorded:
    """One run, as its series."""

    label: str
    began_s: float
    #: Sample's name as scraped -> its points.
    series: Mapping[str, _Points]


def export(runs: Sequence[Run], *, keep_times: bool = False) -> Iterator[str]:
    """The lines of the exposition.

    Raises:
        ExportError: a run has no scrapes.
    """
    numbers: Counter[str] = Counter()
    recorded = []
    for run in runs:
        facts = load_evidence(run.path)
        scenario = str(facts.run.get("scenario", run.path.parent.name))
        numbers[scenario] += 1
        recorded.append(_record(run, facts.run, facts.metrics, label=f"{scenario}/{numbers[scenario]}"))
    latest_s = max((each.began_s for each in recorded), default=0.0)
    for metric in (*signals.METRICS, *_OURS, *_unnamed(recorded)):
        yield f"# HELP {metric.name} {metric.help}"
        yield f"# TYPE {metric.name} {metric.kind}"
        for each in recorded:
            yield from _family(metric, each, shift_s=0.0 if keep_times else latest_s - each.began_s)
    yield "# EOF"


def _record(run: Run, facts: Row, lines: Iterable[Row], *, label: str) -> _Recorded:
    series: dict[str, _Points] = defaultdict(list)
    times = []
    for time_ns, samples in replay(lines):
        times.append(time_ns / 1e9)
        for name, value in samples.items():
            series[name].append((times[-1], value))
    if not times:
        raise ExportError(f"{run.path / 'evidence' / 'metrics.jsonl'} has no scrapes: run the scenario again")
    for name, value in _verdict_samples(run, facts):
        series[name] = [(time_s, value) for time_s in times]
    return _Recorded(label=label, began_s=times[0], series=series)


def _verdict_samples(run: Run, facts: Row) -> Iterator[tuple[str, float]]:
    try:
        verdict = run.read_verdict()
    except RunError:
        # Never judged.
        verdict = {"verdict": "unknown", "gates": ()}
    about = {"scenario": facts.get("scenario"), "seed": facts.get("seed"), "commit": facts.get("commit") or "unknown"}
    yield _named("mailrig_run_info", **about, verdict=verdict["verdict"]), 1.0
    for gate in verdict["gates"]:
        yield _named("mailrig_gate_passed", gate=gate["id"]), float(gate["verdict"] == "pass")
        if gate["observed"] is not None:
            yield _named("mailrig_gate_observed", gate=gate["id"]), float(gate["observed"])


def _named(name: str, **labels: Any) -> str:
    shown = ",".join(f'{key}="{_escaped(str(value))}"' for key, value in labels.items())
    return f"{name}{{{shown}}}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _unnamed(recorded: Iterable[_Recorded]) -> list[signals.Metric]:
    """Families that were scraped and that no table names; they are shown as gauges."""
    known = {metric.name + ending for metric in (*signals.METRICS, *_OURS) for ending in _ENDINGS[metric.kind]}
    names = {name.partition("{")[0] for each in recorded for name in each.series} - known
    return [
        signals.Metric(name=name, kind="gauge", labels=(), document="", help="As the exporter told it.")
        # A counter by another name would not be taken for a gauge.
        for name in sorted(names)
        if not name.endswith("_total")
    ]


def _family(metric: signals.Metric, run: _Recorded, *, shift_s: float) -> Iterator[str]:
    """The family's lines, one histogram or series after the other, each by time: so OpenMetrics wants it."""
    wanted = {metric.name + ending for ending in _ENDINGS[metric.kind]}
    groups: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for name, points in run.series.items():
        base, _, labels = name.partition("{")
        if base in wanted:
            head = f'{base}{{run="{_escaped(run.label)}"{"," if labels else "}"}{labels}'
            lines = ((time_s, f"{head} {value!r} {time_s + shift_s:.3f}") for time_s, value in points)
            groups[_EDGE.sub("", labels)].extend(lines)
    for group in groups.values():
        # Stable: of one time, in the order of the scrape, which has a histogram's edges in theirs.
        yield from (line for _, line in sorted(group, key=lambda pair: pair[0]))


def write(lines: Iterable[str], file: Path) -> None:
    """Write the exposition to a file.

    Raises:
        ExportError: it can't be written.
    """
    try:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(f"{line}\n" for line in lines)
    except OSError as err:
        raise ExportError(f"{file} can't be written: {err.strerror}") from err
