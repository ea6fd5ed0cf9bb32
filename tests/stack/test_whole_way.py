"""The whole system, alive: a request becomes a delivered mail, a mailbox becomes rows, and a kill loses nothing."""

from __future__ import annotations

import os
import signal
import urllib.request

from waiting import until


def test_a_send_reaches_each_recipient_once_and_names_no_bcc(live):
    account = live.accounts[0]
    roles = {"to": ["a@outside.example"], "cc": ["b@outside.example"], "bcc": ["c@outside.example"]}
    answer = live.send(account, **roles, attachment_ids=list(account.attachment_ids))
    task = live.settled(account, answer["task_id"])
    assert (task["state"], task["outcome"]) == ("succeeded", "sent")
    (entry,) = live.accepted(answer["message_id"])
    assert sorted(entry["rcpt_to"]) == ["a@outside.example", "b@outside.example", "c@outside.example"]
    assert "c@outside.example" not in entry["header"]
    assert {r["state"] for r in task["recipients"]} == {"sent"}


def test_one_idempotency_key_is_one_mail(live):
    account = live.accounts[0]
    first = live.send(account, headers={"Idempotency-Key": "once"})
    again = live.send(account, headers={"Idempotency-Key": "once"})
    assert again["task_id"] == first["task_id"]
    live.settled(account, first["task_id"])
    assert len(live.accepted(first["message_id"])) == 1


def test_a_mailbox_becomes_rows_exactly_once(live):
    account = live.accounts[1]
    for _ in range(2):
        task = live.settled(account, live.sync(account)["task_id"])
        assert task["state"] == "succeeded"
    query = "SELECT uid, sha256 FROM audit.messages WHERE client_id = %s AND folder = 'INBOX' ORDER BY uid"
    rows = live.rows(query, account.clients[0][0])
    folders = live.fakes.mailbox(account.clients[0][1])["folders"]
    inbox = next(f for f in folders if f["name"] == "INBOX")
    assert [r["uid"] for r in rows] == [m["uid"] for m in inbox["messages"]]


def test_another_tenants_task_is_not_there(live):
    one, other = live.accounts
    task_id = live.send(one)["task_id"]
    status, problem = live.call("GET", f"/api/v1/{other.tenant}/tasks/{task_id}", token=other.token)
    assert (status, problem["title"]) == (404, "Not found")


def test_the_tenant_in_the_path_must_be_the_tokens(live):
    one, other = live.accounts
    status, _ = live.call("GET", f"/api/v1/{other.tenant}/tasks", token=one.token)
    assert status == 403


def test_without_a_token_nothing_is_told(live):
    status, problem = live.call("GET", f"/api/v1/{live.accounts[0].tenant}/tasks", token="")
    assert (status, problem["status"]) == (401, 401)


def test_another_tenants_client_can_not_send(live):
    one, other = live.accounts
    body = {"client_id": other.clients[0][0], "to": ["x@y.example"], "subject": "s", "text": "t"}
    status, _ = live.call("POST", f"/api/v1/{one.tenant}/email/send", token=one.token, body=body)
    assert status == 404


def test_a_host_that_is_not_listed_is_refused(live):
    account = live.accounts[0]
    endpoint = {"host": "169.254.169.254", "port": 25, "encryption": "none"}
    body = {"address": "x@y.example", "username": "x", "password": "canary", "imap": endpoint, "smtp": endpoint}
    status, problem = live.call("POST", f"/api/v1/{account.tenant}/email/clients", token=account.token, body=body)
    assert (status, problem["title"]) == (422, "Host not allowed")


def test_a_header_can_not_be_injected(live):
    account = live.accounts[0]
    body = {"client_id": account.clients[0][0], "to": ["x@y.example"], "subject": "s\r\nBcc: z@y.example", "text": "t"}
    status, _ = live.call("POST", f"/api/v1/{account.tenant}/email/send", token=account.token, body=body)
    assert status == 400


def test_a_greylisted_recipient_is_retried_and_the_others_are_not_sent_twice(live, no_faults):
    reply = {"reply": "451 4.7.1 Try again later"}
    fault = {"id": "g", "point": "smtp.rcpt", "when": {"first": 1}, "action": reply}
    live.fakes.put_faults([fault | {"match": {"recipient": "grey@outside.example"}}])
    account = live.accounts[0]
    answer = live.send(account, to=["grey@outside.example", "white@outside.example"])
    task = live.settled(account, answer["task_id"])
    assert [e["outcome"] for e in task["executions"]] == ["retry", "succeeded"]
    assert sorted(e["rcpt_to"] for e in live.accepted(answer["message_id"])) == [
        ["grey@outside.example"],
        ["white@outside.example"],
    ]


def test_a_lost_250_is_unknown_and_never_sent_again(live, no_faults):
    live.fakes.put_faults([{"id": "c", "point": "smtp.accepted", "when": {"first": 1}, "action": {"drop": True}}])
    account = live.accounts[0]
    answer = live.send(account)
    task = live.settled(account, answer["task_id"])
    assert (task["state"], len(task["executions"])) == ("unknown", 1)
    assert [e["replied"] for e in live.accepted(answer["message_id"])] == [False]


def test_a_child_that_is_killed_in_a_send_leaves_unknown_or_sent_and_nothing_twice(live, no_faults):
    live.fakes.put_faults([{"id": "s", "point": "smtp.data", "when": {"first": 1}, "action": {"delay_ms": 1500}}])
    account = live.accounts[0]
    answer = live.send(account)
    query = "SELECT pid FROM audit.executions WHERE job_id = %s AND outcome IS NULL"
    (row,) = until(lambda: live.rows(query, answer["task_id"]), what="the execution's start")
    transmitting = "SELECT 1 FROM audit.recipients WHERE job_id = %s AND state = 'transmitting'"
    until(lambda: live.rows(transmitting, answer["task_id"]), what="the recipient's transmission")
    os.kill(row["pid"], signal.SIGKILL)
    task = live.settled(account, answer["task_id"])
    assert task["executions"][0]["outcome"] == "killed"
    assert task["state"] == "unknown"
    assert len(live.accepted(answer["message_id"])) <= 1


def test_a_worker_that_is_killed_comes_back_and_the_mail_is_sent(live):
    account = live.accounts[0]
    old = live.stack.kill_worker_parent()
    answer = live.send(account)
    assert live.settled(account, answer["task_id"])["state"] == "succeeded"
    assert live.stack.worker_pid != old


def test_beat_asks_for_a_sync_of_every_client_that_is_due(live):
    query = "SELECT DISTINCT client_id FROM audit.jobs WHERE parent_job_id IS NOT NULL AND name = %s"
    wanted = {a.clients[0][0] for a in live.accounts}

    def asked():
        return {r["client_id"] for r in live.rows(query, "email_service.tasks.sync_emails")}

    until(lambda: asked() >= wanted, what="the fan-out", deadline_s=40)


def test_the_exporter_counts_what_was_sent(live):
    account = live.accounts[0]
    live.settled(account, live.send(account)["task_id"])

    def counted():
        with urllib.request.urlopen(live.stack.exporter_url, timeout=5) as answer:
            return 'mail_task_success_total{queue="send",task="send_email"}' in answer.read().decode()

    until(counted, what="the count in /metrics")


def test_no_secret_is_in_a_log_or_a_span(live):
    logs = live.stack._options.log_dir
    text = "".join(path.read_text(errors="replace") for path in logs.parent.rglob("*") if path.is_file())
    assert text
    assert "canary-" not in text
    assert all(account.token not in text for account in live.accounts)
