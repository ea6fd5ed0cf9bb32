"""Every edge of ``signals.EDGES`` in a real run: each way through the house is driven once, kills included."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from service_processes import celery_of, deaf, process
from waiting import until

import email_service
from email_service import jobs
from email_service.beat_store import ScheduleStore
from email_service.celery_app import BEAT, send
from email_service.signals import EDGES
from mailrig.checkers import METRICS
from mailrig.checkers.edges import EXECUTIONS, JOBS, RUNS, describe, edges_found
from mailrig.clients import Account
from mailrig.collect import collect, complete
from mailrig.evidence import Evidence, load_evidence
from mailrig.nemesis import LIST_SUFFIXES
from mailrig.scenario import Mutant, Patch, apply_patches, load_contract, load_scenario

pytestmark = pytest.mark.timeout(300)
NODE = "mail@edges"
#: Seconds, before the live stack's scale of 0.05: the soft limit strikes after one, the hard one after three.
LIMITS = {"TASK_SOFT_TIME_LIMIT": "20", "TASK_TIME_LIMIT": "60"}
FINAL = {"succeeded", "failed", "unknown"}


@dataclass(kw_only=True)
class Walk:
    """A tenant's mailbox, and what is done with it."""

    live: Any
    folder: Path
    account: Account

    def post(self, path: str, body: Any = None) -> Any:
        status, answer = self.live.call(
            "POST", f"/api/v1/{self.account.tenant}/email/{path}", token=self.account.token, body=body
        )
        assert status in {201, 202}, answer
        return answer

    def send(self, **overrides: Any) -> str:
        return str(self.live.send(self.account, **overrides)["task_id"])

    def sync(self) -> str:
        return str(self.live.sync(self.account)["task_id"])

    def settled(self, *task_ids: str) -> list[dict[str, Any]]:
        return [self.live.settled(self.account, task_id) for task_id in task_ids]

    def outcomes(self, task_id: str) -> list[tuple[str | None, str | None]]:
        return [(e["outcome"], e["error_type"]) for e in self.live.task(self.account, task_id)["executions"]]

    def messages(self) -> list[str]:
        path = f"/api/v1/{self.account.tenant}/email/messages?client_id={self.account.clients[0][0]}&limit=100"
        status, answer = self.live.call("GET", path, token=self.account.token)
        assert status == 200, answer
        return [row["id"] for row in answer["messages"]]

    def running(self, task_id: str) -> int:
        """The process that works on it, once one does."""
        query = "SELECT pid FROM audit.executions WHERE job_id = %s AND outcome IS NULL"
        return int(until(lambda: self.live.rows(query, task_id), what="the execution's start")[0]["pid"])

    def faulty(self, point: str, action: dict[str, Any], **match: Any) -> None:
        fault = {"id": point, "point": point, "when": {"first": 1}, "action": action, "match": match}
        self.live.fakes.put_faults([fault if match else {k: v for k, v in fault.items() if k != "match"}])

    @contextmanager
    def worker(self, name: str, *queues: str, **environment: str) -> Iterator[Any]:
        """A worker that alone takes these queues."""
        folder = self.folder / name
        folder.mkdir()
        taken = ",".join(queues)
        arguments = ("worker", "--node", NODE, "--queues", taken, "--concurrency", "1")
        with deaf(celery_of(self.live), *queues), process(self.live, folder, *arguments, **environment) as worker:
            yield worker


def client(live: Any, owner: Account, address: str, **overrides: Any) -> Account:
    """A client of a fresh mailbox, which nobody else will synchronise soon."""
    password = "canary-of-the-edges"
    live.fakes.add_user(address, password)
    imap, smtp = live.stack.imap, live.stack.smtp
    body = {
        "address": address,
        "username": address,
        "password": password,
        "imap": {"host": imap[0], "port": imap[1], "encryption": "none"},
        "smtp": {"host": smtp[0], "port": smtp[1], "encryption": "none"},
        "sync_interval_s": 86_400,
    }
    status, answer = live.call(
        "POST", f"/api/v1/{owner.tenant}/email/clients", token=owner.token, body=body | overrides
    )
    assert status == 201, answer
    return replace(owner, clients=((answer["id"], address),))


# --- the ways ---------------------------------------------------------------------------------------------------------


def send_and_settle(walk: Walk) -> None:
    """A send; a second copy of its message; a second session that is to be encrypted."""
    task_id = walk.send()
    walk.settled(task_id)
    message = jobs.Message(
        id=uuid.UUID(task_id), tenant_id=walk.account.tenant, user_id=walk.account.user, queue="send", failures=0,
        name="email_service.tasks.send_email", client_id=uuid.UUID(walk.account.clients[0][0]), publishes=2,
        traceparent=traceparent(walk, task_id), cause=None,
    )  # fmt: skip
    send(celery_of(walk.live), message)
    refused = "SELECT 1 FROM audit.jobs WHERE job_id = %s AND refusals = 1"
    until(lambda: walk.live.rows(refused, task_id), what="the second copy's end")
    smtp = walk.live.stack.smtp
    endpoint = {"host": smtp[0], "port": smtp[1], "encryption": "starttls"}
    encrypted = client(walk.live, walk.account, f"tls-{uuid.uuid4().hex[:8]}@example.test", smtp=endpoint)
    (task,) = replace_account(walk, encrypted).settled(replace_account(walk, encrypted).send())
    # Nobody has told the worker to trust the fakes' own authority: the way ends there, and is seen all the same.
    assert task["state"] == "failed"


def replace_account(walk: Walk, account: Account) -> Walk:
    return replace(walk, account=account)


def traceparent(walk: Walk, task_id: str) -> str:
    (row,) = walk.live.rows("SELECT trace_id, parent_span_id FROM audit.executions WHERE job_id = %s", task_id)
    return f"00-{row['trace_id']}-{row['parent_span_id']}-01"


def sync_without_history(walk: Walk) -> None:
    """New mail, which is checked for spam; then a changed flag on a server that keeps no history."""
    address = walk.account.clients[0][1]
    strip = {"strip": ["CONDSTORE", "QRESYNC", "ENABLE"]}
    fault = {"id": "old", "point": "imap.capability", "when": {"always": True}, "action": strip}
    walk.live.fakes.put_faults([fault])
    walk.live.fakes.seed(address, count=4, seed=3)
    walk.settled(walk.sync())
    walk.live.fakes.set_flags(address, 1, ["\\Seen", "\\Flagged"])
    walk.live.fakes.seed(address, count=1, seed=4)
    (task,) = walk.settled(walk.sync())
    assert task["result"]["flags"] >= 1, task
    walk.live.fakes.clear_faults()


def delete_and_score(walk: Walk) -> None:
    """Into the trash, which is made; out of it; and a spam check that somebody asks for."""
    first, second, third, *_ = walk.messages()
    if any(f["name"] == "Trash" for f in walk.live.fakes.mailbox(walk.account.clients[0][1])["folders"]):
        walk.live.fakes.delete_folder(walk.account.clients[0][1], "Trash")
    asked = [
        walk.post("delete", {"message_ids": [first]}),
        walk.post("delete", {"message_ids": [second], "permanent": True}),
        walk.post("spam", {"message_ids": [third]}),
    ]
    done = walk.settled(*(task["task_id"] for answer in asked for task in answer["tasks"]))
    assert [task["state"] for task in done] == ["succeeded"] * 3


def retry(walk: Walk) -> None:
    walk.faulty("smtp.rcpt", {"reply": "451 4.7.1 Try again later"})
    task_id = walk.send()
    walk.settled(task_id)
    assert [outcome for outcome, _ in walk.outcomes(task_id)] == ["retry", "succeeded"]


def lost_message(walk: Walk) -> None:
    """The broker forgets a message; the dispatcher sends another."""
    with deaf(celery_of(walk.live), "send"):
        task_id = walk.send()
        with redis.Redis.from_url(f"{walk.live.stack.redis_url}/0") as broker:
            assert broker.brpop(["send" + suffix for suffix in LIST_SUFFIXES], timeout=5)
    walk.settled(task_id)


def killed_child(walk: Walk) -> None:
    walk.faulty("smtp.rcpt", {"delay_ms": 60_000})
    task_id = walk.send()
    os.kill(walk.running(task_id), signal.SIGKILL)
    walk.settled(task_id)
    assert walk.outcomes(task_id)[0] == ("killed", "worker-lost")


def limits(walk: Walk) -> None:
    """A soft limit continues, a hard one kills, a stop puts back: three ways out of one worker."""
    address = walk.account.clients[0][1]
    walk.live.fakes.create_folder(address, "Archive")
    walk.live.fakes.seed(address, count=1, seed=6)
    walk.live.fakes.seed(address, count=1, seed=7, folder="Archive")
    walk.settled(walk.sync())
    messages = walk.messages()
    with walk.worker("short", "delete", "send", **LIMITS, MAIL_SOFT_SHUTDOWN_S="0.2") as worker:
        # The first of two folders is done when the limit strikes: there is something to go on from.
        fault = {"id": "slow", "point": "imap.command", "when": {"nth": 2}, "action": {"delay_ms": 60_000}}
        walk.live.fakes.put_faults([fault | {"match": {"command": "MOVE"}}])
        (continued,) = (task["task_id"] for task in walk.post("delete", {"message_ids": messages})["tasks"])
        walk.settled(continued)
        assert ("retry", "time-limit") in walk.outcomes(continued)
        walk.faulty("smtp.rcpt", {"delay_ms": 60_000})
        frozen = walk.send()
        os.kill(walk.running(frozen), signal.SIGSTOP)
        walk.settled(frozen)
        assert walk.outcomes(frozen)[0] == ("killed", "time-limit")
        walk.faulty("smtp.rcpt", {"delay_ms": 60_000})
        stopped = walk.send()
        walk.running(stopped)
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.exit_code(deadline_s=15) == 1
    walk.settled(stopped)
    assert walk.outcomes(stopped)[0] == ("killed", "shutdown")


def scheduled_wide(walk: Walk) -> None:
    """Beat asks for both of its tasks, of a worker to which any fan-out is a wide one; then that worker is killed."""
    source, target = Path(email_service.__file__).parent, walk.folder / "patched" / "email_service"
    target.parent.mkdir()
    patch = Patch(file="tasks.py", old="FAN_OUT_NESTED_MAX: Final = 50", new="FAN_OUT_NESTED_MAX: Final = 0")
    lowered = Mutant(
        name="wide",
        description="",
        scenario="",
        expected_gates=(),
        environment={},
        without=(),
        patches=(patch,),
    )
    apply_patches(lowered, source, target)
    with walk.worker("wide", "periodic", "send", PYTHONPATH=str(target.parent)) as worker:
        client(walk.live, walk.account, f"wide-{uuid.uuid4().hex[:8]}@example.test")
        beat(walk)
        walk.faulty("smtp.rcpt", {"delay_ms": 60_000})
        task_id = walk.send()
        walk.running(task_id)
        os.kill(worker.pid, signal.SIGKILL)
        worker.exit_code(deadline_s=10)
    walk.settled(task_id)
    assert walk.outcomes(task_id)[0] == ("killed", "worker-lost")


def beat(walk: Walk) -> None:
    """One more beat, to which everything is overdue."""
    folder = walk.folder / "beat"
    folder.mkdir()
    store, since_ns = ScheduleStore(folder / "beat.db"), time.time_ns()
    store.write([(entry, task, "2020-01-01T00:00:00+00:00", 1) for entry, task, _ in BEAT])
    store.close()
    query = "SELECT name, state FROM audit.jobs WHERE tenant_id = 'system' AND created_ns >= %s"
    with process(walk.live, folder, "beat", MAIL_BEAT_STORE=str(folder / "beat.db")):

        def done() -> bool:
            rows = walk.live.rows(query, since_ns)
            return {row["name"] for row in rows if row["state"] in FINAL} >= {task for _, task, _ in BEAT}

        until(done, what="both of beat's tasks")


WAYS = (
    send_and_settle, sync_without_history, delete_and_score, retry, lost_message, killed_child, limits, scheduled_wide,
)  # fmt: skip


@pytest.fixture(scope="module")
def walked(live, tmp_path_factory) -> Evidence:
    """What all the ways have left behind, and nothing else of the stack's."""
    folder, since_ns = tmp_path_factory.mktemp("edges"), time.time_ns()
    account = client(live, live.accounts[0], f"edges-{uuid.uuid4().hex[:8]}@example.test")
    walk = Walk(live=live, folder=folder, account=account)
    # The stack's own beat finds this one, which was never read, while the others are on their way.
    ((due, _),) = client(live, live.accounts[0], f"due-{uuid.uuid4().hex[:8]}@example.test").clients
    for way in WAYS:
        try:
            way(walk)
        finally:
            live.fakes.clear_faults()
    asked = "SELECT 1 FROM audit.jobs WHERE client_id = %s AND parent_job_id IS NOT NULL"
    until(lambda: live.rows(asked, due), what="the stack's own fan-out")
    open_jobs = "SELECT 1 FROM audit.jobs WHERE created_ns >= %s AND NOT state = ANY(%s)"
    until(lambda: not live.rows(open_jobs, since_ns, list(FINAL)), what="the end of all that was asked for")
    return whole(live, folder, since_ns)


def whole(live: Any, folder: Path, since_ns: int) -> Evidence:
    """What there is once the spans that were still open have ended; after some seconds, what there is."""
    found: list[Evidence] = []

    def complete_now() -> bool:
        found.append(gathered(live, folder / f"{len(found)}", since_ns))
        return not measured("trace.incomplete", found[-1]).examples or len(found) > 10

    until(complete_now, what="the spans' end", deadline_s=60)
    return found[-1]


def gathered(live: Any, folder: Path, since_ns: int) -> Evidence:
    evidence = folder / "evidence"
    evidence.mkdir(parents=True)
    collect(evidence, audit_url=live.stack.audit_url, redis_url=live.stack.redis_url, ledger=live.fakes.ledger())
    # ``keeps`` nothing: what the service did not write itself is missing here.
    complete(evidence, span_dir=live.stack._options.span_dir, processes=(), history=(), keeps=lambda _: False)
    found = load_evidence(folder)
    jobs_here = {job["job_id"]: job for job in found.jobs if job["created_ns"] >= since_ns}
    traces = {job["trace_id"] for job in jobs_here.values()}
    return replace(
        found,
        jobs=tuple(jobs_here.values()),
        executions=tuple(row for row in found.executions if row["job_id"] in jobs_here),
        spans=tuple(span for span in found.spans if span["trace_id"] in traces),
        ledger=tuple(entry for entry in found.ledger if entry["time_ns"] >= since_ns),
    )


def measured(metric: str, evidence: Evidence) -> Any:
    return METRICS[metric](evidence, load_contract(), load_scenario("smoke"))


@pytest.mark.parametrize("edge", EDGES, ids=describe)
def test_an_edge_is_there(walked, edge):
    assert edge in edges_found(walked)


def test_every_word_of_the_table_has_happened_and_shows_its_edges(walked):
    measurement = measured("trace.edges_missing", walked)
    assert measurement.samples[0].value == 0, measurement.examples


def test_every_execution_is_one_span_below_its_root_though_processes_were_killed(walked):
    assert {row["error_type"] for row in walked.executions if row["outcome"] == "killed"} == {
        "worker-lost",
        "time-limit",
        "shutdown",
    }
    for metric in ("trace.incomplete", "trace.loss_percent"):
        measurement = measured(metric, walked)
        assert measurement.samples[0].value == 0, measurement.examples


def test_the_checkers_know_every_word_of_the_table_and_no_other():
    assert {edge.when for edge in EDGES} == {*EXECUTIONS, *JOBS, *RUNS}
