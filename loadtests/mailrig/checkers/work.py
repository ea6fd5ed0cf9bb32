"""Is the work right? What workers hold and run, retries, conservation of messages, memory. Exact wherever rows are.

The clock of rows, samples and processes is one host's; see ``view.intervals`` for executions that have no end.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator

from mailrig.checkers.measurement import Measurement, Sample, nothing, series, violations
from mailrig.checkers.outages import afloat, broker_returns
from mailrig.checkers.view import (
    FINAL,
    Interval,
    executions_in_order,
    intervals,
    is_retry,
    jobs_by_id,
    stolen,
    worker_deaths,
    worker_starts,
)
from mailrig.evidence import Evidence, Row
from mailrig.scenario import Contract, Scenario

# --- held and running -------------------------------------------------------------------------------------------------


def worker_held(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """How many messages the worker holds at each sample: not acknowledged, or running.

    Not acknowledged counts since the current main process started (a killed one leaves stale entries behind); running
    is united with it, because early acknowledgement would show only half of what is held.
    """
    starts, samples = _epochs(evidence), readings(evidence)
    if not starts or not samples:
        return nothing("no queue samples" if starts else "no worker process")
    running = _running_at([row["time_ns"] for row in samples], intervals(evidence))
    found = []
    for row, jobs in zip(samples, running, strict=True):
        held = {entry["task_id"] for entry in _live_unacked(row, starts)} | jobs
        note = f"at {row['time_ns']}: {', '.join(sorted(held))}"
        found.append(Sample(value=len(held), note=note, at_ns=row["time_ns"]))
    return series(found, kind="", of="queue samples")


def readings(evidence: Evidence) -> list[Row]:
    """The samples of the broker, in order, without those in which it did not answer."""
    return sorted((row for row in evidence.queues if "unacked" in row), key=lambda row: row["time_ns"])


def _epochs(evidence: Evidence) -> list[int]:
    """From when on a delivery is surely known of: a worker that began anew, a broker that came back.

    What was delivered before stays among the unacknowledged when its worker died, or its answer met no broker.
    """
    starts = worker_starts(evidence)
    return sorted([*starts, *broker_returns(evidence)]) if starts else []


def _live_unacked(sample: Row, starts: list[int]) -> list[Row]:
    """Entries that the worker of that instant received itself."""
    position = bisect.bisect_right(starts, sample["time_ns"])
    since = starts[position - 1] if position else 0
    return [entry for entry in sample["unacked"] if entry["received_ns"] >= since]


def _running_at(times: list[int], ran: list[Interval]) -> Iterator[set[str]]:
    """The jobs that certainly run at each of the ascending times."""
    pending = sorted(ran, key=lambda interval: interval.start_ns, reverse=True)
    open_now: list[Interval] = []
    for time_ns in times:
        while pending and pending[-1].start_ns <= time_ns:
            open_now.append(pending.pop())
        open_now = [interval for interval in open_now if interval.end_ns > time_ns]
        yield {interval.row["job_id"] for interval in open_now}


def worker_running(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """The most executions that ran at once on each node: an exact sweep over the rows, no sampling."""
    nodes: dict[str, list[Interval]] = defaultdict(list)
    for interval in intervals(evidence):
        nodes[interval.row["node"]].append(interval)
    return series([_peak(node, ran) for node, ran in sorted(nodes.items())], kind="", of="executions")


def _peak(node: str, ran: list[Interval]) -> Sample:
    # At one instant ends come before starts: a slot that is free again may be taken.
    certain = [interval for interval in ran if interval.end_ns > interval.start_ns]
    steps = sorted([(i.end_ns, -1) for i in certain] + [(i.start_ns, 1) for i in certain])
    running = peak = peak_ns = 0
    for at_ns, step in steps:
        running += step
        if running > peak:
            peak, peak_ns = running, at_ns
    return Sample(value=peak, labels={"node": node}, note=f"{node}: {peak} at {peak_ns}")


# --- jobs and their executions ----------------------------------------------------------------------------------------


def jobs_overlaps(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """A job has one open execution at a time, and succeeds at most once."""
    jobs: dict[str, list[Interval]] = defaultdict(list)
    for interval in intervals(evidence):
        jobs[interval.row["job_id"]].append(interval)
    cases = (case for job, ran in jobs.items() for case in _overlaps(job, ran))
    return violations(cases, judged=len(evidence.executions), of="executions")


def _overlaps(job: str, ran: list[Interval]) -> Iterator[str]:
    ran.sort(key=lambda interval: interval.start_ns)
    for first, second in itertools.pairwise(ran):
        if second.start_ns < first.end_ns:
            late_ms = (first.end_ns - second.start_ns) / 1e6
            names = f"{first.row['execution_id']} and {second.row['execution_id']}"
            yield f"job {job}: executions {names} overlap by {late_ms:.1f} ms"
    succeeded = sum(interval.row["outcome"] == "succeeded" for interval in ran)
    if succeeded > 1:
        yield f"job {job}: {succeeded} executions succeeded"


def lost_messages(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """Each message that the nemesis took from the broker was published again, and its job succeeded all the same."""
    taken, jobs = stolen(evidence), jobs_by_id(evidence)
    if not taken:
        return nothing("the nemesis took no message from the broker: nothing was tested")
    return violations(_not_recovered(taken, jobs), judged=len(taken), of="messages taken from the broker")


def _not_recovered(taken: Iterable[str], jobs: dict[str, Row]) -> Iterator[str]:
    for task in taken:
        job = jobs.get(task)
        if job is None:
            yield f"task {task} was taken from the broker and has no job row"
        elif job["state"] != "succeeded" or job["publishes"] < 2:  # noqa: PLR2004  # the first one and at least one more
            yield f"task {task} was taken from the broker: {job['state']} after {job['publishes']} publishes"


def jobs_unbalanced(evidence: Evidence, contract: Contract, _scenario: Scenario) -> Measurement:
    """After the drain nothing is under way, and every published message is accounted for.

    published = executions + refusals + ready + unacked + taken + lost - redelivered, over all jobs:
    each copy of a message is leased (an execution), or finds its job leased or settled (a refusal), or is still in the
    broker, or was taken by the nemesis. Re-publishing adds to both sides. Only the death of a worker's main process
    may lose what it held (at most held_max, and one more reply that was on its way to it) or bring it back without a
    publish, and each killed execution may come back once. A server that is away may do either to the messages of all
    jobs that are open then (``outages.afloat``). Without deaths, kills and outages the equation is exact.
    Stale entries of a dead worker in ``unacked`` are not under way: their jobs are settled, or reported here.
    """
    if not evidence.broker or not evidence.jobs:
        return nothing("no job rows" if evidence.broker else "no reading of the broker after the drain")
    cases = [*_not_settled(evidence), *_not_drained(evidence), *_miscounted(evidence), *_flow(evidence, contract)]
    return violations(cases, judged=len(evidence.jobs), of="jobs")


def _not_settled(evidence: Evidence) -> Iterator[str]:
    for row in evidence.jobs:
        if row["state"] not in FINAL:
            yield f"job {row['job_id']} ({row['name']}) is {row['state']} after the drain"


def _not_drained(evidence: Evidence) -> Iterator[str]:
    for queue, count in evidence.broker["ready"].items():
        if count:
            yield f"queue {queue} has {count} messages after the drain"
    unacked, stale = evidence.broker["unacked"], _stale(evidence)
    if unacked > stale:
        yield f"{unacked} messages are not acknowledged after the drain, {stale} of them stale"


def _stale(evidence: Evidence) -> int:
    """Entries of the last sample that belong to a worker which is no more."""
    samples = readings(evidence)
    return len(samples[-1]["unacked"]) - len(_live_unacked(samples[-1], _epochs(evidence))) if samples else 0


def _miscounted(evidence: Evidence) -> Iterator[str]:
    rows = executions_in_order(evidence)
    for job in evidence.jobs:
        seen = len(rows.get(job["job_id"], ()))
        if job["executions"] != seen:
            yield f"job {job['job_id']} counts {job['executions']} executions and has {seen} rows"
    jobs = jobs_by_id(evidence)
    for job_id in rows.keys() - jobs.keys():
        yield f"executions of job {job_id} have no job row"


def _flow(evidence: Evidence, contract: Contract) -> Iterator[str]:
    published = sum(row["publishes"] for row in evidence.jobs)
    met = sum(row["executions"] + row["refusals"] for row in evidence.jobs)
    waiting = sum(evidence.broker["ready"].values()) + evidence.broker["unacked"]
    taken = len(stolen(evidence))
    deaths = worker_deaths(evidence)
    kills = sum(row["outcome"] == "killed" for row in evidence.executions)
    held = int(contract.number("worker.held_max"))
    lost, floating = published - met - waiting - taken, afloat(evidence)
    if not -(deaths * held + kills + floating) <= lost <= deaths * (held + 1) + floating:
        yield (
            f"{published} published = {met} leased or refused + {waiting} in the broker + {taken} taken + {lost} "
            f"unaccounted for, with {deaths} deaths of a worker and {kills} killed executions"
        )


# --- retries ----------------------------------------------------------------------------------------------------------


def retry_delay_error(evidence: Evidence, contract: Contract, scenario: Scenario) -> Measurement:
    """How far each retry's due time is from the end before it plus the promised delay, scaled.

    Due times, not start times: the start is capacity. Killed executions don't count as attempts: they have no error of
    their own, and neither has what goes on behind its soft time limit.
    """
    found = []
    for job, rows in executions_in_order(evidence).items():
        retries = 0
        for row, after in itertools.pairwise(rows):
            if not is_retry(row):
                continue
            wanted_s = promised_delay_s(contract, retries) * scenario.system.time_scale
            delay_s = (after["due_ns"] - row["ended_ns"]) / 1e9
            note = f"job {job} retry {retries + 1}: {delay_s:.3f} s, promised {wanted_s:.3f} s"
            found.append(
                Sample(value=abs(delay_s - wanted_s), labels={"queue": row["queue"]}, note=note, at_ns=row["ended_ns"])
            )
            retries += 1
    return series(found, kind="s", of="retries")


def promised_delay_s(contract: Contract, retry: int) -> float:
    """The delay before the retry of that number, from 0; the list ends where the cap begins to matter."""
    delays = contract.numbers("retry.delays_s")
    if retry < len(delays):
        return delays[retry]
    return min(delays[-1] * 2.0 ** (retry - len(delays) + 1), contract.number("retry.cap_s"))


def retry_over_limit(evidence: Evidence, contract: Contract, _scenario: Scenario) -> Measurement:
    """Jobs that were retried more often than their task may be."""
    jobs = executions_in_order(evidence)
    return violations(_over_limit(jobs.values(), contract), judged=len(jobs), of="jobs with executions")


def _over_limit(jobs: Iterable[list[Row]], contract: Contract) -> Iterator[str]:
    for rows in jobs:
        limit = contract.number(f"retries.{rows[0]['name'].rpartition('.')[2]}")
        retries = sum(is_retry(row) for row in rows)
        if retries > limit:
            yield f"job {rows[0]['job_id']} ({rows[0]['name']}): {retries} retries, {limit:g} are allowed"


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_process(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """PSS of each worker process at each sample."""
    return series(
        [
            Sample(
                value=process["pss_bytes"],
                labels={"kind": process["kind"], "pid": str(process["pid"])},
                note=f"{process['kind']} {process['pid']} at {row['time_ns']}: {_mib(process['pss_bytes'])}",
                at_ns=row["time_ns"],
            )
            for row in evidence.memory
            for process in row["processes"]
        ],
        kind="B",
        of="memory samples",
    )


def memory_total(evidence: Evidence, _contract: Contract, _scenario: Scenario) -> Measurement:
    """PSS of all worker processes together at each sample: shared pages are counted once."""
    sums = [
        (row["time_ns"], sum(p["pss_bytes"] for p in row["processes"])) for row in evidence.memory if row["processes"]
    ]
    return series(
        [Sample(value=total, note=f"at {time_ns}: {_mib(total)}", at_ns=time_ns) for time_ns, total in sums],
        kind="B",
        of="memory samples",
    )


def _mib(size_bytes: float) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"
