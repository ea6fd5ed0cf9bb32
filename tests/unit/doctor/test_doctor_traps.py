"""Each trap by a small configuration that walks into it, beside a clean one that walks into none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mailrig.doctor.application import application_findings
from mailrig.doctor.facts import App, Server, Task, some
from mailrig.doctor.findings import OK, TRAP, UNKNOWN
from mailrig.doctor.server import place, server_findings
from mailrig.doctor.tables import finding_lines, machine_lines, summary, to_json

SETTINGS = {
    "accept_content": ["json"],
    "beat_scheduler": "redbeat.RedBeatScheduler",
    "beat_sync_every": 0,
    "result_backend_always_retry": True,
    "result_backend_base_sleep_between_retries_ms": 200,
    "result_backend_max_retries": 5,
    "result_expires": 86_400.0,
    "task_acks_late": True,
    "task_create_missing_queues": True,
    "task_reject_on_worker_lost": True,
    "task_serializer": "json",
    "task_soft_time_limit": 280,
    "task_time_limit": 300,
    "worker_concurrency": 4,
    "worker_prefetch_multiplier": 1,
}
SEND = Task(
    name="shop.send",
    queue="celery",
    acks_late=True,
    reject_on_worker_lost=True,
    time_limit_s=300,
    soft_time_limit_s=280,
)
BEAT = {
    "entries": 1,
    "tasks": ["shop.send"],
    "registered": ["shop.send"],
    "shelve": False,
    "store": "/app/celerybeat-schedule",
    "store_given": False,
    "filesystem": "ext4",
    "dbm": "dbm.gnu",
}
CLEAN = App(
    name="shop",
    broker_url="redis://h:6379/0",
    result_url="redis://h:6379/1",
    settings=SETTINGS,
    given=frozenset(SETTINGS),
    transport_options={"socket_timeout": 10},
    queues=({"name": "celery", "max_priority": None},),
    tasks=(SEND,),
    beat=BEAT,
    base_memory_kb=60_000,
)
EARLY = replace(SEND, acks_late=False, reject_on_worker_lost=False)


def settings(**changes) -> App:
    return replace(CLEAN, settings=SETTINGS | changes)


def options(**changes) -> App:
    return replace(CLEAN, transport_options=dict(CLEAN.transport_options) | changes)


def tasks(*rows: Task, **changes) -> App:
    return replace(CLEAN, tasks=rows, **changes)


def ranked(*priorities: int, **changes) -> App:
    return tasks(*(replace(SEND, name=f"shop.t{p}", priority=p) for p in priorities), **changes)


def beat(**changes) -> App:
    return replace(CLEAN, beat=BEAT | changes)


def finding(app: App, name: str):
    return next(f for f in application_findings(app) if f.id == name)


WALKS_INTO = [
    ("early-ack-prefetch", tasks(EARLY), "(1 + 1) x 4 messages"),
    ("early-ack-prefetch", tasks(settings=SETTINGS | {"task_acks_late": False}), "any task"),
    ("prefetch-multiplier", settings(worker_prefetch_multiplier=4), "is 4"),
    ("prefetch-multiplier", replace(settings(worker_prefetch_multiplier=4), given=frozenset()), "(Celery's default)"),
    ("prefetch-unlimited", settings(worker_prefetch_multiplier=0), "is 0"),
    ("eta-task-limit", settings(worker_eta_task_limit=10), "is 10"),
    ("worker-lost", tasks(replace(SEND, reject_on_worker_lost=False)), "shop.send"),
    ("worker-lost-delay", tasks(replace(SEND, retry_on_worker_lost=True)), "180 s"),
    ("acks-on-timeout", tasks(replace(SEND, acks_on_timeout=False)), "not acknowledged at the hard limit"),
    ("acks-on-timeout", tasks(settings=SETTINGS | {"task_acks_on_failure_or_timeout": False}), "any task"),
    ("early-ack-shutdown", tasks(EARLY, settings=SETTINGS | {"worker_soft_shutdown_timeout": 60}), "is 60"),
    ("queue-priority", replace(CLEAN, queues=({"name": "fast", "max_priority": 10},)), "fast"),
    ("queue-priority", settings(task_queue_max_priority=10), "task_queue_max_priority"),
    (
        "priority-inverted",
        tasks(replace(SEND, queue="high_priority", priority=9), replace(SEND, name="b", queue="bulk", priority=0)),
        "bulk (0) is served before high_priority (9)",
    ),
    ("priority-clamped", ranked(0, 10), "priorities 10"),
    ("priority-steps-missing", ranked(0, 2, 5), "priorities 2, 5"),
    ("priority-steps-merge", ranked(0, 2, 6), "0, 2 become 0"),
    ("priority-steps-merge", ranked(0, 5, 7, transport_options={"priority_steps": [0, 5]}), "5, 7 become 5"),
    ("priority-absent", tasks(SEND, replace(SEND, name="shop.slow", priority=9)), "shop.send without a priority"),
    ("visibility-limit", options(visibility_timeout=300), "is 300 s and the longest time limit 300 s"),
    ("visibility-retry", options(visibility_timeout=480), "shop.send may wait and run 480 s"),
    (
        "visibility-retry",
        tasks(
            replace(SEND, autoretry_for=("OSError",), retry_backoff_s=60, retry_backoff_max_s=7200, retry_kwargs_max=9)
        ),
        "7500 s",
    ),
    ("visibility-place", replace(CLEAN, result_options={"visibility_timeout": 43_200}), "alone"),
    ("retry-jitter", tasks(replace(SEND, autoretry_for=("OSError",), retry_backoff_s=5)), "full jitter"),
    ("retry-unbounded", tasks(replace(SEND, max_retries=None)), "max_retries is None"),
    ("retry-unbounded", tasks(replace(SEND, autoretry_for=("OSError",), retry_kwargs_max=None)), "shop.send"),
    ("autoretry-broad", tasks(replace(SEND, autoretry_for=("Exception",), swallows_soft_limit=True)), "soft time"),
    ("no-time-limit", tasks(replace(SEND, time_limit_s=None)), "no hard time limit"),
    ("soft-limit", tasks(replace(SEND, soft_time_limit_s=300)), "(300 s, 300 s)"),
    ("broker-socket-timeout", replace(CLEAN, transport_options={}), "unset"),
    ("result-ttl", settings(result_expires=None), "for ever"),
    ("result-ttl", settings(result_expires=600), "600 s, visibility_timeout 3600 s"),
    ("result-write", settings(result_backend_always_retry=False), "is off"),
    ("result-write", settings(result_backend_base_sleep_between_retries_ms=10), "5 tries from 10 ms"),
    ("memory-limit", settings(worker_max_memory_per_child=50_000), "50,000 KB"),
    ("task-always-eager", settings(task_always_eager=True), "is on"),
    ("beat-store", beat(shelve=True), "dbm.gnu"),
    ("beat-store-volatile", beat(shelve=True, filesystem="tmpfs"), "/app/celerybeat-schedule is on tmpfs"),
    ("beat-store-volatile", beat(store_given=True, filesystem="tmpfs"), "tmpfs"),
    ("beat-sync", beat(shelve=True), "beat_sync_every is 0"),
    ("beat-unknown-task", beat(tasks=["shop.sned"]), "shop.sned"),
    ("broker-default", replace(CLEAN, transport="amqp", broker_given=False), "no broker_url"),
    ("unknown-setting", replace(CLEAN, unknown=({"name": "task_ack_late", "near": "task_acks_late"},)), "acks_late?"),
    ("deprecated-setting", replace(CLEAN, deprecated=({"name": "CELERY_ACKS_LATE", "new": "task_acks_late"},)), "now"),
    ("unsafe-content", settings(accept_content=["json", "pickle"]), "pickle"),
    ("unsafe-content", settings(result_accept_content=["application/x-python-serialize"]), "python-serialize"),
    ("unsafe-content", settings(task_serializer="yaml"), "yaml"),
    ("missing-queues", replace(CLEAN, queues_declared=True), "is on"),
    ("missing-queues", tasks(replace(SEND, route_error="QueueNotFound")), "not declared"),
    ("broker-environment", replace(CLEAN, environment=("CELERY_BROKER_URL",)), "CELERY_BROKER_URL"),
]


def test_a_clean_application_walks_into_no_trap():
    assert [f for f in application_findings(CLEAN) if f.finding != OK] == []


@pytest.mark.parametrize(("name", "app", "found"), WALKS_INTO, ids=[row[0] for row in WALKS_INTO])
def test_a_trap_is_found_and_says_what_was_found(name, app, found):
    # Where the application has no task, the settings speak for any.
    if found == "any task":
        app = replace(app, tasks=())
    seen = finding(app, name)
    assert seen.finding == TRAP
    assert found in seen.found


@pytest.mark.parametrize(("name", "app", "_found"), WALKS_INTO, ids=[row[0] for row in WALKS_INTO])
def test_a_trap_drags_no_unrelated_one_along(name, app, _found):
    families = {name, *ALONGSIDE.get(name, ())}
    assert {f.id for f in application_findings(app) if f.finding == TRAP} <= families


#: What can't be had one without the other.
ALONGSIDE = {
    "early-ack-shutdown": ("early-ack-prefetch",),
    "priority-clamped": ("priority-steps-missing",),
    "priority-steps-merge": ("priority-steps-missing", "broker-socket-timeout"),
    "priority-steps-missing": ("priority-steps-merge",),
    "visibility-limit": ("visibility-retry",),
    "visibility-retry": ("retry-jitter",),
    "beat-store": ("beat-sync",),
    "beat-sync": ("beat-store",),
    "beat-store-volatile": ("beat-store", "beat-sync"),
    "result-ttl": (),
}


def test_every_trap_of_an_application_has_a_configuration_that_walks_into_it():
    assert {f.id for f in application_findings(CLEAN)} == {name for name, _, _ in WALKS_INTO}


def test_every_row_says_what_it_costs_and_what_would_be_right():
    rows = [*application_findings(CLEAN), *server_findings(HEALTHY)]
    assert len({f.id for f in rows}) == len(rows)
    assert all(len(f.consequence) > 20 and len(f.right) > 5 and f.found for f in rows)
    assert all(f.issue is None or "#" in f.issue for f in rows)


# --- what is none, or can't be told ---


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("early-ack-prefetch", tasks(EARLY, settings=SETTINGS | {"worker_disable_prefetch": True})),
        ("prefetch-multiplier", settings(worker_prefetch_multiplier=4, worker_disable_prefetch=True)),
        ("worker-lost", tasks(replace(SEND, reject_on_worker_lost=False, retry_on_worker_lost=True))),
        ("worker-lost-delay", tasks(replace(SEND, retry_on_worker_lost=True, default_retry_delay_s=5))),
        ("queue-priority", replace(settings(task_queue_max_priority=10), transport="amqp")),
        ("priority-inverted", ranked(0, 9, transport_options={"priority_steps": [0, 9]})),
        ("priority-steps-missing", ranked(0, 3, 6, 9)),
        ("priority-steps-merge", ranked(0, 2, 5, 7, transport_options={"priority_steps": [0, 2, 5, 7]})),
        ("visibility-limit", replace(options(visibility_timeout=1), transport="amqp")),
        ("visibility-limit", tasks(replace(EARLY, time_limit_s=7200))),
        ("visibility-retry", tasks(replace(SEND, max_retries=0, time_limit_s=3000))),
        ("visibility-place", replace(options(visibility_timeout=9), result_options={"visibility_timeout": 9})),
        ("retry-jitter", tasks(replace(SEND, autoretry_for=("OSError",), retry_backoff_s=5, retry_jitter=False))),
        ("retry-jitter", tasks(replace(SEND, autoretry_for=("OSError",)))),
        ("autoretry-broad", tasks(replace(SEND, swallows_soft_limit=True, soft_time_limit_s=None))),
        ("result-ttl", replace(settings(result_expires=None), result_url="disabled://")),
        ("result-ttl", tasks(replace(SEND, ignore_result=True), settings=SETTINGS | {"result_expires": None})),
        ("result-write", settings(result_backend_max_retries=None)),
        ("memory-limit", settings(worker_max_memory_per_child=150_000)),
        ("beat-store", replace(CLEAN, beat={"entries": 0, "shelve": True})),
        ("beat-store-volatile", beat(filesystem="tmpfs")),
        ("beat-sync", replace(beat(shelve=True), settings=SETTINGS | {"beat_sync_every": 1})),
        ("missing-queues", replace(settings(task_create_missing_queues=False), queues_declared=True)),
    ],
)
def test_what_only_looks_like_a_trap_is_ok(name, app):
    assert finding(app, name).finding == OK


@pytest.mark.parametrize(
    ("name", "app"),
    [
        ("priority-inverted", ranked(0, 9)),
        ("visibility-limit", tasks(replace(SEND, time_limit_s=None))),
        ("beat-store", beat(shelve=None)),
        ("beat-store-volatile", beat(shelve=True, filesystem="overlay")),
        ("beat-store-volatile", beat(shelve=True, filesystem=None)),
        ("beat-unknown-task", replace(beat(tasks=["elsewhere.t"]), tasks=())),
    ],
)
def test_what_can_t_be_told_from_here_is_unknown(name, app):
    assert finding(app, name).finding == UNKNOWN


def test_the_longest_delay_is_that_of_the_last_retry():
    backoff = replace(SEND, autoretry_for=("OSError",), retry_backoff_s=5, retry_kwargs_max=5)
    assert backoff.retry_delay_s_max == 80
    assert replace(backoff, retry_kwargs_max=None).retry_delay_s_max == 600
    assert replace(backoff, retry_backoff_s=0, retry_countdown_s=7).retry_delay_s_max == 7
    assert SEND.retry_delay_s_max == 180


# --- the server ---

HEALTHY = Server(
    place="redis://h:6379",
    version="7.2.1",
    appendonly=True,
    appendfsync="everysec",
    maxmemory_policy="noeviction",
    maxmemory_bytes=0,
    used_bytes=1_000_000,
    role="master",
    results_seen=3,
    result_ttl_s_min=1800,
)


def test_a_healthy_server_has_no_trap():
    assert [f for f in server_findings(HEALTHY) if f.finding != OK] == []


SERVER_TRAPS = [
    ("redis-version", {"version": "6.0.16"}, "6.0.16"),
    ("redis-eviction", {"maxmemory_policy": "allkeys-lru"}, "allkeys-lru, with no maxmemory yet"),
    ("redis-eviction", {"maxmemory_policy": "allkeys-lfu", "maxmemory_bytes": 5_000_000}, "at 5,000,000 bytes"),
    ("redis-memory", {"maxmemory_bytes": 1_100_000}, "91%"),
    ("redis-appendonly", {"appendonly": False}, "appendonly no"),
    ("redis-appendfsync", {"appendfsync": "no"}, "appendfsync no"),
    ("redis-write-error", {"write_errors": ("snapshot",)}, "snapshot"),
    ("redis-role", {"role": "slave"}, "slave"),
    ("redis-result-ttl", {"results_endless": 2}, "2 of 3"),
]


@pytest.mark.parametrize(("name", "changes", "found"), SERVER_TRAPS)
def test_a_trap_of_the_server_is_found_alone(name, changes, found):
    (seen,) = [f for f in server_findings(replace(HEALTHY, **changes)) if f.finding == TRAP]
    assert seen.id == name
    assert found in seen.found


def test_every_trap_of_a_server_has_one_that_walks_into_it():
    assert {f.id for f in server_findings(HEALTHY)} == {name for name, _, _ in SERVER_TRAPS}


def test_what_a_server_does_not_say_is_unknown_and_no_trap():
    found = {f.id: f.finding for f in server_findings(Server(place="redis://h"))}
    assert TRAP not in found.values()
    assert found["redis-appendfsync"] == found["redis-eviction"] == UNKNOWN


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:s3cret@h:6379//", "redis://h:6379"),
        ("rediss://u:s3cret@h:1/3?password=s3cret", "rediss://h:1/3"),
        ("redis://:s3cret@h:port/0", "the URL of the broker"),
        ("redis://[s3cret", "the URL of the broker"),
    ],
)
def test_a_place_has_no_login(url, shown):
    assert place(url) == shown


# --- the answer ---


def test_a_trap_is_told_with_what_it_costs_and_its_issue():
    rows = application_findings(tasks(replace(SEND, reject_on_worker_lost=False)))
    told = "\n".join(finding_lines(rows, width=100))
    assert "TRAP  worker-lost " in told
    assert "costs: SIGKILL of a child" in told
    assert "celery/celery#1628" in " ".join(told.split())
    assert max(len(line) for line in told.splitlines() if line.startswith("      ")) <= 100
    assert summary(rows).startswith("1 trap, 0 unknown")


def test_the_json_is_all_of_it_and_no_secret():
    app = replace(CLEAN, broker_url="redis://:s3cret@h/0", result_url="redis://:s3cret@h/1")
    told = to_json(app, application_findings(app), [("python", True, "3.13")], "not asked")
    answer = json.loads(told)
    assert {f["id"] for f in answer["findings"]} == {f.id for f in application_findings(app)}
    assert set(answer["findings"][0]) == {"id", "finding", "found", "consequence", "right", "issue"}
    assert answer["machine"] == [{"name": "python", "ok": True, "found": "3.13"}]
    assert "s3cret" not in told + repr(app)


def test_many_names_are_cut_short():
    assert some(["d", "a", "c", "b", "a"]) == "a, b, c and 1 more"


def test_what_a_machine_lacks_stands_out():
    assert list(machine_lines([("broker", False, "none")])) == ["LACK  broker         none"]
