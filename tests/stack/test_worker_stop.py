"""How a worker ends: what it runs is finished, or put back for others, and nothing is lost, doubled or late."""

from __future__ import annotations

import os
import signal

import pytest
import redis
from service_processes import celery_of, deaf, process
from waiting import until

NODE = "mail@second"
#: Far below a lease (18 s at this time scale), and far above what a busy machine needs.
SOON_S = 12.0


@pytest.fixture
def second(live, tmp_path, no_faults, request):
    """A worker that alone takes sends until the test lets the stack's own worker take them again."""
    app = celery_of(live)
    with (
        deaf(app, "send"),
        process(live, tmp_path, "worker", "--node", NODE, "--queues", "send", **settings(request)) as worker,
    ):
        yield worker


def settings(request):
    return dict(getattr(request, "param", {}))


def slow(live, point, *, first, delay_ms=60_000):
    live.fakes.put_faults([{"id": point, "point": point, "when": {"first": first}, "action": {"delay_ms": delay_ms}}])


def running(live, count, node=NODE):
    query = "SELECT job_id, pid FROM audit.executions WHERE node = %s AND outcome IS NULL"

    def all_run():
        rows = live.rows(query, node)
        return rows if len(rows) == count else None

    return until(all_run, what=f"{count} running tasks")


def executions(live, task_id):
    query = "SELECT node, outcome, error_type FROM audit.executions WHERE job_id = %s ORDER BY ordinal"
    return [(r["node"], r["outcome"], r["error_type"]) for r in live.rows(query, task_id)]


def test_a_running_task_is_finished_and_the_worker_is_gone_with_it(live, second):
    """Not after MAIL_SOFT_SHUTDOWN_S, which is 290 s here."""
    slow(live, "smtp.rcpt", first=1, delay_ms=1500)
    answer = live.send(live.accounts[0])
    running(live, 1)
    os.kill(second.pid, signal.SIGTERM)
    assert second.exit_code(deadline_s=SOON_S) == 0
    assert live.task(live.accounts[0], answer["task_id"])["state"] == "succeeded"
    assert executions(live, answer["task_id"]) == [(NODE, "succeeded", None)]
    with redis.Redis.from_url(f"{live.stack.redis_url}/0") as client:
        held = client.hvals("unacked")
    # The message itself was acknowledged: none comes back after the visibility timeout.
    assert not [message for message in held if answer["task_id"].encode() in message]


@pytest.mark.parametrize("second", [{"MAIL_SOFT_SHUTDOWN_S": "0.3"}], indirect=True)
def test_what_has_not_ended_in_time_is_put_back_and_done_by_another_worker(live, second):
    slow(live, "smtp.rcpt", first=4)
    answers = [live.send(live.accounts[0], to=[f"r{k}@outside.example"]) for k in range(4)]
    running(live, 4)
    os.kill(second.pid, signal.SIGTERM)
    assert second.exit_code(deadline_s=SOON_S) == 1
    for answer in answers:
        assert executions(live, answer["task_id"]) == [(NODE, "killed", "shutdown")]
    live.fakes.clear_faults()
    app = celery_of(live)
    app.control.add_consumer("send", destination=["mail@rig"])
    for answer in answers:

        def sent(task_id=answer["task_id"]):
            return live.task(live.accounts[0], task_id)["state"] == "succeeded"

        until(sent, what="the other worker's send", deadline_s=SOON_S)
        assert executions(live, answer["task_id"])[1:] == [("mail@rig", "succeeded", None)]
        assert len(live.accepted(answer["message_id"])) == 1


def test_a_second_signal_cuts_off_at_once_and_keeps_the_promise_of_a_send(live, second):
    """Between DATA and its reply nobody can know: unknown, never sent again."""
    slow(live, "smtp.data", first=1)
    answer = live.send(live.accounts[0])
    running(live, 1)
    transmitting = "SELECT 1 FROM audit.recipients WHERE job_id = %s AND state = 'transmitting'"
    until(lambda: live.rows(transmitting, answer["task_id"]), what="the transmission")
    os.kill(second.pid, signal.SIGTERM)
    until(lambda: "shutdown" in second.log.lower(), what="the first signal's effect")
    os.kill(second.pid, signal.SIGTERM)
    assert second.exit_code(deadline_s=SOON_S) == 1
    live.fakes.clear_faults()
    celery_of(live).control.add_consumer("send", destination=["mail@rig"])
    task = live.settled(live.accounts[0], answer["task_id"])
    assert (task["state"], [e["outcome"] for e in task["executions"]]) == ("unknown", ["killed", "unknown"])
    assert len(live.accepted(answer["message_id"])) <= 1


def test_a_process_that_does_not_end_is_killed_and_its_task_is_put_back(live, second):
    """A frozen child hears no SIGTERM, and Celery would wait for it for ever."""
    slow(live, "smtp.rcpt", first=1)
    answer = live.send(live.accounts[0])
    (row,) = running(live, 1)
    os.kill(row["pid"], signal.SIGSTOP)
    os.kill(second.pid, signal.SIGQUIT)
    assert second.exit_code(deadline_s=SOON_S) == 1
    assert executions(live, answer["task_id"]) == [(NODE, "killed", "shutdown")]
    live.fakes.clear_faults()
    celery_of(live).control.add_consumer("send", destination=["mail@rig"])
    assert live.settled(live.accounts[0], answer["task_id"])["state"] == "succeeded"
