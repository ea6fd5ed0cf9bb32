"""Every alert has a case in which it fires, one in which it is silent, and a paragraph for whoever is woken."""

import re
import tomllib

import pytest
import yaml
from written import BOARD_FILES, FOLDER, ROOT, alerts, board

from email_service.__main__ import _parser as service_parser
from email_service.config import variables
from mailboards import names
from mailrig.cli import _parser as rig_parser

RUNBOOK = (FOLDER / "RUNBOOK.md").read_text()
SECTIONS = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))
TESTS = yaml.safe_load((FOLDER / "prometheus" / "rules_test.yml").read_text())["tests"]
CONTRACT = tomllib.loads((ROOT / "loadtests" / "contract.toml").read_text())
each_alert = pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])


def _cases(alert):
    return [case for test in TESTS for case in test.get("alert_rule_test", []) if case["alertname"] == alert["alert"]]


def _given(alert):
    """What the alert's cases see, as lists of series."""
    for test in TESTS:
        if any(case["alertname"] == alert["alert"] for case in test.get("alert_rule_test", [])):
            yield [given["series"] for given in test["input_series"]]


@each_alert
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent(alert):
    expected = [bool(case["exp_alerts"]) for case in _cases(alert)]
    assert True in expected
    assert False in expected


@each_alert
def test_an_alert_on_absence_has_a_case_without_the_data(alert):
    for name in re.findall(r"absent\((\w+)", alert["expr"]):
        without = [series for series in _given(alert) if not any(name == s.partition("{")[0] for s in series)]
        assert without or name == "up", f"no case without {name}"


@each_alert
def test_an_alert_says_how_long_how_bad_and_what_to_do(alert):
    assert re.fullmatch(r"\d+m", alert["for"])
    assert alert["labels"]["severity"] in {"warning", "critical"}
    told = alert["annotations"]
    assert told["summary"].endswith(".")
    assert len(told["description"]) > 40
    file, _, anchor = told["runbook_url"].partition("#")
    assert (ROOT / file).is_file()
    assert anchor == alert["alert"].lower()


@each_alert
def test_an_alert_has_its_paragraph_with_a_place_to_look_and_a_way_to_mend(alert):
    text = SECTIONS[alert["alert"]]
    assert "ook at" in text
    assert len(text.split()) > 50


def test_the_runbook_has_no_paragraph_of_an_alert_that_is_gone():
    assert set(SECTIONS) == {alert["alert"] for alert in alerts()}
    anchors = set(re.findall(r"\]\(#(\w+)\)", RUNBOOK))
    assert anchors <= {name.lower() for name in SECTIONS}


def test_each_panel_that_the_runbook_names_exists():
    titles = {board(path)["title"]: {p["title"] for p in board(path)["panels"]} for path in BOARD_FILES}
    references = re.findall(r"\*\*([^*]+)\*\*,\s+panels?\s+((?:\*[^*]+\*(?:,| and)?\s*)+)", RUNBOOK)
    assert len(references) > 15
    for title, named in references:
        for panel in re.findall(r"\*([^*]+)\*", named):
            assert panel in titles[title], f"{title}: {panel}"


def test_each_command_that_the_runbook_names_is_one():
    ours = re.findall(r"python -m email_service ([\w-]+(?: (?!\.)[\w,-]+)*)", RUNBOOK)
    assert len(ours) > 8
    for command in ours:
        service_parser().parse_args(command.split())
    for command in re.findall(r"`mailrig ([^`]+)`", RUNBOOK):
        rig_parser().parse_args(command.split())


def test_each_setting_that_the_runbook_names_exists():
    named = set(re.findall(r"`((?:MAIL|CELERYD|WORKER|TASK|DATABASE|REDIS)_[A-Z_]+)[`=]", RUNBOOK))
    assert len(named) > 6
    assert named <= variables.NAMES


def test_the_numbers_are_those_of_the_contract():
    by_name = {alert["alert"]: alert for alert in alerts()}

    def numbers(name):
        return [float(n) for n in re.findall(r"(?<![\w.])[\d.]+(?![\w.])", by_name[name]["expr"])]

    mib = 2**20
    assert numbers("CapacityBelowContract") == [CONTRACT["worker"]["concurrency"]]
    assert numbers("HeldAboveSlots") == [CONTRACT["worker"]["prefetch_multiplier"]]
    assert int(by_name["HeldAboveSlots"]["for"].rstrip("m")) * 60 > CONTRACT["broker"]["visibility_s"]
    assert numbers("ProcessOverBudget") == [CONTRACT["memory"]["process_mib"] * mib]
    assert CONTRACT["memory"]["total_mib"] * mib in numbers("WorkerMemoryNearLimit")
    assert numbers("QueueBehind") == [CONTRACT["beat"]["periodic_sync_s"]]


def test_the_exporters_target_is_the_one_that_is_watched_for():
    config = yaml.safe_load((FOLDER / "prometheus" / "prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    assert names.EXPORTER_JOB in jobs
    assert set(config["rule_files"]) == {"rules.yml", "alerts.yml"}
    assert config["storage"]["exemplars"]["max_exemplars"] > 0
    assert config["global"]["scrape_interval"] == "5s"


def test_the_dots_on_the_graphs_lead_to_the_jaeger_that_is_provisioned():
    folder = FOLDER / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "datasources.yml").read_text())["datasources"]
    by_type = {source["type"]: source for source in sources}
    (link,) = by_type["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["datasourceUid"] == by_type["jaeger"]["uid"]
    assert link["name"] == "trace_id"
    assert by_type["prometheus"]["isDefault"]
    assert by_type["prometheus"]["jsonData"]["timeInterval"] == "5s"
