"""After the drain: read the rows, the ledger and the spans, and write them down as evidence.

Reads the ``audit`` views as role mail_audit, the fakes' ledger and the span files, and nothing else. Called by runner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
import redis
from psycopg.rows import dict_row

from email_service import signals
from mailrig.evidence import flatten_spans
from mailrig.stack.samplers import QueueSampler

VIEWS: Final = ("jobs", "executions", "recipients", "messages", "clients", "folders")
#: Rows fetched at a time: a soak's tables don't fit in memory.
_CHUNK: Final = 2000


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """One JSON object a line; answers how many."""
    count = 0
    with path.open("w") as file:
        for row in rows:
            file.write(json.dumps(row, separators=(",", ":"), default=str) + "\n")
            count += 1
    return count


def collect_rows(audit_url: str, folder: Path) -> None:
    """Each view as a file, all as of one moment."""
    with psycopg.connect(audit_url, connect_timeout=5, row_factory=dict_row) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for view in VIEWS:
            write_lines(folder / f"{view}.jsonl", _rows(connection, view))


def _rows(connection: psycopg.Connection[Any], view: str) -> Iterator[dict[str, Any]]:
    with connection.cursor(name=f"read_{view}") as cursor:
        cursor.itersize = _CHUNK
        cursor.execute(f"SELECT * FROM audit.{view}")  # noqa: S608  # one of VIEWS
        yield from cursor


def unsettled(audit_url: str) -> int:
    """Jobs that have not reached a final state."""
    with psycopg.connect(audit_url, connect_timeout=5) as connection:
        query = "SELECT count(*) FROM audit.jobs WHERE NOT (state = ANY(%s))"
        row = connection.execute(query, (list(signals.JOB_STATES_FINAL),)).fetchone()
        return int(row[0]) if row else 0


def collect_broker(redis_url: str, path: Path) -> None:
    """What is left in the broker once all is settled."""
    try:
        sample = QueueSampler(redis_url, path).sample()
    except redis.RedisError as err:
        path.write_text(json.dumps({"error": type(err).__name__}))
        return
    path.write_text(json.dumps({"ready": sample["ready"], "unacked": len(sample["unacked"])}))


def collect_spans(span_dir: Path, evidence: Path, history: Iterable[Mapping[str, Any]]) -> None:
    """All span files as one, plus a span for each execution whose process was killed before it could write its own."""
    executions = [json.loads(line) for line in (evidence / "executions.jsonl").open()]
    known: set[str] = set()
    with (evidence / "spans.jsonl").open("w") as out:
        for file in sorted(span_dir.glob("*.jsonl")):
            for line in file.open():
                if not line.endswith("\n"):
                    continue
                out.write(line)
                known.update(_execution_ids(line))
        for row in executions:
            if row["outcome"] in {"killed", None} and row["execution_id"] not in known:
                out.write(
                    json.dumps(_synthesised(row, _death_ns(row, executions, history)), separators=(",", ":")) + "\n"
                )


def _execution_ids(line: str) -> Iterator[str]:
    if signals.EXECUTION_ID not in line:
        return
    for span in flatten_spans([json.loads(line)]):
        if signals.EXECUTION_ID in span["attributes"]:
            yield span["attributes"][signals.EXECUTION_ID]


def _death_ns(row: Mapping[str, Any], executions: list[dict[str, Any]], history: Iterable[Mapping[str, Any]]) -> int:
    """When its process was killed, as well as that is known: the nemesis's word, or the next execution of the job."""
    started = int(row["started_ns"])
    kills = [op["time_ns"] for op in history if op["f"] in {"kill-child", "kill-parent"} and op["type"] == "ok"]
    later = [e["started_ns"] for e in executions if e["job_id"] == row["job_id"] and e["started_ns"] > started]
    return int(min((t for t in [*kills, *later] if t > started), default=started))


def _synthesised(row: Mapping[str, Any], end_ns: int) -> dict[str, Any]:
    """The process span that the killed process did not live to write, with the id that its inner spans name."""
    attributes = {
        signals.MESSAGING_SYSTEM: signals.SYSTEM_REDIS,
        signals.MESSAGING_OPERATION_NAME: "process",
        signals.MESSAGING_OPERATION_TYPE: "process",
        signals.MESSAGING_DESTINATION: row["queue"],
        signals.MESSAGING_MESSAGE_ID: row["job_id"],
        signals.TASK_NAME: row["name"],
        signals.EXECUTION_ID: row["execution_id"],
        signals.EXECUTION_OUTCOME: "killed",
        signals.ERROR_TYPE: row["error_type"] or "worker-lost",
        signals.WORKER_NODE: row["node"],
    }
    span = {
        "traceId": row["trace_id"],
        "spanId": row["span_id"],
        "parentSpanId": row["parent_span_id"] or "",
        "name": signals.SPAN_PROCESS.format(queue=row["queue"]),
        "kind": 5,
        "startTimeUnixNano": str(row["started_ns"]),
        "endTimeUnixNano": str(end_ns),
        "attributes": [
            *({"key": k, "value": {"stringValue": str(v)}} for k, v in attributes.items()),
            {"key": signals.EXECUTION_ORDINAL, "value": {"intValue": str(row["ordinal"])}},
            {"key": signals.SYNTHESISED, "value": {"boolValue": True}},
        ],
        "status": {"code": 2},
        "events": [],
        "links": [],
    }
    service = {"key": "service.name", "value": {"stringValue": signals.SERVICE_NAMES["worker"]}}
    pid = {"key": "process.pid", "value": {"intValue": str(row["pid"])}}
    scope = {"scope": {"name": "mailrig"}, "spans": [span]}
    return {"resourceSpans": [{"resource": {"attributes": [service, pid]}, "scopeSpans": [scope]}]}
