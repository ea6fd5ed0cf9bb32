from __future__ import annotations

import base64
import tomllib
from datetime import timedelta
from pathlib import Path

import fakeredis
import pytest
from celery import states
from celery.app import defaults

from email_service import losses, policy, tasks
from email_service.celery_app import celery_for
from email_service.config import settings_from

GOOD = {
    "DATABASE_URL": "postgresql://mail_app:x@db/mail",
    "DATABASE_SYSTEM_URL": "postgresql://mail_system:x@db/mail",
    "CREDENTIAL_ENCRYPTION_KEY": base64.b64encode(b"k" * 32).decode(),
    "MAIL_TOKEN_SECRET": "x" * 40,
    "MAIL_BLOB_DIR": "/blobs",
}


def test_celery_knows_every_setting_that_we_make():
    """Celery ignores an unknown setting silently."""
    app = celery_for(settings_from(GOOD))
    made = set(app.conf.changes) | set(app._preconf)
    # Celery adds its own key for deprecated names.
    known = {name for name, _ in defaults.flatten(defaults.NAMESPACES)} | {"deprecated_settings"}
    assert made - known == set()


def test_a_task_is_routed_to_its_queue_with_its_priority():
    app = celery_for(settings_from(GOOD))
    for rule in policy.TASKS.values():
        route = app.amqp.router.route({}, rule.name)
        assert route["queue"].name == rule.queue
        assert route["priority"] == policy.QUEUES[rule.queue].message_priority


def test_the_visibility_timeout_outlasts_the_longest_wait_at_full_length():
    options = celery_for(settings_from(GOOD)).conf.broker_transport_options
    assert options["visibility_timeout"] > max(policy.TIME_LIMIT_S, policy.BACKOFF_CAP_S)


CONTRACT = tomllib.loads((Path(__file__).parents[3] / "loadtests" / "contract.toml").read_text())
#: The architecture document's task queues: task -> queue.
DOCUMENT = {
    "sync_emails": "sync",
    "send_email": "send",
    "delete_emails": "delete",
    "check_spam": "spam",
    "periodic_sync": "periodic",
    "cleanup_stale_results": "periodic",
}


@pytest.fixture
def app():
    made = celery_for(settings_from(GOOD))
    tasks.register(made, lambda: pytest.fail("no task runs here"), request=losses.JobRequest)
    return made


def test_the_six_tasks_are_the_documents_and_no_others(app):
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == {f"email_service.tasks.{task}" for task in DOCUMENT} == set(policy.TASKS)


@pytest.mark.parametrize("task", DOCUMENT)
def test_a_task_has_the_documents_queue_priority_and_retries(app, task):
    name = f"email_service.tasks.{task}"
    route = app.amqp.router.route({}, name)
    assert route["queue"].name == DOCUMENT[task]
    assert route["priority"] == CONTRACT["priority"][DOCUMENT[task]]
    assert app.tasks[name].max_retries == CONTRACT["retries"][task]


@pytest.mark.parametrize(
    ("setting", "promised"),
    [
        ("worker_concurrency", CONTRACT["worker"]["concurrency"]),
        ("worker_prefetch_multiplier", CONTRACT["worker"]["prefetch_multiplier"]),
        ("worker_max_tasks_per_child", CONTRACT["worker"]["tasks_per_child_max"]),
        ("task_time_limit", CONTRACT["limits"]["hard_s"]),
        ("task_soft_time_limit", CONTRACT["limits"]["soft_s"]),
        ("result_expires", CONTRACT["results"]["ttl_s"]),
    ],
)
def test_a_promised_number_is_celerys_setting(app, setting, promised):
    assert app.conf[setting] == promised


def test_a_task_has_no_limits_of_its_own_that_would_replace_these(app):
    limits = {(task.time_limit, task.soft_time_limit) for name, task in app.tasks.items() if name in policy.TASKS}
    assert limits == {(CONTRACT["limits"]["hard_s"], CONTRACT["limits"]["soft_s"])}


def test_the_schedule_is_the_documents(app):
    assert {
        entry: (made["task"], made["schedule"], made["options"]) for entry, made in app.conf.beat_schedule.items()
    } == {
        "sync-emails-every-5min": (
            "email_service.tasks.periodic_sync",
            timedelta(seconds=CONTRACT["beat"]["periodic_sync_s"]),
            {"expires": CONTRACT["beat"]["periodic_sync_s"]},
        ),
        "cleanup-stale-tasks-hourly": (
            "email_service.tasks.cleanup_stale_results",
            timedelta(seconds=CONTRACT["beat"]["cleanup_s"]),
            {"expires": CONTRACT["beat"]["cleanup_s"]},
        ),
    }


def test_one_factor_scales_what_waits_and_nothing_that_talks():
    scaled = celery_for(settings_from(GOOD | {"MAIL_TIME_SCALE": "0.1"})).conf
    assert (scaled.task_time_limit, scaled.task_soft_time_limit, scaled.result_expires) == (30, 28, 360)
    assert scaled.beat_schedule["sync-emails-every-5min"]["schedule"] == timedelta(seconds=30)
    assert scaled.broker_transport_options["socket_timeout"] == 10


def test_broker_and_results_are_two_databases_of_one_redis(app):
    assert app.conf.broker_url.endswith("/0")
    assert app.conf.result_backend.endswith("/1")


@pytest.fixture
def results(app):
    """The result backend on a Redis of its own, with the commands that reached it."""
    backend, client = app.backend, fakeredis.FakeRedis()
    backend.__dict__["client"] = client
    asked = []
    original = client.get
    client.get = lambda key: asked.append(key) or original(key)
    return backend, client, asked


def test_a_success_is_stored_for_its_time_without_a_look_at_what_was_there(results):
    backend, client, asked = results
    backend.store_result("t", {"outcome": "sent"}, states.SUCCESS)
    assert asked == []
    assert 0 < client.ttl("celery-task-meta-t") <= CONTRACT["results"]["ttl_s"]
    meta = backend.get_task_meta("t", cache=False)
    assert (meta["status"], meta["result"], meta["task_id"]) == (states.SUCCESS, {"outcome": "sent"}, "t")


def test_a_lost_copy_does_not_replace_a_success(results):
    backend, _, _ = results
    backend.store_result("t", {"outcome": "sent"}, states.SUCCESS)
    backend.store_result("t", ValueError("late"), states.FAILURE)
    assert backend.get_task_meta("t", cache=False)["status"] == states.SUCCESS


def test_a_success_replaces_what_was_said_before_it(results):
    backend, _, _ = results
    backend.store_result("t", ValueError("hard limit"), states.FAILURE)
    backend.store_result("t", {"outcome": "sent"}, states.SUCCESS)
    assert backend.get_task_meta("t", cache=False)["status"] == states.SUCCESS
