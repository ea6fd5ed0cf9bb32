"""Prometheus' own tool reads the shipped rules, proves every alert, and notices when one is broken."""

import shutil
import subprocess

import pytest
import yaml
from prometheus_server import PACKAGE, SHIPPED

from mailboards.alerts import ALERTS


@pytest.fixture
def promtool(program):
    path = program(PACKAGE, "promtool")

    def run(*arguments, folder=SHIPPED):
        argv = [path, *arguments]
        return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "prometheus")


def _told(run):
    return run.stdout + run.stderr


def _change(folder, **values):
    """Every alert is changed alike."""
    file = folder / "alerts.yml"
    rules = yaml.safe_load(file.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.update(values)
    file.write_text(yaml.safe_dump(rules))


def test_the_configuration_and_all_rules_are_read_without_a_complaint(promtool):
    run = promtool("check", "config", "prometheus.yml")
    assert run.returncode == 0, _told(run)
    assert _told(run).count("SUCCESS") == 4
    assert "FAILED" not in _told(run)


def test_every_alert_and_every_recording_is_proven(promtool):
    run = promtool("test", "rules", "rules_test.yml")
    assert run.returncode == 0, _told(run)


def test_an_alert_that_never_fires_is_noticed_whichever_it_is(promtool, copy):
    _change(copy, expr="vector(0) > 1")
    told = _told(promtool("test", "rules", "rules_test.yml", folder=copy))
    assert [alert.name for alert in ALERTS if f"name: {alert.name} fires: " not in told] == []
    assert "is silent: " not in told


def test_an_alert_that_always_fires_is_noticed_whichever_it_is(promtool, copy):
    _change(copy, expr="vector(1) > 0", **{"for": "0m"})
    told = _told(promtool("test", "rules", "rules_test.yml", folder=copy))
    assert [alert.name for alert in ALERTS if f"name: {alert.name} is silent: " not in told] == []


def test_an_alert_that_does_not_wait_is_noticed(promtool, copy):
    _change(copy, **{"for": "0m"})
    told = _told(promtool("test", "rules", "rules_test.yml", folder=copy))
    assert "name: SendsWait is silent: a stall that is over within a minute" in told
    assert "name: WorkerBelowStrength is silent: a killed process is replaced within a minute" in told
    assert "name: HeldAboveSlots is silent: what a killed worker held is given back" in told
    assert "name: SourceAway is silent: one scrape is missed" in told
