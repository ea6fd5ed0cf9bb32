"""The frame of a chart over time, and the shapes in it, as SVG that stays sharp and legible at any width.

Rule 1: across is per cent of the plot, down is pixels. Text, dots and strokes keep their size when the page is
narrower; only paths stand in a nested image that stretches, with strokes that don't.
Rule 2: labels stand outside the plot, in a margin that every chart has alike (page.css), so that all axes align.
Rule 3: colours and strokes belong to page.css; a shape carries a class.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from mailrig.report import words
from mailrig.report.markup import Markup, element
from mailrig.report.timeline import Axis, Mark, Phase

#: Room below a plot for the labels of the time axis.
AXIS_PX: Final = 22
_STRETCH: Final = 1000
_TICKS_MAX: Final = 13
_TICK_SECONDS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
_MINUTE_S: Final = 60
_S: Final = 1_000_000_000
#: A narrower band has no room for its name.
_BAND_LABEL_PX: Final = 640
_PHONE_PX: Final = 236
_CHAR_PX: Final = 7.5

Point = tuple[int, float]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The vertical axis of a plot."""

    height_px: int
    low: float
    high: float
    #: Values with their labels.
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is, in pixels from the top."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        place = math.log(max(value, self.low)) if self.log else value
        return round(self.height_px * (1 - min(max((place - low) / (high - low), 0), 1)), 1)


def linear(top: float, height_px: int, *, whole: bool = False) -> Scale:
    """From zero to a round number that is no less than ``top``; ``whole`` has no tick between whole numbers."""
    top = top if top > 0 else 1
    rough = top / max(round(height_px / 32), 2)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    step = max(math.ceil(step), 1) if whole else step
    steps = max(math.ceil(top / step * 0.999), 1)
    ticks = tuple((index * step, words.number(round(index * step, 9))) for index in range(steps + 1))
    return Scale(height_px=height_px, low=0, high=steps * step, ticks=ticks)


def logarithmic(values_ns: Iterable[float], height_px: int) -> Scale:
    """Durations on a logarithmic scale, from 1, 2 or 5 times a power of ten to another."""
    sizes = [max(value, 1e5) for value in values_ns]  # nothing here is known to better than 0.1 ms
    powers = [10.0**power * factor for power in range(4, 14) for factor in (1, 2, 5)]
    low = max((power for power in powers if power <= min(sizes)), default=powers[0])
    high = min((power for power in powers if power >= max(sizes) and power > low), default=powers[-1])
    inside = [power for power in powers if low <= power <= high]
    # Too many for the height: whole powers of ten only.
    chosen = inside if len(inside) * 16 <= height_px else [p for p in inside if math.log10(p) % 1 < 1e-9]  # noqa: PLR2004  # 16 px a label, and floats
    return Scale(height_px=height_px, low=low, high=high, ticks=tuple((p, _power(p)) for p in chosen), log=True)


def _power(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e9:g} s" if nanoseconds >= _S else f"{nanoseconds / 1e6:g} ms"


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line over time; each value holds until the next."""

    name: str
    #: Class of its colour.
    colour: str
    points: tuple[Point, ...]
    #: ``count``, ``ns``, ``bytes`` or ``rate``: how a tooltip writes its values.
    unit: str
    #: Classes of its stroke; ``area`` fills it down to zero.
    style: str = "line"
    #: Steps, or straight from point to point.
    step: bool = True
    #: A longer silence breaks the line; None never does.
    gap_ns: int | None = None


@dataclass(frozen=True, kw_only=True)
class Backdrop:
    """What all charts of a page have in common: the time axis, phases, and marks of what was done."""

    axis: Axis
    phases: tuple[Phase, ...] = ()
    marks: tuple[Mark, ...] = ()

    def shapes(self, height_px: float) -> Markup:
        """Bands of the phases, and a line for each thing that was done."""
        bands = [
            _span(self.axis, phase.start_ns, phase.end_ns, 0, height_px, class_=f"band band-{phase.name}")
            for phase in self.phases
        ]
        lines = [
            upright(self.axis, mark.time_ns, height_px, class_=f"mark mark-{mark.kind}")
            for mark in self.marks
            if mark.kind != "fault"
        ]
        return element("g", bands, lines, class_="backdrop")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A figure: caption, legend and plot."""

    id: str
    title: str
    #: The unit, and how values were made.
    note: str
    #: What a reader who can't see the plot must know.
    description: str
    height_px: int
    shapes: Markup
    #: (class, kind of swatch, text)
    legend: tuple[tuple[str, str, str], ...] = ()
    #: What the cursor tells; the page's script reads it.
    series: tuple[Series, ...] = field(default=())

    def figure(self, axis: Axis) -> Markup:
        """The chart as markup."""
        return element(
            "figure",
            element(
                "figcaption",
                element("span", self.title, class_="chart-title"),
                element("span", self.note, class_="chart-note"),
                element("span", [_legend(*item) for item in self.legend], class_="legend"),
            ),
            self._svg(axis),
            class_="chart",
            id=f"chart-{self.id}",
        )

    def _svg(self, axis: Axis) -> Markup:
        title, description = f"title-{self.id}", f"desc-{self.id}"
        return element(
            "svg",
            element("title", self.title, id=title),
            element("desc", self.description, id=description),
            self.shapes,
            _time_axis(axis, self.height_px),
            element("line", class_="cursor", x1=0, x2=0, y1=0, y2=self.height_px),
            class_="plot",
            role="img",
            aria_labelledby=f"{title} {description}",
            height=self.height_px + AXIS_PX,
            data_chart=self.id,
            data_height=self.height_px,
        )

    def data(self, axis: Axis) -> Mapping[str, object]:
        """Its series for the script: seconds and values."""
        return {
            "series": [
                {
                    "name": line.name,
                    "unit": line.unit,
                    "x": [round(axis.seconds(time_ns), 3) for time_ns, _ in line.points],
                    "y": [round(value, 3) for _, value in line.points],
                }
                for line in self.series
            ]
        }


def value_axis(scale: Scale) -> Markup:
    """Grid lines with their labels."""
    return element(
        "g",
        [
            (
                element("line", x1=0, x2="100%", y1=scale.at(value), y2=scale.at(value)),
                element("text", label, x=-8, y=scale.at(value), dy="0.32em", text_anchor="end"),
            )
            for value, label in scale.ticks
        ],
        class_="grid",
    )


def limit(scale: Scale, value: float, label: str) -> Markup:
    """A promise: a line across, with what it says."""
    y = scale.at(value)
    return element(
        "g",
        element("line", x1=0, x2="100%", y1=y, y2=y),
        element("text", label, x="100%", dx=-4, y=y - 4, text_anchor="end"),
        class_="limit",
    )


def lines(axis: Axis, scale: Scale, series: Sequence[Series]) -> Markup:
    """Lines and areas, in one image that stretches across the plot."""
    paths = [
        element("path", d=path, class_=f"{style} {line.colour}")
        for line in series
        if line.points
        for style, path in _paths(axis, scale, line)
    ]
    return stretched(scale.height_px, paths)


def _paths(axis: Axis, scale: Scale, series: Series) -> Iterable[tuple[str, str]]:
    path = _path(axis, scale, series)
    if "area" in series.style:
        first, last = _across(axis, series.points[0][0]), _across(axis, series.points[-1][0])
        yield (
            "area",
            f"{path}V{scale.height_px}H{first}Z"
            if series.step
            else f"{path}L{last} {scale.height_px}L{first} {scale.height_px}Z",
        )
    yield series.style.replace("area", "line"), path


def _path(axis: Axis, scale: Scale, series: Series) -> str:
    (time_ns, value), *rest = series.points
    parts, before, last_ns = [f"M{_across(axis, time_ns)} {scale.at(value)}"], scale.at(value), time_ns
    for (time_ns, value), after in itertools.zip_longest(rest, rest[1:]):
        y = scale.at(value)
        if not series.step:
            silent = series.gap_ns is not None and time_ns - last_ns > series.gap_ns
            parts.append(f"{'M' if silent else 'L'}{_across(axis, time_ns)} {y}")
        elif y != before or after is None:
            parts.append(f"H{_across(axis, time_ns)}V{y}")
        before, last_ns = y, time_ns
    return "".join(parts)


def stretched(height_px: float, children: Iterable[Markup]) -> Markup:
    """An image as wide as the plot, 1,000 units across."""
    return element(
        "svg",
        children,
        viewBox=f"0 0 {_STRETCH} {height_px:g}",
        preserveAspectRatio="none",
        width="100%",
        height=height_px,
        class_="stretch",
    )


def polygon(axis: Axis, scale: Scale, lower: Sequence[Point], upper: Sequence[Point], class_: str) -> Markup:
    """The area between two lines; goes into ``stretched``."""
    there = [f"{_across(axis, time_ns)} {scale.at(value)}" for time_ns, value in upper]
    back = [f"{_across(axis, time_ns)} {scale.at(value)}" for time_ns, value in reversed(lower)]
    return element("path", d=f"M{'L'.join(there + back)}Z", class_=class_)


def _across(axis: Axis, time_ns: float) -> str:
    return f"{_STRETCH * axis.share(time_ns):.1f}".removesuffix(".0")


def dot(
    axis: Axis, scale: Scale, time_ns: int, value: float, *, class_: str, tip: str, trace: int | None = None
) -> Markup:
    """One observation; ``trace`` is what it opens."""
    x = f"{axis.percent(time_ns):.2f}%"
    return element("circle", cx=x, cy=scale.at(value), r=2.2, class_=class_, data_tip=tip, data_t=trace)


def box(
    axis: Axis,
    start_ns: int,
    end_ns: int,
    top_px: float,
    height_px: float,
    *,
    class_: str,
    tip: str,
    trace: int | None = None,
) -> Markup:
    """A time from here to there; ``trace`` is what it opens."""
    return _span(axis, start_ns, end_ns, top_px, height_px, class_=class_, data_tip=tip, data_t=trace)


def _span(
    axis: Axis, start_ns: int, end_ns: int, top_px: float, height_px: float, **attributes: str | int | None
) -> Markup:
    left, right = axis.percent(start_ns), axis.percent(end_ns)
    return element(
        "rect", x=f"{left:.2f}%", width=f"{max(right - left, 0):.2f}%", y=top_px, height=height_px, **attributes
    )


def upright(axis: Axis, time_ns: int, height_px: float, *, class_: str, top_px: float = 0) -> Markup:
    """A line at an instant."""
    x = f"{axis.percent(time_ns):.2f}%"
    return element("line", x1=x, x2=x, y1=top_px, y2=top_px + height_px, class_=class_)


def diamond(axis: Axis, time_ns: int, middle_px: float, *, class_: str, tip: str) -> Markup:
    """An instant that matters."""
    shape = element("path", d="M0-6 6 0 0 6-6 0z", class_=class_, data_tip=tip)
    return element("svg", shape, x=f"{axis.percent(time_ns):.2f}%", y=middle_px, class_="pin")


def row_label(text: str, middle_px: float, *, class_: str = "row-label") -> Markup:
    """The name of a row, in the margin."""
    longest = 17
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    tip = text if short != text else None
    return element("text", short, x=-8, y=middle_px, dy="0.32em", text_anchor="end", class_=class_, data_tip=tip)


def band_label(axis: Axis, phase: Phase, middle_px: float) -> Markup | None:
    """The name of a phase in the middle of its band, where it fits."""
    width = axis.share(phase.end_ns) - axis.share(phase.start_ns)
    if width * _BAND_LABEL_PX < len(phase.name) * _CHAR_PX:
        return None
    middle = axis.percent((phase.start_ns + phase.end_ns) / 2)
    wide = width * _PHONE_PX < len(phase.name) * _CHAR_PX
    return element(
        *("text", phase.name),
        x=f"{middle:.2f}%",
        y=middle_px,
        dy="0.32em",
        text_anchor="middle",
        class_="wide-only" if wide else None,
    )


def _time_axis(axis: Axis, height_px: int) -> Markup:
    ticks = []
    for seconds in _tick_seconds(axis):
        x = f"{axis.percent(axis.origin_ns + seconds * _S):.2f}%"
        ticks.append(element("line", x1=x, x2=x, y1=height_px, y2=height_px + 4))
        ticks.append(element("text", _tick(seconds), x=x, y=height_px + 16, text_anchor="middle"))
    base = element("line", x1=0, x2="100%", y1=height_px, y2=height_px)
    return element("g", base, ticks, class_="time-axis")


def _tick_seconds(axis: Axis) -> list[int]:
    low, high = math.ceil(axis.seconds(axis.start_ns)), math.floor(axis.seconds(axis.end_ns))
    step = next((s for s in _TICK_SECONDS if (high - low) / s <= _TICKS_MAX), _TICK_SECONDS[-1])
    return list(range(math.ceil(low / step) * step, high + 1, step))


def _tick(seconds: int) -> str:
    if seconds and seconds % _MINUTE_S == 0:
        return f"{seconds // _MINUTE_S} min"
    minus = "\N{MINUS SIGN}" if seconds < 0 else ""
    return f"{minus}{abs(seconds)} s"


def _legend(colour: str, kind: str, text: str) -> Markup:
    shapes = {
        "line": lambda: element("line", x1=0, x2=18, y1=6, y2=6, class_=f"line {colour}"),
        "dashed": lambda: element("line", x1=0, x2=18, y1=6, y2=6, class_=f"line dashed {colour}"),
        "dot": lambda: element("circle", cx=9, cy=6, r=3, class_=f"dot {colour}"),
        "pin": lambda: element("path", d="M9 0 15 6 9 12 3 6z", class_=colour),
        "box": lambda: element("rect", x=1, y=1, width=16, height=10, class_=colour),
    }
    swatch = element("svg", shapes[kind](), width=18, height=12, aria_hidden="true", class_="swatch")
    return element("span", swatch, text, class_="legend-item")


def thin_points(points: Sequence[Point], axis: Axis, bins: int) -> tuple[Point, ...]:
    """The highest point of each of ``bins`` equal times, so that no peak is lost; all if there are not more."""
    points = [point for point in points if axis.covers(point[0])]
    if len(points) <= bins:
        return tuple(points)
    best: dict[int, Point] = {}
    for point in points:
        place = min(int(axis.share(point[0]) * bins), bins - 1)
        if place not in best or point[1] > best[place][1]:
            best[place] = point
    return tuple(best[place] for place in sorted(best))
