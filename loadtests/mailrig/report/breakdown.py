"""Where the time of one execution went: in the queue, held by the worker, and in each step of its run. Pure.

Rule 1: the pieces of a run add up to the run, whatever its spans say: of spans that overlap the innermost counts, and
of those the one that began last; what no span covers is ``rest``.
Rule 2: what another execution did inside this one's trace (a fan-out) is not this one's time.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from email_service import signals
from mailrig.report import words
from mailrig.report.traces import CONSUMER, SpanRow

REST: Final = "rest"
#: Steps of parts that are not told apart by their spans' names.
_STEPS: Final[Mapping[str, str]] = {"database": "SQL", "broker": "Redis"}
_PUBLISH: Final = signals.SPAN_SEND.partition("{")[0]
#: Mail first, in the order of time; then what surrounds it.
_LAST: Final = ("SQL", "Redis", "publish", REST)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One step of a run, all of its spans together."""

    #: A mail span's name, ``SQL``, ``Redis``, ``publish``, another span's name, or ``rest``.
    step: str
    #: One of ``traces.PARTS``, or ``rest``.
    part: str
    took_ns: int


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """The three times of an execution, one after the other, and the steps of the last."""

    queue: str
    #: From due to the worker's main process; with ``held_ns`` it is ``mail.queue_time_s``.
    queue_ns: int
    #: From there to the start: the prefetch wait.
    held_ns: int
    #: None when nobody knows when it ended.
    run_ns: int | None
    pieces: tuple[Piece, ...] = ()

    @property
    def total_ns(self) -> int:
        """From due to the end, or to the start if there is no end."""
        return self.queue_ns + self.held_ns + (self.run_ns or 0)

    @property
    def text(self) -> str:
        """``waited 1.20 s in queue send · held 3.00 ms · ran 240 ms: smtp connect 4.00 ms, auth 2.00 ms, …``."""
        waited = f"waited {words.duration(self.queue_ns)} in queue {words.clean(self.queue)}"
        ran = "no end is known" if self.run_ns is None else f"ran {words.duration(self.run_ns)}"
        steps = f": {steps_text(self.pieces)}" if self.pieces else ""
        return f"{waited} · held {words.duration(self.held_ns)} · {ran}{steps}"


def steps_text(pieces: Sequence[Piece]) -> str:
    """Steps with their times; a protocol is named where it changes."""
    told, protocol = [], ""
    for piece in pieces:
        first, _, rest = piece.step.partition(" ")
        short = rest if rest and first == protocol else piece.step
        protocol = first if rest else ""
        told.append(f"{short} {words.duration(piece.took_ns)}")
    return ", ".join(told)


def executions(rows: Sequence[SpanRow]) -> Iterator[tuple[SpanRow, Breakdown]]:
    """Each execution of a trace (its process span) with its breakdown; ``rows`` as ``traces.tree`` orders them."""
    for index, row in enumerate(rows):
        if row.execution_id:
            yield row, breakdown(rows, index)


def breakdown(rows: Sequence[SpanRow], index: int) -> Breakdown:
    """Where the time of the execution went whose process span is ``rows[index]``."""
    row = rows[index]
    return Breakdown(
        queue=str(row.attributes.get(signals.MESSAGING_DESTINATION) or row.name.partition(" ")[2]),
        queue_ns=row.wait_ns - row.held_ns,
        held_ns=row.held_ns,
        run_ns=row.duration_ns,
        pieces=_pieces(row, list(_inside(rows, index))),
    )


def _inside(rows: Sequence[SpanRow], index: int) -> Iterator[SpanRow]:
    """Spans below one, without those of executions that it only caused."""
    top, hidden = rows[index].depth, None
    for row in rows[index + 1 :]:
        if row.depth <= top:
            return
        if hidden is not None and row.depth > hidden:
            continue
        hidden = row.depth if row.kind == CONSUMER else None
        if hidden is None:
            yield row


def _pieces(run: SpanRow, inside: Sequence[SpanRow]) -> tuple[Piece, ...]:
    took: dict[tuple[str, str], int] = {}
    for row, time_ns in _exclusive(run, inside):
        key = (REST, REST) if row is None else (_step(row), row.part)
        took[key] = took.get(key, 0) + time_ns
    ordered = sorted(took, key=lambda key: _LAST.index(key[0]) if key[0] in _LAST else -1)
    return tuple(Piece(step=step, part=part, took_ns=took[step, part]) for step, part in ordered)


def _exclusive(run: SpanRow, inside: Sequence[SpanRow]) -> Iterator[tuple[SpanRow | None, int]]:
    """(innermost span, for how long), from the start of the run to its end."""
    begins = sorted((max(row.start_ns, run.start_ns), index) for index, row in enumerate(inside))
    ends = {min(row.end_ns, run.end_ns) for row in inside}
    times = sorted(t for t in {run.start_ns, run.end_ns, *(t for t, _ in begins), *ends} if t <= run.end_ns)
    active: list[tuple[int, int, int]] = []
    position = 0
    for start, end in itertools.pairwise(times):
        while position < len(begins) and begins[position][0] <= start:
            index = begins[position][1]
            heapq.heappush(active, (-inside[index].depth, -inside[index].start_ns, -index))
            position += 1
        while active and inside[-active[0][2]].end_ns <= start:
            heapq.heappop(active)
        if start >= run.start_ns:
            yield (inside[-active[0][2]] if active else None), end - start


def _step(row: SpanRow) -> str:
    if row.part in _STEPS:
        return _STEPS[row.part]
    return "publish" if row.name.startswith(_PUBLISH) else row.name


def title(row: SpanRow) -> str:
    """What an execution was and what became of it: ``send_email, execution 2: retry (smtp)``."""
    task = words.task(row.attributes.get(signals.TASK_NAME) or row.name)
    ordinal = row.attributes.get(signals.EXECUTION_ORDINAL)
    outcome = words.clean(row.attributes.get(signals.EXECUTION_OUTCOME) or "open")
    error = row.attributes.get(signals.ERROR_TYPE)
    which = f", execution {words.clean(ordinal)}" if ordinal else ""
    return f"{task}{which}: {outcome}{f' ({words.clean(error)})' if error else ''}"
