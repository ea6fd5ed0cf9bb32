"""What of a stack that others started is a run's, and what is said when it can't be attached to."""

from __future__ import annotations

import json

import pytest

from mailrig.clients import target_of
from mailrig.collect import _write_broker
from mailrig.history import HistoryRelay, Op
from mailrig.population import write_stack_file
from mailrig.runner import plan as planning
from mailrig.runner.borrowed import own_entries, own_spans
from mailrig.runner.load import Fleet
from mailrig.runner.plan import PlanError, RunOptions, make_plan
from mailrig.scenario import load_scenario
from mailrig.stack import AttachedStack, Attachment, StackError
from mailrig.stack.attached import _samples

ENV = {
    "MAILRIG_API_URL": "http://api:8000/",
    "MAILRIG_CONTROL_URL": "http://mail:3080",
    "MAILRIG_EXPORTER_URL": "http://exporter:9540/metrics",
    "MAILRIG_SMTP": "mail:3025",
    "MAILRIG_IMAP": "[::1]:3143",
    "DATABASE_AUDIT_URL": "postgresql://mail_audit:secret-one@db/mail",
    "DATABASE_SYSTEM_URL": "postgresql://mail_system:secret-two@db/mail",
    "MAIL_TOKEN_SECRET": "secret-three" * 4,
    "REDIS_URL": "redis://:secret-four@redis:6379/",
}
SECRETS = ("secret-one", "secret-two", "secret-three", "secret-four")


# --- the environment --------------------------------------------------------------------------------------------------


def test_a_stack_is_told_by_the_environment_and_no_secret_is_shown(tmp_path):
    env = {**ENV, "MAILRIG_JAEGER_URL": "http://jaeger:16686", "MAILRIG_SPAN_DIR": str(tmp_path)}
    found = Attachment.read({**env, "MAILRIG_TIME_SCALE": "0.5"})
    assert (found.api_url, found.smtp, found.imap) == ("http://api:8000", ("mail", 3025), ("::1", 3143))
    assert found.exporter_url == "http://exporter:9540"
    assert (found.redis_url, found.time_scale) == ("redis://:secret-four@redis:6379", 0.5)
    assert (found.jaeger_url, found.jaeger_link) == ("http://jaeger:16686", "http://jaeger:16686")
    assert not any(secret in repr(found) for secret in SECRETS)
    link = Attachment.read({**env, "MAILRIG_JAEGER_LINK": "http://127.0.0.1:16686"})
    assert (link.jaeger_url, link.jaeger_link) == ("http://jaeger:16686", "http://127.0.0.1:16686")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"MAILRIG_API_URL": "", "MAIL_TOKEN_SECRET": " "}, "needs MAILRIG_API_URL, MAIL_TOKEN_SECRET"),
        ({"MAILRIG_API_URL": "api:8000"}, "MAILRIG_API_URL must look like http://host:8000"),
        ({"MAILRIG_CONTROL_URL": "http://a:secret-one@h"}, "MAILRIG_CONTROL_URL must look like http://host:8000"),
        ({"MAILRIG_SMTP": "mail"}, "MAILRIG_SMTP must look like mail:3025"),
        ({"MAILRIG_IMAP": "mail:0"}, "MAILRIG_IMAP must look like mail:3025"),
        ({"MAILRIG_SPAN_DIR": "/no/such/folder"}, "MAILRIG_SPAN_DIR = /no/such/folder is no folder"),
        ({"MAILRIG_TIME_SCALE": "2"}, "MAILRIG_TIME_SCALE = 2 is not a number from 0.05 to 1"),
        ({"MAILRIG_TIME_SCALE": "nan"}, "MAILRIG_TIME_SCALE = nan is not a number"),
    ],
)
def test_what_is_missing_or_wrong_is_named_in_one_line(change, told):
    with pytest.raises(StackError) as refused:
        Attachment.read({**ENV, **change})
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not any(secret in str(refused.value) for secret in SECRETS)


def test_a_part_that_does_not_answer_is_named_by_its_variable(tmp_path):
    found = Attachment.read({**ENV, "MAILRIG_API_URL": "http://127.0.0.1:1"})
    stack = AttachedStack(found, log_dir=tmp_path / "logs", state_dir=tmp_path)
    with pytest.raises(StackError, match=r"MAILRIG_API_URL: http://127\.0\.0\.1:1/health does not answer: Connection"):
        stack.start()
    stack.stop()
    assert not list(tmp_path.glob("rig-*"))


# --- the plan ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def attached(monkeypatch):
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("attached")
def test_tenants_get_names_that_nobody_has_and_the_stack_s_own_time_scale_is_the_run_s(monkeypatch):
    monkeypatch.setenv("MAILRIG_TIME_SCALE", "0.25")
    made = [make_plan(RunOptions(scenario="compose", attach=True)) for _ in range(2)]
    names = [plan.scenario.population.tenant_names() for plan in made]
    assert len(set(names[0]) | set(names[1])) == 4
    assert all(name.startswith("t-") for name in names[0])
    assert made[0].scenario.population.addresses()[0][0] == f"user0@{names[0][0]}.example"
    assert made[0].scenario.system.time_scale == 0.25
    assert "time_scale = 0.25" in made[0].scenario.text
    assert made[0].facts == {"attached": True}
    monkeypatch.setenv("MAIL_TRACE_SAMPLE", "0.1")
    assert make_plan(RunOptions(scenario="compose", attach=True)).scenario.system.trace_sample == 0.1


@pytest.mark.usefixtures("attached")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"mutant": "early-ack"}, "--mutate changes a service that the rig starts"),
        ({"ports": {"api": 0, "smtp": 25}}, "--smtp-port is for a part that the rig starts"),
        ({"nemesis": ("kill-parent@3",)}, "kill-parent at 3 s needs the stack's processes"),
        ({"scenario": "concurrency"}, "WORKER_MAX_TASKS_PER_CHILD is for processes that the rig starts"),
    ],
)
def test_what_needs_processes_of_ours_is_refused(options, told):
    with pytest.raises(PlanError, match=told):
        make_plan(RunOptions(**{"scenario": "compose", "attach": True, **options}))


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.usefixtures("attached")
def test_jaeger_is_judged_where_there_are_span_files_to_judge_it_by(monkeypatch, tmp_path, spans):
    monkeypatch.setattr(planning, "_knock", lambda *_: None)
    monkeypatch.setenv("MAILRIG_JAEGER_URL", "http://jaeger:16686")
    if spans:
        monkeypatch.setenv("MAILRIG_SPAN_DIR", str(tmp_path))
    plan = make_plan(RunOptions(scenario="compose", attach=True))
    assert ("jaeger-complete" in {gate.id for gate in plan.scenario.gates}) is spans
    assert plan.otlp.url == "http://jaeger:4318"
    assert plan.facts["jaeger_url"] == "http://jaeger:16686"


def test_our_own_service_is_told_where_its_spans_go_and_which_share_of_them(monkeypatch):
    monkeypatch.setattr(planning, "_knock", lambda *_: None)
    options = RunOptions(scenario="smoke", jaeger="http://h:16686", fleet=Fleet(workers=2, host="h", port=1))
    plan = make_plan(options)
    assert plan.environment()["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://h:4318"
    assert plan.facts == {"attached": False, "jaeger_url": "http://h:16686", "load_workers": 2}
    elsewhere = make_plan(RunOptions(scenario="smoke", otlp="http://c:9/v1/traces"))
    assert (elsewhere.environment(), elsewhere.facts) == (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:9"},
        {"attached": False},
    )


# --- what is ours -----------------------------------------------------------------------------------------------------


def span(span_id, parent, name="sql", execution=None):
    attributes = {"mail.execution.id": execution} if execution else {}
    return {"span_id": span_id, "parent_span_id": parent, "name": name, "attributes": attributes}, span_id


def test_of_a_shared_trace_what_others_executions_did_is_left_out():
    trace = [
        span("root", None, "send periodic"),
        span("round", "root", "process periodic", "e-round"),
        span("ask-1", "round", "send sync"),
        span("mine", "ask-1", "process sync", "e-mine"),
        span("fetch-1", "mine", "imap fetch"),
        span("ask-2", "round", "send sync"),
        span("theirs", "ask-2", "process sync", "e-theirs"),
        span("fetch-2", "theirs", "imap fetch"),
        span("sql-2", "fetch-2"),
    ]
    kept = own_spans(trace, {"e-round", "e-mine"})
    assert kept == ["root", "round", "ask-1", "mine", "fetch-1", "ask-2"]


def test_the_ledger_s_entries_of_others_and_of_earlier_are_left_out():
    ledger = [
        {"time_ns": 5, "user": "user0@t-1-0.example"},
        {"time_ns": 15, "mail_from": "user0@t-1-0.example"},
        {"time_ns": 16, "user": "user0@acme.example"},
        {"time_ns": 17, "kind": "connect"},
        {"time_ns": 18, "user": "user1@t-1-1.example", "mail_from": "user0@acme.example"},
    ]
    kept = [entry["time_ns"] for entry in own_entries(ledger, ["t-1-0", "t-1-1"], since_ns=10)]
    assert kept == [15, 17, 18]


def test_messages_of_others_in_the_broker_are_not_counted(tmp_path):
    held = {"send": ["a", "b", ""], "sync": [], "unacked": ["c", "d"]}
    _write_broker(held, {"a", "d"}, tmp_path / "ours.json")
    _write_broker(held, None, tmp_path / "all.json")
    assert json.loads((tmp_path / "ours.json").read_text()) == {"ready": {"send": 1, "sync": 0}, "unacked": 1}
    assert json.loads((tmp_path / "all.json").read_text()) == {"ready": {"send": 3, "sync": 0}, "unacked": 2}


def test_workers_memory_is_read_from_the_exposition():
    text = (
        "# HELP mail_worker_memory_bytes x\n"
        'mail_worker_memory_bytes{worker="mail@a",process="main",kind="pss"} 1.5e+06\n'
        'mail_worker_start_time_seconds{worker="mail@a"} 1.7e+09\n'
        'mail_other{worker="mail@a"} 3\n'
    )
    assert list(_samples(text)) == [
        ("mail_worker_memory_bytes", {"worker": "mail@a", "process": "main", "kind": "pss"}, 1.5e6),
        ("mail_worker_start_time_seconds", {"worker": "mail@a"}, 1.7e9),
    ]


# --- workers elsewhere ------------------------------------------------------------------------------------------------


def test_a_relay_sends_whole_lines_when_it_is_told_to_and_at_its_end():
    sent = []
    with HistoryRelay("load", sent.append) as history:
        history.append("invoke", "send", {"arrival": 0})
        history.append("ok", "send", {"arrival": 0})
        assert sent == []
        history.flush()
        history.flush()
        history.append("info", "sync", {"arrival": 1})
    ops = [[Op.from_line(line) for line in lines.splitlines()] for lines in sent]
    assert [[(op.index, op.type) for op in part] for part in ops] == [[(0, "invoke"), (1, "ok")], [(2, "info")]]


def test_a_stack_s_text_is_all_that_a_worker_needs(tmp_path):
    class Somewhere:
        api_url, control_url, exporter_url, redis_url, audit_url = "http://a", "", "", "", ""
        smtp = imap = ("", 0)
        pids: dict[str, int] = {}  # noqa: RUF012  # a stand-in

    write_stack_file(tmp_path / "stack.json", Somewhere(), [])
    target = target_of((tmp_path / "stack.json").read_text())
    assert (target.api_url, target.accounts) == ("http://a", ())
    assert load_scenario("compose").nemesis[0].action in planning.DISTANT_ACTIONS
