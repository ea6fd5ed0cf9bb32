"""What every task does around its use case, through the real broker: whom it refuses, how it fails, what stays."""

from __future__ import annotations

import json
import os
import signal
import uuid

import pytest
import redis
from service_processes import celery_of, deaf, process
from waiting import until

from email_service import policy

SEND = "email_service.tasks.send_email"
TENANTS = sorted(name for name, rule in policy.TASKS.items() if not rule.system)


def result_of(app, task_id):
    """What Redis database 1 holds of a task, once it is there."""
    with redis.Redis.from_url(app.settings.result_url) as client:
        return json.loads(until(lambda: client.get(f"celery-task-meta-{task_id}"), what="the result"))


@pytest.mark.parametrize("name", TENANTS)
def test_a_task_without_a_tenant_fails_and_touches_no_row(live, name):
    app, task_id = celery_of(live), str(uuid.uuid4())
    app.send_task(name, kwargs={"email_client_id": live.accounts[0].clients[0][0], "user_id": "alice"}, task_id=task_id)
    result = result_of(app, task_id)
    assert (result["status"], result["result"]["exc_type"]) == ("FAILURE", "PermissionDeniedError")
    assert live.rows("SELECT 1 FROM audit.executions WHERE job_id = %s", task_id) == []


@pytest.mark.parametrize(
    "principal", [{"tenant_id": "system", "user_id": "system"}, {"tenant_id": ["acme"], "user_id": "u"}]
)
def test_a_message_can_not_name_the_principal_that_sees_all_rows(live, principal):
    app, task_id = celery_of(live), str(uuid.uuid4())
    app.send_task(SEND, kwargs=principal, task_id=task_id)
    assert result_of(app, task_id)["result"]["exc_type"] == "PermissionDeniedError"


def test_a_message_of_another_tenant_for_a_job_runs_nothing(live):
    """Ids alone open nothing: the lease is taken under the tenant that the message names."""
    one, other = live.accounts
    app = celery_of(live)
    with deaf(app, "send"):
        task_id = live.send(one)["task_id"]
        app.send_task(SEND, kwargs={"tenant_id": other.tenant, "user_id": "bob"}, task_id=task_id)
    assert live.settled(one, task_id)["state"] == "succeeded"
    (row,) = live.rows("SELECT tenant_id FROM audit.executions WHERE job_id = %s", task_id)
    assert row["tenant_id"] == one.tenant


def test_a_result_is_in_redis_1_for_its_time_and_in_the_row_after_it(live):
    account, app = live.accounts[0], celery_of(live)
    answer = live.send(account)
    assert live.settled(account, answer["task_id"])["state"] == "succeeded"
    result = result_of(app, answer["task_id"])
    assert (result["status"], result["result"]["message_id"]) == ("SUCCESS", answer["message_id"])
    assert result["result"]["recipients_sent"] == 1
    with redis.Redis.from_url(app.settings.result_url) as client:
        left_s = client.ttl(f"celery-task-meta-{answer['task_id']}")
        assert 0 < left_s <= 3600 * app.settings.time_scale
        client.delete(f"celery-task-meta-{answer['task_id']}")
    with redis.Redis.from_url(app.settings.broker_url) as client:
        assert not client.exists(f"celery-task-meta-{answer['task_id']}")
    assert live.task(account, answer["task_id"])["result"]["message_id"] == answer["message_id"]


def test_a_failure_for_good_is_one_line_in_the_log_and_in_the_row_what_the_server_said(live, no_faults):
    reply = {"reply": "550 5.1.1 canary-reply no such user"}
    live.fakes.put_faults([{"id": "f", "point": "smtp.mail", "when": {"first": 1}, "action": reply}])
    account = live.accounts[0]
    answer = live.send(account)
    task = live.settled(account, answer["task_id"])
    assert (task["state"], task["error_type"]) == ("failed", "smtp")
    assert "no such user" in task["error_detail"]
    log = live.stack._options.log_dir / "worker.log"

    def told():
        lines = [json.loads(line) for line in log.read_text().splitlines() if answer["task_id"] in line]
        return [line for line in lines if line["level"] == "ERROR"]

    (line,) = until(told, what="the line of the failure")
    assert (line["message"], line["queue"], line["error_type"]) == (f"{SEND} failed (smtp)", "send", "smtp")
    assert line["client_id"] == account.clients[0][0]
    assert account.tenant not in json.dumps(line)
    assert "canary-reply" not in json.dumps(line)


def test_a_task_is_told_at_its_start_and_its_end(live):
    answer = live.send(live.accounts[0])
    live.settled(live.accounts[0], answer["task_id"])
    log = live.stack._options.log_dir / "worker.log"

    def told():
        lines = [json.loads(line) for line in log.read_text().splitlines() if answer["task_id"] in line]
        return lines if len(lines) > 2 else None

    received, starting, completed = until(told, what="three lines")
    assert received["message"] == f"Task {SEND}[{answer['task_id']}] received"
    assert starting["message"] == f"Task send_email starting (task_id={answer['task_id']})"
    assert starting["queue_time_s"] >= starting["prefetch_wait_s"] >= 0
    assert (completed["message"], completed["outcome"]) == ("Task send_email completed", "sent")
    assert 0 < completed["run_s"] < 60
    assert {line["task"] for line in (received, starting, completed)} == {"send_email"}
    assert (starting["execution_id"], starting["ordinal"]) == (completed["execution_id"], 1)
    assert starting["pid"] == completed["pid"] != received["pid"] == live.stack.worker_pid


def test_a_failure_in_redis_names_its_error_and_quotes_no_cause(live, no_faults):
    live.fakes.put_faults(
        [{"id": "f", "point": "smtp.mail", "when": {"first": 1}, "action": {"reply": "550 5.1.1 no"}}]
    )
    answer = live.send(live.accounts[0])
    live.settled(live.accounts[0], answer["task_id"])
    result = result_of(celery_of(live), answer["task_id"])
    assert result["result"]["exc_type"] == "SmtpError"
    assert "direct cause" not in result["traceback"]
    assert "During handling" not in result["traceback"]


LIMITS = {"TASK_TIME_LIMIT": "60", "TASK_SOFT_TIME_LIMIT": "10"}


def test_at_the_hard_limit_the_execution_ends_at_once_and_the_job_goes_on(live, tmp_path, no_faults):
    """A stopped process can't hear the soft limit; at 2.5 s (scaled) the hard one kills it. Its lease has 5 s."""
    live.fakes.put_faults([{"id": "h", "point": "smtp.rcpt", "when": {"first": 1}, "action": {"delay_ms": 60_000}}])
    app, node = celery_of(live), "mail@limited"
    with (
        deaf(app, "send"),
        process(live, tmp_path, "worker", "--node", node, "--queues", "send", "--concurrency", "1", **LIMITS) as worker,
    ):
        answer = live.send(live.accounts[0])
        query = "SELECT pid FROM audit.executions WHERE job_id = %s"
        (row,) = until(lambda: live.rows(query, answer["task_id"]), what="the start")
        os.kill(row["pid"], signal.SIGSTOP)
        live.fakes.clear_faults()
        task = live.settled(live.accounts[0], answer["task_id"])
        told = [json.loads(line) for line in worker.log.splitlines() if line.startswith("{")]
    assert [(e["outcome"], e["error_type"]) for e in task["executions"]] == [
        ("killed", "time-limit"),
        ("succeeded", None),
    ]
    assert len(live.accepted(answer["message_id"])) == 1
    main = [line for line in told if line["pid"] == worker.pid and line.get("task_id") == answer["task_id"]]
    failed = [line for line in main if line["level"] == "ERROR"]
    assert [line["message"] for line in failed if line["logger"].startswith("email_service.")] == [
        f"{SEND} lost its process (time-limit)",
        f"{SEND} failed (TimeLimitExceeded)",
    ]
    assert f"Hard time limit (3.0s) exceeded for {SEND}[{answer['task_id']}]" in {line["message"] for line in failed}
    assert {line["task"] for line in failed} == {"send_email"}
    assert len({line["trace_id"] for line in failed}) == 1


def test_a_lost_child_is_told_by_its_main_process_before_the_message_is_back(live, tmp_path, no_faults):
    live.fakes.put_faults([{"id": "k", "point": "smtp.rcpt", "when": {"first": 1}, "action": {"delay_ms": 60_000}}])
    app, node = celery_of(live), "mail@lossy"
    with (
        deaf(app, "send"),
        process(live, tmp_path, "worker", "--node", node, "--queues", "send", "--concurrency", "1") as worker,
    ):
        answer = live.send(live.accounts[0])
        query = "SELECT pid FROM audit.executions WHERE job_id = %s AND outcome IS NULL"
        (row,) = until(lambda: live.rows(query, answer["task_id"]), what="the start")
        os.kill(row["pid"], signal.SIGKILL)
        live.fakes.clear_faults()
        task = live.settled(live.accounts[0], answer["task_id"])
        assert "lost its process (worker-lost)" in worker.log
    assert [(e["outcome"], e["error_type"]) for e in task["executions"]] == [
        ("killed", "worker-lost"),
        ("succeeded", None),
    ]


def test_a_job_that_takes_its_process_with_it_is_given_up_after_three_losses(live, no_faults):
    """Each loss is told by the main process; the fourth execution settles the job instead of trying it."""
    live.fakes.put_faults([{"id": "p", "point": "smtp.rcpt", "when": {"always": True}, "action": {"delay_ms": 60_000}}])
    answer = live.send(live.accounts[0])
    query = "SELECT pid FROM audit.executions WHERE job_id = %s AND outcome IS NULL AND ordinal = %s"
    for ordinal in range(1, policy.LOST_EXECUTIONS_MAX + 2):
        (row,) = until(lambda o=ordinal: live.rows(query, answer["task_id"], o), what=f"execution {ordinal}")
        os.kill(row["pid"], signal.SIGKILL)
    task = live.settled(live.accounts[0], answer["task_id"])
    assert (task["state"], task["error_type"]) == ("failed", "worker-lost")
    assert [e["outcome"] for e in task["executions"]] == ["killed"] * (policy.LOST_EXECUTIONS_MAX + 1) + ["failed"]
