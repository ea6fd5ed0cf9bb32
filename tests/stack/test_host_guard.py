"""A tenant tries to reach the operator's own net through the service: at each door, with servers that really listen."""

from __future__ import annotations

import socket
import uuid

import pytest
from http_desk import Desk as HttpDesk
from http_desk import application

from email_service import hosts
from email_service.errors import HostNotAllowedError
from email_service.service import deleting, sending, syncing

NAME = "mail.tenant.example"
INNER = [
    "127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0",
    "10.0.0.1", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "fd00::1", "fe80::1", "64:ff9b::7f00:1",
]  # fmt: skip


@pytest.fixture
def trap(monkeypatch):
    """A server on this machine that nobody may reach, on a port that counts as one of mail."""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        listener.settimeout(0)
        port = listener.getsockname()[1]
        monkeypatch.setattr(hosts, "MAIL_PORTS", hosts.MAIL_PORTS | {port})
        yield port
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture
def names(monkeypatch):
    """A name service of the tenant's own: what it answers in turn, and how often it was asked."""
    replies, asked, real = [], [], socket.getaddrinfo

    def getaddrinfo(host, port, *rest, **options):
        if host != NAME:
            return real(host, port, *rest, **options)
        asked.append(host)
        address = replies.pop(0) if len(replies) > 1 else replies[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return replies, asked


@pytest.fixture
def front(postgres, app_rows, system_rows, tenant, tmp_path):
    app, hands = application(postgres, app_rows, system_rows, tmp_path, MAIL_ALLOWED_HOSTS="public")
    return HttpDesk.open(app, hands, tenant)


def body(imap, smtp):
    return {"address": "a@b.example", "username": "a", "password": "p", "imap": imap, "smtp": smtp}


@pytest.mark.parametrize("host", INNER)
@pytest.mark.parametrize("kind", ["imap", "smtp"])
def test_no_client_is_made_or_changed_with_a_server_of_the_inner_net(front, trap, host, kind):
    outer = {"host": "8.8.8.8", "port": 993}
    servers = {"imap": outer, "smtp": outer, kind: {"host": host, "port": trap}}
    answer = front.call("POST", "/email/clients", json=body(**servers))
    assert (answer.status, answer.json["title"]) == (422, "Host not allowed")
    made = front.call("POST", "/email/clients", json=body(outer, outer)).json
    answer = front.call("PATCH", f"/email/clients/{made['id']}", json={kind: servers[kind]})
    assert (answer.status, answer.json["title"]) == (422, "Host not allowed")
    assert front.call("GET", f"/email/clients/{made['id']}").json == made


def test_a_port_of_another_service_is_refused(front):
    for port in (22, 80, 443, 5432, 6379):
        answer = front.call("POST", "/email/clients", json=body(*[{"host": "8.8.8.8", "port": port}] * 2))
        assert (answer.status, "port must be one of" in answer.json["detail"]) == (422, True)


def test_a_name_that_leads_inside_is_refused(front, trap, names):
    replies, _ = names
    replies.append("127.0.0.1")
    answer = front.call("POST", "/email/clients", json=body(*[{"host": NAME, "port": trap}] * 2))
    assert (answer.status, answer.json["title"]) == (422, "Host not allowed")


def test_a_name_that_nobody_knows_is_told(front, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    answer = front.call("POST", "/email/clients", json=body(*[{"host": NAME, "port": 993}] * 2))
    assert (answer.status, answer.json["title"]) == (422, "Host not found")


@pytest.fixture
def moved(desk, names, monkeypatch):
    """A client whose name led outside when it was made, and leads to this machine now."""
    replies, _ = names
    replies.append("127.0.0.1")
    desk.fakes.append(desk.address, b"Subject: s\r\n\r\nx\r\n", "INBOX")
    desk.sync()
    ports = {desk.fakes.imap.port, desk.fakes.smtp.port}
    monkeypatch.setattr(hosts, "MAIL_PORTS", hosts.MAIL_PORTS | ports)
    desk.change(f"UPDATE email_clients SET imap_host = '{NAME}', smtp_host = '{NAME}'")
    return desk.with_settings(allowed_hosts=frozenset(), public_hosts=True)


def tasks_of(desk):
    """Every task that talks to a mail server, ready to be run."""
    (message,) = desk.messages()
    send = desk.enqueue("send_email", subject="s", text="t", html=None, attachment_ids=[])
    desk.change("UPDATE jobs SET message_id = '<one@example.test>' WHERE id = :id", id=send)
    with desk.tools.database.session(desk.scope) as session:
        sending.add_recipients(session, desk.scope, send, [("to", ["x@outside.example"])])
        session.commit()
    ids = [str(message["id"])]
    return [
        (syncing.sync_mailbox, desk.enqueue("sync_emails")),
        (sending.send_message, send),
        (deleting.delete_messages, desk.enqueue("delete_emails", message_ids=ids, permanent=True)),
    ]


def seen(desk):
    return len(list(desk.fakes.ledger()))


def test_a_name_that_leads_inside_later_reaches_nothing(moved):
    """DNS rebinding: each task looks where the name leads at the moment of its use, and connects to nothing else."""
    before = seen(moved)
    for use_case, job_id in tasks_of(moved):
        with pytest.raises(HostNotAllowedError):
            moved.run(use_case, job_id)
    assert seen(moved) == before


def test_a_task_connects_to_the_address_that_was_checked(moved, names):
    """The second answer would be another: it is never asked for."""
    replies, asked = names
    desk = moved.with_settings(allowed_hosts=frozenset({NAME}))
    for use_case, job_id in tasks_of(desk):
        replies[:] = ["127.0.0.1", "169.254.169.254"]
        asked.clear()
        assert desk.run(use_case, job_id).state == "succeeded"
        assert asked == [NAME]


def test_a_job_of_a_refused_host_fails_for_good_and_says_why(moved):
    job_id = uuid.UUID(str(moved.enqueue("sync_emails")))
    with pytest.raises(HostNotAllowedError) as caught:
        moved.run(syncing.sync_mailbox, job_id)
    assert (caught.value.transient, NAME in caught.value.detail) == (False, True)
