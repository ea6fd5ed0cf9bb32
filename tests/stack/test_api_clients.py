"""Mailboxes at the API: added, shown, changed, removed; over real rows."""

from __future__ import annotations

import uuid

import pytest
from http_desk import PASSWORD, SERVER, Desk, application
from sqlalchemy import text

from email_service.models import EmailClient
from email_service.service.work import password_of


@pytest.fixture
def desk(postgres, app_rows, system_rows, tenant, tmp_path):
    app, hands = application(postgres, app_rows, system_rows, tmp_path)
    return Desk.open(app, hands, tenant)


def secret(desk, client_id):
    with desk.session() as session:
        return password_of(session, desk.tools.vault, session.get_one(EmailClient, uuid.UUID(client_id))).reveal()


def test_a_client_is_shown_whole_and_without_its_secret(desk):
    made = desk.client(sync_interval_s=600, spam_check=False)
    answer = desk.call("GET", f"/email/clients/{made['id']}")
    assert answer.json == made
    assert made | {"imap": SERVER, "auth": "password", "sync_interval_s": 600, "spam_check": False} == made
    assert (made["last_sync_at"], made["syncing"], made["enabled"]) == (None, False, True)
    assert PASSWORD.encode() not in answer.data


def test_a_new_client_is_where_location_says(desk):
    answer = desk.call(
        "POST",
        "/email/clients",
        json={"address": "a@b.example", "username": "a", "password": "p", "imap": SERVER, "smtp": SERVER},
    )
    assert desk.call("GET", answer.headers["Location"]).json == answer.json


def test_the_password_is_kept_sealed(desk):
    made = desk.client()
    assert secret(desk, made["id"]) == PASSWORD


def test_a_mailbox_with_a_token_logs_in_by_it(desk):
    made = desk.client(auth="xoauth2", token="canary-token", password=None)
    assert made["auth"] == "xoauth2"
    assert secret(desk, made["id"]) == "canary-token"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"auth": "xoauth2"}, "#/token"),
        ({"token": "t"}, "#/password"),
        ({"password": None}, "#/password"),
        ({"address": "Ann <ann@example.test>"}, "#/address"),
        ({"username": "a\r\nb"}, "#/username"),
        ({"imap": SERVER | {"port": 70000}}, "#/imap/port"),
        ({"imap": SERVER | {"port": "143"}}, "#/imap/port"),
        ({"imap": SERVER | {"host": "a b"}}, "#/imap/host"),
        ({"smtp": SERVER | {"encryption": "ssl"}}, "#/smtp/encryption"),
        ({"sync_interval_s": 59}, "#/sync_interval_s"),
        ({"colour": "red"}, "#/colour"),
        ({"a/b~": 1}, "#/a~1b~0"),
    ],
)
def test_what_is_wrong_is_named(desk, change, pointer):
    body = {"address": "a@b.example", "username": "a", "password": "canary-p", "imap": SERVER, "smtp": SERVER}
    answer = desk.call("POST", "/email/clients", json=body | change)
    assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert [error["pointer"] for error in answer.json["errors"]] == [pointer]
    assert b"canary-p" not in answer.data


def test_all_that_is_wrong_is_named_at_once(desk):
    answer = desk.call("POST", "/email/clients", json={"address": "x", "imap": {"host": ""}})
    pointers = {error["pointer"] for error in answer.json["errors"]}
    assert pointers == {"#/address", "#/username", "#/imap/host", "#/imap/port", "#/smtp"}


def test_clients_come_page_by_page(desk):
    made = [desk.client()["id"] for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        page = desk.call("GET", f"/email/clients?limit=2{cursor and '&cursor=' + cursor}").json
        found += [client["id"] for client in page["clients"]]
        cursor = page["cursor"]
    assert found == made


def test_a_change_leaves_what_it_does_not_name(desk):
    made = desk.client()
    other = SERVER | {"port": 3993}
    answer = desk.call("PATCH", f"/email/clients/{made['id']}", json={"imap": other, "enabled": False})
    assert answer.json == made | {"imap": other, "enabled": False}
    assert secret(desk, made["id"]) == PASSWORD


def test_a_password_is_rotated_and_no_old_one_is_left(desk):
    made = desk.client()
    assert desk.call("PATCH", f"/email/clients/{made['id']}", json={"password": "canary-new"}).status == 200
    assert secret(desk, made["id"]) == "canary-new"
    with desk.session() as session:
        assert session.execute(text("SELECT count(*) FROM credentials")).scalar_one() == 1


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"auth": "xoauth2"}, "#/token"),
        ({"token": "t"}, "#/password"),
        ({"auth": "xoauth2", "password": "p"}, "#/token"),
        ({"enabled": None}, "#/enabled"),
        ({"address": "new@example.test"}, "#/address"),
        ({"imap": {"host": "127.0.0.1"}}, "#/imap/port"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused(desk, change, pointer):
    made = desk.client()
    answer = desk.call("PATCH", f"/email/clients/{made['id']}", json=change)
    assert (answer.status, [error["pointer"] for error in answer.json["errors"]]) == (400, [pointer])


def test_a_mailbox_may_turn_from_password_to_token(desk):
    made = desk.client()
    change = {"auth": "xoauth2", "token": "canary-token"}
    assert desk.call("PATCH", f"/email/clients/{made['id']}", json=change).json["auth"] == "xoauth2"
    assert secret(desk, made["id"]) == "canary-token"


def test_a_client_that_goes_takes_all_its_rows_along(desk):
    made = desk.client()
    desk.message(made["id"], folder_id=desk.folder(made["id"]))
    assert desk.call("DELETE", f"/email/clients/{made['id']}").status == 204
    assert desk.call("GET", f"/email/clients/{made['id']}").status == 404
    with desk.session() as session:
        for table in ("credentials", "email_clients", "email_folders", "email_messages"):
            assert session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() == 0


def test_what_waits_for_a_client_that_goes_is_settled(desk):
    made = desk.client()
    body = {"client_id": made["id"], "to": ["x@y.example"], "subject": "s", "text": "t"}
    task_id = desk.call("POST", "/email/send", json=body).json["task_id"]
    assert desk.call("DELETE", f"/email/clients/{made['id']}").status == 204
    task = desk.call("GET", f"/tasks/{task_id}").json
    assert (task["state"], task["error_type"]) == ("failed", "client-deleted")
    assert [r["state"] for r in task["recipients"]] == ["failed"]
    assert [t["task_id"] for t in desk.call("GET", "/tasks").json["tasks"]] == [task_id]


def test_a_client_whose_task_runs_stays(desk):
    made = desk.client()
    task_id = desk.call("POST", f"/email/clients/{made['id']}/sync").json["task_id"]
    with desk.session() as session:
        session.execute(text("UPDATE jobs SET state = 'running' WHERE id = :id"), {"id": task_id})
        session.commit()
    answer = desk.call("DELETE", f"/email/clients/{made['id']}")
    assert (answer.status, answer.headers["Retry-After"]) == (409, "5")
    assert task_id in answer.json["detail"]
    assert desk.call("GET", f"/email/clients/{made['id']}").status == 200


def test_folders_are_listed_with_the_inbox_first(desk):
    made = desk.client()
    desk.folder(made["id"], "Papers", "custom")
    desk.folder(made["id"])
    folders = desk.call("GET", f"/email/clients/{made['id']}/folders").json["folders"]
    assert [(f["name"], f["type"]) for f in folders] == [("INBOX", "inbox"), ("Sent", "sent"), ("Papers", "custom")]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/email/clients/{}", None),
        ("PATCH", "/email/clients/{}", {"enabled": False}),
        ("DELETE", "/email/clients/{}", None),
        ("GET", "/email/clients/{}/folders", None),
        ("POST", "/email/clients/{}/sync", None),
    ],
)
def test_nobody_else_has_the_client(desk, method, path, body):
    made = desk.client()
    for other in (Desk.open(desk.app, desk.tools, desk.scope.tenant_id, user="another"),):
        assert other.call(method, path.format(made["id"]), json=body).status == 404
    assert desk.call("GET", f"/email/clients/{made['id']}").json == made
    assert desk.call("GET", "/email/clients").json["clients"] == [made]


def test_work_of_another_user_is_not_there(desk):
    made = desk.client()
    task_id = desk.call("POST", f"/email/clients/{made['id']}/sync").json["task_id"]
    other = Desk.open(desk.app, desk.tools, desk.scope.tenant_id, user="another")
    assert other.call("GET", f"/tasks/{task_id}").status == 404
    assert other.call("GET", "/email/clients").json == {"clients": [], "cursor": None}
