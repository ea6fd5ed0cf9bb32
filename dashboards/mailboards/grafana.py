"""A board as Grafana's JSON, through the models of its own SDK: kinds of panels, colours, variables, links.

Rule 1: positions and numbers are ours, so that a change of one panel moves no other in the file.
Rule 2: the data source is a variable, so that a board works beside any Prometheus. Called by ``__main__``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any, Final

with warnings.catch_warnings():
    # The SDK prefers its newest schema; the one before is what every Grafana that is still in use reads.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import (
        bargauge,
        common,
        dashboard,
        heatmap,
        prometheus,
        stat,
        table,
        timeseries,
    )
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common as c
    from grafana_foundation_sdk.models import dashboard as d
    from grafana_foundation_sdk.models import heatmap as h
    from grafana_foundation_sdk.models import prometheus as p

from mailboards import names
from mailboards.board import Board, Panel, Place, Query, Row, Variable, places

#: Every board has it, and the links between them go by it.
TAG: Final = "mailrig"
SOURCE: Final = "datasource"
_SOURCE: Final = c.DataSourceRef(type_val="prometheus", uid=f"${{{SOURCE}}}")
_REFERENCES: Final = "ABCDEFGHIJKLMNOP"
#: Above the limit of a stat or a bar: its own colours.
_GOOD: Final = "green"


def draw(board: Board) -> str:
    """The board's JSON, as it is committed."""
    builder = dashboard.Dashboard(board.title).uid(board.uid).description(board.description).tags([TAG])
    builder.time(board.since, "now").refresh(board.refresh).timezone("browser").readonly()
    builder.tooltip(d.DashboardCursorSync.CROSSHAIR).link(_links()).annotation(_firing())
    builder.with_variable(_source())
    for variable in board.variables:
        builder.with_variable(_variable(variable))
    built = builder.build()
    built.panels = [_item(number, place) for number, place in enumerate(places(board), start=1)]
    # Only one that may not be edited is replaced whole by the next version of the file.
    return json.dumps(built, cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _links() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Dashboards").type(d.DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(as_dropdown=False).keep_time(keep_time=True).include_vars(include_vars=True)


def _firing() -> dashboard.AnnotationQuery:
    """Alerts as marks on every graph."""
    query = dashboard.AnnotationQuery().name("Alerts").datasource(_SOURCE).enable(enable=True).icon_color("red")
    query.expr(names.ALERTS.select(alertstate="firing"))
    return query.title_format("{{alertname}}").tag_keys("severity,queue,worker").step("15s")


def _source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable(SOURCE).label("Source").type("prometheus")


def _variable(variable: Variable) -> dashboard.QueryVariable:
    """All at first; 'all' is a pattern that also takes what has no value for the label."""
    made = dashboard.QueryVariable(variable.label).label(variable.label.capitalize()).datasource(_SOURCE)
    made.query({"qryType": 1, "query": variable.query, "refId": "Variable"}).definition(variable.query)
    made.current(d.VariableOption(selected=True, text=["All"], value=["$__all"]))
    made.multi(multi=True).include_all(include_all=True).all_value(".*")
    return made.refresh(d.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(d.VariableSort.ALPHABETICAL_ASC)


# --- panels -----------------------------------------------------------------------------------------------------------


def _item(number: int, place: Place) -> d.Panel | d.RowPanel:
    at = d.GridPos(x=place.x, y=place.y, w=place.width, h=place.height)
    if isinstance(place.item, Row):
        return dashboard.Row(place.item.title).id(number).grid_pos(at).build()
    panel = place.item
    made = _KINDS[panel.kind](panel)
    made.title(panel.title).description(panel.look_for).id(number).grid_pos(at).datasource(_SOURCE).unit(panel.unit)
    for reference, query in zip(_REFERENCES, panel.queries, strict=False):
        made.with_target(_query(reference, query, panel))
    if panel.decimals is not None:
        made.decimals(panel.decimals)
    built: d.Panel = made.build()
    return built


def _query(reference: str, query: Query, panel: Panel) -> prometheus.Dataquery:
    made = prometheus.Dataquery().ref_id(reference).expr(query.expr).legend_format(query.legend)
    made.datasource(_SOURCE).editor_mode(p.QueryEditorMode.CODE).exemplar(panel.exemplars)
    if panel.kind == "table":
        return made.instant().format(p.PromQueryFormat.TABLE)
    if panel.kind == "heatmap":
        return made.range().format(p.PromQueryFormat.HEATMAP)
    return made.instant() if panel.kind == "bars" else made.range()


def _steps(panel: Panel) -> dashboard.ThresholdsConfig:
    """What is below the first limit is good; a limit that is a floor is written as its colour first."""
    first = d.Threshold(value=None, color=_GOOD)
    steps = [first, *(d.Threshold(value=limit.value, color=limit.colour) for limit in panel.limits)]
    if panel.limits and panel.limits[-1].colour == _GOOD:
        steps[0] = d.Threshold(value=None, color="red")
    return dashboard.ThresholdsConfig().mode(d.ThresholdsMode.ABSOLUTE).steps(steps)


def _lines(panel: Panel) -> timeseries.Panel:
    made = timeseries.Panel().fill_opacity(20 if panel.stacked else 5).line_width(1).min(0).thresholds(_steps(panel))
    made.show_points(c.VisibilityMode.AUTO).span_nulls(span_nulls=False)
    made.tooltip(common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING))
    legend = common.VizLegendOptions().display_mode(c.LegendDisplayMode.TABLE).show_legend(show_legend=True)
    made.legend(legend.placement(c.LegendPlacement.BOTTOM).calcs(["lastNotNull", "max"]))
    if panel.limits:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    if panel.stacked:
        made.stacking(common.StackingConfig().mode(c.StackingMode.NORMAL))
    return made


def _reduced() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


def _stat(panel: Panel) -> stat.Panel:
    made = stat.Panel().reduce_options(_reduced()).graph_mode(c.BigValueGraphMode.AREA).thresholds(_steps(panel))
    return made.color_mode(c.BigValueColorMode.VALUE if panel.limits else c.BigValueColorMode.NONE)


def _name(panel: Panel) -> stat.Panel:
    """What the series are called says it all."""
    return _stat(panel).text_mode(c.BigValueTextMode.NAME).graph_mode(c.BigValueGraphMode.NONE)


def _bars(panel: Panel) -> bargauge.Panel:
    made = bargauge.Panel().reduce_options(_reduced()).orientation(c.VizOrientation.HORIZONTAL).min(0)
    return made.display_mode(c.BarGaugeDisplayMode.BASIC).thresholds(_steps(panel))


def _table(panel: Panel) -> table.Panel:
    """One line for each set of labels, one column for each query, in the order of the first column."""
    renamed = {f"Value #{r}": q.legend for r, q in zip(_REFERENCES, panel.queries, strict=False)}
    order = {name: place for place, name in enumerate((*panel.columns, *renamed))}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}
    made = table.Panel().with_transformation(d.DataTransformerConfig(id_val="merge", options={}))
    made.with_transformation(d.DataTransformerConfig(id_val="organize", options=organize)).thresholds(_steps(panel))
    return made.sort_by([common.TableSortByFieldState().display_name(panel.columns[0]).desc(desc=False)])


def _heatmap(panel: Panel) -> heatmap.Panel:
    color = heatmap.HeatmapColorOptions().mode(h.HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    made = heatmap.Panel().calculate(calculate=False).color(color).y_axis(heatmap.YAxisConfig().unit(panel.unit))
    return made.exemplars_color("rgba(0,120,255,0.8)")


#: The SDK's builders share their methods and no type.
_KINDS: Final[dict[str, Callable[[Panel], Any]]] = {
    "lines": _lines,
    "stat": _stat,
    "name": _name,
    "bars": _bars,
    "table": _table,
    "heatmap": _heatmap,
}
