"""What a dashboard is, before Grafana has a say: rows of panels, and where on the grid they come to lie.

Pure. Called by the boards, which make these values, and by ``grafana``, which draws them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mailboards.promql import Series

#: Columns of Grafana's grid.
GRID: Final = 24


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of a panel, and how its series are called."""

    expr: str
    legend: str
    #: Where there may be nothing to show although all is well: the series that is absent then, and only then.
    needs: Series | None = None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """From this value on, this colour; on a graph also a dashed line."""

    value: float
    colour: str = "red"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One panel."""

    title: str
    #: What to look for, and what it means.
    look_for: str
    queries: tuple[Query, ...]
    #: Grafana's name of the unit.
    unit: str = "short"
    #: ``lines``, ``stat``, ``name``, ``bars``, ``table`` or ``heatmap``.
    kind: str = "lines"
    limits: tuple[Limit, ...] = ()
    width: int = 8
    height: int = 8
    stacked: bool = False
    #: Dots that lead to a trace.
    exemplars: bool = False
    decimals: int | None = None
    #: Of a table: the columns' names by query, and which labels come first, in order.
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, kw_only=True)
class Variable:
    """A choice at the top of a dashboard: the values of a label."""

    label: str
    of: Series

    @property
    def query(self) -> str:
        """As Grafana asks Prometheus for them."""
        return f"label_values({self.of.select()}, {self.label})"


@dataclass(frozen=True, kw_only=True)
class Board:
    """One dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    #: How far back it looks at first.
    since: str = "now-1h"
    refresh: str = "10s"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a heading or a panel lies."""

    item: Row | Panel
    x: int
    y: int
    width: int
    height: int


def places(board: Board) -> Iterator[Place]:
    """Headings and panels from the top left on, as text flows."""
    y = 0
    for row in board.rows:
        yield Place(item=row, x=0, y=y, width=GRID, height=1)
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > GRID:
                x, y, tallest = 0, y + tallest, 0
            yield Place(item=panel, x=x, y=y, width=panel.width, height=panel.height)
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
