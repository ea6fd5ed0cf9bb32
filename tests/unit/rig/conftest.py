"""A run to play with."""

import shutil
from pathlib import Path

import pytest
from recorded import RUNS


@pytest.fixture
def tiny(tmp_path) -> Path:
    """A copy of the recorded run in which everything is right."""
    return Path(shutil.copytree(RUNS / "tiny", tmp_path / "tiny"))
