"""Compose itself reads the file: for every choice of profiles, and to the same end as the unit tests' reader does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from programs import find_program

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from compose_file import ROOT, enabled, environment, mib, published, read
from compose_rules import CHOICES


@pytest.fixture(scope="module")
def compose():
    """Compose 2 where docker has it, else the program of Debian's package."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return [find_program("docker-compose", "docker-compose")]


def configured(compose, choice, **variables):
    """What it makes of the file."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COMPOSE_", "MAIL_", "DOCKER_"))}
    env = {**kept, "COMPOSE_PROFILES": choice, **variables}
    done = subprocess.run(
        [*compose, "config"], cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, f"profiles {choice!r}: {done.stderr}"
    return yaml.safe_load(done.stdout)["services"]


def _published(service):
    for port in service.get("ports", ()):
        if isinstance(port, str):
            yield from published({"ports": [port.removesuffix("/tcp")]})
        else:
            yield port["host_ip"], str(port["published"]), str(port["target"])


@pytest.mark.parametrize("choice", CHOICES, ids=[choice or "none" for choice in CHOICES])
def test_it_reads_the_file_as_we_do(compose, choice):
    ours, theirs = enabled(read(), choice.split(",")), configured(compose, choice)
    # Compose 1 prints what the profiles leave out as well.
    assert set(ours) <= set(theirs)
    for name, service in ours.items():
        assert service["image"] == theirs[name]["image"]
        assert sorted(_published(service)) == sorted(_published(theirs[name]))
        limit = str(theirs[name]["mem_limit"])
        assert mib(service["mem_limit"]) == (int(limit) / 2**20 if limit.isdecimal() else mib(limit))
        assert environment(service) == environment(theirs[name])
        assert service["restart"] == theirs[name]["restart"]


def test_a_variable_of_the_shell_comes_before_the_file(compose):
    theirs = configured(compose, "fakes", MAIL_OTLP_ENDPOINT="", MAIL_API_PORT="8080", MAIL_SEEDED_WORKERS="0")
    assert environment(theirs["api"])["OTEL_EXPORTER_OTLP_ENDPOINT"] == ""
    assert list(_published(theirs["api"])) == [("127.0.0.1", "8080", "5000")]
    assert int(theirs["worker"].get("scale", theirs["worker"].get("deploy", {}).get("replicas"))) == 0


def test_it_refuses_a_file_that_waits_for_what_is_not_there(compose, tmp_path):
    altered = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    altered["services"]["api"]["depends_on"]["nobody"] = {"condition": "service_started"}
    (tmp_path / "docker-compose.yml").write_text(yaml.safe_dump(altered))
    done = subprocess.run([*compose, "config"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "nobody" in done.stderr
