"""Every metric, span and attribute name of the service, and the trace edges that must exist: pure data.

The service emits these names and no others; the rig's evidence and report read them. Messaging names follow the
OpenTelemetry semantic conventions 1.44 (messaging, database); mail has no convention, so ``mail.*`` is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: The conventions that these names follow, for whoever reads the spans.
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

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
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
URL_SCHEME: Final = "url.scheme"
USER_AGENT: Final = "user_agent.original"
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
#: On a span that begins a trace: ROOT_BEAT on that of a scheduled task, ROOT_FAN_OUT on one whose asker is linked.
ROOT_KIND: Final = "mail.root"
#: True on a span that was made from an execution row, because its process was killed.
SYNTHESISED: Final = "mail.synthesised"
#: Who made it, where that was not the service.
SYNTHESISED_BY: Final = "mail.synthesised_by"
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
ROOT_BEAT: Final = "beat"
ROOT_FAN_OUT: Final = "fan-out"
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
RECIPIENT_STATES_FINAL: Final = ("sent", "failed", "unknown")
#: All that ``error_type`` is in a row, a span or a metric: the codes of the error tree (a test compares), what ends an
#: execution or a job from outside, and the state of a job that failed without an error. A metric says ``other`` of
#: anything else.
ERROR_TYPES: Final = (
    "authentication", "blob", "config", "conflict", "connect", "credential", "database", "delivery-unknown", "fields",
    "host-not-allowed", "imap", "in-use", "internal-error", "invalid-request", "lease-held", "lease-lost",
    "mail-server", "mail-service", "not-found", "permission-denied", "rate-limit", "smtp", "time-limit",
    "uid-validity", "worker-lost",
    "client-deleted", "shutdown", "failed", "unknown",
)  # fmt: skip
#: Steps of an execution with mail servers, as its row and the metrics name them: a protocol and a word.
MAIL_STEPS: Final = tuple(
    span.replace(" ", ".")
    for span in (
        SPAN_SMTP_CONNECT, SPAN_SMTP_STARTTLS, SPAN_SMTP_AUTH, SPAN_SMTP_SEND, SPAN_IMAP_CONNECT, SPAN_IMAP_LOGIN,
        SPAN_IMAP_LIST, SPAN_IMAP_SELECT, SPAN_IMAP_CHANGES, SPAN_IMAP_FETCH, SPAN_IMAP_MOVE, SPAN_IMAP_EXPUNGE,
        SPAN_IMAP_CREATE,
    )
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Two spans that must meet: a child below its parent, or one that names another without being below it."""

    #: The name without its queue; ``SERVER`` is any HTTP request, ``SQL`` any statement.
    parent: str
    parent_kind: str
    child: str
    child_kind: str
    #: ``child``, or ``link``: from the child to the parent, which may be in another trace.
    kind: str = "child"
    #: Which way through the house needs it.
    way: str
    #: What the rows must say has happened for the edge to be owed; the rig's checkers know each word.
    when: str


def _created(way: str) -> Edge:
    """The request that asks for a job, and the job's creation."""
    return Edge(parent="SERVER", parent_kind="SERVER", child="send", child_kind="PRODUCER", way=way, when="requested")


def _processed(way: str, when: str = "executed") -> tuple[Edge, ...]:
    """An execution is a child of its job's creation, however many there are, and links to it."""
    ends = {"parent": "send", "parent_kind": "PRODUCER", "child": "process", "child_kind": "CONSUMER"}
    return tuple(Edge(**ends, kind=kind, way=way, when=when) for kind in ("child", "link"))


def _step(span: str, way: str, when: str) -> Edge:
    """What an execution does with a server."""
    return Edge(parent="process", parent_kind="CONSUMER", child=span, child_kind="CLIENT", way=way, when=when)


def _published(way: str, when: str) -> Edge:
    """A message that is sent (again) for a job that was created before."""
    return Edge(parent="send", parent_kind="PRODUCER", child="send", child_kind="CLIENT", way=way, when=when)


def _caused(way: str, when: str) -> Edge:
    """The publish that follows an execution names it."""
    ends = {"parent": "process", "parent_kind": "CONSUMER", "child": "send", "child_kind": "CLIENT"}
    return Edge(**ends, kind="link", way=way, when=when)


def _asked(way: str, when: str, kind: str = "child") -> Edge:
    """A job that an execution asks for."""
    ends = {"parent": "process", "parent_kind": "CONSUMER", "child": "send", "child_kind": "PRODUCER"}
    return Edge(**ends, kind=kind, way=way, when=when)


EDGES: Final = (
    _created("send"),
    *_processed("send"),
    _step(SPAN_SMTP_CONNECT, "send", "connected"),
    _step(SPAN_SMTP_STARTTLS, "send", "encrypted"),
    _step(SPAN_SMTP_AUTH, "send", "authenticated"),
    _step(SPAN_SMTP_SEND, "send", "transmitted"),
    _step("SQL", "send", "ended"),
    _created("sync"),
    *_processed("sync"),
    *(_step(span, "sync", "synced") for span in (SPAN_IMAP_CONNECT, SPAN_IMAP_LOGIN, SPAN_IMAP_LIST)),
    *(_step(span, "sync", "fetched") for span in (SPAN_IMAP_SELECT, SPAN_IMAP_FETCH)),
    _step(SPAN_IMAP_CHANGES, "sync", "compared"),
    _step("SQL", "sync", "ended"),
    _created("delete"),
    *_processed("delete"),
    *(_step(span, "delete", "deleted") for span in (SPAN_IMAP_CONNECT, SPAN_IMAP_LOGIN, SPAN_IMAP_LIST)),
    _step(SPAN_IMAP_CREATE, "delete", "trash-made"),
    _step(SPAN_IMAP_MOVE, "delete", "moved"),
    _step(SPAN_IMAP_EXPUNGE, "delete", "expunged"),
    _step("SQL", "delete", "ended"),
    _created("spam"),
    _asked("spam", "arrived"),
    _published("spam", "arrived"),
    *_processed("spam"),
    _step("SQL", "spam", "ended"),
    *_processed("periodic"),
    _asked("periodic", "fanned-out"),
    _asked("periodic", "fanned-out-apart", "link"),
    *_processed("cleanup"),
    # The attempts of a job are siblings: below its creation, never below each other.
    *_processed("retry", "retried"),
    _published("retry", "retried"),
    _caused("retry", "retried"),
    # A soft time limit: the rest of the work goes on in another execution.
    *_processed("continuation", "continued"),
    _published("continuation", "continued"),
    _caused("continuation", "continued"),
    # A process was killed, by itself or with its worker; the message comes back, or another one is sent.
    *_processed("lost", "lost"),
    # The hard time limit: the message is acknowledged, so another one is sent.
    *_processed("time-limit", "cut-off"),
    _caused("time-limit", "cut-off"),
    # A stopping worker puts back what it could not finish.
    *_processed("shutdown", "put-back"),
    # The broker has lost a message, or is slow to hand it out.
    _published("republish", "published-again"),
    # A second copy of a message finds nothing to do.
    Edge(parent="send", parent_kind="PRODUCER", child="settle", child_kind="CLIENT", way="settle", when="refused"),
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
