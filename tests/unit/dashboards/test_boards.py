"""What is committed is what is generated, can be drawn, and asks for nothing that does not exist."""

import json
import re
from itertools import combinations

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from written import BOARD_FILES, FOLDER, board, layout, panels, rules

from email_service import exporter, signals
from mailboards import grafana, names
from mailboards.__main__ import BOARDS, files, main
from mailboards.promql import UnknownNameError, metric, rate
from mailboards.rules import RULES
from mailrig import export

NAME = re.compile(r"(?<![\w:])((?:mail|mailrig|queue:|worker:)[\w:]+|up|ALERTS)(?:\{([^}]*)\})?(?![\w:(])")
KNOWN = {
    name: set(m.labels) | ({"le"} if m.kind == "histogram" else set())
    for m in signals.METRICS
    for name in {
        "gauge": [m.name],
        "counter": [f"{m.name}_total"],
        "histogram": [f"{m.name}_bucket", f"{m.name}_sum", f"{m.name}_count"],
    }[m.kind]
} | {
    exporter.UP.name: set(exporter.UP.labels),
    **{m.name: set(m.labels) for m in export._OURS},
    "up": {"job", "instance"},
    "ALERTS": {"alertname", "alertstate", "severity"},
}
each_board = pytest.mark.parametrize("path", BOARD_FILES, ids=lambda path: path.stem)


def _queries(path):
    return [target["expr"] for panel in panels(path) for target in panel["targets"]]


def _selected(expr):
    """Names with the labels that they are selected by."""
    for name, matchers in NAME.findall(re.sub(r'"[^"]*"', '""', expr)):
        yield name, {part.partition("=")[0].strip(" ~!") for part in matchers.split(",") if part.strip()}


def test_what_is_committed_is_what_make_dashboards_writes():
    for path, text in files():
        assert (FOLDER / path).read_text() == text, f"dashboards/{path}: run make dashboards"
    assert {path.name for path in BOARD_FILES} == {p.name for p, _ in files() if p.suffix == ".json"}


def test_another_folder_gets_the_same(tmp_path):
    assert main([str(tmp_path)]) == 0
    for path, text in files():
        assert (tmp_path / path).read_text() == text


@each_board
def test_grafanas_own_model_reads_it_back_without_a_loss(path):
    read = grafana.d.Dashboard.from_json(board(path))
    again = json.loads(json.dumps(read, cls=JSONEncoder))
    again["panels"], whole = [], {**board(path), "panels": []}
    assert again == whole
    for panel in panels(path):
        drawn = json.loads(json.dumps(grafana.d.Panel.from_json(panel), cls=JSONEncoder))
        # The model names what it does not set.
        assert {key: drawn[key] for key in panel} == panel


def test_no_two_boards_share_a_uid_or_a_title():
    for key in ("uid", "title"):
        assert len({board(path)[key] for path in BOARD_FILES}) == len(BOARDS) == 5


@each_board
def test_panels_have_numbers_and_titles_of_their_own(path):
    every = board(path)["panels"]
    for key in ("id", "title"):
        assert len({panel[key] for panel in every}) == len(every), key


@each_board
def test_panels_lie_on_the_grid_and_not_on_each_other(path):
    def cells(panel):
        at = panel["gridPos"]
        assert at["x"] >= 0, layout(path)
        assert at["x"] + at["w"] <= 24, layout(path)
        return {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}

    for one, other in combinations(board(path)["panels"], 2):
        assert not cells(one) & cells(other), f"{one['title']} lies on {other['title']}\n{layout(path)}"


@each_board
def test_every_panel_says_what_to_look_for_in_which_unit(path):
    for panel in panels(path):
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


@each_board
def test_a_panel_has_queries_of_their_own_letters_from_the_chosen_source(path):
    for panel in panels(path):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])


@each_board
def test_every_name_and_label_that_is_asked_for_is_published(path):
    recorded = {rule["record"]: set(known.series.labels) for rule, known in zip(rules(), RULES, strict=True)}
    for expr in _queries(path):
        found = list(_selected(expr))
        assert found, expr
        for name, labels in found:
            assert name in KNOWN | recorded, f"{name} in {expr}"
            assert labels <= (KNOWN | recorded)[name] | {"job", "run"}, f"labels of {name} in {expr}"


@each_board
def test_every_variable_that_is_used_can_be_chosen(path):
    chosen = {variable["name"] for variable in board(path)["templating"]["list"]}
    used = {name for expr in _queries(path) for name in re.findall(r"\$(\w+)", expr)}
    assert used - {"__rate_interval", "__range"} <= chosen
    assert chosen - used <= {"datasource"}


@pytest.mark.parametrize("promised", sorted({m.document for m in signals.METRICS if m.document}))
def test_what_the_document_promises_is_in_a_panel(promised):
    wanted = {m.name for m in signals.METRICS if m.document == promised}
    wanted |= {rule.series.name for rule in RULES if rule.document == promised}
    shown = {name for path in BOARD_FILES for expr in _queries(path) for name, _ in _selected(expr)}
    assert wanted & ({re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown} | shown)


def test_the_three_that_are_computed_are_recorded():
    assert {rule.document for rule in RULES if rule.document} == {"worker.uptime", "queue.throughput", "queue.latency"}


def test_every_metric_of_the_service_is_in_a_panel():
    shown = {name for path in BOARD_FILES for expr in _queries(path) for name, _ in _selected(expr)}
    # A start is shown by the uptime that is recorded from it, and by its changes.
    assert {m.name for m in signals.METRICS} <= {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in shown}


def test_the_exporters_word_on_its_sources_has_the_exporters_name():
    assert (exporter.UP.name, exporter.UP.labels) == (names.SOURCE_UP.name, names.SOURCE_UP.labels)


def test_a_name_that_is_not_published_stops_the_generation():
    with pytest.raises(UnknownNameError, match="mail_task_sucess"):
        metric("mail_task_sucess")


def test_a_label_that_does_not_exist_stops_the_generation():
    with pytest.raises(UnknownNameError, match="no label 'tenant'"):
        names.SUCCESS.select(tenant="acme")
    with pytest.raises(UnknownNameError, match="no label 'worker'"):
        rate(names.SUCCESS, ("worker",))


def test_a_histogram_is_never_asked_for_as_a_whole():
    with pytest.raises(UnknownNameError, match="histogram"):
        names.DURATION.select()


def test_the_boards_know_the_service_by_its_signals_alone():
    text = "\n".join(path.read_text() for path in (FOLDER / "mailboards").glob("*.py"))
    assert set(re.findall(r"from (?:email_service|mailrig|fakemail)\S* import (.+)", text)) == {"signals"}
    assert not re.findall(r"^import (?:email_service|mailrig|fakemail)", text, re.MULTILINE)


def test_no_name_of_a_metric_is_written_twice():
    """Once in signals, once where it is looked up: what is not there has no other place to come from."""
    text = "\n".join(path.read_text() for path in (FOLDER / "mailboards").glob("*.py"))
    for published in signals.METRICS:
        assert text.count(f'"{published.name}"') <= 1, published.name
