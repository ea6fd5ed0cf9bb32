"""Traces as trees: which ones are worth drawing, and their spans in the order of a waterfall. Pure.

Rule 1: a span whose parent was never written is a root of its own and says so, unless it answers a remote caller.
Rule 2: however a trace is broken (parents in a circle, no end), every span appears exactly once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from email_service import signals
from mailrig.report import words
from mailrig.report.folder import Row, RunFolder
from mailrig.report.timeline import Request, requests

#: OTLP's numbers of kinds and of the status ERROR.
_SERVER, _PRODUCER, CONSUMER = 2, 4, 5
_ERROR: Final = 2
_S: Final = 1e9
#: A wait beyond ten years, or one that is no number, is none.
_WAIT_MAX_S: Final = 3e8
_LINKS_MAX: Final = 3
#: A span that is not one of these parts is ``other``.
PARTS: Final = ("http", "queue", "smtp", "imap", "database", "broker", "other")
_BEAT: Final = "beat"
#: How many traces a list of the slowest shows.
SLOWEST: Final = 5


@dataclass(frozen=True, kw_only=True)
class SpanRow:
    """One line of a waterfall."""

    depth: int
    span_id: str
    #: OTLP's number.
    kind: int
    name: str
    service: str
    #: One of ``PARTS``.
    part: str
    start_ns: int
    end_ns: int
    #: How long the message waited in the queue before the span began; 0 if it is no execution.
    wait_ns: int
    #: The end of that wait: how long the worker held the message before it could begin.
    held_ns: int
    error: bool
    #: Words that a reader must not miss: ``killed``, ``synthesised``, ``retry``, ``parent missing``, an error's
    #: type, and the spans that it is linked to.
    notes: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def duration_ns(self) -> int:
        """How long it took."""
        return self.end_ns - self.start_ns

    @property
    def execution_id(self) -> str:
        """Whose process span this is; empty if it is none's."""
        return str(self.attributes.get(signals.EXECUTION_ID) or "") if self.kind == CONSUMER else ""

    @property
    def synthesised(self) -> bool:
        """Made from an execution row, because its process was killed."""
        return bool(self.attributes.get(signals.SYNTHESISED))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trace worth looking at."""

    trace_id: str
    #: ``send``, ``sync`` or the killed task's name.
    what: str
    #: From the intended time to the end of the job; None when it did not end.
    took_ns: int | None
    task_id: str
    warmup: bool = False


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The traces that a report draws or lists."""

    send: tuple[Candidate, ...] = ()
    sync: tuple[Candidate, ...] = ()
    killed: tuple[Candidate, ...] = ()


def candidates(folder: RunFolder) -> Candidates:
    """The slowest sends and syncs after the warm-up (of all, if nothing else is there), and the killed executions."""
    asked = requests(folder)
    return Candidates(
        send=_slowest(folder, asked, "send"), sync=_slowest(folder, asked, "sync"), killed=tuple(_killed(folder))
    )


def _slowest(folder: RunFolder, asked: Sequence[Request], f: str) -> tuple[Candidate, ...]:
    ended = [request for request in asked if request.f == f and request.e2e_ns is not None]
    ended = [request for request in ended if not request.warmup] or ended
    ended.sort(key=lambda request: request.e2e_ns or 0, reverse=True)
    jobs = {row["job_id"]: row.get("trace_id") for row in folder.jobs}
    found = [
        Candidate(
            trace_id=trace_id, what=f, took_ns=request.e2e_ns, task_id=str(request.task_id), warmup=request.warmup
        )
        for request in ended[: SLOWEST * 2]
        # The job's row knows best: a request that was answered from an idempotency key has another trace.
        if (trace_id := jobs.get(str(request.task_id)) or request.trace_id)
    ]
    return tuple(found[:SLOWEST])


def _killed(folder: RunFolder) -> Iterator[Candidate]:
    ends = {row["job_id"]: row for row in folder.jobs}
    seen = set[str]()
    for row in folder.executions:
        if row.get("outcome") == "killed" and row.get("trace_id") and row["trace_id"] not in seen:
            seen.add(row["trace_id"])
            job = ends.get(row["job_id"], {})
            created, finished = job.get("created_ns"), job.get("finished_ns")
            took = finished - created if isinstance(created, int) and isinstance(finished, int) else None
            yield Candidate(trace_id=row["trace_id"], what=words.task(row["name"]), took_ns=took, task_id=row["job_id"])


def trees(spans: Iterable[Row]) -> dict[str, tuple[SpanRow, ...]]:
    """The tree of each trace."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for span in spans:
        groups[span["trace_id"]].append(span)
    return {trace_id: tree(own, trace_id) for trace_id, own in groups.items()}


def tree(spans: Iterable[Row], trace_id: str) -> tuple[SpanRow, ...]:
    """The spans of one trace, parents before children, siblings in the order of their starts."""
    own = {span["span_id"]: span for span in spans if span["trace_id"] == trace_id}
    children: dict[str | None, list[Row]] = defaultdict(list)
    for span in own.values():
        parent = span["parent_span_id"]
        children[parent if parent in own else None].append(span)
    for siblings in children.values():
        siblings.sort(key=lambda span: (span["start_ns"], span["end_ns"], span["span_id"]))
    rows = list(_walk(children[None], children, own))
    done = {span["span_id"] for _, span in rows}
    # What no root reaches stands in a circle of parents.
    rows += [(0, span) for key, span in own.items() if key not in done]
    return tuple(_row(depth, span, own) for depth, span in rows)


def _walk(
    roots: list[Row], children: Mapping[str | None, list[Row]], own: Mapping[str, Row]
) -> Iterator[tuple[int, Row]]:
    """Depth first, with a stack of its own: a broken trace may be deeper than Python's."""
    stack = [(0, span) for span in reversed(roots)]
    seen: set[str] = set()
    while stack and len(seen) < len(own):
        depth, span = stack.pop()
        if span["span_id"] not in seen:
            seen.add(span["span_id"])
            yield depth, span
            stack += [(depth + 1, child) for child in reversed(children.get(span["span_id"], ()))]


def _row(depth: int, span: Row, own: Mapping[str, Row]) -> SpanRow:
    attributes = span["attributes"]
    wait, held = (_seconds(attributes.get(key)) for key in (signals.QUEUE_TIME_S, signals.PREFETCH_WAIT_S))
    return SpanRow(
        depth=depth,
        span_id=words.clean(span["span_id"]),
        kind=span["kind"],
        name=words.clean(span["name"]),
        service=words.clean(span["service"] or "unknown service"),
        part=part(span),
        start_ns=span["start_ns"],
        end_ns=max(span["end_ns"], span["start_ns"]),
        # Two clocks tell them: the whole is no less than its part.
        wait_ns=max(wait, held),
        held_ns=held,
        error=span["status"] == _ERROR,
        notes=tuple(_notes(span, own)),
        attributes=attributes,
    )


def _seconds(value: object) -> int:
    return round(value * _S) if isinstance(value, int | float) and 0 < value < _WAIT_MAX_S else 0


def _notes(span: Row, own: Mapping[str, Row]) -> Iterator[str]:
    attributes = span["attributes"]
    outcome, error = attributes.get(signals.EXECUTION_OUTCOME), attributes.get(signals.ERROR_TYPE)
    if outcome and outcome != "succeeded":
        yield words.clean(outcome)
    if error:
        yield words.clean(error)
    if span["status"] == _ERROR and not error and outcome in {None, "succeeded"}:
        yield "error"
    if attributes.get(signals.SYNTHESISED):
        yield "synthesised"
    if attributes.get(signals.SMTP_REPLY_CODE):
        yield f"reply {words.clean(attributes[signals.SMTP_REPLY_CODE])}"
    if span["parent_span_id"] and span["parent_span_id"] not in own and span["kind"] != _SERVER:
        yield "parent missing"
    yield from _links(span, own)


def _links(span: Row, own: Mapping[str, Row]) -> Iterator[str]:
    """Links say more than the parent does where they lead elsewhere: a fan-out, the publish of a retry."""
    others = [link for link in span.get("links", ()) if link[1] != span["parent_span_id"]]
    for trace_id, span_id in others[:_LINKS_MAX]:
        near = own.get(span_id) if trace_id == span["trace_id"] else None
        yield words.clean(f"link: {near['name']}" if near else f"link: trace {trace_id} span {span_id}")
    if len(others) > _LINKS_MAX:
        yield f"{len(others) - _LINKS_MAX} more links"


def part(span: Row) -> str:
    """Which part of the house a span belongs to: one of ``PARTS``."""
    name, attributes = span["name"], span["attributes"]
    system = str(attributes.get("db.system.name") or attributes.get("db.system") or "")
    for prefix in ("smtp", "imap"):
        if name.startswith(prefix + " "):
            return prefix
    if system in {"redis", "valkey"}:
        return "broker"
    if system:
        return "database"
    if span["kind"] in {_PRODUCER, CONSUMER} or signals.MESSAGING_SYSTEM in attributes:
        return "queue"
    return "http" if span["kind"] == _SERVER else "other"


def thin(rows: Sequence[SpanRow], limit: int) -> tuple[SpanRow, ...]:
    """At most ``limit`` rows: those with notes or errors and the longest, each with all of its ancestors."""
    if len(rows) <= limit:
        return tuple(rows)
    parents = _parents(rows)
    keep: set[int] = set()
    for index in sorted(range(len(rows)), key=lambda i: (not rows[i].notes, -rows[i].duration_ns, i)):
        chain = {index, *_chain(index, parents)}
        if len(keep | chain) <= limit:
            keep |= chain
    return tuple(row for index, row in enumerate(rows) if index in keep)


def _parents(rows: Sequence[SpanRow]) -> list[int | None]:
    last: dict[int, int] = {}
    parents: list[int | None] = []
    for index, row in enumerate(rows):
        parents.append(last.get(row.depth - 1) if row.depth else None)
        last[row.depth] = index
    return parents


def _chain(index: int, parents: Sequence[int | None]) -> Iterator[int]:
    parent = parents[index]
    while parent is not None:
        yield parent
        parent = parents[parent]
