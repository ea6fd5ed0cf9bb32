"""Run folders to report on."""

import shutil
from pathlib import Path

import pytest
from synthetic import MIXED, Builder, write_verdict


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """A judged run with a killed child; nobody writes into it."""
    folder = Builder().write(tmp_path_factory.mktemp("runs") / "synthetic")
    write_verdict(folder, MIXED)
    return folder


@pytest.fixture
def run_dir(built, tmp_path) -> Path:
    """A copy of it to play with."""
    return Path(shutil.copytree(built, tmp_path / "synthetic"))


@pytest.fixture
def restarted(tmp_path) -> Path:
    """A dense run in which the worker's main process was killed too."""
    folder = Builder(sends_per_s=12, syncs_per_s=1, kill_parent=True).write(tmp_path / "restarted")
    write_verdict(folder, MIXED)
    return folder
