"""What the exporter counts, reads and says when a source is away."""

from __future__ import annotations

import json
import os
import uuid
from dataclasses import replace

import psutil
import pytest
import redis
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from email_service import counting, exporter, policy, registry, signals
from email_service.errors import DatabaseError
from email_service.exporter import Cursor, Exporter, Inputs, collecting
from email_service.exporter.broker import Ages, Depth
from email_service.registry import Worker

SEND = "email_service.tasks.send_email"
TRACE = "a" * 32


def execution(**changes):
    """An execution that ended and settled nothing."""
    row = {
        "xid": "10", "id": str(uuid.uuid4()), "name": SEND, "queue": "send", "ordinal": 1, "outcome": "succeeded",
        "trace_id": TRACE, "trace_flags": "01", "duration_s": 0.2, "queue_s": 0.03, "error_type": None, "steps": None,
        "state": None, "job_error_type": None, "failures": 0, "worker_s": None, "recipients": None, "proven": None,
    }  # fmt: skip
    return row | changes


def settled(state="succeeded", **changes):
    return execution(**{"state": state, "worker_s": 0.2} | changes)


@pytest.fixture
def rows():
    """Rows that will be found, page by page."""
    return []


@pytest.fixture
def inputs(rows):
    def ended(after):
        page, rows[:] = rows[: collecting.PAGE], rows[collecting.PAGE :]
        return page, Cursor(executions=(page[-1]["xid"], page[-1]["id"])) if page else after

    worker = Worker(
        node="mail@here",
        concurrency=4,
        started_s=1700000000.0,
        capacity=3,
        memory={"main": {"pss": 50, "rss": 90}},
        cgroup={"current": 7, "limit": 9},
    )
    return Inputs(
        ended=ended,
        removed=lambda: ("0", "0"),
        kept=dict,
        running=lambda: [{"node": "mail@here", "name": SEND, "count": 3}],
        overdue=lambda: [{"queue": "send", "oldest_s": 1.5}],
        waiting=lambda: [{"queue": "sync", "count": 2}],
        depth=lambda: Depth(ready={"send": 7}, unacked={"send": 4}),
        workers=lambda: [worker],
        lag_s=lambda: 2.5,
        ages=lambda: Ages(beat_s=3.0, dispatchers_s={"here": 0.5}),
    )


def value(served, name, **labels):
    """One sample's value; None if it is not there."""
    return served.registry.get_sample_value(name, labels)


def away(*_):
    raise DatabaseError("away")


def no_broker():
    raise redis.ConnectionError


def test_every_metric_of_the_table_is_served_in_both_formats_under_its_name_and_kind(inputs, rows):
    rows += [
        settled(recipients=[["sent", 250]]),
        settled("failed", job_error_type="smtp"),
        execution(outcome="retry", error_type="smtp", steps={"smtp.send": 0.1}),
    ]
    served = Exporter(inputs)
    served.refresh()
    classic = {f.name: f for f in parse_text(generate_latest(served.registry).decode())}
    modern = {f.name: f for f in parse_openmetrics(openmetrics.generate_latest(served.registry).decode())}
    for metric in (*signals.METRICS, exporter.UP):
        assert classic[metric.name].type == modern[metric.name].type == metric.kind
        labels = set(modern[metric.name].samples[0].labels) - {"le"}
        assert labels == set(metric.labels), metric.name


def test_nothing_is_served_that_the_table_does_not_name(inputs, rows):
    rows += [settled(), settled("failed")]
    served = Exporter(inputs)
    served.refresh()
    names = {f.name for f in served.registry.collect()}
    assert names == {m.name for m in signals.METRICS} | {"mail_exporter_up"}


def test_an_execution_is_observed_once_with_its_trace_as_exemplar(inputs, rows):
    rows.append(execution())
    served = Exporter(inputs)
    assert served.refresh() == 1
    assert served.refresh() == 0
    labels = {"task": "send_email", "queue": "send", "outcome": "succeeded"}
    assert value(served, "mail_task_duration_seconds_count", **labels) == 1
    assert value(served, "mail_task_duration_seconds_sum", **labels) == pytest.approx(0.2)
    assert value(served, "mail_task_queue_time_seconds_sum", queue="send", attempt="1") == pytest.approx(0.03)
    assert f'# {{trace_id="{TRACE}"}} 0.2' in openmetrics.generate_latest(served.registry).decode()


def test_a_job_is_counted_by_the_execution_that_settled_it_and_by_no_other(inputs, rows):
    rows += [execution(outcome="retry"), settled(ordinal=2, failures=1, worker_s=0.5)]
    served = Exporter(inputs)
    served.refresh()
    assert value(served, "mail_task_retry_total", task="send_email", queue="send") == 1
    assert value(served, "mail_task_success_total", task="send_email", queue="send") == 1
    assert value(served, "mail_task_retries_sum", task="send_email", outcome="succeeded") == 1
    assert value(served, "mail_task_worker_time_seconds_sum", task="send_email") == 0.5
    assert value(served, "mail_task_worker_time_seconds_count", task="send_email") == 1


@pytest.mark.parametrize(("state", "error_type"), [("failed", "smtp"), ("unknown", "delivery-unknown")])
def test_a_job_that_did_not_succeed_is_a_failure_of_its_type(inputs, rows, state, error_type):
    rows.append(settled(state, job_error_type=error_type))
    served = Exporter(inputs)
    served.refresh()
    assert value(served, "mail_task_failure_total", task="send_email", queue="send", error_type=error_type) == 1


def test_a_job_without_an_error_type_is_a_failure_by_its_state(inputs, rows):
    rows.append(settled("unknown"))
    served = Exporter(inputs)
    served.refresh()
    assert value(served, "mail_task_failure_total", task="send_email", queue="send", error_type="unknown") == 1


def test_a_killed_execution_waited_but_has_no_duration(inputs, rows):
    rows.append(execution(outcome="killed", duration_s=None, trace_id=""))
    served = Exporter(inputs)
    served.refresh()
    killed = {"task": "send_email", "queue": "send", "outcome": "killed"}
    assert value(served, "mail_task_duration_seconds_count", **killed) is None
    assert value(served, "mail_task_queue_time_seconds_count", queue="send", attempt="1") == 1


def test_a_job_that_is_killed_for_ever_makes_a_limited_number_of_series(inputs, rows):
    rows += [execution(ordinal=n) for n in range(1, 101)]
    served = Exporter(inputs)
    served.refresh()
    (family,) = [f for f in served.registry.collect() if f.name == "mail_task_queue_time_seconds"]
    assert len({s.labels["attempt"] for s in family.samples}) == counting.ATTEMPT_MAX + 1


def test_a_clock_that_went_back_makes_no_negative_time(inputs, rows):
    rows.append(settled(duration_s=-1.0, queue_s=-1.0, worker_s=None))
    served = Exporter(inputs)
    served.refresh()
    assert value(served, "mail_task_queue_time_seconds_sum", queue="send", attempt="1") == 0


def test_counters_begin_at_zero_so_that_a_rate_sees_the_first(inputs):
    served = Exporter(inputs)
    for rule in policy.TASKS.values():
        labels = {"task": rule.name.rpartition(".")[2], "queue": rule.queue}
        assert value(served, "mail_task_success_total", **labels) == 0
        assert value(served, "mail_task_retry_total", **labels) == 0


def test_a_backlog_is_taken_in_page_by_page(inputs, rows, monkeypatch):
    monkeypatch.setattr(collecting, "PAGE", 2)
    rows += [execution(id=str(n)) for n in range(5)]
    served = Exporter(inputs)
    assert [served.refresh() for _ in range(4)] == [2, 2, 1, 0]
    assert served._cursor.executions == ("10", "4")


def test_gauges_are_those_of_now(inputs):
    served = Exporter(inputs)
    assert value(served, "mail_tasks_active", worker="mail@here", task="send_email") == 3
    assert value(served, "mail_tasks_reserved", worker="", kind="prefetched") == 1
    assert value(served, "mail_tasks_reserved", worker="", kind="delayed") == 2
    assert value(served, "mail_queue_depth", queue="send", state="ready") == 7
    assert value(served, "mail_queue_depth", queue="send", state="unacked") == 4
    assert value(served, "mail_queue_depth", queue="sync", state="delayed") == 2
    assert value(served, "mail_queue_oldest_age_seconds", queue="send") == 1.5
    assert value(served, "mail_worker_concurrency", worker="mail@here") == 4
    assert value(served, "mail_worker_start_time_seconds", worker="mail@here") == 1700000000
    assert value(served, "mail_worker_memory_bytes", worker="mail@here", process="main", kind="pss") == 50
    assert value(served, "mail_worker_capacity", worker="mail@here") == 3
    assert value(served, "mail_worker_cgroup_bytes", worker="mail@here", kind="limit") == 9
    assert value(served, "mail_beat_tick_age_seconds") == 3
    assert value(served, "mail_dispatcher_round_age_seconds", host="here") == 0.5
    assert value(served, "mail_dispatcher_lag_seconds") == 2.5


def test_an_empty_queue_is_zero_and_not_absent(inputs):
    served = Exporter(inputs)
    for queue in policy.QUEUES:
        assert value(served, "mail_queue_oldest_age_seconds", queue=queue) is not None
        for state in ("ready", "unacked", "delayed"):
            assert value(served, "mail_queue_depth", queue=queue, state=state) is not None


def test_a_database_that_is_away_takes_only_its_own_metrics_away(inputs, caplog):
    served = Exporter(replace(inputs, ended=away, running=away))
    assert served.refresh() == 0
    assert value(served, "mail_exporter_up", source="database") == 0
    assert value(served, "mail_exporter_up", source="broker") == 1
    assert value(served, "mail_queue_depth", queue="send", state="ready") == 7
    assert value(served, "mail_queue_depth", queue="send", state="delayed") is None
    assert value(served, "mail_tasks_reserved", worker="", kind="prefetched") is None
    assert caplog.text.count("database is away") == 1


def test_a_broker_that_is_away_takes_only_its_own_metrics_away(inputs, rows):
    rows.append(settled())
    served = Exporter(replace(inputs, depth=no_broker))
    served.refresh()
    assert value(served, "mail_exporter_up", source="broker") == 0
    assert value(served, "mail_exporter_up", source="database") == 1
    assert value(served, "mail_task_success_total", task="send_email", queue="send") == 1
    assert value(served, "mail_queue_depth", queue="send", state="ready") is None


def test_a_source_that_comes_back_is_said_to_be_up_and_nothing_is_counted_twice(inputs, rows, caplog):
    caplog.set_level("INFO")
    rows.append(settled())
    state = {"away": False}
    served = Exporter(replace(inputs, ended=lambda c: away() if state["away"] else inputs.ended(c)))
    served.refresh()
    state["away"] = True
    served.refresh()
    state["away"] = False
    rows.append(settled())
    served.refresh()
    assert value(served, "mail_exporter_up", source="database") == 1
    assert value(served, "mail_task_success_total", task="send_email", queue="send") == 2


def test_registering_reads_nothing(inputs):
    fields = ("ended", "removed", "kept", "running", "overdue", "waiting", "lag_s", "depth", "workers", "ages")
    Exporter(Inputs(**dict.fromkeys(fields, away)))


# --- rows that the cleanup removes


class Rows:
    """Executions that are there, and what is kept of those that are not."""

    def __init__(self):
        self.there, self.kept, self.removal, self.last = [], {}, 0, 0

    def end(self, xid, **changes):
        self.there.append(settled(xid=str(xid), id=str(uuid.UUID(int=xid)), **changes))

    def remove(self, *xids):
        gone = [row for row in self.there if int(row["xid"]) in xids]
        self.there = [row for row in self.there if int(row["xid"]) not in xids]
        fresh = counting.Counts(self.kept)
        for row in gone:
            fresh.count(row)
        self.kept, self.removal, self.last = fresh.samples(), self.removal + 1, max(self.last, *xids)

    def ended(self, after):
        page = [row for row in self.there if int(row["xid"]) > int(after.executions[0])][: collecting.PAGE]
        if not page:
            return page, after
        return page, Cursor(executions=(page[-1]["xid"], page[-1]["id"]), apart=(page[-1]["xid"], ""))


@pytest.fixture
def table():
    return Rows()


@pytest.fixture
def removing(inputs, table):
    return replace(
        inputs,
        ended=table.ended,
        removed=lambda: (str(table.removal), str(table.last)),
        kept=lambda: table.kept,
    )


def caught_up(inputs):
    served = Exporter(inputs)
    while served.refresh() >= collecting.PAGE:
        pass
    return served


def counters(served):
    """Every sample that was counted, with its value."""
    names = {m.name for m in signals.METRICS if m.kind != "gauge"}
    return {
        (s.name, *sorted(s.labels.items())): pytest.approx(s.value)
        for family in served.registry.collect()
        if family.name in names
        for s in family.samples
    }


def some_executions(table):
    for xid in range(1, 30):
        state = ("succeeded", "failed", "unknown")[xid % 3]
        table.end(xid, state=state, outcome=state, job_error_type="smtp", ordinal=xid % 13 + 1, queue_s=xid / 7)
        table.there[-1] |= {"failures": xid % 4, "worker_s": xid / 3, "duration_s": xid / 5}


def test_a_restart_after_a_removal_counts_what_it_counted_before(removing, table):
    some_executions(table)
    before = counters(caught_up(removing))
    table.remove(*range(3, 20))
    table.remove(20, 2)
    assert counters(caught_up(removing)) == before
    table.remove(*range(30))
    assert counters(caught_up(removing)) == before


def test_a_removal_of_counted_rows_changes_nothing(removing, table):
    some_executions(table)
    served = caught_up(removing)
    before = counters(served)
    table.remove(*range(1, 29))
    for _ in range(3):
        served.refresh()
        assert counters(served) == before


def test_rows_that_are_removed_before_they_are_counted_are_not_lost(removing, table):
    some_executions(table)
    served = caught_up(removing)
    table.end(40, queue="sync", name="email_service.tasks.sync_emails")
    table.end(41)
    table.remove(5, 40)
    table.end(42)
    served.refresh()
    served.refresh()
    assert counters(served) == counters(caught_up(removing))
    assert value(served, "mail_task_success_total", task="sync_emails", queue="sync") == 1


def test_rows_that_are_removed_between_two_pages_are_counted_once(removing, table, monkeypatch):
    monkeypatch.setattr(collecting, "PAGE", 10)
    some_executions(table)
    before = counters(caught_up(removing))
    served = Exporter(removing)
    served.refresh()
    table.remove(*range(5, 25))
    while served.refresh() >= collecting.PAGE:
        pass
    assert counters(served) == before


def test_rows_that_are_removed_while_a_page_is_read_are_counted_once(removing, table):
    some_executions(table)
    before = counters(caught_up(removing))
    waiting = [lambda: table.remove(*range(5, 25))]

    def ended(after):
        page = table.ended(after)
        if waiting:
            waiting.pop()()
        return page

    served = Exporter(replace(removing, ended=ended))
    served.refresh()
    served.refresh()
    assert counters(served) == before


def test_a_sample_that_an_earlier_version_kept_under_other_labels_stays_away(removing, table):
    table.kept = {("mail_task_success_total", (("flavour", "old"),)): 5.0, ("no_metric", ()): 1.0}
    served = caught_up(removing)
    assert "flavour" not in generate_latest(served.registry).decode()
    assert value(served, "mail_task_success_total", task="send_email", queue="send") == 0


# --- workers, from the registry to the page


def test_a_worker_of_this_host_is_shown_with_the_memory_of_its_processes(inputs):
    facts = {
        "pid": os.getpid(),
        "host": "here",
        "started_ns": int(psutil.Process().create_time() * 1e9),
        "concurrency": 4,
    }
    entries = {b"mail@here": json.dumps(facts).encode()}
    served = Exporter(replace(inputs, workers=lambda: registry.workers(entries, "here", now_ns=10**18)))
    for kind in ("rss", "pss", "uss"):
        assert value(served, "mail_worker_memory_bytes", worker="mail@here", process="main", kind=kind) > 1_000_000
