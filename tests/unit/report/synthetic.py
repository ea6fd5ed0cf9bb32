"""A run folder that nobody ran: four worker slots on a virtual clock, from a seed.

Small by default (25 s, about 200 spans); the rates make it as dense as a real run. It has what a report must show: a
slow start, transient refusals and their retries, a message that the nemesis loses, and a killed child.
"""

import heapq
import json
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

T0 = 1_717_752_600_000_000_000
MS = 1_000_000
S = 1_000_000_000
CONTRACT = Path(__file__).parents[3] / "loadtests" / "contract.toml"
SCENARIO = """
name = "synthetic"
description = "A slow start, three refusals, a lost message and a killed child."
seed = 7
[[fault]]
id = "slow-start"
point = "smtp.data"
when = { first = 16 }
action = { delay_ms = 600 }
[[fault]]
id = "greylist"
point = "smtp.rcpt"
when = { first = 3 }
action = { reply = "451 4.7.1 Try again later" }
"""
TASKS = {"send": "send_email", "sync": "sync_emails", "periodic": "periodic_sync"}
KILL_NS = T0 + 12 * S
LOST_NS = T0 + 13 * S
PARENT_NS = T0 + 18 * S


@dataclass
class Job:
    """A job on its way through the house."""

    queue: str
    tenant: str
    created_ns: int
    job_id: str
    trace_id: str
    parent_span: str | None
    due_ns: int = 0
    attempts: int = 0
    finished_ns: int | None = None
    lost: bool = False


@dataclass
class Builder:
    """Makes the lines of all files, then writes them."""

    seed: int = 7
    sends_per_s: float = 0.6
    syncs_per_s: float = 0.12
    duration_s: int = 25
    kill_child: bool = True
    kill_parent: bool = False
    lines: dict[str, list] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Run the clock and write everything but a verdict."""
        self.random = random.Random(self.seed)
        self.spans, self.history, self.executions, self.ledger, self.logs = [], [], [], [], []
        self.slots = [(T0 - 2 * S, 4201 + slot, T0 - 3 * S + slot * 10 * MS) for slot in range(4)]
        self.lives: list[list] = [[pid, born, None] for _, pid, born in self.slots]
        self.next_pid, self.delivered, self.refused, self.child_killed = 4211, 0, 0, False
        jobs = self._arrivals()
        self._work(jobs)
        self._write(folder, jobs)
        return folder

    # --- load ---

    def _arrivals(self) -> list[Job]:
        jobs, arrival = [], 0
        for f, rate in (("send", self.sends_per_s), ("sync", self.syncs_per_s)):
            at = 0.3
            while at < self.duration_s:
                jobs.append(self._request(f, arrival, T0 + int(at * S)))
                arrival += 1
                at += self.random.expovariate(rate)
        jobs += [self._beat(T0 + second * S) for second in range(4, self.duration_s, 10)]
        return sorted(jobs, key=lambda job: job.due_ns)

    def _id(self, digits: int) -> str:
        return f"{self.random.getrandbits(digits * 4):0{digits}x}"

    def _request(self, f: str, arrival: int, intended: int) -> Job:
        tenant = ("acme", "globex")[arrival % 2]
        job = Job(
            queue=f,
            tenant=tenant,
            created_ns=intended + 6 * MS,
            job_id=f"{self._id(8)}-0000-4000-8000-{arrival:012d}",
            trace_id=self._id(32),
            parent_span=None,
        )
        took = int(self.random.lognormvariate(2.7, 0.5) * MS)
        value = {"arrival": arrival, "intended_ns": intended, "tenant": tenant, "trace_id": job.trace_id}
        if intended < T0 + 3 * S:
            value["warmup"] = True
        self._op(intended + MS, f"user:{arrival}", "invoke", f, value)
        answer = value | {"task_id": job.job_id, "status": 202}
        self._op(intended + took + 8 * MS, f"user:{arrival}", "ok", f, answer)
        path, sql = f"POST /api/v1/{{tenant}}/email/{f}", {"db.system.name": "postgresql"}
        api = {"service": "mail-api"}
        server = self._span(job, path, intended + 2 * MS, took, kind=2, parent=self._id(16), **api)
        self._span(job, "INSERT mail", intended + 4 * MS, 2 * MS, parent=server, attributes=sql, **api)
        job.parent_span = self._span(job, f"send {f}", intended + 7 * MS, 2 * MS, kind=4, parent=server, **api)
        job.due_ns = intended + 9 * MS
        return job

    def _beat(self, at: int) -> Job:
        job = Job(
            queue="periodic",
            tenant="system",
            created_ns=at,
            job_id=f"beat-{at}",
            trace_id=self._id(32),
            parent_span=None,
        )
        beat = {"service": "mail-beat", "attributes": {"mail.root": "beat"}}
        job.parent_span = self._span(job, "send periodic", at, 2 * MS, kind=4, **beat)
        job.due_ns = at + 2 * MS
        return job

    # --- work ---

    def _work(self, jobs: list[Job]) -> None:
        ready = [(job.due_ns, index, job) for index, job in enumerate(jobs)]
        heapq.heapify(ready)
        lost = False
        while ready:
            _, index, job = heapq.heappop(ready)
            if not lost and job.queue == "send" and job.due_ns > LOST_NS:
                # The broker forgets it; two seconds later the dispatcher publishes it again.
                lost = job.lost = True
                self._op(LOST_NS, "nemesis", "invoke", "lose-message", {"queue": "send"})
                self._op(job.due_ns, "nemesis", "ok", "lose-message", {"task_id": job.job_id, "queue": "send"})
                job.due_ns += 2 * S
            else:
                self._execute(job)
            if job.finished_ns is None:
                heapq.heappush(ready, (job.due_ns, index, job))

    def _execute(self, job: Job) -> None:
        self.slots.sort()
        free, pid, born = self.slots[0]
        start = max(job.due_ns, free) + 3 * MS
        if self.kill_parent and free < PARENT_NS <= start:
            self._restart()
            self._execute(job)
            return
        job.attempts += 1
        end, outcome, error = self._outcome(job, start, pid)
        killed = outcome == "killed"
        row = self._row(job, start, None if killed else end, outcome=outcome, error_type=error)
        self._logs(row, start, end)
        if not killed:
            self._inner(job, start, end, row["span_id"], error)
        self._process_span(job, row, end)
        self.executions.append(row)
        if killed:
            self._bury(pid, end)
            job.due_ns = end + 2 * S
        elif outcome == "retry":
            self.slots[0] = (end, pid, born)
            job.due_ns = end + 500 * MS * 2 ** (job.attempts - 1)
        else:
            self.slots[0] = (end, pid, born)
            job.finished_ns = end
            self._complete(job, start, end)

    def _outcome(self, job: Job, start: int, pid: int) -> tuple[int, str, str | None]:
        took = {"send": 90, "sync": 240, "periodic": 12}[job.queue] * self.random.uniform(0.6, 1.8)
        end = start + int(took * MS)
        if job.queue == "send" and self.delivered < 16:
            end += 600 * MS
            self._fault("slow-start", "smtp.data", start + 40 * MS)
        if self.kill_child and not self.child_killed and job.queue == "send" and start > KILL_NS - 40 * MS:
            self.child_killed = True
            at = start + int(took * MS * 0.6)
            self._op(at, "nemesis", "ok", "kill-child", {"pid": pid, "task_id": job.job_id})
            return at, "killed", "worker-lost"
        if self.kill_parent and start < PARENT_NS < end:
            return PARENT_NS, "killed", "worker-lost"
        if job.queue == "send" and self.refused < 3:
            self.refused += 1
            self._fault("greylist", "smtp.rcpt", start + 30 * MS)
            return start + 45 * MS, "retry", "smtp-transient"
        self.delivered += job.queue == "send"
        return end, "succeeded", None

    def _bury(self, pid: int, at: int) -> None:
        next(life for life in self.lives if life[0] == pid)[2] = at
        if self.kill_parent and at == PARENT_NS:
            self.slots[0] = (PARENT_NS, pid, 0)
            return
        self.slots[0] = (at + 120 * MS, self.next_pid, at + 60 * MS)
        self.lives.append([self.next_pid, at + 60 * MS, None])
        self.next_pid += 1

    def _restart(self) -> None:
        """The main process died: so did its children, and the rig starts another."""
        for life in self.lives:
            life[2] = life[2] or PARENT_NS
        self._op(PARENT_NS, "nemesis", "ok", "kill-parent", {"pid": 4200})
        self.slots = [(PARENT_NS + 1200 * MS, 4301 + slot, PARENT_NS + 900 * MS) for slot in range(4)]
        self.lives += [[pid, born, None] for _, pid, born in self.slots]

    def _inner(self, job: Job, start: int, end: int, process: str, error: str | None) -> None:
        inside, took = {"parent": process}, end - start
        sql = {"attributes": {"db.system.name": "postgresql"}, **inside}
        self._span(job, "UPDATE mail", start + MS, 2 * MS, **sql)
        if job.queue == "send":
            self._span(job, "smtp connect", start + 6 * MS, 4 * MS, **inside)
            self._span(job, "smtp auth", start + 11 * MS, 6 * MS, **inside)
            told = {"mail.smtp.reply_code": 451 if error else 250, **({"error.type": error} if error else {})}
            self._span(job, "smtp send", start + 18 * MS, took - 24 * MS, attributes=told, error=error, **inside)
        elif job.queue == "sync":
            self._span(job, "imap login", start + 5 * MS, 9 * MS, **inside)
            counts = {"mail.imap.messages": 40}
            self._span(job, "imap fetch", start + 16 * MS, took - 40 * MS, attributes=counts, **inside)
        self._span(job, "INSERT mail", end - 5 * MS, 3 * MS, **sql)

    def _process_span(self, job: Job, row: dict, end: int) -> None:
        killed = row["outcome"] == "killed"
        attributes = {
            "mail.execution.id": row["execution_id"],
            "mail.execution.outcome": row["outcome"],
            "mail.execution.ordinal": row["ordinal"],
            "mail.task.name": row["name"],
            "messaging.destination.name": job.queue,
            "mail.queue_time_s": (row["started_ns"] - job.due_ns) / S,
            "mail.prefetch_wait_s": (row["started_ns"] - row["received_ns"]) / S,
            **({"error.type": row["error_type"]} if row["error_type"] else {}),
            **({"mail.synthesised": True} if killed else {}),
        }
        self._span(
            job, f"process {job.queue}", row["started_ns"], end - row["started_ns"], kind=5, parent=job.parent_span,
            attributes=attributes, error=killed, span_id=row["span_id"],
        )  # fmt: skip

    def _logs(self, row: dict, start: int, end: int) -> None:
        who = {name: row[name] for name in ("trace_id", "span_id", "execution_id", "ordinal", "pid")}
        who |= {"task_id": row["job_id"], "service": "mail-worker", "logger": "email_service.tasks"}
        task = row["name"].rpartition(".")[2]
        self.logs.append(log_line(start, "INFO", f"Task {task} starting", **who))
        if row["outcome"] == "killed":
            # Its main process tells, without a span to be in.
            main = {"logger": "email_service.losses", "task_id": row["job_id"], "service": "mail-worker", "pid": 4200}
            self.logs.append(log_line(end + 60 * MS, "ERROR", f"process {row['pid']} was lost", **main))
        elif row["error_type"]:
            said = {"exception": "tasks.py, line 40, in run\nSmtpTransientError: 451 4.7.1 Try again later"}
            self.logs.append(log_line(end, "WARNING", f"Task {task} will be tried again", **who, **said))
        else:
            self.logs.append(log_line(end, "INFO", f"Task {task} completed", **who))

    # --- lines ---

    def _op(self, time_ns: int, process: str, type_: str, f: str, value: dict) -> None:
        self.history.append(
            {"time_ns": time_ns, "process": process, "type": type_, "f": f, "value": value, "error": None}
        )

    def _fault(self, fault_id: str, point: str, time_ns: int) -> None:
        self.ledger.append(
            {"time_ns": time_ns, "protocol": "smtp", "kind": "fault", "fault_id": fault_id, "point": point}
        )

    def _complete(self, job: Job, start: int, end: int) -> None:
        value = {"task_id": job.job_id, "queue": job.queue, "state": "succeeded", "ended_ns": end, "tenant": job.tenant}
        self._op(
            end + 80 * MS,
            f"feed:{job.tenant}",
            "ok",
            "complete",
            value | {"trace_id": job.trace_id, "started_ns": start},
        )

    def _span(self, job: Job, name: str, start: int, took: int, *, span_id: str | None = None, **more) -> str:
        span_id = span_id or self._id(16)
        end = start + max(took, MS // 2)
        self.spans.append(span_line(trace_id=job.trace_id, span_id=span_id, name=name, start=start, end=end, **more))
        return span_id

    def _row(self, job: Job, start: int, end: int | None, **outcome) -> dict:
        _, pid, born = self.slots[0]
        return {
            "execution_id": f"{job.job_id}-{job.attempts}", "job_id": job.job_id, "tenant_id": job.tenant,
            "name": f"email_service.tasks.{TASKS[job.queue]}", "queue": job.queue, "ordinal": job.attempts,
            "node": "worker@synthetic", "pid": pid, "process_start_ns": born, "due_ns": job.due_ns,
            "received_ns": start - MS, "started_ns": start, "ended_ns": end, **outcome,
            "trace_id": job.trace_id, "span_id": self._id(16), "parent_span_id": job.parent_span,
        }  # fmt: skip

    # --- files ---

    def _write(self, folder: Path, jobs: list[Job]) -> None:
        end_ns = T0 + (self.duration_s + 4) * S
        names = (
            (-9, "up"),
            (-4, "population"),
            (0, "warmup"),
            (3, "load"),
            (self.duration_s, "heal"),
            (self.duration_s + 0.2, "drain"),
            (self.duration_s + 4, "collect"),
        )
        for at_s, name in names:
            self._op(T0 + int(at_s * S), "runner", "info", "phase", {"name": name})
        run = {
            "scenario": "synthetic",
            "seed": self.seed,
            "commit": "62efc7f",
            "started_ns": T0 - 9 * S,
            "ended_ns": end_ns + S,
            "mutant": None,
            "host": {"system": "Linux", "cpus": 2, "memory_mib": 7950},
            "versions": {"python": "3.11.7", "celery": "5.7.0"},
        }
        evidence = folder / "evidence"
        evidence.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(run))
        (folder / "scenario.toml").write_text(SCENARIO)
        (folder / "contract.toml").write_text(CONTRACT.read_text())
        self.history.sort(key=lambda op: op["time_ns"])
        write_lines(folder / "history.jsonl", [{"index": index, **op} for index, op in enumerate(self.history)])
        for name, rows in self._tables(jobs, end_ns).items():
            write_lines(evidence / f"{name}.jsonl", rows)
        (folder / "logs").mkdir()
        # What a library says on its own is no JSON.
        (folder / "logs" / "api.log").write_text("SecurityWarning: you are root\n")
        write_lines(folder / "logs" / "worker.log", sorted(self.logs, key=lambda line: line["time"]))

    def _tables(self, jobs: list[Job], end_ns: int) -> dict[str, list[dict]]:
        sends = [job for job in jobs if job.queue == "send"]
        tenants = [("acme", index) for index in range(3)] + [("globex", index) for index in range(3)]
        return {
            "jobs": [self._job(job) for job in jobs],
            "executions": self.executions,
            "recipients": [{"job_id": job.job_id, "state": "sent"} for job in sends],
            "messages": [{"tenant_id": job.tenant} for job in sends],
            "clients": [{"tenant_id": tenant, "address": f"user{index}@{tenant}.example"} for tenant, index in tenants],
            "ledger": sorted(self.ledger, key=lambda row: row["time_ns"]),
            "processes": self._processes(),
            "queues": self._queues(jobs, end_ns),
            "memory": self._memory(end_ns),
            "spans": self.spans,
        }

    def _job(self, job: Job) -> dict:
        return {
            "job_id": job.job_id, "tenant_id": job.tenant, "name": f"email_service.tasks.{TASKS[job.queue]}",
            "queue": job.queue, "state": "succeeded", "trace_id": job.trace_id, "created_ns": job.created_ns,
            "due_ns": job.due_ns, "finished_ns": job.finished_ns, "executions": job.attempts,
        }  # fmt: skip

    def _processes(self) -> list[dict]:
        first = {
            "kind": "worker",
            "pid": 4200,
            "started_ns": T0 - 4 * S,
            "ended_ns": None,
            "exit_code": None,
            "reason": None,
        }
        if not self.kill_parent:
            return [first]
        again = first | {"pid": 4300, "started_ns": PARENT_NS + 150 * MS}
        return [first | {"ended_ns": PARENT_NS + 20 * MS, "exit_code": -9, "reason": "killed"}, again]

    def _queues(self, jobs: list[Job], end_ns: int) -> list[dict]:
        rows = []
        for time_ns in range(T0, end_ns, 20 * MS):
            waits = [row["queue"] for row in self.executions if row["due_ns"] <= time_ns < row["received_ns"]]
            runs = [
                row for row in self.executions if row["received_ns"] <= time_ns < (row["ended_ns"] or row["started_ns"])
            ]
            ready = {queue: waits.count(queue) for queue in ("sync", "send", "periodic")}
            unacked = [{"task_id": row["job_id"], "received_ns": row["received_ns"]} for row in runs]
            rows.append({"time_ns": time_ns, "ready": ready, "unacked": unacked})
        return rows

    def _memory(self, end_ns: int) -> list[dict]:
        rows = []
        for time_ns in range(T0 - S, end_ns, 500 * MS):
            share = (time_ns - T0) / (end_ns - T0)
            main = 4300 if self.kill_parent and time_ns > PARENT_NS else 4200
            processes = [{"pid": main, "kind": "worker-main", "pss_bytes": 61 << 20, "rss_bytes": 90 << 20}]
            for pid, born, died in self.lives:
                if born <= time_ns and (died is None or time_ns < died):
                    pss = int((47 + 14 * share + pid % 7 + self.random.random()) * 2**20)
                    processes.append({"pid": pid, "kind": "worker-child", "pss_bytes": pss, "rss_bytes": 2 * pss})
            rows.append({"time_ns": time_ns, "processes": processes})
        return rows


def span_line(
    *,
    trace_id,
    span_id,
    name,
    start,
    end,
    service="mail-worker",
    parent=None,
    kind=3,
    attributes=None,
    error=False,
) -> dict:
    """One span as its file has it."""
    span = {
        "traceId": trace_id, "spanId": span_id, "parentSpanId": parent or "", "name": name, "kind": kind,
        "startTimeUnixNano": str(start), "endTimeUnixNano": str(end),
        "attributes": [{"key": key, "value": _value(value)} for key, value in (attributes or {}).items()],
        "status": {"code": 2 if error else 0},
    }  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {
        "resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "synthetic"}, "spans": [span]}]}]
    }


def log_line(time_ns: int, level: str, message: str, **more) -> dict:
    """One line of a log."""
    time = datetime.fromtimestamp(time_ns / S, tz=UTC).isoformat()
    return {"time": time, "level": level, "message": message, **more}


def _value(value) -> dict:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def write_lines(file: Path, rows: list[dict]) -> None:
    """A file of JSON lines."""
    file.write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))


def gate(id_: str, verdict: str = "pass", **values) -> dict:
    """A gate of a verdict."""
    plain = {"kind": "gate", "metric": "jobs.missing", "check": "== 0", "observed": 0, "unit": "", "detail": []}
    return {"id": id_, "verdict": verdict, **plain, **values}


def verdict(*gates: dict, word: str = "pass", **values) -> dict:
    """The content of verdict.json."""
    head = {"schema_version": 1, "verdict": word, "scenario": "synthetic", "seed": 7, "mutant": None}
    return {**head, "started_ns": T0 - 9 * S, "duration_s": 38.2, **values, "gates": list(gates)}


def write_verdict(folder: Path, content: dict) -> None:
    """verdict.json."""
    (folder / "verdict.json").write_text(json.dumps(content))


#: One gate of each kind that a report must tell apart.
MIXED = verdict(
    gate("schedule_lag", kind="validity", metric="schedule_lag", check="p99 < 100ms", observed=12.3456, unit="ms"),
    gate(
        "achieved_ratio",
        kind="validity",
        metric="achieved_ratio",
        check=">= 0.99",
        observed=1,
        detail=["312 of 312 scheduled arrivals"],
    ),
    gate("saturation", kind="validity", metric="saturation", check="max >= 4", observed=4),
    gate(
        "send-promise",
        "fail",
        metric="send.promise_broken",
        observed=2,
        detail=["<1@x> to a@b: sent, 0 times in the ledger", "<2@x> to c@d: sent twice"],
    ),
    gate("held", metric="worker.held", check="max <= 4", observed=4),
    gate("traces", "unknown", metric="trace.incomplete", observed=None, detail=["no executions to judge"]),
    gate("memory-total", metric="memory.total", check="max <= 512MiB", observed=318.4375, unit="MiB"),
    gate(
        "send-e2e-p95",
        "warn",
        metric="task.e2e{queue=send}",
        check="p95 < 5s",
        observed=6.25,
        unit="s",
        detail=["task 42 took 9.1 s"],
    ),
    word="fail",
)
