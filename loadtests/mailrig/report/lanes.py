"""The two charts that are rows over time: what was done to the system, and which process ran what.

Beyond ``BARS_MAX`` executions those that did not simply succeed stay first, then the longest; the note says how many
are not drawn.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from mailrig.report import words
from mailrig.report.charts import queue_class
from mailrig.report.folder import RunFolder
from mailrig.report.markup import Markup, element, join
from mailrig.report.plot import Backdrop, Chart, band_label, box, diamond, row_label, upright
from mailrig.report.timeline import Axis, Mark
from mailrig.report.workers import KILLED, Bar, Group, Lane, groups

BARS_MAX: Final = 3000
LANES_MAX: Final = 64
_ROWS_MAX: Final = 12
_MARKS_MAX: Final = 1000
_ROW_PX: Final = 22
_LANE_PX: Final = 24
_BAR_PX: Final = 15
_HEAD_PX: Final = 22
#: What one letter takes of the narrowest plot: a phone's.
_LETTER_PERCENT: Final = 2.9
#: Bars that are no further apart than this look like one; bars twice as wide have room for a line between them.
_SEAM_PERCENT: Final = 0.2


# --- what was done ----------------------------------------------------------------------------------------------------


def events(backdrop: Backdrop) -> Chart | None:
    """Phases, and below them a row for each kind of thing that was done."""
    rows = _rows(backdrop.marks)
    if not rows and not backdrop.phases:
        return None
    axis, height = backdrop.axis, _ROW_PX * (1 + len(rows))
    shapes: list[Markup | None] = [
        backdrop.shapes(height),
        row_label("phase", _ROW_PX / 2),
        *(band_label(axis, phase, _ROW_PX / 2) for phase in backdrop.phases),
    ]
    for index, ((kind, label), marks) in enumerate(rows, start=1):
        top = index * _ROW_PX
        shapes.append(row_label(label, top + _ROW_PX / 2, class_=f"row-label is-{kind}"))
        shapes += [_mark(axis, mark, top) for mark in marks[:_MARKS_MAX]]
    return Chart(
        id="events",
        title="What was done to it",
        note="phases, nemesis, deaths of processes, and faults as they fired",
        description="; ".join(f"{label}: {words.count(len(marks), 'time')}" for (_, label), marks in rows)
        or "Nothing.",
        height_px=height,
        shapes=element("g", shapes, class_="events"),
        legend=tuple(
            (f"pin-{kind}", "pin", text)
            for kind, text in (("nemesis", "nemesis"), ("death", "death"), ("fault", "fault"))
            if any(mark.kind == kind for mark in backdrop.marks)
        ),
    )


def _rows(marks: Sequence[Mark]) -> list[tuple[tuple[str, str], list[Mark]]]:
    """Marks by kind and label, the nemesis first; what is beyond the last row is in it."""
    order = {"nemesis": 0, "death": 1, "fault": 2}
    found: dict[tuple[str, str], list[Mark]] = {}
    for mark in sorted(marks, key=lambda mark: (order[mark.kind], mark.time_ns)):
        key = (mark.kind, mark.label)
        last = ("fault", "more")
        found.setdefault(key if key in found or len(found) < _ROWS_MAX else last, []).append(mark)
    return list(found.items())


def _mark(axis: Axis, mark: Mark, top: int) -> Markup:
    tip = f"{mark.label} at {axis.label(mark.time_ns)}\n{mark.detail}".rstrip()
    return diamond(axis, mark.time_ns, top + _ROW_PX / 2, class_=f"pin-{mark.kind}", tip=tip)


# --- who ran what -----------------------------------------------------------------------------------------------------


def lanes(folder: RunFolder, backdrop: Backdrop, traces: Mapping[str, int]) -> Chart | None:
    """A lane per worker process, under the main process that started it; ``traces`` are those that a bar can open."""
    axis = backdrop.axis
    found = groups(folder, axis)
    if not any(group.lanes for group in found):
        return None
    drawn, bars_left = _thin(found)
    height, shapes = 0, []
    for group in drawn:
        shapes.append(_head(axis, group, height))
        for index, lane in enumerate(group.lanes):
            shapes.append(_lane(axis, lane, traces, height + _HEAD_PX + index * _LANE_PX))
        height += _HEAD_PX + len(group.lanes) * _LANE_PX + 4
    bars = [bar for group in found for lane in group.lanes for bar in lane.bars]
    outcomes = Counter(bar.outcome for bar in bars)
    lanes_left = sum(len(group.lanes) for group in found) - sum(len(group.lanes) for group in drawn)
    return Chart(
        id="lanes",
        title="Worker processes",
        note="a lane per process, a bar per execution, which opens its trace" + _left(bars_left, lanes_left),
        description=f"{words.count(len(bars), 'execution')}: "
        + ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
        + ".",
        height_px=height,
        shapes=join([backdrop.shapes(height), element("g", shapes, class_="lanes")]),
        legend=_legend(bars),
    )


def _left(bars: int, lanes: int) -> str:
    parts = ([f"{bars} short successes"] if bars else []) + (
        [words.count(lanes, "process", "processes")] if lanes else []
    )
    return f"; not drawn: {' and '.join(parts)}" if parts else ""


def _legend(bars: Sequence[Bar]) -> tuple[tuple[str, str, str], ...]:
    queues = sorted({bar.queue for bar in bars})
    outcomes = {bar.outcome for bar in bars}
    return (
        *((f"bar {queue_class(queue)}", "box", words.clean(queue)) for queue in queues),
        *((f"bar c-send o-{o}", "box", o) for o in ("retry", "failed", "unknown", "killed", "open") if o in outcomes),
    )


def _thin(found: Sequence[Group]) -> tuple[list[Group], int]:
    """Groups with fewer lanes and bars, and how many bars are left out."""
    bars = [bar for group in found for lane in group.lanes for bar in lane.bars]
    ordered = sorted(bars, key=lambda bar: (bar.outcome == "succeeded", bar.start_ns - bar.end_ns))
    keep = {id(bar) for bar in ordered[:BARS_MAX]}
    room, groups_left = LANES_MAX, []
    for group in found:
        # Those that died at work are what a reader looks for.
        chosen = sorted(group.lanes, key=lambda lane: (not lane.killed, -len(lane.bars)))[:room]
        room -= len(chosen)
        lanes = tuple(_with_bars(lane, keep) for lane in group.lanes if lane in chosen)
        groups_left.append(_with_lanes(group, lanes))
    return groups_left, len(bars) - len(keep)


def _with_bars(lane: Lane, keep: set[int]) -> Lane:
    bars = tuple(bar for bar in lane.bars if id(bar) in keep)
    return Lane(pid=lane.pid, start_ns=lane.start_ns, end_ns=lane.end_ns, bars=bars)


def _with_lanes(group: Group, lanes: tuple[Lane, ...]) -> Group:
    return Group(
        node=group.node, pid=group.pid, start_ns=group.start_ns, end_ns=group.end_ns, reason=group.reason, lanes=lanes
    )


def _head(axis: Axis, group: Group, top: int) -> Markup:
    """The main process: its life, and its end if that came before its time."""
    middle = top + _HEAD_PX / 2
    name = f"main {group.pid}" if group.pid is not None else "main"
    tip = f"{words.clean(group.node)}: main process {group.pid}"
    life = box(axis, group.start_ns, group.end_ns, middle - 2, 4, class_="life-main", tip=tip)
    shapes: list[Markup] = [row_label(name, middle, class_="row-label is-main"), life]
    if axis.start_ns < group.start_ns:
        shapes.append(_flag(axis, group.start_ns, middle, "started again", "flag", left=True))
    if group.reason == KILLED:
        shapes.append(_flag(axis, group.end_ns, middle, KILLED, "flag is-killed"))
    return element("g", shapes)


def _lane(axis: Axis, lane: Lane, traces: Mapping[str, int], top: int) -> Markup:
    middle = top + _LANE_PX / 2
    life = box(axis, lane.start_ns, lane.end_ns, top + 2, _LANE_PX - 4, class_="life", tip=f"child process {lane.pid}")
    y = middle - _BAR_PX / 2
    bars = [
        box(
            *(axis, bar.start_ns, bar.end_ns, y, _BAR_PX),
            class_=_bar_class(bar),
            tip=_tip(axis, bar),
            trace=traces.get(bar.trace_id),
        )
        for bar in lane.bars
    ]
    marks = [*_seams(axis, lane, y), *_kills(axis, lane, middle)]
    return element("g", row_label(f"child {lane.pid}", middle), life, bars, marks)


def _seams(axis: Axis, lane: Lane, top: float) -> Iterable[Markup]:
    """A line between bars that touch: a worker that is busy all the time ran many executions, not one."""
    for before, bar in itertools.pairwise(lane.bars):
        gap, width = (
            axis.percent(end) - axis.percent(start)
            for start, end in ((before.end_ns, bar.start_ns), (bar.start_ns, bar.end_ns))
        )
        if gap < _SEAM_PERCENT <= width / 2:
            yield upright(axis, bar.start_ns, _BAR_PX + 1, class_="seam", top_px=top - 0.5)


def _bar_class(bar: Bar) -> str:
    plain = bar.outcome == "succeeded"
    return f"bar {queue_class(bar.queue)}" + ("" if plain else f" o-{words.clean(bar.outcome)}")


def _tip(axis: Axis, bar: Bar) -> str:
    return f"{bar.detail}\nfrom {axis.label(bar.start_ns)} to {axis.label(bar.end_ns)}"


def _kills(axis: Axis, lane: Lane, middle: float) -> Iterable[Markup]:
    for bar in lane.bars:
        if bar.outcome == KILLED:
            yield upright(axis, bar.end_ns, _LANE_PX, class_="kill", top_px=middle - _LANE_PX / 2)
            yield _flag(axis, bar.end_ns, middle, "killed", "flag is-killed")


def _flag(axis: Axis, time_ns: int, middle: float, text: str, class_: str, *, left: bool = False) -> Markup:
    """A word beside an instant, right of it unless there is no room or ``left`` is asked for."""
    x = axis.percent(time_ns)
    room = len(text) * _LETTER_PERCENT
    right = x < room if left else x <= max(100 - room, 50)
    return element(
        "text",
        text,
        x=f"{x:.2f}%",
        dx=5 if right else -5,
        y=middle,
        dy="0.34em",
        text_anchor="start" if right else "end",
        class_=class_,
    )
