"""Literal runs for metrics of which the recorded run has nothing: each with one that keeps its check, and one not.

``RUNS`` is read by test_adversity, which judges each, and test_recorded_runs: no shipped gate lacks a failing run.
"""

from __future__ import annotations

from dataclasses import replace

from mailrig.evidence import Evidence
from mailrig.history import Op
from mailrig.scenario import Nemesis, Stage, load_scenario

S = 10**9
SMOKE = load_scenario("smoke")
PREFIX = "email_service.tasks."


def op(at_s, type_, f, *, process="nemesis", error=None, **value):
    return Op(index=0, time_ns=int(at_s * S), process=process, type=type_, f=f, value=value, error=error)


def job(job_id, *, queue="send", name="send_email", at_s=0.0, finished_s=None, **more):
    finished_ns = None if finished_s is None else int(finished_s * S)
    facts = {"job_id": job_id, "queue": queue, "name": PREFIX + name, "created_ns": int(at_s * S), "publishes": 1}
    return {**facts, "finished_ns": finished_ns, "tenant_id": "acme", "state": "succeeded", **more}


def execution(
    job_id, started_s, ended_s=None, *, ordinal=1, queue="send", name="send_email", outcome="succeeded", **more
):
    return {
        "execution_id": f"{job_id}-{ordinal}",
        "job_id": job_id,
        "ordinal": ordinal,
        "queue": queue,
        "name": PREFIX + name,
        "pid": 1,
        "process_start_ns": 0,
        "due_ns": 0,
        "started_ns": int(started_s * S),
        "ended_ns": None if ended_s is None else int(ended_s * S),
        "outcome": outcome,
        "error_type": None,
        **more,
    }


def tries(*outcomes, error_type="imap-unavailable"):
    """A sync with these outcomes, one after the other."""
    rows = [
        execution(
            "sync-1", n, n + 0.5, ordinal=n, queue="sync", name="sync_emails", outcome=outcome, error_type=error_type
        )
        for n, outcome in enumerate(outcomes, start=1)
    ]
    return Evidence(jobs=(job("sync-1", queue="sync", name="sync_emails"),), executions=tuple(rows))


def in_order(*starts_s):
    """Sends that have waited since the beginning, and a sync that was asked for at 1 s and started at the last time."""
    *sends, sync_s = starts_s
    jobs = [job(f"send-{n}") for n in range(len(sends))] + [job("sync", queue="sync", name="sync_emails", at_s=1)]
    ran = [execution(f"send-{n}", at_s) for n, at_s in enumerate(sends)]
    return Evidence(jobs=tuple(jobs), executions=(*ran, execution("sync", sync_s, queue="sync", name="sync_emails")))


def ticks(*times_s, outage=None):
    """Ticks of beat at a scale of 0.1, which makes 30 s of its five minutes."""
    rows = [job(f"tick-{n}", queue="periodic", name="periodic_sync", at_s=at_s) for n, at_s in enumerate(times_s)]
    ops = [op(outage[0], "invoke", "pause-beat"), op(outage[1], "ok", "heal", action="pause-beat")] if outage else []
    return Evidence(jobs=tuple(rows), history=tuple(ops))


def stages(*times_s):
    """One send in each second, at stages of 10 s and 12, 24 and 36 a second, that take so long from end to end."""
    ops = [op(0, "info", "phase", process="runner", name="warmup")]
    for n, took_s in enumerate(times_s):
        value = {"arrival": n, "intended_ns": n * S, "tenant": "acme", "task_id": f"t{n}"}
        ops += [op(n, "invoke", "send", process="user", **value), op(n, "ok", "send", process="user", **value)]
        if took_s is not None:
            ended = {"task_id": f"t{n}", "ended_ns": int((n + took_s) * S), "tenant": "acme"}
            ops.append(op(n + took_s, "ok", "complete", process="feed", **ended))
    return Evidence(history=tuple(ops))


def requests(count):
    ops = [
        op(n, type_, "send", process="user", arrival=n, intended_ns=0, task_id=f"t{n}")
        for n in range(count)
        for type_ in ("invoke", "ok")
    ]
    return Evidence(history=tuple(ops))


def worked(queue_s, run_s):
    return Evidence(jobs=(job("a"),), executions=(execution("a", queue_s, queue_s + run_s),))


def memory(growth_bytes):
    """A minute of a process that takes 50 MB, and so much more in each half second."""
    rows = [
        {
            "time_ns": n * S // 2,
            "processes": [{"kind": "worker-child", "pid": 1, "pss_bytes": 50_000_000 + n * growth_bytes}],
        }
        for n in range(120)
    ]
    return Evidence(memory=tuple(rows))


KILLED = Evidence(executions=(execution("a", 1, outcome="killed"), execution("b", 1, 2)))
ALIVE = Evidence(executions=(execution("b", 1, 2),))
HEALED = Evidence(
    history=(op(1, "invoke", "pause-redis"), op(1, "ok", "pause-redis"), op(4, "ok", "heal", action="pause-redis"))
)
IDLE = Evidence(history=(op(1, "invoke", "pause-redis"), op(6, "info", "pause-redis", error="no occasion within 5 s")))
PAUSE = replace(SMOKE, nemesis=(Nemesis(at_s=1, action="pause-redis", options={}),))
STAGED = replace(
    SMOKE, load=replace(SMOKE.load, stages=tuple(Stage(duration_s=10, factor=factor) for factor in (1, 2, 3)))
)

#: Metric: the check, a run that keeps it, one that breaks it, and the scenario of both.
RUNS = {
    "nemesis.undone": ("== 0", HEALED, IDLE, PAUSE),
    "executions.killed": ("== 0", ALIVE, KILLED, SMOKE),
    "worker.children": (
        "min >= 2",
        Evidence(executions=(execution("a", 1, 2, node="n"), execution("b", 1, 2, node="n", pid=2))),
        Evidence(executions=(execution("a", 1, 2, node="n"), execution("b", 3, 4, node="n"))),
        SMOKE,
    ),
    "load.accepted": ("min >= 3", requests(3), requests(2), SMOKE),
    "queue.depth": (
        "max >= 50",
        Evidence(queues=({"time_ns": 1, "ready": {"send": 60}}, {"time_ns": 2, "error": "TimeoutError"})),
        Evidence(queues=({"time_ns": 1, "ready": {"send": 6}},)),
        SMOKE,
    ),
    "retry.depth": ("max >= 3", tries("retry", "retry", "retry", "succeeded"), tries("retry", "succeeded"), SMOKE),
    "task.continued": (
        "count >= 1",
        tries("retry", "succeeded", error_type=None),
        tries("succeeded"),
        SMOKE,
    ),
    "priority.overtaken": ("max < 1s", in_order(0.5, 1.1, 1.9, 1.95), in_order(0.5, 1.1, 4.0, 4.1), SMOKE),
    "beat.ticks_wrong": ("== 0", ticks(0, 30.1, 75, 105, outage=(50, 74)), ticks(0, 30.1, 35, 65), SMOKE),
    "capacity.per_s": ("min >= 24", stages(*[0.1] * 20, *[9] * 10), stages(*[0.1] * 10, *[9] * 20), STAGED),
    "task.queue_time": ("p95 < 1s", worked(0.5, 1), worked(2, 1), SMOKE),
    "task.run_time": ("max < 10s", worked(1, 9), worked(1, 11), SMOKE),
    "memory.slope": ("max < 20MiB", memory(10_000), memory(500_000), SMOKE),
}
