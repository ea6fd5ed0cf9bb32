"""After the drain: read the rows, the ledger, the broker and the spans, and write them down as evidence.

Rule 1: reads the ``audit`` views as role mail_audit, the fakes' ledger, the broker's counts and the span files, and
nothing else of the system. Rule 2: everything streams, for a soak's tables don't fit in memory.
Rule 3: never judges; the one thing it adds is the span of an execution that neither its process nor who ended its row
lived to write, and it says so (``mail.synthesised_by``): what is lost without a kill stays lost.
Called by runner, twice: ``collect`` while the stack is up, ``complete`` when it is down and all spans are written.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from psycopg.rows import dict_row

from email_service import signals
from mailrig.evidence import flatten_spans
from mailrig.history import Op
from mailrig.scenario import RigError
from mailrig.stack import QueueSampler

VIEWS: Final = ("jobs", "executions", "recipients", "messages", "clients", "folders")
#: Rows fetched at a time.
_CHUNK: Final = 2000
_CONSUMER: Final = 5
#: Between the commit that ends an execution and the writing of its span, on a machine that is busy: a process that is
#: killed in between leaves a row that has ended and no span. A kill later than this explains nothing.
_WINDOW_NS: Final = 1_000_000_000
_ERROR: Final = 2
_PROCESS: Final = signals.SPAN_PROCESS.partition("{")[0]
#: The service's own work that caused some of a tenant's: beat's round is the root of its syncs' traces.
_ABOVE: Final = (
    " OR (tenant_id = 'system' AND trace_id IN (SELECT trace_id FROM audit.jobs WHERE tenant_id = ANY(%(ours)s)))"
)
_UNACKED: Final = "unacked"
Row = Mapping[str, Any]


class CollectError(RigError):
    """What a run has left behind can't be read."""


def collect(
    evidence: Path, *, audit_url: str, redis_url: str, ledger: Iterable[Row], tenants: Sequence[str] | None = None
) -> None:
    """What only a running stack can tell. The broker first: what it holds then must be in the rows read later.

    With ``tenants``, the rows of others stay where they are; the ledger is the caller's to choose from.
    """
    held = _held(redis_url)
    _write_rows(audit_url, evidence, tenants)
    if held is not None:
        ours = None if tenants is None else {row["job_id"] for row in _lines(evidence / "jobs.jsonl")}
        _write_broker(held, ours, evidence / "broker.json")
    write_lines(evidence / "ledger.jsonl", ledger)


def complete(
    evidence: Path,
    *,
    span_dir: Path | None,
    processes: Iterable[Row],
    history: Sequence[Op],
    keeps: Callable[[str], bool] = lambda _trace_id: True,
) -> None:
    """What is whole only when all processes have ended; without a ``span_dir`` nothing is known of spans.

    ``keeps`` tells whether a trace is one that is recorded.
    """
    ends = [*processes]
    write_lines(evidence / "processes.jsonl", ends)
    if span_dir is not None:
        _write_spans(span_dir, evidence, Deaths(ends, history, evidence), keeps)


def write_lines(path: Path, rows: Iterable[Row]) -> int:
    """One JSON object a line; answers how many."""
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


def unsettled(audit_url: str, tenants: Sequence[str] | None = None) -> frozenset[str]:
    """Ids of the jobs, of these tenants or of all, that have not reached a final state."""
    query = "SELECT job_id FROM audit.jobs WHERE NOT (state = ANY(%s)) AND (%s::text[] IS NULL OR tenant_id = ANY(%s))"
    values = (list(signals.JOB_STATES_FINAL), *[None if tenants is None else list(tenants)] * 2)
    with _audit(audit_url) as connection:
        return frozenset(row["job_id"] for row in connection.execute(query, values))


@contextmanager
def _audit(url: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    try:
        with psycopg.connect(url, connect_timeout=5, row_factory=dict_row) as connection:
            yield connection
    except psycopg.Error as err:
        raise CollectError(f"the audit views can't be read: {str(err).strip()}") from err


def _line(row: Row) -> str:
    return json.dumps(row, separators=(",", ":"), default=str) + "\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


# --- rows and broker --------------------------------------------------------------------------------------------------


def _write_rows(audit_url: str, folder: Path, tenants: Sequence[str] | None) -> None:
    """Each view as a file, all as of one moment."""
    with _audit(audit_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for view in VIEWS:
            write_lines(folder / f"{view}.jsonl", _rows(connection, view, tenants))


def _rows(
    connection: psycopg.Connection[dict[str, Any]], view: str, tenants: Sequence[str] | None
) -> Iterator[dict[str, Any]]:
    query, values = f"SELECT * FROM audit.{view}", None  # noqa: S608  # one of VIEWS
    if tenants is not None:
        query += " WHERE tenant_id = ANY(%(ours)s)" + (_ABOVE if view in {"jobs", "executions"} else "")
        values = {"ours": list(tenants)}
    with connection.cursor(name=f"read_{view}") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(query, values)
        yield from cursor


def _held(redis_url: str) -> dict[str, list[str]] | None:
    """Ids of the messages that are left once all is settled, by queue and not acknowledged; None: nobody answers."""
    broker = QueueSampler(redis_url, Path())
    try:
        ready, sample = broker.waiting(), broker.sample()
    except redis.RedisError:
        return None
    return {**ready, _UNACKED: [entry["task_id"] for entry in sample["unacked"]]}


def _write_broker(held: Mapping[str, Sequence[str]], ours: set[str] | None, path: Path) -> None:
    """How many there are, of ours alone if others have messages there too. No file, without a broker, is no pass."""
    counts = {queue: sum(ours is None or task in ours for task in tasks) for queue, tasks in held.items()}
    unacked = counts.pop(_UNACKED)
    path.write_text(json.dumps({"ready": counts, "unacked": unacked}), encoding="utf-8")


# --- spans ------------------------------------------------------------------------------------------------------------


class Deaths:
    """When the process of an execution was killed, as well as that is known."""

    def __init__(self, processes: Sequence[Row], history: Sequence[Op], evidence: Path) -> None:
        self._kills: dict[int, list[int]] = defaultdict(list)
        for op in history:
            if op.f in {"kill-child", "kill-parent"} and op.type == "ok":
                self._kills[op.value["pid"]].append(op.time_ns)
        self._workers = [row for row in processes if row["kind"] == "worker" and row["reason"] != "stop"]
        self._starts: dict[str, list[int]] = defaultdict(list)
        self._last: dict[tuple[int, int], int] = defaultdict(int)
        for row in _lines(evidence / "executions.jsonl"):
            self._starts[row["job_id"]].append(row["started_ns"])
            process = row["pid"], row["process_start_ns"]
            self._last[process] = max(self._last[process], row["started_ns"])
        self._finishes = {row["job_id"]: row["finished_ns"] for row in _lines(evidence / "jobs.jsonl")}

    def of(self, row: Row) -> int:
        """The nemesis's word; else the end of its worker, the job's next execution or end; else its own start."""
        started = int(row["started_ns"])
        for known in (self._by_nemesis(row), self._starts[row["job_id"]], [self._finishes.get(row["job_id"])]):
            if later := [int(time_ns) for time_ns in known if time_ns is not None and time_ns > started]:
                return min(later)
        return started

    def cut_short(self, row: Row) -> bool:
        """Whether the process of an execution that had ended was killed before it can have written its span."""
        is_last = self._last[row["pid"], row["process_start_ns"]] == row["started_ns"]
        return is_last and any(0 <= int(kill) - int(row["ended_ns"]) <= _WINDOW_NS for kill in self._by_nemesis(row))

    def _by_nemesis(self, row: Row) -> list[int]:
        parents = [p for p in self._workers if p["started_ns"] <= row["started_ns"] <= (p["ended_ns"] or 0)]
        kills = [time_ns for pid in (row["pid"], *(p["pid"] for p in parents)) for time_ns in self._kills[pid]]
        return kills + [p["ended_ns"] for p in parents]


def _write_spans(span_dir: Path, evidence: Path, deaths: Deaths, keeps: Callable[[str], bool]) -> None:
    """All span files as one, and a span for each execution whose process was killed before it could write its own."""
    known: set[str] = set()
    with (evidence / "spans.jsonl").open("w", encoding="utf-8") as out:
        for line in _span_lines(span_dir):
            out.write(line)
            known.update(_execution_ids(line))
        jobs = {row["job_id"]: row for row in _lines(evidence / "jobs.jsonl")}
        for row in _lines(evidence / "executions.jsonl"):
            if row["execution_id"] in known or not keeps(row["trace_id"]):
                continue
            if row["outcome"] in {"killed", None}:
                out.write(_line(synthesise(row, jobs.get(row["job_id"]), end_ns=deaths.of(row))))
            elif deaths.cut_short(row):
                out.write(_line(synthesise(row, jobs.get(row["job_id"]), end_ns=row["ended_ns"])))


def _span_lines(span_dir: Path) -> Iterator[str]:
    """Whole lines only: a process that was killed while it wrote leaves half of one at the end of its file."""
    for file in sorted(span_dir.glob("*.jsonl")):
        with file.open(encoding="utf-8") as lines:
            yield from (line for line in lines if line.endswith("\n"))


def _execution_ids(line: str) -> Iterator[str]:
    # Most lines have none, and parsing is dear.
    if signals.EXECUTION_ID in line:
        for span in flatten_spans([json.loads(line)]):
            if span["name"].startswith(_PROCESS) and signals.EXECUTION_ID in span["attributes"]:
                yield str(span["attributes"][signals.EXECUTION_ID])


def synthesise(row: Row, job: Row | None, *, end_ns: int) -> dict[str, Any]:
    """The process span that a killed process did not live to write, with the id that its inner spans name."""
    outcome = row["outcome"] or "killed"
    error_type = row["error_type"] or ("worker-lost" if outcome == "killed" else None)
    due_ns = max(row["due_ns"], job["created_ns"] if job else 0)
    attributes: dict[str, str | int | float | bool | None] = {
        signals.MESSAGING_SYSTEM: signals.SYSTEM_REDIS,
        signals.MESSAGING_OPERATION_NAME: "process",
        signals.MESSAGING_OPERATION_TYPE: "process",
        signals.MESSAGING_DESTINATION: row["queue"],
        signals.MESSAGING_MESSAGE_ID: row["job_id"],
        signals.TASK_NAME: row["name"],
        signals.TENANT_HASH: hashlib.sha256(row["tenant_id"].encode()).hexdigest()[:16],
        signals.EXECUTION_ID: row["execution_id"],
        signals.EXECUTION_ORDINAL: row["ordinal"],
        signals.EXECUTION_OUTCOME: outcome,
        signals.ERROR_TYPE: error_type,
        signals.WORKER_NODE: row["node"],
        signals.QUEUE_TIME_S: max(0.0, (row["started_ns"] - due_ns) / 1e9),
        signals.PREFETCH_WAIT_S: max(0.0, (row["started_ns"] - row["received_ns"]) / 1e9),
        signals.PSS_BEFORE_BYTES: row["pss_before_bytes"],
        signals.SYNTHESISED: True,
        signals.SYNTHESISED_BY: "mailrig",
    }
    creation = {"traceId": row["trace_id"], "spanId": row["parent_span_id"]}
    span = {
        "traceId": row["trace_id"],
        "spanId": row["span_id"],
        "parentSpanId": row["parent_span_id"] or "",
        "name": signals.SPAN_PROCESS.format(queue=row["queue"]),
        "kind": _CONSUMER,
        "startTimeUnixNano": str(row["started_ns"]),
        "endTimeUnixNano": str(end_ns),
        "attributes": _otlp(attributes),
        "status": {"code": _ERROR if error_type else 0},
        "events": [],
        "links": [creation] if row["parent_span_id"] else [],
    }
    process = _otlp({"service.name": signals.SERVICE_NAMES["worker"], "process.pid": row["pid"]})
    scope = {"scope": {"name": "mailrig"}, "spans": [span]}
    return {"resourceSpans": [{"resource": {"attributes": process}, "scopeSpans": [scope]}]}


def _otlp(attributes: Mapping[str, str | int | float | bool | None]) -> list[dict[str, Any]]:
    return [
        {"key": key, "value": {_KINDS[type(value)]: str(value) if type(value) is int else value}}
        for key, value in attributes.items()
        if value is not None
    ]


#: OTLP writes 64-bit integers as strings in JSON.
_KINDS: Final = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
