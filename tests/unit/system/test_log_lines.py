"""Log lines of both formats: whose they are, what they can't forge and what is taken out of them."""

from __future__ import annotations

import base64
import json
import logging
import subprocess
import sys
import threading
import warnings
from urllib.parse import quote

import billiard.util
import pytest

from email_service import telemetry
from email_service.config import settings_from
from email_service.errors import ConfigError, ConnectError, DatabaseError, SmtpError
from email_service.telemetry import logs, tasklines
from email_service.telemetry.logfile import LogFile
from email_service.telemetry.redaction import HIDDEN, Redactor

PARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
TASK_ID = "6aed7ce2-e8a5-4fee-b06d-ae3a432becc8"


@pytest.fixture(autouse=True)
def _logging_as_before():
    root, quiet = logging.getLogger(), {n: logging.getLogger(n).level for n in logs._QUIET}
    handlers, level = list(root.handlers), root.level
    yield
    for made in set(root.handlers) - set(handlers):
        made.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in quiet.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def written(capsys):
    """Set logging up, run something, and answer the lines that it wrote."""

    def write(act, *, log_format="json", kind="worker", **options):
        logs.configure_logging(kind, log_format, **options)
        act()
        return capsys.readouterr().err.splitlines()

    return write


def objects(lines):
    return [json.loads(line) for line in lines]


# --- whose a line is


def test_each_json_line_says_when_how_bad_who_and_what(written):
    (line,) = objects(written(lambda: logging.getLogger("x.y").warning("sent %d", 3), kind="api"))
    assert list(line) == ["time", "level", "logger", "message", "service", "pid"]
    assert (line["level"], line["logger"], line["message"], line["service"]) == ("WARNING", "x.y", "sent 3", "mail-api")
    assert line["pid"] == logging.os.getpid()
    assert line["time"].endswith("+00:00")


def test_a_line_inside_a_task_names_it_and_no_tenant(written):
    def act():
        with telemetry.log_context(task_id=TASK_ID, task="send_email", tenant_id="acme", ordinal=2, traceparent=PARENT):
            logging.getLogger("x").info("hello")

    (line,) = objects(written(act))
    assert (line["task_id"], line["task"], line["ordinal"]) == (TASK_ID, "send_email", 2)
    assert (line["trace_id"], line["tenant"]) == ("a" * 32, telemetry.tenant_hash("acme"))
    assert "acme" not in json.dumps(line)


def test_no_context_can_say_that_a_line_is_another_process_s(written):
    def act():
        with telemetry.log_context(pid=1, service="mail-api"):
            logging.getLogger("x").info("hello")

    (line,) = objects(written(act))
    assert (line["pid"], line["service"]) == (logging.os.getpid(), "mail-worker")


def test_a_line_of_celery_s_about_a_task_names_it(written):
    message = f"Hard time limit (15.0s) exceeded for email_service.tasks.send_email[{TASK_ID}]"
    (line,) = objects(written(lambda: logging.getLogger("celery.worker.request").error(message)))
    assert (line["task_id"], line["task"]) == (TASK_ID, "send_email")


def test_a_received_message_is_told_by_celery_and_its_end_without_what_it_quotes(written):
    data = {
        "id": TASK_ID,
        "name": "email_service.tasks.send_email",
        "args": "()",
        "exc": "canary",
        "traceback": "canary",
    }

    def act():
        strategy, trace = logging.getLogger("celery.worker.strategy"), logging.getLogger("celery.app.trace")
        strategy.info("Task %(name)s[%(id)s] received", data, extra={"data": data})
        trace.info("Task %(name)s[%(id)s] succeeded: %(exc)s", data, extra={"data": data})
        data["description"] = "raised unexpected"
        trace.error("Task %(name)s[%(id)s] %(description)s: %(exc)s\n%(traceback)s", data, extra={"data": data})

    received, failed = objects(written(act))
    assert received["message"] == f"Task email_service.tasks.send_email[{TASK_ID}] received"
    assert (received["task_id"], received["task"]) == (TASK_ID, "send_email")
    assert failed["message"] == f"Task email_service.tasks.send_email[{TASK_ID}] raised unexpected"
    assert failed["task_id"] == TASK_ID


# --- the document's lines


def life():
    tasklines.task_starting("sync_emails", "abc123", queue_time_s=0.25, prefetch_wait_s=0.125)
    tasklines.task_completed("sync_emails", outcome="synced", run_s=5.333)
    err = ConnectError("mail.example:993, connect: timed out")
    tasklines.task_retries("sync_emails", err, delay_s=5.0, failed=True, run_s=5.333)
    logging.getLogger("email_service.__main__").info("celery beat v5.3.4 (vi)", extra={"source": ""})


def test_the_text_format_is_the_document_s_to_the_letter(written):
    lines = written(life, log_format="text")
    moments, rest = [line[:26] for line in lines], [line[26:] for line in lines]
    assert rest[:4] == [
        "INFO [task_prerun_handler] Task sync_emails starting (task_id=abc123)",
        "INFO [task_postrun_handler] Task sync_emails completed",
        "ERROR [sync_emails] Connection failed: timeout",
        "INFO [sync_emails] Retrying in 5 seconds...",
    ]
    assert all(re_moment(moment, "[%Y-%m-%d %H:%M:%S,%f] ") for moment in moments[:4])
    assert lines[4].endswith("] celery beat v5.3.4 (vi)")
    assert re_moment(lines[4].partition("] ")[0], "[%Y-%m-%d %H:%M:%S")


def re_moment(text, form):
    return logs.datetime.strptime(text, form)


def test_the_json_lines_of_a_task_say_how_long_it_waited_and_ran(written):
    starting, completed, failed, retrying, _ = objects(written(life))
    assert (starting["queue_time_s"], starting["prefetch_wait_s"]) == (0.25, 0.125)
    assert (completed["outcome"], completed["run_s"]) == ("synced", 5.333)
    assert (failed["error_type"], failed["run_s"]) == ("connect", 5.333)
    assert (retrying["delay_s"], retrying["logger"]) == (5.0, "email_service.tasks")


@pytest.mark.parametrize(
    ("err", "told"),
    [
        (ConnectError("h:25, connect: [Errno 111] Connection refused"), "Connection failed: refused"),
        (ConnectError("h:25 answered EHLO with 421 canary"), "Connection failed"),
        (SmtpError("canary", reply_code=451), "The SMTP server refused the message: 451"),
        (DatabaseError("canary"), "The database was away"),
    ],
)
def test_what_failed_is_told_in_our_words_alone(err, told):
    assert tasklines.reason(err) == told


# --- what can't be forged


FORGED = "hello\n[2026-01-24 12:00:00,123] ERROR [x] forged\r\x1b[2J\u2028\x85end"


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_message_is_one_line_whatever_is_in_it(written, log_format):
    (line,) = written(lambda: logging.getLogger("x").info("%s", FORGED), log_format=log_format)
    assert not any(character in line for character in "\n\r\x1b\u2028\x85")
    if log_format == "json":
        assert json.loads(line)["message"] == FORGED
    else:
        assert r"hello\n[2026-01-24" in line


class Raising:
    @property
    def detail(self):
        raise SmtpError("a\nb")


def test_an_error_s_frames_stand_below_its_text_line_where_no_line_begins(written):
    def act():
        with pytest.raises(SmtpError) as caught:
            tasklines.reason(Raising())
        logging.getLogger("x").error("failed", exc_info=caught.value)

    first, *below = written(act, log_format="text")
    assert first.endswith("ERROR [x] failed")
    assert below
    assert all(line.startswith("    ") for line in below)


def test_a_lone_surrogate_stops_no_line(written):
    assert len(written(lambda: logging.getLogger("x").info("\udcff"), log_format="text")) == 1


# --- what others write


def test_warnings_and_errors_that_nobody_caught_are_lines_too(written, monkeypatch):
    for holder, name in ((sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(holder, name, getattr(holder, name))

    def act():
        logs.take_over()
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            logging._showwarning("canary-free", UserWarning, "file.py", 3)
        sys.excepthook(ValueError, ValueError("canary"), None)
        thread = threading.Thread(target=lambda: 1 / 0, name="busy")
        thread.start()
        thread.join()

    try:
        warned, uncaught, threaded = objects(written(act))
    finally:
        logging.captureWarnings(capture=False)
    assert (warned["logger"], warned["level"]) == ("py.warnings", "WARNING")
    assert (uncaught["message"], uncaught["exception"]) == ("ValueError was not caught", "ValueError")
    assert threaded["message"] == "ZeroDivisionError was not caught in thread busy"
    assert "test_log_lines.py" in threaded["exception"]


def test_what_a_worker_s_child_did_not_catch_is_a_line_and_no_print(written, monkeypatch):
    """billiard prints the traceback, with what the error says, unless its own log has told it."""
    monkeypatch.setattr(billiard.util, "error", billiard.util.error)

    def act():
        logs.take_over_pool()
        try:
            int("canary")
        except ValueError:
            assert billiard.util.error("Process %s", "ForkPoolWorker-1", exc_info=True)

    (line,) = objects(written(act))
    assert (line["logger"], line["level"], line["message"]) == ("billiard", "ERROR", "Process ForkPoolWorker-1")
    assert "ValueError" in line["exception"]
    assert "canary" not in line["exception"].replace('int("canary")', "")


# --- redaction


KNOWN = ["correct horse/battery+staple", b"\x00\xffkey-of-thirty-two-bytes-or-more"]
BLOB = base64.b64encode(b"\0ann\0hunter2-hunter2").decode()


@pytest.mark.parametrize(
    ("line", "shown"),
    {
        "a header": ("Authorization: Bearer abc.def-ghi123", f"Authorization: {HIDDEN}"),
        "a header in JSON": ('{"Authorization": "Basic dXNlcjpwYXNz"}', f'{{"Authorization": "{HIDDEN}"}}'),
        "a header in Python": ("{'authorization': 'Bearer Abc-123-x'}", f"{{'authorization': '{HIDDEN}'}}"),
        "a password in a URL": ("amqp://ann:p%40ss@host:5/db", f"amqp://ann:{HIDDEN}@host:5/db"),
        "a password without a name": ("redis://:hunter2@h:1/0", f"redis://:{HIDDEN}@h:1/0"),
        "AUTH PLAIN": (f"AUTH PLAIN {BLOB}", f"AUTH PLAIN {HIDDEN}"),
        "AUTHENTICATE": (f"a2 AUTHENTICATE XOAUTH2 {BLOB}", f"a2 AUTHENTICATE XOAUTH2 {HIDDEN}"),
        "LOGIN": ("a1 LOGIN ann hunter2", f"a1 LOGIN ann {HIDDEN}"),
        "LOGIN, quoted": ('a1 LOGIN "ann" "hunter 2"', f'a1 LOGIN "ann" {HIDDEN}'),
        "our token": ("got eyJhbGciOiJIUzI1NiJ9.eyJ0ZW5hbnQiOiJ0In0.c2ln", f"got {HIDDEN}"),
        "an assignment": ("password=hunter2&x=1", f"password={HIDDEN}&x=1"),
        "JSON in JSON": (r'{"body": "{\"password\": \"hunter2\"}"}', rf'{{"body": "{{\"password\": \"{HIDDEN}\"}}"}}'),
    }.values(),
)
def test_what_looks_like_a_credential_is_taken_out_whoever_wrote_it(written, line, shown):
    assert Redactor()(line) == shown
    (text,) = written(lambda: logging.getLogger("some.library").info("%s", line), log_format="text")
    assert text.endswith(f"[some.library] {shown}")


@pytest.mark.parametrize(
    "line",
    [
        "basic settings are fine",
        "login failed for ann",
        "auth login required",
        "http://127.0.0.1:80/x@y",
        "https://host/path",
        "the token has expired",
        '"message": "Task send_email starting (task_id=6aed7ce2-e8a5-4fee-b06d-ae3a432becc8)"',
    ],
)
def test_what_is_no_credential_stays(line):
    assert Redactor(KNOWN)(line) == line


@pytest.mark.parametrize("secret", KNOWN)
def test_a_secret_of_this_process_is_taken_out_in_every_form(secret):
    raw = secret if isinstance(secret, bytes) else secret.encode()
    texts = [base64.b64encode(b"x" * k + raw).decode() for k in range(3)]
    texts += [base64.urlsafe_b64encode(b"x" * k + raw).decode() for k in range(3)]
    texts += [raw.hex(), raw.hex().upper()]
    texts += [] if isinstance(secret, bytes) else [secret, quote(secret, safe=""), json.dumps(secret)]
    for text in texts:
        assert HIDDEN in Redactor([secret])(f"before {text} after"), text


def test_the_secrets_of_the_settings_are_known_to_the_log(written, tmp_path):
    key = base64.b64encode(b"k" * 32).decode()
    settings = settings_from(
        {
            "DATABASE_URL": "postgresql://a:first%2Fpassword@h/d",
            "DATABASE_SYSTEM_URL": "postgresql://b:second-password@h/d",
            "REDIS_URL": "redis://:third-password@h:6379",
            "MAIL_TOKEN_SECRET": "fourth-secret-" + "x" * 32,
            "MAIL_FLOWER_USER": "f",
            "MAIL_TASK_EVENTS": "1",
            "MAIL_FLOWER_PASSWORD": "fifth-password",
            "CREDENTIAL_ENCRYPTION_KEY": key,
            "MAIL_BLOB_DIR": str(tmp_path),
        }
    )
    words = ["first/password", "first%2Fpassword", "second-password", "third-password", "fourth-secret-" + "x" * 32]
    (line,) = objects(
        written(
            lambda: logging.getLogger("x").info("%s", " ".join([*words, "fifth-password", key])),
            secrets=settings.secrets,
        )
    )
    assert set(line["message"].removesuffix("s=").replace(HIDDEN, "").split()) <= {"", "s="}


# --- files


def test_lines_go_to_stderr_and_to_the_file_of_their_kind(written, tmp_path):
    lines = written(lambda: logging.getLogger("x").info("hello"), log_dir=tmp_path / "logs")
    assert (tmp_path / "logs" / "celery-worker.log").read_text().splitlines() == lines
    written(lambda: logging.getLogger("x").info("hello"), kind="beat", log_dir=tmp_path)
    written(lambda: logging.getLogger("x").info("hello"), kind="api", log_dir=tmp_path)
    assert {path.name for path in tmp_path.glob("*.log")} == {"celery-beat.log", "api.log"}


def test_a_folder_that_can_not_be_written_is_told_by_its_variable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"MAIL_LOG_DIR: .*celery-worker\.log can't be written"):
        logs.configure_logging("worker", "json", log_dir=tmp_path / "file")


def test_a_full_file_is_turned_over_and_three_are_kept(tmp_path):
    path = tmp_path / "x.log"
    file = LogFile(path, bytes_max=100, files_max=3)
    for number in range(50):
        file.write(f"line {number:03}\n".encode())
    file.close()
    files = sorted(p for p in tmp_path.iterdir() if not p.name.startswith("."))
    assert [p.name for p in files] == ["x.log", "x.log.1", "x.log.2"]
    assert all(p.stat().st_size <= 100 for p in files)
    kept = "".join(p.read_text() for p in reversed(files)).split("\n")[:-1]
    assert kept == [f"line {number:03}" for number in range(50 - len(kept), 50)]


def test_a_file_that_somebody_removed_is_made_again(tmp_path):
    path = tmp_path / "x.log"
    file = LogFile(path)
    path.unlink()
    file.write(b"hello\n")
    file.close()
    assert path.read_bytes() == b"hello\n"


WRITER = """
import sys
from pathlib import Path
from email_service.telemetry.logfile import LogFile
file = LogFile(Path(sys.argv[1]), bytes_max=20_000, files_max=20)
for number in range(400):
    file.write(f"{sys.argv[2]} {number:04} {'x' * 60}\\n".encode())
"""


def test_processes_that_share_a_file_lose_no_line_and_mix_none(tmp_path):
    path = tmp_path / "x.log"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    lines = [line for p in tmp_path.glob("x.log*") for line in p.read_text().splitlines()]
    assert sorted(lines) == sorted(f"{name} {number:04} {'x' * 60}" for name in "abc" for number in range(400))
    assert len(list(tmp_path.glob("x.log*"))) > 2
