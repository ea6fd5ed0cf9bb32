"""Every metric, span and attribute name of the service, and the trace edges that must exist: pure data.

The service emits these names and no others; the rig's evidence and report read them. Messaging names follow the
OpenTelemetry semantic conventions 1.44 (messaging, database); mail has no convention, so ``mail.*`` is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# --- span names -----------------------------------------------------------------------------------------------------
#: PRODUCER, creation of a message (API, beat, fan-out); CLIENT, the publish of a retry or of an overdue job.
SPAN_SEND: Final = "send {queue}"
#: CONSUMER, one per execution row.
SPAN_PROCESS: Final = "process {queue}"
#: CLIENT, a copy of a message that found its job leased or finished, and did nothing.
SPAN_SETTLE: Final = "settle {queue}"
SPAN_SMTP_CONNECT: Final = "smtp connect"
SPAN_SMTP_STARTTLS: Final = "smtp starttls"
SPAN_SMTP_AUTH: Final = "smtp auth"
SPAN_SMTP_SEND: Final = "smtp send"
SPAN_IMAP_CONNECT: Final = "imap connect"
SPAN_IMAP_LOGIN: Final = "imap login"
SPAN_IMAP_LIST: Final = "imap list"
SPAN_IMAP_SELECT: Final = "imap select"
#: Flags and expunges of messages that are known.
SPAN_IMAP_CHANGES: Final = "imap changes"
SPAN_IMAP_FETCH: Final = "imap fetch"
SPAN_IMAP_MOVE: Final = "imap move"
SPAN_IMAP_EXPUNGE: Final = "imap expunge"
SPAN_IMAP_CREATE: Final = "imap create"

# --- attributes -----------------------------------------------------------------------------------------------------
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION_NAME: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGING_MESSAGE_ID: Final = "messaging.message.id"
ERROR_TYPE: Final = "error.type"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
DB_SYSTEM: Final = "db.system.name"
DB_NAMESPACE: Final = "db.namespace"
DB_QUERY_SUMMARY: Final = "db.query.summary"
DB_QUERY_TEXT: Final = "db.query.text"
#: SQLSTATE of a statement that failed.
DB_STATUS_CODE: Final = "db.response.status_code"

TASK_NAME: Final = "mail.task.name"
EXECUTION_ID: Final = "mail.execution.id"
EXECUTION_ORDINAL: Final = "mail.execution.ordinal"
EXECUTION_OUTCOME: Final = "mail.execution.outcome"
#: First 16 hexadecimal digits of SHA-256 of the tenant's name.
TENANT_HASH: Final = "mail.tenant.hash"
#: start - max(enqueued, due), seconds.
QUEUE_TIME_S: Final = "mail.queue_time_s"
#: start - received by the worker's main process, seconds.
PREFETCH_WAIT_S: Final = "mail.prefetch_wait_s"
PSS_BEFORE_BYTES: Final = "mail.pss.before_bytes"
PSS_PEAK_BYTES: Final = "mail.pss.peak_bytes"
WORKER_NODE: Final = "mail.worker.node"
#: ``beat`` on the root of a scheduled task.
ROOT_KIND: Final = "mail.root"
#: True on a span that was made from an execution row, because its process was killed.
SYNTHESISED: Final = "mail.synthesised"
SMTP_REPLY_CODE: Final = "mail.smtp.reply_code"
SMTP_RECIPIENTS: Final = "mail.smtp.recipients"
#: Whether the session was kept from an earlier message.
SMTP_REUSED: Final = "mail.smtp.reused"
MAIL_SIZE_BYTES: Final = "mail.size_bytes"
IMAP_FOLDER: Final = "mail.imap.folder"
IMAP_MESSAGES: Final = "mail.imap.messages"
IMAP_BYTES: Final = "mail.imap.bytes"

# --- keys in Redis database 0 ---------------------------------------------------------------------------------------
#: Time of beat's last tick, in nanoseconds: its store is locked by its owner.
KEY_BEAT_TICK: Final = "mail:beat:tick"
#: Time of the last round of a host's dispatcher, in nanoseconds.
KEY_DISPATCHER_ROUND: Final = "mail:dispatcher:{host}"
#: Hash of the running workers: node -> JSON.
KEY_WORKERS: Final = "mail:workers"
#: Remote-control command that tells a worker's progress.
CONTROL_PROGRESS: Final = "mail_progress"

# --- values ---------------------------------------------------------------------------------------------------------
SYSTEM_REDIS: Final = "redis"
#: service.name of each kind of process.
SERVICE_NAMES: Final = {
    "api": "mail-api",
    "worker": "mail-worker",
    "beat": "mail-beat",
    "dispatcher": "mail-dispatcher",
    "exporter": "mail-exporter",
    "flower": "mail-flower",
}
#: Job states; the last three are final.
JOB_STATES: Final = ("queued", "running", "waiting", "succeeded", "failed", "unknown")
JOB_STATES_FINAL: Final = ("succeeded", "failed", "unknown")
#: Execution outcomes; None while it runs.
EXECUTION_OUTCOMES: Final = ("succeeded", "retry", "failed", "unknown", "killed")
#: States of one recipient of one message; the last three are final.
RECIPIENT_STATES: Final = ("queued", "transmitting", "sent", "failed", "unknown")


@dataclass(frozen=True, kw_only=True)
class Edge:
    """A parent and a child span that must meet in a trace; names without their queue."""

    parent: str
    child: str
    #: Which way through the house needs it.
    way: str


EDGES: Final = (
    Edge(parent="SERVER", child="send", way="send"),
    Edge(parent="send", child="process", way="send"),
    Edge(parent="process", child="smtp send", way="send"),
    Edge(parent="SERVER", child="send", way="sync"),
    Edge(parent="send", child="process", way="sync"),
    Edge(parent="process", child="imap fetch", way="sync"),
    Edge(parent="process", child="send", way="periodic"),
)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric that the exporter publishes."""

    #: Prometheus name, unit last.
    name: str
    #: ``gauge``, ``counter`` or ``histogram``.
    kind: str
    labels: tuple[str, ...]
    help: str
    #: The architecture document's name; empty for what it does not promise.
    document: str


METRICS: Final = (
    Metric(
        name="mail_worker_concurrency",
        kind="gauge",
        labels=("worker",),
        document="worker.concurrency",
        help="Worker processes that run tasks.",
    ),
    Metric(
        name="mail_tasks_active",
        kind="gauge",
        labels=("worker", "task"),
        document="task.active",
        help="Executions that are running.",
    ),
    Metric(
        name="mail_tasks_reserved",
        kind="gauge",
        labels=("worker", "kind"),
        document="task.reserved",
        help="Messages that workers hold without running them, and jobs that wait for their due time.",
    ),
    Metric(
        name="mail_task_success",
        kind="counter",
        labels=("task", "queue"),
        document="task.success",
        help="Jobs that succeeded.",
    ),
    Metric(
        name="mail_task_failure",
        kind="counter",
        labels=("task", "queue", "error_type"),
        document="task.failure",
        help="Jobs that failed for good.",
    ),
    Metric(
        name="mail_task_retry",
        kind="counter",
        labels=("task", "queue"),
        document="task.retry",
        help="Executions that ended in a retry.",
    ),
    Metric(
        name="mail_worker_start_time_seconds",
        kind="gauge",
        labels=("worker",),
        document="worker.uptime",
        help="When the worker's main process started, in seconds since the epoch.",
    ),
    Metric(
        name="mail_worker_memory_bytes",
        kind="gauge",
        labels=("worker", "process", "kind"),
        document="memory.usage",
        help="Memory of each worker process: rss, pss or uss.",
    ),
    Metric(
        name="mail_task_duration_seconds",
        kind="histogram",
        labels=("task", "queue", "outcome"),
        document="task.duration",
        help="How long one execution ran.",
    ),
    Metric(
        name="mail_task_retries",
        kind="histogram",
        labels=("task", "outcome"),
        document="task.retries",
        help="Retries that a job took until it settled.",
    ),
    Metric(
        name="mail_task_queue_time_seconds",
        kind="histogram",
        labels=("queue", "attempt"),
        document="task.queue_time",
        help="From max(enqueued, due) to the start of the execution.",
    ),
    Metric(
        name="mail_task_worker_time_seconds",
        kind="histogram",
        labels=("task",),
        document="task.worker_time",
        help="Time on a worker summed over a job's executions.",
    ),
    Metric(
        name="mail_queue_depth",
        kind="gauge",
        labels=("queue", "state"),
        document="queue.depth",
        help="Messages ready in the broker, held by workers, and jobs that wait for their due time.",
    ),
    Metric(
        name="mail_queue_oldest_age_seconds",
        kind="gauge",
        labels=("queue",),
        document="queue.latency",
        help="Age of the oldest job that is due and that no worker has leased.",
    ),
    Metric(
        name="mail_executions",
        kind="counter",
        labels=("task", "queue", "outcome"),
        document="",
        help="Executions that ended, those of killed processes included.",
    ),
    Metric(
        name="mail_execution_errors",
        kind="counter",
        labels=("task", "queue", "error_type"),
        document="",
        help="Executions that ended with an error, by its type.",
    ),
    Metric(
        name="mail_recipients",
        kind="counter",
        labels=("state",),
        document="",
        help="Recipients whose state is final: sent, failed or unknown.",
    ),
    Metric(
        name="mail_smtp_replies",
        kind="counter",
        labels=("code",),
        document="",
        help="Recipients whose state is final, by the code of the reply that decided it.",
    ),
    Metric(
        name="mail_step_seconds",
        kind="histogram",
        labels=("protocol", "step"),
        document="",
        help="How long one execution was in one step of SMTP or IMAP.",
    ),
    Metric(
        name="mail_worker_capacity",
        kind="gauge",
        labels=("worker",),
        document="",
        help="Tasks that a worker can run at once now: its living processes, at most what it takes from the broker.",
    ),
    Metric(
        name="mail_worker_cgroup_bytes",
        kind="gauge",
        labels=("worker", "kind"),
        document="",
        help="Memory of the worker's control group: current and limit; absent without one.",
    ),
    Metric(
        name="mail_beat_tick_age_seconds",
        kind="gauge",
        labels=(),
        document="",
        help="Since beat's last tick.",
    ),
    Metric(
        name="mail_dispatcher_round_age_seconds",
        kind="gauge",
        labels=("host",),
        document="",
        help="Since the last round of a host's dispatcher.",
    ),
    Metric(
        name="mail_dispatcher_lag_seconds",
        kind="gauge",
        labels=(),
        document="",
        help="By how much the publish that has been due for longest is late; 0 when none is due.",
    ),
    Metric(
        name="mail_build_info",
        kind="gauge",
        labels=("version",),
        document="",
        help="1, with the version of the exporter.",
    ),
)
