"""The metrics of a watch: pure functions of what was seen and of what is declared. No samples means unknown.

Rows of ``METRICS``; called by judging. Each has a literal watch that it fails (tests/unit/rig/test_watch_metrics.py).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from mailrig.checkers import Measurement, Sample
from mailrig.checkers.measurement import nothing, series
from mailrig.checkers.memory import slopes
from mailrig.evidence import Row
from mailrig.statistics import slope_interval
from mailrig.watch.limits import Backoff, Limits
from mailrig.watch.seen import MARGIN_NS, Execution, Retry, Seen

Measure = Callable[[Seen, Limits], Measurement]
#: A queue that has grown by fewer messages has not grown.
GROWN_MIN: Final = 10
_POINTS_MIN: Final = 8
_CONFIDENCE: Final = 0.95
_SEED: Final = 7


def sample_gap(seen: Seen, _limits: Limits) -> Measurement:
    """Seconds between two samples of the broker: who did not look has seen nothing."""
    gaps = [
        Sample(value=(after["time_ns"] - row["time_ns"]) / 1e9, note=f"after {row['time_ns']}", at_ns=row["time_ns"])
        for row, after in itertools.pairwise(seen.samples)
    ]
    return series(gaps, kind="s", of="two samples of the broker")


def workers_seen(seen: Seen, _limits: Limits) -> Measurement:
    """How many workers answered, each time they were asked."""
    return series(
        [Sample(value=len(row["nodes"]), at_ns=row["time_ns"]) for row in seen.workers],
        kind="",
        of="answer of the workers",
    )


# --- held and running -------------------------------------------------------------------------------------------------


def worker_held(seen: Seen, _limits: Limits) -> Measurement:
    """Messages that all workers hold together at each sample: not acknowledged, or running.

    With early acknowledgement what runs is acknowledged already, so the two are united.
    """
    if not seen.samples:
        return nothing("no sample of the broker")
    running = _running_at([row["time_ns"] for row in seen.samples], seen)
    found = [_held(seen, row, tasks) for row, tasks in zip(seen.samples, running, strict=True)]
    if not any(sample.value for sample in found):
        return nothing("no worker held a message while it was watched")
    return series(found, kind="", of="samples of the broker")


def _held(seen: Seen, row: Row, running: set[str]) -> Sample:
    live = [entry for entry in row["unacked"] if entry["received_ns"] >= seen.since_ns and seen.is_ours(entry)]
    waiting = {entry["task_id"] for entry in live}
    later = sum(entry.get("eta_ns", 0) > row["time_ns"] for entry in live)
    # Beyond what is listed all are counted: a thousand held messages need no names.
    count = len(waiting | running) + max(row.get("unacked_count", 0) - len(row["unacked"]), 0)
    note = (
        f"{count} held: {len(waiting)} not acknowledged, {later} of them not due yet (a countdown is held beside the "
        f"prefetch limit), {len(running - waiting)} acknowledged and running"
    )
    return Sample(value=count, note=note, at_ns=row["time_ns"])


def _running_at(times: list[int], seen: Seen) -> Iterator[set[str]]:
    """The tasks that certainly run at each of the broker's times."""
    margin_ns = MARGIN_NS + seen.clock_error_ns
    pending = sorted(seen.executions, key=lambda one: one.start_ns, reverse=True)
    current: list[Execution] = []
    for time_ns in times:
        while pending and pending[-1].start_ns + margin_ns <= time_ns:
            current.append(pending.pop())
        current = [one for one in current if one.end_ns - margin_ns > time_ns]
        yield {one.task_id for one in current}


def worker_running(seen: Seen, _limits: Limits) -> Measurement:
    """The most tasks that certainly ran at once on each worker: an exact sweep where it sends events."""
    nodes: dict[str, list[Execution]] = defaultdict(list)
    for one in seen.executions:
        nodes[one.node].append(one)
    return series([_peak(node, ran) for node, ran in sorted(nodes.items())], kind="", of="task that ran")


def _peak(node: str, ran: Iterable[Execution]) -> Sample:
    certain = [one for one in ran if one.end_ns > one.start_ns]
    # At one instant ends come before starts: a slot that is free again may be taken.
    steps = sorted([(one.end_ns, -1) for one in certain] + [(one.start_ns, 1) for one in certain])
    peak, peak_ns = max(
        zip(itertools.accumulate(step for _, step in steps), (at for at, _ in steps), strict=True), default=(0, 0)
    )
    return Sample(value=peak, labels={"node": node}, note=f"{node}: {peak} at {peak_ns}")


def prefetch_lost(seen: Seen, limits: Limits) -> Measurement:
    """By how much a worker's prefetch count is below its slots times the multiplier: so many slots stay idle."""
    found = []
    for row in seen.workers:
        for node, facts in row["nodes"].items():
            wanted, count = limits.concurrency.get(node, 0) * limits.multiplier.get(node, 0), facts["prefetch_count"]
            if wanted and count is not None:
                note = f"{node} at {row['time_ns']}: {count} of {wanted}"
                found.append(
                    Sample(value=max(wanted - count, 0), labels={"node": node}, note=note, at_ns=row["time_ns"])
                )
    return series(found, kind="", of="prefetch count")


# --- retries ----------------------------------------------------------------------------------------------------------


def retry_delay_error(seen: Seen, limits: Limits) -> Measurement:
    """How far each retry's due time is from its declared delay; with jitter, how far outside of what may be drawn."""
    if not seen.eventful:
        return nothing(
            "no event of a task was heard (no worker sends events of tasks, or none ran): retries are not known"
        )
    judged = [_error(retry, limits.backoff[retry.name]) for retry in seen.retries if retry.name in limits.backoff]
    others = sorted({retry.name for retry in seen.retries if retry.name not in limits.backoff})
    if not judged and others:
        return nothing(
            f"the retries of {', '.join(others)} have the delay that their code passes: declare it by --gates"
        )
    return series(judged, kind="s", of="retry of a task that declares its backoff")


def _error(retry: Retry, backoff: Backoff) -> Sample:
    wanted_s = backoff.delay_s(retry.number)
    below_s = 0.0 if backoff.jitter else wanted_s
    error_s = max(below_s - retry.delay_s, retry.delay_s - wanted_s, 0.0)
    promised = f"0 to {wanted_s:g} s" if backoff.jitter else f"{wanted_s:g} s"
    note = f"{retry.name} {retry.task_id}, retry {retry.number + 1}: {retry.delay_s:.3f} s, declared {promised}"
    return Sample(value=error_s, labels={"task": retry.name}, note=note)


# --- queues -----------------------------------------------------------------------------------------------------------


def queue_depth(seen: Seen, _limits: Limits) -> Measurement:
    """Messages that wait in each queue, over all its steps of priority, at each sample."""
    found = [
        Sample(value=count, labels={"queue": queue}, note=f"{queue} at {row['time_ns']}", at_ns=row["time_ns"])
        for row in seen.samples
        for queue, count in row["ready"].items()
    ]
    return series(found, kind="", of="samples of the broker")


def queue_growth(seen: Seen, _limits: Limits) -> Measurement:
    """Messages a minute by which each queue grows, by ``bound``: ``low``, ``middle`` and ``high``."""
    queues: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in seen.samples:
        for queue, count in row["ready"].items():
            queues[queue].append((row["time_ns"] / 1e9, float(count)))
    found = [
        s for queue, points in sorted(queues.items()) if len(points) >= _POINTS_MIN for s in _growth(queue, points)
    ]
    return series(found, kind="", of=f"queue with {_POINTS_MIN} samples")


def _growth(queue: str, points: list[tuple[float, float]]) -> Iterator[Sample]:
    grown = slope_interval(points, confidence=_CONFIDENCE, seed=_SEED)
    over_s = points[-1][0] - points[0][0]
    low, middle, high = (value * 60 for value in (grown.low, grown.estimate, grown.high))
    if grown.estimate * over_s < GROWN_MIN:
        low = min(low, 0.0)
    note = f"{queue}: {middle:+.0f} messages a minute (95 %: {low:+.0f} to {high:+.0f}) over {over_s:.0f} s"
    for bound, value in (("low", low), ("middle", middle), ("high", high)):
        yield Sample(value=value, labels={"queue": queue, "bound": bound}, note=note)


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_process(seen: Seen, _limits: Limits) -> Measurement:
    """PSS of each process of the workers at each sample."""
    found = [
        Sample(
            value=process["pss_bytes"],
            labels={"node": process["node"], "kind": process["kind"], "pid": str(process["pid"])},
            note=f"{process['kind']} {process['pid']} of {process['node']} at {row['time_ns']}",
            at_ns=row["time_ns"],
        )
        for row in seen.memory
        for process in row["processes"]
        if process["pss_bytes"] is not None
    ]
    return series(found, kind="B", of="process of a worker on this machine whose memory may be read")


def memory_total(seen: Seen, limits: Limits) -> Measurement:
    """PSS of all processes of each worker together, at each sample."""
    found = []
    for row in seen.memory:
        nodes: dict[str, int] = defaultdict(int)
        for process in row["processes"]:
            nodes[process["node"]] += process["pss_bytes"] or 0
        found += [
            Sample(value=size, labels={"node": n}, note=f"{n} at {row['time_ns']}", at_ns=row["time_ns"])
            for n, size in nodes.items()
        ]
    return series(found, kind="B", of="memory") if found else memory_process(seen, limits)


def memory_slope(seen: Seen, _limits: Limits) -> Measurement:
    """Growth of each process in bytes a minute (``mailrig.checkers.memory``)."""
    return slopes(seen.memory)


METRICS: Final[Mapping[str, Measure]] = {
    "sample_gap": sample_gap,
    "workers_seen": workers_seen,
    "worker.held": worker_held,
    "worker.running": worker_running,
    "worker.prefetch_lost": prefetch_lost,
    "retry.delay_error": retry_delay_error,
    "queue.depth": queue_depth,
    "queue.growth": queue_growth,
    "memory.process": memory_process,
    "memory.total": memory_total,
    "memory.slope": memory_slope,
}
