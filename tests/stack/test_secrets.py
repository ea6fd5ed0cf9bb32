"""No secret and no content where it must not be: canaries driven through the live system, also through its failures."""

from __future__ import annotations

import base64
import json
import logging
import secrets
import traceback
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import leaks
import psycopg
import pytest
from psycopg.types.json import Jsonb
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from waiting import until

from email_service import blobs, smtp
from email_service.config import settings_from
from email_service.errors import MailServiceError
from email_service.tenancy import Scope
from email_service.vault import SealedCredential, Secret, Vault
from mailrig.runner.leaking import LeakSearch

#: Where a user's content belongs, and nowhere else.
CONTENT = frozenset(
    {("jobs", "args"), ("email_attachments", "filename")}
    | {("email_messages", c) for c in ("subject", "body_text", "body_html", "headers", "raw", "sender")}
)


def canary(kind: str) -> str:
    return f"canary-{kind}-{secrets.token_hex(12)}"


@dataclass(frozen=True, kw_only=True)
class Driven:
    """What was driven through the stack, and what it has answered."""

    #: In no place at all.
    secrets: dict[str, str | bytes]
    #: In the rows of mail and in answers about it only.
    content: dict[str, str | bytes]
    #: API answers to the tenant's own questions.
    answers: list[tuple[str, bytes]]
    #: Commands that the broker got.
    commands: list[str]
    #: What became of each errand.
    tasks: dict[str, dict]


class Driver:
    """One tenant's errands, good and bad."""

    def __init__(self, live):
        self.live, self.account = live, live.accounts[0]
        self.secrets, self.content, self.answers, self.tasks = {}, {}, [], {}

    def secret(self, kind):
        self.secrets[kind] = canary(kind)
        return self.secrets[kind]

    def words(self, kind):
        self.content[kind] = canary(kind)
        return self.content[kind]

    def call(self, method, path, body=None, token=None):
        whole = path if path.startswith("/api") else f"/api/v1/{self.account.tenant}{path}"
        status, answer = self.live.call(method, whole, token=token or self.account.token, body=body)
        self.answers.append((f"answer to {method} {path}", json.dumps(answer).encode()))
        return status, answer

    def client(self, address, *, encryption="none", **secret):
        imap, smtp_at = self.live.stack.imap, self.live.stack.smtp
        body = {
            "address": address,
            "username": address,
            "imap": {"host": imap[0], "port": imap[1], "encryption": encryption},
            "smtp": {"host": smtp_at[0], "port": smtp_at[1], "encryption": encryption},
        }
        status, answer = self.call("POST", "/email/clients", body | secret)
        assert status == 201, answer
        return answer["id"]

    def send(self, name, client_id, **overrides):
        body = {"client_id": client_id, "to": ["somebody@outside.example"], "subject": "s", "text": "t"}
        status, answer = self.call("POST", "/email/send", body | overrides)
        assert status == 202, answer
        self.tasks[name] = answer

    def sync(self, name, client_id):
        status, answer = self.call("POST", f"/email/clients/{client_id}/sync")
        assert status == 202, answer
        self.tasks[name] = answer

    def settle(self):
        self.tasks = {n: self.live.settled(self.account, answer["task_id"]) for n, answer in self.tasks.items()}
        self.answers += [(f"task {n}", json.dumps(task).encode()) for n, task in self.tasks.items()]


def good_errands(driver: Driver) -> None:
    fakes, password, token = driver.live.fakes, driver.secret("password"), driver.secret("token")
    fakes.add_user("good@secrets.example", password)
    fakes.add_user("token@secrets.example", canary("unused"), token=token)
    subject, body = driver.words("incoming-subject"), driver.words("incoming-body")
    mail = f"From: a@b.example\r\nTo: good@secrets.example\r\nSubject: {subject}\r\n\r\n{body}\r\n"
    fakes.append("good@secrets.example", mail.encode())
    good = driver.client("good@secrets.example", password=password)
    bearer = driver.client("token@secrets.example", auth="xoauth2", token=token)
    words = {"subject": driver.words("subject"), "text": driver.words("text"), "html": f"<p>{driver.words('html')}</p>"}
    driver.send("sent", good, **words)
    driver.send("sent by token", bearer)
    driver.sync("synced", good)
    driver.sync("synced by token", bearer)


def bad_errands(driver: Driver) -> None:
    fakes, wrong, echoed = driver.live.fakes, driver.secret("wrong-password"), driver.secret("echoed-password")
    refused = {"subject": driver.words("refused-subject"), "text": driver.words("refused-text")}
    fakes.add_user("wrong@secrets.example", canary("another"))
    bad = driver.client("wrong@secrets.example", password=wrong)
    driver.send("wrong password", bad, **refused)
    driver.sync("sync with a wrong password", bad)
    expired = driver.client("token@secrets.example", auth="xoauth2", token=driver.secret("expired-token"))
    driver.send("expired token", expired)
    driver.sync("sync with an expired token", expired)
    untrusted = driver.client("good@secrets.example", encryption="starttls", password=driver.secret("tls-password"))
    driver.send("bad TLS", untrusted, **refused)
    # Servers that repeat what they did not understand, password and all.
    plain = base64.b64encode(f"\0echo@secrets.example\0{echoed}".encode()).decode()
    fakes.put_faults(
        [
            {"id": "e1", "point": "smtp.auth", "when": {"always": True}, "match": {"user": "echo@secrets.example"},
             "action": {"reply": f"500 5.5.1 unrecognized: AUTH PLAIN {plain} ({echoed})"}},
            {"id": "e2", "point": "imap.auth", "when": {"always": True}, "match": {"user": "echo@secrets.example"},
             "action": {"reply": f"BAD unrecognized: LOGIN echo {echoed} {plain}"}},
            {"id": "e3", "point": "smtp.rcpt", "when": {"always": True}, "match": {"recipient": "no@outside.example"},
             "action": {"reply": "550 5.1.1 no such user"}},
        ]
    )  # fmt: skip
    fakes.add_user("echo@secrets.example", echoed)
    echo = driver.client("echo@secrets.example", password=echoed)
    driver.send("echoed password", echo)
    driver.sync("sync with an echoed password", echo)
    good = driver.call("GET", "/email/clients")[1]
    first = next(c["id"] for c in next(iter(v for v in good.values() if isinstance(v, list))))
    driver.send("refused recipient", first, to=["no@outside.example"], **refused)
    driver.tasks["defect"] = {"task_id": defective_job(driver, first)}


def defective_job(driver: Driver, client_id: str) -> str:
    """A job that no version of the API writes: its execution ends in a defect, with content at hand."""
    job_id = str(uuid.uuid4())
    args = {"subject": driver.words("defect-subject"), "text": {"not": driver.words("defect-text")}}
    with psycopg.connect(psycopg_url(driver.live.stack._env["DATABASE_URL"])) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, true)", (driver.account.tenant,))
        connection.execute(
            "INSERT INTO jobs (id, tenant_id, user_id, name, queue, args, state, client_id, message_id, "
            "next_publish_at) VALUES (%s, %s, %s, 'email_service.tasks.send_email', 'send', %s, 'queued', %s, "
            "'<d@e.example>', now())",
            (job_id, driver.account.tenant, driver.account.user, Jsonb(args), client_id),
        )
        connection.execute(
            "INSERT INTO recipients (job_id, address, tenant_id, role) VALUES (%s, 'x@outside.example', %s, 'to')",
            (job_id, driver.account.tenant),
        )
        connection.execute("SELECT pg_notify('mail_due', '')")
    return job_id


def refused_requests(driver: Driver) -> None:
    """The API says what is wrong without repeating it."""
    secret = driver.secret("refused-password")
    endpoint = {"host": "127.0.0.1", "port": 1, "encryption": "none"}
    body = {"address": "a@b.example", "username": "a", "password": secret, "imap": endpoint, "smtp": endpoint}
    for change in (
        {"password": [secret]},
        {"password": {"is": secret}},
        {"password": secret * 500},
        {"imap": {**endpoint, "encryption": secret}},
        {"token": secret},
        {"auth": "xoauth2"},
        {"passwort": secret},
        {},
    ):
        status, answer = driver.call("POST", "/email/clients", body | change)
        assert status in {400, 409, 422}, answer
    assert driver.call("GET", "/tasks", token=driver.secret("bad-bearer"))[0] == 401


def questions(driver: Driver) -> None:
    for path in ("/email/clients", "/tasks", "/email/messages", "/api/v1/openapi.json"):
        driver.call("GET", path)


def stack_secrets(stack) -> dict[str, str | bytes]:
    """What the service's processes are given in their environment."""
    env = stack._env
    key = base64.b64decode(env["CREDENTIAL_ENCRYPTION_KEY"])
    found: dict[str, str | bytes] = {
        "credential key": key,
        "credential key in base64": env["CREDENTIAL_ENCRYPTION_KEY"],
    }
    found["token secret"] = env["MAIL_TOKEN_SECRET"]
    for name in ("DATABASE_URL", "DATABASE_SYSTEM_URL", "DATABASE_AUDIT_URL"):
        found[f"password of {name}"] = unquote(urlsplit(env[name]).password)
    return found


def psycopg_url(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://", 1)


@pytest.fixture(scope="module")
def driven(live):
    """Everything done once, for all searches."""
    driver = Driver(live)
    with leaks.redis_commands(live.stack.redis_url) as commands:
        try:
            good_errands(driver)
            bad_errands(driver)
            refused_requests(driver)
            driver.settle()
        finally:
            live.fakes.clear_faults()
    questions(driver)
    known = stack_secrets(live.stack) | {f"bearer token {i}": a.token for i, a in enumerate(live.accounts)}
    return Driven(
        secrets=driver.secrets | known,
        content=driver.content,
        answers=driver.answers,
        commands=commands,
        tasks=driver.tasks,
    )


@pytest.fixture
def tenants(live):
    return [*(account.tenant for account in live.accounts), "system"]


def test_the_errands_ended_as_they_should(driven):
    """Or the searches would look at nothing."""
    states = {name: task["state"] for name, task in driven.tasks.items()}
    good = {"sent", "sent by token", "synced", "synced by token"}
    assert {name for name, state in states.items() if state == "succeeded"} == good
    assert {name for name, state in states.items() if state == "failed"} == set(states) - good
    assert driven.tasks["defect"]["error_type"] == "internal-error"
    assert driven.tasks["wrong password"]["error_type"] == "authentication"


def folders(stack) -> list[Path]:
    return [stack._options.log_dir, stack._options.span_dir, stack._options.state_dir]


def test_no_log_and_no_span_has_a_secret_or_content(live, driven):
    def whole():
        names = {path.name for folder in folders(live.stack) for path in folder.rglob("*") if path.stat().st_size}
        return {"worker.log", "api.log", "dispatcher.log"} <= names and any("span" in n or "jsonl" in n for n in names)

    until(whole, what="logs and spans of every process")
    assert leaks.found(driven.secrets | driven.content, leaks.files(*folders(live.stack))) == []


def test_no_metric_has_a_secret_or_content(live, driven):
    with urllib.request.urlopen(live.stack.exporter_url, timeout=10) as answer:
        page = answer.read()
    assert b"mail_task_success" in page
    assert leaks.found(driven.secrets | driven.content, [("metrics", page)]) == []


def test_no_key_of_redis_has_a_secret_or_content(live, driven):
    places = list(leaks.redis_values(live.stack.redis_url))
    assert any(b"celery-task-meta" in data for _, data in places)
    assert leaks.found(driven.secrets | driven.content, places) == []


def test_the_broker_was_never_told_a_secret_or_content(driven):
    assert any(driven.tasks["sent"]["task_id"] in command for command in driven.commands)
    places = [(f"redis command {command[:40]}", command.encode()) for command in driven.commands]
    assert leaks.found(driven.secrets | driven.content, places) == []


def test_no_row_has_a_secret(live, driven, tenants):
    url = psycopg_url(live.stack._env["DATABASE_URL"])
    places = list(leaks.rows(url, tenants))
    assert {"column credentials.ciphertext", "column jobs.error_detail"} <= {name for name, _ in places}
    assert leaks.found(driven.secrets, places) == []


def test_content_is_in_the_rows_of_mail_alone(live, driven, tenants):
    url = psycopg_url(live.stack._env["DATABASE_URL"])
    assert leaks.found(driven.content, leaks.rows(url, tenants, without=CONTENT)) == []
    # All of it is where it belongs: the search sees it.
    found = leaks.found(driven.content, leaks.rows(url, tenants))
    assert {line.partition(" in ")[0] for line in found} == set(driven.content)


def test_no_answer_of_the_api_has_a_secret(driven):
    assert len(driven.answers) > 30
    assert leaks.found(driven.secrets, driven.answers) == []


def test_no_task_shows_what_its_mail_says(driven):
    tasks = [(name, data) for name, data in driven.answers if "task" in name]
    assert len(tasks) >= len(driven.tasks)
    assert leaks.found(driven.content, tasks) == []


@pytest.mark.parametrize(
    "written",
    [
        lambda c: c.encode(),
        lambda c: base64.b64encode(b"\0ann\0" + c.encode()),
        lambda c: base64.urlsafe_b64encode(b"..." + c.encode() + b"?"),
        lambda c: json.dumps({"password": f'"{c}'}).encode(),
        lambda c: c.encode().hex().encode(),
    ],
    ids=["as it is", "in AUTH PLAIN", "in a token", "in JSON", "in hexadecimal"],
)
def test_a_leak_that_is_planted_is_found(live, tmp_path, tenants, written):
    """The same searches, over places that hold one."""
    planted = canary("planted")
    leak = written(planted)
    (tmp_path / "worker.log").write_bytes(b"a line\nand " + leak + b" another\n")
    assert leaks.found({"it": planted}, leaks.files(tmp_path)) == ["it in file worker.log"]
    with leaks.redis.Redis.from_url(f"{live.stack.redis_url}/1") as client:
        with leaks.redis_commands(live.stack.redis_url) as commands:
            client.hset("planted", "field", leak)
            until(lambda: any("planted" in c for c in commands), what="the command's arrival")
        try:
            assert leaks.found({"it": planted}, leaks.redis_values(live.stack.redis_url)) == ["it in redis 1 planted"]
        finally:
            client.delete("planted")
    assert leaks.found({"it": planted}, [("commands", " ".join(commands).encode())]) == ["it in commands"]
    url = psycopg_url(live.stack._env["DATABASE_URL"])
    with psycopg.connect(url) as connection:
        connection.execute("SELECT set_config('app.tenant_id', %s, false)", (tenants[0],))
        values = (tenants[0], leak.decode())
        planting = "INSERT INTO credentials VALUES (gen_random_uuid(), %s, %s, 'k', '', '', '')"
        connection.execute(planting, values)
        connection.commit()
        try:
            assert leaks.found({"it": planted}, leaks.rows(url, tenants)) == ["it in column credentials.user_id"]
        finally:
            connection.execute("DELETE FROM credentials WHERE user_id = %s", (leak.decode(),))
            connection.commit()


def test_the_search_of_a_run_reads_all_of_a_live_stack_and_finds_what_is_planted(live, driven, tmp_path):
    (tmp_path / "evidence").mkdir()
    clean, planted = LeakSearch(tmp_path), LeakSearch(tmp_path)
    clean.live(live.stack, live.accounts)
    rows = {row["sink"]: row for row in clean._rows}
    assert set(rows) == {"metrics", "redis", "redis log", "answers", "command lines", "rows"}
    assert [(sink, row["hits"], row["error"]) for sink, row in rows.items()] == [(sink, [], None) for sink in rows]
    # Passwords of two mailboxes, two bearer tokens, the databases' four, the token secret, the key in two forms.
    assert {row["secrets_searched"] for row in rows.values()} == {11}
    assert all(row["bytes"] > 500 for row in rows.values())
    name, password = next(iter(live.accounts[0].passwords.items()))
    with leaks.redis.Redis.from_url(f"{live.stack.redis_url}/3") as client:
        client.set("planted", base64.b64encode(b"\0ann\0" + password.encode()))
        try:
            planted.live(live.stack, live.accounts)
        finally:
            client.delete("planted")
    hits = [(row["sink"], hit["secret"], hit["where"]) for row in planted._rows for hit in row["hits"]]
    assert ("redis", name, "redis 3 planted") in hits
    # The broker's own log of commands has it for longer than the key lives.
    assert {(sink, secret) for sink, secret, _ in hits} <= {("redis", name), ("redis log", name)}


# --- errors and reprs -----------------------------------------------------------------------------------------------


def told(err: BaseException) -> bytes:
    """All that a log could make of an error, its causes and their context."""
    return (repr(err) + str(err) + "".join(traceback.format_exception(err))).encode()


def test_an_error_of_the_database_does_not_repeat_the_row(app_rows, tenant):
    """PostgreSQL quotes the failing row, and SQLAlchemy the parameters."""
    content = canary("content")
    scope = Scope(tenant_id=tenant, user_id="u")
    statements = [
        "INSERT INTO recipients (job_id, address, tenant_id, role) VALUES (gen_random_uuid(), :c, :t, 'to')",
        "INSERT INTO jobs (id, tenant_id, user_id, queue, state) VALUES (gen_random_uuid(), :t, :c, '', '')",
        "INSERT INTO email_messages (id, subject, tenant_id) VALUES (gen_random_uuid(), :c, :t)",
        "SELECT CAST(:c AS integer), :t",
        "SELECT no_such_column, :c, :t",
    ]
    for statement in statements:
        with pytest.raises(DBAPIError) as caught, app_rows.session(scope) as session:
            session.execute(text(statement), {"c": content, "t": tenant})
        assert leaks.found({"content": content}, [("error", told(caught.value))]) == []


def test_no_repr_has_a_secret(live, tmp_path):
    settings = settings_from({**live.stack._env, "MAIL_BLOB_DIR": str(tmp_path)})
    vault = Vault(settings.credential_keys, settings.credential_key_id)
    sealed = vault.seal("canary-sealed-password", "t", "c")
    endpoint = smtp.SmtpEndpoint(
        host="h", port=1, encryption="none", username="u", password=Secret("canary-sealed-password")
    )
    shown = [settings, vault, sealed, endpoint, Secret("canary-sealed-password"), blobs.open_store(settings.blob_url)]
    places = [(type(o).__name__, f"{o!r} {o!s} {o}".encode()) for o in shown]
    known = stack_secrets(live.stack) | {"password": "canary-sealed-password"}
    assert leaks.found(known, places) == []


def test_an_error_of_the_vault_says_nothing_of_what_it_could_not_open(caplog):
    key, secret = b"k" * 32, canary("password")
    vault = Vault({"k1": key}, "k1")
    sealed = vault.seal(secret, "t", "c")
    broken = SealedCredential(key_id="k1", salt=sealed.salt, nonce=sealed.nonce, ciphertext=sealed.ciphertext[:-1])
    with pytest.raises(MailServiceError) as caught:
        vault.unseal(broken, "t", "c")
    logging.getLogger("test").error("it failed", exc_info=caught.value)
    known = {"key": key, "password": secret, "ciphertext": broken.ciphertext}
    assert leaks.found(known, [("error", told(caught.value)), ("log", caplog.text.encode())]) == []
