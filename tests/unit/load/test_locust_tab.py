"""The tabs of Locust's page, asked of a Flask application as Locust's page asks its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask, jsonify

from mailrig.clients import Timing
from mailrig.scenario import load_contract, load_scenario, parse_scenario
from mailrig.tab import PATH, Board

MS = 1_000_000


class Events:
    """Locust's events, as far as a board listens."""

    def __init__(self):
        self.report_to_master = SimpleNamespace(add_listener=lambda f: setattr(self, "report", f))
        self.worker_report = SimpleNamespace(add_listener=lambda f: setattr(self, "hear", f))


def timing(name, ms, *, error=None, warmup=False):
    kind = "API" if name.startswith(("accept", "lag")) else "TASK"
    return Timing(kind=kind, name=name, duration_ns=round(ms * MS), error=error, warmup=warmup)


@pytest.fixture
def board():
    return Board(load_scenario("smoke"), load_contract())


@pytest.fixture
def page(board):
    """A browser's side of a page with the tabs."""
    app = Flask(__name__)
    app.add_url_rule("/stats/requests", "stats", lambda: jsonify({"stats": [1], "state": "running"}))
    app.add_url_rule("/stats/other", "other", lambda: jsonify({"stats": [2]}))
    web_ui = SimpleNamespace(app=app, template_args={}, auth_required_if_enabled=lambda view: view)
    board.show(web_ui)
    return SimpleNamespace(client=app.test_client(), arguments=web_ui.template_args)


def test_percentiles_are_of_raw_samples_and_keep_what_is_below_a_millisecond(board):
    board.add([timing("queue send", number / 1000) for number in range(1, 101)])
    board.add([timing("e2e send", 2.5, error="failed"), timing("e2e send", 9_000, warmup=True)])
    assert board.times() == [
        {"name": "TASK e2e send", "count": 1, "failed": 1, "p50": 2.5, "p95": 2.5, "p99": 2.5, "max": 2.5},
        {"name": "TASK queue send", "count": 100, "failed": 0, "p50": 0.05, "p95": 0.095, "p99": 0.099, "max": 0.1},
    ]


def test_each_tab_has_a_table_and_each_row_has_its_columns(board, page):
    board.add([timing("accept send", 700), timing("queue send", 3), timing("e2e send", 40)])
    tabs = {tab["key"]: tab["title"] for tab in page.arguments["extended_tabs"]}
    tables = {
        table["key"]: [column["key"] for column in table["structure"]] for table in page.arguments["extended_tables"]
    }
    answer = page.client.get("/stats/requests").get_json()
    data = {part["key"]: part["data"] for part in answer["extended_stats"]}
    assert (answer["stats"], answer["state"]) == ([1], "running")
    assert tabs.keys() == tables.keys() == data.keys()
    assert all(list(row) == tables[key] for key, rows in data.items() for row in rows)
    assert [row["name"] for row in data["mail-times"]] == ["API accept send", "TASK e2e send", "TASK queue send"]
    states = {row["gate"]: (row["observed"], row["state"]) for row in data["mail-gates"]}
    assert states == {
        "schedule_lag": ("-", "waiting"),
        "send-accept-p95": ("700 ms", "broken"),
        "send-e2e-p95": ("0.04 s", "holds"),
    }


def test_other_answers_of_the_page_are_left_alone(page):
    assert page.client.get("/stats/other").get_json() == {"stats": [2]}


def test_the_same_is_there_as_json(board, page):
    board.add([timing("e2e sync", 1)])
    assert page.client.get(PATH).get_json() == {"times": board.times(), "gates": board.gates()}


def test_what_workers_have_timed_is_shown_by_their_master_once(board):
    worker, events, data = Board(None, load_contract()), Events(), {}
    worker.tell_master(events)
    board.hear_workers(events)
    worker.add([timing("e2e send", 2), timing("e2e send", 4, error="failed"), timing("e2e send", 8, warmup=True)])
    events.report(client_id="w", data=data)
    events.hear(client_id="w", data=data)
    again = {}
    events.report(client_id="w", data=again)
    events.hear(client_id="w", data=again)
    assert [(row["count"], row["failed"], row["max"]) for row in board.times()] == [(2, 1, 4.0)]


def test_a_worker_of_another_kind_tells_nothing_and_breaks_nothing(board):
    events = Events()
    board.hear_workers(events)
    events.hear(client_id="w", data={"stats": []})
    assert board.times() == []


def test_a_new_test_begins_with_empty_tabs(board):
    board.add([timing("e2e send", 9_999)])
    board.reset()
    assert board.times() == []
    assert {row["state"] for row in board.gates()} == {"waiting"}


def test_a_scenario_without_gates_has_an_empty_tab():
    text = load_scenario("smoke").text.partition("[validity]")[0]
    board = Board(parse_scenario(text, Path("bare.toml")), load_contract())
    board.add([timing("e2e send", 1)])
    assert (board.gates(), len(board.times())) == ([], 1)
