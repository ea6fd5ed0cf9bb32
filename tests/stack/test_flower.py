"""Flower as a process: who may look, that nobody may act, and what it remembers."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.error
import urllib.request
import uuid

import pytest
from service_processes import Bare, bare_environment
from waiting import until

from email_service.celery_app import celery_for
from email_service.config import settings_from

PASSWORD = "canary-flower-password"
LOGIN = {"MAIL_FLOWER_USER": "viewer", "MAIL_FLOWER_PASSWORD": PASSWORD, "MAIL_TASK_EVENTS": "1"}
SPAM = "email_service.tasks.check_spam"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    bare = Bare(tmp_path_factory.mktemp("bare"))
    yield bare
    bare.close()


def ask(url, *, password=None, method="GET"):
    """Status and body."""
    request = urllib.request.Request(url, method=method, data=b"" if method == "POST" else None)
    if password:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"viewer:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as err:
        with err:
            return err.code, err.read().decode()


def nobody_without_the_password(url):
    assert ask(f"{url}/healthcheck") == (200, "OK")
    for page in ("/", "/tasks", "/api/tasks", "/api/queues/length", "/broker"):
        assert ask(url + page)[0] == 401, page
        assert ask(url + page, password="wrong")[0] == 401, page
    assert ask(f"{url}/tasks", password=PASSWORD)[0] == 200


def depths(url):
    status, body = ask(f"{url}/api/queues/length", password=PASSWORD)
    assert status == 200
    return {queue["name"]: queue["messages"] for queue in json.loads(body)["active_queues"]}


def nobody_acts(url):
    for action in (f"task/revoke/{uuid.uuid4()}", "worker/shutdown/mail@rig", f"task/send-task/{SPAM}"):
        assert ask(f"{url}/api/{action}", password=PASSWORD, method="POST")[0] in {403, 405}, action


def test_who_has_the_password_sees_nobody_acts_and_the_history_survives_a_restart(bare, tmp_path):
    """One process for all three: each start costs seconds."""
    environment = bare_environment(bare.redis_url, tmp_path, **LOGIN)
    app, task_id = celery_for(settings_from(environment)), str(uuid.uuid4())
    app.send_task(SPAM, kwargs={}, task_id=str(uuid.uuid4()))

    def known(url):
        tasks = json.loads(ask(f"{url}/api/tasks", password=PASSWORD)[1])
        return tasks.get(task_id, {}).get("state") == "SUCCESS"

    with bare.serving(environment, tmp_path, "flower", "--port", "0") as flower:
        url = flower.facts["url"]
        nobody_without_the_password(url)
        # In the list of step 7, which Flower's own steps would miss.
        assert depths(url)["spam"] == 1
        nobody_acts(url)
        assert depths(url)["spam"] == 1

        def told():
            with app.events.default_dispatcher(hostname="mail@rig") as dispatcher:
                dispatcher.send("task-received", uuid=task_id, name=SPAM, args="()", kwargs="{}", retries=0, eta=None)
                dispatcher.send("task-succeeded", uuid=task_id, result="{}", runtime=0.1)
            return known(url)

        # Events are heard only by who is connected by then.
        until(told, what="the event")
        os.kill(flower.pid, signal.SIGTERM)
        assert flower.exit_code(deadline_s=15) == 0
        assert PASSWORD not in flower.log
    with bare.serving(environment, tmp_path, "flower", "--port", "0") as flower:
        assert known(flower.facts["url"])


def test_without_a_password_it_does_not_start(bare, tmp_path):
    part, _ = bare.start(bare_environment(bare.redis_url, tmp_path), tmp_path, "flower", "--port", "0")
    until(lambda: part.popen.poll() is not None, what="its refusal")
    assert part.popen.returncode == 2
    assert "MAIL_FLOWER_PASSWORD" in part.log.read_text()
    assert "Traceback" not in part.log.read_text()
