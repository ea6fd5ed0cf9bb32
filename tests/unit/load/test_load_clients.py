"""Requests, answers, pace and tally of the load: values in, values out."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from mailrig.clients import (
    Account,
    Feed,
    NoStackError,
    Tally,
    call_for,
    classify,
    listed_message,
    listing_path,
    pace,
    read_target,
    trace_ids,
)
from mailrig.schedule import Arrival

ACCOUNT = Account(
    tenant="acme",
    user="alice",
    token="secret-token",
    clients=(("c-0", "user0@acme.example"), ("c-1", "user1@acme.example")),
    attachment_ids=("a-0",),
)
SEND = Arrival(
    index=7,
    at_s=0.5,
    f="send",
    tenant=0,
    client=1,
    to=("x@outside.example",),
    bcc=("y@outside.example",),
    subject="ember fjord",
    text="quill ridge\n",
    attachment=True,
)
SYNC = Arrival(index=8, at_s=0.6, f="sync", tenant=0, client=0, warmup=True)


def call(arrival, **changes):
    return call_for(arrival, ACCOUNT, **{"seed": 5, "intended_ns": 1000, "session": "s", **changes})


def test_a_send_is_one_post_with_its_recipients_and_its_sender_s_mailbox():
    made = call(SEND)
    assert made.path == "/api/v1/acme/email/send"
    assert json.loads(made.body) == {
        "client_id": "c-1",
        "to": ["x@outside.example"],
        "cc": [],
        "bcc": ["y@outside.example"],
        "subject": "ember fjord",
        "text": "quill ridge\n",
        "attachment_ids": ["a-0"],
    }
    trace_id, span_id = trace_ids(5, 7, "s")
    assert made.headers["traceparent"] == f"00-{trace_id}-{span_id}-01"
    assert made.value == {
        "arrival": 7,
        "intended_ns": 1000,
        "tenant": "acme",
        "client_id": "c-1",
        "trace_id": trace_id,
        "warmup": False,
        "mail_from": "user1@acme.example",
        "to": ["x@outside.example"],
        "cc": [],
        "bcc": ["y@outside.example"],
        "attachments": 1,
        "idempotency_key": made.headers["Idempotency-Key"],
    }


def test_a_sync_has_no_body_and_keeps_its_warm_up_mark():
    made = call(SYNC)
    assert (made.path, made.body) == ("/api/v1/acme/email/clients/c-0/sync", b"")
    assert made.value["warmup"] is True


def test_a_deletion_is_of_one_message_that_a_listing_showed():
    message_id = listed_message(b'{"messages":[{"id":"m-1"},{"id":"m-2"}],"cursor":null}')
    made = call(replace(SYNC, f="delete"), message_id=message_id)
    assert (made.path, json.loads(made.body)) == ("/api/v1/acme/email/delete", {"message_ids": ["m-1"]})
    assert listing_path(ACCOUNT) == "/api/v1/acme/email/messages?limit=1"


@pytest.mark.parametrize("body", [b'{"messages":[]}', b"<html>", b"{}", b'{"messages":[{}]}', b"[]", b""])
def test_without_a_message_there_is_nothing_to_delete(body):
    assert listed_message(body) is None


def test_a_trace_that_is_not_recorded_says_so_to_those_behind():
    assert call(SEND, keeps=lambda _: False).headers["traceparent"].endswith("-00")


def test_keys_and_traces_are_the_same_for_the_same_seed_and_differ_between_arrivals_seeds_and_sessions():
    assert call(SEND) == call(SEND)
    made = [call(SEND), call(SYNC), call(SEND, session="t")]
    assert len({c.headers["Idempotency-Key"] for c in made}) == 3
    assert len({c.headers["traceparent"] for c in [*made, call(SEND, seed=6)]}) == 4


def test_no_repr_shows_a_token():
    assert "secret-token" not in repr((ACCOUNT, call(SEND)))


@pytest.mark.parametrize(
    ("answer", "expected"),
    {
        "accepted": (
            (202, b'{"task_id":"t","message_id":"<m@x>","status_url":"/"}', None),
            ("ok", {"status": 202, "task_id": "t", "message_id": "<m@x>"}, None),
        ),
        "a batch of one is one task": (
            (202, b'{"tasks":[{"task_id":"t","status_url":"/"}]}', None),
            ("ok", {"status": 202, "task_id": "t"}, None),
        ),
        "a batch of none": (
            (202, b'{"tasks":[]}', None),
            ("info", {"status": 202}, "the answer is not the JSON that was promised"),
        ),
        "accepted, but nobody knows as what": (
            (202, b"<html>", None),
            ("info", {"status": 202}, "the answer is not the JSON that was promised"),
        ),
        "refused": (
            (422, b'{"title":"Host not allowed","detail":"x"}', None),
            ("fail", {"status": 422}, "Host not allowed: x"),
        ),
        "too many": ((429, b"", None), ("fail", {"status": 429}, "no problem details")),
        "server error": ((503, b"", None), ("info", {"status": 503}, "no problem details")),
        "redirected": ((302, b"", None), ("info", {"status": 302}, "no problem details")),
        "timed out": ((None, b"", "timeout"), ("info", {"status": None}, "timeout")),
    }.values(),
)
def test_only_a_4xx_surely_did_not_happen_and_only_a_202_surely_did(answer, expected):
    assert classify(*answer) == expected


def test_each_arrival_is_spawned_at_its_time_even_if_spawning_takes_long():
    now, spawned = [1_000_000_000], []

    def sleep(duration_s):
        now[0] += int(duration_s * 1e9)

    def spawn(arrival, intended_ns):
        spawned.append((arrival.index, intended_ns, now[0]))
        now[0] += 30_000_000

    schedule = [Arrival(index=k, at_s=0.02 * k, f="sync", tenant=0, client=0) for k in range(4)]
    pace(schedule, start_ns=now[0], now_ns=lambda: now[0], sleep=sleep, spawn=spawn)
    assert [intended - 1_000_000_000 for _, intended, _ in spawned] == [0, 20_000_000, 40_000_000, 60_000_000]
    # Behind its time it does not wait, and it drops nothing: the lag shows.
    assert [at - intended for _, intended, at in spawned] == [0, 10_000_000, 20_000_000, 30_000_000]


def test_a_pace_that_is_behind_still_lets_its_requests_run():
    naps = []
    schedule = [Arrival(index=k, at_s=0.0, f="sync", tenant=0, client=0) for k in range(3)]
    pace(schedule, start_ns=0, now_ns=lambda: 10**9, sleep=naps.append, spawn=lambda *_: None)
    assert naps == [0.0, 0.0, 0.0]


def test_a_feed_begins_without_a_cursor_follows_it_and_keeps_it_over_an_empty_page():
    feed = Feed(ACCOUNT)
    assert feed.path == "/api/v1/acme/tasks?limit=500"
    rows = feed.absorb(b'{"tasks":[{"task_id":"t"}],"cursor":"a=="}')
    assert rows == [{"task_id": "t", "tenant": "acme"}]
    assert feed.path.endswith("&after=a%3D%3D")
    assert feed.absorb(b'{"tasks":[],"cursor":null}') == []
    assert feed.path.endswith("&after=a%3D%3D")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"tasks":[]}', b'{"tasks":[1],"cursor":null}', b"null"])
def test_a_page_that_was_not_promised_moves_no_cursor(body):
    feed = Feed(ACCOUNT)
    with pytest.raises(ValueError, match=r"page|Expecting"):
        feed.absorb(body)
    assert "after" not in feed.path


def row(task_id, **changes):
    times = {"enqueued_ns": 200, "due_ns": 300, "started_ns": 700, "ended_ns": 1500}
    return {"task_id": task_id, "queue": "send", "state": "succeeded", **times, **changes}


def test_an_end_counts_from_the_intended_time_and_the_queue_time_from_the_last_due_time():
    tally = Tally()
    assert tally.accepted("t", 100) == []
    assert tally.unsettled == 1
    timings = {timing.name: timing.duration_ns for timing in tally.settled(row("t"))}
    assert timings == {"e2e send": 1400, "queue send": 400, "run send": 800}
    assert tally.unsettled == 0


def test_an_end_that_is_shown_before_the_answer_is_not_lost():
    tally = Tally()
    assert tally.settled(row("t")) == []
    assert [timing.name for timing in tally.accepted("t", 100)] == ["e2e send", "queue send", "run send"]
    assert tally.unsettled == 0


def test_a_failed_task_is_an_error_and_one_that_never_ran_has_no_run_time():
    tally = Tally()
    tally.accepted("t", 100)
    (timing,) = tally.settled(row("t", state="failed", started_ns=None))
    assert (timing.name, timing.error) == ("e2e send", "failed")


def test_tasks_of_others_are_none_of_ours():
    tally = Tally()
    tally.accepted("t", 100)
    tally.settled(row("periodic"))
    assert tally.unsettled == 1


@pytest.mark.parametrize("text", [None, "", "[]", '{"api_url":"http://x"}', '{"api_url":"x","population":[{}]}'])
def test_without_a_stack_the_error_says_how_to_get_one(tmp_path, text):
    file = tmp_path / "stack.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(NoStackError, match="mailrig up"):
        read_target(file)


def test_the_load_s_modules_import_no_database_no_locust_and_no_celery():
    code = (
        "import sys, mailrig.clients, mailrig.schedule, mailrig.history, mailrig.scenario;"
        "print(sorted({'psycopg', 'locust', 'gevent', 'celery', 'redis'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
