"""The log as an operator finds it: the document's lines and files, by the real processes; requests; who was killed."""

from __future__ import annotations

import json
import os
import re
import signal
import urllib.error
import urllib.request

import psutil
from service_processes import celery_of, deaf, process
from waiting import until

MOMENT = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}\] "
NODE = "mail@lines"


def lines_of(path, *containing):
    """A file's lines that have one of the texts, or all."""
    texts = path.read_text().splitlines() if path.exists() else []
    return [line for line in texts if not containing or any(text in line for text in containing)]


def test_a_worker_writes_the_document_s_four_lines_to_the_document_s_file(live, tmp_path, no_faults):
    """Its main process and its child write to one file. A send, since beat asks for syncs when it likes."""
    hung = {"id": "t", "point": "smtp.connect", "when": {"first": 1}, "action": {"delay_ms": 60_000}}
    options = {"MAIL_LOG_FORMAT": "text", "MAIL_LOG_DIR": str(tmp_path / "logs"), "MAIL_TIMEOUT_S": "1"}
    arguments = ("--node", NODE, "--queues", "send", "--concurrency", "1")
    log = tmp_path / "logs" / "celery-worker.log"
    with deaf(celery_of(live), "send"), process(live, tmp_path, "worker", *arguments, **options) as worker:
        live.fakes.put_faults([hung])
        task_id = live.send(live.accounts[0])["task_id"]
        assert live.settled(live.accounts[0], task_id)["state"] == "succeeded"
        until(lambda: lines_of(log, "completed"), what="the last line")
        written = lines_of(log)
        assert set(written) <= set(worker.log.splitlines())
    life = [line for line in written if re.match(MOMENT + r"\w+ \[(task_p\w+_handler|send_email)\]", line)]
    told = [re.sub(MOMENT, "", line, count=1) for line in life]
    starting = f"INFO [task_prerun_handler] Task send_email starting (task_id={task_id})"
    assert told == [
        starting,
        "ERROR [send_email] Connection failed: timeout",
        "INFO [send_email] Retrying in 0.25 seconds...",
        starting,
        "INFO [task_postrun_handler] Task send_email completed",
    ]
    received = [line for line in written if "[celery.worker.strategy]" in line and task_id in line]
    assert len(received) == 2
    assert all(re.match(r"\[[\d-]{10} [\d:,]+\] ", line) for line in written)


def get(url, token=None):
    request = urllib.request.Request(url)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as err:
        with err:
            return err.code


def test_a_request_is_one_line_without_its_path_and_a_killed_process_is_told_by_its_master(live, tmp_path):
    account, log = live.accounts[0], tmp_path / "logs" / "api.log"
    options = {"MAIL_LOG_DIR": str(tmp_path / "logs")}
    with process(live, tmp_path, "api", "--port", "0", "--workers", "1", **options) as api:
        base = f"{api.facts['url']}/api/v1/{account.tenant}"
        assert get(f"{base}/email/clients", account.token) == 200
        assert get(f"{base}/tasks/canary-path?canary=query", account.token) in {400, 404}
        assert get(f"{base}/tasks", "canary-token") == 401
        assert get(f"{api.facts['url']}/health") == 200
        access = until(
            lambda: found if len(found := lines_of(log, "api.access")) == 3 else None, what="a line for each request"
        )
        (child,) = psutil.Process(api.pid).children()
        os.kill(child.pid, signal.SIGKILL)
        (killed,) = until(lambda: lines_of(log, "gunicorn.error"), what="the master's line")
    rows = [json.loads(line) for line in access]
    assert [(row["method"], row["route"], row["status"], row["level"]) for row in rows] == [
        ("GET", "/api/v1/{tenant}/email/clients", 200, "INFO"),
        ("GET", "/api/v1/{tenant}/tasks/{task_id}", rows[1]["status"], "WARNING"),
        ("GET", "/api/v1/{tenant}/tasks", 401, "WARNING"),
    ]
    assert all(len(row["trace_id"]) == 32 and row["duration_s"] > 0 for row in rows)
    assert "tenant" in rows[0]
    assert "tenant" not in rows[2]
    assert "canary" not in "".join(access)
    assert account.tenant not in "".join(access)
    row = json.loads(killed)
    assert (row["service"], row["pid"]) == ("mail-api", api.pid)
    assert str(child.pid) in row["message"]
