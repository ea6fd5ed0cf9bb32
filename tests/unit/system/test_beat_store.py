"""Beat's schedule on disk: what survives, who may hold it, and what a publish carries."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import redis
from celery import Celery
from celery.beat import SchedulingError
from kombu import Exchange, Queue

from email_service import beat_store, policy, signals, telemetry
from email_service.beat_store import ScheduleStore, SqliteScheduler
from email_service.errors import ConfigError

TASK = "email_service.tasks.periodic_sync"
HOUR = timedelta(hours=1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "beat.db"


@pytest.fixture
def make(path, request):
    """Makes a beat's scheduler on the file; its publishes are collected in ``sent``."""

    def scheduler(*, entries=("periodic",), options=None, broker=None, **kwargs):
        app = Celery("beat-test", broker="memory://", set_as_current=False)
        app.settings = SimpleNamespace(broker_url="redis://127.0.0.1:1/0")
        app.conf.update(
            beat_sync_every=1,
            task_queues=[Queue(name, Exchange(name), routing_key=name) for name in policy.QUEUES],
            task_routes={TASK: {"queue": "periodic", "priority": 0}},
            beat_schedule={e: {"task": TASK, "schedule": HOUR, "options": options or {}} for e in entries},
        )
        made = SqliteScheduler(app=app, schedule_filename=str(path), **({"on_tick": lambda _: None} | kwargs))
        request.addfinalizer(made.close)
        made.sent = []
        made.__dict__["producer"] = None
        if broker is None:
            made.send_task = lambda *args, **options: made.sent.append((args, options))
        return made

    return scheduler


def ran_at(path, moment, count=7):
    """The file as a beat left it that published the entry at that moment."""
    store = ScheduleStore(path)
    store.write([("periodic", TASK, moment.isoformat(), count)])
    store.close()


def settle(scheduler):
    """Tick until nothing is due."""
    for _ in range(20):
        if scheduler.tick() > 0:
            return
    pytest.fail("beat does not come to rest")


def test_a_second_beat_on_the_same_file_is_refused_and_told_why(path, make):
    first = make()
    with pytest.raises(ConfigError, match=r"beat\.db: another beat holds it"):
        make()
    first.sync()


def test_a_beat_that_was_killed_gives_the_file_back_with_what_it_had_written(path):
    program = (
        "import sys, time; from pathlib import Path; from email_service.beat_store import ScheduleStore\n"
        "store = ScheduleStore(Path(sys.argv[1]))\n"
        "store.write([('periodic', 'task', '2026-01-01T00:00:00+00:00', 3)])\n"
        "print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="another beat"):
            ScheduleStore(path)
        holder.kill()
    store = ScheduleStore(path)
    assert store.read() == [("periodic", "task", "2026-01-01T00:00:00+00:00", 3)]
    store.close()


def test_what_ran_is_on_disk_as_soon_as_it_was_published(path, make):
    ran_at(path, datetime.now(UTC) - 2 * HOUR)
    scheduler = make()
    settle(scheduler)
    scheduler._store._db.close()  # as if it had been killed: nothing is written any more
    scheduler._store = None
    store = ScheduleStore(path)
    (row,) = store.read()
    store.close()
    assert row[3] == 8
    assert datetime.now(UTC) - datetime.fromisoformat(row[2]) < timedelta(minutes=1)


def test_a_downtime_of_many_intervals_is_made_up_for_by_one_tick(path, make):
    ran_at(path, datetime.now(UTC) - 50 * HOUR)
    scheduler = make()
    settle(scheduler)
    settle(scheduler)
    assert len(scheduler.sent) == 1


def test_a_restart_within_the_interval_publishes_nothing(path, make):
    ran_at(path, datetime.now(UTC) - HOUR / 2)
    scheduler = make()
    settle(scheduler)
    assert scheduler.sent == []


def test_a_last_run_in_the_future_does_not_silence_the_entry(path, make):
    ran_at(path, datetime.now(UTC) + 1000 * HOUR)
    assert make().data["periodic"].last_run_at <= datetime.now(UTC)


def test_the_configuration_decides_which_entries_there_are(path, make):
    first = make(entries=("old", "kept"))
    first.close()
    second = make(entries=("kept", "new"))
    second.close()
    store = ScheduleStore(path)
    assert sorted(row[0] for row in store.read()) == ["kept", "new"]
    store.close()


def test_a_damaged_file_is_moved_aside_and_beat_starts_afresh(path, make, caplog):
    content = b"not a database at all, but long enough to be read as one" * 50
    path.write_bytes(content)
    path.with_name("beat.db-journal").write_bytes(b"left by a crash")
    scheduler = make()
    assert scheduler.data["periodic"].total_run_count == 0
    aside = [p for p in path.parent.iterdir() if ".corrupt-" in p.name and not p.name.endswith("-journal")]
    assert [p.read_bytes() for p in aside] == [content]
    assert "moved aside" in caplog.text


def test_a_time_that_is_none_is_damage_too(path, make):
    with sqlite3.connect(path) as db:
        db.execute(beat_store._TABLE)
        db.execute("INSERT INTO entries VALUES ('periodic', 'task', 'yesterday', 1)")
    db.close()
    assert make().data["periodic"].total_run_count == 0


def test_a_database_of_something_else_is_refused_and_left_alone(path):
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE entries (title TEXT)")
    db.close()
    with pytest.raises(ConfigError, match="can't be used"):
        ScheduleStore(path)
    assert path.exists()


def test_a_folder_that_does_not_exist_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="unable to open"):
        ScheduleStore(tmp_path / "nowhere" / "beat.db")


def test_a_disk_that_is_full_does_not_stop_the_schedule(path, make, caplog):
    ran_at(path, datetime.now(UTC) - 2 * HOUR)
    scheduler = make()
    scheduler._store._db.execute("PRAGMA query_only = 1")
    settle(scheduler)
    assert len(scheduler.sent) == 1
    assert "can't be written" in caplog.text
    scheduler._store._db.execute("PRAGMA query_only = 0")


def test_a_write_that_a_signal_broke_off_is_undone_by_the_next(path):
    store = ScheduleStore(path)
    store._db.execute("BEGIN")
    store._db.execute("INSERT INTO entries VALUES ('half', 'task', '2026-01-01T00:00:00+00:00', 1)")
    store.write([("whole", "task", "2026-01-01T00:00:00+00:00", 1)])
    assert [row[0] for row in store.read()] == ["whole"]
    store.close()


def test_a_beat_may_be_closed_twice(make):
    scheduler = make()
    scheduler.close()
    scheduler.close()


def test_nothing_is_opened_for_the_banner(path, make):
    assert str(path) in make(lazy=True).info
    assert not path.exists()


# --- publishing


@pytest.fixture
def spans(tmp_path):
    folder = tmp_path / "spans"
    telemetry.shutdown()
    telemetry.configure("beat", span_dir=folder, otlp_endpoint=None)

    def read():
        lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
        return [json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0] for line in lines]

    yield read
    telemetry.shutdown()


def test_a_message_carries_the_root_of_its_trace_and_an_id_of_its_own(make, spans):
    scheduler = make(options={"expires": 60, "headers": {"mine": 1}})
    scheduler.apply_async(scheduler.data["periodic"])
    ((args, options),) = scheduler.sent
    (span,) = spans()
    attributes = {a["key"]: next(iter(a["value"].values())) for a in span["attributes"]}
    assert args[0] == TASK
    assert (span["name"], span["kind"], span["parentSpanId"]) == ("send periodic", 4, "")
    assert attributes[signals.ROOT_KIND] == "beat"
    assert attributes[signals.MESSAGING_MESSAGE_ID] == options["task_id"]
    assert options["headers"]["traceparent"] == f"00-{span['traceId']}-{span['spanId']}-01"
    assert (options["headers"]["mine"], options["expires"]) == (1, 60)


def test_a_message_reaches_its_queue_with_its_headers(path, make):
    scheduler = make(broker="memory")
    with scheduler.app.connection_for_write() as connection, scheduler.app.amqp.Producer(connection) as producer:
        scheduler.apply_async(scheduler.data["periodic"], producer=producer)
        message = connection.SimpleQueue(scheduler.app.amqp.queues["periodic"]).get(block=False)
    assert message.headers["task"] == TASK
    assert message.headers["celery_beat_task"] is True
    assert message.properties["priority"] == 0
    message.ack()


def test_a_broker_that_refuses_is_a_scheduling_error_and_the_tick_is_not_repeated(make, spans):
    scheduler = make()

    def refuse(*_, **__):
        raise ConnectionRefusedError

    scheduler.send_task = refuse
    with pytest.raises(SchedulingError, match=r"periodic was not published \(ConnectionRefusedError\)"):
        scheduler.apply_async(scheduler.data["periodic"])
    assert scheduler.data["periodic"].total_run_count == 1
    assert spans()[0]["status"] == {"code": 2}
    assert telemetry.current_traceparent() is None


def test_a_task_that_nobody_knows_does_not_stop_the_others(make):
    scheduler = make()
    scheduler.data["periodic"].task = "email_service.tasks.unknown"
    with pytest.raises(SchedulingError, match="KeyError"):
        scheduler.apply_async(scheduler.data["periodic"])


def test_each_tick_is_told_with_its_time(make):
    told = []
    scheduler = make(on_tick=told.append)
    settle(scheduler)
    assert told
    assert all(ns > 10**18 for ns in told)


def test_the_tick_is_told_to_redis_and_a_redis_that_is_away_is_no_reason_to_stop(make, caplog):
    written = {}
    scheduler = make(on_tick=None)
    scheduler._redis = SimpleNamespace(set=written.__setitem__)
    settle(scheduler)
    assert written[signals.KEY_BEAT_TICK] > 10**18

    def away(*_):
        raise redis.ConnectionError

    scheduler._redis = SimpleNamespace(set=away)
    settle(scheduler)
    assert "can't be told (ConnectionError)" in caplog.text
