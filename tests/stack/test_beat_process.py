"""Beat as a process: what a SIGKILL leaves, who may run a second time, and what a downtime is worth."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from datetime import UTC, datetime, timedelta

import celery
import pytest
import redis
from service_processes import Bare, bare_environment
from waiting import until

from email_service import signals
from email_service.beat_store import ScheduleStore
from email_service.celery_app import BEAT


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    bare = Bare(tmp_path_factory.mktemp("bare"))
    yield bare
    bare.close()


@pytest.fixture
def queue(bare):
    """The broker's list of periodic messages, empty."""
    with redis.Redis.from_url(f"{bare.redis_url}/0") as client:
        client.flushall()
        yield lambda: [json.loads(message) for message in client.lrange("periodic", 0, -1)]


def ticked_after(bare, moment_ns):
    with redis.Redis.from_url(f"{bare.redis_url}/0") as client:
        until(lambda: int(client.get(signals.KEY_BEAT_TICK) or 0) > moment_ns, what="a tick")


def seed(path, *, last_run_at):
    store = ScheduleStore(path)
    store.write([(entry, task, last_run_at.isoformat(), 41) for entry, task, _ in BEAT])
    store.close()


def test_a_downtime_of_many_intervals_is_one_tick_and_a_sigkill_forgets_none(bare, queue, tmp_path):
    environment = bare_environment(bare.redis_url, tmp_path)
    seed(tmp_path / "beat.db", last_run_at=datetime.now(UTC) - timedelta(hours=7))
    with bare.serving(environment, tmp_path, "beat") as beat:
        until(lambda: len(queue()) == len(BEAT), what="the missed tick of each entry")
        os.kill(beat.pid, signal.SIGKILL)
        assert beat.exit_code(deadline_s=10) == -signal.SIGKILL
    restarted_ns = time.time_ns()
    with bare.serving(environment, tmp_path, "beat"):
        # A whole round has found nothing to do.
        ticked_after(bare, restarted_ns)
        assert sorted(message["headers"]["task"] for message in queue()) == sorted(task for _, task, _ in BEAT)


def test_a_scheduled_message_expires_when_the_next_one_comes(bare, queue, tmp_path):
    seed(tmp_path / "beat.db", last_run_at=datetime.now(UTC) - timedelta(hours=7))
    with bare.serving(bare_environment(bare.redis_url, tmp_path), tmp_path, "beat"):
        until(lambda: len(queue()) == len(BEAT), what="the ticks")
        expires_s = {
            message["headers"]["task"]: (datetime.fromisoformat(message["headers"]["expires"]) - datetime.now(UTC))
            for message in queue()
        }
    for _, task, interval_s in BEAT:
        assert timedelta(0) < timedelta(seconds=interval_s * 0.05) - expires_s[task] < timedelta(seconds=5)


def test_a_second_beat_on_the_same_schedule_is_refused_in_one_line(bare, queue, tmp_path):
    environment = bare_environment(bare.redis_url, tmp_path)
    with bare.serving(environment, tmp_path, "beat") as first:
        (tmp_path / "second").mkdir()
        second, _ = bare.start(environment, tmp_path / "second", "beat")
        until(lambda: second.popen.poll() is not None, what="its refusal")
        log = second.log.read_text()
        assert second.popen.returncode == 2
        assert "another beat holds it" in log
        assert "Traceback" not in log
        assert first.part.popen.poll() is None


def test_beat_ends_at_sigterm_and_gives_the_schedule_back(bare, queue, tmp_path):
    environment = bare_environment(bare.redis_url, tmp_path)
    with bare.serving(environment, tmp_path, "beat") as beat:
        os.kill(beat.pid, signal.SIGTERM)
        assert beat.exit_code(deadline_s=10) == 0
        ScheduleStore(tmp_path / "beat.db").close()


def test_beat_writes_the_document_s_two_lines_to_the_document_s_file(bare, queue, tmp_path):
    options = {"MAIL_LOG_FORMAT": "text", "MAIL_LOG_DIR": str(tmp_path / "logs")}
    seed(tmp_path / "beat.db", last_run_at=datetime.now(UTC) - timedelta(hours=7))
    with bare.serving(bare_environment(bare.redis_url, tmp_path, **options), tmp_path, "beat"):
        until(lambda: len(queue()) == len(BEAT), what="the tick of each entry")
    written = (tmp_path / "logs" / "celery-beat.log").read_text().splitlines()
    moment = r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] "
    assert re.fullmatch(moment + rf"celery beat v{re.escape(celery.__version__)} \(\w+\)", written[0])
    triggered = [line for line in written if "Triggering" in line]
    # Both are due for long: which one comes first is Celery's to choose.
    told = sorted(re.sub(moment, "", line) for line in triggered)
    assert told == sorted(f"Scheduler: Triggering task '{t}'" for _, t, _ in BEAT)
