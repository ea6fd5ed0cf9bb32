"""Every query of every panel, put to a real Prometheus that watched a run with kills and faults: none may stay empty.

The configuration is the shipped one; what changes are addresses, and a second for five. The board that compares runs
is asked over blocks that promtool made of the same run's export.
"""

import json
import re
from collections import Counter

import pytest
from programs import find_program
from prometheus_server import PACKAGE, finite
from watched_run import GRAFANA, board, complaints, exported_run, layout, panels, substituted, watched_run

from email_service.signals import JOB_STATES_FINAL
from mailboards.rules import RULES

LIVE = sorted(path.stem for path in GRAFANA.glob("*.json") if path.stem != "runs")
UNKNOWN = "SendsUnknown"
#: Where one core does the work of four, sends do wait for a minute.
SLOW_MACHINE = ("SendsWait",)

# One run of the rig, and what it takes to come up.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    with watched_run(find_program(PACKAGE, "prometheus"), tmp_path_factory.mktemp("watched")) as found:
        yield found


@pytest.fixture(scope="module")
def exported(watched, tmp_path_factory):
    programs = (find_program(PACKAGE, "prometheus"), find_program(PACKAGE, "promtool"))
    with exported_run(programs, tmp_path_factory.mktemp("exported"), watched.run) as found:
        yield found


def _traces(run):
    """The ids of all traces of which the run has a span."""
    return set(re.findall(r"\b[0-9a-f]{32}\b", (run / "evidence" / "spans.jsonl").read_text()))


@pytest.mark.parametrize("name", LIVE)
def test_every_panel_is_alive(name, watched):
    found = complaints(board(name), watched)
    assert not found, "\n".join([*found, layout(board(name))])


def test_every_panel_that_compares_runs_is_alive(exported):
    found = complaints(board("runs"), exported)
    assert not found, "\n".join([*found, layout(board("runs"))])


@pytest.mark.parametrize("name", [*LIVE, "runs"])
def test_every_choice_has_something_to_choose(name, request):
    asked = request.getfixturevalue("exported" if name == "runs" else "watched")
    for variable in board(name)["templating"]["list"]:
        if variable["type"] != "query":
            continue
        series, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"]).groups()
        times = {"start": asked.window.start_s, "end": asked.window.end_s}
        assert asked.prometheus.ask(f"label/{label}/values", **{"match[]": series}, **times), variable["name"]


@pytest.mark.parametrize("broken", ["mail_task_success_total", "mail_queue_depth", "mail_step_seconds_bucket"])
def test_a_misspelt_metric_is_told_with_its_dashboard_panel_and_query(broken, watched):
    for name in LIVE:
        text = (GRAFANA / f"{name}.json").read_text()
        dashboard = json.loads(text.replace(broken, broken.replace("mail_", "mial_")))
        told = complaints(dashboard, watched)
        lost = [panel["title"] for panel in panels(dashboard) if "mial_" in json.dumps(panel["targets"])]
        for title in lost:
            assert any(line.startswith(f"{dashboard['title']} / {title} / ") and "mial_" in line for line in told)


def test_a_query_that_is_no_query_is_told(watched):
    dashboard = board("overview")
    panels(dashboard)[0]["targets"][0]["expr"] = "sum by ("
    (told,) = complaints(dashboard, watched)
    assert "refused" in told
    assert panels(dashboard)[0]["title"] in told


def _dots(panel, watched):
    """Trace ids beside a panel's lines, and whether there is anything that could have one."""
    queries = [substituted(target["expr"], watched.window) for target in panel["targets"]]
    found = {e["trace_id"] for query in queries for e in watched.prometheus.exemplars(query, watched.window)}
    return found, any(max(finite(watched.prometheus.over(query, watched.window)), default=0) > 0 for query in queries)


def test_the_dots_on_the_graphs_are_traces_of_the_run(watched):
    traces, dotted = _traces(watched.run), 0
    for name in LIVE:
        for panel in panels(board(name)):
            if not panel["targets"][0].get("exemplar"):
                continue
            found, something_happened = _dots(panel, watched)
            assert found or not something_happened, f"{name} / {panel['title']}: no dots"
            assert found <= traces, f"{name} / {panel['title']}"
            dotted += bool(found)
    assert dotted > 8


def test_every_recording_rule_has_recorded(watched):
    for rule in RULES:
        numbers = finite(watched.prometheus.over(rule.series.name, watched.window))
        assert numbers, rule.series.name


def test_prometheus_finds_nothing_wrong_with_any_rule(watched):
    groups = watched.prometheus.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) == len(RULES) + sum(rule["type"] == "alerting" for rule in rules)
    assert [rule["name"] for rule in rules if rule["health"] != "ok" or rule.get("lastError")] == []


def _alerts(watched, state):
    series = watched.prometheus.over(f'ALERTS{{alertstate="{state}"}}', watched.window)
    return {one["metric"]["alertname"] for one in series}


def test_what_is_killed_and_replaced_is_seen_and_wakes_nobody(watched):
    assert _alerts(watched, "pending") & {"NoWorker", "CapacityBelowContract", "WorkerBelowStrength"}
    assert _alerts(watched, "firing") <= {UNKNOWN, *SLOW_MACHINE}


def test_recipients_whose_fate_nobody_knows_are_told_at_once(watched):
    unknown = finite(watched.prometheus.over('mail_recipients_total{state="unknown"}', watched.window))
    assert (UNKNOWN in _alerts(watched, "firing")) == (max(unknown) > min(unknown))


def _rows(run, what):
    with (run / "evidence" / f"{what}.jsonl").open() as lines:
        return [json.loads(line) for line in lines]


def test_what_prometheus_shows_are_the_rows_of_that_moment(watched):
    """The whole way: row, exporter, Prometheus. The run goes on behind the moment: each mailbox is read once more."""
    rows = [row for row in _rows(watched.run, "executions") if row["outcome"]]
    (at,) = watched.prometheus.at("max(timestamp(mail_executions_total))", watched.window.end_s)
    # Ended, committed and counted for sure, a second before the scrape; nobody saw the end of one that was killed.
    sure_ns = (float(at["values"][0][1]) - 1) * 1e9
    sure = Counter(row["outcome"] for row in rows if (row["ended_ns"] or sure_ns + 1) <= sure_ns)
    found = watched.prometheus.at("sum by (outcome) (mail_executions_total) > 0", watched.window.end_s)
    shown = {series["metric"]["outcome"]: float(series["values"][0][1]) for series in found}
    assert sum(sure.values()) > len(rows) / 2
    assert all(shown[outcome] >= count for outcome, count in sure.items())
    # On a machine on which nothing was done in time, work went on when the rows had been read.
    if all(row["state"] in JOB_STATES_FINAL for row in _rows(watched.run, "jobs")):
        whole = Counter(row["outcome"] for row in rows)
        assert all(count <= whole[outcome] for outcome, count in shown.items())
