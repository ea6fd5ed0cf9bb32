"""A synchronisation in a real worker process, under a soft time limit that it can't keep."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
from service_processes import celery_of, deaf, process
from waiting import until

NODE = "mail@syncing"
COUNT = 1000
#: Seconds, before the live stack's scale of 0.05: the limit strikes after one.
LIMIT = {"TASK_SOFT_TIME_LIMIT": "20"}


@pytest.fixture
def account(live):
    """A mailbox that nobody else will synchronise: its interval is an hour, and it has just been read."""
    address, password = f"huge-{uuid.uuid4().hex[:8]}@example.test", "canary-of-the-huge"
    live.fakes.add_user(address, password)
    owner = live.accounts[0]
    imap, smtp = live.stack.imap, live.stack.smtp
    body = {
        "address": address,
        "username": address,
        "password": password,
        "imap": {"host": imap[0], "port": imap[1], "encryption": "none"},
        "smtp": {"host": smtp[0], "port": smtp[1], "encryption": "none"},
        "sync_interval_s": 86_400,
    }
    status, answer = live.call("POST", f"/api/v1/{owner.tenant}/email/clients", token=owner.token, body=body)
    assert status == 201, answer
    account = replace(owner, clients=((answer["id"], address),))
    # Beat may have been first with a mailbox that was never read.
    until(lambda: live.settled(account, live.sync(account)["task_id"])["outcome"] == "synced", what="a first reading")
    return account


def test_a_folder_that_takes_longer_than_the_limit_is_read_in_several_executions(live, account, tmp_path, no_faults):
    address = account.clients[0][1]
    live.fakes.seed(address, count=COUNT, seed=9)
    slow = {"point": "imap.command", "match": {"command": "FETCH", "user": address}, "action": {"delay_ms": 250}}
    live.fakes.put_faults([{"id": "slow", "when": {"always": True}, **slow}])
    with deaf(celery_of(live), "sync"), process(live, tmp_path, "worker", "--node", NODE, "--queues", "sync", **LIMIT):
        task = live.settled(account, live.sync(account)["task_id"])
    assert (task["state"], task["outcome"]) == ("succeeded", "synced")
    *earlier, last = [(e["outcome"], e["error_type"]) for e in task["executions"]]
    assert last == ("succeeded", None)
    assert earlier
    assert ("retry", "time-limit") in earlier
    rows = live.rows("SELECT uid, sha256 FROM audit.messages WHERE mailbox = %s ORDER BY uid", address)
    there = [(m["uid"], m["sha256"]) for m in live.fakes.messages(address, digests=True)]
    assert [(row["uid"], row["sha256"]) for row in rows] == there
    assert task["result"]["messages"] == COUNT
