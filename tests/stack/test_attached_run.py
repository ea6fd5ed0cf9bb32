"""A run against a stack that somebody else started: the command as users give it, all of it over the environment."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import psycopg
import pytest

from mailrig.evidence import load_evidence

SCENARIO = """
name = "brief"
description = "A second and a half of sends and syncs."
seed = 5
[load]
arrivals = "constant"
warmup_s = 0.5
duration_s = 1
[[load.op]]
f = "send"
rate_per_s = 8
recipients_max = 3
[[load.op]]
f = "sync"
rate_per_s = 4
[population]
tenants = 2
mailboxes = 2
messages_per_mailbox = 6
[system]
[[fault]]
id = "greylist"
point = "smtp.rcpt"
when = { first = 1 }
action = { reply = "451 4.7.1 Try again later" }
[drain]
timeout_s = 20
"""
GATES = {
    "accepted-kept": ("jobs.missing", "== 0"),
    "nothing-failed": ("jobs.failed", "== 0"),
    "send-promise": ("send.promise_broken", "== 0"),
    "seeded-rows": ("sync.rows_wrong", "== 0"),
    "tenant-isolation": ("tenant.leaks", "== 0"),
    "conservation": ("jobs.unbalanced", "== 0"),
    "retry-vector": ("retry.delay_error", "max <= 50ms"),
    "trace-completeness": ("trace.incomplete", "== 0"),
    "memory-process": ("memory.process", "max <= 150MiB"),
}


class Others:
    """A stack of others', and the command that is pointed at it."""

    def __init__(self, live, folder):
        self.live, self.folder = live, folder
        told, stack = live.stack.told, live.stack
        own = ("MAIL", "DATABASE", "REDIS", "CREDENTIAL", "OTEL")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith(own)} | {
            "MAILRIG_API_URL": stack.api_url,
            "MAILRIG_CONTROL_URL": stack.control_url,
            "MAILRIG_EXPORTER_URL": stack.exporter_url,
            "MAILRIG_SMTP": f"{stack.smtp[0]}:{stack.smtp[1]}",
            "MAILRIG_IMAP": f"{stack.imap[0]}:{stack.imap[1]}",
            "MAILRIG_SPAN_DIR": str(stack._options.span_dir),
            "MAILRIG_TIME_SCALE": "0.05",
            **{name: told[name] for name in ("DATABASE_AUDIT_URL", "DATABASE_SYSTEM_URL", "MAIL_TOKEN_SECRET")},
            "REDIS_URL": stack.redis_url,
        }
        gates = (f'[[gate]]\nid = "{i}"\nmetric = "{m}"\ncheck = "{c}"\n' for i, (m, c) in GATES.items())
        (folder / "brief.toml").write_text(SCENARIO + "".join(gates))

    def start(self, *arguments, without=()):
        env = {k: v for k, v in self.env.items() if k not in without}
        argv = [sys.executable, "-m", "mailrig", *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(argv, env=env, cwd=self.folder, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    def run(self, *arguments, without=()):
        with self.start("run", "./brief.toml", "--attach", *arguments, without=without) as process:
            output, _ = process.communicate(timeout=100)
            return process.returncode, output

    @property
    def latest(self):
        return (self.folder / "runs" / "brief" / "latest").resolve()

    @property
    def verdicts(self):
        gates = json.loads((self.latest / "verdict.json").read_text())["gates"]
        return {gate["id"]: (gate["verdict"], gate["detail"]) for gate in gates}


@pytest.fixture
def others(live, tmp_path, no_faults):
    return Others(live, tmp_path)


def tenants_of(run):
    return {row["tenant_id"] for row in load_evidence(run).jobs} - {"system"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_stack_of_others_is_loaded_judged_and_left_as_it_was(others):
    with psycopg.connect(others.live.stack.audit_url) as rows:
        before = set(rows.execute("SELECT job_id, state FROM audit.jobs").fetchall())
    code, output = others.run()
    assert code == 0, output
    assert {verdict for verdict, _ in others.verdicts.values()} == {"pass"}
    evidence = load_evidence(others.latest)
    assert len(evidence.executions) > 15
    assert {row["tenant_id"] for row in evidence.messages} == tenants_of(others.latest)
    assert len(tenants_of(others.latest)) == 2
    assert evidence.run["attached"] is True
    with psycopg.connect(others.live.stack.audit_url) as rows:
        assert before <= set(rows.execute("SELECT job_id, state FROM audit.jobs").fetchall())
    assert others.live.fakes.faults() == []
    assert others.env["MAIL_TOKEN_SECRET"] not in "".join(
        path.read_text(errors="replace") for path in others.latest.rglob("*") if path.is_file()
    )


def test_workers_elsewhere_share_the_load_and_their_histories_are_the_run_s(others):
    """And without span files or a Jaeger nothing is known of traces, which is no pass."""
    port = str(free_port())
    bare = tuple(others.env.keys() - os.environ.keys())
    workers = [others.start("load-worker", "--master", f"127.0.0.1:{port}", without=bare) for _ in range(2)]
    code, output = others.run(
        "--locust-workers", "2", "--locust-bind", f"127.0.0.1:{port}", without=("MAILRIG_SPAN_DIR",)
    )
    told = [worker.communicate(timeout=30)[0] for worker in workers]
    assert (code, [worker.returncode for worker in workers]) == (4, [0, 0]), (output, told)
    assert {gate for gate, (verdict, _) in others.verdicts.items() if verdict != "pass"} == {"trace-completeness"}
    assert others.verdicts["trace-completeness"] == ("unknown", ["no spans were collected"])
    history = load_evidence(others.latest).history
    asked = [op.value["arrival"] for op in history if op.type == "invoke" and op.process.startswith("user:")]
    assert sorted(asked) == list(range(18))
    ended = [op.value["task_id"] for op in history if op.f == "complete"]
    assert len(ended) == len(set(ended)) == 18
    (start,) = [op for op in history if op.f == "phase" and op.value["name"] == "warmup"]
    assert start.value["scheduled"] == 18


def test_what_would_need_the_stack_s_processes_is_refused_before_anything_is_done(others):
    for arguments, told in (
        (("--nemesis", "kill-child@1"), "kill-child at 1 s needs the stack's processes"),
        (("--mutate", "early-ack"), "--mutate changes a service that the rig starts"),
        (("--api-port", "8000"), "--api-port is for a part that the rig starts"),
    ):
        code, output = others.run(*arguments)
        assert (code, output.count("\n")) == (2, 1), output
        assert told in output
    assert not (others.folder / "runs").exists()
