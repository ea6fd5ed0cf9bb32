"""Fixtures of the load's tests over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from locust_bench import Bench
from small_api import SmallApi


@pytest.fixture
def api() -> Iterator[SmallApi]:
    with SmallApi() as server:
        yield server


@pytest.fixture
def bench(tmp_path: Path, api: SmallApi) -> Bench:
    return Bench(tmp_path, api)
