"""Gates while a run goes on: what can be said of them from what has come in so far.

Rule 1: this is a view, not a verdict: the judge sees all there is, at the end, and may say otherwise.
Rule 2: a gate that what comes in says nothing of is not listed; there is none that guesses.
Pure. Callers: runner, for the line of progress; locustfile, for the tab of Locust's page.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from mailrig.checkers.expression import UNITS, Check, parse_check, parse_metric
from mailrig.checkers.hopeless import hopeless
from mailrig.clients import Timing
from mailrig.scenario import Contract, Gate, Scenario, ScenarioError

#: First word of a timing's name -> the metric that it is a sample of, and what its second word is a label of.
_TIMED: Final[Mapping[str, tuple[str, str]]] = {
    "accept": ("http.accept", "f"),
    "e2e": ("task.e2e", "queue"),
    "queue": ("task.queue_time", "queue"),
    "run": ("task.run_time", "queue"),
    "lag": ("schedule_lag", "f"),
}
#: Metrics with one sample an arrival, at most.
ONE_EACH: Final = frozenset({"http.accept", "task.e2e", "schedule_lag"})
#: Metrics whose samples are what was seen at an instant.
HELD, RUNNING = "worker.held", "worker.running"
_KINDS: Final[Mapping[str, str]] = {name: "s" for name, _ in _TIMED.values()} | {HELD: "", RUNNING: ""}
#: An execution that is not seen yet can't have begun earlier than this before the newest one: the hard limit, and room.
_UNSEEN_NS: Final = 600 * 10**9
HOLDS, BROKEN, WAITING = "holds", "broken", "waiting"


@dataclass(frozen=True, kw_only=True)
class LiveGate:
    """A gate, as of now."""

    id: str
    metric: str
    check: str
    #: What has been observed, with its unit; empty before the first sample.
    observed: str
    #: ``HOLDS``, ``BROKEN``, or ``WAITING``: nothing was seen yet, or a floor that may still be reached.
    state: str

    def __str__(self) -> str:
        return f"{self.id} {self.observed}"


def require_visible(scenario: Scenario) -> None:
    """Refuse a gate that is to abort a run by what nobody sees while it goes on.

    Raises:
        ScenarioError: at its line.
    """
    for gate in scenario.gates:
        if gate.abort and parse_metric(gate.metric)[0] not in _KINDS:
            raise ScenarioError(
                f"gate {gate.id}: abort does not go with {gate.metric}, which is known after the run only",
                file=gate.file or scenario.file,
                line=gate.line,
                allowed=", ".join(sorted(_KINDS)),
            )


class LiveGates:
    """The gates of a scenario that latencies, and what workers hold and run, tell of.

    Where there may be other workers than one of ours (``alone`` is false), nothing is said of what one holds or runs.
    """

    def __init__(self, scenario: Scenario, contract: Contract, *, alone: bool = True) -> None:
        kinds = {name: kind for name, kind in _KINDS.items() if alone or name not in {HELD, RUNNING}}
        found = ((gate, _readable(gate, contract, kinds)) for gate in scenario.gates)
        self._gates = [(gate, *read) for gate, read in found if read is not None]
        #: Metric and value of its label -> samples.
        self._samples: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._peak = Peak()

    def time(self, timings: Iterable[Timing]) -> None:
        """Take in durations; those of the warm-up are no samples."""
        for timing in timings:
            word, _, label = timing.name.partition(" ")
            metric, _ = _TIMED.get(word, ("", ""))
            # What was refused was not accepted; a task that failed has its times all the same.
            if metric and not timing.warmup and not (metric == "http.accept" and timing.error):
                # Kept in order: each look would sort the samples of hours otherwise.
                bisect.insort(self._samples[metric, label], timing.duration_ns / 1e9)

    def see(self, metric: str, value: float) -> None:
        """Take in what there is at this instant; its maximum is kept."""
        seen = self._samples[metric, ""]
        if not seen or value > seen[0]:
            seen[:] = [value]

    def ran(self, start_ns: int, end_ns: int) -> None:
        """Take in when an execution ran."""
        self._peak.add(start_ns, end_ns)

    def rows(self) -> list[LiveGate]:
        """The gates in their order, as of now."""
        if running := self._peak.value():
            self.see(RUNNING, running)
        return [self._row(gate, check, metric, labels) for gate, check, metric, labels in self._gates]

    def hopeless(self, arrivals: int) -> LiveGate | None:
        """A gate that aborts the run and can't hold any more, whatever the rest of so many arrivals brings."""
        for gate, check, metric, labels in self._gates:
            # Of executions nobody knows how many there will be: there a maximum alone can be hopeless.
            total = arrivals if metric in ONE_EACH else None
            if gate.abort and hopeless(check, self._values(metric, labels), total):
                return self._row(gate, check, metric, labels)
        return None

    def _row(self, gate: Gate, check: Check, metric: str, labels: Mapping[str, str]) -> LiveGate:
        values = self._values(metric, labels)
        observed, state = "", WAITING
        if values:
            value = check.observe(values, _KINDS[metric])
            observed = f"{value / UNITS[check.unit][1]:.4g}{check.unit and ' ' + check.unit}"
            state = HOLDS if check.holds(value) else WAITING if check.operator.startswith(">") else BROKEN
        return LiveGate(id=gate.id, metric=gate.metric, check=str(check), observed=observed, state=state)

    def _values(self, metric: str, labels: Mapping[str, str]) -> list[float]:
        wanted = set(labels.values())
        keys = [key for key in self._samples if key[0] == metric and (not wanted or key[1] in wanted)]
        return [value for key in keys for value in self._samples[key]]


class Peak:
    """The most executions at once, from when each ran; what is long over is folded into a number."""

    def __init__(self) -> None:
        self._ran: list[tuple[int, int]] = []
        self._max = 0

    def add(self, start_ns: int, end_ns: int) -> None:
        """One that ran in [start_ns, end_ns)."""
        if end_ns > start_ns:
            self._ran.append((start_ns, end_ns))

    def value(self) -> int:
        """The most so far."""
        running = 0
        # At one instant ends come before starts: a slot that is free again may be taken.
        for _, step in sorted([(end, -1) for _, end in self._ran] + [(start, 1) for start, _ in self._ran]):
            running += step
            self._max = max(self._max, running)
        newest = max((start for start, _ in self._ran), default=0)
        self._ran = [one for one in self._ran if one[1] > newest - _UNSEEN_NS]
        return self._max


def summary(gates: Iterable[LiveGate]) -> str:
    """For the line of progress: those that are broken by name, the others by number."""
    listed = [*gates]
    broken = [f"{gate} ({gate.check})" for gate in listed if gate.state == BROKEN]
    counts = {state: sum(gate.state == state for gate in listed) for state in (HOLDS, WAITING)}
    told = [f"broken so far: {', '.join(broken)}"] if broken else []
    told += [f"gates that hold so far: {counts[HOLDS]}"] if counts[HOLDS] else []
    return "; ".join(told)


def _readable(gate: Gate, contract: Contract, kinds: Mapping[str, str]) -> tuple[Check, str, dict[str, str]] | None:
    """Check, metric and labels, if what comes in tells of it."""
    try:
        metric, labels = parse_metric(gate.metric)
        check = parse_check(gate.check, contract)
        metric = HELD if metric == "saturation" else metric
        # A bound of the wrong kind is the judge's to refuse, and what is by a time or a baseline is the judge's alone.
        check.observe([0.0], kinds.get(metric, ""))
    except ValueError:
        return None
    # Nor is it known which sample is the last one, or in which window one is; a maximum is that of a window as well.
    if check.baseline or check.aggregate == "last" or (gate.window and check.aggregate not in {"max", "min"}):
        return None
    told = {label for name, label in _TIMED.values() if name == metric}
    return (check, metric, labels) if metric in kinds and labels.keys() <= told else None
