"""What of a stack that others share belongs to a run: entries of the ledger, and spans.

A trace can be shared: beat's round fans out to the clients of all tenants. Of such a trace the run has the way from
the root to its own executions, and not what others' executions did. Called by runner, for a stack that others started.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from email_service import signals
from mailrig.evidence import flatten_spans
from mailrig.jaeger import Jaeger
from mailrig.runner.handover import single_spans

#: A batch of spans is sent after 5 s at the latest; so long is waited for process spans that Jaeger does not have yet.
ARRIVE_WITHIN_S: Final = 15.0
_AGAIN_S: Final = 0.5
_READERS: Final = 4
_PROCESS: Final = signals.SPAN_PROCESS.partition("{")[0]
_TRACE_ID: Final = re.compile(r'"traceId":\s*"([0-9a-f]{32})"')
#: A span's ids, flat row and export request.
_Span = tuple[Mapping[str, Any], str]
Row = Mapping[str, Any]


def own_entries(ledger: Iterable[Row], tenants: Sequence[str], *, since_ns: int) -> Iterator[Row]:
    """Entries of the run's time that name a mailbox of these tenants, or nobody."""
    domains = tuple(f"@{tenant}.example" for tenant in tenants)
    for entry in ledger:
        names = [str(entry[key]) for key in ("user", "mail_from") if entry.get(key)]
        if entry["time_ns"] >= since_ns and (not names or any(name.endswith(domains) for name in names)):
            yield entry


class Borrowed:
    """The spans of a run, from span files of others' or from their Jaeger."""

    def __init__(self, evidence: Path, keeps: Callable[[str], bool] = lambda _trace_id: True) -> None:
        """``evidence`` has the rows already; ``keeps`` tells whether a trace is one that is recorded."""
        lines = (evidence / "executions.jsonl").read_text(encoding="utf-8").splitlines()
        executions = [json.loads(line) for line in lines]
        self._executions = {row["execution_id"] for row in executions}
        self._traces = {row["trace_id"] for row in executions}
        #: Executions whose own process wrote their span, by trace.
        self._awaited = {
            (row["trace_id"], row["span_id"])
            for row in executions
            if row["outcome"] not in {"killed", None} and keeps(row["trace_id"])
        }

    def from_files(self, span_dir: Path, out: Path) -> None:
        """Take them from the folder that all processes of the stack write to."""
        spans: dict[str, list[_Span]] = {trace_id: [] for trace_id in self._traces}
        for file in sorted(span_dir.rglob("*.jsonl")):
            with file.open(encoding="utf-8") as lines:
                # A line that is being written has no end yet.
                for line in (line for line in lines if line.endswith("\n")):
                    if not self._traces.isdisjoint(_TRACE_ID.findall(line)):
                        for span in _spans([json.loads(line)]):
                            spans.get(span[0]["trace_id"], []).append(span)
        self._write(spans.values(), out)

    def from_jaeger(self, jaeger: Jaeger, out: Path, *, within_s: float = ARRIVE_WITHIN_S) -> None:
        """Ask for them by the trace ids of the rows, until each execution that ended has its span.

        Raises:
            JaegerError: it went away.
        """
        deadline, wanted = time.monotonic() + within_s, sorted(self._traces)
        spans: dict[str, list[_Span]] = {}
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            while wanted:
                spans |= zip(wanted, pool.map(lambda t: list(_spans(jaeger.requests(t))), wanted), strict=True)
                found = {(row["trace_id"], row["span_id"]) for trace in spans.values() for row, _ in trace}
                wanted = sorted({trace_id for trace_id, _ in self._awaited - found})
                if not wanted or time.monotonic() > deadline:
                    break
                time.sleep(_AGAIN_S)
        self._write(spans.values(), out)

    def _write(self, traces: Iterable[Sequence[_Span]], out: Path) -> None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("w", encoding="utf-8") as file:
            for trace in traces:
                file.writelines(line + "\n" for line in own_spans(trace, self._executions))


def _spans(requests: Iterable[dict[str, Any]]) -> Iterator[_Span]:
    for request in requests:
        for _, _, line in single_spans(request):
            (row,) = flatten_spans([json.loads(line)])
            yield row, line


def own_spans(trace: Sequence[_Span], executions: set[str]) -> list[str]:
    """The export requests of a trace without what is below the process spans of others' executions."""
    below: dict[str | None, list[str]] = {}
    for row, _ in trace:
        below.setdefault(row["parent_span_id"], []).append(row["span_id"])
    strange, doomed = set(), [row["span_id"] for row, _ in trace if _is_strange(row, executions)]
    while doomed:
        span_id = doomed.pop()
        if span_id not in strange:
            strange.add(span_id)
            doomed += below.get(span_id, ())
    return [line for row, line in trace if row["span_id"] not in strange]


def _is_strange(row: Row, executions: set[str]) -> bool:
    return row["name"].startswith(_PROCESS) and row["attributes"].get(signals.EXECUTION_ID) not in executions
