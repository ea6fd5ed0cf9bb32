"""The Dockerfile, read and played without Docker: its ports, its files, its entry point, its health check."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fakemail
from fakemail.client import PORTS

ROOT = Path(fakemail.__file__).parents[2]
DEADLINE_S = 30


def instructions():
    """(word, the rest) of each instruction; continued lines joined, comments gone."""
    text = (ROOT / "fakes" / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def last(word):
    """What the last instruction of this word says: that of the image which is kept."""
    return [rest for name, rest in instructions() if name == word][-1]


def words(rest):
    """The exec form, which needs no shell."""
    return json.loads(rest[rest.index("[") :])


@contextlib.contextmanager
def entry_point():
    program, *options = words(last("ENTRYPOINT"))
    assert program == "fakemail"
    # Not beyond this machine, and beside whatever else runs on it.
    options += ["--host", "127.0.0.1", "--free-ports", "--ready-file", "-"]
    command = [sys.executable, "-m", program, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert select.select([process.stdout], [], [], DEADLINE_S)[0], "it is not ready"
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, errors) == (0, b"")


def test_every_port_is_exposed_and_no_other():
    assert [int(port) for port in last("EXPOSE").split()] == list(PORTS.values())


def test_nobody_is_root_in_it():
    user = last("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, for clusters that allow no root"
    assert [name for name, _ in instructions()].index("ENTRYPOINT") > [n for n, _ in instructions()].index("USER")


def test_what_it_copies_is_there_and_all_that_a_wheel_needs():
    copied = [
        path for word, rest in instructions() if word == "COPY" and "--from" not in rest for path in rest.split()[:-1]
    ]
    for path in copied:
        assert (ROOT / path).exists(), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], "pyproject.toml", project["project"]["readme"]]
    needed += project["project"]["license-files"]
    for path in needed:
        assert any(path == each or path.startswith(f"{each}/") for each in copied), f"{path} is not copied"


def test_versions_are_those_that_the_tests_ran_with_and_nothing_is_cached():
    (install,) = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert "-c constraints.txt" in install
    assert "--no-cache-dir" in install


def test_the_entry_point_serves_and_the_health_check_knows():
    program, *code = words(last("HEALTHCHECK"))
    assert program == "python"
    assert code[0] == "-c"
    assert f"127.0.0.1:{PORTS['control']}" in code[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with entry_point() as facts:
        check = code[1].replace(f"http://127.0.0.1:{PORTS['control']}", facts["control"])
        assert subprocess.run([sys.executable, "-c", check], env=environment, check=False).returncode == 0
    done = subprocess.run([sys.executable, "-c", check], env=environment, capture_output=True, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("option", ["--interval", "--timeout", "--retries", "--start-period"])
def test_the_health_check_is_bounded(option):
    assert option in last("HEALTHCHECK")
