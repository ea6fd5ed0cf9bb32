"""The image: who it runs as, what is pinned, and what must not be in it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from email_service import config

ROOT = Path(__file__).parents[3]
LINES = [
    line
    for line in (ROOT / "system" / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def of(instruction):
    return [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == instruction]


def test_the_base_is_one_exact_version_and_never_latest():
    bases = {base.removesuffix(" AS build") for base in of("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", bases.pop())


def test_it_runs_as_a_number_that_is_not_root_and_nothing_follows_as_root():
    (user,) = of("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = LINES[LINES.index(f"USER {user}") :]
    assert not [line for line in after if line.startswith(("RUN", "COPY", "ADD"))]


def test_sigterm_reaches_python_without_a_shell_between():
    assert [ast.literal_eval(line) for line in of("ENTRYPOINT")] == [["python", "-m", "email_service"]]
    assert isinstance(ast.literal_eval(of("CMD")[0]), list)
    assert of("STOPSIGNAL") == ["SIGTERM"]


def test_no_secret_is_baked_in():
    """Settings that have no default are the deployment's to give."""
    given = dict(word.split("=", 1) for line in of("ENV") for word in line.split())
    needed = {variable.name for variable in config.VARIABLES if variable.default is None}
    assert not {name for name in given if re.search("KEY|SECRET|PASSWORD|DATABASE|REDIS", name)}
    assert needed & set(given) <= {"MAIL_BLOB_URL"}
    assert not of("ARG")


def test_what_it_installs_is_pinned_by_the_constraints():
    installs = [line for line in of("RUN") if "pip install" in line]
    assert installs
    assert all("-c constraints.txt" in line for line in installs)


@pytest.mark.parametrize("source", [source for line in of("COPY") for source in line.split()[:-1]])
def test_what_it_copies_is_there(source):
    if not source.startswith(("--from", "/opt")):
        assert (ROOT / source).exists()


def test_celerys_own_command_finds_its_application_in_the_image():
    """``celery -A tasks.celery_app`` looks for ``app`` there; that it works is shown on a live stack."""
    assert "system/docker /app" in of("COPY")
    assert "PYTHONPATH=/app" in " ".join(of("ENV"))
    tree = ast.parse((ROOT / "system" / "docker" / "tasks" / "celery_app.py").read_text())
    assert "app" in {t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets}
