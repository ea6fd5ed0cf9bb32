"""The control API and its client."""

import http.client
import json
import smtplib

import pytest
from fakemail_harness import PASSWORD, USER

from fakemail import FakemailError
from fakemail.client import ControlError, FakeMail

GREYLIST = {"id": "g", "point": "smtp.rcpt", "when": {"first": 2}, "action": {"reply": "451 4.7.1 Later"}}


def call(fakes, method, path, body=None):
    host, port = fakes.facts["control"].removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def test_health(fakes):
    assert fakes.control.health()["status"] == "ok"


def test_seeding_says_what_is_there(fakes):
    answer = fakes.control.seed(USER, count=3, seed=5)
    assert [row["uid"] for row in answer["messages"]] == [1, 2, 3]
    inbox = next(f for f in fakes.control.mailbox(USER)["folders"] if f["name"] == "INBOX")
    assert (inbox["uidvalidity"], inbox["uidnext"]) == (answer["uidvalidity"], 4)
    assert [(m["uid"], m["message_id"], m["size_bytes"]) for m in inbox["messages"]] == [
        (m["uid"], m["message_id"], m["size_bytes"]) for m in answer["messages"]
    ]
    assert [m["flags"] for m in inbox["messages"]] == [[], [], []]


def test_a_raw_message_goes_into_a_folder(fakes):
    assert fakes.control.append(USER, b"Message-ID: <x@y>\r\n\r\nhi", folder="Junk")["uid"] == 1
    junk = next(f for f in fakes.control.mailbox(USER)["folders"] if f["name"] == "Junk")
    assert junk["messages"][0]["message_id"] == "<x@y>"


def test_faults_are_put_shown_and_cleared(fakes):
    fakes.control.put_faults([GREYLIST])
    assert fakes.control.faults() == [GREYLIST]
    fakes.control.put_faults(fakes.control.faults())
    assert call(fakes, "GET", "/faults")[1]["counters"] == {"g": {"seen": 0, "fired": 0}}
    fakes.control.clear_faults()
    assert fakes.control.faults() == []


def test_a_broken_fault_leaves_the_old_ones_in_force(fakes):
    fakes.control.put_faults([GREYLIST])
    with pytest.raises(ControlError, match=r"400 .*faults\[0\].point: unknown point 'x'; allowed: smtp.connect"):
        fakes.control.put_faults([GREYLIST | {"point": "x"}])
    assert fakes.control.faults() == [GREYLIST]


def test_the_ledger_comes_in_pages(fakes):
    start = fakes.control.health()["ledger_seq"]
    for _ in range(7):
        smtplib.SMTP(*fakes.address("smtp"), timeout=10).close()
    fakes.await_entry("disconnect", seq=start + 14)
    status, page = call(fakes, "GET", f"/ledger?after={start}&limit=5")
    assert status == 200
    assert [entry["seq"] for entry in page["entries"]] == list(range(start + 1, start + 6))
    assert page["next"] == start + 5
    assert page["dropped"] == 0
    assert [entry["seq"] for entry in fakes.control.ledger(after=start)] == list(range(start + 1, start + 15))


def test_reset_forgets_users_mail_faults_and_ledger(fakes):
    fakes.control.seed(USER, count=1, seed=5)
    fakes.control.put_faults([GREYLIST])
    fakes.control.reset()
    assert list(fakes.control.ledger()) == []
    assert fakes.control.faults() == []
    with pytest.raises(ControlError, match="404"):
        fakes.control.mailbox(USER)


@pytest.mark.parametrize(
    ("request_line", "body", "status", "words"),
    [
        ("GET /nowhere", None, 404, ""),
        ("DELETE /users", None, 405, ""),
        ("POST /users", "{", 400, "JSON"),
        ("POST /users", "[]", 400, "object"),
        ("POST /users", '{"address": "x@y.test"}', 400, "password"),
        ("POST /users", '{"address": "x", "password": "p"}', 400, "local-part@domain"),
        ("GET /mailboxes/nobody@example.test", None, 404, "nobody"),
        (f"POST /mailboxes/{USER}/seed", "{}", 400, "count"),
        (f"POST /mailboxes/{USER}/seed", '{"count": -1, "seed": 1}', 400, "allowed: 0 to"),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": "x"}', 400, "seed"),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": 1, "profile": "giant"}', 400, "small"),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "seed": 1, "folder": "No"}', 404, "No"),
        (f"POST /mailboxes/{USER}/seed", '{"count": 1, "sed": 1}', 400, "sed"),
        (f"POST /mailboxes/{USER}/messages?folder=No", "x", 404, "No"),
        ("PUT /faults", "{}", 400, "a list of faults"),
        ("GET /ledger?after=x", None, 400, "after"),
        ("GET /ledger?limit=-1", None, 400, "limit"),
    ],
)
def test_errors_are_json_and_say_what_is_wrong(fakes, request_line, body, status, words):
    answered, answer = call(fakes, *request_line.split(), body)
    assert answered == status
    assert list(answer) == ["error"]
    assert words in answer["error"]


def test_a_silent_control_is_one_kind_of_error():
    with pytest.raises(ControlError) as caught:
        FakeMail("http://127.0.0.1:1", timeout_s=1).health()
    assert isinstance(caught.value, FakemailError)


def test_a_password_comes_back_from_nowhere(fakes):
    answers = [
        fakes.control.mailbox(USER),
        list(fakes.control.ledger()),
        call(fakes, "POST", "/users", json.dumps({"address": USER, "password": PASSWORD})),
    ]
    assert PASSWORD not in repr(answers)
