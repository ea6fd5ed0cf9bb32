"""Counters equal rows on a whole stack while children, worker, exporter and broker are killed; none of them ever falls.

The comparison is the rig's own gate, which counts the audit views by itself.
"""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request

import pytest
import redis
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from service_processes import celery_of, deaf, process
from waiting import until

from email_service import registry, signals
from mailrig.checkers.counters import metrics_fell, metrics_mismatch
from mailrig.evidence import Evidence
from mailrig.samples import replay
from mailrig.scraping import MetricsSampler

FINAL = ("succeeded", "failed", "unknown")
NOBODY = "nobody@outside.example"
#: Scaled by the stack to 2.5 and 0.5 s.
LIMITS = {"TASK_TIME_LIMIT": "60", "TASK_SOFT_TIME_LIMIT": "10"}


class Trouble:
    """One kind of trouble after the other; each waits until it has struck."""

    def __init__(self, live, folder):
        self.live, self.fakes, self.stack, self.folder = live, live.fakes, live.stack, folder
        self.account = live.accounts[0]
        #: Task ids of all sends so far.
        self.sent = []

    def running(self, task_id=None):
        query = "SELECT pid, job_id FROM audit.executions WHERE outcome IS NULL AND queue = 'send'"
        found = self.live.rows(query)
        return [row["pid"] for row in found if task_id in {None, row["job_id"]}]

    def send(self, count=1, **body):
        new = [self.live.send(self.account, **body)["task_id"] for _ in range(count)]
        self.sent += new
        return new

    def refused_for_now(self):
        self.fakes.put_fault("smtp.rcpt", reply="451 4.7.1 Later", first=2)
        self.send(2)

    def refused_for_good(self):
        self.fakes.put_fault("smtp.rcpt", fault_id="never", reply="550 5.1.1 No", match={"recipient": NOBODY})
        for to in ([NOBODY, "somebody@outside.example"], [NOBODY]):
            self.live.settled(self.account, self.send(to=to)[0])

    def reply_lost(self):
        self.fakes.preset("drop-after-data")
        self.live.settled(self.account, self.send()[0])
        self.fakes.clear_faults()

    def child_killed(self, point):
        # A send that is still under way would take the delay for itself.
        for earlier in self.sent:
            self.live.settled(self.account, earlier)
        self.fakes.put_fault(point, first=1, delay_ms=60_000)
        (task_id,) = self.send()
        (pid,) = until(lambda: self.running(task_id), what="the execution")
        self.fakes.wait_for("fault", point=point)
        os.kill(pid, signal.SIGKILL)
        self.fakes.clear_faults()
        self.live.settled(self.account, task_id)

    def worker_killed(self):
        self.fakes.put_fault("smtp.mail", first=4, delay_ms=60_000)
        self.send(3)
        until(lambda: len(self.running()) == 3, what="three executions")
        self.stack.kill_worker_parent()
        self.fakes.clear_faults()
        until(lambda: len(self.stack.worker_children()) == 4, what="another worker")

    def broker_forgets(self):
        self.stack.pause_worker()
        try:
            self.send(2)
            with redis.Redis.from_url(self.stack.redis_url) as client:
                client.flushdb()
        finally:
            self.stack.resume_worker()

    def hard_limit(self):
        """Two failure signals: Celery calls on_timeout, and on_failure for the same task."""
        self.fakes.put_fault("smtp.rcpt", first=1, delay_ms=60_000)
        arguments = ("--node", "mail@limited", "--queues", "send", "--concurrency", "1")
        with deaf(celery_of(self.live), "send"), process(self.live, self.folder, "worker", *arguments, **LIMITS):
            (task_id,) = self.send()
            (pid,) = until(lambda: self.running(task_id), what="the execution")
            os.kill(pid, signal.SIGSTOP)
            self.fakes.clear_faults()
            self.live.settled(self.account, task_id)

    def exporter_killed(self):
        old = self.stack.pids["exporter"]
        os.kill(old, signal.SIGKILL)
        until(lambda: self.stack.pids.get("exporter") not in {None, old}, what="another exporter")

    def all_settled(self):
        query = "SELECT count(*) AS n FROM audit.jobs WHERE state <> ALL(%s)"
        until(lambda: self.live.rows(query, list(FINAL))[0]["n"] == 0, what="the end of all jobs", deadline_s=60)


@pytest.fixture
def trouble(battered, tmp_path):
    return Trouble(battered, tmp_path)


def evidence_of(live, scrapes):
    rows = {name: tuple(live.rows(f"SELECT * FROM audit.{name}")) for name in ("jobs", "executions", "recipients")}
    return Evidence(**rows, metrics=tuple(json.loads(line) for line in scrapes.read_text().splitlines()))


def violations(measure, evidence):
    answer = measure(evidence, None, None)
    assert answer.samples, answer.reason
    return answer.examples


def test_counters_equal_rows_whatever_was_killed_and_never_fall(trouble, battered, tmp_path):
    scrapes = tmp_path / "metrics.jsonl"
    sampler = MetricsSampler(battered.stack.exporter_url, scrapes)
    sampler.start()
    battered.sync(trouble.account)
    trouble.send(3)
    trouble.refused_for_now()
    trouble.child_killed("smtp.data")
    trouble.child_killed("smtp.rcpt")
    trouble.exporter_killed()
    trouble.refused_for_good()
    trouble.reply_lost()
    trouble.hard_limit()
    trouble.worker_killed()
    trouble.broker_forgets()
    # Beat's next tick would be in the rows and not in the last scrape.
    battered.stack.retire("beat")
    trouble.all_settled()
    sampler.stop()
    evidence = evidence_of(battered, scrapes)
    assert violations(metrics_mismatch, evidence) == ()
    assert violations(metrics_fell, evidence) == ()
    # Or nothing of it would be proven: all that was done is in the figures.
    *_, (_, counted) = replay(evidence.metrics)
    sent = 'queue="send",task="send_email"'
    assert counted[f'mail_executions_total{{outcome="killed",{sent}}}'] >= 5
    assert counted[f'mail_executions_total{{outcome="retry",{sent}}}'] >= 2
    assert counted[f'mail_execution_errors_total{{error_type="time-limit",{sent}}}'] >= 1
    assert counted['mail_recipients_total{state="unknown"}'] >= 2
    assert counted['mail_recipients_total{state="failed"}'] == 2
    assert counted['mail_smtp_replies_total{code="550"}'] == 2
    assert counted['mail_step_seconds_count{protocol="imap",step="fetch"}'] >= 1
    assert counted[f'mail_task_failure_total{{error_type="delivery-unknown",{sent}}}'] >= 1


def test_the_exposition_is_openmetrics_and_its_exemplars_are_traces_of_executions(battered):
    battered.settled(battered.accounts[0], battered.send(battered.accounts[0])["task_id"])
    accept = {"Accept": "application/openmetrics-text;version=1.0.0"}
    request = urllib.request.Request(battered.stack.exporter_url, headers=accept)
    with urllib.request.urlopen(request, timeout=10) as answer:
        families = list(parse_openmetrics(answer.read().decode()))
    traces = {s.exemplar.labels["trace_id"] for f in families for s in f.samples if s.exemplar}
    known = {row["trace_id"] for row in battered.rows("SELECT trace_id FROM audit.executions")}
    assert traces
    assert traces <= known


# --- the worker's heartbeat


def entry(live):
    with redis.Redis.from_url(live.stack.redis_url) as client:
        return client.hgetall(signals.KEY_WORKERS)


def seen(live, host="another"):
    """The worker as an exporter on another host sees it."""
    workers = registry.workers(entry(live), host, now_ns=time.time_ns())
    return next((w for w in workers if w.node == "mail@rig"), None)


def test_a_worker_tells_an_exporter_elsewhere_what_it_can_do_and_what_it_takes(battered):
    worker = until(lambda: seen(battered), what="an entry")
    assert worker.capacity == 4
    assert sorted(worker.memory) == ["child-0", "child-1", "child-2", "child-3", "main"]
    assert all(sizes["pss"] > 1_000_000 for sizes in worker.memory.values())


def test_a_worker_tells_again_after_its_broker_was_away_and_came_back_empty(battered):
    with battered.stack.server_down("valkey", forget=True):
        pass
    until(lambda: seen(battered), what="an entry", deadline_s=registry.STALE_S)
    task = battered.send(battered.accounts[0])
    assert battered.settled(battered.accounts[0], task["task_id"])["state"] == "succeeded"
