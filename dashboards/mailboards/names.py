"""The metrics by short names, each looked up in ``signals`` once; nothing else here spells one out.

Called by rules, alerts and the boards.
"""

from __future__ import annotations

from typing import Final

from mailboards.promql import Series, metric

CONCURRENCY: Final = metric("mail_worker_concurrency")
CAPACITY: Final = metric("mail_worker_capacity")
STARTED: Final = metric("mail_worker_start_time_seconds")
MEMORY: Final = metric("mail_worker_memory_bytes")
CGROUP: Final = metric("mail_worker_cgroup_bytes")
ACTIVE: Final = metric("mail_tasks_active")
RESERVED: Final = metric("mail_tasks_reserved")
SUCCESS: Final = metric("mail_task_success")
FAILURE: Final = metric("mail_task_failure")
RETRY: Final = metric("mail_task_retry")
DURATION: Final = metric("mail_task_duration_seconds")
RETRIES: Final = metric("mail_task_retries")
QUEUE_TIME: Final = metric("mail_task_queue_time_seconds")
WORKER_TIME: Final = metric("mail_task_worker_time_seconds")
DEPTH: Final = metric("mail_queue_depth")
OLDEST: Final = metric("mail_queue_oldest_age_seconds")
EXECUTIONS: Final = metric("mail_executions")
ERRORS: Final = metric("mail_execution_errors")
RECIPIENTS: Final = metric("mail_recipients")
REPLIES: Final = metric("mail_smtp_replies")
STEP: Final = metric("mail_step_seconds")
BEAT_TICK: Final = metric("mail_beat_tick_age_seconds")
DISPATCHER_ROUND: Final = metric("mail_dispatcher_round_age_seconds")
DISPATCHER_LAG: Final = metric("mail_dispatcher_lag_seconds")
BUILD: Final = metric("mail_build_info")

#: What the exporter says of its sources (exporter.UP; a test compares): importing it would take all of the service.
SOURCE_UP: Final = Series(name="mail_exporter_up", labels=("source",))
#: What ``mailrig export`` adds about a run (a test compares).
RUN: Final = Series(name="mailrig_run_info", labels=("run", "scenario", "seed", "commit", "verdict"))
GATE_OBSERVED: Final = Series(name="mailrig_gate_observed", labels=("run", "gate"))
GATE_PASSED: Final = Series(name="mailrig_gate_passed", labels=("run", "gate"))
#: Prometheus' own.
TARGET_UP: Final = Series(name="up", labels=("job", "instance"))
ALERTS: Final = Series(name="ALERTS", labels=("alertname", "alertstate", "severity"))
#: Name of the exporter's job in prometheus.yml.
EXPORTER_JOB: Final = "mail-exporter"
