"""Real little applications, written to a folder and looked at in a process of their own; no server is asked."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailrig import cli
from mailrig.doctor import OURS, DoctorError, application_findings, inspect_application
from mailrig.doctor.findings import TRAP
from mailrig.doctor.ours import STAND_INS
from mailrig.doctor.probe import _own_or, filesystem, masked

GOOD = """
from celery import Celery
app = Celery("good", broker="redis://:s3cret@broker.invalid:6379/0", backend="redis://:s3cret@broker.invalid:6379/1")
app.conf.update(
    task_acks_late=True, task_reject_on_worker_lost=True, worker_prefetch_multiplier=1, worker_concurrency=4,
    task_time_limit=300, task_soft_time_limit=280, result_expires=7200,
    result_backend_always_retry=True, result_backend_max_retries=5, result_backend_base_sleep_between_retries_ms=200,
    broker_transport_options={"socket_timeout": 10, "visibility_timeout": 1200, "priority_steps": [0, 9]},
    task_routes={"good.*": {"queue": "celery", "priority": 0}},
)
@app.task
def send(): ...
"""
BAD = """
import pickle
from celery import Celery
from kombu import Queue
print("a module may print what it likes: s3cret")
class Config:
    broker_url = "redis://:s3cret@broker.invalid:6379/0"
    result_backend = broker_url
    result_expires = None
    task_queues = [Queue("high", max_priority=10), Queue("low")]
    task_routes = {"bad.urgent": {"queue": "high", "priority": 9}, "bad.bulk": {"queue": "low", "priority": 1}}
    task_acks_late = True
    task_ack_on_failure = False
    task_soft_time_limit = 10
    task_time_limit = 10
    accept_content = ["json", "pickle"]
    worker_eta_task_limit = 10
    worker_max_memory_per_child = 1000
    result_backend_transport_options = {"visibility_timeout": 60}
    beat_schedule = {"tick": {"task": "bad.forgotten", "schedule": 5.0}}
app = Celery("bad")
app.config_from_object(Config)
@app.task(autoretry_for=(Exception,), retry_backoff=True, max_retries=None)
def urgent(): ...
@app.task
def bulk(): ...
"""
OLD = """
from celery import Celery
app = Celery("old", broker="redis://broker.invalid")
app.conf.CELERY_TASK_ALWAYS_EAGR = True
class Config:
    CELERY_TASK_ACKS_LATE = True
    CELERY_TASK_TIME_LIMT = 5
    CELERY_ACKS_LATE = True
    UNRELATED = True
app.config_from_object(Config, namespace="CELERY")
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "PYTHONPATH"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def look(*arguments: str, capsys) -> tuple[int, dict]:
    code = cli.main(["doctor", "--offline", "--json", *arguments])
    return code, json.loads(capsys.readouterr().out)


def traps(answer: dict) -> set[str]:
    return {row["id"] for row in answer["findings"] if row["finding"] == TRAP}


def test_a_good_application_has_no_trap_and_ends_with_zero(here, capsys):
    (here / "good.py").write_text(GOOD)
    code, answer = look("--app", "good:app", capsys=capsys)
    assert (code, traps(answer)) == (0, set())
    assert answer["application"]["name"] == "good"
    assert answer["machine"] == []
    assert "s3cret" not in json.dumps(answer)


def test_a_bad_application_is_told_its_traps_and_ends_with_one(here, capsys):
    (here / "bad.py").write_text(BAD)
    code = cli.main(["doctor", "--offline", "--app", "bad"])
    told = capsys.readouterr()
    assert code == 1
    found = {line.split()[1] for line in told.out.splitlines() if line.startswith("TRAP")}
    assert found == {
        *("prefetch-multiplier", "eta-task-limit", "worker-lost", "queue-priority", "priority-inverted"),
        *("priority-steps-missing", "visibility-place", "retry-jitter", "retry-unbounded", "autoretry-broad"),
        *("soft-limit", "broker-socket-timeout", "result-ttl", "result-write", "memory-limit", "beat-store"),
        *("beat-sync", "beat-unknown-task", "unknown-setting", "unsafe-content", "missing-queues"),
    }
    assert "task_ack_on_failure (task_acks_on_failure?)" in told.out
    assert "s3cret" not in told.out + told.err


def test_names_in_a_namespace_are_read_as_celery_reads_them(here):
    (here / "old.py").write_text(OLD)
    app = inspect_application("old")
    assert {row["name"] for row in app.unknown} == {"CELERY_TASK_TIME_LIMT", "CELERY_TASK_ALWAYS_EAGR"}
    assert [row["name"] for row in app.deprecated] == ["CELERY_ACKS_LATE"]
    assert app.setting("task_acks_late") is True


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        (
            "import not_there_at_all",
            "mine",
            r"mine can't be imported: ModuleNotFoundError.*not_there_at_all.*mine.py:1",
        ),
        ("raise SystemExit('redis://:s3cret@h is down')", "mine", r"SystemExit: redis://\*\*\*@h is down"),
        ("import os\nos._exit(7)", "mine", "its process ended with 7"),
        ("app = object()", "mine:app", "is of type object, not a Celery application"),
        ("app = 1", "mine:other", "mine has no attribute other"),
        ("x = 1", "mine", "has no Celery application"),
        ("x = 1", "elsewhere", "No module named 'elsewhere'"),
    ],
)
def test_what_is_no_application_says_why_and_ends_with_two(here, source, name, says, capsys):
    (here / "mine.py").write_text(source)
    with pytest.raises(DoctorError, match=says):
        inspect_application(name)
    assert DoctorError.exit_code == 2
    assert "s3cret" not in capsys.readouterr().err


def test_an_application_that_hangs_is_given_up(here):
    (here / "mine.py").write_text("import threading\nthreading.Event().wait()")
    with pytest.raises(DoctorError, match=r"not imported after 0\.5 s"):
        inspect_application("mine", timeout_s=0.5)


def test_another_interpreter_can_be_named(here):
    (here / "good.py").write_text(GOOD)
    assert inspect_application("good", python=sys.executable).name == "good"
    with pytest.raises(DoctorError, match="none: No such file"):
        inspect_application("good", python="/none")


def test_a_named_broker_that_is_away_is_wrong_use(here, capsys):
    (here / "good.py").write_text(GOOD)
    assert cli.main(["doctor", "--app", "good", "--broker", "amqp://u:s3cret@h"]) == 2
    told = capsys.readouterr().err
    assert "amqp://h can't be asked" in told
    assert "s3cret" not in told


def test_what_the_machine_lacks_is_said_even_where_our_application_can_t_be_looked_at(here, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    monkeypatch.setenv("MAIL_TOKEN_SECRETS", "s3cret")
    assert cli.main(["doctor", "--offline"]) == 2
    told = capsys.readouterr()
    assert "python  " in told.out
    assert "MAIL_TOKEN_SECRETS is not a setting; did you mean MAIL_TOKEN_SECRET?" in told.err
    assert "s3cret" not in told.out + told.err


def test_our_own_application_walks_into_no_trap(here, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for name in [n for n in os.environ if n.startswith(("MAIL_", "DATABASE_", "CELERYD_", "TASK_", "WORKER_"))]:
        monkeypatch.delenv(name)
    app = inspect_application(OURS)
    assert [(f.id, f.found) for f in application_findings(app) if f.finding == TRAP] == []
    assert len(app.tasks) == 6
    assert len(STAND_INS) == 5


# --- the probe's own ---


def test_a_limit_of_the_application_holds_where_its_tasks_do_not_know_it():
    """Celery 5.3 has the limit in its configuration alone."""
    app = SimpleNamespace(conf={"task_time_limit": 300})
    assert _own_or(app, SimpleNamespace(time_limit=None), "time_limit") == 300
    assert _own_or(app, SimpleNamespace(time_limit=7), "time_limit") == 7


def test_the_filesystem_of_a_path_is_that_of_the_longest_mount_above_it(tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "overlay / overlay rw 0 0\ntmpfs /app/logs tmpfs rw 0 0\n/dev/a /app/my\\040data ext4 rw 0 0\nbroken\n"
    )
    assert filesystem("/app/logs/schedule", str(mounts)) == "tmpfs"
    assert filesystem("/app/logs2/schedule", str(mounts)) == "overlay"
    assert filesystem("/app/my data/schedule", str(mounts)) == "ext4"
    assert filesystem("/x", str(tmp_path / "none")) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:pw@h/0 and amqp://u:p%2F@h", "redis://***@h/0 and amqp://***@h"),
        ("redis://h/0", "redis://h/0"),
        ("redis://:a/b@h", "redis://***@h"),
        ("mail to a@b", "mail to a@b"),
    ],
)
def test_a_login_is_masked_wherever_a_url_stands(text, shown):
    assert masked(text) == shown
