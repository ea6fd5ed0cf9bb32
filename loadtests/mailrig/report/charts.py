"""The charts of a run over time: rates, latencies, queues, what the worker held, memory.

Each function returns None when the run has no data for it; the page says so then.
A big run is thinned, and never by leaving out a peak: rates and percentiles are per bin (``Axis.bin_ns``), samples of
queues and memory are the highest of each of ``SAMPLES_MAX`` equal times, and beyond ``DOTS_MAX`` requests only the
slowest of each bin and task is a dot.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mailrig.report import words, workers
from mailrig.report.folder import Row, RunFolder
from mailrig.report.links import Links
from mailrig.report.markup import Markup, join
from mailrig.report.plot import (
    Backdrop,
    Chart,
    Point,
    Scale,
    Series,
    dot,
    limit,
    linear,
    lines,
    logarithmic,
    polygon,
    stretched,
    thin_points,
    value_axis,
)
from mailrig.report.timeline import Axis, Request, by_bin, percentile

SAMPLES_MAX: Final = 1000
DOTS_MAX: Final = 1500
#: Queues that have a colour of their own; another one is ``other``.
QUEUES: Final = ("send", "sync", "periodic", "delete", "spam")
#: Memory is drawn for so many processes; the smallest beyond are one area.
PROCESSES_MAX: Final = 24
_SHADES: Final = 6
_MIB: Final = 2**20
_S: Final = 1e9


def queue_class(queue: str) -> str:
    """The class of a queue's colour."""
    return f"c-{queue}" if queue in QUEUES else "c-other"


# --- rates ------------------------------------------------------------------------------------------------------------


def throughput(asked: Sequence[Request], backdrop: Backdrop) -> Chart | None:
    """Accepted and settled requests per second."""
    if not asked:
        return None
    axis = backdrop.axis
    accepted = _rate(axis, asked, lambda r: r.answered_ns if r.answer == "ok" else None)
    settled = _rate(axis, asked, lambda r: r.settled_ns)
    refused = _rate(axis, asked, lambda r: r.answered_ns if r.answer in {"fail", "info"} else None)
    series = [
        Series(name="accepted", colour="c-accepted", points=accepted, unit="rate", style="line area"),
        Series(name="settled", colour="c-settled", points=settled, unit="rate"),
    ]
    if any(value for _, value in refused):
        series.append(Series(name="refused or unanswered", colour="c-fail", points=refused, unit="rate"))
    scale = linear(max(value for line in series for _, value in line.points), 112)
    ok, done = sum(r.answer == "ok" for r in asked), sum(r.settled_ns is not None for r in asked)
    return Chart(
        id="throughput",
        title="Throughput",
        note=f"requests per second, in {_bins(axis)}",
        description=f"{len(asked)} requests, {ok} accepted, {done} settled; at most {_highest(accepted)} accepted and "
        f"{_highest(settled)} settled per second.",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), lines(axis, scale, series)]),
        legend=tuple((line.colour, "line", line.name) for line in series),
        series=tuple(series),
    )


def _rate(axis: Axis, items: Sequence[Request], time_ns: Callable[[Request], int | None]) -> tuple[Point, ...]:
    groups, bin_s = by_bin(axis, items, time_ns), axis.bin_ns / _S
    return _held_to_the_end(axis, [(start, len(groups.get(start, ())) / bin_s) for start in axis.bins()])


def _held_to_the_end(axis: Axis, points: list[Point]) -> tuple[Point, ...]:
    """A bin's value holds for all of it, the last one's too."""
    return (*points, (axis.end_ns, points[-1][1])) if points else ()


def _bins(axis: Axis) -> str:
    return f"bins of {axis.bin_ns // 1_000_000_000} s"


def _highest(points: Iterable[Point]) -> str:
    return words.number(round(max((value for _, value in points), default=0), 2))


# --- latencies --------------------------------------------------------------------------------------------------------


def accept_latency(asked: Sequence[Request], backdrop: Backdrop, links: Links) -> Chart | None:
    """From the intended time to the 202."""
    known = [(request, took) for request in asked if (took := request.accept_ns) is not None]
    what = f"from the intended time to the 202{_without(asked, known)}"
    return _latency(known, backdrop, links, id_="accept", title="Time to accept", what=what)


def e2e_latency(asked: Sequence[Request], backdrop: Backdrop, links: Links) -> Chart | None:
    """From the intended time to the end of the job."""
    known = [(request, took) for request in asked if (took := request.e2e_ns) is not None]
    what = f"from the intended time to the end of the job{_without(asked, known)}"
    return _latency(known, backdrop, links, id_="e2e", title="Time to settle", what=what)


def _without(asked: Sequence[Request], known: Sequence[tuple[Request, int]]) -> str:
    left = len(asked) - len(known)
    return f" ({left:,} without one)" if left else ""


def _latency(
    known: Sequence[tuple[Request, int]], backdrop: Backdrop, links: Links, *, id_: str, title: str, what: str
) -> Chart | None:
    """A dot per request where it was due, and percentiles per bin."""
    if not known:
        return None
    axis = backdrop.axis
    scale = logarithmic((took for _, took in known), 118)
    series = [_percentiles(axis, known, rank, style) for rank, style in ((50, "line ink"), (95, "line dashed ink"))]
    dots = [
        dot(
            *(axis, scale, r.intended_ns, took),
            class_=f"dot {queue_class(r.f)}{' warm' * r.warmup}",
            tip=_tip(r, axis),
            trace=links.index(r.task_id),
        )
        for r, took in _dots(axis, known)
    ]
    values = [took for request, took in known if not request.warmup] or [took for _, took in known]
    return Chart(
        id=id_,
        title=title,
        note=f"{what}; p50 and p95 in {_bins(axis)}",
        description=f"{len(values)} requests after the warm-up: p50 {words.duration(percentile(values, 50))}, "
        f"p95 {words.duration(percentile(values, 95))}, longest {words.duration(max(values))}.",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), dots, lines(axis, scale, series)]),
        legend=(
            *((queue_class(f), "dot", f) for f in sorted({request.f for request, _ in known})),
            ("ink", "line", "p50"),
            ("ink", "dashed", "p95"),
        ),
        series=tuple(series),
    )


def _percentiles(axis: Axis, known: Sequence[tuple[Request, int]], rank: int, style: str) -> Series:
    groups = by_bin(axis, known, lambda item: item[0].intended_ns)
    points = [
        (min(start + axis.bin_ns // 2, axis.end_ns), float(percentile([took for _, took in items], rank)))
        for start, items in sorted(groups.items())
    ]
    return Series(
        name=f"p{rank}", colour="", points=tuple(points), unit="ns", style=style, step=False, gap_ns=3 * axis.bin_ns
    )


def _dots(axis: Axis, known: Sequence[tuple[Request, int]]) -> list[tuple[Request, int]]:
    if len(known) <= DOTS_MAX:
        return list(known)
    groups = by_bin(axis, known, lambda item: item[0].intended_ns)
    kinds = {request.f for request, _ in known}
    per_kind = [[item for item in items if item[0].f == kind] for items in groups.values() for kind in sorted(kinds)]
    return [max(items, key=lambda item: item[1]) for items in per_kind if items]


def _tip(request: Request, axis: Axis) -> str:
    return "\n".join(
        (
            f"{request.f}, due at {axis.label(request.intended_ns)}{' (warm-up)' * request.warmup}",
            f"accepted after {words.duration(request.accept_ns)}",
            f"{words.clean(request.state or 'never settled')} after {words.duration(request.e2e_ns)}",
            f"trace {words.clean(request.trace_id or words.NOTHING)}",
        )
    )


# --- queues -----------------------------------------------------------------------------------------------------------


def queue_depth(folder: RunFolder, backdrop: Backdrop) -> Chart | None:
    """Messages that are ready in the broker, by queue."""
    samples = sorted(folder.queues, key=lambda row: row["time_ns"])
    if not samples:
        return None
    axis, names = backdrop.axis, sorted({name for row in samples for name in row["ready"]}, key=_queue_order)
    series = [
        Series(
            name=words.clean(name),
            colour=queue_class(name),
            points=thin_points(_depth(samples, name), axis, SAMPLES_MAX),
            unit="count",
        )
        for name in names
    ]
    # A queue that was always empty has no line, or it would hide under the axis with a colour in the legend.
    used = [line for line in series if any(value for _, value in line.points)]
    scale = linear(max((value for line in used for _, value in line.points), default=1), 100, whole=True)
    empty = ", ".join(line.name for line in series if line not in used)
    return Chart(
        id="queues",
        title="Queue depth",
        note=f"messages ready in the broker{f'; always empty: {empty}' if empty else ''}",
        description="Highest depth: " + ", ".join(f"{line.name} {_highest(line.points)}" for line in series) + ".",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), lines(axis, scale, used)]),
        legend=tuple((line.colour, "line", line.name) for line in used),
        series=tuple(used),
    )


def _queue_order(name: str) -> tuple[int, str]:
    return (QUEUES.index(name) if name in QUEUES else len(QUEUES), name)


def _depth(samples: Sequence[Row], name: str) -> list[Point]:
    return [(row["time_ns"], row["ready"].get(name, 0)) for row in samples]


def held(folder: RunFolder, backdrop: Backdrop) -> Chart | None:
    """What the worker holds and what runs, against what is allowed."""
    axis = backdrop.axis
    samples, ran = workers.held(folder), workers.running(folder, axis)
    series = [
        Series(name=name, colour=colour, points=thin_points(points, axis, SAMPLES_MAX), unit="count", style=style)
        for name, colour, points, style in (
            ("held", "c-held", samples, "line"),
            ("running", "c-running", ran, "line area"),
        )
        if points
    ]
    if not series:
        return None
    allowed = folder.promise("worker", "held_max")
    top = max(value for line in series for _, value in line.points)
    scale = linear(max(top, allowed or 0) + 1, 84, whole=True)
    promise = limit(scale, allowed, f"allowed: {words.number(allowed)}") if allowed is not None else None
    return Chart(
        id="held",
        title="Held and running",
        note="held: delivered to the worker and not acknowledged, or running",
        description="; ".join(f"at most {_highest(line.points)} {line.name}" for line in series) + ".",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), lines(axis, scale, series[::-1]), promise]),
        legend=tuple((line.colour, "line", line.name) for line in series),
        series=tuple(series),
    )


# --- memory -----------------------------------------------------------------------------------------------------------


def memory_total(folder: RunFolder, backdrop: Backdrop) -> Chart | None:
    """PSS of the worker's processes one on the other, against the budget of all."""
    axis, samples = backdrop.axis, _memory_samples(folder, backdrop.axis)
    if not samples:
        return None
    budget = folder.promise("memory", "total_mib")
    totals = [(time_ns, sum(sizes.values())) for time_ns, sizes in samples]
    top = max(value for _, value in totals)
    scale = linear(max(top, budget or 0) * 1.04, 150)
    promise = limit(scale, budget, f"budget: {words.number(budget)} MiB") if budget is not None else None
    return Chart(
        id="memory-total",
        title="Memory of all worker processes",
        note="PSS in MiB, one process on the other",
        description=f"Highest sum {top:.1f} MiB{f' of {budget:g} MiB' if budget is not None else ''}.",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), _stack(axis, scale, samples), promise]),
        legend=(("m-main", "box", "main process"), ("m-0", "box", "children, oldest first")),
        series=(Series(name="total", colour="", points=tuple(totals), unit="MiB"),),
    )


_Process = tuple[bool, int]
_Sample = tuple[int, dict[_Process, float]]


def _memory_samples(folder: RunFolder, axis: Axis) -> list[_Sample]:
    """(time, MiB by process), the fullest sample of each time; main processes come first."""
    rows = sorted(folder.memory, key=lambda row: row["time_ns"])
    found = {row["time_ns"]: _sizes(row) for row in rows}
    sums = [(time_ns, sum(sizes.values())) for time_ns, sizes in found.items()]
    return [(time_ns, found[time_ns]) for time_ns, _ in thin_points(sums, axis, SAMPLES_MAX)]


def _sizes(row: Row) -> dict[_Process, float]:
    return {(p["kind"] != "worker-main", p["pid"]): p["pss_bytes"] / _MIB for p in row["processes"]}


def _processes(samples: Sequence[_Sample]) -> list[_Process]:
    """In the order in which they were first seen, main processes first."""
    seen = dict.fromkeys(key for _, sizes in samples for key in sizes)
    return sorted(seen, key=lambda key: key[0])


def _shade(keys: Sequence[_Process], key: _Process) -> str:
    return f"m-{keys.index(key) % _SHADES}" if key[0] else "m-main"


def _stack(axis: Axis, scale: Scale, samples: Sequence[_Sample]) -> Markup:
    keys = _processes(samples)
    shown, rest = keys[:PROCESSES_MAX], keys[PROCESSES_MAX:]
    lower, areas = [(time_ns, 0.0) for time_ns, _ in samples], []
    for part in [[key] for key in shown] + ([rest] if rest else []):
        upper = [
            (time_ns, base + sum(sizes.get(key, 0) for key in part))
            for (time_ns, base), (_, sizes) in zip(lower, samples, strict=True)
        ]
        areas.append(polygon(axis, scale, _stairs(lower), _stairs(upper), f"area-solid {_shade(keys, part[0])}"))
        lower = upper
    return stretched(scale.height_px, areas)


def _stairs(points: Sequence[Point]) -> list[Point]:
    """A sample holds until the next: a line between two would show processes that were never there."""
    held = [((time_ns, value), (after, value)) for (time_ns, value), (after, _) in itertools.pairwise(points)]
    return [point for both in held for point in both] + list(points[-1:])


def memory_process(folder: RunFolder, backdrop: Backdrop) -> Chart | None:
    """PSS of each worker process, against the budget of one."""
    axis, samples = backdrop.axis, _memory_samples(folder, backdrop.axis)
    if not samples:
        return None
    budget, keys = folder.promise("memory", "process_mib"), _processes(samples)
    peaks = {key: max(sizes.get(key, 0) for _, sizes in samples) for key in keys}
    drawn = sorted(sorted(keys, key=lambda key: -peaks[key])[:PROCESSES_MAX], key=keys.index)
    series = [
        Series(
            name=_name(key),
            colour=_shade(keys, key),
            points=tuple((t, sizes[key]) for t, sizes in samples if key in sizes),
            unit="MiB",
        )
        for key in drawn
    ]
    scale = linear(max(*peaks.values(), budget or 0) * 1.04, 120)
    promise = limit(scale, budget, f"budget: {words.number(budget)} MiB") if budget is not None else None
    left = f"; the {len(drawn)} biggest of {len(keys)}" if len(keys) > len(drawn) else ""
    return Chart(
        id="memory-process",
        title="Memory of each worker process",
        note=f"PSS in MiB{left}",
        description=f"Highest {max(peaks.values()):.1f} MiB"
        f"{f' of {budget:g} MiB' if budget is not None else ''}; {words.count(len(keys), 'process', 'processes')}.",
        height_px=scale.height_px,
        shapes=join([backdrop.shapes(scale.height_px), value_axis(scale), lines(axis, scale, series), promise]),
        legend=(("m-main", "line", "main process"), ("m-0", "line", "children")),
        series=tuple(series),
    )


def _name(key: _Process) -> str:
    return f"{'child' if key[0] else 'main'} {key[1]}"


# --- for the headline -------------------------------------------------------------------------------------------------


def peaks(folder: RunFolder) -> tuple[float | None, int | None]:
    """The highest PSS of all worker processes in MiB, and the most that the worker held, at any time of the run."""
    memory = max((sum(_sizes(row).values()) for row in folder.memory), default=None)
    return memory, max((number for _, number in workers.held(folder)), default=None)
