"""What makes work, at the API: send, sync, delete, spam; idempotency keys; over real rows."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from http_desk import Desk, application
from kombu.exceptions import OperationalError
from sqlalchemy import text
from use_cases import statements

NOBODY = str(uuid.UUID(int=1))


@pytest.fixture
def desk(postgres, app_rows, system_rows, tenant, tmp_path):
    app, hands = application(postgres, app_rows, system_rows, tmp_path)
    return Desk.open(app, hands, tenant)


@pytest.fixture
def mail(desk):
    """The least that is a message."""
    return {"client_id": desk.client()["id"], "to": ["x@outside.example"]}


def send(desk, body, key=None):
    return desk.call("POST", "/email/send", json=body, headers={"Idempotency-Key": key} if key else {})


def rows(desk, query, **values):
    with desk.session() as session:
        return session.execute(text(query), values).all()


def published(desk, queue):
    """Ids of the messages that wait in a queue of the broker."""
    celery = desk.app.view_functions["send_mail"].func.__self__._celery
    found = []
    with celery.connection_for_read() as connection:
        waiting = connection.SimpleQueue(queue)
        while waiting.qsize():
            message = waiting.get_nowait()
            message.ack()
            found.append(message.headers["id"])
    return found


def test_a_send_writes_what_the_message_is_made_of(desk, mail):
    upload = desk.upload()["id"]
    picture = desk.upload(b"png", "p.png", "image/png")["id"]
    more = {
        "cc": ["y@outside.example"],
        "bcc": ["z@outside.example"],
        "subject": "Größe",
        "text": "t\n",
        "html": "<img src=cid:p>",
        "attachment_ids": [upload],
        "inline": [{"attachment_id": picture, "content_id": "p"}],
        "reply_to": ["answers@outside.example"],
        "in_reply_to": "<a@b>",
        "references": ["<0@b>", "<a@b>"],
        "from_name": "Ann Ä",
    }
    answer = send(desk, mail | more)
    assert answer.status == 202
    assert answer.headers["Location"] == answer.json["status_url"]
    ((args, message_id),) = rows(desk, "SELECT args, message_id FROM jobs")
    assert args == {k: more[k] for k in more if k not in {"cc", "bcc"}}
    assert message_id == answer.json["message_id"] == f"<{answer.json['task_id']}@example.test>"
    task = desk.call("GET", answer.json["status_url"]).json
    assert {(r["role"], r["address"]) for r in task["recipients"]} == {
        ("to", "x@outside.example"),
        ("cc", "y@outside.example"),
        ("bcc", "z@outside.example"),
    }
    assert published(desk, "send") == [answer.json["task_id"]]


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"to": []}, "#/to"),
        ({"to": ["x@y.example"] * 60, "cc": ["x@y.example"] * 60}, "#/to"),
        ({"to": ["x@y.example", "nobody"]}, "#/to/1"),
        ({"to": "x@y.example"}, "#/to"),
        ({"to": [5]}, "#/to/0"),
        ({"subject": "a\r\nBcc: b@c.example"}, "#/subject"),
        ({"from_name": "a\nb"}, "#/from_name"),
        ({"reply_to": ["a@b.example\r\nX: y"]}, "#/reply_to/0"),
        ({"in_reply_to": "<a@b>\r\nX: y"}, "#/in_reply_to"),
        ({"references": ["a b"]}, "#/references/0"),
        ({"text": "a\x00b"}, "#/text"),
        ({"html": 5}, "#/html"),
        ({"client_id": "1"}, "#/client_id"),
        ({"client_id": None}, "#/client_id"),
        ({"attachment_ids": ["x"]}, "#/attachment_ids/0"),
        ({"inline": [{"attachment_id": NOBODY, "content_id": "a b"}], "html": "h"}, "#/inline/0/content_id"),
        ({"inline": [{"attachment_id": NOBODY, "content_id": "a"}]}, "#/inline"),
        ({"subjct": "s"}, "#/subjct"),
    ],
)  # fmt: skip
def test_a_send_that_is_wrong_says_where(desk, mail, change, place):
    answer = send(desk, mail | change)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (400, [place])
    assert rows(desk, "SELECT 1 FROM jobs") == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"to": ["\\ud800"]}', b"[" * 100_000, b"1e999"]
)
def test_what_is_no_json_object_is_refused(desk, body):
    answer = desk.call("POST", "/email/send", data=body, content_type="application/json")
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")


def test_a_body_that_is_not_called_json_is_not_read(desk, mail):
    assert desk.call("POST", "/email/send", data="a=b", content_type="text/plain").status == 415


def test_somebody_elses_client_and_uploads_are_not_there(desk, mail):
    other = Desk.open(desk.app, desk.tools, desk.scope.tenant_id, user="another")
    assert send(other, mail).status == 404
    theirs = other.upload()["id"]
    answer = send(desk, mail | {"attachment_ids": [theirs]})
    assert (answer.status, theirs in answer.json["detail"]) == (400, True)
    assert rows(desk, "SELECT 1 FROM jobs") == []


def test_a_key_makes_one_job_however_the_request_is_written(desk, mail):
    first = send(desk, mail | {"subject": "s"}, "k").json
    again = desk.call(
        "POST",
        "/email/send",
        data=f'{{ "subject": "s", "to": ["x@outside.example"], "cc": [], "client_id": "{mail["client_id"].upper()}"}}',
        content_type="application/json",
        headers={"Idempotency-Key": "k"},
    ).json
    assert again == first
    assert published(desk, "send") == [first["task_id"]]


@pytest.mark.parametrize("verb", ["send", "sync", "delete", "spam"])
def test_a_key_that_was_used_for_something_else_is_refused(desk, mail, verb):
    message_id = desk.message(mail["client_id"], folder_id=desk.folder(mail["client_id"]))
    calls = {
        "send": ("/email/send", mail),
        "sync": (f"/email/clients/{mail['client_id']}/sync", None),
        "delete": ("/email/delete", {"message_ids": [message_id]}),
        "spam": ("/email/spam", {"message_ids": [message_id]}),
    }
    path, body = calls.pop(verb)
    assert desk.call("POST", path, json=body, headers={"Idempotency-Key": "k"}).status == 202
    for other, content in calls.values():
        answer = desk.call("POST", other, json=content, headers={"Idempotency-Key": "k"})
        assert (answer.status, answer.json["title"]) == (422, "Idempotency key used with another request")
    assert len(rows(desk, "SELECT 1 FROM jobs")) == 1


def test_two_users_keys_are_two(desk, mail):
    other = Desk.open(desk.app, desk.tools, desk.scope.tenant_id, user="another")
    theirs = mail | {"client_id": other.client()["id"]}
    assert send(desk, mail, "k").json["task_id"] != send(other, theirs, "k").json["task_id"]


def test_one_key_at_the_same_time_is_one_job(desk, mail):
    with ThreadPoolExecutor(max_workers=4) as pool:
        answers = list(pool.map(lambda _: send(desk, mail, "k"), range(12)))
    assert {a.status for a in answers} == {202}
    assert len({a.json["task_id"] for a in answers}) == 1
    assert published(desk, "send") == [answers[0].json["task_id"]]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "\x1f1"])
def test_a_key_that_could_not_be_one_is_refused(desk, mail, key):
    answer = desk.call("POST", "/email/send", json=mail, headers={"Idempotency-Key": key})
    assert (answer.status, answer.json["errors"][0]["header"]) == (400, "Idempotency-Key")


def test_a_broker_that_is_away_loses_no_send_and_is_waited_for_once(desk, mail, monkeypatch):
    tried = []

    def away(*_, **__):
        tried.append(1)
        raise OperationalError

    monkeypatch.setattr("email_service.celery_app.send", away)
    answers = [send(desk, mail) for _ in range(3)]
    assert {answer.status for answer in answers} == {202}
    assert len(tried) == 1
    assert {desk.call("GET", a.json["status_url"]).json["state"] for a in answers} == {"queued"}
    left = rows(desk, "SELECT publishes FROM jobs WHERE next_publish_at <= clock_timestamp()")
    assert [row.publishes for row in left] == [0, 0], "the dispatcher takes over at once what was not tried"


def test_a_deletion_is_one_job_per_client(desk, mail):
    mine, other = mail["client_id"], desk.client()["id"]
    folders = {c: desk.folder(c) for c in (mine, other)}
    made = {c: [desk.message(c, folder_id=folder_id) for _ in range(2)] for c, folder_id in folders.items()}
    ids = made[mine] + made[other]
    answer = desk.call("POST", "/email/delete", json={"message_ids": [*ids, ids[0]], "permanent": True})
    assert (answer.status, {t["client_id"] for t in answer.json["tasks"]}) == (202, {mine, other})
    jobs = {str(r.client_id): r for r in rows(desk, "SELECT * FROM jobs")}
    for client_id, message_ids in made.items():
        assert jobs[client_id].args == {"message_ids": message_ids, "permanent": True}
        assert jobs[client_id].name == "email_service.tasks.delete_emails"
    due = rows(desk, "SELECT id FROM jobs WHERE next_publish_at <= clock_timestamp()")
    assert sorted(published(desk, "delete") + [str(r.id) for r in due]) == sorted(str(r.id) for r in jobs.values())


def test_a_deletion_that_is_repeated_answers_its_tasks_even_when_the_messages_are_gone(desk, mail):
    clients = [mail["client_id"], desk.client()["id"]]
    ids = [desk.message(c, folder_id=desk.folder(c)) for c in clients]
    ask = {"json": {"message_ids": ids}, "headers": {"Idempotency-Key": "k"}}
    first = desk.call("POST", "/email/delete", **ask).json
    with desk.session() as session:
        session.execute(text("DELETE FROM email_messages"))
        session.commit()
    assert desk.call("POST", "/email/delete", **ask).json == first
    assert len(first["tasks"]) == 2
    assert desk.call("POST", "/email/delete", json={"message_ids": ids[:1]}).status == 404


def test_a_spam_check_names_messages_that_are_there(desk, mail):
    message_id = desk.message(mail["client_id"], folder_id=desk.folder(mail["client_id"]))
    answer = desk.call("POST", "/email/spam", json={"message_ids": [message_id]})
    assert (answer.status, len(answer.json["tasks"])) == (202, 1)
    ((args, name),) = rows(desk, "SELECT args, name FROM jobs")
    assert (args, name) == ({"message_ids": [message_id]}, "email_service.tasks.check_spam")
    missing = str(uuid.uuid4())
    answer = desk.call("POST", "/email/spam", json={"message_ids": [message_id, missing]})
    assert (answer.status, missing in answer.json["detail"]) == (404, True)


def test_an_accepted_send_is_one_transaction_of_three_statements(desk, mail):
    """Ownership, job, recipients: each more is a round trip that every send pays."""
    with statements() as said:
        send(desk, mail, "k")
    asked = [words.split()[0] for words in said]
    assert asked == ["SELECT", "INSERT", "INSERT"]


@pytest.mark.parametrize(
    "cursor",
    ["x", "%00", "W10=", "bnVsbA==", "WzEsMl0=", "WyIxZTk5OSIsIngiXQ==", "%F0%9F%98%80", "=" * 400,
     "WyIxODQ0Njc0NDA3MzcwOTU1MTYxNiIsIjAwMDAwMDAwLTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwMCJd",
     "W0luZmluaXR5LCIwMDAwMDAwMC0wMDAwLTAwMDAtMDAwMC0wMDAwMDAwMDAwMDAiXQ==",
     "WyItMSIsIjAwMDAwMDAwLTAwMDAtMDAwMC0wMDAwLTAwMDAwMDAwMDAwMCJd"],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/tasks?after=", "/email/messages?cursor=", "/email/clients?cursor="])
def test_a_cursor_that_somebody_made_up_is_refused(desk, path, cursor):
    answer = desk.call("GET", path + cursor)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [("limit=0", "limit"), ("limit=1e9", "limit"), ("limit=9" + "9" * 30, "limit"), ("colour=red", "colour"),
     ("client_id=1", "client_id"), ("unseen=perhaps", "unseen"), ("q=a%00b", "q"), ("q=" + "a" * 201, "q")],
)  # fmt: skip
def test_a_parameter_that_is_wrong_is_named(desk, query, parameter):
    answer = desk.call("GET", f"/email/messages?{query}")
    assert (answer.status, [error["parameter"] for error in answer.json["errors"]]) == (400, [parameter])
