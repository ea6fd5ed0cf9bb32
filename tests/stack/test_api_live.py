"""What the API answers of a living system is what its document says: tasks that ran, mail that came."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import urllib.request
import uuid

import pytest

from email_service.api import answers, limits
from email_service.errors import RateLimitError


@pytest.fixture(scope="module")
def account(live):
    """Its mailbox is synchronised."""
    account = live.accounts[0]
    assert live.settled(account, live.sync(account)["task_id"])["state"] == "succeeded"
    return account


def ask(live, account, path):
    status, answer = live.call("GET", f"/api/v1/{account.tenant}{path}", token=account.token)
    assert status == 200, answer
    return answer


def check(model, answer):
    model.model_validate_json(json.dumps(answer), strict=False)
    return answer


def test_a_task_that_ran_is_told_as_the_document_says(live, account):
    sent = live.send(account, cc=["other@outside.example"], from_name="Ann")
    live.settled(account, sent["task_id"])
    task = check(answers.Task, ask(live, account, f"/tasks/{sent['task_id']}"))
    assert task["executions"]
    assert {r["state"] for r in task["recipients"]} == {"sent"}
    feed = check(answers.Tasks, ask(live, account, "/tasks?limit=1000"))
    assert sent["task_id"] in {row["task_id"] for row in feed["tasks"]}


def test_a_mailbox_is_read_down_to_the_bytes_of_its_attachments(live, account):
    client_id = account.clients[0][0]
    client = check(answers.Client, ask(live, account, f"/email/clients/{client_id}"))
    assert client["last_sync_at"] is not None
    folders = check(answers.Folders, ask(live, account, f"/email/clients/{client_id}/folders"))["folders"]
    inbox = next(folder for folder in folders if folder["type"] == "inbox")
    query = f"/email/messages?client_id={client_id}&folder_id={inbox['id']}&limit=200"
    listed = check(answers.Messages, ask(live, account, query))["messages"]
    assert len(listed) == inbox["message_count"] > 0
    for row in listed:
        message = check(answers.Message, ask(live, account, f"/email/messages/{row['id']}"))
        assert len(message["attachments"]) == row["attachment_count"]
        for attachment in message["attachments"]:
            path = f"/api/v1/{account.tenant}/email/attachments/{attachment['id']}/content"
            request = urllib.request.Request(live.stack.api_url + path)
            request.add_header("Authorization", f"Bearer {account.token}")
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert hashlib.sha256(answer.read()).hexdigest() == attachment["sha256"]


def test_a_spam_check_and_a_deletion_reach_their_workers(live, account):
    client_id = account.clients[0][0]
    listed = ask(live, account, f"/email/messages?client_id={client_id}&limit=2")["messages"]
    body = {"message_ids": [message["id"] for message in listed]}
    for verb, outcome in (("spam", "checked"), ("delete", "deleted")):
        path = f"/api/v1/{account.tenant}/email/{verb}"
        status, answer = live.call("POST", path, token=account.token, body=body)
        assert status == 202, answer
        (accepted,) = check(answers.AcceptedBatch, answer)["tasks"]
        assert live.settled(account, accepted["task_id"])["outcome"] == outcome


def test_a_limit_is_one_for_all_processes(live):
    tenant = f"t-{uuid.uuid4().hex[:8]}"
    processes = [limits.shared("5/day", f"{live.stack.redis_url}/0") for _ in range(2)]
    assert [processes[n % 2].take(tenant).remaining for n in range(5)] == [4, 3, 2, 1, 0]
    for process in processes:
        with pytest.raises(RateLimitError):
            process.take(tenant)


def test_a_broker_that_says_nothing_holds_one_request_up_and_limits_nobody():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limit = limits.shared("5/day", f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        assert [limit.take("acme") for _ in range(50)] == [None] * 50
        silent.settimeout(0)
        silent.accept()[0].close()
        connections = 1
        with contextlib.suppress(BlockingIOError):
            while True:
                silent.accept()[0].close()
                connections += 1
    # redis-py's own retries of the first request; the other 49 did not ask.
    assert connections <= 5
