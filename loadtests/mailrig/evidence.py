"""What is known of a run after it: rows, ledger, spans and samples, as files beside the history.

Owns the names and shapes of the files under ``evidence/``. Never judges. Callers: runner (writes), checkers' callers
and report (read).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mailrig.history import HistoryError, Op, read_history
from mailrig.scenario import Contract, RigError, load_contract

Row = Mapping[str, Any]

#: Files of JSON lines under evidence/, and so the fields of ``Evidence``.
LINE_FILES: Final = (
    "jobs", "executions", "recipients", "messages", "clients", "folders", "ledger", "spans", "seeded", "processes",
    "queues", "memory", "metrics", "jaeger", "leaks",
)  # fmt: skip


class EvidenceError(RigError):
    """A run's file is torn or not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that was observed in a run. A file that is missing reads as empty, and empty is never a pass."""

    #: Rows of the audit views.
    jobs: tuple[Row, ...] = ()
    executions: tuple[Row, ...] = ()
    recipients: tuple[Row, ...] = ()
    messages: tuple[Row, ...] = ()
    clients: tuple[Row, ...] = ()
    folders: tuple[Row, ...] = ()
    #: What fakemail accepted, refused and spoilt.
    ledger: tuple[Row, ...] = ()
    #: Flat: trace_id, span_id, parent_span_id or None, name, kind, start_ns, end_ns, status, service, pid, attributes,
    #: links (pairs of trace_id and span_id).
    spans: tuple[Row, ...] = ()
    #: Every message that was put into a mailbox before the run.
    seeded: tuple[Row, ...] = ()
    processes: tuple[Row, ...] = ()
    #: Samples of the broker and of the workers' memory.
    queues: tuple[Row, ...] = ()
    memory: tuple[Row, ...] = ()
    #: Scrapes of the exporter (``scraping``); the last one is whole.
    metrics: tuple[Row, ...] = ()
    #: Per trace: how many spans the span files have, which of them Jaeger did not give back. Only if one was asked.
    jaeger: tuple[Row, ...] = ()
    #: A row for each sink that was searched for secrets.
    leaks: tuple[Row, ...] = ()
    #: The broker after the drain: ready by queue, unacked.
    broker: Row = field(default_factory=dict)
    #: run.json.
    run: Row = field(default_factory=dict)
    #: baseline.json: what an earlier run says of the metrics that gates compare; only if this one is held against one.
    baseline: Row = field(default_factory=dict)
    history: tuple[Op, ...] = ()
    #: The promises that the run was made under; None when the run has no copy.
    contract: Contract | None = None
    #: Names of files that were not there.
    missing: frozenset[str] = frozenset()


def load_evidence(run_dir: Path) -> Evidence:
    """The evidence of a run's folder.

    Raises:
        EvidenceError: a line is torn; names file and line.
    """
    folder = run_dir / "evidence"
    lines = {name: folder / f"{name}.jsonl" for name in LINE_FILES}
    wanted = [*lines.values(), folder / "broker.json", run_dir / "run.json", run_dir / "history.jsonl"]
    rows: dict[str, Any] = {name: tuple(_read_lines(file)) for name, file in lines.items()}
    try:
        rows["spans"] = tuple(flatten_spans(rows["spans"]))
    except (KeyError, TypeError, ValueError, StopIteration) as err:
        raise EvidenceError(f"{lines['spans']}: not OTLP JSON: {type(err).__name__}: {err}") from err
    contract = run_dir / "contract.toml"
    return Evidence(
        **rows,
        broker=_read_object(folder / "broker.json"),
        run=_read_object(run_dir / "run.json"),
        baseline=_read_object(run_dir / "baseline.json"),
        history=_read_history(run_dir / "history.jsonl"),
        contract=load_contract(contract) if contract.is_file() else None,
        missing=frozenset(file.name for file in wanted if not file.is_file()),
    )


def flatten_spans(requests: Iterable[Row]) -> Iterator[Row]:
    """The spans of OTLP JSON export requests, one flat row each (``Evidence.spans``)."""
    for request in requests:
        for resource in request["resourceSpans"]:
            about = _attributes(resource.get("resource", {}))
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield _flat(span, about)


def _flat(span: Row, resource: Row) -> Row:
    return {
        "trace_id": span["traceId"],
        "span_id": span["spanId"],
        "parent_span_id": span.get("parentSpanId") or None,
        "name": span["name"],
        "kind": int(span.get("kind", 0)),
        "start_ns": int(span["startTimeUnixNano"]),
        "end_ns": int(span["endTimeUnixNano"]),
        "status": int(span.get("status", {}).get("code", 0)),
        "service": resource.get("service.name"),
        "pid": resource.get("process.pid"),
        "attributes": _attributes(span),
        "links": tuple((link["traceId"], link["spanId"]) for link in span.get("links", ())),
    }


def _attributes(holder: Row) -> dict[str, Any]:
    return {item["key"]: _value(item["value"]) for item in holder.get("attributes", ())}


def _value(value: Row) -> Any:
    """OTLP writes 64-bit integers as strings in JSON; lists nest."""
    kind, content = next(iter(value.items()))
    if kind == "intValue":
        return int(content)
    if kind == "doubleValue":
        return float(content)  # 0.0 may come as 0, and what JSON has no number for as a string
    return [_value(item) for item in content.get("values", ())] if kind == "arrayValue" else content


def _read_lines(file: Path) -> Iterator[Row]:
    if not file.is_file():
        return
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            yield _object(line, f"{file}:{number}")


def _read_object(file: Path) -> Row:
    return _object(file.read_text(encoding="utf-8"), str(file)) if file.is_file() else {}


def _object(text: str, where: str) -> Row:
    try:
        value = json.loads(text)
    except ValueError as err:
        raise EvidenceError(f"{where}: not JSON: {err}") from err
    if not isinstance(value, dict):
        raise EvidenceError(f"{where}: not a JSON object")
    return value


def _read_history(file: Path) -> tuple[Op, ...]:
    try:
        return tuple(read_history(file)) if file.is_file() else ()
    except HistoryError as err:
        raise EvidenceError(str(err)) from err
